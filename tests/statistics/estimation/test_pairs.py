"""Pairs of units and curves over them: references, coverage of the standard errors, bad input."""

from collections.abc import Callable
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import reference
import xarray as xr
from reference import pairs as reference_pairs
from scipy.stats import t as student

from neurovar.plotting import plot_signal_rule
from neurovar.statistics import noise_correlation
from neurovar.statistics.estimation._pairs import binned, pairs
from neurovar.statistics.estimation._signal import signal_correlation

N_UNITS = 7


@pytest.fixture
def small() -> xr.DataArray:
    """Unequal repeats, some stimuli shown once, positions and labels of the units; means are 1 higher."""
    da = reference.recording("structured", least_repeats=1, n_units=N_UNITS) + 1
    rng = np.random.default_rng(0)
    labels = {"session": list("aaaabbb"), "area": ["V1", "V1", "V2", "V2", "V1", "V2", "V2"]}
    labels |= {name: rng.uniform(0, 300, N_UNITS) for name in "xy"}
    return da.assign_coords({name: ("unit", column) for name, column in labels.items()}).assign_attrs(source="here")


def table(statistic: np.ndarray, noise: np.ndarray, *, name: str = "distance") -> xr.Dataset:
    """Pairs from matrices (unit, other_unit)."""
    i, j = np.triu_indices(len(noise), 1)
    columns = {name: ("pair", statistic[i, j]), "noise_correlation": ("pair", noise[i, j])}
    return xr.Dataset(columns, coords={"unit_1": ("pair", i), "unit_2": ("pair", j)})


def drawn(
    rng: np.random.Generator, *, n_units: int = 30, unit_sd: float = 0.05, pair_sd: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of units on a square, and correlations 0.1 − 0.1·distance with an effect of each unit and each pair."""
    place, effect = rng.uniform(size=(n_units, 2)), unit_sd * rng.standard_normal(n_units)
    distance = np.linalg.norm(place[:, None] - place, axis=2)
    of_pair = np.triu(pair_sd * rng.standard_normal((n_units, n_units)), 1)
    return distance, 0.1 - 0.1 * distance + effect[:, None] + effect + of_pair + of_pair.T


# Pairs


def test_every_pair_has_its_entry_of_the_matrices(small: xr.DataArray) -> None:
    got = pairs(small, distance=("x", "y"))
    assert list(got.data_vars) == ["noise_correlation", "signal_correlation", "geometric_mean_rate", "distance"]
    assert got.sizes == {"pair": 21}
    for name, matrix in (
        ("noise_correlation", noise_correlation(small)),
        ("signal_correlation", signal_correlation(small)),
    ):
        np.testing.assert_array_equal(got[name].values, reference_pairs.upper(matrix.values))
    np.testing.assert_allclose(got.geometric_mean_rate, reference_pairs.geometric_mean_rates(small.values), atol=1e-12)
    units = [(i, j) for i in range(N_UNITS) for j in range(i + 1, N_UNITS)]
    assert list(zip(got.unit_1.values.tolist(), got.unit_2.values.tolist())) == units
    areas = [(small.area.values[i], small.area.values[j]) for i, j in units]
    assert list(zip(got.area_1.values, got.area_2.values)) == areas
    apart = [np.hypot(small.x.values[i] - small.x.values[j], small.y.values[i] - small.y.values[j]) for i, j in units]
    same = [small.session.values[i] == small.session.values[j] for i, j in units]
    np.testing.assert_allclose(got.distance, np.where(same, apart, np.nan), atol=1e-9)
    assert got.attrs == {"source": "here", "zscore": 1}
    np.testing.assert_array_equal(
        pairs(small, zscore=False).noise_correlation,
        reference_pairs.upper(noise_correlation(small, zscore=False).values),
    )


@pytest.mark.parametrize("label", ["subject", "session", "probe", "layer"])
def test_units_apart_have_no_distance(small: xr.DataArray, label: str) -> None:
    da = small.drop_vars("session").assign_coords({label: ("unit", [1, 1, 1, 1, 1, 1, 2])})
    got = pairs(da, distance=["x"])
    assert (np.isnan(got.distance) == (got.unit_2 == 6)).all()
    assert ("layer_1" in got.coords) == (label == "layer")


def test_units_of_one_area_are_not_told_apart(small: xr.DataArray) -> None:
    got = pairs(small.assign_coords(area=("unit", ["V4"] * N_UNITS)))
    assert set(got.coords) == {"unit_1", "unit_2"} and "distance" not in got


def test_a_negative_mean_has_no_geometric_mean(small: xr.DataArray) -> None:
    small.values[..., 3] -= 50
    got = pairs(small)
    expected = reference_pairs.geometric_mean_rates(small.values)
    assert np.isnan(expected).sum() == 6
    np.testing.assert_allclose(got.geometric_mean_rate, expected, atol=1e-12)


def test_one_stimulus_has_no_signal_correlation() -> None:
    got = pairs(reference.recording("structured", n_stimuli=1, n_repeats=40, least_repeats=None))
    assert "signal_correlation" not in got and np.isfinite(got.noise_correlation).all()
    with pytest.raises(ValueError, match=r"statistic 'signal_correlation', got geometric_mean_rate"):
        binned(got, against="signal_correlation", n_bins=3)


def test_float32_stays(small: xr.DataArray) -> None:
    got = pairs(small.astype(np.float32), distance=["x", "y"])
    assert {str(column.dtype) for column in got.data_vars.values()} == {"float32"}
    assert got.unit_1.dtype == got.unit_2.dtype == np.int32
    xr.testing.assert_allclose(got, pairs(small, distance=["x", "y"]), atol=1e-4)


def test_what_pairs_need(small: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="expected at least 2 units, got 1"):
        pairs(small.isel(unit=[0]))
    with pytest.raises(ValueError, match=r"expected distance= numbers of the units \(x, y\), got z, area"):
        pairs(small, distance=["x", "z", "area"])
    with pytest.raises(ValueError, match="expected at least 3 repeats of some stimulus, got at most 2"):
        pairs(small.isel(repeat=slice(2)).dropna("stimulus"))
    with pytest.raises(ValueError, match="expected units that were recorded together"):
        pairs(reference.apart(small))


# Curves


def test_bins_and_line_are_the_loops() -> None:
    """Means, numpy.polyfit, and both again without each unit."""
    distance, noise = drawn(np.random.default_rng(0), n_units=9)
    given, edges = table(distance, noise), [0.1, 0.4, 0.6, 1.1]
    got = binned(given, against="distance", edges=edges)
    x, y, i, j = (given[name].values for name in ("distance", "noise_correlation", "unit_1", "unit_2"))
    for number, (low, high) in enumerate(pairwise(edges)):
        inside = (x >= low) & (x < high)
        independent = y[inside].var(ddof=1) / inside.sum()
        means = [got[name].values[number] for name in ("distance", "noise_correlation", "n_pairs")]
        np.testing.assert_allclose(means, [x[inside].mean(), y[inside].mean(), inside.sum()], atol=1e-12)
        error = reference_pairs.jackknife_error(
            lambda p, y=y[inside]: y[p].mean(), 9, i[inside], j[inside], independent
        )
        assert got.standard_error.values[number] == pytest.approx(error, rel=1e-10)
    inside = (x >= 0.1) & (x <= 1.1)
    x, y, i, j = x[inside], y[inside], i[inside], j[inside]
    design = np.stack([x, np.ones_like(x)], axis=1)
    residual = y - design @ np.polyfit(x, y, 1)
    bread = np.linalg.inv(design.T @ design)
    sandwich = np.diag(bread @ (design * residual[:, None] ** 2).T @ design @ bread)
    for k, name in enumerate(["slope", "intercept"]):
        assert got.attrs[name] == pytest.approx(np.polyfit(x, y, 1)[k], rel=1e-10)
        error = reference_pairs.jackknife_error(lambda p: np.polyfit(x[p], y[p], 1)[k], 9, i, j, sandwich[k])  # noqa: B023
        assert got.attrs[f"{name}_standard_error"] == pytest.approx(error, rel=1e-8)
    assert got.attrs["dropped_pairs"] == (~inside).sum() > 0
    assert got.attrs["n_units"] == 9 and got.attrs["edges"] == edges


def test_the_error_is_that_of_pairs_that_share_units() -> None:
    """To first order in the number of units: Aronow et al. 2015, by a loop over all pairs of pairs."""
    distance, noise = drawn(np.random.default_rng(0), n_units=40)
    given = table(distance, noise)
    got = binned(given, against="distance", edges=[0, 2])
    variance = reference_pairs.dyadic_variance_of_mean(
        *(given[name].values for name in ("noise_correlation", "unit_1", "unit_2"))
    )
    assert got.standard_error.item() ** 2 == pytest.approx(variance, rel=5 / 40)


def test_bins_of_equal_numbers_of_pairs() -> None:
    given = table(*drawn(np.random.default_rng(0), n_units=20))
    got = binned(given, against="distance", n_bins=7)
    assert got.n_pairs.sum() == 190 and got.n_pairs.min() >= 27 and got.n_pairs.max() <= 28
    assert got.attrs["dropped_pairs"] == 0
    edges = binned(given, against="distance", edges=got.attrs["edges"])
    xr.testing.assert_identical(got, edges)
    tied = given.assign(distance=given.distance.round())
    assert binned(tied, against="distance", n_bins=7).sizes["bin"] < 7


def test_signal_correlations_are_clipped_and_undefined_pairs_left_out() -> None:
    rng = np.random.default_rng(0)
    signal, noise = drawn(rng, n_units=8)
    signal[0, 1] = 30
    signal[2, 3], noise[4, 5] = np.nan, np.nan
    got = binned(table(signal, noise, name="signal_correlation"), against="signal_correlation", n_bins=3)
    assert got.attrs["edges"][-1] == 1 and got.attrs["dropped_pairs"] == 2 and got.n_pairs.sum() == 26
    assert binned(table(signal, noise), against="distance", n_bins=3).attrs["edges"][-1] == 30


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_bins_without_enough_pairs() -> None:
    """An empty bin has no mean; one whose pairs share a unit has no error."""
    distance, noise = drawn(np.random.default_rng(0), n_units=6)
    distance[0, 1:] = 5
    got = binned(table(distance, noise), against="distance", edges=[0, 2, 4, 6])
    assert got.n_pairs.values.tolist() == [10, 0, 5]
    assert np.isnan(got.noise_correlation.values).tolist() == [False, True, False]
    assert np.isnan(got.standard_error.values).tolist() == [False, True, True]


def test_the_order_of_pairs_does_not_matter() -> None:
    given = table(*drawn(np.random.default_rng(0)))
    shuffled = given.isel(pair=np.random.default_rng(1).permutation(given.sizes["pair"]))
    xr.testing.assert_allclose(
        binned(given, against="distance", n_bins=4), binned(shuffled, against="distance", n_bins=4), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("effects", "least", "most"),
    [({}, 0.92, 0.98), ({"unit_sd": 0.02, "pair_sd": 0.05}, 0.92, 0.98), ({"unit_sd": 0.0}, 0.93, 1.0)],
    ids=["effects of units", "of pairs and units", "of pairs"],
)
def test_coverage(effects: dict[str, float], least: float, most: float) -> None:
    """95 % intervals of three bins and of the line; as if pairs were independent they would cover half of the time."""
    rng, edges, quantile = np.random.default_rng(0), [0, 0.3, 0.6, 1.5], student.ppf(0.975, 29)
    covered, naive = [], []
    for _ in range(250):
        distance, noise = drawn(rng, **effects)
        got = binned(table(distance, noise), against="distance", edges=edges)
        error = (got.noise_correlation - (0.1 - 0.1 * got.distance)).values
        of_line = [got.attrs["slope"] + 0.1, got.attrs["intercept"] - 0.1]
        errors = [got.attrs["slope_standard_error"], got.attrs["intercept_standard_error"]]
        covered.append(np.abs([*error, *of_line]) < quantile * np.array([*got.standard_error.values, *errors]))
        which = np.digitize(distance[np.triu_indices(30, 1)], edges) - 1
        spread = [noise[np.triu_indices(30, 1)][which == b].std(ddof=1) for b in range(3)]
        naive.append(np.abs(error) < 1.96 * np.array(spread) / np.sqrt(got.n_pairs.values))
    assert least <= np.mean(covered) <= most, np.mean(covered, axis=0)
    assert (np.mean(covered, axis=0) > least - 0.03).all(), np.mean(covered, axis=0)
    if effects.get("unit_sd", 1) > 0:
        assert np.mean(naive) < 0.8, np.mean(naive)


def test_coverage_from_responses() -> None:
    """Units drawn from a population whose loadings on a shared factor differ; the truth is the population's mean."""
    rng, covered = np.random.default_rng(0), []
    means = [0.4, 0.15]
    for _ in range(150):
        loading = np.clip(rng.normal(*means, 25), 0, 0.9)
        shared, private = rng.standard_normal((4, 150, 1)), rng.standard_normal((4, 150, 25))
        values = loading * shared + np.sqrt(1 - loading**2) * private + rng.standard_normal((4, 1, 25))
        got = binned(pairs(reference.responses(values), zscore=False), against="signal_correlation", edges=[-1, 1])
        error = (
            got.noise_correlation.item() - np.clip(np.random.default_rng(9).normal(*means, 100_000), 0, 0.9).mean() ** 2
        )
        covered.append(abs(error) < student.ppf(0.975, 24) * got.standard_error.item())
    assert 0.9 <= np.mean(covered) <= 0.99, np.mean(covered)


def test_plotting_takes_it() -> None:
    signal, noise = drawn(np.random.default_rng(0))
    got = binned(table(signal, noise, name="signal_correlation"), against="signal_correlation", n_bins=5)
    figure, ax = plt.subplots()
    plot_signal_rule(got, ax)
    np.testing.assert_array_equal(ax.lines[-1].get_xdata(), got.signal_correlation)
    plt.close(figure)


GIVEN = table(*drawn(np.random.default_rng(0), n_units=6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binned(GIVEN, against="rate", n_bins=3), "expected pairs with the statistic 'rate', got distance"),
        (lambda: binned(GIVEN[["noise_correlation"]], against="distance", n_bins=3), "'distance', got none"),
        (lambda: binned(GIVEN, against="distance"), "expected either edges or n_bins, got edges None, n_bins None"),
        (lambda: binned(GIVEN, against="distance", n_bins=3, edges=[0, 1]), r"got edges \[0, 1\], n_bins 3"),
        (lambda: binned(GIVEN, against="distance", n_bins=0), "expected at least 1 bin, got 0"),
        (lambda: binned(GIVEN, against="distance", edges=[1]), r"expected two or more increasing edges, got \[1\]"),
        (lambda: binned(GIVEN, against="distance", edges=[0, 2, 1]), r"increasing edges, got \[0, 2, 1\]"),
        (lambda: binned(GIVEN, against="distance", edges=[0, np.nan]), r"increasing edges, got \[0, nan\]"),
        (lambda: binned(GIVEN, against="distance", edges=[7, 8]), "at least 4 units .* within the edges, got 0"),
        (lambda: binned(GIVEN.isel(pair=[0, 1]), against="distance", n_bins=1), "at least 4 units .*, got 3"),
        (lambda: binned(GIVEN * np.nan, against="distance", n_bins=1), "expected pairs with both statistics, got none"),
        (
            lambda: binned(GIVEN * 0, against="distance", edges=[0, 1]),
            "expected distance to differ between pairs, got 0",
        ),
        (lambda: binned(GIVEN * 0, against="distance", n_bins=2), "expected distance to differ between pairs, got 0"),
    ],
)
def test_what_curves_need(call: Callable[[], xr.Dataset], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.data
def test_v4_noise_correlation_follows_signal_correlation() -> None:
    from neurovar_datasets import cowley2023_v4

    got = binned(pairs(cowley2023_v4.load(session="210325")), against="signal_correlation", n_bins=10)
    assert got.n_pairs.sum() == 50 * 49 / 2 and (got.n_pairs >= 122).all()
    assert got.attrs["slope"] > 3 * got.attrs["slope_standard_error"]
    assert float((got.noise_correlation * got.n_pairs).sum() / 1225) == pytest.approx(0.030, abs=0.003)


@pytest.mark.data
def test_gokcen_areas_and_rates() -> None:
    from neurovar_datasets import gokcen2023_v1v2

    from neurovar import responses

    got = pairs(responses.drop_constant(gokcen2023_v1v2.load()))
    assert set(np.unique(got.area_1)) | set(np.unique(got.area_2)) == {"V1", "V2"} and "signal_correlation" not in got
    assert binned(got, against="geometric_mean_rate", n_bins=5).n_pairs.sum() == got.sizes["pair"]


@pytest.mark.parametrize("missing", [None, np.nan])
def test_units_of_unknown_origin_have_no_distance(missing: float | None, recording: xr.DataArray) -> None:
    """Nobody knows whether they come from the same session; their area is as unknown in the table as it was."""
    labels = np.array(["a", "a", missing, missing, 1, 1, "a", "b"], dtype=object)
    table = pairs(recording.assign_coords(session=("unit", labels), area=("unit", labels)), distance=["depth"])
    together = [("a", "a"), (1, 1)]
    expected = [(labels[i], labels[j]) in together for i, j in zip(table.unit_1.values, table.unit_2.values)]
    np.testing.assert_array_equal(table["distance"].notnull(), expected)
    assert table["area_1"].isnull().any()
