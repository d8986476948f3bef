"""Alignment of noise with signal, as plain loops over the trials that two halves have."""

import numpy as np
from scipy.linalg import orth


def half_trials(values: np.ndarray, chosen: np.ndarray) -> list[np.ndarray]:
    """Of each stimulus with two or more chosen trials, these."""
    return [repeats[which] for repeats, which in zip(values, chosen) if which.sum() > 1]


def noise_sum(stimuli: list[np.ndarray]) -> np.ndarray:
    """The sum of the outer products of all deviations from stimuli's means."""
    return sum(
        np.outer(trial - repeats.mean(axis=0), trial - repeats.mean(axis=0)) for repeats in stimuli for trial in repeats
    )


def signal_covariance(stimuli: list[np.ndarray]) -> np.ndarray:
    """numpy's covariance of the means, less the average of that of their errors."""
    means = np.array([repeats.mean(axis=0) for repeats in stimuli])
    errors = [np.cov(repeats.T) / len(repeats) for repeats in stimuli]
    return np.cov(means.T) - np.mean(errors, axis=0)


def class_covariances(stimuli: list[np.ndarray], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In class: pooled over classes, less noise. Out of class: of the classes' means, less that of their exemplars."""
    classes = [[repeats for repeats, label in zip(stimuli, labels) if label == name] for name in np.unique(labels)]
    dof = [len(members) - 1 for members in classes]
    in_class = sum(d * signal_covariance(members) for d, members in zip(dof, classes)) / sum(dof)
    means = [np.array([repeats.mean(axis=0) for repeats in members]) for members in classes]
    by_chance = np.mean([np.cov(of_class.T) / len(of_class) for of_class in means], axis=0)
    return in_class, np.cov(np.array([of_class.mean(axis=0) for of_class in means]).T) - by_chance


def leading(matrix: np.ndarray, n: int) -> np.ndarray:
    values, vectors = np.linalg.eig((matrix + matrix.T) / 2)
    return vectors[:, np.argsort(-values)[:n]]


def fraction(noise: np.ndarray, axes: np.ndarray) -> float:
    """Σ aᵀ C a / tr C over orthonormal axes."""
    return float(sum(axis @ noise @ axis for axis in orth(axes).T) / np.trace(noise))


def angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Degrees, smallest first, from the cosines."""
    cosines = np.linalg.svd(orth(first).T @ orth(second))[1]
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))
