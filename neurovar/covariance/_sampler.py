"""Draws in small numbers at the speed of large ones."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from neurovar.covariance._noise import Noise


class Sampler:
    """Hands out draws from blocks of `block` rows, each drawn at once.

    A small draw from `Dense` noise reads its whole factor from memory; a block reads it once for many. The rows are
    those of `noise.sample` to rounding, one after another, and the same to the last bit however they are asked for. A
    block takes block · n numbers of memory, and the factors are held a second time.

    Parameters
    ----------
    noise : Covariance
        What is drawn from.
    generator : torch.Generator
        Source of the draws.
    block : int
        Rows that are drawn at once, at least 1.

    Raises
    ------
    ValueError
        For noise that depends on the activations, which no block can know, or that is being learned, where each step
        needs draws of its own; for a block without rows.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> sampler = Diagonal.isotropic(3).sampler(generator=torch.Generator().manual_seed(0), block=100)
    >>> sampler.draw((2,)).shape, sampler.draw().shape
    (torch.Size([2, 3]), torch.Size([3]))
    """

    def __init__(self, noise: "Noise", generator: torch.Generator, block: int) -> None:
        if block < 1:
            raise ValueError(f"expected a block of at least 1 row, got {block}")
        if noise.state_dependent:
            raise ValueError(
                "expected noise that does not depend on the activations, got some that does: use sample_at"
            )
        if noise.trainable:
            raise ValueError("expected noise that is not being learned, got tensors with gradients; use its sample")
        self._noise, self._generator, self._block = noise, generator, block
        self._colorize = noise._colorizer()
        self._left = noise._first().new_empty(0, noise.n)

    @property
    def n(self) -> int:
        """Number of units."""
        return self._noise.n

    def draw(self, shape: Sequence[int] = ()) -> Tensor:
        """The next draws.

        Parameters
        ----------
        shape : sequence of int, optional
            Of the draws; by default one.

        Returns
        -------
        torch.Tensor
            (*shape, n).
        """
        # Rows left of the last block first, then whole new blocks: always the same rows in the same order, however many
        # are asked for at a time.
        wanted, taken = prod(shape), []
        while wanted > len(self._left):
            taken.append(self._left)
            wanted -= len(self._left)
            self._left = self._colorize(self._noise.normals(self._block, generator=self._generator))
        rows, self._left = self._left[:wanted], self._left[wanted:]
        # A copy, so that the caller may overwrite what was drawn.
        return torch.cat([*taken, rows]).reshape(*shape, self._noise.n)
