"""Eigenmoments and MEME: plain cycles, unbiasedness, laws found again, standard errors, bad input."""

from itertools import pairwise, product

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import spectra as plain

from neurovar import statistics
from neurovar.statistics.spectra import _eigenmoments
from neurovar.statistics.spectra._meme import fit_law

NOISES = ["independent", "low-rank", "aligned"]


def moments_of(spectrum: np.ndarray, n_moments: int) -> np.ndarray:
    return np.array([np.mean(spectrum**p) for p in range(1, n_moments + 1)])


# References


def test_cycles_of_distinct_samples() -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((7, 4))
    second = first + rng.standard_normal((7, 4))
    moments, without = _eigenmoments._cycle_moments(first, second, 5, first.shape[1])
    np.testing.assert_allclose(moments, [plain.eigenmoment(first, second, p) for p in range(1, 6)], atol=1e-12)
    for sample in range(7):
        kept = np.arange(7) != sample
        expected = [plain.eigenmoment(first[kept], second[kept], p) for p in range(1, 6)]
        np.testing.assert_allclose(without[sample], expected, atol=1e-12)


def test_the_first_signal_moment_is_the_signal_variance() -> None:
    """Of every way to share out two repeats to two halves; 3000 draws come within four standard errors of it."""
    levels = np.array([1.0, 0.0, 2.0, -1.0])[:, None, None]
    values = np.random.default_rng(0).standard_normal((4, 2, 3)) + levels
    traces = []
    for swaps in product([0, 1], repeat=4):
        halves = [np.array([values[s, swap ^ half] for s, swap in enumerate(swaps)]) for half in (0, 1)]
        traces.append(np.mean([np.cov(halves[0][:, unit], halves[1][:, unit])[0, 1] for unit in range(3)]))
    got = statistics.kernels.eigenmoments(values, "signal", 1, 3000, np.random.default_rng(1))
    assert got.moments[0] == pytest.approx(np.mean(traces), abs=4 * (got.one_draw[0, 0] / 3000) ** 0.5)


def test_the_first_noise_moment_is_the_noise_variance() -> None:
    """With two repeats of each stimulus there is one set of pairs."""
    values = np.random.default_rng(0).standard_normal((9, 2, 6))
    got = statistics.kernels.eigenmoments(values, "noise", 2, 3, np.random.default_rng(1))
    differences = (values[:, 0] - values[:, 1]) / 2**0.5
    assert got.moments[0] == pytest.approx(reference.noise_covariance(values)[0].trace() / 6)
    shuffled = np.random.default_rng(3).permutation(differences)
    assert got.moments[1] == pytest.approx(plain.eigenmoment(shuffled, shuffled, 2))


def test_blocks_of_samples_give_moments_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first moment is a plain mean, in blocks or not; the second one loses a little precision."""
    values = plain.population(plain.power_law(10, 1.0), noise="independent", n_stimuli=300, n_repeats=2, seed=0)
    whole = statistics.kernels.eigenmoments(values, "signal", 2, 3, np.random.default_rng(0))
    monkeypatch.setattr(_eigenmoments, "MOST_SAMPLES", 40)
    blocks = statistics.kernels.eigenmoments(values, "signal", 2, 3, np.random.default_rng(0))
    assert blocks.moments[0] == pytest.approx(whole.moments[0])
    assert blocks.moments[1] == pytest.approx(whole.moments[1], rel=0.1)
    errors = [estimate.standard_error(np.eye(2)) for estimate in (blocks, whole)]
    np.testing.assert_allclose(errors[0], errors[1], rtol=0.2)


@pytest.mark.parametrize("of", ["signal", "noise"])
def test_torch_and_numpy_give_the_same(of: str) -> None:
    values = plain.population(
        plain.power_law(6, 1.0), noise="aligned", n_stimuli=15, n_repeats=5, least_repeats=2, seed=0
    )
    got, expected = (
        statistics.kernels.eigenmoments(v, of, 3, 2, np.random.default_rng(0))
        for v in (torch.from_numpy(values), values)
    )
    np.testing.assert_allclose(got.moments, expected.moments, atol=1e-12)
    np.testing.assert_allclose(got.over_stimuli, expected.over_stimuli, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("of", ["signal", "noise"])
def test_a_gpu_gives_the_same(of: str) -> None:
    values = plain.population(plain.power_law(6, 1.0), noise="aligned", n_stimuli=15, n_repeats=5, seed=0)
    got, expected = (
        statistics.kernels.eigenmoments(v, of, 3, 2, np.random.default_rng(0))
        for v in (torch.from_numpy(values).cuda(), values)
    )
    np.testing.assert_allclose(got.moments, expected.moments, atol=1e-10)


# Recovery


@pytest.mark.parametrize("noise", NOISES)
def test_signal_moments_are_unbiased_under_any_noise(noise: str) -> None:
    """Each within two standard errors over 200 populations with unequal repeats, and known to its standard error."""
    result, errors, spectrum = [], [], plain.power_law(12, 1.0)
    for seed in range(1000, 1200):
        values = plain.population(spectrum, noise=noise, n_stimuli=60, n_repeats=4, least_repeats=2, seed=seed)
        estimate = statistics.kernels.eigenmoments(values, "signal", 4, 2, np.random.default_rng(seed))
        result.append(estimate.moments)
        errors.append(estimate.standard_error(np.eye(4)))
    spread = np.std(result, axis=0, ddof=1)
    assert (abs(np.mean(result, axis=0) - moments_of(spectrum, 4)) < 2 * spread / 200**0.5).all()
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(errors), axis=0))[:2] / spread[:2], 1, atol=0.25)


@pytest.mark.parametrize(("n_stimuli", "n_repeats"), [(60, 2), (20, 7), (1, 120)])
def test_noise_moments_are_unbiased(n_stimuli: int, n_repeats: int) -> None:
    """Also where the means differ between stimuli, and with one stimulus."""
    spectrum, result = plain.power_law(12, 1.0), []
    for seed in range(1000, 1200):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((n_stimuli, n_repeats, 12)) * np.sqrt(spectrum)
        values = noise + rng.standard_normal((n_stimuli, 1, 12)) + 4
        result.append(statistics.kernels.eigenmoments(values, "noise", 4, 2, rng).moments)
    error = np.std(result, axis=0, ddof=1) / 200**0.5
    assert (abs(np.mean(result, axis=0) - moments_of(spectrum, 4)) < 2 * error).all()


def test_moments_of_skewed_responses_are_unbiased() -> None:
    """No Gaussian is assumed: exponential tuning, noise whose size is the tuning's."""
    result = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        tuning = rng.exponential(size=(40, 1, 5)) * [2, 1, 1, 0.5, 0.5]
        values = tuning + tuning * rng.standard_normal((40, 3, 5))
        result.append(statistics.kernels.eigenmoments(values, "signal", 3, 2, rng).moments)
    error = np.std(result, axis=0, ddof=1) / 300**0.5
    truth = moments_of(np.array([4, 1, 1, 0.25, 0.25]), 3)
    assert (abs(np.mean(result, axis=0) - truth) < 2 * error).all()


def test_more_draws_of_pairs_have_a_smaller_standard_error() -> None:
    """It is the error of the mean over draws, not of one: both are what they say, within a quarter."""
    result: dict[int, list] = {1: [], 20: []}
    errors: dict[int, list] = {1: [], 20: []}
    for seed in range(80):
        values = plain.population(plain.power_law(20, 1.0), noise="independent", n_stimuli=60, n_repeats=2, seed=seed)
        for n_splits in result:
            estimate = statistics.kernels.eigenmoments(values, "signal", 2, n_splits, np.random.default_rng(seed))
            result[n_splits].append(estimate.moments[0])
            errors[n_splits].append(estimate.standard_error(np.eye(2))[0])
    spread = {n: np.std(values) for n, values in result.items()}
    assert spread[20] < 0.9 * spread[1]
    for n_splits in result:
        assert np.mean(errors[n_splits]) == pytest.approx(spread[n_splits], rel=0.25)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("n_moments", [3, 6])
def test_meme_recovers_an_exponent_of_1(noise: str, n_moments: int) -> None:
    """Within a third of a standard error, as the docstring states, and two errors of the mean of 40 populations."""
    fits = []
    for seed in range(40):
        values = plain.population(
            plain.power_law(40, 1.0), noise=noise, n_stimuli=300, n_repeats=6, least_repeats=5, seed=seed
        )
        da = reference.responses(values)
        fits.append(statistics.fit_eigenmoments(da, of="signal", law="single", n_moments=n_moments, n_splits=2, rng=0))
    exponents = np.array([fit.exponent for fit in fits])
    errors = np.array([fit.standard_error["exponent"] for fit in fits])
    assert abs(exponents.mean() - 1) < errors.mean() / 3 + 2 * exponents.std(ddof=1) / 40**0.5
    assert errors.mean() == pytest.approx(exponents.std(ddof=1), rel=0.35)


def test_meme_of_the_noise() -> None:
    rng, spectrum = np.random.default_rng(0), plain.power_law(40, 1.3)
    da = reference.responses(rng.standard_normal((300, 4, 40)) * np.sqrt(spectrum))
    fit = statistics.fit_eigenmoments(da, of="noise", law="single", n_moments=6, n_splits=2, rng=0)
    assert abs(fit.exponent - 1.3) < 2 * fit.standard_error["exponent"] < 0.1
    assert abs(fit.amplitude - spectrum[0]) < 2 * fit.standard_error["amplitude"]
    assert fit.spectrum().attrs == {"method": "meme", "of": "noise"}


def test_meme_finds_a_broken_law() -> None:
    """Exponents 0.4, then 1.6 from rank 8: the mean of eight populations within two of its standard errors."""
    spectrum = plain.power_law(60, 0.4, late=1.6, break_rank=8)
    result = []
    for seed in range(8):
        values = plain.population(spectrum, noise="aligned", n_stimuli=500, n_repeats=4, seed=seed)
        da = reference.responses(values)
        fit = statistics.fit_eigenmoments(da, of="signal", law="broken", n_moments=6, n_splits=2, rng=seed)
        result.append([fit.exponent, fit.late_exponent, np.log(fit.break_rank or np.nan)])
    error = np.std(result, axis=0, ddof=1) / len(result) ** 0.5
    assert (abs(np.mean(result, axis=0) - [0.4, 1.6, np.log(8)]) < 2 * error).all()
    assert (error < [0.05, 0.05, 0.1]).all()


@pytest.mark.parametrize(("law", "late", "break_rank"), [("single", None, np.inf), ("broken", 1.6, 7.0)])
def test_exact_moments_give_the_exact_law(law: str, late: float | None, break_rank: float) -> None:
    spectrum = plain.power_law(80, 0.7, late=late, break_rank=break_rank)
    covariance = np.diag(moments_of(spectrum, 6) ** 2 * 1e-4)
    estimate = _eigenmoments.MomentEstimate(moments_of(spectrum, 6), covariance, covariance, 1)
    parameters, errors = fit_law(estimate, 80, law)
    expected = [spectrum[0], 0.7] if law == "single" else [spectrum[0], 0.7, late, break_rank]
    np.testing.assert_allclose(parameters, expected, rtol=1e-3)
    assert (errors > 0).all()


def test_the_result_is_the_law_of_all_units() -> None:
    da = statistics.population(n_stimuli=200, n_repeats=4, n_units=30, exponent=1.0, rng=0)
    fit = statistics.fit_eigenmoments(da, of="signal", law="broken", n_moments=5, n_splits=2, rng=0)
    spectrum = fit.spectrum()
    assert spectrum.sizes == {"rank": 30} and spectrum["rank"].values[0] == 1
    assert float(spectrum[0]) == pytest.approx(fit.amplitude)
    np.testing.assert_allclose(moments_of(spectrum.values, 5), fit.fitted_moments)
    np.testing.assert_allclose(fit.moments, statistics.eigenmoments(da, of="signal", n_moments=5, n_splits=2, rng=0))
    slopes = -np.diff(np.log(spectrum.values)) / np.diff(np.log(spectrum["rank"].values))
    assert slopes[0] == pytest.approx(fit.exponent) and slopes[-1] == pytest.approx(fit.late_exponent)
    assert sum(not np.isclose(a, b) for a, b in pairwise(slopes)) <= 2


def test_a_seed_means_one_fit() -> None:
    da = statistics.population(n_stimuli=60, n_repeats=4, n_units=10, exponent=1.0, rng=0)
    options = {"of": "signal", "law": "single", "n_moments": 3, "n_splits": 1}
    first, second, other = (statistics.fit_eigenmoments(da, **options, rng=seed) for seed in (0, 0, 1))
    assert first.exponent == second.exponent != other.exponent


# Bad input

DA = statistics.population(n_stimuli=10, n_repeats=4, n_units=5, rng=0)
OPTIONS = {"of": "signal", "law": "single", "n_moments": 3, "n_splits": 2, "rng": 0}


@pytest.mark.parametrize(
    ("da", "options", "message"),
    [
        (DA, {"of": "both"}, "expected of='signal' or 'noise', got 'both'"),
        (DA, {"law": "double"}, "expected law 'single' or 'broken', got 'double'"),
        (DA, {"n_moments": 1}, "expected at least 2 moments for a single law, got 1"),
        (DA, {"law": "broken"}, "expected at least 4 moments for a broken law, got 3"),
        (DA, {"n_splits": 0}, "expected at least 1 split, got 0"),
        (DA, {"n_moments": 5}, "expected more than 5 pairs of stimuli with 2 repeats for 5 moments, got 5"),
        (DA[:1], {"of": "noise"}, "expected more than 3 pairs of repeats for 3 moments, got 2"),
        (DA[:, :1], {}, "expected at least 2 repeats of some stimulus, got at most 1"),
        (reference.apart(DA), {"of": "noise"}, r"expected units that were recorded together"),
        (-DA.isel(repeat=[0, 0]) * [[1], [-1]], {}, "expected positive eigenmoments, got -.* for p = 1; use fewer"),
        (DA * 0, {}, "expected positive eigenmoments, got 0 for p = 1"),
    ],
)
def test_bad_input(da: xr.DataArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.fit_eigenmoments(da, **{**OPTIONS, **options})


def test_no_moments() -> None:
    with pytest.raises(ValueError, match="expected at least 1 moment, got 0"):
        statistics.eigenmoments(DA, of="signal", n_moments=0, n_splits=1, rng=0)
