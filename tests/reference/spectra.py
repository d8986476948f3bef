"""Held-out spectra and eigenmoments, written as their definitions."""

from itertools import combinations

import numpy as np


def axis_variances(axes: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """numpy.cov of two sets of scores along each axis (unit, rank)."""
    return np.array([np.cov(first @ axis, second @ axis)[0, 1] for axis in axes.T])


def cross_decomposition(first: np.ndarray, second: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Axes from the covariance (unit, unit) of the halves over the training stimuli, variance in the others."""
    n_units = first.shape[1]
    cross = np.cov(first[train].T, second[train].T)[:n_units, n_units:]
    order = np.linalg.eigh(cross + cross.T)[1][:, ::-1]
    return axis_variances(order[:, : min(len(train) - 1, n_units)], first[test], second[test])


def residuals(values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, int]:
    """Deviations of the chosen trials (stimulus, repeat) from their stimulus's mean over them, and Σ(Rₛ − 1)."""
    rows, dof = [], 0
    for trials, mask in zip(values, chosen):
        if mask.any():
            rows.extend(trials[mask] - trials[mask].mean(axis=0))
            dof += int(mask.sum()) - 1
    return np.array(rows), dof


def held_out_noise(values: np.ndarray, train: np.ndarray, test: np.ndarray, n_ranks: int) -> np.ndarray:
    """Mean square of the test trials' residuals along the principal axes of the training trials' ones."""
    rows, _ = residuals(values, train)
    others, dof = residuals(values, test)
    axes = np.linalg.svd(rows)[2][:n_ranks]
    return np.array([sum((others @ axis) ** 2) / dof for axis in axes])


def random_halves(present: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Masks (stimulus, repeat) of two halves of each stimulus's trials, in the order of random numbers."""
    keys = np.where(present, rng.random(present.shape), np.inf)
    masks = np.zeros((2, *present.shape), dtype=bool)
    for stimulus, row in enumerate(keys):
        order, half = np.argsort(row), present[stimulus].sum() // 2
        masks[0, stimulus, order[:half]] = masks[1, stimulus, order[half : 2 * half]] = True
    return masks[0], masks[1]


def eigenmoment(first: np.ndarray, second: np.ndarray, p: int) -> float:
    """The mean over increasing cycles of p samples of the product of first · second along the cycle, over units."""
    products = []
    for cycle in combinations(range(len(first)), p):
        following = (*cycle[1:], cycle[0])
        products.append(np.prod([first[i] @ second[j] for i, j in zip(cycle, following)]))
    return float(np.mean(products)) / first.shape[1]


def power_law(n_units: int, exponent: float, *, late: float | None = None, break_rank: float = np.inf) -> np.ndarray:
    """λₙ, with the exponent `late` from `break_rank` on, of mean 1."""
    values = []
    for n in range(1, n_units + 1):
        values.append(n**-exponent if n <= break_rank else break_rank ** (late - exponent) * n**-late)
    return np.array(values) / np.mean(values)


def population(
    spectrum: np.ndarray, *, noise: str, n_stimuli: int, n_repeats: int, seed: int, least_repeats: int | None = None
) -> np.ndarray:
    """Gaussian responses (stimulus, repeat, unit) with this signal spectrum and noise of variance about 1 a unit.

    noise: "independent"; "low-rank", half of it along two random axes; "aligned", half of it along the first three
    axes of the signal; "none". With `least_repeats`, trials are missing at random.
    """
    rng = np.random.default_rng(seed)
    n_units, shape = len(spectrum), (n_stimuli, n_repeats)
    axes = np.linalg.qr(rng.standard_normal((n_units, n_units)))[0]
    signal = rng.standard_normal((n_stimuli, n_units)) * np.sqrt(spectrum) @ axes.T
    shared = {"low-rank": np.linalg.qr(rng.standard_normal((n_units, 2)))[0], "aligned": axes[:, :3]}.get(noise)
    values = signal[:, None] + 3
    if noise == "none":
        return np.repeat(values, n_repeats, axis=1)
    values = values + rng.standard_normal((*shape, n_units)) * (1 if shared is None else 0.5**0.5)
    if shared is not None:
        size = (0.5 * n_units / shared.shape[1]) ** 0.5
        values = values + size * rng.standard_normal((*shape, shared.shape[1])) @ shared.T
    for stimulus in range(n_stimuli if least_repeats is not None else 0):
        absent = n_repeats - rng.integers(least_repeats, n_repeats + 1)
        values[stimulus, rng.permutation(n_repeats)[:absent]] = np.nan
    return values
