"""Accumulators from files."""

from pathlib import Path

import torch

from neurovar.covariance import _files
from neurovar.noise.streaming._accumulator import VERSION, Accumulator
from neurovar.noise.streaming._exact import DenseAccumulator, DiagonalAccumulator, KroneckerAccumulator
from neurovar.noise.streaming._hebbian import HebbianNetwork
from neurovar.noise.streaming._low_rank import LowRankAccumulator

KINDS: dict[str, type[Accumulator]] = {
    kind.__name__: kind
    for kind in (DenseAccumulator, DiagonalAccumulator, HebbianNetwork, KroneckerAccumulator, LowRankAccumulator)
}


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Accumulator:
    """Read what `Accumulator.save` wrote, to take in more batches or to merge; never unpickles.

    Raises
    ------
    ValueError : if the file is missing, not safetensors, or holds no accumulator.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected a file of an accumulator, found none at {path}")
    try:
        header, tensors = _files.read(path, "neurovar_streaming", version=VERSION, device=device)
        accumulator = KINDS[header["kind"]](**header["settings"])
        accumulator._restore(header["n_samples"], tuple(header["unit_shape"]), tensors)
    except Exception as error:
        raise ValueError(f"expected an accumulator saved by neurovar, could not read {path}: {error!r}") from error
    return accumulator
