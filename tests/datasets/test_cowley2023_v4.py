"""The sessions of `cowley2023_v4` have the labels that they promise; files of another form are refused."""

import hashlib
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fixtures import cowley2023_v4 as fixture
from neurovar_datasets import CorruptDataError, cowley2023_v4

from neurovar import responses, statistics

WITHOUT_IMAGES = ("201016", "201017", "201018", "201019", "201020")


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a session "small" with these contents and declare it; gives the folder that it is in."""

    def declare(content: dict) -> Path:
        monkeypatch.setitem(cowley2023_v4.SESSIONS, "small", fixture.SESSION)
        return fixture.write(tmp_path, content)

    return declare


# Responses


def test_responses_are_stimulus_by_repeat_by_unit(small: Callable[..., Path], content: dict) -> None:
    da = cowley2023_v4.load(session="small", path=small(content))
    assert responses.validate(da).dims == ("stimulus", "repeat", "unit")
    for stimulus, repeat, unit in np.ndindex(*da.shape):
        np.testing.assert_equal(da.values[stimulus, repeat, unit], content["responses"][unit, stimulus, repeat])
    assert da.stimulus.values.tolist() == [f"small_image000{number}" for number in (1, 2, 3, 4)]
    assert responses.repeat_counts(da).values.tolist() == [5, 3, 4, 5]
    for name, label in {"area": "V4", "subject": "M", "session": "small"}.items():
        assert da[name].values.tolist() == [label] * 3
    assert (da.attrs["units"], da.attrs["window"]) == ("spike count", "100 ms")
    assert da.attrs["image_kinds"] == "normal (4)"


def test_responses_need_no_images(small: Callable[..., Path], content: dict) -> None:
    del content["images"]
    assert cowley2023_v4.load(session="small", path=small(content)).sizes["unit"] == 3


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[1, 0, 2] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.transpose(1, 0, 2), r"float64 of shape \(3, 4\) and repeats, got float64 of shape \(4, 3, 5\)"),
        (lambda a: a[:, :, 0], r"expected float64 of shape .*, got float64 of shape \(3, 4\)"),
        (lambda a: a.astype(np.float32), "expected float64 of shape .*, got float32"),
        (lambda a: np.array([{"a": 1}], dtype=object), "cannot be read .*Python objects"),
        (lambda a: a[:, :, :0], "expected at least one stimulus, repeat and unit, got shape"),
        (with_value(-1), "responses: expected spike counts of 0 or more, got 1 negative ones"),
        (with_value(0.5), "responses: expected whole spike counts, got fractions"),
        (with_value(np.inf), "responses: expected finite spike counts, got infinity"),
        (
            with_value(np.nan),
            "responses: expected each trial to be whole or absent, got 1 trials .* small_image0001, repeat 2",
        ),
    ],
)
def test_responses_of_another_form_are_refused(
    small: Callable[..., Path], content: dict, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    folder = small(content | {"responses": change(content["responses"])})
    with pytest.raises(CorruptDataError, match=f"responses_small.npy: .*{message}"):
        cowley2023_v4.load(session="small", path=folder)


@pytest.mark.parametrize("spoil", [lambda data: data[:-8], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_broken_npy_file_is_refused(
    small: Callable[..., Path], content: dict, spoil: Callable[[bytes], bytes]
) -> None:
    path = small(content) / fixture.RESPONSES.name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CorruptDataError, match=r"responses_small\.npy: cannot be read"):
        cowley2023_v4.load(session="small", path=path)


def test_a_file_is_known_by_its_git_id(
    small: Callable[..., Path], content: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(content) / fixture.RESPONSES.name
    data = path.read_bytes()
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    declared = replace(fixture.SESSION, responses=replace(fixture.RESPONSES, hash=f"git:{blob}"))
    monkeypatch.setitem(cowley2023_v4.SESSIONS, "small", declared)
    assert cowley2023_v4.load(session="small", path=path).attrs["hash"] == f"git:{blob}"
    path.write_bytes(data[:-1] + b"\1")
    with pytest.raises(CorruptDataError, match=f"responses_small.npy: expected content with hash git:{blob}, got"):
        cowley2023_v4.load(session="small", path=path)


# Images


def test_images_are_in_the_order_of_the_stimuli(small: Callable[..., Path], content: dict) -> None:
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 0], [0, 0, 255]], dtype=np.uint8)
    content["images"] = np.broadcast_to(colours[:, None, None], (4, 112, 112, 3)).copy()
    da = cowley2023_v4.images(session="small", path=small(content))
    assert da.shape == (4, 3, 112, 112)
    assert da.dtype == np.float32
    np.testing.assert_allclose(da.mean(("row", "column")).values, colours / 255, atol=0.01)
    assert da.stimulus.values.tolist() == [f"small_image000{number}" for number in (1, 2, 3, 4)]
    assert da.attrs["units"] == "intensity"


def test_the_pixels_are_those_of_the_file(small: Callable[..., Path], content: dict) -> None:
    da = cowley2023_v4.images(session="small", path=small(content))
    for number, row, column, channel in np.ndindex(4, 7, 7, 3):
        block = da.values[number, channel, 16 * row + 4 : 16 * row + 12, 16 * column + 4 : 16 * column + 12]
        assert abs(block.mean() - content["images"][number, 16 * row, 16 * column, channel] / 255) < 0.15


def rezip(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in change(members).items():
            archive.writestr(name, data)


def test_images_may_be_in_a_folder_and_in_any_order(small: Callable[..., Path], content: dict) -> None:
    folder = small(content)
    expected = cowley2023_v4.images(session="small", path=folder)
    rezip(
        folder / fixture.IMAGES.name,
        lambda m: {"small/": b""} | {f"small/{name}": m[name] for name in reversed(list(m))},
    )
    xr.testing.assert_identical(cowley2023_v4.images(session="small", path=folder), expected)


PIXELS = np.zeros((112, 112, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"image0002.jpg": fixture.jpeg(PIXELS[:100])},
            r"image0002.jpg: expected an image of \(112, 112, 'RGB'\), got \(112, 100, 'RGB'\)",
        ),
        (
            {"image0003.jpg": fixture.jpeg(PIXELS[..., 0])},
            r"image0003.jpg: expected .*, got \(112, 112, 'L'\)",
        ),
        ({"image0001.jpg": b"GIF89a"}, r"image0001.jpg: cannot be read \(UnidentifiedImageError"),
        ({"image0001.jpg": fixture.jpeg(PIXELS)[:-300]}, r"image0001.jpg: cannot be read .*[Tt]runcated"),
        ({"image0002.jpg": bytes(1 << 24)}, "image0002.jpg: expected at most 37632 bytes, got 16777216"),
        ({"../x.jpg": b""}, "expected 4 files image0001.jpg to image0004.jpg, got 5; missing or unexpected: x.jpg"),
        ({"a/image0001.jpg": b""}, "expected 4 files image0001.jpg to image0004.jpg, got 5; .*: none"),
    ],
)
def test_images_of_another_form_are_refused(
    small: Callable[..., Path], content: dict, changed: dict[str, bytes], message: str
) -> None:
    folder = small(content)
    rezip(folder / fixture.IMAGES.name, lambda members: members | changed)
    with pytest.raises(CorruptDataError, match=f"images_small.zip: .*{message}"):
        cowley2023_v4.images(session="small", path=folder)


def test_missing_images_are_named(small: Callable[..., Path], content: dict) -> None:
    content["images"] = content["images"][:2]
    with pytest.raises(CorruptDataError, match=r"got 2; missing or unexpected: image0003.jpg, image0004.jpg$"):
        cowley2023_v4.images(session="small", path=small(content))


@pytest.mark.parametrize("spoil", [lambda data: data[:-30], lambda data: b"", lambda data: b"not a zip"])
def test_a_broken_zip_file_is_refused(
    small: Callable[..., Path], content: dict, spoil: Callable[[bytes], bytes]
) -> None:
    path = small(content) / fixture.IMAGES.name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CorruptDataError, match=r"images_small.zip: cannot be read \(BadZipFile"):
        cowley2023_v4.images(session="small", path=path)


def test_a_zip_member_that_is_larger_than_it_says_is_not_unpacked(
    small: Callable[..., Path], content: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small(content) / fixture.IMAGES.name
    rezip(path, lambda members: members | {"image0001.jpg": bytes(1 << 24)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 1 << 24), struct.pack("<I", 1000)))
    unpacked: list[int] = []
    update = zipfile.ZipExtFile._update_crc  # type: ignore[attr-defined]
    monkeypatch.setattr(
        zipfile.ZipExtFile, "_update_crc", lambda stream, data: unpacked.append(len(data)) or update(stream, data)
    )
    with pytest.raises(CorruptDataError, match=r"images_small.zip: image0001.jpg: cannot be read .*CRC"):
        cowley2023_v4.images(session="small", path=path)
    assert sum(unpacked) <= 1000


# Sessions


@pytest.mark.parametrize("read", [cowley2023_v4.load, cowley2023_v4.images])
def test_an_unknown_session_lists_the_known(read: Callable[..., xr.DataArray]) -> None:
    with pytest.raises(ValueError, match=r"expected the session to be one of '190923', .*'211103', got '999999'"):
        read(session="999999")


@pytest.mark.parametrize("session", WITHOUT_IMAGES)
def test_sessions_without_images_say_which_have_them(session: str) -> None:
    with pytest.raises(ValueError, match=rf"whose images are published, got '{session}'; they are 190923, .*, 211103$"):
        cowley2023_v4.images(session=session)


def test_fifty_sessions_are_declared() -> None:
    sessions = cowley2023_v4.SESSIONS
    assert cowley2023_v4.sessions() == tuple(cowley2023_v4.SOURCE.sessions) == tuple(sessions)
    assert len(sessions) == 50
    assert tuple(name for name, session in sessions.items() if session.images is None) == WITHOUT_IMAGES
    assert {session.subject for session in sessions.values()} == {"WE", "PE", "RA"}
    for numbers, text in {
        tuple(s.n_units for s in sessions.values()): cowley2023_v4.SOURCE.n_units,
        tuple(s.n_stimuli for s in sessions.values()): cowley2023_v4.SOURCE.n_stimuli,
        tuple(n for s in sessions.values() for n in s.repeats): cowley2023_v4.SOURCE.n_repeats,
    }.items():
        assert text == f"{min(numbers)} to {max(numbers)}"


def test_every_file_has_its_own_address_and_hash() -> None:
    files = [file for of_session in cowley2023_v4.SOURCE.sessions.values() for file in of_session]
    assert len(files) == 95
    assert len({file.path for file in files}) == len({file.url for file in files}) == 95
    for file in files:
        algorithm, _, digest = file.hash.partition(":")
        assert len(digest) == {"sha256": 64, "git": 40}[algorithm]
        assert (file.size is not None) == (algorithm == "sha256")
        assert file.url.endswith(file.name)
    hashes = [file.hash for file in files]
    assert {name for name, s in cowley2023_v4.SESSIONS.items() if s.images and hashes.count(s.images.hash) > 1} == {
        "210312",
        "210315",
    }


# The real recording


@pytest.fixture(scope="module")
def real() -> xr.DataArray:
    return cowley2023_v4.load(session="210325")


@pytest.mark.data
def test_the_real_responses(real: xr.DataArray) -> None:
    assert responses.validate(real, min_repeats=10).shape == (640, 10, 50)
    repeats = responses.repeat_counts(real)
    assert (repeats.min(), repeats.max(), repeats.sum()) == (*cowley2023_v4.SESSIONS["210325"].repeats, 4840)
    assert set(real.subject.values) == {"PE"}
    assert real.attrs["hash"] == "sha256:4008dbbf31a47d9b1b8d8da609f4a7a3433c7071f0e45c611c220b217dd75b76"


@pytest.mark.data
def test_the_real_statistics(real: xr.DataArray) -> None:
    assert round(float(statistics.fano_factor(real).mean()), 2) == 0.89
    r_sc = statistics.noise_correlation(real, zscore=True).values[np.triu_indices(50, k=1)]
    assert round(float(r_sc.mean()), 3) == 0.030
    assert round(statistics.effective_dimensionality(real), 1) == 29.2


@pytest.mark.data
def test_the_real_images(real: xr.DataArray) -> None:
    da = cowley2023_v4.images(session="210325")
    assert da.shape == (640, 3, 112, 112)
    assert da.dtype == np.float32
    assert (float(da.min()), float(da.max())) == (0, 1)
    assert da.stimulus.values[[0, -1]].tolist() == ["210325_image0001", "210325_image0640"]
    np.testing.assert_array_equal(da.stimulus, real.stimulus)
