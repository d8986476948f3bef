"""Independent noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, check_variance, singular


@dataclass(frozen=True, eq=False)
class Diagonal(Covariance):
    """Independent noise: C = diag(variance), variance (n,)."""

    variance: Tensor

    def __post_init__(self) -> None:
        check_variance(self.variance, "variances")

    @classmethod
    def isotropic(cls, n: int, *, variance: float = 1.0) -> "Diagonal":
        """variance · I."""
        return cls(torch.full((n,), float(variance)))

    @property
    def n(self) -> int:
        return len(self.variance)

    @property
    def n_normals(self) -> int:
        return self.n

    def _colorize(self, normals: Tensor) -> Tensor:
        return scaled_rows(normals, self.variance)

    def _whiten(self, rows: Tensor) -> Tensor:
        if (self.variance == 0).any():
            raise singular(self.n)
        return rows / self.variance.sqrt()

    def _multiply(self, rows: Tensor) -> Tensor:
        return rows * self.variance

    def _scaled(self, factor: float) -> "Diagonal":
        return Diagonal(self.variance * factor)

    def _rescaled_units(self, scale: Tensor) -> "Diagonal":
        return Diagonal(self.variance * scale.square())

    def diagonal(self) -> Tensor:
        return self.variance

    def spectrum(self) -> Tensor:
        return self.variance.detach().double().sort(descending=True).values

    def _squared_norm(self) -> Tensor:
        return self.variance.double().square().sum()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device)
        return torch.diag(self.variance)

    def log_determinant(self) -> float:
        if (self.variance == 0).any():
            raise singular(self.n)
        return float(self.variance.detach().double().log().sum())


def scaled_rows(normals: Tensor, variance: Tensor) -> Tensor:
    """normals · √variance, written over the normals where no gradient needs them."""
    scale = variance.sqrt()
    return normals * scale if scale.requires_grad or normals.requires_grad else normals.mul_(scale)
