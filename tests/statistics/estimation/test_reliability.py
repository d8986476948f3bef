"""Reliability, noise ceilings and corrected r²: references, recovery, stated biases, bad input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import signal as reference_signal

from neurovar.statistics.estimation._reliability import (
    corrected_r2,
    corrected_r2_kernel,
    noise_ceiling,
    noise_ceiling_kernel,
    reliability,
    reliability_kernel,
)
from neurovar.statistics.estimation._signal import signal_covariance

N_UNITS = 6
KERNELS: dict[str, Callable[[Any], Any]] = {
    "reliability": lambda values: reliability_kernel(values, 3, np.random.default_rng(0)),
    "noise_ceiling": noise_ceiling_kernel,
    "corrected_r2": lambda values: corrected_r2_kernel(values[:, 0], values[:, 1:]),
}
ESTIMATORS: dict[str, Callable[..., xr.DataArray]] = {
    "reliability": lambda da, **options: reliability(da, rng=0, **options),
    "noise_ceiling": noise_ceiling,
    "corrected_r2": lambda da, **options: corrected_r2(predicted(da), da, **options),
}


@pytest.fixture(params=["isotropic", "structured"])
def small(request: pytest.FixtureRequest) -> xr.DataArray:
    """Unequal repeats, and some stimuli shown once."""
    return reference.recording(request.param, least_repeats=1, n_units=N_UNITS)


def predicted(da: xr.DataArray) -> xr.DataArray:
    """A prediction of every unit: its mean response with error."""
    error = np.random.default_rng(3).normal(size=(da.sizes["stimulus"], da.sizes["unit"]))
    return da.mean("repeat") + error


def repeated(da: xr.DataArray) -> np.ndarray:
    return da.notnull().isel(unit=0).sum("repeat").values > 1


def simulated(tuning: np.ndarray, n_repeats: np.ndarray, noise_sd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian responses, their noise with an own SD for each stimulus."""
    noise = rng.standard_normal((len(tuning), n_repeats.max(), tuning.shape[1]))
    values = tuning[:, None] + noise_sd[:, None, None] * noise
    values[np.arange(n_repeats.max()) >= n_repeats[:, None]] = np.nan
    return values


# References


def test_the_ceiling_is_the_loop_and_that_of_the_signal_covariance(small: xr.DataArray) -> None:
    got = noise_ceiling(small)
    np.testing.assert_allclose(got.values, reference_signal.noise_ceiling(small.values), atol=1e-12)
    means = small.values[repeated(small)]
    total = np.nanmean(means, axis=1).var(axis=0, ddof=1)
    np.testing.assert_allclose(got.values, np.sqrt(np.diag(signal_covariance(small)) / total), atol=1e-12)


def test_the_signal_power_of_schoppe_is_ours_on_average_over_the_order_of_repeats() -> None:
    values = reference.recording("structured", n_units=1, n_repeats=5, least_repeats=None).values
    rng = np.random.default_rng(0)
    powers = [reference_signal.signal_power(rng.permuted(values[..., 0], axis=1).T) for _ in range(4000)]
    ours = noise_ceiling_kernel(values)[0] ** 2 * values.mean(axis=1).var(ddof=1)
    assert np.mean(powers) == pytest.approx(ours, abs=2 * np.std(powers) / len(powers) ** 0.5)


def test_corrected_r2_is_the_loop(small: xr.DataArray) -> None:
    prediction = predicted(small)
    expected = reference_signal.corrected_r2(prediction.values[repeated(small)], small.values)
    np.testing.assert_allclose(corrected_r2(prediction, small).values, expected, atol=1e-12)


def test_corrected_r2_is_the_published_one_where_noise_is_the_same_for_all_stimuli() -> None:
    """Residuals are scaled so that every stimulus has the same sample variance."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(30, 4, 1))
    noise = (noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, ddof=1, keepdims=True)
    values = rng.normal(size=(30, 1, 1)) + noise + 0.5 * rng.normal(size=(30, 1, 1))
    prediction = values.mean(axis=1) + rng.normal(size=(30, 1))
    expected = reference_signal.published_r2_er(prediction[:, 0], values[..., 0].T)
    assert corrected_r2_kernel(prediction, values)[0] == pytest.approx(expected, rel=1e-12)


def test_the_order_of_stimuli_the_scale_and_the_offset_of_predictions_do_not_matter(small: xr.DataArray) -> None:
    prediction = predicted(small)
    expected = corrected_r2(prediction, small)
    shuffled = prediction.isel(stimulus=np.random.default_rng(0).permutation(15))
    np.testing.assert_allclose(corrected_r2(7 - 3 * shuffled, small), expected, atol=1e-12)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_units_without_reliability_are_dropped_by_name() -> None:
    """Opposite responses to the two halves of the repeats: a negative signal variance; and a constant unit."""
    da = reference.recording("isotropic", least_repeats=None, n_repeats=12, n_units=N_UNITS).assign_attrs(source="here")
    da.values[..., 4] = np.arange(15)[:, None] * np.repeat([1, -1], 6)
    da.values[..., 1] = 0.1
    da.values[3, 5:] = np.nan
    for got in (noise_ceiling(da), corrected_r2(predicted(da), da)):
        assert np.flatnonzero(np.isnan(got.values)).tolist() == [1, 4] == got.attrs["dropped_units"]
        assert got.attrs["source"] == "here"
    assert np.flatnonzero(np.isnan(reliability(da, rng=0))).tolist() == [1]
    assert noise_ceiling(da.isel(unit=[0, 2])).attrs["dropped_units"] == []


@pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS)
def test_groups_of_units(estimate: Callable[..., xr.DataArray], small: xr.DataArray) -> None:
    da = small.assign_coords(area=("unit", ["V1"] * 4 + ["V2"] * 2), label=("unit", list("abcdef")))
    got, whole = estimate(da, by="area"), estimate(da).values
    assert got.dims == ("area", "unit") and got.label.values.tolist() == list("abcdef")
    np.testing.assert_allclose(got.values, [[*whole[:4], np.nan, np.nan], [*[np.nan] * 4, *whole[4:]]], atol=1e-12)


def test_groups_of_stimuli(small: xr.DataArray) -> None:
    da, odd = small.assign_coords(half=("stimulus", np.resize(["a", "b"], 15))), slice(1, None, 2)
    prediction, part = predicted(da), da.isel(stimulus=odd)
    np.testing.assert_array_equal(noise_ceiling(da, by="half").sel(half="b"), noise_ceiling(part))
    np.testing.assert_array_equal(reliability(da, by="half", rng=0).sel(half="b"), reliability(part, rng=0))
    expected = corrected_r2(prediction.isel(stimulus=odd), part)
    np.testing.assert_array_equal(corrected_r2(prediction, da, by="half").sel(half="b"), expected)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_torch_gives_what_numpy_gives(kernel: Callable[[Any], Any]) -> None:
    values = reference.recording("structured", n_repeats=7, least_repeats=None, n_units=N_UNITS).values
    values[::2, 5:] = np.nan
    before = values.copy()
    expected, got = kernel(values), kernel(torch.from_numpy(values))
    assert isinstance(got, torch.Tensor) and isinstance(expected, np.ndarray)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    np.testing.assert_array_equal(values, before)
    single = kernel(values.astype(np.float32))
    assert single.dtype == np.float32 and kernel(torch.from_numpy(values.astype(np.float32))).dtype == torch.float32
    np.testing.assert_allclose(single, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_cuda_gives_what_numpy_gives(kernel: Callable[[Any], Any]) -> None:
    values = reference.recording("structured", least_repeats=None, n_units=N_UNITS).values
    got = kernel(torch.from_numpy(values).cuda())
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu().numpy(), kernel(values), atol=1e-10)


# Recovery


def test_the_ceiling_is_reached_by_the_noise_free_tuning_and_by_nothing_better() -> None:
    rng = np.random.default_rng(0)
    n_repeats = np.resize([2, 3, 6], 3000)
    tuning = rng.standard_normal((3000, 20))
    values = simulated(tuning, n_repeats, rng.uniform(0.5, 2, 3000), rng)
    means = np.nanmean(values, axis=1)
    reached = np.array([np.corrcoef(tuning[:, unit], means[:, unit])[0, 1] for unit in range(20)])
    error = noise_ceiling_kernel(values) - reached
    assert abs(error.mean()) < 2 * error.std(ddof=1) / 20**0.5 and np.abs(error).max() < 0.03


@pytest.mark.parametrize(("squared", "n_stimuli"), [(0.6, 50), (0.9, 10)])
def test_bias_of_the_squared_ceiling(squared: float, n_stimuli: int) -> None:
    """−2(1 − c²)/(n − 3) with 5 repeats."""
    rng = np.random.default_rng(0)
    noise = np.full(n_stimuli, np.sqrt(5 * (1 / squared - 1)))
    values = simulated(rng.standard_normal((n_stimuli, 20_000)), np.full(n_stimuli, 5), noise, rng)
    got = noise_ceiling_kernel(values) ** 2
    bias, error = -2 * (1 - squared) / (n_stimuli - 3), np.nanstd(got) / len(got) ** 0.5
    assert np.isnan(got).mean() < 5e-4 and abs(bias) > 10 * error, "the test can see the bias"
    assert np.nanmean(got) - squared == pytest.approx(bias, abs=2 * error + 0.02 * abs(bias))


def tuned_and_predicted(n_stimuli: int, r2: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A tuning of variance 1 and a prediction of that squared correlation with it, exactly."""
    axes = rng.standard_normal((n_stimuli, 2))
    tuning, other = np.linalg.qr(axes - axes.mean(axis=0))[0].T * (n_stimuli - 1) ** 0.5
    return tuning, np.sqrt(r2) * tuning + np.sqrt(1 - r2) * other


@pytest.mark.parametrize("r2", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("noise", ["independent", "along the prediction"])
def test_numerator_and_denominator_have_no_bias(r2: float, noise: str) -> None:
    """Few, unequal repeats and unequal noise: the mean weighted by the denominator, within 2 standard errors."""
    rng, n_stimuli, n_units = np.random.default_rng(0), 60, 5000
    tuning, prediction = tuned_and_predicted(n_stimuli, r2, rng)
    n_repeats = np.resize([2, 3, 4], n_stimuli)
    noise_sd = rng.uniform(0.4, 1.2, n_stimuli) * (1 if noise == "independent" else 0.3 + np.abs(prediction))
    values = simulated(np.tile(tuning[:, None], n_units), n_repeats, noise_sd, rng)
    predictions = np.tile(prediction[:, None], n_units)
    got, means = corrected_r2_kernel(predictions, values), np.nanmean(values, axis=1)
    signal = noise_ceiling_kernel(values) ** 2 * means.var(axis=0, ddof=1)
    kept = np.isfinite(got)
    assert kept.mean() > 0.995
    error = np.std(signal[kept] * (got[kept] - r2)) / signal[kept].mean() / n_units**0.5
    assert np.average(got[kept], weights=signal[kept]) == pytest.approx(r2, abs=2 * error)
    over_reliability = (prediction @ means[:, kept]) ** 2 / (n_stimuli - 1) ** 2 / signal[kept]
    assert np.average(over_reliability, weights=signal[kept]) > r2 + 2 * error, "what the correction is for"


@pytest.mark.parametrize("r2", [0.5, 1.0])
def test_bias_of_the_ratio(r2: float) -> None:
    """2r²(1/c² − 1)² R / ((R − 1)(n − 1))."""
    rng, n_stimuli, n_repeats, excess = np.random.default_rng(0), 100, 3, 0.8
    tuning, prediction = tuned_and_predicted(n_stimuli, r2, rng)
    noise_sd = np.full(n_stimuli, np.sqrt(excess * n_repeats))
    values = simulated(np.tile(tuning[:, None], 20_000), np.full(n_stimuli, n_repeats), noise_sd, rng)
    got = corrected_r2_kernel(np.tile(prediction[:, None], 20_000), values)
    bias, error = 2 * r2 * excess**2 * n_repeats / ((n_repeats - 1) * (n_stimuli - 1)), got.std() / len(got) ** 0.5
    assert bias > 4 * error
    assert got.mean() - r2 == pytest.approx(bias, abs=2 * error + 0.15 * bias)


def test_r2_over_reliability_is_too_large_as_stated() -> None:
    """By (1/c² − 1)/(n − 1) where nothing is predicted."""
    rng, n_stimuli, excess = np.random.default_rng(0), 50, 0.5
    tuning, prediction = tuned_and_predicted(n_stimuli, 0, rng)
    values = simulated(
        np.tile(tuning[:, None], 500), np.full(n_stimuli, 4), np.full(n_stimuli, np.sqrt(4 * excess)), rng
    )
    got = reference_signal.r2_over_reliability(np.tile(prediction[:, None], 500), values)
    assert got.mean() == pytest.approx(excess / (n_stimuli - 1), abs=2 * got.std() / 500**0.5)
    corrected = corrected_r2_kernel(np.tile(prediction[:, None], 500), values)
    assert abs(corrected.mean()) < 2 * corrected.std() / 500**0.5


# Bad input

DA = reference.recording("isotropic", least_repeats=None, n_repeats=3)


@pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS)
def test_too_few_stimuli_or_repeats(estimate: Callable[..., xr.DataArray]) -> None:
    with pytest.raises(ValueError, match="expected at least 3 stimuli with 2 repeats, got 2"):
        estimate(DA.isel(stimulus=slice(2)))
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        estimate(DA.isel(repeat=slice(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.values, r"expected a prediction with dims \('stimulus', 'unit'\), got ndarray"),
        (lambda p: p.T, r"got \('unit', 'stimulus'\)"),
        (lambda p: p.isel(unit=slice(3)), "expected predictions of 8 units, got 3"),
        (lambda p: p.drop_vars("stimulus"), "expected a prediction with a coordinate 'stimulus' of unique ids"),
        (lambda p: p.isel(stimulus=[0, *range(14)]), "of unique ids, got none or repeated ones"),
        (lambda p: p.isel(stimulus=slice(3, None)), r"got none for 3 of them \(s0, s1, s2\) and some for 0 others"),
        (lambda p: p.assign_coords(stimulus=[f"other{i}" for i in range(15)]), "got none for 15 .* for 15 others"),
        (lambda p: p.where(p != p[2, 2]), "expected finite predictions, got 1 that are not"),
        (lambda p: p * 0 + 0.1, r"got constant ones for 8 units \(positions \[0, 1, 2, 3, 4\]\)"),
    ],
)
def test_predictions_that_do_not_fit(change: Callable[[xr.DataArray], xr.DataArray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_r2(change(predicted(DA)), DA)


def test_predictions_of_other_units() -> None:
    da = DA.assign_coords(unit=np.arange(8))
    with pytest.raises(ValueError, match="units in the order of the responses', got other ids"):
        corrected_r2(predicted(da).assign_coords(unit=np.arange(8)[::-1]), da)


@pytest.mark.data
def test_v4_ceilings_are_what_halves_say() -> None:
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    ceiling = noise_ceiling(v4)
    assert ceiling.attrs["dropped_units"] == [] and 0.7 < float(ceiling.mean()) < 0.95
    np.testing.assert_allclose(ceiling**2, reliability(v4, rng=0, n_splits=50), atol=0.04)
    np.testing.assert_allclose(ceiling, reference_signal.noise_ceiling(v4.values), atol=1e-12)
    halves = v4.isel(repeat=slice(3)).mean("repeat"), v4.isel(repeat=slice(3, None))
    assert 0.3 < float(corrected_r2(*halves).median()) < 0.9, "of new repeats by the mean of three: their reliability"
