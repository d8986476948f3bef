"""Say what is wrong with a file that nobody vouches for: a CorruptDataError that names the file and the field."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.source import AnyPath, CorruptDataError

from neurovar import responses

MAX_INT64 = np.iinfo(np.int64).max
MIN_LIMIT = 256 << 20  # bytes that any machine has for a file, however small the file is
MAX_EXPANSION = 100  # spike counts, mostly zeros, are compressed tenfold or so


@contextmanager
def reading(path: AnyPath, field: str = "") -> Iterator[None]:
    """Turn any failure of a parser within into a CorruptDataError: no parser lists how it fails on hostile files."""
    try:
        yield
    except CorruptDataError:
        raise
    except Exception as error:
        what = f"{path}: {field}" if field else str(path)
        raise CorruptDataError(f"{what}: cannot be read ({type(error).__name__}: {str(error)[:500]})") from error


def expect(condition: bool | np.bool_, path: AnyPath, field: str, expected: str, got: object) -> None:
    """Raise the CorruptDataError that says which file and field, what was expected and what came."""
    if not condition:
        raise CorruptDataError(f"{path}: {field}: expected {expected}, got {got}")


def size_limit(size: int) -> int:
    """The most bytes that are unpacked from a file of `size` bytes."""
    return max(MIN_LIMIT, MAX_EXPANSION * size)


def numbers(path: AnyPath, field: str, values: object, *, ndim: int | None = None) -> np.ndarray:
    """`values` as an array of real numbers."""
    with reading(path, field):
        array = np.asarray(values)
    expect(array.dtype.kind in "biuf", path, field, "real numbers", f"dtype {array.dtype}")
    if ndim is not None:
        expect(array.ndim == ndim, path, field, f"{ndim} dims", f"shape {array.shape}")
    return array


def integers(path: AnyPath, field: str, values: object) -> np.ndarray:
    """`values` as a flat array of int64; floats must be whole, as MATLAB writes integers."""
    array = numbers(path, field, values).ravel()
    if array.dtype.kind == "f":
        # Beyond 2^53 not every integer has a double, so a whole float need not be the integer that
        # was meant.
        whole = bool(np.all((np.abs(array) < 2**53) & (np.floor(array) == array)))
        expect(whole, path, field, "whole numbers", "fractions, NaN or infinity")
    if array.dtype == np.uint64:
        # The cast to int64 would wrap around to negative ids without a word.
        expect(not np.any(array > MAX_INT64), path, field, f"integers up to {MAX_INT64}", "larger ones")
    return array.astype(np.int64)


def counts(path: AnyPath, field: str, values: object, *, ndim: int | None = None) -> np.ndarray:
    """`values` as spike counts: whole, not negative; NaN where a trial is absent."""
    array = numbers(path, field, values, ndim=ndim)
    if array.dtype.kind == "f":
        # NaN marks absent trials and is no fault; of the others a fraction means rates, not counts.
        present = array[~np.isnan(array)]
        expect(bool(np.all(np.floor(present) == present)), path, field, "whole spike counts", "fractions")
        expect(not np.isinf(present).any(), path, field, "finite spike counts", "infinity")
    negative = int((array < 0).sum())
    expect(negative == 0, path, field, "spike counts of 0 or more", f"{negative} negative ones")
    return array


def increasing_times(path: AnyPath, field: str, values: object) -> np.ndarray:
    """`values` as float64 times that are finite and never decrease."""
    times = numbers(path, field, values).ravel().astype(np.float64)
    expect(bool(np.isfinite(times).all()), path, field, "finite times", "NaN or infinity")
    expect(bool((np.diff(times) >= 0).all()), path, field, "times that never decrease", "times out of order")
    return times


def unique(path: AnyPath, field: str, values: Iterable[Any]) -> np.ndarray:
    """`values` as an array without repetitions."""
    with reading(path, field):
        ids = np.asarray(values)
        _, n = np.unique(ids, return_counts=True)
        expect(bool((n == 1).all()), path, field, "unique ids", f"{int((n > 1).sum())} repeated ones")
        return ids


def checked(path: AnyPath, recorded: xr.DataArray) -> xr.DataArray:
    """`recorded`, if it keeps the convention; a CorruptDataError that names the file where it does not."""
    try:
        return responses.validate(recorded, time="time" in recorded.dims)
    except ValueError as error:
        raise CorruptDataError(f"{path}: responses: {error}") from error
