"""The same statistics of variability for cortex and networks, side by side, with intervals."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from joblib import Parallel, delayed

from neurovar import estimation, spectra
from neurovar.responses import validate

STATISTICS = (
    "noise_correlation",
    "signal_correlation",
    "effective_dimensionality",
    "exponent",
    "fano_factor",
    "reliability",
)


def compare(
    systems: Mapping[str, xr.DataArray],
    *,
    ranks: tuple[int, int],
    rng: np.random.Generator | int,
    n_bootstrap: int = 100,
    n_splits: int = 10,
    n_jobs: int = 1,
    advance: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Six statistics of each system, with 95 % intervals.

    noise_correlation and signal_correlation are means over pairs of units, fano_factor and reliability means over
    units; exponent is that of the cvPCA spectrum over `ranks`. Interval: estimate ± 1.96 standard errors, the standard
    error from a bootstrap over stimuli (units and repeats as they are). A resampled set has repeated stimuli, which
    shifts some statistics; that is why its spread is used and not its percentiles.

    A statistic that a system does not allow (a Fano factor without counts, an exponent whose window holds variances
    that are not positive) is NaN, and `reason` says why.

    Systems are compared as they come: effective dimensionality and spectra depend on the numbers of units and stimuli,
    so give all systems the same (`responses.align`, `activations.record(max_units=…)`); `n_units`, `n_stimuli` and
    `n_repeats` are in the result.

    Returns
    -------
    Dataset: `estimate`, `low`, `high`, `reason`, `n_replicates` (statistic, system); `spectrum` (system, rank); the
    sizes (system). `n_replicates` counts the bootstrap samples behind an interval: one whose window holds a variance
    that is not positive has no exponent.

    Raises
    ------
    ValueError : if a system is not valid or has no repeats, or `n_bootstrap` < 2.

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=60, n_repeats=4, n_units=8, counts=True, rng=0)
    >>> table = compare({"simulated": da}, ranks=(1, 4), n_bootstrap=5, rng=0)
    >>> dict(table.estimate.sizes)
    {'statistic': 6, 'system': 1}
    """
    if n_bootstrap < 2:
        raise ValueError(f"expected at least 2 bootstrap samples, got {n_bootstrap}")
    for name, system in systems.items():
        try:
            validate(system, min_repeats=2)
        except ValueError as error:
            raise ValueError(f"system {name!r}: {error}") from error
    columns = []
    for (name, system), seed in zip(systems.items(), np.random.default_rng(rng).spawn(len(systems))):
        columns.append(_column(system, ranks, n_bootstrap, n_splits, n_jobs, seed).expand_dims(system=[name]))
        if advance:
            advance(1)
    table = xr.concat(columns, dim="system", join="outer", combine_attrs="drop")
    table.attrs = {
        "interval": "estimate ± 1.96 bootstrap standard errors (stimuli resampled)",
        "exponent_ranks": list(ranks),
        "n_bootstrap": n_bootstrap,
        "n_splits": n_splits,
    }
    return table.transpose("statistic", "system", "rank")


def _column(
    system: xr.DataArray,
    ranks: tuple[int, int],
    n_bootstrap: int,
    n_splits: int,
    n_jobs: int,
    rng: np.random.Generator,
) -> xr.Dataset:
    """One system's part of the table."""
    estimate_rng, *replicate_rngs = rng.spawn(n_bootstrap + 1)
    spectrum = spectra.signal_spectrum(system, method="cvpca", n_splits=n_splits, rng=estimate_rng)
    estimates, reasons = [], []
    for statistic in STATISTICS:
        value, reason = _estimate(statistic, system, spectrum, ranks, n_splits, estimate_rng)
        estimates.append(value)
        reasons.append(reason)
    defined = [name for name, reason in zip(STATISTICS, reasons) if not reason]
    replicates = Parallel(n_jobs=n_jobs)(
        delayed(_replicate)(system.values, defined, ranks, n_splits, replicate_rng) for replicate_rng in replicate_rngs
    )
    error, n_replicates = np.full(len(STATISTICS), np.nan), np.zeros(len(STATISTICS), dtype=int)
    for name, values in zip(defined, np.array(replicates).T):
        finite = values[np.isfinite(values)]
        n_replicates[STATISTICS.index(name)] = len(finite)
        error[STATISTICS.index(name)] = finite.std(ddof=1) if len(finite) > 1 else np.nan
    estimate = np.array(estimates)
    return xr.Dataset(
        {
            "estimate": ("statistic", estimate),
            "low": ("statistic", estimate - 1.96 * error),
            "high": ("statistic", estimate + 1.96 * error),
            "reason": ("statistic", np.array(reasons, dtype=object)),
            "n_replicates": ("statistic", n_replicates),
            "spectrum": spectrum,
            "n_units": system.sizes["unit"],
            "n_stimuli": system.sizes["stimulus"],
            "n_repeats": system.sizes["repeat"],
        },
        coords={"statistic": list(STATISTICS)},
    )


def _estimate(
    statistic: str,
    system: xr.DataArray,
    spectrum: xr.DataArray,
    ranks: tuple[int, int],
    n_splits: int,
    rng: np.random.Generator,
) -> tuple[float, str]:
    """The statistic, or NaN and the reason."""
    try:
        match statistic:
            case "noise_correlation":
                return _mean_pair(estimation.noise_correlation(system).values), ""
            case "signal_correlation":
                return _mean_pair(estimation.signal_correlation(system, n_splits=n_splits, rng=rng).values), ""
            case "effective_dimensionality":
                return estimation.effective_dimensionality(system), ""
            case "exponent":
                return spectra.fit_power_law(spectrum, ranks=ranks).exponent, ""
            case "fano_factor":
                return float(np.nanmean(estimation.fano_factor(system).values)), ""
            case _:
                return float(np.nanmean(estimation.reliability(system, n_splits=n_splits, rng=rng).values)), ""
    except ValueError as error:
        return np.nan, str(error)


def _mean_pair(matrix: np.ndarray) -> float:
    if len(matrix) < 2:
        raise ValueError(f"expected at least 2 units, got {len(matrix)}")
    return float(np.nanmean(matrix[np.triu_indices(len(matrix), 1)]))


def _replicate(
    values: np.ndarray, statistics: list[str], ranks: tuple[int, int], n_splits: int, rng: np.random.Generator
) -> list[float]:
    """The statistics of one resampled set of stimuli."""
    values = values[rng.integers(len(values), size=len(values))]
    repeated = values[(~np.isnan(values[:, :, 0])).sum(axis=1) > 1]
    return [_replicate_one(statistic, values, repeated, ranks, n_splits, rng) for statistic in statistics]


def _replicate_one(
    statistic: str,
    values: np.ndarray,
    repeated: np.ndarray,
    ranks: tuple[int, int],
    n_splits: int,
    rng: np.random.Generator,
) -> float:
    match statistic:
        case "noise_correlation":
            return _mean_pair(estimation.noise_correlation_kernel(values))
        case "signal_correlation":
            return _mean_pair(estimation.signal_correlation_kernel(values, n_splits, rng))
        case "effective_dimensionality":
            return estimation.effective_dimensionality_kernel(estimation.noise_covariance_kernel(values)[0])
        case "exponent":
            spectrum = spectra.cvpca_kernel(repeated, n_splits, rng)[ranks[0] - 1 : ranks[1]]
            rank = np.arange(ranks[0], ranks[0] + len(spectrum))
            return spectra.power_law_kernel(rank, spectrum)[0] if (spectrum > 0).all() else np.nan
        case "fano_factor":
            return float(np.nanmean(estimation.fano_factor_kernel(values)))
        case _:
            return float(np.nanmean(estimation.reliability_kernel(values, n_splits, rng)))
