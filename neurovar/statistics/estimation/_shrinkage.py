"""Noise covariance from few trials: shrunk toward a simple target."""

from typing import Any

import xarray as xr
from array_api_compat import array_namespace

from neurovar.responses import repeat_counts
from neurovar.statistics._estimator import Needs, estimator, require_noise, squared_units
from neurovar.statistics.estimation._deviations import deviations

METHODS = ("ledoit_wolf", "oas", "schaefer_strimmer")


@estimator(Needs(units=2, together=True))
def shrunk_covariance(responses: xr.DataArray, *, method: str, by: str | None = None) -> xr.DataArray:
    """Noise covariance pooled over stimuli, shrunk toward a diagonal one: (1 − λ)C + λT.

    C is `noise_covariance`, with ν = Σ(Rₛ − 1) degrees of freedom; the intensity λ, from 0 to 1, minimises the expected
    squared error, estimated from the data.

    method = "ledoit_wolf", T = (tr C / n)·I:
        λ = [Σₖ wₖ|eₖ|⁴ / ν − ‖C‖²] / (ν ‖C − T‖²), with the residual eₖ of trial k and wₖ = Rₛ / (Rₛ − 1)
    method = "oas", the same T: λ = [‖C‖² + (tr C)²] / ((ν + 1) ‖C − T‖²)
    method = "schaefer_strimmer", T = diag(C), so that variances stay and correlations r shrink:
        λ = Σ_{i≠j} [Σₖ wₖ y²ₖᵢ y²ₖⱼ / ν − r²ᵢⱼ] / (ν Σ_{i≠j} r²ᵢⱼ), with y = e / √C_ii

    Degrees of freedom: the residuals of a stimulus sum to zero, so that its Rₛ trials are Rₛ − 1 observations: each
    counts 1/wₖ observations of √wₖ·eₖ, whose covariance is C. ν therefore takes the place of the number of observations
    of known mean 0 in the published formulas. With one stimulus of n trials, λ is scikit-learn's (which takes n for ν)
    times n/(n − 1) for "ledoit_wolf", times (n + 1)/n for "oas" (both before the limit of 1), and just corpcor's for
    "schaefer_strimmer". Like scikit-learn's, "oas" leaves out the terms 2/n_units of Chen et al., and
    so shrinks too much where units are few (12 units: by about 15 %); it takes the noise for Gaussian.

    Bias: shrinking is a bias, toward T, of λ(T − C), accepted for a smaller squared error; it vanishes with many
    trials. λ is consistent, not unbiased: what the noise's excess kurtosis adds to the error of C is underestimated by
    25 % with 3 repeats, 10 % with 10, not with 2. If the covariance differs between stimuli, λ counts the stimuli as
    drawn at random. The target of "ledoit_wolf" and "oas" suits units of similar variance.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    method : str
        The target and the estimate of the intensity: "ledoit_wolf", "oas" or "schaefer_strimmer".
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit, other_unit), in squared units of the responses, with attrs["intensity"] = λ, attrs["dof"] = ν and
        attrs["method"].

    Raises
    ------
    ValueError
        For another method, fewer than two units or two degrees of freedom, if no unit varies (for "schaefer_strimmer":
        if any does not), or responses are not valid.

    References
    ----------
    Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4
    Chen, Wiesel, Eldar & Hero 2010, doi:10.1109/TSP.2010.2053029
    Schäfer & Strimmer 2005, doi:10.2202/1544-6115.1175

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=10, n_repeats=3, n_units=40, rng=0)
    >>> shrunk = shrunk_covariance(da, method="ledoit_wolf")  # the noise is white: the target is right
    >>> shrunk.attrs["dof"], shrunk.attrs["intensity"] > 0.9
    (20, True)
    """
    if method not in METHODS:
        raise ValueError(f"expected method 'ledoit_wolf', 'oas' or 'schaefer_strimmer', got {method!r}")
    dof = int((repeat_counts(responses) - 1).sum())
    if dof < 2:
        raise ValueError(f"expected at least 2 degrees of freedom Σ(Rₛ − 1), got {dof}")
    require_noise(responses, every_unit=method == "schaefer_strimmer")
    matrix, intensity = shrunk_covariance_kernel(responses.values, method=method)
    attrs = {"intensity": intensity, "dof": dof, "method": method, "units": squared_units(responses)}
    return xr.DataArray(matrix, dims=("unit", "other_unit"), attrs=attrs)


def shrunk_covariance_kernel(values: Any, *, method: str) -> tuple[Any, float]:
    """`shrunk_covariance` of an array (stimulus, repeat, unit), NumPy or torch: matrix (unit, unit) and intensity.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    method : str
        "ledoit_wolf", "oas" or "schaefer_strimmer".

    Returns
    -------
    tuple of array and float
        The matrix (unit, unit) and the intensity.
    """
    xp = array_namespace(values)
    noise, _, n = deviations(values, differences=False)
    n = xp.astype(n, xp.float64)
    dof = float(xp.sum(n))
    # A residual has covariance (1 − 1/Rₛ) C, so that √wₖ·eₖ has C, with wₖ = Rₛ/(Rₛ − 1).
    weight = (n + 1) / xp.where(n > 0, n, 1)
    trials = xp.reshape(noise, (-1, noise.shape[2]))
    matrix = trials.T @ trials / dof
    # (1 − λ)C + λT, in place; only the diagonal of T is not 0.
    variance = xp.linalg.diagonal(matrix) + 0  # a copy: the matrix is overwritten
    if method == "schaefer_strimmer":
        intensity = _correlation_intensity(noise, weight, dof, matrix)
        target = variance
    else:
        intensity = _scaled_identity_intensity(noise, weight, dof, matrix, method)
        target = xp.mean(variance)
    matrix *= 1 - intensity
    diagonal = xp.arange(matrix.shape[0])
    matrix[diagonal, diagonal] += intensity * target
    return matrix, intensity


def _scaled_identity_intensity(noise: Any, weight: Any, dof: float, matrix: Any, method: str) -> float:
    """The intensity for the target (tr C / n)·I."""
    xp = array_namespace(noise)
    squared_norm = float(xp.sum(matrix**2, dtype=xp.float64))
    squared_trace = float(xp.sum(xp.linalg.diagonal(matrix), dtype=xp.float64)) ** 2
    # ‖C − T‖² = ‖C‖² − (tr C)²/n for T = (tr C/n)·I, the projection of C onto the multiples of I.
    distance = squared_norm - squared_trace / matrix.shape[0]
    if method == "oas":
        return _ratio(squared_norm + squared_trace, (dof + 1) * distance)
    # E‖C − Σ‖² is the variance of one observation's y yᵀ over ν, with y = √w·e: (E|y|⁴ − ‖C‖²)/ν. Each residual
    # counts 1/w observations, so that E|y|⁴ = Σ (1/w)(w|e|²)²/ν = Σ w|e|⁴/ν. The best λ is E‖C − Σ‖²/‖C − T‖².
    lengths = xp.sum(noise**2, axis=2, dtype=xp.float64)
    fourth = float(xp.sum(weight[:, None] * lengths**2)) / dof
    return _ratio(fourth - squared_norm, dof * distance)


def _correlation_intensity(noise: Any, weight: Any, dof: float, matrix: Any) -> float:
    """The intensity for correlations to 0."""
    xp = array_namespace(noise)
    deviation = xp.sqrt(xp.linalg.diagonal(matrix))
    correlation = matrix / deviation[:, None] / deviation
    # The sum over i ≠ j: the n ones on the diagonal are taken off.
    squared_norm = float(xp.sum(correlation**2, dtype=xp.float64)) - matrix.shape[0]
    squares = (noise / deviation) ** 2
    # Σ_{i≠j} y²ᵢ y²ⱼ = (Σ y²)² − Σ y⁴ of each trial, without a matrix of pairs.
    pairs = xp.sum(squares, axis=2, dtype=xp.float64) ** 2 - xp.sum(squares**2, axis=2, dtype=xp.float64)
    fourth = float(xp.sum(weight[:, None] * pairs)) / dof
    return _ratio(fourth - squared_norm, dof * squared_norm)


def _ratio(error: float, distance: float) -> float:
    """Expected squared error over squared distance to the target, at most 1."""
    return min(1.0, error / distance) if distance > 0 else 1.0
