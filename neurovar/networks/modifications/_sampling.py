"""Images read at given places, linearly between pixels."""

import torch
from torch import Tensor
from torch.nn import functional as F


def pixel_centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers (height, 1) and column numbers (width,)."""
    height, width = images.shape[2:]
    return torch.arange(height).to(images)[:, None], torch.arange(width).to(images)


def read_at(images: Tensor, rows: Tensor, columns: Tensor, *, outside: str) -> Tensor:
    """The images at rows and columns (batch, height, width), in pixels; outside "reflection" or "black".

    "black" counts pixels outside as 0 and multiplies by the share of the four neighbours that are inside, as
    torchvision does when it fills with 0.
    """
    height, width = images.shape[2:]
    # grid_sample counts from −1 to 1 over the outer edges of the image: pixel p has its centre at (2p + 1)/n − 1.
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    mode = "reflection" if outside == "reflection" else "zeros"
    read = F.grid_sample(images, grid, mode="bilinear", padding_mode=mode, align_corners=False)
    if outside == "reflection":
        return read
    return read * (_inside(rows, height) * _inside(columns, width))[:, None]


def _inside(places: Tensor, size: int) -> Tensor:
    return torch.minimum(places + 1, size - places).clamp(0, 1)
