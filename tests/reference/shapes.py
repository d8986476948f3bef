"""The published formulas of the Gaussian stochastic shape distance (Duong et al. 2023), with N × N square roots."""

import numpy as np
from scipy.linalg import orthogonal_procrustes, sqrtm


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (stimulus, unit), centred over stimuli, and covariances (stimulus, unit, unit), NaN trials left out."""
    kept = [repeats[~np.isnan(repeats[:, 0])] for repeats in values]
    means = np.array([repeats.mean(axis=0) for repeats in kept])
    return means - means.mean(axis=0), np.array([np.cov(repeats.T) for repeats in kept])


def squared_bures(covariance: np.ndarray, target: np.ndarray) -> float:
    root = sqrtm(covariance)
    return float(np.trace(covariance) + np.trace(target) - 2 * np.trace(sqrtm(root @ target @ root)).real)


def squared_distance(first: np.ndarray, second: np.ndarray, rotation: np.ndarray, alpha: float) -> float:
    """Mean over stimuli of α |μ − νQ|² + (2 − α) B²(Σ, QᵀΛQ) for one rotation."""
    (means, covariances), (other_means, other_covariances) = moments(first), moments(second)
    parts = [
        alpha * ((m - n @ rotation) ** 2).sum() + (2 - alpha) * squared_bures(c, rotation.T @ d @ rotation)
        for m, n, c, d in zip(means, other_means, covariances, other_covariances)
    ]
    return sum(parts) / len(parts)


def best_rotation(first: np.ndarray, second: np.ndarray, n_iterations: int = 500) -> np.ndarray:
    """The rotation for α = 1, by alternating Procrustes problems over means and roots of the covariances."""
    (means, covariances), (other_means, other_covariances) = moments(first), moments(second)
    roots = [sqrtm(c).real for c in covariances]
    other_roots = [sqrtm(c).real for c in other_covariances]
    rotation, _ = orthogonal_procrustes(other_means, means)
    for _ in range(n_iterations):
        turned = [orthogonal_procrustes((b @ rotation).T, a.T)[0].T @ b for a, b in zip(roots, other_roots)]
        rotation, _ = orthogonal_procrustes(np.vstack([other_means, *turned]), np.vstack([means, *roots]))
    return rotation
