"""Signal covariance and signal correlation, free of noise."""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, device, to_device

from neurovar.responses import floating, repeat_counts, split_kernel
from neurovar.statistics._estimator import Needs, estimator, require_splits, squared_units


@estimator(Needs(stimuli=3))
def signal_covariance(
    responses: xr.DataArray,
    *,
    n_splits: int = 20,
    rng: np.random.Generator | int | None = None,
    by: str | None = None,
) -> xr.DataArray:
    """Signal covariance: that of the noise-free mean responses over stimuli; `by=` groups units or stimuli.

    Without `rng`, the exact form: the covariance of the stimulus means, less what noise adds to it,

    S = Σ_s (x̄_s − x̄)(x̄_s − x̄)ᵀ / (n − 1) − (1/n) Σ_s Ĉ_s / Rₛ,

    over the n stimuli with two repeats or more, Ĉ_s the noise covariance for stimulus s with dof Rₛ − 1. It is the
    U-statistic in which no trial meets itself: the mean over stimuli of the mean of x_sr x_sqᵀ over ordered pairs of
    distinct repeats r ≠ q, less the mean of x̄_s x̄_tᵀ over ordered pairs of distinct stimuli. With `rng`, the
    cross-covariance of the means of two random disjoint halves of the repeats, symmetrised and averaged over
    `n_splits`. The exact form is its limit for many splits: prefer it. It has no Monte-Carlo error and costs two matrix
    products, not `n_splits`.

    Both are unbiased if the noise of different trials is independent, whatever the Rₛ and however the noise depends on
    the stimulus. n − 1 degrees of freedom (in attrs["dof"]); in squared units of the responses. Not positive
    semidefinite: a variance can come out negative where the noise is larger than the signal.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_splits : int, optional
        The number of random halves to average over, where `rng` is given.
    rng : numpy.random.Generator or int, optional
        Draws random halves of the repeats; without it the exact form is computed.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit, other_unit).

    Raises
    ------
    ValueError
        If responses are not valid, fewer than three stimuli have two repeats, or `n_splits` < 1.

    References
    ----------
    Pospisil & Bair 2021, doi:10.1371/journal.pcbi.1009212 (the same correction of tuning with noise)

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]], [[4.0], [4.0]], [[5.0], [7.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0, 1, 2]})
    >>> float(signal_covariance(da)[0, 0].round(12))  # of the means, 4, less the noise, (2/2 + 0/2 + 2/2) / 3
    3.333333333333
    """
    require_splits(n_splits)
    matrix = signal_covariance_kernel(responses.values, n_splits, None if rng is None else np.random.default_rng(rng))
    dof = int((repeat_counts(responses) > 1).sum()) - 1
    return xr.DataArray(matrix, dims=("unit", "other_unit"), attrs={"dof": dof, "units": squared_units(responses)})


@estimator(Needs(stimuli=3))
def signal_correlation(
    responses: xr.DataArray,
    *,
    n_splits: int = 20,
    rng: np.random.Generator | int | None = None,
    by: str | None = None,
) -> xr.DataArray:
    """Signal correlation of each pair of units, free of noise correlation; `by=` groups units or stimuli.

    r_ij = S_ij / √(S_ii S_jj) with the `signal_covariance` S: the exact form without `rng`, which is to be preferred,
    random halves with it. As S is unbiased, neither shared noise nor unreliability biases r to first order; single
    pairs can exceed 1.

    What remains is the bias of a ratio, which vanishes with the number n of stimuli. For Gaussian tuning, independent
    noise and R repeats it is about ρ (3t²/2 − 2t + ρ²/2 + 3(t − 1)²/(2(R − 1))) / (n − 1), 1/t the reliability of both
    units' means: toward zero for reliable units (t = 1), away from it for unreliable ones (t > 4/3).

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_splits : int, optional
        The number of random halves to average over, where `rng` is given.
    rng : numpy.random.Generator or int, optional
        Draws random halves of the repeats; without it the exact form is computed.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit, other_unit); NaN for units whose estimated signal variance S_ii is not positive.

    Raises
    ------
    ValueError
        If responses are not valid, fewer than three stimuli have two repeats, or `n_splits` < 1.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=200, n_repeats=4, n_units=3, rng=0)
    >>> signal_correlation(da).shape
    (3, 3)
    """
    require_splits(n_splits)
    matrix = signal_correlation_kernel(responses.values, n_splits, None if rng is None else np.random.default_rng(rng))
    return xr.DataArray(matrix, dims=("unit", "other_unit"))


def signal_correlation_kernel(values: Any, n_splits: int = 20, rng: np.random.Generator | None = None) -> Any:
    """`signal_correlation` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_splits : int, optional
        The number of random halves, where `rng` is given.
    rng : numpy.random.Generator, optional
        Draws random halves; without it the exact form is computed.

    Returns
    -------
    array of NumPy or torch
        (unit, unit), NaN for units without signal variance.
    """
    correlation = signal_covariance_kernel(values, n_splits, rng)
    xp = array_namespace(correlation)
    diagonal = xp.arange(correlation.shape[0], device=device(correlation))
    scale = correlation[diagonal, diagonal]
    # A variance that comes out negative has no root; NaN passes to every pair of the unit.
    scale[~(scale > 0)] = xp.nan
    scale = xp.sqrt(scale)
    correlation /= scale[:, None]
    correlation /= scale[None, :]
    # 1, or NaN where there is no signal variance; the division above may have left a rounding error.
    correlation[diagonal, diagonal] = scale / scale
    return correlation


def signal_covariance_kernel(values: Any, n_splits: int = 20, rng: np.random.Generator | None = None) -> Any:
    """`signal_covariance` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_splits : int, optional
        The number of random halves, where `rng` is given.
    rng : numpy.random.Generator, optional
        Draws random halves; without it the exact form is computed.

    Returns
    -------
    array of NumPy or torch
        (unit, unit).
    """
    means, noise, present = means_and_noise(values)
    xp, n_stimuli = array_namespace(means), means.shape[0]
    if rng is None:
        n_repeats = count(present, means)
        # E Σ_s (x̄_s − x̄)(x̄_s − x̄)ᵀ / (n − 1) = S + (1/n) Σ_s C_s/Rₛ: the mean of Rₛ trials has noise C_s/Rₛ.
        # That is taken off with Ĉ_s/Rₛ = Σ_r e eᵀ / (Rₛ(Rₛ − 1)); its scale is put on the residuals e, so that one
        # product of all trials gives the sum over stimuli.
        means = (means - xp.mean(means, axis=0)) / (n_stimuli - 1) ** 0.5
        noise /= xp.sqrt(n_stimuli * n_repeats * (n_repeats - 1))[:, None, None]
        trials = xp.reshape(noise, (-1, noise.shape[2]))
        covariance = means.T @ means
        # In place: with many units a third matrix of them would not fit where two do.
        covariance -= trials.T @ trials
        return covariance
    total = xp.zeros((means.shape[1], means.shape[1]), dtype=means.dtype, device=device(means))
    for _ in range(n_splits):
        first, second = (half - xp.mean(half, axis=0) for half in halves(means, noise, present, rng))
        # The halves share no trial, so that E (first mean)(second mean)ᵀ has no noise; either half may stand first.
        total += first.T @ second
    return (total + total.T) / (2 * n_splits * (n_stimuli - 1))


def means_and_noise(values: Any) -> tuple[Any, Any, Any]:
    """Of the stimuli with two repeats or more: the means, the residuals, and which trials are present.

    Means (stimulus, unit) lack an offset, the same for all stimuli; residuals (stimulus, repeat, unit) are 0 where a
    trial is absent; `values` are not changed.
    """
    xp, values = array_namespace(values), floating(values)
    present = ~xp.isnan(values[:, :, 0])
    repeated = count(present, values) > 1
    noise, present = values[repeated], present[repeated]
    noise -= noise[0][present[0]][0]  # one trial, so that a constant unit is 0 without rounding
    noise[~present] = 0
    means = xp.sum(noise, axis=1) / count(present, values)[:, None]
    noise -= means[:, None, :]
    noise[~present] = 0
    return means, noise, present


def count(present: Any, like: Any) -> Any:
    """The number of trials of each stimulus, in the dtype of `like`."""
    xp = array_namespace(present)
    return xp.sum(xp.astype(present, like.dtype), axis=1)


def halves(means: Any, noise: Any, present: Any, rng: np.random.Generator) -> list[Any]:
    """Means over two random disjoint halves of the repeats, as `responses.split` draws them, from `means_and_noise`."""
    xp = array_namespace(means)
    here = np.asarray(to_device(present, "cpu"))
    # The mean of some rows of the identity is what each repeat weighs in the mean of those repeats.
    repeats = np.where(here[:, :, None], np.eye(here.shape[1]), np.nan)
    weights = [xp.asarray(w, dtype=means.dtype, device=device(means)) for w in split_kernel(repeats, rng)]
    return [means + (w[:, None, :] @ noise)[:, 0, :] for w in weights]
