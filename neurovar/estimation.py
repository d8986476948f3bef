"""Noise and signal covariance and correlation, Fano factor, reliability, and fitted noise structures.

Every function takes responses (stimulus, repeat, unit) with NaN for absent repeats (`neurovar.responses`), validates
them once, and works on plain arrays. Noise is the deviation from the stimulus's mean; Rₛ is the number of repeats of
stimulus s.
"""

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import svds
from torch import Tensor

from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.responses import (
    constant_units,
    repeat_counts,
    require_simultaneous,
    residuals_kernel,
    split_kernel,
    validate,
)


def noise_covariance(responses: xr.DataArray) -> xr.DataArray:
    """Noise covariance pooled over stimuli.

    C = Σ_s Σ_r (x_sr − x̄_s)(x_sr − x̄_s)ᵀ / Σ_s (Rₛ − 1), in squared units of the responses.

    Unbiased, with Σ(Rₛ − 1) degrees of freedom (in attrs["dof"]), if noise has the same covariance for every stimulus;
    otherwise it is the average over stimuli weighted by Rₛ − 1.

    Returns
    -------
    DataArray (unit, other_unit)

    Raises
    ------
    ValueError : if responses are not valid or no stimulus has two repeats.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0, 0.0], [3.0, 2.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]})
    >>> noise_covariance(da).values
    array([[2., 2.],
           [2., 2.]])
    """
    validate(responses, min_repeats=2)
    require_simultaneous(responses)
    matrix, dof = noise_covariance_kernel(responses.values)
    return _matrix(matrix, responses).assign_attrs(dof=dof, units=f"({responses.attrs.get('units', '?')})²")


def noise_covariance_kernel(values: np.ndarray) -> tuple[np.ndarray, int]:
    """`noise_covariance` of an array (stimulus, repeat, unit): matrix (unit, unit) and degrees of freedom."""
    trials, dof = _noise_trials(values)
    return trials.T @ trials / dof, dof


def _noise_trials(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Residuals of the trials that are present, (trial, unit), and Σ(Rₛ − 1)."""
    present = ~np.isnan(values[:, :, 0])
    return residuals_kernel(values)[present], int((present.sum(axis=1) - 1).sum())


def noise_correlation(responses: xr.DataArray, *, zscore: bool = True) -> xr.DataArray:
    """Noise correlation r_sc of each pair of units: Pearson correlation of their residuals.

    With `zscore` each unit's residuals are first divided by their standard deviation for that stimulus (dof Rₛ − 1),
    so that stimuli with large variance do not dominate; stimuli for which a unit never varies are left out of its
    pairs. Without, it is the correlation of `noise_covariance`.

    The estimate of a correlation ρ is biased toward zero by about ρ(1 − ρ²)/(2·dof). Without `zscore`, dof = Σ(Rₛ − 1),
    and the bias is negligible. With it, the estimate is the mean of the correlations for each stimulus, dof = Rₛ − 1:
    more stimuli do not help (of a small ρ one eighth is lost with five repeats, one eighteenth with ten). With only two
    repeats, z-scored residuals are ±1/√2 whatever the noise: use more repeats or zscore=False.

    Returns
    -------
    DataArray (unit, other_unit), diagonal 1, without units; NaN for pairs that never vary for the same stimulus

    Raises
    ------
    ValueError : if responses are not valid, no stimulus has two repeats, a unit never varies, or (with `zscore`) no
        stimulus has three repeats.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0, 0.0], [3.0, 2.0], [2.0, 1.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0]})
    >>> float(noise_correlation(da)[0, 1].round(12))
    1.0
    """
    validate(responses, min_repeats=3 if zscore else 2)
    require_simultaneous(responses)
    constant = constant_units(responses)
    if len(constant):
        raise ValueError(
            f"expected units that vary between repeats, got {len(constant)} with zero noise variance "
            f"(positions {constant[:5].tolist()}); responses.drop_constant removes them"
        )
    return _matrix(noise_correlation_kernel(responses.values, zscore=zscore), responses)


def noise_correlation_kernel(values: np.ndarray, *, zscore: bool = True) -> np.ndarray:
    """`noise_correlation` of an array (stimulus, repeat, unit)."""
    if not zscore:
        return _correlation(noise_covariance_kernel(values)[0])
    present = ~np.isnan(values[:, :, 0])
    enough = present.sum(axis=1) > 1
    noise = residuals_kernel(values[enough])
    deviation = np.sqrt(np.nansum(noise**2, axis=1, keepdims=True) / (present[enough].sum(axis=1) - 1)[:, None, None])
    # Residuals of a constant are rounding, not 0: the mean of three times 0.1 is not 0.1.
    varies = np.broadcast_to(deviation > 1e-6 * np.nanmax(np.abs(values[enough]), axis=1, keepdims=True), noise.shape)
    z = np.divide(noise, deviation, out=np.zeros_like(noise), where=varies)[present[enough]]
    squares = (z**2).T @ varies[present[enough]].astype(z.dtype)
    scale = np.sqrt(squares * squares.T)
    correlation = np.clip(np.divide(z.T @ z, scale, out=np.full_like(scale, np.nan), where=scale > 0), -1, 1)
    np.fill_diagonal(correlation, 1)
    return correlation


def _correlation(covariance: np.ndarray) -> np.ndarray:
    variance = np.diag(covariance)
    scale = np.sqrt(np.where(variance > 0, variance, np.nan))
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, np.where(variance > 0, 1, np.nan))
    return correlation


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
    _check_stimuli(responses, n_splits)
    return _matrix(signal_correlation_kernel(responses.values, n_splits, np.random.default_rng(rng)), responses)


def signal_correlation_kernel(values: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """`signal_correlation` of an array (stimulus, repeat, unit)."""
    return _correlation(signal_covariance_kernel(values, n_splits, rng))


def signal_covariance_kernel(values: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Covariance over stimuli of the means of disjoint halves of the repeats, averaged over splits."""
    kept = values[(~np.isnan(values[:, :, 0])).sum(axis=1) > 1]
    total = np.zeros((values.shape[2], values.shape[2]))
    for _ in range(n_splits):
        first, second = split_kernel(kept, rng)
        cross = (first - first.mean(axis=0)).T @ (second - second.mean(axis=0)) / (len(kept) - 1)
        total += (cross + cross.T) / 2
    return total / n_splits


def fano_factor(responses: xr.DataArray) -> xr.DataArray:
    """Fano factor of each unit: variance / mean of its spike counts, averaged over stimuli.

    F_u = mean over s of σ²_su / μ_su, variance with dof Rₛ − 1; stimuli with one repeat or without a spike are left
    out. 1 for a Poisson process. The ratio of estimates has no bias for Poisson counts, and one of about
    −F(F − 1)/(R μ) for negative binomial and binomial ones: too close to 1.

    Returns
    -------
    DataArray (unit), without units

    Raises
    ------
    ValueError : if attrs["units"] is not "spike count", a count is negative, or no stimulus has two repeats.

    References
    ----------
    Churchland et al. 2010, doi:10.1038/nn.2501

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]},
    ...                   attrs={"units": "spike count"})
    >>> fano_factor(da).item()
    1.0
    """
    validate(responses, min_repeats=2)
    if responses.attrs.get("units") != "spike count":
        why = f" ({responses.attrs['residuals']})" if "residuals" in responses.attrs else ""
        raise ValueError(f"expected counts, attrs['units'] = 'spike count', got {responses.attrs.get('units')!r}{why}")
    if (responses.values < 0).any():
        raise ValueError(f"expected spike counts, got negative values (smallest {np.nanmin(responses.values):g})")
    return _per_unit(fano_factor_kernel(responses.values), responses)


def fano_factor_kernel(values: np.ndarray) -> np.ndarray:
    """`fano_factor` of an array (stimulus, repeat, unit)."""
    kept = values[(~np.isnan(values[:, :, 0])).sum(axis=1) > 1]
    mean, variance = np.nanmean(kept, axis=1), np.nanvar(kept, axis=1, ddof=1)
    ratio = np.divide(variance, mean, out=np.zeros_like(mean), where=mean > 0)
    return ratio.sum(axis=0) / np.where((mean > 0).any(axis=0), (mean > 0).sum(axis=0), np.nan)


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
    _check_stimuli(responses, n_splits)
    return _per_unit(reliability_kernel(responses.values, n_splits, np.random.default_rng(rng)), responses)


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


def effective_dimensionality(responses: xr.DataArray) -> float:
    """Effective dimensionality of the pooled noise covariance, (Σλ)² / Σλ².

    Between 1 and the number of units. Biased down where dof = Σ(Rₛ − 1) is not much larger than the number of units
    (sampling spreads the eigenvalues): for white noise the expectation is about n·dof / (n + dof).

    Raises
    ------
    ValueError : if responses are not valid, no stimulus has two repeats, or no unit varies.

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=500, n_repeats=5, n_units=10, rng=0)
    >>> 9.5 < effective_dimensionality(da) < 10
    True
    """
    matrix = noise_covariance(responses).values
    if not matrix.any():
        raise ValueError(f"expected units that vary between repeats, got none among {len(matrix)}")
    return effective_dimensionality_kernel(matrix)


def effective_dimensionality_kernel(matrix: np.ndarray) -> float:
    """(tr C)² / ‖C‖²_F of a covariance (unit, unit)."""
    return float(np.trace(matrix) ** 2 / (matrix**2).sum())


def fit_covariance(responses: xr.DataArray, *, kind: str, rank: int | None = None) -> Covariance:
    """The pooled noise of `responses` as a noise structure.

    kind = "dense": `noise_covariance`; "diagonal": its diagonal; "low_rank": its `rank` leading principal components,
    the rest of each unit's variance as private noise (so the diagonal is exact). Divisor Σ(Rₛ − 1).

    Raises
    ------
    ValueError : for another kind, a rank out of range, or responses without repeats.

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> fit_covariance(da, kind="low_rank", rank=2).factors.shape
    torch.Size([10, 2])
    """
    validate(responses, min_repeats=2)
    require_simultaneous(responses)
    trials, dof = _noise_trials(responses.values)
    return _structure(torch.from_numpy(np.ascontiguousarray(trials, dtype=np.float32)), dof, kind=kind, rank=rank)


def deviation_covariance(
    clean: Tensor, modified: Tensor, *, kind: str, rank: int | None = None, ridge: float = 0.0
) -> Covariance:
    """Covariance of a layer's response to modified images about its response to the clean ones.

    d = modified − clean, one row a stimulus; C = cov(d) + ridge·I, divisor n − 1. The mean of d over stimuli, the
    mean shift, is no part of C.

    Parameters
    ----------
    clean, modified : (stimulus, …) activations of the same layer to the same stimuli, in the same order.
    kind, rank : as in `fit_covariance`.
    ridge : variance added to every unit; 1e-4 in Preble et al. 2026.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> import torch
    >>> deviation_covariance(torch.zeros(3, 2), torch.eye(3)[:, :2], kind="diagonal").diagonal()
    tensor([0.3333, 0.3333])
    """
    if clean.shape != modified.shape:
        raise ValueError(f"expected responses of one shape, got {tuple(clean.shape)} and {tuple(modified.shape)}")
    if len(clean) < 2:
        raise ValueError(f"expected at least 2 stimuli, got {len(clean)}")
    deviation = (modified - clean).flatten(1)
    return _structure(deviation - deviation.mean(0), len(deviation) - 1, kind=kind, rank=rank, ridge=ridge)


def _structure(noise: Tensor, dof: int, *, kind: str, rank: int | None, ridge: float = 0.0) -> Covariance:
    """A noise structure of `kind` from centred noise (trial, unit)."""
    if (rank is not None) != (kind == "low_rank"):
        raise ValueError(f"expected a rank for kind 'low_rank' and none for others, got kind {kind!r}, rank {rank}")
    variance = noise.square().sum(0) / dof + ridge
    if kind == "diagonal":
        return Diagonal(variance)
    if kind == "dense":
        return Dense(noise.mT @ noise / dof + ridge * torch.eye(noise.shape[1]).to(noise))
    if kind != "low_rank" or rank is None:
        raise ValueError(f"expected kind 'dense', 'diagonal' or 'low_rank', got {kind!r}")
    if not 1 <= rank < min(noise.shape):
        raise ValueError(f"expected a rank from 1 to {min(noise.shape) - 1}, got {rank}")
    # Fixed, so that fits repeat; random, as noise sums to zero over trials: ones would be no start at all.
    start = np.random.default_rng(0).standard_normal(min(noise.shape))
    _, singular, axes = svds(noise.cpu().numpy() / dof**0.5, k=rank, v0=start)
    order = np.argsort(-singular)
    factors = torch.from_numpy(axes[order].T * singular[order]).to(variance)
    return LowRankPlusDiagonal(factors, (variance - factors.square().sum(1)).clamp(min=0))


def _check_stimuli(responses: xr.DataArray, n_splits: int) -> None:
    if n_splits < 1:
        raise ValueError(f"expected at least 1 split, got {n_splits}")
    validate(responses, min_repeats=2)
    repeated = int((repeat_counts(responses) > 1).sum())
    if repeated < 3:
        raise ValueError(f"expected at least 3 stimuli with 2 repeats, got {repeated}")


def _matrix(values: np.ndarray, responses: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(values, dims=("unit", "other_unit"), coords=_unit_coords(responses))


def _per_unit(values: np.ndarray, responses: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(values, dims="unit", coords=_unit_coords(responses))


def _unit_coords(responses: xr.DataArray) -> dict:
    return {name: coord for name, coord in responses.coords.items() if coord.dims == ("unit",)}
