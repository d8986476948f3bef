"""Files are found, checked and downloaded as declared; each dataset has the shape and labels that it promises."""

import gzip
import hashlib
import io
import json
import socket
import struct
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import neurovar_datasets
import numpy as np
import pooch
import pytest
import xarray as xr
from neurovar_datasets import CorruptDataError, DataUnavailableError, _files, cowley2023_v4, digits, fashion_mnist
from neurovar_datasets._files import File, find
from PIL import Image

from neurovar import responses

CONTENT = b"spikes and more spikes"
PACKED = gzip.compress(CONTENT)


def file_of(content: bytes, *, path: str = "source/counts.bin", url: str = "http://127.0.0.1:9/counts.bin") -> File:
    return File(path, url, hashlib.sha256(content).hexdigest(), len(content))


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no NEUROVAR_DATA and no proxy, except for the tests of the real data."""
    if request.node.get_closest_marker("data") is None:
        monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
        monkeypatch.delenv("NEUROVAR_DATA", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "neurovar"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start a server on this machine, of the folder `served` by default; gives its address."""
    servers: list[ThreadingHTTPServer] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    def start(handler: type[BaseHTTPRequestHandler] | None = None) -> str:
        chosen = handler or partial(Quiet, directory=str(tmp_path / "served"))
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), chosen))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# Finding


def test_a_path_is_the_file_or_a_folder_that_has_it(tmp_path: Path) -> None:
    copy = put(tmp_path / "counts.bin", CONTENT)
    other_name = put(tmp_path / "renamed", CONTENT)
    assert find(file_of(CONTENT), path=copy) == copy
    assert find(file_of(CONTENT), path=str(tmp_path)) == copy
    assert find(file_of(CONTENT), path=other_name) == other_name


@pytest.mark.parametrize("name", ["", "absent.bin", "absent/counts.bin"])
def test_a_path_without_the_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a file counts\.bin at the path given, found none at"):
        find(file_of(CONTENT), path=tmp_path / name)


def test_places_are_searched_in_order(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, system = file_of(CONTENT), tmp_path / "system"
    in_cache = put(cache / file.path, CONTENT)
    assert find(file, folders=[system]) == in_cache
    in_system = put(system / file.name, CONTENT)
    assert find(file, folders=[system]) == in_system
    in_data = put(tmp_path / "data" / file.path, CONTENT)
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path / "data"))
    assert find(file, folders=[system]) == in_data
    given = put(tmp_path / "given.bin", CONTENT)
    assert find(file, path=given, folders=[system]) == given


def test_neurovar_data_may_be_relative_and_empty_is_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(CONTENT)
    put(tmp_path / "data" / file.path, CONTENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROVAR_DATA", "data")
    assert find(file) == Path("data") / file.path
    monkeypatch.setenv("NEUROVAR_DATA", "")
    with pytest.raises(DataUnavailableError):
        find(file)


@pytest.mark.parametrize("name", ["absent", "a_file"])
def test_neurovar_data_must_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put(tmp_path / "a_file", b"")
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path / name))
    with pytest.raises(ValueError, match=rf"expected NEUROVAR_DATA to be an existing folder, got '.*{name}'"):
        find(file_of(CONTENT))


# Checking


def test_a_wrong_hash_names_file_expected_and_got(tmp_path: Path) -> None:
    file, other = file_of(CONTENT), CONTENT[::-1]
    copy = put(tmp_path / "counts.bin", other)
    expected, got = file.sha256, hashlib.sha256(other).hexdigest()
    with pytest.raises(CorruptDataError, match=rf"counts\.bin: expected 22 bytes .*{expected}, got 22 bytes .*{got}$"):
        find(file, path=copy)


def test_a_truncated_file_of_the_user_is_named_so_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(CONTENT)
    copy = put(tmp_path / file.path, CONTENT[:5])
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    with pytest.raises(CorruptDataError, match=r"got 5 bytes with .* \(truncated\? 17 bytes are missing\)"):
        find(file)
    assert copy.read_bytes() == CONTENT[:5]


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    copy = put(tmp_path / "counts.bin", CONTENT + b"!")
    with pytest.raises(CorruptDataError, match=f"expected {len(CONTENT)} bytes with .*, got more bytes than that"):
        find(file_of(CONTENT), path=copy)


@pytest.mark.parametrize("level", [1, 9])
def test_a_gzip_file_is_known_by_its_content(tmp_path: Path, level: int) -> None:
    copy = put(tmp_path / "labels.gz", gzip.compress(CONTENT, level, mtime=level))
    assert find(file_of(CONTENT, path="source/labels.gz"), path=copy) == copy


@pytest.mark.parametrize("packed", [PACKED[:-9], PACKED[:-6] + b"xxxxxx", b"not gzip at all"])
def test_a_broken_gzip_file_is_refused(tmp_path: Path, packed: bytes) -> None:
    copy = put(tmp_path / "labels.gz", packed)
    with pytest.raises(CorruptDataError, match=r"22 bytes when unpacked .* got a file that cannot be read to its end"):
        find(file_of(CONTENT, path="source/labels.gz"), path=copy)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = put(tmp_path / "labels.gz", gzip.compress(bytes(1 << 24)))
    unpacked: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda stream, size: unpacked.append(size) or read(stream, size))
    with pytest.raises(CorruptDataError, match="got more bytes than that"):
        find(file_of(CONTENT, path="source/labels.gz"), path=copy)
    assert sum(unpacked) <= _files.BLOCK


# Downloading


@pytest.mark.parametrize("name", ["counts.bin", "labels.gz"])
def test_a_download_is_checked_and_kept(tmp_path: Path, cache: Path, serve: Callable[..., str], name: str) -> None:
    content = CONTENT * 10_000
    put(tmp_path / "served" / name, gzip.compress(content) if name.endswith(".gz") else content)
    file = file_of(content, path=f"source/{name}", url=f"{serve()}/{name}")
    assert find(file) == cache / file.path
    assert files_below(cache) == [cache / file.path]
    assert find(replace(file, url="http://127.0.0.1:9/")) == cache / file.path


def test_a_corrupt_copy_in_the_cache_is_downloaded_again(
    tmp_path: Path, cache: Path, serve: Callable[..., str]
) -> None:
    put(tmp_path / "served" / "counts.bin", CONTENT)
    file = file_of(CONTENT, url=f"{serve()}/counts.bin")
    put(cache / file.path, CONTENT[:3])
    assert find(file).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (CONTENT[::-1], "got 22 bytes"),
        (CONTENT[:4], "truncated"),
        (CONTENT * 2, "more"),
        (CONTENT * 1000, ", got more"),
    ],
)
def test_a_wrong_download_leaves_nothing_behind(
    tmp_path: Path, cache: Path, serve: Callable[..., str], sent: bytes, message: str
) -> None:
    put(tmp_path / "served" / "counts.bin", sent)
    file = file_of(CONTENT, url=f"{serve()}/counts.bin")
    with pytest.raises(CorruptDataError, match=f"{file.url}: expected {len(CONTENT)} bytes.*{message}"):
        find(file)
    assert files_below(cache) == []


def test_a_download_that_breaks_off_leaves_nothing_behind(cache: Path, serve: Callable[..., str]) -> None:
    class BreaksOff(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(CONTENT[:5])

        def log_message(self, *args: object) -> None: ...

    with pytest.raises(DataUnavailableError, match="5 bytes read, 17 more expected"):
        find(file_of(CONTENT, url=serve(BreaksOff)))
    assert files_below(cache) == []


def test_an_absent_address_says_where_was_searched_and_what_to_do(
    tmp_path: Path, cache: Path, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    file = file_of(CONTENT, url=f"{serve()}/counts.bin")
    with pytest.raises(DataUnavailableError, match="HTTPError: 404") as caught:
        find(file, folders=[tmp_path / "system"])
    message = str(caught.value)
    places = [tmp_path / file.path, tmp_path / "system" / file.name, cache / file.path]
    assert all(f"{place}: nothing there" in message for place in places)
    assert file.url in message
    assert f"set NEUROVAR_DATA=<folder that has {file.path}>" in message


def test_a_corrupt_cache_without_network_says_both(cache: Path) -> None:
    file = file_of(CONTENT)
    put(cache / file.path, CONTENT[:3])
    with pytest.raises(DataUnavailableError, match=r"(?s)truncated\? 19 bytes are missing.*ConnectionError"):
        find(file)


def test_an_unwritable_cache_is_reported(tmp_path: Path, cache: Path, serve: Callable[..., str]) -> None:
    put(tmp_path / "served" / "counts.bin", CONTENT)
    put(cache, b"a file in the place of the folder")
    with pytest.raises(DataUnavailableError, match=r"(NotADirectory|FileExists)Error"):
        find(file_of(CONTENT, url=f"{serve()}/counts.bin"))


def test_a_closed_port_is_found_out_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(DataUnavailableError, match="ConnectionError"):
        find(file_of(CONTENT, url=f"http://127.0.0.1:{port}/counts.bin"))
    assert time.monotonic() - begin < _files.OFFLINE_TIMEOUT


def test_a_silent_server_is_given_up(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = file_of(CONTENT, url=f"http://127.0.0.1:{silent.getsockname()[1]}/counts.bin")
        begin = time.monotonic()
        with pytest.raises(DataUnavailableError, match=r"no answer within 0\.2 s|timed out"):
            find(file, offline_timeout=0.2)
    assert time.monotonic() - begin < 2
    assert not cache.exists()


def test_a_name_that_never_resolves_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def hang(*args: object, **kwargs: object) -> list:
        done.wait(20)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begin = time.monotonic()
    with pytest.raises(DataUnavailableError, match=r"TimeoutError: no answer within 0\.2 s"):
        find(file_of(CONTENT, url="http://data.invalid/counts.bin"), offline_timeout=0.2)
    assert time.monotonic() - begin < 2
    done.set()


def test_two_files_without_network_are_found_out_within_ten_seconds() -> None:
    assert 2 * _files.OFFLINE_TIMEOUT < 10


# Cowley 2023


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=array.dtype == object)
    return stream.getvalue()


def jpeg(size: tuple[int, int] = (112, 112), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, "white").save(stream, "JPEG")
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def small_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Declare the session "small" (2 units, 3 stimuli, 4 repeats) with these contents; gives the folder they are in."""

    def declare(counts: bytes = b"", images: bytes = b"") -> Path:
        put(tmp_path / "counts.npy", counts)
        put(tmp_path / "images.zip", images)
        session = cowley2023_v4.Session(
            "M", 2, 3, 4, file_of(counts, path="s/counts.npy"), file_of(images, path="s/images.zip")
        )
        monkeypatch.setitem(cowley2023_v4.SESSIONS, "small", session)
        return tmp_path

    return declare


def test_responses_are_stimulus_by_repeat_by_unit(small_session: Callable[..., Path]) -> None:
    counts = np.arange(24.0).reshape(2, 3, 4)
    counts[:, 1, 2:] = np.nan
    da = cowley2023_v4.load(session="small", path=small_session(counts=npy(counts)))
    assert responses.validate(da).dims == ("stimulus", "repeat", "unit")
    for unit, stimulus, repeat in np.ndindex(2, 3, 4):
        np.testing.assert_equal(da.values[stimulus, repeat, unit], counts[unit, stimulus, repeat])
    assert da.stimulus.values.tolist() == ["image0001", "image0002", "image0003"]
    assert [str(da[name].values[0]) for name in ("area", "subject", "session")] == ["V4", "M", "small"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.array([{"a": 1}], dtype=object)), "expected a .npy file of numbers, got .*allow_pickle"),
        (npy(np.ones((2, 3, 4)))[:-8], "expected a .npy file of numbers, got"),
        (b"", "expected a .npy file of numbers, got"),
        (npy(np.ones((2, 4, 3))), r"expected float64 of shape \(2, 3, 4\), got float64 of shape \(2, 4, 3\)"),
        (npy(np.ones((2, 3, 4), dtype=np.float32)), "expected float64 of shape .*, got float32"),
    ],
)
def test_responses_of_another_form_are_refused(
    small_session: Callable[..., Path], content: bytes, message: str
) -> None:
    folder = small_session(counts=content)
    with pytest.raises(CorruptDataError, match=message):
        cowley2023_v4.load(session="small", path=folder)


def small_images(**changes: bytes) -> dict[str, bytes]:
    return {f"{name}.jpg": changes.get(name, jpeg()) for name in ("image0001", "image0002", "image0003")}


def test_images_are_in_the_order_of_the_stimuli(small_session: Callable[..., Path]) -> None:
    members = small_images(image0002=jpeg_of_colour("red"))
    da = cowley2023_v4.images(session="small", path=small_session(images=zipped(dict(reversed(members.items())))))
    assert da.shape == (3, 3, 112, 112)
    assert da.dtype == np.float32
    np.testing.assert_allclose(da.mean(("row", "column")).values, [[1, 1, 1], [1, 0, 0], [1, 1, 1]], atol=0.01)
    assert da.attrs["units"] == "intensity"


def jpeg_of_colour(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (112, 112), colour).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (small_images(image0002=jpeg((100, 112))), "image0002.jpg: expected .* 112 × 112 RGB, got 100 × 112 RGB"),
        (small_images(image0003=jpeg(mode="L")), "image0003.jpg: expected an image of .*, got 112 × 112 L"),
        (small_images(image0001=b"GIF89a"), "image0001.jpg: expected a JPEG image, got"),
        (small_images(image0001=jpeg()[:-300]), "image0001.jpg: expected a JPEG image, got .*Truncated"),
        (small_images(image0002=bytes(1 << 24)), "image0002.jpg: expected at most 37632 bytes, got 16777216"),
        ({"image0001.jpg": jpeg()}, "expected 3 files .*, got 1; missing or unexpected: image0002.jpg, image0003.jpg"),
        (small_images() | {"../x.jpg": b""}, "expected 3 files .*, got 4; missing or unexpected: ../x.jpg"),
    ],
)
def test_images_of_another_form_are_refused(
    small_session: Callable[..., Path], members: dict[str, bytes], message: str
) -> None:
    folder = small_session(images=zipped(members))
    with pytest.raises(CorruptDataError, match=message):
        cowley2023_v4.images(session="small", path=folder)


@pytest.mark.parametrize("content", [b"not a zip", zipped(small_images())[:-30], b""])
def test_a_broken_zip_file_is_refused(small_session: Callable[..., Path], content: bytes) -> None:
    folder = small_session(images=content)
    with pytest.raises(CorruptDataError, match="expected a whole zip file, got a broken one"):
        cowley2023_v4.images(session="small", path=folder)


def test_a_zip_member_that_is_larger_than_it_says_is_not_unpacked(small_session: Callable[..., Path]) -> None:
    content = zipped(small_images(image0001=bytes(1 << 24)))
    content = content.replace(struct.pack("<I", 1 << 24), struct.pack("<I", 1000))
    with pytest.raises(CorruptDataError, match=r"expected a whole zip file, got a broken one .*CRC"):
        cowley2023_v4.images(session="small", path=small_session(images=content))


@pytest.mark.parametrize("read", [cowley2023_v4.load, cowley2023_v4.images])
def test_an_unknown_session_lists_the_known(read: Callable[..., xr.DataArray]) -> None:
    with pytest.raises(ValueError, match="expected the session to be one of '210325', got '999999'"):
        read(session="999999")


@pytest.mark.data
def test_the_real_responses() -> None:
    da = responses.validate(cowley2023_v4.load(), min_repeats=10)
    assert da.shape == (640, 10, 50)
    repeats = responses.repeat_counts(da)
    assert (repeats.min(), repeats.max(), repeats.sum()) == (6, 10, 4840)
    assert set(da.subject.values) == {"PE"}
    assert (da.attrs["units"], da.attrs["window"]) == ("spike count", "100 ms")
    assert da.attrs["sha256"] == "4008dbbf31a47d9b1b8d8da609f4a7a3433c7071f0e45c611c220b217dd75b76"


@pytest.mark.data
def test_the_real_images() -> None:
    da = cowley2023_v4.images()
    assert da.shape == (640, 3, 112, 112)
    assert da.dtype == np.float32
    assert (float(da.min()), float(da.max())) == (0, 1)
    assert da.stimulus.values[[0, -1]].tolist() == ["image0001", "image0640"]
    np.testing.assert_array_equal(da.stimulus, cowley2023_v4.load().stimulus)


# Fashion-MNIST and digits


def idx(values: np.ndarray, *, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def small_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Declare the split "small" of three images with these files; gives the folder they are in."""

    def declare(pixels: bytes, labels: bytes) -> Path:
        contents = {"pixels.gz": pixels, "labels.gz": labels}
        for name, content in contents.items():
            put(tmp_path / name, gzip.compress(content))
        files = [file_of(content, path=f"f/{name}") for name, content in contents.items()]
        monkeypatch.setitem(fashion_mnist.SPLITS, "small", (3, *files))
        return tmp_path

    return declare


PIXELS = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
LABELS = np.array([7, 0, 9], dtype=np.uint8)


def test_idx_files_become_images_and_labels(small_split: Callable[..., Path]) -> None:
    ds = fashion_mnist.load("small", path=small_split(idx(PIXELS), idx(LABELS)))
    np.testing.assert_allclose(ds.images.values[:, 0], PIXELS / 255, rtol=1e-6)
    assert (ds.images.dtype, ds.labels.dtype) == (np.float32, np.int64)
    assert ds.labels.values.tolist() == [7, 0, 9]
    assert ds.stimulus.values.tolist() == ["small00000", "small00001", "small00002"]
    assert ds.attrs["classes"][9] == "Ankle boot"


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (idx(PIXELS, kind=9), idx(LABELS), r"pixels.gz: expected an idx file of bytes, shape .*: 00 00 08 03"),
        (idx(PIXELS[:2]), idx(LABELS), r"shape \(3, 28, 28\): .* got 00 00 08 03 00 00 00 02"),
        (idx(PIXELS)[:-1], idx(LABELS), "pixels.gz: expected 2368 bytes when unpacked, got 2367$"),
        (idx(PIXELS) + b"!", idx(LABELS), "pixels.gz: expected 2368 bytes when unpacked, got 2369 or more"),
        (idx(PIXELS), idx(PIXELS), r"labels.gz: expected an idx file of bytes, shape \(3,\): 00 00 08 01"),
        (idx(PIXELS), b"\0\0", r"labels.gz: expected an idx file of bytes, shape \(3,\): .*, got 00 00"),
    ],
)
def test_idx_files_of_another_form_are_refused(
    small_split: Callable[..., Path], pixels: bytes, labels: bytes, message: str
) -> None:
    folder = small_split(pixels, labels)
    with pytest.raises(CorruptDataError, match=message):
        fashion_mnist.load("small", path=folder)


def test_the_path_of_fashion_mnist_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected path to be a folder with t10k-images-idx3"):
        fashion_mnist.load("test", path=put(tmp_path / "x.gz", b""))


@pytest.mark.parametrize("read", [fashion_mnist.load, digits.load])
def test_an_unknown_split_lists_the_known(read: Callable[..., xr.Dataset]) -> None:
    with pytest.raises(ValueError, match="expected the split to be one of 'train', 'test', got 'validation'"):
        read("validation")


@pytest.mark.skipif(
    not Path(fashion_mnist.DEBIAN_FOLDER).is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)
@pytest.mark.parametrize(("split", "n_images"), [("train", 60_000), ("test", 10_000)])
def test_the_real_fashion_mnist(split: str, n_images: int) -> None:
    ds = fashion_mnist.load(split)
    assert ds.images.shape == (n_images, 1, 28, 28)
    assert ds.images.dtype == np.float32
    assert (float(ds.images.min()), float(ds.images.max())) == (0, 1)
    np.testing.assert_array_equal(np.bincount(ds.labels), np.full(10, n_images // 10))


def test_digits_have_the_form_of_fashion_mnist(small_split: Callable[..., Path]) -> None:
    fashion = fashion_mnist.load("small", path=small_split(idx(PIXELS), idx(LABELS)))
    splits = {split: digits.load(split) for split in ("train", "test")}
    assert {split: ds.sizes["stimulus"] for split, ds in splits.items()} == {"train": 1437, "test": 360}
    for ds in splits.values():
        assert ds.images.shape[1:] == (1, 28, 28)
        assert all(ds[name].dims == fashion[name].dims for name in ("images", "labels"))
        assert all(ds[name].dtype == fashion[name].dtype for name in ("images", "labels"))
        assert set(fashion.attrs) - set(ds.attrs) == {"sha256"}
        assert float(ds.images.min()) >= 0
        assert float(ds.images.max()) <= 1
        assert ds.attrs["source"] == "digits (scikit-learn)"


@pytest.mark.parametrize("size", [8, 11, 28])
def test_digits_are_interpolated_as_torch_does(size: int) -> None:
    import torch
    from sklearn.datasets import load_digits

    raw = torch.as_tensor(load_digits().images[1437:, None] / 16)
    expected = torch.nn.functional.interpolate(raw, size=(size, size), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(digits.load("test", size=size).images, expected, atol=1e-6)


def test_digits_are_not_made_smaller() -> None:
    with pytest.raises(ValueError, match="expected a size of at least 8, got 7"):
        digits.load("train", size=7)


# Declarations and package


@pytest.mark.parametrize("module", [cowley2023_v4, fashion_mnist, digits])
def test_every_source_declares_what_a_user_must_know(module: object) -> None:
    source = module.SOURCE  # type: ignore[attr-defined]
    assert all([source.name, source.title, source.citation, source.license, source.units])
    assert source.doi.startswith("10.")
    assert source.license_url.startswith("https://")
    for file in source.files:
        assert file.url.startswith("https://")
        assert len(file.sha256) == 64
        assert file.path.startswith(f"{source.name}/")
    json.dumps(source.attrs(*source.files))


def test_modules_load_when_first_touched() -> None:
    assert neurovar_datasets.__getattr__("digits") is digits
    with pytest.raises(AttributeError, match="has no attribute 'imagenet'; it has CorruptDataError"):
        _ = neurovar_datasets.imagenet
