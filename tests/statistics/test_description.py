"""The description agrees with the statistics that it is made of, and says what it cannot give, and why."""

from pathlib import Path

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import statistics
from neurovar.responses import mark
from neurovar.statistics import _description as description
from neurovar.statistics import describe, summarise


@pytest.fixture
def counts() -> xr.DataArray:
    da = statistics.population(n_stimuli=30, n_repeats=6, n_units=7, counts=True, rng=0)
    values = da.values.astype(float)
    values[0, 4:] = np.nan
    values[3, 1:] = np.nan
    labelled = da.copy(data=values).assign_coords(area=("unit", list("aaabbbb")))
    return labelled.assign_attrs(license="MIT", window="0.1 s")


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of each unit weighted by repeats − 1, and Fano factor, stimulus by stimulus."""
    mean, variance, dof = np.zeros(values.shape[2]), np.zeros(values.shape[2]), 0
    fano: list[list[float]] = [[] for _ in mean]
    for trials in values:
        trials = trials[~np.isnan(trials[:, 0])]
        if len(trials) < 2:
            continue
        dof += len(trials) - 1
        mean += trials.mean(axis=0) * (len(trials) - 1)
        variance += ((trials - trials.mean(axis=0)) ** 2).sum(axis=0)
        for unit, one in enumerate(trials.T):
            if one.mean() > 0:
                fano[unit].append(one.var(ddof=1) / one.mean())
    return mean / dof, variance / dof, np.array([np.mean(ratios) for ratios in fano])


def test_units_have_their_moments(counts: xr.DataArray) -> None:
    results = describe(counts, rng=0)
    mean, variance, fano = moments(counts.values)
    np.testing.assert_allclose(results["mean_response"], mean)
    np.testing.assert_allclose(results["noise_variance"], variance)
    np.testing.assert_allclose(results["fano_factor"], fano)
    assert results["n_repeats"].values.tolist() == [4, 6, 6, 1, *[6] * 26]
    assert results.attrs["n_trials"] == 4 + 6 + 6 + 1 + 6 * 26
    assert results["area"].values.tolist() == list("aaabbbb")
    said = {"units": "spike count", "license": "MIT", "window": "0.1 s", "rng": "0", "pairs": "all", "dropped": "none"}
    assert said.items() <= results.attrs.items()
    assert results.attrs["time"] == "one value a trial"


def test_pairs_are_those_of_the_matrices(counts: xr.DataArray) -> None:
    results = describe(counts, rng=0)
    matrix = statistics.noise_correlation(counts).values
    first, second = results["unit_1"].values, results["unit_2"].values
    assert sorted(zip(first.tolist(), second.tolist())) == [(i, j) for i in range(7) for j in range(i + 1, 7)]
    np.testing.assert_allclose(results["noise_correlation"], [matrix[i, j] for i, j in zip(first, second)])
    assert results["effective_dimensionality"].item() == pytest.approx(statistics.effective_dimensionality(counts))
    assert all(results[name].attrs["reason"] == "" for name in description.DESCRIBED)


def test_the_same_rng_gives_the_same_numbers(counts: xr.DataArray) -> None:
    first, second, other = describe(counts, rng=0), describe(counts, rng=0), describe(counts, rng=1)
    np.testing.assert_array_equal(first["reliability"], second["reliability"])
    np.testing.assert_array_equal(first["signal_correlation"], second["signal_correlation"])
    assert (first["reliability"] != other["reliability"]).any()


def test_units_that_never_vary_are_dropped_and_named(counts: xr.DataArray) -> None:
    values = counts.values.copy()
    values[:, :, [1, 4]] = np.where(np.isnan(values[:, :, [1, 4]]), np.nan, 2)
    results = describe(counts.copy(data=values), rng=0)
    assert results.attrs["dropped"] == "never vary between repeats: 1, 4"
    assert results.attrs["n_recorded"] == 7
    assert results["unit_number"].values.tolist() == [0, 2, 3, 5, 6]
    assert set(results["unit_1"].values) | set(results["unit_2"].values) == {0, 2, 3, 5, 6}
    np.testing.assert_allclose(results["fano_factor"], moments(values[:, :, [0, 2, 3, 5, 6]])[2])


def test_what_the_source_dropped_is_passed_on(counts: xr.DataArray) -> None:
    assert describe(counts, rng=0).attrs["dropped_before"] == "none known"
    given = counts.assign_attrs(red_cells_dropped=12, grey_presentations_dropped=0, dropped_units=[3, 4])
    assert describe(given, rng=0).attrs["dropped_before"] == "red cells dropped: 12, dropped units: [3, 4]"


def test_what_is_refused_has_its_reason(counts: xr.DataArray) -> None:
    residual = reference.apart(mark(counts, residuals="mean subtracted"))
    results = describe(residual, rng=0)
    assert "mean subtracted" in results["fano_factor"].attrs["reason"]
    assert "recorded together" in results["noise_correlation"].attrs["reason"]
    assert "recorded together" in results["effective_dimensionality"].attrs["reason"]
    assert np.isnan(results["fano_factor"]).all() and np.isnan(results["noise_correlation"]).all()
    assert results["noise_correlation"].shape == results["signal_correlation"].shape == (21,)
    assert np.isfinite(results["signal_correlation"]).any()


def test_without_repeats_every_statistic_says_so(counts: xr.DataArray) -> None:
    table = summarise(describe(counts[:, :1], rng=0))
    assert table["reason"].str.contains("expected at least [23] repeats").all()
    assert table["mean"].isna().all() and (table["n"] == 0).all()


def test_two_repeats_are_not_zscored(counts: xr.DataArray) -> None:
    results = describe(counts[:, :2], rng=0)
    expected = statistics.noise_correlation(counts[:, :2], zscore=False).values[np.triu_indices(7, 1)]
    np.testing.assert_allclose(results["noise_correlation"], expected)
    assert results.attrs["noise_correlations"] == "pooled over stimuli, not z-scored"


def test_one_unit_has_no_pairs(counts: xr.DataArray) -> None:
    results = describe(counts[:, :, :1], rng=0)
    assert results["noise_correlation"].attrs["reason"] == "expected at least 2 units, got 1"
    assert results.sizes["pair"] == 0


def test_units_of_which_none_varies_are_kept(counts: xr.DataArray) -> None:
    results = describe(counts.copy(data=np.ones(counts.shape)), rng=0)
    assert results.sizes["unit"] == 7
    assert "zero noise variance" in results["noise_correlation"].attrs["reason"]


def test_time_is_summed_first(counts: xr.DataArray) -> None:
    binned = xr.concat([counts, 2 * counts], dim="time").transpose("stimulus", "repeat", "unit", "time")
    results = describe(binned.assign_coords(time=[0.0, 0.1]).assign_attrs(bin_width=0.1), rng=0)
    np.testing.assert_allclose(results["mean_response"], moments(3 * counts.values)[0])
    assert results.attrs["time"] == "summed over 2 time bins"


def test_pairs_of_many_units_are_a_sample(counts: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "MOST_PAIRED", 4)
    results = describe(counts, rng=0)
    matrix = statistics.noise_correlation(counts).values
    first, second = results["unit_1"].values, results["unit_2"].values
    assert results.sizes["pair"] == 6 and results.sizes["unit"] == 7
    np.testing.assert_allclose(results["noise_correlation"], matrix[first, second])
    assert results.attrs["pairs"] == "of 4 units drawn at random from 7"


def test_bad_responses_are_refused(counts: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"expected an xarray\.DataArray, got list"):
        describe([1], rng=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected dims"):
        describe(counts.transpose("unit", ...), rng=0)


def test_coordinates_that_are_called_like_a_statistic_or_have_objects(counts: xr.DataArray, tmp_path: Path) -> None:
    odd = counts.assign_coords(
        fano_factor=("unit", np.zeros(7)),
        kind=("unit", np.array(["a", 1, None, 2.5, "b", "c", "d"], dtype=object)),
        stimulus=np.array([f"s{i}" for i in range(30)], dtype=object),
    )
    results = describe(odd, rng=0)
    np.testing.assert_allclose(results["fano_factor"], moments(counts.values)[2])
    results.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    xr.testing.assert_identical(xr.load_dataset(tmp_path / "results.nc", engine="h5netcdf"), results)


def test_the_summary_has_mean_spread_and_number(counts: xr.DataArray) -> None:
    results = describe(counts, rng=0)
    results["noise_correlation"][2] = np.nan
    table = summarise(results)
    pairs = np.delete(results["noise_correlation"].values, 2)
    mean, sd, n, of, reason = table.loc["noise correlation"]
    assert (mean, sd) == pytest.approx((pairs.sum() / 20, np.sqrt(((pairs - pairs.mean()) ** 2).sum() / 19)))
    assert (n, of, reason) == (20, "pairs", "")
    one = table.loc["effective dimensionality of the noise"]
    assert one["mean"] == results["effective_dimensionality"].item() and np.isnan(one["sd"]) and one["of"] == ""


@pytest.mark.data
def test_v4_has_the_published_numbers() -> None:
    """Those of shared/data/README.md, to the last digit printed there."""
    from neurovar_datasets import cowley2023_v4

    table = summarise(describe(cowley2023_v4.load(session="210325"), rng=0))["mean"]
    assert table["noise correlation"] == pytest.approx(0.030, abs=0.0005)
    assert table["Fano factor"] == pytest.approx(0.89, abs=0.005)
    assert table["effective dimensionality of the noise"] == pytest.approx(29.2, abs=0.05)
