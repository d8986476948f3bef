"""Responses without what moves slowly, or moves all units together: a drift, a shared gain."""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from neurovar.responses import DIMS, floating, means_kernel, residuals_kernel
from neurovar.statistics._estimator import Needs

UNITS_TOGETHER = 500  # whose running sums are held at once, in float64


def remove_drift(responses: xr.DataArray, *, window: int) -> xr.DataArray:
    """Responses without drift: minus each unit's running mean, over presentations, of its residuals.

    x′_t = x̄_s + (e_t − m_t) / √(1 + v_t), where e_t = x_t − x̄_s is the residual of the trial shown t-th, and
    m_t = v_t Σ_u e_u, v_t = 1 / Σ_u (1 − 1/R_u), over the other trials u of its stretch, those shown from
    t − (window − 1)/2 to t + (window − 1)/2; at the ends, what there is of it. R_u is the number of repeats of u's
    stimulus: the part 1/R_u of a drift is lost to the stimulus mean, and m_t makes up for it. The trial itself is left
    out, so that its noise is not taken from itself. v_t, about 1/(window − 1), is the part of its variance that
    independent noise adds through m_t; the root takes it off.

    So independent noise keeps its covariance, if stimuli come in random order: the bias is a part of 0 to 3/T with T
    trials in all. Of the variance of a drift at a constant rate about 1 part in (R − 1)(window − 1) stays, and at the
    ends, where stretches have one side, a change as over a quarter of a window. Changes faster than the window stay.
    The running mean divides the degrees of freedom by about 1 + 1.7 v, which the `dof` of statistics does not know.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit) with the coordinate `presentation` (stimulus, repeat), each trial's place in the order
        shown, as `responses.arrange` gives it. Places that are missing stay empty.
    window : int
        How many presentations a stretch has: odd, 3 or more.

    Returns
    -------
    DataArray
        As given; attrs["drift_removed"] says how. Counts are then no whole numbers, and may be negative.

    Raises
    ------
    ValueError
        If responses are not valid, no stimulus has two repeats, trials have no `presentation` or share one, the window
        is even or less than 3, or no trial has another one within it.

    References
    ----------
    Bair et al. 2001, doi:10.1523/JNEUROSCI.21-05-01676.2001, on correlations from slow changes

    Examples
    --------
    >>> from neurovar.responses import arrange
    >>> da = arrange(np.arange(8.0)[:, None], np.array([0, 1] * 4))
    >>> remove_drift(da, window=3).values[0, :, 0].round(1).tolist()
    [3.7, 4.3, 3.8, 3.3]
    """
    responses = Needs().check(responses)
    if window < 3 or window % 2 != 1:
        raise ValueError(f"expected an odd window of at least 3 presentations, got {window}")
    values = remove_drift_kernel(responses.values, _presentations(responses), window)
    how = f"running mean of the residuals of the other trials within {window} presentations"
    return responses.copy(data=values).assign_attrs(drift_removed=how)


def _presentations(responses: xr.DataArray) -> np.ndarray:
    """Each trial's place in the order shown, (stimulus, repeat)."""
    if "presentation" not in responses.coords or responses["presentation"].dims != DIMS[:2]:
        raise ValueError(
            "expected a coordinate 'presentation' (stimulus, repeat) with the order shown, as responses.arrange gives, "
            f"got coordinates {', '.join(map(str, responses.coords))}"
        )
    places = responses["presentation"].values
    shown = places[~np.isnan(responses.values[:, :, 0])]
    if not (shown >= 0).all() or len(np.unique(shown)) < len(shown):
        raise ValueError(
            f"expected a presentation of its own, 0 or more, for each of {len(shown)} trials, "
            f"got {len(np.unique(shown))} different ones, the smallest {shown.min()}"
        )
    return places


def remove_drift_kernel(values: np.ndarray, presentation: np.ndarray, window: int) -> np.ndarray:
    """`remove_drift` of an array (stimulus, repeat, unit); `presentation` (stimulus, repeat).

    Parameters
    ----------
    values : numpy.ndarray
        (stimulus, repeat, unit) of NumPy, NaN where a repeat is absent.
    presentation : numpy.ndarray
        (stimulus, repeat), the place of each trial in the order shown.
    window : int
        The number of presentations of a stretch, odd.

    Returns
    -------
    numpy.ndarray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    """
    present = ~np.isnan(values[:, :, 0])
    order = np.argsort(presentation[present])
    trials = tuple(index[order] for index in np.nonzero(present))
    shown = presentation[trials].astype(float)
    start = np.searchsorted(shown, shown - window // 2)
    stop = np.searchsorted(shown, shown + window // 2, side="right")
    # A residual of R trials has the part 1 − 1/R of its trial's noise variance and, of a slow drift, of its value.
    left = (1 - 1 / present.sum(axis=1))[trials[0], None]  # the part of noise and drift that is in residuals
    others = _sum_of_others(left, start, stop)
    if not (others > 0.1).any():
        raise ValueError(f"expected a window that reaches from a trial to the next, got {window} presentations")
    weight = np.where(others > 0.1, 1 / np.maximum(others, 0.1), 0)  # if not 0 it is 1/2 or more
    # e_t − m_t has the variance of e_t plus that of m_t, a part `weight` of it, since m_t has other trials only.
    scale = 1 / np.sqrt(1 + weight)
    noise, result = residuals_kernel(values), floating(values).copy()
    for first in range(0, values.shape[2], UNITS_TOGETHER):
        block = (*trials, slice(first, first + UNITS_TOGETHER))
        drift = _sum_of_others(noise[block], start, stop) * weight
        result[block] += (noise[block] - drift) * scale - noise[block]
    return result


def _sum_of_others(series: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Sum over each stretch of rows, without the row itself."""
    # Sums over stretches are differences of running sums; these grow over the session, so that float32 would lose
    # the digits that the differences need.
    total = np.concatenate([np.zeros((1, series.shape[1])), np.cumsum(series, axis=0, dtype=float)])
    return total[stop] - total[start] - series


def remove_gain(responses: xr.DataArray) -> xr.DataArray:
    """Responses without the gain that all units share: x′_u = x_u − (g_u − 1) x̄_u for every trial.

    g_u = Σ_{j≠u} x_j x̄_j / Σ_{j≠u} x̄_j² is the gain of the other units, by least squares of the trial on the stimulus
    means x̄; the unit itself is left out, so that its noise is not taken from itself. It is relative to the mean gain
    of the stimulus's repeats: stimulus means stay as they are. A gain of 1 is taken where (almost) no other unit
    responds.

    A multiplicative gain that is common to all units goes, and with it all other noise along the mean response. It goes
    wholly if the rest of the noise is Poisson; as the estimate is made of noisy means, of noise that does not grow with
    the gain a part 1/(1 + R·Σμ²/Σσ²) of its deviations from 1 stays (R repeats, μ the means of the units, σ² their
    variances).
    Noise in g adds noise: of independent noise with variances σ², unit u's grows by
    μ_u² Σ_{j≠u} σ_j² μ_j² / (Σ_{j≠u} μ_j²)², and pairs of units get a negative correlation; with N units that are alike
    the variance becomes σ² N/(N − 1), the correlation −1/(N − 1). It is worth its price in large populations only.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    DataArray
        As given; attrs["gain_removed"] says how. Counts are then no whole numbers, and may be negative.

    Raises
    ------
    ValueError
        If responses are not valid, not recorded together, are residuals, have fewer than 2 units or no stimulus with
        two repeats.

    References
    ----------
    Of shared gain: Goris et al. 2014, doi:10.1038/nn.3711; Ecker et al. 2014, doi:10.1016/j.neuron.2014.02.006;
    Lin et al. 2015, doi:10.1016/j.neuron.2015.06.035 (with an additive part, which stays here)

    Examples
    --------
    >>> mean, gain = np.array([1.0, 2.0, 3.0]), np.array([[0.5], [1.5]])
    >>> da = xr.DataArray([gain * mean], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]})
    >>> remove_gain(da).values.tolist()
    [[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]]
    """
    responses = Needs(units=2, together=True, means=True).check(responses)
    how = "least squares of each trial on the stimulus means of the other units"
    return responses.copy(data=remove_gain_kernel(responses.values)).assign_attrs(gain_removed=how)


def remove_gain_kernel(values: Any) -> Any:
    """`remove_gain` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    """
    xp, values = array_namespace(values), floating(values)
    mean = means_kernel(values)
    power = xp.sum(mean * mean, axis=2, keepdims=True)
    others = power - mean * mean
    # Below that the denominator is what rounding leaves of `power`: no other unit responds.
    enough = others > xp.finfo(values.dtype).eps ** 0.5 * power
    # g_u − 1 = Σ_{j≠u} x_j x̄_j / Σ_{j≠u} x̄_j² − 1 = Σ_{j≠u} (x_j − x̄_j) x̄_j / Σ_{j≠u} x̄_j²: the gain's excess
    # needs the deviations only, and the sum over j ≠ u is the sum over all less the unit's own.
    product = (values - mean) * mean
    excess = xp.sum(product, axis=2, keepdims=True) - product
    excess *= xp.where(enough, mean / xp.where(enough, others, 1), 0)
    return values - excess
