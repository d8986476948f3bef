"""What a BrainIO table cannot say of the responses that it was made from, kept beside it.

That is which dims a coordinate had, what it said of absent trials, coordinates that a table has no dims for, dtypes,
and attributes. A template is a DataArray of the dims and coordinates of the responses, True where a trial is in the
table; its attrs hold those of the responses and their dtype.
"""

import numpy as np
import xarray as xr

from neurovar.responses import DIMS, TIME_DIMS, flatten, from_responses, to_responses

ATTR = "responses"
ROW = "neurovar_row"


def stimulus_name(table: xr.DataArray) -> str:
    """The coordinate with the stimulus ids: assemblies of before 2022 call it `image_id`, as BrainIO knows."""
    return "image_id" if "image_id" in table.coords and "stimulus_id" not in table.coords else "stimulus_id"


def make(responses: xr.DataArray) -> xr.DataArray:
    """The template of valid responses."""
    table = from_responses(_numbered(responses))
    present = np.zeros(responses.shape[:2], dtype=bool)
    present.flat[table[ROW].values] = True
    template = responses.copy(deep=False, data=_spread(present, responses.shape))
    template.attrs = {"attrs": dict(responses.attrs), "dtype": responses.dtype.str}
    return template


def is_needed(responses: xr.DataArray, table: xr.DataArray) -> bool:
    """Whether the table alone does not give back dims, coordinates, attributes and dtype of the responses."""
    flat = flatten(table)
    zeros = np.broadcast_to(np.zeros((), dtype=flat.dtype), flat.shape)
    got = to_responses(flat.copy(deep=False, data=zeros), stimulus=stimulus_name(flat))
    if (got.dims, got.shape, got.dtype) != (responses.dims, responses.shape, responses.dtype):
        return True
    labels = [da.coords.to_dataset().assign_attrs(da.attrs) for da in (got, responses)]
    dtypes = [[(name, coord.dtype) for name, coord in label.coords.items()] for label in labels]
    return dtypes[0] != dtypes[1] or not labels[0].identical(labels[1])


def detach(table: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray | None]:
    """A table without its template, and the template; an attribute of that name may be something else."""
    template = table.attrs.get(ATTR)
    if not isinstance(template, xr.DataArray) or not _is_one(template):
        return table, None
    bare = table.copy(deep=False)
    bare.attrs = {name: value for name, value in table.attrs.items() if name != ATTR}
    return bare, template


def restore(table: xr.DataArray, template: xr.DataArray) -> xr.DataArray | None:
    """The responses that a table was made from; None if it was changed since, so that its template fits no more."""
    present = trials(template)
    sizes = dict(zip(("presentation", "neuroid", "time_bin"), (int(present.sum()), *template.shape[2:])))
    if {dim: n for dim, n in table.sizes.items() if n > 1 or dim in sizes} != sizes:
        return None
    blank = template.copy(deep=False, data=_spread(np.where(present, 0, np.nan).astype(np.float16), template.shape))
    blank.attrs = dict(template.attrs["attrs"])
    expected = from_responses(_numbered(blank), stimulus=stimulus_name(table))
    rows = np.divmod(expected[ROW].values, present.shape[1])
    if not _same_labels(table, expected.drop_vars(ROW)):
        return None
    dtype = np.dtype(template.attrs["dtype"])
    values = np.full(template.shape, np.nan if dtype.kind == "f" else 0, dtype=dtype)
    ordered = table.transpose("presentation", "neuroid", ...).values
    values[rows] = ordered.reshape(len(rows[0]), *template.shape[2:])
    return blank.copy(deep=False, data=values)


def trials(template: xr.DataArray) -> np.ndarray:
    """Which trials (stimulus, repeat) are in the table."""
    return np.asarray(template.values.reshape(*template.shape[:2], -1)[:, :, 0])


def _is_one(template: xr.DataArray) -> bool:
    return template.dims in (DIMS, TIME_DIMS) and template.dtype == bool and {*template.attrs} == {"attrs", "dtype"}


def _numbered(responses: xr.DataArray) -> xr.DataArray:
    """With a coordinate that numbers the trials (stimulus, repeat)."""
    shape = responses.shape[:2]
    return responses.assign_coords({ROW: (DIMS[:2], np.arange(shape[0] * shape[1]).reshape(shape))})


def _spread(of_trials: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """One value a trial for all of its units and bins, in no more memory."""
    return np.broadcast_to(of_trials.reshape(*of_trials.shape, *[1] * (len(shape) - 2)), shape)


def _same_labels(table: xr.DataArray, expected: xr.DataArray) -> bool:
    return (
        table.dims == expected.dims
        and set(table.coords) == set(expected.coords)
        and all(
            comparable(coord.variable) == comparable(table[name].variable) for name, coord in expected.coords.items()
        )
    )


def comparable(coord: xr.Variable) -> tuple[object, list[object]]:
    """Dims and values, in which NaN equals itself and a time its text: BrainIO's files have no other."""
    values = coord.values.astype(str) if coord.dtype.kind in "mM" else coord.values
    return coord.dims, [None if value != value else value for value in values.ravel().tolist()]
