"""From one row a presentation to stimulus × repeat × unit, and several systems on the stimuli that they share."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

from neurovar.responses._rules import DIMS, TIME_DIMS, validate

BLOCK = 1 << 17  # values: 1 MB in float64, which a core's own cache holds


def arrange(
    values: np.ndarray, stimulus: np.ndarray, *, rows: np.ndarray | None = None, overwrite: bool = False
) -> xr.DataArray:
    """Responses from one row a presentation: each stimulus's rows, in the order shown, become its repeats.

    Parameters
    ----------
    values : array
        (presentation, unit) or (presentation, unit, time); integers become floating-point numbers.
    stimulus : array
        (presentation,) the id of the stimulus of each row; the ids come out sorted.
    rows : array, optional
        (n,) the presentations to take, in the order shown; by default all.
    overwrite : bool, optional
        Whether `values` may be overwritten and become the result, which saves half of the memory.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit[, time]), NaN where a stimulus had fewer repeats than another; its coordinate
        `presentation` (stimulus, repeat) has the row of each trial, −1 where absent. It may be a view with other
        strides.

    Raises
    ------
    ValueError
        If there is no row, or not one stimulus for each.

    Examples
    --------
    >>> arrange(np.array([[1.0], [2.0], [3.0]]), np.array([7, 4, 7])).values[:, :, 0].tolist()
    [[2.0, nan], [1.0, 3.0]]
    """
    values, stimulus = np.asarray(values), np.asarray(stimulus)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise ValueError(f"expected an array (presentation, unit[, time]) that is not empty, got shape {values.shape}")
    if stimulus.shape != values.shape[:1]:
        raise ValueError(f"expected a stimulus for each of {len(values)} presentations, got shape {stimulus.shape}")
    rows = np.arange(len(values)) if rows is None else np.asarray(rows)
    if not len(rows):
        raise ValueError(f"expected at least one of the {len(values)} presentations to take, got none")
    ids, number = np.unique(stimulus[rows], return_inverse=True)
    order = trial_order(number)
    order = np.where(order < 0, -1, rows[order])  # from positions in `rows` to those in `values`
    return xr.DataArray(
        gather(values, order, overwrite=overwrite),
        dims=DIMS if values.ndim == 2 else TIME_DIMS,
        coords={"stimulus": ids, "presentation": (DIMS[:2], order)},
    )


def trial_order(number: np.ndarray) -> np.ndarray:
    """Which presentation is repeat r of stimulus s.

    Parameters
    ----------
    number : array of int
        (presentation,) the number of the stimulus of each presentation; every number from 0 on occurs.

    Returns
    -------
    array of int
        (stimulus, repeat) positions of presentations, −1 where a stimulus has no such repeat.

    Examples
    --------
    >>> trial_order(np.array([1, 0, 1])).tolist()
    [[1, -1], [0, 2]]
    """
    n_repeats = np.bincount(number)
    # A stable sort lays the presentations of a stimulus side by side in the order shown, so that the repeat is the
    # position less that of the stimulus's first.
    by_stimulus = np.argsort(number, kind="stable")
    repeat = np.arange(len(number)) - np.repeat(np.cumsum(n_repeats) - n_repeats, n_repeats)
    order = np.full((len(n_repeats), n_repeats.max()), -1)
    order[number[by_stimulus], repeat] = by_stimulus
    return order


def gather(values: np.ndarray, order: np.ndarray, *, overwrite: bool) -> np.ndarray:
    """`values` at `order`, copied once, along the axis that lies together in memory (in MATLAB's it is the other)."""
    dtype = np.result_type(values.dtype, np.float32)
    if values.flags.f_contiguous:
        columns = values.T.reshape(-1, len(values))
        in_place = overwrite and values.flags.writeable and dtype == values.dtype and order.size <= len(values)
        into = columns[:, : order.size] if in_place else np.empty((len(columns), order.size), dtype)
        _gather_columns(columns, order.ravel(), into)
        # (time, unit, stimulus, repeat) as it lies in memory, seen as (stimulus, repeat, unit, time)
        rest = values.ndim - 1
        axes = (rest, rest + 1, *range(rest - 1, -1, -1))
        gathered = into.reshape(*values.T.shape[:-1], *order.shape).transpose(axes)
    else:
        gathered = np.take(values, order, axis=0).astype(dtype, copy=False)
    gathered[order < 0] = np.nan
    return gathered


def _gather_columns(columns: np.ndarray, order: np.ndarray, into: np.ndarray) -> None:
    """Each row of `columns` at `order`, in blocks that fit a cache; `into` may be part of `columns`."""
    n_together = max(1, BLOCK // order.size)

    def gather_block(start: int) -> None:
        block = slice(start, start + n_together)
        # With mode="raise" NumPy checks and buffers first, at twice the time; the order has no position out of bounds
        # but −1 for an absent trial, which wraps to a value that is overwritten by NaN.
        into[block] = np.take(columns[block], order, axis=1, mode="wrap")

    with ThreadPoolExecutor() as threads:
        list(threads.map(gather_block, range(0, len(columns), n_together)))


def align(*systems: xr.DataArray) -> tuple[xr.DataArray, ...]:
    """The stimuli that all systems share, in the order of the first.

    Parameters
    ----------
    *systems : DataArray
        Responses of dims (stimulus, repeat, unit) of each system.

    Returns
    -------
    tuple of DataArray
        Each system at the shared stimuli.

    Raises
    ------
    ValueError
        If there is no system, one is not valid, or no stimulus is shared.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> make = lambda ids: xr.DataArray(np.ones((len(ids), 2, 1)), dims=DIMS, coords={"stimulus": ids})
    >>> a, b = align(make(["x", "y", "z"]), make(["z", "y"]))
    >>> a.stimulus.values.tolist(), b.stimulus.values.tolist()
    (['y', 'z'], ['y', 'z'])
    """
    if not systems:
        raise ValueError("expected at least one system to align, got none")
    for system in systems:
        validate(system)
    ids = [set(system.stimulus.values) for system in systems[1:]]
    shared = [s for s in systems[0].stimulus.values if all(s in other for other in ids)]
    if not shared:
        examples = " and ".join(str(system.stimulus.values[0]) for system in systems)
        raise ValueError(f"expected stimuli in common, got none (ids such as {examples})")
    return tuple(system.sel(stimulus=shared) for system in systems)
