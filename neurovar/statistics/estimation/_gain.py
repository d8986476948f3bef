"""Fluctuating gain: spike counts that are Poisson given a gain which varies from trial to trial."""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, device
from scipy.optimize import brentq
from scipy.special import gammaln

from neurovar.statistics._estimator import Needs, estimator
from neurovar.statistics.estimation._counts import COUNTS, NEGLIGIBLE, deviations_kernel, moments_kernel

FITTED = ("gain_variance", "standard_error", "log_likelihood", "poisson_log_likelihood", "gain_share")
LARGEST = 1e6  # gain variance that is looked for
MOST_STEPS = 300  # enough wherever there is a shared gain


@estimator(COUNTS)
def fit_modulated_poisson(responses: xr.DataArray, *, by: str | None = None) -> xr.Dataset:
    """Gain variance of each unit: counts are Poisson with mean gain × μₛ, the gain gamma with mean 1 and variance σ².

    So they are negative binomial, with variance μ + σ² μ². σ² is one number a unit; the mean count μₛ of each stimulus
    is free. Given a stimulus's total count Tₛ, its trials are Dirichlet-multinomial with Rₛ concentrations 1/σ²,
    whatever μₛ: σ² maximises that conditional likelihood,
    L(σ²) = Σ_trials Σ_{j<count} log(1 + jσ²) − Σ_s Σ_{j<Tₛ} log(1 + jσ²/Rₛ) + constant.

    Bias: that of fitting a mean to each stimulus, which makes the usual likelihood's σ² too small by about 1/R of
    itself at high counts however many stimuli there are, is absent. What is left is at most σ²/Σ(Rₛ − 1), where σ² is
    several standard errors. It is never negative: for a Poisson unit 0 half of the time, and 0.4 standard errors on
    average. (`shared_gain` has
    an estimate that can be negative, also for other distributions of the gain.) It is about counts in one window:
    gains that fluctuate within it are averaged over it.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        Along `unit`: `gain_variance`; its `standard_error`, from the curvature of the likelihood (at 0 from the
        variance of its slope for Poisson counts); `log_likelihood` and `poisson_log_likelihood`, of the counts given
        their totals, in nats (twice their difference is ½χ²₀ + ½χ²₁ for a Poisson unit); `gain_share`, the part of the
        noise variance, summed over stimuli with weights Rₛ − 1, that is the gain's: σ²Σμ²/(Σμ + σ²Σμ²). NaN for a unit
        without two spikes to the same stimulus; a gain variance beyond 10⁶ is infinite (every stimulus's spikes come in
        one trial) and has no error.

    Raises
    ------
    ValueError
        If the responses are not counts with two repeats of some stimulus.

    References
    ----------
    Goris, Movshon & Simoncelli 2014, doi:10.1038/nn.3711 (the model)
    Robinson & Smyth 2008, doi:10.1093/biostatistics/kxm030 (the conditional likelihood)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.poisson(5 * rng.gamma(4, 1 / 4, size=(200, 10, 1)))
    >>> da = xr.DataArray(counts, dims=("stimulus", "repeat", "unit"), coords={"stimulus": range(200)},
    ...                   attrs={"units": "spike count"})
    >>> fitted = fit_modulated_poisson(da)
    >>> abs(fitted.gain_variance.item() - 0.25) < 2 * fitted.standard_error.item()
    True
    """
    fitted = fit_modulated_poisson_kernel(responses.values)
    return xr.Dataset({name: ("unit", fitted[:, column]) for column, name in enumerate(FITTED)})


def fit_modulated_poisson_kernel(values: np.ndarray) -> np.ndarray:
    """`fit_modulated_poisson` of an array (stimulus, repeat, unit) of counts: (unit, what `FITTED` names).

    Parameters
    ----------
    values : numpy.ndarray
        (stimulus, repeat, unit) of NumPy, NaN where a repeat is absent.

    Returns
    -------
    numpy.ndarray
        (unit, 5): gain variance, standard error, log-likelihood, that of Poisson counts, and the gain's share of the
        noise variance.
    """
    present = ~np.isnan(values[:, :, 0])
    kept = present.sum(axis=1) > 1
    values, present = values[kept], present[kept]
    mean, variance, n_repeats = moments_kernel(values)
    # m² is too large by Var(m) = variance/R: without it the sum of μ² is unbiased.
    mean_sum = ((n_repeats - 1) * mean).sum(axis=0)
    square_sum = ((n_repeats - 1) * (mean**2 - variance / n_repeats)).sum(axis=0)
    fitted = np.array([_fit(values[:, :, unit], present) for unit in range(values.shape[2])])
    with np.errstate(invalid="ignore", divide="ignore"):
        # σ²Σμ²/(Σμ + σ²Σμ²), in a form that has its limits: 0 at σ² = 0, 1 at infinity.
        share = 1 / (1 + mean_sum / (fitted[:, 0] * square_sum))
    return np.column_stack([fitted, np.where(square_sum > 0, share, np.nan)])


def _fit(values: np.ndarray, present: np.ndarray) -> tuple[float, ...]:
    """Gain variance, standard error, log likelihood and that of Poisson counts, of one unit's (stimulus, repeat)."""
    counts, n_repeats = np.where(present, values, 0).astype(np.int64), present.sum(axis=1)
    totals = counts.sum(axis=1)
    if not (totals > 1).any():
        return np.nan, np.nan, np.nan, np.nan
    # σ² = 0 is the multinomial: Tₛ spikes fall into Rₛ trials with equal probability.
    poisson = float(gammaln(totals + 1).sum() - gammaln(counts + 1).sum() - totals @ np.log(n_repeats))
    step, weight = _terms(counts, totals, n_repeats)

    def score(gain_variance: float) -> float:
        return float(weight @ (step / (1 + step * gain_variance)))

    # The score falls where the likelihood has one maximum; its sign is followed outward by factors of ten.
    upper = 1.0
    while score(upper) > 0:
        upper *= 10
        if upper > LARGEST:
            return np.inf, np.nan, np.nan, poisson
    gain_variance = brentq(score, 0, upper, xtol=1e-12, rtol=1e-10) if score(0) > 0 else 0.0
    if gain_variance > 0:
        # Minus the second derivative of Σ cₖ log(1 + aₖσ²).
        information = float(weight @ (step / (1 + step * gain_variance)) ** 2)
    else:
        # At 0 the score is the number of pairs of spikes in one trial, less its expectation T(T − 1)/(2R): each of the
        # T(T − 1)/2 pairs is together with probability 1/R, any two of them independently. So it has the variance
        # T(T − 1)(R − 1)/(2R²).
        information = float((totals * (totals - 1) * (n_repeats - 1) / (2 * n_repeats**2)).sum())
    error = information**-0.5 if information > 0 else np.nan
    return gain_variance, error, poisson + float(weight @ np.log1p(step * gain_variance)), poisson


def _terms(counts: np.ndarray, totals: np.ndarray, n_repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps aₖ and weights cₖ with which the log likelihood is Σ cₖ log(1 + aₖσ²), up to a constant."""
    # Γ(n + 1/σ²)/Γ(1/σ²)·σ^(2n) = Π_{j<n} (1 + jσ²): each count n adds log(1 + jσ²) for j = 0 … n − 1, each total T
    # of R trials takes off log(1 + jσ²/R) for j < T. Equal terms are gathered: only their number counts.
    weights = [_exceeding(counts.ravel())]
    steps = [np.arange(len(weights[0]), dtype=float)]
    for n in np.unique(n_repeats):
        weights.append(-_exceeding(totals[n_repeats == n]))
        steps.append(np.arange(len(weights[-1])) / n)
    return np.concatenate(steps), np.concatenate(weights).astype(float)


def _exceeding(counts: np.ndarray) -> np.ndarray:
    """How many of the counts are above 0, 1, …, up to the largest."""
    # A count of n has the terms j = 0 … n − 1, so that term j occurs as often as counts exceed j.
    return np.cumsum(np.bincount(counts)[::-1])[::-1][1:]


@estimator(Needs(counts=True, together=True, units=3))
def shared_gain(responses: xr.DataArray, *, by: str | None = None) -> xr.Dataset:
    """Covariances of the units' gains, and the gain that the population shares: counts Poisson given their gains.

    Counts of means μₛᵢ × gain, gains of mean 1 and any distribution, with covariances Gᵢⱼ, have noise covariances
    μₛᵢ μₛⱼ Gᵢⱼ, plus μₛᵢ on the diagonal. With sample covariances Cₛᵢⱼ (dof Rₛ − 1) and means mₛᵢ,
    Gᵢⱼ = N/D, N = Σ_s (Rₛ − 1)(Cₛᵢⱼ − δᵢⱼ mₛᵢ), D = Σ_s (Rₛ − 1)(mₛᵢ mₛⱼ − Cₛᵢⱼ/Rₛ).
    - gain_covariance: G; on its diagonal the gain variance of each unit, shared and private.
    - shared_gain_variance: ΣN/ΣD over i ≠ j, the variance of a gain that all units have in common.
    - loading: λ of a one-dimensional shared gain of variance 1, gainᵢ = 1 + λᵢ z + private; least squares of
      N − λᵢλⱼD over i ≠ j, each unit divided by its noise variance; of the sign that makes Σλ positive.
    - shared_fraction: λᵢ²/Gᵢᵢ, the part of a unit's gain variance that is shared.

    Bias: N and D have none, so that their ratios' vanishes with Σ(Rₛ − 1); variances may come out negative. The
    loadings are fitted, so that without a shared gain they are not 0: compare with what shuffled repeats give. Units
    that are less variable than Poisson have Gᵢᵢ too small, even negative, and shared_fraction too large or NaN.
    Correlated spikes that are not due to gains (synchrony) count as gains.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        With `gain_covariance` (unit, other_unit), `loading` and `shared_fraction` (unit), and the scalar
        `shared_gain_variance`. NaN for units without spikes, where D = 0 (no spikes of i and j to one stimulus in
        different trials), and shared_fraction where Gᵢᵢ ≤ 0.

    Raises
    ------
    ValueError
        If the responses are not counts with two repeats of some stimulus, or there are fewer than three units, or they
        were not recorded together.

    References
    ----------
    Goris, Movshon & Simoncelli 2014, doi:10.1038/nn.3711

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> gain = rng.gamma(10, 1 / 10, size=(300, 10, 1))
    >>> da = xr.DataArray(rng.poisson(6 * gain, size=(300, 10, 20)), dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": range(300)}, attrs={"units": "spike count"})
    >>> round(shared_gain(da).shared_gain_variance.item(), 2)
    0.1
    """
    covariance, shared, loading = shared_gain_kernel(responses.values)
    fraction = np.divide(
        loading**2, np.diag(covariance), where=np.diag(covariance) > 0, out=np.full_like(loading, np.nan)
    )
    return xr.Dataset(
        {
            "gain_covariance": (("unit", "other_unit"), covariance),
            "loading": ("unit", loading),
            "shared_fraction": ("unit", fraction),
            "shared_gain_variance": float(shared),
        }
    )


def shared_gain_kernel(values: Any) -> tuple[Any, Any, Any]:
    """Gain covariance, shared gain variance and loadings of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    tuple of array
        Gain covariance (unit, unit), shared gain variance, and loadings (unit,).
    """
    xp = array_namespace(values)
    mean, deviation, n_repeats = deviations_kernel(values)
    diagonal = xp.arange(mean.shape[1], device=device(mean))
    dof = n_repeats - 1
    trials = xp.reshape(deviation, (-1, mean.shape[1]))
    numerator = trials.T @ trials
    noise = numerator[diagonal, diagonal]
    # A Poisson count adds its mean to its own variance and nothing to covariances: δᵢⱼ mₛᵢ.
    numerator[diagonal, diagonal] = noise - xp.sum(dof * mean, axis=0)
    # E mᵢmⱼ = μᵢμⱼ + Cᵢⱼ/R: the products of means are too large by the noise of the means.
    trials = xp.reshape(deviation / xp.sqrt(n_repeats)[:, None], trials.shape)
    products = (dof * mean).T @ mean
    denominator = products - trials.T @ trials
    # What rounding leaves of equal numbers is no denominator.
    denominator = xp.where(denominator > NEGLIGIBLE * products, denominator, 0)
    covariance = xp.where(denominator > 0, numerator / xp.where(denominator > 0, denominator, 1), xp.nan)
    # From here on i ≠ j: private gains stand on the diagonal alone.
    numerator[diagonal, diagonal], denominator[diagonal, diagonal] = 0, 0
    total = xp.sum(denominator)
    shared = xp.where(total > 0, xp.sum(numerator) / xp.where(total > 0, total, 1), xp.nan)
    return covariance, xp.astype(shared, covariance.dtype), _loadings(numerator, denominator, noise)


def _loadings(numerator: Any, denominator: Any, noise: Any) -> Any:
    """λ that makes Σ (Nᵢⱼ − λᵢλⱼDᵢⱼ)²/(noiseᵢ noiseⱼ) least, over i ≠ j, by alternating least squares.

    Each step goes half of the way: the whole one swings between too large and too small.
    """
    xp = array_namespace(numerator)
    precision = xp.where(noise > 0, 1 / xp.where(noise > 0, noise, 1), 0)
    # The column of G of the unit that covaries most is the loadings up to a factor: a start with the right signs.
    strongest = int(xp.argmax(precision * (numerator**2 @ precision)))
    product, square = numerator * denominator, denominator**2
    loading = _ratio(product[:, strongest], square[:, strongest])
    for _ in range(MOST_STEPS):
        best = _ratio(product @ (precision * loading), square @ (precision * loading**2))
        previous, loading = loading, (loading + best) / 2
        if xp.max(xp.abs(loading - previous)) <= 1e-6 * xp.max(xp.abs(loading)):
            break
    loading = xp.where(xp.sum(loading) < 0, -loading, loading)
    return xp.where(noise > 0, loading, xp.nan)


def _ratio(numerator: Any, denominator: Any) -> Any:
    """Their ratio, 0 where there is none."""
    xp = array_namespace(numerator)
    return xp.where(denominator > 0, numerator / xp.where(denominator > 0, denominator, 1), 0)
