"""Noise and signal statistics: against independent references, known answers, stated biases, and a real recording."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import responses, statistics

KINDS = ["isotropic", "structured"]
PADDING = [None, 2]
N_UNITS = 8


def spike_counts(least_repeats: int | None = 1) -> xr.DataArray:
    da = reference.recording("structured", least_repeats=least_repeats)
    return reference.responses(np.floor(np.exp(da.values / 2)), units="spike count")


@pytest.fixture(params=KINDS)
def small(request: pytest.FixtureRequest) -> xr.DataArray:
    """Unequal repeats, and some stimuli shown once."""
    return reference.recording(request.param, least_repeats=1)


# References


def test_noise_covariance_is_the_loop(small: xr.DataArray) -> None:
    expected, dof = reference.noise_covariance(small.values)
    got = statistics.noise_covariance(small.assign_coords(area=("unit", list("abcdefgh"))))
    np.testing.assert_allclose(got.values, expected, rtol=1e-10, atol=1e-12)
    assert got.attrs == {"dof": dof, "units": "(arbitrary)²"}
    assert got.dims == ("unit", "other_unit") and got.area.values.tolist() == list("abcdefgh")


def test_noise_correlation_is_the_loop(small: xr.DataArray) -> None:
    pooled = reference.correlation(reference.noise_covariance(small.values)[0])
    np.testing.assert_allclose(statistics.noise_correlation(small, zscore=False).values, pooled, atol=1e-10)
    z_scored = reference.zscored_noise_correlation(small.values)
    np.testing.assert_allclose(statistics.noise_correlation(small).values, z_scored, atol=1e-10)


def test_noise_correlation_where_units_are_silent_for_some_stimuli() -> None:
    counts = spike_counts()
    assert any(np.ptp(repeats, axis=0).min() == 0 for repeats in reference.trials(counts.values) if len(repeats) > 1)
    expected = reference.zscored_noise_correlation(counts.values)
    np.testing.assert_allclose(statistics.noise_correlation(counts).values, expected, atol=1e-10)


def test_a_constant_within_a_stimulus_is_no_noise() -> None:
    """0.1 three times has a mean of 0.10000000000000002; the rounding must not be z-scored into noise."""
    values = reference.recording("structured", least_repeats=None, n_repeats=3).values
    values[:7, :, 0], values[:7, :, 1] = 0.1, 0.7
    got = statistics.noise_correlation(reference.responses(values)).values
    np.testing.assert_allclose(got, reference.zscored_noise_correlation(values), atol=1e-10)
    alone = statistics.noise_correlation(reference.responses(values[7:])).values
    assert got[0, 1] == pytest.approx(alone[0, 1], abs=1e-10)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_pair_that_never_varies_together_is_undefined() -> None:
    values = reference.recording("isotropic", least_repeats=None).values
    values[:7, :, 0], values[7:, :, 1] = 0.1, 0.1
    got = statistics.noise_correlation(reference.responses(values)).values
    np.testing.assert_allclose(got, reference.zscored_noise_correlation(values), atol=1e-10)
    assert np.isnan(got[0, 1]) and np.isnan(got).sum() == 2


@pytest.mark.parametrize("n_splits", [1, 4])
def test_signal_correlation_and_reliability_are_the_loops(small: xr.DataArray, n_splits: int) -> None:
    rng = np.random.default_rng(5)
    halves = [tuple(half.values for half in responses.split(small, rng=rng)) for _ in range(n_splits)]
    covariance = np.mean([reference.cross_covariance(*pair) for pair in halves], axis=0)
    kernel = statistics.kernels.signal_covariance(small.values, n_splits, np.random.default_rng(5))
    np.testing.assert_allclose(kernel, covariance, atol=1e-10)
    tuned = np.flatnonzero(np.diag(covariance) > 0)
    assert len(tuned) >= 7
    got = statistics.signal_correlation(small, n_splits=n_splits, rng=5).values
    expected = reference.correlation(covariance[np.ix_(tuned, tuned)])
    np.testing.assert_allclose(got[np.ix_(tuned, tuned)], expected, atol=1e-10)
    assert np.isnan(got).sum() == N_UNITS**2 - len(tuned) ** 2
    got = statistics.reliability(small, n_splits=n_splits, rng=5).values
    np.testing.assert_allclose(got, reference.spearman_brown(halves), atol=1e-10)


def test_a_unit_without_signal_has_no_signal_correlation() -> None:
    """Opposite responses to the two repeats give a negative signal variance."""
    da = reference.recording("isotropic", least_repeats=None, n_repeats=12)
    da.values[..., 4] = np.arange(15)[:, None] * np.repeat([1, -1], 6)
    got = statistics.signal_correlation(da, rng=0).values
    assert np.isnan(got[4]).all() and np.isnan(got[:, 4]).all()
    assert np.isnan(got).sum() == 2 * N_UNITS - 1
    constant = da.copy(deep=True)
    constant.values[..., 4] = 0
    assert np.isnan(statistics.reliability(constant, rng=0).values).nonzero()[0].tolist() == [4]


def test_fano_factor_is_the_loop() -> None:
    counts = spike_counts()
    assert min(len(repeats) for repeats in reference.trials(counts.values)) == 1
    got = statistics.fano_factor(counts)
    np.testing.assert_allclose(got.values, reference.fano_factor(counts.values), rtol=1e-10)


def test_a_unit_without_spikes_has_no_fano_factor() -> None:
    counts = spike_counts()
    counts.values[..., 3] = np.where(np.isnan(counts.values[..., 3]), np.nan, 0)
    got = statistics.fano_factor(counts).values
    assert np.isnan(got[3])
    np.testing.assert_allclose(got, reference.fano_factor(counts.values), rtol=1e-10)


def test_effective_dimensionality_from_eigenvalues(small: xr.DataArray) -> None:
    expected = reference.effective_dimensionality(reference.noise_covariance(small.values)[0])
    assert statistics.effective_dimensionality(small) == pytest.approx(expected, rel=1e-10)


# Recovery of known answers


@pytest.mark.parametrize("least_repeats", PADDING)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_recovered(kind: str, least_repeats: int | None) -> None:
    """Every entry of the covariance within 4.5 standard errors; of the correlation, within 4.5/√dof."""
    truth = reference.noise_matrix(kind, N_UNITS)
    da = reference.recording(kind, least_repeats=least_repeats, n_stimuli=600)
    covariance = statistics.noise_covariance(da)
    z = reference.covariance_z_scores(covariance.values, truth, covariance.attrs["dof"])
    assert np.abs(z).max() < 4.5
    correlation = statistics.noise_correlation(da, zscore=False).values
    error = np.abs(correlation - reference.correlation(truth)).max()
    assert error < 4.5 / np.sqrt(covariance.attrs["dof"])


@pytest.mark.parametrize("least_repeats", [None, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_zscored_noise_correlation_is_recovered_with_many_repeats(kind: str, least_repeats: int | None) -> None:
    """Within the sampling error, 4.5/√dof, and the stated bias, at most ρ/(2·15) with 16 to 20 repeats."""
    truth = reference.correlation(reference.noise_matrix(kind, N_UNITS))
    da = reference.recording(kind, least_repeats=least_repeats, n_stimuli=200, n_repeats=20)
    error = np.abs(statistics.noise_correlation(da).values - truth)
    assert (error < 4.5 / np.sqrt(200 * 17) + np.abs(truth) * (1 - truth**2) / 30).all()


def test_zscoring_keeps_stimuli_of_large_variance_from_dominating() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 10, 2))
    values[:20] = 50 * (values[:20, :, :1] + 0.1 * values[:20])  # 20 loud stimuli, correlation near 1
    da = reference.responses(values)
    assert statistics.noise_correlation(da, zscore=False).values[0, 1] > 0.9
    assert abs(statistics.noise_correlation(da).values[0, 1] - 20 / 300) < 0.06


@pytest.mark.parametrize("least_repeats", PADDING)
@pytest.mark.parametrize("kind", KINDS)
def test_signal_correlation_is_recovered(kind: str, least_repeats: int | None) -> None:
    truth = reference.correlation(reference.signal_matrix(N_UNITS))
    da = reference.recording(kind, least_repeats=least_repeats, n_stimuli=3000)
    got = statistics.signal_correlation(da, n_splits=5, rng=0).values
    assert np.abs(got - truth).max() < 0.1


def test_signal_correlation_is_free_of_noise_correlation() -> None:
    """Tuning is independent and noise shared: the mean responses are correlated, the signals are not."""
    noise = 2 * np.eye(N_UNITS) + 4
    da = reference.simulate(signal=np.eye(N_UNITS), noise=noise, n_stimuli=4000, n_repeats=4, seed=1)
    pairs = np.triu_indices(N_UNITS, 1)
    assert np.corrcoef(da.values.mean(axis=1).T)[pairs].min() > 0.3
    assert np.abs(statistics.signal_correlation(da, n_splits=5, rng=0).values[pairs]).max() < 0.15


@pytest.mark.parametrize("least_repeats", PADDING)
@pytest.mark.parametrize("kind", KINDS)
def test_reliability_is_recovered(kind: str, least_repeats: int | None) -> None:
    """r of the halves is s / (s + c·E[1/half]), s the signal's and c the noise's variance; then Spearman–Brown."""
    signal, noise = (np.diag(m) for m in (reference.signal_matrix(N_UNITS), reference.noise_matrix(kind, N_UNITS)))
    da = reference.recording(kind, least_repeats=least_repeats, n_stimuli=2000)
    halves = np.array([len(repeats) // 2 for repeats in reference.trials(da.values)])
    r = signal / (signal + noise * (1 / halves).mean())
    got = statistics.reliability(da, n_splits=5, rng=0).values
    np.testing.assert_allclose(got, 2 * r / (1 + r), atol=0.06)


def test_reliability_is_the_correlation_with_as_many_new_repeats() -> None:
    da = reference.recording("structured", least_repeats=None, n_stimuli=3000, n_repeats=8)
    old, new = da.isel(repeat=slice(4)), da.isel(repeat=slice(4, 8))
    means = old.values.mean(axis=1), new.values.mean(axis=1)
    expected = [np.corrcoef(means[0][:, unit], means[1][:, unit])[0, 1] for unit in range(N_UNITS)]
    np.testing.assert_allclose(statistics.reliability(old, n_splits=5, rng=0).values, expected, atol=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_fano_factor_of_doubly_stochastic_counts(kind: str) -> None:
    """Poisson counts of mean μ·g, g log-normal with mean 1 and var(g) = e^v − 1: F = 1 + μ(e^v − 1)."""
    rng = np.random.default_rng(0)
    noise = 0.05 * reference.noise_matrix(kind, N_UNITS)
    variance = np.diag(noise)
    mean = rng.uniform(1, 8, size=(400, 1, N_UNITS))
    gain = np.exp(rng.multivariate_normal(-variance / 2, noise, size=(400, 20)))
    values = rng.poisson(mean * gain).astype(float)
    values[::3, 14:] = np.nan
    expected = 1 + mean.mean(axis=(0, 1)) * np.expm1(variance)
    got = statistics.fano_factor(reference.responses(values, units="spike count")).values
    np.testing.assert_allclose(got, expected, rtol=0.05)


def test_fano_factor_of_poisson_counts_is_1_even_at_low_rates() -> None:
    """Two repeats of 0.3 spikes: no bias, though more than half of the stimuli are left out."""
    counts = np.random.default_rng(0).poisson(0.3, size=(100_000, 2, 1)).astype(float)
    assert statistics.kernels.fano_factor(counts)[0] == pytest.approx(1, abs=0.015)


# Biases that the docstrings state


@pytest.mark.parametrize(("mean", "fano", "n_repeats"), [(5, 3.0, 6), (10, 2.0, 6), (8, 0.5, 5)])
def test_fano_bias_of_other_counts(mean: float, fano: float, n_repeats: int) -> None:
    """−F(F − 1)/(R μ) to first order, for negative binomial (F > 1) and binomial counts (F < 1)."""
    rng, size = np.random.default_rng(0), (100_000, n_repeats, 1)
    if fano > 1:
        counts = rng.negative_binomial(mean / (fano - 1), 1 / fano, size=size)
    else:
        counts = rng.binomial(round(mean / (1 - fano)), 1 - fano, size=size)
    bias = statistics.kernels.fano_factor(counts.astype(float))[0] - fano
    assert bias == pytest.approx(-fano * (fano - 1) / (n_repeats * mean), rel=0.25)


def correlated_pair(rho: float, n_stimuli: int, n_repeats: int) -> np.ndarray:
    root = np.linalg.cholesky([[1, rho], [rho, 1]])
    return np.random.default_rng(0).normal(size=(n_stimuli, n_repeats, 2)) @ root.T


@pytest.mark.parametrize("n_repeats", [3, 5, 10])
def test_bias_of_zscored_correlations_does_not_vanish_with_stimuli(n_repeats: int) -> None:
    rho = 0.5
    values = correlated_pair(rho, 40_000, n_repeats)
    bias = statistics.kernels.noise_correlation(values)[0, 1] - rho
    assert bias == pytest.approx(-rho * (1 - rho**2) / (2 * (n_repeats - 1)), rel=0.2)
    assert abs(statistics.kernels.noise_correlation(values, zscore=False)[0, 1] - rho) < 0.01


def test_bias_of_pooled_correlations() -> None:
    rho, dof = 0.5, 8
    groups = correlated_pair(rho, 4 * 20_000, 3).reshape(20_000, 4, 3, 2)
    got = [statistics.kernels.noise_correlation(group, zscore=False)[0, 1] for group in groups]
    assert np.mean(got) - rho == pytest.approx(-rho * (1 - rho**2) / (2 * dof), rel=0.2)


def test_two_repeats_leave_only_signs() -> None:
    values = correlated_pair(0.5, 20_000, 2)
    expected = 2 / np.pi * np.arcsin(0.5)  # the correlation of the signs of Gaussians
    assert statistics.kernels.noise_correlation(values)[0, 1] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("n_units", "n_stimuli"), [(20, 10), (20, 50), (40, 10)])
def test_bias_of_effective_dimensionality(n_units: int, n_stimuli: int) -> None:
    rng, dof = np.random.default_rng(0), 2 * n_stimuli
    noises = [reference.responses(rng.normal(size=(n_stimuli, 3, n_units))) for _ in range(30)]
    got = np.mean([statistics.effective_dimensionality(noise) for noise in noises])
    assert got == pytest.approx(n_units * dof / (n_units + dof), rel=0.04)


@pytest.mark.parametrize("kind", KINDS)
def test_effective_dimensionality_is_recovered_with_many_trials(kind: str) -> None:
    expected = reference.effective_dimensionality(reference.noise_matrix(kind, N_UNITS))
    da = reference.recording(kind, least_repeats=3, n_stimuli=2000)
    assert statistics.effective_dimensionality(da) == pytest.approx(expected, rel=0.03)


def test_noise_that_differs_between_stimuli_is_averaged_by_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 6, 2))
    values[::2] *= 3  # variance 9, five degrees of freedom
    values[1::2, 2:] = np.nan  # variance 1, one
    got = np.diag(statistics.noise_covariance(reference.responses(values)).values)
    np.testing.assert_allclose(got, (9 * 5 + 1 * 1) / 6, rtol=0.06)


# Bad input

ONCE = reference.recording("isotropic", n_repeats=1, least_repeats=None)
TWICE = reference.recording("isotropic", n_repeats=2, least_repeats=None)
SPLITTERS = [statistics.signal_correlation, statistics.reliability]
NEED_REPEATS: list[Callable[[xr.DataArray], object]] = [
    statistics.noise_covariance,
    lambda da: statistics.noise_correlation(da, zscore=False),
    lambda da: statistics.signal_correlation(da, rng=0),
    lambda da: statistics.reliability(da, rng=0),
    statistics.effective_dimensionality,
    statistics.fano_factor,
    lambda da: statistics.fit_covariance(da, statistics.Full()),
]


@pytest.mark.parametrize("estimate", NEED_REPEATS)
def test_a_recording_without_repeats(estimate: Callable[[xr.DataArray], object]) -> None:
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        estimate(ONCE)


@pytest.mark.parametrize("estimate", NEED_REPEATS)
def test_every_estimator_validates(estimate: Callable[[xr.DataArray], object]) -> None:
    with pytest.raises(ValueError, match="expected dims"):
        estimate(TWICE.transpose("unit", "repeat", "stimulus"))


def test_zscoring_needs_three_repeats() -> None:
    with pytest.raises(ValueError, match="expected at least 3 repeats of some stimulus, got at most 2"):
        statistics.noise_correlation(TWICE)


@pytest.mark.parametrize("zscore", [True, False])
def test_units_without_noise_have_no_correlation(zscore: bool) -> None:
    da = reference.recording("isotropic")
    da.values[..., [2, 5]] = np.where(np.isnan(da.values[..., [2, 5]]), np.nan, 0.1)
    expected = r"got 2 with zero noise variance \(positions \[2, 5\]\); responses.drop_constant removes them"
    with pytest.raises(ValueError, match=expected):
        statistics.noise_correlation(da, zscore=zscore)
    assert statistics.noise_correlation(responses.drop_constant(da), zscore=zscore).shape == (6, 6)


@pytest.mark.parametrize("estimate", SPLITTERS)
def test_too_few_stimuli_or_splits(estimate: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="expected at least 3 stimuli with 2 repeats, got 2"):
        estimate(TWICE.isel(stimulus=slice(2)), rng=0)
    with pytest.raises(ValueError, match="expected at least 1 split, got 0"):
        estimate(TWICE, rng=0, n_splits=0)


@pytest.mark.parametrize("estimate", SPLITTERS)
def test_a_seed_means_one_result(estimate: Callable[..., xr.DataArray], small: xr.DataArray) -> None:
    first = estimate(small, rng=0)
    xr.testing.assert_identical(first, estimate(small, rng=np.random.default_rng(0)))
    assert not first.equals(estimate(small, rng=1))


def test_fano_factor_wants_counts() -> None:
    with pytest.raises(ValueError, match=r"attrs\['units'\] = 'spike count', got 'arbitrary'"):
        statistics.fano_factor(TWICE)
    with pytest.raises(ValueError, match=r"expected spike counts, got negative values \(smallest -3\)"):
        statistics.fano_factor(reference.responses(np.array([[[1.0], [-3.0]]]), units="spike count"))


def test_no_noise_at_all() -> None:
    with pytest.raises(ValueError, match="expected units that vary between repeats, got none among 3"):
        statistics.effective_dimensionality(reference.responses(np.ones((2, 2, 3))))


# A real recording: session 210325, against the published checks on the importer


@pytest.fixture(scope="module")
def v4() -> xr.DataArray:
    from neurovar_datasets import cowley2023_v4

    return cowley2023_v4.load(session="210325")


def mean_pair(matrix: xr.DataArray) -> float:
    return float(matrix.values[np.triu_indices(len(matrix), 1)].mean())


@pytest.mark.data
def test_v4_statistics(v4: xr.DataArray) -> None:
    assert mean_pair(statistics.noise_correlation(v4)) == pytest.approx(0.030, abs=0.003)
    assert float(statistics.fano_factor(v4).mean()) == pytest.approx(0.89, abs=0.02)
    assert statistics.effective_dimensionality(v4) == pytest.approx(29, abs=1.5)
    reliability = statistics.reliability(v4, rng=0).values
    assert (reliability / (2 - reliability)).mean() == pytest.approx(0.55, abs=0.05), "of the halves, uncorrected"


@pytest.mark.data
def test_v4_against_the_loops(v4: xr.DataArray) -> None:
    part = v4.isel(unit=slice(8), stimulus=slice(100))
    expected = reference.zscored_noise_correlation(part.values)
    np.testing.assert_allclose(statistics.noise_correlation(part).values, expected, atol=1e-10)
    np.testing.assert_allclose(statistics.fano_factor(part).values, reference.fano_factor(part.values), rtol=1e-10)
    covariance, _ = reference.noise_covariance(part.values)
    np.testing.assert_allclose(statistics.noise_covariance(part).values, covariance, atol=1e-10)


@pytest.mark.data
def test_shuffling_v4_repeats_unit_by_unit_leaves_no_noise_correlation(v4: xr.DataArray) -> None:
    rng = np.random.default_rng(0)
    shuffled = v4.copy(deep=True)
    for stimulus in shuffled.values:
        present = np.flatnonzero(~np.isnan(stimulus[:, 0]))
        for unit in range(stimulus.shape[1]):
            stimulus[present, unit] = stimulus[rng.permutation(present), unit]
    assert abs(mean_pair(statistics.noise_correlation(shuffled))) < 0.002
