"""Responses drawn around what is expected of each trial."""

import numpy as np
import torch
import xarray as xr

from neurovar.covariance import Covariance
from neurovar.responses import DIMS, validate
from neurovar.statistics.simulation._tuning import tuning


def gaussian(trials: xr.DataArray, *, noise: Covariance, rng: np.random.Generator | int) -> xr.DataArray:
    """Expected responses plus Gaussian noise: x_sr = μ_sr + e_sr, e ~ N(0, C), C = `noise`, independent over trials.

    Parameters
    ----------
    trials : DataArray
        (stimulus, repeat, unit), the expected responses, as from `present`; absent trials stay absent.
    noise : Covariance
        The covariance C, in squared units of the responses.
    rng : numpy.random.Generator or int
        Draws the noise.

    Returns
    -------
    DataArray
        Like `trials`; attrs `model` ("gaussian"), `noise` (the type of C) and `noise_trace`.

    Raises
    ------
    ValueError
        If the trials are not valid or the noise has another number of units.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> from neurovar.statistics import present
    >>> trials = present(tuning(n_stimuli=4, n_units=2, exponent=1.0, rng=0), n_repeats=3, rng=0)
    >>> gaussian(trials, noise=Diagonal.isotropic(2, variance=0.5), rng=0).attrs["noise_trace"]
    1.0
    """
    validate(trials)
    drawn = draw(noise, trials.shape, np.random.default_rng(rng)).astype(float_type(trials), copy=False)
    return trials.copy(data=trials.values + drawn).assign_attrs(model="gaussian", **_truth(noise))


def poisson(rates: xr.DataArray, *, rng: np.random.Generator | int) -> xr.DataArray:
    """Poisson spike counts, independent over units and trials: a Fano factor of 1 and no noise correlation.

    Parameters
    ----------
    rates : DataArray
        (stimulus, repeat, unit), the expected count of each trial; absent trials stay absent.
    rng : numpy.random.Generator or int
        Draws the counts.

    Returns
    -------
    DataArray
        Like `rates`; attrs `units` ("spike count") and `model` ("poisson").

    Raises
    ------
    ValueError
        If the rates are not valid or negative.

    Examples
    --------
    >>> from neurovar.statistics import orientation_tuning, present
    >>> curves = orientation_tuning([0, 90], n_units=2, baseline=0, amplitude=9, concentration=2)
    >>> poisson(present(curves, n_repeats=2, rng=0), rng=0).attrs["model"]
    'poisson'
    """
    _require_rates(rates)
    return _counts(rates, 1.0, np.random.default_rng(rng)).assign_attrs(model="poisson")


def modulated_poisson(
    rates: xr.DataArray, *, gain_variance: float, gain_correlation: float, rng: np.random.Generator | int
) -> xr.DataArray:
    """Poisson spike counts whose rates each trial multiplies by a random gain, in part shared by all units.

    n_sru ~ Poisson(μ_sru G_sru), with gamma gains of mean 1, variance σ² and correlation ρ between units:
    G_u = σ² (A + B_u), A ~ Gamma(ρ/σ²) shared, B_u ~ Gamma((1 − ρ)/σ²) private, both of scale 1. The count of each unit
    is negative binomial, Var n_u = μ_u + σ² μ_u², and Cov(n_u, n_v) = ρ σ² μ_u μ_v.

    Parameters
    ----------
    rates : DataArray
        (stimulus, repeat, unit), the expected count of each trial; absent trials stay absent.
    gain_variance : float
        The variance σ² > 0 of the gain.
    gain_correlation : float
        ρ, from 0 (private gains) to 1 (one gain for all units).
    rng : numpy.random.Generator or int
        Draws the gains and the counts.

    Returns
    -------
    DataArray
        Like `rates`; attrs `units` ("spike count"), `model`, `gain_variance` and `gain_correlation`.

    Raises
    ------
    ValueError
        If the rates are not valid or negative, or σ² or ρ is out of range.

    References
    ----------
    Goris, Movshon & Simoncelli 2014, doi:10.1038/nn.3711 (gamma gains; the shared part is an addition)

    Examples
    --------
    >>> from neurovar.statistics import orientation_tuning, present
    >>> curves = orientation_tuning([0, 90], n_units=2, baseline=0, amplitude=9, concentration=2)
    >>> trials = present(curves, n_repeats=2, rng=0)
    >>> modulated_poisson(trials, gain_variance=0.2, gain_correlation=0.5, rng=0).attrs["gain_correlation"]
    0.5
    """
    _require_rates(rates)
    if not (0 < gain_variance < np.inf and 0 <= gain_correlation <= 1):
        raise ValueError(
            f"expected a gain variance above 0 and a correlation from 0 to 1, got {gain_variance}, {gain_correlation}"
        )
    rng = np.random.default_rng(rng)
    # Gamma shapes add at one scale: A + B_u has shape 1/σ², and times the scale σ² mean 1 and variance σ². What two
    # units share is A, with variance ρσ².
    shared = rng.standard_gamma(gain_correlation / gain_variance, size=(*rates.shape[:2], 1))
    private = rng.standard_gamma((1 - gain_correlation) / gain_variance, size=rates.shape)
    return _counts(rates, gain_variance * (shared + private), rng).assign_attrs(
        model="modulated_poisson", gain_variance=float(gain_variance), gain_correlation=float(gain_correlation)
    )


def poisson_lognormal(rates: xr.DataArray, *, noise: Covariance, rng: np.random.Generator | int) -> xr.DataArray:
    """Poisson spike counts with log-normal gains of mean 1 and any covariance of the log-gains.

    n_sru ~ Poisson(μ_sru exp(e_sru − C_uu/2)), e_sr ~ N(0, C), C = `noise`. The mean is μ_u and
    Cov(n_u, n_v) = μ_u μ_v (exp C_uv − 1) + [u = v] μ_u: noise correlations of either sign, of any structure.

    Parameters
    ----------
    rates : DataArray
        (stimulus, repeat, unit), the expected count of each trial; absent trials stay absent.
    noise : Covariance
        The covariance C of the log-gains, without units.
    rng : numpy.random.Generator or int
        Draws the gains and the counts.

    Returns
    -------
    DataArray
        Like `rates`; attrs `units` ("spike count"), `model`, `noise` (the type of C) and `noise_trace`.

    Raises
    ------
    ValueError
        If the rates are not valid or negative, or the noise has another number of units.

    References
    ----------
    Aitchison & Ho 1989, doi:10.1093/biomet/76.4.643

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> from neurovar.statistics import orientation_tuning, present
    >>> curves = orientation_tuning([0, 90], n_units=2, baseline=0, amplitude=9, concentration=2)
    >>> counts = poisson_lognormal(present(curves, n_repeats=2, rng=0), noise=Diagonal.isotropic(2), rng=0)
    >>> counts.attrs["units"]
    'spike count'
    """
    _require_rates(rates)
    rng = np.random.default_rng(rng)
    # E exp(e) = exp(C_uu/2) for e ~ N(0, C): taken off, the gain's mean is 1.
    gains = np.exp(draw(noise, rates.shape, rng) - noise.diagonal().double().cpu().numpy() / 2)
    return _counts(rates, gains, rng).assign_attrs(model="poisson_lognormal", **_truth(noise))


def population(
    *,
    n_stimuli: int,
    n_repeats: int,
    n_units: int,
    exponent: float = 1.0,
    noise: Covariance | None = None,
    counts: bool = False,
    rng: np.random.Generator | int,
) -> xr.DataArray:
    """Responses with a power-law signal and given noise, in one call.

    x_sr = m_s + e_sr, m as in `tuning` with `exponent`. With `counts=False`, e ~ N(0, C), C = `noise` (default:
    identity), in arbitrary units. With `counts=True`, the responses are Poisson spike counts with means
    5·exp(m/2 − 1/8 + e/2) with e as above (no extra noise by default): a doubly stochastic population whose Fano factor
    is 1 without `noise`.

    Parameters
    ----------
    n_stimuli : int
        The number of stimuli.
    n_repeats : int
        The number of repeats of every stimulus.
    n_units : int
        The number of units.
    exponent : float, optional
        α, of the power law of the signal's spectrum.
    noise : Covariance, optional
        The covariance of the noise, or with `counts` of the log-rates; by default see above.
    counts : bool, optional
        Whether to draw Poisson counts.
    rng : numpy.random.Generator or int
        Draws signal and noise.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit) with attrs["source"] = "simulation" and attrs["exponent"].

    Raises
    ------
    ValueError
        If a size is below 1 or the noise has another number of units.

    Examples
    --------
    >>> population(n_stimuli=4, n_repeats=3, n_units=2, rng=0).shape
    (4, 3, 2)
    """
    shape = (n_stimuli, n_repeats, n_units)
    if min(shape) < 1:
        raise ValueError(f"expected at least one stimulus, repeat and unit, got {shape}")
    rng = np.random.default_rng(rng)
    signal = tuning(n_stimuli=n_stimuli, n_units=n_units, exponent=exponent, rng=rng)
    if noise is not None:
        deviation = draw(noise, shape, rng)
    else:
        deviation = np.zeros(shape) if counts else rng.standard_normal(shape)
    values = signal.values[:, None] + deviation
    if counts:
        # The signal has variance 1, so that E exp(m/2) = exp(1/8): 5 spikes on average, with a spread of rates like
        # cortex.
        values = rng.poisson(5 * np.exp(values / 2 - 1 / 8)).astype(float)
    attrs = signal.attrs | {"units": "spike count"} if counts else signal.attrs
    return xr.DataArray(values, dims=DIMS, coords={"stimulus": signal["stimulus"].values}, attrs=attrs)


def draw(noise: Covariance, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise (stimulus, repeat, unit) in float64."""
    if noise.n != shape[-1]:
        raise ValueError(f"expected noise of {shape[-1]} units, got {noise.n}")
    # Covariances draw with torch: NumPy's generator gives it a seed, so that one `rng` makes the whole simulation.
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    return noise.sample(shape[:-1], generator=generator).double().cpu().numpy()


def float_type(trials: xr.DataArray) -> np.dtype:
    return np.result_type(trials.dtype, np.float32)


def _counts(rates: xr.DataArray, gains: np.ndarray | float, rng: np.random.Generator) -> xr.DataArray:
    """Poisson counts, in floating point for the sake of NaN."""
    absent = np.isnan(rates.values)
    # Poisson has no NaN: absent trials draw at rate 0 and are put back.
    drawn = rng.poisson(np.where(absent, 0, rates.values * gains))
    counts = np.where(absent, np.nan, drawn).astype(float_type(rates), copy=False)
    return rates.copy(data=counts).assign_attrs(units="spike count")


def _require_rates(rates: xr.DataArray) -> None:
    validate(rates)
    if (rates.values < 0).any():
        raise ValueError(f"expected rates of at least 0, got negative ones (smallest {np.nanmin(rates.values):g})")


def _truth(noise: Covariance) -> dict[str, str | float]:
    return {"noise": type(noise).__name__, "noise_trace": noise.trace()}
