"""Noise on pixels: Gaussian, shot, impulse and speckle."""

import torch
from torch import Tensor

from neurovar.networks.modifications._base import Corruption
from neurovar.networks.modifications._draws import normals, poisson, uniforms

# Standard deviations, photons at a white pixel, and fractions of pixels by severity 1 to 5: those of `imagecorruptions`
# (ImageNet-C, Hendrycks & Dietterich 2019).
_GAUSSIAN_SD = (0.08, 0.12, 0.18, 0.26, 0.38)
_PHOTONS = (60, 25, 12, 5, 3)
_IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)
_SPECKLE_SD = (0.15, 0.2, 0.35, 0.45, 0.6)


class GaussianNoise(Corruption):
    """Add independent normal noise to every pixel and channel.

    x' = clip₀₁(x + σ·z), σ = 0.08, 0.12, 0.18, 0.26, 0.38. A grey image gets noise of the full σ; under
    `grey_8_bit` its three equal channels get it, which leaves about 0.67 σ of luma.

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
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = GaussianNoise(1)(grey, generator=torch.Generator().manual_seed(0))
    >>> round(float((noisy - grey).std()), 2)
    0.08
    """

    smallest_side = 1
    channels_differ = True

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        return images + _GAUSSIAN_SD[self.severity - 1] * normals(images, images[0].numel(), generator).view(
            images.shape
        )


class ShotNoise(Corruption):
    """Count photons: every pixel and channel is a Poisson count over its largest mean.

    x' = min(n/c, 1), n ~ Poisson(c·x), c = 60, 25, 12, 5, 3.

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
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = ShotNoise(1)(grey, generator=torch.Generator().manual_seed(0))
    >>> round(float(noisy.mean()), 2), round(float(noisy.var() * 60), 1)
    (0.5, 0.5)
    """

    smallest_side = 1
    channels_differ = True

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        photons = _PHOTONS[self.severity - 1]
        return poisson(images.double() * photons, generator).to(images.dtype) / photons


class ImpulseNoise(Corruption):
    """Replace pixels by white or black, as likely, each channel of a pixel by itself.

    x' = 1 with probability p/2, 0 with p/2, else x; p = 0.03, 0.06, 0.09, 0.17, 0.27. A grey image has one draw a
    pixel; under `grey_8_bit` its three equal channels have one each, and then become grey by luma.

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
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = ImpulseNoise(5)(grey, generator=torch.Generator().manual_seed(0))
    >>> round(float((noisy != grey).double().mean()), 2)
    0.27
    """

    smallest_side = 1
    channels_differ = True

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        # One uniform number decides: the lowest p/2 of its range for white, the highest for black.
        half = _IMPULSES[self.severity - 1] / 2
        drawn = uniforms(images, images[0].numel(), generator).view(images.shape)
        return images.masked_fill(drawn < half, 1.0).masked_fill(drawn >= 1 - half, 0.0)


class SpeckleNoise(Corruption):
    """Add normal noise in proportion to the pixel.

    x' = clip₀₁(x + σ·x·z), σ = 0.15, 0.2, 0.35, 0.45, 0.6.

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
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = SpeckleNoise(2)(grey, generator=torch.Generator().manual_seed(0))
    >>> round(float((noisy - grey).std()), 2)
    0.1
    """

    smallest_side = 1

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = normals(images, images[0].numel(), generator).view(images.shape)
        return images + _SPECKLE_SD[self.severity - 1] * images * noise
