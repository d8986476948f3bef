"""The noise's variance in held-out trials, along axes of other trials."""

import numpy as np
from array_api_compat import array_namespace

from neurovar.statistics.spectra._algebra import (
    MOST_RANKS,
    Array,
    centred_trials,
    half_weights,
    like,
    positions,
    present_trials,
    principal_axes,
    weighted,
)


def noise_cvpca(values: Array, n_splits: int, rng: np.random.Generator) -> Array:
    """Noise spectrum of an array (stimulus, repeat, unit) with four repeats of each stimulus, half of them held out.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent; every stimulus has four repeats.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the random halves.

    Returns
    -------
    array of NumPy or torch
        (rank,), in squared units of the responses.
    """
    present, trials = present_trials(values), centred_trials(values)
    # Each half has ⌊Rₛ/2⌋ trials of a stimulus, and residuals about their own mean lose one.
    dof = int((present.sum(axis=1) // 2 - 1).sum())
    total = 0
    for _ in range(n_splits):
        first, second = (half > 0 for half in half_weights(present, rng))
        total = total + _held_out_variance(_residuals(trials, first), _residuals(trials, second), dof) / dof
    return total / n_splits


def noise_cross_decomposition(values: Array, n_splits: int, rng: np.random.Generator) -> Array:
    """Noise spectrum of an array (stimulus, repeat, unit) of two repeats a stimulus, half of the stimuli held out.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent; every stimulus has two repeats.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the halves of the stimuli.

    Returns
    -------
    array of NumPy or torch
        (rank,), in squared units of the responses.
    """
    present, trials = present_trials(values), centred_trials(values)
    n_train = len(present) // 2
    dof = present.sum(axis=1) - 1
    # The fewest degrees of freedom that a training half can have: all splits then have the same number of ranks.
    least = int(np.sort(dof)[:n_train].sum())
    total = 0
    for _ in range(n_splits):
        held_out = rng.permutation(len(present)) >= n_train
        train, test = (_residuals(trials, present & chosen[:, None]) for chosen in (~held_out, held_out))
        total = total + _held_out_variance(train, test, least) / int(dof[held_out].sum())
    return total / n_splits


def _residuals(trials: Array, chosen: np.ndarray) -> Array:
    """Deviations of the chosen trials (stimulus, repeat) from their stimulus's mean over them, (trial, unit)."""
    rows = array_namespace(trials).reshape(trials, (-1, trials.shape[2]))
    means = weighted(rows, like(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1), trials))
    return (trials - means[:, None, :])[positions(chosen, trials)]


def _held_out_variance(train: Array, test: Array, rank: int) -> Array:
    # Axes beyond the training set's degrees of freedom would be arbitrary.
    scores = test @ principal_axes(train, min(rank, train.shape[1], MOST_RANKS))
    return array_namespace(test).sum(scores * scores, axis=0)
