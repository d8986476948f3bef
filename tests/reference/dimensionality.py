"""Unbiased moments of a covariance, by loops over disjoint trials. Nothing here imports `neurovar`."""

from itertools import permutations

import numpy as np

import reference


def within(repeats: np.ndarray) -> tuple[float, float]:
    """(tr C)² and tr C² of one stimulus: means over all ordered choices of four trials, two differences."""
    squared_trace, trace_of_square, n = 0.0, 0.0, 0
    for a, b, c, d in permutations(repeats, 4):
        squared_trace += (a - b) @ (a - b) / 2 * ((c - d) @ (c - d) / 2)
        trace_of_square += ((a - b) @ (c - d) / 2) ** 2
        n += 1
    return squared_trace / n, trace_of_square / n


def moments(values: np.ndarray) -> tuple[float, float]:
    """(tr C)² and tr C²: a mean over pairs of stimuli, of one with itself from disjoint trials where it has four."""
    stimuli = [repeats for repeats in reference.trials(values) if len(repeats) > 1]
    total, weights = np.zeros(2), 0
    for s, first in enumerate(stimuli):
        for t, second in enumerate(stimuli):
            weight = (len(first) - 1) * (len(second) - 1)
            if s != t:
                c, d = np.cov(first.T), np.cov(second.T)
                result = np.array([np.trace(c) * np.trace(d), np.trace(c @ d)])
            elif len(first) >= 4:
                result = np.array(within(first))
            else:
                continue
            total, weights = total + weight * result, weights + weight
    squared_trace, trace_of_square = total / weights
    return float(squared_trace), float(trace_of_square)
