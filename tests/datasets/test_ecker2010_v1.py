"""Ecker et al. 2010: counts against loops over the file's fields, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixtures import ecker2010_v1 as fixture
from neurovar_datasets import CorruptDataError, DataUnavailableError, ecker2010_v1

from neurovar import responses, statistics


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture's file has not the hash of the published one."""
    monkeypatch.setattr("neurovar_datasets._fetching.files.check", lambda path, file, name: None)


@pytest.mark.parametrize("number", [0, 1])
def test_counts_in_all_bins(tmp_path: Path, content: dict, number: int) -> None:
    binned = ecker2010_v1._read_session(fixture.write(tmp_path, content), fixture.SESSIONS[number])
    session = content["data"][number]
    assert binned.dims == responses.TIME_DIMS and binned.dtype == np.float32
    for unit, condition, time, repeat in np.ndindex(*session["spikes"].shape):
        assert binned.values[condition, repeat, unit, time] == session["spikes"][unit, condition, time, repeat]
    assert binned["time"].values.tolist() == [k / 100 for k in range(-20, 70)]
    assert binned.attrs["bin_width"] == 0.01
    for name, values in {
        "orientation": [0, 0, 22.5, 22.5],
        "contrast": [10, 100, 10, 100],
        "stimulus": ["0 deg, 10 %", "0 deg, 100 %", "22.5 deg, 10 %", "22.5 deg, 100 %"],
        "subject": [session["subject"]] * len(session["spikes"]),
        "session": [session["date"]] * len(session["spikes"]),
        "area": ["V1"] * len(session["spikes"]),
        "tetrode": session["tetrode"].ravel().tolist(),
        "contamination": session["contamination"].ravel().tolist(),
    }.items():
        assert binned[name].values.tolist() == values, name


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("of_folder", [False, True])
def test_counts_in_a_window(tmp_path: Path, content: dict, of_folder: bool) -> None:
    path = fixture.write(tmp_path, content)
    counted = ecker2010_v1.load(session="2002-04-11", window=(0.03, 0.53), path=tmp_path if of_folder else path)
    spikes = content["data"][0]["spikes"]
    centres = fixture.CENTRES.ravel()
    for condition, repeat, unit in np.ndindex(*counted.shape):
        inside = [int(n) for n, t in zip(spikes[unit, condition, :, repeat], centres) if 30 < t < 530]
        assert len(inside) == 50 and counted.values[condition, repeat, unit] == sum(inside)
    assert counted.attrs["window"] == "0.03 to 0.53 s" and counted.attrs["units"] == "spike count"
    assert counted.attrs["doi"] == "10.1126/science.1179867" and counted.attrs["license"] == "CC BY-NC-ND 3.0"
    assert responses.validate(counted, min_repeats=4) is counted


@pytest.mark.usefixtures("unchecked")
def test_counts_in_wider_bins(tmp_path: Path, content: dict) -> None:
    path = fixture.write(tmp_path, content)
    counted = ecker2010_v1.load(session="2002-04-11", window=(-0.2, 0.7), bin_width=0.3, path=path)
    spikes = content["data"][0]["spikes"]
    for first, time in zip((0, 30, 60), (-0.2, 0.1, 0.4)):
        expected = spikes[:, :, first : first + 30].sum(axis=2).transpose(1, 2, 0)
        np.testing.assert_array_equal(counted.sel(time=time), expected)
    assert counted.attrs["bin_width"] == 0.3


@pytest.mark.usefixtures("unchecked")
def test_contaminated_units_are_left_out_on_request(tmp_path: Path, content: dict) -> None:
    path = fixture.write(tmp_path, content)
    clean = ecker2010_v1.load(session="2002-04-11", window=(0.0, 0.5), max_contamination=0.05, path=path)
    assert clean["tetrode"].values.tolist() == [1], "0.05 itself is not below 0.05"
    with pytest.raises(ValueError, match="expected units with a contamination below 0, the least is 0"):
        ecker2010_v1.load(session="2002-04-11", window=(0.0, 0.5), max_contamination=0.0, path=path)
    with pytest.raises(ValueError, match=r"expected a window with whole bins, got \(0.7, 0.9\)"):
        ecker2010_v1.load(session="2002-04-11", window=(0.7, 0.9), path=path)


def test_moving_gratings_have_a_direction(tmp_path: Path, content: dict) -> None:
    for condition in content["data"][0]["conditions"]:
        condition["direction"] = condition.pop("orientation")
    content["data"][0]["contamination"] = content["data"][0]["contamination"].T
    binned = ecker2010_v1._read_session(fixture.write(tmp_path, content), "2002-04-11")
    assert binned["direction"].values.tolist() == [0, 0, 22.5, 22.5] and "orientation" not in binned.coords


def _of_first(name: str, value: Any) -> Callable[[dict], Any]:
    return lambda content: content["data"][0].update({name: value})


def _spike(value: float) -> Callable[[dict], Any]:
    def change(content: dict) -> None:
        spikes = content["data"][0]["spikes"].astype(np.float64)
        spikes[1, 2, 3, 1] = value
        content["data"][0]["spikes"] = spikes

    return change


def _condition(**fields: Any) -> Callable[[dict], Any]:
    return lambda content: content["data"][0]["conditions"][1].update(fields)


CORRUPT: dict[str, Callable[[dict], Any]] = {
    "data: expected a variable of this name": lambda content: content.pop("data"),
    "data: expected a cell array with a struct": lambda content: content.update(data=np.ones((3, 3))),
    "data: expected a cell array with a struct for each session, got dtype <U": lambda c: c.update(data="text"),
    "date: expected a field of this name, got fields": lambda content: content["data"][1].pop("date"),
    "date: expected a text, got float64": _of_first("date", np.ones((2, 2))),
    "date: expected one session 2002-04-11, got sessions": _of_first("date", "2002-04-12"),
    r"date: expected one session 2002-04-11, got sessions \['2002-04-11', '2002-04-11'\]": (
        lambda content: content["data"][1].update(date="2002-04-11")
    ),
    "spikes: expected a field of this name": lambda content: content["data"][0].pop("spikes"),
    "spikes: expected real numbers, got dtype <U": _of_first("spikes", "text"),
    "spikes: expected real numbers, got dtype complex128": _of_first("spikes", np.zeros((1, 1, 1, 2), complex)),
    "spikes: expected real numbers, got dtype object": _of_first("spikes", np.array([np.ones(2), "a"], dtype=object)),
    r"spikes: expected 4 dims, got shape \(3, 3\)": _of_first("spikes", np.zeros((3, 3))),
    "spikes: expected spike counts of 0 or more, got 1 negative": _spike(-1),
    "spikes: expected whole spike counts, got fractions": _spike(0.5),
    "spikes: expected finite spike counts, got infinity": _spike(np.inf),
    r"responses: expected each trial to be whole or absent, got 1 with some time bins missing": _spike(np.nan),
    "times: expected 90 times, one for each bin, got 89": _of_first("times", fixture.CENTRES[:, 1:]),
    "times: expected finite times": _of_first("times", np.full((1, 90), np.nan)),
    "times: expected times that never decrease": _of_first("times", fixture.CENTRES[:, ::-1]),
    "times: expected centres of bins of the same width": _of_first("times", np.zeros((1, 90))),
    "times: expected centres of bins of the same width, got .*-7414875.": _of_first(
        "times", fixture.CENTRES.astype(float) ** 3
    ),
    "conditions: expected contrast and orientation or direction, got": (
        lambda content: [condition.pop("contrast") for condition in content["data"][0]["conditions"]]
    ),
    "conditions: expected 4, as in spikes, got 3": lambda content: content["data"][0]["conditions"].pop(),
    "conditions: expected contrast and orientation": _of_first("conditions", np.ones((1, 4))),
    "contrast: expected one number for each condition": _condition(contrast=np.ones((2, 1))),
    "orientation: expected real numbers, got dtype <U": _condition(orientation="upright"),
    "orientation: expected finite numbers": _condition(orientation=np.nan),
    "conditions: expected unique ids, got 1 repeated": _condition(contrast=10),
    "tetrode: expected 3 values, one for each unit, got 2": _of_first("tetrode", np.ones((1, 2))),
    "tetrode: expected whole numbers": _of_first("tetrode", np.full((1, 3), 1.5)),
    "contamination: expected 3 values, one for each unit, got 4": _of_first("contamination", np.ones((1, 4))),
    "contamination: expected real numbers": _of_first("contamination", "clean"),
    "subject: expected a text, got float64": _of_first("subject", np.ones((1, 1))),
}


@pytest.mark.parametrize("message", CORRUPT)
def test_corrupt_fields_are_named(tmp_path: Path, content: dict, message: str) -> None:
    CORRUPT[message](content)
    with pytest.raises(CorruptDataError, match=rf"data_v1_binned_static\.mat: {message}"):
        fixture.load(fixture.write(tmp_path, content))


def test_a_session_that_would_not_fit_into_memory(
    tmp_path: Path, content: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ecker2010_v1, "MAX_COUNTS", 1000)
    with pytest.raises(CorruptDataError, match=r"static.mat: spikes: expected at most 1000 counts, got shape \(3,"):
        fixture.load(fixture.write(tmp_path, content))


def test_a_file_that_is_no_matlab_file(tmp_path: Path) -> None:
    path = tmp_path / "data_v1_binned_static.mat"
    path.write_bytes(b"not a MATLAB file" * 100)
    with pytest.raises(CorruptDataError, match=r"data_v1_binned_static\.mat"):
        fixture.load(path)
    with pytest.raises(CorruptDataError, match="expected 792977 bytes with hash sha256:041e"):
        ecker2010_v1.load(session="2002-04-11", window=(0.0, 0.5), path=path)


def test_sessions_and_their_files() -> None:
    assert len(ecker2010_v1.sessions()) == len(set(ecker2010_v1.sessions())) == 44
    (first,), (last,) = (ecker2010_v1.SOURCE.sessions[ecker2010_v1.sessions()[at]] for at in (0, -1))
    assert (first, last) == (ecker2010_v1.STATIC, ecker2010_v1.MOVING)
    assert ecker2010_v1.SOURCE.redistribution and ecker2010_v1.SOURCE.derivatives is False
    with pytest.raises(ValueError, match=r"expected the session to be one of '2008-09-01_13-34-21', .* got 'x'"):
        ecker2010_v1.load(session="x", window=(0.0, 0.5))


@pytest.mark.data
def test_the_papers_noise_correlation() -> None:
    """Virtually none (r_sc = 0.01): mean over the 44 sessions' pairs of units with little contamination."""
    means = []
    for session in ecker2010_v1.sessions():
        try:
            counted = ecker2010_v1.load(session=session, window=(0.0, 0.5), max_contamination=0.05)
        except DataUnavailableError as error:
            pytest.skip(str(error).splitlines()[0])
        correlation = statistics.noise_correlation(responses.drop_constant(counted)).values
        means.append(np.nanmean(correlation[np.triu_indices(len(correlation), 1)]))
    assert len(means) == 44
    np.testing.assert_allclose(np.mean(means), 0.0103, atol=0.0001)
