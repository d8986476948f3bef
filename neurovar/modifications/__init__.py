"""Naturalistic image modifications, batched, on any device."""

from neurovar.modifications._modify import (
    MODIFICATIONS,
    SEVERITIES,
    brightness,
    gaussian_noise,
    modify,
    motion_blur,
)

__all__ = ["MODIFICATIONS", "SEVERITIES", "brightness", "gaussian_noise", "modify", "motion_blur"]
