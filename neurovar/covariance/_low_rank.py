"""Shared and private noise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, check_variance
from neurovar.covariance._diagonal import scaled_rows
from neurovar.covariance._products import Product
from neurovar.covariance._woodbury import Woodbury


@dataclass(frozen=True, eq=False)
class LowRankPlusDiagonal(Covariance):
    """Shared and private noise: C = F Fᵀ + diag(private), factors F (n, r), private (n,).

    Everything but `spectrum` and `to_dense` takes O(n·r) memory. The log-determinant and the Mahalanobis norm use
    Woodbury's identity, C⁻¹ = D⁻¹ − D⁻¹ F (I + Fᵀ D⁻¹ F)⁻¹ Fᵀ D⁻¹ with D = diag(private), and
    log |C| = log |D| + log |I + Fᵀ D⁻¹ F|.
    """

    factors: Tensor
    private: Tensor

    def __post_init__(self) -> None:
        check_variance(self.private, "private variances")
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

    def diagonal(self) -> Tensor:
        return self.factors.square().sum(1) + self.private

    def _squared_norm(self) -> Tensor:
        factors, private = self.factors.double(), self.private.double()
        cross = 2 * (private @ factors.square().sum(1))
        return (factors.mT @ factors).square().sum() + cross + private.square().sum()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device, copies=2)
        return self.factors @ self.factors.mT + torch.diag(self.private)

    def log_determinant(self) -> float:
        return self._woodbury.log_determinant()

    def leading_eigenvalues(self, k: int) -> Tensor:
        """The k < n largest eigenvalues, largest first, in float64, by Lanczos iteration in O(n·r) memory.

        Raises
        ------
        ValueError : for k not from 1 to n − 1; `spectrum` gives all of them.
        """
        if not 1 <= k < self.n:
            raise ValueError(f"expected from 1 to {self.n - 1} leading eigenvalues of {self.n} units, got {k}")
        factors, private = (t.detach().double().cpu().numpy() for t in (self.factors, self.private))
        operator = LinearOperator(
            (self.n, self.n),
            matvec=lambda v: factors @ (factors.T @ v.ravel()) + private * v.ravel(),
            dtype=np.float64,
        )
        start = np.random.default_rng(0).standard_normal(self.n)
        values = eigsh(operator, k=k, v0=start, return_eigenvectors=False)
        return torch.from_numpy(np.sort(values)[::-1].copy())
