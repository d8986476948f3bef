"""Responses from a table with one row a presentation, as they are recorded and as BrainIO keeps them, and back."""

import numpy as np
import pandas as pd
import xarray as xr

from neurovar.responses import DIMS, TIME_DIMS, validate

PRESENTATION_DIMS = ("presentation", "neuroid")


def arrange(values: np.ndarray, stimulus: np.ndarray) -> xr.DataArray:
    """Responses from one row a presentation: each stimulus's rows, in the order shown, become its repeats.

    Parameters
    ----------
    values : (presentation, unit) or (presentation, unit, time); integers become floating-point numbers.
    stimulus : (presentation,) the id of the stimulus of each row; the ids come out sorted.

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
    ids, row = np.unique(stimulus, return_inverse=True)
    order = _order(row)
    return xr.DataArray(
        _gather(values, order),
        dims=DIMS if values.ndim == 2 else TIME_DIMS,
        coords={"stimulus": ids, "presentation": (DIMS[:2], order)},
    )


def _order(row: np.ndarray) -> np.ndarray:
    """Which presentation is repeat r of stimulus s, (stimulus, repeat), −1 where none; `row` has stimuli."""
    n_repeats = np.bincount(row)
    by_stimulus = np.argsort(row, kind="stable")
    repeat = np.arange(len(row)) - np.repeat(np.cumsum(n_repeats) - n_repeats, n_repeats)
    order = np.full((len(n_repeats), n_repeats.max()), -1)
    order[row[by_stimulus], repeat] = by_stimulus
    return order


def _gather(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`values` at `order`, copied once, along the axis that lies together in memory (in MATLAB's it is the other)."""
    dtype = np.result_type(values.dtype, np.float32)
    if values.flags.f_contiguous:
        rest = values.ndim - 1
        axes = (rest, rest + 1, *range(rest - 1, -1, -1))
        gathered = np.take(values.T, order, axis=-1).astype(dtype, copy=False).transpose(axes)
    else:
        gathered = np.take(values, order, axis=0).astype(dtype, copy=False)
    gathered[order < 0] = np.nan
    return gathered


def to_responses(table: xr.DataArray, *, stimulus: str = "stimulus_id") -> xr.DataArray:
    """Responses from a BrainIO assembly, presentation × neuroid[ × time_bin]; `from_responses` is its inverse.

    Stimuli keep the order in which they first appear; repeats are numbered in the order of presentation. What the
    table says of a presentation becomes a coordinate of the stimulus where it is the same for all its repeats, of the
    trial (stimulus, repeat) where it is not. What it says of neuroids and time bins stays with units and times.

    Raises
    ------
    ValueError : if the dims are others, or there is no coordinate `stimulus`.

    Examples
    --------
    >>> table = xr.DataArray([[1.0], [2.0], [3.0]], dims=("presentation", "neuroid"),
    ...                      coords={"stimulus_id": ("presentation", ["a", "b", "a"])})
    >>> to_responses(table).values[:, :, 0].tolist()
    [[1.0, 3.0], [2.0, nan]]
    """
    table = _flat(table)
    of_trials = {str(name): c.values for name, c in table.coords.items() if c.dims == ("presentation",)}
    if stimulus not in of_trials:
        raise ValueError(f"expected a coordinate {stimulus!r} on 'presentation', got {sorted(of_trials)}")
    row, ids = pd.factorize(of_trials.pop(stimulus))
    da = arrange(table.values, row).assign_coords(stimulus=("stimulus", np.asarray(ids)))
    order = da["presentation"].values
    for name, values in of_trials.items():
        da = da.assign_coords({name: _coordinate(values, order)})
    renamed = {"neuroid": "unit", "time_bin": "time"}
    for label, coord in table.coords.items():
        if coord.dims and coord.dims[0] in renamed:
            da = da.assign_coords({str(label): (renamed[str(coord.dims[0])], coord.values)})
    return da.assign_attrs(table.attrs)


def _flat(table: xr.DataArray) -> xr.DataArray:
    """With plain coordinates, whatever MultiIndex there was, and the dims in order."""
    dims = (*PRESENTATION_DIMS, "time_bin") if "time_bin" in table.dims else PRESENTATION_DIMS
    if set(table.dims) != set(dims):
        raise ValueError(f"expected dims {PRESENTATION_DIMS}, perhaps with 'time_bin', got {table.dims}")
    levels = [dim for dim in table.dims if isinstance(table.indexes.get(dim), pd.MultiIndex)]
    return table.reset_index(levels).transpose(*dims)


def _coordinate(values: np.ndarray, order: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """A coordinate of the stimulus, or of the trial where its repeats differ (absent ones take the first)."""
    of_trials = values[np.where(order < 0, order[:, :1], order)]
    same = pd.Series(of_trials.ravel()).eq(pd.Series(np.repeat(of_trials[:, 0], order.shape[1])))
    missing = pd.isna(of_trials) & pd.isna(of_trials[:, :1])
    if (same.to_numpy().reshape(order.shape) | missing).all():
        return DIMS[:1], of_trials[:, 0]
    return DIMS[:2], of_trials


def from_responses(responses: xr.DataArray, *, stimulus: str = "stimulus_id") -> xr.DataArray:
    """The table presentation × neuroid[ × time_bin] of the trials that are present, as BrainIO has it.

    Presentations are in the order of the coordinate `presentation`; without one, of stimuli and then repeats.

    Examples
    --------
    >>> da = xr.DataArray([[[1.0], [2.0]], [[3.0], [np.nan]]], dims=DIMS, coords={"stimulus": ["a", "b"]})
    >>> table = from_responses(da)
    >>> table.values.ravel().tolist(), table["stimulus_id"].values.tolist(), table["repetition"].values.tolist()
    ([1.0, 2.0, 3.0], ['a', 'a', 'b'], [0, 1, 0])
    """
    validate(responses, time="time" in responses.dims)
    values = responses.values
    present = ~np.isnan(values.reshape(*values.shape[:2], -1)[:, :, 0])
    s, r = np.nonzero(present)
    if "presentation" in responses.coords:
        shown = np.argsort(responses["presentation"].values[s, r], kind="stable")
        s, r = s[shown], r[shown]
    coords: dict[str, tuple[str, np.ndarray]] = {stimulus: ("presentation", responses["stimulus"].values[s])}
    coords["repetition"] = ("presentation", r)
    for name, coord in responses.coords.items():
        if coord.dims == DIMS[:1] and name != "stimulus":
            coords[str(name)] = ("presentation", coord.values[s])
        elif coord.dims == DIMS[:2] and name != "presentation":
            coords[str(name)] = ("presentation", coord.values[s, r])
        elif coord.dims in (("unit",), ("time",)):
            dim = "neuroid" if coord.dims == ("unit",) else "time_bin"
            coords[dim if name == coord.dims[0] else str(name)] = (dim, coord.values)
    dims = (*PRESENTATION_DIMS, "time_bin")[: values.ndim - 1]
    return xr.DataArray(values[s, r], dims=dims, coords=coords, attrs=dict(responses.attrs))
