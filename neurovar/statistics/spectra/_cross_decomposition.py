"""Cross-decomposition: the signal's variance in held-out stimuli, along axes of other stimuli."""

import numpy as np
from array_api_compat import array_namespace

from neurovar.statistics.spectra._algebra import (
    MOST_RANKS,
    Array,
    centred,
    centred_trials,
    half_weights,
    leading_eigenvectors,
    like,
    positions,
    present_trials,
    weighted,
)


def cross_decomposition(values: Array, n_splits: int, rng: np.random.Generator) -> Array:
    """Cross-decomposition of an array (stimulus, repeat, unit) whose stimuli all have two repeats: (rank,).

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent; every stimulus has two repeats.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the random halves.

    Returns
    -------
    array of NumPy or torch
        (rank,), in squared units of the responses.
    """
    xp = array_namespace(values)
    present, trials = present_trials(values), centred_trials(values)
    n_stimuli, n_repeats, n_units = trials.shape
    trials = xp.reshape(trials, (n_stimuli * n_repeats, n_units))
    # Half for the axes, half for the variances: an axis that suits its own stimuli would flatter them.
    n_train = n_stimuli // 2
    # Centring takes one dimension from the training stimuli.
    n_ranks = min(n_train - 1, n_units, MOST_RANKS)
    total = 0
    for _ in range(n_splits):
        halves = [weighted(trials, like(half, trials)) for half in half_weights(present, rng)]
        order = positions(rng.permutation(n_stimuli), trials)
        first, second = (centred(half[order[:n_train]]) for half in halves)
        axes = cross_axes(first, second, n_ranks)
        first, second = (centred(half[order[n_train:]]) @ axes for half in halves)
        total = total + xp.sum(first * second, axis=0) / (n_stimuli - n_train - 1)
    return total / n_splits


def cross_axes(first: Array, second: Array, n: int) -> Array:
    """The `n` leading eigenvectors of X₁ᵀX₂ + X₂ᵀX₁ as columns (unit, n), from within the span of the rows."""
    xp = array_namespace(first)
    # X₁ᵀX₂ + X₂ᵀX₁ is units × units, but has no more dimensions than the rows: in their basis it is small.
    basis, coordinates = xp.linalg.qr(xp.concat([first, second], axis=0).T)
    cross = coordinates[:, : len(first)] @ coordinates[:, len(first) :].T
    return basis @ leading_eigenvectors(cross + cross.T, n)[1]
