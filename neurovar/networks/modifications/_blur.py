"""Blurs: Gaussian, out of focus, through frosted glass, by motion and by zoom."""

from functools import lru_cache
from math import ceil

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from neurovar.networks.modifications._base import Corruption
from neurovar.networks.modifications._draws import uniforms
from neurovar.networks.modifications._linear import correlated, separable_sum, smoothed, zoomed

# All constants here are those of `imagecorruptions` (ImageNet-C, Hendrycks & Dietterich 2019), by severity 1 to
# 5.
_GAUSSIAN_SD = (1, 2, 3, 4, 6)
_DISK_RADIUS_AND_SD = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
# The reference draws disks of radius up to 8 on 17 × 17 pixels and softens them with a kernel of 3 × 3; larger ones on
# 2r + 1 pixels a side, with 5 × 5.
_LARGEST_SMALL_DISK = 8
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # σ, largest shift, passes
_MOTION_RADIUS_AND_SD = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
_MAX_ANGLE = 45.0
_ZOOMS = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))  # end and step of a range from 1
# A term of the disk below the rounding of float32 changes nothing in [0, 1].
_NEGLIGIBLE = 1e-7


class GaussianBlur(Corruption):
    """Smooth with a Gaussian of σ = 1, 2, 3, 4, 6 pixels, cut at 4 σ; edges repeat.

    Nothing is random.

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
    >>> dot = torch.zeros(1, 1, 33, 33)
    >>> dot[0, 0, 16, 16] = 1
    >>> blurred = GaussianBlur(1)(dot)
    >>> round(float(blurred.sum()), 4), round(float(blurred.max()), 3)  # 1/2πσ²
    (1.0, 0.159)
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        return smoothed(images, _GAUSSIAN_SD[self.severity - 1], mode="nearest", truncate=4)


class DefocusBlur(Corruption):
    """Average over a disk of radius 3, 4, 6, 8, 10 pixels with a soft rim; edges are reflected.

    The kernel K is the disk, Σ K = 1, smoothed by σ = 0.1 or 0.5 pixels. With K = Σᵢ λᵢ vᵢ vᵢᵀ,
    x' = Σᵢ λᵢ Vᵢ x Vᵢᵀ, where Vᵢ correlates with vᵢ. Nothing is random.

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
    >>> dot = torch.zeros(1, 1, 33, 33)
    >>> dot[0, 0, 16, 16] = 1
    >>> round(float(1 / DefocusBlur(1)(dot)[0, 0, 16, 16]))  # pixels of the disk
    29
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        # A symmetric kernel is a sum of squares of its eigenvectors, so that a two-dimensional correlation becomes a
        # few products with matrices of rows and columns.
        return separable_sum(images, *_disk_terms(height, width, self.severity))


class GlassBlur(Corruption):
    """Smooth, displace pixels at random, smooth again.

    σ = 0.7, 0.9, 1, 1.1, 1.5 pixels, both times. From the last row and column to the first, each pixel takes the value
    of one that lies d rows and columns off, d uniform on −m … m − 1 each, m = 1, 2, 2, 3, 4, in 2, 1, 3, 2, 2 passes.
    Rows and columns up to m are left. The code of ImageNet-C means to swap both pixels, but on colour images, which
    are all that it makes, it copies: that is what is done here. The first smoothing is rounded down to 8 bits, here as
    there, since the result is darker by it. Pixels that cannot reach one another are displaced at once, which changes
    nothing in the result.

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
    >>> blurred = GlassBlur(5)(flat, generator=torch.Generator().manual_seed(0))
    >>> round(float(blurred.min()) * 255, 1), round(float(blurred.max()) * 255, 1)  # 76.5, rounded down
    (76.0, 76.0)
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        sigma, reach, passes = _GLASS[self.severity - 1]
        height, width = images.shape[2:]
        # A frame of `reach` pixels stays: what they would read lies outside.
        n_displaced = (height - 2 * reach) * (width - 2 * reach)
        drawn = uniforms(images, passes * n_displaced, generator).view(len(images), passes, n_displaced)
        # Rounded down as by the reference's conversion to `uint8`, which is visible in the result.
        smooth = (smoothed(images, sigma, mode="nearest", truncate=4) * 255).floor() / 255
        return smoothed(_displaced(smooth, drawn, reach), sigma, mode="nearest", truncate=4)


class MotionBlur(Corruption):
    """Blur each image along its own direction, drawn uniformly from ±45° about the horizontal.

    x' = clip₀₁(Σᵢ wᵢ·shift(x, i pixels)), i = 0 … 2r, wᵢ ∝ exp(−i²/2σ²), Σᵢ wᵢ = 1,
    (r, σ) = (10, 3), (15, 5), (15, 8), (15, 12), (20, 15).
    Shifts are rounded to whole pixels and repeat the edge. A shift past the image is left out and the other weights
    stay as they are, so that an image smaller than 2r + 1 can grow slightly darker.

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
    >>> dot = torch.zeros(1, 1, 33, 33)
    >>> dot[0, 0, 16, 16] = 1
    >>> blurred = MotionBlur(1)(dot, generator=torch.Generator().manual_seed(0))
    >>> round(float(blurred.sum()), 4), int((blurred[0, 0] > 0.01).sum())
    (1.0, 8)
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        angles = (2 * uniforms(images, 1, generator)[:, 0] - 1) * _MAX_ANGLE
        return blur_along(images, angles, *_MOTION_RADIUS_AND_SD[self.severity - 1])


class ZoomBlur(Corruption):
    """Average the image with itself magnified about its middle by factors from 1 on.

    x' = (x + Σ_z zoom_z(x)) / (n + 1) over n factors z = 1, 1.01, … 1.1; … 1.15; 1, 1.02, … 1.2; … 1.24;
    1, 1.03, … 1.3. The first, 1, gives the image once more. Linear interpolation. Nothing is random: `generator` is
    not used.

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
    >>> dot = torch.zeros(1, 1, 33, 33)
    >>> dot[0, 0, 16, 16] = 1
    >>> round(float(ZoomBlur(1)(dot)[0, 0, 16, 16]), 2)
    0.51
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        return separable_sum(images, *_zoom_terms(height, width, self.severity))


def blur_along(images: Tensor, angles: Tensor, radius: int, sigma: float) -> Tensor:
    """Blur each image along its angle, in degrees."""
    height, width = images.shape[2:]
    steps = torch.arange(2 * radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))
    radians = torch.deg2rad(angles.cpu().double())  # on the CPU in float64: every device rounds to the same pixels
    # Whole pixels, halves rounded down: ⌈x − ½⌉, as the reference does it.
    down = torch.ceil(torch.outer(steps, radians.sin()) - 0.5).long()
    right = torch.ceil(torch.outer(steps, radians.cos()) - 0.5).long()
    inside = (down.abs() < height) & (right.abs() < width)
    weights = ((kernel / kernel.sum())[:, None] * inside).to(images)

    below, beside = min(2 * radius, height - 1), min(2 * radius, width - 1)
    padded = F.pad(images, (beside, beside, below, below), mode="replicate")
    length = padded.shape[3]
    # All shifts are windows into one padded image: a start and a fixed pattern of offsets from it. Reading them by
    # index costs as much for a batch of angles as for one.
    starts = (down.clamp(-below, below) + below) * length + right.clamp(-beside, beside) + beside
    planes = torch.arange(padded[:, :, 0, 0].numel()).view(padded.shape[:2]) * padded[0, 0].numel()
    starts = (starts[:, :, None] + planes)[..., None].int().to(images.device)
    window = (torch.arange(height)[:, None] * length + torch.arange(width)).flatten().int().to(images.device)
    # A sum of few shifted images in place, in the order of the kernel: rounding does not depend on the batch.
    pixels, blurred = padded.flatten(), torch.zeros_like(images).flatten(2)
    for weight, start in zip(weights, starts):
        shifted = pixels.index_select(0, (start + window).flatten()).view(blurred.shape)
        blurred.addcmul_(weight[:, None, None], shifted)
    return blurred.view_as(images)


@lru_cache(64)
def _zoom_terms(height: int, width: int, strength: int) -> tuple[Tensor, Tensor]:
    # The reference adds the image itself to its magnifications, of which the first is the image too.
    factors = [1.0, *np.arange(1, *_ZOOMS[strength - 1])]
    rows = [_magnified(height, factor) / len(factors) for factor in factors]
    return torch.stack(rows), torch.stack([_magnified(width, factor) for factor in factors])


def _magnified(size: int, factor: float) -> Tensor:
    """The middle `size`/`factor` samples, magnified to `size`."""
    kept = ceil(size / factor)
    start = (size - kept) // 2
    matrix = torch.zeros(size, size, dtype=torch.float64)
    # ndimage.zoom may give a sample more than is asked for, which is cut off at the end.
    matrix[:, start : start + kept] = zoomed(kept, factor)[:size]
    return matrix


@lru_cache(64)
def _disk_terms(height: int, width: int, strength: int) -> tuple[Tensor, Tensor]:
    """λᵢVᵢ of the rows and Vᵢ of the columns: (terms, size, size) each."""
    radius, sigma = _DISK_RADIUS_AND_SD[strength - 1]
    half, rim = (_LARGEST_SMALL_DISK, 1) if radius <= _LARGEST_SMALL_DISK else (radius, 2)
    offsets = np.arange(-half, half + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(float)
    disk /= disk.sum()
    soft = np.exp(-(np.arange(-rim, rim + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, soft / soft.sum(), axis=axis, mode="mirror")
    # K = Σᵢ λᵢ vᵢ vᵢᵀ; of its 17 or 21 terms those near 0 are left out.
    values, vectors = np.linalg.eigh(disk)
    kept = [i for i in range(len(values)) if abs(values[i]) > _NEGLIGIBLE]
    rows = [values[i] * correlated(height, tuple(vectors[:, i])) for i in kept]
    return torch.stack(rows), torch.stack([correlated(width, tuple(vectors[:, i])) for i in kept])


def _displaced(images: Tensor, drawn: Tensor, reach: int) -> Tensor:
    """Pixels replaced by others: one number of `drawn` (batch, passes, displaced pixels) decides where each looks.

    They go from the last row and column to the first. One that comes a row later and more than `reach` columns
    earlier cannot touch what this one reads or writes, so that both go at once.
    """
    height, width = images.shape[2:]
    displaced, sizes = _waves(height, width, reach)
    waves = displaced.to(images.device).split(sizes)
    one_way = torch.arange(-reach, reach, device=images.device)
    offsets = (one_way[:, None] * width + one_way).flatten()
    pixels = images.permute(2, 3, 0, 1).reshape(height * width, *images.shape[:2])
    for one_pass in drawn.permute(1, 2, 0).contiguous():
        choices = (one_pass * len(offsets)).int().flatten()
        looks_at = offsets.index_select(0, choices).view(one_pass.shape) + torch.cat(waves)[:, None]
        for wave, sources in zip(waves, looks_at.split(sizes)):
            pixels.index_copy_(0, wave, pixels.gather(0, sources[..., None].expand(-1, -1, images.shape[1])))
    return pixels.view(height, width, *images.shape[:2]).permute(2, 3, 0, 1)


@lru_cache(16)
def _waves(height: int, width: int, reach: int) -> tuple[Tensor, list[int]]:
    """Displaced pixels, sorted by sets that go at once, and the sizes of these sets."""
    rows, columns = torch.arange(height - 2 * reach), torch.arange(width - 2 * reach)
    # A pixel looks at most `reach` rows and columns away. One (r rows, c columns) after the first to go can go at the
    # time (reach + 1)·r + c: whatever it depends on has gone before, and nothing at the same time touches it.
    time = ((reach + 1) * rows[:, None] + columns).flatten()
    pixel = ((height - reach - rows)[:, None] * width + width - reach - columns).flatten()
    return pixel[time.argsort(stable=True)], time.bincount().tolist()
