"""Naturalistic image modifications: three ImageNet-C corruptions, batched, on any device.

Images are (batch, channel, row, column), floating point in [0, 1], with 1 or 3 channels; the strength is a severity
from 1 to 5. Nothing is written in place. What is random is drawn image by image on the generator's device and then
moved to the images, so it depends neither on the batch size nor on where the images are.

Reference: Hendrycks & Dietterich 2019, arXiv:1903.12261. The constants and the results are those of the package
`imagecorruptions`, without its rounding to 8 bits.
"""

from collections.abc import Callable
from difflib import get_close_matches
from numbers import Integral

import torch
from torch import Tensor
from torch.nn import functional as F

SEVERITIES = range(1, 6)
_NOISE_SD = {1: 0.08, 2: 0.12, 3: 0.18, 4: 0.26, 5: 0.38}
_BRIGHTER_BY = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5}
_BLUR_RADIUS_AND_SIGMA = {1: (10, 3), 2: (15, 5), 3: (15, 8), 4: (15, 12), 5: (20, 15)}
_MAX_BLUR_ANGLE = 45.0
_MIN_BLUR_SIZE = 32


def modify(images: Tensor, name: str, *, strength: int, generator: torch.Generator) -> Tensor:
    """Return `images` under the modification called `name`; see `MODIFICATIONS` for the names.

    Parameters
    ----------
    images : (batch, channel, row, column), floating point in [0, 1], 1 or 3 channels.
    strength : severity, an integer from 1 to 5.

    Returns
    -------
    modified images, same shape, dtype and device, in [0, 1]

    Raises
    ------
    ValueError : an unknown name (the near ones are listed), a strength that is not a severity, images of another
        type, shape or range.

    Examples
    --------
    >>> images = torch.full((2, 1, 28, 28), 0.5)
    >>> round(float(modify(images, "brightness", strength=3, generator=torch.Generator()).mean()), 6)
    0.8
    """
    if name not in MODIFICATIONS:
        near = get_close_matches(str(name), MODIFICATIONS) or list(MODIFICATIONS)
        raise ValueError(f"expected the name of a modification, got {name!r}; near it: {', '.join(near)}")
    return MODIFICATIONS[name](images, strength, generator=generator)


def gaussian_noise(images: Tensor, strength: int, *, generator: torch.Generator) -> Tensor:
    """Add independent normal noise to every pixel and channel.

    x' = clip₀₁(x + σ·z), σ = 0.08, 0.12, 0.18, 0.26, 0.38. A grey image gets noise of the full σ; Preble et al. 2026
    (arXiv:2606.13801) instead add it to three equal channels, clip, and turn the result to grey by luma, which
    leaves about 0.67 σ.

    Raises
    ------
    ValueError : as for `modify`.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = gaussian_noise(grey, 1, generator=torch.Generator().manual_seed(0))
    >>> round(float((noisy - grey).std()), 2)
    0.08
    """
    _check(images, strength)
    noise = torch.empty(images.shape, device=generator.device)
    for one in noise:  # one call an image: a single call's values depend on how many it draws
        one.normal_(generator=generator)
    return (images + _NOISE_SD[strength] * noise.to(images)).clamp(0, 1)


def brightness(images: Tensor, strength: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Raise the value V of hue, saturation and value: V' = clip₀₁(V + c), c = 0.1, 0.2, 0.3, 0.4, 0.5.

    V is the largest channel and RGB is proportional to it at a given hue and saturation, so x' = x·V'/V, and V' where
    x is black. On a grey image that is clip₀₁(x + c). Nothing is random: `generator` is not used.

    Raises
    ------
    ValueError : as for `modify`.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> red = torch.tensor([0.4, 0.2, 0.0]).view(1, 3, 1, 1)
    >>> brightness(red, 4).flatten()
    tensor([0.8000, 0.4000, 0.0000])
    """
    _check(images, strength)
    value = images.amax(dim=1, keepdim=True)
    relative = torch.where(value > 0, images / value, 1.0)
    return relative * (value + _BRIGHTER_BY[strength]).clamp(max=1)


def motion_blur(images: Tensor, strength: int, *, generator: torch.Generator) -> Tensor:
    """Blur each image along its own direction, drawn uniformly from ±45° about the horizontal.

    x' = clip₀₁(Σᵢ wᵢ·shift(x, i pixels)), i = 0 … 2r, wᵢ ∝ exp(−i²/2σ²), Σᵢ wᵢ = 1,
    (r, σ) = (10, 3), (15, 5), (15, 8), (15, 12), (20, 15).
    Shifts are rounded to whole pixels and repeat the edge. A shift past the image is left out and the other weights
    stay as they are, so that an image smaller than 2r + 1 can grow slightly darker. Images below 32 pixels are padded
    with zeros to 32 and cropped back (Preble et al. 2026, arXiv:2606.13801).

    Raises
    ------
    ValueError : as for `modify`.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> dot = torch.zeros(1, 1, 33, 33)
    >>> dot[0, 0, 16, 16] = 1
    >>> blurred = motion_blur(dot, 1, generator=torch.Generator().manual_seed(0))
    >>> round(float(blurred.sum()), 4), int((blurred[0, 0] > 0.01).sum())
    (1.0, 8)
    """
    _check(images, strength)
    angles = torch.empty(len(images), 1, device=generator.device)
    for one in angles:  # as in gaussian_noise
        one.uniform_(-_MAX_BLUR_ANGLE, _MAX_BLUR_ANGLE, generator=generator)
    return _motion_blur(images, angles[:, 0], strength)


MODIFICATIONS: dict[str, Callable[..., Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "brightness": brightness,
    "motion_blur": motion_blur,
}


def _motion_blur(images: Tensor, angles: Tensor, strength: int) -> Tensor:
    """Blur `images` along `angles` (batch,), in degrees."""
    height, width = images.shape[2:]
    missing_rows, missing_columns = max(_MIN_BLUR_SIZE - height, 0), max(_MIN_BLUR_SIZE - width, 0)
    top, left = missing_rows // 2, missing_columns // 2
    padded = F.pad(images, (left, missing_columns - left, top, missing_rows - top))
    blurred = _blur_along(padded, angles, *_BLUR_RADIUS_AND_SIGMA[strength])
    return blurred[:, :, top : top + height, left : left + width].clamp(0, 1)


def _blur_along(images: Tensor, angles: Tensor, radius: int, sigma: float) -> Tensor:
    height, width = images.shape[2:]
    steps = torch.arange(2 * radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    radians = torch.deg2rad(angles.cpu().double())  # on the CPU: every device rounds to the same pixels
    down = torch.ceil(torch.outer(steps, radians.sin()) - 0.5).long()
    right = torch.ceil(torch.outer(steps, radians.cos()) - 0.5).long()
    inside = (down.abs() < height) & (right.abs() < width)
    weights = ((kernel / kernel.sum())[:, None] * inside).to(images.dtype).to(images.device)

    row, column = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    pixels = images.flatten(2)
    blurred = torch.zeros_like(pixels)
    for weight, dy, dx in zip(weights, down.to(images.device), right.to(images.device)):
        rows, columns = (row + dy[:, None]).clamp(0, height - 1), (column + dx[:, None]).clamp(0, width - 1)
        source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        blurred += weight[:, None, None] * pixels.gather(2, source[:, None].expand_as(pixels))
    return blurred.view_as(images)


def _check(images: Tensor, strength: int) -> None:
    if not isinstance(strength, Integral) or strength not in SEVERITIES:
        raise ValueError(f"expected a strength that is an integer severity from 1 to 5, got {strength!r}")
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"expected images as a floating-point tensor, got {kind}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"expected images of shape (batch, 1 or 3 channels, row, column), got shape {tuple(images.shape)}"
        )
    low, high = (float(extreme) for extreme in images.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"expected pixels in [0, 1], got values from {low:.4g} to {high:.4g}")
