"""Covariances of a stream, as plain loops over units, samples and synapses. Nothing here imports `neurovar`."""

import numpy as np


def moments(samples: np.ndarray, *, about_zero: bool) -> np.ndarray:
    """Σ (x − m)(x − m)ᵀ / (n − 1), or Σ x xᵀ / n, sample by sample."""
    n, n_units = samples.shape
    centre = np.zeros(n_units) if about_zero else sum(samples) / n
    total = np.zeros((n_units, n_units))
    for sample in samples:
        total += np.outer(sample - centre, sample - centre)
    return total / (n if about_zero else n - 1)


def partial_traces(matrix: np.ndarray, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """tr_space (channels, channels) and tr_channel (positions, positions) of a matrix over (channel, position)."""
    n_positions = len(matrix) // n_channels
    over_space, over_channels = np.zeros((n_channels, n_channels)), np.zeros((n_positions, n_positions))
    for c in range(n_channels):
        for d in range(n_channels):
            for p in range(n_positions):
                over_space[c, d] += matrix[c * n_positions + p, d * n_positions + p]
    for p in range(n_positions):
        for q in range(n_positions):
            for c in range(n_channels):
                over_channels[p, q] += matrix[c * n_positions + p, c * n_positions + q]
    return over_space, over_channels


def leading(matrix: np.ndarray, rank: int) -> np.ndarray:
    """The leading `rank` eigenpairs, multiplied out."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T


def frequent_directions(rows: np.ndarray, size: int, n_shrunk: int, block: int) -> tuple[np.ndarray, float]:
    """A sketch whose last rows shrink whenever a block of rows comes in, by singular value decompositions."""
    sketch, lost = np.zeros((0, rows.shape[1])), 0.0
    for start in range(0, len(rows), block):
        _, sizes, axes = np.linalg.svd(np.concatenate([sketch, rows[start : start + block]]), full_matrices=False)
        cut = sizes[size] ** 2 if len(sizes) > size else 0.0
        kept = [s**2 - cut * (k >= size - n_shrunk) for k, s in enumerate(sizes[:size])]
        sketch = np.sqrt(np.maximum(kept, 0))[:, None] * axes[:size]
        lost += cut
    return sketch, lost


def subspace_error(matrix: np.ndarray, axes: np.ndarray) -> float:
    """‖C − QQᵀC‖_F of the space that the columns of `axes` span."""
    q, _ = np.linalg.qr(np.asarray(axes))
    return float(np.linalg.norm(matrix - q @ (q.T @ matrix)))


def hebbian_synapses(
    samples: np.ndarray, filters: np.ndarray, *, warm_up: float, about_zero: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Feedforward and lateral weights, each synapse changed by the activity of its two neurons alone."""
    n_outputs, n_units = filters.shape
    mean, feedforward, lateral, time = samples[0].astype(float), None, None, 0
    for count, sample in enumerate(samples, start=1):
        if about_zero:
            x = sample
        elif count == 1:
            continue
        else:
            x = np.array([np.sqrt((count - 1) / count) * (sample[j] - mean[j]) for j in range(n_units)])
            mean = np.array([mean[j] + (sample[j] - mean[j]) / count for j in range(n_units)])
        time += 1
        if feedforward is None:
            power = sum(x**2) / n_units
            feedforward, lateral = power * filters, power * np.eye(n_outputs)
        y = np.linalg.solve(lateral, feedforward @ x)
        rate = 2 / (time + warm_up)
        for i in range(n_outputs):
            for j in range(n_units):
                feedforward[i, j] += rate * (y[i] * x[j] - feedforward[i, j])
            for j in range(n_outputs):
                lateral[i, j] += rate * (y[i] * y[j] - lateral[i, j])
    return feedforward, lateral
