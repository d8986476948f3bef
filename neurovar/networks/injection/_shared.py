"""The same draws of a noise for every image of a batch."""

from typing import Any

import torch
from torch import Tensor

from neurovar.covariance import Covariance, Sampler


class SharedDraws:
    """A covariance whose K draws are the same for every image of a batch.

    So two candidates for an image meet under common random numbers, which leaves only the noise of their difference,
    and K draws serve however many images there are. It stands in for the covariance in `inject`, with draws=K.

    Parameters
    ----------
    noise : Covariance
        What is drawn from.
    n_draws : int
        K.
    sampler : Sampler, optional
        Where the draws come from in place of the generator of the injection.
    """

    def __init__(self, noise: Covariance, n_draws: int, sampler: Sampler | None = None) -> None:
        self._noise, self._n_draws, self._sampler = noise, n_draws, sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._noise, name)

    def to(self, **kinds: Any) -> "SharedDraws":
        """The same noise elsewhere or in another type; a sampler draws where it is."""
        return SharedDraws(self._noise.to(**kinds), self._n_draws, self._sampler)

    def sample_at(self, states: Tensor, *, generator: torch.Generator) -> Tensor:
        """For states (K · image, unit), all images of draw 1 first."""
        images = len(states) // self._n_draws
        if self._noise.state_dependent:
            # One row of normals a draw, coloured at each image's own activation.
            normals = self._noise._normals(self._n_draws, generator)
            return self._noise._colorize_at(normals.repeat_interleave(images, 0), states)
        if self._sampler:
            drawn = self._sampler.draw((self._n_draws,))
        else:
            drawn = self._noise.sample((self._n_draws,), generator=generator)
        return drawn.repeat_interleave(images, 0)
