"""Unbiased moments of the eigenvalues of the signal and noise covariance."""

from dataclasses import dataclass
from math import comb

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, is_dask_array, to_device

from neurovar.statistics._estimator import Needs, require_splits
from neurovar.statistics.spectra._algebra import (
    Array,
    centred_trials,
    half_weights,
    like,
    positions,
    present_trials,
    repeated_values,
    require_kind,
    weighted_repeats,
)
from neurovar.statistics.spectra._out_of_core import has_fewer_trials, in_fewer_units

MOST_SAMPLES = 1500
"""More than these are cut into blocks, whose moments are averaged: the matrices that are multiplied stay small."""

FEW_STIMULI = 20
"""With fewer, the noise's standard error is taken over pairs of repeats."""

Samples = tuple[Array, Array, np.ndarray, np.ndarray]
"""The rows that a comes from and those of b, (row, unit), the two whose difference each sample is, (2, sample), and
the stimuli of each sample, (1 or 2, sample)."""


@dataclass(frozen=True)
class MomentEstimate:
    """Moments (moment,), their covariance if there were one draw, and that over stimuli of the mean over all draws."""

    moments: np.ndarray
    one_draw: np.ndarray
    over_stimuli: np.ndarray
    n_splits: int

    def standard_error(self, linear: np.ndarray) -> np.ndarray:
        """Of `linear` (value, moment) times the moments: at least that of draws that have nothing in common."""
        variance, least = (np.diag(linear @ c @ linear.T) for c in (self.over_stimuli, self.one_draw / self.n_splits))
        return np.sqrt(np.maximum(variance, least))


def eigenmoments(
    responses: xr.DataArray, *, of: str, n_moments: int, n_splits: int, rng: np.random.Generator | int
) -> xr.DataArray:
    """Unbiased eigenmoments μ_p = tr(Σᵖ) / N of the covariance Σ of the signal or of the noise, N units.

    From n independent samples (aᵢ, bᵢ) with E[aᵢbᵢᵀ] = Σ, the mean over increasing cycles i₁ < … < i_p of
    (a_i₁ᵀb_i₂)(a_i₂ᵀb_i₃)…(a_i_pᵀb_i₁) is unbiased for tr(Σᵖ), because no sample enters twice. For the signal,
    aᵢ and bᵢ are the differences of two stimuli, divided by √2, in the means of two disjoint halves of the repeats: the
    mean over stimuli drops out, and so does the noise, as a and b share no trial. For the noise, aᵢ = bᵢ is the
    difference of two repeats of one stimulus, divided by √2. So n is half the number of stimuli, or Σ⌊Rₛ/2⌋. Stimuli,
    repeats and the order are drawn at random, and the result is averaged over `n_splits` draws.

    Bias: none, whatever the noise, the number of units and the distribution of the responses, if stimuli are
    independent draws. Noise that differs between the stimuli counts with its mean covariance: exactly where each has
    one pair of repeats, else up to order 1/stimuli. High moments have a large and skewed error, and may be negative.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    of : str
        The covariance: "signal" or "noise".
    n_moments : int
        The largest p.
    n_splits : int
        The number of draws of pairs to average over.
    rng : numpy.random.Generator or int
        Draws stimuli, repeats and their order.

    Returns
    -------
    DataArray
        (moment), p from 1, in units of the responses to the power 2p; its coordinate `standard_error` is the
        jackknife's over stimuli, or, of noise with fewer than 20 stimuli, over the pairs of repeats of one draw (too
        large for many draws). It is too large, too, where noise outweighs the signal (by a third in simulations).

    Raises
    ------
    ValueError
        For another `of`, invalid responses, no more samples than moments, or noise of units that were not recorded
        together.

    References
    ----------
    Kong & Valiant 2017, doi:10.1214/16-AOS1525; Pospisil & Pillow 2024, doi:10.1101/2024.02.16.580726

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=400, n_repeats=2, n_units=20, exponent=1.0, rng=0)
    >>> moments = eigenmoments(da, of="signal", n_moments=2, n_splits=10, rng=0)
    >>> bool(abs(moments[0] - 1) < 2 * moments.standard_error[0])
    True
    """
    values = moment_values(responses, of=of, n_moments=n_moments, n_splits=n_splits)
    estimate = eigenmoments_kernel(values, of, n_moments, n_splits, np.random.default_rng(rng))
    error = estimate.standard_error(np.eye(n_moments))
    coords = {"moment": np.arange(1, n_moments + 1), "standard_error": ("moment", error)}
    return xr.DataArray(estimate.moments, dims="moment", coords=coords, attrs={"of": of, "n_splits": n_splits})


def moment_values(responses: xr.DataArray, *, of: str, n_moments: int, n_splits: int) -> Array:
    """The values of the stimuli with two repeats, if they suffice for so many moments."""
    require_kind(of)
    require_splits(n_splits)
    if n_moments < 1:
        raise ValueError(f"expected at least 1 moment, got {n_moments}")
    values = repeated_values(Needs(together=of == "noise").check(responses), repeats=2)
    n_samples = _n_samples(present_trials(values), of)
    if n_samples <= n_moments:
        needed = "stimuli with 2 repeats" if of == "signal" else "repeats"
        raise ValueError(f"expected more than {n_moments} pairs of {needed} for {n_moments} moments, got {n_samples}")
    return values


def _n_samples(present: np.ndarray, of: str) -> int:
    return len(present) // 2 if of == "signal" else int((present.sum(axis=1) // 2).sum())


def eigenmoments_kernel(
    values: Array, of: str, n_moments: int, n_splits: int, rng: np.random.Generator
) -> MomentEstimate:
    """Moments of an array (stimulus, repeat, unit) in which every stimulus has two repeats.

    A stimulus's influence is the mean over draws of that of its pairs. For the signal each pair has two stimuli, so
    that the sum over stimuli counts what is the pair's alone twice: once too often in each draw.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent; every stimulus has two repeats.
    of : str
        "signal" or "noise".
    n_moments : int
        The number of moments.
    n_splits : int
        The number of draws of pairs to average over.
    rng : numpy.random.Generator
        Draws stimuli, repeats and their order.

    Returns
    -------
    MomentEstimate
        The moments, and the covariances of which standard errors are made.
    """
    n_units = values.shape[2]
    # Products of trials are all that counts, and a rotation of the units keeps them.
    values = in_fewer_units(values) if has_fewer_trials(values) else values
    present, trials = present_trials(values), centred_trials(values)
    draw = _signal_samples if of == "signal" else _noise_samples
    moments, one_draw = np.zeros(n_moments), np.zeros((n_moments, n_moments))
    influence = np.zeros((len(present), n_moments))
    for _ in range(n_splits):
        first, second, pairs, stimuli = draw(trials, present, rng)
        n_samples = pairs.shape[1]
        for block in np.array_split(np.arange(n_samples), -(-n_samples // MOST_SAMPLES)):
            share, rows = len(block) / n_samples, slice(block[0], block[-1] + 1)
            a = _differences(first, pairs[:, rows])
            b = a if second is first else _differences(second, pairs[:, rows])
            block_moments, without = _cycle_moments(a, b, n_moments, n_units)
            deviation = share * (without - without.mean(axis=0))
            moments += share * block_moments / n_splits
            one_draw += deviation.T @ deviation / n_splits
            for members in stimuli[:, rows]:
                np.add.at(influence, members, deviation / n_splits)
    # Var of a sum over pairs is Σ over pairs; added over the two stimuli of a pair, its own part comes twice.
    counted_twice = one_draw / n_splits if of == "signal" else 0
    few = of == "noise" and len(present) < FEW_STIMULI
    over_stimuli = one_draw if few else influence.T @ influence - counted_twice
    return MomentEstimate(moments, one_draw, over_stimuli, n_splits)


def _signal_samples(trials: Array, present: np.ndarray, rng: np.random.Generator) -> Samples:
    """Pairs of stimuli, in the means of two halves of the repeats."""
    n_pairs = len(present) // 2
    first, second = (weighted_repeats(trials, half) for half in half_weights(present, rng))
    stimuli = rng.permutation(len(present))[: 2 * n_pairs].reshape(2, n_pairs)
    return first, second, stimuli, stimuli


def _noise_samples(trials: Array, present: np.ndarray, rng: np.random.Generator) -> Samples:
    """Differences of pairs of repeats, twice the same, (pair, unit)."""
    n_repeats = present.shape[1]
    # A random order of the repeats that are present, in neighbours two by two; absent ones sort last and drop out.
    order = np.argsort(np.where(present, rng.random(present.shape), np.inf), axis=1)
    order += n_repeats * np.arange(len(present))[:, None]
    # ⌊Rₛ/2⌋ pairs of stimulus s.
    whole = np.arange(n_repeats // 2) < present.sum(axis=1, keepdims=True) // 2
    pairs = np.stack([order[:, : n_repeats // 2 * 2 : 2][whole], order[:, 1::2][whole]])
    pairs = pairs[:, rng.permutation(pairs.shape[1])]
    rows = array_namespace(trials).reshape(trials, (-1, trials.shape[2]))
    return rows, rows, pairs, pairs[:1] // n_repeats


def _differences(rows: Array, pairs: np.ndarray) -> Array:
    """Of pairs of rows, divided by √2, (pair, unit), in memory."""
    if is_dask_array(rows):
        needed, pairs = np.unique(pairs, return_inverse=True)
        rows, pairs = rows[needed].compute(), pairs.reshape(2, -1)
    minuend, subtrahend = positions(pairs, rows)
    return (rows[minuend] - rows[subtrahend]) / 2**0.5


def _cycle_moments(first: Array, second: Array, n_moments: int, n_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Moments (moment,) from samples (sample, unit), and those without each sample, (sample, moment).

    With A = first · secondᵀ and F its part above the diagonal, the sum over increasing cycles of length p is
    tr(F^(p−1) A), and the part of it that goes through sample i is Σ_q (F^(p−1−q) A F^q)ᵢᵢ: so each moment without
    sample i costs nothing more.
    """
    xp = array_namespace(first)
    n_samples = len(first)
    gram = xp.astype(first @ second.T, xp.float64)
    # Powers up to `n_moments` of a product of responses overflow or vanish: divided by the mean size first.
    scale = float(xp.sum(xp.abs(gram))) / n_samples**2
    gram = gram / (scale or 1.0)
    # Only i < j: a path along increasing samples, so that none enters twice.
    upward = xp.triu(gram, k=1) / n_samples
    closed, paths = [gram], [like(np.eye(n_samples), gram)]
    for _ in range(n_moments - 1):
        closed.append(upward @ closed[-1])
        paths.append(paths[-1] @ upward)
    moments, without = np.empty(n_moments), np.empty((n_samples, n_moments))
    for p in range(1, n_moments + 1):
        # The diagonal of (F^(p−1−q) A) F^q, without the product: Σ_j of entries times those of the transpose.
        through = sum(xp.sum(closed[p - 1 - q] * paths[q].T, axis=1) for q in range(p))
        through = np.asarray(to_device(through, "cpu"))
        unit = scale**p * float(n_samples) ** (p - 1) / n_units
        # Every cycle passes p samples, and there are n-choose-p of them; without sample i, those of n − 1.
        moments[p - 1] = through.sum() / p * unit / comb(n_samples, p)
        without[:, p - 1] = (through.sum() / p - through) * unit / comb(n_samples - 1, p)
    return moments, without
