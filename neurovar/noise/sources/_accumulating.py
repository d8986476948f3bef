"""Deviations from batches of activations to covariances."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import Batch, Origin, forward_hooks
from neurovar.noise._structures import accumulator, estimated
from neurovar.noise.sources._source import NoiseSource
from neurovar.noise.streaming._accumulator import Accumulator
from neurovar.statistics import LowRank, Structure


class Accumulators:
    """An accumulator for each layer, fed with rows whose scatter is wanted."""

    def __init__(self, layers: Sequence[str], structure: Structure, *, about_zero: bool) -> None:
        self.layers, self.structure, self.about_zero = list(layers), structure, about_zero
        self.of: dict[str, Accumulator] = {layer: accumulator(structure, about_zero=about_zero) for layer in layers}

    def take(self, model: nn.Module, batches: Iterable[Batch], rows: Callable[[Batch, str], Tensor]) -> int:
        """Feed the rows of every batch and layer, (row, unit), and give the number of stimuli."""
        n_stimuli, shapes = 0, dict[str, tuple[int, ...]]()

        def shape_keeper(layer: str) -> Callable[..., None]:
            def keep(module: nn.Module, args: object, output: object) -> None:
                if isinstance(output, Tensor):
                    shapes[layer] = tuple(output.shape[1:])

            return keep

        # Activations come flattened; the shape of one stimulus, which a Kronecker product needs, comes by hooks.
        with forward_hooks(model, {layer: shape_keeper(layer) for layer in self.layers}):
            for batch in batches:
                n_stimuli += len(batch.stimulus)
                for layer, sums in self.of.items():
                    sums.update(rows(batch, layer).unflatten(1, shapes[layer]))
        return n_stimuli

    def sources(
        self, model: nn.Module, origin: Origin, *, n_samples: int, dof: int, ridge: float = 0.0
    ) -> dict[str, NoiseSource]:
        """Each layer's covariance Σ(row rowᵀ) / dof + ridge · I, and where it is from."""
        if isinstance(self.structure, LowRank) and dof < self.structure.rank:
            rank = self.structure.rank
            raise ValueError(f"expected at least {rank} degrees of freedom for rank {rank}, got {dof}")
        sources = {}
        for layer, sums in self.of.items():
            noise, error = estimated(sums)
            # About zero, an accumulator divides by its number of rows; these have lost some to the means taken off.
            factor = sums.n_samples / dof if self.about_zero else 1.0
            if factor != 1:
                noise, error = factor * noise, factor * error
            if ridge:
                noise = noise + Diagonal(torch.full_like(sums.mean, ridge))
            sources[layer] = NoiseSource(
                noise=noise,
                mean_shift=torch.zeros_like(sums.mean) if self.about_zero else sums.mean,
                origin=origin,
                structure=self.structure,
                model=type(model).__name__,
                layer=layer,
                n_samples=n_samples,
                dof=dof,
                ridge=ridge,
                error=error,
            )
        return sources
