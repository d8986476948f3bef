"""The statistics that systems are compared by: a registry; each is a number for one recording session."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from neurovar.statistics.estimation._alignment import noise_in_signal
from neurovar.statistics.estimation._counts import fano_factor, variance_scaling
from neurovar.statistics.estimation._coupling import population_coupling
from neurovar.statistics.estimation._dimensionality import effective_dimensionality
from neurovar.statistics.estimation._factors import shared_variance
from neurovar.statistics.estimation._gain import fit_modulated_poisson
from neurovar.statistics.estimation._noise import noise_correlation
from neurovar.statistics.estimation._pairs import binned, pairs
from neurovar.statistics.estimation._reliability import noise_ceiling, reliability
from neurovar.statistics.estimation._signal import signal_correlation
from neurovar.statistics.spectra._power_law import fit_power_law
from neurovar.statistics.spectra._spectrum import noise_spectrum, signal_spectrum

MOST_FACTORS, N_FOLDS = 10, 4
NO_SIGNAL = "expected at least 3 stimuli with 2 repeats for signal correlations, got fewer"


@dataclass(frozen=True)
class Settings:
    """What an estimate may need beside the responses.

    The ranks of a power law, the number of signal dimensions, random splits and their number; `done` keeps what several
    statistics of the same responses share.
    """

    ranks: tuple[int, int] | None
    n_dims: int | None
    n_splits: int
    rng: np.random.Generator
    done: dict[str, xr.Dataset]


@dataclass(frozen=True)
class Statistic:
    """`estimate` gives the value for responses (stimulus, repeat, unit), or raises a ValueError that says why not.

    `over` says what it is a mean over ("pair" or "unit" of units), or that it is one of the whole "population"; `needs`
    names the setting without which it is not defined, "ranks" or "n_dims".
    """

    name: str
    label: str
    estimate: Callable[[xr.DataArray, Settings], float]
    over: str
    needs: str = ""
    by_default: bool = True


def _mean(values: xr.DataArray) -> float:
    """The mean over units, of those that have a value."""
    return _mean_defined(values.values, "unit")


def _mean_pair(matrix: xr.DataArray) -> float:
    """The mean over pairs of units, of those that have a value."""
    if len(matrix) < 2:
        raise ValueError(f"expected at least 2 units, got {len(matrix)}")
    return _mean_defined(matrix.values[np.triu_indices(len(matrix), 1)], "pair of units")


def _mean_defined(values: np.ndarray, what: str) -> float:
    defined = values[np.isfinite(values)]
    if not defined.size:
        raise ValueError(f"expected a {what} with a value, got none of {values.size}")
    return float(defined.mean())


def spectrum_for(responses: xr.DataArray, settings: Settings) -> xr.DataArray:
    return signal_spectrum(responses, method="cvpca", n_splits=settings.n_splits, rng=settings.rng)


def _exponent(responses: xr.DataArray, settings: Settings) -> float:
    return _fitted(spectrum_for(responses, settings), settings)


def _noise_exponent(responses: xr.DataArray, settings: Settings) -> float:
    method = "cross_decomposition" if responses.sizes["stimulus"] > 1 else "cvpca"
    spectrum = noise_spectrum(responses, method=method, n_splits=settings.n_splits, rng=settings.rng)
    return _fitted(spectrum, settings)


def _fitted(spectrum: xr.DataArray, settings: Settings) -> float:
    if settings.ranks is None:
        raise ValueError("expected ranks=(first, last) for an exponent, got none")
    return fit_power_law(spectrum, ranks=settings.ranks).exponent


def _signal_slope(responses: xr.DataArray) -> float:
    of_pairs = pairs(responses)
    if "signal_correlation" not in of_pairs:
        raise ValueError(NO_SIGNAL)
    return float(binned(of_pairs, against="signal_correlation", n_bins=1).attrs["slope"])


def _noise_in_signal(responses: xr.DataArray, settings: Settings) -> float:
    if settings.n_dims is None:
        raise ValueError("expected n_dims, the number of signal dimensions, got none")
    n_dims, n_splits = settings.n_dims, settings.n_splits
    return float(noise_in_signal(responses, n_dims=n_dims, n_splits=n_splits, rng=settings.rng)["fraction"])


def _factors(responses: xr.DataArray, settings: Settings) -> xr.Dataset:
    """The metrics of factor analysis, fitted once for all of them."""
    if "factors" not in settings.done:
        most = min(MOST_FACTORS, responses.sizes["unit"] // 3)
        settings.done["factors"] = shared_variance(responses, max_factors=most, n_folds=N_FOLDS, rng=settings.rng)
    return settings.done["factors"]


STATISTICS = {
    statistic.name: statistic
    for statistic in (
        Statistic(
            "noise_correlation",
            "noise correlation (mean over pairs)",
            lambda responses, _: _mean_pair(noise_correlation(responses)),
            over="pair",
        ),
        Statistic(
            "signal_correlation",
            "signal correlation (mean over pairs)",
            lambda responses, _: _mean_pair(signal_correlation(responses)),
            over="pair",
        ),
        Statistic(
            "effective_dimensionality",
            "effective dimensionality of the noise",
            lambda responses, _: effective_dimensionality(responses),
            over="population",
        ),
        Statistic(
            "corrected_dimensionality",
            "effective dimensionality of the noise, without bias",
            lambda responses, _: effective_dimensionality(responses, corrected=True),
            over="population",
        ),
        Statistic("exponent", "exponent of the signal's spectrum (cvPCA)", _exponent, over="population", needs="ranks"),
        Statistic(
            "noise_exponent", "exponent of the noise's spectrum", _noise_exponent, over="population", needs="ranks"
        ),
        Statistic(
            "signal_slope",
            "slope of noise on signal correlation",
            lambda responses, _: _signal_slope(responses),
            over="pair",
        ),
        Statistic(
            "population_coupling",
            "population coupling (mean over units)",
            lambda responses, _: _mean(population_coupling(responses)),
            over="unit",
        ),
        Statistic(
            "fano_factor",
            "Fano factor (mean over units)",
            lambda responses, _: _mean(fano_factor(responses)),
            over="unit",
        ),
        Statistic(
            "reliability",
            "reliability (mean over units)",
            lambda responses, s: _mean(reliability(responses, n_splits=s.n_splits, rng=s.rng)),
            over="unit",
        ),
        Statistic(
            "variance_exponent",
            "exponent of variance against mean",
            lambda responses, _: float(variance_scaling(responses)["population_exponent"]),
            over="population",
        ),
        Statistic(
            "gain_variance",
            "gain variance (mean over units)",
            lambda responses, _: _mean(fit_modulated_poisson(responses)["gain_variance"]),
            over="unit",
        ),
        Statistic(
            "noise_ceiling",
            "noise ceiling of a correlation (mean over units)",
            lambda responses, _: _mean(noise_ceiling(responses)),
            over="unit",
        ),
        Statistic(
            "noise_in_signal",
            "noise variance in the top signal dimensions",
            _noise_in_signal,
            over="population",
            needs="n_dims",
            by_default=False,
        ),
        Statistic(
            "percent_shared_variance",
            "shared variance in % (mean over units)",
            lambda responses, settings: _mean(_factors(responses, settings)["percent_shared_variance"]),
            over="unit",
            by_default=False,
        ),
        Statistic(
            "shared_dimensionality",
            "dimensions with 95 % of the shared variance",
            lambda responses, settings: float(_factors(responses, settings)["shared_dimensionality"]),
            over="population",
            by_default=False,
        ),
        Statistic(
            "loading_similarity",
            "loading similarity of the first factor",
            lambda responses, settings: float(_factors(responses, settings)["loading_similarity"][0]),
            over="population",
            by_default=False,
        ),
    )
}
"""Those of factor analysis are not chosen by default, as each resample repeats its cross-validation."""


def require_statistics(
    names: Sequence[str] | None, *, ranks: tuple[int, int] | None, n_dims: int | None
) -> tuple[str, ...]:
    """The chosen statistics; a ValueError for one that is unknown or lacks what it needs."""
    defaults = tuple(name for name, statistic in STATISTICS.items() if statistic.by_default)
    chosen = defaults if names is None else tuple(names)
    unknown = [name for name in chosen if name not in STATISTICS]
    if unknown or isinstance(names, str) or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"expected statistics, each once, among {', '.join(STATISTICS)}; got {names!r}")
    for setting, value, form in (("ranks", ranks, "(first, last)"), ("n_dims", n_dims, "a number of dimensions")):
        needy = [name for name in chosen if STATISTICS[name].needs == setting]
        if needy and value is None:
            raise ValueError(f"expected {setting}={form} for {needy[0]!r}, got none; or choose statistics= without it")
    return chosen


def evaluate(
    responses: xr.DataArray,
    names: Sequence[str],
    *,
    ranks: tuple[int, int] | None,
    n_dims: int | None,
    n_splits: int,
    seed: int,
) -> tuple[np.ndarray, list[str]]:
    """The value of each statistic, NaN where it is not allowed, and why ("" where it is).

    Each starts from the same seed: it depends neither on the other statistics, nor does the error of random splits
    differ between two sets of units.
    """
    values, reasons, done = np.full(len(names), np.nan), [""] * len(names), dict[str, xr.Dataset]()
    for i, name in enumerate(names):
        settings = Settings(ranks, n_dims, n_splits, np.random.default_rng(seed), done)
        try:
            values[i] = STATISTICS[name].estimate(responses, settings)
        except ValueError as error:
            reasons[i] = str(error)
    return values, reasons
