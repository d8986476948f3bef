"""Accuracies, differences and worst cases against sums by hand; intervals by their coverage and in known cases."""

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import xarray as xr
from evaluated import result
from scipy import stats

from neurovar.robustness import FGM, PGD, differences, summarise, worst_case
from neurovar.robustness.evaluation import _intervals

ATTACKS = (PGD(0.1), FGM(0.1), PGD(0.2), PGD(0.1, norm="l2"))
DIMS = ("noise", "seed", "draw_seed", "condition", "stimulus")


def random_result(*, n_seeds: int = 2, n_draw_seeds: int = 2, n_stimuli: int = 30, rng: int = 0) -> xr.Dataset:
    """Single draws that are right with probability 0.6, and what follows from them."""
    generator = np.random.default_rng(rng)
    found = result(
        {"none": lambda _: 0.5, "full": lambda _: 0.5},
        n_stimuli=n_stimuli,
        n_seeds=n_seeds,
        n_draw_seeds=n_draw_seeds,
        attacks=ATTACKS,
        k=(1, 10),
    )
    single = generator.random((*found["hits"].shape, 10)) < 0.6
    return found.assign(
        correct=((*DIMS, "k"), np.stack([single[..., 0], single.sum(-1) > 5], -1)),
        hits=(DIMS, single.sum(-1).astype(np.int16)),
        survived=((*DIMS, "k"), np.stack([single[..., 0], single.all(-1)], -1)),
    )


def test_measures_are_means_over_seeds_and_stimuli() -> None:
    evaluated = random_result()
    summary = summarise(evaluated)
    assert summary["accuracy"].dims == ("noise", "condition", "measure")
    over = ("seed", "draw_seed", "stimulus")
    expected = {
        "expected": (evaluated["hits"] / 10).mean(over),
        "ensemble of 1": evaluated["correct"].sel(k=1).mean(over),
        "ensemble of 10": evaluated["correct"].sel(k=10).mean(over),
        "worst of 10": evaluated["survived"].sel(k=10).mean(over),
    }
    assert summary["measure"].values.tolist() == list(expected)
    for measure, accuracy in expected.items():
        np.testing.assert_allclose(summary["accuracy"].sel(measure=measure), accuracy, atol=1e-7)
    assert summary["modification"].values.tolist() == evaluated["modification"].values.tolist()
    assert (summary["low"] <= summary["accuracy"]).all()
    assert (summary["accuracy"] <= summary["high"]).all()


def test_differences_are_paired_and_the_baseline_has_none() -> None:
    evaluated = random_result()
    found = differences(evaluated, baseline="none")
    summary = summarise(evaluated)["accuracy"]
    np.testing.assert_allclose(found["difference"], summary - summary.sel(noise="none"), atol=1e-7)
    assert not any(found[name].sel(noise="none").values.any() for name in ("difference", "low", "high"))
    values = evaluated["correct"].sel(k=10, condition="clean").astype(float)
    paired = (values.sel(noise="full") - values.sel(noise="none")).transpose(*DIMS[1:3], "stimulus").values
    low, high = t_by_hand(paired)
    chosen = found.sel(noise="full", condition="clean", measure="ensemble of 10")
    assert [chosen["low"].item(), chosen["high"].item()] == pytest.approx([low, high])
    assert found.attrs["baseline"] == "none"


def components_by_hand(values: np.ndarray) -> float:
    """Variance of the mean of (seed, draw seed, stimulus), two seeds each or more, from mean squares in loops."""
    s, d, t = values.shape
    grand = values.mean()
    one = {axis: values.mean(tuple({0, 1, 2} - {axis})) for axis in range(3)}
    total = {axis: sum((m - grand) ** 2 for m in one[axis]) / (values.shape[axis] - 1) for axis in range(3)}
    variance = sum(total[axis] / values.shape[axis] for axis in range(3))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        means = values.mean(({0, 1, 2} - {a, b}).pop())
        square = 0.0
        for i in range(values.shape[a]):
            for j in range(values.shape[b]):
                square += (means[i, j] - one[a][i] - one[b][j] + grand) ** 2
        variance -= square / (values.shape[a] - 1) / (values.shape[b] - 1) / values.shape[a] / values.shape[b]
    square = 0.0
    for i, j, k in np.ndindex(s, d, t):
        rest = values[i, j, k] - values[i, j].mean() - values[i, :, k].mean() - values[:, j, k].mean()
        square += (rest + one[0][i] + one[1][j] + one[2][k] - grand) ** 2
    variance += square / (s - 1) / (d - 1) / (t - 1) / values.size
    return max(variance, *(total[axis] / values.shape[axis] for axis in range(3)))


def t_by_hand(values: np.ndarray) -> tuple[float, float]:
    variance = components_by_hand(values)
    alone = [values.mean(tuple({0, 1, 2} - {a})).var(ddof=1) / values.shape[a] for a in range(3)]
    dof = sum(alone) ** 2 / sum(part**2 / (values.shape[a] - 1) for a, part in enumerate(alone))
    half = stats.t.ppf(0.975, dof) * np.sqrt(variance + 1 / (values.shape[2] + 2) ** 2)
    return values.mean() - half, values.mean() + half


def test_the_variance_of_the_mean_matches_loops_and_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3, 4, 5)) + rng.normal(size=(300, 3, 1, 1)) * 0.7 + rng.normal(size=(300, 1, 1, 5))
    found, _ = _intervals.crossed_variance(values)
    np.testing.assert_allclose(found[:20], [components_by_hand(one) for one in values[:20]])
    truth = 0.49 / 3 + 1 / 5 + 1 / 60
    assert found.mean() == pytest.approx(truth, rel=0.1)
    assert values.mean((1, 2, 3)).var() == pytest.approx(truth, rel=0.25)


def test_a_factor_with_one_level_is_not_covered_and_said_so() -> None:
    found = summarise(random_result(n_seeds=1, n_draw_seeds=2))
    assert found.attrs["interval"].startswith(
        "95 %, over 2 noise seeds × 30 images; it says nothing about other training"
    )
    both = summarise(random_result(n_seeds=2, n_draw_seeds=2)).attrs["interval"]
    assert both == (
        "95 %, over 2 training seeds × 2 noise seeds × 30 images; with so few training seeds and noise seeds it rests "
        "on the t distribution"
    )


def proportion(values: np.ndarray) -> list[float]:
    return [float(v) for v in _intervals.of_proportion(np.asarray(values, float))]


def test_one_seed_gives_the_clopper_pearson_interval_of_a_proportion() -> None:
    for right, n in ((80, 100), (0, 50), (50, 50)):
        exact = stats.binomtest(right, n).proportion_ci(0.95, method="exact")
        mean, low, high = proportion((np.arange(n) < right).reshape(1, 1, n))
        assert mean == right / n
        assert [low, high] == pytest.approx([exact.low, exact.high], abs=0.004)


def test_nothing_right_is_not_certain_to_be_nothing() -> None:
    assert proportion(np.zeros((3, 2, 100)))[1:] == pytest.approx([0, 1 - 0.025 ** (1 / 100)])
    assert proportion(np.ones((3, 2, 100)))[1:] == pytest.approx([0.025 ** (1 / 100), 1])


def test_two_seeds_that_disagree_say_nothing() -> None:
    values = np.zeros((2, 1, 50))
    values[0] = 1
    mean, low, high = proportion(values)
    assert mean == 0.5
    assert low < 0.01
    assert high > 0.99


def test_few_seeds_widen_the_interval_by_the_t_distribution() -> None:
    """Images all alike within three seeds: the seeds' means, 0.4, 0.6 and 0.8, are all that varies, 2 degrees of it."""
    values = np.repeat([0.4, 0.6, 0.8], 50).reshape(3, 1, 50)
    variance = 0.04 / 3
    n = 0.6 * 0.4 / variance * (1.959964 / 4.302653) ** 2
    low, high = stats.beta.ppf(0.025, 0.6 * n, n - 0.6 * n + 1), stats.beta.ppf(0.975, 0.6 * n + 1, n - 0.6 * n)
    assert proportion(values) == pytest.approx([0.6, low, high])


def test_images_that_agree_do_not_prove_that_all_would() -> None:
    mean, low, high = (float(v) for v in _intervals.of_difference(np.zeros((2, 2, 100))))
    assert mean == 0
    assert high == -low == pytest.approx(stats.t.ppf(0.975, 399) / 102)


@pytest.mark.parametrize(
    ("sizes", "effects", "least"),
    [((1, 1, 100), (0, 0, 1), 0.93), ((2, 2, 100), (0.2, 0, 1.5), 0.9), ((5, 2, 100), (0.4, 0.1, 1), 0.92)],
)
def test_intervals_cover_the_truth(sizes: tuple[int, ...], effects: tuple[float, ...], least: float) -> None:
    """Crossed random effects on a probit scale; the truth is the normal CDF."""
    rng = np.random.default_rng(1)
    seeds, draws, stimuli = sizes
    shapes = ((seeds, 1, 1), (1, draws, 1), (1, 1, stimuli))
    latent = 0.5 + sum(sd * rng.normal(size=(1500, *shape)) for sd, shape in zip(effects, shapes))
    right = latent + rng.normal(size=(1500, *sizes)) > 0
    truth = NormalDist().cdf(0.5 / np.sqrt(1 + sum(sd**2 for sd in effects)))
    _, low, high = _intervals.of_proportion(right.astype(float))
    assert least < ((low <= truth) & (truth <= high)).mean() < 0.99
    assert 0.05 < np.median(high - low) < 0.35


def test_the_worst_case_is_right_only_under_all_attacks_of_a_size() -> None:
    evaluated = random_result()
    worst = worst_case(evaluated)
    assert worst["condition"].values.tolist() == ["worst case ε=0.1", "worst case ε=0.2", "worst case l2 ε=0.1"]
    assert worst["n_attacks"].values.tolist() == [2, 1, 1]
    assert worst["kind"].values.tolist() == ["attack"] * 3
    first, second = (evaluated.isel(condition=i) for i in (2, 3))
    at = worst.isel(condition=0)
    for name in ("correct", "survived"):
        np.testing.assert_array_equal(at[name], first[name] & second[name])
    np.testing.assert_array_equal(at["hits"], np.minimum(first["hits"], second["hits"]))
    np.testing.assert_array_equal(worst["correct"].isel(condition=1), evaluated["correct"].isel(condition=4))
    assert summarise(worst).sizes["condition"] == 3


def test_what_was_not_run_is_not_a_number_and_not_the_worst_case() -> None:
    evaluated = random_result()
    ran = evaluated["ran"].copy()
    ran[1, 0, 0, 2] = False
    ran[:, :, :, 4] = False
    for name in ("correct", "survived"):
        evaluated[name] = evaluated[name] & ran
    evaluated = evaluated.assign(ran=ran, hits=evaluated["hits"] * ran)
    summary = summarise(evaluated)
    for name in ("accuracy", "low", "high"):
        missing = summary[name].isnull().all("measure").values
        assert missing.tolist() == [[False] * 4 + [True, False], [False, False, True, False, True, False]]
    worst = worst_case(evaluated)
    skipped = worst.isel(noise=1, seed=0, draw_seed=0, condition=0)
    only = evaluated.isel(noise=1, seed=0, draw_seed=0, condition=3)
    np.testing.assert_array_equal(skipped["correct"], only["correct"])
    np.testing.assert_array_equal(skipped["hits"], only["hits"])
    assert summarise(worst)["accuracy"].isel(condition=1).isnull().all()
    assert differences(evaluated, baseline="none")["difference"].isel(condition=4).isnull().all()


def test_the_order_of_dims_does_not_matter() -> None:
    evaluated = random_result()
    turned = evaluated.transpose("stimulus", "k", "condition", "draw_seed", "seed", "noise")
    xr.testing.assert_allclose(summarise(evaluated), summarise(turned))
    xr.testing.assert_allclose(differences(evaluated, baseline="full"), differences(turned, baseline="full"))


@pytest.mark.parametrize("function", [summarise, worst_case, lambda r: differences(r, baseline="none")])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r["correct"].to_dataset(), "expected what evaluate returns, with correct, hits.*, got no hits"),
        (lambda r: r.isel(draw_seed=0), "expected correct over noise, seed, draw_seed, .*, got noise, seed, condition"),
        (lambda r: r.where(r["correct"]), "expected correct as bool, got (float64|object)"),
        (lambda r: r.drop_vars("k"), "expected what evaluate returns, with a coordinate k, got"),
    ],
)
def test_what_is_no_result_is_refused(function: Callable, change: Callable, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        function(change(random_result(n_stimuli=3)))


def test_a_baseline_is_one_of_the_noises_and_a_worst_case_has_attacks() -> None:
    evaluated = random_result(n_stimuli=3)
    with pytest.raises(ValueError, match="expected a baseline among the noises, got 'pgd'"):
        differences(evaluated, baseline="pgd")
    with pytest.raises(ValueError, match="expected attacks among the conditions, got clean, modification"):
        worst_case(evaluated.isel(condition=[0, 1]))
