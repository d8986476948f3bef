"""Fano factors, matched means and the scaling of variance: against loops, known answers and stated biases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import xarray as xr
from reference import counts as loops
from sklearn.linear_model import GammaRegressor

from neurovar.statistics.estimation._counts import (
    fano_factor,
    fano_factor_kernel,
    mean_matched_fano_factor,
    moments_kernel,
    variance_scaling,
    variance_scaling_kernel,
)


def as_counts(values: np.ndarray) -> xr.DataArray:
    return reference.responses(np.asarray(values, dtype=float), units="spike count")


def ragged(values: np.ndarray, *, least: int = 1, seed: int = 5) -> np.ndarray:
    """Some repeats absent, at random positions."""
    rng, values = np.random.default_rng(seed), np.asarray(values, dtype=float).copy()
    for stimulus in values:
        stimulus[rng.permutation(len(stimulus))[: len(stimulus) - rng.integers(least, len(stimulus) + 1)]] = np.nan
    return values


def modulated(shape: tuple[int, int, int], *, mean: float, gain_variance: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = mean * np.exp(0.6 * rng.normal(size=(shape[0], 1, shape[2])))
    return rng.poisson(means * rng.gamma(1 / gain_variance, gain_variance, size=shape)).astype(float)


def power_law(kind: str, exponent: float, shape: tuple[int, int], *, median: float) -> tuple[np.ndarray, ...]:
    """(stimulus, repeat, 1) with noise of variance a μ^exponent; its means, log-normal, and its variances."""
    rng = np.random.default_rng(0)
    mean = median * np.exp(0.6 * rng.normal(size=(shape[0], 1, 1)))
    variance = {1: 1, 1.5: 0.4, 2: 0.15}[exponent] * mean**exponent
    if kind == "gaussian":
        return mean + np.sqrt(variance) * rng.normal(size=(*shape, 1)), mean, variance
    return rng.gamma(mean**2 / variance, variance / mean, size=(*shape, 1)), mean, variance


SMALL = ragged(modulated((12, 5, 4), mean=3, gain_variance=0.3, seed=0))

# Fano factor


def test_fano_factor_of_groups() -> None:
    da = as_counts(SMALL).assign_coords(area=("unit", ["V1", "V2", "V1", "V2"]), half=("stimulus", [0] * 6 + [1] * 6))
    whole = fano_factor(da)
    areas = fano_factor(da, by="area")
    np.testing.assert_array_equal(areas.sel(area="V1").values, np.where(da.area == "V1", whole, np.nan))
    halves = fano_factor(da, by="half")
    np.testing.assert_allclose(halves.sel(half=1).values, reference.fano_factor(SMALL[6:]), rtol=1e-10)


def test_integers_are_counts() -> None:
    values = np.random.default_rng(0).poisson(3, size=(6, 4, 2))
    np.testing.assert_allclose(
        fano_factor(reference.responses(values, units="spike count")).values,
        reference.fano_factor(values.astype(float)),
        rtol=1e-10,
    )


# Matched means


def test_matched_fano_factor_is_the_mean_over_all_choices() -> None:
    """Few enough points that the reference can try every choice; the draws come near its mean."""
    slow = modulated((3, 4, 3), mean=1.2, gain_variance=0.5, seed=1)
    fast = ragged(modulated((4, 4, 2), mean=1.6, gain_variance=0.5, seed=2), least=2)
    slopes, errors = loops.matched_expectation([slow, fast], 1.0, 0.08)
    matched = mean_matched_fano_factor(
        {"slow": as_counts(slow), "fast": as_counts(fast)}, bin_width=1.0, floor=0.08, n_resamples=3000, rng=0
    )
    assert matched.attrs["n_kept"] < min(matched.n_points.values)
    np.testing.assert_allclose(matched.fano_factor.values, slopes, rtol=0.01)
    np.testing.assert_allclose(matched.standard_error.values, errors, rtol=0.01)
    assert matched.n_points.values.tolist() == [len(loops.points(slow)), len(loops.points(fast))]


@pytest.mark.parametrize("floor", [0.0, 0.08])
def test_nothing_is_thrown_away_where_means_agree_already(floor: float) -> None:
    """Then the slope is that of all points, as the toolbox computes it."""
    backwards = SMALL[::-1]
    matched = mean_matched_fano_factor(
        {"a": as_counts(SMALL), "b": as_counts(backwards)}, bin_width=0.25, floor=floor, n_resamples=1, rng=0
    )
    slope, error = loops.toolbox_slope(loops.points(SMALL), floor)
    assert matched.attrs["n_kept"] == len(loops.points(SMALL))
    names = ["fano_factor", "standard_error", "unmatched"]
    np.testing.assert_allclose(matched[names].to_array().values.T, 2 * [[slope, error, slope]], rtol=1e-10)


@pytest.mark.parametrize("floor", [0.0, 0.5])
def test_poisson_counts_have_a_matched_fano_factor_of_1(floor: float) -> None:
    """At low rates, with two repeats or few, whatever the weights: within 2 standard errors over 40 simulations."""
    result = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        slow = as_counts(rng.poisson(0.5, size=(500, 2, 4)))
        means = rng.uniform(0.2, 2, size=(500, 1, 4))
        fast = as_counts(ragged(rng.poisson(means, size=(500, 5, 4)), least=2, seed=seed))
        matched = mean_matched_fano_factor(
            {"slow": slow, "fast": fast}, bin_width=0.25, floor=floor, n_resamples=2, rng=seed
        )
        result.append(matched.fano_factor.values)
    error = np.std(result, axis=0, ddof=1) / np.sqrt(40)
    assert (np.abs(np.mean(result, axis=0) - 1) < 2 * error).all() and error.max() < 0.008


def test_systems_that_differ_only_in_rate_have_one_matched_fano_factor() -> None:
    """Gain noise of variance 0.2 and 5 repeats: E[v | m] = m (1 + 0.2 m) / (1 + 0.2/5)."""
    slow, fast = (modulated((300, 5, 20), mean=mean, gain_variance=0.2, seed=int(mean)) for mean in (2.0, 5.0))
    matched = mean_matched_fano_factor({"slow": as_counts(slow), "fast": as_counts(fast)}, bin_width=0.25, rng=0)
    expected = [np.mean([(1 + 0.2 * m) / 1.04 for m, _, _ in loops.points(values)]) for values in (slow, fast)]
    error = 3 / np.sqrt(matched.n_points.values)
    assert (np.abs(matched.unmatched.values - expected) < error).all()
    assert np.diff(matched.unmatched.values)[0] > 0.4
    assert abs(np.diff(matched.fano_factor.values)[0]) < 2 * float(np.hypot(*matched.standard_error.values))


def test_the_standard_error_of_independent_points() -> None:
    """Over 60 simulations: the spread of one draw's estimates, within what 60 simulations show of it."""
    tables = []
    for seed in range(60):
        pair = (as_counts(modulated((30, 6, 5), mean=m, gain_variance=0.1, seed=100 * seed + m)) for m in (3, 4))
        tables.append(mean_matched_fano_factor(dict(zip("ab", pair, strict=True)), bin_width=1, n_resamples=1, rng=0))
    spread = np.std([table.fano_factor.values for table in tables], axis=0, ddof=1)
    stated = np.mean([table.standard_error.values for table in tables], axis=0)
    np.testing.assert_allclose(spread, stated, rtol=3 / np.sqrt(2 * 59))


def test_groups_of_one_recording_as_systems() -> None:
    da = as_counts(SMALL).assign_coords(area=("unit", ["V2", "V1", "V2", "V1"]), half=("stimulus", list("ab") * 6))
    for name, dim in (("area", "unit"), ("half", "stimulus")):
        groups = {group: da.isel({dim: np.flatnonzero(da[name] == group)}) for group in np.unique(da[name])}
        by = mean_matched_fano_factor(da, by=name, bin_width=1, rng=3)
        assert by.fano_factor.dims == (name,) and by[name].values.tolist() == sorted(groups)
        expected = mean_matched_fano_factor(groups, bin_width=1, rng=3)
        np.testing.assert_array_equal(by.fano_factor.values, expected.fano_factor.values)
        assert expected.system.values.tolist() == sorted(groups)


def test_a_seed_means_one_matched_result() -> None:
    pair = {"a": as_counts(SMALL), "b": as_counts(SMALL[:, :, :2])}
    first = mean_matched_fano_factor(pair, bin_width=1, rng=0)
    xr.testing.assert_identical(first, mean_matched_fano_factor(pair, bin_width=1, rng=np.random.default_rng(0)))
    assert not first.equals(mean_matched_fano_factor(pair, bin_width=1, rng=1))


# How variance scales


def test_variance_scaling_is_the_regression() -> None:
    """Of each unit and of all, by a general optimiser; variances of 0 among the points."""
    table = variance_scaling(as_counts(SMALL).assign_coords(area=("unit", list("abcd"))))
    assert any(variance == 0 for _, variance, _ in loops.points(SMALL))
    for unit in range(4):
        chosen = loops.points(SMALL[:, :, [unit]])
        expected = loops.gamma_regression(chosen)
        np.testing.assert_allclose([table.exponent[unit], table.factor[unit]], expected, rtol=1e-5)
        assert table.n_points[unit] == len(chosen)
    population = [float(table.population_exponent), float(table.population_factor)]
    np.testing.assert_allclose(population, loops.gamma_regression(loops.points(SMALL)), rtol=1e-5)
    repeated = (~np.isnan(SMALL[:, :, 0])).sum(axis=1) > 1
    assert int(table.n_dropped) == 4 * repeated.sum() - len(loops.points(SMALL))
    assert table.area.values.tolist() == list("abcd")


def test_variance_scaling_is_scikit_learns_gamma_regression() -> None:
    values, _, _ = power_law("gamma", 1.5, (40, 6), median=4)
    mean, variance, repeats = np.transpose(loops.points(values))
    fit = GammaRegressor(alpha=0, solver="newton-cholesky", tol=1e-10)
    fit.fit(np.log(mean)[:, None], variance, sample_weight=repeats - 1)
    table = variance_scaling(reference.responses(values))
    assert float(table.exponent[0]) == pytest.approx(fit.coef_[0], rel=1e-6)
    assert float(table.factor[0]) == pytest.approx(np.exp(fit.intercept_), rel=1e-6)


@pytest.mark.parametrize(("median", "n_repeats"), [(0.5, 2), (2, 4), (10, 3)])
def test_poisson_counts_scale_with_exponent_1(median: float, n_repeats: int) -> None:
    """Within 2 standard errors over 40 simulations, though at 0.5 spikes many variances are 0."""
    rng, result = np.random.default_rng(0), []
    for _ in range(40):
        mean = median * np.exp(0.8 * rng.normal(size=(100, 1, 20)))
        values = ragged(rng.poisson(mean, size=(100, n_repeats, 20)), least=min(2, n_repeats))
        table = variance_scaling(as_counts(values))
        result.append([float(table.population_exponent), float(table.population_factor)])
    assert (np.abs(np.mean(result, axis=0) - 1) < 2 * np.std(result, axis=0, ddof=1) / np.sqrt(40)).all()
    assert np.std(result, axis=0).max() < 0.12


def first_order_bias(mean: np.ndarray, variance: np.ndarray, third: np.ndarray | float, b: float, n: int) -> float:
    """As the docstring of `variance_scaling` states it."""
    x = np.log(mean) - np.log(mean).mean()
    c, d = third / (n * mean * variance), variance / (n * mean**2)
    return float((c - b * d + b * x * ((b + 1) * d / 2 - c)).mean() / x.var())


@pytest.mark.parametrize("exponent", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("kind", ["gaussian", "gamma"])
def test_bias_of_the_exponent(kind: str, exponent: float) -> None:
    """Of one unit and 60,000 stimuli, whose sampling error is 0.003; κ₃ = 2σ⁴/μ for gamma noise."""
    n_repeats = 10
    values, mean, variance = power_law(kind, exponent, (60_000, n_repeats), median=5)
    third = 2 * variance**2 / mean if kind == "gamma" else 0
    (result, _), _, _ = variance_scaling_kernel(values)
    stated = first_order_bias(mean, variance, third, exponent, n_repeats)
    assert result[0] - exponent == pytest.approx(stated, rel=0.15, abs=0.006)
    assert abs(stated) > 0.04 or kind == "gamma"


@pytest.mark.parametrize("fano", [0.5, 3.0])
def test_bias_of_the_exponent_of_counts(fano: float) -> None:
    """(F − 1) mean((1 − x)/(R μ)) / Var(x), of either formula."""
    rng, n_repeats = np.random.default_rng(0), 8
    size = rng.integers(10, 101, size=(100_000, 1, 1))
    mean = size / 2
    shape = (100_000, n_repeats, 1)
    binomial = fano < 1
    values = rng.binomial(size, 0.5, shape) if binomial else rng.negative_binomial(mean / (fano - 1), 1 / fano, shape)
    x = np.log(mean) - np.log(mean).mean()
    stated = (fano - 1) * ((1 - x) / (n_repeats * mean)).mean() / x.var()
    assert stated == pytest.approx(first_order_bias(mean, fano * mean, fano * (2 * fano - 1) * mean, 1, n_repeats))
    (result, factor), _, _ = variance_scaling_kernel(values)
    assert result[0] - 1 == pytest.approx(stated, rel=0.2)
    assert factor[0] == pytest.approx(fano, rel=0.25)


def test_noise_correlated_between_units_leaves_the_exponent() -> None:
    """Gaussian noise of variance μ with correlation 0.5, small beside the range of means."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(20, 400, size=(400, 1, 12))
    noise = np.sqrt(0.5) * (rng.normal(size=(400, 6, 1)) + rng.normal(size=(400, 6, 12)))
    table = variance_scaling(reference.responses(mean + np.sqrt(mean) * noise))
    assert float(table.population_exponent) == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(table.exponent.values, 1, atol=0.2)


def test_exact_power_laws() -> None:
    """Two repeats μ ± √(σ²/2), over such a range of means that Newton steps go far astray; none beyond 50."""
    exponents = np.array([-3, 0, 5, 12, 30, 60])
    mean = np.geomspace(0.02, 50, 9)[:, None] ** (1 / np.arange(1, 7))
    half = np.sqrt(3 * mean**exponents / 2)
    (result, factor), _, _ = variance_scaling_kernel(np.stack([mean - half, mean + half], axis=1))
    np.testing.assert_allclose(result[:5], exponents[:5], atol=1e-4)
    np.testing.assert_allclose(factor[:5], 3, rtol=1e-3)
    assert np.isnan(result[5])


def test_units_without_an_exponent() -> None:
    """Silent; without noise but for rounding; without a range of means but for it; noisy at one end; two points."""
    values = np.repeat(np.random.default_rng(0).poisson(5, size=(6, 3, 1)), 6, axis=2).astype(float)
    values[:, :, 1] = 0
    values[:, :, 2] = 0.1 * np.arange(1, 7)[:, None]
    values[:, :, 3] = np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])[[0, 1, 0, 1, 0, 1]]
    values[:, :, 4] = np.arange(1, 7)[:, None]
    values[0, :, 4] = [0.5, 1, 1.5]
    values[2:, :, 5] = 0
    mean, variance, _ = moments_kernel(values)
    assert 0 < variance[:, 2].max() < 1e-30 and 0 < np.ptp(mean[:, 3]) < 1e-15, "rounding"
    table = variance_scaling(reference.responses(values))
    for result in (table.exponent, table.factor):
        assert np.isfinite(result.values).tolist() == [True] + 5 * [False]
    assert table.n_points.values.tolist() == [6, 0, 6, 6, 6, 2] and int(table.n_dropped) == 10


def test_one_stimulus_has_a_population_exponent() -> None:
    values = np.random.default_rng(0).poisson(np.linspace(1, 30, 200), size=(1, 50, 200))
    table = variance_scaling(as_counts(values))
    assert float(table.population_exponent) == pytest.approx(1, abs=0.05)
    assert np.isnan(table.exponent).all()


def test_variance_scaling_of_groups() -> None:
    da = as_counts(SMALL).assign_coords(area=("unit", ["V1", "V2", "V1", "V2"]))
    table = variance_scaling(da, by="area")
    alone = variance_scaling(da.isel(unit=[1, 3]))
    assert table.population_exponent.dims == ("area",) and table.exponent.dims == ("area", "unit")
    assert float(table.population_exponent.sel(area="V2")) == pytest.approx(float(alone.population_exponent))
    np.testing.assert_allclose(table.exponent.sel(area="V2").values[[1, 3]], alone.exponent.values)
    assert table.n_dropped.sel(area="V2") == alone.n_dropped


# Kernels

KERNELS: list[Callable] = [
    fano_factor_kernel,
    lambda values: moments_kernel(values)[1],
    lambda values: variance_scaling_kernel(values)[0][0],
    lambda values: variance_scaling_kernel(values)[1][1],
]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_of_torch_and_numpy_agree(kernel: Callable, dtype: str) -> None:
    import torch

    values = SMALL.astype(dtype)
    got, expected = kernel(torch.from_numpy(values)), kernel(values)
    assert isinstance(got, torch.Tensor) and str(got.dtype) == f"torch.{dtype}" and expected.dtype == dtype
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9 if dtype == "float64" else 1e-4)
    np.testing.assert_allclose(expected, kernel(SMALL), rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_on_the_gpu(kernel: Callable) -> None:
    import torch

    got = kernel(torch.from_numpy(SMALL).cuda())
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu().numpy(), kernel(SMALL), rtol=1e-9)


# Bad input

GOOD = as_counts(SMALL)
HALF = GOOD.copy(data=SMALL + 0.5)
ONCE = GOOD.isel(repeat=[0]).dropna("stimulus")


@pytest.mark.parametrize(
    "estimate",
    [fano_factor, lambda da: mean_matched_fano_factor({"good": GOOD, "other": da}, bin_width=1, rng=0)],
)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (HALF, r"expected whole numbers of spikes, got \d+ others \(the first: \d+\.5\)"),
        (GOOD.assign_attrs(units="dF/F"), "= 'spike count', got 'dF/F'"),
        (GOOD.copy(data=-SMALL), "expected spike counts, got negative values"),
        (ONCE, "expected at least 2 repeats of some stimulus, got at most 1"),
    ],
)
def test_responses_that_are_no_repeated_counts(estimate: Callable, bad: xr.DataArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(bad)


def test_what_matching_needs() -> None:
    def match(*args: Any, **options: Any) -> None:
        mean_matched_fano_factor(*args, **{"bin_width": 1, "rng": 0} | options)

    with pytest.raises(ValueError, match="other: expected at least 2 repeats"):
        match({"good": GOOD, "other": ONCE})
    with pytest.raises(ValueError, match="other: expected spikes, got none"):
        match({"good": GOOD, "other": GOOD.copy(data=np.where(np.isnan(SMALL), np.nan, 0))})
    with pytest.raises(ValueError, match="expected at least 2 systems whose means can be matched, got 1"):
        match({"good": GOOD})
    for args, options in (((GOOD,), {}), (({"a": GOOD, "b": GOOD},), {"by": "area"})):
        with pytest.raises(ValueError, match="expected a mapping of systems to responses, or one DataArray and by="):
            match(*args, **options)
    with pytest.raises(ValueError, match="expected by= a coordinate of unit or stimulus"):
        match(GOOD, by="area")
    with pytest.raises(ValueError, match="expected at least 5 points with means in common, got 0"):
        match({"good": GOOD, "other": GOOD.copy(data=SMALL + 100)})
    for option in ("bin_width", "floor", "n_resamples"):
        with pytest.raises(ValueError, match="expected a positive bin_width, no negative floor and at least"):
            match({"a": GOOD, "b": GOOD}, **{option: -1})


def test_what_variance_scaling_needs() -> None:
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus"):
        variance_scaling(ONCE)
    expected = "expected at least 3 points of a unit and stimulus with positive, different means and with noise, got no"
    for values in (np.ones((5, 3, 2)), -SMALL, SMALL[:2, :, :1] + np.arange(5)[:, None]):
        with pytest.raises(ValueError, match=expected):
            variance_scaling(reference.responses(values))
    with pytest.raises(ValueError, match="area V2: expected at least 3 points"):
        silent = reference.responses(np.concatenate([SMALL, 0 * SMALL], axis=2))
        variance_scaling(silent.assign_coords(area=("unit", ["V1"] * 4 + ["V2"] * 4)), by="area")


# A real recording


@pytest.mark.data
def test_v4() -> None:
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    assert float(variance_scaling(v4).population_exponent) == pytest.approx(0.9, abs=0.1)
    rate = v4.mean(("stimulus", "repeat"))
    grouped = v4.assign_coords(rate=("unit", np.where(rate > rate.median(), "high", "low")))
    matched = mean_matched_fano_factor(grouped, by="rate", bin_width=0.25, floor=0.1, rng=0)
    assert (np.abs(matched.fano_factor - 0.9) < 0.1).all()
