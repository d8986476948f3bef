"""Noise structure from a network's responses, streamed batch by batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurovar._values import Value
from neurovar.networks import Batch, iterate
from neurovar.noise.sources._accumulating import Accumulators
from neurovar.noise.sources._source import NoiseSource

Loader = Iterable[Any]


def modified(
    model: nn.Module,
    batches: Loader,
    modification: Callable[..., Tensor],
    *,
    layers: Sequence[str],
    kind: str,
    rank: int | None = None,
    ridge: float = 0.0,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's response to modified images about that to clean ones; the mean shift stands beside it.

    d = activation(modified) − activation(clean), one row an image; the mean shift is the mean of d, and
    C = cov(d) + ridge·I with divisor n − 1, unbiased. `statistics.deviation_covariance` is the same of activations in
    memory, where "low_rank" has the exact principal components instead of a sketch.

    Parameters
    ----------
    model : in eval mode, so that the modification is all that differs.
    batches : any loader of images, as for `networks.iterate`; `images.split(64)` will do.
    modification : (images, generator=…) → images, such as `networks.MotionBlur(3)`.
    layers : names as in `model.named_modules()`.
    ridge : variance added to every unit; 1e-4 in Preble et al. 2026. A "kronecker" covariance becomes a `Sum`.

    Returns
    -------
    layer → NoiseSource, over the layer's flattened outputs

    Raises
    ------
    ValueError : for another kind or a rank that does not fit, a negative ridge, a model in training mode, fewer than 2
        images, a matrix that would not fit into memory, or what `networks.iterate` refuses.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> noises = modified(model, images.split(8), lambda x, generator: 1 - x, layers=["1"], kind="dense", rng=0)
    >>> noises["1"].noise.n, noises["1"].mean_shift.shape, noises["1"].attrs["dof"]
    (3, torch.Size([3]), 19)
    """

    def shown(images: Tensor, generator: torch.Generator) -> Tensor:
        return modification(images, generator=generator)

    attrs = {"source": "modified minus clean", "modification": _name(modification)}
    return _from_clean(model, batches, shown, attrs, layers, kind, rank, ridge, rng)


def attacked(
    model: nn.Module,
    batches: Loader,
    attack: Callable[..., Tensor],
    *,
    layers: Sequence[str],
    kind: str,
    rank: int | None = None,
    ridge: float = 0.0,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's response to attacked images about that to clean ones: `modified`, with an attack that knows labels.

    Parameters
    ----------
    batches : a loader of (images, labels), or of mappings with "image" and "label".
    attack : (model, images, labels, generator=…) → images, such as `partial(robustness.pgd, epsilon=0.1, step=0.025,
        n_steps=40)`.

    The others, what is returned and what is raised as for `modified`; also ValueError for batches without labels.

    Examples
    --------
    >>> from functools import partial
    >>> from neurovar import robustness
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> images = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> batches = zip(images.split(8), (torch.arange(20) % 3).split(8))
    >>> noises = attacked(model, batches, partial(robustness.fgm, epsilon=0.1), layers=["1"], kind="diagonal", rng=0)
    >>> noises["1"].attrs["source"], noises["1"].noise.n
    ('attacked minus clean', 3)
    """
    current: list[Tensor] = []

    def shown(images: Tensor, generator: torch.Generator) -> Tensor:
        return attack(model, images, current[-1].to(images.device), generator=generator)

    loader = _remembering_labels(batches, current)
    attrs = {"source": "attacked minus clean", "modification": _name(attack)}
    return _from_clean(model, loader, shown, attrs, layers, kind, rank, ridge, rng)


def stochastic(
    model: nn.Module,
    batches: Loader,
    *,
    layers: Sequence[str],
    n_repeats: int,
    kind: str,
    rank: int | None = None,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's deviation from its mean over repeated passes: dropout, injected noise, any stochastic network.

    d = activation − mean over the passes of the same image; C = Σ d dᵀ / Σ(R − 1): unbiased for the covariance within
    images, pooled over them.

    Parameters
    ----------
    model : in the mode that makes it stochastic: `model.train()` for dropout, within `networks.inject` for noise.
    n_repeats : R, passes over every image.

    The others, and what is returned, as for `modified`; the mean shift is zero.

    Raises
    ------
    ValueError : for fewer than 2 repeats, a layer whose passes are all the same (as before the first dropout: what is
        left of its deviations would be rounding), and as for `modified`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    >>> noises = stochastic(model, torch.ones(100, 1, 2, 1).split(50), layers=["1"], n_repeats=5, kind="dense", rng=0)
    >>> noises["1"].attrs["dof"], noises["1"].noise.diagonal().round()  # 0 or 2, each half of the time
    (400, tensor([1., 1.]))
    """
    if n_repeats < 2:
        raise ValueError(f"expected at least 2 repeats, got {n_repeats}")
    noises = Accumulators(layers, kind, rank, about_zero=True)
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
    return noises.sources(
        dof=n_images * (n_repeats - 1),
        n_samples=n_images * n_repeats,
        model=type(model).__name__,
        source="stochastic passes",
    )


def within_class(
    model: nn.Module,
    batches: Loader,
    *,
    layers: Sequence[str],
    kind: str,
    rank: int | None = None,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """Each layer's deviation from the mean response to images of the same class.

    d = activation − mean over the class; C = Σ d dᵀ / (n − classes): unbiased for a covariance that classes share. One
    pass over the batches: the class means are kept, classes × units numbers, and moved with every batch.

    Parameters
    ----------
    model : in eval mode, so that images are all that differs.
    batches : a loader of (images, labels), or of mappings with "image" and "label".

    The others, and what is returned, as for `modified`; the mean shift is zero.

    Raises
    ------
    ValueError : for batches without labels, no more images than classes, and as for `modified`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten()).eval()
    >>> images, labels = torch.tensor([0.0, 2.0, 10.0, 14.0]).view(4, 1, 1, 1), torch.tensor([0, 0, 1, 1])
    >>> noises = within_class(model, [(images, labels)], layers=["0"], kind="diagonal", rng=0)
    >>> noises["0"].noise.diagonal()  # (1 + 1 + 4 + 4) / (4 − 2)
    tensor([5.])
    """
    _require_eval(model)
    noises = Accumulators(layers, kind, rank, about_zero=True)
    classes = {layer: _Classes() for layer in layers}

    def deviations(batch: Batch, layer: str) -> Tensor:
        if "label" not in batch.labels:
            raise _unlabelled(f"labels {list(batch.labels)}")
        return classes[layer].deviations(batch.activations[layer][:, 0], batch.labels["label"])

    n_images = noises.take(model, iterate(model, batches, layers=layers, rng=rng), deviations)
    n_classes = len(classes[layers[0]].counts)
    if n_images <= n_classes:
        raise ValueError(f"expected more images than classes, got {n_images} of {n_classes} classes")
    return noises.sources(
        dof=n_images - n_classes, n_samples=n_images, model=type(model).__name__, source="within class"
    )


def _from_clean(
    model: nn.Module,
    batches: Loader,
    shown: Callable[[Tensor, torch.Generator], Tensor],
    attrs: dict[str, str],
    layers: Sequence[str],
    kind: str,
    rank: int | None,
    ridge: float,
    rng: np.random.Generator | int,
) -> dict[str, NoiseSource]:
    """The difference between two repeats, one clean and one as `shown`."""
    _require_eval(model)
    if not 0 <= ridge < np.inf:
        raise ValueError(f"expected a finite ridge of at least 0, got {ridge}")
    noises = Accumulators(layers, kind, rank, about_zero=False)
    both = {"clean": lambda images, generator: images, "shown": shown}

    def deviations(batch: Batch, layer: str) -> Tensor:
        clean, other = batch.activations[layer].unbind(1)
        return other - clean

    n_images = noises.take(model, iterate(model, batches, layers=layers, modifications=both, rng=rng), deviations)
    return noises.sources(dof=n_images - 1, ridge=ridge, n_samples=n_images, model=type(model).__name__, **attrs)


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


def _name(function: Callable[..., Any]) -> str:
    """A value's text; a function's name, with what `functools.partial` has bound."""
    if isinstance(function, Value):
        return str(function)
    if not isinstance(function, partial):
        return getattr(function, "__name__", type(function).__name__)
    bound = [*map(repr, function.args), *(f"{name}={value!r}" for name, value in function.keywords.items())]
    return f"{_name(function.func)}({', '.join(bound)})"


def _require_eval(model: nn.Module) -> None:
    if model.training:
        raise ValueError("expected a model in eval mode, got training mode; call model.eval()")


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
