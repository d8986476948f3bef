"""The signal rule, and its projection to a correlation matrix."""

import numpy as np
import pytest
import reference
import torch
import xarray as xr

from neurovar import statistics
from neurovar.covariance import Covariance
from neurovar.noise import SignalRule, nearest_correlation

INTERCEPT, SLOPE, VARIANCE_EXPONENT = 0.05, 0.2, 1.2


def tuning_correlation(n_units: int, seed: int) -> np.ndarray:
    """Of units that prefer random directions of three."""
    axes = np.random.default_rng(seed).normal(size=(n_units, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return axes @ axes.T


def cortex(
    *, n_repeats: int, seed: int = 0, n_units: int = 40, n_stimuli: int = 400, least_repeats: int | None = None
) -> xr.DataArray:
    """Noise correlation INTERCEPT + SLOPE·r_signal exactly, and noise variance mean^VARIANCE_EXPONENT."""
    signal = tuning_correlation(n_units, seed)
    noise = INTERCEPT + SLOPE * signal
    np.fill_diagonal(noise, 1)
    mean = np.exp(np.random.default_rng(seed + 100).uniform(3, 6, n_units))
    deviation = mean ** (VARIANCE_EXPONENT / 2)
    scale = np.outer(deviation, deviation)
    return reference.simulate(
        signal=signal * scale,
        noise=noise * scale,
        mean=mean,
        n_stimuli=n_stimuli,
        n_repeats=n_repeats,
        least_repeats=least_repeats,
        seed=seed,
    )


def network(n_stimuli: int = 60, n_units: int = 30, seed: int = 5) -> xr.DataArray:
    """Noise-free rectified responses."""
    drive = np.random.default_rng(seed).normal(size=(n_stimuli, 8)) @ np.random.default_rng(6).normal(size=(8, n_units))
    return reference.responses(np.maximum(drive, 0)[:, None], units="activation")


def rule(intercept: float = INTERCEPT, slope: float = SLOPE, exponent: float = VARIANCE_EXPONENT) -> SignalRule:
    return SignalRule(intercept, slope, exponent, xr.Dataset())


def correlation_of(noise: Covariance) -> np.ndarray:
    return reference.correlation(noise.to_dense().double().numpy())


# The rule


@pytest.mark.parametrize("least_repeats", [None, 30])
def test_a_simulated_rule_is_recovered(least_repeats: int | None) -> None:
    fit = SignalRule.fit(cortex(n_repeats=40, least_repeats=least_repeats), rng=0, n_splits=5)
    assert fit.slope == pytest.approx(SLOPE, abs=0.01)
    assert fit.intercept == pytest.approx(INTERCEPT, abs=0.01)
    assert fit.variance_exponent == pytest.approx(VARIANCE_EXPONENT, abs=0.02)


def test_few_repeats_flatten_the_rule_as_stated() -> None:
    """By the bias of z-scored correlations: five repeats lose about one eighth of a small correlation."""
    slopes = [SignalRule.fit(cortex(n_repeats=5, seed=seed), rng=0, n_splits=5).slope for seed in range(3)]
    assert np.mean(slopes) == pytest.approx(SLOPE * (1 - 1 / 8), abs=0.01)


@pytest.mark.parametrize("kind", ["isotropic", "structured"])
def test_noise_that_does_not_follow_tuning_has_no_slope(kind: str) -> None:
    noise = reference.noise_matrix(kind, 30)
    da = reference.simulate(
        signal=2 * tuning_correlation(30, 0), noise=noise, mean=30.0, n_stimuli=400, n_repeats=10, seed=0
    )
    fit = SignalRule.fit(da, rng=0, n_splits=5)
    mean = reference.correlation(noise)[np.triu_indices(30, 1)].mean()
    assert abs(fit.slope) < 0.06
    assert fit.intercept == pytest.approx(mean, abs=0.02)


def test_the_bins_hold_every_pair_once() -> None:
    fit = SignalRule.fit(cortex(n_repeats=8, n_stimuli=100), rng=0, n_bins=12)
    assert fit.bins.sizes == {"bin": 12}
    assert int(fit.bins.n_pairs.sum()) == 40 * 39 / 2
    x, y, n = (fit.bins[name].values for name in ("signal_correlation", "noise_correlation", "n_pairs"))
    assert (np.diff(x) > 0).all() and (fit.bins.standard_error > 0).all()
    assert (fit.bins.attrs["intercept"], fit.bins.attrs["slope"]) == (fit.intercept, fit.slope)
    # A least-squares line goes through the mean of the points.
    assert (y * n).sum() / n.sum() == pytest.approx(fit.intercept + fit.slope * (x * n).sum() / n.sum(), abs=1e-10)


def test_a_seed_means_random_halves() -> None:
    """Of which the exact form, without a seed, is the limit."""
    da = cortex(n_repeats=4, n_stimuli=50)
    exact, many = SignalRule.fit(da), SignalRule.fit(da, rng=0, n_splits=200)
    assert many.slope == pytest.approx(exact.slope, rel=0.01)
    expected = statistics.signal_correlation(da).values[np.triu_indices(40, 1)]
    noise = statistics.noise_correlation(da).values[np.triu_indices(40, 1)]
    assert exact.slope == pytest.approx(np.polyfit(np.clip(expected, -1, 1), noise, 1)[0])
    first, second, other = (SignalRule.fit(da, rng=seed) for seed in (0, 0, 1))
    assert (first.intercept, first.slope) == (second.intercept, second.slope)
    assert first.slope != other.slope


# Onto a target


def test_the_noise_follows_the_rule() -> None:
    """Correlations and variances by hand; the rule's matrix is a correlation matrix as it is, so nothing is moved."""
    target = network()
    noise = rule().onto(target)
    expected = INTERCEPT + SLOPE * np.corrcoef(target.values[:, 0].T)
    np.fill_diagonal(expected, 1)
    assert np.linalg.eigvalsh(expected)[0] > 0.1
    np.testing.assert_allclose(correlation_of(noise), expected, atol=1e-5)
    variance = np.abs(target.values).mean(axis=(0, 1)) ** VARIANCE_EXPONENT
    np.testing.assert_allclose(noise.diagonal().numpy(), variance / variance.mean(), rtol=1e-4)
    assert noise.trace() == pytest.approx(30, rel=1e-5)


def test_a_steep_rule_is_projected_to_the_nearest_correlation() -> None:
    target = network(n_stimuli=12)
    noise = rule(0.3, 0.9).onto(target)
    wanted = np.clip(0.3 + 0.9 * np.corrcoef(target.values[:, 0].T), -1, 1)
    np.fill_diagonal(wanted, 1)
    assert np.linalg.eigvalsh(wanted)[0] < -0.05
    check_nearest(correlation_of(noise), wanted, tolerance=1e-2)


def test_from_cortex_to_another_recording() -> None:
    """Target noise put there by a source's rule is the target's own, where both follow one rule."""
    source, target = (cortex(n_repeats=30, seed=seed, n_stimuli=600) for seed in (0, 1))
    noise = SignalRule.between(source, target, rng=0)
    truth = INTERCEPT + SLOPE * tuning_correlation(40, 1)
    np.fill_diagonal(truth, 1)
    assert np.abs(correlation_of(noise) - truth).max() < 0.06
    variance = np.nanmean(target.values, axis=(0, 1)) ** VARIANCE_EXPONENT
    np.testing.assert_allclose(noise.diagonal().numpy(), variance / variance.mean(), rtol=0.15)


def test_units_that_do_not_vary_have_no_signal_correlation() -> None:
    target = network()
    target.values[..., 3] = 0.7
    target.values[..., 8] = 0
    noise = rule().onto(target)
    correlation = correlation_of(noise)
    for unit in (3, 8):
        np.testing.assert_allclose(np.delete(correlation[unit], unit), INTERCEPT, atol=1e-5)
    assert (noise.diagonal() > 0).all(), "a silent unit keeps a little variance"


def test_signal_correlations_beyond_1_count_as_1() -> None:
    """Corrected for noise, a correlation may come out above 1, and a rule is for correlations."""
    quiet = network(n_stimuli=20).isel(unit=np.repeat(range(5), 2))
    noisy = xr.concat([quiet] * 3, "repeat").transpose(*quiet.dims)
    noisy = noisy + np.random.default_rng(0).normal(size=noisy.shape)
    assert np.nanmax(np.abs(statistics.signal_correlation(noisy).values)) > 1.01
    steep = rule(intercept=0.0, slope=0.1).onto(noisy)
    between = correlation_of(steep)[~np.eye(10, dtype=bool)]
    assert np.abs(between).max() == pytest.approx(0.1, abs=1e-6)


def test_the_unit_of_activations_does_not_matter() -> None:
    target = network()
    target.values[..., 8] = 0
    first, second = (rule().onto(scale * target) for scale in (1, 1e-4))
    torch.testing.assert_close(first.matrix, second.matrix)


def test_a_target_of_float32_is_as_good() -> None:
    target = network()
    first, second = (rule().onto(da) for da in (target, target.astype(np.float32)))
    assert (first.dtype, second.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(first.matrix.float(), second.matrix, rtol=1e-4, atol=1e-5)


# The nearest correlation matrix


def check_nearest(got: np.ndarray, wanted: np.ndarray, *, tolerance: float) -> None:
    """Optimality conditions of min ‖X − A‖ over unit-diagonal X ≥ 0: X − A = diag(θ) + Z, Z ≥ 0, Z X = 0."""
    np.testing.assert_allclose(np.diag(got), 1, atol=1e-6)
    assert np.linalg.eigvalsh(got)[0] >= 0.5e-6
    theta = np.diag((got - wanted) @ got)  # diag(Z X) = 0, as X has a unit diagonal
    multiplier = got - wanted - np.diag(theta)
    size = np.linalg.norm(got - wanted)
    assert np.linalg.eigvalsh(multiplier)[0] > -tolerance * size
    assert np.linalg.norm(multiplier @ got) < tolerance * size


def test_highams_published_example() -> None:
    """Higham 2002, section 4: nearest to this matrix has 0.7607 and 0.1573, at distance 0.5278."""
    wanted = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    got = nearest_correlation(wanted)
    expected = [[1, 0.7607, 0.1573], [0.7607, 1, 0.7607], [0.1573, 0.7607, 1]]
    np.testing.assert_allclose(got, expected, atol=5e-5)
    assert np.linalg.norm(got - wanted) == pytest.approx(0.5278, abs=5e-5)
    check_nearest(got, wanted, tolerance=1e-4)


@pytest.mark.parametrize("n", [2, 5, 20, 80])
def test_nothing_is_nearer(n: int) -> None:
    wanted = np.clip(np.random.default_rng(n).normal(scale=0.6, size=(n, n)), -1, 1)
    wanted = np.triu(wanted, 1) + np.triu(wanted, 1).T + np.eye(n)
    if n == 2:
        wanted[0, 1] = wanted[1, 0] = 1.5
    assert np.linalg.eigvalsh(wanted)[0] < -0.1
    check_nearest(nearest_correlation(wanted), wanted, tolerance=1e-3)


def test_a_correlation_matrix_stays_as_it_is() -> None:
    matrix = reference.correlation(reference.noise_matrix("structured", 7))
    np.testing.assert_array_equal(nearest_correlation(matrix), matrix)


@pytest.mark.parametrize(
    "matrix",
    [np.ones((2, 3)), np.ones(4), np.array([[1.0, 0.5], [0.1, 1.0]]), np.array([[1.0, np.nan], [np.nan, 1.0]])],
)
def test_no_matrix_to_be_near(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a finite symmetric matrix, got shape \("):
        nearest_correlation(matrix)


def test_too_few_projections() -> None:
    wanted = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    with pytest.raises(ValueError, match="expected convergence within 2 projections, still moving by more than 1e-07"):
        nearest_correlation(wanted, max_iterations=2)


# Bad input


def small_cortex(n_units: int = 5, n_repeats: int = 4) -> xr.DataArray:
    return cortex(n_repeats=n_repeats, n_units=n_units, n_stimuli=20)


def without_tuning() -> xr.DataArray:
    """Means that disagree between repeats, so that no signal variance is positive."""
    da = small_cortex(n_repeats=12)
    da.values[:] = 50 + np.arange(20)[:, None, None] * np.repeat([1, -1], 6)[None, :, None]
    return da + xr.zeros_like(da) + 1e-3 * np.random.default_rng(0).normal(size=da.shape)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (small_cortex(n_units=2), "expected at least 4 units, got 2"),
        (small_cortex(n_repeats=2), "expected at least 3 repeats of some stimulus, got at most 2"),
        (small_cortex() - 1e4, "expected positive mean responses, got 5 units at 0 or below"),
        (without_tuning(), "expected pairs with both statistics, got none"),
    ],
)
def test_sources_without_a_rule(source: xr.DataArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SignalRule.fit(source, rng=0)


def test_bad_targets() -> None:
    with pytest.raises(ValueError, match="expected responses of the target other than 0, got none from 30 units"):
        rule().onto(network() * 0)
    with pytest.raises(
        ValueError, match="expected at least 3 stimuli of the target for its signal correlations, got 2"
    ):
        rule().onto(network(n_stimuli=2))
    with pytest.raises(ValueError, match="expected dims"):
        rule().onto(network().rename(unit="neuroid"))


def test_a_target_with_room_for_repeats_but_none() -> None:
    """Two repeats in shape, one trial a stimulus: it must not pass for a target without tuning."""
    values = np.full((20, 2, 5), np.nan)
    values[:10, 0], values[10:, 1] = np.random.default_rng(0).normal(size=(2, 10, 5))
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        rule().onto(reference.responses(values))


def test_out_of_memory_is_foreseen() -> None:
    target = reference.responses(np.ones((2, 1, 300_000), np.float32))
    with pytest.raises(
        ValueError, match=r"got 300000 units: 4320.0 GB of .* GB free on cpu; a LowRankPlusDiagonal of rank"
    ):
        rule().onto(target)
