"""cvPCA: the signal's variance along axes of one half of the repeats, measured with the other half."""

import numpy as np
from array_api_compat import array_namespace

from neurovar.responses import floating
from neurovar.statistics.spectra._algebra import (
    MOST_RANKS,
    Array,
    centred,
    centred_trials,
    half_weights,
    leading_eigenvectors,
    like,
    present_trials,
    weighted,
)


def cvpca(values: Array, n_splits: int, rng: np.random.Generator) -> Array:
    """cvPCA of an array (stimulus, repeat, unit) in which every stimulus has two repeats: eigenvalues (rank,).

    With no more stimuli than units everything follows from products of trials with trials (Gram matrices). One Gram
    matrix of all trials then serves every split, so that a split needs no product with the responses; where there are
    many repeats, the three Gram matrices of each split's halves are the smaller.

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
    # One Gram matrix of all S·R trials costs (S·R)²·N products, those of a split's halves 3·S²·N: the one matrix
    # is cheaper if R² ≤ 3·n_splits.
    gram = trials @ trials.T if n_stimuli <= n_units and n_repeats**2 <= 3 * n_splits else None
    total = 0
    for _ in range(n_splits):
        first, second = (like(half, trials) for half in half_weights(present, rng))
        if gram is None:
            total = total + cross_spectrum(weighted(trials, first), weighted(trials, second))
        else:
            # A half's means are W X of the trials X, so that their products are W (XXᵀ) Wᵀ: weighted rows, then
            # columns.
            rows = weighted(gram, first).T
            total = total + _gram_spectrum(weighted(rows, first), weighted(rows, second), n_units)
    return total / n_splits


def cross_spectrum(first: Array, second: Array) -> Array:
    """Variance of `second` along the principal axes of `first`, both (stimulus, unit): eigenvalues (rank,).

    Parameters
    ----------
    first : array of NumPy or torch
        (stimulus, unit), which gives the axes.
    second : array of NumPy or torch
        (stimulus, unit), which is measured along them.

    Returns
    -------
    array of NumPy or torch
        (rank,), in squared units of the responses.
    """
    first, second = centred(floating(first)), centred(floating(second))
    n_stimuli, n_units = first.shape
    if n_stimuli <= n_units:
        return _gram_spectrum(first @ first.T, second @ first.T, n_units)
    return _rayleigh(first.T @ first, first.T @ second, n_stimuli, n_units)


def _gram_spectrum(own: Array, cross: Array, n_units: int) -> Array:
    """From X₁X₁ᵀ and X₂X₁ᵀ (stimulus, stimulus), of units that need not be centred.

    X₁'s scores on its n-th axis are √gₙ wₙ, with g and w the eigenvalues and eigenvectors of X₁X₁ᵀ, and those of X₂
    are X₂X₁ᵀwₙ / √gₙ: the product is wₙᵀ X₂X₁ᵀ wₙ.
    """
    # Taking the means off rows and columns of XXᵀ is the same as centring X over stimuli.
    own, cross = (centred(centred(gram).T).T for gram in (own, cross))
    return _rayleigh(own, cross, len(own), n_units)


def _rayleigh(own: Array, cross: Array, n_stimuli: int, n_units: int) -> Array:
    """wₙᵀ `cross` wₙ / (S − 1), with wₙ the leading eigenvectors of `own`."""
    vectors = leading_eigenvectors(own, min(n_stimuli - 1, n_units, MOST_RANKS))[1]
    return array_namespace(own).sum(vectors * (cross @ vectors), axis=0) / (n_stimuli - 1)
