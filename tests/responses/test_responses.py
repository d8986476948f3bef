"""Validation, alignment, residuals, splits and conversion of responses."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import responses, statistics
from neurovar.responses import DIMS, TIME_DIMS


def recording(n_stimuli: int = 12, n_repeats: int = 5, n_units: int = 4, least_repeats: int = 2) -> xr.DataArray:
    noise, signal = reference.noise_matrix("structured", n_units), reference.signal_matrix(n_units)
    return reference.simulate(
        signal=signal, noise=noise, n_stimuli=n_stimuli, n_repeats=n_repeats, least_repeats=least_repeats, seed=1
    )


def changed(index: tuple, value: float) -> xr.DataArray:
    da = reference.responses(np.ones((3, 2, 4)))
    da.values[index] = value
    return da


def named(ids: list, n_repeats: int = 1) -> xr.DataArray:
    values = np.arange(float(len(ids) * n_repeats)).reshape(len(ids), n_repeats, 1)
    return xr.DataArray(values, dims=DIMS, coords={"stimulus": ids})


INVALID = {
    "expected an xarray.DataArray, got ndarray": np.ones((2, 2, 2)),
    r"expected dims \('stimulus', 'repeat', 'unit'\), got \('unit', 'repeat', 'stimulus'\)": (
        reference.responses(np.ones((3, 2, 4))).transpose("unit", "repeat", "stimulus")
    ),
    "expected real numbers, got dtype complex128": reference.responses(np.ones((3, 2, 4), dtype=complex)),
    "expected real numbers, got dtype bool": reference.responses(np.ones((3, 2, 4), dtype=bool)),
    "expected real numbers, got dtype <U1": reference.responses(np.full((3, 2, 4), "x")),
    r"expected at least one stimulus, repeat and unit, got shape \(3, 0, 4\)": reference.responses(np.ones((3, 0, 4))),
    "expected a coordinate 'stimulus' with an id": xr.DataArray(np.ones((3, 2, 4)), dims=DIMS),
    r"expected unique stimulus ids, got repeated 1 stimulus \(a\)": named(["a", "b", "a"]),
    "expected finite responses or NaN, got 1 infinite values": changed((0, 0, 0), np.inf),
    r"expected a value for every unit, got only NaN for 1 unit \(2\)": changed((slice(None), slice(None), 2), np.nan),
    r"whole or absent, got 1 trials with some units missing \(the first: stimulus s1, repeat 0\)": (
        changed((1, 0, 3), np.nan)
    ),
    r"expected a trial of every stimulus, got none of 1 stimulus \(s2\)": changed((2,), np.nan),
}


@pytest.mark.parametrize("message", INVALID)
def test_validate_names_what_is_wrong(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        responses.validate(INVALID[message])


def test_validate_wants_repeats_of_some_stimulus() -> None:
    da = changed((slice(1, None), 1), np.nan)
    assert responses.validate(da, min_repeats=2) is da
    with pytest.raises(ValueError, match="expected at least 3 repeats of some stimulus, got at most 2"):
        responses.validate(da, min_repeats=3)


def test_validate_reports_in_its_order() -> None:
    several = changed((0, 0, 0), np.inf)
    several.values[2] = np.nan
    with pytest.raises(ValueError, match="infinite"):
        responses.validate(several)


def test_a_long_list_of_names_is_cut() -> None:
    da = named(list("abcdefgh"))
    da.values[1:] = np.nan
    with pytest.raises(ValueError, match=r"none of 7 stimuli \(b, c, d, e, f, …\)"):
        responses.validate(da)


def test_integer_counts_are_valid() -> None:
    da = reference.responses(np.arange(24).reshape(3, 2, 4))
    assert responses.validate(da, min_repeats=2) is da


def binned(n_stimuli: int = 3, n_repeats: int = 2, n_units: int = 4, n_bins: int = 5) -> xr.DataArray:
    """Counts in bins of 0.1 s from -0.1 s on; the last stimulus has one repeat less."""
    values = np.random.default_rng(0).poisson(3, size=(n_stimuli, n_repeats, n_units, n_bins)).astype(np.float32)
    values[-1, -1] = np.nan
    coords = {"stimulus": [f"s{i}" for i in range(n_stimuli)], "time": (np.arange(n_bins) - 1) / 10}
    attrs = {"units": "spike count", "bin_width": 0.1, "window": "-0.1 to 0.4 s", "doi": "10.1000/1"}
    return xr.DataArray(values, dims=TIME_DIMS, coords=coords, attrs=attrs, name="responses")


def binned_but(index: tuple, value: float) -> xr.DataArray:
    da = binned()
    da.values[index] = value
    return da


INVALID_BINS = {
    r"expected dims \('stimulus', 'repeat', 'unit', 'time'\), got \('stimulus', 'repeat', 'unit'\)$": (
        reference.responses(np.ones((3, 2, 4)))
    ),
    r"expected dims \('stimulus', 'repeat', 'unit', 'time'\), got \('time',": binned().transpose("time", ...),
    r"expected at least one stimulus, repeat, unit and time, got shape \(3, 2, 4, 0\)": binned(n_bins=0),
    "expected real numbers, got dtype bool": binned().astype(bool),
    "expected a coordinate 'stimulus' with an id": binned().drop_vars("stimulus"),
    r"unique stimulus ids, got repeated 1 stimulus \(a\)": binned().assign_coords(stimulus=["a", "b", "a"]),
    "expected finite responses or NaN, got 1 infinite values": binned_but((0, 0, 0, 0), np.inf),
    r"whole or absent, got 1 with some time bins missing \(the first: stimulus 1, repeat 0, unit 3\)": (
        binned_but((1, 0, 3, 2), np.nan)
    ),
    r"whole or absent, got 1 with some time bins missing \(the first: stimulus 0, repeat 1, unit 2\)": (
        binned_but((0, 1, 2, 0), np.nan)
    ),
    r"whole or absent, got 1 trials with some units missing \(the first: stimulus s1, repeat 0\)": (
        binned_but((1, 0, 3), np.nan)
    ),
    r"expected a value for every unit, got only NaN for 1 unit \(2\)": binned_but(
        (slice(None), slice(None), 2), np.nan
    ),
    r"expected a trial of every stimulus, got none of 1 stimulus \(s1\)": binned_but((1,), np.nan),
}


@pytest.mark.parametrize("message", INVALID_BINS)
def test_validate_of_time_bins_names_what_is_wrong(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        responses.validate(INVALID_BINS[message], time=True)


def test_validate_of_time_bins() -> None:
    da = binned()
    assert responses.validate(da, time=True, min_repeats=2) is da
    with pytest.raises(ValueError, match="expected at least 3 repeats of some stimulus, got at most 2"):
        responses.validate(da, time=True, min_repeats=3)


def test_time_must_be_asked_for() -> None:
    with pytest.raises(ValueError, match=r"got \(.*'time'\); sum over time first: responses.sum_time"):
        responses.validate(binned())


@pytest.mark.parametrize(
    ("window", "kept"),
    [
        (None, range(5)),
        ((-0.1, 0.4), range(5)),
        ((0.0, 0.2), range(1, 3)),
        ((0.1, 0.3), range(2, 4)),
        ((-0.05, 0.25), range(1, 3)),
        ((-9, 9), range(5)),
    ],
)
def test_sum_time_of_whole_bins_in_the_window(window: tuple[float, float] | None, kept: range) -> None:
    da = binned()
    total = responses.sum_time(da, window=window)
    for s, r, u in np.ndindex(3, 2, 4):
        expected = sum(float(da.values[s, r, u, t]) for t in kept)
        np.testing.assert_equal(float(total.values[s, r, u]), expected)
    assert np.isnan(total.values[-1, -1]).all()
    assert responses.validate(total, min_repeats=2) is total
    assert total.stimulus.values.tolist() == ["s0", "s1", "s2"] and "time" not in total.coords


def test_sum_time_keeps_what_is_said_of_the_recording_but_not_of_the_bins() -> None:
    da = binned()
    assert responses.sum_time(da).attrs == {"units": "spike count", "window": "-0.1 to 0.4 s", "doi": "10.1000/1"}
    assert responses.sum_time(da, window=(0.0, 0.2)).attrs["window"] == "0 to 0.2 s"
    assert da.attrs["bin_width"] == 0.1, "the argument is left alone"


def test_sum_time_of_a_window_without_a_bin() -> None:
    for window in [(0.4, 0.5), (0.02, 0.09)]:
        with pytest.raises(
            ValueError, match=r"expected a window with whole bins, got .* of bins of 0.1 s from -0.1 to 0.4 s"
        ):
            responses.sum_time(binned(), window=window)


def test_sum_time_of_responses_without_time() -> None:
    with pytest.raises(ValueError, match=r"expected dims .*'time'"):
        responses.sum_time(recording())


def test_units_of_different_recordings_have_no_noise_correlations() -> None:
    together, apart = recording(), reference.apart(recording())
    responses.require_simultaneous(together)
    refused: dict[str, Callable[[xr.DataArray], object]] = {
        "require_simultaneous": responses.require_simultaneous,
        "noise_covariance": statistics.noise_covariance,
        "noise_correlation": statistics.noise_correlation,
        "pooled noise_correlation": lambda da: statistics.noise_correlation(da, zscore=False),
        "effective_dimensionality": statistics.effective_dimensionality,
        "fit_covariance": lambda da: statistics.fit_covariance(da, statistics.LowRank(2)),
    }
    for estimate in refused.values():
        estimate(together)
        with pytest.raises(ValueError, match="recorded together"):
            estimate(apart)


def test_units_of_different_recordings_have_a_signal() -> None:
    together, apart = recording(), reference.apart(recording())
    for estimate in (statistics.signal_correlation, statistics.reliability):
        np.testing.assert_array_equal(estimate(apart, rng=0), estimate(together, rng=0))


def test_the_fano_factor_of_residuals_is_refused_with_the_reason() -> None:
    residual = responses.mark(recording(), residuals="the PSTH was subtracted")
    expected = r"expected counts, .* got residuals \(the PSTH was subtracted\)"
    with pytest.raises(ValueError, match=expected):
        statistics.fano_factor(residual)


def test_repeat_counts() -> None:
    da = recording()
    expected = [len(repeats) for repeats in reference.trials(da.values)]
    assert len(set(expected)) > 1
    counts = responses.repeat_counts(da)
    assert counts.values.tolist() == expected
    assert counts.stimulus.values.tolist() == da.stimulus.values.tolist()


def test_align_keeps_the_order_of_the_first() -> None:
    systems = responses.align(named(list("dabc")), named(list("cbde")), named(list("bcdx"), n_repeats=2))
    assert [system.stimulus.values.tolist() for system in systems] == [list("dbc")] * 3
    assert systems[0].values.ravel().tolist() == [0, 2, 3]
    assert systems[1].values.ravel().tolist() == [2, 1, 0]
    assert systems[2].values[:, :, 0].tolist() == [[4, 5], [0, 1], [2, 3]]


def test_align_of_strangers() -> None:
    with pytest.raises(ValueError, match=r"expected stimuli in common, got none \(ids such as a and 1\)"):
        responses.align(named(["a", "b"]), named([1, 2]))


def test_align_of_nothing() -> None:
    with pytest.raises(ValueError, match="expected at least one system to align, got none"):
        responses.align()


def test_align_validates_every_system() -> None:
    with pytest.raises(ValueError, match="unique stimulus ids"):
        responses.align(named(["a"]), named(["a", "a"]))


def test_residuals_are_deviations_from_each_stimulus_mean() -> None:
    da = recording()
    noise = responses.residuals(da)
    assert noise.attrs == da.attrs and noise.dims == DIMS
    for stimulus, repeats in enumerate(reference.trials(da.values)):
        kept = ~np.isnan(da.values[stimulus, :, 0])
        expected = [[x - repeats[:, unit].mean() for unit, x in enumerate(trial)] for trial in repeats]
        np.testing.assert_allclose(noise.values[stimulus][kept], expected, atol=1e-12)
        assert np.isnan(noise.values[stimulus][~kept]).all()


def test_residuals_leave_their_argument_alone() -> None:
    da = recording()
    before = da.values.copy()
    responses.residuals(da)
    np.testing.assert_array_equal(da.values, before)


def test_a_stimulus_shown_once_has_no_residual() -> None:
    assert responses.residuals(named(["a", "b"])).values.ravel().tolist() == [0, 0]


def drawn_trials(mean: float, size: int) -> set[int]:
    """Which repeats a half holds, where repeat r responded with 2ʳ."""
    return {r for r in range(10) if round(mean * size) >> r & 1}


def test_a_split_takes_disjoint_random_halves() -> None:
    counts = np.array([2, 3, 4, 5, 6, 7, 1])
    values = np.where(np.arange(7) < counts[:, None], 2.0 ** np.arange(7), np.nan)[:, :, None]
    first_halves = set()
    for seed in range(40):
        first, second = responses.split(reference.responses(values), rng=seed)
        assert first.dims == ("stimulus", "unit")
        assert first.stimulus.values.tolist() == second.stimulus.values.tolist() == [f"s{i}" for i in range(6)]
        for row, n_repeats in enumerate(counts[:6]):
            half = n_repeats // 2
            a, b = (drawn_trials(mean.values[row, 0], half) for mean in (first, second))
            assert len(a) == len(b) == half and not a & b and a | b <= set(range(n_repeats))
            first_halves.add((row, *sorted(a)))
    assert {(1, 0), (1, 1), (1, 2)} <= first_halves, "the repeat left out of an odd number varies"
    assert len({h for h in first_halves if h[0] == 4}) > 12, "of the 20 halves of six, most are drawn"


def test_a_split_ignores_where_the_gaps_are() -> None:
    values = np.full((1, 6, 1), np.nan)
    values[0, [1, 4]] = [[3.0], [7.0]]
    halves = {
        tuple(half.item() for half in responses.split(reference.responses(values), rng=seed)) for seed in range(20)
    }
    assert halves == {(3.0, 7.0), (7.0, 3.0)}


def test_a_split_of_units_takes_whole_trials() -> None:
    da = recording()
    first, _ = responses.split(da, rng=0)
    with_copy = np.concatenate([da.values, 2 * da.values[..., :1]], axis=2)
    again, _ = responses.split(reference.responses(with_copy), rng=0)
    np.testing.assert_allclose(again.values[:, -1], 2 * first.values[:, 0], rtol=1e-12)


def test_a_split_without_repeats() -> None:
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        responses.split(named(["a", "b"]), rng=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_units_are_dropped(dtype: type) -> None:
    values = recording(n_units=5).values.astype(dtype)
    values[..., 1] = np.where(np.isnan(values[..., 1]), np.nan, 0.1)
    values[..., 3] = np.where(np.isnan(values[..., 3]), np.nan, np.arange(len(values))[:, None] * dtype(0.1))
    kept = responses.drop_constant(reference.responses(values))
    assert kept.attrs["dropped_units"] == [1, 3]
    np.testing.assert_array_equal(kept.values, values[..., [0, 2, 4]])


def test_only_constant_units() -> None:
    with pytest.raises(ValueError, match="expected units that vary between repeats, got none among 4"):
        responses.drop_constant(reference.responses(np.ones((3, 2, 4))))
