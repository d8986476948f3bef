"""Population coupling: reference, recovery, bad input."""

from typing import Any

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import coupling as reference_coupling

from neurovar.statistics.estimation._coupling import population_coupling, population_coupling_kernel

N_UNITS = 6
NOISES = {
    "isotropic": np.eye(N_UNITS),
    "low_rank": reference.noise_matrix("structured", N_UNITS),
    "signal_aligned": reference.signal_matrix(N_UNITS),
}


@pytest.fixture(params=["isotropic", "structured"])
def small(request: pytest.FixtureRequest) -> xr.DataArray:
    """Unequal repeats, and some stimuli shown once."""
    return reference.recording(request.param, least_repeats=1, n_units=N_UNITS)


def test_it_is_the_loop(small: xr.DataArray) -> None:
    before = small.copy(deep=True)
    got = population_coupling(small.assign_coords(label=("unit", list("abcdef"))))
    np.testing.assert_allclose(got.values, reference_coupling.population_coupling(small.values), atol=1e-12)
    assert got.dims == ("unit",) and got.label.values.tolist() == list("abcdef")
    xr.testing.assert_identical(small, before)


def test_of_two_units_it_is_their_correlation() -> None:
    da = reference.recording("structured", n_units=2)
    expected = reference.correlation(reference.noise_covariance(da.values)[0])[0, 1]
    np.testing.assert_allclose(population_coupling(da).values, [expected, expected], atol=1e-12)


def test_tuning_does_not_count() -> None:
    da = reference.recording("structured", n_units=N_UNITS)
    tuned = da + np.random.default_rng(0).normal(scale=50, size=(15, 1, N_UNITS))
    np.testing.assert_allclose(population_coupling(tuned), population_coupling(da), atol=1e-10)


def test_a_unit_ten_thousand_times_louder_costs_no_accuracy_in_float32() -> None:
    """The others' sum is formed before it is squared."""
    values = reference.recording("structured", n_units=2).values * [1e4, 1]
    expected = population_coupling_kernel(values)
    np.testing.assert_allclose(population_coupling_kernel(values.astype(np.float32)), expected, rtol=5e-3)


def test_groups(small: xr.DataArray) -> None:
    """The population is that of the group."""
    da = small.assign_coords(area=("unit", ["V1"] * 3 + ["V2"] * 3), half=("stimulus", np.resize(["a", "b"], 15)))
    got = population_coupling(da, by="area")
    np.testing.assert_allclose(got.values[1, 3:], population_coupling(da.isel(unit=slice(3, 6))), atol=1e-12)
    assert np.isnan(got.values[1, :3]).all()
    part = da.isel(stimulus=slice(1, None, 2))
    np.testing.assert_array_equal(population_coupling(da, by="half").sel(half="b"), population_coupling(part))


@pytest.mark.parametrize("least_repeats", [None, 2])
@pytest.mark.parametrize("kind", NOISES)
def test_it_is_recovered(kind: str, least_repeats: int | None) -> None:
    """The mean of 200 recordings within 2 standard errors and the stated bias, c(1 − c²)/(2·dof)."""
    truth, rng = reference_coupling.expected(NOISES[kind]), np.random.default_rng(5)
    root = np.linalg.cholesky(NOISES[kind])
    n_repeats = np.full(20, 5) if least_repeats is None else np.resize([2, 3, 5], 20)
    values = rng.standard_normal((200, 20, 5, N_UNITS)) @ root.T
    values[:, np.arange(5) >= n_repeats[:, None]] = np.nan
    got = np.array([population_coupling_kernel(recording) for recording in values])
    z = (got.mean(axis=0) - truth) / (got.std(axis=0, ddof=1) / 200**0.5)
    bias = truth.mean() - got.mean()
    error = got.mean(axis=1).std(ddof=1) / 200**0.5
    assert np.abs(z).max() < 3 and abs(bias) < 2 * error + (truth * (1 - truth**2)).mean() / (2 * (n_repeats - 1).sum())


@pytest.mark.parametrize("rho", [0.3, 0.7])
def test_the_stated_bias(rho: float) -> None:
    """−c(1 − c²)/(2·dof) with 8 degrees of freedom, of two units."""
    root = np.linalg.cholesky([[1, rho], [rho, 1]])
    noise = np.random.default_rng(1).standard_normal((10_000, 4, 3, 2)) @ root.T
    got = np.array([population_coupling_kernel(recording)[0] for recording in noise])
    error = got.std() / len(got) ** 0.5
    assert got.mean() - rho == pytest.approx(-rho * (1 - rho**2) / 16, abs=2 * error + 0.1 * rho * (1 - rho**2) / 16)


def test_torch_gives_what_numpy_gives(small: xr.DataArray) -> None:
    expected, got = (population_coupling_kernel(v) for v in (small.values, torch.from_numpy(small.values)))
    assert isinstance(got, torch.Tensor) and isinstance(expected, np.ndarray)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    single = population_coupling_kernel(small.values.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-5)


@pytest.mark.gpu
def test_cuda_gives_what_numpy_gives(small: xr.DataArray) -> None:
    got: Any = population_coupling_kernel(torch.from_numpy(small.values).cuda())
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu().numpy(), population_coupling_kernel(small.values), atol=1e-10)


def test_bad_input(small: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="expected at least 2 units, got 1"):
        population_coupling(small.isel(unit=[0]))
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus"):
        population_coupling(reference.recording("isotropic", n_repeats=1, least_repeats=None))
    with pytest.raises(ValueError, match="expected units that were recorded together"):
        population_coupling(reference.apart(small))
    constant = small.copy(deep=True)
    constant.values[..., 2] = np.where(np.isnan(small.values[..., 2]), np.nan, 0.1)
    with pytest.raises(ValueError, match=r"got 1 with zero noise variance \(positions \[2\]\)"):
        population_coupling(constant)


@pytest.mark.data
def test_one_stimulus_is_enough() -> None:
    """V1 and V2 of Gokcen et al.: more coupled to their own area than chance."""
    from neurovar_datasets import gokcen2023_v1v2

    from neurovar import responses

    counts = responses.drop_constant(gokcen2023_v1v2.load())
    got = population_coupling(counts, by="area")
    assert (got.mean("unit") > 0.1).all()
    np.testing.assert_allclose(
        population_coupling(counts), reference_coupling.population_coupling(counts.values), atol=1e-12
    )
