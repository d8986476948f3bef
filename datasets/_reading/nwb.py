"""Tables of a Neurodata Without Borders file (NWB 2): units and their spike times, electrodes, intervals.

Only what is asked for is read, so that a file at an https address is not transferred whole. The layout is that of the
NWB 2 schema (https://nwb-schema.readthedocs.io), read with h5py: no class that the file defines is built.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from neurovar_datasets._reading.hdf5 import Hdf5
from neurovar_datasets._reading.refusals import expect, increasing_times, integers, numbers, reading, unique

if TYPE_CHECKING:
    import h5py

UNITS = "units"
# Where the NWB 2 schema puts the table of electrodes; `units` lies at the root of a file.
ELECTRODES = "general/extracellular_ephys/electrodes"
# 128 MiB of float64: large enough for few requests to a server, small enough for any machine.
READ_BLOCK = 1 << 24  # values


def unit_columns(hdf5: Hdf5, *, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of the table of units that have one number or one text a unit, with `id`; by default all."""
    return table(hdf5, UNITS, columns=columns)


def electrode_columns(hdf5: Hdf5, *, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of the table of electrodes that have one number or one text each, with `id`; by default all."""
    return table(hdf5, ELECTRODES, columns=columns)


def intervals(
    hdf5: Hdf5,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    group: str = "intervals",
    times: Sequence[str] = ("start_time", "stop_time"),
) -> dict[str, np.ndarray]:
    """The columns of a table of intervals, such as those in which stimuli were shown, in the order of the file.

    Parameters
    ----------
    name : str
        Of the table, "natural_scenes_presentations".
    columns : sequence of str, optional
        Which ones besides `id`, `start_time` and `stop_time`; by default all that have one value a row.
    group : str, optional
        Where the table is.
    times : sequence of str, optional
        Which columns of times are needed; a trial that was broken off often has no `stop_time`.

    Returns
    -------
    dict
        Of arrays (interval,); `start_time` and `stop_time` in s are finite, and no interval ends before it starts.

    Raises
    ------
    CorruptDataError
        If the table is not there (the message lists those that are), or not of this form.
    """
    place = f"{group}/{name}"
    fields = table(hdf5, place, columns=None if columns is None else [*times, *columns])
    for field in times:
        expect(field in fields, hdf5.name, f"{place}/{field}", "a column of times", f"columns {sorted(fields)}")
        fields[field] = numbers(hdf5.name, f"{place}/{field}", fields[field]).astype(np.float64)
        finite = np.isfinite(fields[field]).all()
        expect(finite, hdf5.name, f"{place}/{field}", "finite times", "NaN or infinity")
    if len(times) == 2:
        backward = int((fields["stop_time"] < fields["start_time"]).sum())
        expect(backward == 0, hdf5.name, f"{place}/stop_time", "no stop before its start", f"{backward} of them")
    return fields


def table(hdf5: Hdf5, group: str, *, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a DynamicTable that have one number or one text a row; `id`, which is unique, comes first.

    By default columns that are ragged, have more dims, or refer to other objects are left out.
    """
    ids = integers(hdf5.name, f"{group}/id", hdf5.array(f"{group}/id", ndim=1))
    fields = {"id": unique(hdf5.name, f"{group}/id", ids)}
    for name in _plain_columns(hdf5, group) if columns is None else columns:
        fields[name] = column(hdf5, f"{group}/{name}")
        expect(len(fields[name]) == len(ids), hdf5.name, f"{group}/{name}", f"{len(ids)} rows", len(fields[name]))
    return fields


def names(hdf5: Hdf5, group: str) -> list[str]:
    """What lies in a group."""
    with reading(hdf5.name, group):
        return [name if isinstance(name, str) else name.decode("utf-8") for name in hdf5.members(group)]


def _plain_columns(hdf5: Hdf5, group: str) -> list[str]:
    import h5py

    def is_plain(name: str) -> bool:
        inside = not isinstance(members.get(name, getlink=True), h5py.ExternalLink)
        if not inside or name == "id" or name.endswith("_index") or f"{name}_index" in members:
            return False
        item = hdf5.item_at(f"{group}/{name}")
        return isinstance(item, h5py.Dataset) and item.ndim == 1 and (_is_text(item) or item.dtype.kind in "biuf")

    members: Any = hdf5.members(group)
    with reading(hdf5.name, group):
        return [name for name in names(hdf5, group) if is_plain(name)]


def _is_text(item: "h5py.Dataset") -> bool:
    import h5py

    return h5py.check_string_dtype(item.dtype) is not None


def column(hdf5: Hdf5, field: str) -> np.ndarray:
    """The numbers or the texts at `field`, one a row."""
    with reading(hdf5.name, field):
        item = hdf5.dataset(field)
        expect(item.ndim == 1, hdf5.name, field, "one value a row", f"shape {item.shape}")
        return hdf5.strings(field) if _is_text(item) else hdf5.array(field)


def text(hdf5: Hdf5, field: str) -> str:
    """The one text at `field`."""
    with reading(hdf5.name, field):
        item = hdf5.dataset(field)
        expect(item.shape == () and _is_text(item), hdf5.name, field, "one text", f"{item.dtype} of shape {item.shape}")
        return str(hdf5.strings(field)[0])


def ragged_bounds(hdf5: Hdf5, field: str, n_rows: int) -> np.ndarray:
    """Where each row of the ragged column at `field` starts and, last, where all end: (n_rows + 1,)."""
    # A VectorIndex of HDMF has for each row where it ends in the flat data; it starts where the one
    # before ends.
    index = f"{field}_index"
    ends = integers(hdf5.name, index, hdf5.array(index, ndim=1))
    n_values = hdf5.dataset(field).size
    bounds = np.concatenate([[0], ends])
    expect(len(ends) == n_rows, hdf5.name, index, f"{n_rows} rows", len(ends))
    # A decreasing index would give slices from the end of the data: spikes of other units without
    # any error.
    expect((np.diff(bounds) >= 0).all(), hdf5.name, index, "an index that never decreases", "one that does")
    expect(bounds[-1] <= n_values, hdf5.name, index, f"an index within the {n_values} values", bounds[-1])
    return bounds


def spike_times(hdf5: Hdf5, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """The spike times in s of the units in these rows of the table, each finite and never decreasing.

    Units that follow one another in the file are read together, nothing is read of units in between.
    """
    field = f"{UNITS}/spike_times"
    bounds = ragged_bounds(hdf5, field, hdf5.dataset(f"{UNITS}/id").size)
    times: list[np.ndarray] = []
    with reading(hdf5.name, field):
        item = hdf5.dataset(field)
        numeric = item.ndim == 1 and item.dtype.kind in "iuf"
        expect(numeric, hdf5.name, field, "a row of times", f"{item.dtype} of shape {item.shape}")
        for run in _runs(np.asarray(rows, dtype=np.int64), bounds):
            first = bounds[run[0]]
            values = item[first : bounds[run[-1] + 1]]
            for row in run:
                of_unit = values[bounds[row] - first : bounds[row + 1] - first]
                times.append(increasing_times(hdf5.name, f"{field} of row {row}", of_unit))
    return times


def outside_invalid_times(
    hdf5: Hdf5, first: np.ndarray, last: np.ndarray, tags: Collection[str] | None = None
) -> np.ndarray:
    """Which spans of time, from `first` to `last` in s, touch no interval of the table of invalid times.

    With `tags`, only intervals that have one of these tags count; by default all do.
    """
    if not hdf5.has("intervals/invalid_times"):
        return np.ones(len(first), dtype=bool)
    # The NWB 2 convention for spans that no analysis should use: lost frames, a probe that moved.
    invalid = intervals(hdf5, "invalid_times", columns=())
    relevant = np.ones(len(invalid["id"]), dtype=bool)
    if tags is not None:
        field = "intervals/invalid_times/tags"
        bounds, of_rows = ragged_bounds(hdf5, field, len(relevant)), column(hdf5, field)
        expect(of_rows.dtype.kind == "U", hdf5.name, field, "texts", f"dtype {of_rows.dtype}")
        # The number of wanted tags before each one: a row has some where the number grows from its start to its end.
        n_wanted = np.concatenate([[0], np.cumsum(np.isin(of_rows, list(tags)))])
        relevant = n_wanted[bounds[1:]] > n_wanted[bounds[:-1]]
    order = np.argsort(invalid["start_time"][relevant])
    start = invalid["start_time"][relevant][order]
    # Of the intervals that start before a span ends, the one that ends latest decides.
    last_stop = np.append(-np.inf, np.maximum.accumulate(invalid["stop_time"][relevant][order]))
    return last_stop[np.searchsorted(start, last, side="right")] < first


def observed(hdf5: Hdf5, rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray | None:
    """Whether the unit of each row was observed from `first` to `last` in s: (row, span); None if the file is silent.

    A unit that was not observed has no spikes, which is not silence.
    """
    field = f"{UNITS}/obs_intervals"
    if not hdf5.has(field):
        return None
    bounds = ragged_bounds(hdf5, field, hdf5.dataset(f"{UNITS}/id").size)
    spans = hdf5.array(field, ndim=2)
    expect(spans.shape[1] == 2, hdf5.name, field, "a start and a stop in each row", f"shape {spans.shape}")
    expect(not np.isnan(spans).any(), hdf5.name, field, "times", "NaN")
    expect((spans[:, 1] >= spans[:, 0]).all(), hdf5.name, field, "no stop before its start", "one")
    seen = np.zeros((len(rows), len(first)), dtype=bool)
    for unit, row in enumerate(rows):
        start, stop = spans[bounds[row] : bounds[row + 1]].T.astype(np.float64)
        order = np.argsort(start)
        start, stop = start[order], np.maximum.accumulate(stop[order])
        # Intervals that touch are one: a new one begins only where all before have ended.
        begins = np.append(True, start[1:] > stop[:-1])[: len(start)]
        ends = np.append(begins[1:], True)[: len(stop)]
        at = np.searchsorted(start[begins], first, side="right") - 1
        seen[unit] = (at >= 0) & (np.append(stop[ends], -np.inf)[at] >= last)
    return seen


def unobserved_units(seen: np.ndarray | None, n_units: int) -> np.ndarray:
    """Which units to leave out: those that were observed in fewer than half of the presentations.

    Of the others, presentations that some unit was not observed in are left out, so that a recording that was broken
    off loses its end, and a unit that was lost early does not cost all others their trials.
    """
    return np.zeros(n_units, dtype=bool) if seen is None else seen.mean(axis=1) < 0.5


def _runs(rows: np.ndarray, bounds: np.ndarray) -> list[np.ndarray]:
    """`rows` cut where the next is not the following one, and where another block of values begins."""
    block = bounds[rows] // READ_BLOCK
    cuts = np.flatnonzero((np.diff(rows) != 1) | (np.diff(block) != 0)) + 1
    return np.split(rows, cuts) if len(rows) else []
