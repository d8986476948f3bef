"""Covariance matrices as torch operators, which sample without being written out.

A noise structure is a `Covariance`; `{layer: Covariance}` is a network's noise.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Covariance(ABC):
    """A symmetric positive semi-definite matrix C over `n` units.

    A type supplies `n`, `n_normals`, `_colorize`, `_scaled`, `diagonal` and `_squared_norm`. All tensors are
    floating point, of one dtype, on one device.
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of units."""

    @property
    @abstractmethod
    def n_normals(self) -> int:
        """How many standard normal numbers one sample needs."""

    @abstractmethod
    def _colorize(self, normals: Tensor) -> Tensor:
        """Map (rows, n_normals) standard normals to (rows, n) with covariance C."""

    @abstractmethod
    def _scaled(self, factor: float) -> Self:
        """factor · C."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The variance of each unit: (n,)."""

    @abstractmethod
    def _squared_norm(self) -> Tensor:
        """‖C‖²_F = Σ λᵢ², in float64."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """The matrix (n, n)."""

    def _tensors(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self._tensors().values())).dtype

    @property
    def device(self) -> torch.device:
        return next(iter(self._tensors().values())).device

    def trace(self) -> float:
        """The total variance, Σ λᵢ."""
        return float(self.diagonal().double().sum())

    def effective_dimensionality(self) -> float:
        """(Σλ)² / Σλ², between 1 and n."""
        self._check_variable()
        return self.trace() ** 2 / float(self._squared_norm())

    def spectrum(self) -> Tensor:
        """All eigenvalues, largest first, in float64: (n,). Writes the matrix out: O(n²) memory."""
        return torch.linalg.eigvalsh(self.to_dense().double()).flip(0).clamp(min=0)

    def scale_to(self, *, trace: float) -> Self:
        """The same structure with total variance `trace`.

        Examples
        --------
        >>> Diagonal.isotropic(4).scale_to(trace=8.0).diagonal()
        tensor([2., 2., 2., 2.])
        """
        if not trace > 0:
            raise ValueError(f"expected a trace above 0, got {trace}")
        self._check_variable()
        return self._scaled(trace / self.trace())

    def _check_variable(self) -> None:
        if self.trace() == 0:
            raise ValueError(f"expected noise with variance, got a trace of 0 over {self.n} units")

    def sample(self, shape: Sequence[int] = (), *, generator: torch.Generator) -> Tensor:
        """Independent draws from N(0, C): tensor (*shape, n).

        The normals are drawn on the generator's device and then moved, so that a seed means the same everywhere.

        Examples
        --------
        >>> g = torch.Generator().manual_seed(0)
        >>> Diagonal.isotropic(3).sample((2,), generator=g).shape
        torch.Size([2, 3])
        """
        rows = int(np.prod(shape))
        normals = torch.randn(rows, self.n_normals, generator=generator, dtype=self.dtype, device=generator.device)
        return self._colorize(normals.to(self.device)).reshape(*shape, self.n)

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same covariance on another device or in another floating type."""
        return replace(self, **{name: t.to(device=device, dtype=dtype) for name, t in self._tensors().items()})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the tensors, and the type's name as JSON."""
        header = {"neurovar": json.dumps({"kind": type(self).__name__, "version": 1})}
        save_file({name: t.contiguous().cpu() for name, t in self._tensors().items()}, path, metadata=header)


def load(path: str | Path) -> Covariance:
    """Read what `Covariance.save` wrote; never unpickles.

    Raises
    ------
    ValueError : if the file is missing, not safetensors, or holds no covariance.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected a covariance file, found none at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("neurovar", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind = KINDS[header["kind"]]
        return kind(**tensors)
    except Exception as error:
        raise ValueError(f"expected a covariance saved by neurovar, could not read {path}: {error}") from error


def _check_variance(variance: Tensor, name: str) -> None:
    if not variance.is_floating_point() or variance.ndim != 1 or len(variance) == 0:
        raise ValueError(f"expected {name} as floats of shape (n,), got {variance.dtype} {tuple(variance.shape)}")
    if not torch.isfinite(variance).all() or (variance < 0).any():
        raise ValueError(f"expected {name} finite and not negative, got a smallest value of {variance.min():g}")


@dataclass(frozen=True, eq=False)
class Diagonal(Covariance):
    """Independent noise: C = diag(variance), variance (n,)."""

    variance: Tensor

    def __post_init__(self) -> None:
        _check_variance(self.variance, "variances")

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
        return normals * self.variance.sqrt()

    def _scaled(self, factor: float) -> "Diagonal":
        return Diagonal(self.variance * factor)

    def diagonal(self) -> Tensor:
        return self.variance

    def spectrum(self) -> Tensor:
        return self.variance.double().sort(descending=True).values

    def _squared_norm(self) -> Tensor:
        return self.variance.double().square().sum()

    def to_dense(self) -> Tensor:
        return torch.diag(self.variance)


@dataclass(frozen=True, eq=False)
class Dense(Covariance):
    """Any covariance, written out: matrix (n, n).

    Sampled through its Cholesky factor, or through its eigenvectors where it is only semi-definite. Eigenvalues
    below −1e-4 of the largest are an error; smaller negative ones are rounding and count as 0.
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        m = self.matrix
        if not m.is_floating_point() or m.ndim != 2 or m.shape[0] != m.shape[1] or len(m) == 0:
            raise ValueError(f"expected a square matrix of floats, got {m.dtype} {tuple(m.shape)}")
        if not torch.isfinite(m).all():
            raise ValueError(f"expected a finite covariance, got {int((~torch.isfinite(m)).sum())} NaN or infinite")
        if not torch.allclose(m, m.mT, rtol=1e-4, atol=1e-5 * float(m.diagonal().abs().max())):
            raise ValueError(f"expected a symmetric matrix, got |C − Cᵀ| up to {(m - m.mT).abs().max():g}")
        _ = self._factor

    @cached_property
    def _factor(self) -> Tensor:
        """(n, n) with C = factor · factorᵀ."""
        factor, failed = torch.linalg.cholesky_ex(self.matrix)
        if not failed:
            return factor
        values, vectors = torch.linalg.eigh(self.matrix.double())
        if values[0] < -1e-4 * values[-1].abs():
            raise ValueError(
                f"expected a positive semi-definite matrix, got an eigenvalue of {values[0]:g} "
                f"(largest {values[-1]:g}); transplant.nearest_correlation gives the nearest correlation matrix"
            )
        return (vectors * values.clamp(min=0).sqrt()).to(self.matrix.dtype)

    @property
    def n(self) -> int:
        return len(self.matrix)

    @property
    def n_normals(self) -> int:
        return self.n

    def _colorize(self, normals: Tensor) -> Tensor:
        return normals @ self._factor.mT

    def _scaled(self, factor: float) -> "Dense":
        return Dense(self.matrix * factor)

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    def _squared_norm(self) -> Tensor:
        return self.matrix.double().square().sum()

    def to_dense(self) -> Tensor:
        return self.matrix


@dataclass(frozen=True, eq=False)
class LowRankPlusDiagonal(Covariance):
    """Shared and private noise: C = F Fᵀ + diag(private), factors F (n, r), private (n,).

    Everything but `spectrum` and `to_dense` takes O(n·r) memory.
    """

    factors: Tensor
    private: Tensor

    def __post_init__(self) -> None:
        _check_variance(self.private, "private variances")
        if self.factors.shape != (len(self.private), self.factors.shape[-1]) or self.factors.shape[-1] == 0:
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

    def _colorize(self, normals: Tensor) -> Tensor:
        private, shared = normals.split([self.n, self.rank], dim=-1)
        return torch.addmm(private * self.private.sqrt(), shared, self.factors.mT)

    def _scaled(self, factor: float) -> "LowRankPlusDiagonal":
        return LowRankPlusDiagonal(self.factors * factor**0.5, self.private * factor)

    def diagonal(self) -> Tensor:
        return self.factors.square().sum(1) + self.private

    def _squared_norm(self) -> Tensor:
        factors, private = self.factors.double(), self.private.double()
        cross = 2 * (private @ factors.square().sum(1))
        return (factors.mT @ factors).square().sum() + cross + private.square().sum()

    def to_dense(self) -> Tensor:
        return self.factors @ self.factors.mT + torch.diag(self.private)

    def leading_eigenvalues(self, k: int) -> Tensor:
        """The k < n largest eigenvalues, largest first, in float64, by Lanczos iteration in O(n·r) memory."""
        factors, private = (t.double().cpu().numpy() for t in (self.factors, self.private))
        operator = LinearOperator(
            (self.n, self.n),
            matvec=lambda v: factors @ (factors.T @ v.ravel()) + private * v.ravel(),
            dtype=np.float64,
        )
        start = np.random.default_rng(0).standard_normal(self.n)
        values = eigsh(operator, k=k, v0=start, return_eigenvectors=False)
        return torch.from_numpy(np.sort(values)[::-1].copy())


KINDS: dict[str, type[Covariance]] = {kind.__name__: kind for kind in (Diagonal, Dense, LowRankPlusDiagonal)}
