"""Responses of `stringer2019_v1` are those in the file, its pre-processing is the published one, hostile files end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from fixtures import stringer2019_v1 as fixture
from neurovar_datasets import CorruptDataError, DataUnavailableError, stringer2019_v1
from neurovar_datasets._reading.mat_structs import struct_fields
from neurovar_datasets._registry.stringer2019_sessions import SETS
from scipy.io import loadmat, savemat

from neurovar import responses, statistics

SESSION = fixture.SESSION
KEPT = [cell for cell in range(fixture.N_CELLS) if cell not in fixture.RED]


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def path(tmp_path: Path, content: dict) -> Path:
    return fixture.write(tmp_path, content)


def load(path: Path) -> xr.DataArray:
    return stringer2019_v1.load(session=SESSION, path=path)


@pytest.mark.parametrize("compressed", [False, True])
def test_repeats_are_in_the_order_shown(tmp_path: Path, content: dict, compressed: bool) -> None:
    da = responses.validate(load(fixture.write(tmp_path, content, compressed=compressed)))
    assert da.shape == (len(fixture.SHOWN), fixture.N_REPEATS, len(KEPT))
    assert da.stimulus.values.tolist() == fixture.SHOWN.tolist()
    resp, ids = content["stim"]["resp"], content["stim"]["istim"].ravel()
    for at, stimulus in enumerate(fixture.SHOWN):
        rows = [row for row in range(len(ids)) if ids[row] == stimulus]
        assert da.presentation.values[at].tolist() == rows
        for repeat, row in enumerate(rows):
            np.testing.assert_array_equal(da.values[at, repeat], resp[row, KEPT])


def test_the_file_is_as_scipy_reads_it(path: Path, content: dict) -> None:
    """Their resp, istim and redcell are read without scipy."""
    read = loadmat(path)
    for name in ("resp", "istim", "spont", "ori"):
        (field,) = struct_fields(path, "stim", [name])[name]
        np.testing.assert_array_equal(field, read["stim"][0, 0][name])
    flags = struct_fields(path, "stat", ["redcell", "npix", "absent"])
    assert list(flags) == ["npix", "redcell"]
    np.testing.assert_array_equal(flags["npix"], [cell["npix"] for cell in read["stat"].ravel()])


@pytest.mark.parametrize("dtype", ["u1", "i2", "i8", "f4", "f8", "?"])
def test_every_type_of_number_is_read_as_scipy_reads_it(tmp_path: Path, dtype: str) -> None:
    values = np.arange(12).reshape(3, 4).astype(dtype)
    savemat(tmp_path / "types.mat", {"first": 1, "s": {"a": "text", "b": values, "c": np.array([[{"d": 1}]])}})
    (field,) = struct_fields(tmp_path / "types.mat", "s", ["b"])["b"]
    np.testing.assert_array_equal(field, loadmat(tmp_path / "types.mat")["s"][0, 0]["b"])


def test_a_struct_that_unpacks_to_far_more_than_the_file(
    tmp_path: Path, content: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    content["stim"]["spont"] = np.zeros((4000, fixture.N_CELLS), dtype=np.float32)
    path = fixture.write(tmp_path, content)
    monkeypatch.setattr("neurovar_datasets._reading.refusals.MIN_LIMIT", 1 << 10)
    monkeypatch.setattr("neurovar_datasets._reading.refusals.MAX_EXPANSION", 10)
    with pytest.raises(CorruptDataError, match=r"\.mat: stim: expected at most \d+ bytes when unpacked, got more"):
        load(path)


def test_units_and_attributes(path: Path, content: dict) -> None:
    da = load(path)
    assert da.unit.values.tolist() == KEPT
    np.testing.assert_array_equal(np.stack([da.x, da.y, da.z], axis=1), content["med"][KEPT])
    assert set(da.area.values) == {"V1"}
    assert set(da.subject.values) == {"M170604_MP031"}
    assert set(da.session.values) == {SESSION}
    assert (da.attrs["red_cells_dropped"], da.attrs["grey_presentations_dropped"]) == (2, 4)
    assert da.attrs["incomplete_presentations"] == 0
    assert (da.attrs["units"], da.attrs["doi"]) == ("deconvolved fluorescence", "10.25378/janelia.6845348")
    with pytest.raises(ValueError, match="expected counts"):
        statistics.fano_factor(da)


def test_without_flags_no_cell_is_red(tmp_path: Path, content: dict) -> None:
    for cell in content["stat"]:
        del cell["redcell"]
    da = load(fixture.write(tmp_path, content))
    assert da.sizes["unit"] == fixture.N_CELLS
    assert da.attrs["red_cells_dropped"] == "not recorded"


def test_the_direction_of_each_stimulus(tmp_path: Path, content: dict) -> None:
    expected = fixture.SHOWN * 360 / 32
    np.testing.assert_array_equal(load(fixture.write(tmp_path, content)).direction, expected)
    for n_ids in (32, 33):
        content["stim"]["ori"] = (np.arange(1, n_ids + 1) * 360 / 32)[None]
        np.testing.assert_array_equal(load(fixture.write(tmp_path, content)).direction, expected)
    del content["stim"]["ori"]
    assert "direction" not in load(fixture.write(tmp_path, content)).coords


def test_a_file_without_grey_screens_keeps_its_last_stimulus(tmp_path: Path, content: dict) -> None:
    shown = content["stim"]["istim"].ravel() != fixture.GREY
    for name in ("resp", "istim", "ori"):
        content["stim"][name] = content["stim"][name][shown]
    da = load(fixture.write(tmp_path, content))
    assert da.stimulus.values.tolist() == fixture.SHOWN.tolist()
    assert da.attrs["grey_presentations_dropped"] == 0


def test_the_largest_id_of_a_shorter_session_is_the_grey_screen(tmp_path: Path, content: dict) -> None:
    ids = content["stim"]["istim"]
    ids[ids == fixture.GREY] = 20
    ids[ids > 20] -= 20
    assert load(fixture.write(tmp_path, content)).stimulus.values.tolist() == [2, 5, 11, 12, 17]


def test_a_presentation_with_nan_is_absent(tmp_path: Path, content: dict) -> None:
    ids = content["stim"]["istim"].ravel()
    first, *others = np.flatnonzero(ids == 17)
    content["stim"]["resp"][first, 5] = np.nan
    da = load(fixture.write(tmp_path, content))
    assert da.attrs["incomplete_presentations"] == 1
    assert da.presentation.sel(stimulus=17).values.tolist() == [*others, -1]
    assert np.isnan(da.sel(stimulus=17).values[-1]).all()
    assert responses.repeat_counts(da).values.tolist() == [3, 3, 2, 3, 3]


def test_spontaneous_activity_is_of_the_same_cells(path: Path, content: dict) -> None:
    da = stringer2019_v1.spontaneous(session=SESSION, path=path)
    assert da.dims == ("time", "unit")
    np.testing.assert_array_equal(da, content["stim"]["spont"][:, KEPT])
    np.testing.assert_array_equal(da.unit, load(path).unit)
    assert da.attrs["units"] == "deconvolved fluorescence"


@pytest.mark.parametrize("empty", [np.zeros((0, 0)), np.zeros((0, fixture.N_CELLS)), None])
def test_a_session_without_spontaneous_activity(tmp_path: Path, content: dict, empty: np.ndarray | None) -> None:
    content["stim"]["spont"] = empty
    if empty is None:
        del content["stim"]["spont"]
    path = fixture.write(tmp_path, content)
    assert load(path).sizes["unit"] == len(KEPT)
    with pytest.raises(ValueError, match=r"MP031_2017-06-26\.mat: expected spontaneous activity in stim\.spont, got"):
        stringer2019_v1.spontaneous(session=SESSION, path=path)


def reference(resp: np.ndarray, spont: np.ndarray) -> np.ndarray:
    """The lines of loadProc2800.m from `mu` to the mean centring, for (presentation, unit) without grey screens."""
    if spont.size:
        mu, sd = spont.mean(axis=0), spont.std(axis=0, ddof=0) + 1e-6
    else:
        mu, sd = resp.mean(axis=0), resp.std(axis=0, ddof=0) + 1e-6
    resp = (resp - mu) / sd
    if spont.size:
        v = np.linalg.svd((spont - mu) / sd, full_matrices=False)[2].T[:, :32]
        resp = resp - (resp @ v) @ v.T
    return resp - resp.mean(axis=0)


@pytest.mark.parametrize("n_times", [36, 60])
def test_preprocessing_is_the_published_one(tmp_path: Path, content: dict, n_times: int) -> None:
    content["stim"]["spont"] = np.random.default_rng(1).gamma(0.5, 1, (n_times, fixture.N_CELLS))
    path = fixture.write(tmp_path, content)
    activity = stringer2019_v1.spontaneous(session=SESSION, path=path)
    da = stringer2019_v1.preprocess(load(path), activity)
    rows = load(path).presentation.values
    shown = np.sort(rows.ravel())
    expected = reference(content["stim"]["resp"][shown][:, KEPT].astype(float), content["stim"]["spont"][:, KEPT])
    for (stimulus, repeat), row in np.ndenumerate(rows):
        np.testing.assert_allclose(da.values[stimulus, repeat], expected[np.searchsorted(shown, row)], atol=1e-8)
    assert (da.attrs["units"], da.attrs["spontaneous_dimensions_removed"]) == ("z-score", 32)
    assert da.dtype == np.float64


def test_preprocessing_without_spontaneous_activity(path: Path, content: dict) -> None:
    da = load(path)
    expected = reference(da.values.reshape(-1, len(KEPT)).astype(float), np.zeros((0, 0)))
    z = stringer2019_v1.preprocess(da, None)
    np.testing.assert_allclose(z.values.reshape(-1, len(KEPT)), expected, atol=1e-12)
    assert z.attrs["spontaneous_dimensions_removed"] == 0


def test_preprocessing_keeps_absent_trials(tmp_path: Path, content: dict) -> None:
    content["stim"]["resp"][np.flatnonzero(content["stim"]["istim"].ravel() == 17)[0]] = np.nan
    path = fixture.write(tmp_path, content)
    da = load(path)
    z = responses.validate(stringer2019_v1.preprocess(da, stringer2019_v1.spontaneous(session=SESSION, path=path)))
    np.testing.assert_array_equal(np.isnan(z), np.isnan(da))


def test_preprocessing_refuses_what_it_cannot_do(path: Path) -> None:
    da, activity = load(path), stringer2019_v1.spontaneous(session=SESSION, path=path)
    with pytest.raises(ValueError, match=r"expected the same units, got others \(38 of responses, 37 of spontaneous"):
        stringer2019_v1.preprocess(da, activity[:, 1:])
    with pytest.raises(
        ValueError, match=r"expected at least 32 times and units of spontaneous activity, got \(31, 38\)"
    ):
        stringer2019_v1.preprocess(da, activity[:31])
    with pytest.raises(ValueError, match="expected finite spontaneous activity, got 38 other values"):
        stringer2019_v1.preprocess(da, activity.where(activity.time > 0))


def images_file(folder: Path, pixels: np.ndarray, *, session: str = "natimg2800_8D_M170604_MP031_2017-07-02") -> Path:
    path = folder / f"images_{session}.mat"
    savemat(path, {"imgs": pixels}, do_compression=True)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (68, 270, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_scaled_to_one(tmp_path: Path, pixels: np.ndarray, dtype: type) -> None:
    session = "natimg2800_small_M170717_MP033_2017-08-24"  # one that is not listed
    images_file(tmp_path, pixels.astype(dtype), session=session)
    da = stringer2019_v1.images(session=session, path=tmp_path)
    assert da.shape == (3, 1, 68, 270)
    assert da.dtype == np.float32
    assert da.stimulus.values.tolist() == [1, 2, 3]
    for image, row, column in [(0, 0, 0), (1, 5, 269), (2, 67, 8)]:
        assert da.values[image, 0, row, column] == pytest.approx(pixels[row, column, image] / 255)
    assert (da.channel.values.tolist(), da.attrs["units"]) == (["grey"], "intensity")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:67], r"imgs: expected 68 × 270 × up to 2800 pixels, got shape \(67, 270, 3\)"),
        (lambda p: p[..., 0], r"imgs: expected 3 dims, got shape \(68, 270\)"),
        (lambda p: p + 0.5j, r"imgs: expected real numbers, got dtype complex128"),
        (lambda p: p - 200.0, r"imgs: expected pixels from 0 to 255, got others"),
        (lambda p: p * np.nan, r"imgs: expected pixels from 0 to 255, got others"),
    ],
)
def test_images_of_another_form(tmp_path: Path, pixels: np.ndarray, change: Callable, message: str) -> None:
    session = "natimg2800_M160825_MP027_2016-12-14"
    path = images_file(tmp_path, change(pixels), session="natimg2800_all")
    with pytest.raises(CorruptDataError, match=message):
        stringer2019_v1.images(session=session, path=path)


def test_sessions_have_their_files() -> None:
    names = stringer2019_v1.sessions()
    assert len(names) == len(set(names)) == 26
    sets = {name: sum(session.startswith(f"{name}_M") for session in names) for name in SETS}
    assert sets == {
        "natimg2800": 7,
        "natimg2800_white": 0,
        "natimg2800_8D": 6,
        "natimg2800_4D": 4,
        "natimg2800_small": 1,
        "ori32": 4,
        "natimg32": 4,
    }
    files = stringer2019_v1.SOURCE.sessions["natimg2800_8D_M170604_MP031_2017-07-02"]
    assert [file.name for file in files] == [
        "natimg2800_8D_M170604_MP031_2017-07-02.mat",
        "images_natimg2800_8D_M170604_MP031_2017-07-02.mat",
    ]
    shared = {stringer2019_v1.SOURCE.sessions[name][1].name for name in names if name.startswith("natimg2800_M")}
    assert shared == {"images_natimg2800_all.mat"}
    assert all(file.hash or file.by_hand for files in stringer2019_v1.SOURCE.sessions.values() for file in files)


@pytest.mark.parametrize("session", ["natimg2800", "sparse_M170604_MP031_2017-06-26", "../natimg2800_x", "", None])
@pytest.mark.parametrize("function", [stringer2019_v1.load, stringer2019_v1.spontaneous, stringer2019_v1.images])
def test_a_session_of_another_form(function: Callable, session: Any) -> None:
    with pytest.raises(ValueError, match="expected a session such as 'natimg2800_M160825_MP027_2016-12-14', got"):
        function(session=session)


def test_what_has_no_address_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    session = "natimg2800_white_M170717_MP033_2017-08-22"
    with pytest.raises(
        DataUnavailableError, match=rf"download {session}\.mat from figshare \(https://doi\.org/10\.25378"
    ):
        stringer2019_v1.load(session=session)
    with pytest.raises(DataUnavailableError, match=r"download images_natimg2800_white_all\.mat from figshare"):
        stringer2019_v1.images(session=session)


def put(group: str, name: str, value: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        holder = content[group] if group else content
        holder[name] = value(holder[name]) if callable(value) else value

    return change


def drop(group: str, name: str) -> Callable[[dict], None]:
    return lambda content: (content[group] if group else content).pop(name)


def flag(value: Any) -> Callable[[dict], None]:
    return lambda content: content["stat"][7].update(redcell=value)


def infinite(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values))[:, None] == 3, np.inf, values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("", "stim"), "stim: expected one variable of this name, got 0"),
        (put("", "stim", np.ones((2, 2))), "stim: expected a struct, got an array of class 6"),
        (put("", "stim", lambda s: [s, s]), "stim: expected a struct of size 1 × 1, got another size"),
        (drop("stim", "resp"), r"stim\.resp: expected rows of 40 cells, as in med, got shape \(0, 0\)"),
        (put("stim", "resp", lambda r: r[:, 1:]), r"stim\.resp: expected rows of 40 cells, as in med, got shape"),
        (put("stim", "resp", lambda r: r[..., None]), r"stim\.resp: expected 2 dims|rows of 40 cells"),
        (put("stim", "resp", lambda r: r + 1j), r"stim\.resp: expected real numbers, got class 7"),
        (put("stim", "resp", "text"), r"stim\.resp: expected real numbers, got class 4"),
        (put("stim", "resp", infinite), r"stim\.resp: expected finite responses or NaN, got infinity"),
        (put("stim", "resp", lambda r: r * np.nan), r"stim\.resp: expected presentations of stimuli .* got none"),
        (drop("stim", "istim"), r"stim\.istim: expected 19 ids, as in stim\.resp, got 0"),
        (put("stim", "istim", lambda i: i[1:]), r"stim\.istim: expected 19 ids, as in stim\.resp, got 18"),
        (put("stim", "istim", lambda i: i + 0.5), r"stim\.istim: expected whole numbers, got fractions"),
        (put("stim", "istim", lambda i: i + 1), r"stim\.istim: expected ids from 1 to 33, got 3 to 34"),
        (put("stim", "istim", lambda i: i - 2), r"stim\.istim: expected ids from 1 to 33, got 0 to 31"),
        (put("stim", "ori", lambda o: o[:5]), r"stim\.ori: expected a direction for each of 19 presentations or 33"),
        (put("stim", "ori", lambda o: np.arange(19.0)), r"stim\.ori: expected one direction for each stimulus, got"),
        (drop("", "med"), "med: expected a variable of this name, got none"),
        (put("", "med", lambda m: m[:, :2]), r"med: expected n × 3 values, got \(40, 2\)"),
        (put("", "med", lambda m: m[1:]), "expected one number for each of the 39 cells in med, got others"),
        (drop("", "stat"), "stat: expected one variable of this name, got 0"),
        (put("", "stat", lambda s: s[1:]), "expected one number for each of the 40 cells in med, got others"),
        (flag(np.zeros(2)), r"stat\.redcell: expected one number for each of the 40 cells in med, got others"),
        (flag("red"), r"stat\.redcell: expected real numbers, got class 4"),
        (flag(2), r"stat\.redcell: expected 0 or 1, got \[0 1 2\]"),
        (flag(np.nan), r"stat\.redcell: expected 0 or 1, got"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, content: dict, change: Callable[[dict], None], message: str) -> None:
    change(content)
    with pytest.raises(CorruptDataError, match=rf"MP031_2017-06-26\.mat: .*{message}"):
        load(fixture.write(tmp_path, content))


def test_only_red_cells(tmp_path: Path, content: dict) -> None:
    for cell in content["stat"]:
        cell["redcell"] = 1
    with pytest.raises(CorruptDataError, match="expected some cells that are not red, got only red ones"):
        load(fixture.write(tmp_path, content))


def test_repeats_too_unequal_for_memory(tmp_path: Path, content: dict) -> None:
    """300,000 rows of one stimulus and one of each other would be padded to 32 × 300,000."""
    ids = np.concatenate([np.full(300_000, 1), np.arange(2, 34)])[:, None]
    content["stim"] = {"resp": np.zeros((len(ids), 40), dtype=np.uint8), "istim": ids}
    with pytest.raises(CorruptDataError, match=r"stim\.istim: expected about as many repeats .* got 1 to 300000"):
        load(fixture.write(tmp_path, content))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file(tmp_path: Path, content: dict, compressed: bool) -> None:
    path = fixture.write(tmp_path, content, compressed=compressed)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptDataError, match=r"MP031_2017-06-26\.mat: "):
            load(path)


# What large sessions need of `responses`


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("rows", [[0, 1, 2, 4, 5, 6], [0, 2, 3, 5, 6], [6, 1]])
def test_rows_are_taken_whatever_their_layout(
    shape: tuple[int, ...], order: Any, dtype: type, overwrite: bool, rows: list[int]
) -> None:
    given = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    ids = np.array([4, 9, 4, 9, 4, 2, 2])
    values = np.array(given, order=order)
    da = responses.arrange(values, ids, rows=np.array(rows), overwrite=overwrite)
    for at, stimulus in enumerate(da.stimulus.values):
        of_stimulus = [row for row in rows if ids[row] == stimulus]
        for repeat, row in enumerate(of_stimulus):
            np.testing.assert_array_equal(da.values[at, repeat], given[row])
        assert np.isnan(da.values[at, len(of_stimulus) :]).all()
        assert da.presentation.values[at].tolist() == of_stimulus + [-1] * (da.sizes["repeat"] - len(of_stimulus))
    assert da.dtype == (np.float64 if dtype is np.float64 else np.float32)
    if not overwrite:
        np.testing.assert_array_equal(values, given)


def test_a_large_array_becomes_its_own_result() -> None:
    values = np.asfortranarray(np.random.default_rng(0).random((40, 3000), dtype=np.float32))
    expected, ids = values.copy(), np.random.default_rng(1).permutation(np.repeat(np.arange(20), 2))
    da = responses.arrange(values, ids, overwrite=True)
    assert np.shares_memory(da.values, values)
    np.testing.assert_array_equal(da.values, expected[da.presentation.values])


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one of the 2 presentations to take, got none"):
        responses.arrange(np.ones((2, 3)), np.array([1, 1]), rows=np.array([], dtype=int))


@pytest.mark.parametrize("value", [60_000, -60_000])
def test_finite_values_whose_sum_is_not_are_valid(value: float) -> None:
    da = xr.DataArray(np.full((2, 2, 3), value, np.float16), dims=responses.DIMS, coords={"stimulus": [1, 2]})
    assert responses.validate(da, min_repeats=2) is da
    with pytest.raises(ValueError, match="expected finite responses or NaN, got 1 infinite values"):
        responses.validate(da.where(np.arange(12).reshape(2, 2, 3) > 0, np.inf))
