"""The source's noise pulled back through a readout of it from the target."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import transplant as by_hand
from sklearn.cross_decomposition import PLSRegression
from sklearn.model_selection import KFold

from neurovar import statistics
from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise import PartialLeastSquares, Readout, Ridge
from neurovar.noise.transplant._regressions import PENALTIES

N_SOURCE, N_TARGET = 4, 10
MAP = np.random.default_rng(9).normal(size=(N_SOURCE, N_TARGET))
NOISE = reference.noise_matrix("structured", N_SOURCE)


def network(n_stimuli: int = 120, n_units: int = N_TARGET, seed: int = 0) -> xr.DataArray:
    return reference.responses(np.random.default_rng(seed).normal(size=(n_stimuli, 1, n_units)) + 2)


def cortex(
    target: xr.DataArray, *, weights: np.ndarray = MAP, noise: np.ndarray = NOISE, n_repeats: int = 8, seed: int = 1
) -> xr.DataArray:
    """Tuning that is a linear map of the target's, and noise of known covariance."""
    rng = np.random.default_rng(seed)
    tuning = target.values[:, 0] @ weights.T + 7
    noises = rng.multivariate_normal(np.zeros(len(weights)), noise, size=(len(tuning), n_repeats))
    return reference.responses(tuning[:, None] + noises)


def unrelated(n_stimuli: int = 120, n_repeats: int = 8, n_units: int = N_SOURCE, seed: int = 2) -> xr.DataArray:
    other = np.random.default_rng(seed).normal(size=(n_stimuli, 1, N_TARGET))
    return cortex(reference.responses(other), weights=np.random.default_rng(seed).normal(size=(n_units, N_TARGET)),
                  noise=np.eye(n_units), n_repeats=n_repeats)  # fmt: skip


def fit(source: xr.DataArray, target: xr.DataArray, *, least_goodness: float = 0.05, **options: object) -> Readout:
    return Readout.fit(source, target, **{"regression": Ridge(), "rng": 0, "least_goodness": least_goodness} | options)


# Recovery


@pytest.mark.parametrize("options", [{}, {"regression": PartialLeastSquares(8)}])
def test_a_known_map_and_its_noise_are_recovered(options: dict) -> None:
    target = network()
    readout = fit(cortex(target, n_repeats=30), target, **options)
    np.testing.assert_allclose(readout.weights.values, MAP, atol=0.12)
    noise = readout.onto(target)
    read_out = MAP @ noise.to_dense().numpy() @ MAP.T
    np.testing.assert_allclose(read_out, NOISE, atol=0.25)
    assert readout.dropped_units == () and readout.mean_goodness > 0.98


@pytest.mark.parametrize(("of_source", "of_target"), [(1e3, 1), (1, 1e-3)])
def test_the_noise_is_in_units_of_the_target(of_source: float, of_target: float) -> None:
    target = network()
    source = cortex(target)
    noise = fit(source, target).onto(target).to_dense().numpy()
    scaled = of_target * target
    again = fit(of_source * source, scaled).onto(scaled).to_dense().numpy()
    np.testing.assert_allclose(again, of_target**2 * noise, rtol=1e-5, atol=1e-9 * of_target**2)


@pytest.mark.parametrize("n_units", [N_SOURCE, N_TARGET, 300])
def test_the_readout_of_the_noise_has_the_covariance_of_the_source(n_units: int) -> None:
    target = network(n_units=n_units)
    weights = np.random.default_rng(3).normal(size=(N_SOURCE, n_units))
    source = cortex(target, weights=weights / n_units**0.5)
    readout = fit(source, target)
    noise = readout.onto(target)
    expected, _ = reference.noise_covariance(source.values)
    w = readout.weights.values
    np.testing.assert_allclose(w @ noise.to_dense().numpy() @ w.T, expected, rtol=1e-6, atol=1e-8)
    draws = noise.sample((20_000,), generator=torch.Generator().manual_seed(0)).numpy() @ w.T
    z = reference.covariance_z_scores(np.cov(draws.T), expected, 19_999)
    assert np.abs(z).max() < 4


def test_the_noise_is_the_pseudo_inverse_written_out() -> None:
    target = network()
    source = cortex(target)
    readout = fit(source, target)
    noise = readout.onto(target)
    expected = by_hand.pulled_back(readout.weights.values, reference.noise_covariance(source.values)[0])
    assert isinstance(noise, LowRankPlusDiagonal) and noise.rank == N_SOURCE - 1
    np.testing.assert_allclose(noise.to_dense().numpy(), expected, rtol=1e-6, atol=1e-8)


def test_where_the_map_does_not_see_the_noise_is_isotropic() -> None:
    target = network()
    readout = fit(cortex(target), target)
    matrix = readout.onto(target).to_dense().numpy()
    unseen = np.linalg.svd(readout.weights.values)[2][N_SOURCE:].T
    values = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(unseen.T @ matrix @ unseen, values[0] * np.eye(N_TARGET - N_SOURCE), atol=1e-8)
    assert values[N_TARGET - N_SOURCE + 1] > 1.1 * values[0], "seen directions are noisier, but for the quietest"


def test_the_ridge_penalty_is_chosen_by_leaving_one_out() -> None:
    target = network(n_stimuli=20, n_units=12)
    source = cortex(target, weights=np.random.default_rng(5).normal(size=(2, 12)) * 0.3, noise=np.eye(2))
    readout = fit(source, target, least_goodness=0.001)
    x = target.values[:, 0]
    penalties = PENALTIES * np.linalg.norm(x - x.mean(axis=0), 2) ** 2
    for unit, weights in zip(readout.weights.unit.values, readout.weights.values):
        y = source.values[:, :, unit].mean(axis=1)
        np.testing.assert_allclose(weights, by_hand.leave_one_out_ridge(x, y, penalties), rtol=1e-5, atol=1e-8)


def test_partial_least_squares_is_scikit_learns() -> None:
    """Of the responses themselves, not z-scored."""
    target = network() * np.linspace(0.5, 3, N_TARGET)
    source = cortex(target)
    readout = fit(source, target, regression=PartialLeastSquares(2))
    expected = PLSRegression(2, scale=False).fit(target.values[:, 0], source.values.mean(axis=1)).coef_
    np.testing.assert_allclose(readout.weights.values, expected, rtol=1e-6, atol=1e-10)


def test_few_components_reach_a_part_of_the_noise() -> None:
    """Of it the readout has what lies in the map's range."""
    target = network()
    source = cortex(target)
    readout = fit(source, target, regression=PartialLeastSquares(2))
    noise = readout.onto(target)
    w, covariance = readout.weights.values, reference.noise_covariance(source.values)[0]
    into = np.linalg.svd(w)[0][:, :2]
    projection = into @ into.T
    np.testing.assert_allclose(w @ noise.to_dense().numpy() @ w.T, projection @ covariance @ projection, atol=1e-8)
    assert readout.reachable == pytest.approx(np.trace(projection @ covariance) / np.trace(covariance))
    assert 0.1 < readout.reachable < 0.95 and fit(source, target).reachable == pytest.approx(1)


def test_singular_noise_has_nothing_where_the_map_does_not_see() -> None:
    target = network()
    source = cortex(target, noise=np.outer([1.0, 2, 3, 4], [1.0, 2, 3, 4]))
    noise = fit(source, target).onto(target)
    assert noise.to_dense().diagonal().sum() > 0
    assert np.linalg.matrix_rank(noise.to_dense().numpy(), tol=1e-6) == 1


def test_one_unit() -> None:
    target = network()
    source = cortex(target, weights=MAP[:1], noise=np.eye(1))
    readout = fit(source, target)
    noise = readout.onto(target)
    w = readout.weights.values
    np.testing.assert_allclose(w @ noise.to_dense().numpy() @ w.T, reference.noise_covariance(source.values)[0])


def test_stimuli_are_matched_by_their_ids() -> None:
    target = network()
    source = cortex(target)
    mixed = source.isel(stimulus=np.random.default_rng(0).permutation(100))
    readout, same = (
        fit(mixed, target),
        fit(source.isel(stimulus=np.sort(np.random.default_rng(0).permutation(100))), target),
    )
    np.testing.assert_allclose(readout.weights.values, same.weights.values, atol=0.02)
    assert readout.mean_goodness > 0.9


def test_the_noise_is_that_of_all_stimuli() -> None:
    """Also of those that the target has not been shown."""
    target = network()
    source = cortex(target)
    readout = fit(source, target.isel(stimulus=slice(60)))
    np.testing.assert_allclose(readout.covariance.values, reference.noise_covariance(source.values)[0])


# Goodness


@pytest.mark.parametrize("n_repeats", [2, 8])
def test_goodness_is_free_of_the_noise(n_repeats: int) -> None:
    """Half of the tuning's variance is the target's; the noise is as large as the tuning, whatever the repeats."""
    goodness = []
    for seed in range(4):
        target = network(n_stimuli=300, seed=seed)
        hidden = cortex(
            network(n_stimuli=300, seed=seed + 50), weights=MAP, noise=10 * np.eye(N_SOURCE), n_repeats=n_repeats
        )
        source = hidden + (target.values[:, 0] @ MAP.T)[:, None]
        goodness.append(fit(source, target).goodness.values)
    assert np.mean(goodness) == pytest.approx(0.5, abs=0.06)
    assert fit(source, target).goodness.attrs == {"corrected": 1, "n_folds": 5}


def test_goodness_is_of_stimuli_that_were_held_out() -> None:
    """As many target units as stimuli fit anything, but predict nothing."""
    target, source = network(n_stimuli=100, n_units=99), unrelated(100)
    with pytest.raises(ValueError, match=r"expected a mean goodness of the readout .* of at least 0.1, got -?0\.0"):
        fit(source, target, least_goodness=0.1)


def test_an_unrelated_source_has_no_goodness() -> None:
    """And no less either: a fold's mean, which is anticorrelated with what was left out, is no part of predictions."""
    goodness = []
    for seed in range(6):
        with pytest.raises(ValueError, match="expected a mean goodness") as raised:
            fit(unrelated(60, seed=seed + 10), network(60, seed=seed), least_goodness=0.5)
        goodness.append(float(str(raised.value).split()[-1]))
    assert abs(np.mean(goodness)) < 0.03


def test_goodness_without_repeats_of_the_shared_stimuli() -> None:
    target = network()
    source = cortex(target, n_repeats=2)
    source.values[:118, 1] = np.nan
    readout = fit(source, target)
    assert readout.goodness.attrs["corrected"] == 0
    assert 0.5 < readout.mean_goodness < 1


@pytest.mark.parametrize("corrected", [True, False])
def test_goodness_by_hand(corrected: bool) -> None:
    """Fold by fold; Pearson's correlation, or what statistics.corrected_r2 makes of it."""
    target = network(n_stimuli=23, n_units=5, seed=3)
    source = cortex(target, weights=np.random.default_rng(5).normal(size=(2, 5)), noise=6 * np.eye(2), n_repeats=3)
    source.values[2 if not corrected else 15 :, 1:] = np.nan
    x, y = target.values[:, 0], np.nanmean(source.values, axis=1)
    predicted = np.zeros_like(y)
    for fitted, left in KFold(3, shuffle=True, random_state=int(np.random.default_rng(0).integers(2**32))).split(x):
        penalties = PENALTIES * np.linalg.norm(x[fitted] - x[fitted].mean(axis=0), 2) ** 2
        for unit in range(2):
            weights = by_hand.leave_one_out_ridge(x[fitted], y[fitted, unit], penalties)
            predicted[left, unit] = (x[left] - x[fitted].mean(axis=0)) @ weights
    if corrected:
        prediction = source.mean("repeat").copy(data=predicted).isel(stimulus=slice(15))
        r = [np.corrcoef(predicted[:15, unit], y[:15, unit])[0, 1] for unit in range(2)]
        expected = np.sign(r) * statistics.corrected_r2(prediction, source.isel(stimulus=slice(15))).values
    else:
        r = np.array([np.corrcoef(predicted[:, unit], y[:, unit])[0, 1] for unit in range(2)])
        expected = r * np.abs(r)
    readout = fit(source, target, n_folds=3, least_goodness=0.01)
    np.testing.assert_allclose(readout.goodness.values, expected, rtol=1e-6)


def test_units_that_cannot_be_predicted_are_dropped() -> None:
    target = network()
    source = cortex(target)
    nothing = unrelated()
    source.values[:, :, 1] = nothing.values[:, :, 1]
    source.values[:, :, 3] = 5 + np.random.default_rng(0).normal(size=(120, 1)) * 0 + np.tile([-1.0, 1.0], 4)
    source = source.assign_coords(area=("unit", list("abcd")))
    readout = fit(source, target, least_goodness=0.4)
    assert 3 in readout.dropped_units and np.isnan(readout.goodness.values[3])
    kept = [unit for unit in range(N_SOURCE) if unit not in readout.dropped_units]
    assert readout.weights.unit.values.tolist() == kept
    assert (readout.goodness.values[kept] > 0).all()
    assert not (readout.goodness.values[list(readout.dropped_units)] > 0).any()
    covariance = reference.noise_covariance(source.values)[0]
    np.testing.assert_allclose(readout.covariance.values, covariance[np.ix_(kept, kept)])
    assert readout.goodness.area.values.tolist() == list("abcd")
    assert readout.mean_goodness == pytest.approx(np.nanmean(readout.goodness.values))


def test_the_threshold_is_of_the_mean_over_dropped_units_too() -> None:
    target = network()
    source = cortex(target)
    source.values[:, :, 1:] = unrelated().values[:, :, 1:]
    with pytest.raises(ValueError, match=r"of at least 0.9, got 0\.2"):
        fit(source, target, least_goodness=0.9)


def test_a_seed_means_one_readout() -> None:
    target = network(40)
    source = cortex(target, noise=5 * NOISE)
    first, second, other = (fit(source, target, rng=seed).goodness.values for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


def test_float32_and_200_000_units() -> None:
    """A target of which two units tell all."""
    small = network(30, 2)
    source = cortex(small, weights=np.array([[1.0, 2.0], [2.0, -1.0]]), noise=np.array([[2.0, 1.0], [1.0, 3.0]]))
    target = reference.responses(np.tile(small.values.astype(np.float32), 100_000))
    readout = fit(source, target)
    assert readout.mean_goodness > 0.9
    noise = readout.onto(target)
    assert (
        noise.dtype == torch.float32 and isinstance(noise, LowRankPlusDiagonal) and noise.factors.shape == (200_000, 1)
    )
    w = torch.from_numpy(readout.weights.values).double()
    read_out = (w @ noise.factors.double()) @ (w @ noise.factors.double()).mT + (w * noise.private.double()) @ w.mT
    np.testing.assert_allclose(read_out.numpy(), reference.noise_covariance(source.values)[0], rtol=1e-4)


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regression": "ridge"}, r"expected a regression, such as Ridge\(\) .*, got 'ridge'"),
        ({"regression": PartialLeastSquares(11)}, "expected n_components from 1 to 10, got 11"),
        ({"regression": PartialLeastSquares(0)}, "expected n_components from 1 to 10, got 0"),
        ({"least_goodness": 0.0}, r"expected least_goodness above 0 and below 1, got 0\.0"),
        ({"least_goodness": 1.0}, r"expected least_goodness above 0 and below 1, got 1\.0"),
        ({"n_folds": 1}, "expected from 2 to 120 folds, as many as shared stimuli, got 1"),
        ({"n_folds": 121}, "expected from 2 to 120 folds, as many as shared stimuli, got 121"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    target = network()
    with pytest.raises(ValueError, match=message):
        fit(cortex(target), target, **options)


@pytest.mark.parametrize(("n_stimuli", "n_folds", "n_fitted"), [(5, 5, 4), (4, 4, 3), (6, 4, 4)])
def test_fewer_stimuli_than_the_map_needs(n_stimuli: int, n_folds: int, n_fitted: int) -> None:
    target = network(n_stimuli)
    message = (
        rf"expected more shared stimuli than units in the source \(4\) to fit a map to, got {n_fitted} of {n_stimuli}"
    )
    with pytest.raises(ValueError, match=message):
        fit(cortex(target), target, n_folds=n_folds)


def test_a_target_of_too_few_dimensions() -> None:
    target = network(n_units=3)
    source = cortex(target, weights=np.ones((4, 3)))
    message = "expected a target that varies along as many dimensions as the source has units, 4, got 3"
    with pytest.raises(ValueError, match=message):
        fit(source, target)


def test_bad_systems() -> None:
    target = network()
    source = cortex(target)
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        fit(source.isel(repeat=[0]), target)
    with pytest.raises(ValueError, match="expected stimuli in common, got none"):
        fit(source.assign_coords(stimulus=range(120)), target)
    with pytest.raises(ValueError, match="expected units that were recorded together"):
        fit(reference.apart(source), target)
    with pytest.raises(
        ValueError, match="expected units of the source with tuning to the shared stimuli, got none of 4"
    ):
        fit(source.copy(data=source.values - source.values.mean(axis=1, keepdims=True)), target)
    with pytest.raises(ValueError, match="expected a target with the 10 units that the readout was fitted to, got 9"):
        fit(source, target).onto(target.isel(unit=slice(9)))


def test_a_covariance_that_is_none() -> None:
    target = network()
    readout = fit(cortex(target), target)
    with pytest.raises(ValueError, match=r"expected a positive semi-definite covariance .*, got an eigenvalue of -"):
        replace(readout, covariance=readout.covariance - 2 * np.eye(4))
