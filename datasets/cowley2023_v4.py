"""Macaque V4: spike counts to natural and synthetic images, with the images (Cowley, Stan, Pillow, Smith 2023).

Preprint: doi:10.1101/2023.11.22.568315; since published in Nature, doi:10.1038/s41586-026-10150-1. `SESSIONS` has the
sessions: three animals, 21 to 89 units, 400 to 3000 images. Where the repository's readme.txt has other numbers than
its files, those of the files are given; `_registry/cowley2023_sessions.py` says where.

Of sessions 201016 to 201020 no images are published. Those of 210312 and 210315 are the same 2000 in the same order.
Stimulus ids begin with the session, because image0001 of another session is another image. The images of session
210325 are those of Bashivan, Kar, DiCarlo 2019, doi:10.1126/science.aav9436. Its units 33 and 49 have a signal
correlation of 0.99 and a noise correlation of 0.35: perhaps one neuron on two electrodes.
"""

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import AnyPath, Source, choose
from neurovar_datasets._reading.archives import npy, open_zip
from neurovar_datasets._reading.refusals import checked, counts, expect, reading
from neurovar_datasets._registry.cowley2023_sessions import COMMIT, SESSIONS, Session

PIXELS = 112


SOURCE = Source(
    name="cowley2023_v4",
    title="Compact deep neural network models of visual cortex",
    doi="10.1101/2023.11.22.568315",
    citation=(
        "Cowley BR, Stan PL, Pillow JW, Smith MA (2023). Compact deep neural network models of visual cortex. "
        "bioRxiv 2023.11.22.568315."
    ),
    license="GPL-3.0",
    license_url=f"{COMMIT}/LICENSE",
    redistribution=True,
    derivatives=True,
    units="spike count",
    area="V4",
    species="macaque",
    method="Utah array",
    n_units="21 to 89",
    n_stimuli="400 to 3000",
    n_repeats="2 to 33",
    sessions={
        name: tuple(file for file in (session.responses, session.images) if file is not None)
        for name, session in SESSIONS.items()
    },
)


def sessions() -> tuple[str, ...]:
    """The names of the sessions: their dates, yymmdd.

    Returns
    -------
    tuple of str
        Names to give to `load`.

    Examples
    --------
    >>> sessions()[0]
    '190923'
    """
    return tuple(SESSIONS)


def load(*, session: str, path: AnyPath | None = None) -> xr.DataArray:
    """Spike counts of one session, in windows of 100 ms.

    Parameters
    ----------
    session : str
        One of `sessions()`, such as "210325" (animal PE: 50 units, 640 images with 6 to 10 repeats, 4840 trials).
    path : path-like, optional
        The file `responses_<session>.npy`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit), float64 spike counts, NaN where a repeat is absent. The stimulus ids are those of
        `images`; `unit` has the coordinates `area`, `subject` and `session`. attrs["image_kinds"] says what was shown.

    Raises
    ------
    ValueError
        If the session is unknown, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or cannot be had.

    References
    ----------
    Cowley, Stan, Pillow, Smith 2023, bioRxiv, doi:10.1101/2023.11.22.568315

    Examples
    --------
    >>> load(session="1")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of '190923', '190924', ...
    >>> SESSIONS["210225"].subject, SESSIONS["210225"].repeats, SESSIONS["210225"].image_kinds
    ('PE', (5, 15), 'normal (1,200)')
    """
    recording = choose(session, SESSIONS, kind="session")
    recorded = _read_responses(find(recording.responses, path=path), session, recording)
    attrs = SOURCE.attrs(recording.responses) | {"window": "100 ms", "image_kinds": recording.image_kinds}
    return recorded.assign_attrs(attrs)


def images(*, session: str, path: AnyPath | None = None) -> xr.DataArray:
    """The images that were shown in one session.

    Parameters
    ----------
    session : str
        One of `sessions()`; not 201016 to 201020, of which none are published.
    path : path-like, optional
        The file `images_<session>.zip`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray
        (stimulus, channel, row, column), float32 in [0, 1], 112 × 112 pixels, channels red, green, blue.

    Raises
    ------
    ValueError
        If the session is unknown or has no images, or `path` does not exist.
    CorruptDataError, DataUnavailableError
        If the file is not what was declared, or cannot be had.

    References
    ----------
    Cowley, Stan, Pillow, Smith 2023, bioRxiv, doi:10.1101/2023.11.22.568315
    Bashivan, Kar, DiCarlo 2019, Science 364:eaav9436, doi:10.1126/science.aav9436

    Examples
    --------
    >>> images(session="201016")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected a session whose images are published, got '201016'; they are 190923, 190924, ...
    """
    recording = choose(session, SESSIONS, kind="session")
    if recording.images is None:
        published = ", ".join(name for name, known in SESSIONS.items() if known.images is not None)
        raise ValueError(f"expected a session whose images are published, got {session!r}; they are {published}")
    names = [f"{name}.jpg" for name in _image_names(recording)]
    return xr.DataArray(
        _read_images(find(recording.images, path=path), names),
        dims=("stimulus", "channel", "row", "column"),
        coords={"stimulus": _stimulus_ids(session, recording), "channel": ["red", "green", "blue"]},
        name="images",
        attrs=SOURCE.attrs(recording.images) | {"units": "intensity", "image_kinds": recording.image_kinds},
    )


def _image_names(recording: Session) -> list[str]:
    return [f"image{number:04d}" for number in range(1, recording.n_stimuli + 1)]


def _stimulus_ids(session: str, recording: Session) -> list[str]:
    """With the session, because image0001 of another session is another image."""
    return [f"{session}_{name}" for name in _image_names(recording)]


def _read_responses(path: Path, session: str, recording: Session) -> xr.DataArray:
    """Labelled counts from the array (unit, stimulus, repeat) of a file."""
    published = npy(path, lazy=True)
    shape = (recording.n_units, recording.n_stimuli)
    as_declared = published.dtype == np.float64 and published.ndim == 3 and published.shape[:2] == shape
    expected, got = f"float64 of shape {shape} and repeats", f"{published.dtype} of shape {published.shape}"
    expect(as_declared, path, "responses", expected, got)
    spikes = np.ascontiguousarray(counts(path, "responses", published).transpose(1, 2, 0))
    labels = {"area": SOURCE.area, "subject": recording.subject, "session": session}
    recorded = xr.DataArray(
        spikes,
        dims=("stimulus", "repeat", "unit"),
        coords={
            "stimulus": _stimulus_ids(session, recording),
            "unit": np.arange(recording.n_units),
            **{name: ("unit", np.full(recording.n_units, value)) for name, value in labels.items()},
        },
        name="responses",
    )
    return checked(path, recorded)


def _read_images(path: Path, names: list[str]) -> np.ndarray:
    """The images of these names, (image, channel, row, column), from a zip file that has these and no others."""
    pixels = np.empty((len(names), 3, PIXELS, PIXELS), dtype=np.float32)
    with open_zip(path) as archive:
        members = _members(path, archive, names)
        for image, name in zip(pixels, names):
            image[:] = _decode(path, name, _read_member(path, archive, members[name])).transpose(2, 0, 1)
    pixels /= 255
    return pixels


def _members(path: Path, archive: zipfile.ZipFile, names: list[str]) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by name; some archives have them in a folder."""
    files = [info for info in archive.infolist() if not info.is_dir()]
    members = {PurePosixPath(info.filename).name: info for info in files}
    different = ", ".join(sorted(set(names).symmetric_difference(members))[:5]) or "none"
    expected, got = f"{len(names)} files {names[0]} to {names[-1]}", f"{len(files)}; missing or unexpected: {different}"
    expect(different == "none" and len(files) == len(names), path, "names", expected, got)
    return members


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    size, limit = member.file_size, 3 * PIXELS * PIXELS  # no JPEG is larger than its raw pixels
    expect(size <= limit, path, member.filename, f"at most {limit} bytes", size)
    with reading(path, member.filename), archive.open(member) as stream:
        return stream.read(size)  # without the size all would be unpacked, however much it is


def _decode(path: Path, name: str, data: bytes) -> np.ndarray:
    """The pixels (row, column, channel) of a JPEG, 0 to 255."""
    from PIL import Image

    with reading(path, name), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        form, expected = (*image.size, image.mode), (PIXELS, PIXELS, "RGB")
        expect(form == expected, path, name, f"an image of {expected}", form)
        return np.asarray(image)
