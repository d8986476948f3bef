"""Responses of a target with noise in them, to be looked at as a recording is."""

import numpy as np
import torch
import xarray as xr

from neurovar.covariance import Covariance
from neurovar.noise.transplant._target import require_same_units
from neurovar.responses import ROUNDING, means_kernel, validate

AT_ONCE = 256
"""Draws over all units that are held at once."""


def noisy_responses(
    target: xr.DataArray,
    noise: Covariance,
    *,
    n_repeats: int,
    rng: np.random.Generator | int,
    max_units: int | None = None,
) -> xr.DataArray:
    """The target's mean responses plus a fresh draw of `noise` in each repeat: what a recording of them would give.

    So every statistic of a recording can be taken of transplanted noise, with the source's numbers of stimuli, repeats
    and units, and the same sampling error.

    Parameters
    ----------
    target : xarray.DataArray
        Responses (stimulus, repeat, unit) of the units that get the noise.
    noise : Covariance
        Over the target's units; noise that depends on the state sees the mean responses.
    n_repeats : int
        Draws for each stimulus.
    rng : numpy.random.Generator or int
        Draws the noise and, with `max_units`, the units.
    max_units : int, optional
        Keep so many units, drawn at random without replacement from those whose noise varies.

    Returns
    -------
    xarray.DataArray
        (stimulus, repeat, unit), with the target's coordinates of units and stimuli.

    Raises
    ------
    ValueError
        If responses are not valid, the noise is that of another number of units, there is no repeat, or no unit varies.

    Examples
    --------
    >>> from neurovar import statistics
    >>> from neurovar.covariance import Diagonal
    >>> network = statistics.population(n_stimuli=5, n_repeats=1, n_units=3, rng=0)
    >>> noisy_responses(network, Diagonal.isotropic(3), n_repeats=4, rng=0).shape
    (5, 4, 3)
    """
    validate(target)
    require_same_units(target, noise.n, "noise")
    if n_repeats < 1:
        raise ValueError(f"expected at least 1 repeat, got {n_repeats}")
    rng = np.random.default_rng(rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    units = _varying(noise, max_units, rng)
    means = means_kernel(target.values)[:, 0]
    states = torch.from_numpy(means.repeat(n_repeats, axis=0)).to(noise.diagonal())
    drawn = [noise.sample_at(block, generator=generator)[:, units].cpu() for block in states.split(AT_ONCE)]
    values = torch.cat(drawn).view(len(means), n_repeats, len(units)).numpy() + means[:, None, units]
    template = target.isel(repeat=np.zeros(n_repeats, int), unit=units).drop_vars(_of_repeats(target))
    return template.copy(data=values).assign_attrs(repeats_from="injected noise")


def _varying(noise: Covariance, max_units: int | None, rng: np.random.Generator) -> np.ndarray:
    variance = noise.diagonal().cpu().double().numpy()
    units = np.flatnonzero(variance > ROUNDING**2 * variance.max())
    if not len(units):
        raise ValueError(f"expected noise with variance, got a trace of 0 over {noise.n} units")
    if max_units is None:
        return np.arange(noise.n)
    return np.sort(rng.choice(units, min(max_units, len(units)), replace=False))


def _of_repeats(target: xr.DataArray) -> list[str]:
    return [str(name) for name, coord in target.coords.items() if "repeat" in coord.dims]
