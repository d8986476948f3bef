"""Covariances as unconstrained parameters, for learning by gradients: one module a structure."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor, nn

from neurovar import _memory
from neurovar._values import Value
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.statistics import DiagonalOnly, Full, LowRank, Structure

COPIES = 9
"""Matrices that learning a dense covariance holds: its parameters, their gradient, Adam's two, and L on its way."""
PRIVATE_AT_START = 0.5
"""The part of the variance that is private where learning of a low rank starts; factors have the other."""


class Constraint(Value, ABC):
    """What keeps learned noise from vanishing: `FixedTrace` or `Divergence`.

    Examples
    --------
    >>> isinstance(FixedTrace(2.0), Constraint), isinstance(Divergence(0.01, 1.0), Constraint)
    (True, True)
    """

    @abstractmethod
    def scale(self, trace: Tensor) -> Tensor:
        """What the unscaled covariance B, of this trace, is multiplied with."""

    def penalty(self, noise: "Learnable") -> Tensor:
        """What is added to the loss."""
        return noise.log_sd.new_zeros(())


@dataclass(frozen=True)
class FixedTrace(Constraint):
    """Learned noise has just this total variance, whatever its parameters: C = (trace / tr B) · B.

    Parameters
    ----------
    trace : float
        tr C, the sum of all variances.

    Raises
    ------
    ValueError
        If it is not positive and finite.

    Examples
    --------
    >>> FixedTrace(2.0)
    FixedTrace(trace=2.0)
    """

    trace: float

    def __post_init__(self) -> None:
        if not 0 < self.trace < math.inf:
            raise ValueError(f"expected a finite trace above 0, got {self.trace}")

    def scale(self, trace: Tensor) -> Tensor:
        """trace / tr B."""
        return self.trace / trace


@dataclass(frozen=True)
class Divergence(Constraint):
    """The penalty β·KL(N(0, C) ‖ N(0, v·I)) = (β/2)·[tr(C)/v − n − log det(C/v)] on the covariance C of n units.

    The log-determinant rewards noise in every direction, so that none vanishes; the trace bounds it where the task does
    not.

    Parameters
    ----------
    weight : float
        β, in nats of cross-entropy per nat.
    variance : float
        v, of every unit.

    Raises
    ------
    ValueError
        If one is not positive and finite.

    Examples
    --------
    >>> Divergence(weight=0.01, variance=1.0)
    Divergence(weight=0.01, variance=1.0)
    """

    weight: float
    variance: float

    def __post_init__(self) -> None:
        if not (0 < self.weight < math.inf and 0 < self.variance < math.inf):
            raise ValueError(f"expected a finite weight and variance above 0, got {self.weight} and {self.variance}")

    def scale(self, trace: Tensor) -> Tensor:
        """v: C = v·B, so that tr(C)/v = tr B and det(C/v) = det B."""
        return trace.new_tensor(self.variance)

    def penalty(self, noise: "Learnable") -> Tensor:
        """(β/2)·[tr B − n − log det B]."""
        return self.weight / 2 * (noise.trace() - len(noise.log_sd) - noise.log_determinant())


class Learnable(nn.Module, ABC):
    """C = scale · B, where the trace of B starts at about the number of units; `log_sd` are logarithms of √variance."""

    log_sd: nn.Parameter

    def __init__(self, constraint: Constraint) -> None:
        super().__init__()
        self.constraint = constraint

    @abstractmethod
    def trace(self) -> Tensor:
        """tr B."""

    @abstractmethod
    def log_determinant(self) -> Tensor:
        """log det B."""

    @abstractmethod
    def scaled(self, scale: Tensor) -> Diagonal | LowRankPlusDiagonal:
        """scale · B, for sampling with gradients."""

    def forward(self) -> Diagonal | LowRankPlusDiagonal:
        """C, with gradients to the parameters."""
        return self.scaled(self.constraint.scale(self.trace()))

    def penalty(self) -> Tensor:
        """What the constraint adds to the loss."""
        return self.constraint.penalty(self)

    @torch.no_grad()
    def finished(self) -> Covariance:
        """C without gradients."""
        return self()


class LearnableDiagonal(Learnable):
    """B = diag(exp(2·log_sd))."""

    def __init__(self, like: Tensor, constraint: Constraint) -> None:
        super().__init__(constraint)
        self.log_sd = nn.Parameter(like)

    def trace(self) -> Tensor:
        """Σ exp(2·log_sd)."""
        return (2 * self.log_sd).exp().sum()

    def log_determinant(self) -> Tensor:
        """2 Σ log_sd."""
        return 2 * self.log_sd.sum()

    def scaled(self, scale: Tensor) -> Diagonal:
        """See `Learnable.scaled`."""
        return Diagonal((2 * self.log_sd).exp() * scale)


class LearnableLowRank(Learnable):
    """B = F·Fᵀ + diag(exp(2·log_sd))."""

    def __init__(self, like: Tensor, constraint: Constraint, rank: int, generator: torch.Generator) -> None:
        super().__init__(constraint)
        if not 1 <= rank < len(like):
            raise ValueError(f"expected a rank from 1 to {len(like) - 1}, got {rank}")
        draws = torch.randn(len(like), rank, generator=generator, device=generator.device)
        self.factors = nn.Parameter(draws.to(like) * ((1 - PRIVATE_AT_START) / rank) ** 0.5)
        self.log_sd = nn.Parameter(like + math.log(PRIVATE_AT_START) / 2)

    def trace(self) -> Tensor:
        """‖F‖² + Σ exp(2·log_sd)."""
        return (2 * self.log_sd).exp().sum() + self.factors.square().sum()

    def log_determinant(self) -> Tensor:
        """log det(ψ + F Fᵀ) = log det ψ + log det(I + Fᵀ ψ⁻¹ F), a matrix of rank × rank."""
        private = (2 * self.log_sd).exp()
        inner = torch.eye(self.factors.shape[1]).to(self.factors) + self.factors.mT @ (self.factors / private[:, None])
        return 2 * self.log_sd.sum() + torch.logdet(inner)

    def scaled(self, scale: Tensor) -> LowRankPlusDiagonal:
        """See `Learnable.scaled`."""
        return LowRankPlusDiagonal(self.factors * scale.sqrt(), (2 * self.log_sd).exp() * scale)


class LearnableDense(Learnable):
    """B = L·Lᵀ, L = tril(F, −1) + diag(exp(log_sd)): every positive definite matrix has one such L."""

    def __init__(self, like: Tensor, constraint: Constraint) -> None:
        super().__init__(constraint)
        _memory.require_matrix(len(like), like.dtype, like.device, copies=COPIES)
        self.factors = nn.Parameter(like.new_zeros(len(like), len(like)))
        self.log_sd = nn.Parameter(like)

    def _lower(self) -> Tensor:
        lower = self.factors.tril(-1)
        lower.diagonal().add_(self.log_sd.exp())
        return lower

    def trace(self) -> Tensor:
        """‖L‖²."""
        return torch.linalg.vector_norm(self._lower()).square()

    def log_determinant(self) -> Tensor:
        """2 Σ log Lᵢᵢ."""
        return 2 * self.log_sd.sum()

    def forward(self) -> LowRankPlusDiagonal:
        """C, from one L: its trace too."""
        lower = self._lower()
        return self._low_rank(lower, self.constraint.scale(torch.linalg.vector_norm(lower).square()))

    def scaled(self, scale: Tensor) -> LowRankPlusDiagonal:
        """See `Learnable.scaled`."""
        return self._low_rank(self._lower(), scale)

    def _low_rank(self, lower: Tensor, scale: Tensor) -> LowRankPlusDiagonal:
        # L·Lᵀ + 0 with L for the factors, so that nothing is factorised. The zeros are constants, as the root that a
        # draw takes of them has no gradient.
        return LowRankPlusDiagonal(lower * scale.sqrt(), torch.zeros_like(self.log_sd))

    @torch.no_grad()
    def finished(self) -> Dense:
        """C as `Dense`, without gradients."""
        factors = self().factors
        return Dense(factors @ factors.mT)


@singledispatch
def learnable(structure: Structure, like: Tensor, constraint: Constraint, generator: torch.Generator) -> Learnable:
    """Parameters of a covariance with a structure over units of zeros `like`; isotropic, and factors at random."""
    raise ValueError(f"expected Full(), DiagonalOnly() or LowRank(…) to learn, got {structure}")


@learnable.register
def _(structure: Full, like: Tensor, constraint: Constraint, generator: torch.Generator) -> Learnable:
    return LearnableDense(like, constraint)


@learnable.register
def _(structure: DiagonalOnly, like: Tensor, constraint: Constraint, generator: torch.Generator) -> Learnable:
    return LearnableDiagonal(like, constraint)


@learnable.register
def _(structure: LowRank, like: Tensor, constraint: Constraint, generator: torch.Generator) -> Learnable:
    return LearnableLowRank(like, constraint, structure.rank, generator)
