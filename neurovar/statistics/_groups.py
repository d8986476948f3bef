"""Groups of units or stimuli, as `by=` asks for them, and the labels of results."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

LABELLED = ("unit", "stimulus")
"""The dims whose coordinates a result takes over from the responses."""


def grouped(estimate: Callable[[xr.DataArray], Any], responses: xr.DataArray, by: str) -> Any:
    """`estimate` of each group of units or stimuli, along a new first dim `by` with the groups' names, sorted.

    Where units are grouped, a result over units covers all of them, NaN outside of the group.

    Raises
    ------
    ValueError
        If `by` is no coordinate of unit or of stimulus, is missing for some of them or the name of something in the
        result, or a group does not allow the estimate (the message names it).

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0, 1], "area": ("unit", ["V1", "V1", "V2"])})
    >>> grouped(lambda group: group.sum(("stimulus", "repeat")), da, "area").values
    array([[ 2.,  2., nan],
           [nan, nan,  2.]])
    """
    groups, member, dim = groups_of(responses, by)
    results: list[Any] = []
    for number, group in enumerate(groups):
        positions = np.flatnonzero(member == number)
        try:
            result = as_xarray(estimate(responses.isel({dim: positions}))).reset_coords(drop=True)
        except ValueError as error:
            raise ValueError(f"{by} {group}: {error}") from error
        if by in names_in(result):
            raise ValueError(f"expected by= a name that the result does not use, got {by!r}; rename the coordinate")
        # Positions align the groups' units with one another, whatever their coordinates are: these are put back below.
        labels = {name: positions for name in ("unit", "other_unit") if dim == "unit" and name in result.dims}
        results.append(result.assign_coords(labels))
    # Attributes that differ between groups (degrees of freedom) say nothing of the whole: they are dropped.
    together = xr.concat(results, dim=by, join="outer", combine_attrs="drop_conflicts")
    together = together.drop_vars(["unit", "other_unit"], errors="ignore").assign_coords({by: groups})
    return labelled(together, responses.drop_vars(by), dims=("unit",))


def as_xarray(result: Any) -> Any:
    """A Dataset or DataArray as it is; numbers, and results that know how, as one."""
    if isinstance(result, xr.Dataset | xr.DataArray):
        return result
    return result.to_dataset() if hasattr(result, "to_dataset") else xr.DataArray(result)


def groups_of(responses: xr.DataArray, by: str) -> tuple[np.ndarray, np.ndarray, str]:
    """The names of the groups, sorted, the number of each member's group, and what is grouped."""
    available = [str(name) for name, coord in responses.coords.items() if coord.dims in (("unit",), ("stimulus",))]
    if by not in available:
        raise ValueError(f"expected by= a coordinate of unit or stimulus ({', '.join(available)}), got {by!r}")
    groups, member = distinct(responses[by])
    return groups, member, str(responses[by].dims[0])


def distinct(labels: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The different labels, sorted, and the number of each member's label.

    A missing label (None, NaN, NaT) would be a group of what has nothing in common, and labels of several types have
    no order: both raise a ValueError.
    """
    values, name, dim = labels.values, labels.name, labels.dims[0]
    missing = np.flatnonzero(pd.isna(values))
    if len(missing):
        raise ValueError(
            f"expected a value of {name!r} for every {dim}, got none for {len(missing)} of {len(values)} (positions "
            f"{', '.join(map(str, missing[:5]))}); select those that have one, or fill in a name such as 'unknown'"
        )
    try:
        return np.unique(values, return_inverse=True)
    except TypeError as error:
        types = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ValueError(f"expected values of {name!r} of one type, got {types}; convert them to text") from error


def labelled(result: Any, responses: xr.DataArray, *, dims: Collection[str] = LABELLED) -> Any:
    """A DataArray or Dataset with the coordinates of those of `dims` that it has.

    A coordinate with the name of something in the result (a unit's `loading` from elsewhere, beside the `loading` that
    was computed) becomes `unit_loading`: nothing is lost, and nothing is overwritten.
    """
    wanted = [(dim,) for dim in dims if dim in result.dims]
    # variables, not coordinates: xarray would make an array of each, which takes longer than many an estimate
    kept = {str(name): coord for name, coord in responses.coords.variables.items() if coord.dims in wanted}
    taken, labels = names_in(result), {}
    for name, coord in kept.items():
        new, dim = name, str(coord.dims[0])
        # an index has its dim's name by right; a new name must not be that of another coordinate either
        while new != dim and (new in taken or (new != name and new in kept)):
            new = f"{dim}_{new}"
        labels[new] = coord
    return result.assign_coords(labels) if labels else result


def names_in(result: Any) -> set[str]:
    """The names of a result's dims, of its own coordinates, and of its variables or its own."""
    variables = result.data_vars if isinstance(result, xr.Dataset) else [result.name]
    return {str(name) for name in (*result.dims, *result.coords, *variables)}
