"""How strongly each unit follows the population."""

from typing import Any

import xarray as xr
from array_api_compat import array_namespace

from neurovar.statistics._estimator import Needs, estimator
from neurovar.statistics.estimation._signal import means_and_noise


@estimator(Needs(units=2, together=True, varying=True))
def population_coupling(responses: xr.DataArray, *, by: str | None = None) -> xr.DataArray:
    """Population coupling of each unit: how its noise follows the others'; `by=` groups units or stimuli.

    c_i = corr(e_i, Σ_{j≠i} e_j) over all trials, e the residuals about the mean response to the stimulus. In terms of
    the noise covariance C (dof Σ(Rₛ − 1)), c_i = Σ_{j≠i} C_ij / √(C_ii Σ_{j,k≠i} C_jk).

    The population is the plain sum of the other units' responses, so that the most variable ones weigh most; divide the
    responses by their standard deviations first if all shall weigh the same. Okun et al. 2015 divide the covariance of
    the unit with that sum not by both standard deviations but by the number of the unit's spikes, in spontaneous and
    driven activity alike: c_i · SD_i · SD_{j≠i} / (mean of i). The correlation has no unit, and does not grow with the
    rate by itself; both grow with the number of units, so compare populations of the same size.

    Biased toward zero like a correlation, by about c(1 − c²)/(2·dof): negligible.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit), without units.

    Raises
    ------
    ValueError
        If responses are not valid, not recorded together, have fewer than two units, no stimulus has two repeats, or a
        unit never varies.

    References
    ----------
    Okun et al. 2015, doi:10.1038/nature14273

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0, 0.0, 1.0], [3.0, 2.0, 2.0], [2.0, 1.0, 1.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0]})
    >>> population_coupling(da).round(3).values
    array([0.982, 0.982, 0.866])
    """
    return xr.DataArray(population_coupling_kernel(responses.values), dims="unit")


def population_coupling_kernel(values: Any) -> Any:
    """`population_coupling` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array of NumPy or torch
        (unit,).
    """
    _, noise, _ = means_and_noise(values)
    xp = array_namespace(noise)
    # Σ_{j≠i} e_j is the sum of all less the unit's own, for all units at once.
    others = xp.sum(noise, axis=2)[:, :, None] - noise
    shared = xp.sum(noise * others, axis=(0, 1))
    noise *= noise
    others *= others
    return shared / xp.sqrt(xp.sum(noise, axis=(0, 1)) * xp.sum(others, axis=(0, 1)))
