"""Spectra of responses that are larger than memory: dask arrays (stimulus, repeat, unit).

What has to fit is a matrix of the trials with each other or of the units with each other, whichever is the smaller.
"""

from collections.abc import Callable, Iterator

import dask.array as da
import numpy as np
from array_api_compat import is_dask_array

from neurovar.statistics._tiles import Sums, as_it_is, tiled
from neurovar.statistics.spectra._algebra import (
    MOST_RANKS,
    Array,
    centred_trials,
    half_weights,
    leading_eigenvectors,
    present_trials,
    weighted_repeats,
)

UNITS_AT_ONCE = 1 << 24
"""Values of the units that are read at once for products of trials: 64 MB of float32."""

COPIES = 6
"""Of that matrix that are held at once: two products, the eigenvectors and LAPACK's work."""

Kernel = Callable[[Array, int, np.random.Generator], Array]
Moments = tuple[np.ndarray, np.ndarray, int, int]
"""The matrix that gives the axes, that whose variance is measured along them, its divisor, and how many axes."""


def spectrum_out_of_core(
    values: da.Array, n_splits: int, rng: np.random.Generator, *, kernel: Kernel, of: str, method: str
) -> np.ndarray:
    """`kernel` of a dask array, that of the signal or noise by this method: eigenvalues (rank,)."""
    _require_room(values)
    if has_fewer_trials(values):
        return kernel(in_fewer_units(values), n_splits, rng)
    total: np.ndarray | float = 0.0
    for own, measured, divisor, n_ranks in MOMENTS[of, method](values, n_splits, rng):
        axes = leading_eigenvectors(own, n_ranks)[1]
        total = total + np.einsum("un,un->n", axes, measured @ axes) / divisor
    return np.asarray(total / n_splits)


def _require_room(values: da.Array) -> None:
    """Raise ValueError if the smaller of the two matrices would not fit into memory."""
    import torch

    from neurovar._memory import GB, NEGLIGIBLE, available

    n = min(values.shape[0] * values.shape[1], values.shape[2])
    # Small matrices are not worth asking the system for its memory.
    needed = COPIES * n**2 * values.dtype.itemsize
    if needed > NEGLIGIBLE and needed > (free := available(torch.device("cpu"))):
        raise ValueError(
            f"expected a matrix of trials or of units that fits into memory {COPIES} times, got {n} × {n}: "
            f"{needed / GB:.1f} GB of {free / GB:.1f} GB free; take fewer units, or fewer stimuli"
        )


def has_fewer_trials(values: Array) -> bool:
    """Whether this is a dask array that `in_fewer_units` makes no larger."""
    return is_dask_array(values) and values.shape[0] * values.shape[1] <= values.shape[2]


def in_fewer_units(values: da.Array) -> np.ndarray:
    """As many units as trials, a rotation of the given ones, in memory: all products of trials are the same.

    So the spectra are, too, which do not depend on the units' axes.
    """
    n_stimuli, n_repeats, n_units = values.shape
    n_trials = n_stimuli * n_repeats
    trials = centred_trials(values).reshape(n_trials, n_units)
    together = max(1, UNITS_AT_ONCE // n_trials)
    gram = _gram(trials.T.rechunk({0: together, 1: -1})[:, None, :])
    squares, vectors = np.linalg.eigh(gram.astype(np.float64))
    # G = V diag(g) Vᵀ = (V√g)(V√g)ᵀ: rows of V√g have the products of the trials; rounding may leave g below 0.
    rotated = (vectors * np.sqrt(np.maximum(squares, 0))).astype(gram.dtype).reshape(n_stimuli, n_repeats, n_trials)
    return np.where(present_trials(values)[:, :, None], rotated, np.nan)


def _cvpca(values: da.Array, n_splits: int, rng: np.random.Generator) -> Iterator[Moments]:
    present, trials = present_trials(values), centred_trials(values)
    n_stimuli, n_units = len(present), values.shape[2]
    for _ in range(n_splits):
        halves = [weighted_repeats(trials, half) for half in half_weights(present, rng)]
        own, cross = _covariation(halves[:1] * 2, n_stimuli), _covariation(halves, n_stimuli)
        yield own, cross, n_stimuli - 1, min(n_stimuli - 1, n_units, MOST_RANKS)


def _cross_decomposition(values: da.Array, n_splits: int, rng: np.random.Generator) -> Iterator[Moments]:
    present, trials = present_trials(values), centred_trials(values)
    n_stimuli, n_units = len(present), values.shape[2]
    n_train = n_stimuli // 2
    for _ in range(n_splits):
        weights = half_weights(present, rng)
        # The same stimuli as in memory, where the first half of the permutation gives the axes.
        train = (rng.permutation(n_stimuli).argsort() < n_train)[:, None]
        parts = [[weighted_repeats(trials, half * chosen) for half in weights] for chosen in (train, ~train)]
        own, cross = _covariation(parts[0], n_train), _covariation(parts[1], n_stimuli - n_train)
        # With fewer training rows than units the rest of the space has eigenvalue 0, above the negative ones.
        own = _without_null_space(own) if 2 * n_train < n_units else own
        yield own, cross, n_stimuli - n_train - 1, min(n_train - 1, n_units, MOST_RANKS)


def _noise_cvpca(values: da.Array, n_splits: int, rng: np.random.Generator) -> Iterator[Moments]:
    present, trials = present_trials(values), centred_trials(values)
    dof = int((present.sum(axis=1) // 2 - 1).sum())
    for _ in range(n_splits):
        own, measured = (_gram(_residuals(trials, half > 0)) for half in half_weights(present, rng))
        yield own, measured, dof, min(dof, values.shape[2], MOST_RANKS)


def _noise_cross_decomposition(values: da.Array, n_splits: int, rng: np.random.Generator) -> Iterator[Moments]:
    present, trials = present_trials(values), centred_trials(values)
    n_train = len(present) // 2
    dof = present.sum(axis=1) - 1
    least = int(np.sort(dof)[:n_train].sum())
    for _ in range(n_splits):
        held_out = rng.permutation(len(present)) >= n_train
        own, measured = (_gram(_residuals(trials, present & chosen[:, None])) for chosen in (~held_out, held_out))
        yield own, measured, int(dof[held_out].sum()), min(least, values.shape[2], MOST_RANKS)


MOMENTS: dict[tuple[str, str], Callable[[da.Array, int, np.random.Generator], Iterator[Moments]]] = {
    ("signal", "cvpca"): _cvpca,
    ("signal", "cross_decomposition"): _cross_decomposition,
    ("noise", "cvpca"): _noise_cvpca,
    ("noise", "cross_decomposition"): _noise_cross_decomposition,
}


def _without_null_space(own: np.ndarray) -> np.ndarray:
    """Directions of no covariation, which rank above negative ones, put last: the spectra stay within the span."""
    values, vectors = np.linalg.eigh(own)
    null = np.abs(values) <= len(own) * np.finfo(own.dtype).eps * np.abs(values).max()
    # Lower than the lowest: as eigenvalues are taken from the top, these axes come last.
    return (vectors * np.where(null, 2 * values[0] - 1, values)) @ vectors.T


def _covariation(halves: list[da.Array], n_stimuli: int) -> np.ndarray:
    """(X₁ᵀX₂ + X₂ᵀX₁) / 2 of two arrays (stimulus, unit) of which `n_stimuli` are not 0, centred over those."""
    both = da.stack(halves, axis=1)
    sums = both.sum(axis=0).compute()
    shared = np.outer(*sums) / n_stimuli
    return np.asarray(tiled(both, _symmetric, as_it_is, as_it_is)) - (shared + shared.T) / 2


def _symmetric(first: np.ndarray, second: np.ndarray) -> Sums:
    return ((first[:, 0].T @ second[:, 1] + first[:, 1].T @ second[:, 0]) / 2,)


def _gram(rows: da.Array) -> np.ndarray:
    """XᵀX of rows (stimulus, repeat, unit)."""
    return np.asarray(tiled(rows, _products, as_it_is, as_it_is))


def _products(first: np.ndarray, second: np.ndarray) -> Sums:
    return (first.reshape(-1, first.shape[2]).T @ second.reshape(-1, second.shape[2]),)


def _residuals(trials: da.Array, chosen: np.ndarray) -> da.Array:
    """Deviations of the chosen trials from their stimulus's mean over them, 0 for the others."""
    means = weighted_repeats(trials, chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1))
    return (trials - means[:, None, :]) * chosen[:, :, None].astype(trials.dtype)
