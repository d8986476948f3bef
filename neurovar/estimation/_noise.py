"""Noise covariance and noise correlation (r_sc)."""

import numpy as np
import xarray as xr

from neurovar.estimation._common import correlation_kernel, labelled_matrix, require_varying
from neurovar.responses import require_simultaneous, residuals_kernel, validate


def noise_covariance(responses: xr.DataArray) -> xr.DataArray:
    """Noise covariance pooled over stimuli.

    C = Σ_s Σ_r (x_sr − x̄_s)(x_sr − x̄_s)ᵀ / Σ_s (Rₛ − 1), in squared units of the responses.

    Unbiased, with Σ(Rₛ − 1) degrees of freedom (in attrs["dof"]), if noise has the same covariance for every stimulus;
    otherwise it is the average over stimuli weighted by Rₛ − 1.

    Returns
    -------
    DataArray (unit, other_unit)

    Raises
    ------
    ValueError : if responses are not valid or no stimulus has two repeats.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0, 0.0], [3.0, 2.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]})
    >>> noise_covariance(da).values
    array([[2., 2.],
           [2., 2.]])
    """
    validate(responses, min_repeats=2)
    require_simultaneous(responses)
    matrix, dof = noise_covariance_kernel(responses.values)
    return labelled_matrix(matrix, responses).assign_attrs(dof=dof, units=f"({responses.attrs.get('units', '?')})²")


def noise_covariance_kernel(values: np.ndarray) -> tuple[np.ndarray, int]:
    """`noise_covariance` of an array (stimulus, repeat, unit): matrix (unit, unit) and degrees of freedom."""
    trials, dof = noise_trials(values)
    return trials.T @ trials / dof, dof


def noise_trials(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Residuals of the trials that are present, (trial, unit), and Σ(Rₛ − 1)."""
    present = ~np.isnan(values[:, :, 0])
    return residuals_kernel(values)[present], int((present.sum(axis=1) - 1).sum())


def noise_correlation(responses: xr.DataArray, *, zscore: bool = True) -> xr.DataArray:
    """Noise correlation r_sc of each pair of units: Pearson correlation of their residuals.

    With `zscore` each unit's residuals are first divided by their standard deviation for that stimulus (dof Rₛ − 1),
    so that stimuli with large variance do not dominate; stimuli for which a unit never varies are left out of its
    pairs. Without, it is the correlation of `noise_covariance`.

    The estimate of a correlation ρ is biased toward zero by about ρ(1 − ρ²)/(2·dof). Without `zscore`, dof = Σ(Rₛ − 1),
    and the bias is negligible. With it, the estimate is the mean of the correlations for each stimulus, dof = Rₛ − 1:
    more stimuli do not help (of a small ρ one eighth is lost with five repeats, one eighteenth with ten). With only two
    repeats, z-scored residuals are ±1/√2 whatever the noise: use more repeats or zscore=False.

    Returns
    -------
    DataArray (unit, other_unit), diagonal 1, without units; NaN for pairs that never vary for the same stimulus

    Raises
    ------
    ValueError : if responses are not valid, no stimulus has two repeats, a unit never varies, or (with `zscore`) no
        stimulus has three repeats.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0, 0.0], [3.0, 2.0], [2.0, 1.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0]})
    >>> float(noise_correlation(da)[0, 1].round(12))
    1.0
    """
    validate(responses, min_repeats=3 if zscore else 2)
    require_simultaneous(responses)
    require_varying(responses)
    return labelled_matrix(noise_correlation_kernel(responses.values, zscore=zscore), responses)


def noise_correlation_kernel(values: np.ndarray, *, zscore: bool = True) -> np.ndarray:
    """`noise_correlation` of an array (stimulus, repeat, unit)."""
    if not zscore:
        return correlation_kernel(noise_covariance_kernel(values)[0])
    present = ~np.isnan(values[:, :, 0])
    enough = present.sum(axis=1) > 1
    noise = residuals_kernel(values[enough])
    deviation = np.sqrt(np.nansum(noise**2, axis=1, keepdims=True) / (present[enough].sum(axis=1) - 1)[:, None, None])
    # Residuals of a constant are rounding, not 0: the mean of three times 0.1 is not 0.1.
    varies = np.broadcast_to(deviation > 1e-6 * np.nanmax(np.abs(values[enough]), axis=1, keepdims=True), noise.shape)
    z = np.divide(noise, deviation, out=np.zeros_like(noise), where=varies)[present[enough]]
    squares = (z**2).T @ varies[present[enough]].astype(z.dtype)
    scale = np.sqrt(squares * squares.T)
    correlation = np.clip(np.divide(z.T @ z, scale, out=np.full_like(scale, np.nan), where=scale > 0), -1, 1)
    np.fill_diagonal(correlation, 1)
    return correlation
