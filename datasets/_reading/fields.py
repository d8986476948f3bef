"""Read the fields of a user's own file, NumPy, HDF5 or MATLAB: whole, or a few stimuli at a time."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.source import CorruptDataError
from neurovar_datasets._reading.archives import npy, npz
from neurovar_datasets._reading.hdf5 import is_hdf5, open_hdf5
from neurovar_datasets._reading.mat import mat, struct_field
from neurovar_datasets._reading.mat_cells import cell_texts, characters, dense, expect_plain, matlab_class
from neurovar_datasets._reading.refusals import expect, numbers, reading, size_limit

from neurovar import responses
from neurovar.responses import TIME_DIMS, arrange

NUMPY, HDF5, MATLAB = ".npy", (".h5", ".hdf5"), ".mat"


@dataclass(frozen=True)
class OnDisk:
    """An array of which some stimuli or presentations are read at a time; `shape` is in the order of the convention."""

    path: Path
    name: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def located(cls, path: Path, name: str, dims: tuple[str, ...]) -> "OnDisk":
        with _opened(path, name) as values:
            shape, dtype = values.shape[:: _step(path)], values.dtype
        _check_axes(path, name, dims, shape)
        expect(dtype.kind in "biuf", path, name or "values", "real numbers", f"dtype {dtype}")
        axes = _axes(dims)
        return cls(path, name, axes, tuple(shape[axis] for axis in axes), dtype)

    def rows(self, rows: slice | np.ndarray) -> np.ndarray:
        """Some stimuli or presentations, in the order of the convention; rows must increase."""
        index = [rows if axis == self.axes[0] else slice(None) for axis in range(len(self.axes))]
        step = _step(self.path)
        with _opened(self.path, self.name) as values, reading(self.path, self.name):
            read = np.array(values[tuple(index[::step])])
        return floats((read.T if step < 0 else read).transpose(self.axes))

    def lazy(self, order: np.ndarray | None = None) -> Any:
        """A dask array (stimulus, repeat, unit[, time]); `order` has the presentation of each (stimulus, repeat)."""
        import dask.array as da

        shape = self.shape if order is None else (*order.shape, *self.shape[1:])
        dtype = np.result_type(self.dtype, np.float32)
        step = max(1, responses.CHUNK_BYTES // (math.prod(shape[1:]) * dtype.itemsize))
        chunks = da.core.normalize_chunks((step, *shape[1:]), shape)
        meta = np.empty((0,) * len(shape), dtype=dtype)
        return da.map_blocks(self.block, order=order, step=step, chunks=chunks, dtype=dtype, meta=meta)

    def block(self, order: np.ndarray | None, step: int, block_id: tuple[int, ...]) -> np.ndarray:
        stimuli = slice(block_id[0] * step, (block_id[0] + 1) * step)
        if order is None:
            return self.rows(stimuli)
        rows, at = np.unique(order[stimuli], return_inverse=True)
        n_absent = int(rows[0] < 0)
        values = self.rows(rows[n_absent:])[at.reshape(order[stimuli].shape) - n_absent]
        values[order[stimuli] < 0] = np.nan
        return values

    def arranged(self, ids: np.ndarray) -> xr.DataArray:
        """As `presentations.arrange`, lazily."""
        placed = arrange(np.zeros((len(ids), 1)), ids)
        dims = TIME_DIMS[: len(self.shape) + 1]
        return xr.DataArray(self.lazy(placed["presentation"].values), dims=dims, coords=placed.coords)


def whole(path: Path, name: str, dims: tuple[str, ...]) -> np.ndarray:
    """The array in the order of the convention, first axis stimuli or presentations."""
    values = numbers(path, name or "values", field_of(path, name))
    if path.suffix.lower() == MATLAB:  # which keeps no axes of length 1 at the end
        values = values.reshape(values.shape + (1,) * (len(dims) - values.ndim))
    _check_axes(path, name, dims, values.shape)
    limit = size_limit(path.stat().st_size)
    expect(4 * values.size <= limit, path, name, f"at most {limit} bytes as float32", f"shape {values.shape}")
    return values.transpose(_axes(dims))


def _check_axes(path: Path, name: str, dims: tuple[str, ...], shape: tuple[int, ...]) -> None:
    fits = len(shape) == len(dims) and 0 not in shape
    expect(fits, path, name or "values", f"axes ({', '.join(dims)}), none of length 0", f"shape {shape}")


def _axes(dims: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(dims.index(dim) for dim in ("presentation", *TIME_DIMS) if dim in dims)


def floats(values: np.ndarray) -> np.ndarray:
    return values.astype(np.result_type(values.dtype, np.float32), copy=False)


def is_sliceable(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in (NUMPY, *HDF5) or (suffix == MATLAB and is_hdf5(path))


def _step(path: Path) -> int:
    """-1 where the file has the axes in reverse: MATLAB writes its arrays, whose first axis varies fastest, to HDF5."""
    return -1 if path.suffix.lower() == MATLAB else 1


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """What can be sliced: a memory map, or a dataset of HDF5."""
    if path.suffix.lower() == NUMPY:
        yield npy(path, lazy=True)
    else:
        with open_hdf5(path) as file:
            yield file.dataset(_hdf5_name(path, name))


def field_of(path: Path, name: str) -> np.ndarray:
    """The numbers or texts of a field."""
    suffix = path.suffix.lower()
    if suffix == NUMPY:
        values = _beside(path, name) if name else npy(path)
    elif suffix == ".npz":
        values = npz(path, [name])[name]
    elif suffix in HDF5 or is_hdf5(path):
        values = _from_hdf5(path, name)
    else:
        values = _from_mat(path, name)
    expect(values.dtype.kind in "biufUS", path, name or "values", "numbers or text", f"dtype {values.dtype}")
    with reading(path, name):
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _beside(path: Path, name: str) -> np.ndarray:
    """The array of another .npy file in the folder of `path`."""
    there = sorted(file.name for file in path.parent.glob("*.npy"))
    expect(name in there, path, name, "a .npy file beside it", f"{there[:20]}")
    try:
        return npy(path.parent / name)
    except CorruptDataError as error:
        raise CorruptDataError(f"{path}: {error}") from error


def _hdf5_name(path: Path, name: str) -> str:
    return name.replace(".", "/") if path.suffix.lower() == MATLAB else name


def _from_hdf5(path: Path, name: str) -> np.ndarray:
    at = _hdf5_name(path, name)
    with open_hdf5(path) as file, reading(path, name):
        item = file.item_at(at)
        of_matlab = matlab_class(item)
        expect_plain(path, name, of_matlab)
        if of_matlab == "cell":
            return cell_texts(path, file, at)
        if "MATLAB_sparse" in item.attrs:
            sparse = tuple(file.array(f"{at}/{part}", ndim=1) for part in ("data", "ir", "jc"))
            return dense(path, name, sparse, int(item.attrs["MATLAB_sparse"]), file.limit)
        item = file.dataset(at)
        if item.dtype.kind not in "biuf":
            return file.strings(at)
        expect("MATLAB_empty" not in item.attrs, path, name, "values", "an empty array")
        values = np.asarray(item[()])
        if path.suffix.lower() == MATLAB:
            values = values.T
        return characters(path, name, values) if of_matlab == "char" else values


def _from_mat(path: Path, name: str) -> np.ndarray:
    """A variable or, after dots, a field of structs of size 1 × 1; cells must have one text each."""
    from scipy.io import whosmat
    from scipy.io.matlab import MatlabOpaque
    from scipy.sparse import issparse

    variable, *inner = name.split(".")
    with reading(path):
        there = [entry[0] for entry in whosmat(str(path))]
    expect(variable in there, path, name, "a variable of this name", f"{there[:20]}")
    content = mat(path, [variable])[variable]
    for part in inner:
        content = struct_field(path, np.asarray(content), part)
        if content.dtype == object and content.shape == ():
            content = content.item()
    if issparse(content):
        sparse = (content.data, content.indices, content.indptr)
        return dense(path, name, sparse, content.shape[0], size_limit(path.stat().st_size))
    if isinstance(content, MatlabOpaque):
        expect_plain(path, name, content["s2"].item().decode("latin1"))
    values = np.asarray(content)
    if values.dtype != object:
        return np.char.rstrip(values) if values.dtype.kind == "U" else values
    texts = [np.asarray(cell) for cell in values.ravel()]
    whole = all(text.dtype.kind == "U" and text.size <= 1 for text in texts)
    expect(whole, path, name, "an array, or cells of one text each", "other cells")
    return np.array(["".join(text.ravel()) for text in texts], dtype=str)


def row(path: Path, name: str, values: np.ndarray, n: int, noun: str) -> np.ndarray:
    """One value each, of an array of one axis as MATLAB writes it: a row or a column."""
    wanted = f"a value for each of {n} {noun}"
    expect(values.size == n == max(values.shape, default=1), path, name, wanted, f"shape {values.shape}")
    return values.ravel()


def ids_of(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Ids of stimuli; MATLAB has whole numbers as floating-point ones."""
    if values.dtype.kind != "f":
        return values
    expect(not np.isnan(values).any(), path, name, "an id for each", f"{int(np.isnan(values).sum())} times NaN")
    whole = bool((np.abs(values) < 2**53).all() and (np.floor(values) == values).all())
    return values.astype(np.int64) if whole else values
