"""Every registered statistic keeps one contract; a user's own stands beside them everywhere."""

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import plotting, statistics
from neurovar.statistics import STATISTICS, Halves, PowerLawWindow, Settings, SignalDimensions, Statistic

N_STIMULI, N_REPEATS, N_UNITS = 120, 8, 9
GAIN = np.expm1(0.16)
"""Variance of exp(x), x normal with variance 0.16, as a part of its squared mean."""
SETTINGS = {"ranks": (1, 5), "n_dims": 2, "n_splits": 5}
LARGEST = Statistic(lambda da: da.max(("stimulus", "repeat")), "largest", "largest count", over="unit", unit="spikes")


def counts_of(rates: np.ndarray, rng: np.random.Generator) -> xr.DataArray:
    return reference.responses(rng.poisson(rates).astype(float)).assign_attrs(units="spike count")


@pytest.fixture(scope="module")
def untuned() -> xr.DataArray:
    """Independent Poisson counts whose rates differ between units and not between stimuli."""
    rates = np.broadcast_to(np.linspace(1, 12, N_UNITS), (N_STIMULI, N_REPEATS, N_UNITS))
    return counts_of(rates, np.random.default_rng(0))


@pytest.fixture(scope="module")
def tuning() -> np.ndarray:
    return np.exp(np.random.default_rng(1).normal(1.5, 0.6, (N_STIMULI, 1, N_UNITS)))


@pytest.fixture(scope="module")
def modulated(tuning: np.ndarray) -> xr.DataArray:
    """Tuned Poisson counts with a gain that all units share in a trial."""
    rng = np.random.default_rng(2)
    gain = np.exp(rng.normal(-0.08, 0.4, (N_STIMULI, N_REPEATS, 1)))
    return counts_of(tuning * gain, rng)


@pytest.fixture(params=STATISTICS)
def statistic(request: pytest.FixtureRequest) -> Statistic:
    return STATISTICS[request.param].with_settings(**SETTINGS)


def test_a_statistic_says_what_it_is(statistic: Statistic) -> None:
    assert STATISTICS[statistic.name].name == statistic.name
    assert statistic.label and len(statistic.axis_label) <= 30, "an axis of a small panel has room for 30 letters"
    assert statistic.lacks == ()
    assert statistic.mean_label.startswith(statistic.label)
    if statistic.settings is not None:
        assert Settings.from_json(statistic.settings.to_json()) == statistic.settings


SLACK = {"signal_correlation": 0.3, "noise_exponent": 0.4, "reliability": 0.15, "noise_ceiling": 0.4}
"""Beyond 0.1: ratios to a signal variance that is not there, and a spectrum that falls with the units' rates."""


def test_without_an_effect_a_statistic_has_the_value_that_it_states(
    statistic: Statistic, untuned: xr.DataArray
) -> None:
    if np.isnan(statistic.no_effect):
        pytest.skip("depends on the sizes of the population")
    tolerance = SLACK.get(statistic.name, 0.1)
    assert statistic.estimate(untuned) == pytest.approx(statistic.no_effect, abs=tolerance)


def theory(tuning: np.ndarray) -> dict[str, tuple[float, float]]:
    """Expected values of `modulated`, and how far an estimate may be off."""
    rates = tuning[:, 0]
    variance = rates + GAIN * rates**2
    pooled = GAIN * rates.T @ rates / N_STIMULI + np.diag(rates.mean(axis=0))
    eigenvalues = np.linalg.eigvalsh(pooled)
    dimensions = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    root = np.sqrt(variance)
    correlation = (GAIN * rates[:, :, None] * rates[:, None] / (root[:, :, None] * root[:, None])).mean(axis=0)
    # Tuning is independent between units: of E μ² only (E μ)² varies together.
    shared = GAIN * rates.mean(axis=0) ** 2 / np.diag(pooled)
    reliable = 1 / (1 + variance.mean(axis=0) / N_REPEATS / rates.var(axis=0, ddof=1))
    return {
        "noise_correlation": (correlation[np.triu_indices(N_UNITS, 1)].mean(), 0.06),
        "signal_correlation": (np.corrcoef(rates.T)[np.triu_indices(N_UNITS, 1)].mean(), 0.03),
        "effective_dimensionality": (dimensions, 0.4),
        "corrected_dimensionality": (dimensions, 0.4),
        "fano_factor": (1 + GAIN * rates.mean(), 0.1),
        "gain_variance": (GAIN, 0.03),
        "reliability": (reliable.mean(), 0.03),
        "noise_ceiling": (np.sqrt(reliable).mean(), 0.03),
        "percent_shared_variance": (100 * shared.mean(), 3.0),
        "shared_dimensionality": (1.0, 0.0),
        "loading_similarity": (1.0, 0.05),
    }


def test_a_known_population_has_its_values(statistic: Statistic, modulated: xr.DataArray, tuning: np.ndarray) -> None:
    if statistic.name not in theory(tuning):
        pytest.skip("no value in closed form; see the tests of its estimator")
    expected, tolerance = theory(tuning)[statistic.name]
    assert statistic.estimate(modulated) == pytest.approx(expected, abs=tolerance)


def test_values_are_of_the_members(statistic: Statistic, modulated: xr.DataArray) -> None:
    values = statistic.values(modulated, rng=0)
    n_pairs = N_UNITS * (N_UNITS - 1) // 2
    assert values.shape == {"unit": (N_UNITS,), "pair": (n_pairs,), "population": ()}[statistic.over]
    assert statistic.estimate(modulated, rng=0) == pytest.approx(np.nanmean(values), rel=1e-12)


def test_without_repeats_every_statistic_refuses(statistic: Statistic, modulated: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"expected at least [234] repeats"):
        statistic.estimate(modulated[:, :1])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("noise_correlation", {"unit": [0]}, "at least 2 units, got 1"),
        ("signal_correlation", {"unit": [0]}, "at least 2 units, got 1"),
        ("signal_slope", {"stimulus": [0, 1]}, "at least 3 stimuli with 2 repeats"),
        ("reliability", {"stimulus": [0, 1]}, "at least 3 stimuli with 2 repeats"),
        ("exponent", {"unit": [0, 1]}, r"window of at least 3 ranks within 1–2, got 1–5"),
    ],
)
def test_what_responses_do_not_allow(name: str, change: dict, message: str, modulated: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=message):
        STATISTICS[name].with_settings(**SETTINGS).estimate(modulated.isel(change))


def test_a_setting_without_a_default_has_to_be_set(modulated: xr.DataArray) -> None:
    assert STATISTICS["exponent"].lacks == ("ranks",) and STATISTICS["noise_in_signal"].lacks == ("n_dims",)
    with pytest.raises(ValueError, match=r"expected ranks= for 'exponent', got none; with_settings\(ranks=…\)"):
        STATISTICS["exponent"].estimate(modulated)
    assert STATISTICS["fano_factor"].with_settings(ranks=(1, 4)) == STATISTICS["fano_factor"]
    assert STATISTICS["exponent"].with_settings(ranks=(1, 4)).settings == PowerLawWindow(ranks=(1, 4))
    assert SignalDimensions(n_dims=2).filled({"n_splits": 3, "ranks": (1, 2)}) == SignalDimensions(3, 2)
    assert str(Halves()) == "Halves()"


def test_statistics_of_one_factor_analysis_share_it(modulated: xr.DataArray) -> None:
    calls = []

    def both(da: xr.DataArray) -> xr.Dataset:
        calls.append(1)
        return xr.Dataset({"first": da.mean(("stimulus", "repeat")), "second": 2.0})

    own = [Statistic(both, name, name) for name in ("second",)] + [Statistic(both, "first", "first", over="unit")]
    statistics.permutation_test(
        [modulated] * 2, [modulated] * 2, own, exchange="session", n_permutations=1, control=None, rng=0
    )
    assert len(calls) == 4, "once a session"


def test_a_statistic_of_ones_own_is_described_tested_simulated_and_drawn(modulated: xr.DataArray) -> None:
    described = statistics.describe(modulated, ["fano_factor", LARGEST], rng=0)
    largest = modulated.max(("stimulus", "repeat")).values
    np.testing.assert_array_equal(described["largest"], largest)
    assert statistics.summarise(described).loc["largest count"]["mean"] == largest.mean()
    axes = plotting.figure(1, 2)[1][0]
    plotting.plot_distribution(described, "largest", axes[0])
    assert (axes[0].get_xlabel(), axes[0].get_ylabel()) == ("largest count", "units")

    table = statistics.compare({"V4": modulated}, statistics=[LARGEST], n_resamples=2, rng=0)
    assert table.label.values.tolist() == ["largest count in spikes (mean over units)"]
    plotting.plot_statistic(table, "largest", axes[1])
    assert axes[1].get_ylabel() == "largest count (spikes)"

    halves = modulated[..., :4], modulated[..., 4:8]
    test = statistics.permutation_test(*halves, [LARGEST], exchange="unit", n_permutations=9, control=None, rng=0)
    assert test["difference"].item() == pytest.approx(largest[:4].mean() - largest[4:8].mean())

    def simulate(n_repeats: int, rng: np.random.Generator) -> xr.DataArray:
        return statistics.population(n_stimuli=2, n_repeats=n_repeats, n_units=2, counts=True, rng=rng)

    needed = statistics.repeats_needed(LARGEST, simulate, n_repeats=[2, 8], precision=1.0, n_simulations=9, rng=0)
    assert needed.attrs["statistic"] == "largest count (spikes)" and needed["mean"][1] > needed["mean"][0]
    with pytest.raises(ValueError, match=r"expected statistics, each once, .* got"):
        statistics.repeats_needed("slope", simulate, n_repeats=[2], precision=1.0, rng=0)


def test_a_description_refuses_a_mean_in_place_of_values(modulated: xr.DataArray) -> None:
    mean = Statistic(lambda da: da.values.mean(), "mean", "mean", over="unit")
    described = statistics.describe(modulated, [mean], rng=0)
    assert "a value for each unit, got shape ()" in described["mean"].attrs["reason"]
