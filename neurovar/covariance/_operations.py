"""Sums and conjugates of covariances of any types."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance
from neurovar.covariance._dense import Dense
from neurovar.covariance._diagonal import Diagonal
from neurovar.covariance._gain import GainModulated
from neurovar.covariance._low_rank import LowRankPlusDiagonal
from neurovar.covariance._sum import MeanShift, Sum, check_alike


def add(first: Covariance, second: Covariance) -> Covariance:
    """The covariance of independent noises added, of one type where that is possible."""
    terms = (*_terms(first), *_terms(second))
    check_alike(terms)
    parts: list[Covariance] = []
    for term in terms:
        for i, part in enumerate(parts):
            both = _merge(part, term)
            if both is not None:
                parts[i] = both
                break
        else:
            parts.append(term)
    return parts[0] if len(parts) == 1 else Sum(tuple(parts))


def _terms(noise: Covariance) -> tuple[Covariance, ...]:
    return noise.parts if isinstance(noise, Sum) else (noise,)


def _merge(a: Covariance, b: Covariance) -> Covariance | None:
    """a + b as one of the simple types, or None."""
    match a, b:
        case Diagonal(), Diagonal():
            return Diagonal(a.variance + b.variance)
        case Diagonal(), LowRankPlusDiagonal():
            return LowRankPlusDiagonal(b.factors, a.variance + b.private)
        case LowRankPlusDiagonal(), Diagonal():
            return LowRankPlusDiagonal(a.factors, a.private + b.variance)
        case LowRankPlusDiagonal(), LowRankPlusDiagonal():
            return LowRankPlusDiagonal(torch.cat([a.factors, b.factors], dim=1), a.private + b.private)
        case (Dense(), Diagonal() | LowRankPlusDiagonal() | Dense()) | (Diagonal() | LowRankPlusDiagonal(), Dense()):
            return Dense(a.to_dense() + b.to_dense())
        case MeanShift(), MeanShift():
            return MeanShift(a.mean + b.mean)
    return None


def merged(parts: Sequence[Covariance]) -> Covariance:
    """One covariance with the matrix of the sum; written out where the types need it."""
    return reduce(lambda a, b: _merge(a, b) or Dense(a.to_dense() + b.to_dense()), parts)


def inner(a: Covariance, b: Covariance) -> Tensor:
    """⟨A, B⟩ = Σ Aᵢⱼ Bᵢⱼ, in float64; written out only where neither is diagonal or low-rank."""
    match a, b:
        case _, Diagonal():
            return a.diagonal().double() @ b.variance.double()
        case _, LowRankPlusDiagonal():
            shared = (a._multiply(b.factors.mT).double() * b.factors.mT).sum()
            return shared + a.diagonal().double() @ b.private.double()
        case ((Diagonal() | LowRankPlusDiagonal()), _):
            return inner(b, a)
    return (a.to_dense().double() * b.to_dense()).sum()


def conjugate(noise: Covariance, map: Tensor) -> Covariance:
    """A C Aᵀ: see `Covariance.conjugate`."""
    if map.ndim not in (1, 2) or map.shape[-1] != noise.n or not len(map):
        raise ValueError(f"expected a map (m, {noise.n}) or ({noise.n},), got {tuple(map.shape)}")
    if map.dtype != noise.dtype or not torch.isfinite(map).all():
        raise ValueError(f"expected a finite map of {noise.dtype}, got {map.dtype} or NaN")
    return noise._rescaled_units(map) if map.ndim == 1 else _mapped(noise, map)


def _mapped(noise: Covariance, map: Tensor) -> Covariance:
    match noise:
        case GainModulated():
            raise ValueError("expected a vector for state-dependent noise, got a matrix; its average() has a conjugate")
        case MeanShift():
            return MeanShift(map @ noise.mean)
        case Sum():
            return reduce(add, [_mapped(part, map) for part in noise.parts])
    if len(map) > noise.n:
        return LowRankPlusDiagonal(map @ _root(noise), map.new_zeros(len(map)))
    _memory.require_matrix(len(map), map.dtype, map.device, copies=2)
    matrix = noise._multiply(map) @ map.mT
    return Dense((matrix + matrix.mT) / 2)


def _root(noise: Covariance) -> Tensor:
    """(n, n) with C = root · rootᵀ."""
    return noise.variance.sqrt().diag() if isinstance(noise, Diagonal) else Dense(noise.to_dense())._factor
