"""Noise covariance and noise correlation (r_sc): pooled over stimuli or for each, from residuals or from differences.

Degrees of freedom: Rₛ repeats of a stimulus give Rₛ − 1, and add over stimuli; differences of neighbouring trials,
which overlap, are worth 2(Rₛ − 1)²/(3Rₛ − 4).
"""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from neurovar.responses import DIMS, recordings, repeat_counts, residuals_kernel
from neurovar.statistics._estimator import Needs, estimator, require_repeats, squared_units
from neurovar.statistics.estimation._deviations import (
    bounded,
    deviations,
    dof_of,
    gram,
    gram_of_each,
    inverse,
    inverse_norm,
    rows_of,
    shared_dof,
)
from neurovar.statistics.estimation._out_of_core import in_order, tiled_correlation, tiled_covariance


@estimator(Needs(pairs=True))
def noise_covariance(
    responses: xr.DataArray, *, per_stimulus: bool = False, differences: bool = False, by: str | None = None
) -> xr.DataArray:
    """Noise covariance pooled over stimuli, or of each stimulus.

    C = Σ_s Σ_r (x_sr − x̄_s)(x_sr − x̄_s)ᵀ / Σ_s (Rₛ − 1), in squared units of the responses; with `per_stimulus` the
    same without the sums over s.

    Unbiased, with Σ(Rₛ − 1) degrees of freedom (in attrs["dof"]), if noise has the same covariance for every stimulus;
    otherwise it is the average over stimuli weighted by Rₛ − 1. A drift of the responses counts as noise.

    With `differences` the residuals x_sr − x̄_s are replaced by (x_s,r+1 − x_sr)/√2 of each trial and the next one of
    its stimulus; the divisor stays. Also unbiased if trials are independent; a drift that is slow from one repeat to
    the next hardly counts (steps of b from repeat to repeat add b²/2, to residuals b² R(R + 1)/12). As neighbouring
    differences share a trial they are worth fewer degrees of freedom, (Σ(Rₛ − 1))² / Σ(3Rₛ − 4)/2: all of them with two
    repeats, 4/5 with three, 2/3 with many. Pairs that do not overlap would be worth ⌊Rₛ/2⌋, which is never more.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent; for `differences` a coordinate `presentation` (stimulus,
        repeat) tells the order shown; without it the repeats are in the order shown.
    per_stimulus : bool, optional
        Whether to estimate one matrix for each stimulus.
    differences : bool, optional
        Whether differences of neighbouring trials take the place of residuals.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit, other_unit), NaN for pairs that were not recorded together (`responses.mark`); with `per_stimulus`
        (stimulus, unit, other_unit), NaN for stimuli with one repeat, and a coordinate `dof` (stimulus) instead of
        attrs["dof"].

    Raises
    ------
    ValueError
        If responses are not valid, no two units were recorded together, or no stimulus has two repeats.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842; of differences von Neumann et al. 1941, doi:10.1214/aoms/1177731746

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0, 0.0], [3.0, 2.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]})
    >>> noise_covariance(da).values
    array([[2., 2.],
           [2., 2.]])
    """
    n_repeats = repeat_counts(responses).values
    values = _values(responses, per_stimulus=per_stimulus, differences=differences)
    if isinstance(values, np.ndarray):
        matrix, _ = noise_covariance_kernel(values, per_stimulus=per_stimulus, differences=differences)
    else:
        matrix = tiled_covariance(values, int((n_repeats - 1).sum()), differences=differences)
    return _matrices(matrix, responses, n_repeats, differences=differences).assign_attrs(units=squared_units(responses))


def noise_covariance_kernel(values: Any, *, per_stimulus: bool = False, differences: bool = False) -> tuple[Any, Any]:
    """`noise_covariance` of an array (stimulus, repeat, unit) of NumPy or torch, and its degrees of freedom.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    per_stimulus : bool, optional
        Whether to estimate one matrix for each stimulus.
    differences : bool, optional
        Whether differences of neighbouring repeats take the place of residuals.

    Returns
    -------
    tuple of array
        The matrix (unit, unit), or (stimulus, unit, unit), and its degrees of freedom, a number or (stimulus,).
    """
    xp = array_namespace(values)
    noise, exists, n = deviations(values, differences=differences)
    if per_stimulus:
        matrix = gram_of_each(noise)
        # Only the stimulus's own trials: Rₛ − 1, and NaN for a stimulus that was shown once.
        matrix /= xp.where(n > 0, n, xp.nan)[:, None, None]
    else:
        matrix = gram(rows_of(noise, exists))
        # Why N − S: the mean of Rₛ trials is fitted to them, so that E Σ_r e_sr e_srᵀ = (Rₛ − 1) C for residuals e.
        # Summed over S stimuli with N = ΣRₛ trials that is (N − S) C, whatever the Rₛ.
        matrix /= float(xp.sum(n))
    return matrix, dof_of(n, per_stimulus=per_stimulus, differences=differences)


def noise_trials(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Residuals of the trials that are present, (trial, unit), and Σ(Rₛ − 1)."""
    present = ~np.isnan(values[:, :, 0])
    return residuals_kernel(values)[present], int((present.sum(axis=1) - 1).sum())


@estimator(Needs(pairs=True, varying=True))
def noise_correlation(
    responses: xr.DataArray,
    *,
    zscore: bool = True,
    per_stimulus: bool = False,
    differences: bool = False,
    by: str | None = None,
) -> xr.DataArray:
    """Noise correlation r_sc of each pair of units: Pearson correlation of their residuals.

    With `zscore` each unit's residuals are first divided by their standard deviation for that stimulus (dof Rₛ − 1),
    so that stimuli with large variance do not dominate; stimuli for which a unit never varies are left out of its
    pairs. Without, it is the correlation of `noise_covariance`. With `per_stimulus` there is one matrix a stimulus, and
    `zscore` changes nothing. With `differences`, those of neighbouring trials take the place of residuals, as in
    `noise_covariance`, also in the standard deviation: a drift that is slow from one repeat to the next hardly counts.

    The estimate of a correlation ρ is biased toward zero by about ρ(1 − ρ²)/(2·dof). Without `zscore`, dof = Σ(Rₛ − 1)
    (in attrs["dof"]; of `differences` fewer, as in `noise_covariance`), and the bias is negligible. With it or
    `per_stimulus`, dof = Rₛ − 1 (of differences 2(Rₛ − 1)²/(3Rₛ − 4)): the pooled estimate is the mean of the
    correlations for each stimulus, and more stimuli do not help (of a small ρ one eighth is lost with five repeats, one
    eighteenth with ten). With only two repeats, z-scored residuals are ±1/√2 whatever the noise: use more repeats or
    zscore=False.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent; for `differences` a coordinate `presentation` (stimulus,
        repeat) tells the order shown; without it the repeats are in the order shown.
    zscore : bool, optional
        Whether to divide residuals by their standard deviation for each stimulus first.
    per_stimulus : bool, optional
        Whether to estimate one matrix for each stimulus.
    differences : bool, optional
        Whether differences of neighbouring trials take the place of residuals.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit, other_unit), diagonal 1, without units; NaN for pairs that never vary for the same stimulus, or
        that were not recorded together (`responses.mark`). With `per_stimulus` (stimulus, unit, other_unit), with a
        coordinate `dof` (stimulus) instead of attrs["dof"]; NaN, on the diagonal too, for units that do not vary for
        the stimulus and for stimuli with fewer than three repeats.

    Raises
    ------
    ValueError
        If responses are not valid, no two units were recorded together, no stimulus has two repeats, a unit never
        varies, or (with `zscore` or `per_stimulus`) no stimulus has three repeats.

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
    n_repeats = repeat_counts(responses).values
    require_repeats(n_repeats, 3 if zscore or per_stimulus else 2)
    values = _values(responses, per_stimulus=per_stimulus, differences=differences)
    if isinstance(values, np.ndarray):
        matrix = noise_correlation_kernel(values, zscore=zscore, per_stimulus=per_stimulus, differences=differences)
    else:
        matrix = tiled_correlation(values, zscore=zscore, differences=differences)
    return _matrices(matrix, responses, n_repeats, differences=differences)


def noise_correlation_kernel(
    values: Any, *, zscore: bool = True, per_stimulus: bool = False, differences: bool = False
) -> Any:
    """`noise_correlation` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    zscore : bool, optional
        Whether to divide residuals by their standard deviation for each stimulus first.
    per_stimulus : bool, optional
        Whether to estimate one matrix for each stimulus.
    differences : bool, optional
        Whether differences of neighbouring repeats take the place of residuals.

    Returns
    -------
    array of NumPy or torch
        (unit, unit), or (stimulus, unit, unit).
    """
    xp = array_namespace(values)
    noise, exists, n = deviations(values, differences=differences)
    if not (zscore or per_stimulus):
        rows = rows_of(noise, exists)
        # Columns of length 1: their products are the correlations at once.
        norm = xp.sqrt(xp.sum(rows * rows, axis=0))
        rows *= inverse(norm, norm > 0, otherwise=xp.nan)
        return bounded(gram(rows))
    scale = inverse_norm(values, noise)
    if per_stimulus:
        # Of two trials the correlation is ±1 whatever the noise, so that a stimulus needs three (n > 1).
        noise *= xp.where((scale > 0) & (n > 1)[:, None], scale, xp.nan)[:, None]
        return bounded(gram_of_each(noise))
    return bounded(_mean_correlation(noise, exists, scale, n))


def _mean_correlation(noise: Any, exists: Any, scale: Any, n: Any) -> Any:
    """Mean over stimuli, weighted by n = Rₛ − 1, of the correlations where both units vary; overwrites `noise`."""
    xp = array_namespace(noise)
    # Rows e/‖e‖·√(Rₛ − 1) of stimulus s: products of two units sum to (Rₛ − 1) r_s, over all stimuli to Σ(Rₛ − 1) r_s.
    weight = xp.sqrt(n)[:, None]
    varies = scale > 0
    noise *= (scale * weight)[:, None]
    # If every unit varies for every stimulus all pairs have the same divisor Σ(Rₛ − 1), and no matrix of it is needed.
    if bool(xp.all(varies | (n == 0)[:, None])):
        noise /= float(xp.sum(n)) ** 0.5
        return gram(rows_of(noise, exists))
    return gram(rows_of(noise, exists), over=shared_dof(n, varies))


def _values(responses: xr.DataArray, *, per_stimulus: bool, differences: bool) -> Any:
    """The array to compute from: NumPy's, or dask's where responses are chunked and the result is one matrix."""
    if per_stimulus:
        # A matrix for each stimulus outgrows any memory that the responses do not fit into.
        responses = responses.compute()
    if differences:
        return _in_order_shown(responses)
    return responses.data if responses.chunks is not None else responses.values


def _in_order_shown(responses: xr.DataArray) -> Any:
    """The values, each stimulus's repeats in the order of the coordinate `presentation` if there is one."""
    values: Any = responses.data if responses.chunks is not None else responses.values
    if "presentation" not in responses.coords or responses["presentation"].dims != DIMS[:2]:
        return values
    shown = responses["presentation"].values
    # As `responses.arrange` gives them: nothing to sort. Absent trials have −1; they are sorted first and drop out.
    if (shown[:, 1:] >= shown[:, :-1]).all():
        return values
    order = np.argsort(shown, axis=1, kind="stable")
    return in_order(values, order) if responses.chunks is not None else np.take_along_axis(values, order[:, :, None], 1)


def _matrices(matrix: Any, responses: xr.DataArray, n_repeats: np.ndarray, *, differences: bool) -> xr.DataArray:
    """A matrix, or one for each stimulus, with its degrees of freedom; NaN across recordings."""
    number = recordings(responses)
    if number.any():
        # Trials of different recordings share nothing but their number: what is computed across has no meaning.
        matrix = array_namespace(matrix).where(number[:, None] == number, matrix, np.nan)
    dof = dof_of(n_repeats - 1, per_stimulus=matrix.ndim == 3, differences=differences)
    if matrix.ndim == 2:
        return xr.DataArray(matrix, dims=("unit", "other_unit"), attrs={"dof": dof})
    return xr.DataArray(matrix, {"dof": ("stimulus", dof)}, ("stimulus", "unit", "other_unit"))
