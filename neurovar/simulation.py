"""Responses whose noise covariance and signal spectrum are known."""

import numpy as np
import torch
import xarray as xr

from neurovar.covariance import Covariance
from neurovar.responses import DIMS


def population(
    *,
    n_stimuli: int,
    n_repeats: int,
    n_units: int,
    exponent: float = 1.0,
    noise: Covariance | None = None,
    counts: bool = False,
    rng: np.random.Generator | int,
) -> xr.DataArray:
    """Responses with a power-law signal and given noise.

    x_sr = m_s + e_sr. The means m have covariance Q diag(n^−α) Qᵀ / Σ n^−α · n_units over stimuli, α = `exponent`, Q a
    random rotation: average variance 1 a unit. With `counts=False`, e ~ N(0, C), C = `noise` (default: identity), in
    arbitrary units. With `counts=True`, the responses are Poisson spike counts with means 5·exp(m/2 − 1/8 + e/2) with e
    as above (no extra noise by default): a doubly stochastic population whose Fano factor is 1 without `noise`.

    Returns
    -------
    DataArray (stimulus, repeat, unit) with attrs["source"] = "simulation"

    Raises
    ------
    ValueError : if a size is below 1 or the noise has another number of units.

    Examples
    --------
    >>> population(n_stimuli=4, n_repeats=3, n_units=2, rng=0).shape
    (4, 3, 2)
    """
    shape = (n_stimuli, n_repeats, n_units)
    if min(shape) < 1:
        raise ValueError(f"expected at least one stimulus, repeat and unit, got {shape}")
    if noise is not None and noise.n != n_units:
        raise ValueError(f"expected noise of {n_units} units, got {noise.n}")
    rng = np.random.default_rng(rng)
    spectrum = np.arange(1, n_units + 1) ** -float(exponent)
    rotation, _ = np.linalg.qr(rng.standard_normal((n_units, n_units)))
    scale = np.sqrt(spectrum / spectrum.sum() * n_units)
    means = (rng.standard_normal((n_stimuli, n_units)) * scale) @ rotation.T
    deviation = _noise(shape, noise, rng) if noise is not None or not counts else np.zeros(shape)
    if counts:
        values = rng.poisson(5 * np.exp((means[:, None] + deviation) / 2 - 1 / 8)).astype(float)
    else:
        values = means[:, None] + deviation
    attrs = {
        "units": "spike count" if counts else "arbitrary",
        "source": "simulation",
        "exponent": float(exponent),
    }
    stimuli = [f"simulated{i:04d}" for i in range(n_stimuli)]
    return xr.DataArray(values, dims=DIMS, coords={"stimulus": stimuli}, attrs=attrs)


def _noise(shape: tuple[int, int, int], noise: Covariance | None, rng: np.random.Generator) -> np.ndarray:
    if noise is None:
        return rng.standard_normal(shape)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    return noise.sample(shape[:2], generator=generator).double().numpy()
