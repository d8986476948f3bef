"""How far apart two systems' noise is: their r_sc distributions, their spectra, and r_sc against signal correlation."""

import numpy as np
import xarray as xr
from scipy.stats import wasserstein_distance

from neurovar.statistics.estimation._noise import noise_correlation


def noise_correlation_distance(first: xr.DataArray, second: xr.DataArray, *, zscore: bool = True) -> float:
    """Wasserstein distance between two systems' distributions of noise correlations over pairs of units.

    d = ∫ |F₁(r) − F₂(r)| dr, F the share of pairs with a noise correlation below r: the mean difference between the
    quantiles of the two distributions, from 0 to 2, without units. Numbers of units need not be equal.

    The sampling error of each correlation, about 1/√dof, widens both distributions. With equal numbers of trials
    (`match` over "repeat" and "stimulus") that is the same for both; with unequal ones it is taken for a difference.
    Two samples of one system are never at distance 0: `permutation_test` tells how far apart chance puts them.

    Parameters
    ----------
    first, second : xarray.DataArray
        Responses (stimulus, repeat, unit) of each system.
    zscore : bool, optional
        Whether residuals are z-scored for each stimulus, as in `statistics.noise_correlation`.

    Returns
    -------
    float
        d.

    Raises
    ------
    ValueError
        If a system does not allow noise correlations (`statistics.noise_correlation`) or has one unit.

    References
    ----------
    Villani 2009, Optimal Transport, doi:10.1007/978-3-540-71050-9 (for one dimension)

    Examples
    --------
    >>> from neurovar import statistics
    >>> V1, V2 = (statistics.population(n_stimuli=50, n_repeats=8, n_units=8, rng=seed) for seed in (0, 1))
    >>> noise_correlation_distance(V1, V2) < 0.05
    True
    """
    return float(wasserstein_distance(*(_pairwise(system, zscore) for system in (first, second))))


def _pairwise(system: xr.DataArray, zscore: bool) -> np.ndarray:
    matrix = noise_correlation(system, zscore=zscore).values
    values = matrix[np.triu_indices(len(matrix), 1)]
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(f"expected at least 2 units that vary for the same stimuli, got {len(matrix)} units")
    return values


def spectrum_distance(first: xr.DataArray, second: xr.DataArray) -> float:
    """How far variance must move along the ranks to turn one normalised eigenspectrum into the other, in e-foldings.

    d = ∫ |F₁(n) − F₂(n)| d log n, F(n) = Σ_{m ≤ n} λ_m / Σ λ_m over the ranks that both have: a Wasserstein distance of
    variance over log rank, so that d = log 2 where the same variance lies at twice the rank. It needs no logarithm of
    a variance, so that estimates around zero do no harm, and no unit.

    Parameters
    ----------
    first, second : xarray.DataArray
        Variances (rank) from one estimator (attrs["method"]), both of the signal or both of the noise.

    Returns
    -------
    float
        d.

    Raises
    ------
    ValueError
        If the spectra come from different estimators, share fewer than two ranks, or a sum is not positive.

    References
    ----------
    Villani 2009, Optimal Transport, doi:10.1007/978-3-540-71050-9 (for one dimension)

    Examples
    --------
    >>> rank = np.arange(1, 5)
    >>> first, second = (xr.DataArray(v, dims="rank", coords={"rank": rank}, attrs={"method": "cvpca"})
    ...                  for v in ([1.0, 0, 0, 0], [0, 1.0, 0, 0]))
    >>> round(spectrum_distance(first, second), 4)
    0.6931
    """
    methods = [spectrum.attrs.get("method", "not stated") for spectrum in (first, second)]
    if methods[0] != methods[1]:
        raise ValueError(
            f"expected spectra of one estimator, got {methods[0]!r} and {methods[1]!r}: do not compare them"
        )
    ranks = np.intersect1d(first["rank"].values, second["rank"].values)
    if len(ranks) < 2:
        raise ValueError(f"expected at least 2 ranks in common, got {len(ranks)}")
    shares = []
    for spectrum in (first, second):
        values = spectrum.sel(rank=ranks).values.astype(np.float64)
        if not values.sum() > 0:
            raise ValueError(f"expected a positive sum of variances, got {values.sum():g}")
        shares.append(np.cumsum(values / values.sum()))
    # The shares are steps that stay what they are up to the next rank, and are both 1 at the last.
    return float((np.abs(shares[0] - shares[1])[:-1] * np.diff(np.log(ranks))).sum())


def curve_distance(first: xr.Dataset, second: xr.Dataset) -> float:
    """Root mean squared difference of two binned curves of noise correlation, without the sampling errors' part.

    d² = Σ_b w_b [(y₁ − y₂)² − e₁² − e₂²]_b, y the mean noise correlation of the pairs in bin b, e its standard error,
    w_b ∝ the smaller number of pairs. As e² is what sampling adds to (y₁ − y₂)², d² is unbiased, and 0 on average for
    two samples of one system; the result has the sign of d².

    Parameters
    ----------
    first, second : xarray.Dataset
        Curves (bin) of `statistics.binned` with the same edges.

    Returns
    -------
    float
        d, or −√−d² where d² is negative.

    Raises
    ------
    ValueError
        If the edges differ, or no bin has a standard error in both.

    Examples
    --------
    >>> bins = {"noise_correlation": ("bin", [0.1, 0.2]), "standard_error": ("bin", [0.0, 0.0]),
    ...         "n_pairs": ("bin", [5, 5])}
    >>> curve = xr.Dataset(bins, attrs={"edges": [0.0, 0.5, 1.0]})
    >>> round(curve_distance(curve, curve.assign(noise_correlation=curve.noise_correlation + 0.3)), 12)
    0.3
    """
    edges, other_edges = (list(curve.attrs["edges"]) for curve in (first, second))
    if edges != other_edges:
        raise ValueError(f"expected curves over the same bins, got edges {edges} and {other_edges}")
    errors = [curve["standard_error"].values for curve in (first, second)]
    known = np.isfinite(errors[0]) & np.isfinite(errors[1])
    # The fewer pairs of the two decide how well a bin's difference is known.
    weight = np.where(known, np.minimum(first["n_pairs"].values, second["n_pairs"].values), 0)
    if not weight.sum():
        raise ValueError("expected a bin with pairs of both systems and a standard error, got none")
    difference = (first["noise_correlation"] - second["noise_correlation"]).values
    # E (y₁ − y₂)² = (m₁ − m₂)² + e₁² + e₂² for independent means of expectations m: what sampling adds is taken off.
    squares = difference**2 - errors[0] ** 2 - errors[1] ** 2
    squared = float((weight[known] * squares[known]).sum() / weight.sum())
    return float(np.sign(squared) * np.sqrt(abs(squared)))
