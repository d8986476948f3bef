"""The table of statistics: its estimates, intervals and reasons."""

from pathlib import Path

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import statistics
from neurovar.statistics import STATISTICS, Statistic, compare, intervals, match

SIX = (
    "noise_correlation",
    "signal_correlation",
    "effective_dimensionality",
    "exponent",
    "fano_factor",
    "reliability",
)


def counts(n_stimuli: int = 60, n_repeats: int = 4, n_units: int = 8, seed: int = 0) -> xr.DataArray:
    return statistics.population(n_stimuli=n_stimuli, n_repeats=n_repeats, n_units=n_units, counts=True, rng=seed)


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    systems = {"V4": counts(), "layer": counts(n_units=6, n_repeats=3, seed=1).assign_attrs(units="activation")}
    return compare(systems, statistics=SIX, ranks=(1, 4), match=(), n_resamples=10, n_splits=3, rng=0)


def value(table: xr.Dataset, name: str, statistic: str, system: str) -> float:
    return table[name].sel(statistic=statistic, system=system).item()


def test_the_form(table: xr.Dataset) -> None:
    assert dict(table.sizes) == {"statistic": 6, "system": 2, "rank": 8}
    assert table.statistic.values.tolist() == list(SIX)
    assert table.label.values.tolist() == [STATISTICS[name].mean_label for name in SIX]
    assert table.over.values.tolist() == ["pair", "pair", "population", "population", "unit", "unit"]
    assert table.system.values.tolist() == ["V4", "layer"]
    assert table.n_units.values.tolist() == [8, 6]
    assert table.n_stimuli.values.tolist() == [60, 60]
    assert table.n_repeats.values.tolist() == [4, 3]
    assert table.n_sessions.values.tolist() == [1, 1]
    assert table.levels.values.tolist() == ["unit, stimulus"] * 2
    assert table.matched.values.tolist() == ["", ""]
    assert table.attrs["exponent_ranks"] == [1, 4]
    assert table.attrs["n_resamples"] == 10 and table.attrs["n_subsamples"] == 1
    halves, window = "Halves(n_splits=3)", "PowerLawWindow(n_splits=3, ranks=(1, 4))"
    assert table.settings.values.tolist() == ["", "", "", window, "", halves]
    assert np.isnan(table.spectrum.sel(system="layer").values).tolist() == [False] * 6 + [True] * 2


def test_it_can_be_written_to_a_file(table: xr.Dataset, tmp_path: Path) -> None:
    table.to_netcdf(tmp_path / "table.nc", engine="h5netcdf")
    back = xr.load_dataset(tmp_path / "table.nc", engine="h5netcdf")
    np.testing.assert_array_equal(back.estimate, table.estimate)
    assert back.repeats_from.values.tolist() == table.repeats_from.values.tolist()


def test_what_needs_no_random_numbers_is_exact(table: xr.Dataset) -> None:
    da = counts()
    expected = {
        "noise_correlation": reference.zscored_noise_correlation(da.values)[np.triu_indices(8, 1)].mean(),
        "effective_dimensionality": reference.effective_dimensionality(reference.noise_covariance(da.values)[0]),
        "fano_factor": reference.fano_factor(da.values).mean(),
        "signal_correlation": statistics.signal_correlation(da).values[np.triu_indices(8, 1)].mean(),
    }
    for statistic, number in expected.items():
        assert value(table, "estimate", statistic, "V4") == pytest.approx(number, rel=1e-10)


def test_what_needs_splits_is_within_their_spread(table: xr.Dataset) -> None:
    da = counts()
    expected = statistics.reliability(da, n_splits=100, rng=1).values.mean()
    assert value(table, "estimate", "reliability", "V4") == pytest.approx(expected, abs=0.03)


def test_the_exponent_is_that_of_the_spectrum(table: xr.Dataset) -> None:
    for system in ("V4", "layer"):
        exponent, _ = reference.public_power_law(table.spectrum.sel(system=system).values, 1, 4)
        assert value(table, "estimate", "exponent", system) == pytest.approx(exponent, rel=1e-10)
    full = statistics.signal_spectrum(counts(), method="cvpca", n_splits=100, rng=1).values
    np.testing.assert_allclose(table.spectrum.sel(system="V4").values, full, atol=0.15 * full[0])


def test_intervals_are_symmetric_and_have_width(table: xr.Dataset) -> None:
    defined = table.estimate.notnull().values
    assert defined.sum() == 11
    assert ((table.high - table.low).values[defined] > 0).all()
    np.testing.assert_allclose(((table.high + table.low) / 2).values[defined], table.estimate.values[defined])


def test_the_resamples_behind_an_interval_are_counted(table: xr.Dataset) -> None:
    assert value(table, "n_resamples", "noise_correlation", "V4") == 10
    assert value(table, "n_resamples", "fano_factor", "layer") == 0
    weak = statistics.population(n_stimuli=10, n_repeats=4, n_units=8, exponent=2, rng=0)
    few = compare({"weak": weak}, statistics=["exponent"], ranks=(1, 5), n_resamples=15, n_splits=1, rng=0)
    assert value(few, "reason", "exponent", "weak") == ""
    assert 1 < value(few, "n_resamples", "exponent", "weak") < 15
    assert value(few, "low", "exponent", "weak") < value(few, "high", "exponent", "weak")


def test_a_fano_factor_without_counts_is_undefined_and_says_why(table: xr.Dataset) -> None:
    for name in ("estimate", "low", "high"):
        assert np.isnan(value(table, name, "fano_factor", "layer"))
    assert "'spike count', got 'activation'" in value(table, "reason", "fano_factor", "layer")
    assert (table.reason.values == "").sum() == 11


def reasons(da: xr.DataArray, ranks: tuple[int, int] = (1, 3)) -> dict[str, str]:
    table = compare({"it": da}, statistics=SIX, ranks=ranks, n_resamples=3, n_splits=2, rng=0)
    column = table.isel(system=0)
    undefined = column.reason.values != ""
    assert (np.isnan(column.estimate.values) == undefined).all()
    assert (np.isnan(column.low.values) == undefined).all()
    return dict(zip(column.statistic.values.tolist(), column.reason.values.tolist()))


def test_reasons_for_constant_units() -> None:
    da = counts()
    da.values[..., 2] = 3
    assert "1 with zero noise variance (positions [2])" in reasons(da)["noise_correlation"]


def test_reasons_for_two_repeats() -> None:
    given = reasons(counts(n_repeats=2))
    assert "expected at least 3 repeats of some stimulus, got at most 2" in given["noise_correlation"]
    assert given["reliability"] == given["signal_correlation"] == ""


def test_reasons_for_windows() -> None:
    assert "expected a window of at least 3 ranks within 1–8, got 5–20" in reasons(counts(), (5, 20))["exponent"]
    noise_only = reference.simulate(
        signal=np.zeros((8, 8)), noise=np.eye(8), n_stimuli=30, n_repeats=3, seed=0
    ).assign_attrs(units="spike count")
    assert "expected positive variances at ranks 1–8" in reasons(noise_only, (1, 8))["exponent"]


def test_reasons_for_one_unit() -> None:
    given = reasons(counts(n_units=1))
    assert given["noise_correlation"] == given["signal_correlation"] == "expected at least 2 units, got 1"


def test_a_seed_means_one_table_whatever_the_number_of_processes() -> None:
    systems = {"a": counts(), "b": counts(n_units=10, seed=1)}
    first, again, parallel = (
        compare(systems, statistics=SIX, ranks=(1, 4), n_resamples=4, n_splits=2, n_subsamples=2, rng=0, n_jobs=n_jobs)
        for n_jobs in (1, 1, 2)
    )
    xr.testing.assert_identical(first, again)
    xr.testing.assert_identical(first, parallel)
    other = compare(systems, statistics=SIX, ranks=(1, 4), n_resamples=4, n_splits=2, n_subsamples=2, rng=1)
    assert not np.array_equal(first.low.values, other.low.values)


def test_one_system_does_not_depend_on_the_next() -> None:
    options = {"statistics": SIX, "ranks": (1, 4), "n_resamples": 3, "n_splits": 2, "rng": 0}
    both = compare({"a": counts(), "b": counts(seed=1)}, **options)
    alone = compare({"a": counts()}, **options)
    xr.testing.assert_identical(both.sel(system=["a"]), alone)


def test_progress_is_told_once_a_system() -> None:
    seen: list[int] = []
    systems = {"a": counts(), "b": counts(seed=1)}
    compare(systems, statistics=["fano_factor"], n_resamples=2, rng=0, advance=seen.append)
    assert seen == [1, 1]


def test_unequal_repeats_and_the_intervals() -> None:
    da = counts(n_stimuli=80)
    da.values[::3, 2:] = np.nan
    da.values[1::3, 3:] = np.nan
    table = compare({"it": da}, statistics=SIX, ranks=(1, 4), n_resamples=5, n_splits=2, rng=0)
    assert table.reason.values.tolist() == [[""]] * 6
    assert np.isfinite(table.low.values).all() and np.isfinite(table.high.values).all()


def test_coverage() -> None:
    """40 recordings of the same units: 95 % intervals over stimuli hold the truth at least 33 times.

    Poisson counts: noise correlation 0 and Fano factor 1 are known; the rest is taken from all 40 recordings at once,
    the exponent and the dimensionality, whose bias depends on the number of stimuli, from the mean of the 40.
    """
    n, n_stimuli = 40, 60
    whole = counts(n_stimuli=n * n_stimuli, n_units=6, seed=3)
    parts = [whole.isel(stimulus=slice(i * n_stimuli, (i + 1) * n_stimuli)) for i in range(n)]
    options = {"statistics": SIX, "ranks": (1, 4), "match": (), "levels": ("stimulus",), "n_splits": 3, "rng": 0}
    table = compare(dict(zip(map(str, range(n)), parts)), n_resamples=8, **options)
    reference_table = compare({"whole": whole}, n_resamples=2, **options)
    truth = reference_table.estimate.isel(system=0, drop=True).copy()
    truth.loc["noise_correlation"], truth.loc["fano_factor"] = 0, 1
    for statistic in ("effective_dimensionality", "exponent"):
        truth.loc[statistic] = float(table.estimate.sel(statistic=statistic).mean())
    held = ((table.low <= truth) & (truth <= table.high)).sum("system")
    assert dict(zip(SIX, held.values >= 33)) == dict.fromkeys(SIX, True), held.values
    error = ((table.high - table.low) / (2 * 1.96)).mean("system")
    spread = table.estimate.std("system", ddof=1)
    np.testing.assert_array_less(error.values, 1.6 * spread.values, "intervals are not much too wide")


def test_systems_are_matched_and_averaged_over_subsamples() -> None:
    systems = {"V4": counts(n_units=6), "layer": counts(n_units=14, seed=1)}
    options = {"statistics": ["noise_correlation", "fano_factor"], "n_resamples": 4, "rng": 0}
    table = compare(systems, n_subsamples=5, **options)
    assert table.n_units.values.tolist() == [6, 6] and table.attrs["n_subsamples"] == 5
    assert table.matched.values.tolist() == ["60 shared stimuli", "60 shared stimuli; 6 of 14 units at random"]
    assert table.attrs["matched"] == "unit, stimulus"
    subsamples = match(systems, n_subsamples=5, rng=np.random.default_rng(0).spawn(1)[0])
    expected = np.mean([statistics.fano_factor(one["layer"]).values.mean() for one in subsamples])
    assert value(table, "estimate", "fano_factor", "layer") == pytest.approx(expected, rel=1e-12)
    apart = compare(systems, match=(), **options)
    assert apart.n_units.values.tolist() == [6, 14]
    assert value(apart, "estimate", "fano_factor", "V4") == pytest.approx(value(table, "estimate", "fano_factor", "V4"))
    larger = value(table, "standard_error", "fano_factor", "layer")
    assert larger < 2 * value(apart, "standard_error", "fano_factor", "layer")


def test_equal_numbers_of_stimuli_and_repeats() -> None:
    other = counts(n_stimuli=30, n_repeats=3, seed=1)
    other = other.assign_coords(stimulus=[f"other{i}" for i in range(30)])
    over = ("unit", "stimulus", "repeat")
    options = {"statistics": ["effective_dimensionality"], "match": over, "n_subsamples": 2, "n_resamples": 2, "rng": 0}
    table = compare({"a": counts(), "b": other}, **options)
    assert table.n_stimuli.values.tolist() == [30, 30] and table.n_repeats.values.tolist() == [3, 3]


def test_sessions_are_averaged_and_vary() -> None:
    sessions = [counts(seed=seed).assign_attrs(subject=f"monkey {seed // 2}") for seed in range(6)]
    table = compare({"V4": sessions, "layer": counts(seed=9)}, statistics=SIX, ranks=(1, 4), n_resamples=3, rng=0)
    values = [statistics.fano_factor(session).values.mean() for session in sessions]
    assert value(table, "estimate", "fano_factor", "V4") == pytest.approx(np.mean(values), rel=1e-12)
    assert table.levels.values.tolist() == ["subject, stimulus", "unit, stimulus"]
    assert table.n_sessions.values.tolist() == [6, 1] and table.n_units.values.tolist() == [48, 8]
    mean = np.mean(
        [statistics.signal_spectrum(s, method="cvpca", n_splits=200, rng=0).values for s in sessions], axis=0
    )
    np.testing.assert_allclose(table.spectrum.sel(system="V4").values, mean, atol=0.1 * mean[0])


def test_where_repeats_come_from_is_named() -> None:
    layer = counts().assign_coords(layer=("unit", ["conv1"] * 8))
    systems = {
        "V4": counts(),
        "sessions": [counts(), counts(seed=1)],
        "unknown": layer,
        **{origin: layer.assign_attrs(repeats_from=origin) for origin in ("modifications", "injected noise")},
    }
    table = compare(systems, statistics=["fano_factor"], n_resamples=2, rng=0)
    expected = ["trials", "trials", "not stated", "modifications", "injected noise"]
    assert table.repeats_from.values.tolist() == expected


def test_a_statistic_of_ones_own_stands_beside_the_others() -> None:
    """It gets its settings, and a generator that starts alike each time."""
    seen = []

    def largest(responses: xr.DataArray, settings: statistics.Halves, rng: np.random.Generator) -> float:
        seen.append((settings.n_splits, rng.random()))
        return float(np.nanmax(responses.values))

    own = Statistic(largest, "largest", "largest count", over="unit", settings=statistics.Halves())
    options = {"statistics": ["fano_factor", own], "n_resamples": 2, "n_splits": 7, "rng": 0}
    table = compare({"it": counts()}, **options)
    assert value(table, "estimate", "largest", "it") == counts().values.max()
    assert table.label.values.tolist() == ["Fano factor (mean over units)", "largest count (mean over units)"]
    assert len(set(seen)) == 1 and seen[0][0] == 7
    assert "spectrum" not in table and "exponent_ranks" not in table.attrs
    alone = intervals(counts(), [own], n_resamples=2, n_splits=7, rng=np.random.default_rng(0).spawn(2)[1])
    np.testing.assert_array_equal(alone.low[0], table.low.isel(system=0)[1])


def test_a_spectrum_that_a_system_does_not_allow_is_empty() -> None:
    systems = {"a": counts(), "few": counts(n_stimuli=2)}
    table = compare(systems, statistics=["exponent"], ranks=(1, 4), match=(), n_resamples=2, rng=0)
    assert np.isnan(table.spectrum.sel(system="few")).all() and table.spectrum.sel(system="a").notnull().all()
    assert "expected at least 3 stimuli" in value(table, "reason", "exponent", "few")


def test_bad_systems() -> None:
    options = {"statistics": ["fano_factor"], "rng": 0}
    with pytest.raises(ValueError, match="expected at least 2 resamples, got 1"):
        compare({"a": counts()}, n_resamples=1, **options)
    with pytest.raises(ValueError, match="system 'b': expected at least 2 repeats of some stimulus, got at most 1"):
        compare({"a": counts(), "b": counts(n_repeats=1)}, **options)
    with pytest.raises(ValueError, match="system 'b': session 1: expected at least 2 repeats"):
        compare({"a": counts(), "b": [counts(), counts(n_repeats=1)]}, **options)
    with pytest.raises(ValueError, match="system 'a': expected dims"):
        compare({"a": counts().rename(unit="neuroid")}, **options)
    with pytest.raises(ValueError, match="expected ranks="):
        compare({"a": counts()}, rng=0)


@pytest.mark.data
def test_v4() -> None:
    from neurovar_datasets import cowley2023_v4

    cortex = cowley2023_v4.load(session="210325")
    table = compare({"V4": cortex}, statistics=SIX, ranks=(2, 30), n_resamples=5, rng=0)
    estimate, error = (table[name].isel(system=0) for name in ("estimate", "standard_error"))
    assert table.reason.values.tolist() == [[""]] * 6
    assert table.levels.item() == "unit, stimulus" and table.repeats_from.item() == "trials"
    assert float(estimate.sel(statistic="noise_correlation")) == pytest.approx(0.030, abs=0.003)
    assert float(estimate.sel(statistic="fano_factor")) == pytest.approx(0.89, abs=0.02)
    assert float(estimate.sel(statistic="effective_dimensionality")) == pytest.approx(29, abs=1.5)
    assert float(error.sel(statistic="noise_correlation")) < 0.01
    fixed = intervals(cortex, ["noise_correlation"], levels=("stimulus",), n_resamples=5, rng=0)
    assert fixed.standard_error.item() < float(error.sel(statistic="noise_correlation"))
