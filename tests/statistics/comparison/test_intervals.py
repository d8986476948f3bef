"""Intervals: what varies at which level, and whether they hold what they should."""

import numpy as np
import pytest
import xarray as xr
from reference import noise_matrix, recording, responses
from reference.comparison import cluster_jackknife, two_way_variances

from neurovar import statistics
from neurovar.statistics import STATISTICS, Statistic, intervals
from neurovar.statistics._statistic import Evaluation
from neurovar.statistics.comparison._intervals import measure


@pytest.fixture(autouse=True)
def grand_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statistic whose variance is known in closed form."""
    mean = Statistic(lambda da: np.nanmean(da.values), "mean", "response", over="unit")
    monkeypatch.setitem(STATISTICS, "mean", mean)


def crossed(
    seed: int, n_stimuli: int = 30, n_units: int = 20, of: tuple[float, float, float] = (1, 1, 1)
) -> xr.DataArray:
    """Two equal repeats of μ = 0 plus stimulus, unit and interaction effects of these standard deviations."""
    rng = np.random.default_rng(seed)
    effects = [rng.standard_normal(shape) for shape in ((n_stimuli, 1), (1, n_units), (n_stimuli, n_units))]
    values = sum(scale * effect for scale, effect in zip(of, effects))
    return responses(np.repeat(values[:, None], 2, axis=1))


def variance(system: xr.DataArray | list, statistic: str = "mean", n_resamples: int = 400, **options: object) -> float:
    table = intervals(system, [statistic], n_resamples=n_resamples, rng=0, **options)
    return float(table.standard_error[0]) ** 2


@pytest.mark.parametrize("of", [(1, 1, 1), (0.1, 1, 3), (1, 0.1, 0.1)])
def test_crossed_levels_have_the_variance_of_the_two_way_layout(of: tuple[float, float, float]) -> None:
    da = crossed(1, of=of)
    rows, columns, both = two_way_variances(da.values[:, 0])
    assert variance(da) == pytest.approx(rows + max(columns - both, 0), rel=0.15)
    assert variance(da, levels=("stimulus",)) == pytest.approx(rows, rel=0.15)
    assert variance(da, levels=("unit",)) == pytest.approx(columns, rel=0.15)


@pytest.mark.parametrize("levels", [("subject",), ("session",), ("session", "subject")])
def test_sessions_and_subjects_are_left_out_one_at_a_time(levels: tuple[str, ...]) -> None:
    subjects = ["a", "a", "b", "c", "c", "c"]
    sessions = [crossed(seed).assign_attrs(subject=name) for seed, name in enumerate(subjects)]
    means = [float(session.mean()) for session in sessions]
    clusters = subjects if "subject" in levels else range(6)
    table = intervals(sessions, ["mean"], levels=levels, n_resamples=2, rng=0)
    assert table.estimate.item() == pytest.approx(np.mean(means))
    assert table.standard_error.item() ** 2 == pytest.approx(cluster_jackknife(means, list(clusters)), rel=1e-10)
    if levels == ("session",):
        assert table.standard_error.item() == pytest.approx(np.std(means, ddof=1) / 6**0.5, rel=1e-10)
    half = 4.302653 if "subject" in levels else 2.570582  # Student's t with 2 and 5 degrees of freedom
    assert float((table.high - table.low).item()) == pytest.approx(2 * half * table.standard_error.item(), rel=1e-6)


def test_the_subject_may_be_a_coordinate_of_units() -> None:
    sessions = [crossed(seed).assign_coords(subject=("unit", [name] * 20)) for seed, name in enumerate("aabb")]
    assert intervals(sessions, ["mean"], n_resamples=2, rng=0).attrs["levels"] == "subject, stimulus"
    sessions[0] = sessions[0].drop_vars("subject")
    assert intervals(sessions, ["mean"], n_resamples=2, rng=0).attrs["levels"] == "session, stimulus"


def test_stimuli_that_sessions_share_are_crossed_with_them() -> None:
    """Three sessions share the stimulus effects, whose variance their means therefore cannot show."""
    rng = np.random.default_rng(0)
    shared, own = 3 * rng.standard_normal((40, 1, 1)), rng.standard_normal((3, 40, 1, 6))
    sessions = [responses(np.repeat(shared + one, 2, axis=1)) for one in own]
    stimuli = np.mean(shared + own.mean(axis=(0, 3))[:, :, None], axis=(1, 2)).var(ddof=1) / 40
    assert variance(sessions, levels=("session",)) < stimuli / 20
    assert variance(sessions) == pytest.approx(stimuli, rel=0.15)
    apart = [one.assign_coords(stimulus=[f"{i}{s}" for s in range(40)]) for i, one in enumerate(sessions)]
    assert variance(apart) == pytest.approx(stimuli / 3, rel=0.25), "as if each session had stimuli of its own"


def test_units_of_several_sessions_vary_where_sessions_are_fixed() -> None:
    sessions = [crossed(seed, of=(0, 1, 0), n_units=n) for seed, n in ((0, 20), (1, 40))]
    expected = sum(session.values[0, 0].var(ddof=1) / session.sizes["unit"] for session in sessions) / 4
    assert variance(sessions, levels=("unit",)) == pytest.approx(expected, rel=0.15)


def test_one_stimulus_varies_by_its_trials() -> None:
    da = responses(np.random.default_rng(0).standard_normal((1, 60, 5)) + np.arange(5))
    da.values[0, 50:] = np.nan
    table = intervals(da, ["mean"], levels=("stimulus", "repeat"), n_resamples=400, rng=0)
    assert table.attrs["levels"] == "repeat"
    expected = da.values[0, :50].mean(axis=1).var(ddof=1) / 50
    assert table.standard_error.item() ** 2 == pytest.approx(expected, rel=0.15)


def of_noise(kind: str, seed: int) -> xr.DataArray:
    """Responses with the same noise of the same units in every seed."""
    rng = np.random.default_rng(seed)
    return responses(rng.multivariate_normal(np.zeros(8), noise_matrix(kind, 8), size=(40, 4), method="cholesky"))


INDEPENDENT = 1 / (40 * 3 * 28)
"""The variance of the mean of 28 independent correlations, each from 40 stimuli with 3 degrees of freedom."""


def test_noise_correlations_vary_as_much_as_the_interval_says() -> None:
    """Over new stimuli, units fixed: the mean squared standard error is the variance, within 2 standard errors."""
    options = {"levels": ("stimulus",), "n_resamples": 10}
    independent, structured = (
        [intervals(of_noise(kind, seed), ["noise_correlation"], rng=seed, **options) for seed in range(50)]
        for kind in ("isotropic", "structured")
    )
    squared = [np.mean([table.standard_error.item() ** 2 for table in tables]) for tables in (independent, structured)]
    assert squared[0] == pytest.approx(INDEPENDENT, rel=2 * np.sqrt(2 / (9 * 50)))
    variance = np.var([table.estimate.item() for table in structured], ddof=1)
    assert squared[1] == pytest.approx(variance, abs=2 * variance * np.sqrt(2 / 49 + 2 / (9 * 50)))


def test_what_is_due_to_units_and_stimuli_counts_once() -> None:
    """Independent noise: all variance is in pairs of units. It shows at either level (twice over units), 3 in sum."""
    tables = [
        intervals(of_noise("isotropic", seed), ["noise_correlation"], n_resamples=10, rng=seed) for seed in range(40)
    ]
    assert 0.8 < np.mean([table.standard_error.item() ** 2 for table in tables]) / INDEPENDENT < 2


def test_coverage_with_new_units_and_new_stimuli() -> None:
    """80 recordings: 95 % intervals of the mean hold 0 at least 71 times (chance 0.01 of fewer), not always."""

    def held(n: int, levels: tuple[str, ...]) -> int:
        tables = (intervals(crossed(s, 20, 12), ["mean"], levels=levels, n_resamples=10, rng=s) for s in range(n))
        return sum(bool(table.low < 0 < table.high) for table in tables)

    assert 71 <= held(80, ("unit", "stimulus")) < 80
    assert held(30, ("stimulus",)) < 25, "units that are not drawn are not covered"


@pytest.mark.parametrize(
    "statistic", ["noise_correlation", "signal_correlation", "effective_dimensionality", "fano_factor"]
)
def test_the_estimate_is_the_statistic(statistic: str) -> None:
    da = statistics.population(n_stimuli=30, n_repeats=4, n_units=6, counts=True, rng=0)
    upper = np.triu_indices(6, 1)
    expected = {
        "noise_correlation": lambda: statistics.noise_correlation(da).values[upper].mean(),
        "signal_correlation": lambda: statistics.signal_correlation(da).values[upper].mean(),
        "effective_dimensionality": lambda: statistics.effective_dimensionality(da),
        "fano_factor": lambda: statistics.fano_factor(da).values.mean(),
    }[statistic]()
    assert intervals(da, [statistic], n_resamples=2, rng=0).estimate.item() == pytest.approx(expected, rel=1e-12)


def test_a_mean_over_subsamples_varies_as_if_it_came_from_all() -> None:
    """Half of the units and stimuli, ten times: its variance is that of the whole, not of a half (twice as large)."""
    squared, means = [], []
    for seed in range(50):
        whole, rng = crossed(seed, 24, 24), np.random.default_rng(seed)
        halves = [[whole[np.sort(rng.permutation(24)[:12])][..., np.sort(rng.permutation(24)[:12])]] for _ in range(10)]
        options = {"levels": ("unit", "stimulus"), "n_resamples": 10, "rng": rng, "n_jobs": 1}
        table = measure(halves, Evaluation((STATISTICS["mean"],), 0), shares=(0.5, 0.5), **options)
        squared.append(table.standard_error.item() ** 2)
        means.append(table.estimate.item())
    true = np.var(means, ddof=1)
    assert np.mean(squared) == pytest.approx(true, abs=2 * true * np.sqrt(2 / 49))
    assert np.mean(squared) < 1.5 * (1 / 24 + 1 / 24 + 1 / 576)


def test_what_a_session_does_not_allow_is_undefined_and_says_why() -> None:
    counts = [statistics.population(n_stimuli=9, n_repeats=4, n_units=5, counts=True, rng=seed) for seed in (0, 1)]
    counts[1] = counts[1].assign_attrs(units="dF/F")
    table = intervals(counts, ["fano_factor", "noise_correlation"], n_resamples=3, rng=0)
    assert np.isnan(table.estimate[0]) and np.isnan(table.low[0]) and np.isnan(table.high[0])
    assert "got 'dF/F'" in table.reason.values[0]
    assert table.reason.values[1] == "" and np.isfinite(table.low[1])
    assert table.n_resamples.values.tolist() == [0, 3]


def test_a_pair_of_units_has_no_interval_over_units() -> None:
    da = recording("low_rank", n_units=2)
    table = intervals(da, ["noise_correlation"], n_resamples=4, rng=0)
    assert np.isfinite(table.estimate[0]) and np.isnan(table.low[0]) and table.n_resamples[0] == 0
    assert np.isfinite(intervals(da, ["noise_correlation"], levels=("stimulus",), n_resamples=4, rng=0).low[0])


def test_one_statistic_does_not_depend_on_the_others() -> None:
    da = recording("low_rank")
    options = {"n_resamples": 3, "n_splits": 2, "rng": 0}
    alone, both = (intervals(da, names, **options) for names in (["reliability"], ["noise_correlation", "reliability"]))
    xr.testing.assert_identical(alone.isel(statistic=0), both.isel(statistic=1))


def test_bad_input() -> None:
    da = crossed(0)
    for options, message in (
        ({"statistics": ["mean", "slope"]}, "expected statistics, each once, among noise_correlation, .* got"),
        ({"statistics": ["mean", "mean"]}, "each once"),
        ({"statistics": "mean"}, "each once"),
        ({"statistics": []}, "each once"),
        ({"statistics": ["exponent"]}, "expected ranks=.first, last. for 'exponent', got none"),
        ({"statistics": ["exponent"], "rank": (1, 4)}, "expected settings among n_splits, ranks, n_dims, got 'rank'"),
        ({"levels": ("neuron",)}, "expected levels= some of subject, session, unit, stimulus, repeat, got"),
        ({"levels": "unit"}, "expected levels= some of"),
        ({"levels": ("session",)}, "expected levels with two members or more, got 1 of session"),
        ({"levels": ()}, "expected levels with two members or more, got none"),
        ({"n_resamples": 1}, "expected at least 2 resamples, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            intervals(da, **({"statistics": ["mean"], "n_resamples": 4, "rng": 0} | options))
    with pytest.raises(ValueError, match="expected at least one session, got none"):
        intervals([], n_resamples=4, rng=0, statistics=["mean"])
    with pytest.raises(ValueError, match="session 1: expected at least 2 repeats of some stimulus, got at most 1"):
        intervals([da, da[:, :1]], n_resamples=4, rng=0, statistics=["mean"])
