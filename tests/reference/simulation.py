"""What simulated responses should be like: by quadrature, by scipy's distributions, and by plain loops."""

import numpy as np
from scipy.stats import nbinom


def z_scores(samples: np.ndarray, truth: np.ndarray | float) -> np.ndarray:
    """(mean over axis 0 − truth) / its standard error."""
    return (samples.mean(axis=0) - truth) / (samples.std(axis=0, ddof=1) / len(samples) ** 0.5)


def gamma_poisson(count: np.ndarray, *, mean: float, gain_variance: float) -> np.ndarray:
    """P(n ≤ count) of a Poisson count whose rate has a gamma gain: r = 1/σ² failures, success p = 1/(1 + σ² μ)."""
    return nbinom.cdf(count, 1 / gain_variance, 1 / (1 + gain_variance * mean))


def lognormal_gain_moments(rates: np.ndarray, covariance: np.ndarray, *, points: int = 40) -> np.ndarray:
    """Covariance of Poisson counts with gains exp(e − C_uu/2), e ~ N(0, C), by Gauss–Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    n = len(rates)
    result = np.empty((n, n))
    for u in range(n):
        for v in range(n):
            a = covariance[u, u] ** 0.5
            b = covariance[u, v] / a
            c = max(covariance[v, v] - b**2, 0) ** 0.5
            product = 0.0
            for x, wx in zip(nodes, weights):
                for y, wy in zip(nodes, weights):
                    first = rates[u] * np.exp(a * x - covariance[u, u] / 2)
                    second = rates[v] * np.exp(b * x + c * y - covariance[v, v] / 2)
                    product += wx * wy * first * second
            result[u, v] = product - rates[u] * rates[v] + (rates[u] if u == v else 0)
    return result


def linear_fisher_information(covariance: np.ndarray, derivative: np.ndarray) -> float:
    """f′ᵀ C⁻¹ f′."""
    return float(derivative @ np.linalg.solve(covariance, derivative))


def z_test_power(standard_error: float, difference: float, *, n: int = 200_000, seed: int = 0) -> float:
    """How often two groups, whose normal estimates differ by `difference` on average, differ beyond 1.96 errors."""
    rng = np.random.default_rng(seed)
    first = rng.normal(0, standard_error, n)
    second = rng.normal(difference, standard_error, n)
    return float((np.abs(second - first) > 1.959964 * 2**0.5 * standard_error).mean())


def pooled_correlation(values: np.ndarray) -> np.ndarray:
    """Noise correlations of whole recordings (stimulus, repeat, unit), by numpy.corrcoef of all residuals."""
    residuals = values - values.mean(axis=1, keepdims=True)
    return np.corrcoef(residuals.reshape(-1, values.shape[2]).T)
