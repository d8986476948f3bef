"""What methods take from the responses of source and target."""

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurovar.responses import floating, means_kernel, residuals_kernel, validate


def like(target: xr.DataArray) -> Tensor:
    """An empty tensor of the dtype that the target's noise gets: its own, where it is single or double precision."""
    return torch.empty(0, dtype=torch.float64 if target.dtype == np.float64 else torch.float32)


def stimulus_means(responses: xr.DataArray) -> np.ndarray:
    """(stimulus, unit), without the mean over stimuli."""
    means = means_kernel(responses.values)[:, 0]
    return means - means.mean(axis=0)


def deviations(responses: xr.DataArray) -> tuple[np.ndarray, int]:
    """Of every trial from its stimulus's mean, (trial, unit), and their degrees of freedom, Σ(Rₛ − 1)."""
    validate(responses, min_repeats=2)
    values = floating(responses.values)
    present = ~np.isnan(values[:, :, 0])
    present &= (present.sum(axis=1) > 1)[:, None]
    dof = int(present.sum() - present.any(axis=1).sum())
    return residuals_kernel(values)[present], dof


def require_same_units(target: xr.DataArray, n: int, what: str) -> None:
    if target.sizes["unit"] != n:
        raise ValueError(
            f"expected a target with the {n} units that the {what} was fitted to, got {target.sizes['unit']}"
        )
