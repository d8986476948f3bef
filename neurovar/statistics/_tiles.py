"""Products of the units of dask arrays, summed over their stimuli, tile by tile.

A tile is the block of the result for two groups of units. It goes through the stimuli once, chunk by chunk, so that a
worker holds one tile and two chunks, whatever the number of trials; tiles do not depend on one another, so that threads
or the workers of a cluster share them. Only tiles on and above the diagonal are computed.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import xarray  # noqa: F401 - old versions cannot be imported after dask.array
from dask import array as da
from dask import compute, delayed

TILE = 1 << 24
"""Values of a tile: 64 MB of float32."""

Sums = tuple[np.ndarray, ...]
Block = Callable[[np.ndarray, np.ndarray], Sums]
"""What is summed over chunks (stimulus, repeat, unit), of a group of units and of another (or the same) group."""


def tiled(values: da.Array, block: Block, finish: Callable[..., np.ndarray], diagonal: Callable) -> da.Array:
    """`finish` of the sums of `block` over all chunks, for all groups of units, and `diagonal` of the tiles there."""
    values = values.rechunk({1: -1})
    parts = [values[:, :, low:high] for low, high in pairwise(_edges(values.shape[2]))]
    grid: list[list] = [[None] * len(parts) for _ in parts]
    for i, first in enumerate(parts):
        for j, second in enumerate(parts[i:], start=i):
            # in a partial: dask would compute arguments as a whole, and a tile is to read chunk by chunk
            make = partial(_tile, first, second, block, finish, diagonal if i == j else as_it_is)
            # pure=False: dask would name a pure task by a hash of its arrays, and read them for it.
            tile = da.from_delayed(delayed(make, pure=False)(), (first.shape[2], second.shape[2]), _dtype(values))
            grid[i][j], grid[j][i] = tile, tile if i == j else tile.T
    return da.block(grid)


def _edges(n_units: int) -> np.ndarray:
    """Where tiles begin and end: the fewest groups of units, of nearly equal size, whose tiles are not too large."""
    n_groups = max(1, int(np.ceil(n_units / TILE**0.5)))
    # Equal sizes: a small last tile would read as many chunks as a large one does.
    return np.linspace(0, n_units, n_groups + 1).round().astype(int)


def _dtype(values: da.Array) -> np.dtype:
    return values.dtype if np.issubdtype(values.dtype, np.floating) else np.dtype(np.float64)


def as_it_is(tile: np.ndarray) -> np.ndarray:
    return tile


def _tile(first: da.Array, second: da.Array, block: Block, finish: Callable, last: Callable) -> np.ndarray:
    sums: Sums = ()
    for number in range(first.numblocks[0]):
        lazy = [first.blocks[number]] if second is first else [first.blocks[number], second.blocks[number]]
        # This runs in one of dask's workers already, whose threads other tiles use.
        chunks = compute(*lazy, scheduler="synchronous")
        # On the diagonal both are the same chunk, read once; `block` may see that by identity.
        added = block(chunks[0], chunks[-1])
        sums = tuple(total + more for total, more in zip(sums, added)) if sums else added
    return last(finish(*sums))
