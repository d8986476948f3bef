"""Spike counts against plain loops over spikes, NumPy's histogram and, where installed, elephant and pynapple."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from neurovar import responses

WINDOWS = [((0.05, 0.25), None), ((0.0, 0.3), 0.1), ((-0.2, 0.4), 0.05), ((-0.3, -0.1), None), ((0.1, 1.3), 0.3)]


def by_hand(spike_times: list, onsets: Any, stimulus: Any, edges: list[float]) -> dict[tuple, list[list[int]]]:
    """For each stimulus, repeat and unit the counts in bins, from a loop over every spike and bin."""
    counts, seen = {}, dict.fromkeys(stimulus, 0)
    for onset, name in zip(onsets, stimulus):
        for unit, times in enumerate(spike_times):
            bins = [0] * (len(edges) - 1)
            for t in times:
                for b in range(len(bins)):
                    bins[b] += bool(onset + edges[b] <= t < onset + edges[b + 1])
            counts[name, seen[name], unit] = bins
        seen[name] += 1
    return counts


def check(counted: xr.DataArray, expected: dict[tuple, list[int]]) -> None:
    values = counted.values if "time" in counted.dims else counted.values[..., None]
    ids = counted["stimulus"].values.tolist()
    present = {(ids.index(name), repeat, unit): bins for (name, repeat, unit), bins in expected.items()}
    for position in np.ndindex(*values.shape[:3]):
        if position in present:
            assert values[position].tolist() == present[position]
        else:
            assert np.isnan(values[position]).all()


def recording(*, seed: int, decimals: int | None) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Units of different rates (one silent), unequal repeats, onsets so close together that windows overlap.

    Rounded to few decimals, many spikes lie exactly on an edge, as far as floating-point numbers can tell.
    """
    rng = np.random.default_rng(seed)
    onsets = rng.uniform(1, 9, size=15)
    times = [np.sort(rng.uniform(0, 10, size=n)) for n in (0, 1, 40, 200)]
    if decimals is not None:
        onsets, times = onsets.round(decimals), [t.round(decimals) for t in times]
    return times, onsets, np.array(list("abcabbaababbaab"))


@pytest.mark.parametrize("decimals", [None, 1, 2])
@pytest.mark.parametrize(("window", "bin_width"), WINDOWS)
def test_counts_are_those_of_a_loop_over_spikes(
    window: tuple[float, float], bin_width: float | None, decimals: int | None
) -> None:
    times, onsets, stimulus = recording(seed=1, decimals=decimals)
    counted = responses.count(times, onsets, stimulus, window=window, bin_width=bin_width)
    n_bins = 1 if bin_width is None else round((window[1] - window[0]) / bin_width)
    edges = [round(window[0] + b * (window[1] - window[0]) / n_bins, 9) for b in range(n_bins + 1)]
    check(counted, by_hand(times, onsets, stimulus, edges))
    assert counted.dtype == np.float32 and counted.attrs["units"] == "spike count"
    responses.validate(counted, time=bin_width is not None)


def test_time_is_the_start_of_each_bin() -> None:
    times, onsets, stimulus = recording(seed=0, decimals=None)
    counted = responses.count(times, onsets, stimulus, window=(-0.2, 0.2), bin_width=0.1)
    assert counted.dims == ("stimulus", "repeat", "unit", "time")
    assert counted["time"].values.tolist() == [-0.2, -0.1, 0.0, 0.1]
    assert not np.signbit(counted["time"].values[2])
    assert counted.attrs == {"units": "spike count", "window": "-0.2 to 0.2 s", "bin_width": 0.1}
    assert counted["stimulus"].values.tolist() == ["a", "b", "c"]
    whole = responses.count(times, onsets, stimulus, window=(-0.2, 0.2))
    assert whole.dims == ("stimulus", "repeat", "unit")
    assert whole.attrs == {"units": "spike count", "window": "-0.2 to 0.2 s"}


def test_a_spike_on_an_edge_counts_in_the_bin_that_begins_there() -> None:
    on_edges = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    counted = responses.count([on_edges], np.array([0.0]), np.array([0]), window=(0.0, 0.7), bin_width=0.1)
    assert counted.values.ravel().tolist() == [1] * 7
    assert counted["time"].values.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    once = responses.count([on_edges], np.array([0.0]), np.array([0]), window=(0.1, 0.3))
    assert once.item() == 2


def test_each_spike_in_the_window_is_in_exactly_one_bin() -> None:
    times, onsets, stimulus = recording(seed=2, decimals=1)
    for width in (0.1, 0.3, 0.7, 2.1):
        binned = responses.count(times, onsets, stimulus, window=(-1.0, 1.1), bin_width=width)
        whole = responses.count(times, onsets, stimulus, window=(-1.0, 1.1))
        np.testing.assert_array_equal(binned.sum("time", skipna=False), whole)


def test_numpy_histogram_agrees_between_edges() -> None:
    times, onsets, _ = recording(seed=3, decimals=None)
    counted = responses.count(times, onsets, np.arange(len(onsets)), window=(-0.5, 1.0), bin_width=0.25)
    for presentation, onset in enumerate(onsets):
        for unit, t in enumerate(times):
            expected, _ = np.histogram(t, onset + np.linspace(-0.5, 1.0, 7))
            assert counted.values[presentation, 0, unit].tolist() == expected.tolist()


def test_elephant_agrees() -> None:
    neo = pytest.importorskip("neo", reason="neo is not installed")
    conversion = pytest.importorskip("elephant.conversion", reason="elephant is not installed")
    seconds = pytest.importorskip("quantities").s
    times, onsets, _ = recording(seed=4, decimals=None)
    counted = responses.count(times, onsets, np.arange(len(onsets)), window=(0.0, 1.0), bin_width=0.25)
    trains = [neo.SpikeTrain(t, units="s", t_start=-5, t_stop=15) for t in times]
    for presentation, onset in enumerate(onsets):
        binned = conversion.BinnedSpikeTrain(
            trains, bin_size=0.25 * seconds, t_start=onset * seconds, t_stop=(onset + 1) * seconds
        )
        np.testing.assert_array_equal(counted.values[presentation, 0], binned.to_array())


def test_pynapple_agrees() -> None:
    nap = pytest.importorskip("pynapple", reason="pynapple is not installed")
    times, onsets, _ = recording(seed=5, decimals=None)
    counted = responses.count(times, onsets, np.arange(len(onsets)), window=(0.0, 1.0))
    group = nap.TsGroup({unit: nap.Ts(t) for unit, t in enumerate(times)})
    for presentation, onset in enumerate(onsets):
        expected = group.count(ep=nap.IntervalSet(onset, onset + 1)).values.sum(axis=0)
        assert counted.values[presentation, 0].tolist() == expected.tolist()


def test_one_unit_one_presentation_without_a_spike() -> None:
    counted = responses.count([np.array([])], np.array([3.0]), np.array(["x"]), window=(0.0, 1.0))
    assert counted.shape == (1, 1, 1) and counted.item() == 0


def test_integer_times_are_times() -> None:
    counted = responses.count([np.array([1, 2, 3])], np.array([1]), np.array([0]), window=(0, 2))
    assert counted.item() == 2


BAD_WINDOWS = {
    r"expected a window \(start, stop\) in s that goes forward, got \(0.2, 0.1\)": ((0.2, 0.1), None),
    r"that goes forward, got \(0.1, 0.1\)": ((0.1, 0.1), 0.1),
    r"that goes forward, got \(0.1, nan\)": ((0.1, np.nan), None),
    r"that goes forward, got \(-inf, 0.1\)": ((-np.inf, 0.1), None),
    r"that goes forward, got \(0.1, 0.2, 0.3\)": ((0.1, 0.2, 0.3), None),
    r"expected a window of whole bins, got \(0.0, 0.25\) s in bins of 0.1 s": ((0.0, 0.25), 0.1),
    r"whole bins, got \(0.0, 0.2\) s in bins of 0 s": ((0.0, 0.2), 0.0),
    r"whole bins, got \(0.0, 0.2\) s in bins of -0.1 s": ((0.0, 0.2), -0.1),
    r"whole bins, got \(0.0, 0.2\) s in bins of nan s": ((0.0, 0.2), np.nan),
    r"whole bins, got \(0.0, 0.2\) s in bins of 0.3 s": ((0.0, 0.2), 0.3),
    r"whole bins, got \(0.0, 0.2\) s in bins of inf s": ((0.0, 0.2), np.inf),
    r"whole bins, got \(0.0, 0.2\) s in bins of 4.94066e-324 s": ((0.0, 0.2), 5e-324),
}


@pytest.mark.parametrize("message", BAD_WINDOWS)
def test_windows_and_bins_that_make_no_sense(message: str) -> None:
    window, bin_width = BAD_WINDOWS[message]
    with pytest.raises(ValueError, match=message):
        responses.count([np.array([0.1])], np.array([0.0]), np.array([0]), window=window, bin_width=bin_width)  # type: ignore[arg-type]


GOOD = {"spike_times": [np.array([0.1, 0.2])], "onsets": np.array([0.0, 1.0]), "stimulus": np.array([0, 1])}
BAD = {
    "expected spike times of unit 0 that never decrease": {"spike_times": [np.array([0.2, 0.1])]},
    "expected spike times of unit 1 as a row of finite times": {"spike_times": [np.array([0.2]), np.array([np.nan])]},
    r"unit 0 as a row of finite times in s, got float64 of shape \(1,\)": {"spike_times": [np.array([np.inf])]},
    r"unit 0 as a row of finite times in s, got float64 of shape \(1, 1\)": {"spike_times": [np.array([[0.1]])]},
    "unit 0 as a row of finite times in s, got <U1": {"spike_times": [np.array(["a"])]},
    "unit 0 as a row of finite times in s, got object": {"spike_times": [np.array([None])]},
    "unit 0 as a row of finite times in s, got complex128": {"spike_times": [np.array([1j])]},
    "expected onsets as a row of finite times": {"onsets": np.array([0.0, np.nan])},
    r"expected onsets .* of shape \(1, 2\)": {"onsets": np.array([[0.0, 1.0]])},
    "expected a stimulus for each of 2 presentations": {"stimulus": np.array([0, 1, 2])},
    r"expected an array .* that is not empty, got shape \(2, 0\)": {"spike_times": []},
    r"expected an array .* that is not empty, got shape \(0, 1\)": {"onsets": np.array([]), "stimulus": np.array([])},
}


@pytest.mark.parametrize("message", BAD)
def test_times_that_make_no_sense(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        responses.count(**(GOOD | BAD[message]), window=(0.0, 0.2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("window", "bin_width"), [(None, 0.3), ((-0.3, 0.6), 0.3), ((0.0, 1.2), 0.2), ((-0.6, 0.7), 1.3)]
)
@pytest.mark.parametrize("decimals", [None, 1])
def test_rebinned_counts_are_those_counted_directly(
    window: tuple[float, float] | None, bin_width: float, decimals: int | None
) -> None:
    times, onsets, stimulus = recording(seed=6, decimals=decimals)
    fine = responses.count(times, onsets, stimulus, window=(-0.6, 1.2), bin_width=0.1)
    direct = responses.count(times, onsets, stimulus, window=window or (-0.6, 1.2), bin_width=bin_width)
    xr.testing.assert_identical(responses.rebin(fine, window=window, bin_width=bin_width), direct)


@pytest.mark.parametrize("window", [None, (0.1, 0.4), (-0.6, 1.2)])
def test_bins_summed_over_the_window_are_those_counted_directly(window: tuple[float, float] | None) -> None:
    times, onsets, stimulus = recording(seed=7, decimals=1)
    fine = responses.count(times, onsets, stimulus, window=(-0.6, 1.2), bin_width=0.1)
    direct = responses.count(times, onsets, stimulus, window=window or (-0.6, 1.2))
    xr.testing.assert_identical(responses.rebin(fine, window=window), direct)


def test_only_whole_bins_count_and_the_span_is_told() -> None:
    binned = bins(np.arange(8.0))
    assert responses.rebin(binned, window=(0.05, 0.35)).values.ravel().tolist() == [1 + 2]
    assert responses.rebin(binned, window=(0.05, 0.35)).attrs["window"] == "0.1 to 0.3 s"
    wider = responses.rebin(binned, window=(-5, 5), bin_width=0.2)
    assert wider.values.ravel().tolist() == [1, 5, 9, 13]
    assert wider.attrs == {"window": "0 to 0.8 s", "bin_width": 0.2}


def test_bins_may_have_been_rounded_to_single_precision() -> None:
    binned = bins(np.arange(8.0)).assign_coords(time=(np.arange(8) * 0.1).astype(np.float32))
    assert responses.rebin(binned, window=(0.2, 0.8), bin_width=0.3).values.ravel().tolist() == [2 + 3 + 4, 5 + 6 + 7]


def bins(values: np.ndarray) -> xr.DataArray:
    coords = {"stimulus": [0], "time": np.arange(len(values)) * 0.1}
    return xr.DataArray(values[None, None, None], dims=responses.TIME_DIMS, coords=coords, attrs={"bin_width": 0.1})


BAD_REBIN: dict[str, tuple[xr.DataArray, dict]] = {
    r"expected a window with whole bins, got \(0.8, 0.9\) of bins of 0.1 s from 0 to 0.8 s": (
        bins(np.ones(8)),
        {"window": (0.8, 0.9)},
    ),
    r"expected a window with whole bins, got \(0.02, 0.08\)": (bins(np.ones(8)), {"window": (0.02, 0.08)}),
    "expected a window .* that goes forward": (bins(np.ones(8)), {"window": (0.4, 0.2)}),
    "expected a bin width of which 8 bins of 0.1 s make a whole number, got 0.3 s": (
        bins(np.ones(8)),
        {"bin_width": 0.3},
    ),
    "make a whole number, got 0.15 s": (bins(np.ones(8)), {"bin_width": 0.15}),
    "make a whole number, got 0.05 s": (bins(np.ones(8)), {"bin_width": 0.05}),
    "make a whole number, got -0.1 s": (bins(np.ones(8)), {"bin_width": -0.1}),
    "make a whole number, got nan s": (bins(np.ones(8)), {"bin_width": np.nan}),
    "expected the coordinate 'time' and attrs": (bins(np.ones(8)).drop_vars("time"), {}),
    "which describe the bins, got not both": (xr.DataArray(bins(np.ones(8)), attrs={}), {}),
    "expected time bins of 0.2 s that follow one another": (bins(np.ones(8)).assign_attrs(bin_width=0.2), {}),
    "expected time bins of 0 s that follow one another": (bins(np.ones(1)).assign_attrs(bin_width=0.0), {}),
    "expected dims .*'time'": (bins(np.ones(8)).isel(time=0), {}),
}


@pytest.mark.parametrize("message", BAD_REBIN)
def test_bins_that_make_no_sense(message: str) -> None:
    binned, options = BAD_REBIN[message]
    with pytest.raises(ValueError, match=message):
        responses.rebin(binned, **options)


def test_absent_trials_stay_absent() -> None:
    times, onsets, stimulus = recording(seed=8, decimals=None)
    fine = responses.count(times, onsets, stimulus, window=(0.0, 0.4), bin_width=0.1)
    absent = np.isnan(fine.values).all(axis=(2, 3))
    assert absent.any()
    for total in (responses.rebin(fine), responses.rebin(fine, bin_width=0.2).isel(time=0)):
        assert np.isnan(total.values[absent]).all() and not np.isnan(total.values[~absent]).any()


def test_rebinning_leaves_its_argument_alone() -> None:
    binned = bins(np.arange(8.0))
    before = binned.copy(deep=True)
    responses.rebin(binned, window=(0.0, 0.4), bin_width=0.2)
    xr.testing.assert_identical(binned, before)


@pytest.mark.parametrize(("window", "bin_width"), [((0.0, 0.1), 0.0333333), ((0.0, 1 / 3), 1 / 9), ((-1.0, 2.0), 0.01)])
def test_edges_run_from_start_to_stop(window: tuple[float, float], bin_width: float) -> None:
    edges = responses.bin_edges(window, bin_width)
    np.testing.assert_allclose(edges[[0, -1]], window, atol=1e-12)
    np.testing.assert_allclose(np.diff(edges), bin_width, atol=1e-6)
    assert len(edges) == round((window[1] - window[0]) / bin_width) + 1
