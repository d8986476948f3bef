"""Any covariance, written out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, singular
from neurovar.covariance._products import Product

BLOCK = 256
"""Rows of the triangular factor that are multiplied at once, without the zeros to the right of them."""


@dataclass(frozen=True, eq=False)
class Dense(Covariance):
    """Any covariance, written out: matrix (n, n).

    Sampled through a triangular factor, C = L Lᵀ: Cholesky's, or one from the eigenvectors where the matrix is only
    semi-definite. Eigenvalues below −1e-4 of the largest are an error; smaller negative ones are rounding and count
    as 0.
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        m = self.matrix
        if not m.is_floating_point() or m.ndim != 2 or m.shape[0] != m.shape[1] or len(m) == 0:
            raise ValueError(f"expected a square matrix of floats, got {m.dtype} {tuple(m.shape)}")
        if m.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected a matrix of float32 or float64, which can be factorised, got {m.dtype}")
        _memory.require_matrix(self.n, self.dtype, self.device)  # for the factor
        if not torch.isfinite(m).all():
            raise ValueError(f"expected a finite covariance, got {int((~torch.isfinite(m)).sum())} NaN or infinite")
        if not self._is_symmetric():
            raise ValueError(f"expected a symmetric matrix, got |C − Cᵀ| up to {(m - m.mT).abs().max():g}")
        _ = self._factor

    def _is_symmetric(self) -> bool:
        """Up to rounding; in blocks of rows, so that no other matrix as large is made."""
        m = self.matrix.detach()
        blocks = (slice(start, start + BLOCK) for start in range(0, self.n, BLOCK))
        atol = 1e-5 * float(m.diagonal().abs().max())
        return all(torch.allclose(m[rows], m[:, rows].mT, rtol=1e-4, atol=atol) for rows in blocks)

    @cached_property
    def _factor(self) -> Tensor:
        """L, lower triangular (n, n), with C = L Lᵀ."""
        factor, failed = torch.linalg.cholesky_ex(self.matrix)
        if not failed:
            return factor
        _memory.require_matrix(self.n, torch.float64, self.device, copies=4)
        values, vectors = torch.linalg.eigh(self.matrix.detach().double())
        if values[0] < -1e-4 * values[-1].abs():
            raise ValueError(
                f"expected a positive semi-definite matrix, got an eigenvalue of {values[0]:g} "
                f"(largest {values[-1]:g}); covariance.nearest(matrix) gives the nearest that is"
            )
        if self.matrix.requires_grad:
            raise ValueError(
                f"expected a positive definite matrix where gradients are required, got an eigenvalue of {values[0]:g} "
                f"(largest {values[-1]:g}); add a small variance to its diagonal"
            )
        root = vectors * values.clamp(min=0).sqrt()
        return torch.linalg.qr(root.mT, mode="r").R.mT.to(self.matrix.dtype)

    @property
    def n(self) -> int:
        return len(self.matrix)

    @property
    def n_normals(self) -> int:
        return self.n

    def _colorize(self, normals: Tensor) -> Tensor:
        blocks = ((start, start + BLOCK) for start in range(0, self.n, BLOCK))
        return torch.cat([normals[:, :end] @ self._factor[start:end, :end].mT for start, end in blocks], dim=1)

    def _colorizer(self) -> Callable[[Tensor], Tensor]:
        spans = ((start, start + BLOCK) for start in range(0, self.n, BLOCK))
        blocks = [(end, Product(self._factor[start:end, :end])) for start, end in spans]
        return lambda normals: torch.cat([product(normals[:, :end]) for end, product in blocks], dim=1)

    def _regular_factor(self) -> Tensor:
        tolerance = self.n * torch.finfo(self.dtype).eps
        if (self._factor.diagonal().square() <= tolerance * self.matrix.diagonal()).any():
            raise singular(self.n)
        return self._factor

    def _whiten(self, rows: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self._regular_factor(), rows.mT, upper=False).mT

    def _multiply(self, rows: Tensor) -> Tensor:
        return rows @ self.matrix

    def _scaled(self, factor: float) -> "Dense":
        return _factorised(self.matrix * factor, self._factor * factor**0.5)

    def _rescaled_units(self, scale: Tensor) -> "Dense":
        return _factorised(self.matrix * torch.outer(scale, scale), self._factor * scale[:, None])

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    def _squared_norm(self) -> Tensor:
        return self.matrix.double().square().sum()

    def to_dense(self) -> Tensor:
        return self.matrix

    def log_determinant(self) -> float:
        return 2 * float(self._regular_factor().detach().diagonal().abs().double().log().sum())


def _factorised(matrix: Tensor, factor: Tensor) -> Dense:
    """A `Dense` whose factor is known; a semi-definite matrix of thousands of units takes many seconds to factorise."""
    if not torch.isfinite(matrix.diagonal()).all():
        raise ValueError(f"expected a finite covariance, got variances beyond the range of {matrix.dtype}")
    noise = object.__new__(Dense)
    noise.__dict__.update(matrix=matrix, _factor=factor)
    return noise


def nearest(matrix: Tensor) -> Dense:
    """The positive semi-definite matrix nearest to a symmetric one, in the Frobenius norm.

    With C = V diag(λ) Vᵀ it is V diag(max(λ, 0)) Vᵀ, at distance √Σ min(λ, 0)². The trace grows by what is clipped.

    Parameters
    ----------
    matrix : (n, n), of floats; (C + Cᵀ)/2 is taken.

    Raises
    ------
    ValueError : if the matrix is not square and finite.

    References
    ----------
    Higham 1988, doi:10.1016/0024-3795(88)90223-6

    Examples
    --------
    >>> nearest(torch.tensor([[1.0, 2.0], [2.0, 1.0]])).to_dense()
    tensor([[1.5000, 1.5000],
            [1.5000, 1.5000]])
    """
    if not matrix.is_floating_point() or matrix.ndim != 2 or len(matrix) != matrix.shape[-1]:
        raise ValueError(f"expected a matrix (n, n) of floats, got {matrix.dtype} {tuple(matrix.shape)}")
    _memory.require_matrix(len(matrix), torch.float64, matrix.device, copies=4)
    if not torch.isfinite(matrix).all():
        raise ValueError(f"expected a finite matrix, got {int((~torch.isfinite(matrix)).sum())} NaN or infinite")
    values, vectors = torch.linalg.eigh((matrix + matrix.mT).double() / 2)
    clipped = (vectors * values.clamp(min=0)) @ vectors.mT
    return Dense(((clipped + clipped.mT) / 2).to(matrix.dtype))
