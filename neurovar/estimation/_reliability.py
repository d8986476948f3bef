"""How reliable each unit's tuning is."""

import numpy as np
import xarray as xr

from neurovar.estimation._common import labelled_units, require_splits
from neurovar.responses import split_kernel


def reliability(responses: xr.DataArray, *, n_splits: int = 20, rng: np.random.Generator | int) -> xr.DataArray:
    """Split-half reliability of each unit's tuning, with the Spearman–Brown correction.

    r = correlation over stimuli of the means of two disjoint random halves of the repeats, averaged over `n_splits`;
    reliability = 2r / (1 + r): the correlation of the full mean with that of as many new repeats. One repeat of an odd
    number is left out of each split, so it slightly understates (by the missing repeat).

    Returns
    -------
    DataArray (unit), without units; NaN for a unit whose mean does not vary over stimuli

    Raises
    ------
    ValueError : if responses are not valid, fewer than three stimuli have two repeats, or `n_splits` < 1.

    References
    ----------
    Spearman 1910, doi:10.1111/j.2044-8295.1910.tb00206.x; Brown 1910, doi:10.1111/j.2044-8295.1910.tb00207.x

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=200, n_repeats=4, n_units=3, rng=0)
    >>> bool((reliability(da, rng=0) < 1).all())
    True
    """
    require_splits(responses, n_splits)
    return labelled_units(reliability_kernel(responses.values, n_splits, np.random.default_rng(rng)), responses)


def reliability_kernel(values: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """`reliability` of an array (stimulus, repeat, unit)."""
    kept = values[(~np.isnan(values[:, :, 0])).sum(axis=1) > 1]
    halves = np.zeros(values.shape[2])
    for _ in range(n_splits):
        first, second = (half - half.mean(axis=0) for half in split_kernel(kept, rng))
        scale = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
        halves += np.divide((first * second).sum(axis=0), scale, out=np.full_like(scale, np.nan), where=scale > 0)
    r = halves / n_splits
    return 2 * r / (1 + r)
