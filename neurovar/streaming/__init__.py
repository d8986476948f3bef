"""Covariances of activations that are never all in memory: accumulators fed batch by batch.

    noise = LowRankAccumulator(rank=64)
    for batch in batches:  # (batch, *units)
        noise.update(batch)
    noise.covariance(), noise.mean

What several workers have each accumulated is joined with `merge`, and handed over as files with `save` and `load`.
"""

from neurovar.streaming._accumulator import Accumulator
from neurovar.streaming._exact import DenseAccumulator, DiagonalAccumulator, KroneckerAccumulator
from neurovar.streaming._files import KINDS, load
from neurovar.streaming._hebbian import HebbianNetwork
from neurovar.streaming._low_rank import BoundedEstimate, LowRankAccumulator, LowRankEstimate

__all__ = [
    "KINDS",
    "Accumulator",
    "BoundedEstimate",
    "DenseAccumulator",
    "DiagonalAccumulator",
    "HebbianNetwork",
    "KroneckerAccumulator",
    "LowRankAccumulator",
    "LowRankEstimate",
    "load",
]
