"""Modifications by name, and those of Preble et al. 2026."""

from difflib import get_close_matches
from typing import Any

from neurovar.networks.modifications._base import SEVERITIES, Corruption, Modification, Transformation
from neurovar.networks.modifications._blur import DefocusBlur, GaussianBlur, GlassBlur, MotionBlur, ZoomBlur
from neurovar.networks.modifications._digital import (
    Contrast,
    ElasticTransform,
    JpegCompression,
    Pixelate,
    Saturate,
)
from neurovar.networks.modifications._geometry import Elastic, Obstruction, Perspective, Rotate
from neurovar.networks.modifications._noise import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from neurovar.networks.modifications._spatter import Spatter
from neurovar.networks.modifications._weather import Brightness, Fog, Frost, Snow

_CORRUPTIONS: tuple[type[Corruption], ...] = (
    GaussianNoise,
    ShotNoise,
    ImpulseNoise,
    SpeckleNoise,
    GaussianBlur,
    DefocusBlur,
    GlassBlur,
    MotionBlur,
    ZoomBlur,
    Snow,
    Frost,
    Fog,
    Brightness,
    Spatter,
    Contrast,
    Saturate,
    Pixelate,
    JpegCompression,
    ElasticTransform,
)
_TRANSFORMATIONS: tuple[type[Transformation], ...] = (Elastic, Perspective, Obstruction, Rotate)
MODIFICATIONS: dict[str, type[Modification]] = {kind.name: kind for kind in (*_CORRUPTIONS, *_TRANSFORMATIONS)}
"""The nineteen corruptions of ImageNet-C and four transformations, by name."""

_PREBLE2026_SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.5, 1.6, 1.8, 2.0)
PREBLE2026: tuple[Modification, ...] = (
    *(
        kind.preble2026(severity)
        for kind in (Brightness, Contrast, GaussianNoise, ImpulseNoise, MotionBlur, Snow)
        for severity in SEVERITIES
    ),
    *(kind(scale) for kind in _TRANSFORMATIONS for scale in _PREBLE2026_SCALES),
)
"""The ten modifications of Preble et al. 2026 (arXiv:2606.13801), at the strengths of their main table: 74 of its 118
cells; the others are attacks."""


def modification(name: str, strength: float) -> Modification:
    """The modification that a name and a strength stand for, as on a command line.

    Parameters
    ----------
    name : str
        One of `MODIFICATIONS`, such as "motion_blur".
    strength : float
        For "elastic", "perspective", "obstruction" and "rotate" a scale s in (0, 2]; for all others, which are the
        corruptions of ImageNet-C, a severity, an integer from 1 to 5.

    Returns
    -------
    Modification
        To be called on images.

    Raises
    ------
    ValueError
        For an unknown name, listing the near ones, or a strength that does not exist.

    Examples
    --------
    >>> modification("motion_blur", 3)
    MotionBlur(severity=3, grey_8_bit=False)
    """
    if name not in MODIFICATIONS:
        near = get_close_matches(str(name), MODIFICATIONS) or list(MODIFICATIONS)
        raise ValueError(f"expected the name of a modification, got {name!r}; near it: {', '.join(near)}")
    kind: Any = MODIFICATIONS[name]  # the base takes no strength
    return kind(strength)
