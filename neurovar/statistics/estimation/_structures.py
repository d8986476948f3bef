"""Noise structures fitted to responses."""

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import svds
from torch import Tensor

from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.statistics._estimator import Needs
from neurovar.statistics.estimation._noise import noise_trials


def fit_covariance(responses: xr.DataArray, *, kind: str, rank: int | None = None) -> Covariance:
    """The pooled noise of `responses` as a noise structure.

    kind = "dense": `noise_covariance`; "diagonal": its diagonal; "low_rank": its `rank` leading principal components,
    the rest of each unit's variance as private noise (so the diagonal is exact). Divisor Σ(Rₛ − 1).

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    kind : str
        "dense", "diagonal" or "low_rank".
    rank : int, optional
        The number of principal components, for "low_rank" only.

    Returns
    -------
    Covariance
        In squared units of the responses, in float32.

    Raises
    ------
    ValueError
        For another kind, a rank out of range, or responses without repeats.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> fit_covariance(da, kind="low_rank", rank=2).factors.shape
    torch.Size([10, 2])
    """
    responses = Needs(together=True).check(responses)
    trials, dof = noise_trials(responses.values)
    return _structure(torch.from_numpy(np.ascontiguousarray(trials, dtype=np.float32)), dof, kind=kind, rank=rank)


def deviation_covariance(
    clean: Tensor, modified: Tensor, *, kind: str, rank: int | None = None, ridge: float = 0.0
) -> Covariance:
    """Covariance of a layer's response to modified images about its response to the clean ones.

    d = modified − clean, one row a stimulus; C = cov(d) + ridge·I, divisor n − 1. The mean of d over stimuli, the
    mean shift, is no part of C.

    Parameters
    ----------
    clean : torch.Tensor
        (stimulus, …), a layer's activations to the clean images.
    modified : torch.Tensor
        (stimulus, …), the same layer's activations to the modified images, in the same order.
    kind : str
        "dense", "diagonal" or "low_rank", as in `fit_covariance`.
    rank : int, optional
        The number of principal components, for "low_rank" only.
    ridge : float, optional
        Variance added to every unit; 1e-4 in Preble et al. 2026.

    Returns
    -------
    Covariance
        In squared units of the activations.

    Raises
    ------
    ValueError
        If the two differ in shape, there are fewer than two stimuli, `kind` is another, or `rank` is out of range.

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
    # Of the diagonal alone: no matrix of units is made for it.
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
    # The rest of each unit's variance; rounding may leave it a little below 0.
    return LowRankPlusDiagonal(factors, (variance - factors.square().sum(1)).clamp(min=0))
