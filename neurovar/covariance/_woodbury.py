"""The inverse of shared and private noise, without writing the matrix out."""

import torch
from torch import Tensor

from neurovar.covariance._triangular import singular


class Woodbury:
    """W with Wᵀ W = C⁻¹, and log |C|, for C = F Fᵀ + D, D diagonal; O(n·r) memory, O(n·r²) time, float64.

    With U = D^(-1/2) F and Uᵀ U = V diag(s) Vᵀ, W = (I + U Uᵀ)^(-1/2) D^(-1/2), with the root of Woodbury's
    identity (I + U Uᵀ)^(-1/2) = I − U V diag(f) Vᵀ Uᵀ, f = 1 / (√(1 + s) (1 + √(1 + s))).

    Units without private noise, of which an invertible C has at most r, are told by the factors alone: they fix as
    many directions of the factors, which are taken off the other units; these keep the remaining directions.
    """

    def __init__(self, factors: Tensor, private: Tensor) -> None:
        n, rank = factors.shape
        self._silent, self._noisy = (private == 0).nonzero()[:, 0], private.nonzero()[:, 0]
        n_fixed = len(self._silent)
        if n_fixed > rank:
            raise singular(n)
        # Coordinates of the factors in which the silent units, e = F_s z, fix the first z and know nothing of the
        # others.
        axes, triangle = torch.linalg.qr(factors[self._silent].mT, mode="complete")
        self._root = triangle[:n_fixed].mT
        pivots = self._root.diagonal().abs()
        if (pivots <= n * torch.finfo(factors.dtype).eps * factors[self._silent].norm(dim=1)).any():
            raise singular(n)
        rotated = factors[self._noisy] @ axes
        self._fixed, free = rotated[:, :n_fixed], rotated[:, n_fixed:]
        # Divided by their private deviation, the noisy units have covariance I + U Uᵀ.
        self._scale = private[self._noisy].rsqrt()
        self._shared = free * self._scale[:, None]
        values, vectors = torch.linalg.eigh(self._shared.mT @ self._shared)
        one_plus = 1 + values.clamp(min=0)
        self._middle = (vectors / (one_plus.sqrt() * (1 + one_plus.sqrt()))) @ vectors.mT
        # log |C| = log |F_s F_sᵀ| + log |D| + log |I + UᵀU|, the first from the triangle of the QR.
        logs = 2 * (pivots.log().sum() - self._scale.log().sum()) + one_plus.log().sum()
        self._log_determinant = float(logs.detach())

    def log_determinant(self) -> float:
        return self._log_determinant

    def whiten(self, rows: Tensor) -> Tensor:
        """(rows, n) with covariance C to (rows, n) with covariance I; units without private noise first."""
        exact = rows.double()  # in float32 a deviation along a strong factor would cancel to nothing
        directions = torch.linalg.solve_triangular(self._root, exact[:, self._silent].mT, upper=False).mT
        rest = (exact[:, self._noisy] - directions @ self._fixed.mT) * self._scale
        rest = rest - (rest @ self._shared) @ self._middle @ self._shared.mT
        return torch.cat([directions, rest], dim=1).to(rows.dtype)
