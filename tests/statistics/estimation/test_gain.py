"""Gain variance and shared gain: against scipy's distributions and loops, with known gains and stated biases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import xarray as xr
from reference import gain as loops

from neurovar.statistics.estimation._gain import (
    fit_modulated_poisson,
    fit_modulated_poisson_kernel,
    shared_gain,
    shared_gain_kernel,
)

N_UNITS = 12
OFF_DIAGONAL = ~np.eye(N_UNITS, dtype=bool)


def as_counts(values: np.ndarray) -> xr.DataArray:
    return reference.responses(np.asarray(values, dtype=float), units="spike count")


def small(seed: int = 0, **gain: Any) -> np.ndarray:
    """Two to five repeats of 20 stimuli, and three stimuli shown once."""
    options: dict[str, Any] = {"mean": 4, "loading": np.linspace(0.1, 0.35, 5), "private": 0.05} | gain
    values = loops.gained(np.random.default_rng(seed), (20, 5, 5), **options)
    values[:6, 3:], values[6:9, 1:], values[9:12, 2:] = np.nan, np.nan, np.nan
    return values


def gamma_gained(shape: tuple[int, int, int], *, mean: float, gain_variance: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = mean * np.exp(0.5 * rng.normal(size=(shape[0], 1, shape[2])))
    gains = rng.gamma(1 / gain_variance, gain_variance, size=shape) if gain_variance else 1
    return rng.poisson(means * gains, size=shape).astype(float)


# One unit


def test_the_fit_maximises_the_conditional_likelihood() -> None:
    """And its values are scipy's Dirichlet-multinomial and multinomial ones; unequal repeats."""
    values = small()
    table = fit_modulated_poisson(as_counts(values).assign_coords(area=("unit", list("abcde"))))
    assert table.area.values.tolist() == list("abcde")
    positive = table.gain_variance.values > 0
    assert positive.sum() >= 3
    for unit in np.flatnonzero(positive):
        counts_of_unit, fitted = values[:, :, unit], table.isel(unit=unit)
        assert float(fitted.gain_variance) == pytest.approx(loops.gain_variance(counts_of_unit), rel=1e-4)
        expected = loops.conditional_log_likelihood(counts_of_unit, float(fitted.gain_variance))
        assert float(fitted.log_likelihood) == pytest.approx(expected, abs=1e-8)
        expected = loops.conditional_log_likelihood(counts_of_unit, 0)
        assert float(fitted.poisson_log_likelihood) == pytest.approx(expected, abs=1e-8)


def test_the_standard_error_is_the_curvature_of_the_likelihood() -> None:
    values = gamma_gained((30, 4, 1), mean=5, gain_variance=0.3)
    table = fit_modulated_poisson(as_counts(values)).isel(unit=0)
    best, step = float(table.gain_variance), 1e-4
    around = [loops.conditional_log_likelihood(values[:, :, 0], best + sign * step) for sign in (-1, 0, 1)]
    curvature = -(around[0] - 2 * around[1] + around[2]) / step**2
    assert float(table.standard_error) == pytest.approx(curvature**-0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("gain_variance", "shape", "mean"), [(0.1, (10, 10), 10), (0.5, (100, 2), 5), (0.5, (20, 5), 8), (0.5, (200, 3), 1)]
)
def test_gain_variance_is_recovered(gain_variance: float, shape: tuple[int, int], mean: float) -> None:
    """Over 400 units: bias within 2 standard errors of the stated one, at most σ²/dof; errors as large as stated."""
    table = fit_modulated_poisson_kernel(gamma_gained((*shape, 400), mean=mean, gain_variance=gain_variance))
    result, error = table[:, 0], table[:, 1]
    dof = shape[0] * (shape[1] - 1)
    assert abs(result.mean() - gain_variance) < 2 * result.std() / 20 + gain_variance / dof
    assert result.std() == pytest.approx(error.mean(), rel=3 / np.sqrt(2 * 400))


def test_the_usual_likelihood_is_biased_and_this_one_is_not() -> None:
    """Four repeats of 30 spikes: a quarter too small with a fitted mean for each of many stimuli."""
    values = gamma_gained((150, 4, 12), mean=30, gain_variance=0.3)
    usual = np.mean([loops.profile_gain_variance(values[:, :, unit]) for unit in range(12)])
    result = fit_modulated_poisson_kernel(values)[:, 0]
    assert usual / 0.3 == pytest.approx(0.75, abs=0.05)
    assert abs(result.mean() - 0.3) < 2 * result.std(ddof=1) / np.sqrt(12)


def test_poisson_units() -> None:
    """0 half of the time and 0.4 standard errors on average; twice the gain in log likelihood is ½χ²₀ + ½χ²₁."""
    result, error, fitted, poisson, share = fit_modulated_poisson_kernel(
        gamma_gained((60, 4, 1500), mean=6, gain_variance=0)
    ).T
    assert np.mean(result == 0) == pytest.approx(0.5, abs=0.04)
    assert result.mean() / error[result == 0].mean() == pytest.approx(0.4, abs=0.05)
    assert np.mean(2 * (fitted - poisson) > 2.71) == pytest.approx(0.05, abs=0.015)
    assert (fitted >= poisson).all() and (share >= 0).all() and (share[result == 0] == 0).all()


def test_the_part_of_the_variance_that_is_the_gains() -> None:
    """σ²Σμ²/(Σμ + σ²Σμ²), from the means that were simulated."""
    values = gamma_gained((400, 4, 30), mean=4, gain_variance=0.2)
    means = 4 * np.exp(0.5 * np.random.default_rng(0).normal(size=(400, 1, 30)))
    expected = 0.2 * (means**2).sum(axis=0) / (means + 0.2 * means**2).sum(axis=0)
    share = fit_modulated_poisson_kernel(values)[:, 4]
    assert abs((share - expected).mean()) < 2 * (share - expected).std() / np.sqrt(30)
    assert share.std() < 0.05


def test_units_whose_gain_cannot_be_known() -> None:
    """Silent; one spike a stimulus; all spikes of a stimulus in one trial; and two that can, one of them large."""
    values = np.zeros((4, 3, 5))
    values[:, 0, 1] = 1
    values[:, 1, 2] = 5
    values[:, :, 3] = [1, 2, 9]
    values[:, 2, 4], values[0, 1, 4] = 60, 1
    table = fit_modulated_poisson(as_counts(values))
    assert np.isnan(table.isel(unit=slice(2)).to_array()).all()
    assert np.isinf(table.gain_variance[2]) and np.isnan(table.standard_error[2])
    assert table.poisson_log_likelihood[2] == pytest.approx(loops.conditional_log_likelihood(values[:, :, 2], 0))
    assert np.isfinite(table.isel(unit=[3, 4]).to_array()).all()
    assert float(table.gain_variance[4]) == pytest.approx(loops.gain_variance(values[:, :, 4]), rel=1e-3)
    assert float(table.gain_variance[4]) > 15


def test_stimuli_shown_once_do_not_count() -> None:
    values = small()
    assert ((~np.isnan(values[:, :, 0])).sum(axis=1) == 1).sum() == 3
    kept = np.delete(values, slice(6, 9), axis=0)
    xr.testing.assert_allclose(fit_modulated_poisson(as_counts(values)), fit_modulated_poisson(as_counts(kept)))
    np.testing.assert_allclose(shared_gain_kernel(values)[0], shared_gain_kernel(kept)[0])


def test_one_stimulus_with_many_trials_and_large_counts() -> None:
    result = fit_modulated_poisson_kernel(gamma_gained((1, 400, 5), mean=50, gain_variance=0.05))
    assert (np.abs(result[:, 0] - 0.05) < 3 * result[:, 1]).all() and result[:, 1].max() < 0.008


# The population


def test_shared_gain_is_the_loop() -> None:
    values = small()
    table = shared_gain(as_counts(values).assign_coords(area=("unit", list("abcde"))))
    gained, products, noise = loops.covariance_sums(values)
    np.testing.assert_allclose(table.gain_covariance.values, gained / products, rtol=1e-10)
    off = ~np.eye(5, dtype=bool)
    assert float(table.shared_gain_variance) == pytest.approx(gained[off].sum() / products[off].sum(), rel=1e-10)
    expected = loops.loadings(gained, products, noise, np.full(5, 0.3))
    np.testing.assert_allclose(table.loading.values, expected, atol=1e-5)
    total = np.diag(gained / products)
    assert (total < 0).sum() == 1
    np.testing.assert_allclose(
        table.shared_fraction.values, np.where(total > 0, expected**2 / total, np.nan), rtol=1e-3
    )
    assert table.area.values.tolist() == list("abcde") and table.gain_covariance.dims == ("unit", "other_unit")


LOADINGS = {
    "none": np.zeros(N_UNITS),
    "equal": np.full(N_UNITS, 0.3),
    "unequal": np.linspace(0.05, 0.37, N_UNITS),
    "of both signs": np.linspace(-0.2, 0.37, N_UNITS),
    "against the strongest": np.array([-0.35] + (N_UNITS - 1) * [0.15]),
}


def simulations(loading: np.ndarray, n: int) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Private gain variance 0.04, 3 to 4 repeats of 150 stimuli."""
    results = []
    for seed in range(n):
        values = loops.gained(np.random.default_rng(seed), (150, 4, N_UNITS), mean=4, loading=loading, private=0.04)
        values[::3, 3] = np.nan
        results.append(shared_gain_kernel(values))
    return results


@pytest.mark.parametrize("kind", LOADINGS)
def test_known_gains_are_recovered(kind: str) -> None:
    """Covariances, with private variance on the diagonal, and shared variance within 2 standard errors on average."""
    loading, n = LOADINGS[kind], 60
    covariances, shared, loadings = (np.array(part) for part in zip(*simulations(loading, n), strict=True))
    truth = np.outer(loading, loading)
    expected, error = truth[OFF_DIAGONAL].mean(), shared.std(ddof=1) / np.sqrt(n)
    assert abs(shared.mean() - expected) < 2 * error + expected / 375 and error < 0.002
    z = (covariances.mean(axis=0) - truth - 0.04 * np.eye(N_UNITS)) / (covariances.std(axis=0, ddof=1) / np.sqrt(n))
    assert np.abs(z).max() < 4 and np.abs(z).mean() < 1.1
    if kind != "none":
        z = (loadings.mean(axis=0) - loading) / (loadings.std(axis=0, ddof=1) / np.sqrt(n))
        assert np.abs(z).max() < 3.5 and np.abs(loadings.mean(axis=0) - loading).max() < 0.015


def test_gains_of_units_one_by_one_are_not_shared() -> None:
    """Gain variance 0.25 in each, independent: the maximised loadings are not 0, the shared variance is."""
    values = gamma_gained((300, 5, N_UNITS), mean=5, gain_variance=0.25)
    table = shared_gain(as_counts(values))
    np.testing.assert_allclose(np.diag(table.gain_covariance), 0.25, atol=0.12)
    assert abs(float(table.shared_gain_variance)) < 0.005
    assert float(table.loading.max()) > 0.03


def test_moments_and_likelihood_agree_on_a_units_gain() -> None:
    values = gamma_gained((300, 5, 40), mean=5, gain_variance=0.2)
    moments = np.diag(shared_gain(as_counts(values)).gain_covariance)
    likelihood = fit_modulated_poisson(as_counts(values)).gain_variance.values
    difference = moments - likelihood
    assert abs(difference.mean()) < 2.5 * difference.std() / np.sqrt(40) and difference.std() < 0.03


def test_how_much_of_each_units_gain_is_shared() -> None:
    """λ² over λ² and private 0.04."""
    loading = np.linspace(0.15, 0.37, N_UNITS)
    values = loops.gained(np.random.default_rng(0), (2000, 6, N_UNITS), mean=6, loading=loading, private=0.04)
    error = shared_gain(as_counts(values)).shared_fraction.values - loading**2 / (loading**2 + 0.04)
    assert np.abs(error).max() < 0.1 and abs(error.mean()) < 0.03


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_silent_units_have_no_gain() -> None:
    values = small()
    values[:, :, 2] = np.where(np.isnan(values[:, :, 2]), np.nan, 0)
    table = shared_gain(as_counts(values))
    assert np.isnan(table.gain_covariance.values[2]).all() and np.isnan(table.gain_covariance.values[:, 2]).all()
    assert np.isnan(table.loading.values).tolist() == [False, False, True, False, False]
    others = shared_gain(as_counts(np.delete(values, 2, axis=2)))
    np.testing.assert_allclose(np.delete(table.loading.values, 2), others.loading.values, atol=1e-5)
    assert float(table.shared_gain_variance) == pytest.approx(float(others.shared_gain_variance))
    silent = shared_gain(as_counts(np.zeros((3, 2, 3))))
    assert np.isnan(silent.to_array()).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_units_that_spike_in_one_trial_only(dtype: str) -> None:
    """Their D is 0 but for rounding, alone and together, and must not be divided by."""
    values = loops.gained(np.random.default_rng(0), (30, 3, 4), mean=3).astype(dtype)
    values[:, :, :2] = 0
    values[np.arange(30), np.arange(30) % 3, :2] = np.arange(1, 31)[:, None] % 7 + 1
    covariance, shared, loading = shared_gain_kernel(values)
    assert np.isnan(covariance[:2, :2]).all() and np.isnan(covariance).sum() == 4
    assert np.isfinite(shared) and np.isfinite(loading).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_of_torch_and_numpy(dtype: str) -> None:
    import torch

    values = small().astype(dtype)
    for got, expected, double in zip(
        shared_gain_kernel(torch.from_numpy(values)),
        shared_gain_kernel(values),
        shared_gain_kernel(small()),
        strict=True,
    ):
        assert isinstance(got, torch.Tensor) and str(got.dtype) == f"torch.{dtype}" and expected.dtype == dtype
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9 if dtype == "float64" else 1e-3)
        np.testing.assert_allclose(expected, double, rtol=2e-3)


@pytest.mark.gpu
def test_the_kernel_on_the_gpu() -> None:
    import torch

    for got, expected in zip(
        shared_gain_kernel(torch.from_numpy(small()).cuda()), shared_gain_kernel(small()), strict=True
    ):
        assert got.is_cuda
        np.testing.assert_allclose(got.cpu().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("estimate", [fit_modulated_poisson, shared_gain])
def test_groups(estimate: Callable[..., xr.Dataset]) -> None:
    da = as_counts(small()).assign_coords(
        area=("unit", ["V1", "V1", "V2", "V1", "V2"]), half=("stimulus", [0] * 8 + [1] * 12)
    )
    alone = estimate(da.isel(stimulus=slice(8, None)))
    together = estimate(da, by="half")
    assert set(together) == set(alone) and together["half"].values.tolist() == [0, 1]
    for name in alone:
        np.testing.assert_array_equal(together[name].sel(half=1).values, alone[name].values)
    if estimate is fit_modulated_poisson:
        inside = estimate(da, by="area").gain_variance.sel(area="V2").notnull().values
        assert inside.tolist() == [False, False, True, False, True]
    else:
        with pytest.raises(ValueError, match="area V2: expected at least 3 units, got 2"):
            estimate(da, by="area")


# Bad input


@pytest.mark.parametrize("estimate", [fit_modulated_poisson, shared_gain])
def test_what_gains_need(estimate: Callable[[xr.DataArray], xr.Dataset]) -> None:
    good = as_counts(small())
    with pytest.raises(ValueError, match="expected whole numbers of spikes, got 15 others"):
        bad = good.copy(deep=True)
        bad.values[0, :, :] += 0.5
        estimate(bad)
    with pytest.raises(ValueError, match="= 'spike count', got 'dF/F'"):
        estimate(good.assign_attrs(units="dF/F"))
    with pytest.raises(ValueError, match=r"expected spike counts, got negative values \(smallest -1\)"):
        estimate(good.copy(data=np.where(np.isnan(good), np.nan, -1)))
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        estimate(good.isel(repeat=[0]))


def test_shared_gain_needs_a_population_recorded_together() -> None:
    with pytest.raises(ValueError, match="expected at least 3 units, got 2"):
        shared_gain(as_counts(small()).isel(unit=slice(2)))
    apart = reference.apart(as_counts(small()))
    with pytest.raises(ValueError, match="recorded together"):
        shared_gain(apart)
    assert fit_modulated_poisson(apart).sizes == {"unit": 5}


# A real recording


@pytest.mark.data
def test_v1_and_v2() -> None:
    from neurovar_datasets import gokcen2023_v1v2

    counts = gokcen2023_v1v2.load()
    fitted, population = fit_modulated_poisson(counts), shared_gain(counts)
    assert 0.01 < float(fitted.gain_variance.median()) < 0.1
    assert 0 < float(population.shared_gain_variance) < float(fitted.gain_variance.median())
    assert np.corrcoef(fitted.gain_variance, np.diag(population.gain_covariance))[0, 1] > 0.9
