"""Products with a matrix that stays the same, and with a diagonal."""

import torch
from torch import Tensor
from torch.nn import functional as F


class Product:
    """x ↦ x·wᵀ for a matrix w (m, k) that stays the same, x (rows, k).

    On CPUs in float32 through oneDNN, which keeps w in a layout of its own, in the memory of a second w: faster than
    torch's general product (1.8 × on AMD's Zen 5). It sums in one go: an error of 3e-6 at k = 3136, and not of 1e-6.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
        self._packed = weight.contiguous().to_mkldnn() if packed else None

    def __call__(self, rows: Tensor) -> Tensor:
        if self._packed is None:
            return rows @ self._weight.mT
        return F.linear(rows.contiguous().to_mkldnn(), self._packed).to_dense()


def scaled_rows(normals: Tensor, variance: Tensor) -> Tensor:
    """normals · √variance, written over the normals where no gradient needs them."""
    scale = variance.sqrt()
    return normals * scale if scale.requires_grad or normals.requires_grad else normals.mul_(scale)
