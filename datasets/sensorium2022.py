"""Mouse V1: about 8,000 neurons and 5,000 natural images, 100 of them shown about ten times (Sensorium 2022).

The data ask to contact the authors before use in research of one's own, and for permission to publish a new analysis
(CC BY-NC-ND 4.0, as the same authors' page of the data of 2023 puts it).

Trials have the numbers of their files, which say nothing of when they were shown. Each belongs to a tier: `train` and
`validation` (images shown once), `test` (100 images, about ten times) and, in the two sessions of the competition,
`final_test`. Of these two the responses of `test` and `final_test` were withheld: the files have zeros.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, File, Source, choose
from neurovar_datasets._reading.archives import npy, npy_member, open_zip
from neurovar_datasets._reading.refusals import checked, expect, integers, numbers, reading, size_limit
from neurovar_datasets._reading.repeats import check_repeats

from neurovar.responses import arrange

_REPOSITORY = "https://gin.g-node.org/cajal/Sensorium2022"
_COMMIT = "a4a41225f9078c43d4d0a3a6f6c1aebf24bc5538"
_SHA256 = {  # from one public report of a download; those of the other sessions are not known
    "22846-10-16": "c5baf086e58ef303ebe62cb49da35b73c496f974cc990e973c3f104309cef6da",
    "26872-17-20": "c004994ba0110dcff21273af3e7b759ca30881dabbdc74201e777e89a8ce68d0",
    "27204-5-13": "bfafe3589131485ae1a20be643956618e3520c7fbaf25df39e9d7b1ccca9da5d",
}
SESSIONS = ("21067-10-18", "22846-10-16", "23343-5-17", "23656-14-22", "23964-4-22", "26872-17-20", "27204-5-13")
COMPETITION = ("26872-17-20", "27204-5-13")
TIERS = ("train", "validation", "test", "final_test")
WITHHELD = ("test", "final_test")
BEHAVIOR = {
    "behavior": ("pupil_dilation", "pupil_dilation_change", "running_speed"),
    "pupil_center": ("pupil_x", "pupil_y"),
}
NEURONS = {"area": "area", "layer": "layer", "unit_ids": "unit_id"}
WHITE = 255


def _file(session: str) -> File:
    name = f"static{session}-GrayImageNet-94c6ff995dac583098847cfecd43e7b6.zip"
    known = _SHA256.get(session)
    return File(f"sensorium2022/{name}", f"{_REPOSITORY}/raw/{_COMMIT}/{name}", f"sha256:{known}" if known else "")


SOURCE = Source(
    name="sensorium2022",
    title="The Sensorium competition on predicting large-scale mouse primary visual cortex activity",
    doi="10.48550/arXiv.2206.08666",
    citation=(
        "Willeke KF, Fahey PG, Bashiri M, Pede L, Burg MF, Blessing C, Cadena SA, Ding Z, Lurz K-K, Ponder K, "
        "Muhammad T, Patel SS, Ecker AS, Tolias AS, Sinz FH (2022). The Sensorium competition on predicting "
        "large-scale mouse primary visual cortex activity. arXiv:2206.08666."
    ),
    license="CC-BY-NC-ND-4.0 (as of the same authors' data of 2023; see the page)",
    license_url=f"{_REPOSITORY}/src/{_COMMIT}/LICENSE",
    redistribution=None,
    derivatives=None,
    units="deconvolved fluorescence",
    area="V1",
    species="mouse",
    method="2-photon",
    n_units="about 8,000",
    n_stimuli="100 and 5,000",
    n_repeats="10 and 1",
    sessions={session: (_file(session),) for session in SESSIONS},
)


def sessions() -> tuple[str, ...]:
    """The names of the sessions: mouse, session and scan.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()[0]
    '21067-10-18'
    """
    return tuple(SOURCE.sessions)


def load(*, session: str, tier: str = "test", path: AnyPath | None = None) -> xr.DataArray:
    """Responses of one session to the images of one tier.

    Parameters
    ----------
    session : str
        One of `sessions()`. The test responses of "26872-17-20" and "27204-5-13" were withheld.
    tier : str, optional
        "test", whose images alone were repeated; "train", "validation" or "final_test".
    path : path-like, optional
        The session's zip file, its unpacked folder, or a folder that has either; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), deconvolved fluorescence, NaN where a repeat is absent. The stimulus ids are those of
        the file (`frame_image_id`). Repeats are in the order of the trials' numbers (`trial`, −1 where absent), which
        is not that in time: there is no `presentation`. `unit` has the coordinates `area`, `subject`, `session` and,
        where the file has them, `layer`, `unit_id`, `x`, `y` and `z` (µm); the trials have, where the file has them,
        `pupil_dilation`, `pupil_dilation_change`, `running_speed`, `pupil_x` and `pupil_y`, as published, NaN where
        absent.

    Raises
    ------
    ValueError
        If the session or tier is unknown, its responses were withheld, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Willeke et al. 2022, arXiv:2206.08666

    Examples
    --------
    >>> load(session="26872-17-20")
    Traceback (most recent call last):
    ...
    ValueError: expected a session with responses of tier 'test', got '26872-17-20', of which they were withheld
    """
    (file,) = choose(session, SOURCE.sessions, kind="session")
    choose(tier, dict.fromkeys(TIERS), kind="tier")
    if session in COMPETITION and tier in WITHHELD:
        expected = f"expected a session with responses of tier {tier!r}"
        raise ValueError(f"{expected}, got {session!r}, of which they were withheld")
    responses = _read_responses(_located(file, path), session, tier)
    return responses.assign_attrs(SOURCE.attrs(file))


def images(*, session: str, tier: str = "test", path: AnyPath | None = None) -> xr.DataArray:
    """The images of one tier of one session.

    Parameters
    ----------
    session : str
        One of `sessions()`.
    tier : str, optional
        "test", "train", "validation" or "final_test"; the images of all tiers are published.
    path : path-like, optional
        The session's zip file, its unpacked folder, or a folder that has either; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, channel, row, column), float32, 144 × 256 pixels of one channel "grey", with the stimulus ids of
        `load`. The published values, 0 to 255, are divided by 255.

    Raises
    ------
    ValueError
        If the session or tier is unknown, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was expected, or cannot be had.

    References
    ----------
    Willeke et al. 2022, arXiv:2206.08666

    Examples
    --------
    >>> images(session="26872-17-20", tier="all")
    Traceback (most recent call last):
    ...
    ValueError: expected the tier to be one of 'train', 'validation', 'test', 'final_test', got 'all'
    """
    (file,) = choose(session, SOURCE.sessions, kind="session")
    choose(tier, dict.fromkeys(TIERS), kind="tier")
    with _open(_located(file, path)) as tree:
        trials, ids = _trials(tree, tier)
        shown, first = np.unique(ids, return_index=True)
        pixels = _stack(tree, "images", trials[first])
    in_range = bool((pixels >= 0).all() and (pixels <= WHITE).all())
    expect(in_range, tree.path, "data/images", f"pixels from 0 to {WHITE}", "others")
    form = pixels.ndim == 4 and pixels.shape[1] == 1
    expect(form, tree.path, "data/images", "images 1 × row × column", f"shape {pixels.shape[1:]}")
    return xr.DataArray(
        np.divide(pixels, WHITE, dtype=np.float32),
        dims=("stimulus", "channel", "row", "column"),
        coords={"stimulus": shown, "channel": ["grey"]},
        name="images",
        attrs=SOURCE.attrs(file) | {"units": "intensity"},
    )


@dataclass(frozen=True)
class _Tree:
    """The arrays of a session, in a zip archive below the folder `prefix`, or in a folder that no link leads out of."""

    path: Path
    archive: zipfile.ZipFile | None
    prefix: str
    limit: int

    def has(self, name: str) -> bool:
        if self.archive is None:
            return self._inside(name).is_file()
        return f"{self.prefix}{name}" in self.archive.NameToInfo

    def array(self, name: str) -> np.ndarray:
        expect(self.has(name), self.path, name, "to be there", "nothing")
        if self.archive is None:
            return npy(self._inside(name))
        return npy_member(self.path, self.archive, f"{self.prefix}{name}")

    def _inside(self, name: str) -> Path:
        # Resolved first: a link in an unpacked folder could make any readable .npy of the user part
        # of the data.
        place = (self.path / name).resolve()
        inside = place.is_relative_to(self.path.resolve())
        expect(inside, self.path, name, "a file in this folder", "a link out of it")
        return place


@contextmanager
def _open(path: Path) -> Iterator[_Tree]:
    if path.is_dir():
        # lstat, not stat: a link counts as itself and cannot raise the limit by the size of its
        # target.
        n_bytes = sum(entry.lstat().st_size for entry in path.rglob("*.npy"))
        yield _Tree(path, None, "", size_limit(n_bytes))
        return
    tiers = "meta/trials/tiers.npy"
    with open_zip(path) as archive:
        places = [name for name in archive.namelist() if f"/{name}".endswith(f"/{tiers}")]
        expect(len(places) == 1, path, tiers, "one file of this name", f"{len(places)}")
        yield _Tree(path, archive, places[0].removesuffix(tiers), size_limit(path.stat().st_size))


def _located(file: File, path: AnyPath | None) -> Path:
    """The zip file, or the unpacked folder where the path leads to one."""
    if path is not None:
        for folder in (Path(path), Path(path) / Path(file.name).stem):
            if (folder / "meta" / "trials").is_dir():
                return folder
    return find(file, path=path)


def _read_responses(path: Path, session: str, tier: str) -> xr.DataArray:
    with _open(path) as tree:
        trials, ids = _trials(tree, tier)
        values = _stack(tree, "responses", trials)
        behavior = {name: _stack(tree, name, trials) for name in BEHAVIOR if tree.has(f"data/{name}/{trials[0]}.npy")}
        expect(values.ndim == 2, path, "data/responses", "a response of each unit", f"shape {values.shape[1:]}")
        of_units = _unit_coords(tree, session, values.shape[1])
    expect(bool(values.any()), path, "data/responses", "responses", "only zeros: they were withheld")
    check_repeats(path, "meta/trials/frame_image_id.npy", ids, values.shape[1])
    responses = arrange(values, ids)
    order = responses["presentation"].values
    # The files are in random order: their numbers are kept, but not as the order in time that `presentation` is.
    of_trials = {"trial": (("stimulus", "repeat"), np.where(order < 0, -1, trials[order]))}
    responses = responses.drop_vars("presentation").assign_coords(
        of_units | of_trials | _trial_coords(path, behavior, order)
    )
    window = "one value a trial (see the reference)"
    return checked(path, responses.rename("responses").assign_attrs(tier=tier, window=window))


def _trials(tree: _Tree, tier: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the tier's trials and the ids of their images."""
    tiers = _labels(tree, "meta/trials/tiers.npy")
    field = "meta/trials/frame_image_id.npy"
    ids = integers(tree.path, field, tree.array(field))
    expect(len(ids) == len(tiers), tree.path, field, f"{len(tiers)} ids, as in tiers.npy", len(ids))
    trials = np.flatnonzero(tiers == tier)
    others = sorted(set(tiers.tolist()))[:5]
    expect(len(trials) > 0, tree.path, "meta/trials/tiers.npy", f"trials of tier {tier!r}", others)
    return trials, ids[trials]


def _labels(tree: _Tree, name: str) -> np.ndarray:
    """The texts of an array, as str whether they are that or bytes."""
    texts = tree.array(name).ravel()
    expect(texts.dtype.kind in "SU", tree.path, name, "texts", f"dtype {texts.dtype}")
    with reading(tree.path, name):
        return texts.astype(str)


def _stack(tree: _Tree, name: str, trials: np.ndarray) -> np.ndarray:
    """The arrays of these trials, read one after the other into one array."""
    first = _numbers(tree, name, trials[0])
    n_bytes = len(trials) * first.nbytes
    expect(n_bytes <= tree.limit, tree.path, f"data/{name}", f"at most {tree.limit} bytes", n_bytes)
    stack = np.empty((len(trials), *first.shape), dtype=np.result_type(first.dtype, np.float32))
    for at, trial in enumerate(trials):
        values = _numbers(tree, name, trial)
        same = values.shape == first.shape and values.dtype == first.dtype
        expected, got = f"{first.dtype} of shape {first.shape}", f"{values.dtype} of shape {values.shape}"
        expect(same, tree.path, f"data/{name}/{trial}.npy", expected, got)
        stack[at] = values
    return stack


def _numbers(tree: _Tree, name: str, trial: int) -> np.ndarray:
    field = f"data/{name}/{trial}.npy"
    return numbers(tree.path, field, tree.array(field))


def _unit_coords(tree: _Tree, session: str, n_units: int) -> dict[str, Any]:
    labels = {"area": "V1", "subject": session.split("-")[0], "session": session}
    columns = {name: np.full(n_units, text) for name, text in labels.items()}
    for file, name in NEURONS.items():
        field = f"meta/neurons/{file}.npy"
        if tree.has(field):
            column = integers(tree.path, field, tree.array(field)) if name == "unit_id" else _labels(tree, field)
            expect(len(column) == n_units, tree.path, field, f"one for each of {n_units} units", len(column))
            columns[name] = column
    field = "meta/neurons/cell_motor_coordinates.npy"
    if tree.has(field):
        positions = numbers(tree.path, field, tree.array(field), ndim=2)
        expect(positions.shape == (n_units, 3), tree.path, field, f"{n_units} × 3 values", positions.shape)
        columns |= dict(zip("xyz", positions.T))
    return {"unit": ("unit", np.arange(n_units)), **{name: ("unit", column) for name, column in columns.items()}}


def _trial_coords(path: Path, behavior: dict[str, np.ndarray], order: np.ndarray) -> dict[str, Any]:
    """What the animal did in each trial, NaN where absent."""
    coords: dict[str, Any] = {}
    for field, values in behavior.items():
        names, flat = BEHAVIOR[field], values.reshape(len(values), -1)
        expect(flat.shape[1] == len(names), path, f"data/{field}", f"{len(names)} values", values.shape[1:])
        of_trials = np.where(order < 0, np.nan, flat.T[:, order])
        coords |= {name: (("stimulus", "repeat"), of_trial) for name, of_trial in zip(names, of_trials)}
    return coords
