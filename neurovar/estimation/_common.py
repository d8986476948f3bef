"""What several estimators share: labels for results, groups, and checks of what they need."""

from collections.abc import Callable
from typing import Any, overload

import numpy as np
import xarray as xr

from neurovar.responses import constant_units, repeat_counts, validate

CARRIED = ("source", "window", "dropped_units", "drift_removed", "gain_removed")
"""Attributes of responses that their statistics keep."""


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


def correlation_kernel(covariance: np.ndarray) -> np.ndarray:
    """The correlations of a covariance matrix, NaN where a variance is not positive."""
    variance = np.diag(covariance)
    scale = np.sqrt(np.where(variance > 0, variance, np.nan))
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, np.where(variance > 0, 1, np.nan))
    return correlation


def require_splits(responses: xr.DataArray, n_splits: int) -> None:
    if n_splits < 1:
        raise ValueError(f"expected at least 1 split, got {n_splits}")
    require_stimuli(responses, 3)


def require_stimuli(responses: xr.DataArray, least: int, *, repeats: int = 2) -> None:
    """Raise ValueError unless `responses` are valid with at least so many stimuli of so many repeats each."""
    validate(responses, min_repeats=repeats)
    repeated = int((repeat_counts(responses) >= repeats).sum())
    if repeated < least:
        raise ValueError(f"expected at least {least} stimuli with {repeats} repeats, got {repeated}")


def require_units(responses: xr.DataArray, least: int) -> None:
    if responses.sizes["unit"] < least:
        raise ValueError(f"expected at least {least} units, got {responses.sizes['unit']}")


def require_varying(responses: xr.DataArray) -> None:
    """Raise ValueError if a unit never varies between repeats: it has no correlation."""
    constant = constant_units(responses)
    if len(constant):
        raise ValueError(
            f"expected units that vary between repeats, got {len(constant)} with zero noise variance "
            f"(positions {constant[:5].tolist()}); responses.drop_constant removes them"
        )


def require_counts(responses: xr.DataArray) -> None:
    """Raise ValueError unless the responses are spike counts."""
    if responses.attrs.get("units") != "spike count":
        why = f" ({responses.attrs['residuals']})" if "residuals" in responses.attrs else ""
        raise ValueError(f"expected counts, attrs['units'] = 'spike count', got {responses.attrs.get('units')!r}{why}")
    if (responses.values < 0).any():
        raise ValueError(f"expected spike counts, got negative values (smallest {np.nanmin(responses.values):g})")


def labelled_matrix(values: np.ndarray, responses: xr.DataArray) -> xr.DataArray:
    """A matrix (unit, other_unit) with the units' coordinates and what `CARRIED` attrs the responses have."""
    return xr.DataArray(values, dims=("unit", "other_unit"), coords=unit_coords(responses), attrs=carried(responses))


def labelled_units(values: np.ndarray, responses: xr.DataArray) -> xr.DataArray:
    """Values (unit) with the units' coordinates and what `CARRIED` attrs the responses have."""
    return xr.DataArray(values, dims="unit", coords=unit_coords(responses), attrs=carried(responses))


def unit_coords(responses: xr.DataArray) -> dict:
    return {name: coord for name, coord in responses.coords.items() if coord.dims == ("unit",)}


def carried(responses: xr.DataArray) -> dict:
    return {name: responses.attrs[name] for name in CARRIED if name in responses.attrs}
