"""Shrinkage of covariances, as plain loops over trials and pairs of units. Nothing here imports `neurovar`."""

import numpy as np
from scipy.linalg import helmert

import reference


def contrasts(values: np.ndarray) -> np.ndarray:
    """Helmert contrasts of each stimulus's trials: Σ(Rₛ − 1) rows of mean 0 that are uncorrelated."""
    return np.concatenate([helmert(len(repeats)) @ repeats for repeats in reference.trials(values) if len(repeats) > 1])


def weighted_residuals(values: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Of each trial how many observations it counts, 1 − 1/Rₛ, and its residual scaled to have the covariance C."""
    result = []
    for repeats in reference.trials(values):
        for trial in repeats:
            share = 1 - 1 / len(repeats)
            if share > 0:
                result.append((share, (trial - repeats.mean(axis=0)) / share**0.5))
    return result


def ledoit_wolf_intensity(values: np.ndarray) -> float:
    """Mean squared distance of each observation's outer product from C, over ν and ‖C − T‖²."""
    matrix, dof = reference.noise_covariance(values)
    target = np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    error = sum(
        share * np.linalg.norm(np.outer(row, row) - matrix) ** 2 / dof for share, row in weighted_residuals(values)
    )
    return float(min(1, error / dof / np.linalg.norm(matrix - target) ** 2))


def schaefer_strimmer_intensity(values: np.ndarray) -> float:
    """Variance of each correlation from the scatter of its products, pair by pair."""
    matrix, dof = reference.noise_covariance(values)
    deviation = np.diag(matrix) ** 0.5
    error = distance = 0.0
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            if i == j:
                continue
            r = matrix[i, j] / (deviation[i] * deviation[j])
            products = [
                (share, row[i] * row[j] / (deviation[i] * deviation[j])) for share, row in weighted_residuals(values)
            ]
            error += sum(share * (product - r) ** 2 for share, product in products) / dof**2
            distance += r**2
    return min(1.0, error / distance)


def published_correlation_intensity(trials: np.ndarray) -> float:
    """Schäfer & Strimmer 2005 for one sample (trial, unit): Σ Var(r_ij) / Σ r_ij², n/(n − 1)³ Σₖ (wₖᵢⱼ − w̄ᵢⱼ)²."""
    n, n_units = trials.shape
    scores = (trials - trials.mean(axis=0)) / trials.std(axis=0, ddof=1)
    error = distance = 0.0
    for i in range(n_units):
        for j in range(n_units):
            if i != j:
                w = scores[:, i] * scores[:, j]
                error += n / (n - 1) ** 3 * sum((w - w.mean()) ** 2)
                distance += np.corrcoef(trials[:, i], trials[:, j])[0, 1] ** 2
    return min(1.0, error / distance)


def shrunk(matrix: np.ndarray, target: np.ndarray, intensity: float) -> np.ndarray:
    """Entry by entry."""
    return np.array(
        [
            [(1 - intensity) * c + intensity * (t if i == j else 0) for j, (c, t) in enumerate(zip(row, target))]
            for i, row in enumerate(matrix)
        ]
    )
