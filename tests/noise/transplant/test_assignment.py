"""Units of the target that take over the noise of units of the source with similar tuning."""

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import transplant as by_hand

from neurovar import statistics
from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise import Assignment

N_SOURCE = 8
CHOSEN = np.array([3, 3, 7, 0, 5, 3])
NOISE = np.outer(np.linspace(0.5, 1.2, N_SOURCE), np.linspace(0.5, 1.2, N_SOURCE)) + np.diag(
    np.linspace(1, 2, N_SOURCE)
)


def tuning(n_stimuli: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_stimuli, N_SOURCE)) * 2 + 10


def cortex(n_stimuli: int = 80, n_repeats: int = 6, seed: int = 1) -> xr.DataArray:
    noise = np.random.default_rng(seed).multivariate_normal(np.zeros(N_SOURCE), NOISE, size=(n_stimuli, n_repeats))
    return reference.responses(tuning(n_stimuli)[:, None] + noise)


def network(n_stimuli: int = 80, n_repeats: int = 1, seed: int = 2, chosen: np.ndarray = CHOSEN) -> xr.DataArray:
    """Each unit a scaled, shifted and slightly disturbed copy of a unit of the source."""
    rng = np.random.default_rng(seed)
    copies = (tuning(n_stimuli)[:, chosen] - 10) * np.linspace(0.01, 5, len(chosen)) + 1
    copies += 0.3 * copies.std(axis=0) * rng.normal(size=copies.shape)
    noise = copies.std(axis=0) * rng.normal(size=(n_stimuli, n_repeats, len(chosen))) * (n_repeats > 1)
    return reference.responses(copies[:, None] + noise)


def fit(source: xr.DataArray, target: xr.DataArray, *, n_factors: int = 1, rng: int = 0) -> Assignment:
    return Assignment.fit(source, target, n_factors=n_factors, rng=rng)


# Recovery


@pytest.mark.parametrize("n_repeats", [1, 5])
def test_a_known_assignment_is_recovered(n_repeats: int) -> None:
    assignment = fit(cortex(), network(n_repeats=n_repeats))
    np.testing.assert_array_equal(assignment.table.source_unit, CHOSEN)
    expected = 1 / np.sqrt(1.09)
    np.testing.assert_allclose(assignment.table.similarity, expected, atol=0.06)
    np.testing.assert_allclose(assignment.table.held_out_similarity, expected, atol=0.06)


def test_units_of_one_unit_share_its_factors_but_not_its_private_noise() -> None:
    source, target = cortex(), network()
    noise = Assignment.between(source, target, n_factors=1, rng=0)
    assert isinstance(noise, LowRankPlusDiagonal) and noise.rank == 1
    fitted = statistics.factor_analysis(source, n_factors=1, max_factors=1, rng=0)
    loadings, private = fitted.loadings.values[CHOSEN], fitted.private.values[CHOSEN]
    expected = loadings @ loadings.T + np.diag(private)
    np.testing.assert_allclose(noise.to_dense().numpy(), expected, rtol=1e-4)
    assert noise.to_dense()[0, 1] == pytest.approx(float(loadings[0] @ loadings[0]), rel=1e-4)
    assert noise.to_dense()[0, 1] < noise.to_dense()[0, 0] - 0.8


def test_the_noise_is_that_of_the_source() -> None:
    """With an assignment one to one it is the source's own, known, noise."""
    source = cortex(n_stimuli=300, n_repeats=12)
    target = network(n_stimuli=300, chosen=np.arange(N_SOURCE))
    noise = Assignment.between(source, target, n_factors=1, rng=0)
    np.testing.assert_allclose(noise.to_dense().numpy(), NOISE, atol=0.25)


@pytest.mark.parametrize("n_repeats", [2, 4])
def test_a_source_without_relation_has_no_similarity(n_repeats: int) -> None:
    """On held-out stimuli; the largest of many estimates is above 0."""
    target = network(n_repeats=n_repeats, chosen=np.arange(N_SOURCE).repeat(10))
    source = cortex()
    table = fit(source.copy(data=source.values[::-1].copy()), target).table
    assert abs(float(table.held_out_similarity.mean())) < 0.08 < float(table.similarity.mean())


# Similarity


@pytest.mark.parametrize("n_repeats", [1, 3, 4])
def test_similarity_by_hand(n_repeats: int) -> None:
    """Trials of other repeats only where both systems have the same ones."""
    source, target = cortex(12, 3), network(12, n_repeats)
    table = fit(source, target).table
    for unit in range(len(CHOSEN)):
        y = target.values[:, :, unit]
        similar = [by_hand.similarity(source.values[:, :, i], y, same_trials=n_repeats == 3) for i in range(N_SOURCE)]
        assert int(table.source_unit[unit]) == int(np.nanargmax(similar))
        assert float(table.similarity[unit]) == pytest.approx(np.nanmax(similar), rel=1e-9)


@pytest.mark.parametrize("same_trials", [True, False])
def test_absent_trials(same_trials: bool) -> None:
    """Where other trials are absent, the two were not recorded together."""
    source, target = cortex(14, 4), network(14, 4)
    for da in (source, target):
        da.values[:5, 3] = np.nan
        da.values[5:8, :2] = np.nan
    if not same_trials:
        target.values[10, 0] = np.nan
    source.values[8, 1:] = np.nan
    target.values[9, 1:] = np.nan
    table = fit(source, target).table
    kept = [s for s in range(14) if s not in (8, 9)]
    for unit in range(len(CHOSEN)):
        y = target.values[kept][:, :, unit]
        similar = [
            by_hand.similarity(source.values[kept][:, :, i], y, same_trials=same_trials) for i in range(N_SOURCE)
        ]
        assert float(table.similarity[unit]) == pytest.approx(np.nanmax(similar), rel=1e-9)


def test_shared_noise_is_no_similar_tuning() -> None:
    """Units with tuning of their own and the noise of one unit, recorded together."""
    rng = np.random.default_rng(0)
    shared = 20 * rng.normal(size=(200, 4, 1))
    source = reference.responses(rng.normal(size=(200, 1, 3)) * 5 + shared + rng.normal(size=(200, 4, 3)))
    target = reference.responses(rng.normal(size=(200, 1, 40)) * 5 + shared)
    together = fit(source, target).table
    assert abs(float(together.held_out_similarity.mean())) < 0.3
    apart = fit(source, target.mean("repeat", keepdims=True)).table
    assert float(apart.similarity.mean()) > 0.8, "what a mean over the same trials would have made of it"


def test_held_out_similarity_by_hand() -> None:
    """Halves of the stimuli, drawn as the function draws them."""
    source, target = cortex(20, 3), network(20)
    table = fit(source, target, rng=7).table
    halves = np.array_split(np.random.default_rng(7).permutation(20), 2)
    for unit in range(len(CHOSEN)):
        similar = []
        for half in halves:
            x, y = source.values[half], target.values[half][:, :, unit]
            similar.append([by_hand.similarity(x[:, :, i], y, same_trials=False) for i in range(N_SOURCE)])
        ways = [similar[1][int(np.nanargmax(similar[0]))], similar[0][int(np.nanargmax(similar[1]))]]
        assert float(table.held_out_similarity[unit]) == pytest.approx(np.mean(ways), rel=1e-9)


def test_units_without_tuning_have_no_noise() -> None:
    target = network()
    target.values[:, :, 1] = 0.1
    target.values[:, :, 4] = 0
    target = target.assign_coords(channel=("unit", np.arange(6)))
    assignment = fit(cortex(), target)
    assert assignment.table.source_unit.values.tolist() == [3, -1, 7, 0, -1, 3]
    assert np.isnan(assignment.table.similarity.values[[1, 4]]).all()
    assert np.isnan(assignment.table.held_out_similarity.values[[1, 4]]).all()
    assert assignment.table.channel.values.tolist() == list(range(6))
    noise = assignment.onto(target)
    assert noise.diagonal()[[1, 4]].tolist() == [0, 0] and (noise.diagonal()[[0, 2, 3, 5]] > 0).all()


def test_stimuli_are_matched_by_their_ids() -> None:
    target = network().isel(stimulus=np.random.default_rng(0).permutation(80)[:70])
    np.testing.assert_array_equal(fit(cortex(), target).table.source_unit, CHOSEN)


def test_a_seed_means_one_assignment() -> None:
    first, second, other = (fit(cortex(), network(), rng=seed).table.held_out_similarity.values for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_200_000_units_of_float32() -> None:
    """In blocks: each unit is assigned as it would be alone."""
    target = reference.responses(np.tile(network(12).values.astype(np.float32), 33_334))
    source = cortex(12)
    assignment = fit(source, target)
    alone = fit(source, network(12).astype(np.float32)).table.source_unit.values
    np.testing.assert_array_equal(assignment.table.source_unit.values.reshape(-1, 6), np.tile(alone, (33_334, 1)))
    noise = assignment.onto(target)
    assert (noise.n, noise.dtype) == (200_004, torch.float32)


# Bad input


def without_noise() -> xr.DataArray:
    source = cortex()
    source.values[:, :, 2] = source.values[:, :1, 2]
    return source


def without_tuning() -> xr.DataArray:
    source = cortex()
    return source.copy(data=source.values - source.values.mean(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("source", "target", "n_factors", "message"),
    [
        (cortex(n_repeats=1), network(), 1, "expected at least 2 repeats of some stimulus, got at most 1"),
        (cortex(), network(5), 1, "expected at least 6 shared stimuli with repeats, got 5"),
        (cortex(), network().assign_coords(stimulus=range(80)), 1, "expected stimuli in common, got none"),
        (cortex(), network(), 0, "expected n_factors from 1 to 4 for 8 units of the source, got 0"),
        (cortex(), network(), 5, "expected n_factors from 1 to 4 for 8 units of the source, got 5"),
        (
            without_noise(),
            network(),
            1,
            r"expected units of the source that vary .* got 1 that do not \(positions \[2\]\)",
        ),
        (without_tuning(), network(), 1, "expected units of source and target with tuning to the 80 shared stimuli"),
        (cortex(), network() * 0, 1, "expected units of source and target with tuning to the 80 shared stimuli"),
        (
            reference.apart(cortex()),
            network(),
            1,
            "expected units that were recorded together",
        ),
    ],
)
def test_bad_systems(source: xr.DataArray, target: xr.DataArray, n_factors: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(source, target, n_factors=n_factors)


def test_a_target_of_another_size() -> None:
    message = "expected a target with the 6 units that the assignment was fitted to, got 5"
    with pytest.raises(ValueError, match=message):
        fit(cortex(), network()).onto(network().isel(unit=slice(5)))
