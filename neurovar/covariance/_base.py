"""What every covariance has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._sampler import Sampler

NORMALS_AT_ONCE = 16
"""torch fills CPU tensors with normals in groups of this size; whole groups a row keep rows independent of the rest."""


@dataclass(frozen=True, eq=False)
class Covariance(ABC):
    """A symmetric positive semi-definite matrix C over `n` units.

    All tensors are floating point, of one dtype, on one device. Gradients flow through tensors that require them.

    A type supplies `n`, `n_normals`, `_colorize`, `_whiten`, `_multiply`, `_scaled`, `_rescaled_units`, `diagonal`,
    `_squared_norm`, `to_dense` and `log_determinant`; one made of others also `_parts` and `_assemble`.
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
        """Map (rows, n_normals) standard normals to (rows, n) with covariance C. May overwrite the normals."""

    def _colorizer(self) -> Callable[[Tensor], Tensor]:
        """`_colorize` made ready for many calls."""
        return self._colorize

    @abstractmethod
    def _whiten(self, rows: Tensor) -> Tensor:
        """Map (rows, n) with covariance C to (rows, n) with covariance I."""

    @abstractmethod
    def _multiply(self, rows: Tensor) -> Tensor:
        """rows · C: (rows, n)."""

    @abstractmethod
    def _scaled(self, factor: float) -> Self:
        """factor · C."""

    @abstractmethod
    def _rescaled_units(self, scale: Tensor) -> "Covariance":
        """diag(scale) C diag(scale), scale (n,)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The variance of each unit: (n,)."""

    @abstractmethod
    def _squared_norm(self) -> Tensor:
        """‖C‖²_F = Σ λᵢ², in float64."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """The matrix (n, n).

        Raises
        ------
        ValueError : if it would not fit into memory.
        """

    @abstractmethod
    def log_determinant(self) -> float:
        """log |C|, the natural logarithm.

        Raises
        ------
        ValueError : if the matrix is singular.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> Diagonal(torch.tensor([2.0, 0.5])).log_determinant()
        0.0
        """

    @property
    def state_dependent(self) -> bool:
        """Whether the noise depends on the activations that it is added to."""
        return False

    @property
    def _linear(self) -> bool:
        """Whether a draw is a linear map of its normals."""
        return True

    def _gaussian(self) -> "Covariance":
        """A centred Gaussian noise, whatever the activations, with the same matrix."""
        return self

    @property
    def trainable(self) -> bool:
        """Whether gradients flow into it."""
        parts = any(part.trainable for part in self._parts().values())
        return parts or any(tensor.requires_grad for tensor in self._tensors().values())

    def _parts(self) -> dict[str, "Covariance"]:
        return {}

    @classmethod
    def _assemble(cls, tensors: dict[str, Tensor], parts: dict[str, "Covariance"]) -> Self:
        made_of: dict[str, Any] = {**tensors, **parts}
        return cls(**made_of)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _first(self) -> Tensor:
        for tensor in self._tensors().values():
            return tensor
        return next(iter(self._parts().values()))._first()

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same type with every tensor changed."""
        tensors = {name: change(tensor) for name, tensor in self._tensors().items()}
        return self._assemble(tensors, {name: part._mapped(change) for name, part in self._parts().items()})

    @property
    def dtype(self) -> torch.dtype:
        return self._first().dtype

    @property
    def device(self) -> torch.device:
        return self._first().device

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same covariance on another device or in another floating type."""
        return self._mapped(lambda tensor: tensor.to(device=device, dtype=dtype))

    def trace(self) -> float:
        """The total variance, Σ λᵢ."""
        return float(self.diagonal().detach().double().sum())

    def effective_dimensionality(self) -> float:
        """(Σλ)² / Σλ², between 1 and n."""
        self._check_variable()
        return self.trace() ** 2 / float(self._squared_norm().detach())

    def spectrum(self) -> Tensor:
        """All eigenvalues, largest first, in float64: (n,). Writes the matrix out: O(n²) memory.

        Raises
        ------
        ValueError : if the matrix would not fit into memory.
        """
        _memory.require_matrix(self.n, torch.float64, self.device, copies=2)
        return torch.linalg.eigvalsh(self.to_dense().detach().double()).flip(0).clamp(min=0)

    def mahalanobis(self, deviations: Tensor) -> Tensor:
        """eᵀ C⁻¹ e for each deviation e: (…, n) → (…), of their dtype.

        Raises
        ------
        ValueError : if the matrix is singular, or the deviations are not over its units.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> Diagonal(torch.tensor([1.0, 4.0])).mahalanobis(torch.tensor([1.0, 2.0]))
        tensor(2.)
        """
        if deviations.shape[-1:] != (self.n,) or deviations.dtype != self.dtype:
            got = f"{tuple(deviations.shape)} of {deviations.dtype}"
            raise ValueError(f"expected deviations (…, {self.n}) of {self.dtype}, got {got}")
        rows = deviations.reshape(-1, self.n)
        return self._whiten(rows).square().sum(-1).reshape(deviations.shape[:-1])

    def __add__(self, other: "Covariance") -> "Covariance":
        """The covariance of independent noises added: see `Sum`."""
        from neurovar.covariance import _operations

        return _operations.add(self, other) if isinstance(other, Covariance) else NotImplemented

    def __rmul__(self, factor: float) -> Self:
        """factor · C, a number of at least 0: variances are scaled by it, and samples by its root."""
        if not 0 <= factor < float("inf"):
            raise ValueError(f"expected a finite factor of at least 0, got {factor}")
        return self._scaled(float(factor))

    def conjugate(self, map: Tensor) -> "Covariance":
        """The covariance of y = A e, A C Aᵀ.

        Parameters
        ----------
        map : A, a matrix (m, n); or a vector (n,) for A = diag(map), which scales each unit and keeps the type where
            the type allows it. A matrix gives `Dense` where m ≤ n, and else n factors and no private variance
            (`LowRankPlusDiagonal`), so that a map onto many units takes O(m·n) memory. `MeanShift` stays one.

        Raises
        ------
        ValueError : for a map of another shape or type, or of a `GainModulated` by a matrix, which mixes units, so that
            the new activations do not tell the old; its `average()` has a conjugate.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> Diagonal.isotropic(2).conjugate(torch.tensor([[1.0, 1.0]])).to_dense()
        tensor([[2.]])
        >>> Diagonal.isotropic(2).conjugate(torch.tensor([3.0, 2.0])).variance
        tensor([9., 4.])
        """
        from neurovar.covariance import _operations

        return _operations.conjugate(self, map)

    def scale_to(self, *, trace: float) -> Self:
        """The same structure with total variance `trace`.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> Diagonal.isotropic(4).scale_to(trace=8.0).diagonal()
        tensor([2., 2., 2., 2.])
        """
        if not 0 < trace < float("inf"):
            raise ValueError(f"expected a finite trace above 0, got {trace}")
        self._check_variable()
        return self._scaled(trace / self.trace())

    def _check_variable(self) -> None:
        total = self.trace()
        if total == 0:
            raise ValueError(f"expected noise with variance, got a trace of 0 over {self.n} units")
        if not total < float("inf"):  # scaled down from it, the noise would be silent
            raise ValueError(f"expected a finite trace, got {total} over {self.n} units of {self.dtype}")

    def sample(self, shape: Sequence[int] = (), *, generator: torch.Generator) -> Tensor:
        """Independent draws from N(0, C): tensor (*shape, n).

        The normals are drawn on the generator's device and then moved, so that a seed means the same everywhere.
        A generator on the CPU gives the same rows (to rounding) however many are asked for at once.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> g = torch.Generator().manual_seed(0)
        >>> Diagonal.isotropic(3).sample((2,), generator=g).shape
        torch.Size([2, 3])
        """
        rows = self._colorize(self._normals(prod(shape), generator))
        return rows.reshape(*shape, self.n).contiguous()

    def sampler(self, *, generator: torch.Generator, block: int) -> Sampler:
        """Draws in small numbers at the speed of large ones: see `Sampler`."""
        return Sampler(self, generator, block)

    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        """One draw for each activation that noise is added to: states (rows, n) → (rows, n).

        The same as `sample((rows,))`, except for noise that is `state_dependent`.
        """
        if states.ndim != 2 or states.shape[1] != self.n:
            raise ValueError(f"expected states (rows, {self.n}), got {tuple(states.shape)}")
        return self._colorize_at(self._normals(len(states), generator), states).contiguous()

    def _colorize_at(self, normals: Tensor, states: Tensor) -> Tensor:
        return self._colorize(normals)

    def _normals(self, rows: int, generator: torch.Generator) -> Tensor:
        """(rows, n_normals) standard normal numbers."""
        drawn = -(-self.n_normals // NORMALS_AT_ONCE) * NORMALS_AT_ONCE
        normals = torch.randn(rows, drawn, generator=generator, dtype=self.dtype, device=generator.device)
        return normals[:, : self.n_normals].to(self.device)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the tensors, and the types as JSON.

        Raises
        ------
        ValueError : if there is no such folder.
        """
        from neurovar.covariance import _files

        _files.save(self, path)


def check_variance(variance: Tensor, name: str) -> None:
    if not variance.is_floating_point() or variance.ndim != 1 or len(variance) == 0:
        raise ValueError(f"expected {name} as floats of shape (n,), got {variance.dtype} {tuple(variance.shape)}")
    if not torch.isfinite(variance).all() or (variance < 0).any():
        raise ValueError(f"expected {name} finite and not negative, got a smallest value of {variance.min():g}")


def singular(n: int) -> ValueError:
    return ValueError(f"expected a covariance that has an inverse, got a singular one over {n} units")
