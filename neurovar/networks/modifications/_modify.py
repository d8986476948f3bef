"""Modifications by name, and the form that Preble et al. 2026 gave them."""

from collections.abc import Callable
from difflib import get_close_matches

import torch
from torch import Tensor

from neurovar.networks.modifications._blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from neurovar.networks.modifications._common import SEVERITIES, check_images, luma
from neurovar.networks.modifications._digital import contrast, elastic_transform, jpeg_compression, pixelate, saturate
from neurovar.networks.modifications._geometry import elastic, obstruction, perspective, rotate
from neurovar.networks.modifications._noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from neurovar.networks.modifications._spatter import spatter
from neurovar.networks.modifications._weather import brightness, fog, frost, snow

_CORRUPTIONS: tuple[Callable[..., Tensor], ...] = (
    gaussian_noise,
    shot_noise,
    impulse_noise,
    speckle_noise,
    gaussian_blur,
    defocus_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
    snow,
    frost,
    fog,
    brightness,
    spatter,
    contrast,
    saturate,
    pixelate,
    jpeg_compression,
    elastic_transform,
)
_TRANSFORMATIONS: tuple[Callable[..., Tensor], ...] = (elastic, perspective, obstruction, rotate)
MODIFICATIONS: dict[str, Callable[..., Tensor]] = {f.__name__: f for f in (*_CORRUPTIONS, *_TRANSFORMATIONS)}

_SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.5, 1.6, 1.8, 2.0)
PREBLE2026: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(
        ("brightness", "contrast", "gaussian_noise", "impulse_noise", "motion_blur", "snow"), tuple(SEVERITIES)
    ),
    **dict.fromkeys(("elastic", "perspective", "obstruction", "rotate"), _SCALES),
}
"""The ten modifications of Preble et al. 2026, with the strengths of their main table."""

PROTOCOLS = ("imagenet_c", "preble2026")
_COLOURED = ("gaussian_noise", "shot_noise", "impulse_noise", "frost")
_IMAGES_AT_ONCE = 1024


def modify(
    images: Tensor, name: str, *, strength: float, generator: torch.Generator, protocol: str = "imagenet_c"
) -> Tensor:
    """Return `images` under the modification called `name`; see `MODIFICATIONS` for the names.

    Parameters
    ----------
    images : (batch, channel, row, column), floating point in [0, 1], 1 or 3 channels.
    strength : for `elastic`, `perspective`, `obstruction` and `rotate` a scale s in (0, 2]; for all others, which are
        the corruptions of ImageNet-C, a severity, an integer from 1 to 5.
    generator : where random numbers come from; an image's depend on those drawn for the images before it.
    protocol : "imagenet_c": images keep their channels, and results are not rounded. "preble2026": as in that
        paper, for grey images; those for a corruption of ImageNet-C are rounded to 8 bits and made three equal
        channels, the result is rounded down to 8 bits and made grey, by luma where the paper has noise of its own in
        each channel (`gaussian_noise`, `shot_noise`, `impulse_noise`, `frost`) and by the first channel elsewhere.

    Returns
    -------
    modified images, same shape, dtype and device, in [0, 1]

    Raises
    ------
    ValueError : an unknown name (the near ones are listed), a strength or protocol that does not exist, images of
        another type, shape or range, no generator where the modification is random.

    Notes
    -----
    In both protocols a side below 32 pixels is padded with zeros to 32 for a corruption of ImageNet-C, and cropped
    back, since `imagecorruptions` takes no smaller images.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801

    Examples
    --------
    >>> images = torch.full((2, 1, 28, 28), 0.5)
    >>> round(float(modify(images, "brightness", strength=3, generator=torch.Generator()).mean()), 6)
    0.8
    """
    if name not in MODIFICATIONS:
        near = get_close_matches(str(name), MODIFICATIONS) or list(MODIFICATIONS)
        raise ValueError(f"expected the name of a modification, got {name!r}; near it: {', '.join(near)}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"expected the protocol {' or '.join(map(repr, PROTOCOLS))}, got {protocol!r}")
    if protocol == "preble2026":
        return _as_preble2026(images, name, strength, generator)
    return MODIFICATIONS[name](images, strength, generator=generator)


def _as_preble2026(images: Tensor, name: str, strength: float, generator: torch.Generator) -> Tensor:
    check_images(images)
    if images.shape[1] != 1:
        raise ValueError(f"expected grey images (1 channel) for protocol 'preble2026', got {images.shape[1]} channels")
    modification = MODIFICATIONS[name]
    if modification in _TRANSFORMATIONS:
        return modification(images, strength, generator=generator)
    result = torch.empty_like(images)
    for part, modified in zip(images.split(_IMAGES_AT_ONCE), result.split(_IMAGES_AT_ONCE)):
        colour = ((part.double() * 255).round() / 255).expand(-1, 3, -1, -1)
        in_8_bits = (modification(colour, strength, generator=generator) * 255).floor() / 255
        modified.copy_(luma(in_8_bits) if name in _COLOURED else in_8_bits[:, :1])
    return result
