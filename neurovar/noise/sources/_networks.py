"""Noise structure from a network's responses, streamed batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neurovar._values import Value
from neurovar.networks import Batch, NoisyNetwork, Origin, check_evaluation_mode, iterate
from neurovar.noise.sources._accumulating import Accumulators
from neurovar.noise.sources._source import NoiseSource
from neurovar.statistics import Structure

Loader = Iterable[Any]


class Modification(Protocol):
    """What changes images, such as `networks.Brightness(3)`."""

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor: ...


class Attack(Protocol):
    """What attacks a network, such as `robustness.PGD(0.1)`: a value that says how strong it is."""

    @property
    def epsilon(self) -> float: ...
    @property
    def norm(self) -> str: ...
    def __call__(
        self, network: NoisyNetwork, images: Tensor, labels: Tensor, *, generator: torch.Generator
    ) -> Tensor: ...


def modified(
    model: nn.Module,
    batches: Loader,
    modification: Modification,
    *,
    layers: Sequence[str],
    structure: Structure,
    ridge: float = 0.0,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's response to modified images about that to clean ones; the mean shift stands beside it.

    d = activation(modified) − activation(clean), one row an image; the mean shift is the mean of d, and
    C = cov(d) + ridge·I with divisor n − 1, unbiased. `statistics.deviation_covariance` is the same of activations in
    memory, where `LowRank` has the exact principal components instead of a sketch.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, so that the modification is all that differs.
    batches : iterable
        Any loader of images that `networks.iterate` takes; `images.split(64)` will do.
    modification : callable
        (images, generator=…) → images, such as `networks.MotionBlur(3)`.
    layers : sequence of str
        Names as in `model.named_modules()`.
    structure : Structure
        `Full()`, `DiagonalOnly()`, `LowRank(rank)` or `KroneckerProduct()`.
    ridge : float, optional
        Variance added to every unit; 1e-4 in Preble et al. 2026. A Kronecker product becomes a `Sum`.
    rng : numpy.random.Generator or int
        For what is random in the modification.

    Returns
    -------
    dict of str to NoiseSource
        Layer → its noise, over the layer's flattened outputs.

    Raises
    ------
    ValueError
        For what is no structure, a rank that does not fit, a negative ridge, a model in training mode, fewer than 2
        images, a matrix that would not fit into memory, or batches, layers or activations that
        `networks.iterate` refuses.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> from neurovar.statistics import Full
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> noises = modified(model, images.split(8), lambda x, generator: 1 - x, layers=["1"], structure=Full(), rng=0)
    >>> noises["1"].noise.n, noises["1"].mean_shift.shape, noises["1"].dof
    (3, torch.Size([3]), 19)
    """
    of = str(modification) if isinstance(modification, Value) else _name(modification)

    def shown(images: Tensor, generator: torch.Generator) -> Tensor:
        return modification(images, generator=generator)

    return _from_clean(model, batches, shown, Origin("modified", of=of), layers, structure, ridge, rng)


def attacked(
    network: NoisyNetwork,
    batches: Loader,
    attack: Attack,
    *,
    layers: Sequence[str],
    structure: Structure,
    ridge: float = 0.0,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's response to attacked images about that to clean ones: `modified`, with an attack that knows labels.

    The attack sees the network with its noise; d is between responses of its model without noise. The origin says which
    attack it was, of which ε and norm, so that `robustness.honesty` can tell whether other attacks were as strong.

    Parameters
    ----------
    network : NoisyNetwork
        The classifier that is attacked, such as `NoisyNetwork(model, images=images)`.
    batches : iterable
        A loader of (images, labels), or of mappings with "image" and "label".
    attack : callable
        (network, images, labels, generator=…) → images, with an `epsilon` and a `norm`, such as `robustness.PGD(0.1)`.
    layers : sequence of str
        Names as in `model.named_modules()`.
    structure : Structure
        `Full()`, `DiagonalOnly()`, `LowRank(rank)` or `KroneckerProduct()`.
    ridge : float, optional
        Variance added to every unit; 1e-4 in Preble et al. 2026. A Kronecker product becomes a `Sum`.
    rng : numpy.random.Generator or int
        For what is random in the attack.

    Returns
    -------
    dict of str to NoiseSource
        Layer → its noise, over the layer's flattened outputs.

    Raises
    ------
    ValueError
        For what is no structure, a rank that does not fit, a negative ridge, batches without labels, fewer than 2
        images, a matrix that would not fit into memory, or batches, layers or activations that
        `networks.iterate` refuses.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from neurovar.statistics import DiagonalOnly
    >>> @dataclass(frozen=True)
    ... class Darker:
    ...     epsilon: float
    ...     norm: str = "linf"
    ...     def __call__(self, network, images, labels, *, generator):
    ...         return (images - self.epsilon).clamp(min=0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> batches = zip(images.split(8), (torch.arange(20) % 3).split(8))
    >>> network = NoisyNetwork(model, images=images)
    >>> noises = attacked(network, batches, Darker(0.1), layers=["1"], structure=DiagonalOnly(), rng=0)
    >>> str(noises["1"].origin), noises["1"].noise.n
    ("Origin(method='attacked', of='Darker', epsilon=0.1, norm='linf')", 3)
    """
    current: list[Tensor] = []

    def shown(images: Tensor, generator: torch.Generator) -> Tensor:
        return attack(network, images, current[-1].to(images.device), generator=generator)

    origin = Origin(
        "attacked", of=getattr(attack, "name", type(attack).__name__), epsilon=attack.epsilon, norm=str(attack.norm)
    )
    loader = _remembering_labels(batches, current)
    return _from_clean(network.model, loader, shown, origin, layers, structure, ridge, rng)


def stochastic(
    model: nn.Module,
    batches: Loader,
    *,
    layers: Sequence[str],
    n_repeats: int,
    structure: Structure,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's deviation from its mean over repeated passes: dropout, injected noise, any stochastic network.

    d = activation − mean over the passes of the same image; C = Σ d dᵀ / Σ(R − 1): unbiased for the covariance within
    images, pooled over them.

    Parameters
    ----------
    model : torch.nn.Module
        In the mode that makes it stochastic: `model.train()` for dropout, within `networks.inject` for noise.
    batches : iterable
        Any loader of images that `networks.iterate` takes; `images.split(64)` will do.
    layers : sequence of str
        Names as in `model.named_modules()`.
    n_repeats : int
        R, passes over every image.
    structure : Structure
        `Full()`, `DiagonalOnly()`, `LowRank(rank)` or `KroneckerProduct()`.
    rng : numpy.random.Generator or int
        For what is random in the passes.

    Returns
    -------
    dict of str to NoiseSource
        Layer → its noise, over the layer's flattened outputs; the mean shift is zero.

    Raises
    ------
    ValueError
        For fewer than 2 repeats, a layer whose passes are all the same (as before the first dropout: what is left of
        its deviations would be rounding), what is no structure, a rank that does not fit, a matrix that would not fit
        into memory, or batches, layers or activations that `networks.iterate` refuses.

    Examples
    --------
    >>> from neurovar.statistics import Full
    >>> model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    >>> batches = torch.ones(100, 1, 2, 1).split(50)
    >>> noises = stochastic(model, batches, layers=["1"], n_repeats=5, structure=Full(), rng=0)
    >>> noises["1"].dof, noises["1"].noise.diagonal().round()  # 0 or 2, each half of the time
    (400, tensor([1., 1.]))
    """
    if n_repeats < 2:
        raise ValueError(f"expected at least 2 repeats, got {n_repeats}")
    noises = Accumulators(layers, structure, about_zero=True)
    silent = set(layers)

    def deviations(batch: Batch, layer: str) -> Tensor:
        values = batch.activations[layer]
        if layer in silent and (values != values[:, :1]).any():
            silent.remove(layer)
        return (values - values.mean(1, keepdim=True)).flatten(0, 1)

    passes = iterate(model, batches, layers=layers, n_repeats=n_repeats, rng=rng)
    n_images = noises.take(model, passes, deviations)
    if silent:
        raise ValueError(f"expected passes that differ at layer {min(silent)!r}, got the same responses each time")
    dof = n_images * (n_repeats - 1)
    return noises.sources(model, Origin("stochastic"), n_samples=n_images * n_repeats, dof=dof)


def within_class(
    model: nn.Module,
    batches: Loader,
    *,
    layers: Sequence[str],
    structure: Structure,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's deviation from the mean response to images of the same class.

    d = activation − mean over the class; C = Σ d dᵀ / (n − classes): unbiased for a covariance that classes share. One
    pass over the batches: the class means are kept, classes × units numbers, and moved with every batch.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, so that images are all that differs.
    batches : iterable
        A loader of (images, labels), or of mappings with "image" and "label".
    layers : sequence of str
        Names as in `model.named_modules()`.
    structure : Structure
        `Full()`, `DiagonalOnly()`, `LowRank(rank)` or `KroneckerProduct()`.
    rng : numpy.random.Generator or int
        For what is random in the network.

    Returns
    -------
    dict of str to NoiseSource
        Layer → its noise, over the layer's flattened outputs; the mean shift is zero.

    Raises
    ------
    ValueError
        For batches without labels, no more images than classes, a model in training mode, what is no structure, a rank
        that does not fit, a matrix that would not fit into memory, or batches, layers or activations that
        `networks.iterate` refuses.

    Examples
    --------
    >>> from neurovar.statistics import DiagonalOnly
    >>> model = nn.Sequential(nn.Flatten()).eval()
    >>> images, labels = torch.tensor([0.0, 2.0, 10.0, 14.0]).view(4, 1, 1, 1), torch.tensor([0, 0, 1, 1])
    >>> noises = within_class(model, [(images, labels)], layers=["0"], structure=DiagonalOnly(), rng=0)
    >>> noises["0"].noise.diagonal()  # (1 + 1 + 4 + 4) / (4 − 2)
    tensor([5.])
    """
    check_evaluation_mode(model)
    noises = Accumulators(layers, structure, about_zero=True)
    classes = {layer: _Classes() for layer in layers}

    def deviations(batch: Batch, layer: str) -> Tensor:
        if "label" not in batch.labels:
            raise _unlabelled(f"labels {list(batch.labels)}")
        return classes[layer].deviations(batch.activations[layer][:, 0], batch.labels["label"])

    n_images = noises.take(model, iterate(model, batches, layers=layers, rng=rng), deviations)
    n_classes = len(classes[layers[0]].counts)
    if n_images <= n_classes:
        raise ValueError(f"expected more images than classes, got {n_images} of {n_classes} classes")
    return noises.sources(model, Origin("within_class"), n_samples=n_images, dof=n_images - n_classes)


def _from_clean(
    model: nn.Module,
    batches: Loader,
    shown: Callable[[Tensor, torch.Generator], Tensor],
    origin: Origin,
    layers: Sequence[str],
    structure: Structure,
    ridge: float,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """The difference between two repeats, one clean and one as `shown`."""
    check_evaluation_mode(model)
    if not 0 <= ridge < np.inf:
        raise ValueError(f"expected a finite ridge of at least 0, got {ridge}")
    noises = Accumulators(layers, structure, about_zero=False)
    both = {"clean": lambda images, generator: images, "shown": shown}

    def deviations(batch: Batch, layer: str) -> Tensor:
        clean, other = batch.activations[layer].unbind(1)
        return other - clean

    n_images = noises.take(model, iterate(model, batches, layers=layers, modifications=both, rng=rng), deviations)
    return noises.sources(model, origin, n_samples=n_images, dof=n_images - 1, ridge=ridge)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


class _Classes:
    """The running mean of each class."""

    def __init__(self) -> None:
        self.means: dict[Any, Tensor] = {}
        self.counts: dict[Any, int] = {}

    def deviations(self, values: Tensor, labels: np.ndarray) -> Tensor:
        """Rows whose Σ row rowᵀ is what these values (stimulus, unit) add to the scatter about the class means.

        Those from the batch's class mean, and √(n₁n₂/(n₁ + n₂)) of the step from the mean before (Chan et al. 1983).
        """
        rows = []
        for label in np.unique(labels).tolist():
            members = values[torch.from_numpy(labels == label).to(values.device)]
            n, before, mean = len(members), self.counts.get(label, 0), members.mean(0)
            step = mean - self.means.get(label, mean)
            rows += [members - mean, step[None] * (before * n / (before + n)) ** 0.5]
            self.means[label] = mean - step * (before / (before + n))
            self.counts[label] = before + n
        return torch.cat(rows)


def _remembering_labels(batches: Loader, current: list[Tensor]) -> Iterator[Any]:
    """The batches; the labels of the one that was read last stand in `current`."""
    for batch in batches:
        match batch:
            case {"label": labels}:
                current[:] = [torch.as_tensor(labels)]
            case [_, labels]:
                current[:] = [torch.as_tensor(labels)]
            case _:
                raise _unlabelled(type(batch).__name__)
        yield batch


def _unlabelled(got: str) -> ValueError:
    return ValueError(f"expected batches of (images, labels) or with 'image' and 'label', got {got}")
