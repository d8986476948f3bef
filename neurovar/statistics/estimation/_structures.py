"""Noise structures as values, and their fit to responses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import svds
from torch import Tensor

from neurovar._values import Value
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.statistics._estimator import Needs
from neurovar.statistics.estimation._noise import noise_trials


@dataclass(frozen=True)
class Structure(Value, ABC):
    """Which parts of a noise covariance are estimated: `Full`, `DiagonalOnly`, `LowRank` or `KroneckerProduct`.

    Examples
    --------
    >>> deviations = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    >>> Full().fit(deviations, 1).to_dense(), str(LowRank(64))
    (tensor([[2., 4.],
            [4., 8.]]), 'LowRank(rank=64)')
    """

    @abstractmethod
    def fit(self, deviations: Tensor, dof: int, *, ridge: float = 0.0) -> Covariance:
        """The structure of Σ d dᵀ / dof + ridge · I.

        Parameters
        ----------
        deviations : torch.Tensor
            d, (trial, unit), about their means.
        dof : int
            The divisor.
        ridge : float, optional
            Variance added to every unit.

        Returns
        -------
        Covariance
            Of the deviations' dtype.

        Raises
        ------
        ValueError
            For a rank out of range, or a structure that needs the shape of a layer.
        """


@dataclass(frozen=True)
class Full(Structure):
    """Every variance and covariance: units² numbers, `covariance.Dense`.

    Examples
    --------
    >>> str(Full())
    'Full()'
    """

    def fit(self, deviations: Tensor, dof: int, *, ridge: float = 0.0) -> Dense:
        """The sample covariance; see `Structure.fit`."""
        return Dense(deviations.mT @ deviations / dof + ridge * torch.eye(deviations.shape[1]).to(deviations))


@dataclass(frozen=True)
class DiagonalOnly(Structure):
    """The variances alone, no correlations: `covariance.Diagonal`.

    Examples
    --------
    >>> str(DiagonalOnly())
    'DiagonalOnly()'
    """

    def fit(self, deviations: Tensor, dof: int, *, ridge: float = 0.0) -> Diagonal:
        """The sample variances; see `Structure.fit`."""
        return Diagonal(deviations.square().sum(0) / dof + ridge)


@dataclass(frozen=True)
class LowRank(Structure):
    """The leading principal components, and what they leave of each variance: `covariance.LowRankPlusDiagonal`.

    C ≈ F Fᵀ + diag(ψ), F the `rank` leading eigenvectors of C times the roots of their eigenvalues, ψ = diag(C − F Fᵀ),
    so that the variances are exact. In O(units · rank) memory.

    Parameters
    ----------
    rank : int
        Number of components.

    Examples
    --------
    >>> LowRank(2)
    LowRank(rank=2)
    """

    rank: int

    def fit(self, deviations: Tensor, dof: int, *, ridge: float = 0.0) -> LowRankPlusDiagonal:
        """Components by a truncated singular value decomposition; see `Structure.fit`. The ridge is private."""
        if not 1 <= self.rank < min(deviations.shape):
            raise ValueError(f"expected a rank from 1 to {min(deviations.shape) - 1}, got {self.rank}")
        variance = deviations.square().sum(0) / dof + ridge
        # Fixed, so that fits repeat; random, as noise sums to zero over trials: ones would be no start at all.
        start = np.random.default_rng(0).standard_normal(min(deviations.shape))
        _, singular, axes = svds(deviations.cpu().numpy() / dof**0.5, k=self.rank, v0=start)
        order = np.argsort(-singular)
        factors = torch.from_numpy(axes[order].T * singular[order]).to(variance)
        return LowRankPlusDiagonal(factors, (variance - factors.square().sum(1)).clamp(min=0))


@dataclass(frozen=True)
class KroneckerProduct(Structure):
    """A covariance of a layer's first axis, such as channels, times one of all others: `covariance.Kronecker`.

    It needs the shape of the layer's output, and so is estimated from a network, batch by batch (`noise.modified` and
    its like); see `noise.KroneckerAccumulator` for how.

    Examples
    --------
    >>> str(KroneckerProduct())
    'KroneckerProduct()'
    """

    def fit(self, deviations: Tensor, dof: int, *, ridge: float = 0.0) -> Covariance:
        """Refused, as rows of units have no channels and positions."""
        raise ValueError(
            f"expected Full(), DiagonalOnly() or LowRank(…) for units without channels and positions, got {self}"
        )


def fit_covariance(responses: xr.DataArray, structure: Structure) -> Covariance:
    """The pooled noise of responses as a noise structure.

    The structure of the pooled noise covariance C = Σ_s Σ_r d dᵀ / Σ(Rₛ − 1), d a trial's deviation from its stimulus's
    mean: unbiased.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    structure : Structure
        `Full()`, `DiagonalOnly()` or `LowRank(rank)`.

    Returns
    -------
    Covariance
        In squared units of the responses, in float32.

    Raises
    ------
    ValueError
        For another structure, a rank out of range, or responses without repeats.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> fit_covariance(da, LowRank(2)).factors.shape
    torch.Size([10, 2])
    """
    responses = Needs(together=True).check(responses)
    trials, dof = noise_trials(responses.values)
    return structure.fit(torch.from_numpy(np.ascontiguousarray(trials, dtype=np.float32)), dof)


def deviation_covariance(clean: Tensor, modified: Tensor, structure: Structure, *, ridge: float = 0.0) -> Covariance:
    """Covariance of a layer's response to modified images about its response to the clean ones.

    d = modified − clean, one row a stimulus; C = cov(d) + ridge·I, divisor n − 1. The mean of d over stimuli, the
    mean shift, is no part of C.

    Parameters
    ----------
    clean : torch.Tensor
        (stimulus, …) activations of a layer.
    modified : torch.Tensor
        (stimulus, …) activations of the same layer to the modified stimuli, in the same order.
    structure : Structure
        `Full()`, `DiagonalOnly()` or `LowRank(rank)`.
    ridge : float, optional
        Variance added to every unit; 1e-4 in Preble et al. 2026.

    Returns
    -------
    Covariance
        Over the layer's flattened outputs.

    Raises
    ------
    ValueError
        For another structure, a rank out of range, responses of different shapes, or fewer than 2 stimuli.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> import torch
    >>> deviation_covariance(torch.zeros(3, 2), torch.eye(3)[:, :2], DiagonalOnly()).diagonal()
    tensor([0.3333, 0.3333])
    """
    if clean.shape != modified.shape:
        raise ValueError(f"expected responses of one shape, got {tuple(clean.shape)} and {tuple(modified.shape)}")
    if len(clean) < 2:
        raise ValueError(f"expected at least 2 stimuli, got {len(clean)}")
    deviation = (modified - clean).flatten(1)
    return structure.fit(deviation - deviation.mean(0), len(deviation) - 1, ridge=ridge)
