"""Linear Fisher information, from its published formulas. Nothing here imports `neurovar`."""

import numpy as np


def naive(first: np.ndarray, second: np.ndarray) -> float:
    """Δx̄ᵀ S⁻¹ Δx̄ of trials (trial, unit), by the inverse of the covariance pooled over both stimuli."""
    difference = first.mean(axis=0) - second.mean(axis=0)
    scatter = sum(np.outer(row, row) for trials in (first, second) for row in trials - trials.mean(axis=0))
    return float(difference @ np.linalg.inv(scatter / (len(first) + len(second) - 2)) @ difference)


def kanitscheider(first: np.ndarray, second: np.ndarray, ds: float) -> tuple[float, float, float]:
    """Information, its variance and the shuffled information for T trials of each stimulus: equations 2, 19 and 6."""
    t, n = first.shape
    difference = (first.mean(axis=0) - second.mean(axis=0)) / ds
    covariance = (np.cov(first.T) + np.cov(second.T)) / 2
    plain = difference @ np.linalg.inv(covariance) @ difference
    corrected = plain * (2 * t - n - 3) / (2 * t - 2) - 2 * n / (t * ds**2)
    x = t * corrected * ds**2
    variance = 2 * corrected**2 / (2 * t - n - 5) * (1 + 4 * (2 * t - 3) / x + 4 * n * (2 * t - 3) / x**2)
    shuffled = sum(difference**2 / np.diag(covariance)) * (t - 2) / (t - 1) - 2 * n / (t * ds**2)
    return float(corrected), float(variance), float(shuffled)


def truth(means: np.ndarray, covariance: np.ndarray) -> tuple[float, float]:
    """Information and shuffled information of two stimuli, means (2, unit), at distance 1."""
    difference = means[0] - means[1]
    whole = difference @ np.linalg.inv(covariance) @ difference
    return float(whole), float(sum(difference**2 / np.diag(covariance)))


def shuffle(trials: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each unit's trials in an order of its own."""
    return np.stack([rng.permutation(unit) for unit in trials.T], axis=1)
