"""Whether each stimulus is classified correctly: noises × training seeds × noise seeds × conditions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
import xarray as xr
from joblib import Parallel, delayed, parallel_config
from torch import nn

from neurovar._provenance import provenance
from neurovar.covariance import Covariance
from neurovar.robustness.evaluation import _networks
from neurovar.robustness.evaluation._cell import Cell, Outcome, look, outcome
from neurovar.robustness.evaluation._conditions import Attack, Clean, Condition, Modified, coordinates
from neurovar.robustness.evaluation._diagnostics import Gradients
from neurovar.robustness.evaluation._networks import Networks
from neurovar.robustness.evaluation._result import DIMS

IMAGE_DIMS = ("stimulus", "channel", "row", "column")
Advance = Callable[[int], object]


def evaluate(
    model: nn.Module | Networks,
    images: xr.DataArray,
    labels: xr.DataArray,
    *,
    seeds: Sequence[int],
    noises: Mapping[str, Mapping[str, Covariance]] | None = None,
    modifications: Sequence[Modified] = (),
    attacks: Sequence[Attack] = (),
    twin: Sequence[nn.Module] | None = None,
    independent: Sequence[nn.Module] | None = None,
    draws: Sequence[int] = (1, 10, 100),
    batch_size: int = 50,
    n_jobs: int = 1,
    advance: Advance | None = None,
) -> xr.Dataset:
    """Which stimuli are classified correctly: by each noise, on clean images, under modifications and under attacks.

    Every noise seed draws modifications, attacks and predictions anew. Predictions are on draws that no attack has
    seen. A modified image depends on the noise seed and the condition, not on the network, so that networks are
    compared on the same images.

    Parameters
    ----------
    model : one classifier, which each of `noises` is put into; or networks that were trained with their noise,
        {name: NoisyNetwork}, with a list of them, one a training seed, in place of each where there are several.
    images : DataArray (stimulus, channel, row, column), floats in [0, 1], of the model's dtype.
    labels : DataArray (stimulus), integers.
    seeds : noise seeds; at least 2 for intervals that cover the noise of attacks and predictions.
    noises : {name: {layer: Covariance}}; an empty one for none.
    modifications, attacks : conditions, beside the clean images, which always are the first.
    twin, independent : for attacks with these gradients: networks without noise, one a training seed. Where they are
        not given: the twin is the same training seed's network called "none", or the only one given that has no noise,
        or `model` itself; the independent network is the twin of the next training seed, where there are several.
    draws : numbers k of draws that a prediction takes.
    batch_size : images attacked at once. Random attacks on other batches draw other numbers; predictions and
        modifications do not depend on it.
    n_jobs : worker processes of one thread each; the result does not depend on their number.
    advance : called with 1 after each cell of noise × training seed × noise seed × condition.

    Returns
    -------
    Dataset over noise, seed (training), draw_seed, condition, stimulus, k:
        `correct` (…, k), whether the argmax of the logits summed over the first k draws is right;
        `hits`, how many of the most draws are right by themselves; `survived` (…, k), right in each of the first k;
        `ran` (noise, seed, draw_seed, condition), False for an attack that could not be run, where the others are
        False and 0 and `summarise` gives NaN;
        `gradient_snr` and `zero_gradients` (noise, seed, draw_seed), of one draw at clean images: ‖E g‖² / tr Cov(g),
        and the fraction of images whose gradient is exactly zero; NaN without an attack that takes gradients.
    coords on condition: `kind`, `modification`, `strength`, `norm`, `loss`, `gradient`, `protocol`, `n_draws`,
        `n_steps`, `n_restarts`, `n_queries`, `step`; on noise: `noisy`, `layer`, `trace` (of all layers, mean over
        training seeds), `source`, `matched_by`. attrs: `warnings`, `n_classes`, `batch_size` and provenance.

    A network without noise has the same values for every k.

    Raises
    ------
    ValueError : images or labels of the wrong form, dtype or range, a model in training mode, logits that are
        probabilities or not finite, noise that does not change the logits, a network that is random by itself, no
        seeds, equal conditions, numbers of networks that differ, or an attack's own errors.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Tramèr et al. 2020, arXiv:2002.08347

    Examples
    --------
    >>> from neurovar.networks import small_network
    >>> images = xr.DataArray(np.zeros((3, 1, 28, 28), np.float32), dims=IMAGE_DIMS)
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> model = small_network(rng=0).eval()
    >>> result = evaluate(model, images, labels, seeds=[0], modifications=[Modified("brightness", 3)])
    >>> result["condition"].values.tolist()
    ['clean', 'brightness 3']
    """
    networks = _networks.by_name(model, noises)
    conditions: list[Condition] = [Clean(), *modifications, *attacks]
    coords = coordinates(conditions)
    _check(images, labels, seeds, draws, batch_size)
    x, y = images.values, labels.values.astype(np.int64)
    n_classes = _networks.check_all(networks, x, y)
    others = _networks.without_noise(networks, twin, independent)
    groups = [(name, i, seed) for name in networks for i in range(len(networks[name])) for seed in seeds]
    cells = [
        Cell(networks[name][i], _followed(condition, others, i), x, y, condition, seed, sorted(draws), batch_size)
        for (name, i, seed), condition in product(groups, conditions)
    ]
    looked: list[Gradients] = []
    if any(isinstance(one, Attack) and one.gradient != "none" for one in attacks):
        looked = list(_parallel(look, [(networks[name][i], x, y, seed) for name, i, seed in groups], n_jobs))
    outcomes = []
    for one in _parallel(outcome, [(cell,) for cell in cells], n_jobs):
        outcomes.append(one)
        if advance is not None:
            advance(1)
    shape = (len(networks), len(groups) // len(networks) // len(seeds), len(seeds), len(conditions))
    coords |= _networks.coordinates(networks) | {"seed": range(shape[1]), "draw_seed": list(seeds), "k": sorted(draws)}
    if "stimulus" in images.coords:
        coords["stimulus"] = images["stimulus"].values
    result = _dataset(outcomes, looked, shape).assign_coords(coords)
    said = [*_said(outcomes, looked, groups, conditions), *_nothing_right(result)]
    return result.assign_attrs(warnings=said, n_classes=n_classes, batch_size=batch_size, **provenance())


def _check(
    images: xr.DataArray, labels: xr.DataArray, seeds: Sequence[int], draws: Sequence[int], batch_size: int
) -> None:
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected at least one noise seed, all different, got {list(seeds)}")
    if not len(draws) or min(draws) < 1 or len(set(draws)) < len(draws) or batch_size < 1:
        raise ValueError(
            f"expected numbers of draws ≥ 1, all different, and batch_size ≥ 1, got {list(draws)} and {batch_size}"
        )
    if images.dims != IMAGE_DIMS or labels.dims != ("stimulus",):
        raise ValueError(
            f"expected images (stimulus, channel, row, column) and labels (stimulus), got {images.dims}, {labels.dims}"
        )
    if len(images) != len(labels) or not len(images):
        raise ValueError(
            f"expected at least one image and a label for every image, got {len(labels)} labels for {len(images)}"
        )
    if not np.array_equal(images["stimulus"], labels["stimulus"]):
        raise ValueError("expected images and labels with the same stimulus ids in the same order, got others")
    if images.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise ValueError(f"expected floating-point images and integer labels, got {images.dtype} and {labels.dtype}")


def _followed(condition: Condition, others: Mapping[str, list[nn.Module | None]], index: int) -> nn.Module | None:
    """The network without noise that a transfer attack follows."""
    models = others.get(str(condition.gradient)) if isinstance(condition, Attack) else None
    return models[index] if models else None


def _parallel(function: Callable, calls: Sequence[tuple], n_jobs: int) -> Iterator:
    """The results in order, each call on one thread, here or in a worker process."""
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_alone)(function, call) for call in calls)


def _alone(function: Callable, call: tuple) -> Any:
    """On one thread: sums then do not depend on the number of workers, and workers do not compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(*call)
    finally:
        torch.set_num_threads(before)


def _dataset(outcomes: Sequence[Outcome], looked: Sequence[Gradients], shape: tuple[int, ...]) -> xr.Dataset:
    """The variables, from the cells in the order of noise, training seed, noise seed and condition."""

    def together(name: str) -> np.ndarray:
        values = np.array([getattr(one, name) for one in outcomes])
        return values.reshape(*shape, *values.shape[1:])

    def of_gradients(values: list[float]) -> tuple[tuple[str, ...], np.ndarray]:
        return DIMS[:3], np.array(values or np.full(shape[:3], np.nan)).reshape(shape[:3])

    return xr.Dataset(
        {
            "correct": ((*DIMS, "k"), together("correct")),
            "hits": (DIMS, together("hits")),
            "survived": ((*DIMS, "k"), together("survived")),
            "ran": (DIMS[:4], together("ran")),
            "gradient_snr": of_gradients([one.snr for one in looked]),
            "zero_gradients": of_gradients([float(one.zero.mean()) for one in looked]),
        }
    )


def _said(
    outcomes: Sequence[Outcome],
    looked: Sequence[Gradients],
    groups: Sequence[tuple[str, int, int]],
    conditions: Sequence[Condition],
) -> Iterator[str]:
    """What happened that a reader should know, once for each network."""
    told = [
        f"{name}, training seed {index}: {gradients.problem}"
        for (name, index, _), gradients in zip(groups, looked)
        if gradients.problem
    ]
    for ((name, index, _), condition), one in zip(product(groups, conditions), outcomes):
        told += [f"{name}, training seed {index}, {condition.label}: {text}" for text in one.said]
    yield from dict.fromkeys(told)


def _nothing_right(result: xr.Dataset) -> Iterator[str]:
    clean = result["correct"].isel(condition=0, k=-1).any(("draw_seed", "stimulus"))
    for noise, seed in np.argwhere(~clean.transpose("noise", "seed").values):
        yield (
            f"{result['noise'].values[noise]}, training seed {seed}: no clean image is classified correctly, so that "
            "accuracy under attacks says nothing"
        )
