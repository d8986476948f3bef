"""Independent references for transplanted noise: loops, normal equations and pseudo-inverses written out."""

import numpy as np


def spectrum_at(eigenvalues: np.ndarray, n: int) -> np.ndarray:
    """Rank by rank: between the two eigenvalues whose relative ranks (k − ½)/N enclose it, scaled to the same sum."""
    own, values = len(eigenvalues), []
    for k in range(1, n + 1):
        position = (k - 0.5) / n * own - 0.5
        if position <= 0:
            values.append(eigenvalues[0])
        elif position >= own - 1:
            values.append(eigenvalues[-1])
        else:
            below = int(position)
            part = position - below
            values.append((1 - part) * eigenvalues[below] + part * eigenvalues[below + 1])
    return np.array(values) * sum(eigenvalues) / sum(values)


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (x's column,) for one unit by the normal equations, with a constant that is not penalised."""
    centred = x - x.mean(axis=0)
    return np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean()))


def leave_one_out_ridge(x: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Ridge weights with the penalty that predicts each row best from all others."""
    errors = []
    for penalty in penalties:
        error = 0.0
        for row in range(len(x)):
            others = np.delete(np.arange(len(x)), row)
            weights = ridge(x[others], y[others], penalty)
            predicted = y[others].mean() + (x[row] - x[others].mean(axis=0)) @ weights
            error += (predicted - y[row]) ** 2
        errors.append(error)
    return ridge(x, y, penalties[int(np.argmin(errors))])


def pulled_back(weights: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """W⁺ C W⁺ᵀ + v (I − W⁺W), v the smallest eigenvalue of the first on the row space of W."""
    inverse = np.linalg.pinv(weights)
    seen = inverse @ covariance @ inverse.T
    quietest = np.linalg.eigvalsh(seen)[-np.linalg.matrix_rank(weights)]
    return seen + quietest * (np.eye(weights.shape[1]) - inverse @ weights)


def disjoint_covariance(x: np.ndarray, y: np.ndarray, *, same_trials: bool) -> float:
    """Of the tuning of two units (stimulus, repeat): pairs of different repeats less pairs of different stimuli.

    Repeats of other trials (not `same_trials`) all count as different.
    """
    within, between = [], []
    for s in range(len(x)):
        pairs = [
            x[s, r] * y[s, q]
            for r in range(x.shape[1])
            for q in range(y.shape[1])
            if not (same_trials and r == q) and not np.isnan(x[s, r] * y[s, q])
        ]
        within.append(sum(pairs) / len(pairs))
        between += [np.nanmean(x[s]) * np.nanmean(y[t]) for t in range(len(x)) if t != s]
    return float(np.mean(within) - np.mean(between))


def similarity(x: np.ndarray, y: np.ndarray, *, same_trials: bool) -> float:
    """Signal correlation of two units (stimulus, repeat); one with a single repeat counts as noise-free."""
    variances = [disjoint_covariance(system, system, same_trials=system.shape[1] > 1) for system in (x, y)]
    return disjoint_covariance(x, y, same_trials=same_trials) / np.sqrt(variances[0] * variances[1])


def without_shared_gain(values: np.ndarray) -> np.ndarray:
    """Each trial of each unit less (gain − 1) times its mean, the gain by least squares from the other units."""
    result = values.copy()
    for s, stimulus in enumerate(values):
        mean = np.nanmean(stimulus, axis=0)
        for r, trial in enumerate(stimulus):
            for unit in range(values.shape[2]):
                others = [j for j in range(values.shape[2]) if j != unit]
                gain = sum(trial[j] * mean[j] for j in others) / sum(mean[j] ** 2 for j in others)
                result[s, r, unit] = trial[unit] - (gain - 1) * mean[unit]
    return result


def power_law(values: np.ndarray) -> tuple[list[float], list[float], list[int]]:
    """Mean, variance and weight R − 1 of each unit and stimulus with two repeats and a mean above 0."""
    points = []
    for stimulus in values:
        trials = stimulus[~np.isnan(stimulus[:, 0])]
        for counts in trials.T if len(trials) > 1 else ():
            if counts.mean() > 0:
                points.append((counts.mean(), counts.var(ddof=1), len(trials) - 1))
    mean, variance, weight = zip(*points)
    return list(mean), list(variance), list(weight)
