"""Signal covariance and correlation in their exact form: references, recovery, stated biases, bad input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import signal as reference_signal

from neurovar.statistics.estimation._signal import (
    signal_correlation,
    signal_correlation_kernel,
    signal_covariance,
    signal_covariance_kernel,
)

NOISES = ["isotropic", "low_rank", "signal_aligned"]
N_UNITS = 6
KERNELS: dict[str, Callable[[Any], Any]] = {
    "covariance": signal_covariance_kernel,
    "correlation": signal_correlation_kernel,
    "covariance of halves": lambda values: signal_covariance_kernel(values, 3, np.random.default_rng(0)),
    "correlation of halves": lambda values: signal_correlation_kernel(values, 3, np.random.default_rng(0)),
}


def noise_matrix(kind: str) -> np.ndarray:
    """Its variance is about that of the signal; "signal_aligned" lies along the signal's largest axis."""
    if kind == "isotropic":
        return np.eye(N_UNITS)
    if kind == "low_rank":
        return reference.noise_matrix("structured", N_UNITS)
    axis = np.linalg.eigh(reference.signal_matrix(N_UNITS))[1][:, -1:]
    return 4 * axis @ axis.T + 0.1 * np.eye(N_UNITS)


@pytest.fixture(params=["isotropic", "structured"])
def small(request: pytest.FixtureRequest) -> xr.DataArray:
    """Unequal repeats, and some stimuli shown once."""
    return reference.recording(request.param, least_repeats=1, n_units=N_UNITS)


# References


def test_the_exact_form_is_the_loops(small: xr.DataArray) -> None:
    counts = [len(repeats) for repeats in reference.trials(small.values)]
    assert 1 in counts and len(set(counts)) > 3
    got = signal_covariance(small)
    np.testing.assert_allclose(got.values, reference_signal.means_less_noise(small.values), atol=1e-12)
    np.testing.assert_allclose(got.values, reference_signal.u_statistic(small.values), atol=1e-12)
    assert got.attrs == {"dof": sum(count > 1 for count in counts) - 1, "units": "(arbitrary)²"}


def test_it_is_the_mean_over_every_choice_of_two_repeats_of_each_stimulus() -> None:
    values = reference.recording("structured", n_units=3, n_stimuli=4, n_repeats=3, least_repeats=2).values
    np.testing.assert_allclose(signal_covariance_kernel(values), reference_signal.every_choice(values), atol=1e-12)


def test_random_halves_average_to_it(small: xr.DataArray) -> None:
    rng = np.random.default_rng(1)
    splits = np.array([signal_covariance_kernel(small.values, 1, rng) for _ in range(2000)])
    error = splits.mean(axis=0) - signal_covariance(small).values
    assert np.abs(error / (splits.std(axis=0) / len(splits) ** 0.5)).max() < 3.5
    averaged = signal_covariance_kernel(small.values, 2000, np.random.default_rng(1))
    np.testing.assert_allclose(splits.mean(axis=0), averaged, atol=1e-12)


@pytest.mark.parametrize("rng", [None, 0])
def test_correlations_are_of_the_covariance(small: xr.DataArray, rng: int | None) -> None:
    covariance = signal_covariance(small, rng=rng).values
    tuned = np.diag(covariance) > 0
    got = signal_correlation(small, rng=rng).values
    expected = reference.correlation(covariance[np.ix_(tuned, tuned)])
    np.testing.assert_allclose(got[np.ix_(tuned, tuned)], expected, atol=1e-12)
    assert np.isnan(got[~tuned]).all() and np.isnan(got[:, ~tuned]).all()


def test_a_mean_of_100_000_costs_no_accuracy_in_float32() -> None:
    values = reference.recording("structured", n_units=N_UNITS).values
    shifted = (values.astype(np.float32) + np.float32(2**17)).astype(np.float32)
    expected = signal_covariance_kernel(shifted.astype(float))
    np.testing.assert_allclose(signal_covariance_kernel(shifted), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("rng", [None, 0])
def test_a_constant_unit_has_no_signal_whatever_the_rounding(rng: int | None) -> None:
    """The means of two and of three times 0.1 are not the same number."""
    da = reference.recording("isotropic", n_units=N_UNITS)
    da.values[..., 2] = np.where(np.isnan(da.values[..., 2]), np.nan, 0.1)
    assert (signal_covariance(da, rng=rng).values[2] == 0).all()
    got = signal_correlation(da, rng=rng).values
    assert np.isnan(got[2]).all() and np.isnan(np.diag(got)).sum() == 1


@pytest.mark.parametrize("estimate", [signal_covariance, signal_correlation])
def test_groups(estimate: Callable[..., xr.DataArray], small: xr.DataArray) -> None:
    area, half = ["V1"] * 4 + ["V2"] * 2, np.repeat(["a", "b"], [8, 7])
    da = small.assign_coords(area=("unit", area), half=("stimulus", half))
    of_units = estimate(da, by="area")
    expected = estimate(small.isel(unit=slice(4, 6))).values
    np.testing.assert_array_equal(of_units.sel(area="V2").values[4:, 4:], expected)
    assert np.isnan(of_units.sel(area="V2").values[:4]).all()
    of_stimuli = estimate(da, by="half", rng=3).sel(half="b").values
    np.testing.assert_array_equal(of_stimuli, estimate(small.isel(stimulus=slice(8, 15)), rng=3).values)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_torch_gives_what_numpy_gives(kernel: Callable[[Any], Any], small: xr.DataArray) -> None:
    before = small.values.copy()
    expected, got = kernel(small.values), kernel(torch.from_numpy(small.values))
    assert isinstance(got, torch.Tensor) and isinstance(expected, np.ndarray)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    np.testing.assert_array_equal(small.values, before)
    single = kernel(small.values.astype(np.float32))
    assert single.dtype == np.float32 and kernel(torch.from_numpy(before.astype(np.float32))).dtype == torch.float32
    np.testing.assert_allclose(single, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_integers_are_numbers(kernel: Callable[[Any], Any]) -> None:
    counts = np.random.default_rng(0).poisson(3 * np.arange(1, 9)[:, None, None], size=(8, 4, 3))
    np.testing.assert_array_equal(kernel(counts), kernel(counts.astype(float)))


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_cuda_gives_what_numpy_gives(kernel: Callable[[Any], Any], small: xr.DataArray) -> None:
    got = kernel(torch.from_numpy(small.values).cuda())
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu().numpy(), kernel(small.values), atol=1e-10)


# Recovery


@pytest.mark.parametrize("n_splits", [None, 2])
@pytest.mark.parametrize("kind", NOISES)
def test_the_covariance_has_no_bias(kind: str, n_splits: int | None) -> None:
    """2 to 5 repeats of 12 stimuli whose noise differs: every entry, and sums of them within 2 standard errors."""
    rng = np.random.default_rng(2)
    tuning = rng.multivariate_normal(np.zeros(N_UNITS), reference.signal_matrix(N_UNITS), size=12)
    n_repeats, loudness = np.resize([2, 3, 5], 12), rng.uniform(0.3, 2, 12)
    root = np.linalg.cholesky(noise_matrix(kind))
    absent = np.arange(5) >= n_repeats[:, None]
    got = []
    for _ in range(1500):
        noise = rng.standard_normal((12, 5, N_UNITS)) @ root.T
        values = tuning[:, None] + loudness[:, None, None] * noise
        values[absent] = np.nan
        splitting = () if n_splits is None else (n_splits, rng)
        got.append(signal_covariance_kernel(values, *splitting))
    truth, top = np.cov(tuning.T), np.linalg.eigh(reference.signal_matrix(N_UNITS))[1][:, -1]
    error = np.array(got) - truth

    def z(statistic: np.ndarray) -> np.ndarray:
        return statistic.mean(axis=0) / (statistic.std(axis=0, ddof=1) / len(statistic) ** 0.5)

    assert np.abs(z(error)).max() < 3.5
    sums = {"trace": np.trace(error, axis1=1, axis2=2), "sum": error.sum(axis=(1, 2)), "top axis": error @ top @ top}
    assert {name: abs(float(z(s))) for name, s in sums.items() if abs(z(s)) > 2} == {}


def test_means_alone_would_be_biased() -> None:
    """The covariance of the means has the noise in it: what the test above can see."""
    noise = np.full((2, 2), 0.9) + 0.1 * np.eye(2)
    da = reference.simulate(signal=np.eye(2), noise=noise, n_stimuli=4000, n_repeats=2, seed=0)
    assert np.cov(da.values.mean(axis=1).T)[0, 1] > 0.35
    assert abs(signal_covariance(da).values[0, 1]) < 0.06


@pytest.mark.parametrize("n_repeats", [2, 4])
@pytest.mark.parametrize(("t", "n_stimuli"), [(1.0, 25), (2.0, 120)])
def test_bias_of_the_correlation(t: float, n_stimuli: int, n_repeats: int) -> None:
    """ρ (3t²/2 − 2t + ρ²/2 + 3(t − 1)²/(2(R − 1))) / (n − 1), from many independent pairs of units."""
    rho, n_pairs, got = 0.6, 50, []
    rng, root = np.random.default_rng(1), np.linalg.cholesky([[1, rho], [rho, 1]])
    for _ in range(160):
        tuning = (rng.standard_normal((n_stimuli, n_pairs, 2)) @ root.T).reshape(n_stimuli, 1, -1)
        noise = rng.standard_normal((n_stimuli, n_repeats, 2 * n_pairs)) * np.sqrt((t - 1) * n_repeats)
        got.append(np.diag(signal_correlation_kernel(tuning + noise), 1)[::2])
    undefined, error = np.isnan(got).mean(), np.nanstd(got) / np.size(got) ** 0.5
    bias = rho * (1.5 * t**2 - 2 * t + rho**2 / 2 + 1.5 * (t - 1) ** 2 / (n_repeats - 1)) / (n_stimuli - 1)
    assert undefined < 0.001 and abs(bias) > 5 * error, "the test can see the bias"
    assert np.nanmean(got) - rho == pytest.approx(bias, abs=2 * error + 0.05 * abs(bias))


# Bad input


@pytest.mark.parametrize("estimate", [signal_covariance, signal_correlation])
def test_too_few_stimuli_repeats_or_splits(estimate: Callable[..., xr.DataArray]) -> None:
    da = reference.recording("isotropic", least_repeats=None, n_repeats=2)
    with pytest.raises(ValueError, match="expected at least 3 stimuli with 2 repeats, got 2"):
        estimate(da.isel(stimulus=slice(2)))
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        estimate(da.isel(repeat=slice(1)))
    with pytest.raises(ValueError, match="expected at least 1 split, got 0"):
        estimate(da, n_splits=0, rng=0)
    with pytest.raises(ValueError, match="expected dims"):
        estimate(da.transpose("unit", "repeat", "stimulus"))
    da.values[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="got 1 infinite values"):
        estimate(da)


@pytest.mark.data
def test_v4_exact_and_random_halves_agree() -> None:
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    np.testing.assert_allclose(signal_covariance(v4), reference_signal.means_less_noise(v4.values), atol=1e-10)
    exact, split = signal_correlation(v4).values, signal_correlation(v4, rng=0, n_splits=200).values
    assert np.isfinite(exact).all() and np.abs(exact - split).max() < 0.03
