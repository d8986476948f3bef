"""Covariances held as a matrix, or as factors and a diagonal.

They share a file because each turns into the other when units are mapped (`mapped`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, check_precision, check_variances
from neurovar.covariance._products import Product, scaled_rows
from neurovar.covariance._triangular import BLOCK, Triangular
from neurovar.covariance._woodbury import Woodbury


@dataclass(frozen=True, eq=False)
class Dense(Covariance):
    """Any covariance, written out.

    Sampled through a triangular factor, C = L Lᵀ: Cholesky's, or one from the eigenvectors where the matrix is only
    semi-definite. Eigenvalues below −1e-4 of the largest are an error; smaller negative ones are rounding and count
    as 0.

    Parameters
    ----------
    matrix : torch.Tensor
        C, symmetric (n, n).

    Raises
    ------
    ValueError
        If the matrix is not finite, symmetric to rounding and positive semi-definite, not of float32 or float64, or its
        factor would not fit into memory.

    Examples
    --------
    >>> noise = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> noise.spectrum(), noise.sample(generator=torch.Generator().manual_seed(0)).shape
    (tensor([3., 1.], dtype=torch.float64), torch.Size([2]))
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        m = self.matrix
        if not m.is_floating_point() or m.ndim != 2 or m.shape[0] != m.shape[1] or len(m) == 0:
            raise ValueError(f"expected a square matrix of floats, got {m.dtype} {tuple(m.shape)}")
        check_precision(m, "a matrix")
        _memory.require_matrix(self.n, self.dtype, self.device)  # for the factor
        if not torch.isfinite(m).all():
            raise ValueError(f"expected a finite covariance, got {int((~torch.isfinite(m)).sum())} NaN or infinite")
        if not self._is_symmetric():
            raise ValueError(f"expected a symmetric matrix, got |C − Cᵀ| up to {(m - m.mT).abs().max():g}")
        _ = self._triangular  # refuses what is not positive semi-definite, here and not at the first draw

    def _is_symmetric(self) -> bool:
        """Up to rounding; in blocks of rows, so that no other matrix as large is made."""
        m = self.matrix.detach()
        blocks = (slice(start, start + BLOCK) for start in range(0, self.n, BLOCK))
        atol = 1e-5 * float(m.diagonal().abs().max())  # small entries are sums of terms as large as the variances
        return all(torch.allclose(m[rows], m[:, rows].mT, rtol=1e-4, atol=atol) for rows in blocks)

    @cached_property
    def _triangular(self) -> Triangular:
        return Triangular.of(self.matrix)

    @property
    def n(self) -> int:
        return len(self.matrix)

    @property
    def n_normals(self) -> int:
        return self.n

    def _colorize(self, normals: Tensor) -> Tensor:
        return self._triangular.colorize(normals)

    def _colorizer(self) -> Callable[[Tensor], Tensor]:
        return self._triangular.packed()

    def _whiten(self, rows: Tensor) -> Tensor:
        return self._triangular.whiten(rows)

    def log_determinant(self) -> float:
        return self._triangular.log_determinant()

    def _multiply(self, rows: Tensor) -> Tensor:
        return rows @ self.matrix

    def _scaled(self, factor: float) -> "Dense":
        return _factorised(self.matrix * factor, self._triangular.factor * factor**0.5)

    def _rescaled_units(self, scale: Tensor) -> "Dense":
        # diag(s) L stays lower triangular; where a scale is negative its diagonal is too, which no use minds.
        return _factorised(self.matrix * torch.outer(scale, scale), self._triangular.factor * scale[:, None])

    def _mapped(self, matrix: Tensor) -> Covariance:
        return mapped(self, matrix, lambda: self._triangular.factor)

    def _plus(self, other: Covariance) -> "Dense | None":
        if isinstance(other, Dense | LowRankPlusDiagonal):
            return Dense(self.matrix + other.to_dense())
        return None

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    def _squared_norm(self) -> Tensor:
        return self.matrix.double().square().sum()

    def to_dense(self) -> Tensor:
        return self.matrix


def _factorised(matrix: Tensor, factor: Tensor) -> Dense:
    """A `Dense` whose factor is known; a semi-definite matrix of thousands of units takes many seconds to factorise."""
    if not torch.isfinite(matrix.diagonal()).all():
        raise ValueError(f"expected a finite covariance, got variances beyond the range of {matrix.dtype}")
    noise = object.__new__(Dense)
    noise.__dict__.update(matrix=matrix, _triangular=Triangular(factor, matrix.diagonal()))
    return noise


@dataclass(frozen=True, eq=False)
class LowRankPlusDiagonal(Covariance):
    """Shared and private noise: C = F Fᵀ + diag(private).

    Everything but `spectrum` and `to_dense` takes O(n·r) memory. The log-determinant and the Mahalanobis norm use
    Woodbury's identity, C⁻¹ = D⁻¹ − D⁻¹ F (I + Fᵀ D⁻¹ F)⁻¹ Fᵀ D⁻¹ with D = diag(private), and
    log |C| = log |D| + log |I + Fᵀ D⁻¹ F|.

    Parameters
    ----------
    factors : torch.Tensor
        F (n, r), the shared noise.
    private : torch.Tensor
        (n,), the variance of each unit that the factors leave over; at least 0.

    Raises
    ------
    ValueError
        If the tensors do not fit one another, are not finite, or not of float32 or float64.

    Examples
    --------
    >>> noise = LowRankPlusDiagonal(torch.ones(3, 1), torch.ones(3))
    >>> noise.to_dense()
    tensor([[2., 1., 1.],
            [1., 2., 1.],
            [1., 1., 2.]])
    >>> noise.leading_eigenvalues(1).round(decimals=4)
    tensor([4.], dtype=torch.float64)
    """

    factors: Tensor
    private: Tensor

    def __post_init__(self) -> None:
        check_variances(self.private, "private variances")
        if self.factors.ndim != 2 or len(self.factors) != len(self.private) or self.factors.shape[1] == 0:
            raise ValueError(
                f"expected factors of shape ({len(self.private)}, r), as there are {len(self.private)} private "
                f"variances, got {tuple(self.factors.shape)}"
            )
        if self.factors.dtype != self.private.dtype or not torch.isfinite(self.factors).all():
            raise ValueError(f"expected finite factors of {self.private.dtype}, got {self.factors.dtype} or NaN")

    @property
    def n(self) -> int:
        return len(self.private)

    @property
    def rank(self) -> int:
        """Number of factors."""
        return self.factors.shape[1]

    @property
    def n_normals(self) -> int:
        return self.n + self.rank

    @cached_property
    def _woodbury(self) -> Woodbury:
        return Woodbury(self.factors.double(), self.private.double())

    def _colorize(self, normals: Tensor) -> Tensor:
        private, shared = normals.split([self.n, self.rank], dim=-1)
        return torch.addmm(scaled_rows(private, self.private), shared, self.factors.mT)

    def _colorizer(self) -> Callable[[Tensor], Tensor]:
        # Two terms, F z and √D ∘ z': only the first has a matrix to pack.
        product = Product(self.factors)

        def colorize(normals: Tensor) -> Tensor:
            private, shared = normals.split([self.n, self.rank], dim=-1)
            return product(shared).add_(scaled_rows(private, self.private))

        return colorize

    def _whiten(self, rows: Tensor) -> Tensor:
        return self._woodbury.whiten(rows)

    def _multiply(self, rows: Tensor) -> Tensor:
        return (rows @ self.factors) @ self.factors.mT + rows * self.private

    def _scaled(self, factor: float) -> "LowRankPlusDiagonal":
        return LowRankPlusDiagonal(self.factors * factor**0.5, self.private * factor)

    def _rescaled_units(self, scale: Tensor) -> "LowRankPlusDiagonal":
        return LowRankPlusDiagonal(self.factors * scale[:, None], self.private * scale.square())

    def _mapped(self, matrix: Tensor) -> Covariance:
        return mapped(self, matrix)

    def _plus(self, other: Covariance) -> "LowRankPlusDiagonal | None":
        if not isinstance(other, LowRankPlusDiagonal):
            return None
        return LowRankPlusDiagonal(torch.cat([self.factors, other.factors], dim=1), self.private + other.private)

    def _inner(self, other: Covariance) -> Tensor:
        # ⟨FFᵀ + D, B⟩ = Σ F ∘ (B F) + Σ Bᵢᵢ Dᵢ: r products with B, and its diagonal.
        shared = (other._multiply(self.factors.mT).double() * self.factors.mT).sum()
        return shared + other.diagonal().double() @ self.private.double()

    def diagonal(self) -> Tensor:
        return self.factors.square().sum(1) + self.private

    def _squared_norm(self) -> Tensor:
        # ‖FFᵀ + D‖² = ‖FᵀF‖² + 2 Σ Dᵢ ‖Fᵢ‖² + Σ Dᵢ²: the r × r matrix FᵀF has the norm of the n × n one.
        factors, private = self.factors.double(), self.private.double()
        cross = 2 * (private @ factors.square().sum(1))
        return (factors.mT @ factors).square().sum() + cross + private.square().sum()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device, copies=2)
        return self.factors @ self.factors.mT + torch.diag(self.private)

    def log_determinant(self) -> float:
        return self._woodbury.log_determinant()

    def leading_eigenvalues(self, k: int) -> Tensor:
        """The k largest eigenvalues by Lanczos iteration, in O(n·r) memory.

        Parameters
        ----------
        k : int
            From 1 to n − 1.

        Returns
        -------
        torch.Tensor
            (k,), largest first, in float64, on the CPU.

        Raises
        ------
        ValueError
            For another k; `spectrum` gives all eigenvalues.
        """
        if not 1 <= k < self.n:
            raise ValueError(f"expected from 1 to {self.n - 1} leading eigenvalues of {self.n} units, got {k}")
        factors, private = (t.detach().double().cpu().numpy() for t in (self.factors, self.private))
        operator = LinearOperator(
            (self.n, self.n),
            matvec=lambda v: factors @ (factors.T @ v.ravel()) + private * v.ravel(),
            dtype=np.float64,
        )
        # A start of its own, as by default it would come from NumPy's global state.
        start = np.random.default_rng(0).standard_normal(self.n)
        values = eigsh(operator, k=k, v0=start, return_eigenvectors=False)
        return torch.from_numpy(np.sort(values)[::-1].copy())


def mapped(noise: Covariance, matrix: Tensor, root: Callable[[], Tensor] | None = None) -> Covariance:
    """A C Aᵀ of centred Gaussian noise for a matrix A (m, n): `Dense` where m ≤ n, else n factors alone.

    For m > n the rank is at most n: with C = R Rᵀ, A C Aᵀ = (A R)(A R)ᵀ, and the (m, m) matrix is never made.

    Parameters
    ----------
    noise : Covariance
        C.
    matrix : torch.Tensor
        A.
    root : callable, optional
        R (n, n), where it is known; else the triangular factor of C written out.
    """
    m, n = matrix.shape
    if m > n:
        known = root() if root else Triangular.of(noise.to_dense()).factor
        return LowRankPlusDiagonal(matrix @ known, matrix.new_zeros(m))
    _memory.require_matrix(m, matrix.dtype, matrix.device, copies=2)
    product = noise._multiply(matrix) @ matrix.mT
    return Dense((product + product.mT) / 2)  # symmetric to the last bit, which the product is not
