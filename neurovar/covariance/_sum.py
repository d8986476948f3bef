"""Noises added, and a constant beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations
from typing import Self

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance
from neurovar.covariance._low_rank import LowRankPlusDiagonal


@dataclass(frozen=True, eq=False)
class MeanShift(Covariance):
    """No noise, but a constant: every draw is `mean` (n,).

    Its matrix is the second moment m mᵀ, so that `scale_to(trace=)` gives it the power of a noise, and
    `noise + MeanShift(m)` is noise with a mean.
    """

    mean: Tensor

    def __post_init__(self) -> None:
        if not self.mean.is_floating_point() or self.mean.ndim != 1 or len(self.mean) == 0:
            raise ValueError(f"expected a mean of floats (n,), got {self.mean.dtype} {tuple(self.mean.shape)}")
        if not torch.isfinite(self.mean).all():
            raise ValueError(f"expected a finite mean, got {int((~torch.isfinite(self.mean)).sum())} NaN or infinite")

    @property
    def n(self) -> int:
        return len(self.mean)

    @property
    def n_normals(self) -> int:
        return 0

    @property
    def _linear(self) -> bool:
        return False

    def _gaussian(self) -> LowRankPlusDiagonal:
        return LowRankPlusDiagonal(self.mean[:, None], torch.zeros_like(self.mean))

    def _colorize(self, normals: Tensor) -> Tensor:
        return self.mean.expand(len(normals), self.n).clone()

    def _whiten(self, rows: Tensor) -> Tensor:
        return self._gaussian()._whiten(rows)

    def _multiply(self, rows: Tensor) -> Tensor:
        return torch.outer(rows @ self.mean, self.mean)

    def _scaled(self, factor: float) -> "MeanShift":
        return MeanShift(self.mean * factor**0.5)

    def _rescaled_units(self, scale: Tensor) -> "MeanShift":
        return MeanShift(self.mean * scale)

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
        return self._gaussian().log_determinant()


@dataclass(frozen=True, eq=False)
class Sum(Covariance):
    """Independent noises added: C = Σ Cᵢ over `parts`.

    `a + b` is one, or simpler where the types allow it: what is diagonal, low-rank or dense becomes one such, and two
    constants one. With a `MeanShift` among the parts C is the second moment, the covariance + m mᵀ.
    Where no part is `Dense` or `Kronecker` only `spectrum` and `to_dense` take more than O(n·r) memory.
    """

    parts: tuple[Covariance, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ValueError(f"expected a tuple of covariances, got {self.parts!r}")
        for part in self.parts:
            if not isinstance(part, Covariance) or isinstance(part, Sum):
                raise ValueError(f"expected covariances that are no sums themselves, got {type(part).__name__}")
        check_alike(self.parts)
        n_shifts = sum(isinstance(part, MeanShift) for part in self.parts)
        if n_shifts > 1:
            raise ValueError(f"expected at most one MeanShift in a sum, got {n_shifts}; add their means")

    def _parts(self) -> dict[str, Covariance]:
        return {str(i): part for i, part in enumerate(self.parts)}

    @classmethod
    def _assemble(cls, tensors: dict[str, Tensor], parts: dict[str, Covariance]) -> Self:
        if tensors:
            raise ValueError(f"expected no tensors beside the parts of a sum, got {sorted(tensors)}")
        return cls(tuple(parts[str(i)] for i in range(len(parts))))

    @property
    def n(self) -> int:
        return self.parts[0].n

    @property
    def n_normals(self) -> int:
        return sum(part.n_normals for part in self.parts)

    @property
    def state_dependent(self) -> bool:
        return any(part.state_dependent for part in self.parts)

    @property
    def _linear(self) -> bool:
        return all(part._linear for part in self.parts)

    def _colorize(self, normals: Tensor) -> Tensor:
        split = normals.split([part.n_normals for part in self.parts], dim=1)
        return reduce(torch.add, [part._colorize(own) for part, own in zip(self.parts, split)])

    def _colorize_at(self, normals: Tensor, states: Tensor) -> Tensor:
        split = normals.split([part.n_normals for part in self.parts], dim=1)
        return reduce(torch.add, [part._colorize_at(own, states) for part, own in zip(self.parts, split)])

    @cached_property
    def _merged(self) -> Covariance:
        """One covariance with the same matrix."""
        from neurovar.covariance import _operations

        return _operations.merged([part._gaussian() for part in self.parts])

    def _gaussian(self) -> Covariance:
        return self._merged

    def _whiten(self, rows: Tensor) -> Tensor:
        return self._merged._whiten(rows)

    def _multiply(self, rows: Tensor) -> Tensor:
        return torch.stack([part._multiply(rows) for part in self.parts]).sum(0)

    def _scaled(self, factor: float) -> "Sum":
        return Sum(tuple(part._scaled(factor) for part in self.parts))

    def _rescaled_units(self, scale: Tensor) -> "Sum":
        return Sum(tuple(part._rescaled_units(scale) for part in self.parts))

    def diagonal(self) -> Tensor:
        return torch.stack([part.diagonal() for part in self.parts]).sum(0)

    def _squared_norm(self) -> Tensor:
        """Σ ‖Cᵢ‖² + 2 Σ_{i<j} ⟨Cᵢ, Cⱼ⟩."""
        from neurovar.covariance import _operations

        parts = [part._gaussian() for part in self.parts]
        crossed = sum(_operations.inner(a, b) for a, b in combinations(parts, 2))
        return 2 * crossed + torch.stack([part._squared_norm() for part in parts]).sum()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device, copies=2)
        return reduce(torch.add, (part.to_dense() for part in self.parts))

    def log_determinant(self) -> float:
        return self._merged.log_determinant()


def check_alike(parts: Sequence[Covariance]) -> None:
    """Raise unless all are over as many units, of one dtype, on one device."""
    kinds = sorted({f"{part.n} units, {part.dtype} on {part.device}" for part in parts})
    if len(kinds) > 1:
        raise ValueError(f"expected parts over the same units, of one dtype on one device, got {kinds}")
