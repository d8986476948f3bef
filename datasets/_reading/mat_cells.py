"""What MATLAB has beside plain arrays: cell arrays and sparse matrices; objects, which are refused by their class."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from neurovar_datasets._reading.hdf5 import Hdf5
from neurovar_datasets._reading.refusals import expect, integers

# In MATLAB 7.3 a cell is an object reference of 8 bytes to a dataset in the group #refs#, with an
# object header of its own.
CELL_BYTES = 100  # of a cell, at least: 8 for the reference, the rest for what it refers to
INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
# The attribute MATLAB_class that MATLAB writes to each dataset; "" is of a file that other programs
# wrote.
PLAIN = {"", "double", "single", "logical", "char", "cell", *INTEGERS}
# The contents of such objects lie in a subsystem of the file that MathWorks does not document.
REMEDY = "save it as numbers or as a cell array of texts (double, cellstr, posixtime)"


def matlab_class(item: Any) -> str:
    """The class that MATLAB gave a dataset or a group, "" if it is not MATLAB's, or no text of fixed length."""
    if "MATLAB_class" not in item.attrs or item.attrs.get_id("MATLAB_class").dtype.kind != "S":
        return ""
    return bytes(item.attrs["MATLAB_class"]).decode("latin1")


def expect_plain(path: Path, field: str, name: str) -> None:
    """Refuse objects by their class: of a string or a datetime the file has only numbers that refer to its contents."""
    expect(name in PLAIN, path, field, "numbers, characters or cells of text", f"a MATLAB {name}; {REMEDY}")


def cell_array(path: Path, file: Hdf5, field: str, read: Callable[[Any], np.ndarray]) -> np.ndarray:
    """An object array of what `read` makes of the dataset that each cell refers to, dims reversed as in the file.

    MATLAB lets all empty cells refer to one dataset, which is read once.
    """
    import h5py

    references = _references(path, file, field)
    cells = np.empty(references.shape, dtype=object)
    seen: dict[int, np.ndarray] = {}
    n_bytes = 0
    for place, reference in np.ndenumerate(references):
        cell = file.file[reference]
        address = h5py.h5o.get_info(cell.id).addr
        if address not in seen:
            expect(isinstance(cell, h5py.Dataset), path, field, "cells with numbers or text", cell)
            expect(n_bytes + _n_bytes(cell) <= file.limit, path, field, f"at most {file.limit} bytes", "more")
            _expect_inside(path, file, field, cell)
            seen[address] = read(cell)
        cells[place] = seen[address]
        # Counted for each cell: a small file can refer to one large dataset a million times.
        n_bytes += cells[place].nbytes
        expect(n_bytes <= file.limit, path, field, f"at most {file.limit} bytes", "more")
    return cells


def _references(path: Path, file: Hdf5, field: str) -> np.ndarray:
    """The references of a cell array, no more than the file has room for what they refer to."""
    import h5py

    item = file.item_at(field)
    is_cell_array = isinstance(item, h5py.Dataset) and h5py.check_ref_dtype(item.dtype) is h5py.Reference
    expect(is_cell_array, path, field, "a cell array", item)
    most = path.stat().st_size // CELL_BYTES
    n_cells = _n_bytes(item) // item.dtype.itemsize
    # A compressed dataset of equal references is tiny on disk but expands to one Python object a
    # cell.
    expect(0 < n_cells <= most, path, field, f"1 to {most} cells", f"shape {item.shape}")
    _expect_inside(path, file, field, item)
    return np.asarray(item[()])


def _n_bytes(item: Any) -> int:
    return max(item.size or 0, math.prod(item.chunks or ())) * item.dtype.itemsize


def _expect_inside(path: Path, file: Hdf5, field: str, item: Any) -> None:
    expect(not item.external and not item.is_virtual, path, field, "data in this file", "data in another file")
    file.check_chunks(field, item)


def characters(path: Path, field: str, codes: np.ndarray) -> np.ndarray:
    """The rows of a matrix of characters, which MATLAB pads to one width; `codes` has the dims of MATLAB."""
    # MATLAB 7.3 keeps characters as UTF-16 code units in uint16 datasets, one matrix for all rows.
    expect(codes.ndim == 2 and codes.dtype == np.uint16, path, field, "rows of characters", codes.dtype)
    return np.array([row.tobytes().decode("utf-16-le").rstrip() for row in np.ascontiguousarray(codes, "<u2")])


def cell_texts(path: Path, file: Hdf5, field: str) -> np.ndarray:
    """The texts of a cell array that has one in each cell, a flat array of str in MATLAB's order."""

    def text(cell: Any) -> np.ndarray:
        # HDF5 cannot store what has a dim of 0: MATLAB writes the shape in place of the values and
        # sets this attribute.
        if cell.attrs.get("MATLAB_empty", 0):
            return np.array([""])
        expect(matlab_class(cell) == "char", path, field, "cells of one text each", f"a {matlab_class(cell)}")
        return characters(path, field, np.asarray(cell[()]).T)

    cells = cell_array(path, file, field, text).ravel()
    expect(all(cell.size == 1 for cell in cells), path, field, "cells of one text each", "several rows of text")
    return np.array([cell.item() for cell in cells], dtype=str)


def dense(path: Path, field: str, sparse: tuple[np.ndarray, ...], n_rows: int, limit: int) -> np.ndarray:
    """The matrix of a sparse one: its values, the row of each, and where each column starts, last where all end.

    The numbers are checked here: scipy takes rows beyond the matrix for places in memory.
    """
    values, rows, starts = sparse[0], integers(path, field, sparse[1]), integers(path, field, sparse[2])
    shape = (n_rows, len(starts) - 1)
    expect(min(shape) >= 0, path, field, "a sparse matrix", f"shape {shape}")
    expect(8 * math.prod(shape) <= limit, path, field, f"at most {limit} bytes when it is not sparse", f"shape {shape}")
    whole = starts[0] == 0 and starts[-1] == len(values) == len(rows) and (np.diff(starts) >= 0).all()
    expect(bool(whole), path, field, "columns that hold all values", f"{len(values)} values, columns to {starts[-1]}")
    inside = ((rows >= 0) & (rows < n_rows)).all()
    expect(bool(inside), path, field, f"rows from 0 to {n_rows - 1}", "others")
    # Compressed sparse columns: values `starts[j]` to `starts[j + 1]` belong to column j.
    matrix = np.zeros(shape, dtype=values.dtype)
    matrix[rows, np.repeat(np.arange(shape[1]), np.diff(starts))] = values
    return matrix
