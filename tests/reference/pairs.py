"""Pairs of units and the delete-one-unit jackknife, one pair and one unit at a time."""

from collections.abc import Callable

import numpy as np


def geometric_mean_rates(values: np.ndarray) -> list[float]:
    """Pair by pair, in the order (0, 1), (0, 2), …"""
    n_units = values.shape[2]
    means = [values[..., unit][~np.isnan(values[..., unit])].mean() for unit in range(n_units)]
    rates = []
    for i in range(n_units):
        for j in range(i + 1, n_units):
            rates.append((means[i] * means[j]) ** 0.5 if means[i] >= 0 and means[j] >= 0 else np.nan)
    return rates


def upper(matrix: np.ndarray) -> list[float]:
    """The entries above the diagonal, row by row."""
    return [matrix[i, j] for i in range(len(matrix)) for j in range(i + 1, len(matrix))]


def jackknife_error(
    estimate: Callable[[np.ndarray], float], m: int, unit_1: np.ndarray, unit_2: np.ndarray, as_if_independent: float
) -> float:
    """Leaves out each of m units with all of its pairs; `estimate` takes the positions of the pairs that are left."""
    without = []
    for unit in range(m):
        without.append(estimate(np.array([p for p in range(len(unit_1)) if unit not in (unit_1[p], unit_2[p])])))
    variance = (m - 1) / m * sum((left_out - sum(without) / m) ** 2 for left_out in without)
    return max(variance - as_if_independent, as_if_independent) ** 0.5


def dyadic_variance_of_mean(y: np.ndarray, unit_1: np.ndarray, unit_2: np.ndarray) -> float:
    """Aronow et al. 2015, for a mean: products of the residuals of all pairs that share a unit."""
    e, total = y - y.mean(), 0.0
    for p in range(len(y)):
        for q in range(len(y)):
            if {unit_1[p], unit_2[p]} & {unit_1[q], unit_2[q]}:
                total += e[p] * e[q]
    return total / len(y) ** 2
