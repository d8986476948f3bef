"""Units of `cadena2019_v1` are only correlated within a session; its pickle is explained, never read."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fixtures import cadena2019_v1 as fixture
from neurovar_datasets import CorruptDataError, DataUnavailableError, cadena2019_v1

from neurovar import responses, statistics

NAMES = [f"{kind}_{number}" for kind, number in zip(fixture.TYPES, fixture.IDS)]


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def path(tmp_path: Path, content: dict) -> Path:
    return fixture.write(tmp_path, content)


def load(path: Path, session: str = "all") -> xr.DataArray:
    return cadena2019_v1.load(session=session, path=path)


@pytest.mark.parametrize(
    ("session", "units", "n_repeats", "images"),
    [("11", [0, 1], 4, range(7)), ("12", [2, 3, 4], 2, range(7)), ("13", [5, 6], 3, [0, 1, 2, 3, 4, 6])],
)
def test_a_session_has_its_units_images_and_repeats(
    path: Path, content: dict, session: str, units: list[int], n_repeats: int, images: list[int]
) -> None:
    da = responses.validate(load(path, session), min_repeats=n_repeats)
    assert da.shape == (len(images), n_repeats, len(units))
    assert da.stimulus.values.tolist() == [NAMES[image] for image in images]
    assert da.unit.values.tolist() == units
    for at, image in enumerate(images):
        for repeat in range(n_repeats):
            np.testing.assert_array_equal(da.values[at, repeat], content["responses"][repeat, image, units])
    assert set(da.session.values) == {session}
    assert set(da.area.values) == {"V1"}
    assert da.unit_id.values.tolist() == content["unit_id"][units].astype(str).tolist()
    assert da.subject.values.tolist() == content["subject_id"][units].astype(str).tolist()
    assert (da.attrs["units"], da.attrs["license"]) == ("spike count", "CC-BY-NC-ND-4.0")
    assert "recording" not in da.coords
    assert statistics.fano_factor(da).sizes["unit"] == len(units)


def test_all_units_have_the_trials_that_all_were_shown(path: Path, content: dict) -> None:
    da = responses.validate(load(path), min_repeats=2)
    images = [0, 1, 2, 3, 4, 6]
    assert da.shape == (6, 2, 7)
    np.testing.assert_array_equal(da.values, content["responses"][:2][:, images].transpose(1, 0, 2))
    n_left_out = 2 * 1 + 2 * 7  # of image 5 in both repeats, and of all images in repeats 3 and 4
    assert da.attrs["incomplete_trials"] == n_left_out
    with pytest.raises(ValueError, match=f"got units of {len(np.unique(da.session))} recordings"):
        responses.require_simultaneous(da)


def test_images_are_those_of_the_responses(path: Path, content: dict) -> None:
    da = cadena2019_v1.images(session="13", path=path)
    np.testing.assert_array_equal(da.stimulus, load(path, "13").stimulus)
    assert da.shape == (6, 1, fixture.PIXELS, fixture.PIXELS)
    np.testing.assert_allclose(da.values[5, 0], content["images"][6] / 255, atol=1e-7)
    assert (da.dtype, da.attrs["units"]) == (np.float32, "intensity")
    assert cadena2019_v1.images(path=path).sizes["stimulus"] == 6


@pytest.mark.parametrize("session", ["all", "12"])
def test_matlab_files_are_read_as_numpy_ones(tmp_path: Path, content: dict, path: Path, session: str) -> None:
    matlab = fixture.write_mat(tmp_path, content)
    xr.testing.assert_identical(load(matlab, session), load(path, session))
    xr.testing.assert_identical(
        cadena2019_v1.images(session=session, path=matlab), cadena2019_v1.images(session=session, path=path)
    )


def test_ids_may_be_texts(tmp_path: Path, content: dict) -> None:
    content["session_id"] = np.array([f"day{number}" for number in fixture.SESSIONS])
    da = load(fixture.write(tmp_path, content), "day13")
    assert da.unit.values.tolist() == [5, 6]


def test_responses_that_are_no_counts_are_not_called_so(tmp_path: Path, content: dict) -> None:
    content["responses"] /= 3
    da = load(fixture.write(tmp_path, content), "11")
    assert da.attrs["units"] == "response"
    with pytest.raises(ValueError, match="expected counts"):
        statistics.fano_factor(da)


class Evil:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("pickle-was-run"),)


@pytest.mark.parametrize("name", ["cadena_ploscb_data.pkl", "cadena_ploscb_data.npz", "other.mat"])
def test_a_pickle_is_never_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps({"responses": Evil()}))
    with pytest.raises(ValueError, match=r"expected a \.npz or \.mat file, got a Python pickle, which runs"):
        load(tmp_path / name)
    assert not (tmp_path / "pickle-was-run").exists()


def test_the_lines_that_convert_a_pickle_do(tmp_path: Path, content: dict, path: Path) -> None:
    """They stand in the message; the published pickle has texts in arrays within an array."""
    expected = load(path, "13").load()
    cells = np.empty((7, 1), dtype=object)
    for at, kind in enumerate(fixture.TYPES):
        cells[at, 0] = np.array([kind])
    pickled = tmp_path / "cadena_ploscb_data.pkl"
    pickled.write_bytes(pickle.dumps(content | {"image_types": cells}))
    with pytest.raises(ValueError) as caught:
        load(pickled)
    lines = str(caught.value).strip().splitlines()[-3:]
    path.unlink()
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
    xr.testing.assert_identical(load(tmp_path, "13"), expected)


def test_the_only_file_is_had_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.delenv("NEUROVAR_DATA", raising=False)
    assert cadena2019_v1.sessions() == ("all",)
    with pytest.raises(DataUnavailableError, match=r"download the zip file, and make cadena_ploscb_data\.npz from"):
        cadena2019_v1.load()


@pytest.mark.parametrize("function", [cadena2019_v1.load, cadena2019_v1.images])
def test_a_session_that_is_not_there(path: Path, function: Callable) -> None:
    with pytest.raises(ValueError, match=r"\.npz: expected the session_id of some units, such as 11, 12, 13, got '14'"):
        function(session="14", path=path)


def put(name: str, value: Any) -> Callable[[dict], None]:
    return lambda content: content.update({name: value(content[name]) if callable(value) else value})


def with_value(value: float) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        content["responses"][1, 2, 0] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("responses"), "responses: expected an array of this name, got arrays"),
        (lambda c: c.pop("session_id"), "session_id: expected an array of this name, got arrays"),
        (put("responses", lambda r: r[0]), r"responses: expected 3 dims, got shape \(7, 7\)"),
        (put("responses", lambda r: r.astype(str)), "responses: expected real numbers, got dtype"),
        (with_value(-1), "responses: expected finite responses of 0 or more, or NaN, got infinite or negative ones"),
        (with_value(np.inf), "responses: expected finite responses of 0 or more, or NaN, got infinite or negative"),
        (with_value(np.nan), "responses: expected each trial to be whole or absent, got 1 trials"),
        (
            put("repetitions", fixture.REPETITIONS - 1),
            "responses: expected no more repeats of a unit than in repetitions",
        ),
        (put("repetitions", fixture.REPETITIONS[1:]), "repetitions: expected 7 units, got 6"),
        (put("image_ids", lambda i: i[1:]), "image_ids: expected 7, as responses has, got 6"),
        (put("image_ids", lambda i: 0 * i), "image_types and image_ids: expected unique ids, got 2 repeated ones"),
        (put("image_types", lambda t: t[1:]), "image_types: expected 7, as responses has, got 6"),
        (put("session_id", lambda s: s[1:]), "session_id: expected 7, as responses has, got 6"),
        (put("unit_id", lambda u: u + 0.5), "unit_id: expected whole numbers, got fractions"),
        (put("unit_id", np.array([{}] * 7)), r"unit_id\.npy: cannot be read \(ValueError: Object arrays"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, content: dict, change: Callable[[dict], None], message: str) -> None:
    change(content)
    with pytest.raises(CorruptDataError, match=rf"\.npz: {message}"):
        load(fixture.write(tmp_path, content), "11")


def test_units_without_a_common_trial(tmp_path: Path, content: dict) -> None:
    content["responses"][:, :3, 0] = np.nan
    content["responses"][:, 3:, 6] = np.nan
    with pytest.raises(CorruptDataError, match="expected trials that all units have in common, got none; load one"):
        load(fixture.write(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:5], "images: expected over 6 images, got 5"),
        (lambda p: p * 2.0, "images: expected pixels from 0 to 255, got others"),
        (lambda p: p[0], "images: expected 3 dims, got shape"),
    ],
)
def test_images_of_another_form(tmp_path: Path, content: dict, change: Callable, message: str) -> None:
    content["images"] = change(content["images"])
    with pytest.raises(CorruptDataError, match=message):
        cadena2019_v1.images(session="11", path=fixture.write(tmp_path, content))


def test_a_truncated_file(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptDataError, match=r"\.npz: "):
            load(path)
