"""Matched subsamples: sizes, stimuli, repeats and rates."""

import numpy as np
import pytest
import xarray as xr
from reference import responses
from reference.comparison import histogram_overlap

from neurovar.statistics import match


def numbered(n_stimuli: int, n_repeats: int, n_units: int, *, first: int = 0) -> xr.DataArray:
    """Each value tells its stimulus, repeat and unit; the ids of stimuli begin at s<first>."""
    stimulus, repeat, unit = np.indices((n_stimuli, n_repeats, n_units))
    values = 1e4 * (stimulus + first) + 100.0 * repeat + unit + 1
    da = responses(values).assign_coords(stimulus=[f"s{i}" for i in range(first, first + n_stimuli)])
    return da.assign_coords(channel=("unit", np.arange(n_units)), shown=(("stimulus", "repeat"), repeat[..., 0]))


def test_units_are_drawn_without_replacement_and_each_as_often() -> None:
    systems = {"V4": numbered(4, 2, 3), "layer": numbered(4, 2, 12)}
    subsamples = match(systems, n_subsamples=200, rng=0)
    assert len(subsamples) == 200
    drawn = np.array([one["layer"]["channel"].values for one in subsamples])
    assert drawn.shape == (200, 3)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert np.abs(np.bincount(drawn.ravel(), minlength=12) - 50).max() < 4 * np.sqrt(50 * 0.75)
    assert all((one["V4"]["channel"].values == [0, 1, 2]).all() for one in subsamples)
    values = subsamples[0]["layer"].values[0, 0]
    np.testing.assert_array_equal(values, drawn[0] + 1, "values and coordinates stay together")


def test_shared_stimuli_are_taken_in_the_order_of_the_first() -> None:
    systems = {"a": numbered(6, 2, 3), "b": numbered(6, 2, 3, first=3)[::-1]}
    (one,) = match(systems, n_subsamples=5, rng=0)
    assert one["a"].stimulus.values.tolist() == one["b"].stimulus.values.tolist() == ["s3", "s4", "s5"]
    np.testing.assert_array_equal(one["a"].values, one["b"].values)
    assert one["a"].attrs["matched"] == "3 shared stimuli"


def test_systems_without_a_shared_stimulus_get_as_many() -> None:
    systems = {"a": numbered(10, 2, 3), "b": numbered(4, 2, 3, first=50)}
    subsamples = match(systems, n_subsamples=40, rng=0)
    assert all(one["a"].sizes["stimulus"] == one["b"].sizes["stimulus"] == 4 for one in subsamples)
    assert len(set(np.concatenate([one["a"].stimulus.values for one in subsamples]))) == 10
    assert subsamples[0]["a"].attrs["matched"] == "4 of 10 stimuli at random"
    assert subsamples[0]["b"].attrs["matched"] == ""


def test_repeats_are_as_many_as_the_fewest_of_any_stimulus() -> None:
    few, many = numbered(5, 4, 2), numbered(5, 9, 2)
    few.values[2, 3] = np.nan
    many.values[1, 5:] = np.nan
    subsamples = match({"few": few, "many": many}, over=("repeat",), n_subsamples=50, rng=0)
    for one in subsamples:
        for name, whole in (("few", few), ("many", many)):
            present = one[name].notnull()
            assert (present.isel(unit=0).sum("repeat") == 3).all()
            np.testing.assert_array_equal(one[name].where(present), whole.where(present))
    used = sum(one["many"][0, :, 0].notnull().values.astype(int) for one in subsamples)
    assert used.sum() == 150 and used.min() > 5, "any repeat may be taken"
    assert subsamples[0]["few"].attrs["matched"] == "3 repeats at random"


def rates(means: np.ndarray, seed: int = 0, units: str = "spike count") -> xr.DataArray:
    values = np.random.default_rng(seed).poisson(means, size=(200, 2, len(means))).astype(float)
    return responses(values, units=units)


def test_rates_are_matched_bin_by_bin() -> None:
    rng = np.random.default_rng(1)
    slow, fast = rates(rng.lognormal(1, 0.6, 60)), rates(rng.lognormal(1.5, 0.6, 90), seed=1)
    subsamples = match({"slow": slow, "fast": fast}, over=("rate",), n_subsamples=20, rng=0)
    n_common = histogram_overlap(*(da.values.mean(axis=(0, 1)) for da in (slow, fast)), ratio=1.25)
    logs = {"slow": [], "fast": []}
    for one in subsamples:
        for name, da in one.items():
            assert da.sizes["unit"] == n_common > 20
            logs[name].append(np.log(da.values.mean(axis=(0, 1))))
    before = np.log(fast.values.mean(axis=(0, 1))).mean() - np.log(slow.values.mean(axis=(0, 1))).mean()
    assert before > 0.3
    assert abs(np.mean(logs["fast"]) - np.mean(logs["slow"])) < 0.03
    assert len({tuple(row) for row in np.array(logs["fast"])}) > 1, "the draws differ"


def test_silent_units_match_silent_units() -> None:
    systems = {"a": rates(np.array([0, 0, 5.0])), "b": rates(np.array([0, 5.0, 40]))}
    (one, *_) = match(systems, over=("unit", "rate"), n_subsamples=3, rng=0)
    assert (one["a"].values.max(axis=(0, 1)) == 0).sum() == 1
    assert one["a"].sizes["unit"] == one["b"].sizes["unit"] == 2


def test_sessions_stay_lists_and_all_have_the_same_sizes() -> None:
    systems = {"V4": [numbered(4, 2, 5), numbered(6, 2, 7)], "layer": numbered(8, 2, 9)}
    subsamples = match(systems, n_subsamples=2, rng=0)
    assert [da.shape for da in subsamples[1]["V4"]] == [(4, 2, 5), (4, 2, 5)]
    assert subsamples[1]["layer"].shape == (4, 2, 5)
    assert subsamples[1]["V4"][1].attrs["matched"] == "4 shared stimuli; 5 of 7 units at random"


def test_a_seed_means_one_draw_and_systems_are_left_as_they_were() -> None:
    systems = {"a": numbered(6, 4, 5), "b": numbered(6, 3, 8)}
    before = {name: da.copy(deep=True) for name, da in systems.items()}
    over = ("unit", "stimulus", "repeat")
    first, again, other = (match(systems, over=over, n_subsamples=3, rng=seed) for seed in (0, 0, 1))
    for one, same in zip(first, again):
        for name in systems:
            xr.testing.assert_identical(one[name], same[name])
    assert any(not one["b"].equals(two["b"]) for one, two in zip(first, other))
    for name, da in systems.items():
        xr.testing.assert_identical(da, before[name])
    longer = match(systems, over=over, n_subsamples=5, rng=0)
    xr.testing.assert_identical(longer[2]["b"], first[2]["b"])


def test_one_subsample_where_there_is_nothing_to_draw() -> None:
    systems = {"a": numbered(6, 2, 5), "b": numbered(6, 2, 5)}
    assert len(match(systems, over=("unit", "stimulus", "repeat"), n_subsamples=9, rng=0)) == 1
    assert len(match(systems | {"b": numbered(6, 2, 8)}, over=(), n_subsamples=9, rng=0)) == 1


def test_bad_input() -> None:
    a, b = numbered(4, 2, 3), numbered(4, 2, 5)
    with pytest.raises(ValueError, match=r"expected over= some of unit, stimulus, repeat, rate, got .'neuron',"):
        match({"a": a}, over=("neuron",), n_subsamples=1, rng=0)
    with pytest.raises(ValueError, match="expected over= some of unit, stimulus, repeat, rate, got 'unit'"):
        match({"a": a}, over="unit", n_subsamples=1, rng=0)
    with pytest.raises(ValueError, match="expected at least 1 subsample, got 0"):
        match({"a": a}, n_subsamples=0, rng=0)
    with pytest.raises(ValueError, match="expected at least one system, got none"):
        match({}, n_subsamples=1, rng=0)
    b.values[1, 1:] = np.nan
    with pytest.raises(ValueError, match=r"expected at least 2 repeats of every stimulus to match repeats.*system 'b'"):
        match({"a": a, "b": b}, over=("repeat",), n_subsamples=1, rng=0)
    with pytest.raises(ValueError, match="system 'b': expected dims"):
        match({"a": a, "b": b.rename(unit="neuroid")}, n_subsamples=1, rng=0)


def test_rates_that_cannot_be_matched() -> None:
    low, high = rates(np.array([1.0, 2.0])), rates(np.array([50.0, 90.0]))
    with pytest.raises(
        ValueError, match="expected systems whose units overlap in their mean responses, got no overlap"
    ):
        match({"low": low, "high": high}, over=("rate",), n_subsamples=1, rng=0)
    with pytest.raises(ValueError, match="to match rates, got activation, spike count"):
        match({"low": low, "high": high.assign_attrs(units="activation")}, over=("rate",), n_subsamples=1, rng=0)
    with pytest.raises(ValueError, match="expected responses ≥ 0 to match rates, got -7 in system 'low'"):
        match({"low": low.copy(data=np.full(low.shape, -7.0)), "high": high}, over=("rate",), n_subsamples=1, rng=0)
