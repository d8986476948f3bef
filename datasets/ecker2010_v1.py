"""Awake macaque V1: single units' spikes to static and moving gratings, in bins of 10 ms (Ecker et al. 2010).

Science 327:584, doi:10.1126/science.1179867. Recorded with tetrodes; units are single neurons as far as their
`contamination` is small.

Two files, both read whole when this was written: 17 sessions with static gratings and 27 with moving ones, uint8
counts in bins centred on −195 to 695 ms. Public code takes the times for ms from stimulus onset; the mean response
indeed begins after 40 ms and ends after 540 ms. Over 0 to 0.5 s, units with a contamination below 0.05 have a mean
noise correlation of 0.010, the "virtually no correlated variability" of the paper.

The address is that of a public copy in the teaching material of the Stevenson lab; the licence allows to pass the
files on unchanged. The authors' own, http://bethgelab.org/datasets/v1gratings/, could not be reached, so that the copy
was not compared with it. The size and spatial frequency of the gratings are not in the files. The second study of
these data is Berens et al. 2012, J Neurosci 32:10618, doi:10.1523/JNEUROSCI.1335-12.2012.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source, choose
from neurovar_datasets._reading.mat import mat, struct_field
from neurovar_datasets._reading.refusals import (
    checked,
    counts,
    expect,
    increasing_times,
    integers,
    numbers,
    reading,
    unique,
)

from neurovar.responses import TIME_DIMS, rebin

_COMMIT = "https://raw.githubusercontent.com/stevensonlab/teaching/8359ae6390dcd72b4ab7e5af4bf951b9ff58cffd"
MAX_COUNTS = 50_000_000  # ten times those of the largest session
VARYING = ("orientation", "direction")

STATIC = File(
    path="ecker2010_v1/data_v1_binned_static.mat",
    url=f"{_COMMIT}/sand/labs/lab6/data_v1_binned_static.mat",
    hash="sha256:041e1419a43f243cc3f243f86fce62de6d5276165e2f40b2fd0641d733e86886",
    size=792_977,
)
MOVING = File(
    path="ecker2010_v1/data_v1_binned_moving.mat",
    url=f"{_COMMIT}/sand/labs/lab3/data_v1_binned_moving.mat",
    hash="sha256:5b3860886488a735b5d00f86b3113a12194f91fc377fa063dc6cfeae07b3fe80",
    size=2_169_618,
)
_STATIC_DATES = """
2008-09-01_13-34-21 2008-09-02_17-30-19 2008-09-04_16-47-30 2008-09-05_17-25-21 2008-09-06_16-24-10
2002-04-01 2002-04-09 2002-04-11 2002-04-17
2002-09-04 2002-09-05 2002-09-06 2002-09-07 2002-09-08 2002-09-09 2002-09-10 2002-09-11
"""
_MOVING_DATES = """
2008-08-09_12-28-59 2008-08-10_19-14-14 2008-08-11_13-51-54 2008-08-12_11-39-36 2008-08-13_13-17-08
2008-08-14_12-36-45 2008-08-15_12-06-44 2008-08-19_15-08-04 2008-08-21_13-25-03 2008-08-22_13-37-07
2008-08-23_13-21-32 2008-08-25_11-13-49 2008-08-26_15-53-37 2008-08-29_15-02-32
2003-06-18 2003-06-19 2003-06-20 2003-06-21 2003-06-23 2003-06-24 2003-06-25 2003-06-27 2003-06-29 2003-06-30
2003-07-01 2003-07-04 2003-07-10
"""

SOURCE = Source(
    name="ecker2010_v1",
    title="Macaque V1 grating dataset, static and moving gratings, binned spikes",
    doi="10.1126/science.1179867",
    citation=(
        "Ecker AS, Berens P, Keliris GA, Bethge M, Logothetis NK, Tolias AS (2010). Decorrelated neuronal firing in "
        "cortical microcircuits. Science 327(5965):584-587."
    ),
    license="CC BY-NC-ND 3.0",
    license_url="https://creativecommons.org/licenses/by-nc-nd/3.0/",
    redistribution=True,  # unchanged and not for profit
    derivatives=False,
    units="spike count",
    area="V1",
    species="macaque",
    method="tetrodes",
    n_units="10 to 38",
    n_stimuli="14 to 16 gratings",
    n_repeats="5 to 129",
    sessions={
        date: (file,) for file, dates in ((STATIC, _STATIC_DATES), (MOVING, _MOVING_DATES)) for date in dates.split()
    },
)


def sessions() -> tuple[str, ...]:
    """The sessions by their date: first the 17 with static gratings, then the 27 with moving ones.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> len(sessions())
    44
    """
    return tuple(SOURCE.sessions)


def load(
    *,
    session: str,
    window: tuple[float, float],
    bin_width: float | None = None,
    max_contamination: float | None = None,
    path: AnyPath | None = None,
) -> xr.DataArray:
    """Spike counts of one session, over a window or in bins within it.

    Parameters
    ----------
    session : str
        Its date, one of `sessions()`.
    window : tuple of float
        Start and stop in s from stimulus onset, within −0.2 to 0.7 s, of which the whole bins of 10 ms count
        (attrs["window"] says which). The gratings were shown for the first 0.5 s.
    bin_width : float, optional
        In s, a multiple of 0.01; by default one count for the window.
    max_contamination : float, optional
        Only units with a lower contamination, the part of a unit's spikes that is estimated to be of other neurons. The
        papers took 0.05; by default all units are there, with the coordinate `contamination`.
    path : path-like, optional
        The file `data_v1_binned_static.mat` or `data_v1_binned_moving.mat`, or a folder that has it.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit[, time]), float32 spike counts. `stimulus` has the coordinates `contrast` (in percent)
        and `orientation` (of static gratings) or `direction` (of moving ones), in degrees as in the file; `unit` has
        `area`, `subject`, `session`, `tetrode` and `contamination`.

    Raises
    ------
    ValueError
        If the session is unknown, `path` does not exist, no bin lies in the window, or no unit is left.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or cannot be had.

    References
    ----------
    Ecker, Berens, Keliris, Bethge, Logothetis, Tolias 2010, Science 327:584, doi:10.1126/science.1179867

    Examples
    --------
    >>> load(session="2001-01-01", window=(0.0, 0.5))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of '2008-09-01_13-34-21', ..., got '2001-01-01'
    """
    (file,) = choose(session, SOURCE.sessions, kind="session")
    binned = _read_session(find(file, path=path), session)
    if max_contamination is not None:
        clean = np.flatnonzero(binned["contamination"] < max_contamination)
        if not len(clean):
            least = float(binned["contamination"].min())
            raise ValueError(f"expected units with a contamination below {max_contamination:g}, the least is {least:g}")
        binned = binned.isel(unit=clean)
    return rebin(binned.assign_attrs(SOURCE.attrs(file)), window=window, bin_width=bin_width)


def _read_session(path: Path, session: str) -> xr.DataArray:
    """The counts of one session in all bins of a file with either sort of gratings."""
    with reading(path, session):
        record = _record(path, mat(path, ["data"])["data"], session)
        spikes = numbers(path, "spikes", struct_field(path, record, "spikes"), ndim=4)
        expect(spikes.size <= MAX_COUNTS, path, "spikes", f"at most {MAX_COUNTS} counts", f"shape {spikes.shape}")
        # The file has (unit, stimulus, time, repeat), in MATLAB's order of axes.
        values = counts(path, "spikes", spikes.transpose(1, 3, 0, 2)).astype(np.float32)
        n_stimuli, _, n_units, n_bins = values.shape
        start, width = _bins(path, struct_field(path, record, "times"), n_bins)
        stimuli = _conditions(path, struct_field(path, record, "conditions"), n_stimuli)
        units = _units(path, record, n_units) | {"session": np.full(n_units, session)}
    coords: dict[str, Any] = {"time": start, "unit": np.arange(n_units)}
    coords |= {name: ("unit", of_units) for name, of_units in units.items()}
    coords |= {name: ("stimulus", of_stimuli) for name, of_stimuli in stimuli.items()}
    attrs = {"units": "spike count", "bin_width": width}
    return checked(path, xr.DataArray(values, dims=TIME_DIMS, coords=coords, attrs=attrs, name="responses"))


def _record(path: Path, cells: np.ndarray, session: str) -> np.ndarray:
    """The struct of one session from the cell array of all."""
    expect(cells.dtype == object, path, "data", "a cell array with a struct for each session", f"dtype {cells.dtype}")
    dates = [_text(path, "date", struct_field(path, cell, "date")) for cell in cells.ravel()]
    expect(dates.count(session) == 1, path, "date", f"one session {session}", f"sessions {dates[:50]}")
    return cells.ravel()[dates.index(session)]


def _units(path: Path, record: np.ndarray, n_units: int) -> dict[str, np.ndarray]:
    """Coordinates of the units."""
    tetrode = integers(path, "tetrode", struct_field(path, record, "tetrode"))
    contamination = numbers(path, "contamination", struct_field(path, record, "contamination")).ravel()
    for name, values in {"tetrode": tetrode, "contamination": contamination}.items():
        expect(len(values) == n_units, path, name, f"{n_units} values, one for each unit", len(values))
    subject = _text(path, "subject", struct_field(path, record, "subject"))
    labels = {"area": np.full(n_units, "V1"), "subject": np.full(n_units, subject)}
    return labels | {"tetrode": tetrode, "contamination": contamination}


def _bins(path: Path, times: Any, n_bins: int) -> tuple[np.ndarray, float]:
    """Start of each bin and width of all, in s, from their centres in ms."""
    centre = increasing_times(path, "times", times)
    expect(len(centre) == n_bins, path, "times", f"{n_bins} times, one for each bin", len(centre))
    width = float(centre[1] - centre[0]) if n_bins > 1 else 0.0
    same = width > 0 and np.allclose(np.diff(centre), width, rtol=1e-6)
    expect(same, path, "times", "centres of bins of the same width", f"{centre[:5]} …")
    # Times are centres in ms; the convention wants the start of each bin in s.
    return (centre - width / 2) / 1000, width / 1000


def _conditions(path: Path, conditions: np.ndarray, n_stimuli: int) -> dict[str, np.ndarray]:
    """Coordinates of the stimuli from a struct array with one element a condition, its fields in any order."""
    names = conditions.dtype.names or ()
    varying = [name for name in VARYING if name in names]
    expect(
        "contrast" in names and len(varying) == 1, path, "conditions", "contrast and orientation or direction", names
    )
    expect(conditions.size == n_stimuli, path, "conditions", f"{n_stimuli}, as in spikes", conditions.size)
    values = {name: _scalars(path, name, conditions[name]) for name in (varying[0], "contrast")}
    ids = [f"{angle:g} deg, {contrast:g} %" for angle, contrast in zip(*values.values())]
    return {"stimulus": unique(path, "conditions", ids)} | values


def _scalars(path: Path, field: str, cells: np.ndarray) -> np.ndarray:
    """A number from each cell."""
    flat = [numbers(path, field, cell) for cell in cells.ravel()]
    expect(all(value.size == 1 for value in flat), path, field, "one number for each condition", "more or none")
    values = np.array([value.item() for value in flat], dtype=np.float64)
    expect(bool(np.isfinite(values).all()), path, field, "finite numbers", "NaN or infinity")
    return values


def _text(path: Path, field: str, value: np.ndarray) -> str:
    expect(value.dtype.kind == "U" and value.size == 1, path, field, "a text", f"{value.dtype} of shape {value.shape}")
    return str(value.item())
