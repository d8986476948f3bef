"""Accumulators from files."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from neurovar.streaming._accumulator import Accumulator
from neurovar.streaming._exact import DenseAccumulator, DiagonalAccumulator, KroneckerAccumulator
from neurovar.streaming._hebbian import HebbianNetwork
from neurovar.streaming._low_rank import LowRankAccumulator

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
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("neurovar_streaming", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        accumulator = KINDS[header["kind"]](**header["settings"])
        accumulator._restore(header["n_samples"], tuple(header["unit_shape"]), tensors)
    except Exception as error:
        raise ValueError(f"expected an accumulator saved by neurovar, could not read {path}: {error!r}") from error
    return accumulator
