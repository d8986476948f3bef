"""Shrunk noise covariance: against scikit-learn and loops, known answers, bad input, a real recording."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import shrinkage
from sklearn.covariance import ledoit_wolf, oas

from neurovar.statistics.estimation._shrinkage import METHODS, shrunk_covariance, shrunk_covariance_kernel

EYE = np.eye(30)
NOISES = {
    "isotropic": EYE,
    "low_rank": EYE + 3 * np.outer(EYE[0] + EYE[1], EYE[0] + EYE[1]),
    "aligned": EYE + 2 * np.outer(np.ones(30), np.ones(30)) / 30,
}


def gaussian(noise: np.ndarray, n_stimuli: int, n_repeats: int, rng: np.random.Generator) -> xr.DataArray:
    """Every mean along (1, 1, …): the noise "aligned" is aligned with it."""
    means = rng.normal(size=(n_stimuli, 1, 1)) * np.ones(len(noise))
    values = means + rng.normal(size=(n_stimuli, n_repeats, len(noise))) @ np.linalg.cholesky(noise).T
    return reference.responses(values)


def correlation(covariance: np.ndarray) -> np.ndarray:
    deviation = np.diag(covariance) ** 0.5
    return covariance / np.outer(deviation, deviation)


def unequal_repeats() -> xr.DataArray:
    return reference.recording("structured", least_repeats=1, n_repeats=7)


# References


def test_one_stimulus_is_scikit_learn_with_its_divisor() -> None:
    """scikit-learn divides by n: its matrix times n/(n − 1), and its intensity with n − 1 in place of n."""
    n = 40
    da = reference.recording("structured", n_stimuli=1, n_repeats=n, least_repeats=None)
    covariance = reference.noise_covariance(da.values)[0]
    target = np.full(8, np.trace(covariance) / 8)
    for method, public, ratio in (("ledoit_wolf", ledoit_wolf, n / (n - 1)), ("oas", oas, (n + 1) / n)):
        theirs, intensity = public(da.values[0])
        np.testing.assert_allclose(theirs * n / (n - 1), shrinkage.shrunk(covariance, target, intensity), rtol=1e-12)
        got = shrunk_covariance(da, method=method)
        assert 0.01 < got.attrs["intensity"] < 0.9
        assert got.attrs["intensity"] == pytest.approx(intensity * ratio, rel=1e-12)
        expected = shrinkage.shrunk(covariance, target, intensity * ratio)
        np.testing.assert_allclose(got.values, expected, rtol=1e-12, atol=1e-14)


def test_one_stimulus_is_the_published_intensity_of_correlations() -> None:
    da = reference.recording("structured", n_stimuli=1, n_repeats=12, least_repeats=None)
    expected = shrinkage.published_correlation_intensity(da.values[0])
    assert 0.05 < expected < 0.95
    assert shrunk_covariance(da, method="schaefer_strimmer").attrs["intensity"] == pytest.approx(expected, rel=1e-12)


def test_oas_is_scikit_learn_on_contrasts() -> None:
    """Contrasts have mean 0 and Σ(Rₛ − 1) rows: no correction is left to make, with unequal repeats too."""
    da = unequal_repeats()
    theirs, intensity = oas(shrinkage.contrasts(da.values), assume_centered=True)
    got = shrunk_covariance(da, method="oas")
    assert got.attrs["intensity"] == pytest.approx(intensity, rel=1e-12)
    np.testing.assert_allclose(got.values, theirs, rtol=1e-11, atol=1e-14)


def test_ledoit_wolf_is_scikit_learn_on_the_differences_of_two_repeats() -> None:
    """Of two repeats there is one contrast, whichever way the residuals are turned."""
    da = reference.recording("structured", n_stimuli=30, n_repeats=2, least_repeats=1)
    theirs, intensity = ledoit_wolf(shrinkage.contrasts(da.values), assume_centered=True)
    got = shrunk_covariance(da, method="ledoit_wolf")
    assert 0.01 < intensity < 0.9
    assert got.attrs["intensity"] == pytest.approx(intensity, rel=1e-12)
    np.testing.assert_allclose(got.values, theirs, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    ("method", "intensity"),
    [
        ("ledoit_wolf", shrinkage.ledoit_wolf_intensity),
        ("schaefer_strimmer", shrinkage.schaefer_strimmer_intensity),
    ],
)
def test_the_loops_with_unequal_repeats(method: str, intensity: Callable[[np.ndarray], float]) -> None:
    da = unequal_repeats()
    covariance, dof = reference.noise_covariance(da.values)
    variance = np.diag(covariance)
    expected = intensity(da.values)
    got = shrunk_covariance(da, method=method)
    assert 0.01 < expected < 0.9
    assert got.attrs["intensity"] == pytest.approx(expected, rel=1e-10)
    target = variance if method == "schaefer_strimmer" else np.full(8, variance.mean())
    np.testing.assert_allclose(got.values, shrinkage.shrunk(covariance, target, expected), rtol=1e-10, atol=1e-13)
    assert got.attrs == {"intensity": got.attrs["intensity"], "dof": dof, "method": method, "units": "(arbitrary)²"}


def test_schaefer_strimmer_keeps_variances_and_does_not_depend_on_units_of_measurement() -> None:
    da = unequal_repeats()
    scale = np.logspace(-2, 2, 8)
    original, scaled = (shrunk_covariance(x, method="schaefer_strimmer") for x in (da, da * scale))
    np.testing.assert_allclose(np.diag(original), np.diag(reference.noise_covariance(da.values)[0]), rtol=1e-12)
    assert original.attrs["intensity"] == pytest.approx(scaled.attrs["intensity"], rel=1e-9)
    np.testing.assert_allclose(scaled.values, original.values * np.outer(scale, scale), rtol=1e-9)


# Recovery


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", NOISES)
def test_the_squared_error_is_smaller_with_fewer_trials_than_units(kind: str, method: str) -> None:
    rng = np.random.default_rng(0)
    gain = []
    for _ in range(30):
        da = gaussian(NOISES[kind], 5, 4, rng)
        sample = np.linalg.norm(reference.noise_covariance(da.values)[0] - NOISES[kind]) ** 2
        gain.append(sample - np.linalg.norm(shrunk_covariance(da, method=method).values - NOISES[kind]) ** 2)
    assert np.mean(gain) > 4 * np.std(gain) / np.sqrt(len(gain))


@pytest.mark.parametrize(("n_stimuli", "n_repeats"), [(30, 2), (10, 4), (1, 31)])
@pytest.mark.parametrize("method", METHODS)
def test_the_intensity_is_the_best_one(method: str, n_stimuli: int, n_repeats: int) -> None:
    """However 30 degrees of freedom are spread over stimuli: E‖C − Σ‖² / E‖C − T‖², of correlations for the last."""
    truth, rng = NOISES["low_rank"], np.random.default_rng(1)
    result, error, distance = [], [], []
    for _ in range(100):
        da = gaussian(truth, n_stimuli, n_repeats, rng)
        sample, dof = reference.noise_covariance(da.values)
        assert dof == 30
        if method == "schaefer_strimmer":
            sample, known, target = correlation(sample), correlation(truth), EYE
        else:
            known, target = truth, np.trace(sample) / 30 * EYE
        result.append(shrunk_covariance(da, method=method).attrs["intensity"])
        error.append(((sample - known) ** 2).sum())
        distance.append(((sample - target) ** 2).sum())
    assert np.mean(result) == pytest.approx(np.mean(error) / np.mean(distance), rel=0.1)


@pytest.mark.parametrize(("n_repeats", "missed"), [(2, 0.0), (3, 0.25), (10, 0.1)])
def test_what_excess_kurtosis_adds_is_underestimated_as_stated(n_repeats: int, missed: float) -> None:
    """Noise of random signs has excess kurtosis −2. λ‖C − T‖² estimates E‖C − Σ‖²."""
    variance, n_stimuli, rng = np.array([1.0, 2.0, 8.0]), 5000, np.random.default_rng(0)
    values = rng.choice([-1, 1], size=(n_stimuli, n_repeats, 3)) * np.sqrt(variance)
    da = reference.responses(values)
    sample, dof = reference.noise_covariance(values)
    target = np.trace(sample) / 3 * np.eye(3)
    got = shrunk_covariance(da, method="ledoit_wolf").attrs["intensity"] * np.linalg.norm(sample - target) ** 2 * dof
    gaussian_part = variance.sum() ** 2 + (variance**2).sum()
    kurtosis_part = -2 * (variance**2).sum() * (n_repeats - 1) / n_repeats
    assert (got - gaussian_part) / kurtosis_part == pytest.approx(1 - missed, abs=0.04)


@pytest.mark.parametrize("method", METHODS)
def test_the_intensity_vanishes_with_many_trials(method: str) -> None:
    da = gaussian(NOISES["low_rank"][:6, :6], 2000, 4, np.random.default_rng(0))
    got = shrunk_covariance(da, method=method)
    assert 0 < got.attrs["intensity"] < 0.005
    np.testing.assert_allclose(got.values, reference.noise_covariance(da.values)[0], atol=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_isotropic_noise_is_shrunk_almost_wholly(method: str) -> None:
    rng = np.random.default_rng(0)
    result = [shrunk_covariance(gaussian(EYE, 10, 5, rng), method=method).attrs["intensity"] for _ in range(10)]
    assert np.mean(result) > 0.9 and max(result) <= 1


# Labels, groups, kernels


def test_labels_and_groups() -> None:
    da = unequal_repeats().assign_coords(area=("unit", list("aaabbbbb")), depth=("unit", np.arange(8)))
    got = shrunk_covariance(da, method="oas")
    assert got.dims == ("unit", "other_unit") and got.area.values.tolist() == list("aaabbbbb")
    grouped = shrunk_covariance(da, method="oas", by="area")
    alone = shrunk_covariance(da.isel(unit=slice(3)), method="oas")
    np.testing.assert_array_equal(grouped.sel(area="a").values[:3, :3], alone.values)
    assert np.isnan(grouped.sel(area="a").values[3:]).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernel_takes_torch(method: str, dtype: str) -> None:
    values = unequal_repeats().values.astype(dtype)
    expected, intensity = shrunk_covariance_kernel(values, method=method)
    got, same = shrunk_covariance_kernel(torch.from_numpy(values), method=method)
    assert expected.dtype == dtype and got.dtype == getattr(torch, dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(got.numpy(), expected, rtol=tolerance, atol=tolerance)
    assert intensity == pytest.approx(same, rel=tolerance)


@pytest.mark.gpu
def test_the_kernel_on_a_gpu() -> None:
    values = unequal_repeats().values
    expected, intensity = shrunk_covariance_kernel(values, method="schaefer_strimmer")
    got, same = shrunk_covariance_kernel(torch.from_numpy(values).cuda(), method="schaefer_strimmer")
    assert got.is_cuda and intensity == pytest.approx(same, rel=1e-10)
    np.testing.assert_allclose(got.cpu().numpy(), expected, atol=1e-10)


def test_responses_stay_as_they_are_and_integers_are_taken() -> None:
    counts = np.random.default_rng(0).poisson(3, size=(6, 4, 5))
    da = reference.responses(counts.copy(), units="spike count")
    got = shrunk_covariance(da, method="ledoit_wolf")
    assert da.dtype.kind == "i" and (da.values == counts).all()
    xr.testing.assert_allclose(got, shrunk_covariance(da.astype(float), method="ledoit_wolf"))
    assert got.attrs["units"] == "(spike count)²"


# Bad input


def test_bad_input() -> None:
    da = unequal_repeats()
    with pytest.raises(ValueError, match="expected method 'ledoit_wolf', 'oas' or 'schaefer_strimmer', got 'lw'"):
        shrunk_covariance(da, method="lw")
    with pytest.raises(ValueError, match="expected at least 2 units, got 1"):
        shrunk_covariance(da.isel(unit=[0]), method="oas")
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        shrunk_covariance(reference.recording("isotropic", n_repeats=1, least_repeats=None), method="oas")
    with pytest.raises(ValueError, match=r"expected at least 2 degrees of freedom Σ\(Rₛ − 1\), got 1"):
        pair = reference.recording("isotropic", n_repeats=2, least_repeats=None, n_stimuli=1)
        shrunk_covariance(pair, method="ledoit_wolf")
    with pytest.raises(ValueError, match="recorded together"):
        shrunk_covariance(reference.apart(da), method="oas")


def test_constant_units() -> None:
    da = unequal_repeats()
    da.values[..., 3] = np.where(np.isnan(da.values[..., 3]), np.nan, 0.1)
    with pytest.raises(ValueError, match=r"got 1 with zero noise variance \(positions \[3\]\)"):
        shrunk_covariance(da, method="schaefer_strimmer")
    assert shrunk_covariance(da, method="ledoit_wolf").values[3, 3] > 0
    for method in METHODS[:2]:
        with pytest.raises(ValueError, match="expected units that vary between repeats, got none among 3"):
            shrunk_covariance(reference.responses(np.full((2, 3, 3), 0.1)), method=method)


# A real recording


@pytest.mark.data
@pytest.mark.parametrize("method", METHODS)
def test_v4(method: str) -> None:
    """Nine trials of a few images predict the covariance of the others better when shrunk."""
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    few, others = v4.isel(stimulus=slice(6)), v4.isel(stimulus=slice(6, None))
    expected = reference.noise_covariance(others.values)[0]
    varying = np.flatnonzero(np.diag(reference.noise_covariance(few.values)[0]) > 0)
    few, expected = few.isel(unit=varying), expected[np.ix_(varying, varying)]
    sample = reference.noise_covariance(few.values)[0]
    got = shrunk_covariance(few, method=method)
    assert 0 < got.attrs["intensity"] < 1
    assert np.linalg.norm(got.values - expected) < np.linalg.norm(sample - expected)
    assert shrunk_covariance(v4, method=method).attrs["intensity"] < 0.15
