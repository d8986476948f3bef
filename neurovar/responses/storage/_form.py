"""The form that coordinates and attributes take in a store, and how they are restored from it."""

import math
import re
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

VERSION = 1
VARIABLE = "responses"
CHUNK_BYTES = 16 << 20  # large enough that files are few, small enough that some threads have one each
# What a store that nobody vouches for may make the reader allocate.
MAX_CHUNK_BYTES = 256 << 20
MAX_COORD_BYTES = 256 << 20
MAX_LENGTH = 1 << 22
OBJECT_BYTES = 64  # of a Python text and the pointer to it, at least
PLAIN_KINDS = "biufUS"  # of NumPy's dtypes, those that are bytes alone: no objects
NAME = re.compile(r"\w[\w .-]{0,79}")


def chunk_shape(shape: tuple[int, ...], itemsize: int, *, chunk_bytes: int = CHUNK_BYTES) -> tuple[int, ...]:
    """The shape of chunks of at most so many bytes (of one item at least), which split the first axes only.

    Parameters
    ----------
    shape : tuple of int
        Of the whole array.
    itemsize : int
        Bytes of one item.
    chunk_bytes : int, optional
        The most bytes of one chunk.

    Returns
    -------
    tuple of int
        As many whole stimuli as fit; where not even one does, one stimulus and as many repeats as fit, and so on.

    Examples
    --------
    >>> chunk_shape((5600, 2, 10_000), 4, chunk_bytes=1 << 20), chunk_shape((2, 400, 1000), 4, chunk_bytes=1 << 20)
    ((13, 2, 10000), (1, 262, 1000))
    """
    chunks = list(shape)
    for axis in range(len(shape)):
        fitting = chunk_bytes // (math.prod(shape[axis + 1 :]) * itemsize)
        chunks[axis] = min(max(fitting, 1), shape[axis])
        if fitting:
            break
    return tuple(chunks)


def storable_names(names: Iterable[Hashable]) -> list[str]:
    """The names of coordinates, if each can be that of a folder."""
    storable = [name for name in names if type(name) is str and NAME.fullmatch(name) and name != VARIABLE]
    bad = [name for name in names if name not in storable]
    if bad:
        rule = f"letters, digits, '_', '-', '.' or spaces and not {VARIABLE!r}"
        raise ValueError(f"expected names of coordinates of {rule}, got {bad[0]!r}")
    if len({name.casefold() for name in storable}) < len(storable):
        raise ValueError(f"expected names of coordinates that differ by more than case, got {storable}")
    return storable


def text(name: Any) -> str | None:
    """The name of responses, if it is text or none."""
    if not (name is None or type(name) is str):
        raise ValueError(f"expected a name that is text, got {name!r}")
    return name


def plain(name: str, coord: xr.DataArray) -> np.ndarray:
    """The values of a coordinate as an array of numbers, truth values or text of one width."""
    dtype, values = coord.dtype, coord.values
    if dtype.kind == "O" and all(type(value) is str for value in values.ravel()):
        fixed = values.astype(str)
        if (fixed == values).all():  # NumPy's texts lose zeros at their end
            return fixed
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return values.view(np.int64)
    if not isinstance(dtype, np.dtype) or dtype.kind not in PLAIN_KINDS or (dtype.kind == "f" and dtype.itemsize > 8):
        types = f" of {sorted({type(value).__name__ for value in values.ravel()})}" if dtype.kind == "O" else ""
        raise ValueError(f"expected coordinate {name!r} of numbers, truth values, text or times, got {dtype}{types}")
    return values


def as_it_was(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The inverse of `plain`: values of the dtype that the coordinate had."""
    # NumPy makes no check of what it takes for characters, and Python crashes on those beyond Unicode
    if values.dtype.kind == "U" and values.ravel().view(np.uint32).max() > 0x10FFFF:
        raise ValueError("expected text, got what is no character")
    if dtype.kind == "O" and values.dtype.kind == "U":
        return values.astype(object)
    if dtype.kind in "mM" and values.dtype == np.int64:
        return values.view(dtype)
    if dtype.kind == "b" and values.dtype.itemsize == 1 and (values.view(np.uint8) <= 1).all():
        return values.view(bool)
    if dtype != values.dtype or dtype.kind == "b":
        raise ValueError(f"expected values of {dtype}, got others, stored as {values.dtype}")
    return values


def check_coord_sizes(coords: Mapping[Any, tuple[tuple[int, ...], np.dtype]]) -> None:
    """Raise ValueError for shapes and dtypes of coordinates too large to be read at once, as open_zarr reads them."""
    longest = max((length for shape, _ in coords.values() for length in shape), default=0)
    if longest > MAX_LENGTH:
        raise ValueError(f"expected coordinates of a length of at most {MAX_LENGTH}, got {longest}")
    n_bytes = [
        math.prod(shape) * (OBJECT_BYTES if dtype.kind == "O" else dtype.itemsize) for shape, dtype in coords.values()
    ]
    if sum(n_bytes) > MAX_COORD_BYTES:
        raise ValueError(f"expected coordinates of at most {MAX_COORD_BYTES} bytes in all, got {sum(n_bytes)}")


def encoded_attrs(owner: str, attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON can keep them."""
    for name in attrs:
        if type(name) is not str:
            raise ValueError(f"expected names of attributes of {owner} that are text, got {name!r}")
    return {name: _encoded(f"attribute {name!r} of {owner}", value) for name, value in attrs.items()}


def _encoded(what: str, value: Any) -> Any:
    """`value` as JSON can keep it, with its type where JSON has none for it."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) in (list, tuple):
        items = [_encoded(what, item) for item in value]
        return items if type(value) is list else {"tuple": items}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _encoded(what, item) for key, item in value.items()}}
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biufU" and _is_small(value.dtype):
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: np.ravel(value).tolist(), "dtype": value.dtype.str, "shape": list(value.shape)}
    raise ValueError(
        f"expected {what} to be text, numbers, None, or lists, tuples, dicts or arrays of them, got {value!r}"
    )


def _is_small(dtype: np.dtype) -> bool:
    return 0 < dtype.itemsize <= (4096 if dtype.kind == "U" else 8)


def decoded_attrs(attrs: Any) -> dict[str, Any]:
    """The inverse of `encoded_attrs`."""
    return {name: _decoded(value) for name, value in attrs.items()}


def _decoded(value: Any) -> Any:
    """The inverse of `_encoded`."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decoded(item) for item in value["tuple"])
    if "dict" in value:
        return {key: _decoded(item) for key, item in value["dict"].items()}
    kind = "array" if "array" in value else "scalar"
    dtype, items = np.dtype(str(value["dtype"])), list(value[kind])
    if dtype.kind not in "biufU" or not _is_small(dtype) or len(items) * dtype.itemsize > MAX_COORD_BYTES:
        raise ValueError(f"expected an attribute of small numbers or text, got {len(items)} of dtype {dtype}")
    array = np.array(items, dtype=dtype).reshape(value["shape"])
    return array if kind == "array" else array[()]
