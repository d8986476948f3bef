"""HDF5 files: numbers and texts that lie in the file itself, and are no larger than they say."""

import os
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from memory import peak_of, peak_rss
from neurovar_datasets import CorruptDataError, DataUnavailableError
from neurovar_datasets._reading import archives as _archives
from neurovar_datasets._reading import hdf5 as _hdf5
from neurovar_datasets._reading import mat as _mat
from neurovar_datasets._reading import refusals as _refusals
from servers import Server, put, respond

COUNTS = np.arange(24.0).reshape(2, 3, 4)
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write an HDF5 file with a function."""

    def write(fill: Callable[[h5py.File], object], name: str = "a.h5") -> Path:
        with h5py.File(tmp_path / name, "w") as file:
            fill(file)
        return tmp_path / name

    return write


def array_of(path: Path | str, field: str = "x") -> np.ndarray:
    with _hdf5.open_hdf5(path) as hdf5:
        return hdf5.array(field)


def strings_of(path: Path, field: str = "x") -> np.ndarray:
    with _hdf5.open_hdf5(path) as hdf5:
        return hdf5.strings(field)


def test_hdf5_files_are_read_in_place(make: Make) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset(
            "units/counts", data=COUNTS, chunks=(1, 3, 2), compression="gzip", shuffle=True, fletcher32=True
        )
        file.create_dataset("units/lzf", data=COUNTS, compression="lzf")
        file.create_dataset("units/big_endian", data=COUNTS.astype(">i2"))
        file["units/flag"] = True
        file["units/none"] = np.ones((0, 2))

    with _hdf5.open_hdf5(make(fill)) as hdf5:
        for name in ("counts", "lzf", "big_endian"):
            np.testing.assert_array_equal(hdf5.array(f"units/{name}", ndim=3), COUNTS)
            np.testing.assert_array_equal(hdf5.array(f"//units/./{name}/"), COUNTS)
        assert hdf5.dataset("units/counts")[1, 2, 3] == 23
        assert hdf5.array("units/flag").item() is True
        assert hdf5.array("units/none").shape == (0, 2)
        assert set(hdf5.members("units")) == {"counts", "lzf", "big_endian", "flag", "none"}
        assert set(hdf5.members()) == {"units"}
        assert (hdf5.has("units/counts"), hdf5.has("units/x"), hdf5.has("units/counts/x")) == (True, False, False)
        with pytest.raises(CorruptDataError, match=r"a\.h5: units/counts: expected 2 dims, got shape \(2, 3, 4\)"):
            hdf5.array("units/counts", ndim=2)
        with pytest.raises(
            CorruptDataError, match=r"a\.h5: units/x: expected to be there, got \['big_endian', .* in /units"
        ):
            hdf5.array("units/x")
        with pytest.raises(
            CorruptDataError, match=r"a\.h5: units/counts/x: expected to be there, got \[\] in /units/cou"
        ):
            hdf5.array("units/counts/x")
        with pytest.raises(CorruptDataError, match=r"a\.h5: units: expected a dataset, got Group"):
            hdf5.dataset("units")
        with pytest.raises(CorruptDataError, match=r"a\.h5: units/counts: expected a group, got Dataset"):
            hdf5.members("units/counts")


@pytest.mark.parametrize("values", [["a", "", "µ"], ["a" * 300] * 250, []])
@pytest.mark.parametrize("fixed", [False, True])
def test_texts_are_read(make: Make, values: list[str], fixed: bool) -> None:
    data: Any = np.array([v.encode() for v in values], dtype="S300") if fixed else values
    path = make(lambda f: f.create_dataset("x", data=data, dtype=None if fixed else h5py.string_dtype()))
    assert strings_of(path).tolist() == values
    with pytest.raises(CorruptDataError, match=r"a\.h5: x: expected real numbers, got dtype"):
        array_of(path)


def test_one_text_is_a_row_of_one(make: Make) -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = "one"
        file["bytes"] = np.bytes_("two")
        file["latin1"] = np.array([b"\xe9"])
        file["table"] = np.array([[b"a"]])

    path = make(fill)
    assert strings_of(path).tolist() == ["one"]
    assert strings_of(path, "bytes").tolist() == ["two"]
    with pytest.raises(CorruptDataError, match=r"a\.h5: latin1: cannot be read \(UnicodeDecodeError"):
        strings_of(path, "latin1")
    with pytest.raises(
        CorruptDataError, match=r"a\.h5: table: expected a row of up to 1000000 texts, got \|S1 \(1, 1\)"
    ):
        strings_of(path, "table")


def test_a_long_text_that_is_repeated_is_a_bomb(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file itself each text can refer to the same bytes: h5py writes them anew, so the file is edited."""
    monkeypatch.setattr(_refusals, "MIN_LIMIT", 1 << 20)
    monkeypatch.setattr(_refusals, "MAX_EXPANSION", 5)
    texts = ["x" * 200_000] + ["y"] * 10_000
    path = make(lambda file: file.create_dataset("x", data=texts, dtype=h5py.string_dtype()))
    with pytest.raises(CorruptDataError, match=r"a\.h5: x: expected at most \d+ bytes of text, got 8000800000"):
        strings_of(path)
    with h5py.File(path) as file:
        at = file["x"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[at : at + 16 * 10_001] = content[at : at + 16] * 10_001
    put(path, content)
    with h5py.File(path) as file:
        assert file["x"][10_000] == texts[0].encode(), "the edit has worked"
    assert peak_of(lambda: strings_of(path), r"a\.h5: x: expected at most \d+ bytes of text") < 64 << 20


@pytest.mark.parametrize("chunks", [None, (2,)])
def test_a_text_that_declares_gigabytes_sets_none_aside(make: Make, chunks: tuple[int] | None) -> None:
    path = make(lambda file: file.create_dataset("x", data=["a", "bc"], dtype=h5py.string_dtype(), chunks=chunks))
    assert strings_of(path).tolist() == ["a", "bc"]
    with h5py.File(path) as file:
        item = file["x"].id
        at = item.get_chunk_info(0).byte_offset if chunks else item.get_offset()
    content = bytearray(path.read_bytes())
    content[at : at + 4] = b"\xff\xff\xff\x7f"
    put(path, content)
    message, megabytes = peak_rss(f"with _hdf5.open_hdf5({str(path)!r}) as f: f.strings('x')")
    assert f"{path}: x: expected texts of at most {_refusals.MIN_LIMIT} bytes, got 2147483647" in message
    assert megabytes < 20


def test_a_heap_of_texts_that_never_ends_is_refused(make: Make) -> None:
    """In a heap each object has its size; HDF5 goes on and on from one of size 0 that is not in use."""
    path = make(lambda file: file.create_dataset("x", data=["abc", "de"], dtype=h5py.string_dtype()))
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    while number := int.from_bytes(content[at : at + 2], "little"):
        assert number <= 2
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    content[at + 8 : at + 16] = bytes(8)
    put(path, content)
    message, _ = peak_rss(f"with _hdf5.open_hdf5({str(path)!r}) as f: f.strings('x')")
    assert f"{path}: x: cannot be read" in message
    assert "heap of texts at byte" in message


def external_file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = COUNTS
    return tmp_path / "secret.h5"


def virtual(file: h5py.File, source: str) -> None:
    layout = h5py.VirtualLayout(shape=COUNTS.shape, dtype="f8")
    layout[:] = h5py.VirtualSource(source, "x", shape=COUNTS.shape)
    file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            lambda file, to: file.update({"x": h5py.ExternalLink(to, "x")}),
            "expected data in this file, got a link out of it",
        ),
        (
            lambda file, to: file.update({"out": h5py.ExternalLink(to, "/"), "x": h5py.SoftLink("/out/x")}),
            "expected data in this file, got a link out of it",
        ),
        (
            lambda file, to: file.create_dataset("x", COUNTS.shape, "f8", external=[(to, 0, COUNTS.nbytes)]),
            "expected data in this file, got data in another file",
        ),
        (virtual, "expected data in this file, got data in another file"),
    ],
)
def test_no_data_of_other_files_are_read(make: Make, tmp_path: Path, kind: Callable, message: str) -> None:
    path = make(lambda file: kind(file, str(external_file(tmp_path))))
    with h5py.File(path) as file:
        assert file["x"].shape == COUNTS.shape, "h5py itself reads it"
    with pytest.raises(CorruptDataError, match=rf"a\.h5: x: {message}"):
        array_of(path)


def test_whether_a_field_is_there_opens_no_other_file(make: Make, tmp_path: Path) -> None:
    """A named pipe would block whoever opens it."""
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    path = make(lambda file: file.update({"x": h5py.ExternalLink(pipe, "x"), "y": h5py.SoftLink("/x/z")}))
    begin = time.monotonic()
    with _hdf5.open_hdf5(path) as hdf5:
        for field in ("x", "x/a", "y"):
            with pytest.raises(CorruptDataError, match=rf"a\.h5: {field}: expected data in this file, got a link out"):
                hdf5.has(field)
    assert time.monotonic() - begin < 1


def test_soft_links_are_followed_within_the_file_only_so_far(make: Make) -> None:
    def fill(file: h5py.File) -> None:
        file["units/real"] = COUNTS
        file["units/relative"] = h5py.SoftLink("real")
        file["group"] = h5py.SoftLink("/units")
        file["absolute"] = h5py.SoftLink("/group/relative")
        file["circle"] = h5py.SoftLink("/circle")
        file["dangling"] = h5py.SoftLink("/units/none")

    with _hdf5.open_hdf5(make(fill)) as hdf5:
        for field in ("absolute", "group/real", "units/relative"):
            np.testing.assert_array_equal(hdf5.array(field), COUNTS)
        assert not hdf5.has("dangling")
        with pytest.raises(CorruptDataError, match=r"a\.h5: circle: expected at most 16 links on the way, got more"):
            hdf5.array("circle")
        with pytest.raises(CorruptDataError, match=r"a\.h5: dangling: expected to be there"):
            hdf5.array("dangling")


@pytest.mark.parametrize(
    "fill",
    [
        lambda file: file.create_dataset("x", data=np.array([file.ref], dtype=h5py.ref_dtype)),
        lambda file: file.create_dataset("x", (1,), dtype=h5py.regionref_dtype),
        lambda file: file.create_dataset("x", (2,), dtype=h5py.vlen_dtype(np.int32)),
        lambda file: file.create_dataset("x", (2,), dtype=[("a", "f8"), ("b", h5py.ref_dtype)]),
        lambda file: file.create_dataset("x", data=np.zeros(2, "i4,f8")),
        lambda file: file.create_dataset("x", data=np.zeros(2, "V8")),
        lambda file: file.create_dataset("x", data=np.array([1j])),
        lambda file: file.create_dataset("x", data=h5py.Empty(h5py.ref_dtype)),
    ],
)
def test_only_numbers_and_texts_are_read(make: Make, fill: Callable[[h5py.File], object]) -> None:
    path = make(fill)
    for read in (array_of, strings_of):
        with pytest.raises(CorruptDataError, match=r"a\.h5: x: expected numbers or text, got dtype"):
            read(path)


def test_a_dataset_without_values_is_refused(make: Make) -> None:
    path = make(lambda file: file.create_dataset("x", data=h5py.Empty("f8")))
    with pytest.raises(CorruptDataError, match=r"a\.h5: x: expected real numbers, got dtype object"):
        array_of(path)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (1 << 40,), "chunks": (1 << 10,)},
        {"shape": (1 << 30, 1 << 30), "chunks": (1, 1 << 10)},
        {"shape": (1,), "maxshape": (None,), "chunks": (1 << 28,)},
    ],
)
def test_shapes_without_data_are_refused(make: Make, options: dict[str, Any]) -> None:
    path = make(lambda file: file.create_dataset("x", dtype="f8", compression="gzip", **options))
    assert path.stat().st_size < 10_000
    with pytest.raises(CorruptDataError, match=rf"a\.h5: x: expected at most {_refusals.MIN_LIMIT} bytes, got \d+ \("):
        array_of(path)


def chunk_bomb(file: h5py.File, packed: bytes, n_values: int, **filters: Any) -> None:
    item = file.create_dataset("x", (n_values,), "f8", chunks=(n_values,), compression="gzip", **filters)
    item.id.write_direct_chunk((0,), packed)


def test_a_chunk_that_unpacks_to_more_than_it_declares_is_a_bomb(make: Make) -> None:
    """HDF5 would unpack all of it before it looks at its length."""
    packed = zlib.compress(bytes(1 << 28), 1)
    path = make(lambda file: chunk_bomb(file, packed, 1 << 17))
    message, megabytes = peak_rss(f"with _hdf5.open_hdf5({str(path)!r}) as f: f.array('x')")
    assert f"{path}: x: expected chunks of {1 << 20} bytes, got more when unpacked" in message
    assert megabytes < 50


@pytest.mark.parametrize("filters", [{}, {"shuffle": True}, {"fletcher32": True}])
def test_large_chunks_that_are_what_they_declare_are_read(
    make: Make, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    monkeypatch.setattr(_refusals, "MIN_LIMIT", 1 << 16)
    monkeypatch.setattr(_hdf5, "MAX_DEFLATE", 1 << 30)
    values = np.random.default_rng(0).poisson(1.0, 5000).astype(float)
    noise = np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8)

    def fill(file: h5py.File) -> None:
        file.create_dataset("x", data=values, chunks=(1000,), compression="gzip", **filters)
        file.create_dataset("noise", data=noise, chunks=(500,), compression="gzip", **filters)

    np.testing.assert_array_equal(array_of(make(fill)), values)
    np.testing.assert_array_equal(array_of(make(fill), "noise"), noise)


def test_gzip_in_gzip_is_refused(make: Make) -> None:
    def fill(file: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        for _ in range(2):
            plist.set_deflate(9)
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((10,)), plist)

    with pytest.raises(CorruptDataError, match=r"a\.h5: x: expected each filter once, got filters \[1, 1\]"):
        array_of(make(fill))


def test_an_unknown_filter_is_named(make: Make) -> None:
    def fill(file: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(300, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((10,))
        item = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_DOUBLE, space, plist)
        item.write_direct_chunk((0,), bytes(80))

    with pytest.raises(
        CorruptDataError, match=r"a\.h5: x: expected a filter that this HDF5 library has, got filters \[300\]"
    ):
        array_of(make(fill))


@pytest.mark.parametrize("length", [0, 8, 100, 1000, 2000])
def test_truncated_hdf5_files_are_refused(make: Make, length: int) -> None:
    path = make(lambda file: file.create_dataset("x", data=COUNTS, chunks=True, compression="gzip"))
    assert length < path.stat().st_size
    put(path, path.read_bytes()[:length])
    with pytest.raises(CorruptDataError, match=r"a\.h5: cannot be read \(OSError"):
        array_of(path)


def test_spoiled_data_in_hdf5_name_the_field(make: Make) -> None:
    path = make(lambda file: file.create_dataset("x", data=COUNTS, chunks=True, compression="gzip"))
    with h5py.File(path) as file:
        at = file["x"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 2 : at + 6] = b"\xff" * 4
    with pytest.raises(CorruptDataError, match=r"a\.h5: x: cannot be read \(OSError: .*filter"):
        array_of(put(path, content))


def test_no_file_at_all_is_an_error(tmp_path: Path) -> None:
    for read in (array_of, _archives.npy, _archives.npz, lambda path: _mat.mat(path, ["x"])):
        with pytest.raises(CorruptDataError, match=r"absent: .*cannot be read \(FileNotFoundError"):
            read(tmp_path / "absent")


# HDF5 at an address


@pytest.mark.usefixtures("cache")
def test_of_a_remote_file_only_what_is_asked_for_is_transferred(make: Make, serve: Callable[..., Server]) -> None:
    pytest.importorskip("remfile")
    large = np.random.default_rng(0).standard_normal(1 << 20)

    def fill(file: h5py.File) -> None:
        file["large"] = large
        file["x"] = COUNTS

    server = serve(make(fill).read_bytes())
    with _hdf5.open_hdf5(server.url) as hdf5:
        assert hdf5.name == server.url
        np.testing.assert_array_equal(hdf5.array("x"), COUNTS)
        bounds = [asked.removeprefix("bytes=").split("-") for asked in server.asked if asked]
        assert 0 < sum(int(last) - int(first) for first, last in bounds) < large.nbytes / 4
        with pytest.raises(CorruptDataError, match=f"{server.url}: y: expected to be there"):
            hdf5.array("y")


@pytest.mark.usefixtures("cache")
def test_an_address_that_does_not_answer_is_unavailable(serve: Callable[..., Server]) -> None:
    pytest.importorskip("remfile")
    begin = time.monotonic()
    with pytest.raises(DataUnavailableError, match=r"http://127\.0\.0\.1:9/a\.nwb: cannot be opened \(ConnectionError"):
        array_of("http://127.0.0.1:9/a.nwb")
    assert time.monotonic() - begin < 4
    absent = serve(answer=lambda request: respond(request, 404))
    with pytest.raises(DataUnavailableError, match=f"{absent.url}: cannot be opened .*404"):
        array_of(absent.url)
    whole = serve(b"not HDF5", ranges=False)
    with pytest.raises(DataUnavailableError, match="expected a server that sends parts of a file, got all"):
        array_of(whole.url)


@pytest.mark.usefixtures("cache")
def test_a_remote_file_of_another_form_is_refused(serve: Callable[..., Server]) -> None:
    pytest.importorskip("remfile")
    server = serve(b"not HDF5")
    with pytest.raises(CorruptDataError, match=f"{server.url}: cannot be read"):
        array_of(server.url)


def test_without_remfile_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "remfile", None)
    message = r"http://x/a\.nwb: expected the package remfile \(pip install 'neurovar\[nwb\]'\), found none"
    with pytest.raises(ValueError, match=message):
        array_of("http://x/a.nwb")
