"""The eigenvalues of one system's noise on axes of another."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from neurovar import _memory
from neurovar.covariance import Covariance
from neurovar.noise.transplant._axes import flattened, principal_axes, random_axes
from neurovar.noise.transplant._target import deviations, like, stimulus_means
from neurovar.responses import require_simultaneous

AXES = ("signal", "modification", "random")


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of a noise covariance, largest first, one a unit: (unit,)."""

    eigenvalues: np.ndarray

    def __post_init__(self) -> None:
        values = self.eigenvalues
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values.min() < 0 or not values.any():
            raise ValueError(f"expected finite eigenvalues (unit,), none negative and some above 0, got {values}")
        if (np.diff(values) > 0).any():
            raise ValueError(f"expected eigenvalues from the largest to the smallest, got {values}")

    def at(self, n: int) -> np.ndarray:
        """The spectrum of n units: eigenvalues by relative rank, scaled to the same sum. (n,)

        Rank k of N units stands at (k − ½)/N; between ranks, linear interpolation; beyond the ends, the end's value.
        """
        own = len(self.eigenvalues)
        values = np.interp((np.arange(n) + 0.5) / n, (np.arange(own) + 0.5) / own, self.eigenvalues)
        return values * (self.eigenvalues.sum() / values.sum())


def fit_spectrum(source: xr.DataArray) -> Spectrum:
    """The eigenvalues of the source's noise covariance, pooled over stimuli, in squared units of its responses.

    Those of a sample covariance, with dof = Σ(Rₛ − 1): their sum is unbiased, but they are spread out, the largest too
    large and the smallest too small. Equal ones come out between (1 − √γ)² and (1 + √γ)² of their true value,
    γ = units / dof (Marchenko & Pastur 1967); those beyond the degrees of freedom are 0.

    Raises
    ------
    ValueError : if responses are not valid, not recorded together, or without repeats or noise.

    References
    ----------
    Marchenko & Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> len(fit_spectrum(da).eigenvalues)
    10
    """
    noise, dof = deviations(source)
    require_simultaneous(source)
    n_trials, n = noise.shape
    gram = noise @ noise.T if n_trials < n else noise.T @ noise
    found = np.maximum(np.linalg.eigvalsh(gram.astype(np.float64))[::-1], 0) / dof
    values = np.zeros(n)
    values[: len(found)] = found
    if not values.any():
        raise ValueError(f"expected a source that varies between repeats, got none of {n} units that does")
    return Spectrum(values)


def place_spectrum(
    spectrum: Spectrum, target: xr.DataArray, *, axes: str, rank: int | None = None, rng: np.random.Generator
) -> Covariance:
    """The spectrum by relative rank on `rank` axes of the target; what is left of it is spread over all other axes."""
    n = target.sizes["unit"]
    if axes not in AXES:
        raise ValueError(f"expected axes {', '.join(map(repr, AXES))}, got {axes!r}")
    if axes == "random":
        found = n
    else:
        _, own = principal_axes(stimulus_means(target) if axes == "signal" else deviations(target)[0])
        found = own.shape[1]
        if not found:
            raise ValueError(f"expected a target with {axes} axes, got {n} units that do not vary")
    kept = found if rank is None else rank
    if not 1 <= kept <= found:
        raise ValueError(f"expected a rank from 1 to {found}, the number of {axes} axes of the target, got {kept}")
    if kept == n:
        _memory.require_matrix(n, torch.float64, torch.device("cpu"), copies=4)
    chosen = random_axes(n, kept, rng=rng) if axes == "random" else own[:, :kept]
    return flattened(torch.from_numpy(spectrum.at(n)), chosen).covariance(like(target))
