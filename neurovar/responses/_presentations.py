"""Responses from a table with one row a presentation, as they are recorded and as BrainIO keeps them, and back.

From a table to responses and back nothing is lost: what responses cannot say of a table, the order of its dims and
coordinates, they carry in attrs["brainio_layout"]. The other way a table cannot say of which dims a coordinate was and
what belonged to absent trials: `neurovar.responses.save` keeps that.
"""

import json
from collections.abc import Collection, Container, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from neurovar.responses._arranging import gather, trial_order
from neurovar.responses._rules import DIMS, TIME_DIMS, validate

TABLE_DIMS = ("presentation", "neuroid", "time_bin")
TABLE_DIM = {"stimulus": "presentation", "repeat": "presentation", "unit": "neuroid", "time": "time_bin"}
OWN_DIM = {"unit": ("neuroid",), "time": ("time_bin",), "neuroid": ("unit",), "time_bin": ("time",)}
LAYOUT = "brainio_layout"
BIN_ENDS = ("time_bin_end", "time_bin_stop")
DECIMALS = 6  # of times in ms, of which the rest is rounding

Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Layout:
    """What is kept of a table, as JSON, where responses cannot say it.

    `coords` has the name in the responses of each of the table's coordinates, `bin` those of them that describe its
    single time bin, `added` the attributes that the responses have and the table had not.
    """

    dims: list[str] = field(default_factory=list)
    dtype: str = ""
    coords: dict[str, str] = field(default_factory=dict)
    bin: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, attrs: Mapping[Hashable, Any]) -> "_Layout":
        try:
            return cls(**json.loads(attrs.get(LAYOUT, "{}")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected attrs[{LAYOUT!r}] as to_responses writes it, got another ({error})") from error


def to_responses(table: xr.DataArray, *, stimulus: str = "stimulus_id") -> xr.DataArray:
    """Responses from a BrainIO assembly, presentation × neuroid[ × time_bin]; `from_responses` is its inverse.

    Stimuli keep the order in which they first appear; repeats are numbered in the order of presentation. What the
    table says of a presentation becomes a coordinate of the stimulus where it is the same for all its repeats, of the
    trial (stimulus, repeat) where it is not. What it says of neuroids and time bins stays with units and times. A name
    that responses use for something else gets a final "_".

    Several time bins become the dim `time`: its coordinate is `time_bin_start`, which BrainIO has in ms, in s, and
    attrs["bin_width"] their width, where they have the same. A single time bin becomes attrs["window"].

    Parameters
    ----------
    table : DataArray
        A live assembly or any DataArray of these dims; whole numbers become floating-point ones.
    stimulus : str, optional
        The name of the coordinate that has each presentation's stimulus id.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit[, time]), NaN where a stimulus had fewer presentations than another.

    Raises
    ------
    ValueError
        If dims, values or coordinates are others, or not every presentation has a stimulus.

    Examples
    --------
    >>> table = xr.DataArray([[1.0], [2.0], [3.0]], dims=("presentation", "neuroid"),
    ...                      coords={"stimulus_id": ("presentation", ["a", "b", "a"])})
    >>> to_responses(table).values[:, :, 0].tolist()
    [[1.0, 3.0], [2.0, nan]]
    """
    table = flatten(table)
    values = table.transpose(*[dim for dim in TABLE_DIMS if dim in table.dims]).values
    _check_numbers(values)
    order, coords, attrs = _labels(table, stimulus)
    gathered = gather(values[:, :, 0] if table.sizes.get("time_bin") == 1 else values, order, overwrite=False)
    return xr.DataArray(gathered, dims=TIME_DIMS[: gathered.ndim], coords=coords, attrs=attrs, name=table.name)


def flatten(table: xr.DataArray) -> xr.DataArray:
    """A table as a plain DataArray with plain coordinates, whatever class it was and whatever MultiIndex there was.

    Parameters
    ----------
    table : DataArray
        Of dims presentation, neuroid and perhaps time_bin, in any order.

    Returns
    -------
    DataArray
        The same values, with every level of a MultiIndex as a coordinate of its own.

    Raises
    ------
    ValueError
        If it has other dims, or coordinates of several.

    Examples
    --------
    >>> ids = pd.MultiIndex.from_arrays([["a", "b"], [0, 0]], names=["stimulus_id", "repetition"])
    >>> table = xr.DataArray([[1.0], [2.0]], dims=("presentation", "neuroid"), coords={"presentation": ids})
    >>> list(flatten(table).coords)
    ['stimulus_id', 'repetition']
    """
    expected = TABLE_DIMS if "time_bin" in table.dims else TABLE_DIMS[:2]
    if set(table.dims) != set(expected) or 0 in table.shape:
        got = f"{table.dims} of shape {table.shape}"
        raise ValueError(f"expected dims {TABLE_DIMS[:2]}, perhaps with 'time_bin', none of them empty, got {got}")
    levels = [dim for dim in table.dims if isinstance(table.indexes.get(dim), pd.MultiIndex)]
    flat = xr.DataArray(table).reset_index(levels)
    if any(f"{dim}_level_0" in flat.coords for dim in levels):  # as xarray calls what was a dim's plain index
        plain = {f"{dim}_level_0": dim for dim in levels}
        coords = {plain.get(str(name), name): (c.dims, c.values, c.attrs) for name, c in flat.coords.items()}
        flat = xr.DataArray(flat.data, dims=flat.dims, coords=coords, attrs=flat.attrs, name=flat.name)
    bad = [name for name, coord in flat.coords.items() if not isinstance(name, str) or coord.ndim > 1]
    if bad:
        raise ValueError(f"expected coordinates with text for a name and one dim at most, got {bad}")
    return flat


def _check_numbers(values: np.ndarray) -> None:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"expected real numbers, got dtype {values.dtype}")
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and not (np.abs(values.astype(float)) <= 2**53).all():
        raise ValueError("expected whole numbers up to 2**53, got larger ones, which floating-point cannot tell apart")


def _labels(table: xr.DataArray, stimulus: str) -> tuple[np.ndarray, dict[str, xr.Variable], dict[Hashable, Any]]:
    """The row of each trial (stimulus, repeat), and coordinates and attrs of the responses to a flat table."""
    order = trial_order(_stimulus_numbers(table, stimulus))
    one_bin = table.sizes.get("time_bin") == 1
    names: dict[str, str] = {}
    ids = table[stimulus].variable
    coords = {
        "stimulus": xr.Variable(DIMS[:1], ids.values[order[:, 0]], ids.attrs),
        "presentation": xr.Variable(DIMS[:2], order),
    }
    for label, coord in table.coords.items():
        name = str(label)
        dims = () if one_bin and coord.dims == ("time_bin",) else coord.dims
        if name == stimulus:
            names[name] = "stimulus"
            continue
        names[name] = _name(name, coord.dims, (*TIME_DIMS, "presentation"), {*table.coords, *coords})
        coords[names[name]] = _of_responses(coord.variable, dims, order)
    if not one_bin and (start := _bin_edge(table, "time_bin_start")) is not None and start.ndim:
        coords.setdefault("time", xr.Variable(("time",), start / 1000))
    added = {name: value for name, value in _bin_attrs(table).items() if name not in table.attrs}
    in_bin = [names[str(name)] for name, coord in table.coords.items() if one_bin and coord.dims == ("time_bin",)]
    layout = _Layout([*map(str, table.dims)], table.dtype.str, names, in_bin, [*map(str, added)])
    return order, coords, dict(table.attrs) | added | {LAYOUT: json.dumps(asdict(layout))}


def _stimulus_numbers(table: xr.DataArray, stimulus: str) -> np.ndarray:
    of_presentations = sorted(str(name) for name, coord in table.coords.items() if coord.dims == ("presentation",))
    if stimulus not in of_presentations:
        raise ValueError(f"expected a coordinate {stimulus!r} on 'presentation', got {of_presentations}")
    numbers = np.asarray(pd.factorize(table[stimulus].values)[0])
    if (numbers < 0).any():
        raise ValueError(f"expected a stimulus id for every presentation, got none in {stimulus!r} for some")
    return numbers


def _name(name: str, dims: tuple[Hashable, ...], reserved: Collection[str], taken: Collection[Hashable]) -> str:
    """`name`, with a final "_", or several, where it is reserved for another than a coordinate of these dims."""
    free = name not in reserved or OWN_DIM.get(name) == dims
    while not free:
        name += "_"
        free = name not in taken
    return name


def _of_responses(coord: xr.Variable, dims: tuple[Hashable, ...], order: np.ndarray) -> xr.Variable:
    """A coordinate of a table as one of responses; of a trial where a stimulus's repeats differ."""
    if dims == ("presentation",):
        of_trials = coord.values[np.where(order < 0, order[:, :1], order)]
        if _same(of_trials, of_trials[:, :1]):
            return xr.Variable(DIMS[:1], of_trials[:, 0], coord.attrs)
        return xr.Variable(DIMS[:2], of_trials, coord.attrs)
    renamed = tuple({"neuroid": "unit", "time_bin": "time"}[str(dim)] for dim in dims)
    return xr.Variable(renamed, coord.values.reshape(coord.shape if renamed else ()), coord.attrs)


def _same(values: np.ndarray, others: np.ndarray) -> bool:
    """Whether they are the same to the bit, and of the same types."""
    others = np.broadcast_to(others, values.shape)
    if values.dtype != object:
        return values.tobytes() == others.tobytes()
    return all(a is b or (type(a) is type(b) and a == b) for a, b in zip(values.flat, others.flat))


def _bin_edge(table: xr.DataArray, name: str) -> np.ndarray | None:
    """The start or the end of the time bins in ms, if the table says so."""
    edge = table.coords.get(name)
    if edge is None or edge.dtype.kind not in "iuf" or edge.dims not in ((), ("time_bin",), ("time",)):
        return None
    return np.asarray(edge.values, dtype=np.float64)


def _bin_attrs(table: xr.DataArray) -> dict[Hashable, Any]:
    """The width of the time bins in s, or the window that a single one is."""
    starts, ends = (_bin_edge(table, name) for name in ("time_bin_start", _bin_end(table.coords)))
    if starts is None or ends is None or starts.shape != ends.shape:
        return {}
    if starts.size == 1:
        return {"window": f"{starts.item() / 1000:g} to {ends.item() / 1000:g} s"}
    widths = np.unique(np.round(ends - starts, DECIMALS))
    return {"bin_width": float(widths[0]) / 1000} if widths.size == 1 and widths[0] > 0 else {}


def _bin_end(names: Container[Hashable]) -> str:
    return next((name for name in BIN_ENDS if name in names), BIN_ENDS[0])


def from_responses(responses: xr.DataArray, *, stimulus: str = "stimulus_id") -> xr.DataArray:
    """The table presentation × neuroid[ × time_bin] of the trials that are present, as BrainIO has it.

    Presentations are in the order of the coordinate `presentation`; without one, of stimuli and then repeats. A table
    that did not come from an assembly gets the coordinates that BrainIO asks for: `repetition`, `neuroid_id` and, of
    responses with times, `time_bin_start` and `time_bin_end` in ms.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit[, time]).
    stimulus : str, optional
        The name that the coordinate `stimulus` gets.

    Returns
    -------
    DataArray
        Of dims (presentation, neuroid[, time_bin]).

    Raises
    ------
    ValueError
        If the responses are not valid, or have a MultiIndex.

    Examples
    --------
    >>> da = xr.DataArray([[[1.0], [2.0]], [[3.0], [np.nan]]], dims=DIMS, coords={"stimulus": ["a", "b"]})
    >>> table = from_responses(da)
    >>> table.values.ravel().tolist(), table["stimulus_id"].values.tolist(), table["repetition"].values.tolist()
    ([1.0, 2.0, 3.0], ['a', 'a', 'b'], [0, 1, 0])
    """
    validate(responses, time="time" in responses.dims)
    multi = [name for name, index in responses.indexes.items() if isinstance(index, pd.MultiIndex)]
    if multi or not all(isinstance(name, str) for name in responses.coords):
        raise ValueError(f"expected plain coordinates with text for a name, got {multi or list(responses.coords)}")
    layout = _Layout.of(responses.attrs)
    rows = _rows(responses, layout)
    values = responses.values[rows]
    if layout.bin and "time" not in responses.dims:
        values = values[:, :, None]
    dims = TABLE_DIMS[: values.ndim]
    coords = _table_coords(responses, rows, layout, stimulus)
    attrs = {name: value for name, value in responses.attrs.items() if name not in (LAYOUT, *layout.added)}
    table = xr.DataArray(_cast(values, layout.dtype), dims=dims, coords=coords, attrs=attrs, name=responses.name)
    kept = [dim for dim in layout.dims if dim in dims]
    return table.transpose(*kept, *[dim for dim in dims if dim not in kept])


def _rows(responses: xr.DataArray, layout: _Layout) -> Rows:
    """Stimulus and repeat of each row of the table, which may have had presentations without any value."""
    values, shown = responses.values, _shown(responses)
    present = ~np.isnan(values.reshape(*values.shape[:2], -1)[:, :, 0])
    s, r = np.nonzero(present if shown is None or not layout.dims else present | (shown >= 0))
    order = slice(None) if shown is None else np.argsort(shown[s, r], kind="stable")
    return s[order], r[order]


def _shown(responses: xr.DataArray) -> np.ndarray | None:
    """The coordinate `presentation` as (stimulus, repeat), if there is such a one."""
    shown = responses.coords.get("presentation")
    if shown is None or set(shown.dims) != set(DIMS[:2]) or shown.dtype.kind not in "iuf":
        return None
    return np.asarray(shown.transpose(*DIMS[:2]).values)


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    """The values in the dtype of the table that they came from, if it can hold them."""
    if not dtype:
        return values
    with np.errstate(invalid="ignore"):
        cast = values.astype(dtype)
    return cast if np.array_equal(cast, values, equal_nan=True) else values


def _table_coords(responses: xr.DataArray, rows: Rows, layout: _Layout, stimulus: str) -> dict[str, xr.Variable]:
    """The coordinates of the table; those that belong to other dims than a table's are left out."""
    coords = {}
    for name, label in _table_names(responses, layout, stimulus).items():
        coord = responses[label].variable
        if not coord.dims and label in layout.bin and "time" not in responses.dims:
            coords[name] = xr.Variable(("time_bin",), coord.values.reshape(1), coord.attrs)
        elif len(dims := {TABLE_DIM[str(dim)] for dim in coord.dims}) < 2:
            at = tuple({"stimulus": rows[0], "repeat": rows[1]}.get(str(dim), slice(None)) for dim in coord.dims)
            coords[name] = xr.Variable(tuple(dims), _without_half(coord.values[at]), coord.attrs)
    if not layout.dims:
        coords.setdefault("repetition", xr.Variable(TABLE_DIMS[:1], rows[1]))
        units = responses["unit"].values if "unit" in responses.coords else np.arange(responses.sizes["unit"])
        coords.setdefault("neuroid_id", xr.Variable(TABLE_DIMS[1:2], _without_half(units)))
    return coords | _time_bins(responses, coords)


def _without_half(values: np.ndarray) -> np.ndarray:
    """float32 where it was float16, of which neither pandas nor netCDF has an index or a variable."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _table_names(responses: xr.DataArray, layout: _Layout, stimulus: str) -> dict[str, str]:
    """Which coordinate of the responses each of the table is, in the table's order."""
    names = {name: label for name, label in layout.coords.items() if label in responses.coords}
    if "stimulus" not in names.values():
        names[stimulus] = "stimulus"
    derived = {"presentation"} if _shown(responses) is not None else set()
    start = _bin_edge(responses, "time_bin_start")
    if layout.dims and start is not None and "time" in responses.coords:
        derived |= {"time"} if np.array_equal(responses["time"].values, start / 1000) else set()
    for label, coord in responses.coords.items():
        if label not in derived and label not in names.values():
            reserved = {*TABLE_DIMS, "data", *names}
            names[_name(str(label), coord.dims, reserved, {*names, *responses.coords})] = str(label)
    return names


def _time_bins(responses: xr.DataArray, coords: Mapping[str, xr.Variable]) -> dict[str, xr.Variable]:
    """`time_bin_start` and `time_bin_end` in ms, if the responses say when bins are and the coordinates do not."""
    time, width = responses.coords.get("time"), responses.attrs.get("bin_width")
    if time is None or time.dims != ("time",) or time.dtype.kind not in "iuf" or not isinstance(width, int | float):
        return {}
    names = ("time_bin_start", _bin_end(coords))
    edges = [np.round(1000 * (time.values + shift), DECIMALS) for shift in (0, width)]
    if all(name in coords and np.allclose(coords[name].values, edge) for name, edge in zip(names, edges)):
        return {}
    return {name: xr.Variable(TABLE_DIMS[2:], _whole(edge)) for name, edge in zip(names, edges)}


def _whole(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64) if ((values == np.floor(values)) & (np.abs(values) < 2**53)).all() else values
