"""Kohn & Smith 2016 (CRCNS pvc-11): counts against loops over the cells, in both forms of file, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from fixtures import kohn_pvc11 as gratings
from fixtures import kohn_pvc11_movies as movies
from neurovar_datasets import CorruptDataError, DataUnavailableError, kohn_pvc11

from neurovar import responses

FIXTURES = pytest.mark.parametrize("fixture", [gratings, movies], ids=["MATLAB 5", "MATLAB 7.3"])


def written(folder: Path, fixture: ModuleType, change: Callable[[dict], Any] = lambda data: None) -> Path:
    content = fixture.content(np.random.default_rng(0))
    change(content["data"])
    return fixture.write(folder, content)


def by_hand(times: np.ndarray, start: float, stop: float) -> int:
    return sum(start <= t < stop for t in np.ravel(times).tolist())


@pytest.mark.parametrize("window", [(0.28, 1.28), (0.0, 1.28), (0.05, 0.2)])
def test_counts_of_gratings_in_a_window(tmp_path: Path, window: tuple[float, float]) -> None:
    counted = kohn_pvc11.load(session=gratings.SESSION, window=window, path=written(tmp_path, gratings))
    events = gratings.content(np.random.default_rng(0))["data"]["EVENTS"]
    assert counted.dims == responses.DIMS and counted.shape == (12, 3, 4) and counted.dtype == np.float32
    for stimulus, repeat, unit in np.ndindex(*counted.shape):
        assert counted.values[stimulus, repeat, unit] == by_hand(events[unit][stimulus][repeat], *window)
    assert counted.stimulus.values.tolist() == counted.direction.values.tolist() == list(range(0, 360, 30))
    assert counted.attrs["window"] == f"{window[0]:g} to {window[1]:g} s" and counted.attrs["units"] == "spike count"
    assert "time" not in counted.coords and "bin_width" not in counted.attrs


@pytest.mark.parametrize("of_folder", [False, True])
def test_counts_of_a_movie_in_bins(tmp_path: Path, of_folder: bool) -> None:
    path = written(tmp_path, movies)
    counted = kohn_pvc11.load(
        session=movies.SESSION, window=(3.0, 30.0), bin_width=0.3, path=tmp_path if of_folder else path
    )
    events = movies.content(np.random.default_rng(0))["data"]["EVENTS"]
    assert counted.dims == responses.TIME_DIMS and counted.shape == (1, 5, 4, 90)
    assert counted.sum() > 0
    for _, repeat, unit, time in np.ndindex(*counted.shape):
        start, stop = round(3 + 0.3 * time, 1), round(3 + 0.3 * (time + 1), 1)
        assert counted.values[0, repeat, unit, time] == by_hand(events[unit][repeat], start, stop)
    assert counted.stimulus.values.tolist() == ["natural_movie"] and "direction" not in counted.coords
    assert counted.attrs["bin_width"] == 0.3 and counted["time"].values[1] == 3.3


@FIXTURES
def test_units_and_their_place_on_the_array(tmp_path: Path, fixture: ModuleType) -> None:
    def one_off_the_map(data: dict) -> None:
        data["CHANNELS"][3, 0] = 99  # a corner

    counted = fixture.load(written(tmp_path, fixture, one_off_the_map))
    data = fixture.content(np.random.default_rng(0))["data"]
    assert counted["electrode"].values.tolist() == [12, 12, 57, 99]
    assert counted["unit_on_electrode"].values.tolist() == [1, 2, 1, 1]
    assert counted["electrode_row"].values[:3].tolist() == [1, 1, 5]
    assert counted["electrode_column"].values[:3].tolist() == [2, 2, 7]
    assert np.isnan(counted["electrode_row"].values[3]) and np.isnan(counted["electrode_column"].values[3])
    assert data["MAP"][1, 2] == 12 and data["MAP"][5, 7] == 57
    assert counted["snr"].values.tolist() == data["SNR"].ravel().tolist()
    assert set(counted["subject"].values) == {fixture.SESSION[:7]} and set(counted["session"].values) == {
        fixture.SESSION
    }
    assert set(counted["area"].values) == {"V1"}
    assert counted.sel(unit=counted.snr >= 2).sizes["unit"] == (data["SNR"] >= 2).sum()


def test_both_forms_of_file_give_the_same(tmp_path: Path) -> None:
    content = movies.content(np.random.default_rng(0))
    (tmp_path / "5").mkdir()
    in_matlab_5 = gratings.write(tmp_path / "5", content)
    in_matlab_73 = movies.write(tmp_path, content)
    first, second = (kohn_pvc11._read_session(p, movies.SESSION, movies.EDGES) for p in (in_matlab_5, in_matlab_73))
    xr.testing.assert_identical(first, second)


def test_spikes_on_edges_and_cells_of_any_orientation(tmp_path: Path) -> None:
    cells = [np.array([[0.0, 0.1, 0.2, 0.3]]), np.array([[0.3], [0.3]]), np.array([[0.1]]), np.zeros((1, 0))]

    def change(data: dict) -> None:
        for trials in data["EVENTS"]:
            trials[:4] = [[cell] * 3 for cell in cells]

    counted = kohn_pvc11.load(
        session=gratings.SESSION, window=(0.0, 0.4), bin_width=0.1, path=written(tmp_path, gratings, change)
    )
    for stimulus, expected in enumerate([[1, 1, 1, 1], [0, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 0]]):
        assert (counted.values[stimulus] == expected).all()


@FIXTURES
def test_a_unit_without_a_spike(tmp_path: Path, fixture: ModuleType) -> None:
    def silence(data: dict) -> None:
        empty = np.zeros((0, 0))
        n_trials = len(data["EVENTS"][0])
        data["EVENTS"][1] = [[empty] * 3] * n_trials if fixture is gratings else [empty] * n_trials

    counted = fixture.load(written(tmp_path, fixture, silence))
    assert (counted.isel(unit=1) == 0).all() and (counted.isel(unit=0) > 0).any()


@pytest.mark.parametrize(
    ("session", "window", "stop"),
    [
        ("monkey1_gratings", (-0.1, 0.5), "1.28"),
        ("monkey1_gratings", (0.3, 1.3), "1.28"),
        ("monkey2_noise_movie", (29.0, 31.0), "30"),
    ],
)
def test_windows_must_lie_within_the_stimulus(session: str, window: tuple[float, float], stop: str) -> None:
    with pytest.raises(
        ValueError, match=rf"expected a window within 0 to {stop} s, when the stimulus was shown, got \("
    ):
        kohn_pvc11.load(session=session, window=window)


def test_windows_and_sessions_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match=r"expected a window \(start, stop\) in s that goes forward"):
        kohn_pvc11.load(session="monkey1_gratings", window=(0.5, 0.4))
    with pytest.raises(ValueError, match="expected a window of whole bins"):
        kohn_pvc11.load(session="monkey1_gratings", window=(0.0, 0.5), bin_width=0.2)
    with pytest.raises(ValueError, match=r"expected the session to be one of 'monkey1_gratings', .* got 'monkey4'"):
        kohn_pvc11.load(session="monkey4", window=(0.0, 0.5))


def test_sessions() -> None:
    assert kohn_pvc11.sessions() == (
        "monkey1_gratings",
        "monkey2_gratings",
        "monkey3_gratings",
        "monkey1_gratings_movie",
        "monkey1_natural_movie",
        "monkey1_noise_movie",
        "monkey2_gratings_movie",
        "monkey2_natural_movie",
        "monkey2_noise_movie",
    )
    paths = {name: file.path for name, (file,) in kohn_pvc11.SOURCE.sessions.items()}
    folder = "kohn_pvc11/data_and_scripts"
    assert paths["monkey1_gratings"] == f"{folder}/spikes_gratings/data_monkey1_gratings.mat"
    assert paths["monkey2_gratings_movie"] == f"{folder}/spikes_movies/data_monkey2_gratings_movie.mat"


def test_how_to_get_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    expected = (
        "data_monkey2_gratings.mat on this machine[^$]*free account at https://crcns.org, download data_and_scripts"
    )
    with pytest.raises(DataUnavailableError, match=expected):
        kohn_pvc11.load(session="monkey2_gratings", window=(0.0, 1.0))
    place = tmp_path / kohn_pvc11.SOURCE.sessions["monkey1_gratings"][0].path
    place.parent.mkdir(parents=True)
    written(place.parent, gratings)
    assert kohn_pvc11.load(session="monkey1_gratings", window=(0.0, 1.0)).shape == (12, 3, 4)


def _cell(value: Any) -> Callable[[dict], Any]:
    """One cell of the second unit is another."""

    def change(data: dict) -> None:
        trials = data["EVENTS"][1]
        (trials[0] if isinstance(trials[0], list) else trials)[1] = value

    return change


CORRUPT: dict[str, Callable[[dict], Any]] = {
    "EVENTS: expected": lambda data: data.pop("EVENTS"),
    "EVENTS: expected a cell array": lambda data: data.update(EVENTS=np.ones((4, 12, 3))),
    "EVENTS: expected (units × |1 to )": lambda data: data.update(EVENTS=[np.ones(3), np.ones(3)]),
    "EVENTS: expected cells with spike times, got (text|other)": _cell("text"),
    "EVENTS: expected finite spike times, got NaN or infinity": _cell(np.array([[0.1], [np.nan]])),
    "EVENTS: expected finite spike times, got NaN or inf": _cell(np.array([[0.1], [np.inf]])),
    "EVENTS: expected spike times that never decrease in a trial": _cell(np.array([[0.2], [0.1]])),
    "(EVENTS|data).*: expected cells with spike times": _cell(np.array([[1j]])),
    "CHANNELS: expected (a field of this name|to be there)": lambda data: data.pop("CHANNELS"),
    r"CHANNELS: expected shape \(4, 2\), got \(3, 2\)": lambda data: data.update(CHANNELS=np.ones((3, 2))),
    r"CHANNELS: expected shape \(4, 2\), got \(4, 3\)": lambda data: data.update(CHANNELS=np.ones((4, 3))),
    "CHANNELS: expected whole numbers": lambda data: data.update(CHANNELS=np.full((4, 2), np.nan)),
    "MAP: expected (a field of this name|to be there)": lambda data: data.pop("MAP"),
    "MAP: expected the channels of 10 × 10 electrodes": lambda data: data.update(MAP=np.ones((9, 10))),
    "MAP: expected each unit's channel in one place": lambda data: data.update(MAP=np.full((10, 10), 12.0)),
    "SNR: expected (a field of this name|to be there)": lambda data: data.pop("SNR"),
    "SNR: expected 4 values, one for each unit": lambda data: data.update(SNR=np.ones((5, 1))),
}


@FIXTURES
@pytest.mark.parametrize("message", CORRUPT)
def test_corrupt_fields_are_named(tmp_path: Path, fixture: ModuleType, message: str) -> None:
    path = written(tmp_path, fixture, CORRUPT[message])
    with pytest.raises(CorruptDataError, match=rf"{path.name}: (data/)?{message}"):
        fixture.load(path)


def test_empty_cells_may_be_the_same(tmp_path: Path) -> None:
    path = written(tmp_path, movies)
    before = movies.load(path)
    with h5py.File(path, "r+") as file:
        empty = file["#refs#"].create_dataset("a", data=np.zeros(2, np.uint64))
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        for at in [(0, 1), (3, 2), (4, 2)]:
            file["data/EVENTS"][at] = empty.ref
    counted = movies.load(path)
    expected = before.values.copy()
    for trial, unit in [(0, 1), (3, 2), (4, 2)]:
        expected[0, trial, unit] = 0
    np.testing.assert_array_equal(counted.values, expected)


def test_gratings_with_other_directions(tmp_path: Path) -> None:
    def change(data: dict) -> None:
        data["EVENTS"] = [trials[:8] for trials in data["EVENTS"]]

    with pytest.raises(CorruptDataError, match=r"EVENTS: expected units × 12 gratings × trials, got shape \(4, 8, 3\)"):
        gratings.load(written(tmp_path, gratings, change))


def test_gratings_where_a_movie_should_be(tmp_path: Path) -> None:
    path = written(tmp_path, gratings)
    with pytest.raises(CorruptDataError, match=r"EVENTS: expected units × trials of a movie, got shape \(4, 12, 3\)"):
        kohn_pvc11._read_session(path, movies.SESSION, movies.EDGES)


def _outside(file: h5py.File, folder: Path) -> None:
    del file["data/EVENTS"]
    file["data/EVENTS"] = h5py.ExternalLink(folder / "other.h5", "data/EVENTS")


def _external_cell(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(b"12345678")
    cell = file.create_dataset("#refs#/outside", (1,), np.float64, external=[(folder / "secret", 0, 8)])
    file["data/EVENTS"][0, 0] = cell.ref


def _group_cell(file: h5py.File, folder: Path) -> None:
    file["data/EVENTS"][0, 0] = file["data"].ref


def _null_cell(file: h5py.File, folder: Path) -> None:
    file["data/EVENTS"][0, 0] = h5py.Reference()


def _many_cells(file: h5py.File, folder: Path) -> None:
    first = file["data/EVENTS"][0, 0]
    del file["data/EVENTS"]
    references = np.full((1000, 4), first, dtype=h5py.ref_dtype)
    file.create_dataset("data/EVENTS", data=references, compression="gzip")


def _huge_cell(file: h5py.File, folder: Path) -> None:
    cell = file.create_dataset("#refs#/huge", (1 << 40,), np.float64, chunks=(1 << 20,), compression="gzip")
    file["data/EVENTS"][0, 0] = cell.ref


def _huge_chunk(file: h5py.File, folder: Path) -> None:
    cell = file.create_dataset("#refs#/chunk", (1,), np.float64, chunks=(1 << 26,), maxshape=(None,))
    file["data/EVENTS"][0, 0] = cell.ref


def _one_large_cell_for_all(file: h5py.File, folder: Path) -> None:
    n_values = (256 << 20) // 8 // 10
    cell = file.create_dataset("#refs#/large", (n_values,), np.float64, chunks=(n_values,), compression="gzip")
    file["data/EVENTS"][...] = np.full((5, 4), cell.ref, dtype=h5py.ref_dtype)


HOSTILE: dict[str, Callable[[h5py.File, Path], None]] = {
    "EVENTS: expected data in this file, got a link out of it": _outside,
    "EVENTS: expected data in this file, got data in another file": _external_cell,
    "EVENTS: expected cells with numbers or text, got <HDF5 group": _group_cell,
    "data: cannot be read": _null_cell,
    r"EVENTS: expected 1 to \d+ cells, got shape \(1000, 4\)": _many_cells,
    r"EVENTS: expected at most \d+ bytes, got more": _huge_cell,
    "EVENTS: expected at most 268435456 bytes, got more": _huge_chunk,
    "EVENTS: expected at most 268435456 bytes, got mor": _one_large_cell_for_all,
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_files(tmp_path: Path, message: str) -> None:
    path = written(tmp_path, movies)
    with h5py.File(path, "r+") as file:
        HOSTILE[message](file, tmp_path)
    with pytest.raises(CorruptDataError, match=rf"{path.name}: (data/)?{message}"):
        movies.load(path)


@pytest.mark.parametrize("start", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_none(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "data_monkey1_gratings.mat"
    path.write_bytes(start.ljust(1000, b"\x07"))
    with pytest.raises(CorruptDataError, match=r"data_monkey1_gratings\.mat"):
        gratings.load(path)
