"""How many repeats are needed: the error of any statistic against the number of repeats, by simulation.

`repeats_needed` asks a statistic of many simulated recordings; `from_pilot` simulates recordings like one at hand.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from scipy.stats import norm

from neurovar.covariance import Covariance, Dense
from neurovar.responses import repeat_counts, residuals, validate
from neurovar.statistics._registry import choose
from neurovar.statistics._statistic import Statistic
from neurovar.statistics._workers import in_workers
from neurovar.statistics.simulation._models import gaussian, poisson_lognormal
from neurovar.statistics.simulation._trials import present

ALPHA = 0.05
"""Level of the test whose power is computed."""
POWER = 0.8
"""The power that is enough: the custom of clinical and animal studies."""
EXCESS = 0.1
"""How much more total variance than asked for simulated counts may have."""

Simulator = Callable[[int, np.random.Generator], xr.DataArray]


def repeats_needed(
    statistic: str | Statistic | Callable[[xr.DataArray], float],
    simulate: Simulator,
    *,
    n_repeats: Sequence[int],
    precision: float | None = None,
    difference: float | None = None,
    truth: float | None = None,
    n_simulations: int = 200,
    rng: np.random.Generator | int,
    n_jobs: int = 1,
) -> xr.Dataset:
    """Bias and standard error of a statistic against the number of repeats, and the fewest repeats that do.

    For each number of repeats R, the mean and the standard deviation (dof n − 1) of the statistic over n simulated
    recordings. Power is that of a two-sided z-test at α = 0.05 between two recordings of R repeats each whose expected
    statistics differ by δ: P(|Z + δ/(√2 SE)| > 1.96), for a statistic that is close to normal, with one standard error.

    Precision is about the standard error alone: look at the bias too, which more stimuli or units need not reduce.

    Parameters
    ----------
    statistic : str, Statistic or callable
        A name in `STATISTICS`, a statistic of one's own, or a function from responses to a number, such as
        ``lambda da: float(statistics.fano_factor(da).mean())``.
    simulate : callable
        From (R, rng) to responses with R repeats; `from_pilot` makes one.
    n_repeats : sequence of int
        The numbers of repeats R to try, each at least 2.
    precision : float, optional
        The standard error wanted, in units of the statistic.
    difference : float, optional
        δ, the difference to detect between two groups, in units of the statistic.
    truth : float, optional
        What the bias is measured from; by default the mean of the statistic over n/10 simulations (at least 2) with
        ten times the largest R, which keeps a bias of that many repeats.
    n_simulations : int, optional
        n; the standard error is then known to about a part 1/√(2n).
    rng : numpy.random.Generator or int
        For the simulations, each of which has a generator of its own.
    n_jobs : int, optional
        Processes; the numbers do not depend on it.

    Returns
    -------
    xarray.Dataset
        Over `n_repeats` (sorted): `mean`, `bias`, `standard_error`, with δ `power`, and of each its Monte Carlo
        standard error, `<name>_error`. attrs: `statistic`, what it is called, `truth`, and the fewest R tried from
        which on all have SE ≤ precision (`repeats_for_precision`) or a power of 0.8 (`repeats_for_power`), NaN where
        none has.

    Raises
    ------
    ValueError
        If there is neither precision nor difference, one is not positive, there are fewer than 2 repeats or
        simulations, or the statistic refuses some simulated recording (named by its repeats) or gives no finite number.

    Examples
    --------
    >>> from neurovar import statistics
    >>> def simulate(n_repeats, rng):
    ...     return statistics.population(n_stimuli=5, n_repeats=n_repeats, n_units=2, rng=rng)
    >>> def r_sc(da):
    ...     return float(statistics.noise_correlation(da, zscore=False)[0, 1])
    >>> result = repeats_needed(r_sc, simulate, n_repeats=[5, 20], precision=0.15, truth=0.0, n_simulations=50, rng=0)
    >>> result.attrs["repeats_for_precision"]
    20.0
    """
    tried = _check(n_repeats, precision, difference, truth, n_simulations)
    label = "statistic"
    if isinstance(statistic, str | Statistic):
        (statistic,) = choose([statistic], {})
        label, statistic = statistic.axis_label, statistic.estimate
    # Each number of repeats has a stream of its own and each simulation one of that, so that neither other numbers nor
    # the processes change what is drawn; where the truth is given, the reference's stream is not used.
    reference_rng, *rngs = np.random.default_rng(rng).spawn(len(tried) + 1)
    calls = [(statistic, simulate, n, own) for n, stream in zip(tried, rngs) for own in stream.spawn(n_simulations)]
    if truth is None:
        n_references = max(2, n_simulations // 10)
        calls += [(statistic, simulate, 10 * tried[-1], own) for own in reference_rng.spawn(n_references)]
    drawn = np.array(in_workers(_simulated, calls, n_jobs))
    values = drawn[: len(tried) * n_simulations].reshape(len(tried), n_simulations)
    reference = drawn[values.size :] if truth is None else np.full(2, truth)
    result = _summary(values, reference)
    result = result if difference is None else result.assign(_power(result, difference))
    attrs = {"statistic": label, "n_simulations": n_simulations, "truth": float(reference.mean())}
    if precision is not None:
        needed = _fewest(tried, result["standard_error"].values <= precision)
        attrs |= {"precision": precision, "repeats_for_precision": needed}
    if difference is not None:
        needed = _fewest(tried, result["power"].values >= POWER)
        attrs |= {"difference": difference, "alpha": ALPHA, "power_wanted": POWER, "repeats_for_power": needed}
    return result.assign_coords(n_repeats=tried).assign_attrs(attrs)


def from_pilot(
    pilot: xr.DataArray,
    *,
    kind: str,
    noise: Covariance,
    n_stimuli: int | None = None,
    n_units: int | None = None,
) -> Simulator:
    """A simulator of recordings like a pilot: its mean responses, with the given noise.

    What was measured counts as true, but for the noise in the pilot's mean responses x̄_s, which would count as signal:
    they are drawn in to each unit's mean x̄, x̄ + √max(0, 1 − v/w) (x̄_s − x̄), w = Var_s x̄_s and v = σ² · mean(1/Rₛ), so
    that each unit's signal variance is unbiased (σ² the pooled residual variance, dof Σ(Rₛ − 1)).

    Modulated Poisson counts have a variance above the mean, and gains that covary no more than they vary. Where `noise`
    asks for less, the covariance of the log-gains has negative eigenvalues; they are set to 0, which keeps the
    covariances of pairs about as they are and raises variances. By more than 10 % in all, it is an error.

    Parameters
    ----------
    pilot : xarray.DataArray
        (stimulus, repeat, unit).
    kind : {"gaussian", "modulated_poisson"}
        Gaussian responses (`statistics.gaussian`), or spike counts (`statistics.poisson_lognormal` with the log-gains
        whose counts have the covariance `noise` on average over stimuli).
    noise : Covariance
        Pooled noise covariance, as of `statistics.fit_covariance`; a low rank keeps much of the pilot's estimation
        noise out of it.
    n_stimuli : int, optional
        Draw so many of the pilot's stimuli anew each time, with replacement, so that the standard error is that for
        other stimuli too; by default the pilot's own stimuli, always.
    n_units : int, optional
        Draw so many of its units anew each time, without replacement; by default all.

    Returns
    -------
    callable
        From (n_repeats, rng) to responses, for `repeats_needed`.

    Raises
    ------
    ValueError
        If the pilot has no repeats, the kind is another, the noise has other units, counts are needed and not given, a
        unit is silent, modulated Poisson counts cannot have such noise, or the sizes are out of range.

    Examples
    --------
    >>> from neurovar import statistics
    >>> pilot = statistics.population(n_stimuli=20, n_repeats=4, n_units=5, rng=0)
    >>> noise = statistics.fit_covariance(pilot, statistics.LowRank(1))
    >>> simulate = from_pilot(pilot, kind="gaussian", noise=noise, n_units=3)
    >>> simulate(8, np.random.default_rng(0)).shape
    (20, 8, 3)
    """
    validate(pilot, min_repeats=2)
    sizes = pilot.sizes
    if kind not in ("gaussian", "modulated_poisson"):
        raise ValueError(f"expected kind 'gaussian' or 'modulated_poisson', got {kind!r}")
    if noise.n != sizes["unit"]:
        raise ValueError(f"expected noise of {sizes['unit']} units, got {noise.n}")
    if n_stimuli is not None and n_stimuli < 1:
        raise ValueError(f"expected at least 1 stimulus, got {n_stimuli}")
    if n_units is not None and not 1 <= n_units <= sizes["unit"]:
        raise ValueError(f"expected 1 to {sizes['unit']} units, got {n_units}")
    means = _signal(pilot)
    gains = _log_gains(pilot, means.values, noise) if kind == "modulated_poisson" else None

    def simulate(n_repeats: int, rng: np.random.Generator) -> xr.DataArray:
        shown = means if n_stimuli is None else _resampled(means, n_stimuli, rng)
        trials = present(shown, n_repeats=n_repeats, rng=rng)
        if gains is None:
            responses = gaussian(trials, noise=noise, rng=rng)
        else:
            responses = poisson_lognormal(trials, noise=gains, rng=rng)
        return responses if n_units is None else responses.isel(unit=_some(sizes["unit"], n_units, rng))

    return simulate


def _check(
    n_repeats: Sequence[int],
    precision: float | None,
    difference: float | None,
    truth: float | None,
    n_simulations: int,
) -> list[int]:
    """The numbers of repeats, sorted."""
    if precision is None and difference is None:
        raise ValueError("expected a precision, a difference to detect, or both, got neither")
    for name, value in (("precision", precision), ("difference", difference)):
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"expected a {name} above 0, got {value}")
    if truth is not None and not np.isfinite(truth):
        raise ValueError(f"expected a finite truth, got {truth}")
    if n_simulations < 2:
        raise ValueError(f"expected at least 2 simulations, got {n_simulations}")
    tried = sorted({int(repeats) for repeats in n_repeats})
    if not tried or tried[0] < 2 or any(int(repeats) != repeats for repeats in n_repeats):
        raise ValueError(f"expected whole numbers of repeats of at least 2, got {list(n_repeats)}")
    return tried


def _simulated(statistic: Callable[..., float], simulate: Simulator, n_repeats: int, rng: np.random.Generator) -> float:
    """The statistic of one simulated recording."""
    try:
        value = float(statistic(simulate(n_repeats, rng)))
    except ValueError as error:
        raise ValueError(f"a simulated recording with {n_repeats} repeats: {error}") from error
    if not np.isfinite(value):
        raise ValueError(f"expected a finite number from the statistic, got {value} with {n_repeats} repeats")
    return value


def _summary(values: np.ndarray, reference: np.ndarray) -> xr.Dataset:
    """Mean, bias and standard error of values (n_repeats, simulation), and their Monte Carlo standard errors."""
    n = values.shape[1]
    mean, variance = values.mean(axis=1), values.var(axis=1, ddof=1)
    # Var s² = (μ₄ − σ⁴ (n − 3)/(n − 1)) / n for any distribution; that of s by the delta method.
    # (SE = √(s²), so that its error is that of s² divided by 2 SE.)
    fourth = ((values - mean[:, None]) ** 4).mean(axis=1)
    of_variance = np.sqrt((fourth - variance**2 * (n - 3) / (n - 1)).clip(min=0) / n)
    error = np.sqrt(variance)
    of_error = np.divide(of_variance, 2 * error, out=np.zeros(len(values)), where=error > 0)
    columns = {
        "mean": mean,
        "mean_error": error / n**0.5,
        "bias": mean - reference.mean(),
        "bias_error": np.sqrt(variance / n + reference.var(ddof=1) / len(reference)),
        "standard_error": error,
        "standard_error_error": of_error,
    }
    return xr.Dataset({name: ("n_repeats", column) for name, column in columns.items()})


def _power(summary: xr.Dataset, difference: float) -> dict[str, xr.DataArray]:
    """Power of the z-test, and its Monte Carlo error: half of what it changes from SE − error to SE + error."""
    error, of_error = summary["standard_error"], summary["standard_error_error"]
    # A larger standard error gives a lower power, hence the signs.
    low, power, high = (
        z_test_power((error + shift).clip(min=0), difference) for shift in (of_error, 0 * error, -of_error)
    )
    return {"power": power, "power_error": (high - low) / 2}


def z_test_power(standard_error: xr.DataArray, difference: float) -> xr.DataArray:
    """Power of a two-sided z-test at `ALPHA` between two values with this standard error each; 1 where it is 0.

    P(|Z + δ/(√2 SE)| > z), z the quantile of the normal distribution at 1 − α/2.

    Parameters
    ----------
    standard_error : xarray.DataArray
        SE of each value.
    difference : float
        δ, between their expectations.

    Returns
    -------
    xarray.DataArray
        Like `standard_error`.

    Examples
    --------
    >>> z_test_power(xr.DataArray([0.1, 0.5]), 0.4).values.round(3)
    array([0.807, 0.087])
    """
    critical = norm.isf(ALPHA / 2)
    error = standard_error.values * 2**0.5  # of a difference of two independent values
    shift = np.divide(difference, error, out=np.full(error.shape, np.inf), where=error > 0)
    return standard_error.copy(data=norm.sf(critical - shift) + norm.cdf(-critical - shift))


def _fewest(tried: list[int], enough: np.ndarray) -> float:
    """The first number from which on all are enough, or NaN."""
    # Counted from the end: chance may let a smaller number be enough and the next one not.
    first = len(tried) - int(np.logical_and.accumulate(enough[::-1]).sum())
    return float(tried[first]) if first < len(tried) else np.nan


def _signal(pilot: xr.DataArray) -> xr.DataArray:
    """Mean responses (stimulus, unit), drawn in so that each unit's variance over stimuli is that of its signal."""
    repeats = repeat_counts(pilot)
    # Var_s x̄_s = signal variance + σ² · mean(1/R_s) on average: the second term is what the means owe to noise.
    noise = (residuals(pilot) ** 2).sum(("stimulus", "repeat")) / int((repeats - 1).sum()) * float((1 / repeats).mean())
    means = pilot.mean("repeat")
    if pilot.sizes["stimulus"] > 1:
        center, variance = means.mean("stimulus"), means.var("stimulus", ddof=1)
        # Multiplied by √part, deviations have the variance that is left; none where noise explains it all.
        part = (1 - noise / variance.where(variance > 0)).clip(min=0).fillna(0)
        means = center + np.sqrt(part) * (means - center)
    kept = {name: pilot.attrs[name] for name in ("units",) if name in pilot.attrs}
    return means.transpose("stimulus", "unit").assign_attrs(kept)


def _log_gains(pilot: xr.DataArray, means: np.ndarray, noise: Covariance) -> Dense:
    """C of `statistics.poisson_lognormal` with covariance `noise` of counts on average over stimuli."""
    if pilot.attrs.get("units") != "spike count" or (means < 0).any():
        raise ValueError(f"expected spike counts for kind 'modulated_poisson', got {pilot.attrs.get('units')!r}")
    silent = np.flatnonzero(means.mean(axis=0) == 0)
    if len(silent):
        raise ValueError(f"expected units with spikes, got {len(silent)} without (positions {silent[:5].tolist()})")
    # Counts are Poisson given the gains, which adds the mean to each variance and nothing to covariances. With gains of
    # mean 1 whose logs have the covariance C, Cov(n_u, n_v) = E[μ_u μ_v] (exp C_uv − 1): solved for C, pair by pair.
    covariance = noise.to_dense().double().cpu().numpy() - np.diag(means.mean(axis=0))
    together = means.T @ means / len(means)
    # No pair of counts has a covariance as low as −E[n_u] E[n_v], whose logarithm would be that of 0.
    # A matrix made pair by pair need not be a covariance: without its negative eigenvalues it is the nearest that is.
    values, axes = np.linalg.eigh(np.log1p(np.clip(covariance / together, -0.99, None)))
    gains = (axes * values.clip(min=0)) @ axes.T
    excess = float((np.diag(together) * np.expm1(np.diag(gains)) - np.diag(covariance)).sum()) / noise.trace()
    if excess > EXCESS:
        raise ValueError(
            f"expected noise that modulated Poisson counts can have, got one whose nearest has {excess:.0%} more "
            f"variance (at most {EXCESS:.0%} is taken): use noise of a lower rank, only units with more variance than "
            "mean, or kind='gaussian'"
        )
    return Dense(torch.from_numpy(gains))


def _resampled(means: xr.DataArray, n_stimuli: int, rng: np.random.Generator) -> xr.DataArray:
    """Stimuli drawn with replacement, under new ids."""
    drawn = means.isel(stimulus=rng.integers(means.sizes["stimulus"], size=n_stimuli))
    return drawn.assign_coords(stimulus=np.arange(n_stimuli))


def _some(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(n, size=k, replace=False))
