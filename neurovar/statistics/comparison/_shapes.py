"""Stochastic shape distances: how far apart two systems are in means and noise, whatever the labels of their units."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from neurovar.responses import align, repeat_counts, require_simultaneous, residuals_kernel

MAX_ITERATIONS = 1000
"""A bound only: each iteration lowers d², and the tolerance ends them."""
TOLERANCE = 1e-10
"""Relative change of d² at which the alternation ends, far below its sampling error."""


@dataclass(frozen=True)
class ShapeDistance:
    """Stochastic shape distance of two systems.

    Distances are relative to the root of the systems' total second moment.

    Parameters
    ----------
    distance : float
        The root of `squared`, with its sign.
    squared : float
        d² = α · mean part + (2 − α) · covariance part, corrected for few repeats; between 0 and 2 but for the sampling
        error.
    plug_in : float
        The distance without the correction.
    n_stimuli : int
        How many stimuli both systems saw.
    n_units : tuple of int
        How many units each has.

    Examples
    --------
    >>> ShapeDistance(distance=0.2, squared=0.04, plug_in=0.3, n_stimuli=30, n_units=(5, 8)).plug_in
    0.3
    """

    distance: float
    squared: float
    plug_in: float
    n_stimuli: int
    n_units: tuple[int, int]


def shape_distance(
    first: xr.DataArray,
    second: xr.DataArray,
    *,
    covariance: str,
    alpha: float = 1.0,
    n_splits: int = 10,
    rng: np.random.Generator | int,
) -> ShapeDistance:
    """Gaussian stochastic shape distance of two systems that saw the same stimuli, corrected for few repeats.

    d² = min over rotations Q of mean over s of α |μ_s − ν_s Q|² + (2 − α) B²(Σ_s, Qᵀ Λ_s Q)

    with means μ, ν and noise covariances Σ, Λ of the two systems, B the Bures distance: B²(A, C) = tr A + tr C −
    2 tr (A^½ C A^½)^½. α = 1 is the 2-Wasserstein distance of Gaussians, α = 2 compares means alone, α = 0 covariances
    alone. Rotations make it independent of which unit is which; the system of fewer units gets silent ones. Before,
    each system's means are centred over stimuli and everything is divided by the root of the mean of |μ_s|² + tr Σ_s,
    because counts and activations have no common unit. The minimum is found by alternating orthogonal Procrustes
    problems from the rotation that aligns the means; it may be local.

    With few repeats the plug-in distance is too large: noise in the means adds tr Σ/R, and estimated covariances
    differ more than true ones. Its bias falls as 1/R where R is large, so that d² is extrapolated to 1/R = 0 from all
    repeats and from random halves of them (averaged over `n_splits`). What is left of the bias grows with units/R: see
    docs/statistics.md. covariance = "per_stimulus" needs more repeats than units to be worth much; "pooled" takes the
    noise of all stimuli as one covariance, with Σ(Rₛ − 1) degrees of freedom.

    Parameters
    ----------
    first, second : xarray.DataArray
        Responses (stimulus, repeat, unit) of each system; stimuli are the same where their ids are.
    covariance : {"per_stimulus", "pooled"}
        Whether each stimulus has a noise covariance of its own, or all have one.
    alpha : float, optional
        α from 0 (covariances alone) to 2 (means alone).
    n_splits : int, optional
        Random halves of the repeats, for the extrapolation.
    rng : numpy.random.Generator or int
        For random halves.

    Returns
    -------
    ShapeDistance
        With `distance`, `squared` and `plug_in`.

    Raises
    ------
    ValueError
        If the systems share fewer than two stimuli, a stimulus has fewer than four repeats, a system's units were not
        recorded together, `alpha` is outside [0, 2], or `covariance` is another.

    References
    ----------
    Duong et al. 2023, arXiv:2211.11665 (ICLR); for extrapolation in the number of trials Strong et al. 1998,
    doi:10.1103/PhysRevLett.80.197

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=30, n_repeats=20, n_units=5, rng=0)
    >>> turned = da.copy(data=da.values @ np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0])
    >>> shape_distance(da, turned, covariance="pooled", rng=0).plug_in < 1e-4
    True
    """
    first, second = _shared(first, second)
    if not 0 <= alpha <= 2:
        raise ValueError(f"expected alpha from 0 to 2, got {alpha}")
    if covariance not in ("per_stimulus", "pooled"):
        raise ValueError(f"expected covariance 'per_stimulus' or 'pooled', got {covariance!r}")
    if n_splits < 1:
        raise ValueError(f"expected at least 1 split, got {n_splits}")
    values = [system.values / _scale(system.values) for system in (first, second)]
    pooled = covariance == "pooled"
    whole = shape_kernel(*values, alpha=alpha, pooled=pooled)
    rng = np.random.default_rng(rng)
    halves = [
        shape_kernel(*parts, alpha=alpha, pooled=pooled)
        for _ in range(n_splits)
        for parts in zip(*(_halves(system, rng) for system in values))
    ]
    # d²(1/R) = d²(0) + b/R: halves have (1 + growth)/R, so that their d² is larger by growth · b/R, and b/R comes off.
    squared = whole - (np.mean(halves) - whole) / _growth(values)
    return ShapeDistance(
        distance=float(np.sign(squared) * np.sqrt(abs(squared))),
        squared=float(squared),
        plug_in=float(np.sqrt(max(whole, 0.0))),
        n_stimuli=first.sizes["stimulus"],
        n_units=(first.sizes["unit"], second.sizes["unit"]),
    )


def shape_kernel(first: np.ndarray, second: np.ndarray, *, alpha: float, pooled: bool) -> float:
    """The plug-in d² of two arrays (stimulus, repeat, unit) of the same stimuli."""
    n_units = max(first.shape[2], second.shape[2])
    (mean, noise), (other_mean, other_noise) = (
        _moments(_padded(values, n_units), pooled) for values in (first, second)
    )
    # Given Q, B² of A = FᵀF and C = GᵀG is a minimum over orthogonal U, one a stimulus: B² = min |F − U G Q|². Given
    # all U, the whole is |X − Y Q|² of means and factors on top of one another, an orthogonal Procrustes problem. Each
    # of the two steps can only lower d², so that the alternation converges, though perhaps to a local minimum.
    rotation = _procrustes(other_mean.T @ mean)
    previous = np.inf
    for _ in range(MAX_ITERATIONS):
        # tr (A^½ C A^½)^½ is the nuclear norm of F Gᵀ where A = Fᵀ F and C = Gᵀ G.
        left, singular, right = np.linalg.svd(noise @ (other_noise @ rotation).swapaxes(1, 2), full_matrices=False)
        squared = alpha * ((mean - other_mean @ rotation) ** 2).sum() / len(mean) + (2 - alpha) * (
            (noise**2).sum() + (other_noise**2).sum() - 2 * singular.sum()
        ) / len(noise)
        if previous - squared <= TOLERANCE * abs(squared):
            break
        previous = squared
        matched = (other_noise.swapaxes(1, 2) @ (left @ right).swapaxes(1, 2) @ noise).mean(axis=0)
        rotation = _procrustes(alpha * other_mean.T @ mean / len(mean) + (2 - alpha) * matched)
    return float(squared)


def _procrustes(cross: np.ndarray) -> np.ndarray:
    """The rotation Q that has the largest tr Qᵀ cross: U Vᵀ of its singular value decomposition U S Vᵀ."""
    left, _, right = np.linalg.svd(cross)
    return left @ right


def _moments(values: np.ndarray, pooled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means (stimulus, unit), centred, and factors F (stimulus or 1, row, unit) of the covariances FᵀF."""
    mean = np.nanmean(values, axis=1)
    present = ~np.isnan(values[:, :, 0])
    residual = np.where(present[:, :, None], residuals_kernel(values), 0)
    dof = present.sum(axis=1) - 1
    if pooled:
        factors = np.asarray(np.linalg.qr(residual[present] / np.sqrt(dof.sum()), mode="r"))[None]
    else:
        factors = residual / np.sqrt(dof)[:, None, None]
        # FᵀF = RᵀR of F = QR: with more trials than units R is the smaller factor of the same covariance.
        if factors.shape[1] > factors.shape[2]:
            factors = np.asarray(np.linalg.qr(factors, mode="r"))
    return mean - mean.mean(axis=0), factors


def _scale(values: np.ndarray) -> float:
    """√ of the mean over stimuli of |μ_s|² + tr Σ_s, free of the noise in the means."""
    present = ~np.isnan(values[:, :, 0])
    n_repeats = present.sum(axis=1)
    noise = np.nansum(residuals_kernel(values) ** 2, axis=(1, 2)) / (n_repeats - 1)
    mean = np.nanmean(values, axis=1)
    # The variance of estimated means over stimuli is that of the true ones plus the noise in them, σ²/R on average.
    signal = ((mean - mean.mean(axis=0)) ** 2).sum() / (len(mean) - 1) - (noise / n_repeats).mean()
    total = max(signal, 0.0) + noise.mean()
    if total <= 0:
        raise ValueError("expected responses that vary over stimuli or repeats, got constant ones")
    return float(np.sqrt(total))


def _padded(values: np.ndarray, n_units: int) -> np.ndarray:
    """With silent units, up to `n_units`."""
    missing = n_units - values.shape[2]
    # Times 0, so that trials that are absent are so in the silent units, too.
    silent = np.broadcast_to(values[:, :, :1] * 0, (*values.shape[:2], missing))
    return np.concatenate([values, silent], axis=2) if missing else values


def _halves(values: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random halves of each stimulus's trials; all take part, of an odd number one half has one more."""
    absent = np.isnan(values[:, :, 0])
    order = np.argsort(np.where(absent, np.inf, rng.random(absent.shape)), axis=1)
    shuffled = np.take_along_axis(values, order[:, :, None], axis=1)
    middle = (~absent).sum(axis=1) // 2
    position = np.arange(values.shape[1])
    early = (position < middle[:, None])[:, :, None]
    return np.where(early, shuffled, np.nan), np.where(early, np.nan, shuffled)


def _growth(values: list[np.ndarray]) -> float:
    """How much larger 1/R is in the halves than in all repeats, less 1."""
    ratios = []
    for system in values:
        n_repeats = (~np.isnan(system[:, :, 0])).sum(axis=1)
        # An odd number has a half of (R − 1)/2 and one of (R + 1)/2 trials, and both halves are averaged.
        in_halves = (1 / (n_repeats // 2) + 1 / (n_repeats - n_repeats // 2)) / 2
        ratios.append(in_halves.mean() / (1 / n_repeats).mean())
    return float(np.mean(ratios)) - 1


def _shared(first: xr.DataArray, second: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The stimuli that both systems saw, if they allow a distance."""
    first, second = align(first, second)
    if first.sizes["stimulus"] < 2:
        raise ValueError(f"expected at least 2 shared stimuli, got {first.sizes['stimulus']}")
    for system in (first, second):
        require_simultaneous(system)
        least = int(repeat_counts(system).min())
        if least < 4:
            raise ValueError(f"expected at least 4 repeats of every shared stimulus, got {least} of some")
    return first, second
