"""Macaque V1: 166 units, 7,250 natural images and textures made from them, each shown up to four times (Cadena 2019).

The authors ask to be contacted before the data are used in research of one's own, and for permission to publish a new
analysis of them (CC BY-NC-ND 4.0): github.com/sacadena/Cadena2019PlosCB.

The published file is a Python pickle, which runs whatever code is in it when it is read. It is therefore never read
here; `load` takes its arrays from a .npz or a .mat file, and says how to make one when it is given the pickle.

The units were recorded in many sessions, so noise correlations are only of units of one session.
"""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source
from neurovar_datasets._reading.archives import npz
from neurovar_datasets._reading.mat import mat
from neurovar_datasets._reading.refusals import checked, expect, integers, numbers, reading, unique

from neurovar.responses import mark

NAME = "cadena_ploscb_data"
PICKLE_START = b"\x80"
WHITE = 255
ALL = "all"
OF_UNITS = {"subject": "subject_id", "session": "session_id", "unit_id": "unit_id"}
CONVERT = f"""\
import pickle, numpy as np
data = pickle.load(open("{NAME}.pkl", "rb"))
np.savez("{NAME}.npz", **{{k: np.array([np.ravel(x)[0] for x in np.ravel(v)]) \
if np.asarray(v).dtype == object else v for k, v in data.items()}})"""

FILE = File(
    path=f"cadena2019_v1/{NAME}.npz",
    url="https://doid.gin.g-node.org/2e31e304e03d6357c98ac735a1fe5788/2e31e304e03d6357c98ac735a1fe5788.zip",
    by_hand=f"download the zip file, and make {NAME}.npz from {NAME}.pkl in it; load(path=<the pickle>) says how",
)

SOURCE = Source(
    name="cadena2019_v1",
    title="Deep convolutional models improve predictions of macaque V1 responses to natural images",
    doi="10.1371/journal.pcbi.1006897",
    citation=(
        "Cadena SA, Denfield GH, Walker EY, Gatys LA, Tolias AS, Bethge M, Ecker AS (2019). Deep convolutional models "
        "improve predictions of macaque V1 responses to natural images. PLoS Computational Biology 15(4):e1006897."
    ),
    license="CC-BY-NC-ND-4.0",
    license_url="https://github.com/sacadena/Cadena2019PlosCB/blob/7898a0f58e418b5ce56ba3cc3db07af377893ac8/LICENSE",
    redistribution=True,
    derivatives=False,
    units="spike count",
    area="V1",
    species="macaque",
    method="electrodes",
    n_units="166",
    n_stimuli="7250",
    n_repeats="2 or 4",
    sessions={ALL: (FILE,)},
)


def sessions() -> tuple[str, ...]:
    """Only "all": the published file names its sessions itself, in the coordinate `session` of what `load` returns.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()
    ('all',)
    """
    return tuple(SOURCE.sessions)


def load(*, session: str = ALL, path: AnyPath | None = None) -> xr.DataArray:
    """Responses of the units of one session, or of all units to what all were shown.

    Units of two repeats beside units of four, or of fewer images, leave trials that only some units have. Within a
    session there are none; of all units such trials are left out, and attrs["incomplete_trials"] says how many.

    Parameters
    ----------
    session : str, optional
        The `session_id` of some units in the file; by default all units, marked as not recorded together, so that their
        noise correlations are refused.
    path : path-like, optional
        A .npz or .mat file with the published arrays: responses (repeat, image, unit), NaN where a unit was shown
        fewer, image_ids, image_types, repetitions, subject_id, session_id and unit_id; by default
        `cadena_ploscb_data.npz` is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), spike counts (units "response" if they are not whole), NaN where a repeat is absent.
        The stimulus ids are type and number of the image ("original_17", "conv4_17"), also in the coordinates
        `image_type` and `image_id`; `position` is that in the file, from 0. `unit` counts the units of the file from 0
        and has the coordinates `area`, `subject`, `session` and `unit_id`.

    Raises
    ------
    ValueError
        If `path` does not exist or is the pickle, or no unit is of that session.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Cadena et al. 2019, PLoS Comput Biol 15:e1006897, doi:10.1371/journal.pcbi.1006897

    Examples
    --------
    >>> load(path="nowhere.npz")
    Traceback (most recent call last):
    ...
    ValueError: expected a file cadena_ploscb_data.npz at the path given, found none at nowhere.npz
    """
    responses = _read_responses(find(FILE, path=path), session)
    return responses.assign_attrs(SOURCE.attrs(FILE) | {"units": responses.attrs["units"]})


def images(*, session: str = ALL, path: AnyPath | None = None) -> xr.DataArray:
    """The images that `load` has responses to.

    Parameters
    ----------
    session : str, optional
        The `session_id` of some units in the file; by default the images that all units were shown.
    path : path-like, optional
        A .npz or .mat file with the published arrays, which must have `images` (image, row, column) too; by default
        `cadena_ploscb_data.npz` is searched for.

    Returns
    -------
    DataArray
        (stimulus, channel, row, column), float32, 140 × 140 pixels of one channel "grey", with the stimulus ids of
        `load`. The published values, 0 to 255, are divided by 255.

    Raises
    ------
    ValueError
        If `path` does not exist or is the pickle, or no unit is of that session.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Cadena et al. 2019, PLoS Comput Biol 15:e1006897, doi:10.1371/journal.pcbi.1006897

    Examples
    --------
    >>> images(path="nowhere.npz")
    Traceback (most recent call last):
    ...
    ValueError: expected a file cadena_ploscb_data.npz at the path given, found none at nowhere.npz
    """
    place = find(FILE, path=path)
    shown = _read_responses(place, session)
    pixels = numbers(place, "images", _arrays(place, ["images"])["images"], ndim=3)
    positions = shown["position"].values
    expect(positions.max() < len(pixels), place, "images", f"over {positions.max()} images", len(pixels))
    pixels = pixels[positions]
    in_range = bool((pixels >= 0).all() and (pixels <= WHITE).all())
    expect(in_range, place, "images", f"pixels from 0 to {WHITE}", "others")
    return xr.DataArray(
        np.divide(pixels[:, None], WHITE, dtype=np.float32),
        dims=("stimulus", "channel", "row", "column"),
        coords={"stimulus": shown["stimulus"].values, "channel": ["grey"]},
        name="images",
        attrs=SOURCE.attrs(FILE) | {"units": "intensity"},
    )


def _arrays(path: Path, names: list[str]) -> dict[str, Any]:
    """The arrays of these names from a .npz or .mat file; a ValueError that explains for a pickle."""
    with path.open("rb") as stream:
        # Told by content too: the published file is a pickle, and a renamed one must not reach a
        # reader.
        pickled = stream.read(1) == PICKLE_START or path.suffix in (".pkl", ".pickle")
    if pickled:
        raise ValueError(
            f"{path}: expected a .npz or .mat file, got a Python pickle, which runs whatever code is in it when it is "
            "read. To convert it on your own responsibility, in an isolated environment without network or files of "
            f"value, run there:\n\n{CONVERT}\n"
        )
    return mat(path, names) if path.suffix == ".mat" else npz(path, names)


def _read_responses(path: Path, session: str) -> xr.DataArray:
    content = _arrays(path, ["responses", "image_ids", "image_types", "repetitions", *OF_UNITS.values()])
    values = _responses(path, content).transpose(1, 0, 2)
    n_stimuli, _, n_units = values.shape
    of_units = {name: _labels(path, field, content[field], n_units) for name, field in OF_UNITS.items()}
    chosen = np.flatnonzero((of_units["session"] == session) | (session == ALL))
    if not len(chosen):
        known = ", ".join(np.unique(of_units["session"])[:10])
        raise ValueError(f"{path}: expected the session_id of some units, such as {known}, got {session!r}")
    ids, types = (_labels(path, field, content[field], n_stimuli) for field in ("image_ids", "image_types"))
    names = unique(path, "image_types and image_ids", [f"{kind}_{number}" for kind, number in zip(types, ids)])
    responses = xr.DataArray(
        values[:, :, chosen].astype(np.result_type(values.dtype, np.float32)),
        dims=("stimulus", "repeat", "unit"),
        coords={
            "stimulus": names,
            "image_type": ("stimulus", types),
            "image_id": ("stimulus", ids),
            "position": ("stimulus", np.arange(n_stimuli)),
            "unit": chosen,
            "area": ("unit", np.full(len(chosen), "V1")),
            **{name: ("unit", column[chosen]) for name, column in of_units.items()},
        },
        name="responses",
        attrs={"units": _units(values), "window": "one window a trial (see the reference)"},
    )
    return checked(path, _shown(path, responses, together=session != ALL))


def _responses(path: Path, content: dict[str, Any]) -> np.ndarray:
    """The responses (repeat, image, unit), of which each unit has as many repeats as the file says."""
    values = numbers(path, "responses", content["responses"], ndim=3)
    present = ~np.isnan(values)
    finite = not np.isinf(values).any() and not (values < 0).any()
    expect(finite, path, "responses", "finite responses of 0 or more, or NaN", "infinite or negative ones")
    n_repeats = integers(path, "repetitions", content["repetitions"])
    expect(len(n_repeats) == values.shape[2], path, "repetitions", f"{values.shape[2]} units", len(n_repeats))
    # The array is padded to the unit with most repeats; a value past a unit's own number is a
    # misread axis.
    beyond = np.arange(len(values))[:, None] >= n_repeats
    more = int((present.any(axis=1) & beyond).sum())
    expect(more == 0, path, "responses", "no more repeats of a unit than in repetitions", f"{more} more")
    return values


def _units(values: np.ndarray) -> str:
    present = values[~np.isnan(values)]
    return "spike count" if bool((np.floor(present) == present).all()) else "response"


def _shown(path: Path, responses: xr.DataArray, *, together: bool) -> xr.DataArray:
    """Without stimuli and repeats that have no trial; of units not recorded together, without trials of only some."""
    values = responses.values
    present = ~np.isnan(values)
    trials = present.any(axis=2)
    if not together:
        whole = present.all(axis=2)
        responses = responses.copy(data=np.where(whole[:, :, None], values, np.nan))
        n_incomplete = int((trials & ~whole).sum())
        responses = mark(responses, recording="session").assign_attrs(incomplete_trials=n_incomplete)
        trials = whole
    expected = "trials that all units have in common"
    expect(trials.any(), path, "responses", expected, "none; load one session")
    return responses.isel(stimulus=np.flatnonzero(trials.any(axis=1)), repeat=np.flatnonzero(trials.any(axis=0)))


def _labels(path: Path, field: str, values: object, size: int) -> np.ndarray:
    """A column of texts or whole numbers, as str; MATLAB's cells have an array each."""
    with reading(path, field):
        column = np.ravel(np.asarray(values))
        expect(len(column) == size, path, field, f"{size}, as responses has", len(column))
        if column.dtype == object:
            column = np.concatenate([np.ravel(cell)[:1] for cell in column])
        if column.dtype.kind != "U":
            column = integers(path, field, column)
        expect(len(column) == size, path, field, f"a text or number in each of {size} cells", len(column))
        return np.char.strip(column.astype(str))
