"""MEME: the power law, or broken power law, whose eigenmoments match the unbiased ones."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from neurovar.statistics.spectra._eigenmoments import MomentEstimate, eigenmoments_kernel, moment_values

LAWS = {"single": ("amplitude", "exponent"), "broken": ("amplitude", "exponent", "late_exponent", "break_rank")}
"""The parameters of each law, in order."""

STEEPEST = 20.0


@dataclass(frozen=True)
class EigenmomentFit:
    """λₙ = amplitude · n^−exponent, or with n^−late_exponent from `break_rank` on, of all `n_units` eigenvalues.

    Parameters
    ----------
    amplitude : float
        c, in squared units of the responses.
    exponent : float
        α, or with a break the exponent α₁ before it.
    late_exponent, break_rank : float or None
        With a break, the exponent α₂ after it and the rank b, which need not be whole.
    standard_error : dict
        One of each parameter, by name.
    moments, fitted_moments : numpy.ndarray
        (moment,), the eigenmoments of the data and of the law.
    n_units : int
        The number of units N, and so of eigenvalues.
    of : str
        "signal" or "noise".

    Examples
    --------
    >>> moments = np.array([1.0, 2.0])
    >>> fit = EigenmomentFit(4.0, 1.0, None, None, {"amplitude": 0.1, "exponent": 0.1}, moments, moments, 3, "signal")
    >>> fit.spectrum().values.round(3).tolist()
    [4.0, 2.0, 1.333]
    """

    amplitude: float
    exponent: float
    late_exponent: float | None
    break_rank: float | None
    standard_error: dict[str, float]
    moments: np.ndarray
    fitted_moments: np.ndarray
    n_units: int
    of: str

    def spectrum(self) -> xr.DataArray:
        """The eigenvalues of the fitted law: DataArray (rank) with attrs["method"] = "meme"."""
        rank = np.arange(1, self.n_units + 1)
        parameters = [getattr(self, name) for name in LAWS["single" if self.break_rank is None else "broken"]]
        return xr.DataArray(
            np.exp(_log_eigenvalues(_to_free(np.array(parameters)), self.n_units)),
            dims="rank",
            coords={"rank": rank},
            attrs={"method": "meme", "of": self.of},
        )


def fit_eigenmoments(
    responses: xr.DataArray,
    *,
    of: str,
    law: str,
    n_moments: int,
    n_splits: int,
    rng: np.random.Generator | int,
) -> EigenmomentFit:
    """MEME, the matched eigenmoment estimate of a power law (Pospisil & Pillow 2024).

    λₙ = c·n^−α for n = 1 … N, or c·n^−α₁ up to the break b and c·b^(α₂−α₁)·n^−α₂ after it (b need not be whole). The
    law's moments Σ λₙᵖ / N are matched to the unbiased ones of `eigenmoments`, p ≤ `n_moments`, by least squares of
    the logarithms, whitened by their jackknife covariance. No axes are estimated, so that noise bends nothing; but the
    result is a law of *all* N eigenvalues: if the spectrum is none of that form, it is the nearest in its moments,
    of which high ones see little but the first ranks. It is not to be compared with exponents of other estimators.

    Bias: of second order, from the logarithm of a noisy moment: below a third of the standard error in simulations
    with independent, low-rank and signal-aligned noise as large as the signal, for `n_moments` from 3 to 10. The break
    needs more data than an exponent: with 1000 stimuli × 2 repeats × 150 units (0.5, then 1.2 from rank 12) the two
    exponents and the logarithm of the break have standard errors of 0.06, 0.05 and 0.2 for 5 draws of pairs, twice
    that and skewed for a single draw. Differences from the published code (github.com/dp4846/meme_v1_bpl): that matches
    the moments themselves, which makes α too small, by one standard error for 10 moments (a moment that came out
    small has a small variance, and so too much weight); takes a single draw; and searches b on a grid.

    Standard errors are over stimuli: the delta method with the moments' jackknife covariance, without the bias.
    `exponent_interval` has intervals over units.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    of : str
        The covariance: "signal" or "noise".
    law : str
        "single" or "broken".
    n_moments : int
        The number of moments to match, at least 2 for "single" and 4 for "broken"; published: 10.
    n_splits : int
        The number of draws of pairs to average over.
    rng : numpy.random.Generator or int
        Draws stimuli, repeats and their order.

    Returns
    -------
    EigenmomentFit
        The law's parameters and their standard errors, and the moments of the data and of the law.

    Raises
    ------
    ValueError
        For another `of`, another law, too few moments for it, no more samples than moments, invalid responses, noise
        of units that were not recorded together, or moments that are not positive.

    References
    ----------
    Pospisil & Pillow 2024, doi:10.1101/2024.02.16.580726; Kong & Valiant 2017, doi:10.1214/16-AOS1525

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=400, n_repeats=2, n_units=50, exponent=1.0, rng=0)
    >>> fit = fit_eigenmoments(da, of="signal", law="single", n_moments=5, n_splits=5, rng=0)
    >>> abs(fit.exponent - 1) < 2 * fit.standard_error["exponent"]
    True
    """
    if law not in LAWS:
        raise ValueError(f"expected law 'single' or 'broken', got {law!r}")
    if n_moments < len(LAWS[law]):
        raise ValueError(f"expected at least {len(LAWS[law])} moments for a {law} law, got {n_moments}")
    values = moment_values(responses, of=of, n_moments=n_moments, n_splits=n_splits)
    estimate = eigenmoments_kernel(values, of, n_moments, n_splits, np.random.default_rng(rng))
    parameters, errors = fit_law(estimate, values.shape[2], law)
    named = dict(zip(LAWS[law], map(float, parameters)))
    return EigenmomentFit(
        amplitude=named["amplitude"],
        exponent=named["exponent"],
        late_exponent=named.get("late_exponent"),
        break_rank=named.get("break_rank"),
        standard_error=dict(zip(LAWS[law], map(float, errors))),
        moments=estimate.moments,
        fitted_moments=_moments(_to_free(parameters), values.shape[2], n_moments),
        n_units=values.shape[2],
        of=of,
    )


def fit_law(estimate: MomentEstimate, n_units: int, law: str) -> tuple[np.ndarray, np.ndarray]:
    """The law's parameters, in the order of `LAWS`, and their standard errors (delta method).

    Raises
    ------
    ValueError : if a moment is not positive.
    """
    moments = estimate.moments
    if not (moments > 0).all():
        first = int(np.flatnonzero(moments <= 0)[0]) + 1
        raise ValueError(
            f"expected positive eigenmoments, got {moments[first - 1]:.3g} for p = {first}; use fewer moments, "
            "more stimuli or more repeats"
        )
    # By the delta method the covariance of log m is that of m over m mᵀ.
    whitening = _whitening(estimate.one_draw / np.outer(moments, moments))

    def misfit(free: np.ndarray) -> np.ndarray:
        return whitening @ np.log(_moments(free, n_units, len(moments)) / moments)

    # The level at which a 1/n law has the first moment, Σλ/N, of the data.
    starts, limits = _starts(float(np.log(moments[0] * n_units / (1 / np.arange(1, n_units + 1)).sum())), n_units, law)
    # The break makes several valleys: one start an octave of ranks, and the best of them.
    fits = [least_squares(misfit, start, bounds=limits, x_scale="jac") for start in starts]
    best = min(fits, key=lambda fit: fit.cost)
    # δθ = J⁺ W δ(log m) to first order, J the Jacobian of the whitened misfit.
    errors = estimate.standard_error(np.linalg.pinv(best.jac) @ whitening / moments)
    parameters = _from_free(best.x)
    # δ(e^x) = e^x δx for what was fitted as a logarithm.
    return parameters, errors * np.where(_is_log(best.x), parameters, 1)


def _starts(level: float, n_units: int, law: str) -> tuple[list[list[float]], tuple[list[float], list[float]]]:
    """Where to start from, breaks twice as far each time, and between which limits to stay."""
    size = float(np.log(n_units))
    if law == "single":
        return [[level, 1.0]], ([-np.inf, 0], [np.inf, STEEPEST])
    starts = [[level, 0.5, 1.5, log_break] for log_break in np.arange(0.5, size, np.log(2))]
    return starts, ([-np.inf, 0, 0, 0], [np.inf, STEEPEST, STEEPEST, size])


def _whitening(covariance: np.ndarray) -> np.ndarray:
    """W with WᵀW the inverse of a covariance matrix, without directions that are rounding errors."""
    values, vectors = np.linalg.eigh(covariance)
    # High moments are nearly functions of low ones: what is below rounding would be whitened into noise.
    kept = values > len(values) * np.finfo(float).eps * values[-1]
    return (vectors[:, kept] / np.sqrt(values[kept])).T


def _moments(free: np.ndarray, n_units: int, n_moments: int) -> np.ndarray:
    log_eigenvalues = _log_eigenvalues(free, n_units)
    return np.exp(np.outer(np.arange(1, n_moments + 1), log_eigenvalues)).mean(axis=1)


def _log_eigenvalues(free: np.ndarray, n_units: int) -> np.ndarray:
    # In logarithms both laws are (piecewise) straight lines, and the break is continuous by construction.
    log_rank = np.log(np.arange(1, n_units + 1))
    if len(free) == 2:
        return free[0] - free[1] * log_rank
    level, early, late, log_break = free
    return level - early * np.minimum(log_rank, log_break) - late * np.maximum(log_rank - log_break, 0)


def _is_log(parameters: np.ndarray) -> np.ndarray:
    """Which parameters are fitted as logarithms: amplitude and break."""
    return np.isin(np.arange(len(parameters)), (0, 3))


def _to_free(parameters: np.ndarray) -> np.ndarray:
    logarithm = _is_log(parameters)
    return np.where(logarithm, np.log(np.where(logarithm, parameters, 1)), parameters)


def _from_free(free: np.ndarray) -> np.ndarray:
    logarithm = _is_log(free)
    return np.where(logarithm, np.exp(np.where(logarithm, free, 0)), free)
