"""Random numbers of modifications, drawn image by image: the same for any batch size, on any device."""

from collections.abc import Callable

import torch
from torch import Tensor

# PyTorch's CPU kernel fills a tensor of normals by 16, and what is left over at its end by another rule. Rows of
# whole groups of 16 therefore do not depend on how many rows follow; the numbers drawn beyond n are thrown away.
_NORMALS_AT_ONCE = 16


def uniforms(images: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """(batch, n) numbers in [0, 1)."""
    return _drawn(torch.rand, images, n, generator)


def normals(images: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """(batch, n) standard normal numbers."""
    drawn = -(-n // _NORMALS_AT_ONCE) * _NORMALS_AT_ONCE  # rounded up
    return _drawn(torch.randn, images, drawn, generator)[:, :n]


def poisson(rates: Tensor, generator: torch.Generator | None) -> Tensor:
    """Counts of these rates (batch, …)."""
    generator = _checked_generator(generator)
    here = rates.to(generator.device)
    if here.device.type == "cpu":
        return torch.poisson(here, generator=generator).to(rates.device)
    return torch.stack([torch.poisson(image, generator=generator) for image in here]).to(rates.device)


def _checked_generator(generator: torch.Generator | None) -> torch.Generator:
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"expected a torch.Generator to draw random numbers from, got {generator!r}")
    return generator


def _drawn(draw: Callable[..., Tensor], images: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """(batch, n) numbers on the images' device and in their type, drawn in float32 where the generator is."""
    generator = _checked_generator(generator)
    options = {"generator": generator, "device": generator.device, "dtype": torch.float32}
    if generator.device.type == "cpu":
        return draw(len(images), n, **options).to(images)
    # A GPU splits a call over its threads, so that the values depend on how many numbers the call draws.
    rows = [draw(n, **options) for _ in images]
    return torch.stack(rows).to(images)
