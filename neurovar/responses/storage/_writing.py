"""Write responses as a Zarr store."""

import json
import os
import shutil
from collections.abc import Hashable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import xarray as xr

from neurovar.responses._rules import DIMS, TIME_DIMS, validate_form
from neurovar.responses.storage._form import (
    CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    VARIABLE,
    VERSION,
    check_coord_sizes,
    chunk_shape,
    encoded_attrs,
    plain,
    storable_names,
    text,
)

MAX_MANIFEST_BYTES = 4 << 20
# attributes that mean something to xarray's decoding: in the manifest only
RESERVED = {"_FillValue", "missing_value", "scale_factor", "add_offset", "coordinates", "dtype", "calendar"}


def save(responses: xr.DataArray, path: str | os.PathLike[str], *, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Write responses as a new Zarr store, which appears under its name only when it is whole.

    Values, name, coordinates and attributes come back from `open_zarr` as they are. Lazy responses (dask) are computed
    and written chunk by chunk. Whether the values keep the convention is for `responses.validate` to say.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit[, time]). Coordinates may be numbers, truth values, text or times; attributes
        also None, and lists, tuples, dicts and arrays of these.
    path : path
        The folder to write, where nothing is yet.
    chunk_bytes : int, optional
        The most that one chunk takes unpacked: as many whole stimuli as fit or, of a long one, repeats.

    Raises
    ------
    ValueError
        If something cannot be stored, or there is something at `path`; nothing is then written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from neurovar.responses import open_zarr
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=DIMS, coords={"stimulus": ["a", "b"]}, attrs={"units": "dF/F"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(da, f"{folder}/recording.zarr")
    ...     open_zarr(f"{folder}/recording.zarr").identical(da)
    True
    """
    validate_form(responses, TIME_DIMS if "time" in responses.dims else DIMS)
    dataset = plain_dataset(responses, chunk_bytes)
    path = Path(path)
    check_new(path, chunk_bytes)
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")  # a random name: several may write at once
    try:
        write_zarr(dataset, partial)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_zarr(dataset: xr.Dataset, path: Path, *, metadata_only: bool = False) -> None:
    """Write a Dataset in format 2 of Zarr, or all of it but the chunks of lazy arrays."""
    # xarray for Zarr 2 knows no other format and has no word for it; with Zarr 3 it would write format 3
    options: dict[str, Any] = {"compute": False} if metadata_only else {}
    if "zarr_format" in signature(dataset.to_zarr).parameters:
        options["zarr_format"] = 2
    dataset.to_zarr(str(path), mode="w-", consolidated=True, **options)


def check_new(path: Path, chunk_bytes: int) -> None:
    """Raise ValueError unless a store with such chunks can be begun at `path`."""
    if not 1 <= chunk_bytes <= MAX_CHUNK_BYTES:
        raise ValueError(f"expected chunk_bytes from 1 to {MAX_CHUNK_BYTES}, got {chunk_bytes}")
    if os.path.lexists(path):
        raise ValueError(f"{path}: expected a path where nothing is yet, got one that exists")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: expected an existing folder to write into, got {path.parent}")


def plain_dataset(responses: xr.DataArray, chunk_bytes: int) -> xr.Dataset:
    """What xarray is to write: arrays of plain dtypes, how they are encoded, and the manifest."""
    indexes = _plain_indexes(responses)
    manifest: dict[str, Any] = {"version": VERSION, "name": text(responses.name)}
    manifest["attrs"] = encoded_attrs("the responses", responses.attrs)
    manifest["coords"] = {}
    variables = {}
    for name in storable_names(responses.coords):
        coord = responses.coords[name]
        variables[name] = xr.Variable(coord.dims, plain(name, coord))
        attrs = encoded_attrs(f"coordinate {name!r}", coord.attrs)
        manifest["coords"][name] = {"dtype": coord.dtype.str, "index": name in indexes, "attrs": attrs}
    check_coord_sizes({name: (coord.shape, coord.dtype) for name, coord in responses.coords.items()})
    variables[VARIABLE] = xr.Variable(responses.dims, _plain_values(responses, chunk_bytes), _visible(responses.attrs))
    content = json.dumps(manifest)
    if len(content) > MAX_MANIFEST_BYTES:
        raise ValueError(f"expected attributes of at most {MAX_MANIFEST_BYTES} bytes as JSON, got {len(content)}")
    for variable in variables.values():
        chunks = chunk_shape(variable.shape, variable.dtype.itemsize, chunk_bytes=chunk_bytes)
        variable.encoding = _encoding(chunks)
    return xr.Dataset({VARIABLE: variables.pop(VARIABLE)}, variables, {"neurovar": content})


def _encoding(chunks: tuple[int, ...]) -> dict[str, Any]:
    """For old and new xarray, each of which leaves out what it does not know; no value stands for a missing one."""
    from numcodecs import Zlib

    encoding = {"compressor": Zlib(level=1), "compressors": Zlib(level=1), "write_empty_chunks": True}
    return encoding | {"_FillValue": None} | ({"chunks": chunks} if chunks else {})


def _plain_values(responses: xr.DataArray, chunk_bytes: int) -> Any:
    if responses.dtype.kind not in "iuf" or responses.dtype.itemsize > 8:
        raise ValueError(f"expected numbers of at most 8 bytes, got dtype {responses.dtype}")
    if not responses.chunks:
        return responses.values
    return responses.data.rechunk(chunk_shape(responses.shape, responses.dtype.itemsize, chunk_bytes=chunk_bytes))


def _plain_indexes(responses: xr.DataArray) -> set[Hashable]:
    """The coordinates that are indexes, if each is one of its own."""
    indexes = dict(responses.indexes)
    several = [dim for dim, index in indexes.items() if isinstance(index, pd.MultiIndex)]
    if several:
        raise ValueError(
            f"expected plain indexes, got a MultiIndex of {several[0]!r}: reset_index({several[0]!r}) first"
        )
    return set(indexes)


def _visible(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The attributes that other readers of a store see beside the manifest."""
    return {k: v for k, v in attrs.items() if type(v) in (str, int, float, bool) and k not in RESERVED}
