"""Modifications by name, for the tests of all of them."""

from typing import Any

import torch
from torch import Tensor

from neurovar.networks import MODIFICATIONS

SCALED = ("elastic", "perspective", "obstruction", "rotate")
FIXED = (
    "brightness", "contrast", "saturate", "pixelate", "jpeg_compression", "gaussian_blur", "defocus_blur", "zoom_blur",
)  # fmt: skip
RANDOM = [name for name in MODIFICATIONS if name not in FIXED]


def modify(
    images: Tensor, name: str, *, strength: Any, generator: torch.Generator | None, as_published: bool = False
) -> Tensor:
    """The images under the modification; in the form of Preble et al. 2026 if `as_published`."""
    kind = MODIFICATIONS[name]
    make = kind.preble2026 if as_published and name not in SCALED else kind
    return make(strength)(images, generator=generator)
