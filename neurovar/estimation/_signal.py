"""Signal covariance and signal correlation, free of noise."""

import numpy as np
import xarray as xr

from neurovar.estimation._common import correlation_kernel, labelled_matrix, require_splits
from neurovar.responses import split_kernel


def signal_correlation(responses: xr.DataArray, *, n_splits: int = 20, rng: np.random.Generator | int) -> xr.DataArray:
    """Signal correlation of each pair of units, free of noise correlation.

    S_ij = cov over stimuli of (half-1 mean of i, half-2 mean of j), symmetrised and averaged over `n_splits` random
    disjoint halves of the repeats; r_ij = S_ij / √(S_ii S_jj). As the halves share no trial, S is an unbiased estimate
    of the covariance of the noise-free means (dof: stimuli − 1), so that neither shared noise nor unreliability biases
    r to first order; single pairs can exceed 1.

    Returns
    -------
    DataArray (unit, other_unit); NaN for units whose estimated signal variance S_ii is not positive

    Raises
    ------
    ValueError : if responses are not valid, fewer than three stimuli have two repeats, or `n_splits` < 1.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=200, n_repeats=4, n_units=3, rng=0)
    >>> signal_correlation(da, rng=0).shape
    (3, 3)
    """
    require_splits(responses, n_splits)
    return labelled_matrix(signal_correlation_kernel(responses.values, n_splits, np.random.default_rng(rng)), responses)


def signal_correlation_kernel(values: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """`signal_correlation` of an array (stimulus, repeat, unit)."""
    return correlation_kernel(signal_covariance_kernel(values, n_splits, rng))


def signal_covariance_kernel(values: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Covariance over stimuli of the means of disjoint halves of the repeats, averaged over splits."""
    kept = values[(~np.isnan(values[:, :, 0])).sum(axis=1) > 1]
    total = np.zeros((values.shape[2], values.shape[2]))
    for _ in range(n_splits):
        first, second = split_kernel(kept, rng)
        cross = (first - first.mean(axis=0)).T @ (second - second.mean(axis=0)) / (len(kept) - 1)
        total += (cross + cross.T) / 2
    return total / n_splits
