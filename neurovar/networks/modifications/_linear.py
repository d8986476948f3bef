"""Separable linear operations as matrices of rows and columns, made once a size by the libraries that define them."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

_CACHED = 64


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows · x · columnsᵀ for each image: (…, h, w) → (…, rows, columns)."""
    return _for_each(rows, images) @ images @ _for_each(columns.T, images)


def separable_sum(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Σᵢ rowsᵢ · x · columnsᵢᵀ for each image, rows and columns (terms, size, size)."""
    # All terms side by side: one product for the columns and one for the rows, where their sum is taken too.
    terms, width = columns.shape[:2]
    right = images @ _for_each(columns.flatten(0, 1).T, images)  # (…, height, terms · width)
    stacked = right.unflatten(-1, (terms, width)).transpose(-3, -2).flatten(-3, -2)
    return _for_each(rows.transpose(0, 1).flatten(1), images) @ stacked


def _for_each(matrix: Tensor, images: Tensor) -> Tensor:
    """The matrix once an image: a product of one matrix and all images would round by how many there are."""
    return matrix.to(images).expand(*images.shape[:-2], -1, -1)


def smoothed(images: Tensor, sigma: float | tuple[float, float], *, mode: str, truncate: float) -> Tensor:
    """Gaussian smoothing as `scipy.ndimage.gaussian_filter` does it, σ in pixels."""
    down, right = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    height, width = images.shape[-2:]
    return separable(images, _gaussian(height, down, mode, truncate), _gaussian(width, right, mode, truncate))


@lru_cache(_CACHED)
def _gaussian(size: int, sigma: float, mode: str, truncate: float) -> Tensor:
    # What the library makes of the unit vectors are the columns of its matrix: the same numbers by construction.
    return torch.from_numpy(ndimage.gaussian_filter1d(np.eye(size), sigma, axis=0, mode=mode, truncate=truncate))


@lru_cache(_CACHED)
def zoomed(size: int, factor: float) -> Tensor:
    """Linear interpolation of `size` samples to round(size · factor), whose ends are kept in place."""
    return torch.from_numpy(ndimage.zoom(np.eye(size), (factor, 1), order=1))


@lru_cache(_CACHED)
def pixelated(size: int, coarse: int) -> Tensor:
    """Box averages to `coarse` samples and their nearest ones at `size` again, as Pillow chooses both."""
    averages = Image.fromarray(np.eye(size, dtype=np.float32)).resize((size, coarse), Image.Resampling.BOX)
    return torch.from_numpy(np.array(averages.resize((size, size), Image.Resampling.NEAREST)))


@lru_cache(_CACHED)
def correlated(size: int, weights: tuple[float, ...]) -> Tensor:
    """Correlation with `weights`, reflected at the middle of the edge samples."""
    return torch.from_numpy(ndimage.correlate1d(np.eye(size), weights, axis=0, mode="mirror"))
