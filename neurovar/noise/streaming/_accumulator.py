"""What all accumulators share: batches in, a mean and a count beside the sums, merging, saving."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from neurovar.covariance import Covariance, write_tensors

VERSION = 1


@dataclass(kw_only=True, eq=False)
class Accumulator(ABC):
    """Sums over samples, from which a covariance over units follows.

    A type keeps sums that represent the scatter S = Σ (x − m)(x − m)ᵀ about the mean m of the samples seen so far, or
    Σ x xᵀ with `about_zero`. Each batch is centred about its own mean, and its distance d from the mean of the n₁
    samples before enters as one more row: S = S₁ + S₂ + n₁n₂/(n₁ + n₂) d dᵀ (Chan, Golub & LeVeque 1983,
    doi:10.1080/00031305.1983.10483115), so that nothing large is ever subtracted from something large. Merging is the
    same sum: neither batches nor workers change the result, up to rounding (but see `LowRankAccumulator` and
    `HebbianNetwork`). The mean is kept as an offset from that of the first batch: float32 is enough for activations far
    from zero. Half precision is accumulated in float32.

    Parameters
    ----------
    about_zero : bool, optional
        Whether the result is the second moment about zero, divided by n, in place of the covariance about the mean,
        divided by n − 1.

    Attributes
    ----------
    n_samples : int
        How many samples were seen.
    unit_shape : tuple of int
        The shape of one sample, from the first batch; covariances are over its units, flattened.

    References
    ----------
    Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115

    Examples
    --------
    >>> from neurovar.noise import DenseAccumulator
    >>> first, second = DenseAccumulator(), DenseAccumulator()
    >>> first.update(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> second.update(torch.tensor([[2.0, 5.0], [6.0, 9.0]]))
    >>> first.merge(second)
    >>> first.n_samples, first.mean, round(first.covariance().trace(), 4)
    (4, tensor([3., 6.]), 8.6667)
    """

    about_zero: bool = False
    n_samples: int = field(default=0, init=False, repr=False)
    unit_shape: tuple[int, ...] | None = field(default=None, init=False, repr=False)
    _origin: Tensor = field(init=False, repr=False)
    _offset: Tensor = field(init=False, repr=False)
    _sums: dict[str, Tensor] = field(init=False, repr=False)

    @abstractmethod
    def _start(self, origin: Tensor, unit_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """The sums of no samples, of the origin's dtype and device; ValueError where the units do not suit the type."""

    @abstractmethod
    def _add(self, rows: Tensor) -> None:
        """Add the scatter of rows (m, units), Σ row rowᵀ, to the sums."""

    @abstractmethod
    def covariance(self) -> Covariance:
        """The covariance of the samples seen so far."""

    def update(self, batch: Tensor) -> None:
        """Take in the samples of a batch.

        Parameters
        ----------
        batch : torch.Tensor
            (batch, *units), finite floats.

        Raises
        ------
        ValueError
            For complex or integer activations, NaN, no samples, or a shape, type or device other than that of the
            batches before; what was accumulated stays as it was.
        """
        flat = self._checked(batch)
        with plain_arithmetic(flat.device):
            if self.unit_shape is None:
                self._begin(flat.mean(0).to(_accumulated(batch.dtype)), tuple(batch.shape[1:]))
            self._take(flat)

    def _begin(self, origin: Tensor, unit_shape: tuple[int, ...]) -> None:
        self._sums = self._start(origin, unit_shape)
        self._origin, self._offset, self.unit_shape = origin, torch.zeros_like(origin), unit_shape

    def _take(self, flat: Tensor) -> None:
        if self.about_zero:
            self._move_mean(len(flat), (flat - self._origin).mean(0))
            self._add(flat.to(self._origin.dtype))
            return
        # The deviations from the batch's own mean and, as a last row, the step of that mean: one block of memory, so
        # that a type sees all of the batch's scatter in one product.
        rows = self._origin.new_empty(len(flat) + 1, flat.shape[1])
        deviations = torch.sub(flat, self._origin, out=rows[:-1])
        mean = deviations.mean(0)
        deviations -= mean
        rows[-1] = self._move_mean(len(flat), mean)
        self._add(rows)

    def _move_mean(self, n: int, mean: Tensor) -> Tensor:
        """Count n more samples, whose mean is this far from the origin: the row by which they raise the scatter.

        With the distance d of the two means, the joint mean is n₂/(n₁ + n₂) d away from the first and n₁/(n₁ + n₂) d
        from the second. About it, the two groups have n₁ (n₂/(n₁ + n₂))² d dᵀ + n₂ (n₁/(n₁ + n₂))² d dᵀ
        = n₁n₂/(n₁ + n₂) d dᵀ more scatter than about their own: √(n₁n₂/(n₁ + n₂)) d is the row returned.
        """
        total, apart = self.n_samples + n, mean - self._offset
        row = apart * (self.n_samples * n / total) ** 0.5
        self._offset += apart * (n / total)
        self.n_samples = total
        return row

    @property
    def mean(self) -> Tensor:
        """The mean of the samples seen so far: (units,).

        Raises
        ------
        ValueError
            Before the first sample.
        """
        if self.unit_shape is None:
            raise ValueError("expected at least 1 sample for a mean, got 0")
        return self._origin + self._offset

    def _divisor(self) -> int:
        """Degrees of freedom."""
        least = 1 if self.about_zero else 2
        if self.n_samples < least:
            about = "zero" if self.about_zero else "the mean"
            raise ValueError(f"expected at least {least} samples for a covariance about {about}, got {self.n_samples}")
        return self.n_samples if self.about_zero else self.n_samples - 1

    def merge(self, other: Self) -> None:
        """Take in all samples that another accumulator of the same kind has seen; the other stays as it is.

        Parameters
        ----------
        other : Accumulator
            Of the same type, settings, units, dtype and device.

        Raises
        ------
        ValueError
            For another type or setting, other units, another dtype or device; an accumulator merged with itself.
        """
        if other is self:
            raise ValueError("expected another accumulator, got this one itself: its samples would count twice")
        if type(other) is not type(self) or other._settings() != self._settings():
            raise ValueError(f"expected an accumulator like {self}, got {other}")
        if other.unit_shape is None:
            return
        if self.unit_shape is not None:
            self._check_like(other._origin, other.unit_shape)
        with plain_arithmetic(other._origin.device):
            if self.unit_shape is None:
                self._begin(other._origin, other.unit_shape)
            self._join(other)

    def _join(self, other: Self) -> None:
        # The other's mean from this origin; origins are first, as they are alike and their difference is exact.
        row = self._move_mean(other.n_samples, other._origin - self._origin + other._offset)
        self._add_sums(other)
        if not self.about_zero:
            self._add(row[None])

    def _add_sums(self, other: Self) -> None:
        for name, total in self._sums.items():
            total += other._sums[name]

    def _settings(self) -> dict[str, Any]:
        return {setting.name: getattr(self, setting.name) for setting in fields(self) if setting.init}

    def _checked(self, batch: Tensor) -> Tensor:
        """The batch as (batch, units)."""
        if not isinstance(batch, Tensor) or not batch.is_floating_point():
            got = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            raise ValueError(f"expected activations as a tensor of floats, got {got}")
        if batch.ndim < 2 or batch.numel() == 0:
            raise ValueError(f"expected a batch (batch, *units) with samples and units, got shape {tuple(batch.shape)}")
        if self.unit_shape is not None:
            self._check_like(batch, tuple(batch.shape[1:]))
        flat = batch.flatten(1)
        # One pass without a mask as large as the batch: the norm is finite only if every number is.
        if not torch.isfinite(torch.linalg.vector_norm(flat, dtype=_accumulated(batch.dtype))):
            bad = int((~torch.isfinite(flat)).sum())
            raise ValueError(
                f"expected finite activations with a finite sum of squares, got {bad} NaN or infinite in a batch"
            )
        return flat

    def _check_like(self, tensor: Tensor, unit_shape: tuple[int, ...]) -> None:
        expected = (self.unit_shape, self._origin.dtype, self._origin.device)
        got = (unit_shape, _accumulated(tensor.dtype), tensor.device)
        if got != expected:
            raise ValueError(
                "expected samples of shape {}, {} on {}, as before, ".format(*expected)
                + "got {}, {} on {}".format(*got)
            )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file from which `load_accumulator` resumes.

        Raises
        ------
        ValueError
            Before the first sample, or if there is no such folder.
        """
        if self.unit_shape is None:
            raise ValueError("expected at least 1 sample to save, got 0")
        header = {
            "kind": type(self).__name__,
            "version": VERSION,
            "settings": self._settings(),
            "n_samples": self.n_samples,
            "unit_shape": self.unit_shape,
        }
        tensors = {"origin": self._origin, "offset": self._offset} | self._sums
        write_tensors(tensors, path, name="neurovar_streaming", header=header)

    def _restore(self, n_samples: int, unit_shape: tuple[int, ...], tensors: dict[str, Tensor]) -> None:
        if type(n_samples) is not int or n_samples < 1:
            raise ValueError(f"{n_samples} samples")
        origin, offset = tensors.pop("origin"), tensors.pop("offset")
        if origin.shape != (prod(unit_shape),):
            raise ValueError(f"{tuple(origin.shape)} means of units of shape {unit_shape}")
        self._begin(origin, unit_shape)
        expected, restored = {"offset": self._offset} | self._sums, {"offset": offset} | tensors
        if {k: (v.shape, v.dtype) for k, v in expected.items()} != {k: (v.shape, v.dtype) for k, v in restored.items()}:
            raise ValueError(f"sums {sorted(restored)} that do not fit units of shape {unit_shape}")
        self.n_samples, self._offset, self._sums = n_samples, offset, tensors


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Without gradients, autocast or inference mode: sums keep their precision, and can be added to later."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _accumulated(dtype: torch.dtype) -> torch.dtype:
    """In what type activations of a type are added up."""
    return torch.promote_types(dtype, torch.float32)
