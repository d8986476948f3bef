"""A constant beside noises."""

from dataclasses import dataclass

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, check_precision
from neurovar.covariance._dense_and_low_rank import LowRankPlusDiagonal


@dataclass(frozen=True, eq=False)
class MeanShift(Covariance):
    """No noise, but a constant m: every draw is the same.

    Its matrix is the second moment m mᵀ, so that `scale_to(trace=)` gives it the power of a noise, and
    `noise + MeanShift(m)` is noise with a mean.

    Parameters
    ----------
    mean : torch.Tensor
        m (n,), of float32 or float64.

    Raises
    ------
    ValueError
        For another shape or type, or a mean that is not finite.

    Examples
    --------
    >>> shift = MeanShift(torch.tensor([3.0, 4.0]))
    >>> shift.trace(), shift.scale_to(trace=100.0).mean
    (25.0, tensor([6., 8.]))
    """

    mean: Tensor

    def __post_init__(self) -> None:
        if not self.mean.is_floating_point() or self.mean.ndim != 1 or len(self.mean) == 0:
            raise ValueError(f"expected a mean of floats (n,), got {self.mean.dtype} {tuple(self.mean.shape)}")
        check_precision(self.mean, "a mean")
        if not torch.isfinite(self.mean).all():
            raise ValueError(f"expected a finite mean, got {int((~torch.isfinite(self.mean)).sum())} NaN or infinite")

    @property
    def n(self) -> int:
        return len(self.mean)

    @property
    def n_normals(self) -> int:
        return 0

    @property
    def is_linear(self) -> bool:
        return False

    def gaussian(self) -> LowRankPlusDiagonal:
        return LowRankPlusDiagonal(self.mean[:, None], torch.zeros_like(self.mean))

    def _colorize(self, normals: Tensor) -> Tensor:
        return self.mean.expand(len(normals), self.n).clone()

    def _whiten(self, rows: Tensor) -> Tensor:
        return self.gaussian()._whiten(rows)

    def _multiply(self, rows: Tensor) -> Tensor:
        return torch.outer(rows @ self.mean, self.mean)

    def _scaled(self, factor: float) -> "MeanShift":
        return MeanShift(self.mean * factor**0.5)

    def _rescaled_units(self, scale: Tensor) -> "MeanShift":
        return MeanShift(self.mean * scale)

    def _mapped(self, matrix: Tensor) -> "MeanShift":
        return MeanShift(matrix @ self.mean)

    def _plus(self, other: Covariance) -> "MeanShift | None":
        return MeanShift(self.mean + other.mean) if isinstance(other, MeanShift) else None

    def diagonal(self) -> Tensor:
        return self.mean.square()

    def spectrum(self) -> Tensor:
        values = torch.zeros(self.n, dtype=torch.float64, device=self.device)
        values[0] = self.trace()
        return values

    def _squared_norm(self) -> Tensor:
        return self.mean.double().square().sum().square()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device)
        return torch.outer(self.mean, self.mean)

    def log_determinant(self) -> float:
        return self.gaussian().log_determinant()
