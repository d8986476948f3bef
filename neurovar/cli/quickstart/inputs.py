"""The recording and the images, or stand-ins that say so."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from neurovar_datasets import DataUnavailableError, cowley2023_v4, digits, fashion_mnist
from torch.nn import functional as F

from neurovar import statistics
from neurovar.covariance import LowRankPlusDiagonal
from neurovar.networks import IMAGE_DIMS

N_UNITS = 50


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the quickstart takes; `warnings` names every input that is not the real thing, `reasons` says why."""

    cortex: xr.DataArray
    images: xr.DataArray
    train: xr.Dataset
    test: xr.Dataset
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def cortex_name(self) -> str:
        """What figures call the recording."""
        return "V4" if self.cortex.attrs["source"] != "simulation" else "simulated"

    def attrs(self) -> dict[str, str]:
        """What was used, for the results' attrs."""
        used = {
            "cortex": self.cortex,
            "stimulus_images": self.images,
            "train_images": self.train,
            "test_images": self.test,
        }
        return {
            **{name: str(data.attrs["source"]) for name, data in used.items()},
            **{f"{name}_hash": str(data.attrs.get("hash", "no file")) for name, data in used.items()},
            "data_warnings": " | ".join(self.warnings + self.reasons) or "none: all inputs are real",
        }


def load(*, require_real: bool, seed: int) -> Inputs:
    """The V4 session 210325 and Fashion-MNIST; in place of one that cannot be had, a stand-in and a warning.

    A file that is there but damaged is an error, never a reason for a stand-in.

    Raises
    ------
    ValueError : if a file is damaged, or with `require_real` if one cannot be had.
    """
    warnings, reasons = [], []
    try:
        cortex, images = cowley2023_v4.load(session="210325"), cowley2023_v4.images(session="210325")
    except DataUnavailableError as error:
        if require_real:
            raise
        warnings.append("SIMULATED recording, with scikit-learn's digits as its images, in place of macaque V4")
        reasons.append(str(error))
        cortex, images = simulated_cortex(seed)
    try:
        train, test = fashion_mnist.load("train"), fashion_mnist.load("test")
    except DataUnavailableError as error:
        if require_real:
            raise
        warnings.append("scikit-learn's DIGITS (8 × 8, enlarged) in place of Fashion-MNIST")
        reasons.append(str(error))
        train, test = digits.load("train"), digits.load("test")
    return Inputs(cortex, images, train, test, tuple(warnings), tuple(reasons))


def simulated_cortex(seed: int) -> tuple[xr.DataArray, xr.DataArray]:
    """Spike counts with one shared factor, and digits as the images."""
    factors = 0.2 * torch.randn(N_UNITS, 1, generator=torch.Generator().manual_seed(seed))
    noise = LowRankPlusDiagonal(factors, torch.full((N_UNITS,), 0.1))
    cortex = statistics.population(n_stimuli=640, n_repeats=8, n_units=N_UNITS, noise=noise, counts=True, rng=seed)
    pictures = digits.load("train")["images"][:640]
    large = F.interpolate(torch.from_numpy(np.asarray(pictures)), size=112, mode="bilinear").expand(-1, 3, -1, -1)
    images = xr.DataArray(
        large.numpy(),
        dims=IMAGE_DIMS,
        coords={"stimulus": cortex["stimulus"].values},
        attrs={"source": "digits"},
    )
    return cortex, images
