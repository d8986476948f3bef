"""Effective dimensionality without the bias of few trials: loops, known answers, bad input, real recordings."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import dimensionality

from neurovar.statistics.estimation._deviations import deviations
from neurovar.statistics.estimation._dimensionality import (
    covariance_moments_kernel,
    effective_dimensionality,
    effective_dimensionality_kernel,
)

N_UNITS = 12
RATES = np.random.default_rng(3).gamma(1.5, 0.4, size=N_UNITS)
DESIGNS = {"one stimulus": (1, 12), "pairs": (15, 2), "threes": (8, 3), "fives": (6, 5)}


def moments(covariance: np.ndarray) -> np.ndarray:
    return np.array([np.trace(covariance) ** 2, (covariance**2).sum()])


def absent(values: np.ndarray, least: int, rng: np.random.Generator) -> np.ndarray:
    """With a random number of repeats of each stimulus, at random positions."""
    for stimulus in values:
        stimulus[rng.permutation(len(stimulus))[rng.integers(least, len(stimulus) + 1) :]] = np.nan
    return values


# References


@pytest.mark.parametrize(("n_stimuli", "n_repeats", "least"), [(1, 6, 6), (4, 2, 2), (5, 6, 1), (3, 5, 4)])
def test_moments_are_the_loops(n_stimuli: int, n_repeats: int, least: int) -> None:
    rng = np.random.default_rng(0)
    values = absent(rng.gamma(0.5, size=(n_stimuli, n_repeats, 3)) + np.array([0, 5, -9]), least, rng)
    np.testing.assert_allclose(covariance_moments_kernel(values), dimensionality.moments(values), rtol=1e-9)


def test_more_units_than_trials_give_the_same_moments() -> None:
    """Then the products of trials are summed instead of those of units."""
    values = reference.recording("structured", n_units=40, n_stimuli=3, n_repeats=5).values
    np.testing.assert_allclose(covariance_moments_kernel(values), dimensionality.moments(values), rtol=1e-9)


def test_without_correction_it_is_that_of_the_covariance() -> None:
    da = reference.recording("structured", least_repeats=1)
    covariance, _ = reference.noise_covariance(da.values)
    expected = reference.effective_dimensionality(covariance)
    assert effective_dimensionality(da) == pytest.approx(expected, rel=1e-10)
    assert effective_dimensionality_kernel(covariance) == pytest.approx(expected, rel=1e-10)
    assert effective_dimensionality_kernel(torch.from_numpy(covariance)) == pytest.approx(expected, rel=1e-10)


def test_corrected_is_the_ratio() -> None:
    da = reference.recording("structured", least_repeats=1)
    squared_trace, trace_of_square = dimensionality.moments(da.values)
    assert effective_dimensionality(da, corrected=True) == pytest.approx(squared_trace / trace_of_square, rel=1e-9)


# Recovery: unbiased whatever the distribution, the number of stimuli and of repeats


def gaussian(noise: np.ndarray) -> Callable[..., np.ndarray]:
    root = np.linalg.cholesky(noise)
    return lambda rng, size: rng.normal(size=(*size, len(noise))) @ root.T


def poisson(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return rng.poisson(RATES, size=(*size, N_UNITS)).astype(float)


def overdispersed(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Poisson counts with a shared gain of mean 1 and variance 1/2."""
    return rng.poisson(4 * RATES * rng.gamma(2, 0.5, size=(*size, 1))).astype(float)


ALONG_SIGNAL = np.eye(N_UNITS) + 3 * np.ones((N_UNITS, N_UNITS)) / N_UNITS
NOISES = {
    "isotropic": (gaussian(np.eye(N_UNITS)), np.eye(N_UNITS)),
    "low-rank": (
        gaussian(reference.noise_matrix("structured", N_UNITS)),
        reference.noise_matrix("structured", N_UNITS),
    ),
    "signal-aligned": (gaussian(ALONG_SIGNAL), ALONG_SIGNAL),
    "Poisson": (poisson, np.diag(RATES)),
    "overdispersed": (overdispersed, np.diag(4 * RATES) + np.outer(4 * RATES, 4 * RATES) / 2),
}


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("kind", NOISES)
def test_the_moments_are_unbiased(kind: str, design: str) -> None:
    draw, truth = NOISES[kind]
    rng, draws = np.random.default_rng(0), []
    for _ in range(400):
        signal = 5 * rng.normal(size=(DESIGNS[design][0], 1, 1))  # along (1, 1, …)
        draws.append(covariance_moments_kernel(draw(rng, DESIGNS[design]) + signal))
    z = (np.mean(draws, axis=0) - moments(truth)) / (np.std(draws, axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 2.5


@pytest.mark.parametrize("least", [1, 2])
def test_the_moments_are_unbiased_with_unequal_repeats(least: int) -> None:
    rng, draws = np.random.default_rng(1), []
    for _ in range(400):
        draws.append(covariance_moments_kernel(absent(overdispersed(rng, (8, 6)), least, rng)))
    z = (np.mean(draws, axis=0) - moments(NOISES["overdispersed"][1])) / (np.std(draws, axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 2


def test_noise_that_differs_between_stimuli() -> None:
    """With four repeats, the pooled covariance of these stimuli."""
    scales = np.array([1, 1, 1, 4.0])
    pooled = np.mean(scales**2) * np.eye(N_UNITS)
    rng, draws = np.random.default_rng(0), []
    for _ in range(800):
        draws.append(covariance_moments_kernel(rng.normal(size=(4, 4, N_UNITS)) * scales[:, None, None]))
    z = (np.mean(draws, axis=0) - moments(pooled)) / (np.std(draws, axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 2


def test_noise_that_differs_between_stimuli_drawn_at_random() -> None:
    """With two repeats, the mean covariance of the population that the stimuli come from."""
    rng, draws = np.random.default_rng(0), []
    for _ in range(800):
        variance = rng.gamma(2, 0.5, size=(12, 1, 1))  # of mean 1
        draws.append(covariance_moments_kernel(rng.normal(size=(12, 2, N_UNITS)) * variance**0.5))
    z = (np.mean(draws, axis=0) - moments(np.eye(N_UNITS))) / (np.std(draws, axis=0) / np.sqrt(len(draws)))
    assert np.abs(z).max() < 2


def corrected_and_plain(draw: Callable[..., np.ndarray], size: tuple[int, int]) -> np.ndarray:
    rng, draws = np.random.default_rng(0), []
    for _ in range(400):
        values = draw(rng, size)
        noise = (values - values.mean(axis=1, keepdims=True)).reshape(-1, values.shape[2])
        squared_trace, trace_of_square = covariance_moments_kernel(values)
        draws.append([squared_trace / trace_of_square, effective_dimensionality_kernel(noise.T @ noise)])
    return np.array(draws)


def test_the_ratio_errs_as_stated_for_white_noise() -> None:
    corrected, plain = corrected_and_plain(gaussian(np.eye(20)), (10, 3)).mean(axis=0)
    assert plain == pytest.approx(20 * 20 / (20 + 20), rel=0.03)
    assert corrected == pytest.approx(20, rel=0.02)


def test_the_ratio_errs_as_stated_for_few_dimensions() -> None:
    """Biased up, but less than it is biased down without correction, once there are enough trials."""
    truth = reference.effective_dimensionality(NOISES["overdispersed"][1])
    few = corrected_and_plain(overdispersed, (10, 3)).mean(axis=0) / truth
    assert few[0] == pytest.approx(1.15, abs=0.03)
    many = corrected_and_plain(overdispersed, (40, 4)).mean(axis=0) / truth
    assert 1 < many[0] < 1.05 and many[1] < many[0]


# Groups, kernels, input


def test_groups_of_units() -> None:
    da = reference.recording("structured").assign_coords(area=("unit", list("aaabbbbb")))
    for corrected in (True, False):
        got = effective_dimensionality(da, corrected=corrected, by="area")
        expected = [
            effective_dimensionality(da.isel(unit=part), corrected=corrected) for part in (slice(3), slice(3, None))
        ]
        assert got.dims == ("area",) and got.values.tolist() == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kernels_take_torch(dtype: str) -> None:
    values = reference.recording("structured", least_repeats=1).values.astype(dtype)
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    expected = dimensionality.moments(values.astype(float))
    np.testing.assert_allclose(covariance_moments_kernel(values), expected, rtol=tolerance)
    np.testing.assert_allclose(covariance_moments_kernel(torch.from_numpy(values)), expected, rtol=tolerance)
    assert deviations(values, differences=False)[0].dtype == dtype


@pytest.mark.gpu
def test_the_kernels_on_a_gpu() -> None:
    values = reference.recording("structured", least_repeats=1).values
    got = covariance_moments_kernel(torch.from_numpy(values).cuda())
    np.testing.assert_allclose(got, covariance_moments_kernel(values), rtol=1e-10)


def test_integers() -> None:
    counts = np.random.default_rng(0).poisson(3, size=(6, 4, 5))
    da = reference.responses(counts)
    for corrected in (True, False):
        got = effective_dimensionality(da, corrected=corrected)
        assert got == pytest.approx(effective_dimensionality(da.astype(float), corrected=corrected), rel=1e-12)


def test_too_few_repeats() -> None:
    assert np.isnan(covariance_moments_kernel(np.random.default_rng(0).normal(size=(1, 3, 4)))).all()
    da = reference.recording("isotropic", n_stimuli=3, n_repeats=3, least_repeats=None)
    assert effective_dimensionality(da.isel(stimulus=slice(2), repeat=slice(2)), corrected=True) > 0
    expected = (
        "expected two stimuli with 2 repeats or one with 4 for the corrected dimensionality, got 1 with 2, the most"
    )
    with pytest.raises(ValueError, match=expected + " repeats 3"):
        effective_dimensionality(da.isel(stimulus=[0]), corrected=True)
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        effective_dimensionality(da.isel(repeat=[0]), corrected=True)


@pytest.mark.parametrize("corrected", [True, False])
def test_no_noise(corrected: bool) -> None:
    """0.1 three times is not quite its mean."""
    with pytest.raises(ValueError, match="expected units that vary between repeats, got none among 3"):
        effective_dimensionality(reference.responses(np.full((2, 3, 3), 0.1)), corrected=corrected)


def test_units_that_were_not_recorded_together() -> None:
    da = reference.apart(reference.recording("isotropic"))
    for corrected in (True, False):
        with pytest.raises(ValueError, match="recorded together"):
            effective_dimensionality(da, corrected=corrected)


def test_an_estimate_that_is_not_positive_is_refused_and_told() -> None:
    """Noise of two stimuli along different units: no product of the two covariances is left."""
    values = np.zeros((2, 2, 2))
    values[0, :, 0], values[1, :, 1] = [-1, 1], [-1, 1]
    with pytest.raises(ValueError, match=r"expected positive estimates of \(tr C\)² and tr C², got 4 and 0: too few"):
        effective_dimensionality(reference.responses(values), corrected=True)


# Real recordings


@pytest.mark.data
def test_v4() -> None:
    """Few trials give the same as many, which the plain estimate does not."""
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    whole = effective_dimensionality(v4, corrected=True)
    assert whole == pytest.approx(effective_dimensionality(v4), rel=0.03) and whole > effective_dimensionality(v4)
    parts = [v4.isel(stimulus=slice(start, start + 16)) for start in range(0, 640, 16)]
    corrected = np.median([effective_dimensionality(part, corrected=True) for part in parts])
    plain = np.median([effective_dimensionality(part) for part in parts])
    assert abs(corrected / whole - 1) < 0.1 < 1 - plain / whole


@pytest.mark.data
def test_v1_of_one_stimulus() -> None:
    from neurovar_datasets import gokcen2023_v1v2

    v1 = gokcen2023_v1v2.load()
    v1 = v1.isel(unit=np.flatnonzero(v1.area.values == "V1"))
    whole = effective_dimensionality(v1, corrected=True)
    parts: list[xr.DataArray] = [v1.isel(repeat=slice(start, start + 40)) for start in range(0, 400, 40)]
    corrected = np.median([effective_dimensionality(part, corrected=True) for part in parts])
    plain = np.median([effective_dimensionality(part) for part in parts])
    assert effective_dimensionality(v1) < whole < 1.05 * effective_dimensionality(v1)
    assert abs(corrected / whole - 1) < 0.1 < 1 - plain / whole
