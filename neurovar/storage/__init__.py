"""Keep responses in Zarr, without loss and chunked over stimuli, so that a recording larger than memory opens at once.

A store is a folder of Zarr format 2, which `xarray.open_zarr` reads too. What that format has no place for (the types
of attributes, which coordinates are indexes, texts that were objects) is in the attribute `neurovar` of its group, as
JSON.
"""

from neurovar.storage._form import CHUNK_BYTES, chunk_shape
from neurovar.storage._growing import Growing, grow
from neurovar.storage._opening import open_zarr
from neurovar.storage._writing import save

__all__ = ["CHUNK_BYTES", "Growing", "chunk_shape", "grow", "open_zarr", "save"]
