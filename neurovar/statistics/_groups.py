"""Estimates of groups of units or stimuli, as `by=` asks for them."""

from collections.abc import Callable
from typing import Any, overload

import numpy as np
import xarray as xr


@overload
def grouped(estimate: Callable[[xr.DataArray], xr.Dataset], responses: xr.DataArray, by: str) -> xr.Dataset: ...
@overload
def grouped(
    estimate: Callable[[xr.DataArray], xr.DataArray | float], responses: xr.DataArray, by: str
) -> xr.DataArray: ...
def grouped(estimate: Callable[[xr.DataArray], Any], responses: xr.DataArray, by: str) -> Any:
    """`estimate` of each group of units or stimuli, along a new first dim `by` with the groups' names, sorted.

    Where units are grouped, a result over units covers all of them, NaN outside of the group.

    Raises
    ------
    ValueError : if `by` is no coordinate of unit or of stimulus, or a group does not allow the estimate (it is named).

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0, 1], "area": ("unit", ["V1", "V1", "V2"])})
    >>> grouped(lambda one: one.sum(("stimulus", "repeat")), da, "area").values
    array([[ 2.,  2., nan],
           [nan, nan,  2.]])
    """
    groups, member, dim = groups_of(responses, by)
    results: list[Any] = []
    for number, group in enumerate(groups):
        positions = np.flatnonzero(member == number)
        try:
            result = estimate(responses.isel({dim: positions}))
        except ValueError as error:
            raise ValueError(f"{by} {group}: {error}") from error
        result = result if isinstance(result, xr.Dataset) else xr.DataArray(result)
        labels = {name: positions for name in ("unit", "other_unit") if dim == "unit" and name in result.dims}
        results.append(result.reset_coords(drop=True).assign_coords(labels))
    together = xr.concat(results, dim=by, join="outer", combine_attrs="drop_conflicts")
    together = together.drop_vars(["unit", "other_unit"], errors="ignore")
    labels = unit_coords(responses.drop_vars(by)) if "unit" in together.dims else {}
    return together.assign_coords({by: groups} | labels)


def groups_of(responses: xr.DataArray, by: str) -> tuple[np.ndarray, np.ndarray, str]:
    """The names of the groups, sorted, the number of each member's group, and what is grouped."""
    available = [str(name) for name, coord in responses.coords.items() if coord.dims in (("unit",), ("stimulus",))]
    if by not in available:
        raise ValueError(f"expected by= a coordinate of unit or stimulus ({', '.join(available)}), got {by!r}")
    groups, member = np.unique(responses[by].values, return_inverse=True)
    return groups, member, str(responses[by].dims[0])


def unit_coords(responses: xr.DataArray) -> dict:
    return {name: coord for name, coord in responses.coords.items() if coord.dims == ("unit",)}
