"""Record a network's layers as responses (stimulus, repeat, unit): in memory, batch by batch, or to a Zarr store."""

from neurovar.activations._batches import IMAGE_DIMS, batches
from neurovar.activations._iterating import Batch, iterate
from neurovar.activations._listing import layers
from neurovar.activations._passes import Modification
from neurovar.activations._recording import record
from neurovar.activations._streaming import stream

__all__ = ["IMAGE_DIMS", "Batch", "Modification", "batches", "iterate", "layers", "record", "stream"]
