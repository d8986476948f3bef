"""What the spectra share, for NumPy arrays and torch tensors: random halves of trials, their means, principal axes."""

from typing import Any

import numpy as np
import scipy.linalg
import xarray as xr
from array_api_compat import array_namespace, device, is_dask_array, is_torch_array, to_device
from dask import array as da

from neurovar.responses import array_of, floating, repeat_counts, split_kernel

MOST_RANKS = 1024
"""Of Stringer et al. 2019: no spectrum here goes further."""

Array = Any
"""A NumPy array or a torch tensor; what comes out is of the kind, dtype and device that went in."""


def present_trials(values: Array) -> np.ndarray:
    """Which trials (stimulus, repeat) there are."""
    xp = array_namespace(values)
    return ~np.asarray(to_device(xp.isnan(values[:, :, 0]), "cpu"))


def centred_trials(values: Array) -> Array:
    """Each unit's deviation from its mean over all trials, as floating-point numbers; 0 where a trial is absent."""
    xp = array_namespace(values)
    values = floating(values)
    present = like(present_trials(values)[:, :, None], values)
    trials = xp.where(present > 0, values, xp.zeros_like(present))
    # Centring changes no spectrum, but Gram matrices of large means would lose digits.
    trials -= xp.sum(trials, axis=(0, 1)) / xp.sum(present)
    trials *= present
    return trials


def half_weights(present: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Weights (stimulus, repeat) with which trials make the means of two random halves, as `responses.split` draws."""
    # The mean of some rows of the identity is what each repeat weighs in the mean of those repeats.
    n_repeats = present.shape[1]
    return split_kernel(np.where(present[:, :, None], np.eye(n_repeats), np.nan), rng)


def weighted(rows: Array, weights: Array) -> Array:
    """Of rows (stimulus · repeat, column), the weighted sum over each stimulus's repeats: (stimulus, column)."""
    xp = array_namespace(rows)
    n_stimuli, n_repeats = weights.shape
    return (weights[:, None, :] @ xp.reshape(rows, (n_stimuli, n_repeats, -1)))[:, 0, :]


def weighted_repeats(trials: Array, weights: np.ndarray) -> Array:
    """Of trials (stimulus, repeat, unit), the weighted sum over each stimulus's repeats: (stimulus, unit).

    Of a dask array chunk by chunk, lazily.
    """
    if not is_dask_array(trials):
        rows = array_namespace(trials).reshape(trials, (-1, trials.shape[2]))
        return weighted(rows, like(weights, trials))
    trials = trials.rechunk({1: -1})
    lazy = da.from_array(weights.astype(trials.dtype)[:, :, None], chunks=(trials.chunks[0], -1, 1))
    return da.map_blocks(_weighted_chunk, trials, lazy, drop_axis=1, dtype=trials.dtype)


def _weighted_chunk(trials: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("sru,sr->su", trials, weights[:, :, 0])


def like(array: np.ndarray, values: Array) -> Array:
    """A NumPy array as an array of the kind, dtype and device of `values`."""
    return array_namespace(values).asarray(array, dtype=values.dtype, device=device(values))


def positions(indices: np.ndarray, values: Array) -> Array:
    """Indices into `values`, on its device."""
    return array_namespace(values).asarray(indices, device=device(values))


def centred(rows: Array) -> Array:
    return rows - array_namespace(rows).mean(rows, axis=0)


def leading_eigenvectors(matrix: Array, n: int) -> tuple[Array, Array]:
    """The `n` largest eigenvalues of a symmetric matrix, descending, and their eigenvectors as columns."""
    xp = array_namespace(matrix)
    if is_torch_array(matrix):
        values, vectors = xp.linalg.eigh(matrix)
        values, vectors = values[-n:], vectors[:, -n:]
    else:  # LAPACK's evr stops at n eigenvectors; NumPy's driver computes all of them, in three times the time
        size = len(matrix)
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(size - n, size - 1), check_finite=False)
    return xp.flip(values, axis=0), xp.flip(vectors, axis=1)


def principal_axes(rows: Array, n: int) -> Array:
    """The first `n` principal axes of rows (sample, unit), which are not centred here: (unit, n).

    From the smaller of the two Gram matrices: an axis whose variance is below the rounding error of the first one's
    is arbitrary within those.
    """
    xp = array_namespace(rows)
    if rows.shape[1] <= rows.shape[0]:
        return leading_eigenvectors(rows.T @ rows, n)[1]
    axes = rows.T @ leading_eigenvectors(rows @ rows.T, n)[1]
    # XXᵀw = gw gives the axis Xᵀw, of length √g.
    length = xp.sqrt(xp.sum(axes * axes, axis=0))
    return axes / xp.where(length > 0, length, xp.ones_like(length))


def repeated_values(responses: xr.DataArray, *, repeats: int) -> Array:
    """The values of the stimuli with at least so many repeats, as floating-point numbers; dask's where chunked."""
    values = array_of(responses)[repeat_counts(responses).values >= repeats]
    return values.astype(np.result_type(values.dtype, np.float32), copy=False)


def require_kind(of: str) -> None:
    if of not in ("signal", "noise"):
        raise ValueError(f"expected of='signal' or 'noise', got {of!r}")
