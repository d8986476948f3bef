"""Noise structure from a recording, and from a spectrum alone."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurovar import _memory
from neurovar.covariance import Dense, LowRankPlusDiagonal
from neurovar.noise.sources._source import NoiseSource
from neurovar.responses import repeat_counts
from neurovar.statistics import fit_covariance


def cortical(responses: xr.DataArray, *, kind: str, rank: int | None = None) -> NoiseSource:
    """The noise of a recording, pooled over stimuli: `statistics.fit_covariance`, with its divisor Σ(Rₛ − 1).

    Parameters
    ----------
    responses : DataArray (stimulus, repeat, unit), recorded simultaneously.
    kind, rank : "dense", "diagonal" or "low_rank".

    Raises
    ------
    ValueError : as `statistics.fit_covariance`.

    Examples
    --------
    >>> from neurovar import statistics
    >>> recording = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> source = cortical(recording, kind="dense")
    >>> source.noise.n, source.attrs["dof"]
    (10, 200)
    """
    noise = fit_covariance(responses, kind=kind, rank=rank)
    counts = repeat_counts(responses)
    attrs: dict[str, Any] = {
        "source": responses.attrs.get("source", "cortical recording"),
        "kind": kind,
        "n_samples": int(counts.sum()),
        "dof": int((counts - 1).sum()),
        "error": 0.0 if kind == "dense" else np.nan,
    }
    attrs |= {"rank": rank} if rank is not None else {}
    return NoiseSource(noise, torch.zeros_like(noise.diagonal()), attrs)


def power_law(n: int, *, exponent: float, rank: int, trace: float, axes: Tensor | torch.Generator) -> NoiseSource:
    """Noise of which only the spectrum is chosen: λₖ ∝ k^−α for k = 1 … rank, λₖ = 0 beyond.

    C = A diag(λ) Aᵀ, scaled to `trace`. In O(n·rank) memory and O(n·rank²) time, `LowRankPlusDiagonal` without private
    noise; `Dense` where `rank` is n.

    Parameters
    ----------
    n : number of units.
    exponent : α, any finite number; 0 for a flat spectrum.
    axes : A, orthonormal columns (n, rank), the first for the largest eigenvalue; or a generator, for axes that are
        uniformly random.

    Returns
    -------
    NoiseSource : float32, or of the dtype of the given axes

    Raises
    ------
    ValueError : for a rank not from 1 to n, an exponent that is not finite, a trace not above 0, axes of another shape
        or not orthonormal, or a matrix that would not fit into memory.

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
    kind = "dense" if whole else "low_rank"
    attrs: dict[str, Any] = {"source": "power law", "kind": kind, "rank": rank, "exponent": exponent}
    return NoiseSource(noise, torch.zeros_like(noise.diagonal()), attrs)


def _random_axes(n: int, rank: int, generator: torch.Generator) -> Tensor:
    if rank > n // 2:
        _memory.require_matrix(n, torch.float32, generator.device, copies=3)
    return torch.linalg.qr(torch.randn(n, rank, generator=generator, device=generator.device)).Q


def _checked_axes(n: int, rank: int, axes: Tensor) -> Tensor:
    if not isinstance(axes, Tensor) or axes.shape != (n, rank) or not axes.is_floating_point():
        got = f"{axes.dtype} {tuple(axes.shape)}" if isinstance(axes, Tensor) else type(axes).__name__
        raise ValueError(f"expected axes as floats of shape ({n}, {rank}), or a torch.Generator, got {got}")
    wrong = float((axes.mT @ axes - torch.eye(rank).to(axes)).abs().max())
    if not wrong <= 1e-4:
        raise ValueError(f"expected orthonormal axes, got AᵀA − I up to {wrong:.2g}")
    return axes
