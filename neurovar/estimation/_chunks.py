"""Noise covariance and correlation of responses that are larger than memory: dask arrays, tile by tile.

A tile is the block of the result for two groups of units. It goes through the stimuli once, chunk by chunk, so that a
worker holds one tile and two chunks, whatever the number of trials; tiles do not depend on one another, so that threads
or the workers of a cluster share them. Only tiles on and above the diagonal are computed.
"""

from collections.abc import Callable
from functools import partial

import dask
import dask.array as da
import numpy as np

TILE = 1 << 24
"""Values of a tile: 64 MB of float32."""

Block = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of responses (stimulus, repeat, unit): rows (trial, unit), whose product is summed, and a weight (stimulus, unit)."""


def tiled(values: da.Array, block: Block, finish: Callable[..., np.ndarray]) -> da.Array:
    """`finish` of Σ rowsᵀ rows, (unit, other_unit), lazily.

    Parameters
    ----------
    values : (stimulus, repeat, unit), in chunks of stimuli and perhaps of units.
    block : rows and weights of a chunk.
    finish : called for each tile with Σ rowsᵀ rows, Σ weightsᵀ weights and the sums of squares of the rows of its units
        and of its other units.
    """
    values = values.rechunk({1: -1})
    edges = _edges(values.shape[2])
    parts = [values[:, :, low:high] for low, high in zip(edges, edges[1:])]
    grid: list[list[da.Array | None]] = [[None] * len(parts) for _ in parts]
    for i, first in enumerate(parts):
        for j, second in enumerate(parts[i:], start=i):
            compute = partial(_tile, first, second if j > i else None, block, finish)
            shape = first.shape[2], second.shape[2]
            tile = da.from_delayed(dask.delayed(compute, pure=False)(), shape, dtype=values.dtype)
            grid[i][j], grid[j][i] = tile, tile.T if j > i else tile
    return da.block(grid)


def _edges(n_units: int) -> np.ndarray:
    """Where tiles begin and end: the fewest groups of units, of nearly equal size, whose tiles are not too large."""
    n_groups = max(1, int(np.ceil(n_units / TILE**0.5)))
    return np.linspace(0, n_units, n_groups + 1).round().astype(int)


def _tile(first: da.Array, second: da.Array | None, block: Block, finish: Callable[..., np.ndarray]) -> np.ndarray:
    """One tile; without `second` it is one on the diagonal."""
    totals: list[np.ndarray] = []
    for number in range(first.numblocks[0]):
        chunks = [part.blocks[number] for part in (first, second) if part is not None]
        done = [block(chunk) for chunk in dask.compute(*chunks, scheduler="synchronous")]
        (rows, weight), (others, other_weight) = done[0], done[-1]
        squares = [np.einsum("tu,tu->u", each, each) for each, _ in (done[0], done[-1])]
        products = [rows.T @ others, weight.T @ other_weight, *squares]
        totals = [total + product for total, product in zip(totals, products)] if totals else products
    return finish(*totals)
