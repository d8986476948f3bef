"""Mouse V1: about 10,000 neurons and 2,800 natural images, each shown twice (Stringer et al. 2019).

Seven sets of stimuli: natural images (`natimg2800`), the same whitened (`natimg2800_white`), projected onto 8 or 4
dimensions (`natimg2800_8D`, `natimg2800_4D`) or shown only at the receptive fields (`natimg2800_small`), all at least
twice; 32 natural images (`natimg32`) and 32 directions of drifting gratings (`ori32`), 96 times. The form of the files
is as the authors' code and its README describe them, github.com/MouseLand/stringer-pachitariu-et-al-2018b at 79850db.

The addresses of few files could be verified; figshare's page has all. Of the 32 recordings 26 are listed here by name:
the others (four of `natimg2800_white`, two of `natimg2800_small`) load by their names too, such as
"natimg2800_white_M170717_MP033_2017-08-22".
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, Source
from neurovar_datasets._reading.mat import mat
from neurovar_datasets._reading.mat_structs import struct_fields
from neurovar_datasets._reading.refusals import checked, expect, integers, numbers, reading
from neurovar_datasets._reading.repeats import check_repeats
from neurovar_datasets._registry.stringer2019_sessions import NAMES, PAGE, Session
from neurovar_datasets._registry.stringer2019_sessions import session as _session

from neurovar.responses import arrange

N_COMPONENTS = 32  # of spontaneous activity, removed in the published analyses
# Pixels of a degree each: 68 of height, 270 around the mouse over three screens; 8-bit grey.
ROWS, COLUMNS, WHITE = 68, 270, 255


SOURCE = Source(
    name="stringer2019_v1",
    title="Recordings of ten thousand neurons in visual cortex in response to 2,800 natural images",
    doi="10.25378/janelia.6845348",
    citation=(
        "Stringer C, Pachitariu M, Steinmetz N, Carandini M, Harris KD (2018). Recordings of ten thousand neurons in "
        "visual cortex in response to 2,800 natural images. figshare. Stringer C, Pachitariu M, Steinmetz N, "
        "Carandini M, Harris KD (2019). High-dimensional geometry of population responses in visual cortex. "
        "Nature 571:361-365."
    ),
    license="CC-BY-NC-4.0 (as doi:10.5281/zenodo.23050586 quotes it; not verified at figshare)",
    license_url=PAGE,
    redistribution=None,
    derivatives=None,
    units="deconvolved fluorescence",
    area="V1",
    species="mouse",
    method="2-photon",
    n_units="about 10,000",
    n_stimuli="2800 or 32",
    n_repeats="2 or 96",
    sessions={name: _session(name).files for name in NAMES},
)


@dataclass(frozen=True)
class _Cells:
    """What a file says of its cells: position (cell, 3), and which of them are red, None if it does not say."""

    positions: np.ndarray
    red: np.ndarray | None

    @property
    def kept(self) -> np.ndarray:
        return np.ones(len(self.positions), dtype=bool) if self.red is None else ~self.red


def sessions() -> tuple[str, ...]:
    """The names of the sessions that are known: set of stimuli, mouse and date, as the files are named.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()[0]
    'natimg2800_M160825_MP027_2016-12-14'
    """
    return tuple(SOURCE.sessions)


def load(*, session: str, path: AnyPath | None = None) -> xr.DataArray:
    """Responses of one session to the repeats of its stimuli.

    The cells that express tdTomato (GAD+, inhibitory; `stat.redcell`, known of some recordings) are dropped, as are the
    presentations of a grey screen, which have the largest id. A presentation of which some cell has no value is
    absent; the published code puts 0 in its place.

    Parameters
    ----------
    session : str
        One of `sessions()`, such as "natimg2800_M160825_MP027_2016-12-14", or another of the same form.
    path : path-like, optional
        The file `<session>.mat`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), deconvolved fluorescence averaged over two time bins from stimulus onset, NaN where a
        repeat is absent. The stimulus ids are those of the file, from 1, and those of `images`; `ori32` has the
        coordinate `direction` as it is in the file. `unit` counts the cells of the file from 0 and has the coordinates
        `area`, `subject`, `session`, `x`, `y` and `z`; `presentation` is the row of the file, in the order shown. attrs
        has the numbers of cells and presentations that were dropped.

    Raises
    ------
    ValueError
        If the session is unknown, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Stringer, Pachitariu, Steinmetz, Carandini, Harris 2019, Nature 571:361, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> load(session="natimg2800")
    Traceback (most recent call last):
    ...
    ValueError: expected a session such as 'natimg2800_M160825_MP027_2016-12-14', got 'natimg2800'
    """
    recording = _session(session)
    file = recording.files[0]
    return _read_responses(find(file, path=path), recording).assign_attrs(SOURCE.attrs(file))


def spontaneous(*, session: str, path: AnyPath | None = None) -> xr.DataArray:
    """Spontaneous activity of the same cells as `load` gives, from before and between the stimuli.

    Parameters
    ----------
    session : str
        One of `sessions()`, such as "natimg2800_M160825_MP027_2016-12-14", or another of the same form.
    path : path-like, optional
        The file `<session>.mat`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (time, unit), deconvolved fluorescence averaged over two time bins; the file has no times, so `time` counts them
        from 0. It may have NaN.

    Raises
    ------
    ValueError
        If the session is unknown, has no spontaneous activity, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Stringer, Pachitariu, Steinmetz, Carandini, Harris 2019, Nature 571:361, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> spontaneous(session="natimg2800")
    Traceback (most recent call last):
    ...
    ValueError: expected a session such as 'natimg2800_M160825_MP027_2016-12-14', got 'natimg2800'
    """
    recording = _session(session)
    file = recording.files[0]
    place = find(file, path=path)
    (activity,), cells = _read_fields(place, ["spont"])
    if not activity.size:
        raise ValueError(f"{place}: expected spontaneous activity in stim.spont, got none of this session")
    values = _of_cells(place, "stim.spont", activity, cells)
    return xr.DataArray(
        values,
        dims=("time", "unit"),
        coords={"time": np.arange(len(values)), **_unit_coords(cells, recording)},
        name="spontaneous",
        attrs=SOURCE.attrs(file),
    )


def images(*, session: str, path: AnyPath | None = None) -> xr.DataArray:
    """The images that were shown in one session, on three screens about the mouse, a pixel a degree.

    Parameters
    ----------
    session : str
        One of `sessions()`, or another of the same form; `ori32` and `natimg32` have no published images.
    path : path-like, optional
        The file `images_<session>.mat`, or of `natimg2800` and `natimg2800_white`, where all sessions share it,
        `images_<set>_all.mat`; or a folder that has it. By default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, channel, row, column), float32, 68 × 270 pixels of one channel "grey". The published values, 0 to 255
        with 128 for grey, are divided by 255.

    Raises
    ------
    ValueError
        If the session is unknown, has no images, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Stringer, Pachitariu, Steinmetz, Carandini, Harris 2019, Nature 571:361, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> images(session="ori32_M160825_MP027_2016-12-15")
    Traceback (most recent call last):
    ...
    ValueError: expected a session with published images, got 'ori32_M160825_MP027_2016-12-15'
    """
    recording = _session(session)
    _, *files = recording.files
    if not files:
        raise ValueError(f"expected a session with published images, got {session!r}")
    pixels = _read_images(find(files[0], path=path), recording.stimuli.n_stimuli)
    return xr.DataArray(
        pixels,
        dims=("stimulus", "channel", "row", "column"),
        coords={"stimulus": np.arange(1, len(pixels) + 1), "channel": ["grey"]},
        name="images",
        attrs=SOURCE.attrs(files[0]) | {"units": "intensity"},
    )


def preprocess(responses: xr.DataArray, spontaneous: xr.DataArray | None) -> xr.DataArray:
    """The published pre-processing: z-scored by spontaneous activity, of which 32 dimensions are removed.

    With the mean μ and standard deviation σ (divided by n) of each unit's spontaneous activity and ε = 10⁻⁶,
    z = (x − μ) / (σ + ε); then z ← z − V Vᵀz with the 32 leading right singular vectors V of the spontaneous activity,
    z-scored likewise; last, each unit's mean over all presentations is subtracted. It is `loadProc2800.m` of the
    authors' code up to its split into two halves, in double precision.

    Parameters
    ----------
    responses : DataArray
        DataArray (stimulus, repeat, unit) from `load`.
    spontaneous : DataArray
        DataArray (time, unit) from `spontaneous`; None where there is none: μ and σ are then those of the responses and
        no dimension is removed, as in the published code.

    Returns
    -------
    DataArray
        Like `responses`, float64, units "z-score". Absent trials stay absent.

    Raises
    ------
    ValueError
        If the units differ, or spontaneous activity is not finite or has fewer than 32 dimensions.

    References
    ----------
    Stringer, Pachitariu, Steinmetz, Carandini, Harris 2019, Nature 571:361, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> recorded = xr.DataArray([[[1.0], [3.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [1]})
    >>> preprocess(recorded, None).values.round(3).tolist()
    [[[-1.0], [1.0]]]
    """
    # Padding of stimuli with fewer repeats is NaN in every cell and must not enter the means.
    present = responses.notnull().all("unit").values
    values = responses.values[present].astype(np.float64)
    if spontaneous is None:
        values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    else:
        activity = _activity(responses, spontaneous)
        mean, deviation = activity.mean(axis=0), activity.std(axis=0) + 1e-6
        values = (values - mean) / deviation
        directions = _leading_directions((activity - mean) / deviation)
        values -= (values @ directions) @ directions.T
    result = np.full(responses.shape, np.nan)
    result[present] = values - values.mean(axis=0)
    removed = 0 if spontaneous is None else N_COMPONENTS
    return responses.copy(data=result).assign_attrs(units="z-score", spontaneous_dimensions_removed=removed)


def _activity(responses: xr.DataArray, spontaneous: xr.DataArray) -> np.ndarray:
    """Spontaneous activity (time, unit) of the units of the responses."""
    if not np.array_equal(responses["unit"], spontaneous["unit"]):
        n_units = f"{responses.sizes['unit']} of responses, {spontaneous.sizes['unit']} of spontaneous activity"
        raise ValueError(f"expected the same units, got others ({n_units})")
    values = spontaneous.transpose("time", "unit").values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite spontaneous activity, got {(~np.isfinite(values)).sum()} other values")
    if min(values.shape) < N_COMPONENTS:
        raise ValueError(
            f"expected at least {N_COMPONENTS} times and units of spontaneous activity, got {values.shape}"
        )
    return values


def _leading_directions(activity: np.ndarray) -> np.ndarray:
    """The leading right singular vectors (unit, component) of (time, unit), from the smaller of the two products."""
    from scipy.linalg import eigh

    # With A = U S Vᵀ, A Aᵀ = U S² Uᵀ and Aᵀ U = V S: the smaller product gives V as well, after a
    # QR that removes the scale.
    wide = activity.shape[0] < activity.shape[1]
    product = activity @ activity.T if wide else activity.T @ activity
    _, vectors = eigh(product, subset_by_index=(len(product) - N_COMPONENTS, len(product) - 1))
    return np.linalg.qr(activity.T @ vectors)[0] if wide else vectors


def _read_responses(path: Path, recording: Session) -> xr.DataArray:
    (resp, istim, ori), cells = _read_fields(path, ["resp", "istim", "ori"])
    values = _of_cells(path, "stim.resp", resp, cells)
    del resp  # which is as large, where red cells are dropped
    ids = integers(path, "stim.istim", istim)
    _check_ids(path, ids, len(values), recording.stimuli.n_stimuli)
    shown = ids != _grey_screen(ids, recording.stimuli.n_stimuli)
    whole = _whole(path, values)
    rows = np.flatnonzero(shown & whole)
    expect(len(rows) > 0, path, "stim.resp", "presentations of stimuli with a value of every cell", "none")
    check_repeats(path, "stim.istim", ids[rows], values.shape[1])
    responses = arrange(values, ids, rows=rows, overwrite=True)
    responses = responses.assign_coords(_unit_coords(cells, recording) | _directions(path, ori, ids, responses))
    counts = {
        "red_cells_dropped": "not recorded" if cells.red is None else int(cells.red.sum()),
        "grey_presentations_dropped": int((~shown).sum()),
        "incomplete_presentations": int((shown & ~whole).sum()),
    }
    window = "mean of two time bins from stimulus onset"
    return checked(path, responses.rename("responses").assign_attrs(counts, window=window))


def _read_fields(path: Path, names: list[str]) -> tuple[list[np.ndarray], _Cells]:
    """These fields of the struct `stim`, empty where it has none, and what the file says of its cells."""
    stim = struct_fields(path, "stim", names)
    fields = [stim.get(name, [np.zeros((0, 0))]) for name in names]
    expect(all(len(field) == 1 for field in fields), path, "stim", "a struct of size 1 × 1", "another size")
    with reading(path, "med"):
        positions = numbers(path, "med", mat(path, ["med"])["med"], ndim=2)
        expect(positions.shape[1] == 3 and len(positions) > 0, path, "med", "n × 3 values", positions.shape)
    return [field for (field,) in fields], _Cells(positions, _red(path, len(positions)))


def _red(path: Path, n_cells: int) -> np.ndarray | None:
    """Which cells are red, from the struct array `stat`; None if it does not say."""
    flags = struct_fields(path, "stat", ["redcell"]).get("redcell")
    if flags is None:
        return None
    complete = len(flags) == n_cells and all(flag.size == 1 for flag in flags)
    expect(complete, path, "stat.redcell", f"one number for each of the {n_cells} cells in med", "others")
    values = np.concatenate(flags, axis=None)
    expect(np.isin(values, (0, 1)).all(), path, "stat.redcell", "0 or 1", np.unique(values)[:5])
    return values.astype(bool)


def _of_cells(path: Path, field: str, values: np.ndarray, cells: _Cells) -> np.ndarray:
    """`values` (row, cell) of the cells that are kept, lying together in memory as in MATLAB's files."""
    array = numbers(path, field, values, ndim=2)
    n_cells = len(cells.positions)
    fits = array.shape[1] == n_cells and len(array) > 0
    expect(fits, path, field, f"rows of {n_cells} cells, as in med", f"shape {array.shape}")
    expect(cells.kept.any(), path, "stat.redcell", "some cells that are not red", "only red ones")
    return array if cells.kept.all() else array.T[cells.kept].T


def _unit_coords(cells: _Cells, recording: Session) -> dict[str, tuple[str, np.ndarray]]:
    kept = np.flatnonzero(cells.kept)
    labels = {"area": "V1", "subject": recording.subject, "session": recording.name}
    positions = dict(zip("xyz", cells.positions[kept].T))
    columns = {"unit": kept, **{name: np.full(len(kept), text) for name, text in labels.items()}, **positions}
    return {name: ("unit", column) for name, column in columns.items()}


def _check_ids(path: Path, ids: np.ndarray, n_presentations: int, n_stimuli: int) -> None:
    one_each = len(ids) == n_presentations
    expect(one_each, path, "stim.istim", f"{n_presentations} ids, as in stim.resp", len(ids))
    in_set = bool((ids >= 1).all() and (ids <= n_stimuli + 1).all())
    expect(in_set, path, "stim.istim", f"ids from 1 to {n_stimuli + 1}", f"{ids.min()} to {ids.max()}")


def _grey_screen(ids: np.ndarray, n_stimuli: int) -> int:
    """The id of the grey screen: the largest, unless that is the last stimulus of the set. −1 if there is none."""
    largest = int(ids.max())
    return -1 if largest == n_stimuli else largest


def _whole(path: Path, values: np.ndarray) -> np.ndarray:
    """Which presentations have a value of every cell."""
    with np.errstate(over="ignore", invalid="ignore"):
        # NaN or infinity in any cell makes the sum so; an overflow of finite values is cleared
        # below. One pass without a mask as large as the data.
        whole = np.isfinite(values.sum(axis=1))
    others = values[~whole]
    expect(not np.isinf(others).any(), path, "stim.resp", "finite responses or NaN", "infinity")
    whole[~whole] = ~np.isnan(others).any(axis=1)
    return whole


def _directions(
    path: Path, ori: np.ndarray, ids: np.ndarray, responses: xr.DataArray
) -> dict[str, tuple[str, np.ndarray]]:
    """The direction of each stimulus, from one for each presentation or for each id."""
    if not ori.size:
        return {}
    directions = numbers(path, "stim.ori", ori).ravel()
    first = responses["presentation"].values[:, 0]
    if len(directions) == len(ids):
        order = responses["presentation"].values
        same = (directions[order] == directions[first][:, None]) | (order < 0)
        expect(same.all(), path, "stim.ori", "one direction for each stimulus", "several")
        return {"direction": ("stimulus", directions[first])}
    # The list may or may not have an entry for the grey screen, whose id is the last.
    of_ids = ids.max() - 1 <= len(directions) <= ids.max()
    expected = f"a direction for each of {len(ids)} presentations or {ids.max()} ids"
    expect(of_ids and ids[first].max() <= len(directions), path, "stim.ori", expected, len(directions))
    return {"direction": ("stimulus", directions[ids[first] - 1])}


def _read_images(path: Path, n_stimuli: int) -> np.ndarray:
    """The images (image, channel, row, column), 0 to 1."""
    pixels = numbers(path, "imgs", mat(path, ["imgs"])["imgs"], ndim=3)
    fits = pixels.shape[:2] == (ROWS, COLUMNS) and 0 < pixels.shape[2] <= n_stimuli
    expect(fits, path, "imgs", f"{ROWS} × {COLUMNS} × up to {n_stimuli} pixels", f"shape {pixels.shape}")
    in_range = bool((pixels >= 0).all() and (pixels <= WHITE).all())
    expect(in_range, path, "imgs", f"pixels from 0 to {WHITE}", "others")
    return np.divide(pixels.transpose(2, 0, 1)[:, None], WHITE, dtype=np.float32)
