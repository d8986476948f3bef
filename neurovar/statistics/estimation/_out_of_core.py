"""Noise covariance and correlation of responses that are larger than memory: dask arrays, tile by tile."""

from collections.abc import Callable
from functools import partial

import dask.array as da
import numpy as np

from neurovar.statistics._tiles import Sums, as_it_is, tiled
from neurovar.statistics.estimation._deviations import bounded, deviations, inverse_norm, rows_of


def tiled_covariance(values: da.Array, dof: int, *, differences: bool) -> da.Array:
    """`noise_covariance` of a dask array (stimulus, repeat, unit), divided by `dof`, lazily."""
    return tiled(values, partial(_products, differences=differences), lambda product, *_: product / dof, as_it_is)


def tiled_correlation(values: da.Array, *, zscore: bool, differences: bool) -> da.Array:
    """`noise_correlation` of a dask array (stimulus, repeat, unit), lazily."""
    block = partial(_scored_products if zscore else _products, differences=differences)
    return tiled(values, block, _ratio if zscore else _normalised, bounded)


def in_order(values: da.Array, order: np.ndarray) -> da.Array:
    """Each stimulus's repeats in `order` (stimulus, repeat)."""
    values = values.rechunk({1: -1})
    lazy = da.from_array(order[:, :, None], chunks=(values.chunks[0], -1, 1))
    return da.map_blocks(partial(np.take_along_axis, axis=1), values, lazy, dtype=values.dtype)


def _products(first: np.ndarray, second: np.ndarray, *, differences: bool) -> Sums:
    """Products of deviations, and the sums of squares of either."""
    # A tile off the diagonal does not hold its units' variances: their sums of squares come along.
    (rows, _), (others, _) = _pair(first, second, lambda chunk: (_rows(chunk, differences), None))
    return rows.T @ others, *(np.einsum("tu,tu->u", part, part) for part in (rows, others))


def _scored_products(first: np.ndarray, second: np.ndarray, *, differences: bool) -> Sums:
    """Correlations for each stimulus times Rₛ − 1, and the sum of Rₛ − 1 where both units vary."""
    (rows, weight), (others, other_weight) = _pair(first, second, partial(_scored_rows, differences=differences))
    return rows.T @ others, weight.T @ other_weight


def _pair(first: np.ndarray, second: np.ndarray, prepare: Callable) -> tuple:
    """Both prepared, once if they are the same."""
    prepared = prepare(first)
    return prepared, prepared if second is first else prepare(second)


def _rows(chunk: np.ndarray, differences: bool) -> np.ndarray:
    noise, exists, _ = deviations(chunk, differences=differences)
    return rows_of(noise, exists)


def _scored_rows(chunk: np.ndarray, *, differences: bool) -> tuple[np.ndarray, np.ndarray]:
    """Deviations over their norm for the stimulus, times √(Rₛ − 1), and √(Rₛ − 1) where the unit varies."""
    noise, exists, n = deviations(chunk, differences=differences)
    scale = inverse_norm(chunk, noise)
    # As in memory (`_mean_correlation`), but a chunk does not know whether units vary in all others: Σ(Rₛ − 1) is
    # summed for each pair beside the products.
    weight = np.sqrt(n)[:, None] * (scale > 0)
    noise *= (scale * weight)[:, None]
    return rows_of(noise, exists), weight


def _normalised(product: np.ndarray, squares: np.ndarray, other_squares: np.ndarray) -> np.ndarray:
    return np.clip(product / np.outer(np.sqrt(squares), np.sqrt(other_squares)), -1, 1)


def _ratio(product: np.ndarray, weight: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 for pairs that never vary for the same stimulus
        return np.clip(product / weight, -1, 1)
