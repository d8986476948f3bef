"""Noise structure from a recording, and from a spectrum alone."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurovar import _memory
from neurovar.covariance import Dense, LowRankPlusDiagonal
from neurovar.networks import Origin
from neurovar.noise.sources._source import NoiseSource
from neurovar.responses import repeat_counts
from neurovar.statistics import Full, LowRank, Structure, fit_covariance


def cortical(responses: xr.DataArray, structure: Structure) -> NoiseSource:
    """The noise of a recording, pooled over stimuli: `statistics.fit_covariance`, with its divisor Σ(Rₛ − 1).

    Parameters
    ----------
    responses : xarray.DataArray
        (stimulus, repeat, unit), recorded together.
    structure : Structure
        `Full()`, `DiagonalOnly()` or `LowRank(rank)`.

    Returns
    -------
    NoiseSource
        In squared units of the responses; its origin is "cortical" of attrs["source"].

    Raises
    ------
    ValueError
        For another structure, a rank out of range, or responses without repeats or not recorded together.

    Examples
    --------
    >>> from neurovar import statistics
    >>> recording = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> source = cortical(recording, statistics.Full())
    >>> source.noise.n, source.dof
    (10, 200)
    """
    noise, counts = fit_covariance(responses, structure), repeat_counts(responses)
    return NoiseSource(
        noise=noise,
        mean_shift=torch.zeros_like(noise.diagonal()),
        origin=Origin("cortical", of=str(responses.attrs.get("source", ""))),
        structure=structure,
        n_samples=int(counts.sum()),
        dof=int((counts - 1).sum()),
        error=0.0 if structure == Full() else np.nan,
    )


def power_law(n: int, *, exponent: float, rank: int, trace: float, axes: Tensor | torch.Generator) -> NoiseSource:
    """Noise of which only the spectrum is chosen: λₖ ∝ k^−α for k = 1 … rank, λₖ = 0 beyond.

    C = A diag(λ) Aᵀ, scaled to `trace`. In O(n · rank) memory and O(n · rank²) time, `LowRankPlusDiagonal` without
    private noise; `Dense` where `rank` is n.

    Parameters
    ----------
    n : int
        Number of units.
    exponent : float
        α, any finite number; 0 for a flat spectrum.
    rank : int
        Number of eigenvalues above 0, from 1 to n.
    trace : float
        The total variance.
    axes : torch.Tensor or torch.Generator
        A, orthonormal columns (n, rank), the first for the largest eigenvalue; or a generator, for axes that are
        uniformly random.

    Returns
    -------
    NoiseSource
        In float32, or of the dtype of the given axes.

    Raises
    ------
    ValueError
        For a rank not from 1 to n, an exponent that is not finite, a trace not above 0, axes of another shape or not
        orthonormal, or a matrix that would not fit into memory.

    Examples
    --------
    >>> source = power_law(1000, exponent=1.0, rank=3, trace=11.0, axes=torch.Generator().manual_seed(0))
    >>> source.noise.leading_eigenvalues(3).numpy().round(4)
    array([6., 3., 2.])
    """
    if not 1 <= rank <= n:
        raise ValueError(f"expected a rank from 1 to the {n} units, got {rank}")
    if not np.isfinite(exponent) or not 0 < trace < np.inf:
        raise ValueError(f"expected a finite exponent and a finite trace above 0, got {exponent} and {trace}")
    columns = _random_axes(n, rank, axes) if isinstance(axes, torch.Generator) else _checked_axes(n, rank, axes)
    values = torch.arange(1, rank + 1, dtype=torch.float64) ** -float(exponent)
    factors = columns * (values * (trace / values.sum())).sqrt().to(columns)
    whole = rank == n
    noise = Dense(factors @ factors.mT) if whole else LowRankPlusDiagonal(factors, torch.zeros_like(factors[:, 0]))
    return NoiseSource(
        noise=noise,
        mean_shift=torch.zeros_like(noise.diagonal()),
        origin=Origin("power_law", of=f"exponent {exponent:g}"),
        structure=Full() if whole else LowRank(rank),
    )


def _random_axes(n: int, rank: int, generator: torch.Generator) -> Tensor:
    if rank > n // 2:
        _memory.require_matrix(n, torch.float32, generator.device, copies=3)
    # Q of a Gaussian matrix is uniform over orthonormal axes, up to signs, which A diag(λ) Aᵀ does not see.
    return torch.linalg.qr(torch.randn(n, rank, generator=generator, device=generator.device)).Q


def _checked_axes(n: int, rank: int, axes: Tensor) -> Tensor:
    if not isinstance(axes, Tensor) or axes.shape != (n, rank) or not axes.is_floating_point():
        got = f"{axes.dtype} {tuple(axes.shape)}" if isinstance(axes, Tensor) else type(axes).__name__
        raise ValueError(f"expected axes as floats of shape ({n}, {rank}), or a torch.Generator, got {got}")
    wrong = float((axes.mT @ axes - torch.eye(rank).to(axes)).abs().max())
    if not wrong <= 1e-4:
        raise ValueError(f"expected orthonormal axes, got AᵀA − I up to {wrong:.2g}")
    return axes
