"""Tables of NWB files: what pynwb reads, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest
from fixtures import allen_visual_coding as fixture
from neurovar_datasets._fetching.source import CorruptDataError
from neurovar_datasets._reading import hdf5 as _hdf5
from neurovar_datasets._reading import nwb as _nwb

SCENES = "intervals/natural_scenes_presentations"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return fixture.write(tmp_path, fixture.content(np.random.default_rng(0), kind="probes"))


def replace(path: Path, field: str, values: object) -> None:
    with h5py.File(path, "a") as file:
        del file[field]
        file[field] = values


def test_columns_are_those_that_pynwb_reads(path: Path) -> None:
    with pynwb.NWBHDF5IO(path, "r") as io, _hdf5.open_hdf5(path) as hdf5:
        nwb = io.read()
        tables = {
            "units": (nwb.units.to_dataframe(), _nwb.unit_columns(hdf5)),
            "electrodes": (nwb.electrodes.to_dataframe(), _nwb.electrode_columns(hdf5)),
            "scenes": (
                nwb.intervals["natural_scenes_presentations"].to_dataframe(),
                _nwb.intervals(hdf5, "natural_scenes_presentations"),
            ),
        }
    for expected, actual in tables.values():
        assert actual.pop("id").tolist() == expected.index.tolist()
        assert set(actual) == set(expected.columns) - {"spike_times", "group"}
        for name, values in actual.items():
            np.testing.assert_array_equal(values, expected[name].to_numpy())


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [4, 1, 2], [5], []])
def test_spike_times_are_those_that_pynwb_reads(path: Path, rows: list[int]) -> None:
    with pynwb.NWBHDF5IO(path, "r") as io, _hdf5.open_hdf5(path) as hdf5:
        units = io.read().units
        times = _nwb.spike_times(hdf5, rows)
        assert len(times) == len(rows)
        for row, actual in zip(rows, times):
            np.testing.assert_array_equal(actual, units["spike_times"][row])


def test_spike_times_are_the_same_in_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _hdf5.open_hdf5(path) as hdf5:
        together = _nwb.spike_times(hdf5, range(6))
        monkeypatch.setattr(_nwb, "READ_BLOCK", 50)
        for one, other in zip(together, _nwb.spike_times(hdf5, range(6))):
            np.testing.assert_array_equal(one, other)


def test_a_unit_without_spikes(path: Path) -> None:
    replace(path, "units/spike_times_index", np.array([0, 10, 10, 20, 30, 30]))
    with h5py.File(path) as file:
        stored = file["units/spike_times"][10:20]
    replace(path, "units/spike_times", np.concatenate([stored] * 3))
    with _hdf5.open_hdf5(path) as hdf5:
        assert [len(times) for times in _nwb.spike_times(hdf5, range(6))] == [0, 10, 0, 10, 10, 0]


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (
            "units/spike_times_index",
            np.array([9, 5, 20, 30, 40, 50]),
            "spike_times_index: expected an index that never",
        ),
        (
            "units/spike_times_index",
            np.array([-9, 5, 20, 30, 40, 50]),
            "spike_times_index: expected an index that never",
        ),
        ("units/spike_times_index", np.arange(6) * 10**6, "spike_times_index: expected an index within the"),
        ("units/spike_times_index", np.arange(5), "spike_times_index: expected 6 rows, got 5"),
        ("units/spike_times_index", np.full(6, 0.5), "spike_times_index: expected whole numbers"),
        ("units/spike_times_index", np.array(6), "spike_times_index: expected 1 dims"),
        ("units/spike_times", np.linspace(9, 0, 10**3), "spike_times of row 0: expected times that never decrease"),
        ("units/spike_times", np.full(10**3, np.nan), "spike_times of row 0: expected finite times"),
        ("units/spike_times", np.zeros((10**3, 2)), "spike_times: expected a row of times"),
        ("units/spike_times", np.full(10**3, b"now"), "spike_times: expected a row of times"),
    ],
)
def test_spike_times_that_cannot_be_are_refused(path: Path, field: str, values: np.ndarray, message: str) -> None:
    replace(path, field, values)
    with _hdf5.open_hdf5(path) as hdf5, pytest.raises(CorruptDataError, match=f"{path}: units/{message}"):
        _nwb.spike_times(hdf5, range(6))


@pytest.mark.parametrize("field", ["units/spike_times", "units/spike_times_index", "units/id"])
def test_missing_parts_are_named(path: Path, field: str) -> None:
    with h5py.File(path, "a") as file:
        del file[field]
    with _hdf5.open_hdf5(path) as hdf5, pytest.raises(CorruptDataError, match=f"{field}: expected to be there"):
        _nwb.spike_times(hdf5, [0])


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("start_time", np.full(20, np.nan), "start_time: expected finite times"),
        ("stop_time", np.full(20, np.inf), "stop_time: expected finite times"),
        ("stop_time", np.zeros(20), "stop_time: expected no stop before its start, got 20"),
        ("start_time", np.full(20, b"noon"), "start_time: expected real numbers"),
        ("start_time", np.zeros(19), "start_time: expected 20 rows, got 19"),
        ("start_time", np.zeros((20, 2)), "start_time: expected a column of times"),
        ("id", np.zeros(20, int), "id: expected unique ids, got 1 repeated"),
        ("id", np.full(20, b"a"), "id: expected real numbers"),
    ],
)
def test_intervals_that_cannot_be_are_refused(path: Path, field: str, values: np.ndarray, message: str) -> None:
    replace(path, f"{SCENES}/{field}", values)
    with _hdf5.open_hdf5(path) as hdf5, pytest.raises(CorruptDataError, match=f"{SCENES}/{message}"):
        _nwb.intervals(hdf5, "natural_scenes_presentations")


def test_a_missing_table_is_named_with_those_that_are_there(path: Path) -> None:
    with _hdf5.open_hdf5(path) as hdf5, pytest.raises(CorruptDataError, match=r"gabors.*natural_movie_one_pres"):
        _nwb.intervals(hdf5, "gabors_presentations")


def test_only_the_columns_asked_for_are_read(path: Path) -> None:
    replace(path, f"{SCENES}/frame", np.zeros(7))
    with _hdf5.open_hdf5(path) as hdf5:
        assert set(_nwb.intervals(hdf5, "natural_scenes_presentations", columns=())) == {
            "id",
            "start_time",
            "stop_time",
        }
        with pytest.raises(CorruptDataError, match="frame: expected 20 rows, got 7"):
            _nwb.intervals(hdf5, "natural_scenes_presentations", columns=["frame"])
        with pytest.raises(CorruptDataError, match="colour: expected to be there"):
            _nwb.intervals(hdf5, "natural_scenes_presentations", columns=["colour"])


def _not_utf8(file: h5py.File) -> None:
    file.create_dataset("units/quality", data=np.array([b"\xff\xfe"] * 6, "S2"))


def _elsewhere(file: h5py.File) -> None:
    file["units/quality"] = h5py.ExternalLink("other.h5", "/quality")


def _raw_elsewhere(file: h5py.File) -> None:
    file.create_dataset("units/quality", (6,), "S1", external=[("/etc/hostname", 0, 6)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_not_utf8, "cannot be read .UnicodeDecodeError"),
        (_elsewhere, "expected data in this file, got a link out of it"),
        (_raw_elsewhere, "expected data in this file, got data in another file"),
    ],
)
def test_texts_that_cannot_be_are_refused(path: Path, make: Callable[[h5py.File], None], message: str) -> None:
    with h5py.File(path, "a") as file:
        del file["units/quality"]
        make(file)
    with _hdf5.open_hdf5(path) as hdf5:
        with pytest.raises(CorruptDataError, match=f"units/quality: {message}"):
            _nwb.column(hdf5, "units/quality")
        if make is _elsewhere:
            assert "quality" not in _nwb.unit_columns(hdf5)


def test_one_text(path: Path) -> None:
    with _hdf5.open_hdf5(path) as hdf5:
        assert _nwb.text(hdf5, "general/session_id") == "715093703"
        with pytest.raises(CorruptDataError, match="units/id: expected one text"):
            _nwb.text(hdf5, "units/id")


def test_names_that_are_no_text_are_refused(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["units"][b"\xff"] = 0
    with _hdf5.open_hdf5(path) as hdf5, pytest.raises(CorruptDataError, match=r"units: cannot be read \(UnicodeDecode"):
        _nwb.unit_columns(hdf5)
