"""The signal rule, its projection to a correlation matrix, and the matched controls."""

import numpy as np
import pytest
import reference
import torch
import xarray as xr

from neurovar import transplant
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.transplant import SignalRule, fit_signal_rule, low_rank, nearest_correlation, onto, rotated, with_controls

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
    fit = fit_signal_rule(cortex(n_repeats=40, least_repeats=least_repeats), rng=0, n_splits=5)
    assert fit.slope == pytest.approx(SLOPE, abs=0.01)
    assert fit.intercept == pytest.approx(INTERCEPT, abs=0.01)
    assert fit.variance_exponent == pytest.approx(VARIANCE_EXPONENT, abs=0.02)


def test_few_repeats_flatten_the_rule_as_stated() -> None:
    """By the bias of z-scored correlations: five repeats lose about one eighth of a small correlation."""
    slopes = [fit_signal_rule(cortex(n_repeats=5, seed=seed), rng=0, n_splits=5).slope for seed in range(3)]
    assert np.mean(slopes) == pytest.approx(SLOPE * (1 - 1 / 8), abs=0.01)


@pytest.mark.parametrize("kind", ["isotropic", "structured"])
def test_noise_that_does_not_follow_tuning_has_no_slope(kind: str) -> None:
    noise = reference.noise_matrix(kind, 30)
    da = reference.simulate(
        signal=2 * tuning_correlation(30, 0), noise=noise, mean=30.0, n_stimuli=400, n_repeats=10, seed=0
    )
    fit = fit_signal_rule(da, rng=0, n_splits=5)
    mean = reference.correlation(noise)[np.triu_indices(30, 1)].mean()
    assert abs(fit.slope) < 0.06
    assert fit.intercept == pytest.approx(mean, abs=0.02)


def test_the_bins_hold_every_pair_once() -> None:
    fit = fit_signal_rule(cortex(n_repeats=8, n_stimuli=100), rng=0, n_bins=12)
    assert fit.bins.sizes == {"bin": 12}
    assert int(fit.bins.n_pairs.sum()) == 40 * 39 / 2
    x, y, n = (fit.bins[name].values for name in ("signal_correlation", "noise_correlation", "n_pairs"))
    assert (np.diff(x) > 0).all() and (fit.bins.standard_error > 0).all()
    # A least-squares line goes through the mean of the points.
    assert (y * n).sum() / n.sum() == pytest.approx(fit.intercept + fit.slope * (x * n).sum() / n.sum(), abs=1e-10)
    assert fit.bins.attrs == {"intercept": fit.intercept, "slope": fit.slope}


def test_a_seed_means_one_rule() -> None:
    da = cortex(n_repeats=4, n_stimuli=50)
    first, second, other = (fit_signal_rule(da, rng=seed) for seed in (0, 0, 1))
    assert (first.intercept, first.slope) == (second.intercept, second.slope)
    assert first.slope != other.slope


# Onto a target


def test_the_noise_follows_the_rule() -> None:
    """Correlations and variances by hand; the rule's matrix is a correlation matrix as it is, so nothing is moved."""
    target = network()
    noise = onto(rule(), target, method="signal_rule", rng=0)
    expected = INTERCEPT + SLOPE * np.corrcoef(target.values[:, 0].T)
    np.fill_diagonal(expected, 1)
    assert np.linalg.eigvalsh(expected)[0] > 0.1
    np.testing.assert_allclose(correlation_of(noise), expected, atol=1e-5)
    variance = np.abs(target.values).mean(axis=(0, 1)) ** VARIANCE_EXPONENT
    np.testing.assert_allclose(noise.diagonal().numpy(), variance / variance.mean(), rtol=1e-4)
    assert noise.trace() == pytest.approx(30, rel=1e-5)


def test_a_steep_rule_is_projected_to_the_nearest_correlation() -> None:
    target = network(n_stimuli=12)
    noise = onto(rule(0.3, 0.9), target, method="signal_rule", rng=0)
    wanted = np.clip(0.3 + 0.9 * np.corrcoef(target.values[:, 0].T), -1, 1)
    np.fill_diagonal(wanted, 1)
    assert np.linalg.eigvalsh(wanted)[0] < -0.05
    check_nearest(correlation_of(noise), wanted, tolerance=1e-2)


def test_from_cortex_to_another_recording() -> None:
    """Target noise put there by a source's rule is the target's own, where both follow one rule."""
    source, target = (cortex(n_repeats=30, seed=seed, n_stimuli=600) for seed in (0, 1))
    noise = onto(source, target, method="signal_rule", rng=0)
    truth = INTERCEPT + SLOPE * tuning_correlation(40, 1)
    np.fill_diagonal(truth, 1)
    assert np.abs(correlation_of(noise) - truth).max() < 0.06
    variance = np.nanmean(target.values, axis=(0, 1)) ** VARIANCE_EXPONENT
    np.testing.assert_allclose(noise.diagonal().numpy(), variance / variance.mean(), rtol=0.15)


def test_units_that_do_not_vary_have_no_signal_correlation() -> None:
    target = network()
    target.values[..., 3] = 0.7
    target.values[..., 8] = 0
    noise = onto(rule(), target, method="signal_rule", rng=0)
    correlation = correlation_of(noise)
    for unit in (3, 8):
        np.testing.assert_allclose(np.delete(correlation[unit], unit), INTERCEPT, atol=1e-5)
    assert (noise.diagonal() > 0).all(), "a silent unit keeps a little variance"


def test_a_target_of_float32_is_as_good() -> None:
    target = network()
    first, second = (onto(rule(), da, method="signal_rule", rng=0) for da in (target, target.astype(np.float32)))
    torch.testing.assert_close(first.matrix, second.matrix, rtol=1e-4, atol=1e-5)


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


# Controls

RNG = np.random.default_rng(0)
FACTORS = torch.from_numpy(RNG.normal(size=(12, 3)))
PRIVATE = torch.from_numpy(RNG.uniform(0.1, 1, 12))
NOISES: dict[str, Covariance] = {
    "dense": Dense(torch.from_numpy(reference.noise_matrix("structured", 12))),
    "dense float32": Dense(torch.from_numpy(reference.noise_matrix("structured", 12))).to(dtype=torch.float32),
    "diagonal": Diagonal(PRIVATE),
    "low rank": LowRankPlusDiagonal(FACTORS, PRIVATE),
    "as many factors as units": LowRankPlusDiagonal(torch.from_numpy(RNG.normal(size=(12, 12))), PRIVATE),
    "more factors than units": LowRankPlusDiagonal(torch.from_numpy(RNG.normal(size=(12, 15))), PRIVATE),
}


@pytest.fixture(params=NOISES)
def noise(request: pytest.FixtureRequest) -> Covariance:
    return NOISES[request.param]


def tolerance(noise: Covariance) -> float:
    return 1e-5 if noise.dtype is torch.float32 else 1e-10


def test_controls_are_matched_in_trace(noise: Covariance) -> None:
    controls = with_controls(noise, rng=0)
    assert list(controls) == ["transplanted", "diagonal", "isotropic", "rotated"]
    assert controls["transplanted"] is noise
    for control in controls.values():
        assert control.n == noise.n and control.dtype == noise.dtype
        assert control.trace() == pytest.approx(noise.trace(), rel=tolerance(noise))


def test_what_each_control_keeps(noise: Covariance) -> None:
    matrix = noise.to_dense().numpy()
    close = {"rtol": tolerance(noise), "atol": tolerance(noise)}
    np.testing.assert_allclose(transplant.diagonal(noise).to_dense().numpy(), np.diag(np.diag(matrix)), **close)
    expected = np.trace(matrix) / 12 * np.eye(12)
    np.testing.assert_allclose(transplant.isotropic(noise).to_dense().numpy(), expected, **close)


def test_rotation_keeps_the_spectrum(noise: Covariance) -> None:
    turned = rotated(noise, rng=0)
    before = np.sort(np.linalg.eigvalsh(noise.to_dense().double().numpy()))[::-1]
    if isinstance(noise, LowRankPlusDiagonal) and noise.rank < noise.n:
        assert isinstance(turned, LowRankPlusDiagonal) and turned.rank == noise.rank
        before[noise.rank :] = before[noise.rank :].mean()
    np.testing.assert_allclose(turned.spectrum().numpy(), before, atol=tolerance(noise) * before[0])
    assert not np.allclose(turned.to_dense().numpy(), noise.to_dense().numpy(), atol=0.05)


def test_rotations_are_random_and_reproducible(noise: Covariance) -> None:
    first, second, other = (rotated(noise, rng=seed).to_dense() for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.allclose(first, other, atol=0.05)


@pytest.mark.parametrize("kind", ["dense", "low rank"])
def test_rotations_have_no_preferred_direction(kind: str) -> None:
    """Averaged over rotations, the noise is isotropic."""
    mean = np.mean([rotated(NOISES[kind], rng=seed).to_dense().numpy() for seed in range(2000)], axis=0)
    np.testing.assert_allclose(mean, NOISES[kind].trace() / 12 * np.eye(12), atol=0.1)


def test_controls_do_not_share_memory_with_the_noise() -> None:
    dense = NOISES["dense"].to(dtype=torch.float64)
    before = dense.to_dense().clone()
    transplant.diagonal(dense).variance.mul_(2)
    assert torch.equal(dense.to_dense(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 4])
def test_low_rank_keeps_variances_and_leading_components(rank: int, dtype: torch.dtype) -> None:
    matrix = reference.noise_matrix("structured", 12)
    kept = low_rank(Dense(torch.from_numpy(matrix)).to(dtype=dtype), rank=rank)
    assert kept.dtype == dtype
    values, vectors = np.linalg.eigh(matrix)
    leading = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    np.testing.assert_allclose((kept.factors @ kept.factors.T).numpy(), leading, atol=1e-5)
    np.testing.assert_allclose(kept.diagonal().numpy(), np.diag(matrix), atol=1e-5)


@pytest.mark.parametrize("rank", [0, 12])
def test_low_rank_of_no_rank(rank: int) -> None:
    with pytest.raises(ValueError, match=f"expected a rank from 1 to 11, got {rank}"):
        low_rank(NOISES["dense"], rank=rank)


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
        (small_cortex(n_units=2), "expected at least 3 units, got 2"),
        (small_cortex(n_repeats=2), "expected at least 3 repeats of some stimulus, got at most 2"),
        (small_cortex() - 1e4, "expected positive mean responses, got 5 units at 0 or below"),
        (without_tuning(), "expected at least 2 pairs of units with a signal correlation, got 0"),
    ],
)
def test_sources_without_a_rule(source: xr.DataArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_signal_rule(source, rng=0)


def test_bad_targets() -> None:
    with pytest.raises(ValueError, match="expected method 'signal_rule', got 'matched'"):
        onto(rule(), network(), method="matched", rng=0)
    with pytest.raises(ValueError, match="expected dims"):
        onto(rule(), network().rename(unit="neuroid"), method="signal_rule", rng=0)


def test_a_target_with_room_for_repeats_but_none() -> None:
    """Two repeats in shape, one trial a stimulus: it must not pass for a target without tuning."""
    values = np.full((20, 2, 5), np.nan)
    values[:10, 0], values[10:, 1] = np.random.default_rng(0).normal(size=(2, 10, 5))
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        onto(rule(), reference.responses(values), method="signal_rule", rng=0)
