"""Map the noise of one system onto another, and matched controls."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import eigsh

from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.estimation import (
    noise_correlation,
    noise_covariance_kernel,
    signal_correlation,
)
from neurovar.responses import validate


@dataclass(frozen=True, eq=False)
class SignalRule:
    """How noise follows from tuning: r_noise = intercept + slope · r_signal; variance ∝ mean^exponent.

    `bins` holds the pairs averaged in bins of signal correlation, for a figure: noise_correlation, its standard_error
    over pairs, signal_correlation, n_pairs.
    """

    intercept: float
    slope: float
    variance_exponent: float
    bins: xr.Dataset


def fit_signal_rule(
    source: xr.DataArray, *, rng: np.random.Generator | int, n_splits: int = 20, n_bins: int = 10
) -> SignalRule:
    """Fit in `source` how noise correlation depends on signal correlation, and variance on mean.

    Both are least-squares lines: of the z-scored noise correlation on the signal correlation (from disjoint repeats,
    clipped to [−1, 1]) over pairs of units, and of log noise variance on log mean response over units. Pairs share
    units, so that the binned standard errors are too small. Two errors flatten the line: that of the estimated signal
    correlation, and the bias of z-scored noise correlations with few repeats (`noise_correlation`).

    Raises
    ------
    ValueError : if there are not three repeats, fewer than three units, fewer than two pairs with a signal correlation,
        or a mean response is not positive.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
    >>> rule = fit_signal_rule(da, rng=0)
    >>> abs(rule.slope) < 0.1, abs(rule.variance_exponent - 1) < 0.2
    (True, True)
    """
    noise = noise_correlation(source).values
    if len(noise) < 3:
        raise ValueError(f"expected at least 3 units, got {len(noise)}")
    signal = np.clip(signal_correlation(source, n_splits=n_splits, rng=rng).values, -1, 1)
    pairs = np.triu_indices(len(noise), 1)
    x, y = signal[pairs], noise[pairs]
    kept = np.isfinite(x) & np.isfinite(y)
    if kept.sum() < 2:
        raise ValueError(f"expected at least 2 pairs of units with a signal correlation, got {kept.sum()}")
    slope, intercept = np.polyfit(x[kept], y[kept], 1)
    mean = np.nanmean(source.values, axis=(0, 1))
    if (mean <= 0).any():
        raise ValueError(f"expected positive mean responses, got {int((mean <= 0).sum())} units at 0 or below")
    variance = np.diag(noise_covariance_kernel(source.values)[0])
    exponent = np.polyfit(np.log(mean), np.log(variance), 1)[0]
    return SignalRule(
        float(intercept), float(slope), float(exponent), _bins(x[kept], y[kept], n_bins, intercept, slope)
    )


def _bins(x: np.ndarray, y: np.ndarray, n_bins: int, intercept: float, slope: float) -> xr.Dataset:
    """Means over bins of equal numbers of pairs."""
    parts = [part for part in np.array_split(np.argsort(x), n_bins) if len(part) > 1]
    columns = {
        "signal_correlation": [x[part].mean() for part in parts],
        "noise_correlation": [y[part].mean() for part in parts],
        "standard_error": [y[part].std(ddof=1) / np.sqrt(len(part)) for part in parts],
        "n_pairs": [len(part) for part in parts],
    }
    return xr.Dataset(
        {name: ("bin", np.array(column)) for name, column in columns.items()},
        attrs={"intercept": float(intercept), "slope": float(slope)},
    )


def onto(
    source: xr.DataArray | SignalRule, target: xr.DataArray, *, method: str, rng: np.random.Generator | int
) -> Dense:
    """The noise that `target` would have if its noise followed from its tuning as in `source`.

    method = "signal_rule": fit the rule in `source` (`fit_signal_rule`; or give a fitted one). The target's noise
    correlation is intercept + slope · r_signal(i, j), 1 on the diagonal, projected to the nearest correlation matrix;
    variances are mean |response|^exponent, scaled to average 1. Needs no shared stimuli and no matched units.

    A network's activations stand in for rates by their size: only ratios of variances are carried over, and the
    total variance is free (`Covariance.scale_to`).

    Parameters
    ----------
    target : responses (stimulus, repeat, unit). With one repeat they count as noise-free; with more, the signal
        correlation comes from disjoint repeats. Units that do not vary over stimuli have no signal correlation (0).

    Raises
    ------
    ValueError : for another method, or responses that are not valid.

    Examples
    --------
    >>> from neurovar import simulation
    >>> cortex = simulation.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
    >>> network = simulation.population(n_stimuli=50, n_repeats=1, n_units=30, rng=1)
    >>> noise = onto(cortex, network, method="signal_rule", rng=0)
    >>> noise.n, round(noise.trace(), 3)
    (30, 30.0)
    """
    if method != "signal_rule":
        raise ValueError(f"expected method 'signal_rule', got {method!r}")
    rng = np.random.default_rng(rng)
    rule = source if isinstance(source, SignalRule) else fit_signal_rule(source, rng=rng)
    validate(target)
    correlation = rule.intercept + rule.slope * _target_signal_correlation(target, rng)
    np.fill_diagonal(correlation, 1)
    correlation = nearest_correlation(np.clip(correlation, -1, 1))
    size = np.nanmean(np.abs(target.values), axis=(0, 1), dtype=np.float64)
    deviation = np.maximum(size / size.mean(), 1e-3) ** (rule.variance_exponent / 2)
    deviation /= np.sqrt((deviation**2).mean())
    return Dense(torch.from_numpy(correlation * np.outer(deviation, deviation)).float())


def _target_signal_correlation(target: xr.DataArray, rng: np.random.Generator) -> np.ndarray:
    if target.sizes["repeat"] > 1:
        signal = signal_correlation(target, rng=rng).values
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


def low_rank(noise: Covariance, *, rank: int) -> LowRankPlusDiagonal:
    """`noise` with its `rank` leading principal components kept and the rest of each variance made private.

    The variances stay exact; covariances outside the leading components are lost.

    Examples
    --------
    >>> matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    >>> low_rank(Dense(matrix), rank=1).diagonal()
    tensor([2., 2., 1.])
    """
    if not 1 <= rank < noise.n:
        raise ValueError(f"expected a rank from 1 to {noise.n - 1}, got {rank}")
    matrix = noise.to_dense().cpu().double().numpy()
    values, vectors = eigsh(matrix, k=rank, v0=np.random.default_rng(0).standard_normal(noise.n))
    factors = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0))).to(noise.diagonal())
    return LowRankPlusDiagonal(factors, (noise.diagonal() - factors.square().sum(1)).clamp(min=0))


def diagonal(noise: Covariance) -> Diagonal:
    """Control: the same variances, no correlations."""
    return Diagonal(noise.diagonal().clone())


def isotropic(noise: Covariance) -> Diagonal:
    """Control: the same trace, equal and independent for all units."""
    return Diagonal(torch.full_like(noise.diagonal(), noise.trace() / noise.n))


def rotated(noise: Covariance, *, rng: np.random.Generator | int) -> Covariance:
    """Control: the same spectrum under a random rotation, so that only alignment with the network is lost.

    For `LowRankPlusDiagonal` the leading `rank` eigenvalues are kept and the others replaced by their mean, which
    keeps the trace and O(n·r) memory; for other types every eigenvalue is kept.

    Examples
    --------
    >>> turned = rotated(Dense(torch.diag(torch.tensor([3.0, 1.0]))), rng=0)
    >>> turned.spectrum().numpy().round(4)
    array([3., 1.])
    """
    generator = torch.Generator().manual_seed(int(np.random.default_rng(rng).integers(2**63)))
    n, kept = noise.n, min(noise.rank, noise.n) if isinstance(noise, LowRankPlusDiagonal) else noise.n
    axes, _ = torch.linalg.qr(torch.randn(n, kept, generator=generator, dtype=torch.float64))
    if not isinstance(noise, LowRankPlusDiagonal) or kept == n:
        matrix = (axes * noise.spectrum().cpu()) @ axes.mT
        return Dense(((matrix + matrix.mT) / 2).to(noise.diagonal()))
    leading = noise.leading_eigenvalues(kept)
    rest = max(noise.trace() - float(leading.sum()), 0.0) / (n - kept)
    factors = (axes * (leading - rest).clamp(min=0).sqrt()).to(noise.factors)
    return LowRankPlusDiagonal(factors, torch.full_like(noise.private, rest))


def with_controls(noise: Covariance, *, rng: np.random.Generator | int) -> dict[str, Covariance]:
    """The noise and its controls, all at its trace: transplanted, diagonal, isotropic, rotated.

    Examples
    --------
    >>> {name: round(c.trace(), 3) for name, c in with_controls(Dense(torch.eye(3)), rng=0).items()}
    {'transplanted': 3.0, 'diagonal': 3.0, 'isotropic': 3.0, 'rotated': 3.0}
    """
    return {
        "transplanted": noise,
        "diagonal": diagonal(noise),
        "isotropic": isotropic(noise),
        "rotated": rotated(noise, rng=rng),
    }
