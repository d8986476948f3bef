"""Whether each stimulus is classified correctly: noises × training seeds × noise seeds × conditions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import numpy as np
import xarray as xr

from neurovar._provenance import provenance
from neurovar.networks import IMAGE_DIMS, NoisyNetwork, in_workers
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.evaluation import _networks
from neurovar.robustness.evaluation._cell import Cell, Outcome, gradients_at
from neurovar.robustness.evaluation._conditions import Clean, Condition, coordinates
from neurovar.robustness.evaluation._diagnostics import Gradients
from neurovar.robustness.evaluation._result import DIMS

Advance = Callable[[int], object]


def evaluate(
    networks: NoisyNetwork | _networks.Networks,
    images: xr.DataArray,
    labels: xr.DataArray,
    *,
    seeds: Sequence[int],
    conditions: Sequence[Condition] = (),
    others: Mapping[str, Sequence[NoisyNetwork]] | None = None,
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
    networks : NoisyNetwork or mapping of str to NoisyNetwork
        One network, or several by the name of their noise, with a list of them, one a training seed, in place of each
        where there are several. A network without noise is best called "none".
    images : xarray.DataArray
        (stimulus, channel, row, column), floats in [0, 1], of the networks' dtype.
    labels : xarray.DataArray
        (stimulus), integers: the true classes.
    seeds : sequence of int
        Noise seeds; at least 2 for intervals that cover the noise of attacks and predictions.
    conditions : sequence of Modification and Attack, optional
        What the networks are tested under beside the clean images, which always are the first condition.
    others : mapping of str to sequence of NoisyNetwork, optional
        For attacks that follow a "twin" or an "independent" network: such networks without noise, one a training seed.
        Where they are not given, the twin is the same training seed's network called "none", or the only one given that
        has no noise, or the model itself if all noises are on one model; the independent network is the twin of the
        next training seed, where there are several.
    draws : sequence of int, optional
        Numbers k of draws that a prediction takes.
    batch_size : int, optional
        Images attacked at once. Random attacks on other batches draw other numbers; predictions and modifications do
        not depend on it.
    n_jobs : int, optional
        Worker processes of one thread each; the result does not depend on their number.
    advance : callable, optional
        Called with 1 after each cell of noise × training seed × noise seed × condition.

    Returns
    -------
    xarray.Dataset
        Over noise, seed (training), draw_seed, condition, stimulus, k:

        - `correct` (…, k), whether the argmax of the logits summed over the first k draws is right;
        - `hits`, how many of the most draws are right by themselves; `survived` (…, k), right in each of the first k;
        - `ran` (noise, seed, draw_seed, condition), False for an attack that could not be run, where the others are
          False and 0 and `summarise` gives NaN;
        - `gradient_snr` and `zero_gradients` (noise, seed, draw_seed), of one draw at clean images: ‖E g‖² / tr Cov(g),
          and the fraction of images whose gradient is exactly zero; NaN without an attack that takes gradients.

        Coords on condition: `kind`, `modification`, `strength`, `norm`, `loss`, `gradient`, `protocol`, `n_draws`,
        `n_steps`, `n_restarts`, `n_queries`, `step`. Coords on noise: `noisy`, `layer`, `trace` (of all layers, mean
        over training seeds), `control`, `control_of` and `matched_by` (which control it is, of which noise, and what it
        has in common with it; "" for a noise that is none), `origin`, `origin_of`, `origin_epsilon` and `origin_norm`
        (what it was made from). attrs: `warnings`, `n_classes`, `batch_size` and provenance.

        A network without noise has the same values for every k.

    Raises
    ------
    ValueError
        For images or labels of the wrong form, dtype or range, a model in training mode, no seeds, equal conditions,
        numbers of networks that differ, or an attack's own errors.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Tramèr et al. 2020, arXiv:2002.08347

    Examples
    --------
    >>> import torch
    >>> from neurovar.networks import Brightness, small_network
    >>> images = xr.DataArray(np.zeros((3, 1, 28, 28), np.float32), dims=IMAGE_DIMS)
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> network = NoisyNetwork(small_network(rng=0).eval(), images=torch.zeros(1, 1, 28, 28))
    >>> result = evaluate(network, images, labels, seeds=[0], conditions=[Brightness(3)])
    >>> result["condition"].values.tolist()
    ['clean', 'brightness 3']
    """
    named = _networks.by_name(networks)
    conditions = [Clean(), *conditions]
    coords = coordinates(conditions)
    _check(images, labels, seeds, draws, batch_size)
    x, y = images.values, labels.values.astype(np.int64)
    n_classes = _networks.check_all(named, x, y)
    followed = _networks.followed(named, others)
    groups = [(name, i, seed) for name in named for i in range(len(named[name])) for seed in seeds]
    measured: list[Gradients] = []
    if any(isinstance(condition, Attack) and condition.takes_gradients for condition in conditions):
        work = [partial(gradients_at, named[name][i], x, y, seed) for name, i, seed in groups]
        measured = list(in_workers(work, n_jobs))
    cells = [
        Cell(named[name][i], _other(condition, followed, i), x, y, condition, seed, sorted(draws), batch_size)
        for (name, i, seed), condition in product(groups, conditions)
    ]
    outcomes: list[Outcome] = []
    for outcome in in_workers([cell.outcome for cell in cells], n_jobs):
        outcomes.append(outcome)
        if advance is not None:
            advance(1)
    shape = (len(named), len(groups) // len(named) // len(seeds), len(seeds), len(conditions))
    coords |= _networks.coordinates(named) | {"seed": range(shape[1]), "draw_seed": list(seeds), "k": sorted(draws)}
    if "stimulus" in images.coords:
        coords["stimulus"] = images["stimulus"].values
    result = _dataset(outcomes, measured, shape).assign_coords(coords)
    messages = [*_messages(outcomes, measured, groups, conditions), *_nothing_right(result)]
    return result.assign_attrs(warnings=messages, n_classes=n_classes, batch_size=batch_size, **provenance())


def _check(
    images: xr.DataArray, labels: xr.DataArray, seeds: Sequence[int], draws: Sequence[int], batch_size: int
) -> None:
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected at least one noise seed, all different, got {list(seeds)}")
    if not len(draws) or min(draws) < 1 or len(set(draws)) < len(draws) or batch_size < 1:
        raise ValueError(
            f"expected numbers of draws ≥ 1, all different, and batch_size ≥ 1, got {list(draws)} and {batch_size}"
        )
    check_stimuli(images, labels)


def check_stimuli(images: xr.DataArray, labels: xr.DataArray) -> None:
    """Refuse images and labels that are not of the same stimuli, or not of these dims and types."""
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


def _other(condition: Condition, followed: Mapping, index: int) -> NoisyNetwork | None:
    """The network without noise that a transfer attack follows."""
    return followed.get(condition.follows, {index: None})[index] if isinstance(condition, Attack) else None


def _dataset(outcomes: Sequence[Outcome], measured: Sequence[Gradients], shape: tuple[int, ...]) -> xr.Dataset:
    """The variables, from the cells in the order of noise, training seed, noise seed and condition."""

    def together(name: str) -> np.ndarray:
        values = np.array([getattr(outcome, name) for outcome in outcomes])
        return values.reshape(*shape, *values.shape[1:])

    def of_gradients(values: list[float]) -> tuple[tuple[str, ...], np.ndarray]:
        return DIMS[:3], np.array(values or np.full(shape[:3], np.nan)).reshape(shape[:3])

    return xr.Dataset(
        {
            "correct": ((*DIMS, "k"), together("correct")),
            "hits": (DIMS, together("hits")),
            "survived": ((*DIMS, "k"), together("survived")),
            "ran": (DIMS[:4], together("ran")),
            "gradient_snr": of_gradients([gradients.snr for gradients in measured]),
            "zero_gradients": of_gradients([float(gradients.zero.mean()) for gradients in measured]),
        }
    )


def _messages(
    outcomes: Sequence[Outcome],
    measured: Sequence[Gradients],
    groups: Sequence[tuple[str, int, int]],
    conditions: Sequence[Condition],
) -> Iterator[str]:
    """What happened that a reader should know, once for each network."""
    messages = [
        f"{name}, training seed {index}: {gradients.problem}"
        for (name, index, _), gradients in zip(groups, measured)
        if gradients.problem
    ]
    for ((name, index, _), condition), outcome in zip(product(groups, conditions), outcomes):
        messages += [f"{name}, training seed {index}, {condition.label}: {text}" for text in outcome.messages]
    yield from dict.fromkeys(messages)


def _nothing_right(result: xr.Dataset) -> Iterator[str]:
    clean = result["correct"].isel(condition=0, k=-1).any(("draw_seed", "stimulus"))
    for noise, seed in np.argwhere(~clean.transpose("noise", "seed").values):
        yield (
            f"{result['noise'].values[noise]}, training seed {seed}: no clean image is classified correctly, so that "
            "accuracy under attacks says nothing"
        )
