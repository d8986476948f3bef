"""Population coupling, unit by unit."""

import numpy as np

from reference import trials


def population_coupling(values: np.ndarray) -> np.ndarray:
    """numpy.corrcoef of each unit's deviations with the sum of those of all others, over the trials with repeats."""
    deviations = np.concatenate([repeats - repeats.mean(axis=0) for repeats in trials(values) if len(repeats) > 1])
    result = []
    for unit in range(values.shape[2]):
        others = sum(deviations[:, other] for other in range(values.shape[2]) if other != unit)
        result.append(np.corrcoef(deviations[:, unit], others)[0, 1])
    return np.array(result)


def expected(covariance: np.ndarray) -> np.ndarray:
    """Of units with a known noise covariance."""
    result = []
    for unit in range(len(covariance)):
        others = [other for other in range(len(covariance)) if other != unit]
        shared = covariance[unit, others].sum()
        result.append(shared / (covariance[unit, unit] * covariance[np.ix_(others, others)].sum()) ** 0.5)
    return np.array(result)
