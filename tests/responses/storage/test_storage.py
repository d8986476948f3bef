"""Responses come back from Zarr as they were; hostile, broken and half-written stores are refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from neurovar import responses
from neurovar.responses.storage import _chunks, _form

NEW_XARRAY = hasattr(xr.DataArray, "drop_indexes")


def recording(shape: tuple[int, ...] = (6, 3, 4), dtype: str = "float64") -> xr.DataArray:
    """Responses with an absent trial, one coordinate of each kind, and one attribute of each type."""
    rng = np.random.default_rng(0)
    values = rng.poisson(2, shape).astype(dtype)
    if values.dtype.kind == "f":
        values[1, 2] = np.nan
        values[0, 0, 0] = -0.0
    n_stimuli, n_repeats, n_units = shape[:3]
    time = {"time": np.linspace(0, 0.1, shape[3])} if len(shape) == 4 else {}
    return xr.DataArray(
        values,
        dims=responses.TIME_DIMS[: len(shape)],
        coords={
            "stimulus": [f"bild_{i} ä" for i in range(n_stimuli)],
            "unit": np.arange(n_units, dtype=np.int32),
            **time,
            "area": ("unit", ["V1", "V4", "", "IT"][:n_units]),
            "good": ("unit", [True, False, True, True][:n_units]),
            "depth": ("unit", [1.5, np.nan, -np.inf, 0.0][:n_units], {"units": "µm", "scale_factor": 2}),
            "old": ("unit", np.arange(n_units, dtype=">f4")),
            "code": ("unit", np.array([b"a", b"bc", b"", b"d"][:n_units])),
            "label": ("unit", np.array(["x", "longer", "", "y"][:n_units], dtype=object)),
            "shown": ("stimulus", np.arange(n_stimuli).astype("M8[D]").astype("M8[ns]")),
            "took": ("stimulus", np.arange(n_stimuli).astype("m8[s]").astype("m8[ns]")),
            "presentation": (("repeat", "stimulus"), np.arange(n_stimuli * n_repeats).reshape(n_repeats, n_stimuli)),
            "subject": "M1",
            "weight": np.float32(3.5),
        },
        name="V4 counts",
        attrs={
            "units": "spike count",
            "n": 3,
            "huge": 2**80,
            "ratio": 0.1,
            "nan": float("nan"),
            "inf": -float("inf"),
            "ok": True,
            "nothing": None,
            "_FillValue": 3,
            "coordinates": "none",
            "list": [1, "a", [None, (2.5, False)]],
            "window": (0.05, 0.25),
            "nested": {"tuple": [1], "array": (1,), "": {}},
            "scalar": np.float32(0.1),
            "integer": np.int64(7),
            "text": np.str_("hi"),
            "table": np.arange(6, dtype=np.int16).reshape(2, 3),
            "empty": np.zeros((0, 2)),
            "texts": np.array(["a", "bcd"]),
        },
    )


def same_value(a: Any, b: Any) -> bool:
    """Equality of attributes that also compares types, and takes NaN for equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_value(a[key], b[key]) for key in a)
    return a == b or (a != a and b != b)


def assert_same(got: xr.DataArray, wanted: xr.DataArray) -> None:
    assert (got.name, got.dims, got.dtype, got.shape) == (wanted.name, wanted.dims, wanted.dtype, wanted.shape)
    assert got.values.tobytes() == wanted.values.tobytes()
    assert list(got.coords) == list(wanted.coords)
    assert set(got.indexes) == set(wanted.indexes)
    assert same_value(dict(got.attrs), dict(wanted.attrs))
    for name in wanted.coords:
        a, b = got.coords[name], wanted.coords[name]
        assert (a.dims, a.dtype) == (b.dims, b.dtype), name
        assert a.values.tolist() == b.values.tolist() or a.values.tobytes() == b.values.tobytes(), name
        assert same_value(dict(a.attrs), dict(b.attrs)), name


def stored(folder: Path, da: xr.DataArray | None = None, **options: Any) -> Path:
    path = folder / "recording.zarr"
    responses.save(recording() if da is None else da, path, **options)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "int16", "uint8"])
def test_every_dtype_comes_back(tmp_path: Path, dtype: str) -> None:
    da = recording(dtype=dtype)
    assert_same(responses.open_zarr(stored(tmp_path, da)), da)


@pytest.mark.parametrize("shape", [(6, 3, 4), (6, 3, 4, 5), (2, 3, 1)])
@pytest.mark.parametrize("chunk_bytes", [8, 100, 1000, responses.CHUNK_BYTES])
def test_every_shape_comes_back_from_chunks_of_any_size(
    tmp_path: Path, shape: tuple[int, ...], chunk_bytes: int
) -> None:
    da = recording(shape)
    assert_same(responses.open_zarr(stored(tmp_path, da, chunk_bytes=chunk_bytes)), da)


@pytest.mark.parametrize("name", [None, "responses", "area of interest", ""])
def test_any_name_comes_back(tmp_path: Path, name: str | None) -> None:
    assert responses.open_zarr(stored(tmp_path, recording().rename(name))).name == name


def test_the_bits_of_nan_come_back(tmp_path: Path) -> None:
    da = recording()
    da.values[1, 2] = np.array([0x7FF800000000BEEF, 0xFFF8000000000001] * 2, dtype=np.uint64).view(float)
    assert_same(responses.open_zarr(stored(tmp_path, da)), da)


def test_chunks_of_zeros_or_nan_only_are_written(tmp_path: Path) -> None:
    da = recording()
    da.values[:] = np.nan
    da.values[0] = 0
    path = stored(tmp_path, da, chunk_bytes=3 * 4 * 8)
    assert len([p for p in (path / "responses").iterdir() if p.name[0] != "."]) == 6
    assert_same(responses.open_zarr(path), da)


@pytest.mark.skipif(
    not NEW_XARRAY, reason="this xarray makes an index of each coordinate named as its dim, and no other"
)
def test_indexes_come_back_as_they_were(tmp_path: Path) -> None:
    da = recording().drop_indexes("unit").set_xindex("label")
    got = responses.open_zarr(stored(tmp_path, da))
    assert_same(got, da)
    assert "unit" not in got.indexes
    assert got.sel(label="longer").area.item() == "V4"


def test_xarray_itself_reads_a_store(tmp_path: Path) -> None:
    da = recording()
    dataset = xr.open_zarr(str(stored(tmp_path, da)))
    np.testing.assert_array_equal(dataset.responses.values, da.values)
    assert dataset.responses.dims == da.dims
    assert dataset.responses.attrs["units"] == "spike count"
    assert dataset.stimulus.values.tolist() == da.stimulus.values.tolist()
    assert dataset.area.values.tolist() == da.area.values.tolist()
    assert dataset.good.values.tolist() == [True, False, True, True]


def test_chunks_are_of_whole_stimuli_and_read_when_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    da = recording((6, 3, 4, 5), "float32")
    path = stored(tmp_path, da, chunk_bytes=2 * 3 * 4 * 5 * 4)
    read, chunk = [], _chunks.Stored.chunk

    def recorded(self: Any, block_id: tuple[int, ...]) -> np.ndarray:
        read.append((self.name, block_id))
        return chunk(self, block_id)

    monkeypatch.setattr(_chunks.Stored, "chunk", recorded)
    opened = responses.open_zarr(path)
    assert opened.chunks == ((2, 2, 2), (3,), (4,), (5,))
    assert "responses" not in dict(read)
    read.clear()
    np.testing.assert_array_equal(opened.isel(stimulus=3).values, da.isel(stimulus=3).values)
    assert read == [("responses", (1, 0, 0, 0))]


def test_what_is_computed_can_be_changed(tmp_path: Path) -> None:
    computed = responses.open_zarr(stored(tmp_path)).compute()
    computed.values[0] = 7
    assert (computed[0] == 7).all()


def test_lazy_responses_are_written_chunk_by_chunk(tmp_path: Path) -> None:
    import dask.array  # old xarray must be imported before it

    block = np.arange(50 * 1000, dtype=np.float64).reshape(1, 50, 1000)
    made = []

    def make(block_id: tuple[int, ...]) -> np.ndarray:
        made.append(block_id[0])
        return block + block_id[0]

    n_stimuli = 200
    values = dask.array.map_blocks(make, chunks=((1,) * n_stimuli, 50, 1000), dtype=float, meta=block[:0])
    lazy = xr.DataArray(values, dims=responses.DIMS, coords={"stimulus": np.arange(n_stimuli)})
    tracemalloc.start()
    with dask.config.set(scheduler="synchronous"):
        path = stored(tmp_path, lazy, chunk_bytes=4 * block.nbytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sorted(made) == list(range(n_stimuli))
    assert peak < lazy.nbytes / 3, f"{peak} of {lazy.nbytes} bytes"
    opened = responses.open_zarr(path)
    assert opened.data.chunks[0] == (4,) * 50
    np.testing.assert_array_equal(
        opened.isel(stimulus=[0, 77, 199]).values, block + np.array([0, 77, 199])[:, None, None]
    )


def with_coord(name: Any, values: Any) -> xr.DataArray:
    return recording().assign_coords({name: ("unit", values)})


REFUSED = {
    "dims": (lambda: recording().transpose("unit", "repeat", "stimulus"), r"expected dims \('stimulus'"),
    "complex": (lambda: recording().astype(complex), "expected real numbers, got dtype complex128"),
    "long": (lambda: recording().astype(np.longdouble), "at most 8 bytes, got dtype"),
    "name": (lambda: recording().rename(3), "expected a name that is text, got 3"),
    "objects": (lambda: with_coord("x", np.array(["a", None, 1.0, "b"], dtype=object)), r"NoneType.*float.*str"),
    "nul": (lambda: with_coord("x", np.array(["a\0", "b", "c", "d"], dtype=object)), "coordinate 'x' of numbers"),
    "complex coordinate": (lambda: with_coord("x", np.ones(4, complex)), "coordinate 'x' of numbers.*complex128"),
    "long coordinate": (lambda: with_coord("x", np.ones(4, np.longdouble)), "coordinate 'x' of numbers"),
    "records": (lambda: with_coord("x", np.zeros(4, dtype="i4,f8")), "coordinate 'x' of numbers"),
    "slash": (lambda: with_coord("a/b", np.ones(4)), "names of coordinates of letters.*'a/b'"),
    "dots": (lambda: with_coord("..", np.ones(4)), r"names of coordinates.*'\.\.'"),
    "number": (lambda: with_coord(3, np.ones(4)), "names of coordinates.*got 3"),
    "taken": (lambda: with_coord("responses", np.ones(4)), "not 'responses', got 'responses'"),
    "case": (lambda: with_coord("AREA", np.ones(4)), "differ by more than case"),
    "object attribute": (lambda: recording().assign_attrs(a=object()), "attribute 'a' of the responses to be text"),
    "bytes attribute": (lambda: recording().assign_attrs(a=[b"x"]), "attribute 'a' of the responses to be text"),
    "key": (lambda: recording().assign_attrs({3: "a"}), "names of attributes of the responses that are text, got 3"),
    "keys": (lambda: recording().assign_attrs(a={3: "a"}), "attribute 'a' of the responses to be text"),
    "long attribute": (lambda: recording().assign_attrs(a="x" * 5_000_000), "attributes of at most 4194304 bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_stored_is_refused_and_nothing_written(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        stored(tmp_path, make())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:the `pandas.MultiIndex`")
def test_a_multiindex_is_refused(tmp_path: Path) -> None:
    index = pd.MultiIndex.from_arrays([list("abcdef"), range(6)], names=["image", "size"])
    da = recording().drop_vars("stimulus")
    with pytest.raises(ValueError, match=r"got a MultiIndex of 'stimulus': reset_index\('stimulus'\) first"):
        stored(tmp_path, da.assign_coords(stimulus=index))
    assert list(tmp_path.iterdir()) == []


def test_coordinates_too_large_to_be_read_at_once_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_form, "MAX_COORD_BYTES", 100)
    with pytest.raises(ValueError, match="coordinates of at most 100 bytes in all, got"):
        stored(tmp_path)
    monkeypatch.setattr(_form, "MAX_LENGTH", 5)
    with pytest.raises(ValueError, match="of a length of at most 5, got 6"):
        stored(tmp_path)


@pytest.mark.parametrize("chunk_bytes", [0, -1, 1 << 40])
def test_chunks_have_a_size_that_can_be_read(tmp_path: Path, chunk_bytes: int) -> None:
    with pytest.raises(ValueError, match="expected chunk_bytes from 1 to 268435456, got"):
        stored(tmp_path, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    path = tmp_path / "recording.zarr"
    {"file": lambda: path.write_text("mine"), "folder": path.mkdir, "link": lambda: path.symlink_to("nowhere")}[there]()
    with pytest.raises(ValueError, match=r"recording\.zarr: expected a path where nothing is yet"):
        stored(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_to_write_into_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected an existing folder to write into, got"):
        stored(tmp_path / "nowhere")


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("no more")

    lazy = recording().chunk({"stimulus": 2})
    lazy = lazy.copy(data=lazy.data.map_blocks(fail, dtype=float, meta=np.empty((0, 0, 0))))
    with pytest.raises(RuntimeError, match="no more"):
        stored(tmp_path, lazy)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
import numpy as np, xarray as xr
import dask, dask.array as da
from neurovar import responses
def make(block_id):
    if block_id[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.ones((1, 1, 2))
values = da.map_blocks(make, chunks=((1,) * 5, 1, 2), dtype=float, meta=np.ones((0, 0, 0)))
lazy = xr.DataArray(values, dims=responses.DIMS, coords={"stimulus": np.arange(5)})
with dask.config.set(scheduler="synchronous"):
    responses.save(lazy, sys.argv[1], chunk_bytes=16)
"""


def test_a_killed_writer_leaves_no_store_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "recording.zarr"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not path.exists()
    (left,) = tmp_path.iterdir()
    with pytest.raises(ValueError, match=r"\.partial: responses: expected 5 chunks, found . files"):
        responses.open_zarr(left)
    responses.save(recording(), path)
    assert_same(responses.open_zarr(path), recording())


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "gone"}))


def edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads(json.loads((path / ".zattrs").read_text())["neurovar"])
    edit(path / ".zattrs", neurovar=json.dumps(manifest | changes))


def edit_coord(path: Path, name: str, **changes: Any) -> None:
    coords = json.loads(json.loads((path / ".zattrs").read_text())["neurovar"])["coords"]
    edit_manifest(path, coords=coords | {name: coords[name] | changes})


def linked(path: Path) -> None:
    path.rename(path.parent.parent.parent / "outside")
    path.symlink_to(path.parent.parent.parent / "outside")


FLETCHER = {"id": "fletcher32"}
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pickles": (
        lambda p: edit(p / "label/.zarray", dtype="|O", filters=[{"id": "pickle", "protocol": 5}]),
        "label/.zarray",
    ),
    "objects": (lambda p: edit(p / "label/.zarray", dtype="|O"), "label/.zarray: expected a dtype of numbers"),
    "vlen": (lambda p: edit(p / "label/.zarray", filters=[{"id": "vlen-utf8"}]), "label/.zarray: expected"),
    "filter": (lambda p: edit(p / "responses/.zarray", filters=[FLETCHER]), "responses/.zarray: expected .*fletcher32"),
    "compressor": (lambda p: edit(p / "responses/.zarray", compressor={"id": "blosc"}), "responses/.zarray: .*blosc"),
    "no compressor": (lambda p: edit(p / "depth/.zarray", compressor=None), "depth/0: "),
    "order": (lambda p: edit(p / "responses/.zarray", order="F"), "responses/.zarray: expected.*'F'"),
    "separator": (
        lambda p: edit(p / "responses/.zarray", dimension_separator="/"),
        "expected .*'dimension_separator': '/'",
    ),
    "format": (lambda p: edit(p / "responses/.zarray", zarr_format=3), "responses/.zarray: expected"),
    "no shape": (lambda p: edit(p / "responses/.zarray", shape="gone"), "responses/.zarray: cannot be read .KeyError"),
    "shape of text": (lambda p: edit(p / "responses/.zarray", shape="abc"), "responses/.zarray: expected a list"),
    "shape of floats": (lambda p: edit(p / "responses/.zarray", shape=[6.0, 3, 4]), "expected a list of whole numbers"),
    "shape of 0": (lambda p: edit(p / "responses/.zarray", shape=[0, 3, 4]), "expected a list of whole numbers"),
    "negative": (lambda p: edit(p / "responses/.zarray", shape=[-6, 3, 4]), "expected a list of whole numbers"),
    "huge shape": (
        lambda p: edit(p / "responses/.zarray", shape=[10**18, 3, 4]),
        "responses: expected 5.* chunks, found 3 files",
    ),
    "huge chunks": (
        lambda p: edit(p / "responses/.zarray", shape=[10**18, 3, 4], chunks=[10**18, 3, 4]),
        "responses/.zarray: expected chunks of at most 268435456 bytes",
    ),
    "chunks beyond": (lambda p: edit(p / "responses/.zarray", chunks=[60, 3, 4]), "expected chunks within the shape"),
    "chunks of 0": (lambda p: edit(p / "responses/.zarray", chunks=[0, 3, 4]), "expected a list of whole numbers"),
    "wide": (lambda p: edit(p / "area/.zarray", dtype="<U99999999"), "area/.zarray: expected chunks of at most"),
    "dtype": (lambda p: edit(p / "area/.zarray", dtype="(2,)f8"), "area/.zarray: expected a dtype of numbers"),
    "dtype of nothing": (lambda p: edit(p / "area/.zarray", dtype="<U0"), "area/.zarray: expected a dtype"),
    "no dtype": (lambda p: edit(p / "area/.zarray", dtype=[["a", "<f8"]]), "area/.zarray: "),
    "another dtype": (lambda p: edit(p / "area/.zarray", dtype="<U1"), "area/0: expected 16 bytes packed by zlib"),
    "list": (lambda p: (p / "area/.zarray").write_text("[]"), "area/.zarray: expected a JSON object, got list"),
    "no JSON": (lambda p: (p / "area/.zarray").write_text("{"), "area/.zarray: "),
    "deep JSON": (lambda p: (p / "area/.zarray").write_text("[" * 10**6), "area/.zarray: cannot be read .Recursion"),
    "long JSON": (
        lambda p: (p / "area/.zarray").write_text(" " * (1 << 25)),
        "area/.zarray: expected at most 16777216",
    ),
    "bytes": (lambda p: (p / "area/.zarray").write_bytes(b"\xff\xfe\xfd"), "area/.zarray: "),
    "no dims": (lambda p: edit(p / "area/.zattrs", _ARRAY_DIMENSIONS="gone"), "area/.zattrs: cannot be read .KeyError"),
    "more dims": (
        lambda p: edit(p / "area/.zattrs", _ARRAY_DIMENSIONS=["unit"] * 2),
        "area/.zattrs: expected a dim for",
    ),
    "other dims": (lambda p: edit(p / "area/.zattrs", _ARRAY_DIMENSIONS=["stimulus"]), "responses: .*stimulus"),
    "list as dim": (lambda p: edit(p / "area/.zattrs", _ARRAY_DIMENSIONS=[["unit"]]), "area/.zattrs: cannot be read"),
    "convention": (
        lambda p: edit(p / "responses/.zattrs", _ARRAY_DIMENSIONS=["stimulus", "unit", "x"]),
        "responses: ",
    ),
    "no manifest": (lambda p: edit(p / ".zattrs", neurovar="gone"), r"\.zattrs: cannot be read .KeyError"),
    "version": (lambda p: edit_manifest(p, version=2), r"\.zattrs: expected a store of neurovar's version 1, got 2"),
    "path as coordinate": (lambda p: edit_manifest(p, coords={"../x": {}}), r"\.zattrs: expected names of coordinates"),
    "long coordinate": (lambda p: edit_manifest(p, coords={"x" * 99: {}}), r"\.zattrs: expected names of coordinates"),
    "unknown coordinate": (
        lambda p: edit_manifest(p, coords={"x": {"dtype": "<f8"}}),
        "x: expected a folder, found none",
    ),
    "coordinates as list": (lambda p: edit_manifest(p, coords=["area"]), r"\.zattrs: cannot be read"),
    "name": (lambda p: edit_manifest(p, name=[]), r"responses: expected a name that is text, got \[\]"),
    "attrs": (lambda p: edit_manifest(p, attrs=[]), "responses: cannot be read"),
    "attribute": (lambda p: edit_manifest(p, attrs={"a": {"x": 1}}), "responses: cannot be read .KeyError"),
    "wide attribute": (
        lambda p: edit_manifest(p, attrs={"a": {"array": ["a"] * 9, "dtype": "<U999999", "shape": [9]}}),
        "responses: expected an attribute of small numbers or text",
    ),
    "object attribute": (
        lambda p: edit_manifest(p, attrs={"a": {"array": [None], "dtype": "O", "shape": [1]}}),
        "responses: expected an attribute of small numbers or text",
    ),
    "kept as another": (lambda p: edit_coord(p, "area", dtype="<f8"), "area: expected values of float64, got others"),
    "kept as pickles": (lambda p: edit_coord(p, "depth", dtype="|O"), "depth: expected values of object, got others"),
    "kept as truth": (lambda p: edit_coord(p, "old", dtype="|b1"), "old: expected values of bool, got others"),
    "no file": (lambda p: (p / "area/.zarray").unlink(), "area/.zarray: expected a file, found none"),
    "no folder": (lambda p: shutil.rmtree(p / "area"), "area: expected a folder, found none"),
    "missing chunk": (lambda p: (p / "responses/2.0.0").unlink(), r"responses: expected 3 chunks, found 2 files"),
    "renamed chunk": (
        lambda p: (p / "responses/2.0.0").rename(p / "responses/9"),
        "expected a file 2.0.0 of at most .* got none",
    ),
    "linked chunk": (lambda p: linked(p / "responses/2.0.0"), "found 2 files .links are not followed"),
    "linked JSON": (lambda p: linked(p / "area/.zarray"), "area/.zarray: expected a file, found none .links"),
    "linked folder": (
        lambda p: ((p / "area").rename(p.parent / "o"), (p / "area").symlink_to(p.parent / "o")),
        "area: expected a folder, found none .links",
    ),
    "pipe": (lambda p: ((p / "area/0").unlink(), os.mkfifo(p / "area/0")), "area: expected 1 chunks, found 0 files"),
    "piped JSON": (lambda p: ((p / ".zattrs").unlink(), os.mkfifo(p / ".zattrs")), r"\.zattrs: expected a file"),
    "long chunk": (
        lambda p: (p / "area/0").write_bytes(b"x" * 5000),
        "area: expected a file 0 of at most .* bytes, got 5000",
    ),
    "no character": (
        lambda p: (p / "area/0").write_bytes(zlib.compress(np.full(8, 2**31, np.uint32).tobytes())),
        "area: expected text, got what is no character",
    ),
    "truth of 7": (lambda p: (p / "good/0").write_bytes(zlib.compress(b"\7" * 4)), "good: expected values of bool"),
    "repeated ids": (
        lambda p: (p / "stimulus/0").write_bytes(zlib.compress(np.full(6, "bild_1 ä").tobytes())),
        "responses: expected unique stimulus ids",
    ),
    "a folder for a chunk": (lambda p: ((p / "area/0").unlink(), (p / "area/0").mkdir()), "area: expected 1 chunks"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_stores_are_refused_with_path_and_field(tmp_path: Path, case: str) -> None:
    path = stored(tmp_path, chunk_bytes=2 * 3 * 4 * 8)
    change, message = HOSTILE[case]
    change(path)
    with pytest.raises(ValueError, match=message) as raised:
        responses.open_zarr(path)
    assert str(raised.value).startswith(str(path))


CORRUPT: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda raw: raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:],
    "truncated": lambda raw: raw[:-1],
    "empty": lambda raw: b"",
    "shorter": lambda raw: zlib.compress(zlib.decompress(raw)[:-1]),
    "longer": lambda raw: zlib.compress(zlib.decompress(raw) + b"\0"),
    "bomb": lambda raw: zlib.compress(bytes(1 << 20), 9),
    "raw": zlib.decompress,
}


@pytest.mark.parametrize("case", CORRUPT)
def test_corrupt_chunks_are_refused_when_computed(tmp_path: Path, case: str) -> None:
    path = stored(tmp_path, chunk_bytes=2 * 3 * 4 * 8)
    chunk = path / "responses/1.0.0"
    chunk.write_bytes(CORRUPT[case](chunk.read_bytes()))
    opened = responses.open_zarr(path)
    assert np.isfinite(opened.isel(stimulus=0).values).all()
    with pytest.raises(ValueError, match=r"recording\.zarr: responses/1\.0\.0: "):
        opened.compute()


@pytest.mark.parametrize("path", ["nowhere.zarr", "file.zarr"])
def test_what_is_no_store_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file.zarr").write_text("{}")
    with pytest.raises(ValueError, match=r"\.zarr: expected a Zarr store .a folder., found none"):
        responses.open_zarr(tmp_path / path)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_store_of_something_else_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "other.zarr")
    xr.Dataset({"responses": ("x", np.ones(3))}).to_zarr(path)
    with pytest.raises(ValueError, match=r"other\.zarr: "):
        responses.open_zarr(path)


def test_a_recording_from_which_a_bomb_would_unpack_is_read_by_chunks(tmp_path: Path) -> None:
    """A coordinate of zeros, packed a thousandfold, is not unpacked beyond the limit."""
    path = stored(tmp_path)
    n = 1 << 23
    (path / "presentation/0.0").write_bytes(zlib.compress(bytes(8 * n)))
    edit(path / "presentation/.zarray", shape=[n, 1], chunks=[n, 1])
    tracemalloc.start()
    with pytest.raises(ValueError, match="coordinates: expected coordinates of a length of at most 4194304"):
        responses.open_zarr(path)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def mutate(path: Path, rng: np.random.Generator) -> None:
    """Flip, cut, insert or repeat bytes of one file of a store, or take the file out."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = files[rng.integers(len(files))]
    raw = bytearray(file.read_bytes())
    at = int(rng.integers(len(raw) + 1))
    match rng.integers(5):
        case 0 if raw:
            raw[at - 1] ^= 1 << int(rng.integers(8))
        case 1:
            del raw[at:]
        case 2:
            raw[at:at] = bytes(rng.choice(list(b'0123456789"[]{},-e.'), int(rng.integers(1, 6))).astype(np.uint8))
        case 3:
            raw[at:at] = raw[: int(rng.integers(len(raw) + 1))]
        case _:
            del raw[at : at + int(rng.integers(1, 9))]
    file.write_bytes(raw)


def test_mutated_stores_open_or_are_refused(tmp_path: Path) -> None:
    original = stored(tmp_path, chunk_bytes=2 * 3 * 4 * 8)
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(150):
        path = tmp_path / f"{number}.zarr"
        shutil.copytree(original, path)
        mutate(path, rng)
        try:
            opened = responses.open_zarr(path)
            responses.validate(opened.compute())
        except ValueError as error:
            refused += 1
            assert str(error).startswith((f"{path}: ", "expected")), error
    assert 50 < refused < 150
