"""Factor analysis of the noise: how much of it is shared, along how many dimensions, and by which units."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.linalg import eigh, helmert
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.statistics._estimator import Needs, estimator, finished

LEAST_PRIVATE = 0.01
"""The least private variance, as a part of the unit's variance: that of `fastfa`, public code of Umakantha et al."""
MOST_STEPS = 2000
FEW_UNITS = 500  # below, threads cost linear algebra more time than they save


@dataclass(frozen=True, eq=False)
class FactorAnalysis:
    """Noise as a few shared factors and the private variance of each unit, C = L Lᵀ + diag(private).

    Parameters
    ----------
    loadings : DataArray
        (unit, factor), L, in the units of the responses. Columns are orthogonal, the one with the largest shared
        variance first (`factor` counts from 1), with a sum that is not negative.
    private : DataArray
        (unit), in squared units of the responses.
    log_likelihood : DataArray
        (n_factors) from 0 up, held out, in nats for each degree of freedom.
    dof : int
        Degrees of freedom of the covariance that was fitted, Σ(Rₛ − 1).
    converged : bool
        Whether the final fit and all fits to folds have converged.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> fitted = factor_analysis(da, n_factors=1, max_factors=2, n_folds=4, rng=0)
    >>> fitted.loadings.shape, fitted.dof, fitted.shared_dimensionality()
    ((10, 1), 200, 1)
    """

    loadings: xr.DataArray
    private: xr.DataArray
    log_likelihood: xr.DataArray
    dof: int
    converged: bool

    @property
    def n_factors(self) -> int:
        return self.loadings.sizes["factor"]

    @property
    def percent_shared_variance(self) -> xr.DataArray:
        """100 (L Lᵀ)ᵢᵢ / (L Lᵀ + private)ᵢᵢ of each unit: DataArray (unit). Its mean is the paper's %sv."""
        shared = (self.loadings**2).sum("factor")
        return (100 * shared / (shared + self.private)).assign_attrs(self.private.attrs, units="%")

    @property
    def loading_similarity(self) -> xr.DataArray:
        """1 − n·var(u) = (Σ uᵢ)² / n of each factor's loadings u of norm 1 over n units: DataArray (factor).

        0 where loadings cancel, 1 where all units have the same; 1/n is expected of loadings in random directions.
        """
        total, squares = self.loadings.sum("unit"), (self.loadings**2).sum("unit")
        return total**2 / squares.where(squares > 0) / self.loadings.sizes["unit"]

    def shared_dimensionality(self, *, threshold: float = 0.95) -> int:
        """How many factors it takes for the part `threshold` of the shared variance tr L Lᵀ; 0 where none is shared."""
        if not 0 < threshold <= 1:
            raise ValueError(f"expected a threshold above 0 and at most 1, got {threshold}")
        shared = (self.loadings.values**2).sum(axis=0)
        if not shared.any():
            return 0
        return int((shared.cumsum() < threshold * (1 - 1e-12) * shared.sum()).sum()) + 1

    def covariance(self) -> LowRankPlusDiagonal:
        """The noise structure, in float32."""
        loadings, private = (np.ascontiguousarray(part.values) for part in (self.loadings, self.private))
        return LowRankPlusDiagonal(torch.from_numpy(loadings).float(), torch.from_numpy(private).float())


def factor_analysis(
    responses: xr.DataArray,
    *,
    n_factors: int | None = None,
    max_factors: int,
    n_folds: int = 10,
    rng: np.random.Generator | int,
) -> FactorAnalysis:
    """Factor analysis of the noise, with a cross-validated number of factors.

    x_sr − m_s = L z + e, z ~ N(0, I), e ~ N(0, diag(private)): maximum likelihood given the pooled noise covariance
    with divisor Σ(Rₛ − 1), so that L Lᵀ + diag(private) has nearly the unbiased variances (scikit-learn's, fitted to
    residuals, are smaller by Σ(Rₛ − 1) / ΣRₛ). As in Umakantha et al. responses are not z-scored: `n_factors` and
    percent_shared_variance do not depend on the units' scales, loading_similarity and shared_dimensionality do.

    Cross-validation: residuals of a stimulus sum to zero, so that held-out ones would be known from the others. The
    folds are therefore of Helmert's contrasts of its trials in random order, √(r/(r + 1)) (x_{r+1} − mean of x_1 … x_r)
    for r = 1 … Rₛ − 1, which sum to nothing, are uncorrelated, have the noise's covariance (for Gaussian noise they
    are independent), and whose sum of squares is that of the residuals. Stimuli shown once have none.

    The number of factors is recovered with many trials; with few, weak ones are missed, and shared variance with them.
    With the true number k, percent_shared_variance is biased as R² of a regression on k factors is: where its true
    value is 100 ρ, by 100 (1 − ρ)(k − 2ρ)/dof (0.8 points for ρ = 0.3, k = 3, dof = 200), if the factors are well
    determined (many units that share much). It is several times that where they are not: 4.6 points, not 1.3, for 20
    units, ρ = 0.1, k = 3, dof = 200. The paper's code advises at least three trials a unit, better five. There may be
    several maxima of the likelihood; the one that is found from private = half of the variance is given. Private
    variance stays above `LEAST_PRIVATE` of the variance (Heywood cases); private.attrs["at_bound"] lists such units.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_factors : int, optional
        Their number; by default that from 0 to `max_factors` with the highest held-out likelihood.
    max_factors : int
        The largest number to try, at most (2n + 1 − √(8n + 1))/2 for n units, above which factors are not identified
        (Ledermann).
    n_folds : int, optional
        The number of folds of the cross-validation; 10 in the paper's public code.
    rng : numpy.random.Generator or int
        Draws the order of the trials from which contrasts are made.

    Returns
    -------
    FactorAnalysis
        Loadings, private variances, the held-out likelihood of each number of factors, and the metrics that follow from
        them.

    Raises
    ------
    ValueError
        If responses are not valid, no stimulus has two repeats, a unit never varies or not outside of some fold, or
        `max_factors`, `n_factors` or `n_folds` is out of range.

    References
    ----------
    Umakantha et al. 2021, doi:10.1016/j.neuron.2021.06.028; Williamson et al. 2016, doi:10.1371/journal.pcbi.1005141;
    Jöreskog 1967, doi:10.1007/BF02289658

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> factor_analysis(da, max_factors=3, n_folds=4, rng=0).n_factors
    0
    """
    responses = Needs(together=True, varying=True).check(responses)
    contrasts = noise_contrasts(responses.values, np.random.default_rng(rng))
    _require_factors(contrasts, n_factors, max_factors, n_folds)
    covariance = contrasts.T @ contrasts / len(contrasts)
    with threadpool_limits(1 if len(covariance) < FEW_UNITS else None):
        likelihood, folds_converged = cross_validated_likelihood(contrasts, max_factors, n_folds)
        chosen = int(likelihood.argmax()) if n_factors is None else n_factors
        loadings, private, converged = factor_analysis_kernel(covariance, chosen)
    at_bound = np.flatnonzero(private <= 1.001 * LEAST_PRIVATE * np.diag(covariance)).tolist()
    return FactorAnalysis(
        loadings=finished(
            xr.DataArray(loadings, {"factor": np.arange(1, chosen + 1)}, ("unit", "factor")), responses, "loadings"
        ),
        private=finished(xr.DataArray(private, dims="unit", attrs={"at_bound": at_bound}), responses, "private"),
        log_likelihood=xr.DataArray(likelihood, coords={"n_factors": np.arange(max_factors + 1)}, dims="n_factors"),
        dof=len(contrasts),
        converged=converged and folds_converged,
    )


def _require_factors(contrasts: np.ndarray, n_factors: int | None, max_factors: int, n_folds: int) -> None:
    dof, n_units = contrasts.shape
    if not 2 <= n_folds <= dof:
        raise ValueError(f"expected from 2 folds to one a degree of freedom, of which there are {dof}, got {n_folds}")
    identified = int((2 * n_units + 1 - (8 * n_units + 1) ** 0.5) / 2)
    most = min(identified, dof - -(-dof // n_folds) - 1)
    if not 0 <= max_factors <= most:
        raise ValueError(f"expected max_factors from 0 to {most} ({n_units} units, {dof} dof), got {max_factors}")
    if n_factors is not None and not 0 <= n_factors <= max_factors:
        raise ValueError(f"expected n_factors from 0 to max_factors = {max_factors}, got {n_factors}")


@estimator(Needs(together=True, varying=True))
def shared_variance(
    responses: xr.DataArray,
    *,
    max_factors: int,
    n_folds: int = 10,
    rng: np.random.Generator | int,
    by: str | None = None,
) -> xr.Dataset:
    """The population metrics of Umakantha et al. 2021: how much of the noise is shared, evenly or not, and along what.

    Those of `factor_analysis`, fitted with the number of factors that it chooses: the mean over units of 100 (L Lᵀ)ᵢᵢ /
    Cᵢᵢ, the similarity (Σ uᵢ)² / n of each factor's loadings of norm 1, and how many factors make up 95 % of tr L Lᵀ.
    Biases and degrees of freedom, Σ(Rₛ − 1), are those that `factor_analysis` describes.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    max_factors : int
        The largest number of factors to try, at most (2n + 1 − √(8n + 1))/2 for n units (Ledermann).
    n_folds : int, optional
        The number of folds of the cross-validation; 10 in the paper's public code.
    rng : numpy.random.Generator or int
        Draws the order of the trials from which contrasts are made.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        With `percent_shared_variance` (unit), `loading_similarity` (factor), and the scalars `shared_dimensionality`
        (the factors that make up 95 % of the shared variance), `n_factors` and `converged`. Without factors 0 % and 0
        dimensions.

    Raises
    ------
    ValueError
        If responses are not valid, not recorded together, no stimulus has two repeats, a unit never varies or not
        outside of some fold, or `max_factors` or `n_folds` is out of range.

    References
    ----------
    Umakantha et al. 2021, doi:10.1016/j.neuron.2021.06.028

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> metrics = shared_variance(da, max_factors=3, n_folds=4, rng=0)
    >>> int(metrics.shared_dimensionality), float(metrics.percent_shared_variance.mean())
    (0, 0.0)
    """
    fitted = factor_analysis(responses, max_factors=max_factors, n_folds=n_folds, rng=rng)
    metrics = {
        "percent_shared_variance": fitted.percent_shared_variance.variable,
        "loading_similarity": fitted.loading_similarity,
        "shared_dimensionality": fitted.shared_dimensionality(),
        "n_factors": fitted.n_factors,
        "converged": fitted.converged,
    }
    return xr.Dataset(metrics)


def noise_contrasts(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(Σ(Rₛ − 1), unit): Helmert's contrasts of each stimulus's trials in random order, the rows in random order."""
    present = ~np.isnan(values[:, :, 0])
    # Helmert's matrix has orthonormal rows that sum to 0: R trials become R − 1 contrasts without the mean, with the
    # noise's covariance each. The order is random, so that no contrast is that of the first trials shown.
    contrasts = [helmert(kept.sum()) @ rng.permutation(trials[kept]) for trials, kept in zip(values, present)]
    return rng.permutation(np.concatenate(contrasts))


def cross_validated_likelihood(contrasts: np.ndarray, max_factors: int, n_folds: int) -> tuple[np.ndarray, bool]:
    """Held-out log-likelihood for each row with 0 … `max_factors` factors, and whether all fits have converged."""
    total = contrasts.T @ contrasts
    likelihood, all_converged = np.zeros(max_factors + 1), True
    for fold in np.array_split(contrasts, n_folds):
        # The training covariance is the whole scatter less the fold's: no second pass over the trials.
        held_out = fold.T @ fold
        covariance = (total - held_out) / (len(contrasts) - len(fold))
        constant = np.flatnonzero(np.diag(covariance) <= 1e-9 * np.diag(total) / len(contrasts))
        if len(constant):
            raise ValueError(f"expected units that vary outside of each fold, got positions {constant[:5].tolist()}")
        for n_factors in range(max_factors + 1):
            loadings, private, converged = factor_analysis_kernel(covariance, n_factors)
            likelihood[n_factors] += _log_likelihood(loadings @ loadings.T + np.diag(private), held_out, len(fold))
            all_converged &= converged
    return likelihood / len(contrasts), all_converged


def _log_likelihood(model: np.ndarray, scatter: np.ndarray, n: int) -> float:
    """Of `n` rows with the given scatter matrix (sum of outer products) under N(0, model)."""
    # Σ_k xₖᵀ Σ⁻¹ xₖ = tr(Σ⁻¹ Σ_k xₖ xₖᵀ): a fold enters by its scatter matrix alone.
    log_determinant = np.linalg.slogdet(2 * np.pi * model)[1]
    return -0.5 * (n * log_determinant + np.trace(np.linalg.solve(model, scatter)))


def factor_analysis_kernel(covariance: np.ndarray, n_factors: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Maximum-likelihood loadings (unit, factor) and private variances (unit), and whether the fit has converged.

    The likelihood at the best loadings is a function of the private variances alone, of which `_misfit` has the
    gradient (Jöreskog 1967). The EM algorithm of scikit-learn has the same maximum, but takes thousands of steps to it
    where factors are weak. Costs O(n³) a step, whatever the number of trials.

    Parameters
    ----------
    covariance : numpy.ndarray
        (unit, unit), of units that all vary.
    n_factors : int
        The number of factors.

    Returns
    -------
    tuple
        Loadings (unit, factor), private variances (unit,), and whether the fit has converged.
    """
    covariance = covariance.astype(float, copy=False)
    variance = np.diag(covariance)
    if n_factors == 0:
        return np.empty((len(variance), 0)), variance.copy(), True
    # The logarithm of private variances: steps are then the same whatever a unit's scale. The start, half of each
    # variance, is the same for all fits, so that folds find like maxima. The bounds: with less than the least a unit
    # would have no noise of its own, and the likelihood no limit (Heywood); with all of its variance it shares nothing.
    fitted = minimize(
        _misfit,
        np.log(variance / 2),
        args=(covariance, n_factors),
        jac=True,
        method="L-BFGS-B",
        bounds=np.log(np.stack([LEAST_PRIVATE * variance, variance], axis=1)),
        options={"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-13, "gtol": 1e-6},
    )
    private = np.exp(fitted.x)
    # L is known up to a rotation: its singular vectors are the orthogonal columns, the largest shared variance first;
    # the sign that makes the sum of a column positive lets fits be compared.
    axes, scale, _ = np.linalg.svd(_best_loadings(covariance, private, n_factors)[0], full_matrices=False)
    return axes * scale * np.where(axes.sum(axis=0) < 0, -1, 1), private, bool(fitted.success)


def _misfit(log_private: np.ndarray, covariance: np.ndarray, n_factors: int) -> tuple[float, np.ndarray]:
    """log |Σ| + tr Σ⁻¹C for the best loadings, and its gradient."""
    private = np.exp(log_private)
    # Profile likelihood: with D = Ψ^−½ C Ψ^−½ = U diag(θ) Uᵀ the best loadings are Ψ^½ U_k (θ_k − 1)^½, for which
    # log|Σ| = Σ log ψ + Σ_k log θ and tr Σ⁻¹C = tr D − Σ_k (θ − 1), k for the factors. Moving Ψ also moves the best
    # loadings, but at their maximum that changes nothing to first order (envelope theorem): what remains is
    # ∂/∂log ψᵢ = ψᵢ (Σ⁻¹(Σ − C)Σ⁻¹)ᵢᵢ = (Σ − C)ᵢᵢ/ψᵢ.
    loadings, ratios = _best_loadings(covariance, private, n_factors)
    residual = (loadings**2).sum(axis=1) + private - np.diag(covariance)
    misfit = log_private.sum() + (np.diag(covariance) / private).sum() + (np.log(ratios) - ratios + 1).sum()
    return misfit, residual / private


def _best_loadings(covariance: np.ndarray, private: np.ndarray, n_factors: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings that maximise the likelihood given the private variances, and the total over private variance of each.

    Total over private variance is an eigenvalue of diag(private)^-½ C diag(private)^-½; below 1 nothing is shared.
    """
    scale = np.sqrt(private)
    n_units = len(scale)
    ratios, axes = eigh(covariance / np.outer(scale, scale), subset_by_index=(n_units - n_factors, n_units - 1))
    # A direction with less than its private variance has nothing to share: its loading is 0, not imaginary.
    ratios = np.maximum(ratios, 1)
    return scale[:, None] * axes * np.sqrt(ratios - 1), ratios
