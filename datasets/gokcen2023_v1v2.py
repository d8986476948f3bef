"""Macaque V1 and V2, recorded together: 400 repeats of one drifting grating (Gokcen et al. 2023).

The published file is one stimulus of one session of Zandvakili & Kohn 2015, all of whose data are at
doi:10.6080/K0B27SHN. It has 84 V1 and 26 V2 units of an anaesthetised animal, in 64 bins of 20 ms: the 1.28 s from
stimulus onset (V1 begins to respond in the fourth bin).

The file has no counts: the mean over its 64 bins was subtracted from each trial of each unit, y = c − Σc/64. Counts are
taken to be y − min(y), the smallest that fit; they are whole throughout the file. They are the counts c if the unit was
silent in at least one bin of the trial. The published mean rates (coordinate `firing_rate`, Hz) tell where it was not:
all units agree with them exactly except unit 23 (from 0), whose counts are 0.25 Hz too low: 2 × 64 of its 73,321
spikes. So in two trials it fired in every bin (or in one, at least twice in every bin); the file does not say in which.
"""

from pathlib import Path

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source, choose
from neurovar_datasets._reading.mat import mat, struct_field
from neurovar_datasets._reading.refusals import checked, counts, expect, integers, numbers, unique

from neurovar import responses

_COMMIT = "https://raw.githubusercontent.com/egokcen/mDLAG/efe3fbe6263561cb2db3031a8f7320a2b9d18846"
BIN_WIDTH = 0.02
AREAS = ("V1", "V2")
SUBJECT = "107"

SOURCE = Source(
    name="gokcen2023_v1v2",
    title="Uncovering motifs of concurrent signaling across multiple neuronal populations",
    doi="10.6080/K0B27SHN",
    citation=(
        "Gokcen E, Jasper AI, Xu A, Kohn A, Machens CK, Yu BM (2023). Uncovering motifs of concurrent signaling across "
        "multiple neuronal populations. Advances in Neural Information Processing Systems 36. Recordings: "
        "Zandvakili A, Kohn A (2015). Coordinated neuronal activity enhances corticocortical communication. "
        "Neuron 87:827-839."
    ),
    license="MIT",
    license_url=f"{_COMMIT}/LICENSE",
    redistribution=True,
    derivatives=True,
    units="spike count",
    area="V1, V2",
    species="macaque",
    method="Utah array, tetrodes",
    n_units="84 + 26",
    n_stimuli="1",
    n_repeats="400",
    sessions={
        "107l003p143_stim1": (
            File(
                path="gokcen2023_v1v2/107l003p143_stim1.mat",
                url=f"{_COMMIT}/V1V2array/data/107l003p143_stim1.mat",
                hash="sha256:bc73910ef257cdb7665940c6634eac30b28edb42ea8dd972e8f538db92ddd36a",
                size=3_851_538,
            ),
        )
    },
)


def sessions() -> tuple[str, ...]:
    """The names of the sessions, of which one is published.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()
    ('107l003p143_stim1',)
    """
    return tuple(SOURCE.sessions)


def load(
    *,
    session: str = "107l003p143_stim1",
    area: str | None = None,
    window: tuple[float, float] | None = None,
    bin_width: float | None = None,
    path: AnyPath | None = None,
) -> xr.DataArray:
    """Spike counts of the V1 and V2 units, for each trial or resolved in time.

    Parameters
    ----------
    session : str, optional
        "107l003p143_stim1", the only one.
    area : str, optional
        "V1" (84 units) or "V2" (26); by default both, V1 first.
    window : tuple of float, optional
        Start and stop in s from stimulus onset, of which the whole bins of 20 ms count; by default 0 to 1.28 s.
    bin_width : float, optional
        In s, 0.02 or a multiple; by default one count for the whole window.
    path : path-like, optional
        The file `107l003p143_stim1.mat`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), float64 spike counts of 1 stimulus × 400 repeats, with a last dim `time` (each bin's
        start in s) if `bin_width` is given. `unit` has the coordinates `area`, `subject`, `session`, `unit_id` (the
        published number, unique within an area) and `firing_rate` (the published mean in Hz); `presentation` is the
        published number of each trial in the recording, which had other stimuli in between.

    Raises
    ------
    ValueError
        If the session or area is unknown, `path` does not exist, or the bins do not fit.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or cannot be had.

    References
    ----------
    Gokcen et al. 2023, NeurIPS 36
    Zandvakili & Kohn 2015, Neuron 87:827, doi:10.1016/j.neuron.2015.07.026; data doi:10.6080/K0B27SHN

    Examples
    --------
    >>> load(area="V4")
    Traceback (most recent call last):
    ...
    ValueError: expected the area to be one of 'V1', 'V2', got 'V4'
    """
    (file,) = choose(session, SOURCE.sessions, kind="session")
    if area is not None:
        choose(area, dict.fromkeys(AREAS), kind="area")
    binned = _read_counts(find(file, path=path), session)
    if area is not None:
        binned = binned.isel(unit=np.flatnonzero(binned["area"].values == area))
    return responses.rebin(binned.assign_attrs(SOURCE.attrs(file)), window=window, bin_width=bin_width)


def _read_counts(path: Path, session: str) -> xr.DataArray:
    """Labelled counts (stimulus, repeat, unit, time) from the struct `dat`."""
    dat = mat(path, ["dat"])["dat"]
    n_units = integers(path, "dat.yDims", struct_field(path, dat, "yDims"))
    two = len(n_units) == len(AREAS) and bool((n_units > 0).all())
    expect(two, path, "dat.yDims", "the number of V1 and of V2 units", n_units)
    trials, values = _trials(path, struct_field(path, dat, "seq"), n_units.sum())
    unit_ids = [
        unique(path, "dat.units", integers(path, "dat.units", ids)) for ids in _by_area(path, dat, "units", n_units)
    ]
    rates = _by_area(path, dat, "firingRates", n_units)
    of_units = {
        "area": np.repeat(AREAS, n_units),
        "subject": np.repeat(SUBJECT, n_units.sum()),
        "session": np.repeat(session, n_units.sum()),
        "unit_id": np.concatenate(unit_ids),
        "firing_rate": np.concatenate(rates),
    }
    binned = xr.DataArray(
        _counts(path, values)[None],
        dims=("stimulus", "repeat", "unit", "time"),
        coords={
            "stimulus": [session.rpartition("_")[2]],
            "unit": np.arange(n_units.sum()),
            "time": (np.arange(values.shape[2]) * BIN_WIDTH).round(6),
            "presentation": (("stimulus", "repeat"), trials[None]),
            **{name: ("unit", of_unit) for name, of_unit in of_units.items()},
        },
        name="responses",
        attrs={"bin_width": BIN_WIDTH},
    )
    return checked(path, binned)


def _by_area(path: Path, dat: np.ndarray, name: str, n_units: np.ndarray) -> list[np.ndarray]:
    """A field of `dat` that is a cell array with a column of finite numbers for each area."""
    cells = struct_field(path, dat, name)
    as_cells = cells.dtype == object and cells.size == len(AREAS)
    expect(as_cells, path, f"dat.{name}", f"a cell array of {len(AREAS)}", f"{cells.dtype} of shape {cells.shape}")
    columns = [numbers(path, f"dat.{name}", cell).ravel() for cell in cells.ravel()]
    sizes = [len(column) for column in columns]
    expect(sizes == n_units.tolist(), path, f"dat.{name}", f"{n_units} values, as in dat.yDims", sizes)
    finite = all(np.isfinite(column).all() for column in columns)
    expect(finite, path, f"dat.{name}", "finite numbers", "NaN or infinity")
    return columns


def _trials(path: Path, seq: np.ndarray, n_units: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of each trial, increasing, and what `seq` has of it, (trial, unit, time)."""
    names = seq.dtype.names or ()
    expect({"trialId", "T", "y"} <= set(names), path, "dat.seq", "fields trialId, T and y", names[:20])
    expect(seq.size > 0, path, "dat.seq", "at least one trial", seq.shape)
    values = [numbers(path, "dat.seq.y", trial["y"], ndim=2) for trial in seq.ravel()]
    shapes = {value.shape for value in values}
    n_bins = values[0].shape[1]
    expected = f"the same {n_units} × T values, T > 0, of every trial"
    expect(shapes == {(n_units, n_bins)} and n_bins > 0, path, "dat.seq.y", expected, sorted(shapes)[:5])
    for trial in seq.ravel():
        length = integers(path, "dat.seq.T", trial["T"]).tolist()
        expect(length == [n_bins], path, "dat.seq.T", f"{n_bins}, the columns of y", length[:5])
    trial_ids = integers(path, "dat.seq.trialId", np.concatenate([np.ravel(trial["trialId"]) for trial in seq.ravel()]))
    increasing = len(trial_ids) == seq.size and bool((np.diff(trial_ids) > 0).all())
    expect(increasing, path, "dat.seq.trialId", "one for each trial, increasing", trial_ids[:5])
    return trial_ids, np.stack(values).astype(np.float64)


def _counts(path: Path, values: np.ndarray) -> np.ndarray:
    """The counts from which each trial's mean over time was subtracted, were they 0 at least once."""
    mean = np.abs(values.mean(axis=2)).max()
    expect(mean < 1e-6, path, "dat.seq.y", "a mean of 0 over the time of each trial", f"up to {mean:g}")
    return counts(path, "dat.seq.y minus its minimum", values - values.min(axis=2, keepdims=True))
