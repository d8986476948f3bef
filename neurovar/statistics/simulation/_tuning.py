"""The mean response of every unit to every stimulus."""

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

DIMS = ("stimulus", "unit")


def tuning(*, n_stimuli: int, n_units: int, exponent: float, rng: np.random.Generator | int) -> xr.DataArray:
    """Mean responses whose covariance over stimuli has a power-law spectrum.

    m_s ~ N(0, Q diag(n^−α) Qᵀ · n_units / Σ n^−α), α = `exponent`, Q a random rotation: an average variance of 1 a
    unit. Over the stimuli drawn, the covariance is a Wishart sample of it with n_stimuli − 1 degrees of freedom.

    Parameters
    ----------
    n_stimuli : int
        The number of stimuli drawn.
    n_units : int
        The number of units.
    exponent : float
        α, of the power law of the covariance's spectrum.
    rng : numpy.random.Generator or int
        Draws the rotation and the mean responses.

    Returns
    -------
    DataArray
        (stimulus, unit), in arbitrary units; attrs["exponent"].

    Raises
    ------
    ValueError
        If a size is below 1 or the exponent is not finite.

    Examples
    --------
    >>> tuning(n_stimuli=4, n_units=2, exponent=1.0, rng=0).shape
    (4, 2)
    """
    if min(n_stimuli, n_units) < 1:
        raise ValueError(f"expected at least one stimulus and unit, got {n_stimuli} and {n_units}")
    if not np.isfinite(exponent):
        raise ValueError(f"expected a finite exponent, got {exponent}")
    rng = np.random.default_rng(rng)
    spectrum = np.arange(1, n_units + 1) ** -float(exponent)
    # The Q of a Gaussian matrix: axes that favour no unit.
    rotation, _ = np.linalg.qr(rng.standard_normal((n_units, n_units)))
    # Σ variances = n_units: an average of 1 a unit, whatever the exponent.
    scale = np.sqrt(spectrum / spectrum.sum() * n_units)
    return xr.DataArray(
        (rng.standard_normal((n_stimuli, n_units)) * scale) @ rotation.T,
        dims=DIMS,
        coords={"stimulus": [f"simulated{i:04d}" for i in range(n_stimuli)]},
        attrs={"units": "arbitrary", "source": "simulation", "exponent": float(exponent)},
    )


def orientation_tuning(
    orientations: ArrayLike, *, n_units: int, baseline: float, amplitude: float, concentration: float
) -> xr.DataArray:
    """Mean spike counts of units tuned to orientation, whose preferred orientations φ divide the half circle evenly.

    f_u(θ) = baseline + amplitude · exp(κ (cos 2(θ − φ_u) − 1)), κ = `concentration`: a von Mises curve over 180°.

    Parameters
    ----------
    orientations : array_like
        (stimulus,) θ in degrees, each once; they become the stimulus ids.
    n_units : int
        The number of units.
    baseline, amplitude : float
        Mean spike counts away from φ, and added at φ.
    concentration : float
        κ > 0; half width at half height is arccos(1 − ln 2 / κ) / 2.

    Returns
    -------
    DataArray
        (stimulus, unit) in spike counts, with the coordinate `preferred_orientation` (unit) in degrees.

    Raises
    ------
    ValueError
        If there is no unit, an orientation is not finite or repeated, a count is negative, or κ is not positive.

    Examples
    --------
    >>> curves = orientation_tuning([0, 45, 90], n_units=2, baseline=1, amplitude=4, concentration=2)
    >>> curves.sel(unit=0).values.round(3).tolist()
    [5.0, 1.541, 1.073]
    """
    angles = np.asarray(orientations, dtype=float)
    if angles.ndim != 1 or not angles.size or not np.isfinite(angles).all() or len(np.unique(angles)) < angles.size:
        raise ValueError(f"expected different finite orientations, got {orientations!r}")
    if n_units < 1:
        raise ValueError(f"expected at least one unit, got {n_units}")
    if not (0 <= baseline < np.inf and 0 <= amplitude < np.inf and 0 < concentration < np.inf):
        raise ValueError(
            "expected a baseline and an amplitude of at least 0 and a concentration above 0, "
            f"got {baseline}, {amplitude} and {concentration}"
        )
    # Orientation repeats after 180°: twice the difference goes around the circle once.
    preferred = 180 * np.arange(n_units) / n_units
    difference = np.deg2rad(angles[:, None] - preferred)
    return xr.DataArray(
        baseline + amplitude * np.exp(concentration * (np.cos(2 * difference) - 1)),
        dims=DIMS,
        coords={"stimulus": angles, "preferred_orientation": ("unit", preferred)},
        attrs={"units": "spike count", "source": "simulation"},
    )
