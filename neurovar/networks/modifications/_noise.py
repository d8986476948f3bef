"""Noise on pixels: Gaussian, shot, impulse and speckle."""

import torch
from torch import Tensor

from neurovar.networks.modifications._common import corruption, normals, poisson, uniforms

_GAUSSIAN_SD = (0.08, 0.12, 0.18, 0.26, 0.38)
_PHOTONS = (60, 25, 12, 5, 3)
_IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)
_SPECKLE_SD = (0.15, 0.2, 0.35, 0.45, 0.6)


@corruption(smallest_side=1)
def gaussian_noise(images: Tensor, strength: int, *, generator: torch.Generator) -> Tensor:
    """Add independent normal noise to every pixel and channel.

    x' = clip₀₁(x + σ·z), σ = 0.08, 0.12, 0.18, 0.26, 0.38. A grey image gets noise of the full σ; under
    protocol="preble2026" its three equal channels get it, which leaves about 0.67 σ of luma.

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
    return images + _GAUSSIAN_SD[strength - 1] * normals(images, images[0].numel(), generator).view(images.shape)


@corruption(smallest_side=1)
def shot_noise(images: Tensor, strength: int, *, generator: torch.Generator) -> Tensor:
    """Count photons: every pixel and channel is a Poisson count over its largest mean.

    x' = min(n/c, 1), n ~ Poisson(c·x), c = 60, 25, 12, 5, 3.

    Raises
    ------
    ValueError : as for `modify`.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = shot_noise(grey, 1, generator=torch.Generator().manual_seed(0))
    >>> round(float(noisy.mean()), 2), round(float(noisy.var() * 60), 1)
    (0.5, 0.5)
    """
    photons = _PHOTONS[strength - 1]
    return poisson(images.double() * photons, generator).to(images.dtype) / photons


@corruption(smallest_side=1)
def impulse_noise(images: Tensor, strength: int, *, generator: torch.Generator) -> Tensor:
    """Replace pixels by white or black, as likely, each channel of a pixel by itself.

    x' = 1 with probability p/2, 0 with p/2, else x; p = 0.03, 0.06, 0.09, 0.17, 0.27. A grey image has one draw a
    pixel; under protocol="preble2026" its three equal channels have one each, and then become grey by luma.

    Raises
    ------
    ValueError : as for `modify`.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = impulse_noise(grey, 5, generator=torch.Generator().manual_seed(0))
    >>> round(float((noisy != grey).double().mean()), 2)
    0.27
    """
    half = _IMPULSES[strength - 1] / 2
    drawn = uniforms(images, images[0].numel(), generator).view(images.shape)
    return images.masked_fill(drawn < half, 1.0).masked_fill(drawn >= 1 - half, 0.0)


@corruption(smallest_side=1)
def speckle_noise(images: Tensor, strength: int, *, generator: torch.Generator) -> Tensor:
    """Add normal noise in proportion to the pixel.

    x' = clip₀₁(x + σ·x·z), σ = 0.15, 0.2, 0.35, 0.45, 0.6.

    Raises
    ------
    ValueError : as for `modify`.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261

    Examples
    --------
    >>> grey = torch.full((4, 1, 64, 64), 0.5)
    >>> noisy = speckle_noise(grey, 2, generator=torch.Generator().manual_seed(0))
    >>> round(float((noisy - grey).std()), 2)
    0.1
    """
    noise = normals(images, images[0].numel(), generator).view(images.shape)
    return images + _SPECKLE_SD[strength - 1] * images * noise
