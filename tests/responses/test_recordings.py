"""What must be known of responses survives arithmetic, and statistics go by it."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import statistics
from neurovar.responses import mark, recordings, require_simultaneous, sum_time, why_residual

SESSIONS = np.array(["a", "a", "b", "b", "b"])


@pytest.fixture(scope="module")
def single() -> xr.DataArray:
    noise, signal = reference.noise_matrix("structured", 5), reference.signal_matrix(5)
    return reference.simulate(signal=signal, noise=noise, n_stimuli=12, n_repeats=5, least_repeats=3, seed=1)


@pytest.fixture(scope="module")
def pooled(single: xr.DataArray) -> xr.DataArray:
    return mark(single.assign_coords(session=("unit", SESSIONS)), recording="session", residuals="PSTH subtracted")


OPERATIONS: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "half": lambda da: da / 2,
    "difference": lambda da: da - da.mean("repeat"),
    "root": lambda da: np.sqrt(abs(da)),
    "mean": lambda da: da.mean("repeat"),
    "unnamed": lambda da: da.copy(data=da.values).drop_attrs() if hasattr(da, "drop_attrs") else da.copy(),
    "joined": lambda da: xr.concat([da.isel(unit=[0, 1]), da.isel(unit=[2, 3, 4])], "unit"),
    "applied": lambda da: xr.apply_ufunc(np.abs, da),
    "where": lambda da: da.where(da > 0),
}


@pytest.mark.parametrize("keep_attrs", [True, False])
@pytest.mark.parametrize("name", OPERATIONS)
def test_marks_survive_arithmetic(pooled: xr.DataArray, name: str, keep_attrs: bool) -> None:
    with xr.set_options(keep_attrs=keep_attrs):
        result = OPERATIONS[name](pooled)
    assert recordings(result).tolist() == [0, 0, 1, 1, 1]
    assert why_residual(result) == "PSTH subtracted"


def test_correlations_are_those_of_each_recording(pooled: xr.DataArray, single: xr.DataArray) -> None:
    together = SESSIONS[:, None] == SESSIONS
    for estimate in (statistics.noise_correlation, statistics.noise_covariance):
        for options in ({}, {"per_stimulus": True}, {"differences": True}):
            whole, parts = (estimate(da, **options).values for da in (single, pooled))
            np.testing.assert_array_equal(parts, np.where(together, whole, np.nan))
    table, of_all = statistics.pairs(pooled), statistics.pairs(single)
    kept = together[of_all.unit_1, of_all.unit_2]
    assert table.identical(of_all.isel(pair=kept)) and 0 < kept.sum() < len(kept)


def test_what_needs_all_units_takes_one_recording(pooled: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"got units of 2 recordings; .*by='recording' or responses\.isel"):
        statistics.effective_dimensionality(pooled)
    each = statistics.effective_dimensionality(pooled, by="recording")
    for name in ("a", "b"):
        alone = statistics.effective_dimensionality(pooled.isel(unit=pooled.recording == name))
        assert float(each.sel(recording=name)) == float(alone)


def test_units_without_a_known_recording_are_alone(single: xr.DataArray) -> None:
    assert recordings(mark(single, recording=[1.0, np.nan, 1.0, np.nan, 2.0])).tolist() == [0, 2, 0, 3, 1]
    assert recordings(mark(single, recording=np.array(["a", None, "a", None, "b"]))).tolist() == [0, 2, 0, 3, 1]
    assert recordings(single.assign_coords(recording="monday")).tolist() == [0] * 5
    require_simultaneous(mark(single, recording=["monday"] * 5))


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        ("session", r"expected recording= a coordinate of unit \(\), got 'session'"),
        ([1, 2], r"expected a recording of each of 5 units, got shape \(2,\)"),
    ],
)
def test_what_marks_no_units(single: xr.DataArray, recording: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mark(single, recording=recording)


def test_a_recording_of_stimuli_is_refused(single: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="coordinate 'recording' of 'unit', got dims"):
        recordings(single.assign_coords(recording=("stimulus", np.arange(12))))


def test_reasons_of_joined_residuals_are_all_given(single: xr.DataArray) -> None:
    halves = [mark(single.isel(unit=[i]), residuals=reason) for i, reason in enumerate(("drift", "PSTH", "drift"))]
    assert why_residual(xr.concat(halves, "unit")) == "drift; PSTH"
    assert why_residual(single) == ""


def test_counts_whose_units_are_lost_have_no_fano_factor() -> None:
    counts = statistics.population(n_stimuli=5, n_repeats=4, n_units=3, counts=True, rng=0)
    with xr.set_options(keep_attrs=False):
        more = counts + 1
    with pytest.raises(ValueError, match=r"got None; if they are counts, set attrs\['units'\] again"):
        statistics.fano_factor(more)
    assert statistics.fano_factor(more.assign_attrs(units="spike count")).sizes == {"unit": 3}


def test_sums_over_time_keep_marks(pooled: xr.DataArray) -> None:
    binned = pooled.expand_dims(time=[0.0, 0.1], axis=-1).assign_attrs(bin_width=0.1)
    summed = sum_time(binned, window=(0, 0.1))
    assert recordings(summed).tolist() == [0, 0, 1, 1, 1] and why_residual(summed) == "PSTH subtracted"
