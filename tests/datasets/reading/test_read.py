"""Values, .npy and zip files that nobody vouches for end in an array or an error that names file and field."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from memory import peak_of
from neurovar_datasets import CorruptDataError
from neurovar_datasets._reading import archives as _archives
from neurovar_datasets._reading import refusals as _refusals
from servers import put

COUNTS = np.arange(24.0).reshape(2, 3, 4)


class Evil:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def npy_bytes(array: np.ndarray, **header: object) -> bytes:
    """A .npy file, whose header can lie."""
    stream = io.BytesIO()
    if not header:
        np.save(stream, array, allow_pickle=array.dtype == object)
        return stream.getvalue()
    true = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(stream, true | header)
    return stream.getvalue() + array.tobytes()


def zip_file(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# Values


def test_any_failure_of_a_parser_names_file_and_field() -> None:
    with (
        pytest.raises(
            CorruptDataError, match=r"^a\.mat: resp: cannot be read \(ZeroDivisionError: division by zero\)$"
        ),
        _refusals.reading("a.mat", "resp"),
    ):
        _ = 1 / 0
    with pytest.raises(CorruptDataError, match=r"^as it was$"), _refusals.reading("a.mat", "resp"):
        raise CorruptDataError("as it was")
    with pytest.raises(CorruptDataError) as caught, _refusals.reading("a.mat"):
        raise ValueError("x" * 10_000)
    assert len(str(caught.value)) < 1000
    with pytest.raises(KeyboardInterrupt), _refusals.reading("a.mat"):
        raise KeyboardInterrupt


def test_what_is_expected_is_said() -> None:
    _refusals.expect(True, "a.mat", "resp", "x", "y")
    with pytest.raises(CorruptDataError, match=r"^a\.mat: resp: expected x, got y$"):
        _refusals.expect(np.bool_(False), "a.mat", "resp", "x", "y")


def test_numbers_are_real(tmp_path: Path) -> None:
    for values in ([[1, 2]], np.ones((1, 2), np.float32), [[True, False]]):
        np.testing.assert_array_equal(_refusals.numbers("f", "x", values, ndim=2), values)
    for values in (["a"], [1j], [None], np.array([1], "M8[s]"), [b"a"], np.zeros(2, "i4,f8")):
        with pytest.raises(CorruptDataError, match=r"^f: x: expected real numbers, got dtype"):
            _refusals.numbers("f", "x", values)
    with pytest.raises(CorruptDataError, match=r"f: x: expected 2 dims, got shape \(3,\)"):
        _refusals.numbers("f", "x", [1, 2, 3], ndim=2)
    with pytest.raises(CorruptDataError, match=r"f: x: cannot be read \(ValueError"):
        _refusals.numbers("f", "x", [[1], [2, 3]])


def test_integers_are_whole() -> None:
    ids = _refusals.integers("f", "x", np.array([[3.0, -4.0]]))
    assert (ids.dtype, ids.tolist()) == (np.int64, [3, -4])
    assert _refusals.integers("f", "x", np.array([2**63 - 1], np.uint64)).tolist() == [2**63 - 1]
    assert _refusals.integers("f", "x", [np.iinfo(np.int64).min]).tolist() == [-(2**63)]
    for values in ([1.5], [np.nan], [np.inf], [1e300]):
        with pytest.raises(CorruptDataError, match="f: x: expected whole numbers, got fractions, NaN or infinity"):
            _refusals.integers("f", "x", values)
    with pytest.raises(CorruptDataError, match=f"f: x: expected integers up to {2**63 - 1}, got larger ones"):
        _refusals.integers("f", "x", np.array([1, 2**63], np.uint64))


def test_counts_are_whole_and_not_negative() -> None:
    for values in ([0, 3], [0.0, np.nan, 2.0], np.array([7], np.uint8), [True]):
        np.testing.assert_array_equal(_refusals.counts("f", "x", values, ndim=1), values)
    wrong = {"whole spike counts, got fractions": 0.5, "finite spike counts, got infinity": np.inf}
    for message, value in (wrong | {"spike counts of 0 or more, got 2 negative ones": -1.0}).items():
        with pytest.raises(CorruptDataError, match=f"f: x: expected {message}"):
            _refusals.counts("f", "x", [value, 1, value])
    with pytest.raises(CorruptDataError, match="f: x: expected spike counts of 0 or more, got 1 negative ones"):
        _refusals.counts("f", "x", [-1])
    with pytest.raises(CorruptDataError, match="1 dims"):
        _refusals.counts("f", "x", [[1]], ndim=1)


def test_times_never_decrease() -> None:
    times = _refusals.increasing_times("f", "x", np.array([[0, 1, 1, 4]], np.int16))
    assert (times.dtype, times.tolist()) == (np.float64, [0, 1, 1, 4])
    assert _refusals.increasing_times("f", "x", []).tolist() == []
    with pytest.raises(CorruptDataError, match="f: x: expected times that never decrease, got times out of order"):
        _refusals.increasing_times("f", "x", [0.0, 2.0, 1.0])
    for value in (np.nan, np.inf):
        with pytest.raises(CorruptDataError, match="f: x: expected finite times, got NaN or infinity"):
            _refusals.increasing_times("f", "x", [0.0, value])


def test_ids_are_unique() -> None:
    assert _refusals.unique("f", "x", ["b", "a"]).tolist() == ["b", "a"]
    with pytest.raises(CorruptDataError, match="f: x: expected unique ids, got 2 repeated ones"):
        _refusals.unique("f", "x", [1, 2, 2, 3, 3, 3])
    with pytest.raises(CorruptDataError, match=r"f: x: cannot be read \(TypeError"):
        _refusals.unique("f", "x", np.array([1, "a", None], dtype=object))


def test_responses_outside_of_the_convention_name_the_file() -> None:
    good = xr.DataArray(np.ones((1, 2, 1)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a"]})
    assert _refusals.checked("f", good) is good
    timed = good.expand_dims(time=[0.0], axis=-1)
    assert _refusals.checked("f", timed) is timed
    with pytest.raises(CorruptDataError, match=r"^f: responses: expected dims"):
        _refusals.checked("f", good.rename(unit="neuron"))


# .npy


@pytest.mark.parametrize(
    "array", [COUNTS, np.asfortranarray(COUNTS), COUNTS.astype(">i2"), np.array(3.0), np.ones((0, 3))]
)
def test_npy_files_are_read(tmp_path: Path, array: np.ndarray) -> None:
    path = put(tmp_path / "a.npy", npy_bytes(array))
    for lazy in (False, True):
        np.testing.assert_array_equal(_archives.npy(path, lazy=lazy), array)
    assert isinstance(_archives.npy(path, lazy=True), np.memmap)
    assert not isinstance(_archives.npy(path), np.memmap)
    members = zip_file(tmp_path / "a.npz", {"a.npy": path.read_bytes()})
    np.testing.assert_array_equal(_archives.npz(members)["a"], array)


LYING = [
    npy_bytes(COUNTS, shape=(2, 3, 5)),
    npy_bytes(COUNTS, shape=(2**40,)),
    npy_bytes(COUNTS, shape=(2**32, 2**32)),
    npy_bytes(COUNTS, shape=(-1, 4)),
    npy_bytes(COUNTS, shape=(-2, -3, 4)),
    npy_bytes(COUNTS, shape="everything"),
    npy_bytes(COUNTS, descr="<f9"),
    npy_bytes(COUNTS, descr="|O"),
    npy_bytes(COUNTS, descr=[("a", "|O"), ("b", "<f8")]),
    npy_bytes(COUNTS, descr="|S0", shape=(2**28,)),
    npy_bytes(COUNTS, fortran_order="perhaps"),
    npy_bytes(COUNTS)[:-1],
    npy_bytes(COUNTS)[:20],
    b"\x93NUMPY\x09\x00" + npy_bytes(COUNTS)[8:],
    b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    b"",
]


@pytest.mark.parametrize("content", LYING)
@pytest.mark.parametrize("lazy", [False, True])
def test_npy_files_that_lie_are_refused(tmp_path: Path, content: bytes, lazy: bool) -> None:
    path = put(tmp_path / "a.npy", content)
    assert peak_of(lambda: _archives.npy(path, lazy=lazy), str(path)) < 10 << 20


@pytest.mark.parametrize("content", LYING)
def test_npz_members_that_lie_are_refused(tmp_path: Path, content: bytes) -> None:
    path = zip_file(tmp_path / "a.npz", {"counts.npy": content})
    with pytest.raises(CorruptDataError, match=rf"{path}: counts\.npy: "):
        _archives.npz(path)


@pytest.mark.parametrize("lazy", [False, True])
def test_pickles_are_not_loaded(tmp_path: Path, lazy: bool) -> None:
    evil = Evil(tmp_path / "trace")
    objects = put(tmp_path / "objects.npy", npy_bytes(np.array([evil], dtype=object)))
    plain = put(tmp_path / "plain.npy", pickle.dumps(evil))
    for path in (objects, plain):
        with pytest.raises(CorruptDataError, match=str(path)):
            _archives.npy(path, lazy=lazy)
        with pytest.raises(CorruptDataError, match=r"a\.npz: x\.npy: cannot be read"):
            _archives.npz(zip_file(tmp_path / "a.npz", {"x.npy": path.read_bytes()}))
    assert not evil.trace.exists()
    np.load(objects, allow_pickle=True)
    assert evil.trace.exists(), "the pickle would have worked"


# zip


def test_the_arrays_of_npz_files_are_read_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, counts=COUNTS, ids=np.array(["a", "b"]))
        assert _archives.npz(path).keys() == {"counts", "ids"}
        assert _archives.npz(path)["ids"].tolist() == ["a", "b"]
        assert _archives.npz(path, ["counts"]).keys() == {"counts"}
    with pytest.raises(
        CorruptDataError, match=r"a\.npz: spikes, times: expected an array of this name, got arrays \['c"
    ):
        _archives.npz(path, ["spikes", "counts", "times"])


@pytest.mark.parametrize("spoil", [lambda b: b"no zip", lambda b: b[:-30], lambda b: b"", lambda b: b[: len(b) // 2]])
def test_broken_zip_files_are_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = zip_file(tmp_path / "a.npz", {"x.npy": npy_bytes(COUNTS)})
    put(path, spoil(path.read_bytes()))
    with pytest.raises(CorruptDataError, match=rf"{path}: cannot be read \(BadZipFile"):
        _archives.npz(path)


def test_a_spoiled_zip_member_is_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.npz", {"x.npy": npy_bytes(COUNTS)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(COUNTS.tobytes()[8:16])] ^= 1
    put(path, content)
    with pytest.raises(CorruptDataError, match=r"x\.npy: cannot be read \(BadZipFile: Bad CRC"):
        _archives.npz(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refusals, "MIN_LIMIT", 1 << 20)
    bomb = npy_bytes(np.zeros(1 << 22))
    path = zip_file(tmp_path / "a.npz", {"x.npy": bomb})
    assert len(bomb) / path.stat().st_size > 900
    size = path.stat().st_size
    limit = max(1 << 20, 100 * size)
    peak = peak_of(
        lambda: _archives.npz(path), rf"a\.npz: x\.npy: expected members of at most {limit} bytes, got {len(bomb)}"
    )
    assert peak < 1 << 20


def test_many_members_together_are_a_bomb_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refusals, "MIN_LIMIT", 1 << 20)
    path = zip_file(tmp_path / "a.npz", {f"x{number}.npy": npy_bytes(np.zeros(1 << 15)) for number in range(20)})
    with pytest.raises(CorruptDataError, match=r"a\.npz: x\d+\.npy: expected members of at most \d+ bytes"):
        _archives.npz(path)


def test_a_member_that_declares_less_than_it_has_is_not_unpacked(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.npz", {"x.npy": npy_bytes(np.zeros(1 << 22))})
    put(path, path.read_bytes().replace(struct.pack("<I", 128 + (1 << 25)), struct.pack("<I", 1000)))
    assert peak_of(lambda: _archives.npz(path), r"x\.npy: cannot be read") < 4 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_zipfile_unpacks_without_limit_are_refused(tmp_path: Path, method: int) -> None:
    path = zip_file(tmp_path / "a.npz", {"x.npy": npy_bytes(COUNTS)}, method)
    with pytest.raises(CorruptDataError, match=rf"a\.npz: x\.npy: expected deflate, got method {method}"):
        _archives.npz(path)


def test_nothing_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members named to lie elsewhere, and a symbolic link, are arrays like others."""
    names = ["../outside", f"{tmp_path}/absolute", "a/../../up", "C:\\windows", "link"]
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    path = inside / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names[:-1]:
            archive.writestr(f"{name}.npy", npy_bytes(COUNTS))
        link = zipfile.ZipInfo("link.npy")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    for name in names[:-1]:
        np.testing.assert_array_equal(_archives.npz(path, [name])[name], COUNTS)
    with pytest.raises(CorruptDataError, match=r"a\.npz: link\.npy: cannot be read"):
        _archives.npz(path)
    assert sorted(tmp_path.rglob("*")) == [inside, path]
