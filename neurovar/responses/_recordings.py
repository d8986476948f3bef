"""What statistics must know of responses: which units were recorded together, and whether a mean was taken off.

Both are coordinates, since arithmetic keeps these and drops attributes (older xarray always, newer on request):
`recording` of `unit`, the same for units that were recorded simultaneously, and `residuals`, a text without a dim.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

RECORDING = "recording"
RESIDUALS = "residuals"


def mark(responses: xr.DataArray, *, recording: Any = None, residuals: str = "") -> xr.DataArray:
    """Responses with what statistics must know of them.

    Pooled sessions need a `recording`, since units of different ones have no noise correlation: their trials have
    nothing to do with one another. Within each recording, correlations are computed. Without the coordinate all units
    count as recorded together.

    Parameters
    ----------
    responses : DataArray
        Responses with a dim `unit`.
    recording : str or array, optional
        The name of a coordinate that has the same value for units that were recorded together, such as "session"; or
        these values, (unit,). NaN and None stand for a unit of which it is not known with which others it was recorded.
    residuals : str, optional
        Why the values are no raw responses, such as "mean of each stimulus subtracted": they have no Fano factor.

    Returns
    -------
    DataArray
        With the coordinate `recording` (unit), the scalar coordinate `residuals`, or both.

    Raises
    ------
    ValueError
        If `recording` is no coordinate of `unit` and not one value for each unit.

    Examples
    --------
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0, 1], "session": ("unit", ["a", "a", "b"])})
    >>> recordings(mark(da, recording="session") / 2)
    array([0, 0, 1])
    """
    if residuals:
        responses = responses.assign_coords({RESIDUALS: residuals})
    if recording is None:
        return responses
    if isinstance(recording, str):
        of_units = [str(name) for name, coord in responses.coords.items() if coord.dims == ("unit",)]
        if recording not in of_units:
            raise ValueError(f"expected recording= a coordinate of unit ({', '.join(of_units)}), got {recording!r}")
        recording = responses[recording].values
    values = np.asarray(recording)
    if values.shape != (responses.sizes["unit"],):
        raise ValueError(f"expected a recording of each of {responses.sizes['unit']} units, got shape {values.shape}")
    return responses.assign_coords({RECORDING: ("unit", values)})


def recordings(responses: xr.DataArray) -> np.ndarray:
    """The number of each unit's recording: units with the same number were recorded together.

    Parameters
    ----------
    responses : DataArray
        Responses with a dim `unit`, perhaps with the coordinate `recording`.

    Returns
    -------
    array of int
        (unit,) numbers from 0 on, 0 for all units where there is no such coordinate. A unit whose recording is NaN or
        None has a number of its own.

    Raises
    ------
    ValueError
        If the coordinate `recording` is of other dims than `unit`.

    Examples
    --------
    >>> recordings(xr.DataArray(np.ones((2, 1, 3)), dims=("stimulus", "repeat", "unit")))
    array([0, 0, 0])
    """
    n_units = responses.sizes["unit"]
    coord = responses.coords.get(RECORDING)
    if coord is None or coord.ndim == 0:  # a scalar, as one recording before it is joined with others has
        return np.zeros(n_units, dtype=np.intp)
    if coord.dims != ("unit",):
        raise ValueError(f"expected the coordinate {RECORDING!r} of 'unit', got dims {coord.dims}")
    numbers = np.asarray(pd.factorize(coord.values)[0], dtype=np.intp)
    unknown = numbers < 0
    numbers[unknown] = numbers.max() + 1 + np.arange(unknown.sum())
    return numbers


def require_simultaneous(responses: xr.DataArray) -> None:
    """Raise ValueError if the units were not all recorded together, so that their noise has no joint distribution.

    Parameters
    ----------
    responses : DataArray
        Responses with a dim `unit`.

    Raises
    ------
    ValueError
        If the coordinate `recording` differs between units; the message says how to take one recording.

    Examples
    --------
    >>> da = xr.DataArray(np.ones((2, 1, 2)), dims=("stimulus", "repeat", "unit"))
    >>> require_simultaneous(mark(da, recording=["monday", "tuesday"]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: expected units that were recorded together, got units of 2 recordings; take each by itself: by=...
    """
    n_recordings = recordings(responses).max() + 1
    if n_recordings > 1:
        raise ValueError(
            f"expected units that were recorded together, got units of {n_recordings} recordings; take each by itself: "
            f"by={RECORDING!r} or responses.isel(unit=responses.{RECORDING} == …)"
        )


def require_pairs(responses: xr.DataArray) -> None:
    """Raise ValueError if there are several recordings and none has two units, so that no pair has a correlation.

    Parameters
    ----------
    responses : DataArray
        Responses with a dim `unit`.

    Raises
    ------
    ValueError
        If no two units were recorded together.

    Examples
    --------
    >>> da = xr.DataArray(np.ones((2, 1, 2)), dims=("stimulus", "repeat", "unit"))
    >>> require_pairs(mark(da, recording=["monday", "monday"]))
    """
    numbers = recordings(responses)
    if len(numbers) > 1 and numbers.max() + 1 == len(numbers):
        raise ValueError(
            f"expected units that were recorded together, got {len(numbers)} units of as many recordings: "
            "no noise correlations"
        )


def why_residual(responses: xr.DataArray) -> str:
    """Why the values are no raw responses; "" where nothing says that they are not.

    Parameters
    ----------
    responses : DataArray
        Responses, perhaps with the coordinate `residuals`.

    Returns
    -------
    str
        What the coordinate says; where responses of several kinds were joined along a dim, each reason once.

    Examples
    --------
    >>> da = xr.DataArray(np.ones((2, 1, 2)), dims=("stimulus", "repeat", "unit"))
    >>> why_residual(mark(da, residuals="mean of each stimulus subtracted") / 2)
    'mean of each stimulus subtracted'
    """
    if RESIDUALS not in responses.coords:
        return ""
    reasons = dict.fromkeys(np.ravel(responses[RESIDUALS].values).tolist())
    return "; ".join(str(reason) for reason in reasons if not pd.isna(reason) and reason)
