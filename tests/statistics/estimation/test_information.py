"""Linear Fisher information: published formulas, known answers, bad input, a real recording."""

from dataclasses import asdict, astuple

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import information

from neurovar import statistics
from neurovar.statistics.estimation._information import FisherInformation, fisher_information, fisher_information_kernel

N_UNITS = 10
TUNING = np.random.default_rng(5).normal(size=N_UNITS) * 0.6  # the difference of the means, f′ ds
MEANS = np.stack([TUNING / 2, -TUNING / 2])
EYE = np.eye(N_UNITS)
NOISES = {
    "independent": EYE,
    "low-rank": EYE + 0.5 * np.ones((N_UNITS, N_UNITS)),
    "differential": EYE + 0.5 * np.outer(TUNING, TUNING),
}
ESTIMATES = ("information", "shuffled", "benefit")


def two_stimuli(noise: np.ndarray, n_repeats: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    root = np.linalg.cholesky(noise)
    return [mean + rng.normal(size=(n, len(mean))) @ root.T for mean, n in zip(MEANS, n_repeats)]


def recording(n_repeats: tuple[int, int] = (20, 16)) -> xr.DataArray:
    """Four stimuli s0 … s3; of the two in the middle, the given numbers of repeats."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 24, N_UNITS))
    for stimulus, trials in zip((1, 2), two_stimuli(NOISES["low-rank"], n_repeats, rng)):
        values[stimulus] = np.nan
        values[stimulus, rng.permutation(24)[: len(trials)]] = trials
    return reference.responses(values)


def numbers(draws: FisherInformation) -> np.ndarray:
    """The estimates and their standard errors."""
    return np.array(astuple(draws)[:6])


# References


@pytest.mark.parametrize("ds", [1, 0.2])
def test_the_published_formulas(ds: float) -> None:
    first, second = two_stimuli(NOISES["low-rank"], (15, 15), np.random.default_rng(0))
    whole, variance, shuffled = information.kanitscheider(first, second, ds)
    got = fisher_information_kernel(first, second, distance=ds)
    assert got.information == pytest.approx(whole, rel=1e-10)
    assert got.shuffled == pytest.approx(shuffled, rel=1e-10)
    assert got.benefit == pytest.approx(whole - shuffled, rel=1e-10)
    unbiased = variance * (30 - N_UNITS - 5) / (30 - N_UNITS - 3)
    assert got.standard_error == pytest.approx(unbiased**0.5, rel=1e-10)


def test_unequal_repeats_at_any_position() -> None:
    da = recording()
    first, second = (trials for trials in list(reference.trials(da.values))[1:3])
    assert (len(first), len(second)) == (20, 16)
    got = fisher_information(da, pair=("s1", "s2"), distance=0.5)
    kappa, dof = 1 / 20 + 1 / 16, 34
    corrected = information.naive(first, second) * (dof - N_UNITS - 1) / dof - N_UNITS * kappa
    assert got.information == pytest.approx(corrected / 0.25, rel=1e-10)
    units = [information.naive(first[:, [i]], second[:, [i]]) for i in range(N_UNITS)]
    assert got.shuffled == pytest.approx((sum(units) * (dof - 2) / dof - N_UNITS * kappa) / 0.25, rel=1e-10)
    assert (got.n_units, got.n_repeats) == (N_UNITS, (20, 16))
    other = fisher_information(da, pair=("s2", "s1"), distance=0.5)
    assert other.information == pytest.approx(got.information, rel=1e-10) and other.n_repeats == (16, 20)


def test_the_measure_of_a_unit_and_of_the_stimulus_do_not_matter() -> None:
    da = recording()
    value = fisher_information(da, pair=("s1", "s2"), distance=1)
    scaled = fisher_information(da * np.logspace(-9, 9, N_UNITS), pair=("s1", "s2"), distance=10)
    np.testing.assert_allclose(100 * numbers(scaled), numbers(value), rtol=1e-9)


def test_one_unit_has_no_correlations() -> None:
    got = fisher_information(recording().isel(unit=[3]), pair=("s1", "s2"), distance=1)
    assert got.information == pytest.approx(got.shuffled, rel=1e-12)
    assert got.standard_error == pytest.approx(got.shuffled_standard_error, rel=1e-12)
    assert (got.benefit, got.benefit_standard_error) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-6))


# Recovery


def simulated(noise: np.ndarray, n_repeats: tuple[int, int], *, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    draws = [fisher_information_kernel(*two_stimuli(noise, n_repeats, rng), distance=1) for _ in range(n)]
    return dict(zip(asdict(draws[0]), np.array([numbers(value) for value in draws]).T))


@pytest.mark.parametrize("n_repeats", [(40, 40), (9, 9), (12, 30)])
@pytest.mark.parametrize("kind", NOISES)
def test_no_bias(kind: str, n_repeats: tuple[int, int]) -> None:
    draws = simulated(NOISES[kind], n_repeats, n=2000)
    whole, shuffled = information.truth(MEANS, NOISES[kind])
    for name, truth in zip(ESTIMATES, (whole, shuffled, whole - shuffled)):
        assert abs(draws[name].mean() - truth) < 2 * draws[name].std() / np.sqrt(2000)


def test_differential_correlations_limit_information() -> None:
    """I = I₀ / (1 + ε I₀)."""
    alone = float(TUNING @ TUNING)
    assert information.truth(MEANS, NOISES["differential"])[0] == pytest.approx(alone / (1 + 0.5 * alone), rel=1e-12)
    draws = fisher_information_kernel(
        *two_stimuli(NOISES["differential"], (3000, 3000), np.random.default_rng(0)), distance=1
    )
    assert draws.benefit < -5 * draws.benefit_standard_error
    assert abs(draws.information - alone / (1 + 0.5 * alone)) < 2 * draws.standard_error


@pytest.mark.parametrize("kind", NOISES)
def test_the_bias_without_correction_is_as_stated(kind: str) -> None:
    rng, n_repeats = np.random.default_rng(0), (12, 16)
    dof, kappa = 26, 1 / 12 + 1 / 16
    draws = [information.naive(*two_stimuli(NOISES[kind], n_repeats, rng)) for _ in range(1000)]
    truth = information.truth(MEANS, NOISES[kind])[0]
    expected = truth + (truth * (N_UNITS + 1) + N_UNITS * kappa * dof) / (dof - N_UNITS - 1)
    assert abs(np.mean(draws) - expected) < 2 * np.std(draws) / np.sqrt(1000)


@pytest.mark.parametrize("n_repeats", [(40, 40), (15, 25)])
@pytest.mark.parametrize("kind", NOISES)
def test_standard_errors(kind: str, n_repeats: tuple[int, int]) -> None:
    """The mean estimated variance is the variance of the estimates, whose own error is about √(2.5/n)."""
    draws = simulated(NOISES[kind], n_repeats, n=1500)
    for name, error in zip(ESTIMATES, ("standard_error", "shuffled_standard_error", "benefit_standard_error")):
        assert (draws[error] ** 2).mean() == pytest.approx(draws[name].var(), rel=0.15)


@pytest.mark.parametrize(("kind", "n"), [("independent", 9), ("low-rank", 20)])
def test_the_standard_error_of_shuffled_with_few_trials_and_much_information(kind: str, n: int) -> None:
    """Most of r² between units is sampling error, and the variances count as much as the means."""
    rng, draws = np.random.default_rng(0), []
    for _ in range(3000):
        first, second = two_stimuli(NOISES[kind], (n, n), rng)
        draws.append(fisher_information_kernel(first + 8 * TUNING, second, distance=1))
    spread = np.var([value.shuffled for value in draws])
    assert np.mean([value.shuffled_standard_error**2 for value in draws]) == pytest.approx(spread, rel=0.1)


def test_standard_errors_without_any_information() -> None:
    """Never less than what they then are, though estimates of the information scatter around 0."""
    rng, n = np.random.default_rng(0), 25
    trials = rng.normal(size=(1000, 2, n, N_UNITS))
    draws = [fisher_information_kernel(*pair, distance=1) for pair in trials]
    for name, error in zip(ESTIMATES, ("standard_error", "shuffled_standard_error", "benefit_standard_error")):
        errors, spread = (
            np.array([getattr(value, error) for value in draws]),
            np.std([getattr(value, name) for value in draws]),
        )
        assert errors.min() > 0.85 * spread and np.median(errors) < 1.5 * spread


@pytest.mark.parametrize("kind", ["low-rank", "differential"])
def test_shuffled_is_what_shuffling_gives(kind: str) -> None:
    rng = np.random.default_rng(0)
    first, second = two_stimuli(NOISES[kind], (60, 50), rng)
    got = fisher_information_kernel(first, second, distance=1)
    again = [
        fisher_information_kernel(information.shuffle(first, rng), information.shuffle(second, rng), distance=1)
        for _ in range(300)
    ]
    shuffled = [value.information for value in again]
    assert abs(np.mean(shuffled) - got.shuffled) < 3 * np.std(shuffled) / np.sqrt(300) + 0.01 * got.shuffled
    assert [value.shuffled for value in again] == pytest.approx([got.shuffled] * 300, rel=1e-9)


def test_counts_of_different_variance() -> None:
    """Poisson counts: the covariance differs between stimuli; with as many trials of both it is their mean."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(3, size=(2, N_UNITS))
    truth, _ = information.truth(rates, np.diag(rates.mean(axis=0)))
    trials = rng.poisson(rates[:, None], size=(600, 2, 30, N_UNITS)).astype(float).transpose(1, 0, 2, 3)
    draws = [fisher_information_kernel(first, second, distance=1) for first, second in zip(*trials)]
    for name in ("information", "shuffled"):
        values = np.array([getattr(value, name) for value in draws])
        assert values.mean() == pytest.approx(truth, rel=0.02)


# Kernels and input


def test_the_kernel_takes_torch() -> None:
    first, second = two_stimuli(NOISES["low-rank"], (20, 15), np.random.default_rng(0))
    expected = fisher_information_kernel(first, second, distance=0.5)
    tensors = (torch.from_numpy(first), torch.from_numpy(second))
    got: FisherInformation = fisher_information_kernel(*tensors, distance=0.5)
    assert got.n_repeats == (20, 15)
    np.testing.assert_allclose(numbers(got), numbers(expected), rtol=1e-10)
    single = fisher_information_kernel(*(tensor.float() for tensor in tensors), distance=0.5)
    assert single.information == pytest.approx(expected.information, rel=1e-3)


@pytest.mark.gpu
def test_the_kernel_on_a_gpu() -> None:
    first, second = two_stimuli(NOISES["low-rank"], (20, 15), np.random.default_rng(0))
    got = fisher_information_kernel(torch.from_numpy(first).cuda(), torch.from_numpy(second).cuda(), distance=0.5)
    np.testing.assert_allclose(numbers(got), numbers(fisher_information_kernel(first, second, distance=0.5)), rtol=1e-9)


def test_single_precision_and_integers_are_computed_in_double() -> None:
    counts = np.random.default_rng(0).poisson(20, size=(2, 12, 5))
    da = reference.responses(counts)
    expected = asdict(fisher_information(da.astype(float), pair=("s0", "s1"), distance=1))
    for dtype in ("float32", "int64"):
        assert asdict(fisher_information(da.astype(dtype), pair=("s0", "s1"), distance=1)) == expected


def test_the_least_number_of_trials() -> None:
    da = recording((8, 8))
    assert np.isfinite(fisher_information(da, pair=("s1", "s2"), distance=1).standard_error)
    few = recording((8, 7))
    expected = (
        "expected at least 16 trials of the two stimuli together, and 2 of each, for 10 units, got 8 \\+ 7: "
        "it takes more repeats or at most 9 units"
    )
    with pytest.raises(ValueError, match=expected):
        fisher_information(few, pair=("s1", "s2"), distance=1)
    assert fisher_information(few.isel(unit=slice(9)), pair=("s1", "s2"), distance=1).n_units == 9
    with pytest.raises(ValueError, match=r"got 23 \+ 1: it takes more repeats$"):
        fisher_information(recording((23, 1)), pair=("s1", "s2"), distance=1)
    with pytest.raises(ValueError, match=r"got 3 \+ 2: it takes more repeats$"):
        fisher_information(recording((3, 2)), pair=("s1", "s2"), distance=1)


@pytest.mark.parametrize("pair", [("s1", "s1"), ("s1", "other"), ("s1",), ("s0", "s1", "s2")])
def test_no_pair(pair: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a pair of different stimuli among 4 \(s0, …\), got \('s"):
        fisher_information(recording(), pair=pair, distance=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", [0, -1, np.nan, np.inf])
def test_no_distance(distance: float) -> None:
    with pytest.raises(ValueError, match=f"expected a distance above 0, got {distance}"):
        fisher_information(recording(), pair=("s1", "s2"), distance=distance)


def test_units_that_make_no_covariance() -> None:
    da = recording()
    silent = da.copy(deep=True)
    silent.values[1:3, :, 4] = np.where(np.isnan(da.values[1:3, :, 4]), np.nan, 0.1)
    with pytest.raises(
        ValueError, match=r"of these two stimuli, got 1 that do not \(positions \[4\]\); leave them out"
    ):
        fisher_information(silent, pair=("s1", "s2"), distance=1)
    double = da.copy(deep=True)
    double.values[..., 7] = da.values[..., 1] - 3 * da.values[..., 2]
    with pytest.raises(ValueError, match="none is a linear combination of others, got rank 9 of 10 units"):
        fisher_information(double, pair=("s1", "s2"), distance=1)


def test_units_that_were_not_recorded_together() -> None:
    with pytest.raises(ValueError, match="recorded together"):
        fisher_information(reference.apart(recording()), pair=("s1", "s2"), distance=1)


# A real recording


@pytest.mark.data
def test_v4_has_too_few_repeats_for_its_units() -> None:
    from neurovar_datasets import cowley2023_v4

    from neurovar.responses import repeat_counts

    v4 = cowley2023_v4.load(session="210325")
    counts = repeat_counts(v4).values
    ids = v4.stimulus.values[np.argsort(-counts, kind="stable")[:2]].tolist()
    most = int(np.sort(counts)[-2:].sum()) - 6
    with pytest.raises(ValueError, match=f"at least 56 trials.* for 50 units, got .* or at most {most} units"):
        fisher_information(v4, pair=tuple(ids), distance=1)
    active = np.argsort(-v4.sel(stimulus=ids).mean(("stimulus", "repeat")).values)[:most]
    got = fisher_information(v4.isel(unit=active[:5]), pair=tuple(ids), distance=1)
    assert np.isfinite(got.information) and got.standard_error > 0


def test_groups_of_units() -> None:
    da = statistics.population(n_stimuli=2, n_repeats=40, n_units=7, rng=0)
    pair = tuple(da["stimulus"].values)
    draws = fisher_information(da.assign_coords(area=("unit", list("abbabba"))), pair=pair, distance=2.0, by="area")
    alone = fisher_information(da[:, :, [1, 2, 4, 5]], pair=pair, distance=2.0)
    value = draws.sel(area="b")
    assert (float(value.information), float(value.benefit_standard_error)) == (
        alone.information,
        alone.benefit_standard_error,
    )
    assert draws["n_units"].values.tolist() == [3, 4] and value["n_repeats"].values.tolist() == [40, 40]
