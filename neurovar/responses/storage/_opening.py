"""Open a Zarr store lazily."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from neurovar.responses._rules import DIMS, TIME_DIMS, validate_form
from neurovar.responses.storage._chunks import json_object, reading, stored_array
from neurovar.responses.storage._form import (
    VARIABLE,
    VERSION,
    as_it_was,
    check_coord_sizes,
    decoded_attrs,
    storable_names,
    text,
)


def open_zarr(path: str | os.PathLike[str]) -> xr.DataArray:
    """Responses from a Zarr store that `save` wrote, lazily: a dask array, of which chunks are read when computed.

    Coordinates are read at once. That every chunk is there is checked here; what is in it, when it is computed.

    Parameters
    ----------
    path : path
        The folder that `save` wrote. Nothing in it chooses the code that reads it, so that it may come from anywhere.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit[, time]), the same as was saved.

    Raises
    ------
    ValueError
        Naming the path and the field, if this is not a whole store that `save` wrote.

    Examples
    --------
    >>> import tempfile
    >>> from neurovar.responses import save
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=DIMS, coords={"stimulus": ["a", "b"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(da, f"{folder}/recording.zarr", chunk_bytes=24)
    ...     open_zarr(f"{folder}/recording.zarr").chunks
    ((1, 1), (1,), (3,))
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: expected a Zarr store (a folder), found none")
    with reading(path, ".zattrs"):
        manifest = json.loads(json_object(path, ".zattrs")["neurovar"])
        if manifest["version"] != VERSION:
            raise ValueError(f"expected a store of neurovar's version {VERSION}, got {manifest['version']!r}")
        kept = {name: manifest["coords"][name] for name in storable_names(manifest["coords"])}
        dtypes = {name: np.dtype(str(coord["dtype"])) for name, coord in kept.items()}
    stored = {name: stored_array(path, name) for name in [VARIABLE, *kept]}
    with reading(path, "coordinates"):
        # both as they are stored and as they will be: text that becomes objects takes more memory
        check_coord_sizes({name: (stored[name].shape, stored[name].dtype) for name in kept})
        check_coord_sizes({name: (stored[name].shape, dtype) for name, dtype in dtypes.items()})
    coords = {}
    for name, dtype in dtypes.items():
        with reading(path, name):
            attrs = decoded_attrs(kept[name]["attrs"])
            coords[name] = xr.Variable(stored[name].dims, as_it_was(stored[name].values(), dtype), attrs)
    with reading(path, VARIABLE):
        values, attrs = stored[VARIABLE], decoded_attrs(manifest["attrs"])
        # xarray would take the name of a dask array for that of responses without one
        responses = xr.DataArray(values.lazy(), coords, values.dims, attrs=attrs).rename(text(manifest["name"]))
        validate_form(responses, TIME_DIMS if "time" in responses.dims else DIMS)
        return _indexed(responses, {name: bool(coord["index"]) for name, coord in kept.items()})


def _indexed(responses: xr.DataArray, wanted: Mapping[str, bool]) -> xr.DataArray:
    """With indexes as they were; an xarray that has no say in it makes one of each coordinate named as its dim."""
    for name, index in wanted.items():
        if index and name not in responses.indexes:
            responses = responses.set_xindex(name)
        elif not index and name in responses.indexes and hasattr(responses, "drop_indexes"):
            responses = responses.drop_indexes(name)
    return responses
