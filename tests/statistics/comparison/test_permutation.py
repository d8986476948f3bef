"""Permutation tests: exact against full enumeration, level and power, several statistics at once."""

import numpy as np
import pytest
import xarray as xr
from reference import responses
from reference.comparison import (
    benjamini_hochberg,
    exact_label_test,
    exact_sign_test,
    maximum_statistic,
    rejections,
)

from neurovar import statistics
from neurovar.statistics import STATISTICS, Statistic, permutation_test
from neurovar.statistics.comparison._permutation import _p_values, _scores


@pytest.fixture(autouse=True)
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that are exact means over stimuli, units and trials."""
    for name, power in (("mean", 1), ("square", 2)):
        statistic = Statistic(lambda da, power=power: np.nanmean(da.values**power), name, name, over="unit")
        monkeypatch.setitem(STATISTICS, name, statistic)


def normal(seed: int | list[int], shape: tuple[int, int, int], mean: float = 0) -> xr.DataArray:
    return responses(np.random.default_rng(seed).standard_normal(shape) + mean)


def p(
    first: object, second: object, exchange: str, n: int = 99, seed: int = 0, names: tuple[str, ...] = ("mean",)
) -> float:
    options = {"exchange": exchange, "n_permutations": n, "control": None, "rng": seed}
    return permutation_test(first, second, names, **options).p.values[0]


def test_sessions_against_all_divisions() -> None:
    first, second = ([normal([s, n], (3, 2, 2), k) for s in range(n)] for k, n in ((0, 4), (0.8, 5)))
    expected = exact_label_test(*([float(da.mean()) for da in own] for own in (first, second)))
    table = permutation_test(first, second, ["mean"], exchange="session", n_permutations=2000, control=None, rng=0)
    assert 0.01 < expected < 0.3
    assert table.p.item() == pytest.approx(expected, abs=3 * np.sqrt(expected / 2000))
    assert table["first"].item() == pytest.approx(np.mean([da.mean() for da in first]))
    assert table.difference.item() == pytest.approx(table["first"].item() - table["second"].item())


def test_stimuli_against_all_signs() -> None:
    first, second = normal(1, (9, 2, 3), 0.3), normal(2, (9, 2, 4))
    differences = first.mean(("repeat", "unit")).values - second.mean(("repeat", "unit")).values
    expected = exact_sign_test(differences.tolist())
    assert 0.01 < expected < 0.6
    again = second.isel(stimulus=slice(None, None, -1))
    for other in (second, again):
        assert p(first, other, "stimulus", n=2000) == pytest.approx(expected, abs=3 * np.sqrt(expected / 2000))


def test_units_against_all_divisions() -> None:
    first, second = normal(1, (6, 2, 4), 0.4), normal(2, (6, 2, 5))
    expected = exact_label_test(*(da.mean(("stimulus", "repeat")).values.tolist() for da in (first, second)))
    assert 0.01 < expected < 0.6
    assert p(first, second, "unit", n=600) == pytest.approx(expected, abs=3 * np.sqrt(expected / 600))


def test_few_sessions_cannot_give_a_small_p() -> None:
    """Of 2 + 2 sessions there are 6 divisions, alike in pairs: p ≥ 1/3 however large the effect."""
    first, second = [normal(s, (3, 2, 2), 50) for s in (0, 1)], [normal(s, (3, 2, 2)) for s in (2, 3)]
    assert p(first, second, "session", n=999) == pytest.approx(1 / 3, abs=0.05)


def test_ties_count_as_as_large() -> None:
    values = np.array([[0.1, 0.2, 0.3]]).T
    table = _p_values(_scores(values.mean(axis=0), np.array([[0.3, 0.1, 0.2], [0.2, 0.3, 0.1]]).mean(axis=1)[:, None]))
    assert table.tolist() == [1.0]


@pytest.mark.parametrize("exchange", ["session", "stimulus", "unit"])
def test_level_and_power(exchange: str) -> None:
    """200 draws under the null: p ≤ 0.05 in 5 % of them, within 3 standard errors; and an effect is found."""

    def draw(seed: int, effect: float) -> tuple:
        if exchange == "session":
            return tuple([normal([seed, k, s], (2, 2, 1), effect * k) for s in range(6)] for k in (0, 1))
        return normal([seed, 0], (10, 2, 8)), normal([seed, 1], (10, 2, 8), effect)

    def test(seed: int) -> float:
        return p(*draw(seed, 0), exchange, n=39, seed=seed)

    assert rejections(test, 200) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 200))
    assert rejections(lambda seed: p(*draw(seed, 1.5), exchange, n=39, seed=seed), 20) >= 0.9


def test_p_is_uniform_under_the_null() -> None:
    """Kernel alone, 2000 draws: each tenth of p holds a tenth of them, within 4 standard errors."""
    rng = np.random.default_rng(0)
    drawn = np.array([_p_values(_scores(w[0], w[1:]))[0] for w in rng.standard_normal((2000, 100, 1))])
    counts = np.histogram(drawn, bins=np.linspace(0, 1, 11) + 0.005)[0]
    assert np.abs(counts - 200).max() < 4 * np.sqrt(200 * 0.9)
    assert drawn.min() == pytest.approx(0.01)


@pytest.mark.parametrize("rho", [0, 0.9])
def test_family_wise_error_of_many_statistics(rho: float) -> None:
    """1000 draws of 20 statistics of equal correlation: the smallest corrected p is ≤ 0.05 in 5 %, whatever rho."""
    rng = np.random.default_rng(1)
    shared = np.sqrt(rho) * rng.standard_normal((1000, 80, 1))
    drawn = (shared + np.sqrt(1 - rho) * rng.standard_normal((1000, 80, 20))) * np.logspace(0, 3, 20)
    smallest = [_p_values(_scores(whole[0], whole[1:]), joint=True).min() for whole in drawn]
    assert np.mean(np.array(smallest) <= 0.05) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 1000))
    uncorrected = [_p_values(_scores(whole[0], whole[1:])).min() for whole in drawn[:200]]
    assert np.mean(np.array(uncorrected) <= 0.05) > (0.4 if rho == 0 else 0.08)


def test_controls_against_loops() -> None:
    rng = np.random.default_rng(0)
    observed, permuted = np.array([2.0, 30.0, 0.1]), rng.standard_normal((200, 3)) * [1, 10, 1]
    np.testing.assert_allclose(
        _p_values(_scores(observed, permuted), joint=True), maximum_statistic(observed, permuted)
    )
    sessions = [[normal([s, k], (4, 3, 3), 0.4 * k) for s in range(5)] for k in (0, 1)]
    names = ["mean", "square", "noise_correlation", "effective_dimensionality"]
    options = {"exchange": "session", "n_permutations": 199, "rng": 0}
    tables = {
        control: permutation_test(*sessions, names, control=control, **options) for control in ("max", "fdr", None)
    }
    assert "p_corrected" not in tables[None]
    np.testing.assert_allclose(tables["fdr"].p_corrected, benjamini_hochberg(tables["fdr"].p.values.tolist()))
    for control in ("max", "fdr"):
        np.testing.assert_array_equal(tables[control].p, tables[None].p)
        assert (tables[control].p_corrected >= tables[None].p).all()
        assert tables[control].attrs == {"exchange": "session", "n_permutations": 199, "control": control}


def test_what_is_undefined_stays_out_of_the_correction() -> None:
    sessions = [[normal([s, k], (4, 3, 3)) for s in range(4)] for k in (0, 1)]
    options = {"exchange": "session", "n_permutations": 50, "rng": 0}
    for control in ("max", "fdr"):
        both = permutation_test(*sessions, ["fano_factor", "mean"], control=control, **options)
        alone = permutation_test(*sessions, ["mean"], control=control, **options)
        assert np.isnan(both.p[0]) and np.isnan(both.p_corrected[0]) and both.n_permutations[0] == 0
        assert "'spike count', got 'arbitrary'" in both.reason.values[0] and both.reason.values[1] == ""
        assert both.p_corrected[1] == alone.p_corrected[0]


def test_a_real_difference_in_noise_is_found_in_sessions_units_and_stimuli() -> None:
    def coupled(seed: int, strength: float) -> xr.DataArray:
        rng = np.random.default_rng(seed)
        return responses(rng.standard_normal((12, 6, 6)) + strength * rng.standard_normal((12, 6, 1)))

    names = ("noise_correlation",)
    weak, strong = [coupled(s, 0) for s in range(5)], [coupled(s, 1) for s in range(5, 10)]
    assert p(weak, strong, "session", n=199, names=names) < 0.05
    assert p(weak[0], strong[0], "stimulus", n=199, names=names) < 0.05
    assert p(weak[0], strong[0], "unit", n=49, names=names) < 0.05


def test_a_seed_means_one_table_whatever_the_number_of_processes() -> None:
    da = statistics.population(n_stimuli=12, n_repeats=4, n_units=8, rng=0)
    for exchange in ("stimulus", "unit"):
        options = {"exchange": exchange, "n_permutations": 6, "control": "max", "n_splits": 2}
        parts = da[..., :4], da[..., 4:]
        names = ["noise_correlation", "reliability"]
        one, two = (permutation_test(*parts, names, rng=0, n_jobs=n_jobs, **options) for n_jobs in (1, 2))
        xr.testing.assert_identical(one, two)


def test_bad_input() -> None:
    a, b = normal(0, (5, 3, 3)), normal(1, (5, 3, 3))
    good = {"exchange": "unit", "n_permutations": 5, "control": None, "rng": 0}
    shifted = b.assign_coords(stimulus=list("vwxyz"))
    absent = b.copy(deep=True)
    absent.values[0, 2] = np.nan
    for one, other, options, message in (
        (a, b, {"exchange": "trial"}, "expected exchange= one of session, stimulus, unit, got 'trial'"),
        (a, b, {"control": "bonferroni"}, "expected control= one of max, fdr, None, got 'bonferroni'"),
        (a, b, {"n_permutations": 0}, "expected at least 1 permutation, got 0"),
        (a, b, {"exchange": "session"}, "expected at least 4 sessions to exchange, got 1 and 1"),
        (a, shifted, {"exchange": "stimulus"}, "same stimuli, got 5 and 5 with 0 in common; responses.align"),
        (a, shifted, {}, "expected units recorded together, of the same stimuli and trials"),
        (a, absent, {}, "expected units recorded together, of the same stimuli and trials"),
        (a, b.assign_attrs(units="dF/F"), {}, "expected the same units, got 'arbitrary' and 'dF/F'"),
        ([a, a], b, {}, "expected one session of each system to exchange units, got 2 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            permutation_test(one, other, ["mean"], **(good | options))
    with pytest.raises(ValueError, match="expected ranks="):
        permutation_test(a, b, **good)
