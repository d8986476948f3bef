"""Weather: brightness, snow, frost and fog."""

from functools import lru_cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from neurovar.networks.modifications._base import Corruption, luma
from neurovar.networks.modifications._blur import blur_along
from neurovar.networks.modifications._draws import normals, uniforms
from neurovar.networks.modifications._linear import separable, zoomed

# All constants here are those of `imagecorruptions` (ImageNet-C, Hendrycks & Dietterich 2019), by severity 1 to 5.
_BRIGHTER_BY = (0.1, 0.2, 0.3, 0.4, 0.5)
_SNOW = (  # mean, SD, magnification, least that is seen, radius and SD of the motion, weight of the image
    (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
)
_STEEPEST, _LEAST_STEEP = -135.0, -45.0
_FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))  # weights of the image and of the frost
_FROST_PICTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")
_FROST_MAGNIFIED = 1.1
_FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))  # amount, decay of roughness a step
_ROUGHNESS = 100.0


class Brightness(Corruption):
    """Raise the value V of hue, saturation and value: V' = clip₀₁(V + c), c = 0.1, 0.2, 0.3, 0.4, 0.5.

    V is the largest channel and RGB is proportional to it at a given hue and saturation, so x' = x·V'/V, and V' where
    x is black. On a grey image that is clip₀₁(x + c). Nothing is random.

    Parameters
    ----------
    severity : int
        How strong, from 1 to 5.
    grey_8_bit : bool, optional
        The form of Preble et al. 2026 for grey images: rounded to 8 bits and made three equal channels before, rounded
        down to 8 bits and made grey after; see `Corruption`.

    Raises
    ------
    ValueError
        For another severity; when called, for images of another type, shape or range.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> red = torch.tensor([0.4, 0.2, 0.0]).view(1, 3, 1, 1)
    >>> Brightness(4)(red).flatten()
    tensor([0.8000, 0.4000, 0.0000])
    """

    smallest_side = 1

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        value = images.amax(dim=1, keepdim=True)
        relative = torch.where(value > 0, images / value, 1.0)
        return relative * (value + _BRIGHTER_BY[self.severity - 1]).clamp(max=1)


class Snow(Corruption):
    """Whiten the image and let flakes fall on it, in one direction an image.

    Flakes f: normal noise magnified c times from its middle, cut to [0, 1] and to 0 below a threshold, blurred along an
    angle uniform on −135° … −45° as `motion_blur` does. With g the luma,
    x' = clip₀₁(w·x + (1 − w)·max(x, 1.5·g + 0.5) + f + f turned by 180°); all constants are those of ImageNet-C, and
    f is rounded to 8 bits, as it is there.

    Departures from the reference: normal numbers outside the middle, which magnifying cuts off, are not drawn; the luma
    has 0.2989 for 0.299 of red.

    Parameters
    ----------
    severity : int
        How strong, from 1 to 5.
    grey_8_bit : bool, optional
        The form of Preble et al. 2026 for grey images: rounded to 8 bits and made three equal channels before, rounded
        down to 8 bits and made grey after; see `Corruption`.

    Raises
    ------
    ValueError
        For another severity; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> black = torch.zeros(1, 1, 64, 64)
    >>> snowy = Snow(1)(black, generator=torch.Generator().manual_seed(0))
    >>> round(float(snowy.min()), 4)  # (1 − 0.8)·0.5
    0.1
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        mean, sd, factor, threshold, radius, sigma, weight = _SNOW[self.severity - 1]
        height, width = images.shape[2:]
        rows, columns = (ceil(side / factor) for side in (height, width))
        drawn = normals(images, rows * columns + 1, generator)
        middle = mean + sd * drawn[:, 1:].view(-1, 1, rows, columns)
        flakes = separable(middle, zoomed(rows, factor), zoomed(columns, factor))
        flakes = flakes.masked_fill(flakes < threshold, 0.0).clamp(0, 1)
        # Φ of a normal number is uniform, so that angle and flakes come from one draw of normals.
        angles = _STEEPEST + (_LEAST_STEEP - _STEEPEST) * torch.special.ndtr(drawn[:, 0])
        fallen = (blur_along(flakes, angles, radius, sigma)[:, :, :height, :width] * 255).round() / 255
        grey = luma(images) if images.shape[1] == 3 else images
        whitened = weight * images + (1 - weight) * torch.maximum(images, 1.5 * grey + 0.5)
        return whitened + fallen + fallen.rot90(2, (2, 3))


class Frost(Corruption):
    """Lay a random part of a picture of frost over the image.

    x' = clip₀₁(a·x + b·f), (a, b) = (1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75); f is cut at a uniform
    place out of one of six pictures, magnified 1.1 times. A grey image takes f's luma. The pictures are those of the
    installed package imagecorruptions (its code is not run); neurovar holds none.

    Departure from the reference: the magnified pictures are not rounded to 8 bits.

    Parameters
    ----------
    severity : int
        How strong, from 1 to 5.
    grey_8_bit : bool, optional
        The form of Preble et al. 2026 for grey images: rounded to 8 bits and made three equal channels before, rounded
        down to 8 bits and made grey after; see `Corruption`.

    Raises
    ------
    ValueError
        For another severity; when called, for images of another type, shape or range, no generator, or if no
        pictures are installed.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> Frost(severity=3).label  # to be called it needs the pictures
    'frost 3'
    """

    channels_differ = True

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        weight, of_frost = _FROST[self.severity - 1]
        n_channels, height, width = images.shape[1:]
        drawn = uniforms(images, 3, generator)
        which = (drawn[:, 0] * len(_FROST_PICTURES)).long()
        result = weight * images
        for number in which.unique().tolist():
            chosen = (which == number).nonzero()[:, 0]
            picture = _frost_picture(number, height, width).to(images)
            picture = picture if n_channels == 3 else luma(picture[None])[0]
            windows = picture.unfold(1, height, 1).unfold(2, width, 1)[:, :-1, :-1]
            row, column = ((drawn[chosen, 1 + i] * windows.shape[1 + i]).long() for i in (0, 1))
            result[chosen] += of_frost * windows[:, row, column].transpose(0, 1)
        return result


class Fog(Corruption):
    """Add a fractal cloud and darken, so that the brightest pixel stays within range.

    x' = clip₀₁((x + c·h)·m/(m + c)), m the image's largest value, c = 1.5, 2, 2.5, 2.5, 3; h in [0, 1] a periodic map
    made by the diamond-square algorithm, whose roughness falls by 2, 2, 1.7, 1.5, 1.4 at each halving.

    Parameters
    ----------
    severity : int
        How strong, from 1 to 5.
    grey_8_bit : bool, optional
        The form of Preble et al. 2026 for grey images: rounded to 8 bits and made three equal channels before, rounded
        down to 8 bits and made grey after; see `Corruption`.

    Raises
    ------
    ValueError
        For another severity; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261
    Fournier, Fussell & Carpenter 1982, doi:10.1145/358523.358553 (the fractal)

    Examples
    --------
    >>> white = torch.ones(1, 1, 64, 64)
    >>> foggy = Fog(1)(white, generator=torch.Generator().manual_seed(0))
    >>> round(float(foggy.max()), 4)  # (1 + 1.5)·1/(1 + 1.5), where the cloud is thickest
    1.0
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        amount, decay = _FOG[self.severity - 1]
        height, width = images.shape[2:]
        # Diamond-square halves its step until it is a pixel: the side is the next power of two.
        side = 1 << (max(height, width) - 1).bit_length()
        cloud = _cloud(uniforms(images, side**2 - 1, generator), side, decay)[:, None, :height, :width]
        largest = images.amax(dim=(1, 2, 3), keepdim=True)
        return (images + amount * cloud) * largest / (largest + amount)


@lru_cache(12)
def _frost_picture(number: int, height: int, width: int) -> Tensor:
    """(3, rows, columns) in [0, 1], larger than height × width."""
    package = find_spec("imagecorruptions")
    folders = [Path(folder) for folder in (package.submodule_search_locations or [])] if package else []
    path = next((f / "frost" / _FROST_PICTURES[number] for f in folders if (f / "frost").is_dir()), None)
    if path is None:
        raise ValueError(
            "expected the pictures of frost of the package imagecorruptions, which is not installed: "
            "pip install imagecorruptions-imaug"
        )
    pixels = torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255)
    rows, columns = pixels.shape[:2]
    factor = _FROST_MAGNIFIED * max(1, height / rows, width / columns)
    size = (ceil(rows * factor), ceil(columns * factor))
    return F.interpolate(pixels.permute(2, 0, 1)[None], size=size, mode="bicubic")[0].clamp(0, 1)


def _cloud(drawn: Tensor, side: int, decay: float) -> Tensor:
    """A fractal map (batch, side, side) in [0, 1] by diamond-square, from side² − 1 uniform numbers an image."""
    heights = drawn.new_zeros(len(drawn), side, side)
    roughness, step = _ROUGHNESS, side
    rest = drawn

    def noisy_mean(total: Tensor) -> Tensor:
        nonlocal rest
        n = total[0].numel()
        now, rest = rest[:, :n], rest[:, n:]
        return total / 4 + roughness**2 * (2 * now.view(total.shape) - 1)

    # Squares first: the middle of four corners. Then diamonds: the middle of what lies above, below, left and right.
    # Edges wrap around, which makes the map periodic.
    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = noisy_mean(pairs + pairs.roll(-1, 2))
        middles = heights[:, half::step, half::step]
        below = middles + middles.roll(1, 1) + corners + corners.roll(-1, 2)
        heights[:, ::step, half::step] = noisy_mean(below)
        beside = middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        heights[:, half::step, ::step] = noisy_mean(beside)
        step, roughness = half, roughness / decay
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True)
