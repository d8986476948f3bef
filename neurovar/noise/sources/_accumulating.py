"""Deviations from batches of activations to covariances."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance, Diagonal
from neurovar.networks import Batch, find_layers
from neurovar.noise.sources._source import NoiseSource
from neurovar.noise.streaming._accumulator import Accumulator
from neurovar.noise.streaming._exact import DenseAccumulator, DiagonalAccumulator, KroneckerAccumulator
from neurovar.noise.streaming._low_rank import LowRankAccumulator

KINDS = ("dense", "diagonal", "kronecker", "low_rank")


class Accumulators:
    """An accumulator for each layer, fed with rows whose scatter is wanted."""

    def __init__(self, layers: Sequence[str], kind: str, rank: int | None, *, about_zero: bool) -> None:
        if kind not in KINDS or (rank is not None) != (kind == "low_rank"):
            raise ValueError(f"expected kind one of {KINDS}, 'low_rank' with a rank, got {kind!r} and rank {rank}")
        self.layers, self.kind, self.rank, self.about_zero = list(layers), kind, rank, about_zero
        self.of = {layer: self._new() for layer in layers}

    def _new(self) -> Accumulator:
        if self.rank is not None:
            return LowRankAccumulator(rank=self.rank, about_zero=self.about_zero)
        if self.kind == "dense":
            return DenseAccumulator(about_zero=self.about_zero)
        if self.kind == "diagonal":
            return DiagonalAccumulator(about_zero=self.about_zero)
        return KroneckerAccumulator(about_zero=self.about_zero)

    def take(self, model: nn.Module, batches: Iterable[Batch], rows: Callable[[Batch, str], Tensor]) -> int:
        """Feed the rows of every batch and layer, (row, unit), and give the number of stimuli."""
        n_stimuli = 0
        with _shapes(model, self.layers) as shapes:
            for batch in batches:
                n_stimuli += len(batch.stimulus)
                for layer, accumulator in self.of.items():
                    accumulator.update(rows(batch, layer).unflatten(1, shapes[layer]))
        return n_stimuli

    def sources(self, *, dof: int, ridge: float = 0.0, **attrs: Any) -> dict[str, NoiseSource]:
        """The covariances Σ(row rowᵀ) / dof + ridge·I, and their origin."""
        if self.rank is not None and dof < self.rank:
            raise ValueError(f"expected at least {self.rank} degrees of freedom for rank {self.rank}, got {dof}")
        attrs |= {"kind": self.kind, "dof": dof} | ({"rank": self.rank} if self.rank is not None else {})
        return {layer: self._source(layer, attrs | {"layer": layer}, ridge) for layer in self.layers}

    def _source(self, layer: str, attrs: dict[str, Any], ridge: float) -> NoiseSource:
        accumulator = self.of[layer]
        factor = accumulator.n_samples / attrs["dof"] if self.about_zero else 1.0
        if isinstance(accumulator, LowRankAccumulator):
            estimate = accumulator.estimate()
            noise: Covariance = estimate.covariance
            error = factor * estimate.error_bound
        else:
            noise, error = accumulator.covariance(), 0.0 if self.kind == "dense" else np.nan
        if factor != 1:
            noise = factor * noise
        if ridge:
            noise = noise + Diagonal(torch.full_like(accumulator.mean, ridge))
            attrs |= {"ridge": ridge}
        mean = torch.zeros_like(accumulator.mean) if self.about_zero else accumulator.mean
        return NoiseSource(noise, mean, attrs | {"error": error})


@contextmanager
def _shapes(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, tuple[int, ...]]]:
    """A dict that forward passes fill with the shapes of the layers' outputs for one stimulus."""
    shapes: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        for name, module in find_layers(model, layers).items():
            stack.callback(module.register_forward_hook(_shape_keeper(name, shapes)).remove)
        yield shapes


def _shape_keeper(layer: str, shapes: dict[str, tuple[int, ...]]) -> Callable[..., None]:
    def keep(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[layer] = tuple(output.shape[1:])

    return keep
