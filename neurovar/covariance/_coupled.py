"""Draws of one batch that depend on one another: shared by its images, in opposite pairs, or the same every time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from neurovar.covariance._base import Covariance
from neurovar.covariance._sampler import Sampler


@dataclass(frozen=True, eq=False)
class CoupledDraws(ABC):
    """A covariance together with a rule of how the rows of a batch are drawn; each row alone is a draw of the noise.

    It stands in for the covariance where noise is injected: it has its `sample_at`, units, type and place. Rows come
    draw by draw: all images of draw 1 first.

    Parameters
    ----------
    noise : Covariance or CoupledDraws
        What is drawn from.

    Examples
    --------
    A rule of one's own is a class with `sample_at`:

    >>> @dataclass(frozen=True)
    ... class Silent(CoupledDraws):
    ...     def sample_at(self, states, *, generator):
    ...         return torch.zeros_like(states)
    >>> from neurovar.covariance import Diagonal
    >>> Silent(Diagonal.isotropic(2)).sample_at(torch.ones(1, 2), generator=torch.Generator())
    tensor([[0., 0.]])
    """

    noise: "Covariance | CoupledDraws"

    @abstractmethod
    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        """One draw for each of the activations (rows, n) that noise is added to."""

    @property
    def n(self) -> int:
        """Number of units."""
        return self.noise.n

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the draws."""
        return self.noise.dtype

    @property
    def device(self) -> torch.device:
        """Where the draws are."""
        return self.noise.device

    @property
    def state_dependent(self) -> bool:
        """Whether the noise depends on the activations that it is added to."""
        return self.noise.state_dependent

    @property
    def trainable(self) -> bool:
        """Whether gradients flow into the noise."""
        return self.noise.trainable

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same rule for the noise on another device or in another type."""
        return replace(self, noise=self.noise.to(device, dtype))


@dataclass(frozen=True, eq=False)
class SharedDraws(CoupledDraws):
    """K draws that are the same for every image of a batch.

    Two candidates for an image then meet under common random numbers, which leaves only the noise of their difference,
    and K draws serve however many images there are.

    Parameters
    ----------
    noise : Covariance
        What is drawn from.
    n_draws : int
        K, of which the number of rows is a multiple.
    sampler : Sampler, optional
        Where the draws of noise that is not state-dependent come from in place of the caller's generator.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> shared = SharedDraws(Diagonal.isotropic(2), n_draws=2)
    >>> rows = shared.sample_at(torch.zeros(6, 2), generator=torch.Generator().manual_seed(0))
    >>> [len(draw.unique(dim=0)) for draw in rows.chunk(2)]
    [1, 1]
    """

    noise: Covariance
    n_draws: int
    sampler: Sampler | None = None

    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        images = len(states) // self.n_draws
        if self.state_dependent:
            # The normals are shared; what they are made into depends on each image's own activation.
            normals = self.noise.normals(self.n_draws, generator=generator)
            return self.noise.draw(normals.repeat_interleave(images, 0), at=states)
        if self.sampler:
            drawn = self.sampler.draw((self.n_draws,))
        else:
            drawn = self.noise.sample((self.n_draws,), generator=generator)
        return drawn.repeat_interleave(images, 0)


@dataclass(frozen=True, eq=False)
class AntitheticDraws(CoupledDraws):
    """Draws in opposite pairs: rows k and k + rows/2 are e and −e about the mean, each with covariance C.

    The mean of a pair is exactly the noise's mean, so that what is linear in the noise averages without error.

    Parameters
    ----------
    noise : Covariance
        What is drawn from.

    References
    ----------
    Hammersley & Morton 1956, doi:10.1017/S0305004100031455

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> pairs = AntitheticDraws(Diagonal.isotropic(2))
    >>> rows = pairs.sample_at(torch.zeros(6, 2), generator=torch.Generator().manual_seed(0))
    >>> torch.equal(rows[:3], -rows[3:])
    True
    """

    noise: Covariance

    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        first, second = states.chunk(2)
        normals = self.noise.normals(len(first), generator=generator)
        return torch.cat([self.noise.draw(normals, at=first), self.noise.draw(-normals, at=second)])


@dataclass(frozen=True, eq=False)
class FixedDraws(CoupledDraws):
    """Draws that are the same whenever the generator starts at the same place: one for each draw and place in a batch.

    In a batch of fewer images each has the draw of its place in the whole one, which drawing fewer rows would not give:
    the rows of the second draw would then begin elsewhere in the generator's sequence.

    Parameters
    ----------
    noise : Covariance or CoupledDraws
        What is drawn from.
    n_draws : int
        K, of which the number of rows is a multiple.
    n_images : int
        How many images a whole batch has.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> fixed = FixedDraws(Diagonal.isotropic(2), n_draws=2, n_images=3)
    >>> six, four = (
    ...     fixed.sample_at(torch.zeros(rows, 2), generator=torch.Generator().manual_seed(0)) for rows in (6, 4)
    ... )
    >>> torch.equal(six[[0, 1, 3, 4]], four)
    True
    """

    n_draws: int
    n_images: int

    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        by_draw = states.unflatten(0, (self.n_draws, -1))
        images = by_draw.shape[1]
        if images > self.n_images:
            raise ValueError(f"expected at most {self.n_images} images for each of {self.n_draws} draws, got {images}")
        # The last image stands in for those that are missing; what is drawn for it then is not returned.
        place = torch.arange(self.n_images, device=states.device).clamp(max=images - 1)
        whole = states if images == self.n_images else by_draw[:, place].flatten(0, 1)
        drawn = self.noise.sample_at(whole, generator=generator)
        return drawn.unflatten(0, (self.n_draws, -1))[:, :images].flatten(0, 1)
