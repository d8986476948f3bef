"""Accuracy of noisy networks under modifications and attacks, with the correctness of every stimulus kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from neurovar.attacks import pgd
from neurovar.covariance import Covariance
from neurovar.injection import inject
from neurovar.modifications import modify


@dataclass(frozen=True, eq=False)
class NoisyNetwork:
    """A classifier and the noise that it carries: {layer: Covariance}, empty for none."""

    model: nn.Module
    noises: Mapping[str, Covariance] = field(default_factory=dict)


@dataclass(frozen=True)
class Clean:
    """The images as they are."""

    modification: str = "clean"
    strength: float = 0.0

    def apply(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return images


@dataclass(frozen=True)
class Modified:
    """A naturalistic modification (`modifications.modify`) at a strength."""

    modification: str
    strength: int

    def apply(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return modify(images, self.modification, strength=self.strength, generator=generator)


@dataclass(frozen=True)
class PGD:
    """`attacks.pgd` on the network as it is, its noise on: step ε/4, gradients averaged over `n_draws` fresh draws."""

    strength: float
    n_steps: int
    n_draws: int
    n_restarts: int = 1
    modification: str = "pgd"

    def apply(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return pgd(
            network.model,
            images,
            labels,
            epsilon=self.strength,
            step=self.strength / 4,
            n_steps=self.n_steps,
            n_restarts=self.n_restarts,
            n_draws=self.n_draws if network.noises else 1,
            noises=network.noises,
            generator=generator,
        )


Condition = Clean | Modified | PGD


def evaluate(
    network: NoisyNetwork,
    images: xr.DataArray,
    labels: xr.DataArray,
    conditions: Sequence[Condition],
    *,
    rng: int,
    n_draws: int = 10,
    batch_size: int = 50,
) -> xr.DataArray:
    """Whether each stimulus is classified correctly under each condition.

    A prediction is the argmax of the logits summed over `n_draws` noisy passes (one pass without noise), on draws that
    no attack has seen. The modification of an image depends on `rng` and the condition only, not on the network, so
    that networks are compared on the same images.

    Parameters
    ----------
    images : DataArray (stimulus, channel, row, column), float32 in [0, 1]; labels : DataArray (stimulus), int64.
    rng : an integer seed.

    Returns
    -------
    DataArray (condition, stimulus), bool, with coordinates `modification` and `strength` on condition

    Raises
    ------
    ValueError : for images or labels of the wrong form, no condition, or a model in training mode.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801 (prediction from 10 passes)

    Examples
    --------
    >>> from neurovar.training import small_network
    >>> images = xr.DataArray(np.zeros((3, 1, 28, 28), np.float32), dims=("stimulus", "channel", "row", "column"))
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> network = NoisyNetwork(small_network(rng=0).eval())
    >>> evaluate(network, images, labels, [Clean(), Modified("brightness", 3)], rng=0).shape
    (2, 3)
    """
    _check(images, labels, conditions, n_draws)
    if network.model.training:
        raise ValueError("expected a model in eval mode, got training mode; call model.eval()")
    x, y = torch.tensor(images.values.copy()), torch.tensor(labels.values.astype(np.int64))
    device = next(network.model.parameters()).device
    rows = []
    for index, condition in enumerate(conditions):
        generators = [_generator(rng, index, use) for use in (0, 1)]
        correct = []
        for batch, target in zip(x.to(device).split(batch_size), y.to(device).split(batch_size)):
            shown = condition.apply(network, batch, target, generators[0])
            correct.append(_predict(network, shown, n_draws, generators[1]) == target)
        rows.append(torch.cat(correct).cpu().numpy())
    coords = {
        "modification": ("condition", [c.modification for c in conditions]),
        "strength": ("condition", [float(c.strength) for c in conditions]),
        **({"stimulus": images["stimulus"].values} if "stimulus" in images.coords else {}),
    }
    return xr.DataArray(np.stack(rows), dims=("condition", "stimulus"), coords=coords, name="correct")


def _check(images: xr.DataArray, labels: xr.DataArray, conditions: Sequence[Condition], n_draws: int) -> None:
    if not conditions or n_draws < 1:
        raise ValueError(f"expected at least one condition and one draw, got {len(conditions)} and {n_draws}")
    if images.dims != ("stimulus", "channel", "row", "column") or labels.dims != ("stimulus",):
        raise ValueError(
            f"expected images (stimulus, channel, row, column) and labels (stimulus), got {images.dims}, {labels.dims}"
        )
    if len(images) != len(labels):
        raise ValueError(f"expected a label for every image, got {len(labels)} for {len(images)}")
    if not np.array_equal(images["stimulus"], labels["stimulus"]):
        raise ValueError("expected images and labels with the same stimulus ids in the same order, got others")
    if images.dtype != np.float32 or labels.dtype.kind not in "iu":
        raise ValueError(f"expected float32 images and integer labels, got {images.dtype} and {labels.dtype}")


def _generator(*key: int) -> torch.Generator:
    """Seeded by these numbers together, independent of that of any others."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1)


def _predict(network: NoisyNetwork, images: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
    draws = n_draws if network.noises else 1
    with torch.no_grad(), inject(network.model, network.noises, generator=generator, draws=draws):
        logits = network.model(images)
    return logits.view(draws, len(images), -1).sum(0).argmax(1)


def summarise(correct: xr.DataArray, *, rng: np.random.Generator | int, n_bootstrap: int = 1000) -> xr.Dataset:
    """Accuracy of every noise and condition, with 95 % intervals over training seeds and stimuli.

    Parameters
    ----------
    correct : DataArray with dims seed, noise, condition, stimulus, bool.

    Returns
    -------
    Dataset `accuracy`, `low`, `high` (noise, condition)

    Interval: percentiles of a bootstrap that resamples seeds and, crossed with them, stimuli. With few seeds it
    understates their spread (by √((n − 1)/n) in standard error).

    Raises
    ------
    ValueError : if a dim is missing, or the values are not bool.

    Examples
    --------
    >>> correct = xr.DataArray(np.ones((2, 1, 1, 9), bool), dims=("seed", "noise", "condition", "stimulus"))
    >>> summarise(correct, rng=0).accuracy.item()
    1.0
    """
    values = _in_order(correct)
    samples = _bootstrap(values, n_bootstrap, rng)
    return _with_intervals("accuracy", values.mean(("seed", "stimulus")), samples, correct)


def differences(
    correct: xr.DataArray, *, baseline: str, rng: np.random.Generator | int, n_bootstrap: int = 1000
) -> xr.Dataset:
    """Accuracy of every noise minus that of the noise `baseline`, paired by seed and stimulus, with 95 % intervals.

    Parameters, interval and errors as for `summarise`.

    Returns
    -------
    Dataset `difference`, `low`, `high` (noise, condition)

    Examples
    --------
    >>> correct = xr.DataArray(np.ones((2, 2, 1, 9), bool), dims=("seed", "noise", "condition", "stimulus"),
    ...                        coords={"noise": ["none", "v4"]})
    >>> differences(correct, baseline="none", rng=0).difference.values.ravel()
    array([0., 0.], dtype=float32)
    """
    values = _in_order(correct)
    if "noise" not in values.coords or baseline not in values["noise"].values:
        raise ValueError(f"expected a baseline among the noises, got {baseline!r}")
    paired = values - values.sel(noise=baseline, drop=True)
    samples = _bootstrap(paired, n_bootstrap, rng)
    return _with_intervals("difference", paired.mean(("seed", "stimulus")), samples, correct).assign_attrs(
        baseline=baseline
    )


def _in_order(correct: xr.DataArray) -> xr.DataArray:
    if set(correct.dims) != {"seed", "noise", "condition", "stimulus"}:
        raise ValueError(f"expected dims seed, noise, condition and stimulus, got {correct.dims}")
    if correct.dtype != bool:
        raise ValueError(f"expected correctness as bool, got {correct.dtype}")
    return correct.transpose("seed", "noise", "condition", "stimulus").astype(np.float32)


def _bootstrap(values: xr.DataArray, n_bootstrap: int, rng: np.random.Generator | int) -> np.ndarray:
    """Means over resampled seeds, crossed with resampled stimuli: (bootstrap, noise, condition)."""
    rng = np.random.default_rng(rng)
    seeds, stimuli = (
        rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float32) / n
        for n in (values.sizes["seed"], values.sizes["stimulus"])
    )
    return np.einsum("be,enct,bt->bnc", seeds, values.values, stimuli, optimize=True)


def _with_intervals(name: str, mean: xr.DataArray, samples: np.ndarray, correct: xr.DataArray) -> xr.Dataset:
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    sizes = f"{correct.sizes['seed']} training seeds × {correct.sizes['stimulus']} stimuli"
    return xr.Dataset(
        {name: mean, "low": mean.copy(data=low), "high": mean.copy(data=high)},
        attrs={"interval": f"95 %, bootstrap over {sizes}"},
    )
