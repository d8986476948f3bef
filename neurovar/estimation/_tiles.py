"""Noise covariance and correlation of responses that are larger than memory: dask arrays, tile by tile.

A tile is the block of the result for two groups of units. It goes through the stimuli once, chunk by chunk, so that a
worker holds one tile and two chunks, whatever the number of trials; tiles do not depend on one another, so that threads
or the workers of a cluster share them. Only tiles on and above the diagonal are computed.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import dask
import dask.array as da
import numpy as np

from neurovar.estimation._deviations import bounded, deviations, inverse_norm, rows_of

TILE = 1 << 24
"""Values of a tile: 64 MB of float32."""

Sums = tuple[np.ndarray, ...]
Block = Callable[[np.ndarray, np.ndarray], Sums]
"""What is summed over chunks (stimulus, repeat, unit), of a group of units and of another (or the same) group."""


def tiled_covariance(values: da.Array, dof: int, *, differences: bool) -> da.Array:
    """`noise_covariance` of a dask array (stimulus, repeat, unit), divided by `dof`, lazily."""
    return _tiled(values, partial(_products, differences=differences), lambda product, *_: product / dof, _as_it_is)


def tiled_correlation(values: da.Array, *, zscore: bool, differences: bool) -> da.Array:
    """`noise_correlation` of a dask array (stimulus, repeat, unit), lazily."""
    block = partial(_scored_products if zscore else _products, differences=differences)
    return _tiled(values, block, _ratio if zscore else _normalised, bounded)


def in_order(values: da.Array, order: np.ndarray) -> da.Array:
    """Each stimulus's repeats in `order` (stimulus, repeat)."""
    values = values.rechunk({1: -1})
    lazy = da.from_array(order[:, :, None], chunks=(values.chunks[0], -1, 1))
    return da.map_blocks(partial(np.take_along_axis, axis=1), values, lazy, dtype=values.dtype)


def _products(first: np.ndarray, second: np.ndarray, *, differences: bool) -> Sums:
    """Products of deviations, and the sums of squares of either."""
    (rows, _), (others, _) = _pair(first, second, lambda chunk: (_rows(chunk, differences), None))
    return rows.T @ others, *(np.einsum("tu,tu->u", each, each) for each in (rows, others))


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
    weight = np.sqrt(n)[:, None] * (scale > 0)
    noise *= (scale * weight)[:, None]
    return rows_of(noise, exists), weight


def _normalised(product: np.ndarray, squares: np.ndarray, other_squares: np.ndarray) -> np.ndarray:
    return np.clip(product / np.outer(np.sqrt(squares), np.sqrt(other_squares)), -1, 1)


def _ratio(product: np.ndarray, weight: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 for pairs that never vary for the same stimulus
        return np.clip(product / weight, -1, 1)


def _tiled(values: da.Array, block: Block, finish: Callable[..., np.ndarray], diagonal: Callable) -> da.Array:
    """`finish` of the sums of `block` over all chunks, for all groups of units, and `diagonal` of the tiles there."""
    values = values.rechunk({1: -1})
    parts = [values[:, :, low:high] for low, high in pairwise(_edges(values.shape[2]))]
    grid: list[list] = [[None] * len(parts) for _ in parts]
    for i, first in enumerate(parts):
        for j, second in enumerate(parts[i:], start=i):
            # in a partial: dask would compute arguments as a whole, and a tile is to read chunk by chunk
            make = partial(_tile, first, second, block, finish, diagonal if i == j else _as_it_is)
            tile = da.from_delayed(dask.delayed(make, pure=False)(), (first.shape[2], second.shape[2]), _dtype(values))
            grid[i][j], grid[j][i] = tile, tile if i == j else tile.T
    return da.block(grid)


def _edges(n_units: int) -> np.ndarray:
    """Where tiles begin and end: the fewest groups of units, of nearly equal size, whose tiles are not too large."""
    n_groups = max(1, int(np.ceil(n_units / TILE**0.5)))
    return np.linspace(0, n_units, n_groups + 1).round().astype(int)


def _dtype(values: da.Array) -> np.dtype:
    return values.dtype if np.issubdtype(values.dtype, np.floating) else np.dtype(np.float64)


def _as_it_is(tile: np.ndarray) -> np.ndarray:
    return tile


def _tile(first: da.Array, second: da.Array, block: Block, finish: Callable, last: Callable) -> np.ndarray:
    sums: Sums = ()
    for number in range(first.numblocks[0]):
        lazy = [first.blocks[number]] if second is first else [first.blocks[number], second.blocks[number]]
        chunks = dask.compute(*lazy, scheduler="synchronous")
        added = block(chunks[0], chunks[-1])
        sums = tuple(total + more for total, more in zip(sums, added)) if sums else added
    return last(finish(*sums))
