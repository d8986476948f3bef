"""Read the arrays of a store with the standard library and NumPy: nothing in a store chooses the code that reads it."""

import json
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neurovar.responses.storage._form import MAX_CHUNK_BYTES, PLAIN_KINDS

MAX_JSON_BYTES = 16 << 20
# The only ones that `save` writes. A store could name any codec that is registered, and some of these unpickle.
COMPRESSORS = ({"id": "zlib", "level": 1}, None)  # zarr 2 never packs a scalar


@contextmanager
def reading(path: Path, field: str) -> Iterator[None]:
    """Turn whatever goes wrong within into a ValueError that names the store and the field."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {field}: {error}") from error
    except Exception as error:
        raise ValueError(f"{path}: {field}: cannot be read ({type(error).__name__}: {error})") from error


def json_object(path: Path, field: str) -> dict[str, Any]:
    file = path / field
    if file.is_symlink() or not file.is_file():
        raise ValueError("expected a file, found none (links are not followed)")
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"expected at most {MAX_JSON_BYTES} bytes, got {file.stat().st_size}")
    content = json.loads(file.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {type(content).__name__}")
    return content


@dataclass(frozen=True)
class Stored:
    """An array of a store, all of whose chunks are there."""

    path: Path
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    packed: bool

    def lazy(self) -> Any:
        import dask.array as da

        chunks = da.core.normalize_chunks(self.chunks, self.shape)
        meta = np.empty((0,) * len(self.shape), dtype=self.dtype)
        return da.map_blocks(self.chunk, chunks=chunks, dtype=self.dtype, meta=meta)

    def values(self) -> np.ndarray:
        values = np.empty(self.shape, dtype=self.dtype)
        for block_id in np.ndindex(*_grid(self.shape, self.chunks)):
            start = [i * n for i, n in zip(block_id, self.chunks)]
            values[tuple(slice(first, first + n) for first, n in zip(start, self.chunks))] = self.chunk(block_id)
        return values

    def chunk(self, block_id: tuple[int, ...]) -> np.ndarray:
        """One chunk; those at an end are stored at full size and cut here."""
        key = key_of(block_id)
        n_bytes = math.prod(self.chunks) * self.dtype.itemsize
        with reading(self.path, f"{self.name}/{key}"):
            with (self.path / self.name / key).open("rb") as stream:
                raw = stream.read(_most_packed(n_bytes))
            if self.packed:
                raw = _unpacked(raw, n_bytes)
            inside = tuple(slice(length - i * n) for i, n, length in zip(block_id, self.chunks, self.shape))
            return np.frombuffer(raw, dtype=self.dtype).reshape(self.chunks)[inside].copy()


def _unpacked(packed: bytes, n_bytes: int) -> bytes:
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(packed, n_bytes)  # no more than expected: zlib packs a thousand zeros into one byte
    more = unpacker.decompress(unpacker.unconsumed_tail, 1)
    if len(raw) != n_bytes or more or not unpacker.eof:
        raise ValueError(f"expected {n_bytes} bytes packed by zlib, got {'more' if more else len(raw)}")
    return raw


def key_of(block_id: tuple[int, ...]) -> str:
    """The name of a chunk's file."""
    return ".".join(map(str, block_id)) or "0"


def _grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> list[int]:
    return [-(-length // n) for length, n in zip(shape, chunks)]


def _most_packed(n_bytes: int) -> int:
    """More than zlib ever makes of so many bytes."""
    # stored blocks add 5 bytes for each 16 KB, and there are 6 at the ends
    return n_bytes + n_bytes // 100 + 1024


def stored_array(path: Path, name: str) -> Stored:
    """What the metadata say of an array, if `save` can have written it."""
    with reading(path, name):
        if (path / name).is_symlink() or not (path / name).is_dir():
            raise ValueError("expected a folder, found none (links are not followed)")
    with reading(path, f"{name}/.zarray"):
        form = json_object(path, f"{name}/.zarray")
        shape, chunks, dtype = _lengths(form["shape"]), _lengths(form["chunks"]), np.dtype(str(form["dtype"]))
        got = {"dimension_separator": "."} | form
        wanted = {"zarr_format": 2, "order": "C", "filters": None, "dimension_separator": "."}
        different = {key: got.get(key) for key in wanted if got.get(key, "none") != wanted[key]}
        if different or form["compressor"] not in COMPRESSORS:
            raise ValueError(f"expected {wanted} and zlib, got {different} and {form['compressor']}")
        if dtype.kind not in PLAIN_KINDS or not dtype.itemsize:
            raise ValueError(f"expected a dtype of numbers, truth values or text, got {dtype}")
        if len(shape) != len(chunks) or any(n > length for n, length in zip(chunks, shape)):
            raise ValueError(f"expected chunks within the shape {shape}, got {chunks}")
        if math.prod(chunks) * dtype.itemsize > MAX_CHUNK_BYTES:
            raise ValueError(f"expected chunks of at most {MAX_CHUNK_BYTES} bytes, got {chunks} of {dtype}")
    with reading(path, f"{name}/.zattrs"):
        dims = tuple(json_object(path, f"{name}/.zattrs")["_ARRAY_DIMENSIONS"])
        if len(dims) != len(shape) or len(set(dims)) < len(dims):
            raise ValueError(f"expected a dim for each of {len(shape)} axes, got {dims}")
    with reading(path, name):
        _check_chunks(path / name, _grid(shape, chunks), _most_packed(math.prod(chunks) * dtype.itemsize))
    return Stored(path, name, dims, shape, chunks, dtype, packed=form["compressor"] is not None)


def _lengths(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value > 0 for value in values):
        raise ValueError(f"expected a list of whole numbers above 0, got {values!r}")
    return tuple(values)


def _check_chunks(folder: Path, grid: list[int], most: int) -> None:
    """Raise ValueError unless each chunk of the grid is a file of at most so many bytes."""
    with os.scandir(folder) as entries:
        files = [e for e in entries if e.name[0] != "." and e.is_file(follow_symlinks=False)]
        sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in files}
    if math.prod(grid) > len(sizes):
        raise ValueError(f"expected {math.prod(grid)} chunks, found {len(sizes)} files (links are not followed)")
    for key in map(key_of, np.ndindex(*grid)):
        if not 0 <= sizes.get(key, -1) <= most:
            raise ValueError(f"expected a file {key} of at most {most} bytes, got {sizes.get(key, 'none')}")
