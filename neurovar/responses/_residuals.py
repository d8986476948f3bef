"""Deviations from each stimulus's mean response, which are the noise, and the units that have none."""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace
from dask import compute

from neurovar.responses._rules import all_finite, array_of, validate

ROUNDING = 1e-6  # a smaller range, relative to the largest response, is no variation: float32 keeps seven digits


def residuals(responses: xr.DataArray) -> xr.DataArray:
    """The noise: each response minus its stimulus's mean over repeats, x_{sru} − x̄_{s·u}.

    A stimulus shown once has residual 0 and adds no degree of freedom: those of a stimulus with Rₛ repeats sum to 0 and
    have Rₛ − 1.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit).

    Returns
    -------
    DataArray
        Of the same shape and units, NaN where a trial is absent.

    Raises
    ------
    ValueError
        If the responses are not valid.

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": ["a"]})
    >>> residuals(da).values.ravel()
    array([-1.,  1.])
    """
    validate(responses)
    return responses.copy(data=residuals_kernel(responses.values))


def residuals_kernel(values: Any) -> Any:
    """`residuals` of an array.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array
        Of the same shape.

    Examples
    --------
    >>> residuals_kernel(np.array([[[1.0], [3.0]]])).ravel()
    array([-1.,  1.])
    """
    return floating(values) - means_kernel(values)


def means_kernel(values: Any) -> Any:
    """Mean of the repeats that are present.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array
        (stimulus, 1, unit), NaN where there is no repeat.

    Examples
    --------
    >>> means_kernel(np.array([[[1.0], [3.0], [np.nan]]])).ravel()
    array([2.])
    """
    xp, values = array_namespace(values), floating(values)
    if all_finite(values):
        return xp.mean(values, axis=1, keepdims=True)
    # the array API has no nanmean: sums of what is present, by how many there are
    absent = xp.isnan(values)
    n_repeats = xp.astype(xp.sum(~absent, axis=1, keepdims=True), values.dtype)
    return xp.sum(xp.where(absent, 0, values), axis=1, keepdims=True) / xp.where(n_repeats > 0, n_repeats, xp.nan)


def floating(values: Any) -> Any:
    """An array as it is; integers as float64, half precision as float32, in which sums over trials still add up.

    Parameters
    ----------
    values : array of NumPy or torch
        Real numbers.

    Returns
    -------
    array
        Of the same shape.

    Raises
    ------
    ValueError
        For numbers of more than double precision.

    Examples
    --------
    >>> floating(np.array([1, 2])).dtype
    dtype('float64')
    """
    xp = array_namespace(values)
    if not xp.isdtype(values.dtype, "real floating"):
        return xp.astype(values, xp.float64)
    bits = xp.finfo(values.dtype).bits
    if bits > 64:  # linear algebra has no such precision
        raise ValueError(f"expected double precision or less, got dtype {values.dtype}: convert it to float64")
    return values if bits >= 32 else xp.astype(values, xp.float32)


def drop_constant(responses: xr.DataArray) -> xr.DataArray:
    """Without the units that never vary about their stimulus means; attrs["dropped_units"] lists their positions.

    Such units have no correlation. They are common in rectified networks.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit).

    Returns
    -------
    DataArray
        The other units.

    Raises
    ------
    ValueError
        If the responses are not valid, no stimulus has two repeats, or no unit varies.

    Examples
    --------
    >>> da = xr.DataArray([[[1.0, 5.0], [3.0, 5.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": ["a"]})
    >>> drop_constant(da).attrs["dropped_units"]
    [1]
    """
    validate(responses, min_repeats=2)
    constant = constant_units(responses)
    if len(constant) == responses.sizes["unit"]:
        raise ValueError(f"expected units that vary between repeats, got none among {len(constant)}")
    kept = responses.isel(unit=np.setdiff1d(np.arange(responses.sizes["unit"]), constant))
    return kept.assign_attrs(dropped_units=constant.tolist())


def constant_units(responses: xr.DataArray) -> np.ndarray:
    """Positions of the units that never vary about their stimulus means, up to rounding.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit), valid.

    Returns
    -------
    array of int
        Positions, increasing.

    Examples
    --------
    >>> constant_units(xr.DataArray([[[1.0, 5.0], [3.0, 5.0]]], dims=("stimulus", "repeat", "unit")))
    array([1])
    """
    # the range of a stimulus's repeats is 0 exactly where they are the same; a variance would be so up to rounding only
    low, high = extremes_kernel(array_of(responses))
    scale, largest = compute(np.nanmax(np.maximum(np.abs(low), np.abs(high)), axis=0), np.nanmax(high - low, axis=0))
    return np.flatnonzero(largest <= ROUNDING * scale)


def extremes_kernel(values: Any) -> tuple[Any, Any]:
    """Smallest and largest of the repeats that are present.

    Parameters
    ----------
    values : array of NumPy, dask or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    tuple of two arrays
        (stimulus, unit) each, NaN where there is no repeat.

    Examples
    --------
    >>> low, high = extremes_kernel(np.array([[[1.0], [3.0], [np.nan]]]))
    >>> low.item(), high.item()
    (1.0, 3.0)
    """
    xp = array_namespace(values)
    if all_finite(values):
        return floating(xp.min(values, axis=1)), floating(xp.max(values, axis=1))
    absent = xp.isnan(values)
    # absent repeats stand at the far end, where they are never the extreme
    low = xp.min(xp.where(absent, xp.inf, values), axis=1)
    high = xp.max(xp.where(absent, -xp.inf, values), axis=1)
    nowhere = xp.all(absent, axis=1)
    return xp.where(nowhere, xp.nan, low), xp.where(nowhere, xp.nan, high)
