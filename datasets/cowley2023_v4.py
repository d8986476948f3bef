"""Macaque V4: spike counts to natural and synthetic images, with the images (Cowley, Stan, Pillow, Smith 2023).

Preprint: doi:10.1101/2023.11.22.568315; since published in Nature, doi:10.1038/s41586-026-10150-1. The images of
session 210325 are those of Bashivan, Kar, DiCarlo 2019, doi:10.1126/science.aav9436. Its units 33 and 49 have a signal
correlation of 0.99 and a noise correlation of 0.35: perhaps one neuron on two electrodes.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from ._files import find
from ._source import AnyPath, CorruptDataError, File, Source, choose

_COMMIT = "https://raw.githubusercontent.com/cowleygroup/V4_compact_models/f4552ad9d34a466ebc66658f72a08a8e5038f1cf"
PIXELS = 112


@dataclass(frozen=True)
class Session:
    """One recording session: the animal, how much was recorded, and its two files."""

    subject: str
    n_units: int
    n_stimuli: int
    max_repeats: int
    responses: File
    images: File


SESSIONS = {
    "210325": Session(
        subject="PE",
        n_units=50,
        n_stimuli=640,
        max_repeats=10,
        responses=File(
            path="cowley2023_v4/responses_210325.npy",
            url=f"{_COMMIT}/data_V4_responses/responses_raw/responses_210325.npy",
            hash="sha256:4008dbbf31a47d9b1b8d8da609f4a7a3433c7071f0e45c611c220b217dd75b76",
            size=2_560_128,
        ),
        images=File(
            path="cowley2023_v4/images_210325.zip",
            url=f"{_COMMIT}/data_V4_responses/images/images_210325.zip",
            hash="sha256:992774eca3508a2ad01accb1a31f5f3e3d90248c49f4eec314f2a915a263e454",
            size=1_841_475,
        ),
    )
}

SOURCE = Source(
    name="cowley2023_v4",
    title="Compact deep neural network models of visual cortex",
    doi="10.1101/2023.11.22.568315",
    citation=(
        "Cowley BR, Stan PL, Pillow JW, Smith MA (2023). Compact deep neural network models of visual cortex. "
        "bioRxiv 2023.11.22.568315."
    ),
    license="GPL-3.0",
    license_url=f"{_COMMIT}/LICENSE",
    redistribution=True,
    derivatives=True,
    units="spike count",
    area="V4",
    species="macaque",
    method="Utah array",
    sessions={name: (session.responses, session.images) for name, session in SESSIONS.items()},
)


def load(*, session: str = "210325", path: AnyPath | None = None) -> xr.DataArray:
    """Spike counts of one session, in windows of 100 ms.

    Parameters
    ----------
    session : "210325" (animal PE: 50 units, 640 images with 6 to 10 repeats, 4840 trials).
    path : the file `responses_<session>.npy`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray (stimulus, repeat, unit), float64 spike counts, NaN where a repeat is absent. The stimulus ids are those
    of `images`; `unit` has the coordinates `area`, `subject` and `session`.

    Raises
    ------
    ValueError : if the session is unknown, or `path` does not exist.
    CorruptDataError, DataUnavailableError : if the file is not what was declared, or cannot be had.

    References
    ----------
    Cowley, Stan, Pillow, Smith 2023, bioRxiv, doi:10.1101/2023.11.22.568315

    Examples
    --------
    >>> load(session="1")
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of '210325', got '1'
    """
    recording = choose(session, SESSIONS, kind="session")
    counts = _read_counts(find(recording.responses, path=path), recording)
    labels = {"area": "V4", "subject": recording.subject, "session": session}
    return xr.DataArray(
        np.ascontiguousarray(counts.transpose(1, 2, 0)),
        dims=("stimulus", "repeat", "unit"),
        coords={
            "stimulus": _stimulus_ids(recording),
            "unit": np.arange(recording.n_units),
            **{name: ("unit", np.full(recording.n_units, value)) for name, value in labels.items()},
        },
        name="responses",
        attrs=SOURCE.attrs(recording.responses) | {"window": "100 ms"},
    )


def images(*, session: str = "210325", path: AnyPath | None = None) -> xr.DataArray:
    """The images that were shown in one session.

    Parameters
    ----------
    session : as for `load`.
    path : the file `images_<session>.zip`, or a folder that has it; by default it is searched for.

    Returns
    -------
    DataArray (stimulus, channel, row, column), float32 in [0, 1], 112 × 112 pixels, channels red, green, blue.

    Raises
    ------
    ValueError : if the session is unknown, or `path` does not exist.
    CorruptDataError, DataUnavailableError : if the file is not what was declared, or cannot be had.

    References
    ----------
    Bashivan, Kar, DiCarlo 2019, Science 364:eaav9436, doi:10.1126/science.aav9436

    Examples
    --------
    >>> images(session="1")
    Traceback (most recent call last):
    ...
    ValueError: expected the session to be one of '210325', got '1'
    """
    recording = choose(session, SESSIONS, kind="session")
    ids = _stimulus_ids(recording)
    return xr.DataArray(
        _read_images(find(recording.images, path=path), [f"{name}.jpg" for name in ids]),
        dims=("stimulus", "channel", "row", "column"),
        coords={"stimulus": ids, "channel": ["red", "green", "blue"]},
        name="images",
        attrs=SOURCE.attrs(recording.images) | {"units": "intensity"},
    )


def _stimulus_ids(recording: Session) -> list[str]:
    return [f"image{number:04d}" for number in range(1, recording.n_stimuli + 1)]


def _read_counts(path: Path, recording: Session) -> np.ndarray:
    """The array (unit, stimulus, repeat) of a file that holds no pickled objects."""
    try:
        with path.open("rb") as stream:
            counts = np.lib.format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise CorruptDataError(f"{path}: expected a .npy file of numbers, got one that is not ({error})") from error
    expected = (recording.n_units, recording.n_stimuli, recording.max_repeats)
    if counts.shape != expected or counts.dtype != np.float64:
        got = f"{counts.dtype} of shape {counts.shape}"
        raise CorruptDataError(f"{path}: expected float64 of shape {expected}, got {got}")
    return counts


def _read_images(path: Path, names: list[str]) -> np.ndarray:
    """The images of these names, (image, channel, row, column), from a zip file that has these and no others."""
    pixels = np.empty((len(names), 3, PIXELS, PIXELS), dtype=np.float32)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive, names)
            for image, name in zip(pixels, names):
                image[:] = _decode(name, _read_member(archive, name)).transpose(2, 0, 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise CorruptDataError(f"{path}: expected a whole zip file, got a broken one ({error})") from error
    pixels /= 255
    return pixels


def _check_members(path: Path, archive: zipfile.ZipFile, names: list[str]) -> None:
    present = archive.namelist()
    different = sorted(set(names).symmetric_difference(present))
    if different:
        raise CorruptDataError(
            f"{path}: expected {len(names)} files {names[0]} to {names[-1]}, got {len(present)}; "
            f"missing or unexpected: {', '.join(different[:5])}"
        )


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    size, limit = archive.getinfo(name).file_size, 3 * PIXELS * PIXELS
    if size > limit:  # no JPEG is larger than its raw pixels; zipfile reads no more than this declared size
        raise CorruptDataError(f"{name}: expected at most {limit} bytes, got {size}")
    return archive.read(name)


def _decode(name: str, data: bytes) -> np.ndarray:
    """The pixels (row, column, channel) of a JPEG, 0 to 255."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if (image.size, image.mode) != ((PIXELS, PIXELS), "RGB"):
                got = f"{image.width} × {image.height} {image.mode}"
                raise CorruptDataError(f"{name}: expected an image of {PIXELS} × {PIXELS} RGB, got {got}")
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptDataError(f"{name}: expected a JPEG image, got what cannot be read as one ({error})") from error
