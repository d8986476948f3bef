"""Stochastic shape distances: against the published formulas, known answers, and few repeats."""

import numpy as np
import pytest
import reference
import xarray as xr
from reference import shapes

from neurovar.statistics.comparison._shapes import ShapeDistance, shape_distance, shape_kernel

N_UNITS = 6


def system(seed: int, *, n_stimuli: int = 15, n_repeats: int = 30, n_units: int = N_UNITS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_stimuli, n_repeats, n_units)) @ rng.normal(size=(n_units, n_units)) * 0.4
    return rng.normal(size=(n_stimuli, 1, n_units)) + noise


def rotation(n_units: int = N_UNITS) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(9).normal(size=(n_units, n_units)))[0]


def plug_in(first: np.ndarray, second: np.ndarray, alpha: float = 1.0, pooled: bool = False) -> float:
    return shape_kernel(first, second, alpha=alpha, pooled=pooled)


def tuned(seed: int, *, n_repeats: int, shift: float = 0.0, n_stimuli: int = 60) -> xr.DataArray:
    """The same tuning and shared noise for every seed; `shift` changes both."""
    tuning = np.random.default_rng(1).normal(size=(n_stimuli, 8))
    axes = np.random.default_rng(3 + int(shift > 0)).normal(size=(8, 2))
    rng = np.random.default_rng(seed)
    other = np.random.default_rng(2).normal(size=tuning.shape)
    shared, private = rng.normal(size=(n_stimuli, n_repeats, 2)), rng.normal(size=(n_stimuli, n_repeats, 8))
    return reference.responses((tuning + shift * other)[:, None] + 0.7 * shared @ axes.T + 0.5 * private)


# References


@pytest.mark.parametrize("seed", range(3))
def test_the_published_formulas_give_the_same(seed: int) -> None:
    first, second = system(seed), system(seed + 50)
    second[::3, :7] = np.nan
    turn = shapes.best_rotation(first, second)
    assert plug_in(first, second) == pytest.approx(shapes.squared_distance(first, second, turn, 1.0), rel=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5, 2.0])
def test_no_rotation_is_better(alpha: float) -> None:
    first, second = system(0), system(50)
    found = plug_in(first, second, alpha)
    rng = np.random.default_rng(0)
    others = [np.linalg.qr(rng.normal(size=(N_UNITS, N_UNITS)))[0] for _ in range(20)]
    assert found < min(shapes.squared_distance(first, second, turn, alpha) for turn in others)


def test_means_alone_are_a_procrustes_problem() -> None:
    first, second = system(0), system(50)
    (means, _), (other_means, _) = shapes.moments(first), shapes.moments(second)
    nuclear = np.linalg.svd(means.T @ other_means, compute_uv=False).sum()
    expected = 2 * ((means**2).sum() + (other_means**2).sum() - 2 * nuclear) / len(means)
    assert plug_in(first, second, alpha=2.0) == pytest.approx(expected)


# What a distance must be


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_rotation_changes_nothing(alpha: float, pooled: bool) -> None:
    first, second = system(0), system(50)
    assert plug_in(first, first @ rotation(), alpha, pooled) == pytest.approx(0, abs=1e-6)
    turned = plug_in(first, second @ rotation(), alpha, pooled)
    assert turned == pytest.approx(plug_in(first, second, alpha, pooled), rel=0.02)  # the minimum may be local


def test_it_is_symmetric_and_obeys_the_triangle_inequality() -> None:
    a, b, c = system(0), system(1), system(2)
    assert plug_in(a, b) == pytest.approx(plug_in(b, a), rel=1e-4)
    assert np.sqrt(plug_in(a, c)) < np.sqrt(plug_in(a, b)) + np.sqrt(plug_in(b, c))


@pytest.mark.parametrize("pooled", [False, True])
def test_silent_units_change_nothing(pooled: bool) -> None:
    first, second = system(0), system(50)
    more = np.concatenate([second, np.zeros((*second.shape[:2], 3))], axis=2)
    assert plug_in(first, more, pooled=pooled) == pytest.approx(plug_in(first, second, pooled=pooled), rel=1e-3)


def test_unequal_numbers_of_units_and_repeats() -> None:
    embedded = reference.responses(tuned(100, n_repeats=12).values @ rotation(11)[:8])
    found = shape_distance(tuned(0, n_repeats=16), embedded, covariance="pooled", rng=0)
    assert found.n_units == (8, 11)
    assert abs(found.squared) < 0.03 < found.plug_in**2


def test_neither_unit_nor_offset_matters() -> None:
    first, second = (reference.responses(system(seed)) for seed in (0, 50))
    found = shape_distance(first, second, covariance="pooled", rng=0)
    scaled = shape_distance(first, 7 * second + 100, covariance="pooled", rng=0)
    assert scaled.squared == pytest.approx(found.squared)


def test_stimuli_are_matched_by_their_ids() -> None:
    da = reference.responses(system(0))
    other = da.isel(stimulus=np.random.default_rng(0).permutation(12))
    found = shape_distance(da, other, covariance="per_stimulus", rng=0)
    assert found.n_stimuli == 12
    assert found.plug_in < 1e-3


# Few repeats


@pytest.mark.parametrize("covariance", ["pooled", "per_stimulus"])
@pytest.mark.parametrize("n_repeats", [8, 16])
def test_two_samples_of_one_system_are_not_apart(covariance: str, n_repeats: int) -> None:
    found = [
        shape_distance(tuned(k, n_repeats=n_repeats), tuned(k + 100, n_repeats=n_repeats), covariance=covariance, rng=k)
        for k in range(6)
    ]
    assert abs(np.mean([each.squared for each in found])) < 0.03
    assert np.mean([each.plug_in**2 for each in found]) > 0.06


@pytest.mark.parametrize("covariance", ["pooled", "per_stimulus"])
def test_a_distance_is_recovered_from_few_repeats(covariance: str) -> None:
    options = {"covariance": covariance, "n_splits": 3}
    true = shape_distance(tuned(0, n_repeats=600), tuned(100, n_repeats=600, shift=0.6), rng=0, **options).plug_in ** 2
    found = [
        shape_distance(tuned(k, n_repeats=8), tuned(k + 100, n_repeats=8, shift=0.6), rng=k, **options)
        for k in range(6)
    ]
    assert np.mean([each.squared for each in found]) == pytest.approx(true, abs=0.03)
    assert np.mean([each.plug_in**2 for each in found]) > 1.3 * true


def test_a_seed_means_one_distance() -> None:
    first, second = (reference.responses(system(seed, n_repeats=6)) for seed in (0, 50))
    one, again, other = (shape_distance(first, second, covariance="pooled", rng=seed) for seed in (0, 0, 1))
    assert isinstance(one, ShapeDistance)
    assert one == again != other


# Bad input


DA = reference.responses(system(0, n_stimuli=5, n_repeats=4))


@pytest.mark.parametrize(
    ("second", "options", "message"),
    [
        (DA, {"alpha": 2.1}, "expected alpha from 0 to 2, got 2.1"),
        (DA, {"covariance": "full"}, "expected covariance 'per_stimulus' or 'pooled', got 'full'"),
        (DA, {"n_splits": 0}, "expected at least 1 split, got 0"),
        (DA.assign_coords(stimulus=range(5)), {}, "expected stimuli in common, got none"),
        (DA.isel(stimulus=[1]), {}, "expected at least 2 shared stimuli, got 1"),
        (DA.isel(repeat=slice(3)), {}, "expected at least 4 repeats of every shared stimulus, got 3 of some"),
        (reference.apart(DA), {}, "expected units that were recorded together"),
        (DA * 0, {}, "expected responses that vary over stimuli or repeats, got constant ones"),
    ],
)
def test_bad_input(second: xr.DataArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shape_distance(DA, second, **({"covariance": "pooled", "rng": 0} | options))
