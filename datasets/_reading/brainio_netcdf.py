"""Read and write the netCDF files of BrainIO, without Brain-Score.

A file has one variable over presentation, neuroid and time_bin, with flat coordinates.
"""

import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.source import AnyPath
from neurovar_datasets._reading.hdf5 import Hdf5, open_hdf5
from neurovar_datasets._reading.refusals import expect, reading

VARIABLE = "data"
# Fewer names than netCDF allows: a slash would make a group, and blanks separate the names of coordinates.
NAME = re.compile(r"\w[^\s/]*")
# Attributes that mean something to the netCDF convention or to xarray, which would decode the values by them.
RESERVED_ATTRS = {"_FillValue", "coordinates", "dtype", "scale_factor", "add_offset", "missing_value", "grid_mapping"}
MAX_ATTR = 32 << 10  # bytes: HDF5 has room for 64 kB in a header
OBJECT_BYTES = 64  # of a Python text and the pointer to it, at least


def write(path: Path, table: xr.DataArray) -> None:
    """Write a flat table; the file appears whole or not at all.

    Attributes that netCDF cannot hold are left out.

    Raises
    ------
    ValueError
        Naming what cannot be stored, before anything is written.
    """
    if not path.parent.is_dir():
        raise ValueError(f"expected a path in a folder that exists, got {path}")
    dataset = _dataset(table)
    compression = {name: {"zlib": True, "complevel": 4} for name in dataset.data_vars}
    # Written beside the target, so that the rename is on one disk and therefore atomic.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        dataset.to_netcdf(part, engine="h5netcdf", encoding=compression)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _dataset(table: xr.DataArray) -> xr.Dataset:
    """The table as BrainIO writes it."""
    name = str(table.name) if isinstance(table.name, str) and NAME.fullmatch(table.name) else VARIABLE
    coords = {
        _checked_name(str(label)): xr.Variable(coord.dims, _root_values(str(label), coord), _native(coord.attrs))
        for label, coord in table.coords.items()
    }
    values = _storable("responses", table.values)
    attrs = _native(table.attrs)
    variable = xr.Variable(table.dims, values, attrs)
    return xr.Dataset({name if name not in coords else VARIABLE: variable}, coords=coords, attrs=attrs)


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"expected a coordinate whose name netCDF can have, without spaces or '/', got {name!r}")
    return name


def _root_values(name: str, coord: xr.DataArray) -> np.ndarray:
    if coord.dtype.kind in "mM":
        return coord.values.astype(str).astype(object)
    return _storable(name, coord.values)


def _storable(name: str, values: np.ndarray) -> np.ndarray:
    """Values as HDF5 has them: text as objects, and no float16, of which netCDF has no variable."""
    kind = values.dtype.kind
    if kind in "UO":
        for text in values.ravel().tolist():
            if not isinstance(text, str) or "\0" in text or not _is_utf8(text):
                raise ValueError(f"{name}: expected numbers, text, times, True or False, got {text!r} among the values")
        return values.astype(object)
    if kind not in "biufS" or (kind == "f" and values.dtype.itemsize > 8):
        raise ValueError(f"{name}: expected numbers of at most 64 bits, text or times, got dtype {values.dtype}")
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _native(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The attributes that netCDF and BrainIO can say."""
    return {name: value for name, value in attrs.items() if _is_native(name, value)}


def _is_native(name: object, value: Any) -> bool:
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in RESERVED_ATTRS:
        return False
    if isinstance(value, str):
        return "\0" not in value and _is_utf8(value) and 0 < len(value.encode()) < MAX_ATTR
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | np.ndarray | list):
        return False
    array = np.array(value, dtype=None if not isinstance(value, list) or _is_row(value) else object)
    number = array.dtype.kind in "iu" or array.dtype in (np.float32, np.float64)
    return number and array.ndim < 2 and 0 < array.nbytes < MAX_ATTR


def _is_row(values: list[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)


def read(path: AnyPath) -> xr.DataArray:
    """The flat table of a file.

    Raises
    ------
    CorruptDataError
        If the file is no netCDF 4 file of one assembly, naming file and field.
    """
    with reading(path), Path(path).open("rb") as stream:
        start = stream.read(3)
    expect(start != b"CDF", path, "format", "netCDF 4 (HDF5)", "netCDF 3; convert it with nccopy -k nc4 IN OUT")
    with open_hdf5(path) as file:
        members = file.members()
        _check_root(file, members)
        with reading(path):
            table = _read_root(file)
    for name, coord in table.coords.items():
        plain = coord.dtype.kind in "biufUS" or all(isinstance(text, str) for text in coord.values.ravel())
        expect(plain, path, str(name), "numbers or text", f"dtype {coord.dtype}")
    return table


def _read_root(file: Hdf5) -> xr.DataArray:
    """What BrainIO's loader reads, from the file that is open and checked already."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    # dims without a name are then refused as any of other names
    # The handle that was checked is passed on: opened again by its path, the file could be another
    # by then.
    root = h5netcdf.File(file.file, "r", phony_dims="access", decode_vlen_strings=True)
    with xr.open_dataarray(H5NetCDFStore(root), decode_times=False) as table:
        return table.load()


def _check_root(file: Hdf5, members: Any) -> None:
    """No link out of the file, and no more in it than is reasonable to load."""
    import h5py

    total = 0
    for name in members:
        link = members.get(name, getlink=True)
        expect(isinstance(link, h5py.HardLink), file.name, name, "data in this file", "a link to elsewhere")
        if isinstance(members[name], h5py.Dataset):
            total += _n_bytes(file, name)
        expect(total <= file.limit, file.name, name, f"at most {file.limit} bytes", f"{total} or more")


def _n_bytes(file: Hdf5, name: str) -> int:
    """How many bytes a dataset takes when it is loaded: text as text of one length, numbers as float64."""
    dataset = file.dataset(name)
    if dataset.dtype.kind == "O":
        return int(file.strings(name).nbytes) + dataset.size * OBJECT_BYTES
    return int(dataset.size or 0) * max(8, dataset.dtype.itemsize)
