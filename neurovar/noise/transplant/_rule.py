"""Noise that follows from tuning: the rule of cortex, fitted there and applied elsewhere."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.spatial.distance import squareform

from neurovar import _memory
from neurovar.covariance import Dense
from neurovar.noise.transplant._target import like
from neurovar.statistics import binned, kernels, pairs, signal_correlation

COPIES = 6
"""Matrices over the target's units that are held at once."""


@dataclass(frozen=True, eq=False)
class SignalRule:
    """How noise follows from tuning: r_noise = intercept + slope · r_signal; variance ∝ mean^exponent.

    `bins` holds the pairs averaged in bins of signal correlation, for a figure: see `statistics.binned`.
    """

    intercept: float
    slope: float
    variance_exponent: float
    bins: xr.Dataset


def fit_signal_rule(
    source: xr.DataArray,
    *,
    rng: np.random.Generator | int | None = None,
    n_splits: int = 20,
    n_bins: int = 10,
) -> SignalRule:
    """Fit in `source` how noise correlation depends on signal correlation, and variance on mean.

    Both are least-squares lines: of the z-scored noise correlation on the signal correlation (clipped to [−1, 1]) over
    pairs of units (`statistics.pairs`, `statistics.binned`), and of log noise variance on log mean response over units.
    Two errors flatten the line: that of the estimated signal correlation, and the bias of z-scored noise correlations
    with few repeats (`noise_correlation`).

    Parameters
    ----------
    rng, n_splits : for a signal correlation from random halves of the repeats, not in the exact form, which is better:
        as of `statistics.signal_correlation`.
    n_bins : bins with equal numbers of pairs, for the figure alone.

    Raises
    ------
    ValueError : if there are not three repeats, fewer than four units or than three stimuli with two repeats, no pairs
        with a signal correlation, or a mean response is not positive.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
    >>> rule = fit_signal_rule(da)
    >>> abs(rule.slope) < 0.1, abs(rule.variance_exponent - 1) < 0.2
    (True, True)
    """
    table = pairs(source)
    if source.sizes["unit"] < 4:
        raise ValueError(f"expected at least 4 units, got {source.sizes['unit']}")
    if rng is not None:
        signal = signal_correlation(source, n_splits=n_splits, rng=rng).values
        table["signal_correlation"] = ("pair", squareform(signal, checks=False))
    bins = binned(table, against="signal_correlation", n_bins=n_bins)
    mean = np.nanmean(source.values, axis=(0, 1))
    if (mean <= 0).any():
        raise ValueError(f"expected positive mean responses, got {int((mean <= 0).sum())} units at 0 or below")
    variance = np.diag(kernels.noise_covariance(source.values)[0])
    exponent = np.polyfit(np.log(mean), np.log(variance), 1)[0]
    return SignalRule(bins.attrs["intercept"], bins.attrs["slope"], float(exponent), bins)


def place_signal_rule(rule: SignalRule, target: xr.DataArray) -> Dense:
    """The target's noise correlation is intercept + slope · r_signal, its variance mean |response|^exponent."""
    n = target.sizes["unit"]
    _memory.require_matrix(n, torch.float64, torch.device("cpu"), copies=COPIES)
    if target.sizes["stimulus"] < 3:
        raise ValueError(
            f"expected at least 3 stimuli of the target for its signal correlations, got {target.sizes['stimulus']}"
        )
    correlation = rule.intercept + rule.slope * _target_signal_correlation(target)
    np.fill_diagonal(correlation, 1)
    correlation = nearest_correlation(np.clip(correlation, -1, 1))
    size = np.nanmean(np.abs(target.values), axis=(0, 1), dtype=np.float64)
    if not size.any():
        raise ValueError(f"expected responses of the target other than 0, got none from {n} units")
    deviation = np.maximum(size / size.mean(), 1e-3) ** (rule.variance_exponent / 2)
    deviation /= np.sqrt((deviation**2).mean())
    return Dense(torch.from_numpy(correlation * np.outer(deviation, deviation)).to(like(target)))


def _target_signal_correlation(target: xr.DataArray) -> np.ndarray:
    if target.sizes["repeat"] > 1:
        signal = signal_correlation(target).values
    else:
        centred = target.values[:, 0] - target.values[:, 0].mean(axis=0)
        scale = np.sqrt((centred**2).sum(axis=0))
        z = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
        signal = (z.T @ z).astype(np.float64)
    return np.clip(np.nan_to_num(signal), -1, 1)


def nearest_correlation(matrix: np.ndarray, *, tolerance: float = 1e-7, max_iterations: int = 1000) -> np.ndarray:
    """The correlation matrix nearest to a symmetric `matrix` in the Frobenius norm.

    Higham's alternating projections with Dykstra's correction; a matrix that is one already is returned as it is.
    The result has eigenvalues of at least 1e-6 (so that it factorises in float32).

    Raises
    ------
    ValueError : if `matrix` is not square, symmetric and finite, or the projections do not converge.

    References
    ----------
    Higham 2002, doi:10.1093/imanum/22.3.329

    Examples
    --------
    >>> nearest_correlation(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])).round(4)
    array([[1.    , 0.7607, 0.1573],
           [0.7607, 1.    , 0.7607],
           [0.1573, 0.7607, 1.    ]])
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T, atol=1e-6):
        raise ValueError(f"expected a finite symmetric matrix, got shape {matrix.shape} or one that is not symmetric")
    floor = 1e-6
    if np.allclose(np.diag(matrix), 1) and _is_positive(matrix - floor * np.eye(len(matrix))):
        return matrix
    current, correction = (matrix + matrix.T) / 2, np.zeros_like(matrix)
    for _ in range(max_iterations):
        shifted = current - correction
        values, vectors = np.linalg.eigh(shifted)
        projected = (vectors * np.maximum(values, floor)) @ vectors.T
        correction = projected - shifted
        previous, current = current, projected.copy()
        np.fill_diagonal(current, 1)
        if np.linalg.norm(current - previous) <= tolerance * np.linalg.norm(current):
            scale = np.sqrt(np.diag(projected))
            return projected / np.outer(scale, scale)
    raise ValueError(f"expected convergence within {max_iterations} projections, still moving by more than {tolerance}")


def _is_positive(matrix: np.ndarray) -> bool:
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
