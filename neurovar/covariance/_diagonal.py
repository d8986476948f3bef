"""Independent noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, check_variances
from neurovar.covariance._dense_and_low_rank import Dense, LowRankPlusDiagonal, mapped
from neurovar.covariance._products import scaled_rows
from neurovar.covariance._triangular import singular


@dataclass(frozen=True, eq=False)
class Diagonal(Covariance):
    """Independent noise: C = diag(variance).

    Parameters
    ----------
    variance : torch.Tensor
        (n,), of float32 or float64, at least 0.

    Raises
    ------
    ValueError
        For another shape or type, or variances that are not finite or negative.

    Examples
    --------
    >>> Diagonal(torch.tensor([1.0, 3.0])).trace(), Diagonal.isotropic(5, variance=0.5).trace()
    (4.0, 2.5)
    """

    variance: Tensor

    def __post_init__(self) -> None:
        check_variances(self.variance, "variances")

    @classmethod
    def isotropic(cls, n: int, *, variance: float = 1.0) -> "Diagonal":
        """variance · I over n units, in float32."""
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

    def _mapped(self, matrix: Tensor) -> Covariance:
        return mapped(self, matrix, lambda: self.variance.sqrt().diag())

    def _plus(self, other: Covariance) -> Covariance | None:
        match other:
            case Diagonal():
                return Diagonal(self.variance + other.variance)
            case LowRankPlusDiagonal():
                return LowRankPlusDiagonal(other.factors, self.variance + other.private)
            case Dense():
                return Dense(other.matrix + self.to_dense())
        return None

    def _inner(self, other: Covariance) -> Tensor:
        return other.diagonal().double() @ self.variance.double()

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
