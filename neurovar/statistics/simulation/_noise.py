"""Noise structures with a known relation to the signal."""

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike

from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.statistics.simulation import _tuning


def differential_correlations(noise: Covariance, derivative: ArrayLike, *, epsilon: float) -> Covariance:
    """Noise with differential (information-limiting) correlations: C = C₀ + ε f′ f′ᵀ.

    With I₀ = f′ᵀ C₀⁻¹ f′, the linear Fisher information is I = f′ᵀ C⁻¹ f′ = I₀ / (1 + ε I₀), never above 1/ε, however
    many units there are. Low-rank noise stays low-rank.

    Parameters
    ----------
    noise : Covariance
        The covariance C₀ without them.
    derivative : array_like
        (unit,) f′, the change of the mean response per unit of the stimulus (such as a degree): of two stimuli θ apart,
        the difference of `tuning` over θ.
    epsilon : float
        ε ≥ 0, a variance of the stimulus, in its squared units.

    Returns
    -------
    Covariance
        `LowRankPlusDiagonal` for `Diagonal` and low-rank C₀, else `Dense`; of the dtype of C₀.

    Raises
    ------
    ValueError
        If f′ is not finite, one value for each unit of the noise, or ε is negative.

    References
    ----------
    Moreno-Bote et al. 2014, doi:10.1038/nn.3807

    Examples
    --------
    >>> differential_correlations(Diagonal.isotropic(2), [1.0, 2.0], epsilon=0.5).to_dense()
    tensor([[1.5000, 1.0000],
            [1.0000, 3.0000]])
    """
    direction = np.asarray(derivative, dtype=float)
    if direction.shape != (noise.n,) or not np.isfinite(direction).all():
        raise ValueError(f"expected {noise.n} finite derivatives, one a unit, got {direction}")
    if not 0 <= epsilon < np.inf:
        raise ValueError(f"expected an epsilon of at least 0, got {epsilon}")
    # ε f′f′ᵀ is one more factor √ε f′: low-rank noise stays low-rank. I = f′ᵀC⁻¹f′ follows from Sherman–Morrison.
    factor = torch.from_numpy(direction * epsilon**0.5).to(noise.device, noise.dtype)[:, None]
    match noise:
        case Diagonal():
            return LowRankPlusDiagonal(factor, noise.variance)
        case LowRankPlusDiagonal():
            return LowRankPlusDiagonal(torch.cat([noise.factors, factor], dim=1), noise.private)
        case _:
            return Dense(noise.to_dense() + factor @ factor.mT)


def signal_aligned(tuning: xr.DataArray, *, n_dimensions: int, fraction: float, trace: float) -> Dense:
    """Noise with a given fraction of its variance in the signal's leading dimensions.

    C = trace · [p/k U Uᵀ + (1 − p)/(N − k) (I − U Uᵀ)], p = `fraction`, U (N, k) the k = `n_dimensions` leading
    principal axes of the mean responses over stimuli. p = k/N is isotropic noise, p = 1 noise within the signal's
    dimensions, p = 0 noise that avoids them.

    Parameters
    ----------
    tuning : DataArray
        (stimulus, unit), the mean responses.
    n_dimensions : int
        The number k of signal dimensions.
    fraction : float
        The part p of the variance within them, from 0 to 1.
    trace : float
        The total variance, above 0, in squared units of the responses.

    Returns
    -------
    Dense
        In squared units of the responses, in float64.

    Raises
    ------
    ValueError
        If the tuning varies along fewer than k dimensions, k ≥ N, or p or the trace is out of range.

    Examples
    --------
    >>> curves = xr.DataArray([[1.0, 0.0], [-1.0, 0.0]], dims=("stimulus", "unit"))
    >>> signal_aligned(curves, n_dimensions=1, fraction=0.75, trace=4.0).to_dense()
    tensor([[3., 0.],
            [0., 1.]], dtype=torch.float64)
    """
    if tuning.dims != _tuning.DIMS or not np.isfinite(tuning.values).all():
        raise ValueError(f"expected finite mean responses {_tuning.DIMS}, got dims {tuning.dims} or other values")
    if not (0 <= fraction <= 1 and 0 < trace < np.inf):
        raise ValueError(f"expected a fraction from 0 to 1 and a trace above 0, got {fraction} and {trace}")
    n_units = tuning.sizes["unit"]
    centred = tuning.values - tuning.values.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred.astype(float), full_matrices=False)
    # A singular value of rounding is no dimension of the signal.
    rank = int((singular > 1e-10 * max(singular[0], np.finfo(float).tiny)).sum())
    if not 1 <= n_dimensions <= min(rank, n_units - 1):
        raise ValueError(
            f"expected 1 to {min(rank, n_units - 1)} dimensions, for a signal of {rank} over {n_units} units, "
            f"got {n_dimensions}"
        )
    inside = axes[:n_dimensions].T @ axes[:n_dimensions]
    # Both parts are projections: of trace k and N − k, so that each has its share of the trace.
    outside = np.eye(n_units) - inside
    matrix = fraction / n_dimensions * inside + (1 - fraction) / (n_units - n_dimensions) * outside
    return Dense(torch.from_numpy(trace * matrix))
