"""Anesthetized macaque V1: spikes to drifting gratings and movies on Utah arrays (Kohn & Smith 2016, CRCNS pvc-11).

doi:10.6080/K0NC5Z4X. The files need a free account at crcns.org, whose terms do not allow to pass them on: they are
read from where the user has put them, and none was at hand when this was written.

From the page https://crcns.org/data-sets/vc/pvc-11/about: single and multi-units of anesthetized *Macaca fascicularis*,
five arrays in three monkeys with evoked activity; gratings shown for 1.28 s; movies of gratings, of a natural scene and
of white noise, 30 s each. From public code that reads the files, several programs agreeing: the names of files and
fields; `data.EVENTS` is a cell array (unit × grating × trial, or unit × trial of a movie) of spike times in s from
stimulus onset; `CHANNELS` (unit × 2) has each unit's channel and its number on that channel, `MAP` (10 × 10) the
channel at each place of the array, `SNR` each unit's signal-to-noise ratio; 12 directions in steps of 30°, 200 trials
each; gratings are in MATLAB 5 files, movies in MATLAB 7.3 ones (either is read for either). The directions are not in
the files: that the i-th grating drifts at 30·i degrees is what all of this code takes for granted. One program's notes
say that 0° drifts to the left and 90° downward. The number of a movie's trials, and whether `monkey1` is the same
animal in gratings and movies, could not be verified. Spontaneous activity, which has no stimulus, is not read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source, choose
from neurovar_datasets._reading.hdf5 import is_hdf5, open_hdf5
from neurovar_datasets._reading.mat import mat, struct_field
from neurovar_datasets._reading.mat_cells import cell_array, matlab_class
from neurovar_datasets._reading.refusals import checked, expect, integers, numbers, reading

from neurovar.responses import TIME_DIMS, bin_edges

PAGE = "https://crcns.org/data-sets/vc/pvc-11"
DIRECTIONS = np.arange(0, 360, 30)
GRATING_DURATION, MOVIE_DURATION = 1.28, 30.0  # s
MOVIES = ("gratings_movie", "natural_movie", "noise_movie")
FIELDS = ("EVENTS", "CHANNELS", "MAP", "SNR")


def _file(session: str) -> File:
    folder = "spikes_gratings" if session.endswith("_gratings") else "spikes_movies"
    return File(
        path=f"kohn_pvc11/data_and_scripts/{folder}/data_{session}.mat",
        url=f"{PAGE}/about",
        by_hand=(
            "get a free account at https://crcns.org, download data_and_scripts.tar.gz of pvc-11, and unpack it into a "
            "folder kohn_pvc11"
        ),
    )


SOURCE = Source(
    name="kohn_pvc11",
    title=(
        "Utah array extracellular recordings of spontaneous and visually evoked activity from anesthetized macaque "
        "primary visual cortex (V1)"
    ),
    doi="10.6080/K0NC5Z4X",
    citation=(
        "Kohn A, Smith MA (2016). Utah array extracellular recordings of spontaneous and visually evoked activity from "
        "anesthetized macaque primary visual cortex (V1). CRCNS.org. doi:10.6080/K0NC5Z4X. Recorded for: Smith MA, "
        "Kohn A (2008). Spatial and temporal scales of neuronal correlation in primary visual cortex. J Neurosci "
        "28(48):12591-12603."
    ),
    license="CRCNS terms of use",
    license_url="https://crcns.org/terms",
    redistribution=False,
    derivatives=None,
    units="spike count",
    area="V1",
    species="macaque",
    method="Utah array",
    n_units="44 to 104",
    n_stimuli="12 gratings or 1 movie",
    n_repeats="200",
    sessions={
        session: (_file(session),)
        for session in (
            *(f"monkey{monkey}_gratings" for monkey in (1, 2, 3)),
            *(f"monkey{monkey}_{movie}" for monkey in (1, 2) for movie in MOVIES),
        )
    },
)


@dataclass(frozen=True)
class _Recording:
    """The fields of a file as MATLAB has them; `events` are spike times (unit, stimulus, trial) or (unit, trial)."""

    events: np.ndarray
    channels: np.ndarray
    map: np.ndarray
    snr: np.ndarray


def sessions() -> tuple[str, ...]:
    """The recordings with gratings (three monkeys), then those with movies (two monkeys, three movies).

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()[0]
    'monkey1_gratings'
    """
    return tuple(SOURCE.sessions)


def load(
    *, session: str, window: tuple[float, float], bin_width: float | None = None, path: AnyPath | None = None
) -> xr.DataArray:
    """Spike counts of one session, over a window or in bins within it.

    The authors' scripts count over (0.28, 1.28) s of a grating and keep units with `snr` of at least 1.5 (of at least
    2 in movies) that fire at least once a second: `da.sel(unit=da.snr >= 1.5)`.

    Parameters
    ----------
    session : str
        One of `sessions()`, such as "monkey1_gratings" or "monkey1_natural_movie".
    window : tuple of float
        Start and stop in s from stimulus onset, within 0 to 1.28 s of a grating and 0 to 30 s of a movie.
    bin_width : float, optional
        In s; by default one count for the window.
    path : path-like, optional
        The file `data_<session>.mat`, or a folder that has it.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit[, time]), float32 spike counts. Gratings are named by their direction in degrees, which
        is also the coordinate `direction`; the only stimulus of another session is its movie. `unit` has `area`,
        `subject`, `session`, `snr`, `electrode` (the channel), `unit_on_electrode`, and the place of the electrode on
        the array, `electrode_row` and `electrode_column`, in steps of 0.4 mm from 0, NaN where it is on none.

    Raises
    ------
    ValueError
        If the session is unknown, `path` does not exist, or the window is not within the stimulus.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or is not here.

    References
    ----------
    Kohn, Smith 2016, CRCNS, doi:10.6080/K0NC5Z4X; Smith, Kohn 2008, doi:10.1523/JNEUROSCI.2929-08.2008

    Examples
    --------
    >>> load(session="monkey1_gratings", window=(0.28, 2.0))
    Traceback (most recent call last):
    ...
    ValueError: expected a window within 0 to 1.28 s, when the stimulus was shown, got (0.28, 2.0)
    """
    (file,) = choose(session, SOURCE.sessions, kind="session")
    edges = bin_edges(window, bin_width)
    stop = GRATING_DURATION if session.endswith("_gratings") else MOVIE_DURATION
    if window[0] < 0 or window[1] > stop:
        raise ValueError(f"expected a window within 0 to {stop:g} s, when the stimulus was shown, got {window}")
    counted = _read_session(find(file, path=path), session, edges)
    attrs = SOURCE.attrs(file) | {"window": f"{edges[0]:g} to {edges[-1]:g} s"}
    if bin_width is None:
        return counted.isel(time=0, drop=True).assign_attrs(attrs)
    return counted.assign_attrs(attrs, bin_width=bin_width)


def _read_session(path: Path, session: str, edges: np.ndarray) -> xr.DataArray:
    """The counts between each two edges."""
    with reading(path, "data"):
        recording = _read_hdf5(path) if is_hdf5(path) else _read_mat(path)
        cells, stimuli = _stimuli(path, session, recording.events)
        units = _units(path, recording, len(cells)) | {"subject": session.partition("_")[0], "session": session}
        values = np.empty((*cells.shape[1:], len(cells), len(edges) - 1), dtype=np.float32)
        for unit, trials in enumerate(cells):
            values[:, :, unit] = _count(path, trials, edges)
    coords: dict[str, Any] = {"time": edges[:-1], "unit": np.arange(len(cells)), **stimuli}
    coords |= {name: ("unit", np.full(len(cells), of_units)) for name, of_units in units.items()}
    return checked(path, xr.DataArray(values, dims=TIME_DIMS, coords=coords, name="responses"))


def _read_mat(path: Path) -> _Recording:
    data = mat(path, ["data"])["data"]
    return _Recording(*(struct_field(path, data, name) for name in FIELDS))


def _read_hdf5(path: Path) -> _Recording:
    """As `_read_mat`, from a MATLAB 7.3 file: dims are reversed, and cells are references to other datasets."""
    with open_hdf5(path) as file:
        events = cell_array(path, file, "data/EVENTS", lambda cell: _times(path, cell)).T
        return _Recording(events, *(file.array(f"data/{name}").T for name in FIELDS[1:]))


def _times(path: Path, cell: Any) -> np.ndarray:
    """The numbers in a cell; of an empty one MATLAB writes the shape, of a text its characters as numbers."""
    if cell.attrs.get("MATLAB_empty", 0):
        return np.empty(0)
    expect(matlab_class(cell) != "char", path, "EVENTS", "cells with spike times", "text")
    return np.asarray(cell[()])


def _stimuli(path: Path, session: str, events: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Cells (unit, stimulus, trial) and the coordinates of the stimuli."""
    expect(events.dtype == object, path, "EVENTS", "a cell array of spike times", f"dtype {events.dtype}")
    if session.endswith("_gratings"):
        right = events.ndim == 3 and events.shape[1] == len(DIRECTIONS)
        expect(right, path, "EVENTS", f"units × {len(DIRECTIONS)} gratings × trials", f"shape {events.shape}")
        return events, {"stimulus": DIRECTIONS, "direction": ("stimulus", DIRECTIONS.astype(np.float64))}
    expect(events.ndim == 2, path, "EVENTS", "units × trials of a movie", f"shape {events.shape}")
    return events[:, None], {"stimulus": [session.partition("_")[2]]}


def _units(path: Path, recording: _Recording, n_units: int) -> dict[str, Any]:
    """Coordinates of the units."""
    channels, snr = recording.channels, numbers(path, "SNR", recording.snr).ravel()
    expect(channels.shape == (n_units, 2), path, "CHANNELS", f"shape ({n_units}, 2)", channels.shape)
    expect(snr.shape == (n_units,), path, "SNR", f"{n_units} values, one for each unit", snr.shape)
    electrode, of_electrode = integers(path, "CHANNELS", channels).reshape(n_units, 2).T
    grid = numbers(path, "MAP", recording.map)
    expect(grid.shape == (10, 10), path, "MAP", "the channels of 10 × 10 electrodes", f"shape {grid.shape}")
    at = electrode[:, None] == grid.ravel()
    expect(bool((at.sum(axis=1) <= 1).all()), path, "MAP", "each unit's channel in one place", "a channel in several")
    place = np.where(at.any(axis=1), at.argmax(axis=1), np.nan)
    position = {"electrode_row": place // 10, "electrode_column": place % 10}
    return {"area": "V1", "electrode": electrode, "unit_on_electrode": of_electrode, "snr": snr} | position


def _count(path: Path, cells: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts (stimulus, trial, bin) of one unit: a spike at t counts where an edge ≤ t < the next."""
    plain = all(isinstance(cell, np.ndarray) and cell.dtype.kind in "iuf" for cell in cells.flat)
    expect(plain, path, "EVENTS", "cells with spike times", "text or other things")
    trial = np.repeat(np.arange(cells.size), [cell.size for cell in cells.flat])
    times = np.concatenate([cell.ravel() for cell in cells.flat]).astype(np.float64)
    expect(bool(np.isfinite(times).all()), path, "EVENTS", "finite spike times", "NaN or infinity")
    in_order = (np.diff(times) >= 0) | (np.diff(trial) > 0)
    expect(bool(in_order.all()), path, "EVENTS", "spike times that never decrease in a trial", "times out of order")
    n_bins = len(edges) - 1
    at = np.searchsorted(edges, times, side="right") - 1
    inside = (at >= 0) & (at < n_bins)
    counted = np.bincount(trial[inside] * n_bins + at[inside], minlength=cells.size * n_bins)
    return counted.reshape(*cells.shape, n_bins)
