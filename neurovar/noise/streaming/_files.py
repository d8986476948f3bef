"""Accumulators from files."""

from pathlib import Path

import torch

from neurovar.covariance import read_tensors
from neurovar.noise.streaming._accumulator import VERSION, Accumulator
from neurovar.noise.streaming._exact import DenseAccumulator, DiagonalAccumulator, KroneckerAccumulator
from neurovar.noise.streaming._hebbian import HebbianNetwork
from neurovar.noise.streaming._low_rank import LowRankAccumulator

KINDS: dict[str, type[Accumulator]] = {
    kind.__name__: kind
    for kind in (DenseAccumulator, DiagonalAccumulator, HebbianNetwork, KroneckerAccumulator, LowRankAccumulator)
}


def load_accumulator(path: str | Path, *, device: str | torch.device = "cpu") -> Accumulator:
    """Read what `Accumulator.save` wrote, to take in more batches or to merge; never unpickles.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    device : str or torch.device, optional
        Where the sums are put, and so where the batches have to be.

    Returns
    -------
    Accumulator
        Of the type that was saved, with its settings, and as many samples.

    Raises
    ------
    ValueError
        If the file is missing, not safetensors, or holds no accumulator.

    Examples
    --------
    >>> import tempfile
    >>> from neurovar.noise import DiagonalAccumulator
    >>> variances = DiagonalAccumulator()
    >>> variances.update(torch.ones(4, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     variances.save(folder + "/worker.safetensors")
    ...     load_accumulator(folder + "/worker.safetensors").n_samples
    4
    """
    with read_tensors(path, "an accumulator", name="neurovar_streaming", version=VERSION, device=device) as (
        header,
        tensors,
    ):
        accumulator = KINDS[header["kind"]](**header["settings"])
        accumulator._restore(header["n_samples"], tuple(header["unit_shape"]), tensors)
        return accumulator
