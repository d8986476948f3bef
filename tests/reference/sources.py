"""Covariances of deviations from a clean response, from the stimulus's mean, or from the class's mean: plain loops."""

import numpy as np


def scatter(rows: list[np.ndarray]) -> np.ndarray:
    total = np.zeros((len(rows[0]), len(rows[0])))
    for row in rows:
        for i in range(len(row)):
            for j in range(len(row)):
                total[i, j] += row[i] * row[j]
    return total


def about_clean(clean: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariance and mean of other − clean, (image, unit)."""
    differences = [np.asarray(b, float) - np.asarray(a, float) for a, b in zip(clean, other)]
    mean = sum(differences) / len(differences)
    return scatter([difference - mean for difference in differences]) / (len(differences) - 1), mean


def about_stimulus(passes: np.ndarray) -> np.ndarray:
    """Covariance of passes (image, repeat, unit) about the mean of their image."""
    rows, dof = [], 0
    for repeats in passes.astype(float):
        rows += [repeat - repeats.mean(axis=0) for repeat in repeats]
        dof += len(repeats) - 1
    return scatter(rows) / dof


def about_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Covariance of (image, unit) about the mean of their class."""
    rows = []
    for label in set(labels.tolist()):
        members = values[labels == label].astype(float)
        rows += [member - members.mean(axis=0) for member in members]
    return scatter(rows) / (len(values) - len(set(labels.tolist())))


def partial_traces(matrix: np.ndarray, channels: int) -> np.ndarray:
    """The Kronecker product of a covariance's sums over positions and over channels, at its trace."""
    positions = len(matrix) // channels
    blocks = matrix.reshape(channels, positions, channels, positions)
    channel, space = np.zeros((channels, channels)), np.zeros((positions, positions))
    for p in range(positions):
        channel += blocks[:, p, :, p]
    for c in range(channels):
        space += blocks[c, :, c, :]
    return np.kron(channel, space) / np.trace(matrix)


def leading_and_diagonal(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The leading principal components of a covariance, with its diagonal."""
    values, vectors = np.linalg.eigh(matrix)
    leading = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    return leading + np.diag(np.diag(matrix - leading))
