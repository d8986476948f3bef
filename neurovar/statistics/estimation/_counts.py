"""Variance beside the mean: Fano factors, also matched for their means, and how variance scales with the mean."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from neurovar.responses import floating
from neurovar.statistics._estimator import Needs, estimator
from neurovar.statistics._groups import groups_of

LEAST_MATCHED = 5  # points, as in the Variance Toolbox
EXPONENTS = 50.0  # the largest |exponent| that is looked for
NEGLIGIBLE = 1e-6  # rounding of float32, relative
COUNTS = Needs(counts=True)


@estimator(COUNTS)
def fano_factor(responses: xr.DataArray, *, by: str | None = None) -> xr.DataArray:
    """Fano factor of each unit: variance / mean of its spike counts, averaged over stimuli.

    F_u = mean over s of σ²_su / μ_su, variance with dof Rₛ − 1; stimuli with one repeat or without a spike are left
    out. 1 for a Poisson process. The ratio of estimates has no bias for Poisson counts, and one of about
    −F(F − 1)/(R μ) for negative binomial and binomial ones: too close to 1.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit), without units; NaN for a unit without a spike.

    Raises
    ------
    ValueError
        If attrs["units"] is not "spike count", a count is negative or no whole number, or no stimulus has two repeats.

    References
    ----------
    Churchland et al. 2010, doi:10.1038/nn.2501

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]]], dims=("stimulus", "repeat", "unit"), coords={"stimulus": [0]},
    ...                   attrs={"units": "spike count"})
    >>> fano_factor(da).item()
    1.0
    """
    return xr.DataArray(fano_factor_kernel(responses.values), dims="unit")


def fano_factor_kernel(values: Any) -> Any:
    """`fano_factor` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array of NumPy or torch
        (unit,), NaN for a unit without a spike.
    """
    xp = array_namespace(values)
    mean, variance, _ = moments_kernel(values)
    spikes = mean > 0
    # A stimulus without a spike has neither mean nor variance: 0 of 0, and it does not count.
    ratio = xp.where(spikes, variance / xp.where(spikes, mean, 1), 0)
    n_stimuli = xp.sum(xp.astype(spikes, ratio.dtype), axis=0)
    return xp.sum(ratio, axis=0) / xp.where(n_stimuli > 0, n_stimuli, xp.nan)


def moments_kernel(values: Any) -> tuple[Any, Any, Any]:
    """Mean and variance (dof R − 1), each (stimulus, unit), and R (stimulus, 1), of the stimuli with two repeats."""
    mean, deviation, n_repeats = deviations_kernel(values)
    return mean, array_namespace(values).sum(deviation**2, axis=1) / (n_repeats - 1), n_repeats


def deviations_kernel(values: Any) -> tuple[Any, Any, Any]:
    """As `moments_kernel`, with each trial's deviation (stimulus, repeat, unit), 0 where absent, not the variance."""
    xp, values = array_namespace(values), floating(values)
    present = ~xp.isnan(values[:, :, 0])
    n_repeats = xp.sum(xp.astype(present, values.dtype), axis=1)
    repeated = n_repeats > 1
    values, present, n_repeats = values[repeated], present[repeated][:, :, None], n_repeats[repeated][:, None]
    mean = xp.sum(xp.where(present, values, 0), axis=1) / n_repeats
    return mean, xp.where(present, values - mean[:, None, :], 0), n_repeats


def mean_matched_fano_factor(
    responses: Mapping[str, xr.DataArray] | xr.DataArray,
    *,
    by: str | None = None,
    bin_width: float,
    floor: float = 0.0,
    n_resamples: int = 10,
    rng: np.random.Generator | int,
) -> xr.Dataset:
    """Fano factors of systems (areas, layers, time windows, conditions) at one common distribution of mean counts.

    A point is the mean m and the variance v (dof Rₛ − 1) of one unit's counts for one stimulus. In each bin of m, every
    system keeps as many points, drawn at random, as the system with the fewest has there. The Fano factor is the slope
    of the regression of v on m through the origin with weights R/(m + floor)², averaged over the draws:
    F = Σ w m v / Σ w m². Points without a spike, or of a stimulus with one repeat, are left out.

    As in the Variance Toolbox, whose bins are 0.25 spikes wide, with floor = 0.08 (1 spike/s in its window of 80 ms)
    and 10 draws. With floor = 0, F is the mean of v/m over points, weighted by repeats. It gives F ± 2 standard errors
    as a 95 % interval. The standard error is that of one draw's regression, averaged; it takes points for independent,
    which those of one unit are not where units differ, so that it is too small then.

    Bias: none for Poisson counts, as E[v | m] = m. Counts with gain noise of variance σ² (`fit_modulated_poisson`) have
    E[v | m] = m (1 + σ² m) / (1 + σ²/R), the same at each m whatever the rates were: systems with equal σ² and
    R get equal values, but for what bins leave of the differences. Systems with unequal numbers of repeats do not.

    Parameters
    ----------
    responses : mapping of str to DataArray, or DataArray
        A DataArray of counts (stimulus, repeat, unit) for each system, or one, which `by` divides.
    by : str, optional
        A coordinate of unit or stimulus whose groups are the systems.
    bin_width : float
        The width of the bins of the mean count, in spikes.
    floor : float, optional
        A mean count in spikes, below which the weights grow no more.
    n_resamples : int, optional
        The number of draws of points to average over.
    rng : numpy.random.Generator or int
        Draws the points that are kept.

    Returns
    -------
    Dataset
        Along `system`, or `by`: `fano_factor`, its `standard_error`, `unmatched` (F of all points) and `n_points`;
        attrs["n_kept"] is the number of points of each system that a draw keeps.

    Raises
    ------
    ValueError
        If the responses are not counts with two repeats, there are fewer than two systems, or fewer than five points
        are left.

    References
    ----------
    Churchland et al. 2010, doi:10.1038/nn.2501, and its Variance Toolbox

    Examples
    --------
    >>> from neurovar import statistics
    >>> slow, fast = (statistics.population(n_stimuli=50, n_repeats=9, n_units=9, counts=True, rng=n) for n in (0, 1))
    >>> matched = mean_matched_fano_factor({"slow": slow, "fast": fast}, bin_width=0.5, rng=0)
    >>> matched.fano_factor.round(1).values.tolist(), matched.attrs["n_kept"] < 450
    ([1.0, 1.0], True)
    """
    if bin_width <= 0 or floor < 0 or n_resamples < 1:
        raise ValueError(
            "expected a positive bin_width, no negative floor and at least 1 resample, "
            f"got {bin_width:g}, {floor:g} and {n_resamples}"
        )
    dim, systems = _systems(responses, by)
    points = {name: _points(str(name), system) for name, system in systems.items()}
    bins = [(mean // bin_width).astype(int) for mean, _, _ in points.values()]
    n_bins = 1 + max(int(of_system.max()) for of_system in bins)
    # The distribution of means that all systems can be thinned to: in each bin that of the system with the fewest.
    common = np.min([np.bincount(of_system, minlength=n_bins) for of_system in bins], axis=0)
    if common.sum() < LEAST_MATCHED:
        raise ValueError(f"expected at least {LEAST_MATCHED} points with means in common, got {common.sum()}")
    generator = np.random.default_rng(rng)
    columns: dict[str, list[float]] = {"fano_factor": [], "standard_error": [], "unmatched": [], "n_points": []}
    for point, of_system in zip(points.values(), bins, strict=True):
        draws = [_draw(of_system, common, generator) for _ in range(n_resamples)]
        slope, error = np.mean([_slope(point, kept, floor) for kept in draws], axis=0)
        for name, value in zip(
            columns, (slope, error, _slope(point, slice(None), floor)[0], len(of_system)), strict=True
        ):
            columns[name].append(value)
    attrs = {"n_kept": int(common.sum()), "bin_width": bin_width, "floor": floor, "n_resamples": n_resamples}
    return xr.Dataset({name: (dim, column) for name, column in columns.items()}, {dim: list(points)}, attrs)


def _systems(
    responses: Mapping[str, xr.DataArray] | xr.DataArray, by: str | None
) -> tuple[str, Mapping[str, xr.DataArray]]:
    """The name of the dim of systems, and the systems."""
    if isinstance(responses, xr.DataArray) != (by is not None):
        raise ValueError("expected a mapping of systems to responses, or one DataArray and by=")
    if not isinstance(responses, xr.DataArray):
        dim, systems = "system", responses
    else:
        dim = str(by)
        groups, member, of = groups_of(responses, dim)
        systems = {group: responses.isel({of: np.flatnonzero(member == i)}) for i, group in enumerate(groups)}
    if len(systems) < 2:
        raise ValueError(f"expected at least 2 systems whose means can be matched, got {len(systems)}")
    return dim, systems


def _points(name: str, responses: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and number of repeats of each unit and stimulus with spikes."""
    try:
        responses = COUNTS.check(responses)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    mean, variance, n_repeats = moments_kernel(responses.values)
    spikes = mean > 0
    if not spikes.any():
        raise ValueError(f"{name}: expected spikes, got none for the stimuli with two repeats")
    return mean[spikes], variance[spikes], np.broadcast_to(n_repeats, mean.shape)[spikes]


def _draw(bins: np.ndarray, common: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions of points drawn at random, `common` of each bin."""
    # Sorted by bin, in random order within: the first `common` of each bin are a random draw of them.
    order = np.lexsort((rng.random(len(bins)), bins))
    first = np.searchsorted(bins[order], bins[order])
    return order[np.arange(len(bins)) - first < common[bins[order]]]


def _slope(point: tuple[np.ndarray, ...], kept: np.ndarray | slice, floor: float) -> tuple[float, float]:
    """Slope of variance against mean through the origin, by weighted least squares, and its standard error."""
    mean, variance, n_repeats = (part[kept] for part in point)
    # Of Poisson-like counts the variance's standard error grows with the mean: weights go by its square.
    weight = n_repeats / (mean + floor) ** 2
    scale = (weight * mean**2).sum()
    slope = (weight * mean * variance).sum() / scale
    dof = max(len(mean) - 1, 1)
    return slope, np.sqrt((weight * (variance - slope * mean) ** 2).sum() / dof / scale)


@estimator(Needs())
def variance_scaling(responses: xr.DataArray, *, by: str | None = None) -> xr.Dataset:
    """How the noise variance grows with the mean, σ² = factor · μ^exponent: the log-mean–log-variance slope.

    A point is the mean m and the variance v (dof Rₛ − 1) of one unit and stimulus. Gamma regression with a log link,
    weights w = Rₛ − 1: the exponent b is that for which v/m^b does not vary with log m,
    Σ w (v/m^b)(log m − Σ w log m / Σ w) = 0, and the factor is the mean Σ w v/m^b / Σ w; over the stimuli of each unit,
    and over all units and stimuli for the population. It needs no logarithm of v, whose bias differs with the rate and
    the number of repeats, so that points with v = 0 stay in. Points with a mean of 0 or below, which has no logarithm,
    are left out and counted.

    Bias: none for Poisson counts (exponent 1, factor 1), however few the spikes and repeats, as E[v | m] = m, but for
    what vanishes with the number of points. In general the error of m remains, and its correlation with that of v. With
    d = σ²/(R μ²), c = κ₃/(R μ σ²), κ₃ the third central moment, and x = log μ less its mean, the exponent's bias is to
    first order mean(c − b d + b x ((b + 1) d/2 − c)) / Var(x). For Gaussian noise c = 0: the errors dilute the slope.
    For negative binomial and binomial counts of Fano factor F it is (F − 1) mean((1 − x)/(R μ)) / Var(x). (Least
    squares of log v on log m is biased for Poisson counts too; orthogonal regression, which takes the errors of log v
    and log m for equal, and means from half of the repeats do far worse.)

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        With `exponent`, `factor` and `n_points` (unit), the scalars `population_exponent` and `population_factor`, and
        `n_dropped`, the number of points that were left out. NaN for a unit without an exponent: with fewer than three
        points, without a range of means, with noise only at one end of it, or beyond ±50.

    Raises
    ------
    ValueError
        If no stimulus has two repeats, or the population has no exponent.

    References
    ----------
    Tolhurst, Movshon & Dean 1983, doi:10.1016/0042-6989(83)90200-6

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=200, n_repeats=4, n_units=20, counts=True, rng=0)
    >>> round(float(variance_scaling(da).population_exponent), 1)
    1.0
    """
    units, population, positive = variance_scaling_kernel(responses.values)
    if np.isnan(population[0]).any():
        raise ValueError(
            f"expected at least 3 points of a unit and stimulus with positive, different means and with noise, "
            f"got no power law from {int(positive.sum())} points"
        )
    variables = {name: ("unit", value) for name, value in zip(("exponent", "factor"), units, strict=True)}
    variables["n_points"] = ("unit", positive.sum(axis=0))
    scalars = {f"population_{name}": value[0] for name, value in zip(("exponent", "factor"), population, strict=True)}
    dropped = {"n_dropped": int((~positive).sum())}
    return xr.Dataset(variables | scalars | dropped)


def variance_scaling_kernel(values: Any) -> tuple[tuple[Any, Any], tuple[Any, Any], Any]:
    """(exponent, factor) of units and, of shape (1,), of the population; which (stimulus, unit) have positive means.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    tuple
        Exponents and factors of units, (unit,) each; those of the population, (1,) each; and which means are positive,
        (stimulus, unit).
    """
    xp = array_namespace(values)
    mean, variance, n_repeats = moments_kernel(values)
    positive = mean > 0
    weight = xp.where(positive, n_repeats - 1, 0)
    log_mean = xp.log(xp.where(positive, mean, 1))
    # Equal counts in float32 may have a variance of rounding, which is none.
    noise = xp.where(variance > NEGLIGIBLE**2 * mean**2, weight * variance, 0)
    points = (log_mean, noise, weight)
    together = (xp.reshape(part, (-1, 1)) for part in points)
    return _power_law(*points), _power_law(*together), positive


def _power_law(log_mean: Any, noise: Any, weight: Any) -> tuple[Any, Any]:
    """Exponent and factor of each column of points (point, column), `noise` being weight times variance."""
    xp = array_namespace(log_mean)
    total = xp.sum(weight, axis=0)
    total = xp.where(total > 0, total, xp.nan)
    centre = xp.sum(weight * log_mean, axis=0) / total
    distance = log_mean - centre
    noisy = noise > 0
    # Σ noise e^(−bd) d has a root only with noise on both sides of the mean: all of one sign, it has none.
    defined = xp.sum(xp.astype(weight > 0, weight.dtype), axis=0) >= 3
    defined = defined & xp.any(noisy & (distance > NEGLIGIBLE), axis=0)
    defined = defined & xp.any(noisy & (distance < -NEGLIGIBLE), axis=0)
    exponent = _balance(distance, noise, defined)
    # At the edge of what was searched there was no root inside.
    exponent = xp.where(defined & (xp.abs(exponent) < 0.99 * EXPONENTS), exponent, xp.nan)
    return exponent, xp.sum(noise * xp.exp(-exponent * log_mean), axis=0) / total


def _balance(distance: Any, noise: Any, defined: Any) -> Any:
    """The b at which Σ noise e^(−b distance) distance = 0, of each column: by Newton steps, halving where they leave.

    The mean of `distance` under the weights noise e^(−b distance) falls with b, at the rate of its variance.
    """
    xp = array_namespace(distance)
    exponent = xp.ones_like(distance[0])
    low, high = -EXPONENTS * exponent, EXPONENTS * exponent
    for _ in range(100):
        # Weights relative to the largest: e^(50·distance) would overflow.
        power = xp.where(noise > 0, -exponent * distance, -xp.inf)
        peak = xp.max(power, axis=0)
        tilted = noise * xp.exp(power - xp.where(peak > -xp.inf, peak, 0))
        scale = xp.sum(tilted, axis=0)
        scale = xp.where(scale > 0, scale, 1)
        mean = xp.sum(tilted * distance, axis=0) / scale
        variance = xp.sum(tilted * (distance - mean) ** 2, axis=0) / scale
        # The mean falls with b: where it is above 0 the root is higher. Newton's step is taken if it stays between what
        # is known, else half of the way: quadratic near the root, and never lost far from it.
        low, high = xp.where(mean > 0, exponent, low), xp.where(mean > 0, high, exponent)
        newton = exponent + mean / xp.where(variance > 0, variance, 1)
        previous, exponent = exponent, xp.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        if not xp.any(defined & (xp.abs(exponent - previous) > NEGLIGIBLE * (1 + xp.abs(exponent)))):
            break
    return exponent
