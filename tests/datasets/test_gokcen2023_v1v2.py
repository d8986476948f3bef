"""Counts of `gokcen2023_v1v2` are those that were recorded; files of another form are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fixtures import gokcen2023_v1v2 as fixture
from neurovar_datasets import CorruptDataError, gokcen2023_v1v2

from neurovar import responses, statistics

SESSION = "107l003p143_stim1"


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def recorded() -> np.ndarray:
    return fixture.counts(np.random.default_rng(0))


@pytest.fixture
def small(tmp_path: Path, content: dict, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file in the place of the declared one."""
    (file,) = gokcen2023_v1v2.SOURCE.sessions[SESSION]
    sessions = {SESSION: (replace(file, hash="", size=None),)}
    monkeypatch.setattr(gokcen2023_v1v2, "SOURCE", replace(gokcen2023_v1v2.SOURCE, sessions=sessions))
    return fixture.write(tmp_path, content)


def test_counts_are_those_that_were_recorded(small: Path, recorded: np.ndarray) -> None:
    da = gokcen2023_v1v2.load(path=small, bin_width=0.02)
    assert responses.validate(da, time=True).shape == (1, 6, 5, 8)
    for trial, unit, time in np.ndindex(*recorded.shape):
        assert da.values[0, trial, unit, time] == recorded[trial, unit, time]
    np.testing.assert_allclose(da.time, [0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14], atol=1e-12)
    assert (da.attrs["bin_width"], da.attrs["window"], da.attrs["units"]) == (0.02, "0 to 0.16 s", "spike count")


def test_by_default_a_trial_is_counted_as_a_whole(small: Path, recorded: np.ndarray) -> None:
    da = gokcen2023_v1v2.load(path=small)
    assert responses.validate(da).dims == ("stimulus", "repeat", "unit")
    np.testing.assert_array_equal(da.values[0], recorded.sum(axis=2))
    assert "bin_width" not in da.attrs
    assert da.attrs["window"] == "0 to 0.16 s"


def test_a_window_and_wider_bins(small: Path, recorded: np.ndarray) -> None:
    da = gokcen2023_v1v2.load(path=small, window=(0.04, 0.12), bin_width=0.04)
    np.testing.assert_array_equal(da.values[0, ..., 0], recorded[:, :, 2] + recorded[:, :, 3])
    np.testing.assert_array_equal(da.values[0, ..., 1], recorded[:, :, 4] + recorded[:, :, 5])
    assert da.time.values.tolist() == [0.04, 0.08]
    assert (da.attrs["window"], da.attrs["bin_width"]) == ("0.04 to 0.12 s", 0.04)
    total = gokcen2023_v1v2.load(path=small, window=(0.04, 0.12))
    np.testing.assert_array_equal(total.values[0], recorded[:, :, 2:6].sum(axis=2))


def test_units_have_their_labels(small: Path, recorded: np.ndarray) -> None:
    da = gokcen2023_v1v2.load(path=small)
    assert da.area.values.tolist() == ["V1", "V1", "V1", "V2", "V2"]
    assert da.unit_id.values.tolist() == [1, 2, 6, 9, 2]
    assert set(da.subject.values) == {"107"}
    assert set(da.session.values) == {SESSION}
    assert da.stimulus.values.tolist() == ["stim1"]
    assert da.presentation.values.tolist() == [[9, 25, 41, 57, 73, 89]]
    np.testing.assert_allclose(da.firing_rate, da.values[0].mean(axis=0) / fixture.DURATION)


@pytest.mark.parametrize(("area", "units"), [("V1", [0, 1, 2]), ("V2", [3, 4])])
def test_one_area_only(small: Path, area: str, units: list[int]) -> None:
    da = gokcen2023_v1v2.load(path=small, area=area)
    assert da.unit.values.tolist() == units
    np.testing.assert_array_equal(da, gokcen2023_v1v2.load(path=small)[..., units])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session": "106r001p26"}, "expected the session to be one of '107l003p143_stim1', got '106r001p26'"),
        ({"area": "V4"}, "expected the area to be one of 'V1', 'V2', got 'V4'"),
        ({"window": (1.0, 2.0)}, "expected a window with whole bins, got"),
        ({"bin_width": 0.03}, "got 0.03 s"),
        ({"bin_width": 0.06}, "got 0.06 s"),
    ],
)
def test_unknown_options_are_refused(small: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gokcen2023_v1v2.load(path=small, **options)


def put(*keys: Any, value: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        holder = content["dat"]
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value

    return change


def drop(*keys: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        holder = content["dat"]
        for key in keys[:-1]:
            holder = holder[key]
        del holder[keys[-1]]

    return change


def add(value: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content["dat"]["seq"][2]["y"] = content["dat"]["seq"][2]["y"] + value

    return change


FRACTIONS = np.array([[0.5, -0.5, 0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("dat"), "dat: expected a variable of this name, got none"),
        (lambda content: content.update(dat=np.eye(2)), r"yDims: expected a field of this name, got fields \[\]"),
        (drop("seq"), "seq: expected a field of this name, got fields"),
        (put("yDims", value=np.array([[5]])), r"dat.yDims: expected the number of V1 and of V2 units, got \[5\]"),
        (put("yDims", value=np.array([[6, -1]])), r"dat.yDims: expected the number .*, got \[ 6 -1\]"),
        (put("yDims", value=np.array([[3, 3]])), "dat.seq.y: expected the same 6 × T values"),
        (put("yDims", value=np.array([[2, 3]])), r"dat.units: expected \[2 3\] values, as in dat.yDims, got \[3, 2\]"),
        (put("units", value=np.zeros((2, 1))), "dat.units: expected a cell array of 2, got float64"),
        (put("units", 0, value=np.array([[1], [1], [2]])), "dat.units: expected unique ids, got 1 repeated ones"),
        (put("units", 0, value=np.array([[1], [1.5], [2]])), "dat.units: expected whole numbers"),
        (put("firingRates", 1, value=np.array([[1], [np.nan]])), "dat.firingRates: expected finite numbers, got NaN"),
        (put("firingRates", 1, value="fast"), "dat.firingRates: expected real numbers, got dtype <U"),
        (put("seq", value=[]), "dat.seq: expected fields trialId, T and y, got"),
        (put("seq", value=np.eye(3)), r"dat.seq: expected fields trialId, T and y, got \(\)"),
        (put("seq", 1, "y", value=np.zeros((5, 7))), r"dat.seq.y: expected the same 5 × T .*\(5, 7\), \(5, 8\)"),
        (drop("seq", 1, "y"), r"dat.seq.y: expected the same 5 × T .*\(0, 0\), \(5, 8\)"),
        (put("seq", 1, "y", value=np.zeros((5, 8, 1, 2))), r"dat.seq.y: expected 2 dims, got shape \(5, 8, 1, 2\)"),
        (put("seq", 3, "T", value=7), r"dat.seq.T: expected 8, the columns of y, got \[7\]"),
        (put("seq", 3, "trialId", value=2), "dat.seq.trialId: expected one for each trial, increasing, got"),
        (drop("seq", 3, "trialId"), "dat.seq.trialId: expected one for each trial, increasing, got"),
        (add(1), "dat.seq.y: expected a mean of 0 over the time of each trial, got up to 1"),
        (add(np.nan), "dat.seq.y: expected a mean of 0 over the time of each trial, got up to nan"),
        (add(FRACTIONS), "dat.seq.y minus its minimum: expected whole spike counts, got fractions"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, content: dict, change: Callable[[dict], None], message: str
) -> None:
    change(content)
    with pytest.raises(CorruptDataError, match=f"107l003p143_stim1.mat: .*{message}"):
        fixture.load(fixture.write(tmp_path, content))


@pytest.mark.parametrize("spoil", [lambda data: data[:-30], lambda data: b"", lambda data: data[:200]])
def test_a_broken_file_is_refused(small: Path, spoil: Callable[[bytes], bytes]) -> None:
    small.write_bytes(spoil(small.read_bytes()))
    with pytest.raises(CorruptDataError, match=r"107l003p143_stim1\.mat: "):
        gokcen2023_v1v2.load(path=small)


def test_the_declared_file_is_checked(tmp_path: Path, content: dict) -> None:
    with pytest.raises(
        CorruptDataError, match=r"107l003p143_stim1.mat: expected 3851538 bytes with hash sha256:bc73910e"
    ):
        gokcen2023_v1v2.load(path=fixture.write(tmp_path, content))


def test_the_one_session_is_declared() -> None:
    assert gokcen2023_v1v2.sessions() == (SESSION,)
    assert gokcen2023_v1v2.SOURCE.sessions[SESSION][0].name == f"{SESSION}.mat"


# The real recording


@pytest.fixture(scope="module")
def real() -> xr.DataArray:
    return gokcen2023_v1v2.load()


@pytest.mark.data
@pytest.mark.parametrize(
    ("area", "n_units", "fano", "r_sc", "dimensionality"),
    [("V1", 84, 2.12, 0.260, 7.7), ("V2", 26, 2.77, 0.230, 4.7)],
)
def test_the_real_statistics(
    real: xr.DataArray, area: str, n_units: int, fano: float, r_sc: float, dimensionality: float
) -> None:
    da = real.isel(unit=real.area.values == area)
    assert da.shape == (1, 400, n_units)
    assert round(float(statistics.fano_factor(da).mean()), 2) == fano
    correlation = statistics.noise_correlation(da, zscore=True).values[np.triu_indices(n_units, k=1)]
    assert round(float(correlation.mean()), 3) == r_sc
    assert round(statistics.effective_dimensionality(da), 1) == dimensionality


@pytest.mark.data
def test_the_real_rates_are_the_published_except_for_one_unit(real: xr.DataArray) -> None:
    missing = real.firing_rate.values - real.values[0].mean(axis=0) / 1.28
    np.testing.assert_allclose(np.delete(missing, 23), 0, atol=1e-9)
    np.testing.assert_allclose(missing[23], 0.25, atol=1e-9)


@pytest.mark.data
def test_the_real_time_course_begins_after_the_latency_of_v1() -> None:
    rate = gokcen2023_v1v2.load(area="V1", bin_width=0.02).mean(("stimulus", "repeat", "unit")).values / 0.02
    assert rate.shape == (64,)
    assert rate[:3].max() < 8 < 25 < rate[3] < rate[4]
