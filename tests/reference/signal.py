"""Signal covariance, noise ceilings and corrected r², as loops over stimuli, repeats and units."""

from itertools import permutations, product

import numpy as np

from reference import cross_covariance, trials


def repeated(values: np.ndarray) -> list[np.ndarray]:
    """The trials (repeat, unit) of each stimulus that has two or more."""
    return [repeats for repeats in trials(values) if len(repeats) > 1]


def means_less_noise(values: np.ndarray) -> np.ndarray:
    """numpy.cov of the means, less the average of numpy.cov of each stimulus's trials over its repeats."""
    stimuli = repeated(values)
    means = np.array([repeats.mean(axis=0) for repeats in stimuli])
    noise = [np.atleast_2d(np.cov(repeats.T)) / len(repeats) for repeats in stimuli]
    return np.atleast_2d(np.cov(means.T)) - sum(noise) / len(noise)


def u_statistic(values: np.ndarray) -> np.ndarray:
    """Products of distinct repeats of a stimulus, less products of the means of distinct stimuli."""
    stimuli = repeated(values)
    within = []
    for repeats in stimuli:
        within.append(np.mean([np.outer(a, b) for a, b in permutations(repeats, 2)], axis=0))
    means = [sum(repeats) / len(repeats) for repeats in stimuli]
    between = [np.outer(a, b) for a, b in permutations(means, 2)]
    return np.mean(within, axis=0) - np.mean(between, axis=0)


def every_choice(values: np.ndarray) -> np.ndarray:
    """The cross-covariance of one repeat of each stimulus with another one, averaged over all ways to choose them."""
    covariances = []
    for choice in product(*(list(permutations(repeats, 2)) for repeats in repeated(values))):
        first, second = (np.array(column) for column in zip(*choice))
        covariances.append(cross_covariance(first, second))
    return np.mean(covariances, axis=0)


def signal_power(responses: np.ndarray) -> float:
    """Of one unit (repeat, stimulus): equation of Sahani & Linden 2003, as Schoppe et al. 2016 use it."""
    n = len(responses)
    return float((np.var(responses.sum(axis=0), ddof=1) - np.var(responses, axis=1, ddof=1).sum()) / (n * (n - 1)))


def noise_ceiling(values: np.ndarray) -> np.ndarray:
    """Unit by unit."""
    result = []
    for unit in range(values.shape[2]):
        counts = [repeats[:, unit] for repeats in repeated(values)]
        total = np.var([c.mean() for c in counts], ddof=1)
        signal = total - np.mean([np.var(c, ddof=1) / len(c) for c in counts])
        result.append(np.sqrt(signal / total) if signal > 0 else np.nan)
    return np.array(result)


def r2_over_reliability(prediction: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared numpy.corrcoef with the mean response, over the squared noise ceiling."""
    means = np.array([repeats.mean(axis=0) for repeats in repeated(values)])
    r = np.array([np.corrcoef(prediction[:, unit], means[:, unit])[0, 1] for unit in range(means.shape[1])])
    return r**2 / noise_ceiling(values) ** 2


def corrected_r2(prediction: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The same, less what the noise of each stimulus adds to the squared covariance."""
    stimuli, excess = repeated(values), []
    for unit in range(values.shape[2]):
        p = prediction[:, unit] - prediction[:, unit].mean()
        means = np.array([repeats[:, unit].mean() for repeats in stimuli])
        noise = sum(p[s] ** 2 * np.var(repeats[:, unit], ddof=1) / len(repeats) for s, repeats in enumerate(stimuli))
        excess.append(noise / sum(p**2) / sum((means - means.mean()) ** 2))
    return r2_over_reliability(prediction, values) - np.array(excess) / noise_ceiling(values) ** 2


def published_r2_er(prediction: np.ndarray, responses: np.ndarray) -> float:
    """Of one unit, (stimulus,) and (repeat, stimulus): Pospisil & Bair 2021, one noise variance for all stimuli."""
    n, m = responses.shape
    variance = responses.var(axis=0, ddof=1).mean()
    x, y = prediction - prediction.mean(), responses.mean(axis=0) - responses.mean()
    numerator = (x @ y) ** 2 - variance / n * (x @ x)
    return float(numerator / ((x @ x) * (y @ y) - (m - 1) * variance / n * (x @ x)))
