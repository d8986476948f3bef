"""Laws that hold for any responses: arranging, aligning, rebinning, marking and storing."""

import tempfile
from pathlib import Path

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neurovar import responses
from neurovar.responses import DIMS, TIME_DIMS

quick = settings(max_examples=30, deadline=None, derandomize=True)
sizes = st.integers(1, 4)
numbers = st.integers(-50, 50).map(float)  # whole, so that sums do not depend on their order


@st.composite
def recordings(draw: st.DrawFn, *, time: bool | None = None) -> xr.DataArray:
    """Valid responses with absent trials and labels."""
    timed = draw(st.booleans()) if time is None else time
    shape = tuple(draw(sizes) for _ in range(4 if timed else 3))
    values = draw(arrays.arrays(draw(st.sampled_from([np.float32, np.float64])), shape, elements=numbers))
    absent = draw(arrays.arrays(bool, shape[:2]))
    absent[:, draw(st.integers(0, shape[1] - 1))] = False
    values[absent] = np.nan
    coords = {
        "stimulus": draw(st.permutations(range(shape[0]))),
        "area": ("unit", draw(st.lists(st.sampled_from(["V1", "V4", ""]), min_size=shape[2], max_size=shape[2]))),
    }
    if timed:
        coords["time"] = (np.arange(shape[3]) * 0.1 - 0.1).round(12)
    attrs = {"units": "spike count", **({"bin_width": 0.1} if timed else {})}
    da = xr.DataArray(values, dims=TIME_DIMS[: len(shape)], coords=coords, attrs=attrs)
    return responses.mark(da, recording="area") if draw(st.booleans()) else da


@given(recordings(), st.integers(1, 400))
@quick
def test_a_store_gives_back_what_was_saved(da: xr.DataArray, chunk_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        responses.save(da, Path(folder) / "a.zarr", chunk_bytes=chunk_bytes)
        assert responses.open_zarr(Path(folder) / "a.zarr").compute().identical(da)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.booleans(), st.booleans())
@quick
def test_arranged_trials_are_the_rows_in_the_order_shown(ids: list[int], in_columns: bool, overwrite: bool) -> None:
    values = np.asarray(np.arange(3.0 * len(ids)).reshape(-1, 3), order="F" if in_columns else "C")
    rows = values.copy()
    arranged = responses.arrange(values, np.array(ids), overwrite=overwrite)
    for stimulus, trials, at in zip(arranged.stimulus.values, arranged.values, arranged.presentation.values):
        shown = np.flatnonzero(np.array(ids) == stimulus)
        assert at.tolist() == [*shown, *[-1] * (len(at) - len(shown))]
        np.testing.assert_array_equal(trials[: len(shown)], rows[shown])
        assert np.isnan(trials[len(shown) :]).all()


@given(recordings(time=False), recordings(time=False))
@quick
def test_aligned_systems_have_the_same_stimuli_and_their_own_responses(one: xr.DataArray, other: xr.DataArray) -> None:
    a, b = responses.align(one, other)
    assert a.stimulus.values.tolist() == b.stimulus.values.tolist()
    assert set(a.stimulus.values) == set(one.stimulus.values) & set(other.stimulus.values)
    for aligned, whole in ((a, one), (b, other)):
        assert aligned.identical(whole.sel(stimulus=aligned.stimulus.values))
    again = responses.align(a, b)
    assert again[0].identical(a) and again[1].identical(b), "aligning twice changes nothing"


@given(recordings(time=True), st.data())
@quick
def test_wider_bins_have_the_same_sum(da: xr.DataArray, data: st.DataObject) -> None:
    n_bins = da.sizes["time"]
    n_together = data.draw(st.sampled_from([n for n in range(1, n_bins + 1) if n_bins % n == 0]))
    wider = responses.rebin(da, bin_width=0.1 * n_together)
    assert wider.sizes["time"] == n_bins // n_together and wider.attrs["bin_width"] == 0.1 * n_together
    for summed in (responses.sum_time(wider), responses.rebin(da)):
        np.testing.assert_array_equal(summed.values, responses.sum_time(da).values)


@given(recordings(time=False))
@quick
def test_a_table_and_back_keeps_every_trial(da: xr.DataArray) -> None:
    back = responses.to_responses(responses.from_responses(da))
    assert back.stimulus.values.tolist() == da.stimulus.values.tolist()
    for trials, given_ in zip(back.values, da.values):
        present = given_[~np.isnan(given_[:, 0])]
        np.testing.assert_array_equal(trials[: len(present)], present)
    np.testing.assert_array_equal(responses.recordings(back), responses.recordings(da))


@given(recordings(time=False))
@quick
def test_residuals_sum_to_zero_and_leave_the_means(da: xr.DataArray) -> None:
    noise = responses.residuals(da)
    np.testing.assert_allclose(noise.sum("repeat").values, 0, atol=1e-3)
    assert noise.dims == DIMS and noise.isnull().equals(da.isnull())


@given(recordings(), st.sampled_from(["transposed", "unnamed", "infinite", "partial", "unseen"]))
@quick
def test_repairs_keep_the_rules_that_they_repair(da: xr.DataArray, fault: str) -> None:
    spoilt = da.copy(deep=True)
    if fault == "transposed":
        spoilt = spoilt.transpose(*da.dims[::-1])
    elif fault == "unnamed":
        spoilt = spoilt.drop_vars("stimulus")
    else:
        at = {"infinite": (0, 0, 0), "partial": (0, slice(None), 0), "unseen": (0,)}[fault]
        spoilt.values[at] = np.inf if fault == "infinite" else np.nan
    for _ in responses.RULES:
        broken = responses.broken_rule(responses.Candidate(spoilt, da.dims))
        if broken is None:
            assert responses.validate(spoilt, time="time" in da.dims) is spoilt
            return
        spoilt = broken[0].repair(spoilt)
        if spoilt is None:
            return
    raise AssertionError("repairs go round in a circle")
