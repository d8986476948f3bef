"""Spectra from held-out stimuli and trials, of signal and noise: plain references, stated biases, bad input."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import spectra as plain

from neurovar import statistics

Estimator = Callable[..., xr.DataArray]

KERNELS = [
    statistics.kernels.cvpca,
    statistics.kernels.cross_decomposition,
    statistics.kernels.noise_cvpca,
    statistics.kernels.noise_cross_decomposition,
]


def responses(n_units: int, **sizes: int) -> xr.DataArray:
    """A 1/n signal with noise along its first axes, four to seven repeats."""
    sizes = {"n_stimuli": 21, "n_repeats": 7, "least_repeats": 4, "seed": 3} | sizes
    return reference.responses(plain.population(plain.power_law(n_units, 1.0), noise="aligned", **sizes))


def noise_of(spectrum: np.ndarray, *, n_stimuli: int, n_repeats: int, seed: int) -> xr.DataArray:
    """Noise with this spectrum about means that differ between stimuli."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))[0]
    noise = rng.standard_normal((n_stimuli, n_repeats, len(spectrum))) * np.sqrt(spectrum) @ axes.T
    return reference.responses(noise + 2 * rng.standard_normal((n_stimuli, 1, len(spectrum))))


# References


@pytest.mark.parametrize("n_units", [6, 30])
def test_cross_decomposition_by_its_definition(n_units: int) -> None:
    da, rng = responses(n_units), np.random.default_rng(8)
    expected = []
    for _ in range(3):
        masks = plain.random_halves(da.notnull().values[:, :, 0], rng)
        means = [np.array([trials[kept].mean(axis=0) for trials, kept in zip(da.values, mask)]) for mask in masks]
        order = rng.permutation(21)
        expected.append(plain.cross_decomposition(*means, order[:10], order[10:]))
    got = statistics.signal_spectrum(da, method="cross_decomposition", n_splits=3, rng=8)
    np.testing.assert_allclose(got.values, np.mean(expected, axis=0), atol=1e-10)
    assert got["rank"].values.tolist() == list(range(1, min(9, n_units) + 1))
    assert got.attrs["method"] == "cross_decomposition" and got.attrs["of"] == "signal"


@pytest.mark.parametrize("n_units", [6, 40])
def test_noise_along_the_axes_of_other_repeats(n_units: int) -> None:
    da, rng = responses(n_units), np.random.default_rng(8)
    present = da.notnull().values[:, :, 0]
    n_ranks = min(n_units, int((present.sum(axis=1) // 2 - 1).sum()))
    halves = [plain.random_halves(present, rng) for _ in range(3)]
    expected = np.mean([plain.held_out_noise(da.values, *pair, n_ranks) for pair in halves], axis=0)
    got = statistics.noise_spectrum(da, method="cvpca", n_splits=3, rng=8)
    np.testing.assert_allclose(got.values, expected, atol=1e-10)
    assert got.attrs == {"method": "cvpca", "of": "noise", "n_splits": 3, "units": "(arbitrary)²"}


@pytest.mark.parametrize("n_units", [6, 60])
def test_noise_along_the_axes_of_other_stimuli(n_units: int) -> None:
    da, rng = responses(n_units), np.random.default_rng(8)
    present = da.notnull().values[:, :, 0]
    least_dof = int(sum(sorted(present.sum(axis=1) - 1)[:10]))
    expected = []
    for _ in range(3):
        train = (rng.permutation(21) < 10)[:, None]
        expected.append(plain.held_out_noise(da.values, present & train, present & ~train, min(n_units, least_dof)))
    got = statistics.noise_spectrum(da, method="cross_decomposition", n_splits=3, rng=8)
    np.testing.assert_allclose(got.values, np.mean(expected, axis=0), atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_units", [6, 40])
def test_torch_and_numpy_give_the_same(kernel: Callable, n_units: int) -> None:
    values = responses(n_units).values
    expected = kernel(values, 2, np.random.default_rng(0))
    got = kernel(torch.from_numpy(values), 2, np.random.default_rng(0))
    assert isinstance(expected, np.ndarray) and isinstance(got, torch.Tensor)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-10)
    single = kernel(values.astype(np.float32), 2, np.random.default_rng(0))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single[:5], expected[:5], rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_units", [6, 40])
def test_a_gpu_gives_the_same(kernel: Callable, n_units: int) -> None:
    values = responses(n_units).values
    got = kernel(torch.from_numpy(values).cuda(), 2, np.random.default_rng(0))
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu().numpy(), kernel(values, 2, np.random.default_rng(0)), atol=1e-9)


# Recovery, and the biases that the docstrings state


@pytest.mark.parametrize("noise", ["independent", "low-rank", "aligned"])
def test_cross_decomposition_recovers_an_exponent_of_1(noise: str) -> None:
    """A little too large, as the spectrum falls short at higher ranks; low-rank noise does not bend it."""
    fits = []
    for seed in range(8):
        values = plain.population(
            plain.power_law(50, 1.0), noise=noise, n_stimuli=600, n_repeats=12, least_repeats=10, seed=seed
        )
        da = reference.responses(values)
        spectrum = statistics.signal_spectrum(da, method="cross_decomposition", n_splits=2, rng=seed)
        fits.append(statistics.fit_power_law(spectrum, ranks=(2, 15)).exponent)
    assert np.mean(fits) == pytest.approx(1.02, abs=0.03)


def signal_sums(noise: str, *, n_stimuli: int, n_units: int, seeds: int = 30) -> np.ndarray:
    """The spectra of many populations, summed up over ranks."""
    result = []
    for seed in range(seeds):
        values = plain.population(
            plain.power_law(n_units, 1.0), noise=noise, n_stimuli=n_stimuli, n_repeats=3, least_repeats=2, seed=seed
        )
        da = reference.responses(values)
        result.append(statistics.signal_spectrum(da, method="cross_decomposition", n_splits=2, rng=seed).values)
    return np.cumsum(result, axis=1)


@pytest.mark.parametrize("noise", ["independent", "low-rank", "aligned"])
def test_the_first_ranks_together_are_never_too_large(noise: str) -> None:
    """And all ranks together are the signal variance, within two standard errors."""
    sums, truth = signal_sums(noise, n_stimuli=120, n_units=20), np.cumsum(plain.power_law(20, 1.0))
    error = sums.std(axis=0, ddof=1) / len(sums) ** 0.5
    assert (sums.mean(axis=0) < truth + 2 * error).all()
    assert sums.mean(axis=0)[9] < truth[9] - 2 * error[9]
    assert abs(sums.mean(axis=0)[-1] - truth[-1]) < 2 * error[-1]


def test_the_stated_loss_with_fewer_stimuli_than_units() -> None:
    sums, spectrum = signal_sums("independent", n_stimuli=300, n_units=600, seeds=2), plain.power_law(600, 1.0)
    ratio = np.diff(sums.mean(axis=0), prepend=0) / spectrum[: sums.shape[1]]
    assert ratio[0] == pytest.approx(0.9, abs=0.1)
    assert ratio[20:50].mean() == pytest.approx(0.55, abs=0.1)


def test_cvpca_has_too_much_in_the_middle_where_stimuli_are_few() -> None:
    """Even without noise: the axes are those of these stimuli. Nothing is lost in all."""
    spectrum, result = plain.power_law(200, 1.0), []
    for seed in range(4):
        values = plain.population(spectrum, noise="none", n_stimuli=100, n_repeats=2, seed=seed)
        result.append(statistics.kernels.cvpca(values, 1, np.random.default_rng(seed)))
    mean = np.mean(result, axis=0)
    assert (mean / spectrum[:99])[25:40].mean() == pytest.approx(1.33, abs=0.1)
    assert (mean / spectrum[:99])[-5:].mean() < 0.4
    assert mean.sum() == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize("method", ["cvpca", "cross_decomposition"])
def test_a_noise_exponent_of_1_is_recovered(method: str) -> None:
    fits = []
    for seed in range(8):
        da = noise_of(plain.power_law(40, 1.0), n_stimuli=150, n_repeats=8, seed=seed)
        fits.append(
            statistics.fit_power_law(
                statistics.noise_spectrum(da, method=method, n_splits=2, rng=0), ranks=(2, 15)
            ).exponent
        )
    assert np.mean(fits) == pytest.approx(1, abs=0.04)


def noise_spectra(spectrum: np.ndarray, method: str, **sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over 40 recordings, and its standard error, of the spectra summed up over ranks."""
    result = []
    for seed in range(40):
        da = noise_of(spectrum, seed=seed, **sizes)
        result.append(np.cumsum(statistics.noise_spectrum(da, method=method, n_splits=2, rng=seed).values))
    return np.mean(result, axis=0), np.std(result, axis=0, ddof=1) / len(result) ** 0.5


@pytest.mark.parametrize("method", ["cvpca", "cross_decomposition"])
def test_white_noise_has_a_white_spectrum(method: str) -> None:
    """Where the sample covariance has a first eigenvalue of 1.9. No axis is better than another: no bias at all."""
    mean, error = noise_spectra(np.ones(20), method, n_stimuli=20, n_repeats=6)
    assert (abs(mean - np.arange(1, 21)) < 3 * error).all()
    rows, dof = plain.residuals(noise_of(np.ones(20), n_stimuli=20, n_repeats=6, seed=0).values, np.ones((20, 6), bool))
    assert np.linalg.eigvalsh(rows.T @ rows / dof)[-1] > 1.7


@pytest.mark.parametrize("method", ["cvpca", "cross_decomposition"])
def test_the_first_noise_ranks_together_are_never_too_large(method: str) -> None:
    """And all ranks together are the noise variance, within two standard errors."""
    truth = np.cumsum(plain.power_law(20, 1.0))
    mean, error = noise_spectra(plain.power_law(20, 1.0), method, n_stimuli=20, n_repeats=6)
    assert (mean < truth + 2 * error).all()
    assert mean[9] < truth[9] - 2 * error[9]
    assert abs(mean[-1] - truth[-1]) < 2 * error[-1]


def test_noise_of_one_stimulus() -> None:
    """Split into trials; half of 100 trials give at most 49 axes."""
    da = noise_of(plain.power_law(60, 1.0), n_stimuli=1, n_repeats=100, seed=0)
    spectrum = statistics.noise_spectrum(da, method="cvpca", n_splits=20, rng=0)
    assert spectrum.sizes["rank"] == 49
    assert float(spectrum[0]) == pytest.approx(plain.power_law(60, 1.0)[0], rel=0.4)


@pytest.mark.parametrize("estimate", [statistics.signal_spectrum, statistics.noise_spectrum])
@pytest.mark.parametrize("method", ["cvpca", "cross_decomposition"])
def test_a_seed_means_one_spectrum(estimate: Estimator, method: str) -> None:
    da = responses(5)
    first, second, other = (estimate(da, method=method, n_splits=2, rng=seed) for seed in (0, 0, 1))
    xr.testing.assert_identical(first, second)
    assert not first.equals(other)


@pytest.mark.parametrize("method", ["cvpca", "cross_decomposition"])
def test_stimuli_with_too_few_repeats_are_left_out(method: str) -> None:
    da = responses(5)
    once = xr.full_like(da[:2], np.nan).assign_coords(stimulus=["x", "y"])
    once[:, 0] = 100.0
    together = xr.concat([da, once], dim="stimulus")
    for estimate in (statistics.signal_spectrum, statistics.noise_spectrum):
        expected = estimate(da, method=method, n_splits=2, rng=0)
        xr.testing.assert_equal(estimate(together, method=method, n_splits=2, rng=0), expected)


# Bad input

DA = statistics.population(n_stimuli=10, n_repeats=4, n_units=5, rng=0)
APART = reference.apart(DA)


@pytest.mark.parametrize(
    ("estimate", "da", "options", "message"),
    [
        (statistics.signal_spectrum, DA[:5], {}, "expected at least 6 stimuli with 2 repeats, got 5"),
        (statistics.signal_spectrum, DA[:, :1], {}, "expected at least 2 repeats of some stimulus, got at most 1"),
        (statistics.noise_spectrum, DA[:1], {}, "expected at least 2 stimuli with 2 repeats, got 1"),
        (
            statistics.noise_spectrum,
            DA[:, :3],
            {"method": "cvpca"},
            "expected at least 4 repeats of some stimulus, got at most 3",
        ),
        (statistics.noise_spectrum, APART, {}, "expected units that were recorded together.*by="),
        (statistics.noise_spectrum, DA, {"n_splits": 0}, "expected at least 1 split, got 0"),
        (
            statistics.noise_spectrum,
            DA,
            {"method": "meme"},
            "expected method 'cvpca' or 'cross_decomposition', got 'meme'",
        ),
        (statistics.noise_spectrum, DA * np.inf, {}, "expected finite responses or NaN"),
    ],
)
def test_bad_recordings(estimate: Estimator, da: xr.DataArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(da, **{"method": "cross_decomposition", "n_splits": 2, "rng": 0, **options})


def test_units_recorded_apart_have_a_signal_spectrum() -> None:
    xr.testing.assert_equal(*(statistics.signal_spectrum(da, method="cvpca", n_splits=1, rng=0) for da in (APART, DA)))


@pytest.mark.parametrize("methods", [["cvpca", "meme"], ["cvpca", None], [None], []])
def test_spectra_of_several_methods_are_not_compared(methods: list[str | None]) -> None:
    several = [xr.DataArray([1.0], dims="rank", attrs={"method": method} if method else {}) for method in methods]
    got = ", ".join(method or "unknown" for method in methods) or "none"
    with pytest.raises(ValueError, match=f"expected spectra of one method, got {got}: their estimates are not comp"):
        statistics.require_one_method(several)


def test_spectra_of_one_method_are_compared() -> None:
    both = [estimate(DA, method="cvpca", n_splits=1, rng=0) for estimate in (statistics.signal_spectrum,) * 2]
    assert statistics.require_one_method(both) == "cvpca"


@pytest.mark.data
def test_noise_spectra_of_recordings() -> None:
    """One stimulus 400 times, and 640 images: the noise variance is found again, and the spectrum falls."""
    from neurovar_datasets import cowley2023_v4, gokcen2023_v1v2

    from neurovar import statistics

    v4 = cowley2023_v4.load(session="210325")
    for da, method in ((gokcen2023_v1v2.load(), "cvpca"), (v4, "cross_decomposition")):
        spectrum = statistics.noise_spectrum(da, method=method, n_splits=5, rng=0)
        total = np.trace(statistics.noise_covariance(da).values)
        assert float(spectrum.sum()) == pytest.approx(total, rel=0.05)
        assert (spectrum[:5].values > spectrum.values.mean()).all()
