"""Images and small networks whose layers are recorded."""

from collections import OrderedDict

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from neurovar.networks import IMAGE_DIMS

N_CHANNELS, SIZE, KERNEL = 3, 5, 3


def images(n: int = 7, channels: int = 1, size: int = SIZE) -> xr.DataArray:
    values = np.random.default_rng(1).random((n, channels, size, size), dtype=np.float32)
    return xr.DataArray(values, dims=IMAGE_DIMS, coords={"stimulus": [f"image{i}" for i in range(n)]})


def network() -> nn.Sequential:
    """Convolution, a rectifier that works in place, and a readout."""
    torch_rng = torch.get_rng_state()
    torch.manual_seed(0)
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, N_CHANNELS, KERNEL),
            relu=nn.ReLU(inplace=True),
            flat=nn.Flatten(),
            readout=nn.Linear(N_CHANNELS * 9, 4),
        )
    )
    torch.set_rng_state(torch_rng)
    return model.eval()


def same(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """A modification that changes nothing."""
    return images


class Branching(nn.Module):
    """Uses `inner` a given number of times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.inner, self.times = nn.Flatten(), times

    def forward(self, x: Tensor) -> Tensor:
        return sum((self.inner(x) for _ in range(self.times)), torch.zeros(len(x), 1))
