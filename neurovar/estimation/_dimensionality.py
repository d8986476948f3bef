"""How many dimensions the noise fills."""

import numpy as np
import xarray as xr

from neurovar.estimation._noise import noise_covariance


def effective_dimensionality(responses: xr.DataArray) -> float:
    """Effective dimensionality of the pooled noise covariance, (Σλ)² / Σλ².

    Between 1 and the number of units. Biased down where dof = Σ(Rₛ − 1) is not much larger than the number of units
    (sampling spreads the eigenvalues): for white noise the expectation is about n·dof / (n + dof).

    Raises
    ------
    ValueError : if responses are not valid, no stimulus has two repeats, or no unit varies.

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=500, n_repeats=5, n_units=10, rng=0)
    >>> 9.5 < effective_dimensionality(da) < 10
    True
    """
    matrix = noise_covariance(responses).values
    if not matrix.any():
        raise ValueError(f"expected units that vary between repeats, got none among {len(matrix)}")
    return effective_dimensionality_kernel(matrix)


def effective_dimensionality_kernel(matrix: np.ndarray) -> float:
    """(tr C)² / ‖C‖²_F of a covariance (unit, unit)."""
    return float(np.trace(matrix) ** 2 / (matrix**2).sum())
