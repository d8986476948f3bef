"""The statistics that have a name: `describe`, `compare`, `power`, tables and figures read them here."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from neurovar.statistics._statistic import Halves, PowerLawWindow, Settings, SignalDimensions, Statistic
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


def cvpca_spectrum(responses: xr.DataArray, settings: Halves, rng: np.random.Generator) -> xr.DataArray:
    """The spectrum of the signal that exponents are fitted to."""
    return signal_spectrum(responses, method="cvpca", n_splits=settings.n_splits, rng=rng)


def signal_exponent(responses: xr.DataArray, settings: PowerLawWindow, rng: np.random.Generator) -> float:
    return fit_power_law(cvpca_spectrum(responses, settings, rng), ranks=settings.ranks).exponent


def _noise_exponent(responses: xr.DataArray, settings: PowerLawWindow, rng: np.random.Generator) -> float:
    # Cross-decomposition holds out stimuli as well as trials; of one stimulus only trials can be held out.
    method = "cross_decomposition" if responses.sizes["stimulus"] > 1 else "cvpca"
    spectrum = noise_spectrum(responses, method=method, n_splits=settings.n_splits, rng=rng)
    return fit_power_law(spectrum, ranks=settings.ranks).exponent


def _signal_slope(responses: xr.DataArray) -> float:
    """The slope of the line through all pairs; the single bin is there because `binned` fits it."""
    of_pairs = pairs(responses)
    if "signal_correlation" not in of_pairs:
        raise ValueError(NO_SIGNAL)
    return float(binned(of_pairs, against="signal_correlation", n_bins=1).attrs["slope"])


def _reliability(responses: xr.DataArray, settings: Halves, rng: np.random.Generator) -> xr.DataArray:
    return reliability(responses, n_splits=settings.n_splits, rng=rng)


def _noise_in_signal(responses: xr.DataArray, settings: SignalDimensions, rng: np.random.Generator) -> xr.DataArray:
    return noise_in_signal(responses, n_dims=settings.n_dims, n_splits=settings.n_splits, rng=rng)["fraction"]


def _variance_exponent(responses: xr.DataArray) -> xr.DataArray:
    return variance_scaling(responses)["population_exponent"]


def _factors(responses: xr.DataArray, settings: Settings, rng: np.random.Generator) -> xr.Dataset:
    """The metrics of factor analysis, whose number of factors is chosen by cross-validation."""
    # Each factor takes as many parameters as there are units: with three units a factor there is data for them.
    most = min(MOST_FACTORS, responses.sizes["unit"] // 3)
    metrics = shared_variance(responses, max_factors=most, n_folds=N_FOLDS, rng=rng)
    similarity = metrics["loading_similarity"]
    first = similarity[0].drop_vars("factor", errors="ignore") if len(similarity) else np.nan
    return metrics.drop_vars("loading_similarity").assign(loading_similarity=first)


FACTOR_METRICS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("percent_shared_variance", "shared variance", {"over": "unit", "unit": "%", "no_effect": 0.0}),
    ("shared_dimensionality", "dimensions with 95 % of the shared variance", {"axis": "shared dimensionality"}),
    ("loading_similarity", "loading similarity of the first factor", {"axis": "loading similarity"}),
)
STATISTICS: dict[str, Statistic] = {
    statistic.name: statistic
    for statistic in (
        Statistic(
            noise_correlation,
            "noise_correlation",
            "noise correlation",
            over="pair",
            axis="mean noise correlation",
            no_effect=0.0,
        ),
        Statistic(
            signal_correlation,
            "signal_correlation",
            "signal correlation",
            over="pair",
            axis="mean signal correlation",
            no_effect=0.0,
        ),
        Statistic(
            effective_dimensionality,
            "effective_dimensionality",
            "effective dimensionality of the noise",
            axis="effective dimensionality",
        ),
        Statistic(
            partial(effective_dimensionality, corrected=True),
            "corrected_dimensionality",
            "effective dimensionality of the noise, without bias",
            axis="eff. dim., no bias",
        ),
        Statistic(
            signal_exponent,
            "exponent",
            "exponent of the signal's spectrum (cvPCA)",
            axis="signal exponent α",
            settings=PowerLawWindow(),
        ),
        Statistic(
            _noise_exponent,
            "noise_exponent",
            "exponent of the noise's spectrum",
            axis="noise exponent α",
            no_effect=0.0,
            settings=PowerLawWindow(),
        ),
        Statistic(
            _signal_slope,
            "signal_slope",
            "slope of noise on signal correlation",
            axis="r_sc slope on r_signal",
            no_effect=0.0,
        ),
        Statistic(population_coupling, "population_coupling", "population coupling", over="unit", no_effect=0.0),
        Statistic(fano_factor, "fano_factor", "Fano factor", over="unit", no_effect=1.0),
        Statistic(
            _reliability,
            "reliability",
            "reliability",
            over="unit",
            axis="split-half reliability",
            no_effect=0.0,
            settings=Halves(),
        ),
        Statistic(
            _variance_exponent,
            "variance_exponent",
            "exponent of variance against mean",
            axis="variance–mean exponent",
            no_effect=1.0,
        ),
        Statistic(fit_modulated_poisson, "gain_variance", "gain variance", over="unit", no_effect=0.0),
        Statistic(
            noise_ceiling,
            "noise_ceiling",
            "noise ceiling of a correlation",
            over="unit",
            axis="noise ceiling",
            no_effect=0.0,
        ),
        # The rest is asked for by name: it has a setting without a default, or repeats a cross-validation each time.
        Statistic(
            _noise_in_signal,
            "noise_in_signal",
            "noise variance in the top signal dimensions",
            axis="noise in signal",
            settings=SignalDimensions(),
            by_default=False,
        ),
        *(
            Statistic(_factors, name, label, **options, settings=Settings(), by_default=False)
            for name, label, options in FACTOR_METRICS
        ),
    )
}
"""Every statistic by its name."""


def choose(statistics: Sequence[str | Statistic] | None, settings: Mapping[str, Any]) -> tuple[Statistic, ...]:
    """The statistics asked for, by default those that are computed by default, each with the settings that it has.

    Raises
    ------
    ValueError
        If a name is unknown or comes twice, no statistic has such a setting, or one lacks a setting.
    """
    if statistics is None:
        statistics = [statistic for statistic in STATISTICS.values() if statistic.by_default]
    known = not isinstance(statistics, str | Statistic) and all(
        isinstance(statistic, Statistic) or statistic in STATISTICS for statistic in statistics
    )
    chosen = [STATISTICS[item] if isinstance(item, str) else item for item in statistics] if known else []
    if not chosen or len({statistic.name for statistic in chosen}) < len(chosen):
        raise ValueError(
            f"expected statistics, each once, among {', '.join(STATISTICS)}, or Statistic(…); got {statistics!r}"
        )
    # What any statistic has is allowed, so that one call's settings serve whichever statistics are chosen; a name that
    # none has is a slip of the pen.
    forms = {
        setting.name: setting.metadata.get("form", "…")
        for statistic in (*STATISTICS.values(), *chosen)
        for setting in fields(statistic.settings or Settings())
    }
    for name in settings:
        if name not in forms:
            raise ValueError(f"expected settings among {', '.join(forms)}, got {name!r}")
    chosen = [statistic.with_settings(**settings) for statistic in chosen]
    for statistic in chosen:
        for name in statistic.lacks:
            raise ValueError(
                f"expected {name}={forms[name]} for {statistic.name!r}, got none; or choose statistics= without it"
            )
    return tuple(chosen)
