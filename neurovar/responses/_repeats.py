"""The repeats of each stimulus: how many, in two halves, and without what all stimuli share."""

import numpy as np
import xarray as xr

from neurovar.responses._residuals import means_kernel
from neurovar.responses._rules import validate


def repeat_counts(responses: xr.DataArray) -> xr.DataArray:
    """The number of repeats of each stimulus, Rₛ.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit), valid: a trial is then there if its first unit has a value.

    Returns
    -------
    DataArray
        Of dim (stimulus), whole numbers.

    Examples
    --------
    >>> da = xr.DataArray([[[1.0], [np.nan]]], dims=("stimulus", "repeat", "unit"))
    >>> repeat_counts(da).values
    array([1])
    """
    return responses.isel(unit=0, drop=True).notnull().sum("repeat")


def center_repeats(responses: xr.DataArray) -> xr.DataArray:
    """Without the mean shift: each repeat's mean over stimuli is moved to the mean over all repeats.

    For repeats that mean something (a network's modifications), whose common effect on all stimuli is no noise. With S
    stimuli it takes a part 1/S of the noise variance along. Absent trials stay absent.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit).

    Returns
    -------
    DataArray
        Like `responses`.

    Raises
    ------
    ValueError
        If the responses are not valid.

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[0.0], [3.0]], [[2.0], [7.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": ["a", "b"]})
    >>> center_repeats(da).values[:, :, 0].tolist()
    [[2.0, 1.0], [4.0, 5.0]]
    """
    validate(responses)
    values = responses.values
    # means over stimuli are means over repeats of the array with its first two axes swapped
    shift = means_kernel(values.swapaxes(0, 1))[:, 0] - np.nanmean(values, axis=(0, 1))
    return responses.copy(data=values - shift)


def split(responses: xr.DataArray, *, rng: np.random.Generator | int) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean responses over two disjoint random halves of each stimulus's repeats.

    Of Rₛ repeats each half takes ⌊Rₛ/2⌋, so that both have the same noise; of an odd number one repeat, drawn at
    random, is left out. Stimuli with one repeat are dropped.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit).
    rng : Generator or int
        Draws the halves, independently for each stimulus.

    Returns
    -------
    tuple of two DataArrays
        Of dims (stimulus, unit), the mean of each half.

    Raises
    ------
    ValueError
        If the responses are not valid or no stimulus has two repeats.

    Examples
    --------
    >>> da = xr.DataArray([[[1.0], [3.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a"]})
    >>> sorted(half.item() for half in split(da, rng=0))
    [1.0, 3.0]
    """
    validate(responses, min_repeats=2)
    kept = responses.isel(stimulus=np.flatnonzero(repeat_counts(responses).values >= 2))
    first, second = split_kernel(kept.values, np.random.default_rng(rng))
    template = kept.isel(repeat=0, drop=True)
    return template.copy(data=first), template.copy(data=second)


def split_kernel(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`split` of an array in which every stimulus has two repeats or more.

    Parameters
    ----------
    values : array
        (stimulus, repeat, unit), NaN where a repeat is absent.
    rng : Generator
        Draws the halves.

    Returns
    -------
    tuple of two arrays
        (stimulus, unit), the mean of each half.

    Examples
    --------
    >>> first, second = split_kernel(np.array([[[1.0], [3.0]]]), np.random.default_rng(0))
    >>> (first + second).item()
    4.0
    """
    absent = np.isnan(values[:, :, 0])
    # Sorting uniform numbers shuffles the repeats; infinities put absent ones last, beyond both halves.
    order = np.argsort(np.where(absent, np.inf, rng.random(absent.shape)), axis=1)
    half = (~absent).sum(axis=1, keepdims=True) // 2
    rank = np.argsort(order, axis=1)
    return tuple(
        np.where(mask[:, :, None], values, 0).sum(axis=1) / half
        for mask in (rank < half, (rank >= half) & (rank < 2 * half))
    )
