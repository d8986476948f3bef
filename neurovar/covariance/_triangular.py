"""C = L Lᵀ with L lower triangular: what is computed from a matrix that is written out."""

from collections.abc import Callable

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._products import Product

# Rows of the factor that are multiplied at once: what stands right of their last entry is 0 and is left out, so that
# nearly half of the multiplications of n × n are spared, in products large enough to run at full speed.
BLOCK = 256
# Eigenvalues below this part of the largest are an error; smaller ones are rounding (float32 has 1e-7 an entry, which
# adds up over thousands of units) and count as 0.
NEGATIVE = -1e-4


class Triangular:
    """The lower triangular factor L of a covariance matrix C = L Lᵀ, with the variances of C."""

    def __init__(self, factor: Tensor, variances: Tensor) -> None:
        self.factor, self._variances = factor, variances

    @classmethod
    def of(cls, matrix: Tensor) -> "Triangular":
        """Cholesky's factor, or one from the eigenvectors where the matrix is only semi-definite.

        Raises
        ------
        ValueError
            If the matrix has a negative eigenvalue beyond rounding, or none of a positive definite one while it is
            being learned.
        """
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not failed:
            return cls(factor, matrix.diagonal())
        _memory.require_matrix(len(matrix), torch.float64, matrix.device, copies=4)
        values, vectors = torch.linalg.eigh(matrix.detach().double())
        if values[0] < NEGATIVE * values[-1].abs():
            raise ValueError(
                f"expected a positive semi-definite matrix, got an eigenvalue of {values[0]:g} "
                f"(largest {values[-1]:g}); covariance.nearest(matrix) gives the nearest that is"
            )
        if matrix.requires_grad:
            raise ValueError(
                f"expected a positive definite matrix where gradients are required, got an eigenvalue of {values[0]:g} "
                f"(largest {values[-1]:g}); add a small variance to its diagonal"
            )
        # With B = V √λ, C = B Bᵀ. Of Bᵀ = Q R, C = Rᵀ Qᵀ Q R = Rᵀ R: Rᵀ is a lower triangular root of C.
        root = vectors * values.clamp(min=0).sqrt()
        return cls(torch.linalg.qr(root.mT, mode="r").R.mT.to(matrix.dtype), matrix.diagonal())

    def _blocks(self) -> list[tuple[int, Tensor]]:
        """Rows of L up to their last entry, with where that is."""
        starts = range(0, len(self.factor), BLOCK)
        return [(start + BLOCK, self.factor[start : start + BLOCK, : start + BLOCK]) for start in starts]

    def colorize(self, normals: Tensor) -> Tensor:
        """normals Lᵀ: (rows, n) with covariance C."""
        return torch.cat([normals[:, :end] @ block.mT for end, block in self._blocks()], dim=1)

    def packed(self) -> Callable[[Tensor], Tensor]:
        """`colorize` made ready for many calls, in the memory of a second L."""
        products = [(end, Product(block)) for end, block in self._blocks()]
        return lambda normals: torch.cat([product(normals[:, :end]) for end, product in products], dim=1)

    def _regular(self) -> Tensor:
        """L, refused where C is singular: Lᵢᵢ² is the variance that unit i has left given the units before it."""
        tolerance = len(self.factor) * torch.finfo(self.factor.dtype).eps
        if (self.factor.diagonal().square() <= tolerance * self._variances).any():
            raise singular(len(self.factor))
        return self.factor

    def whiten(self, rows: Tensor) -> Tensor:
        """rows L⁻ᵀ: (rows, n) with covariance I, from rows with covariance C."""
        return torch.linalg.solve_triangular(self._regular(), rows.mT, upper=False).mT

    def log_determinant(self) -> float:
        """log |C| = 2 log |L|, of a triangle the product of its diagonal."""
        return 2 * float(self._regular().detach().diagonal().abs().double().log().sum())


def singular(n: int) -> ValueError:
    """The error for a covariance that has no inverse."""
    return ValueError(f"expected a covariance that has an inverse, got a singular one over {n} units")
