"""MATLAB files of version 4 to 7: what scipy reads of them, and what it never sees."""

import struct
import time
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from memory import peak_of, peak_rss
from neurovar_datasets import CorruptDataError
from neurovar_datasets._reading import hdf5 as _hdf5
from neurovar_datasets._reading import mat as _mat
from neurovar_datasets._reading import refusals as _refusals
from scipy import sparse
from scipy.io import loadmat, savemat
from servers import put

COUNTS = np.arange(24.0).reshape(2, 3, 4)


def mat_file(path: Path, content: dict[str, Any], **options: Any) -> Path:
    savemat(path, content, **options)
    return path


def cell(*values: object) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


CONTENT = {
    "resp": COUNTS[0],
    "spikes": cell(np.array([0.5, 1.5]), cell(COUNTS[1], "text", np.zeros((0, 0)))),
    "stim": {"istim": np.arange(5), "deep": {"er": 1 + 2j}, "flag": np.array([True])},
    "sparse": sparse.csc_matrix(np.eye(3)),
    "empty": np.zeros((0, 0)),
    "many": np.array([(1.0, "a"), (2.0, "b")], dtype=[("x", "O"), ("y", "O")]),
    "name": "a text",
}


@pytest.mark.parametrize("compressed", [False, True])
def test_every_kind_of_variable_is_read_as_scipy_does(tmp_path: Path, compressed: bool) -> None:
    path = mat_file(tmp_path / "a.mat", CONTENT, do_compression=compressed)
    read, expected = _mat.mat(path, list(CONTENT)), loadmat(path)
    for name in CONTENT:
        assert repr(read[name]) == repr(expected[name])
        assert repr(_mat.mat(path, [name])[name]) == repr(expected[name])
    np.testing.assert_array_equal(read["resp"], COUNTS[0])
    np.testing.assert_array_equal(read["spikes"][0, 1][0, 0], COUNTS[1])
    np.testing.assert_array_equal(read["sparse"].toarray(), np.eye(3))


def test_files_of_version_4_are_read(tmp_path: Path) -> None:
    path = mat_file(tmp_path / "a.mat", {"resp": COUNTS[0]}, format="4")
    np.testing.assert_array_equal(_mat.mat(path, ["resp"])["resp"], COUNTS[0])
    put(path, path.read_bytes()[:-8])
    with pytest.raises(CorruptDataError, match=f"{path}: resp: cannot be read"):
        _mat.mat(path, ["resp"])


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name: str, kind: int, shape: tuple[int, ...], *inside: bytes, order: str = "<", n_bytes: int = 0) -> bytes:
    """A matrix of a MATLAB 5 file, element by element; with `n_bytes` it lies about its length."""
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    dims = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    body = b"".join([flags, dims, element(1, name.encode(), order), *inside])
    return struct.pack(f"{order}II", 14, n_bytes or len(body)) + body


def mat5(path: Path, *variables: bytes, order: str = "<", compressed: bool = False) -> Path:
    mark = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + mark
    packed = [struct.pack(f"{order}II", 15, len(p)) + p for p in map(zlib.compress, variables)]
    return put(path, header + b"".join(packed if compressed else variables))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_both_orders_of_bytes_are_read(tmp_path: Path, order: str, compressed: bool) -> None:
    values = element(9, COUNTS[0].T.astype(f"{order}f8").tobytes(), order)
    variables = [matrix(name, 6, (3, 4), values, order=order) for name in ("other", "resp")]
    path = mat5(tmp_path / "a.mat", *variables, order=order, compressed=compressed)
    np.testing.assert_array_equal(_mat.mat(path, ["resp"])["resp"], COUNTS[0])


@pytest.mark.parametrize("compressed", [False, True])
def test_mat_files_cut_anywhere_are_refused(tmp_path: Path, compressed: bool) -> None:
    content = mat_file(
        tmp_path / "a.mat", {"stim": {"resp": COUNTS, "istim": 1}}, do_compression=compressed
    ).read_bytes()
    for length in range(0, len(content), 7):
        with pytest.raises(CorruptDataError, match=r"a\.mat: stim: "):
            _mat.mat(put(tmp_path / "a.mat", content[:length]), ["stim"])


@pytest.mark.parametrize("name", ["stim", "resp, stim"])
def test_absent_variables_are_named(tmp_path: Path, name: str) -> None:
    path = mat_file(tmp_path / "a.mat", {"other": 1})
    with pytest.raises(CorruptDataError, match=rf"a\.mat: {name}: expected a variable of this name, got none"):
        _mat.mat(path, name.split(", "))


def test_an_hdf5_file_is_no_mat_file_for_scipy(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["x"] = 1
    content = (tmp_path / "a.mat").read_bytes()
    path = put(tmp_path / "a.mat", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + content[128:])
    assert _hdf5.is_hdf5(path)
    with pytest.raises(CorruptDataError, match=r"a\.mat: x: cannot be read"):
        _mat.mat(path, ["x"])
    assert _hdf5.is_hdf5(put(tmp_path / "b.h5", content[512:]))
    assert not _hdf5.is_hdf5(put(tmp_path / "c", content[100:600]))
    assert not _hdf5.is_hdf5(put(tmp_path / "d", b""))


@pytest.mark.parametrize("first", [False, True])
def test_a_mat_bomb_is_refused_in_time_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    """A bomb behind a plain variable is one too; one that nobody asks for is not touched."""
    monkeypatch.setattr(_refusals, "MIN_LIMIT", 1 << 20)
    monkeypatch.setattr(_refusals, "MAX_EXPANSION", 10)
    bomb = mat_file(tmp_path / "a.mat", {"x": np.zeros(1 << 22)}, do_compression=True).read_bytes()
    assert (1 << 25) / len(bomb) > 900
    plain = mat_file(tmp_path / "b.mat", {"y": COUNTS[0]}).read_bytes()
    path = put(tmp_path / "a.mat", plain + bomb[128:] if first else bomb + plain[128:])
    message = rf"a\.mat: x: expected at most {1 << 20} bytes when unpacked, got more"
    assert peak_of(lambda: _mat.mat(path, ["x"]), message) < 4 << 20
    assert peak_of(lambda: _mat.mat(path, ["x", "y"]), message) < 4 << 20
    np.testing.assert_array_equal(_mat.mat(path, ["y"])["y"], COUNTS[0])


def test_a_mat_bomb_stays_within_a_gigabyte_with_the_real_limits(tmp_path: Path) -> None:
    unpacked = matrix("x", 6, (1 << 26, 1), element(9, bytes(1 << 20)))
    bomb = zlib.compressobj(1)
    packed = bomb.compress(unpacked) + b"".join(bomb.compress(bytes(1 << 20)) for _ in range(300)) + bomb.flush()
    path = put(tmp_path / "a.mat", mat5(tmp_path / "a.mat").read_bytes() + struct.pack("<II", 15, len(packed)) + packed)
    begin = time.monotonic()
    message, megabytes = peak_rss(f"_mat.mat({str(path)!r}, ['x'])")
    assert f"{path}: x: expected at most {_refusals.MIN_LIMIT} bytes" in message
    assert megabytes < 700
    assert time.monotonic() - begin < 10


def nested(depth: int, n_bytes: int = 0) -> bytes:
    """Cells in cells; with `n_bytes` each declares that nothing is inside of it."""
    leaf = matrix("", 6, (0, 0), element(9, b""))
    header = matrix("", 1, (1, 1))
    sizes = range(len(leaf) + (depth - 1) * len(header), 0, -len(header))
    inside = b"".join(
        struct.pack("<II", 14, n_bytes or len(header) - 8 + size) + header[8:] for size in list(sizes)[: depth - 1]
    )
    return matrix("x", 1, (1, 1), inside, leaf)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("n_bytes", [0, 40])
def test_cells_nested_until_the_stack_overflows_are_refused(tmp_path: Path, compressed: bool, n_bytes: int) -> None:
    shallow = mat5(tmp_path / "a.mat", nested(_mat.MAX_DEPTH - 2, n_bytes), compressed=compressed)
    assert _mat.mat(shallow, ["x"])["x"].dtype == object
    path = mat5(tmp_path / "a.mat", nested(50_000, n_bytes), compressed=compressed)
    with pytest.raises(CorruptDataError, match=rf"a\.mat: x: expected cells nested at most {_mat.MAX_DEPTH} deep"):
        _mat.mat(path, ["x"])


def test_a_leaf_cannot_hide_what_is_nested_behind_it(tmp_path: Path) -> None:
    """A number that declares the length of all that follows, which loadmat reads as the next cells."""
    hidden = nested(50_000)
    liar = matrix("", 6, (1, 1), element(9, bytes(8)), n_bytes=len(hidden) + 100)
    path = mat5(tmp_path / "a.mat", matrix("x", 1, (2, 1), liar, hidden))
    with pytest.raises(CorruptDataError, match=r"a\.mat: x: expected cells nested at most"):
        _mat.mat(path, ["x"])


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (
            matrix("x", 1, (1 << 11, 1 << 10), struct.pack("<II", 14, 0) * 100),
            "expected at most 524288 cells and fields",
        ),
        (matrix("x", 1, (-1, 1)), r"expected a shape of two dims or more, got \(-1, 1\)"),
        (matrix("x", 4, (), element(4, b"")), r"expected a shape of two dims or more, got \(\)"),
        (matrix("x", 6, (1 << 26, 1), element(2, bytes(8))), "expected at most 268435456 bytes, got 67108864 values"),
        (matrix("x", 4, (1 << 30, 1), element(1, b"")), "expected at most 268435456 bytes, got 1073741824 values"),
        (matrix("x", 2, (1 << 26, 1), element(5, b"\x20\0\0\0"), element(1, b"a")), "expected at most 268435456 bytes"),
        (matrix("x", 2, (1, 1), element(5, bytes(4)), element(1, bytes(64))), "ZeroDivisionError"),
        (matrix("x", 2, (1, 1), element(5, b"\x01\0\0\0"), element(1, b"a" * 5000)), "expected at most 4096 fields"),
        (matrix("x", 1, (1, 1), element(9, bytes(8))), "expected a matrix at byte .*, got an element of type 9"),
        (matrix("x", 99, (1, 1), element(9, bytes(8))), "cannot be read"),
        (matrix("x", 6, (2, 3), element(9, bytes(8))), "cannot be read"),
        (matrix("x", 6, (1, 1), element(77, bytes(8))), "expected data at byte .*, got an element of type 77"),
        (matrix("x", 6, (1,) * 40, element(9, bytes(8))), "cannot be read"),
    ],
)
def test_mat_files_that_lie_are_refused(tmp_path: Path, variable: bytes, message: str) -> None:
    for compressed in (False, True):
        path = mat5(tmp_path / "a.mat", variable, compressed=compressed)
        assert peak_of(lambda path=path: _mat.mat(path, ["x"]), rf"a\.mat: x: .*{message}") < 8 << 20


def test_fields_of_structs_are_read_by_name(tmp_path: Path) -> None:
    stim = _mat.mat(mat_file(tmp_path / "a.mat", CONTENT), ["stim", "many", "resp"])
    assert _mat.struct_field("f", stim["stim"], "istim").tolist() == [[0, 1, 2, 3, 4]]
    deep = _mat.struct_field("f", stim["stim"], "deep")
    assert _mat.struct_field("f", deep, "er").tolist() == [[1 + 2j]]
    with pytest.raises(CorruptDataError, match=r"f: resp: expected a field of this name, got fields \['istim', 'deep'"):
        _mat.struct_field("f", stim["stim"], "resp")
    with pytest.raises(CorruptDataError, match=r"f: x: expected a struct of size 1 × 1, got shape \(1, 2\)"):
        _mat.struct_field("f", stim["many"], "x")
    with pytest.raises(CorruptDataError, match=r"f: x: expected a field of this name, got fields \[\]"):
        _mat.struct_field("f", stim["resp"], "x")
