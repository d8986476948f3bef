"""Naturalistic image modifications: ImageNet-C's corruptions and four transformations, batched, on any device.

Images are (batch, channel, row, column), floating point in [0, 1], with 1 or 3 channels. Nothing is written in place.
What is random is drawn image by image on the generator's device and then moved to the images, so that it depends
neither on the batch size nor on where the images are. Constants and results of the corruptions are those of the package
`imagecorruptions`, without its rounding of results to 8 bits; those of the transformations are torchvision's.

References: Hendrycks & Dietterich 2019, arXiv:1903.12261; Preble et al. 2026, arXiv:2606.13801.
"""

from neurovar.modifications._blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from neurovar.modifications._common import SEVERITIES
from neurovar.modifications._digital import contrast, elastic_transform, jpeg_compression, pixelate, saturate
from neurovar.modifications._geometry import elastic, obstruction, perspective, rotate
from neurovar.modifications._modify import MODIFICATIONS, PREBLE2026, modify
from neurovar.modifications._noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from neurovar.modifications._spatter import spatter
from neurovar.modifications._weather import brightness, fog, frost, snow

__all__ = [
    "MODIFICATIONS",
    "PREBLE2026",
    "SEVERITIES",
    "brightness",
    "contrast",
    "defocus_blur",
    "elastic",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg_compression",
    "modify",
    "motion_blur",
    "obstruction",
    "perspective",
    "pixelate",
    "rotate",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "speckle_noise",
    "zoom_blur",
]
