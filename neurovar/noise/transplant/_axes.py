"""Eigenvectors of large covariances, and noise put on given axes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance import Covariance, Dense, LowRankPlusDiagonal

BLOCK = 1 << 14
"""Units that are taken to float64 together."""
SMALL = 1000
"""Units up to which all eigenvectors cost less than the leading ones."""
MOST_STEPS = 30
"""Of subspace iteration: enough wherever the factors stand out of the private variances."""
LOUDEST = 8
"""Units whose private variances may be among the leading eigenvalues, which it begins with."""
NEGLIGIBLE = 1e-10
"""Eigenvalues below this part of the largest have no axis: in float64 it would be rounding."""


@dataclass(frozen=True, eq=False)
class Eigen:
    """Eigenvalues (r,), largest first, on axes (n, r), and `rest`, the one of all other directions; float64."""

    values: Tensor
    axes: Tensor
    rest: float

    def with_values(self, values: Tensor) -> "Eigen":
        return Eigen(values, self.axes, self.rest)

    def on(self, axes: Tensor) -> "Eigen":
        return Eigen(self.values, axes, self.rest)

    def covariance(self, like: Tensor) -> Covariance:
        """As `Dense` where every axis is given, else `LowRankPlusDiagonal`; of `like`'s dtype and on its device."""
        n, rank = self.axes.shape
        if rank == n:
            matrix = (self.axes * self.values) @ self.axes.mT
            return Dense(((matrix + matrix.mT) / 2).to(like))
        # A diag(λ) Aᵀ + rest · (I − A Aᵀ) = A diag(λ − rest) Aᵀ + rest · I.
        factors = self.axes * (self.values - self.rest).clamp(min=0).sqrt()
        return LowRankPlusDiagonal(factors.to(like), torch.full((n,), self.rest, dtype=torch.float64).to(like))


def flattened(spectrum: Tensor, axes: Tensor) -> Eigen:
    """The leading eigenvalues of a whole `spectrum` (n,) on `axes` (n, r), the others replaced by their mean."""
    rank = axes.shape[1]
    rest = float(spectrum[rank:].mean()) if rank < len(spectrum) else 0.0
    return Eigen(spectrum[:rank], axes, rest)


def principal_axes(rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Scores (m, r) and orthonormal axes (n, r), largest first, of `rows` (m, n): rows = scores axesᵀ, of rank r.

    From the Gram matrix of the rows where they are fewer than the units, in blocks of units: O(m² n) operations.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(rows))
    if len(tensor) >= tensor.shape[1]:
        blocks = tensor.split(BLOCK)
        values, vectors = torch.linalg.eigh(
            torch.stack([block.double().mT @ block.double() for block in blocks]).sum(0)
        )
        axes = vectors[:, values > NEGLIGIBLE * values[-1]].flip(1)
        return torch.cat([block.double() @ axes for block in blocks]), axes
    blocks = tensor.split(BLOCK, dim=1)
    # With X = U S Aᵀ: X Xᵀ = U S² Uᵀ gives the scores U S, and A = Xᵀ U S⁻¹. Half the digits are lost in the squares,
    # which float64 has to spare.
    gram = torch.zeros(len(tensor), len(tensor), dtype=torch.float64)
    for block in blocks:
        gram += block.double() @ block.double().mT
    values, vectors = torch.linalg.eigh(gram)
    kept = values > NEGLIGIBLE * values[-1]
    scale, vectors = values[kept].flip(0).sqrt(), vectors[:, kept].flip(1)
    return vectors * scale, torch.cat([block.double().mT @ (vectors / scale) for block in blocks])


def random_axes(n: int, rank: int, *, rng: np.random.Generator, outside: Tensor | None = None) -> Tensor:
    """Orthonormal axes (n, rank) in random directions, orthogonal to those of `outside` (n, k); float64."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    axes = torch.randn(n, rank, generator=generator, dtype=torch.float64)
    # The Q of Gaussian columns is uniform over orthonormal axes; columns that come first are kept, up to their sign.
    if outside is None:
        return torch.linalg.qr(axes)[0]
    return torch.linalg.qr(torch.cat([outside, axes], dim=1))[0][:, outside.shape[1] :]


def eigen(noise: Covariance) -> Eigen:
    """Eigenvalues and eigenvectors: of `LowRankPlusDiagonal` the leading `rank`, the others replaced by their mean.

    In O(n·r) memory for `LowRankPlusDiagonal`: in closed form where its private variances are equal, else by subspace
    iteration. That stops early where private variances are as large as the leading eigenvalues, which then come out a
    little small. All of them for other types, which are written out.
    """
    if not isinstance(noise, LowRankPlusDiagonal) or noise.rank >= noise.n:
        _memory.require_matrix(noise.n, torch.float64, torch.device("cpu"), copies=3)
        values, axes = torch.linalg.eigh(noise.to_dense().detach().cpu().double())
        return Eigen(values.flip(0).clamp(min=0), axes.flip(1), 0.0)
    values, axes = _leading(noise)
    rest = max(noise.trace() - float(values.sum()), 0.0) / (noise.n - noise.rank)
    return Eigen(values, axes, rest)


def _leading(noise: LowRankPlusDiagonal) -> tuple[Tensor, Tensor]:
    """The `rank` largest eigenvalues and their eigenvectors (n, rank), largest first."""
    factors, private = (part.detach().cpu().double() for part in (noise.factors, noise.private))
    # F Fᵀ + v I has the left singular vectors of F, and their squared singular values + v.
    if bool((private == private[0]).all()):
        axes, scale, _ = torch.linalg.svd(factors, full_matrices=False)
        return scale.square() + private[0], axes
    if noise.n <= SMALL:
        values, vectors = torch.linalg.eigh(factors @ factors.mT + torch.diag(private))
        return values[-noise.rank :].flip(0), vectors[:, -noise.rank :].flip(1)
    return _ritz(factors, private)


def _ritz(factors: Tensor, private: Tensor) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues and eigenvectors by subspace iteration, to a relative change of 1e-9.

    It starts from the factors and the units with the largest private variances, which factors may not touch. The
    smallest of the private variances is taken off, as the smaller what they add, the faster it converges.
    """
    rank, least = factors.shape[1], private.min()
    start = torch.zeros(len(private), min(LOUDEST, len(private) - rank), dtype=factors.dtype)
    start[private.topk(start.shape[1]).indices, torch.arange(start.shape[1])] = 1
    axes, previous = torch.linalg.qr(torch.cat([factors, start], dim=1))[0], torch.zeros(())
    for step in range(MOST_STEPS):
        image = factors @ (factors.mT @ axes) + (private - least)[:, None] * axes
        values, turn = torch.linalg.eigh(axes.mT @ image)
        leading = values[-rank:]
        settled = bool(((leading - previous).abs() <= 1e-9 * leading.abs().max()).all())
        if settled or step == MOST_STEPS - 1:
            break
        axes, previous = torch.linalg.qr(image)[0], leading
    return (leading + least).flip(0), (axes @ turn[:, -rank:]).flip(1)
