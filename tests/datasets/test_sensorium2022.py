"""Responses of `sensorium2022` are those in the archive or folder; withheld ones and hostile files are refused."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fixtures import sensorium2022 as fixture
from neurovar_datasets import CorruptDataError, DataUnavailableError, sensorium2022

from neurovar import responses

SESSION = fixture.SESSION


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def path(tmp_path: Path, content: dict) -> Path:
    return fixture.write(tmp_path, content)


def load(path: Path, tier: str = "test") -> xr.DataArray:
    return sensorium2022.load(session=SESSION, tier=tier, path=path)


def rows(tier: str, image: int) -> list[int]:
    return [i for i in range(len(fixture.TIERS)) if fixture.TIERS[i] == tier and fixture.IMAGE_IDS[i] == image]


@pytest.mark.parametrize("tier", ["test", "train", "validation"])
def test_each_trial_is_a_repeat_of_its_image(path: Path, content: dict, tier: str) -> None:
    da = responses.validate(load(path, tier))
    shown = sorted({int(i) for i, t in zip(fixture.IMAGE_IDS, fixture.TIERS) if t == tier})
    assert da.stimulus.values.tolist() == shown
    for image in shown:
        trials = rows(tier, image)
        of_image = da.sel(stimulus=image)
        for repeat, trial in enumerate(trials):
            np.testing.assert_array_equal(of_image[repeat], content["data"]["responses"][trial])
        absent = da.sizes["repeat"] - len(trials)
        assert of_image.trial.values.tolist() == trials + [-1] * absent
        assert np.isnan(of_image.values[len(trials) :]).all()
    assert (da.attrs["tier"], da.attrs["units"]) == (tier, "deconvolved fluorescence")


def test_test_is_the_default(path: Path) -> None:
    xr.testing.assert_identical(sensorium2022.load(session=SESSION, path=path), load(path, "test"))


def test_units_have_what_the_file_says_of_them(path: Path, content: dict) -> None:
    da, neurons = load(path), content["meta"]["neurons"]
    np.testing.assert_array_equal(da.unit_id, neurons["unit_ids"])
    np.testing.assert_array_equal(np.stack([da.x, da.y, da.z], axis=1), neurons["cell_motor_coordinates"])
    assert set(da.area.values) == {"V1"}
    assert set(da.layer.values) == {"L2/3"}
    assert set(da.subject.values) == {"21067"}
    assert set(da.session.values) == {SESSION}


def test_trials_have_what_the_animal_did(path: Path, content: dict) -> None:
    da = load(path)
    for at, image in enumerate(da.stimulus.values.tolist()):
        for repeat, trial in enumerate(rows("test", image)):
            behavior, pupil = content["data"]["behavior"][trial], content["data"]["pupil_center"][trial]
            assert da.pupil_dilation.values[at, repeat] == behavior[0]
            assert da.pupil_dilation_change.values[at, repeat] == behavior[1]
            assert da.running_speed.values[at, repeat] == behavior[2]
            assert (da.pupil_x.values[at, repeat], da.pupil_y.values[at, repeat]) == tuple(pupil)
    np.testing.assert_array_equal(np.isnan(da.running_speed), da.trial < 0)


def test_what_a_file_does_not_say_is_left_out(tmp_path: Path, content: dict) -> None:
    content["data"] = {name: content["data"][name] for name in ("images", "responses")}
    content["meta"]["neurons"] = {}
    da = load(fixture.write(tmp_path, content))
    assert set(da.coords) == {"stimulus", "trial", "unit", "area", "subject", "session"}
    assert set(da.area.values) == {"V1"}


def test_texts_as_bytes_and_shapes_with_one_row(tmp_path: Path, content: dict) -> None:
    content["meta"]["trials"]["tiers"] = fixture.TIERS.astype("S")
    content["data"]["behavior"] = [values[None] for values in content["data"]["behavior"]]
    xr.testing.assert_identical(load(fixture.write(tmp_path, content)), load(fixture.unpack(tmp_path, content)))


def test_an_unpacked_folder_is_read_as_the_archive_is(tmp_path: Path, content: dict) -> None:
    (tmp_path / "zip").mkdir()
    packed = load(fixture.write(tmp_path / "zip", content))
    folder = fixture.unpack(tmp_path, content)
    xr.testing.assert_identical(load(folder), packed)
    xr.testing.assert_identical(load(tmp_path), packed)
    xr.testing.assert_identical(load(tmp_path / "zip"), packed)


def test_nothing_is_unpacked(tmp_path: Path, path: Path) -> None:
    load(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("whole_folder", [False, True])
def test_links_out_of_a_folder_are_not_followed(tmp_path: Path, content: dict, whole_folder: bool) -> None:
    folder = fixture.unpack(tmp_path, content)
    secret = tmp_path / "secret"
    linked = folder / "data/responses" if whole_folder else folder / "data/responses/4.npy"
    linked.rename(secret)
    os.symlink(secret, linked)
    with pytest.raises(
        CorruptDataError, match=r"data/responses/\d\.npy: expected a file in this folder, got a link out"
    ):
        load(folder)


def test_links_within_a_folder_are_followed(tmp_path: Path, content: dict) -> None:
    folder = fixture.unpack(tmp_path, content)
    expected = load(folder)
    (folder / "data/responses/4.npy").rename(folder / "moved")
    os.symlink("../../moved", folder / "data/responses/4.npy")
    xr.testing.assert_identical(load(folder), expected)


@pytest.mark.parametrize("tier", ["test", "train"])
def test_images_have_the_ids_of_the_responses(path: Path, content: dict, tier: str) -> None:
    da = sensorium2022.images(session=SESSION, tier=tier, path=path)
    np.testing.assert_array_equal(da.stimulus, load(path, tier).stimulus)
    assert da.shape[1:] == (1, fixture.ROWS, fixture.COLUMNS)
    assert (da.dtype, da.attrs["units"]) == (np.float32, "intensity")
    for at, image in enumerate(da.stimulus.values.tolist()):
        expected = content["data"]["images"][rows(tier, image)[0]] / 255
        np.testing.assert_allclose(da.values[at], expected, atol=1e-7)


@pytest.mark.parametrize("session", ["26872-17-20", "27204-5-13"])
@pytest.mark.parametrize("tier", ["test", "final_test"])
def test_withheld_responses_are_refused(session: str, tier: str) -> None:
    message = f"expected a session with responses of tier '{tier}', got '{session}', of which they were withheld"
    with pytest.raises(ValueError, match=message):
        sensorium2022.load(session=session, tier=tier)


def test_responses_that_are_all_zero_are_refused(tmp_path: Path, content: dict) -> None:
    content["data"]["responses"] = [0 * values for values in content["data"]["responses"]]
    with pytest.raises(
        CorruptDataError, match="data/responses: expected responses, got only zeros: they were withheld"
    ):
        load(fixture.write(tmp_path, content))


def test_sessions_and_tiers() -> None:
    assert sensorium2022.sessions() == sensorium2022.SESSIONS
    files = [file for files in sensorium2022.SOURCE.sessions.values() for file in files]
    assert len({file.path for file in files}) == 7
    assert all(file.url.startswith("https://gin.g-node.org/cajal/Sensorium2022/raw/a4a41225") for file in files)
    assert all(len(file.hash) in (0, len("sha256:") + 64) for file in files)
    with pytest.raises(ValueError, match="expected the session to be one of '21067-10-18'"):
        sensorium2022.load(session="21067")
    with pytest.raises(ValueError, match="expected the tier to be one of 'train', 'validation', 'test', 'final_test'"):
        sensorium2022.load(session=SESSION, tier="all")
    with pytest.raises(ValueError, match="expected the session to be one of '21067-10-18'"):
        sensorium2022.images(session="21067")


def test_a_path_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a file static21067-10-18.*\.zip at the path given, found none"):
        load(tmp_path)


def test_offline_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.delenv("NEUROVAR_DATA", raising=False)
    monkeypatch.setattr(
        "neurovar_datasets._fetching.download.reach", lambda url, timeout: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(DataUnavailableError, match="no network"):
        sensorium2022.load(session=SESSION)


def trials(name: str, value: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        holder = content["meta"]["trials"]
        holder[name] = value(holder[name]) if callable(value) else value

    return change


def response(value: Any) -> Callable[[dict], None]:
    return lambda content: content["data"]["responses"].__setitem__(4, value)


def drop(*names: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for name in names[:-1]:
            content = content[name]
        content.pop(names[-1])

    return change


NAN = np.array([np.nan, 1, 1, 1, 1, 1], dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("meta", "trials", "tiers"), r"meta/trials/tiers\.npy: expected one file of this name, got 0"),
        (drop("meta", "trials", "frame_image_id"), r"frame_image_id\.npy: expected to be there, got nothing"),
        (drop("data", "responses"), r"data/responses/1\.npy: expected to be there, got nothing"),
        (trials("tiers", lambda t: t[:-1]), r"frame_image_id\.npy: expected 10 ids, as in tiers\.npy, got 11"),
        (trials("tiers", np.arange(11)), r"tiers\.npy: expected texts, got dtype int64"),
        (trials("tiers", np.full(11, "train")), r"tiers\.npy: expected trials of tier 'test', got \['train'\]"),
        (trials("tiers", np.full(12, "test")), r"frame_image_id\.npy: expected 12 ids, as in tiers\.npy, got 11"),
        (trials("frame_image_id", lambda i: i + 0.5), r"frame_image_id\.npy: expected whole numbers, got fractions"),
        (trials("frame_image_id", lambda i: i.astype(str)), r"frame_image_id\.npy: expected real numbers, got dtype"),
        (response(np.ones(5, dtype=np.float32)), r"responses/4\.npy: expected float32 of shape \(6,\), got float32 of"),
        (response(np.ones(6)), r"responses/4\.npy: expected float32 of shape \(6,\), got float64"),
        (response(np.full(6, "a")), r"responses/4\.npy: expected real numbers, got dtype <U1"),
        (
            response(np.array([{}] * 6)),
            r"responses/4\.npy: cannot be read \(ValueError: Object arrays cannot be loaded",
        ),
        (response(NAN), "responses: expected each trial to be whole or absent, got 1 trials"),
        (response(np.float32(np.inf) * NAN), "responses: expected finite responses or NaN, got 5 infinite values"),
        (lambda c: c["data"].update(responses=[np.ones((2, 3))] * 11), r"responses: expected a response of each unit"),
        (lambda c: c["data"].update(behavior=[np.ones(2)] * 11), r"data/behavior: expected 3 values, got \(2,\)"),
        (lambda c: c["data"].update(behavior=[np.ones(3)] * 3), r"data/behavior/4\.npy: expected to be there"),
        (lambda c: c["meta"]["neurons"].update(area=np.full(5, "V1")), r"area\.npy: expected one for each of 6 units"),
        (lambda c: c["meta"]["neurons"].update(area=np.arange(6)), r"area\.npy: expected texts, got dtype int64"),
        (
            lambda c: c["meta"]["neurons"].update(unit_ids=np.ones(7)),
            r"unit_ids\.npy: expected one for each of 6 units",
        ),
        (
            lambda c: c["meta"]["neurons"].update(cell_motor_coordinates=np.ones((6, 2))),
            r"cell_motor_coordinates\.npy: expected 6 × 3 values, got \(6, 2\)",
        ),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, content: dict, change: Callable[[dict], None], message: str) -> None:
    change(content)
    with pytest.raises(CorruptDataError, match=rf"\.zip: .*{message}"):
        load(fixture.write(tmp_path, content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p - 300, "data/images: expected pixels from 0 to 255, got others"),
        (lambda p: p[0], r"data/images: expected images 1 × row × column, got shape \(4, 5\)"),
        (lambda p: np.repeat(p, 2, axis=0), r"data/images: expected images 1 × row × column, got shape \(2, 4, 5\)"),
    ],
)
def test_images_of_another_form(tmp_path: Path, content: dict, change: Callable, message: str) -> None:
    content["data"]["images"] = [change(pixels) for pixels in content["data"]["images"]]
    with pytest.raises(CorruptDataError, match=message):
        sensorium2022.images(session=SESSION, path=fixture.write(tmp_path, content))


def test_repeats_too_unequal_for_memory(tmp_path: Path, content: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurovar_datasets._reading.repeats.MAX_VALUES", 10)
    content["meta"]["trials"]["tiers"] = np.full(11, "test")
    content["meta"]["trials"]["frame_image_id"] = np.array([1, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7])
    load(fixture.write(tmp_path, content))
    monkeypatch.setattr("neurovar_datasets._reading.repeats.MAX_PADDING", 2)
    with pytest.raises(CorruptDataError, match="expected about as many repeats of each stimulus, got 1 to 5"):
        load(fixture.write(tmp_path, content))


def test_a_truncated_archive(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptDataError, match=r"\.zip: "):
            load(path)
