"""What every covariance has in common, and sums of them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations
from typing import Any, Self

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._noise import Noise
from neurovar.covariance._triangular import Triangular

# Every type that was imported, by its name; see `neurovar.covariance.types`.
REGISTRY: dict[str, type["Covariance"]] = {}


@dataclass(frozen=True, eq=False)
class Covariance(Noise):
    """A symmetric positive semi-definite matrix C over `n` units, and the noise e ~ N(0, C).

    All tensors are of float32 or of float64, all of one, on one device. Gradients flow through tensors that require
    them.

    A new type is one frozen dataclass, in a file of its own: it is registered by its name when its class is made, and
    is then found by `load`. Its fields are tensors, or other covariances. It supplies `n`, `n_normals`, `_colorize`,
    `_whiten`, `_multiply`, `_scaled`, `_rescaled_units`, `diagonal`, `_squared_norm`, `to_dense` and
    `log_determinant`; where it can, `_mapped`, `_plus` and `_inner`; and if it is made of others `_parts` and
    `_assemble`.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> noise = Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> noise.trace(), noise.effective_dimensionality()
    (4.0, 1.6)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        known = REGISTRY.setdefault(cls.__name__, cls)
        if known.__module__ != cls.__module__:  # in the same file it is the same type, made anew
            raise ValueError(f"expected a name of its own for a covariance type, got that of {known!r}: {cls.__name__}")
        REGISTRY[cls.__name__] = cls

    # What a type supplies.

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

    def _mapped(self, matrix: Tensor) -> "Covariance":
        """A C Aᵀ for a matrix A (m, n); `mapped` of `_dense_and_low_rank.py` does it for Gaussian noise."""
        raise ValueError(f"expected a vector for {type(self).__name__}, got a matrix; its gaussian() has a conjugate")

    def _plus(self, other: "Covariance") -> "Covariance | None":
        """C + other as one covariance simpler than a `Sum`, if this type knows one."""
        return None

    def _inner(self, other: "Covariance") -> Tensor | None:
        """⟨C, other⟩ = Σ Cᵢⱼ otherᵢⱼ in float64, if this type knows it without writing the matrices out."""
        return None

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
        ValueError
            If it would not fit into memory.
        """

    @abstractmethod
    def log_determinant(self) -> float:
        """log |C|, the natural logarithm.

        Raises
        ------
        ValueError
            If the matrix is singular.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> Diagonal(torch.tensor([2.0, 0.5])).log_determinant()
        0.0
        """

    def gaussian(self) -> "Covariance":
        """The centred Gaussian noise, the same at every activation, that has the same matrix: itself where it is that.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal, MeanShift
        >>> (Diagonal.isotropic(2) + MeanShift(torch.tensor([1.0, 2.0]))).gaussian().to_dense()
        tensor([[2., 2.],
                [2., 5.]])
        """
        return self

    # What is known of the matrix.

    def trace(self) -> float:
        """The total variance, Σ λᵢ."""
        return float(self.diagonal().detach().double().sum())

    def effective_dimensionality(self) -> float:
        """(Σλ)² / Σλ², between 1 and n.

        Raises
        ------
        ValueError
            If there is no variance, or its total is beyond the range of numbers.
        """
        self._check_variable()
        return self.trace() ** 2 / float(self._squared_norm().detach())

    def spectrum(self) -> Tensor:
        """All eigenvalues, largest first, in float64: (n,). Writes the matrix out: O(n²) memory.

        Raises
        ------
        ValueError
            If the matrix would not fit into memory.
        """
        _memory.require_matrix(self.n, torch.float64, self.device, copies=2)
        return torch.linalg.eigvalsh(self.to_dense().detach().double()).flip(0).clamp(min=0)

    def mahalanobis(self, deviations: Tensor) -> Tensor:
        """eᵀ C⁻¹ e for each deviation e, which is ‖W e‖² for any W with Wᵀ W = C⁻¹.

        Parameters
        ----------
        deviations : torch.Tensor
            (…, n), of the covariance's dtype.

        Returns
        -------
        torch.Tensor
            (…), of the same dtype.

        Raises
        ------
        ValueError
            If the matrix is singular, or the deviations are not over its units.

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

    # The algebra.

    def __add__(self, other: "Covariance") -> "Covariance":
        """The covariance of independent noises added: of one type where the types know one, else a `Sum`."""
        return added([self, other]) if isinstance(other, Covariance) else NotImplemented

    def __rmul__(self, factor: float) -> Self:
        """factor · C, a number of at least 0: variances are scaled by it, and draws by its root."""
        if not 0 <= factor < float("inf"):
            raise ValueError(f"expected a finite factor of at least 0, got {factor}")
        return self._scaled(float(factor))

    def conjugate(self, map: Tensor) -> "Covariance":
        """The covariance of y = A e, A C Aᵀ.

        Parameters
        ----------
        map : torch.Tensor
            A, a matrix (m, n); or a vector (n,) for A = diag(map), which scales each unit. Finite, of the covariance's
            dtype.

        Returns
        -------
        Covariance
            For a vector, of the same type where the type allows it. For a matrix, `Dense` where m ≤ n, and else n
            factors and no private variance (`LowRankPlusDiagonal`), so that a map onto many units takes O(m·n) memory;
            a `MeanShift` stays one.

        Raises
        ------
        ValueError
            For a map of another shape or type, or of a `GainModulated` by a matrix, which mixes units, so that the new
            activations do not tell the old; its `average()` has a conjugate.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> Diagonal.isotropic(2).conjugate(torch.tensor([[1.0, 1.0]])).to_dense()
        tensor([[2.]])
        >>> Diagonal.isotropic(2).conjugate(torch.tensor([3.0, 2.0])).variance
        tensor([9., 4.])
        """
        if map.ndim not in (1, 2) or map.shape[-1] != self.n or not len(map):
            raise ValueError(f"expected a map (m, {self.n}) or ({self.n},), got {tuple(map.shape)}")
        if map.dtype != self.dtype or not torch.isfinite(map).all():
            raise ValueError(f"expected a finite map of {self.dtype}, got {map.dtype} or NaN")
        return self._rescaled_units(map) if map.ndim == 1 else self._mapped(map)

    def scale_to(self, *, trace: float) -> Self:
        """The same structure with total variance `trace`: (trace / tr C) · C.

        Raises
        ------
        ValueError
            For a trace that is not finite and above 0, or noise without variance.

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
        # A mean variance that the type has no number for: scaled down from it, the noise would be silent.
        if not total <= self.n * torch.finfo(self.dtype).max:
            raise ValueError(f"expected a finite trace, got {total} over {self.n} units of {self.dtype}")


@dataclass(frozen=True, eq=False)
class Sum(Covariance):
    """Independent noises added: C = Σ Cᵢ.

    `a + b` is one, or simpler where the types allow it: what is diagonal, low-rank or dense becomes one such, and two
    constants one. With a `MeanShift` among the parts C is the second moment, the covariance + m mᵀ.
    Where no part is `Dense` or `Kronecker` only `spectrum` and `to_dense` take more than O(n·r) memory.

    Parameters
    ----------
    parts : tuple of Covariance
        At least one, none a sum itself, over the same units, of one dtype on one device, at most one a `MeanShift`.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal, Kronecker
    >>> separable = Kronecker(Diagonal.isotropic(2), Diagonal.isotropic(3))
    >>> type(separable + Diagonal.isotropic(6)).__name__, (separable + Diagonal.isotropic(6)).trace()
    ('Sum', 12.0)
    """

    parts: tuple[Covariance, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ValueError(f"expected a tuple of covariances, got {self.parts!r}")
        for part in self.parts:
            if not isinstance(part, Covariance) or isinstance(part, Sum):
                raise ValueError(f"expected covariances that are no sums themselves, got {type(part).__name__}")
        check_alike(self.parts)
        constants = [type(part).__name__ for part in self.parts if not part.n_normals]
        if len(constants) > 1:  # their second moments do not add up: (m₁ + m₂)(m₁ + m₂)ᵀ has cross terms
            raise ValueError(f"expected at most one {constants[0]} in a sum, got {len(constants)}; add their means")

    def _parts(self) -> dict[str, Covariance]:
        return {str(i): part for i, part in enumerate(self.parts)}

    @classmethod
    def _assemble(cls, tensors: dict[str, Tensor], parts: dict[str, Any]) -> Self:
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
    def is_linear(self) -> bool:
        return all(part.is_linear for part in self.parts)

    def _colorize(self, normals: Tensor) -> Tensor:
        split = normals.split([part.n_normals for part in self.parts], dim=1)
        return reduce(torch.add, [part._colorize(own) for part, own in zip(self.parts, split)])

    def _colorize_at(self, normals: Tensor, states: Tensor) -> Tensor:
        split = normals.split([part.n_normals for part in self.parts], dim=1)
        return reduce(torch.add, [part._colorize_at(own, states) for part, own in zip(self.parts, split)])

    @cached_property
    def _gaussian(self) -> Covariance:
        return added([part.gaussian() for part in self.parts])

    def gaussian(self) -> Covariance:
        return self._gaussian

    @cached_property
    def _triangular(self) -> Triangular:
        return Triangular.of(self.to_dense())

    def _whiten(self, rows: Tensor) -> Tensor:
        simple = self.gaussian()
        return self._triangular.whiten(rows) if isinstance(simple, Sum) else simple._whiten(rows)

    def log_determinant(self) -> float:
        simple = self.gaussian()
        return self._triangular.log_determinant() if isinstance(simple, Sum) else simple.log_determinant()

    def _multiply(self, rows: Tensor) -> Tensor:
        return torch.stack([part._multiply(rows) for part in self.parts]).sum(0)

    def _scaled(self, factor: float) -> "Sum":
        return Sum(tuple(part._scaled(factor) for part in self.parts))

    def _rescaled_units(self, scale: Tensor) -> "Sum":
        return Sum(tuple(part._rescaled_units(scale) for part in self.parts))

    def _mapped(self, matrix: Tensor) -> Covariance:
        return added([part._mapped(matrix) for part in self.parts])

    def diagonal(self) -> Tensor:
        return torch.stack([part.diagonal() for part in self.parts]).sum(0)

    def trace(self) -> float:
        return sum(part.trace() for part in self.parts)

    def _squared_norm(self) -> Tensor:
        """‖Σ Cᵢ‖² = Σ ‖Cᵢ‖² + 2 Σ_{i<j} ⟨Cᵢ, Cⱼ⟩."""
        # Σ λᵢ² of a sum is not the sum of its parts': the parts' directions overlap.
        parts = [part.gaussian() for part in self.parts]
        crossed = sum(inner_product(a, b) for a, b in combinations(parts, 2))
        return 2 * crossed + torch.stack([part._squared_norm() for part in parts]).sum()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device, copies=2)
        return reduce(torch.add, (part.to_dense() for part in self.parts))


def added(noises: Sequence[Covariance]) -> Covariance:
    """The covariance of independent noises added: each joins the first term with which it makes one simple type."""
    terms = [term for noise in noises for term in (noise.parts if isinstance(noise, Sum) else (noise,))]
    check_alike(terms)
    parts: list[Covariance] = []
    for term in terms:
        for i, part in enumerate(parts):
            both = part._plus(term) or term._plus(part)
            if both:
                parts[i] = both
                break
        else:
            parts.append(term)
    return parts[0] if len(parts) == 1 else Sum(tuple(parts))


def inner_product(a: Covariance, b: Covariance) -> Tensor:
    """⟨A, B⟩ = Σ Aᵢⱼ Bᵢⱼ, in float64; written out only where neither type knows better."""
    for first, second in ((b, a), (a, b)):
        known = first._inner(second)
        if known is not None:
            return known
    return (a.to_dense().double() * b.to_dense()).sum()


def check_alike(parts: Sequence[Covariance]) -> None:
    """Raise unless all are over as many units, of one dtype, on one device."""
    kinds = sorted({f"{part.n} units, {part.dtype} on {part.device}" for part in parts})
    if len(kinds) > 1:
        raise ValueError(f"expected parts over the same units, of one dtype on one device, got {kinds}")


def check_variances(variances: Tensor, name: str) -> None:
    """Raise unless the tensor holds a finite variance of each unit, in a type that numbers are computed in."""
    if not variances.is_floating_point() or variances.ndim != 1 or len(variances) == 0:
        raise ValueError(f"expected {name} as floats of shape (n,), got {variances.dtype} {tuple(variances.shape)}")
    check_precision(variances, name)
    if not torch.isfinite(variances).all() or (variances < 0).any():
        raise ValueError(f"expected {name} finite and not negative, got a smallest value of {variances.min():g}")


def check_precision(tensor: Tensor, name: str) -> None:
    """Raise for half precision: variances beyond 65,504 or below 6e-8 do not exist in float16, and bfloat16 has two
    digits, too few for a trace or a factorisation to be right."""
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"expected {name} of float32 or float64, got {tensor.dtype}; convert with .float(): "
            "noise is added to activations in their own type all the same"
        )
