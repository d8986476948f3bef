"""Intervals of exponents, over the stimuli and the units that might have been recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from joblib import Parallel, delayed

from neurovar.responses import DIMS
from neurovar.statistics._estimator import Needs
from neurovar.statistics.spectra._algebra import require_kind
from neurovar.statistics.spectra._eigenmoments import eigenmoments_kernel, moment_values
from neurovar.statistics.spectra._meme import fit_law
from neurovar.statistics.spectra._power_law import fit_power_law
from neurovar.statistics.spectra._spectrum import Kernel, prepared, ranked

Estimate = Callable[[np.ndarray, np.random.Generator], float]


@dataclass(frozen=True)
class ExponentInterval:
    """A 95 % interval of an exponent, `estimate` ± 1.96 `standard_error`, as `exponent_interval` gives it.

    Parameters
    ----------
    estimate : float
        The exponent of all data.
    low, high : float
        The ends of the interval.
    standard_error : float
        The standard deviation of the exponents of halves.
    n_replicates : int
        The number of halves that had an exponent.

    Examples
    --------
    >>> ExponentInterval(estimate=1.0, low=0.804, high=1.196, standard_error=0.1, n_replicates=50).n_replicates
    50
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    n_replicates: int


def exponent_interval(
    responses: xr.DataArray,
    *,
    of: str,
    method: str,
    ranks: tuple[int, int] | None = None,
    n_moments: int | None = None,
    n_splits: int,
    n_bootstrap: int,
    over: Sequence[str],
    rng: np.random.Generator | int,
    n_jobs: int = 1,
) -> ExponentInterval:
    """95 % interval of a power law's exponent by a half-sampling bootstrap over stimuli, units, or both.

    The exponent is estimated again from `n_bootstrap` random halves of the stimuli and of the units, drawn without
    replacement. Given the data, a smooth statistic spreads over halves as it does over new data of full size
    (delete-half jackknife, Shao & Wu 1989), so that the standard error is their standard deviation, about the estimate
    from all data: their mean has another bias. Drawing with replacement would put a unit beside its copy, with the
    same noise, and one stimulus into the training and the test set.

    Bias: the interval is for what the estimator gives on average with so many stimuli, repeats and units; the
    estimator's own bias is in no interval. The standard error is too large (never too small on average) as far as
    the error falls faster than 1/√stimuli, and where `n_splits` is small. Over units, the exponent is that of as many
    units drawn from more of their kind, not that of the units recorded.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    of : str
        The covariance: "signal" or "noise".
    method : str
        "cvpca", "cross_decomposition" or "meme".
    ranks : tuple of int, optional
        The window of the power law, as `fit_power_law` takes it, within the spectrum of half of the data; for methods
        with a spectrum.
    n_moments : int, optional
        The number of moments of `fit_eigenmoments` (single law); for "meme".
    n_splits : int
        The number of random halves of the repeats, or of draws of pairs, that each estimate averages over.
    n_bootstrap : int
        The number of halves of the data.
    over : sequence of str
        What is halved: some of ("stimulus", "unit").
    rng : numpy.random.Generator or int
        Draws the halves.
    n_jobs : int, optional
        The number of parallel jobs; the result does not depend on it.

    Returns
    -------
    ExponentInterval
        The exponent of all data, its interval and its standard error.

    Raises
    ------
    UnreliableFit
        A ValueError with the estimate, if the spectrum of all data has no reliable exponent within `ranks`.
    ValueError
        If the responses do not allow the estimate; for another `of`, `method` or `over`, `ranks` with "meme" or
        `n_moments` without it, fewer than two bootstrap samples, fewer than four stimuli or units to
        halve, or fewer than two halves with a reliable exponent.

    References
    ----------
    Shao & Wu 1989, doi:10.1214/aos/1176347263

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=200, n_repeats=4, n_units=20, exponent=1.0, rng=0)
    >>> options = {"n_splits": 2, "n_bootstrap": 20, "over": ("stimulus",), "rng": 0}
    >>> interval = exponent_interval(da, of="signal", method="cvpca", ranks=(1, 10), **options)
    >>> interval.low < 1 < interval.high
    True
    """
    estimate, values = _estimator(responses, of, method, ranks, n_moments, n_splits)
    axes = _axes(values.shape, over, n_bootstrap)
    # A stream for each replicate: the result does not depend on which worker computes it.
    own, *seeds = np.random.default_rng(rng).spawn(n_bootstrap + 1)
    exponent = estimate(values, own)
    replicates = Parallel(n_jobs=n_jobs)(delayed(_half_estimate)(values, estimate, axes, seed) for seed in seeds)
    finite = np.array([replicate for replicate in replicates if np.isfinite(replicate)])
    if len(finite) < 2:
        raise ValueError(
            f"expected at least 2 halves with a reliable exponent, got {len(finite)} of {n_bootstrap}: choose a lower "
            "window or fewer moments, or use more stimuli or repeats"
        )
    # About their own mean: halves have another bias than all data, which is no part of the error.
    error = float(finite.std(ddof=1))
    return ExponentInterval(exponent, exponent - 1.96 * error, exponent + 1.96 * error, error, len(finite))


def _estimator(
    responses: xr.DataArray, of: str, method: str, ranks: tuple[int, int] | None, n_moments: int | None, n_splits: int
) -> tuple[Estimate, np.ndarray]:
    """The exponent as a function of values and random numbers, and the values."""
    require_kind(of)
    if method == "meme":
        if n_moments is None or n_moments < 2 or ranks is not None:
            raise ValueError(f"expected n_moments of at least 2 and no ranks for 'meme', got {n_moments} and {ranks}")
        values = moment_values(responses, of=of, n_moments=n_moments, n_splits=n_splits)
        return partial(_moment_exponent, of=of, n_moments=n_moments, n_splits=n_splits), values
    kernel, values = prepared(Needs(together=of == "noise").check(responses), of, method, n_splits)
    if ranks is None or n_moments is not None:
        raise ValueError(f"expected ranks and no n_moments for {method!r}, got {ranks} and {n_moments}")
    return partial(_window_exponent, kernel=kernel, ranks=ranks, n_splits=n_splits), values


def _moment_exponent(values: np.ndarray, rng: np.random.Generator, *, of: str, n_moments: int, n_splits: int) -> float:
    moments = eigenmoments_kernel(values, of, n_moments, n_splits, rng)
    return float(fit_law(moments, values.shape[2], "single")[0][1])


def _window_exponent(
    values: np.ndarray, rng: np.random.Generator, *, kernel: Kernel, ranks: tuple[int, int], n_splits: int
) -> float:
    return fit_power_law(ranked(kernel(values, n_splits, rng), {}), ranks=ranks).exponent


def _axes(shape: tuple[int, ...], over: Sequence[str], n_bootstrap: int) -> list[int]:
    if isinstance(over, str) or not over or not set(over) <= {"stimulus", "unit"}:
        raise ValueError(f"expected over= some of ('stimulus', 'unit'), got {over!r}")
    if n_bootstrap < 2:
        raise ValueError(f"expected at least 2 bootstrap samples, got {n_bootstrap}")
    axes = [DIMS.index(dim) for dim in dict.fromkeys(over)]
    for axis in axes:
        if shape[axis] < 4:
            raise ValueError(f"expected at least 4 along {DIMS[axis]!r} to draw halves of, got {shape[axis]}")
    return axes


def _half_estimate(values: np.ndarray, estimate: Estimate, axes: list[int], rng: np.random.Generator) -> float:
    """NaN where the half allows no estimate."""
    for axis in axes:
        size = values.shape[axis]
        # Without replacement, each dim for itself: no unit or stimulus beside its own copy.
        values = np.take(values, rng.permutation(size)[: size // 2], axis=axis)
    try:
        return estimate(values, rng)
    except ValueError:
        return np.nan
