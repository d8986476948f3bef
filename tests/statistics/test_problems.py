"""Every problem is found at once, in order, and none where nothing is wrong."""

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import responses, statistics
from neurovar.statistics import Problem, problems
from neurovar.statistics import _problems as checks


def good(n_stimuli: int = 20, n_repeats: int = 6, n_units: int = 5) -> xr.DataArray:
    da = statistics.population(n_stimuli=n_stimuli, n_repeats=n_repeats, n_units=n_units, counts=True, rng=0)
    labels = {name: ("unit", [name] * n_units) for name in ("area", "subject", "session")}
    attrs = {"units": "spike count", "source": "simulated", "license": "none", "window": "100 ms"}
    return da.assign_coords(labels).assign_attrs(attrs)


def changed(da: xr.DataArray, **places: tuple) -> xr.DataArray:
    """With the value at each place, a tuple (stimulus, repeat, unit, value)."""
    values = da.values.astype(float)
    for *place, value in places.values():
        values[tuple(place)] = value
    return da.copy(data=values)


def said(da: xr.DataArray, severity: str) -> list[str]:
    return [problem.what for problem in problems(da) if problem.severity == severity]


def test_nothing_is_wrong_with_a_good_recording() -> None:
    assert problems(good()) == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda da: "text", "expected an xarray.DataArray, got str"),
        (lambda da: da.transpose("unit", "repeat", "stimulus"), "expected dims .* got .'unit', 'repeat', 'stimulus'."),
        (lambda da: da.rename(unit="neuron"), "expected dims .*'neuron'"),
        (lambda da: da.astype(complex), "expected real numbers, got dtype complex128"),
        (lambda da: da.astype(str).astype(object), "expected real numbers, got dtype object"),
        (lambda da: da.astype(object).copy(data=np.full(da.shape, "x", dtype=object)), "expected real numbers"),
        (lambda da: da[:0], "expected at least one stimulus"),
        (lambda da: da.drop_vars("stimulus"), "expected a coordinate 'stimulus'"),
        (lambda da: da.assign_coords(stimulus=[0] * 20), "expected unique stimulus ids, got repeated 1 stimulus"),
        (lambda da: da.assign_coords(stimulus=np.array([1, "a"] * 10, dtype=object)), r"repeated 2 stimuli \(1, a\)"),
        (lambda da: changed(da, a=(0, 0, 0, np.inf)), "got 1 infinite values"),
        (lambda da: changed(da, a=(slice(None), slice(None), 2, np.nan)), r"only NaN for 1 unit \(2\)"),
        (lambda da: changed(da, a=(3, 1, 2, np.nan)), "got 1 trials with some units missing"),
        (lambda da: changed(da, a=(4, slice(None), slice(None), np.nan)), "got none of 1 stimulus"),
        (lambda da: da.copy(data=np.full(da.shape, np.nan)), "only NaN for 5 units"),
        (lambda da: changed(da, a=(0, 0, 0, -1)), r"spike counts of 0 or more, got 1 negative values \(-1\)"),
        (lambda da: changed(da, a=(0, 0, 0, 1.5)), r"whole spike counts, got 1 fractional values \(the first: 1.5\)"),
        (lambda da: bare(da), r"expected attrs\['units'\], got none"),
    ],
)  # fmt: skip
def test_each_error_is_found_alone(spoil, message: str) -> None:
    (error,) = [problem for problem in problems(spoil(good())) if problem.severity == "error"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(error.what)
    assert error.how_to_mend


def bare(da: xr.DataArray) -> xr.DataArray:
    da.attrs = {}
    return da


def test_all_errors_are_found_in_the_order_of_validate() -> None:
    da = changed(
        good(),
        infinite=(0, 0, 0, np.inf),
        empty=(slice(None), slice(None), 1, np.nan),
        partial=(2, 0, 3, np.nan),
        unseen=(5, slice(None), slice(None), np.nan),
        negative=(6, 0, 0, -2),
        fractional=(7, 0, 0, 0.5),
    )
    da = da.assign_coords(stimulus=[0, 0, *range(2, 20)]).transpose("repeat", "stimulus", "unit")
    starts = (
        "expected dims", "expected unique", "expected finite", "expected a value for every unit",
        "expected each trial", "expected a trial of every stimulus", "expected spike counts", "expected whole",
    )  # fmt: skip
    errors = said(da, "error")
    assert [error.startswith(start) for error, start in zip(errors, starts, strict=True)] == [True] * len(starts)


def test_the_first_error_is_what_validate_says() -> None:
    da = changed(good(), infinite=(0, 0, 0, np.inf), partial=(2, 0, 3, np.nan))
    with pytest.raises(ValueError) as refused:
        responses.validate(da)
    assert said(da, "error")[0] == str(refused.value)


def test_errors_come_first_and_notes_last() -> None:
    da = changed(good(), a=(0, 5, slice(None), np.nan), b=(1, 0, 0, 0.5)).drop_vars("area")
    assert [problem.severity for problem in problems(da)] == ["error", "warning", "note"]


def test_time_resolved_responses_are_checked_over_time() -> None:
    da = good().expand_dims(time=[0.0, 0.1], axis=-1).assign_attrs(bin_width=0.1)
    assert problems(da) == []
    values = da.values.astype(float)
    values[1, 0, 2, 1] = np.nan
    values[3, 0, 2] = np.nan
    cut, missing = said(da.copy(data=values), "error")
    assert "got 1 with some time bins missing" in cut
    assert "got 1 trials with some units missing" in missing


def test_few_repeats() -> None:
    assert said(good(n_repeats=1), "warning") == ["every stimulus was shown once: no statistic of variability"]
    assert said(good(n_repeats=2), "warning") == ["no stimulus has more than 2 repeats: no z-scored noise correlations"]
    (few,) = said(good(n_stimuli=2, n_repeats=40), "warning")
    assert few.startswith("2 stimuli with repeats: no signal correlations")


def test_unequal_repeats_and_reasons_are_notes() -> None:
    da = changed(good(), a=(0, slice(3, None), slice(None), np.nan))
    da = responses.mark(da, residuals="mean subtracted")
    assert said(da, "note") == ["stimuli have 3 to 6 repeats", "residuals: mean subtracted"]


def test_units_that_never_respond_or_vary() -> None:
    da = changed(good(), silent=(slice(None), slice(None), 1, 0), constant=(slice(None), slice(None), 3, 4))
    silent, constant = said(da, "warning")
    assert silent == "units that never respond: 1"
    assert constant == "units that never vary between repeats: 3"


def test_the_same_unit_twice_is_found() -> None:
    da = good(n_stimuli=40)
    again = np.where(np.random.default_rng(1).random(da.shape[:2]) < 0.8, da.values[:, :, 0], da.values[:, :, 0] + 1)
    (twins,) = said(changed(da, a=(slice(None), slice(None), 4, again)), "warning")
    assert twins.startswith("units that are probably the same one: 0 and 4 (noise correlation 0.")


def test_the_same_unit_twice_is_found_with_one_stimulus() -> None:
    da = good(n_stimuli=1, n_repeats=100)
    warnings = said(changed(da, a=(slice(None), slice(None), 4, da.values[:, :, 0])), "warning")
    assert warnings[-1] == "units that are probably the same one: 0 and 4 (noise correlation 1.00)"


def test_the_same_unit_is_not_looked_for_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    da = good()
    twins = changed(da, a=(slice(None), slice(None), 4, da.values[:, :, 0]))
    assert said(reference.apart(twins), "warning") == []
    assert said(twins.isel(unit=[0]), "warning") == []
    monkeypatch.setattr(checks, "MOST_COMPARED", 4)
    assert said(twins, "note") == ["more than 4 units: repeated ones were not looked for"]


@pytest.mark.parametrize("ordered", [True, False])
def test_drift_is_found_in_the_order_of_presentation(ordered: bool) -> None:
    da = good(n_stimuli=20, n_repeats=6)
    order = np.random.default_rng(0).permutation(120).reshape(20, 6) if ordered else np.tile(np.arange(6), (20, 1))
    drifting = changed(da, a=(slice(None), slice(None), 2, np.round(da.values[:, :, 2] + 40 * order / order.max())))
    given = drifting.assign_coords(presentation=(("stimulus", "repeat"), order)) if ordered else drifting
    assert said(given, "warning") == ["units that drift over the recording (|r| > 0.5): 2"]
    if ordered:
        assert said(drifting, "warning") == []


def test_what_is_not_said_of_units_and_origin() -> None:
    da = bare(good().drop_vars(["area", "session"]))
    assert said(da, "warning") == ["no area, session for the units"]
    assert said(da, "note") == ["attrs do not say: source, license, window"]


def test_counts_under_another_name_are_noted() -> None:
    (note,) = problems(good().assign_attrs(units="spikes"))
    assert note == Problem(
        "note",
        "all values are whole and not negative, but their units are 'spikes': no Fano factor",
        "if they are counts, say attrs['units'] = 'spike count'",
    )


def test_long_lists_are_cut() -> None:
    (warning,) = said(changed(good(n_units=9), a=(slice(None), slice(None), slice(1, 9), 0)), "warning")
    assert warning == "units that never respond: 1, 2, 3, 4, 5 and 3 more"


@pytest.mark.data
def test_the_units_of_v4_that_are_perhaps_one() -> None:
    from neurovar_datasets import cowley2023_v4

    found = problems(cowley2023_v4.load(session="210325"))
    assert [(problem.severity, problem.what) for problem in found] == [
        ("warning", "units that are probably the same one: 33 and 49 (noise correlation 0.35)"),
        ("note", "stimuli have 6 to 10 repeats"),
    ]
