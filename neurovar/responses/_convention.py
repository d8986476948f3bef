"""The convention for responses: a DataArray of stimulus × repeat × unit; validate, align, split and convert it.

Missing repeats are NaN. A trial (one stimulus, one repeat) is whole or absent: it has a value for every unit or
for none.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from array_api_compat import array_namespace
from dask import compute

DIMS = ("stimulus", "repeat", "unit")
TIME_DIMS = (*DIMS, "time")
LABELS = ("area", "subject", "session")  # of the units of cortex
BLOCK = 1 << 17  # values
ROUNDING = 1e-6  # a smaller range, relative to the largest response, is no variation


def validate(responses: xr.DataArray, *, min_repeats: int = 1, time: bool = False) -> xr.DataArray:
    """Return `responses` unchanged, or say what is missing, in a fixed order.

    The order is: type, dims, numeric dtype, size, unique stimulus ids, infinities, units without any value,
    half-missing trials, stimuli without a trial, repeats.

    Parameters
    ----------
    responses : DataArray (stimulus, repeat, unit)
    min_repeats : the number of repeats that at least one stimulus must have.
    time : whether a last dim `time` is wanted too, as `sum_time` takes it; a trial is then whole or absent over time.

    Raises
    ------
    ValueError : naming what was expected and what came.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a", "b"]})
    >>> validate(da, min_repeats=2)
    Traceback (most recent call last):
    ...
    ValueError: expected at least 2 repeats of some stimulus, got at most 1
    """
    validate_form(responses, TIME_DIMS if time else DIMS)
    values = responses.values if time else array_of(responses)
    n_repeats = values.shape[1] if _all_finite(values) else _validate_trials(responses, values, time=time)
    if n_repeats < min_repeats:
        raise ValueError(f"expected at least {min_repeats} repeats of some stimulus, got at most {n_repeats}")
    return responses


def _all_finite(values: Any) -> bool:
    """Whether no value can be NaN or infinite, told from one sum; False where the sum is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(abs(float(values.sum())) < np.inf)


def array_of(responses: xr.DataArray) -> Any:
    """The values: dask's array where they are chunked, else NumPy's."""
    return responses.data if responses.chunks is not None else responses.values


def _validate_trials(responses: xr.DataArray, values: Any, *, time: bool) -> int:
    """Check which values are absent; the largest number of repeats."""
    if n_infinite := int(np.isinf(values).sum()):
        raise ValueError(f"expected finite responses or NaN, got {n_infinite} infinite values")
    present = ~np.isnan(values)
    if time:
        _validate_bins(present)
        present = present[..., 0]
    seen, some, whole = compute(present.any(axis=(0, 1)), present.any(axis=2), present.all(axis=2))
    if not seen.all():
        raise ValueError(
            f"expected a value for every unit, got only NaN for {_some(np.flatnonzero(~seen), 'unit', 'units')}"
        )
    partial = some & ~whole
    if partial.any():
        stimulus, repeat = np.argwhere(partial)[0]
        raise ValueError(
            f"expected each trial to be whole or absent, got {int(partial.sum())} trials with some units missing "
            f"(the first: stimulus {responses.stimulus.values[stimulus]!s}, repeat {repeat})"
        )
    counts = whole.sum(axis=1)
    if (counts == 0).any():
        unseen = _some(responses["stimulus"].values[counts == 0], "stimulus", "stimuli")
        raise ValueError(f"expected a trial of every stimulus, got none of {unseen}")
    return int(counts.max())


def validate_form(responses: xr.DataArray, dims: tuple[str, ...]) -> None:
    if not isinstance(responses, xr.DataArray):
        raise ValueError(f"expected an xarray.DataArray, got {type(responses).__name__}")
    if responses.dims != dims:
        advice = "; sum over time first: responses.sum_time(…)" if responses.dims == TIME_DIMS else ""
        raise ValueError(f"expected dims {dims}, got {responses.dims}{advice}")
    if not np.issubdtype(responses.dtype, np.number) or np.issubdtype(responses.dtype, np.complexfloating):
        raise ValueError(f"expected real numbers, got dtype {responses.dtype}")
    if 0 in responses.shape:
        raise ValueError(f"expected at least one {', '.join(dims[:-1])} and {dims[-1]}, got shape {responses.shape}")
    if "stimulus" not in responses.coords:
        raise ValueError("expected a coordinate 'stimulus' with an id for every stimulus, got none")
    ids = pd.Index(responses.stimulus.values)
    if ids.has_duplicates:
        repeated = ids[ids.duplicated()].unique().to_numpy()
        raise ValueError(f"expected unique stimulus ids, got repeated {_some(repeated, 'stimulus', 'stimuli')}")


def _validate_bins(present: np.ndarray) -> None:
    partial = present.any(axis=3) & ~present.all(axis=3)
    if partial.any():
        stimulus, repeat, unit = np.argwhere(partial)[0]
        raise ValueError(
            f"expected each trial to be whole or absent, got {int(partial.sum())} with some time bins missing "
            f"(the first: stimulus {stimulus}, repeat {repeat}, unit {unit})"
        )


def _some(names: np.ndarray, noun: str, plural: str, *, most: int = 5) -> str:
    shown = ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")
    return f"{len(names)} {noun if len(names) == 1 else plural} ({shown})"


def arrange(
    values: np.ndarray, stimulus: np.ndarray, *, rows: np.ndarray | None = None, overwrite: bool = False
) -> xr.DataArray:
    """Responses from one row a presentation: each stimulus's rows, in the order shown, become its repeats.

    Parameters
    ----------
    values : (presentation, unit) or (presentation, unit, time); integers become floating-point numbers.
    stimulus : (presentation,) the id of the stimulus of each row; the ids come out sorted.
    rows : (n,) the presentations to take, in the order shown; by default all.
    overwrite : whether `values` may be overwritten and become the result, which saves half of the memory.

    Returns
    -------
    DataArray (stimulus, repeat, unit[, time]), NaN where a stimulus had fewer repeats than another; its coordinate
    `presentation` (stimulus, repeat) has the row of each trial, −1 where absent. It may be a view with other strides.

    Raises
    ------
    ValueError : if there is no row, or not one stimulus for each.

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
    ids, row = np.unique(stimulus[rows], return_inverse=True)
    order = trial_order(row)
    order = np.where(order < 0, -1, rows[order])
    return xr.DataArray(
        gather(values, order, overwrite=overwrite),
        dims=DIMS if values.ndim == 2 else TIME_DIMS,
        coords={"stimulus": ids, "presentation": (DIMS[:2], order)},
    )


def trial_order(row: np.ndarray) -> np.ndarray:
    """Which presentation is repeat r of stimulus s, (stimulus, repeat), −1 where none; `row` has stimuli."""
    n_repeats = np.bincount(row)
    by_stimulus = np.argsort(row, kind="stable")
    repeat = np.arange(len(row)) - np.repeat(np.cumsum(n_repeats) - n_repeats, n_repeats)
    order = np.full((len(n_repeats), n_repeats.max()), -1)
    order[row[by_stimulus], repeat] = by_stimulus
    return order


def gather(values: np.ndarray, order: np.ndarray, *, overwrite: bool) -> np.ndarray:
    """`values` at `order`, copied once, along the axis that lies together in memory (in MATLAB's it is the other)."""
    dtype = np.result_type(values.dtype, np.float32)
    if values.flags.f_contiguous:
        columns = values.T.reshape(-1, len(values))
        in_place = overwrite and values.flags.writeable and dtype == values.dtype and order.size <= len(values)
        into = columns[:, : order.size] if in_place else np.empty((len(columns), order.size), dtype)
        _gather_columns(columns, order.ravel(), into)
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

    def gather(start: int) -> None:
        block = slice(start, start + n_together)
        into[block] = np.take(columns[block], order, axis=1, mode="wrap")  # as fast only in this mode

    with ThreadPoolExecutor() as threads:
        list(threads.map(gather, range(0, len(columns), n_together)))


def repeat_counts(responses: xr.DataArray) -> xr.DataArray:
    """The number of repeats of each stimulus, Rₛ: DataArray (stimulus)."""
    return responses.isel(unit=0, drop=True).notnull().sum("repeat")


def sum_time(responses: xr.DataArray, *, window: tuple[float, float] | None = None) -> xr.DataArray:
    """Each trial's sum over the time bins that lie wholly in `window`, by default over all; absent trials stay NaN.

    Parameters
    ----------
    responses : DataArray (stimulus, repeat, unit, time); the coordinate `time` is each bin's start in s from stimulus
        onset, attrs["bin_width"] the width in s.
    window : start and stop in s.

    Raises
    ------
    ValueError : if there is no `time`, or no bin lies in the window.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> binned = xr.DataArray(np.ones((1, 1, 1, 4)), dims=TIME_DIMS, attrs={"bin_width": 0.05},
    ...                       coords={"stimulus": ["a"], "time": [0.0, 0.05, 0.1, 0.15]})
    >>> float(sum_time(binned, window=(0.05, 0.15)).item())
    2.0
    """
    validate_form(responses, TIME_DIMS)
    kept = responses
    if window is not None:
        start, width = responses["time"].values, float(responses.attrs["bin_width"])
        slack = 1e-6 * width
        inside = (start >= window[0] - slack) & (start + width <= window[1] + slack)
        if not inside.any():
            span = f"{start[0]:g} to {start[-1] + width:g} s in bins of {width:g} s"
            raise ValueError(f"expected a window with whole time bins, got {window} of {span}")
        kept = responses.isel(time=np.flatnonzero(inside))
    total = kept.sum("time", skipna=False)
    total.attrs = {name: value for name, value in responses.attrs.items() if name != "bin_width"}
    return total.assign_attrs(window=f"{window[0]:g} to {window[1]:g} s") if window is not None else total


def require_simultaneous(responses: xr.DataArray) -> None:
    """Raise ValueError if the units were not recorded together, so that their noise cannot be correlated."""
    if "not_simultaneous" in responses.attrs:
        reason = responses.attrs["not_simultaneous"]
        raise ValueError(f"expected units that were recorded together, got others ({reason}): no noise correlations")


def align(*systems: xr.DataArray) -> tuple[xr.DataArray, ...]:
    """The stimuli that all systems share, in the order of the first.

    Raises
    ------
    ValueError : if there is no system, one is not valid, or no stimulus is shared.

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


def residuals(responses: xr.DataArray) -> xr.DataArray:
    """The noise: each response minus its stimulus's mean over repeats, x_{sru} − x̄_{s·u}; same shape and units.

    A stimulus shown once has residual 0 and adds no degree of freedom.

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]]], dims=DIMS, coords={"stimulus": ["a"]})
    >>> residuals(da).values.ravel()
    array([-1.,  1.])
    """
    validate(responses)
    return responses.copy(data=residuals_kernel(responses.values))


def residuals_kernel(values: Any) -> Any:
    """`residuals` of an array (stimulus, repeat, unit) of NumPy or torch, NaN where a repeat is absent."""
    return floating(values) - means_kernel(values)


def means_kernel(values: Any) -> Any:
    """Mean of the repeats that are present, (stimulus, 1, unit), NaN where there is none."""
    xp, values = array_namespace(values), floating(values)
    if _all_finite(values):
        return xp.mean(values, axis=1, keepdims=True)
    absent = xp.isnan(values)
    n_repeats = xp.astype(xp.sum(~absent, axis=1, keepdims=True), values.dtype)
    return xp.sum(xp.where(absent, 0, values), axis=1, keepdims=True) / xp.where(n_repeats > 0, n_repeats, xp.nan)


def floating(values: Any) -> Any:
    """An array as it is; integers as float64, half precision as float32, in which sums over trials still add up."""
    xp = array_namespace(values)
    if not xp.isdtype(values.dtype, "real floating"):
        return xp.astype(values, xp.float64)
    bits = xp.finfo(values.dtype).bits
    if bits > 64:  # linear algebra has no such precision
        raise ValueError(f"expected double precision or less, got dtype {values.dtype}: convert it to float64")
    return values if bits >= 32 else xp.astype(values, xp.float32)


def center_repeats(responses: xr.DataArray) -> xr.DataArray:
    """Without the mean shift: each repeat's mean over stimuli is moved to the mean over all repeats.

    For repeats that mean something (a network's modifications), whose common effect on all stimuli is no noise. With S
    stimuli it takes a part 1/S of the noise variance along. Absent trials stay absent.

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[0.0], [3.0]], [[2.0], [7.0]]], dims=DIMS, coords={"stimulus": ["a", "b"]})
    >>> center_repeats(da).values[:, :, 0].tolist()
    [[2.0, 1.0], [4.0, 5.0]]
    """
    validate(responses)
    values = responses.values
    shift = means_kernel(values.swapaxes(0, 1))[:, 0] - np.nanmean(values, axis=(0, 1))
    return responses.copy(data=values - shift)


def split(responses: xr.DataArray, *, rng: np.random.Generator | int) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean responses over two disjoint random halves of each stimulus's repeats.

    Of Rₛ repeats each half takes ⌊Rₛ/2⌋, so that both have the same noise; of an odd number one repeat, drawn at
    random, is left out. Stimuli with one repeat are dropped.

    Returns
    -------
    two DataArrays (stimulus, unit)

    Raises
    ------
    ValueError : if no stimulus has two repeats.
    """
    validate(responses, min_repeats=2)
    kept = responses.isel(stimulus=np.flatnonzero(repeat_counts(responses).values >= 2))
    first, second = split_kernel(kept.values, np.random.default_rng(rng))
    template = kept.isel(repeat=0, drop=True)
    return template.copy(data=first), template.copy(data=second)


def split_kernel(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`split` of an array (stimulus, repeat, unit) in which every stimulus has two repeats or more."""
    absent = np.isnan(values[:, :, 0])
    order = np.argsort(np.where(absent, np.inf, rng.random(absent.shape)), axis=1)
    half = (~absent).sum(axis=1, keepdims=True) // 2
    rank = np.argsort(order, axis=1)
    return tuple(
        np.where(mask[:, :, None], values, 0).sum(axis=1) / half
        for mask in (rank < half, (rank >= half) & (rank < 2 * half))
    )


def drop_constant(responses: xr.DataArray) -> xr.DataArray:
    """Without the units that never vary about their stimulus means; attrs["dropped_units"] lists their positions.

    Such units have no correlation. They are common in rectified networks.
    """
    validate(responses, min_repeats=2)
    constant = constant_units(responses)
    if len(constant) == responses.sizes["unit"]:
        raise ValueError(f"expected units that vary between repeats, got none among {len(constant)}")
    kept = responses.isel(unit=np.setdiff1d(np.arange(responses.sizes["unit"]), constant))
    return kept.assign_attrs(dropped_units=constant.tolist())


def constant_units(responses: xr.DataArray) -> np.ndarray:
    """Positions of the units that never vary about their stimulus means, up to rounding."""
    low, high = extremes_kernel(array_of(responses))
    scale, largest = compute(np.nanmax(np.maximum(np.abs(low), np.abs(high)), axis=0), np.nanmax(high - low, axis=0))
    return np.flatnonzero(largest <= ROUNDING * scale)


def extremes_kernel(values: Any) -> tuple[Any, Any]:
    """Smallest and largest of the repeats that are present, (stimulus, unit) each, NaN where there is none."""
    xp = array_namespace(values)
    if _all_finite(values):
        return floating(xp.min(values, axis=1)), floating(xp.max(values, axis=1))
    absent = xp.isnan(values)
    low, high = (find(xp.where(absent, at, values), axis=1) for find, at in ((xp.min, xp.inf), (xp.max, -xp.inf)))
    return tuple(xp.where(xp.all(absent, axis=1), xp.nan, extreme) for extreme in (low, high))
