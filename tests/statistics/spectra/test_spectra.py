"""cvPCA and the power-law fit: against the public code's arithmetic, scikit-learn, and known spectra."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference.spectra import population
from reference.spectra import power_law as power_law_of

from neurovar import responses, statistics
from neurovar.covariance import Covariance, LowRankPlusDiagonal
from neurovar.statistics import PowerLaw, UnreliableFit


def two_repeats(n_stimuli: int, n_units: int, *, kind: str = "isotropic", seed: int = 0) -> np.ndarray:
    """Two noisy repeats of a power-law signal: (repeat, stimulus, unit)."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(n_units, n_units)))
    signal = rng.normal(size=(n_stimuli, n_units)) / np.sqrt(np.arange(1, n_units + 1)) @ axes
    noise = rng.multivariate_normal(np.zeros(n_units), 0.02 * reference.noise_matrix(kind, n_units), (2, n_stimuli))
    return signal + noise


def doubly_centred(repeat: np.ndarray) -> np.ndarray:
    return repeat - repeat.mean(axis=0) - repeat.mean(axis=1, keepdims=True) + repeat.mean()


def power_law(exponent: float, size: int = 100, amplitude: float = 3.0) -> xr.DataArray:
    rank = np.arange(1, size + 1)
    return xr.DataArray(amplitude * rank ** -float(exponent), dims="rank", coords={"rank": rank})


# References

SIZES = [(40, 25), (25, 40)]


@pytest.mark.parametrize("kind", ["isotropic", "structured"])
@pytest.mark.parametrize(("n_stimuli", "n_units"), SIZES)
def test_the_public_code_gives_the_same(n_stimuli: int, n_units: int, kind: str) -> None:
    """To 1e-6: of doubly centred data, times S − 1, as the public result is a sum over stimuli."""
    first, second = map(doubly_centred, two_repeats(n_stimuli, n_units, kind=kind))
    got = statistics.kernels.cross_spectrum(first, second) * (n_stimuli - 1)
    n = min(n_stimuli, n_units) - 1  # the rank of doubly centred data; the public code divides by 0 beyond
    expected = reference.public_cvpca(first, second)[:n]
    np.testing.assert_allclose(got[:n], expected, rtol=1e-6, atol=1e-6 * expected[0])


@pytest.mark.parametrize("kind", ["isotropic", "structured"])
@pytest.mark.parametrize(("n_stimuli", "n_units"), SIZES)
def test_scikit_learn_gives_the_same(n_stimuli: int, n_units: int, kind: str) -> None:
    first, second = two_repeats(n_stimuli, n_units, kind=kind) + 5
    got = statistics.kernels.cross_spectrum(first, second)
    assert got.shape == (min(n_stimuli - 1, n_units),)
    np.testing.assert_allclose(got, reference.centred_cvpca(first, second)[: len(got)], rtol=1e-8, atol=1e-10)


def test_a_stimulus_mean_over_units_is_signal_here_and_nothing_in_the_public_code() -> None:
    """The documented difference: a signal common to all units is the first axis, and the public PCA takes it off."""
    first, second = two_repeats(60, 20) + 10 * np.random.default_rng(1).normal(size=(60, 1))
    assert statistics.kernels.cross_spectrum(first, second)[0] == pytest.approx(20 * 100, rel=0.5)
    public_axes_see = reference.public_cvpca(*map(doubly_centred, (first, second)))[0] / 59
    assert public_axes_see < 0.01 * statistics.kernels.cross_spectrum(first, second)[0]


@pytest.mark.parametrize("n_splits", [1, 3])
def test_the_spectrum_is_the_mean_over_splits(n_splits: int) -> None:
    """With unequal repeats, and stimuli shown once, which are left out."""
    noise = reference.noise_matrix("structured", 8)
    da = reference.simulate(
        signal=reference.signal_matrix(8), noise=noise, n_stimuli=30, n_repeats=5, least_repeats=1, seed=2
    )
    assert responses.repeat_counts(da).values.min() == 1
    rng = np.random.default_rng(9)
    halves = [responses.split(da, rng=rng) for _ in range(n_splits)]
    expected = np.mean([reference.centred_cvpca(first.values, second.values) for first, second in halves], axis=0)
    got = statistics.signal_spectrum(da, method="cvpca", n_splits=n_splits, rng=9)
    np.testing.assert_allclose(got.values, expected, atol=1e-10)
    assert got["rank"].values.tolist() == list(range(1, 9))
    assert got.attrs == {"method": "cvpca", "of": "signal", "n_splits": n_splits, "units": "(arbitrary)²"}


@pytest.mark.parametrize("n_stimuli", [1030, 1026])
def test_no_more_than_1024_ranks(n_stimuli: int) -> None:
    values = np.random.default_rng(0).normal(size=(n_stimuli, 1028)).astype(np.float32)
    assert statistics.kernels.cross_spectrum(values, values).shape == (1024,)


# Three ways to the same numbers: unit × unit, one Gram matrix of all trials, Gram matrices of each split's halves
WAYS = [(30, 5, 8, 2), (8, 3, 30, 4), (8, 4, 30, 2)]


@pytest.mark.parametrize(("n_stimuli", "n_repeats", "n_units", "n_splits"), WAYS)
def test_every_way_gives_the_same(n_stimuli: int, n_repeats: int, n_units: int, n_splits: int) -> None:
    values = reference.simulate(
        signal=reference.signal_matrix(n_units),
        noise=reference.noise_matrix("structured", n_units),
        n_stimuli=n_stimuli,
        n_repeats=n_repeats,
        least_repeats=2,
        mean=10.0,
        seed=1,
    ).values
    rng = np.random.default_rng(5)
    halves = [responses.split_kernel(values, rng) for _ in range(n_splits)]
    expected = np.mean([reference.centred_cvpca(*pair)[: min(n_stimuli - 1, n_units)] for pair in halves], axis=0)
    got = statistics.kernels.cvpca(values, n_splits, np.random.default_rng(5))
    np.testing.assert_allclose(got, expected, atol=1e-10)
    single = statistics.kernels.cvpca(values.astype(np.float32), n_splits, np.random.default_rng(5))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5 * expected.max())


def test_counts_that_are_integers() -> None:
    values = np.random.default_rng(0).poisson(4, size=(20, 3, 5))
    got, expected = (statistics.kernels.cvpca(v, 2, np.random.default_rng(0)) for v in (values, values.astype(float)))
    np.testing.assert_array_equal(got, expected)


def test_the_responses_stay_as_they_are() -> None:
    values = np.random.default_rng(0).normal(size=(20, 3, 5))
    before = values.copy()
    statistics.kernels.cvpca(values, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("window", [(1, 40), (11, 90), (5, 7)])
def test_the_fit_is_the_public_arithmetic(window: tuple[int, int]) -> None:
    spectrum = power_law(1.2)
    spectrum.values[:] *= np.exp(0.3 * np.random.default_rng(0).normal(size=100))
    fit = statistics.fit_power_law(spectrum, ranks=window)
    exponent, amplitude = reference.public_power_law(spectrum.values, *window)
    assert fit.exponent == pytest.approx(exponent, rel=1e-6)
    assert fit.amplitude == pytest.approx(amplitude, rel=1e-6)
    assert fit.ranks == window


def test_the_whole_public_chain() -> None:
    """Spectrum and exponent together, to 1e-6."""
    first, second = map(doubly_centred, two_repeats(200, 60))
    spectrum = xr.DataArray(
        statistics.kernels.cross_spectrum(first, second), dims="rank", coords={"rank": np.arange(1, 61)}
    )
    expected, _ = reference.public_power_law(reference.public_cvpca(first, second), 2, 30)
    assert statistics.fit_power_law(spectrum, ranks=(2, 30)).exponent == pytest.approx(expected, abs=1e-6)


# Recovery


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.5])
def test_an_exact_power_law(exponent: float) -> None:
    fit = statistics.fit_power_law(power_law(exponent), ranks=(3, 70))
    assert fit == PowerLaw(pytest.approx(exponent, abs=1e-10), pytest.approx(3.0, rel=1e-10), (3, 70))


def mean_exponent(noise: Covariance | None, *, n_repeats: int, exponent: float = 1.0, missing: bool = False) -> float:
    """Over three populations of 200 units and 1000 stimuli, ranks 2 to 30."""
    fits = []
    for seed in range(3):
        da = statistics.population(
            n_stimuli=1000, n_repeats=n_repeats, n_units=200, exponent=exponent, noise=noise, rng=seed
        )
        if missing:
            da.values[::3, -1] = np.nan
        spectrum = statistics.signal_spectrum(da, method="cvpca", n_splits=2, rng=seed)
        fits.append(statistics.fit_power_law(spectrum, ranks=(2, 30)).exponent)
    return float(np.mean(fits))


def shared_noise(size: float) -> LowRankPlusDiagonal:
    factors = np.random.default_rng(3).normal(size=(200, 3)).astype(np.float32) * size
    return LowRankPlusDiagonal(torch.from_numpy(factors), torch.full((200,), 0.5))


def test_an_exponent_of_1_is_recovered_under_isotropic_noise() -> None:
    assert mean_exponent(None, n_repeats=2) == pytest.approx(1, abs=0.05)


def test_an_exponent_of_1_is_recovered_under_structured_noise_and_unequal_repeats() -> None:
    assert mean_exponent(shared_noise(0.1), n_repeats=5, missing=True) == pytest.approx(1, abs=0.05)


def test_another_exponent_is_not_taken_for_1() -> None:
    assert mean_exponent(None, n_repeats=4, exponent=0.7) == pytest.approx(0.7, abs=0.05)


def test_the_stated_bias_under_strong_shared_noise() -> None:
    """Shared noise of variance 9 along three axes makes the exponent too small, and more repeats help."""
    assert mean_exponent(shared_noise(0.2), n_repeats=2) < 0.9
    assert mean_exponent(shared_noise(0.2), n_repeats=16) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", ["isotropic", "structured"])
def test_the_sum_is_the_signal_variance(kind: str) -> None:
    """Within 4 %, three standard errors, with noise larger than the signal and unequal repeats."""
    signal, noise = reference.signal_matrix(10), 4 * reference.noise_matrix(kind, 10)
    sums = [
        float(statistics.signal_spectrum(da, method="cvpca", n_splits=2, rng=0).sum())
        for seed in range(40)
        for da in [
            reference.simulate(signal=signal, noise=noise, n_stimuli=1000, n_repeats=4, least_repeats=2, seed=seed)
        ]
    ]
    assert np.mean(sums) == pytest.approx(np.trace(signal), rel=0.04)


def test_without_signal_the_spectrum_averages_to_nothing() -> None:
    da = reference.simulate(
        signal=np.zeros((10, 10)), noise=reference.noise_matrix("structured", 10), n_stimuli=2000, n_repeats=2, seed=0
    )
    assert abs(float(statistics.signal_spectrum(da, method="cvpca", n_splits=20, rng=0).sum())) < 0.1


def test_the_stated_bias_under_noise_along_two_axes() -> None:
    """By 0.4 with 4 repeats, while other estimators of the same responses are not bent (`test_spectra_held_out`)."""
    fits = []
    for seed in range(6):
        values = population(power_law_of(60, 1.0), noise="low-rank", n_stimuli=600, n_repeats=4, seed=seed)
        spectrum = statistics.signal_spectrum(reference.responses(values), method="cvpca", n_splits=1, rng=seed)
        try:
            fits.append(statistics.fit_power_law(spectrum, ranks=(2, 20)).exponent)
        except UnreliableFit as unreliable:
            fits.append(unreliable.estimate.exponent)
    assert np.mean(fits) == pytest.approx(0.6, abs=0.2)


def test_a_seed_means_one_spectrum() -> None:
    da = statistics.population(n_stimuli=20, n_repeats=4, n_units=5, rng=0)
    first, second, other = (statistics.signal_spectrum(da, method="cvpca", n_splits=2, rng=seed) for seed in (0, 0, 1))
    xr.testing.assert_identical(first, second)
    assert not first.equals(other)


# Bad input

DA = statistics.population(n_stimuli=10, n_repeats=2, n_units=5, rng=0)


@pytest.mark.parametrize(
    ("da", "options", "message"),
    [
        (DA, {"method": "pca"}, "expected method 'cvpca' or 'cross_decomposition', got 'pca'"),
        (DA, {"n_splits": 0}, "expected at least 1 split, got 0"),
        (DA.isel(repeat=[0]), {}, "expected at least 2 repeats of some stimulus, got at most 1"),
        (DA.isel(stimulus=[0, 1]), {}, "expected at least 3 stimuli with 2 repeats, got 2"),
        (DA.rename(unit="neuroid"), {}, "expected dims"),
    ],
)
def test_bad_recordings(da: xr.DataArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.signal_spectrum(da, **{"method": "cvpca", "n_splits": 2, "rng": 0, **options})


@pytest.mark.parametrize("window", [(0, 10), (5, 101), (5, 6), (20, 10)])
def test_bad_windows(window: tuple[int, int]) -> None:
    expected = f"expected a window of at least 3 ranks within 1–100, got {window[0]}–{window[1]}"
    with pytest.raises(ValueError, match=expected):
        statistics.fit_power_law(power_law(1), ranks=window)


@pytest.mark.parametrize("spectrum", [power_law(1).rename(rank="n"), power_law(1).drop_vars("rank")])
def test_a_spectrum_without_ranks(spectrum: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="expected a spectrum with dim and coordinate 'rank', got dims"):
        statistics.fit_power_law(spectrum, ranks=(1, 10))


@pytest.mark.parametrize("bad", [0.0, -0.5, np.nan])
def test_a_fit_that_cannot_be_trusted_carries_its_estimate(bad: float) -> None:
    spectrum = power_law(1.5)
    spectrum.values[[6, 11, 60]] = bad
    expected = r"ranks 2–50, got 2 that are not \(first at rank 7\); the others alone give an exponent of 1.50"
    with pytest.raises(UnreliableFit, match=expected) as caught:
        statistics.fit_power_law(spectrum, ranks=(2, 50))
    assert isinstance(caught.value, ValueError)
    assert caught.value.estimate == PowerLaw(pytest.approx(1.5), pytest.approx(3.0), (2, 50))


def test_a_window_of_noise() -> None:
    with pytest.raises(ValueError, match="expected positive variances at ranks 2–50, got 0"):
        statistics.fit_power_law(-power_law(1), ranks=(2, 50))


@pytest.mark.parametrize("spectrum", [statistics.signal_spectrum, statistics.noise_spectrum])
def test_spectra_of_groups_of_units(spectrum: Callable[..., xr.DataArray]) -> None:
    da = reference.recording("structured", n_units=9, n_stimuli=12).assign_coords(area=("unit", list("aabbbabbb")))
    options = {"method": "cross_decomposition", "n_splits": 2}
    result = spectrum(da, by="area", rng=0, **options)
    for area in ("a", "b"):
        alone = spectrum(da.isel(unit=da["area"].values == area), rng=0, **options)
        np.testing.assert_array_equal(result.sel(area=area)[: alone.sizes["rank"]], alone)
    assert result.sel(area="a")[3:].isnull().all()
    assert result.attrs == alone.attrs
