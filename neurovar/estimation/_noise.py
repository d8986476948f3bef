"""Noise covariance and noise correlation (r_sc): pooled over stimuli or for each, from residuals or from differences.

Degrees of freedom: Rₛ repeats of a stimulus give Rₛ − 1, and add over stimuli; differences of neighbouring trials,
which overlap, are worth 2(Rₛ − 1)²/(3Rₛ − 4).
"""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, device, is_numpy_array

from neurovar.estimation._common import carried, grouped, labelled_matrix, require_varying, unit_coords
from neurovar.responses import (
    DIMS,
    ROUNDING,
    extremes_kernel,
    floating,
    repeat_counts,
    require_simultaneous,
    residuals_kernel,
    validate,
)


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
    responses : DataArray (stimulus, repeat, unit); for `differences` a coordinate `presentation` (stimulus, repeat)
        tells the order shown; without it the repeats are in the order shown.
    by : a coordinate of unit or stimulus: the covariance of each group.

    Returns
    -------
    DataArray (unit, other_unit); with `per_stimulus` (stimulus, unit, other_unit), NaN for stimuli with one repeat, and
    a coordinate `dof` (stimulus) instead of attrs["dof"]

    Raises
    ------
    ValueError : if responses are not valid, not recorded together, or no stimulus has two repeats.

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
    if by is not None:
        return grouped(
            lambda group: noise_covariance(group, per_stimulus=per_stimulus, differences=differences), responses, by
        )
    validate(responses, min_repeats=2)
    require_simultaneous(responses)
    values = _in_order_shown(responses) if differences else responses.values
    matrix, _ = noise_covariance_kernel(values, per_stimulus=per_stimulus, differences=differences)
    units = f"({responses.attrs.get('units', '?')})²"
    return _labelled(matrix, responses, differences=differences).assign_attrs(units=units)


def noise_covariance_kernel(values: Any, *, per_stimulus: bool = False, differences: bool = False) -> tuple[Any, Any]:
    """`noise_covariance` of an array (stimulus, repeat, unit) of NumPy or torch, and its degrees of freedom."""
    xp = array_namespace(values)
    noise, exists, n = _deviations(values, differences=differences)
    if per_stimulus:
        matrix = _gram(noise)
        matrix /= xp.where(n > 0, n, xp.nan)[:, None, None]
    else:
        matrix = _gram(_rows(noise, exists))
        matrix /= float(xp.sum(n))
    return matrix, _dof(n, per_stimulus=per_stimulus, differences=differences)


def noise_trials(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Residuals of the trials that are present, (trial, unit), and Σ(Rₛ − 1)."""
    present = ~np.isnan(values[:, :, 0])
    return residuals_kernel(values)[present], int((present.sum(axis=1) - 1).sum())


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
    responses : DataArray (stimulus, repeat, unit); `differences` takes the order shown from where `noise_covariance`
        does.
    by : a coordinate of unit or stimulus: the correlations in each group.

    Returns
    -------
    DataArray (unit, other_unit), diagonal 1, without units; NaN for pairs that never vary for the same stimulus. With
    `per_stimulus` (stimulus, unit, other_unit), with a coordinate `dof` (stimulus) instead of attrs["dof"]; NaN, on the
    diagonal too, for units that do not vary for the stimulus and for stimuli with fewer than three repeats.

    Raises
    ------
    ValueError : if responses are not valid, not recorded together, no stimulus has two repeats, a unit never varies, or
        (with `zscore` or `per_stimulus`) no stimulus has three repeats.

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
    if by is not None:
        return grouped(
            lambda group: noise_correlation(group, zscore=zscore, per_stimulus=per_stimulus, differences=differences),
            responses,
            by,
        )
    validate(responses, min_repeats=3 if zscore or per_stimulus else 2)
    require_simultaneous(responses)
    require_varying(responses)
    values = _in_order_shown(responses) if differences else responses.values
    matrix = noise_correlation_kernel(values, zscore=zscore, per_stimulus=per_stimulus, differences=differences)
    return _labelled(matrix, responses, differences=differences)


def noise_correlation_kernel(
    values: Any, *, zscore: bool = True, per_stimulus: bool = False, differences: bool = False
) -> Any:
    """`noise_correlation` of an array (stimulus, repeat, unit) of NumPy or torch."""
    xp = array_namespace(values)
    noise, exists, n = _deviations(values, differences=differences)
    if not (zscore or per_stimulus):
        rows = _rows(noise, exists)
        norm = xp.sqrt(xp.sum(rows * rows, axis=0))
        rows *= _inverse(norm, norm > 0, otherwise=xp.nan)
        return _bounded(_gram(rows))
    norm = xp.sqrt(xp.sum(noise * noise, axis=1))
    low, high = extremes_kernel(values)
    # Residuals of a constant are rounding, not 0: the mean of three times 0.1 is not 0.1.
    varies = (norm > 0) & (high - low > ROUNDING * xp.maximum(xp.abs(low), xp.abs(high)))
    if per_stimulus:
        noise *= _inverse(norm, varies & (n > 1)[:, None], otherwise=xp.nan)[:, None]
        return _bounded(_gram(noise))
    return _bounded(_mean_correlation(noise, exists, _inverse(norm, varies, otherwise=0), n))


def _mean_correlation(noise: Any, exists: Any, scale: Any, n: Any) -> Any:
    """Mean over stimuli, weighted by n = Rₛ − 1, of the correlations where both units vary; overwrites `noise`."""
    xp = array_namespace(noise)
    weight = xp.sqrt(n)[:, None]
    varies = scale > 0
    noise *= (scale * weight)[:, None]
    if bool(xp.all(varies | (n == 0)[:, None])):
        noise /= float(xp.sum(n)) ** 0.5
        return _gram(_rows(noise, exists))
    correlation = _gram(_rows(noise, exists))
    with np.errstate(invalid="ignore"):  # 0 / 0 for pairs that never vary for the same stimulus
        correlation /= _gram(weight * xp.astype(varies, noise.dtype))
    return correlation


def _bounded(correlation: Any) -> Any:
    """Without what rounding adds: between -1 and 1, 1 on the diagonal; overwrites `correlation`."""
    xp = array_namespace(correlation)
    correlation[correlation > 1] = 1
    correlation[correlation < -1] = -1
    unit = xp.arange(correlation.shape[-1], device=device(correlation))
    correlation[..., unit, unit] /= correlation[..., unit, unit]
    return correlation


def _inverse(norm: Any, where: Any, *, otherwise: float) -> Any:
    xp = array_namespace(norm)
    return xp.where(where, 1 / xp.where(where, norm, 1), otherwise)


def _gram(rows: Any) -> Any:
    """rowsᵀ rows, (…, unit, unit), exactly symmetric: NumPy sees to that itself."""
    xp = array_namespace(rows)
    product = xp.matrix_transpose(rows) @ rows
    return product if is_numpy_array(rows) else (product + xp.matrix_transpose(product)) / 2


def _deviations(values: Any, *, differences: bool) -> tuple[Any, Any, Any]:
    """Residuals or differences, (stimulus, trial, unit), 0 where there are none; where there are; Rₛ − 1."""
    xp, values = array_namespace(values), floating(values)
    present = ~xp.isnan(values[:, :, 0])
    n = xp.astype(xp.sum(present, axis=1), values.dtype) - 1
    if differences:
        values, present = _present_first(values, present)
        noise, exists = values[:, 1:] - values[:, :-1], present[:, 1:]
        noise /= 2**0.5
    else:
        noise, exists = residuals_kernel(values), present
    if not bool(xp.all(exists)):
        noise[~exists] = 0
    return noise, exists, n


def _present_first(values: Any, present: Any) -> tuple[Any, Any]:
    """Each stimulus's trials in the same order, without gaps."""
    xp = array_namespace(values)
    if not bool(xp.any(present[:, 1:] & ~present[:, :-1])):
        return values, present
    order = xp.argsort(xp.astype(~present, xp.int8), axis=1, stable=True)
    stimulus = xp.arange(len(values), device=device(values))[:, None]
    return values[stimulus, order], present[stimulus, order]


def _rows(noise: Any, exists: Any) -> Any:
    """The deviations that exist, (trial, unit), without a copy if all do."""
    xp = array_namespace(noise)
    return xp.reshape(noise, (-1, noise.shape[2])) if bool(xp.all(exists)) else noise[exists]


def _dof(n: Any, *, per_stimulus: bool, differences: bool) -> Any:
    """Degrees of freedom from n = Rₛ − 1 (stimulus): of each stimulus, or a number."""
    worth = (3 * n - 1) / 2  # the variance of a sum of n differences that overlap, relative to that of one
    if per_stimulus:
        return n * n / worth * (n > 0) if differences else n
    total = float(n.sum())
    return total**2 / float(worth[n > 0].sum()) if differences else int(total)


def _in_order_shown(responses: xr.DataArray) -> np.ndarray:
    """The values, each stimulus's repeats in the order of the coordinate `presentation` if there is one."""
    values = responses.values
    if "presentation" not in responses.coords or responses["presentation"].dims != DIMS[:2]:
        return values
    shown = responses["presentation"].values
    if (shown[:, 1:] >= shown[:, :-1]).all():
        return values
    return np.take_along_axis(values, np.argsort(shown, axis=1, kind="stable")[:, :, None], axis=1)


def _labelled(matrix: np.ndarray, responses: xr.DataArray, *, differences: bool) -> xr.DataArray:
    """A matrix, or one for each stimulus, with the labels of units and stimuli and the degrees of freedom."""
    dof = _dof(repeat_counts(responses).values - 1, per_stimulus=matrix.ndim == 3, differences=differences)
    if matrix.ndim == 2:
        return labelled_matrix(matrix, responses).assign_attrs(dof=dof)
    stimuli = {name: coord for name, coord in responses.coords.items() if coord.dims == ("stimulus",)}
    coords = unit_coords(responses) | stimuli | {"dof": ("stimulus", dof)}
    return xr.DataArray(matrix, dims=("stimulus", "unit", "other_unit"), coords=coords, attrs=carried(responses))
