"""Allen's Visual Coding: the same numbers as loops over what pynwb reads, and files that are refused."""

import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
import pytest
import xarray as xr
from fixtures import allen_visual_coding as fixture
from neurovar_datasets import CorruptDataError, allen_visual_coding
from neurovar_datasets.allen_visual_coding import UnitFilter

WINDOW = (0.05, 0.25)
BLOCK = 1 << 14
Change = Callable[[dict[str, Any]], None]


def written(folder: Path, kind: str, change: Change = lambda content: None) -> Path:
    content = fixture.content(np.random.default_rng(3), kind=kind)
    change(content)
    return fixture.write(folder, content)


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    return written(tmp_path, "probes")


@pytest.fixture
def imaging(tmp_path: Path) -> Path:
    return written(tmp_path, "imaging")


def edit(path: Path, field: str, values: object) -> None:
    with h5py.File(path, "a") as file:
        del file[field]
        file[field] = values


def looped(onsets: dict[str, list[float]], value: Callable[[float], list[float]]) -> dict[str, list[list[float]]]:
    return {stimulus: [value(onset) for onset in times] for stimulus, times in onsets.items()}


def assert_same(responses: xr.DataArray, expected: dict[str, list[list[float]]]) -> None:
    """Each stimulus has these repeats (of one value a unit), and no others."""
    assert set(responses["stimulus"].values) == set(expected)
    for stimulus, repeats in expected.items():
        actual = responses.sel(stimulus=stimulus).dropna("repeat").transpose("repeat", "unit", ...)
        np.testing.assert_allclose(actual.values, np.array(repeats), rtol=1e-6, atol=1e-12)


def scene_onsets(nwb: pynwb.NWBFile) -> dict[str, list[float]]:
    onsets: dict[str, list[float]] = {}
    for _, row in nwb.intervals["natural_scenes_presentations"].to_dataframe().iterrows():
        if row["frame"] >= 0:
            onsets.setdefault(f"natural_scenes_{int(row['frame']):04d}", []).append(row["start_time"])
    return onsets


def test_spikes_are_counted_as_a_loop_over_pynwb_counts(probes: Path) -> None:
    responses = allen_visual_coding.load(path=probes, window=WINDOW)
    with pynwb.NWBHDF5IO(probes, "r") as io:
        nwb = io.read()
        units = [nwb.units["spike_times"][row] for row in range(len(nwb.units))]

        def count(onset: float) -> list[float]:
            return [sum(onset + 0.05 <= t < onset + 0.25 for t in times) for times in units]

        assert_same(responses, looped(scene_onsets(nwb), count))
        assert responses["unit"].values.tolist() == list(nwb.units.id[:])
    assert responses.sum() > 0 and responses.dtype == np.float32
    assert responses["frame"].values.tolist() == [0, 1, 2]
    assert responses.attrs["units"] == "spike count" and responses.attrs["window"] == "0.05 to 0.25 s"
    assert (responses.attrs["units_left_out"], responses.attrs["presentations_left_out"]) == ("", 0)


def test_bins_sum_to_the_window(probes: Path) -> None:
    binned = allen_visual_coding.load(path=probes, window=WINDOW, bin_width=0.05)
    assert binned.dims == ("stimulus", "repeat", "unit", "time")
    np.testing.assert_allclose(binned["time"], [0.05, 0.1, 0.15, 0.2])
    np.testing.assert_array_equal(binned.sum("time"), allen_visual_coding.load(path=probes, window=WINDOW))


def test_units_have_their_place_and_quality(probes: Path) -> None:
    unit = allen_visual_coding.load(path=probes, window=WINDOW).isel(unit=4)
    labels = {name: unit[name].item() for name in ("area", "probe", "quality", "session", "subject", "presence_ratio")}
    assert labels == {
        "area": "LGd",
        "probe": "probeB",
        "quality": "good",
        "session": "715093703",
        "subject": "699733573",
        "presence_ratio": 0.5,
    }


@pytest.mark.parametrize(
    ("filters", "kept", "why"),
    [
        ({"quality": "good"}, [0, 1, 3, 4, 5], "quality is not good: 950910006"),
        ({"max_isi_violations": 0.4}, [0, 1, 2, 4], "isi_violations is not <= 0.4: 950910009, 950910015"),
        ({"min_presence_ratio": 0.95}, [0, 1, 2, 3, 5], "presence_ratio is not >= 0.95: 950910012"),
        ({"max_amplitude_cutoff": 0.05}, [0, 1, 2, 3, 4, 5], ""),
        ({"areas": ["VISl", "LGd"]}, [2, 3, 4, 5], "area is not VISl or LGd: 950910000, 950910003"),
        ({"areas": "VISp", "min_snr": 0.5}, [0, 1], "area is not VISp: 950910006, 950910009, 950910012, 950910015"),
        (vars(allen_visual_coding.ALLEN_FILTER), [0, 1], "quality is not good: 950910006; presence_ratio is not >="),
    ],
)
def test_filters(probes: Path, filters: dict[str, Any], kept: list[int], why: str) -> None:
    every = allen_visual_coding.load(path=probes, window=WINDOW)
    some = allen_visual_coding.load(path=probes, window=WINDOW, units=UnitFilter(**filters))
    xr.testing.assert_equal(some, every.isel(unit=kept))
    assert some.attrs["units_left_out"].startswith(why) and bool(why) == bool(some.attrs["units_left_out"])


def test_a_unit_whose_electrode_is_missing_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "probes", lambda c: c["units"]["peak_channel_id"].__setitem__(2, 77))
    responses = allen_visual_coding.load(path=path, window=WINDOW)
    assert responses.sizes["unit"] == 5
    assert responses.attrs["units_left_out"] == "peak channel is not among the electrodes: 950910006"


@pytest.mark.parametrize(
    ("tag", "n_left_out"), [("stimulus", 2), ("all_probes", 2), ("probeB", 2), ("probeZ", 0), ("EcephysProbe", 0)]
)
def test_presentations_in_invalid_times_are_left_out(tmp_path: Path, tag: str, n_left_out: int) -> None:
    def change(content: dict[str, Any]) -> None:
        content["intervals"]["natural_scenes_presentations"]["frame"] = np.tile([0.0, 1, 2, 1], 5)
        content["invalid_times"] |= {"start_time": np.array([1.3, 20]), "stop_time": np.array([1.6, 21])}
        content["invalid_times"]["tags"] = np.array(["EcephysProbe", "1", tag, "-", "-", "all_probes"])

    responses = allen_visual_coding.load(path=written(tmp_path, "probes", change), window=(0.0, 0.2))
    assert responses.attrs["presentations_left_out"] == n_left_out
    assert int(responses.isel(unit=0).notnull().sum()) == 20 - n_left_out


def test_unobserved_time_is_no_silence(probes: Path) -> None:
    """Scenes were shown from 1 to 6 s; one unit was observed during the first second only, one not at the end."""
    whole = allen_visual_coding.load(path=probes, window=(0.0, 0.2))
    with h5py.File(probes, "a") as file:
        file["units/obs_intervals"] = np.array([[0.0, 30]] * 4 + [[0.0, 2.0], [0.0, 5.1]])
        file["units/obs_intervals_index"] = np.arange(1, 7)
    observed = allen_visual_coding.load(path=probes, window=(0.0, 0.2))
    assert observed.attrs["units_left_out"] == "not observed during most presentations: 950910012"
    assert observed.unit.values.tolist() == np.delete(whole.unit.values, 4).tolist()
    onsets = 1 + 0.25 * np.arange(20)
    assert observed.attrs["presentations_left_out"] - whole.attrs["presentations_left_out"] in (3, 2)
    assert int(observed.isel(unit=0).notnull().sum()) < int(whole.isel(unit=0).notnull().sum()) <= len(onsets)


def test_invalid_times_of_a_probe_without_kept_units_do_not_matter(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["invalid_times"] |= {"start_time": np.array([1.3, 20]), "stop_time": np.array([1.6, 21])}
        content["invalid_times"]["tags"][2] = "probeB"

    path = written(tmp_path, "probes", change)
    responses = allen_visual_coding.load(path=path, window=WINDOW, units=UnitFilter(areas=["VISp"]))
    assert responses.attrs["presentations_left_out"] == 0


def test_the_window_may_reach_into_an_invalid_time(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["invalid_times"] |= {"start_time": np.array([6.5, 20]), "stop_time": np.array([6.6, 21])}
        content["invalid_times"]["tags"][2] = "stimulus"

    path = written(tmp_path, "probes", change)
    near, far = (allen_visual_coding.load(path=path, window=(0.0, stop)) for stop in (0.2, 2.0))
    assert near.attrs["presentations_left_out"] == 0 < far.attrs["presentations_left_out"]


def test_gratings_are_told_apart_by_their_parameters(probes: Path) -> None:
    responses = allen_visual_coding.load(path=probes, window=WINDOW, stimulus="static_gratings")
    assert (
        responses["stimulus"].values[0]
        == "static_gratings orientation=0 spatial_frequency=0.04 phase=0.25 contrast=0.8"
    )
    assert responses["orientation"].values.tolist() == [0, 0, 90, 90]
    assert responses["phase"].values.tolist() == [0.25, 0.75, 0.25, 0.75]
    assert responses.isel(unit=0).notnull().sum("repeat").values.tolist() == [2, 3, 2, 3]
    onsets = 10 + 0.25 * np.array([1, 3, 5])
    with h5py.File(probes) as file:
        first = file["units/spike_times"][: file["units/spike_times_index"][0]]
    expected = [sum(onset + 0.05 <= t < onset + 0.25 for t in first) for onset in onsets]
    assert responses.isel(stimulus=1, unit=0).values.tolist() == expected


def test_a_stimulus_of_a_movie_is_a_frame_and_a_repeat_a_showing(probes: Path) -> None:
    responses = allen_visual_coding.load(path=probes, window=(0.0, 1 / 30), stimulus="natural_movie_one")
    assert responses.sizes == {"stimulus": 10, "repeat": 3, "unit": 6}
    with h5py.File(probes) as file:
        times = file["units/spike_times"][: file["units/spike_times_index"][0]]
        onset = file["intervals/natural_movie_one_presentations/start_time"][:].reshape(3, 10)
    expected = [[sum(t0 <= t < t0 + 1 / 30 for t in times) for t0 in row] for row in onset]
    np.testing.assert_array_equal(responses.isel(unit=0).transpose(), expected)


def test_imaging_is_averaged_over_the_frames_in_the_window(imaging: Path) -> None:
    responses = allen_visual_coding.load(path=imaging, window=(0.0, 0.2))
    with pynwb.NWBHDF5IO(imaging, "r") as io:
        nwb = io.read()
        series = nwb.processing["ophys"]["DfOverF"]["DfOverF"]
        data, times = series.data[:], series.timestamps[:]
        shown, onsets = nwb.stimulus["natural_scenes_stimulus"], {}
        for frame, onset in zip(shown.data[:], shown.timestamps[:]):
            if frame != 2**32 - 1:
                onsets.setdefault(f"natural_scenes_{frame:04d}", []).append(onset)

    def mean(onset: float) -> list[float]:
        inside = [row for row, t in zip(data, times) if onset <= t < onset + 0.2]
        return np.mean(np.array(inside, dtype=float), axis=0).tolist()

    assert_same(responses, looped(onsets, mean))
    assert responses.attrs["units"] == "dF/F" and responses.attrs["license"] == "CC-BY-4.0"
    assert responses["unit"].values.tolist() == [517472416, 517472417, 517472418, 517472419]
    assert set(responses["area"].values) == {"VISp"}


def test_imaging_in_bins_and_events(imaging: Path) -> None:
    binned = allen_visual_coding.load(path=imaging, window=(0.0, 0.2), bin_width=0.1, trace="DfOverFEvents")
    assert binned.sizes["time"] == 2 and binned.attrs["units"] == "events" and binned.attrs["bin_width"] == 0.1
    whole = allen_visual_coding.load(path=imaging, window=(0.0, 0.1), trace="DfOverFEvents")
    np.testing.assert_allclose(binned.isel(time=0), whole)


def test_imaging_gratings(imaging: Path) -> None:
    responses = allen_visual_coding.load(path=imaging, window=(0.0, 0.5), stimulus="drifting_gratings")
    assert responses["orientation"].values.tolist() == [0, 45]
    assert responses["temporal_frequency"].values.tolist() == [1, 2]
    assert responses.sizes["repeat"] == 3


def test_presentations_at_the_end_of_imaging_are_left_out(imaging: Path) -> None:
    edit(imaging, "stimulus/presentation/natural_scenes_stimulus/timestamps", 6 + 0.25 * np.arange(20))
    responses = allen_visual_coding.load(path=imaging, window=(0.0, 0.2))
    last = 0.5 + 299 / 30
    n_kept = sum(6 + 0.25 * i + 0.2 <= last for i in range(20) if i % 4 != 3)
    assert responses.attrs["presentations_left_out"] == 15 - n_kept > 0
    assert int(responses.isel(unit=0).notnull().sum()) == n_kept


def test_a_region_whose_trace_is_not_finite_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "imaging", lambda c: c["DfOverF"].__setitem__((5, 2), np.nan))
    responses = allen_visual_coding.load(path=path, window=(0.0, 0.2))
    assert responses["unit"].values.tolist() == [517472416, 517472417, 517472419]
    assert responses.attrs["units_left_out"] == "trace is not finite: 517472418"


@pytest.mark.parametrize("stimulus", ["natural_scenes", "natural_movie_one"])
def test_images_are_those_of_the_file(imaging: Path, stimulus: str) -> None:
    images = allen_visual_coding.images(path=imaging, stimulus=stimulus)
    expected = fixture.content(np.random.default_rng(3), kind="imaging")[stimulus]["images"]
    np.testing.assert_allclose(images.values[:, 0], expected / 255, rtol=1e-6)
    shown = allen_visual_coding.load(path=imaging, window=(0.0, 0.2), stimulus=stimulus)
    assert set(shown["stimulus"].values) <= set(images["stimulus"].values)
    assert images.dims == ("stimulus", "channel", "row", "column") and images.dtype == np.float32


class Ranges(http.server.BaseHTTPRequestHandler):
    """One file, in the parts asked for; `sent` counts bytes, of a transfer that is broken off too."""

    content = b""
    sent = 0

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = int(asked[2]) + 1 if asked and asked[2] else len(self.content)
        part = self.content[start:stop]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(self.content)}")
        self.end_headers()
        if self.command == "GET":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
            with suppress(ConnectionError):
                for block in range(0, len(part), BLOCK):
                    type(self).sent += self.wfile.write(part[block : block + BLOCK])

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(content: bytes) -> Iterator[tuple[str, type[Ranges]]]:
    handler = type("Handler", (Ranges,), {"content": content, "sent": 0})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/session.nwb", handler
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", fixture.KINDS)
def test_of_a_remote_file_only_a_part_is_transferred(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind)
    with h5py.File(path, "a") as file:
        file["acquisition/unused"] = np.random.default_rng(0).random(1 << 20)
    with served(path.read_bytes()) as (url, server):
        remote = allen_visual_coding.load(path=url, window=WINDOW)
    xr.testing.assert_identical(remote, allen_visual_coding.load(path=path, window=WINDOW))
    assert 0 < server.sent < 0.25 * path.stat().st_size


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("units/peak_channel_id", np.full(6, 0.5), "units/peak_channel_id: expected whole numbers"),
        ("units/quality", np.arange(6), "quality: expected texts, got dtype int64"),
        ("units/isi_violations", np.full(6, b"low"), "units/isi_violations: expected real numbers"),
        ("units/id", np.zeros(6, int), "units/id: expected unique ids"),
        (
            "units/spike_times_index",
            np.array([9, 5, 20, 30, 40, 50]),
            "spike_times_index: expected an index that never",
        ),
        ("general/extracellular_ephys/electrodes/location", np.arange(8), "electrodes/location: expected texts"),
        ("general/session_id", 715093703, "general/session_id: expected one text"),
        (
            "intervals/natural_scenes_presentations/frame",
            np.full(20, -1.0),
            "expected one that is not blank, got 20, all",
        ),
        ("intervals/natural_scenes_presentations/frame", np.full(20, np.nan), "expected one that is not blank"),
        ("intervals/natural_scenes_presentations/frame", np.full(20, -5.0), "frame: expected frames from 0 on, or -1"),
        ("intervals/natural_scenes_presentations/frame", np.full(20, 1.5), "frame: expected whole numbers"),
        ("intervals/natural_scenes_presentations/frame", np.full(20, np.inf), "frame: expected whole numbers"),
        ("intervals/natural_scenes_presentations/start_time", np.full(20, np.nan), "start_time: expected finite times"),
        ("intervals/invalid_times/tags", np.arange(6), "invalid_times/tags: expected texts"),
        ("intervals/invalid_times/tags_index", np.array([9, 9]), "tags_index: expected an index within the 6 values"),
    ],
)
def test_recordings_that_cannot_be_are_refused(probes: Path, field: str, values: object, message: str) -> None:
    edit(probes, field, values)
    with pytest.raises(CorruptDataError, match=f"{probes}: .*{message}"):
        allen_visual_coding.load(path=probes, window=WINDOW, units=UnitFilter(quality="good", max_isi_violations=0.5))


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("orientation", np.full(12, np.nan), "expected one that is not blank"),
        ("orientation", np.full(12, b"[0.0, 1.0]"), "orientation: expected a column of numbers"),
        ("contrast", np.r_[np.nan, np.ones(11)], "contrast: expected a number where there is an orientation"),
    ],
)
def test_gratings_that_cannot_be_are_refused(probes: Path, field: str, values: object, message: str) -> None:
    edit(probes, f"intervals/static_gratings_presentations/{field}", values)
    with pytest.raises(CorruptDataError, match=f"{probes}: static_gratings presentations.*{message}"):
        allen_visual_coding.load(path=probes, window=WINDOW, stimulus="static_gratings")


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("processing/ophys/DfOverF/DfOverF/data", np.zeros((7, 4)), "DfOverF/data: expected 300 frames"),
        ("processing/ophys/DfOverF/DfOverF/data", np.full((300, 4), np.nan), "trace is not finite: 4"),
        ("processing/ophys/DfOverF/DfOverF/timestamps", np.zeros(0), "timestamps: expected at least one frame"),
        ("processing/ophys/DfOverF/DfOverF/timestamps", np.arange(300)[::-1], "timestamps: expected times that never"),
        ("processing/ophys/DfOverF/DfOverF/rois", np.arange(1, 5), "rois: expected rows of the table of 4 regions"),
        ("processing/ophys/DfOverF/DfOverF/rois", np.arange(3), "rois: expected 4 regions, as the trace has, got 3"),
        ("stimulus/presentation/natural_scenes_stimulus/timestamps", np.zeros(3), "timestamps: expected shape"),
        (
            "stimulus/presentation/natural_scenes_stimulus/timestamps",
            np.full(20, np.nan),
            "timestamps: expected finite",
        ),
        (
            "stimulus/presentation/natural_scenes_stimulus/timestamps",
            np.full(20, 99.0),
            "expected one within the record",
        ),
    ],
)
def test_imaging_that_cannot_be_is_refused(imaging: Path, field: str, values: object, message: str) -> None:
    edit(imaging, field, values)
    with pytest.raises(ValueError, match=f"{re.escape(str(imaging))}: .*{message}"):
        allen_visual_coding.load(path=imaging, window=(0.0, 0.2))


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("NaturalScene1", np.zeros((9, 9)), "expected images of one size"),
        ("NaturalScene1", np.full((4, 5), 300), "expected pixels from 0 to 255"),
        ("NaturalScene1", np.full((4, 5), np.nan), "expected pixels from 0 to 255"),
    ],
)
def test_images_that_cannot_be_are_refused(imaging: Path, field: str, values: object, message: str) -> None:
    edit(imaging, f"stimulus/templates/natural_scenes_template/{field}", values)
    with pytest.raises(
        CorruptDataError, match=f"{re.escape(str(imaging))}: stimulus/templates/natural_scenes_template: {message}"
    ):
        allen_visual_coding.images(path=imaging)


def test_static_gratings_that_were_cut_in_conversion_are_refused(imaging: Path) -> None:
    with pytest.raises(CorruptDataError, match=r"expected about 6000 presentations, got 3: the conversion .*issues/49"):
        allen_visual_coding.load(path=imaging, window=(0.0, 0.2), stimulus="static_gratings")


def test_repeats_that_would_need_far_more_memory_than_the_file_are_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        n = 20_000
        frame = np.r_[np.zeros(n // 2), np.arange(n // 2)]
        content["intervals"]["natural_scenes_presentations"] = fixture._shown(1.0, 0.25, n) | {"frame": frame}

    with pytest.raises(CorruptDataError, match=r"responses: expected at most .* bytes, got .*, with padding"):
        allen_visual_coding.load(path=written(tmp_path, "probes", change), window=WINDOW)


def test_neither_units_nor_imaging(tmp_path: Path) -> None:
    path = tmp_path / "empty.nwb"
    h5py.File(path, "w").close()
    with pytest.raises(CorruptDataError, match="expected one of them, got neither"):
        allen_visual_coding.load(path=path, window=WINDOW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (0.2, 0.1)}, "expected a window"),
        ({"bin_width": 0.03}, "expected a window of whole bins"),
        ({"stimulus": "gabors"}, "expected the stimulus to be one of natural_scenes.*, got 'gabors'"),
        (
            {"stimulus": "natural_movie_nine"},
            "nine_presentations: expected to be there, got .*natural_movie_one_presentations",
        ),
        ({"session": "123"}, "expected the session to be one of '715093703'"),
        ({"session": "719161530", "path": "http://127.0.0.1:9/"}, "http://127.0.0.1:9/: cannot be"),
        ({"path": None}, "expected a session, such as '715093703', or a path, got neither"),
        ({"path": "/nowhere/at/all.nwb"}, "expected an NWB file at the path given, found none at /nowhere"),
        ({"units": UnitFilter(areas=["V1"])}, "expected areas among LGd, VISl, VISp, got V1"),
        (
            {"units": UnitFilter(min_snr=99)},
            r"expected units that pass the filters, got none of 6 \(snr is not >= 99: 6\)",
        ),
        ({"units": UnitFilter(quality="best")}, "expected units that pass the filters, got none of 6"),
        ({"trace": "DfOverF"}, "expected no trace, as these are spikes, got DfOverF"),
    ],
)
def test_options_that_are_not_possible(probes: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allen_visual_coding.load(**({"path": probes, "window": WINDOW} | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": UnitFilter(areas=["VISp"])}, "expected no areas or limits of metrics, as imaging has one area"),
        ({"units": UnitFilter(max_isi_violations=0.5)}, "expected no areas or limits of metrics"),
        ({"trace": "raw"}, "expected the trace to be one of 'DfOverF', 'DfOverFEvents', got 'raw'"),
        (
            {"window": (0.0, 0.2), "bin_width": 0.01},
            "expected an imaging frame in every bin, got bins without .at 30.1",
        ),
    ],
)
def test_options_that_are_not_possible_for_imaging(imaging: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allen_visual_coding.load(**({"path": imaging, "window": WINDOW} | options))


def test_a_metric_that_the_file_lacks(probes: Path) -> None:
    with h5py.File(probes, "a") as file:
        del file["units/snr"]
    with pytest.raises(CorruptDataError, match=r"units: expected the metrics \['snr'\], got \['amplitude_cutoff'"):
        allen_visual_coding.load(path=probes, window=WINDOW, units=UnitFilter(min_snr=1.0))


def test_images_of_probes_are_elsewhere(probes: Path) -> None:
    for options in ({"path": probes}, {"session": "715093703"}):
        with pytest.raises(ValueError, match=r"Neuropixels files have no images.*natural_scene_<frame>.tiff"):
            allen_visual_coding.images(**options)


def test_a_named_session_is_checked(probes: Path) -> None:
    with pytest.raises(CorruptDataError, match="expected 2856232912 bytes with hash sha256:8bf172c5"):
        allen_visual_coding.load(session="715093703", path=probes, window=WINDOW)
    with served(probes.read_bytes()) as (url, _):
        responses = allen_visual_coding.load(session="715093703", path=url, window=WINDOW)
        assert responses.attrs["hash"].startswith("sha256:8bf172c5")
        with pytest.raises(CorruptDataError, match="general/session_id: expected 719161530, got 715093703"):
            allen_visual_coding.load(session="719161530", path=url, window=WINDOW)


def test_sessions_are_declared_whole() -> None:
    sessions = allen_visual_coding.SOURCE.sessions
    assert allen_visual_coding.sessions() == tuple(sessions) and len(sessions) == 58
    files = [file for (file,) in sessions.values()]
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", file.hash) and 1.6e9 < file.size < 3.3e9 for file in files)
    assert all(session in file.path for session, (file,) in sessions.items())
    assert len({file.hash for file in files}) == len({file.url for file in files}) == 58
    assert sum(file.size for file in files) == 144_965_967_784
