"""Digital corruptions: contrast, saturation, pixelation, JPEG compression and fine elastic waves."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from neurovar.networks.modifications._base import Corruption
from neurovar.networks.modifications._draws import uniforms
from neurovar.networks.modifications._linear import pixelated, separable, smoothed
from neurovar.networks.modifications._sampling import pixel_centres, read_at

# All constants here are those of `imagecorruptions` (ImageNet-C, Hendrycks & Dietterich 2019), by severity 1 to 5.
_CONTRASTS = (0.4, 0.3, 0.2, 0.1, 0.05)
_SATURATIONS = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))  # factor, summand
_COARSER = (0.6, 0.5, 0.4, 0.3, 0.25)
_QUALITIES = (25, 18, 15, 10, 7)
# The largest side of a JPEG that libjpeg writes, and the side of the blocks that it codes one by one.
_LONGEST_JPEG = 65_500
_JPEG_BLOCK = 8
_WAVE_HEIGHTS = (12.5, 16.25, 21.25, 25.0, 30.0)
_WAVE_SD, _LARGEST_SHIFT = 0.01, 0.005  # of the image's side


class Contrast(Corruption):
    """Draw every channel towards its mean over the image: x' = (x − x̄)·c + x̄, c = 0.4, 0.3, 0.2, 0.1, 0.05.

    Nothing is random. The mean is that of the padded image, where one is padded.

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
    >>> halves = torch.cat([torch.zeros(1, 1, 16, 32), torch.ones(1, 1, 16, 32)], 2)
    >>> Contrast(1)(halves)[0, 0, [0, -1], 0]
    tensor([0.3000, 0.7000])
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        mean = images.mean(dim=(2, 3), keepdim=True)
        return (images - mean) * _CONTRASTS[self.severity - 1] + mean


class Saturate(Corruption):
    """Change the saturation S of hue, saturation and value: S' = clip₀₁(a·S + b).

    (a, b) = (0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2). V, the largest channel, and hue stay, so that
    x' = V − (V − x)·S'/S; a grey pixel of a colour image has the hue red. A grey image, which has no hue, stays as it
    is. Nothing is random.

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
    >>> pale = torch.tensor([0.8, 0.6, 0.7]).view(1, 3, 1, 1)
    >>> Saturate(3)(pale).flatten()
    tensor([0.8000, 0.4000, 0.6000])
    """

    smallest_side = 1

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        if images.shape[1] == 1:
            return images
        factor, summand = _SATURATIONS[self.severity - 1]
        value = images.amax(dim=1, keepdim=True)
        range_ = value - images.amin(dim=1, keepdim=True)
        saturation = torch.where(value > 0, range_ / value, 0.0)
        # Hue and saturation in one number a channel: how far it lies from the largest one, as a fraction of the range.
        # A grey pixel has no hue; scikit-image calls it red (0, 1, 1).
        of_range = torch.where(range_ > 0, (value - images) / range_, images.new_tensor([0.0, 1.0, 1.0])[:, None, None])
        return value * (1 - of_range * (factor * saturation + summand).clamp(max=1))


class Pixelate(Corruption):
    """Average over boxes to int(c · side) pixels, c = 0.6, 0.5, 0.4, 0.3, 0.25, and repeat those to the old size.

    Which pixels a box holds and which box a pixel takes is Pillow's choice. Nothing is random: `generator` is not
    used. Departure from the reference: no rounding to 8 bits.

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
    >>> ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    >>> Pixelate(5)(ramp)[0, 0, 0].unique().numel()
    8
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        kept = _COARSER[self.severity - 1]
        return separable(images, pixelated(height, int(height * kept)), pixelated(width, int(width * kept)))


class JpegCompression(Corruption):
    """Compress as JPEG of quality 25, 18, 15, 10, 7 and decompress, by Pillow on the CPU.

    Images are rounded to 8 bits. Blocks of a grey JPEG do not touch one another, so that many grey images are
    compressed as one tall one. Nothing is random.

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
    >>> flat = torch.full((1, 1, 32, 32), 0.5)
    >>> round(float(JpegCompression(5)(flat).std()), 4)
    0.0
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        quality = _QUALITIES[self.severity - 1]
        pixels = (images * 255).round().to(torch.uint8).cpu()
        if images.shape[1] == 3:
            coded = torch.stack([_through_jpeg(image.permute(1, 2, 0), quality).permute(2, 0, 1) for image in pixels])
        else:
            coded = _as_tall_jpegs(pixels[:, 0], quality)[:, None]
        return coded.to(images) / 255


class ElasticTransform(Corruption):
    """Shift every pixel by fine random waves.

    x'(p) = x(p + a·(G * u)), u uniform on ±0.005 of the height in either direction, G a Gaussian of σ = 0.01 of the
    side, cut at 3 σ, a = 12.5, 16.25, 21.25, 25, 30. Linear interpolation, edges reflected. This is the form of the
    package imagecorruptions; in images below 100 pixels σ is less than a pixel, so that pixels scatter. `elastic` is
    the form of Preble et al. 2026.

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
    >>> flat = torch.full((1, 1, 40, 40), 0.3)
    >>> waved = ElasticTransform(5)(flat, generator=torch.Generator().manual_seed(0))
    >>> round(float(waved.min()), 4), round(float(waved.max()), 4)
    (0.3, 0.3)
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        drawn = 2 * uniforms(images, 2 * height * width, generator).view(-1, 2, height, width) - 1
        sigma = (_WAVE_SD * height, _WAVE_SD * width)
        waves = smoothed(drawn, sigma, mode="reflect", truncate=3) * (
            _LARGEST_SHIFT * height * _WAVE_HEIGHTS[self.severity - 1]
        )
        rows, columns = pixel_centres(images)
        return read_at(images, rows + waves[:, 1], columns + waves[:, 0], outside="reflection")


def _as_tall_jpegs(pixels: Tensor, quality: int) -> Tensor:
    height, width = pixels.shape[1:]
    # A block that the image fills only in part is completed by the coder with the edge's pixels; done before, so that
    # images may lie on top of one another.
    missing = (0, -width % _JPEG_BLOCK, 0, -height % _JPEG_BLOCK)  # as the coder itself completes its blocks
    whole = F.pad(pixels[:, None].float(), missing, mode="replicate")[:, 0].to(torch.uint8)
    strips = [_through_jpeg(s.flatten(0, 1), quality) for s in whole.split(max(_LONGEST_JPEG // whole.shape[1], 1))]
    return torch.cat(strips).view(whole.shape)[:, :height, :width]


def _through_jpeg(pixels: Tensor, quality: int) -> Tensor:
    with BytesIO() as file:
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(file)))
