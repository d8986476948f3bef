"""Randomised smoothing in plain loops; imports nothing of neurovar."""

from collections import Counter
from statistics import NormalDist

import numpy as np
import torch
from scipy.stats import binomtest


def certify(
    weight: np.ndarray, image: np.ndarray, *, sigma: float, n_select: int, n_draws: int, alpha: float, generator
) -> tuple[int, float, float]:
    """CERTIFY of Cohen et al. 2019 for the linear classifier `weight`: class (−1: abstained), lower bound, radius."""

    def votes(n: int) -> Counter:
        counts: Counter = Counter()
        for _ in range(n):
            normal = torch.randn(1, image.size, generator=generator)[0].numpy()
            counts[int(np.argmax(weight @ (image + sigma * normal)))] += 1
        return counts

    selected = votes(n_select)
    most = max(selected.values())
    guess = min(c for c, count in selected.items() if count == most)
    hits = votes(n_draws)[guess]
    lower = binomtest(hits, n_draws, alternative="greater").proportion_ci(confidence_level=1 - alpha).low
    if lower <= 0.5:
        return -1, lower, 0.0
    return guess, lower, sigma * NormalDist().inv_cdf(lower)


def operator(function, shape: tuple[int, ...]) -> np.ndarray:
    """The matrix of a linear function of images, column by column."""
    columns = []
    for i in range(int(np.prod(shape))):
        unit = torch.zeros(int(np.prod(shape)), dtype=torch.float64)
        unit[i] = 1
        columns.append(function(unit.reshape(1, *shape)).detach().numpy().ravel())
    return np.stack(columns, axis=1)
