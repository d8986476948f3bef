"""Noise as a source of draws."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._sampler import Sampler
from neurovar.covariance._tensor_tree import TensorTree

# torch fills a CPU tensor with normals 16 at a time, by a vectorised Box–Muller transform, and draws a rest of fewer
# than 16 in another way. Rows of a whole number of 16 therefore start at the same place of the generator's sequence
# whatever else is drawn in the same call: a seed means the same rows, one by one or all at once.
NORMALS_AT_ONCE = 16


class Noise(TensorTree, ABC):
    """Random vectors over `n` units, each a map of a row of standard normal numbers."""

    @property
    @abstractmethod
    def n(self) -> int:
        """Number of units."""

    @property
    @abstractmethod
    def n_normals(self) -> int:
        """How many standard normal numbers one draw needs."""

    @abstractmethod
    def _colorize(self, normals: Tensor) -> Tensor:
        """Map (rows, n_normals) standard normals to (rows, n) with covariance C. May overwrite the normals."""

    def _colorize_at(self, normals: Tensor, states: Tensor) -> Tensor:
        """The same for noise added to states (rows, n)."""
        return self._colorize(normals)

    def _colorizer(self) -> Callable[[Tensor], Tensor]:
        """`_colorize` made ready for many calls."""
        return self._colorize

    @property
    def state_dependent(self) -> bool:
        """Whether the noise depends on the activations that it is added to."""
        return False

    @property
    def is_linear(self) -> bool:
        """Whether a draw is a linear map of its normals: centred Gaussian noise, the same at every activation."""
        return True

    def normals(self, rows: int, *, generator: torch.Generator) -> Tensor:
        """The standard normal numbers that so many draws are made of, for `draw`.

        They are drawn on the generator's device and then moved, so that a seed means the same everywhere.

        Parameters
        ----------
        rows : int
            How many draws.
        generator : torch.Generator
            Source of the numbers; a row takes `n_normals` of them, rounded up to a multiple of 16.

        Returns
        -------
        torch.Tensor
            (rows, n_normals).

        Raises
        ------
        ValueError
            If they would not fit into memory.
        """
        per_row = -(-self.n_normals // NORMALS_AT_ONCE) * NORMALS_AT_ONCE
        _memory.require_numbers(rows * max(per_row, self.n), self.dtype, self.device, of=f"{rows} draws")
        normals = torch.randn(rows, per_row, generator=generator, dtype=self.dtype, device=generator.device)
        return normals[:, : self.n_normals].to(self.device)

    def draw(self, normals: Tensor, *, at: Tensor | None = None) -> Tensor:
        """The draws that are made of given normal numbers, row by row: a deterministic map, linear if `is_linear`.

        The same normals give the same draws, their negatives the opposite ones (about the mean), and rows may be
        repeated or reordered before they are drawn: shared, antithetic and fixed draws are made so.

        Parameters
        ----------
        normals : torch.Tensor
            (rows, n_normals), independent standard normal numbers; they are left as they are.
        at : torch.Tensor, optional
            (rows, n), the activations that the noise is added to, of which only noise that is `state_dependent` takes
            notice. Without them each row of such noise chooses one of its reference states by its last normal.

        Returns
        -------
        torch.Tensor
            (rows, n).

        Raises
        ------
        ValueError
            For normals or activations of another shape.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> noise = Diagonal(torch.tensor([1.0, 4.0]))
        >>> normals = noise.normals(3, generator=torch.Generator().manual_seed(0))
        >>> torch.equal(noise.draw(-normals), -noise.draw(normals))
        True
        """
        if normals.ndim != 2 or normals.shape[1] != self.n_normals:
            raise ValueError(f"expected normals (rows, {self.n_normals}), got {tuple(normals.shape)}")
        own = normals.clone()  # a type may overwrite what it is given
        if at is None:
            return self._colorize(own)
        if at.shape != (len(normals), self.n):
            raise ValueError(f"expected activations ({len(normals)}, {self.n}), got {tuple(at.shape)}")
        return self._colorize_at(own, at)

    def sample(self, shape: Sequence[int] = (), *, generator: torch.Generator) -> Tensor:
        """Independent draws of the noise.

        Parameters
        ----------
        shape : sequence of int, optional
            Of the draws; by default one.
        generator : torch.Generator
            Source of the draws. One on the CPU gives the same rows (to rounding) however many are asked for at once,
            and wherever the covariance is.

        Returns
        -------
        torch.Tensor
            (*shape, n).

        Raises
        ------
        ValueError
            If they would not fit into memory.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal
        >>> g = torch.Generator().manual_seed(0)
        >>> Diagonal.isotropic(3).sample((2,), generator=g).shape
        torch.Size([2, 3])
        """
        rows = self._colorize(self.normals(prod(shape), generator=generator))
        return rows.reshape(*shape, self.n).contiguous()

    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        """One draw for each activation that noise is added to: the same as `sample((rows,))` unless `state_dependent`.

        Parameters
        ----------
        states : torch.Tensor
            (rows, n), the activations.
        generator : torch.Generator
            Source of the draws.

        Returns
        -------
        torch.Tensor
            (rows, n).

        Raises
        ------
        ValueError
            For states over other units, or if the draws would not fit into memory.
        """
        if states.ndim != 2 or states.shape[1] != self.n:
            raise ValueError(f"expected states (rows, {self.n}), got {tuple(states.shape)}")
        return self._colorize_at(self.normals(len(states), generator=generator), states).contiguous()

    def sampler(self, *, generator: torch.Generator, block: int) -> Sampler:
        """Draws in small numbers at the speed of large ones: see `Sampler`."""
        return Sampler(self, generator, block)
