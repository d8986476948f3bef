"""Read and write the netCDF files of BrainIO, without Brain-Score.

The root group is as BrainIO writes it: one variable over presentation, neuroid and time_bin, with flat coordinates. The
group `neurovar`, which BrainIO ignores, has the template of the responses: the coordinates as they were, `present`
(stimulus, repeat), and `labels`, JSON with names, dims, dtypes and attributes.
"""

import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from neurovar_datasets._fetching.source import AnyPath
from neurovar_datasets._reading.brainio_template import ATTR, trials
from neurovar_datasets._reading.hdf5 import Hdf5, open_hdf5
from neurovar_datasets._reading.refusals import expect, reading

GROUP = "neurovar"
VARIABLE = "data"
NAME = re.compile(r"\w[^\s/]*")
RESERVED_ATTRS = {"_FillValue", "coordinates", "dtype", "scale_factor", "add_offset", "missing_value", "grid_mapping"}
MAX_ATTR = 32 << 10  # bytes: HDF5 has room for 64 kB in a header
OBJECT_BYTES = 64
MAX_LABELS = 256 << 20  # bytes of one coordinate or attribute


def write(path: Path, table: xr.DataArray, template: xr.DataArray) -> None:
    """Write a flat table and the template of its responses; the file appears whole or not at all.

    Raises
    ------
    ValueError : naming what cannot be stored, before anything is written.
    """
    if not path.parent.is_dir():
        raise ValueError(f"expected a path in a folder that exists, got {path}")
    dataset, labels, arrays = _dataset(table), _labels(template), _arrays(template)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        _write_parts(part, dataset, labels, arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_parts(part: Path, dataset: xr.Dataset, labels: str, arrays: Mapping[str, np.ndarray]) -> None:
    import h5py

    compression = {name: {"zlib": True, "complevel": 4} for name in dataset.data_vars}
    dataset.to_netcdf(part, engine="h5netcdf", encoding=compression)
    with h5py.File(part, "a") as file:
        group = file.create_group(GROUP)
        group.create_dataset("labels", data=labels, dtype=h5py.string_dtype())
        for name, array in arrays.items():
            options = {"compression": "gzip"} if array.ndim and array.dtype != object else {}
            dtype = h5py.string_dtype() if array.dtype == object else array.dtype
            group.create_dataset(name, data=array, dtype=dtype, **options)


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
    """Values as HDF5 has them: text as objects, times as whole numbers, and no float16."""
    kind = values.dtype.kind
    if kind in "UO":
        for text in values.ravel().tolist():
            if not isinstance(text, str) or "\0" in text or not _is_utf8(text):
                raise ValueError(f"{name}: expected numbers, text, times, True or False, got {text!r} among the values")
        return values.astype(object)
    if kind in "mM":
        return values.view(np.int64)
    if kind not in "biufS" or (kind == "f" and values.dtype.itemsize > 8):
        raise ValueError(f"{name}: expected numbers of at most 64 bits, text or times, got dtype {values.dtype}")
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _native(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The attributes that netCDF and BrainIO can say; the others are in the JSON only."""
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


def _labels(template: xr.DataArray) -> str:
    content = {
        "name": _encoded("name", template.name),
        "dims": list(template.dims),
        "shape": list(template.shape),
        "dtype": template.attrs["dtype"],
        "attrs": _encoded("attrs", template.attrs["attrs"]),
        "coords": [
            {
                "name": name,
                "dims": list(coord.dims),
                "shape": list(coord.shape),
                "dtype": coord.dtype.str,
                "attrs": _encoded(f"attrs of {name}", dict(coord.attrs)),
            }
            for name, coord in template.coords.items()
        ],
    }
    return json.dumps(content)


def _arrays(template: xr.DataArray) -> dict[str, np.ndarray]:
    coords = {f"coord{i}": _stored(str(name), c.values) for i, (name, c) in enumerate(template.coords.items())}
    return {"present": trials(template).astype(np.uint8), **coords}


def _stored(name: str, values: np.ndarray) -> np.ndarray:
    flat = np.atleast_1d(values).ravel()
    return flat.astype(np.uint8) if flat.dtype.kind == "b" else _storable(name, flat)


def _encoded(where: str, value: Any) -> Any:
    """`value` as JSON that gives it back with its type."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_encoded(where, item) for item in value]
    if type(value) is tuple:
        return {"tuple": [_encoded(where, item) for item in value]}
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encoded(f"{where}[{name!r}]", item) for name, item in value.items()}}
    if isinstance(value, np.generic | np.ndarray):
        array = np.asarray(value)
        text = array.dtype.kind == "O" and all(isinstance(item, str) for item in array.ravel())
        if text or array.dtype.kind == "U" or (array.dtype.kind in "biuf" and array.dtype.itemsize <= 8):
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return {kind: array.ravel().tolist(), "dtype": array.dtype.str, "shape": list(array.shape)}
    raise ValueError(
        f"{where}: expected text, numbers, True, False, None or lists, tuples, dicts and arrays of them, "
        f"got {type(value).__name__}; drop it before saving"
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_decoded(item) for item in value["tuple"])
    if "dict" in value:
        return {str(name): _decoded(item) for name, item in value["dict"].items()}
    items, shape = value["array" if "array" in value else "scalar"], value["shape"]
    array = np.array(items, dtype=_small(value["dtype"], len(items))).reshape(shape)
    return array if "array" in value else array[()]


def _small(dtype: str, n_values: int) -> np.dtype:
    """The dtype, if so many values of it are no more than labels are."""
    wanted = np.dtype(dtype)
    if wanted.itemsize * n_values > MAX_LABELS:
        raise ValueError(f"expected labels of at most {MAX_LABELS} bytes, got {n_values} of dtype {dtype}")
    return wanted


def read(path: AnyPath) -> xr.DataArray:
    """The flat table of a file, with the template of its responses in attrs["responses"] if it has one.

    Raises
    ------
    CorruptDataError : if the file is no netCDF 4 file of one assembly, naming file and field.
    """
    with reading(path), Path(path).open("rb") as stream:
        start = stream.read(3)
    expect(start != b"CDF", path, "format", "netCDF 4 (HDF5)", "netCDF 3; convert it with nccopy -k nc4 IN OUT")
    with open_hdf5(path) as file:
        members = file.members()
        _check_root(file, members)
        template = _read_template(file) if GROUP in members else None
        with reading(path):
            table = _read_root(file)
    for name, coord in table.coords.items():
        plain = coord.dtype.kind in "biufUS" or all(isinstance(text, str) for text in coord.values.ravel())
        expect(plain, path, str(name), "numbers or text", f"dtype {coord.dtype}")
    return table if template is None else table.assign_attrs({ATTR: template})


def _read_root(file: Hdf5) -> xr.DataArray:
    """What BrainIO's loader reads, from the file that is open and checked already."""
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    # dims without a name are then refused as any of other names
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


def _read_template(file: Hdf5) -> xr.DataArray:
    field = f"{GROUP}/labels"
    with reading(file.name, GROUP):
        labels = json.loads(str(file.strings(field)[0]))
        present = file.array(f"{GROUP}/present", ndim=2).astype(bool)
        shape = tuple(int(n) for n in labels["shape"])
        expect(shape[:2] == present.shape and len(shape) in (3, 4), file.name, field, "the shape of `present`", shape)
        values = np.broadcast_to(present.reshape(*present.shape, *[1] * (len(shape) - 2)), shape)
        coords = {
            entry["name"]: (tuple(entry["dims"]), _read_coord(file, i, entry), _decoded(entry["attrs"]))
            for i, entry in enumerate(labels["coords"])
        }
        attrs = {"attrs": _decoded(labels["attrs"]), "dtype": labels["dtype"]}
        return xr.DataArray(values, coords=coords, dims=labels["dims"], name=_decoded(labels["name"]), attrs=attrs)


def _read_coord(file: Hdf5, number: int, entry: Mapping[str, Any]) -> np.ndarray:
    field = f"{GROUP}/coord{number}"
    if np.dtype(entry["dtype"]).kind in "UO":
        values = file.strings(field)
    else:
        values = np.asarray(file.dataset(field)[()])
    dtype = _small(entry["dtype"], values.size)
    return (values.view(dtype) if dtype.kind in "mM" else values.astype(dtype)).reshape(entry["shape"])
