"""Noise of each stimulus, of neighbouring trials, without drift and without gain: plain loops."""

from itertools import pairwise

import numpy as np

from reference import trials


def deviations(repeats: np.ndarray, *, differences: bool) -> np.ndarray:
    """Of the trials (repeat, unit) of one stimulus: residuals, or differences of neighbours over √2."""
    if differences:
        rows = [(after - before) / 2**0.5 for before, after in pairwise(repeats)]
    else:
        rows = [trial - repeats.mean(axis=0) for trial in repeats]
    return np.array(rows).reshape(-1, repeats.shape[1])


def covariance(values: np.ndarray, *, differences: bool) -> np.ndarray:
    """Pooled: the sum of all outer products over Σ(Rₛ − 1)."""
    total, n = np.zeros((values.shape[2], values.shape[2])), 0
    for repeats in trials(values):
        for row in deviations(repeats, differences=differences):
            total += np.outer(row, row)
        n += len(repeats) - 1
    return total / n


def covariances(values: np.ndarray, *, differences: bool) -> np.ndarray:
    """Of each stimulus, NaN with one repeat."""
    with_repeats = [len(repeats) > 1 for repeats in trials(values)]
    result = np.full((len(values), values.shape[2], values.shape[2]), np.nan)
    for stimulus in np.flatnonzero(with_repeats):
        result[stimulus] = covariance(values[stimulus : stimulus + 1], differences=differences)
    return result


def correlations(values: np.ndarray, *, differences: bool) -> np.ndarray:
    """Of each stimulus, NaN with fewer than three repeats and for units that do not vary."""
    n_units = values.shape[2]
    result = np.full((len(values), n_units, n_units), np.nan)
    for stimulus, repeats in enumerate(trials(values)):
        rows = deviations(repeats, differences=differences)
        for i in range(n_units):
            for j in range(n_units):
                if len(repeats) > 2 and np.ptp(repeats[:, i]) > 0 and np.ptp(repeats[:, j]) > 0:
                    product = (rows[:, i] * rows[:, j]).sum()
                    scale = ((rows[:, i] ** 2).sum() * (rows[:, j] ** 2).sum()) ** 0.5
                    result[stimulus, i, j] = product / scale
    return result


def mean_correlation(values: np.ndarray, *, differences: bool) -> np.ndarray:
    """Mean over stimuli of their correlations, weighted by Rₛ − 1, where both units vary; two repeats give ±1."""
    n_units = values.shape[2]
    result = np.full((n_units, n_units), np.nan)
    for i in range(n_units):
        for j in range(n_units):
            total, weight = 0.0, 0
            for repeats in trials(values):
                if len(repeats) < 2 or np.ptp(repeats[:, i]) == 0 or np.ptp(repeats[:, j]) == 0:
                    continue
                rows = deviations(repeats, differences=differences)[:, [i, j]]
                left, right = (rows / np.sqrt((rows**2).sum(axis=0))).T
                total, weight = total + (len(repeats) - 1) * (left @ right), weight + len(repeats) - 1
            if weight:
                result[i, j] = total / weight
    return result


def dof_of_differences(n_repeats: list[int]) -> float:
    """2 C² / Var Ĉ of Gaussians, from the covariance matrix of all differences, trial by trial."""
    trace, squares = 0.0, 0.0
    for n in n_repeats:
        step = (np.eye(n, k=1) - np.eye(n))[: n - 1] / 2**0.5
        shared = step @ step.T
        trace, squares = trace + np.trace(shared), squares + (shared**2).sum()
    return trace**2 / squares


def without_drift(values: np.ndarray, presentation: np.ndarray, window: int) -> np.ndarray:
    """Trial by trial: the mean of the other trials' residuals, made up for the means, and the root of its variance."""
    result = values.copy()
    present = [tuple(index) for index in np.argwhere(~np.isnan(values[:, :, 0]))]
    n_repeats = [sum(1 for s, _ in present if s == stimulus) for stimulus in range(len(values))]
    mean = {s: sum(values[t] for t in present if t[0] == s) / n_repeats[s] for s in range(len(values))}
    for trial in present:
        near = [
            right
            for right in present
            if right != trial and abs(presentation[right] - presentation[trial]) <= (window - 1) / 2
        ]
        left = sum(1 - 1 / n_repeats[s] for s, _ in near)
        drift = sum(values[t] - mean[t[0]] for t in near) / left if left else 0
        added = 1 / left if left else 0
        stimulus_mean = mean[trial[0]]
        result[trial] = stimulus_mean + (values[trial] - stimulus_mean - drift) / (1 + added) ** 0.5
    return result


def without_gain(values: np.ndarray) -> np.ndarray:
    """Unit by unit: the slope of the other units' responses on their means, by least squares."""
    result = values.copy()
    for stimulus, repeats in enumerate(values):
        mean = np.nanmean(repeats, axis=0)
        for repeat, trial in enumerate(repeats):
            for unit in range(len(trial)):
                others = np.arange(len(trial)) != unit
                if not np.isnan(trial).any() and mean[others].any():
                    gain = np.linalg.lstsq(mean[others, None], trial[others], rcond=None)[0][0]
                    result[stimulus, repeat, unit] = trial[unit] - (gain - 1) * mean[unit]
    return result
