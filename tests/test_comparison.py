"""The table of statistics: its estimates, intervals and reasons."""

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import comparison, estimation, simulation, spectra
from neurovar.comparison import STATISTICS, compare


def counts(n_stimuli: int = 60, n_repeats: int = 4, n_units: int = 8, seed: int = 0) -> xr.DataArray:
    return simulation.population(n_stimuli=n_stimuli, n_repeats=n_repeats, n_units=n_units, counts=True, rng=seed)


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    systems = {"V4": counts(), "layer": counts(n_units=6, n_repeats=3, seed=1).assign_attrs(units="activation")}
    return compare(systems, ranks=(1, 4), n_bootstrap=20, n_splits=3, rng=0)


def value(table: xr.Dataset, name: str, statistic: str, system: str) -> float:
    return table[name].sel(statistic=statistic, system=system).item()


def test_the_form(table: xr.Dataset) -> None:
    assert dict(table.sizes) == {"statistic": 6, "system": 2, "rank": 8}
    assert table.statistic.values.tolist() == list(STATISTICS)
    assert table.system.values.tolist() == ["V4", "layer"]
    assert table.n_units.values.tolist() == [8, 6]
    assert table.n_stimuli.values.tolist() == [60, 60]
    assert table.n_repeats.values.tolist() == [4, 3]
    assert table.attrs["exponent_ranks"] == [1, 4]
    assert table.attrs["n_bootstrap"] == 20 and table.attrs["n_splits"] == 3
    assert np.isnan(table.spectrum.sel(system="layer").values).tolist() == [False] * 6 + [True] * 2


def test_what_needs_no_random_numbers_is_exact(table: xr.Dataset) -> None:
    da = counts()
    expected = {
        "noise_correlation": reference.zscored_noise_correlation(da.values)[np.triu_indices(8, 1)].mean(),
        "effective_dimensionality": reference.effective_dimensionality(reference.noise_covariance(da.values)[0]),
        "fano_factor": reference.fano_factor(da.values).mean(),
    }
    for statistic, number in expected.items():
        assert value(table, "estimate", statistic, "V4") == pytest.approx(number, rel=1e-10)


def test_what_needs_splits_is_within_their_spread(table: xr.Dataset) -> None:
    da = counts()
    expected = {
        "signal_correlation": estimation.signal_correlation(da, n_splits=100, rng=1).values[np.triu_indices(8, 1)],
        "reliability": estimation.reliability(da, n_splits=100, rng=1).values,
    }
    for statistic, numbers in expected.items():
        assert value(table, "estimate", statistic, "V4") == pytest.approx(numbers.mean(), abs=0.03)


def test_the_exponent_is_that_of_the_spectrum(table: xr.Dataset) -> None:
    for system in ("V4", "layer"):
        exponent, _ = reference.public_power_law(table.spectrum.sel(system=system).values, 1, 4)
        assert value(table, "estimate", "exponent", system) == pytest.approx(exponent, rel=1e-10)
    full = spectra.signal_spectrum(counts(), method="cvpca", n_splits=100, rng=1).values
    np.testing.assert_allclose(table.spectrum.sel(system="V4").values, full, atol=0.15 * full[0])


def test_intervals_are_symmetric_and_have_width(table: xr.Dataset) -> None:
    defined = table.estimate.notnull().values
    assert defined.sum() == 11
    assert ((table.high - table.low).values[defined] > 0).all()
    np.testing.assert_allclose(((table.high + table.low) / 2).values[defined], table.estimate.values[defined])


def test_the_bootstrap_samples_behind_an_interval_are_counted(table: xr.Dataset) -> None:
    assert value(table, "n_replicates", "noise_correlation", "V4") == 20
    assert value(table, "n_replicates", "fano_factor", "layer") == 0
    weak = simulation.population(n_stimuli=15, n_repeats=4, n_units=8, exponent=2, rng=0)
    few = compare({"weak": weak}, ranks=(1, 4), n_bootstrap=20, n_splits=1, rng=0)
    samples = value(few, "n_replicates", "exponent", "weak")
    assert value(few, "reason", "exponent", "weak") == ""
    assert 1 < samples < 20
    assert value(few, "low", "exponent", "weak") < value(few, "high", "exponent", "weak")


def test_a_fano_factor_without_counts_is_undefined_and_says_why(table: xr.Dataset) -> None:
    for name in ("estimate", "low", "high"):
        assert np.isnan(value(table, name, "fano_factor", "layer"))
    assert "'spike count', got 'activation'" in value(table, "reason", "fano_factor", "layer")
    assert (table.reason.values == "").sum() == 11


def reasons(da: xr.DataArray, ranks: tuple[int, int] = (1, 3)) -> dict[str, str]:
    table = compare({"it": da}, ranks=ranks, n_bootstrap=3, n_splits=2, rng=0)
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
    systems = {"a": counts(), "b": counts(seed=1)}
    first, again, parallel = (
        compare(systems, ranks=(1, 4), n_bootstrap=4, n_splits=2, rng=0, n_jobs=n_jobs) for n_jobs in (1, 1, 2)
    )
    xr.testing.assert_identical(first, again)
    xr.testing.assert_identical(first, parallel)
    other = compare(systems, ranks=(1, 4), n_bootstrap=4, n_splits=2, rng=1)
    assert not np.array_equal(first.low.values, other.low.values)


def test_one_system_does_not_depend_on_the_next() -> None:
    options = {"ranks": (1, 4), "n_bootstrap": 3, "n_splits": 2, "rng": 0}
    both = compare({"a": counts(), "b": counts(seed=1)}, **options)
    alone = compare({"a": counts()}, **options)
    xr.testing.assert_identical(both.sel(system=["a"]), alone)


def test_progress_is_told_once_a_system() -> None:
    seen: list[int] = []
    systems = {"a": counts(), "b": counts(seed=1)}
    compare(systems, ranks=(1, 4), n_bootstrap=2, n_splits=1, rng=0, advance=seen.append)
    assert seen == [1, 1]


def test_unequal_repeats_and_the_bootstrap() -> None:
    da = counts(n_stimuli=80)
    da.values[::3, 2:] = np.nan
    da.values[1::3, 3:] = np.nan
    table = compare({"it": da}, ranks=(1, 4), n_bootstrap=10, n_splits=2, rng=0)
    assert table.reason.values.tolist() == [[""]] * 6
    assert np.isfinite(table.low.values).all() and np.isfinite(table.high.values).all()


def test_coverage() -> None:
    """40 recordings of one population: 95 % intervals hold the truth at least 33 times (chance 0.01 of fewer).

    Poisson counts: noise correlation 0 and Fano factor 1 are known; the rest is taken from all 40 recordings at once,
    the exponent and the dimensionality, whose bias depends on the number of stimuli, from the mean of the 40.
    """
    n, n_stimuli = 40, 60
    whole = counts(n_stimuli=n * n_stimuli, n_units=6, seed=3)
    parts = [whole.isel(stimulus=slice(i * n_stimuli, (i + 1) * n_stimuli)) for i in range(n)]
    table = compare(dict(zip(map(str, range(n)), parts)), ranks=(1, 4), n_bootstrap=30, n_splits=3, rng=0)
    reference_table = compare({"whole": whole}, ranks=(1, 4), n_bootstrap=2, n_splits=3, rng=0)
    truth = reference_table.estimate.isel(system=0, drop=True).copy()
    truth.loc["noise_correlation"], truth.loc["fano_factor"] = 0, 1
    for statistic in ("effective_dimensionality", "exponent"):
        truth.loc[statistic] = float(table.estimate.sel(statistic=statistic).mean())
    held = ((table.low <= truth) & (truth <= table.high)).sum("system")
    assert dict(zip(STATISTICS, held.values >= 33)) == dict.fromkeys(STATISTICS, True), held.values
    error = ((table.high - table.low) / (2 * 1.96)).mean("system")
    spread = table.estimate.std("system", ddof=1)
    np.testing.assert_array_less(error.values, 1.6 * spread.values, "intervals are not much too wide")


def test_bad_systems() -> None:
    with pytest.raises(ValueError, match="expected at least 2 bootstrap samples, got 1"):
        compare({"a": counts()}, ranks=(1, 4), n_bootstrap=1, rng=0)
    with pytest.raises(ValueError, match="system 'b': expected at least 2 repeats of some stimulus, got at most 1"):
        compare({"a": counts(), "b": counts(n_repeats=1)}, ranks=(1, 4), rng=0)
    with pytest.raises(ValueError, match="system 'a': expected dims"):
        compare({"a": counts().rename(unit="neuroid")}, ranks=(1, 4), rng=0)


@pytest.mark.data
def test_v4() -> None:
    from neurovar_datasets import cowley2023_v4

    table = comparison.compare({"V4": cowley2023_v4.load(session="210325")}, ranks=(2, 30), n_bootstrap=10, rng=0)
    estimate, error = (table[name].isel(system=0) for name in ("estimate", "high"))
    assert table.reason.values.tolist() == [[""]] * 6
    assert float(estimate.sel(statistic="noise_correlation")) == pytest.approx(0.030, abs=0.003)
    assert float(estimate.sel(statistic="fano_factor")) == pytest.approx(0.89, abs=0.02)
    assert float(estimate.sel(statistic="effective_dimensionality")) == pytest.approx(29, abs=1.5)
    assert float((error - estimate).sel(statistic="noise_correlation")) < 0.005
