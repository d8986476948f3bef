"""A user's own NumPy, HDF5, MATLAB and NWB files, as declared in Python or TOML; hostile ones are refused."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from fixtures import arrays as fixture
from neurovar_datasets import CorruptDataError, arrays
from neurovar_datasets._reading import hdf5_texts as _vlen
from neurovar_datasets.arrays import Declaration
from scipy.io import savemat
from scipy.sparse import csc_matrix

from neurovar import responses

COUNTS = {"units": "spike count"}
SRU = ("stimulus", "repeat", "unit")
RNG = np.random.default_rng(0)


def written(folder: Path, form: str, **changes: Any) -> Path:
    content = fixture.content(np.random.default_rng(1), form=form)
    content["declaration"] |= changes
    return fixture.write(folder, content)


@pytest.mark.parametrize("form", [form for form in fixture.FORMS if form != "nwb"])
def test_each_form_gives_what_was_written(tmp_path: Path, form: str) -> None:
    content = fixture.content(np.random.default_rng(1), form=form)
    fields = content["fields"].get("data", content["fields"])
    path = fixture.write(tmp_path, content)
    da = fixture.load(path)
    np.testing.assert_array_equal(da.values, fields["responses"])
    assert (da.dims, da.dtype, da.name) == (responses.DIMS, np.float64, "responses")
    assert da.stimulus.values.tolist() == [0, 10, 20, 30, 40]
    assert da.stimulus.dtype.kind == "i"
    assert da.unit.values.tolist() == [0, 1, 2, 3]
    assert da.area.values.tolist() == ["V1", "V4", "V4", "IT"]
    assert da.subject.values.tolist() == ["M1"] * 4
    np.testing.assert_array_equal(da.depth.values, fields["depth"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert da.attrs == COUNTS | {
        "source": path.name,
        "hash": f"sha256:{digest}",
        "window": "0.05 to 0.25 s",
        "citation": "Preble 2026",
    }


@pytest.mark.parametrize("bin_width", [None, 0.1])
def test_spikes_of_nwb_are_counted_in_the_window(tmp_path: Path, bin_width: float | None) -> None:
    content = fixture.content(np.random.default_rng(1), form="nwb")
    content["declaration"] |= {} if bin_width is None else {"bin_width": bin_width}
    da = fixture.load(fixture.write(tmp_path, content))
    fields = content["fields"]
    starts = [0.05] if bin_width is None else [0.05, 0.15]
    width = 0.2 if bin_width is None else bin_width
    for s, name in enumerate(da.stimulus.values):
        shown = np.flatnonzero(fields["picture"] == name)
        assert da.presentation.values[s].tolist() == shown.tolist()
        for r, u in np.ndindex(len(shown), 4):
            times = fields["spike_times"][f"unit{u}"] - fields["start_time"][shown[r]]
            counts = [((times >= start) & (times < start + width)).sum() for start in starts]
            assert da.values[s, r, u].ravel().tolist() == [float(n) for n in counts]
    np.testing.assert_array_equal(da.depth.values, fields["depth"])
    if bin_width is not None:
        assert (da.attrs["bin_width"], da.time.values.tolist()) == (0.1, [0.05, 0.15])


def test_trials_of_nwb_are_put_in_the_order_of_time(tmp_path: Path) -> None:
    content = fixture.content(np.random.default_rng(1), form="nwb")
    sorted_by_time = fixture.load(fixture.write(tmp_path, content))
    by_picture = np.argsort(content["fields"]["picture"], kind="stable")
    content["fields"] |= {name: content["fields"][name][by_picture] for name in ("picture", "start_time")}
    by_condition = fixture.load(fixture.write(tmp_path, content))
    xr.testing.assert_equal(by_condition, sorted_by_time)


def test_a_trial_of_nwb_without_a_stop_is_read(tmp_path: Path) -> None:
    path = fixture.write(tmp_path, fixture.content(np.random.default_rng(1), form="nwb"))
    whole = fixture.load(path)
    with h5py.File(path, "a") as file:
        file["intervals/trials/stop_time"][3] = np.nan
    np.testing.assert_array_equal(fixture.load(path), whole)


@pytest.mark.parametrize(
    ("of_units", "invalid", "units_out", "n_trials_out"),
    [
        # Trials begin every 0.5 s from 0 to 7 s, and 0.05 to 0.25 s of each is counted.
        ([[(0, 9)], [(0, 9)], [(0, 9)], [(0, 9)]], [], "", 0),
        ([[(0, 9)], [(0, 1), (1, 9)], [(-1, 9)], [(0, 7), (6, 9)]], [], "", 0),
        ([[(0, 9)], [(0, 9)], [(6, 9)], [(0, 9)]], [], "2", 0),
        ([[(0, 9)], [(0, 5.2)], [(0, 9)], [(0.2, 9)]], [], "", 6),
        ([[(0, 9)], [(0, 9)], [(0, 9)], []], [(1.1, 1.2), (3.26, 3.4)], "3", 1),
        ([], [(0, 0.04), (0.2, 0.6)], "", 2),
    ],
)
def test_time_of_nwb_that_was_not_observed_is_no_silence(
    tmp_path: Path, of_units: list, invalid: list, units_out: str, n_trials_out: int
) -> None:
    path = fixture.write(tmp_path, fixture.content(np.random.default_rng(1), form="nwb"))
    every = fixture.load(path)
    with h5py.File(path, "a") as file:
        if of_units:
            file["units/obs_intervals"] = np.array([span for spans in of_units for span in spans], dtype=float)
            file["units/obs_intervals_index"] = np.cumsum([len(spans) for spans in of_units])
        if invalid:
            file["intervals/invalid_times/id"] = np.arange(len(invalid))
            for name, times in zip(("start_time", "stop_time"), zip(*invalid)):
                file[f"intervals/invalid_times/{name}"] = np.array(times, dtype=float)
    observed = fixture.load(path)
    assert observed.attrs.get("presentations_left_out", 0) == n_trials_out
    reason = f"not observed during most presentations: {units_out}" if units_out else ""
    assert observed.attrs.get("units_left_out", "") == reason
    assert int(observed.isel(unit=0).notnull().sum()) == 15 - n_trials_out
    assert observed.unit.values.tolist() == [unit for unit in every.unit.values if str(unit) not in units_out]
    assert set(observed.values[observed.notnull().values]) <= set(every.values[every.notnull().values])


DIMS = [("stimulus", "repeat", "unit"), ("unit", "stimulus", "repeat"), ("time", "unit", "repeat", "stimulus")]


def in_file(folder: Path, form: str, values: np.ndarray, **fields: np.ndarray) -> dict[str, str]:
    """What is declared of a file that has `values` and, beside them, `fields`."""
    path = fixture.write(folder, {"form": form, "declaration": {}, "fields": {"responses": values, **fields}})
    return {"file": str(path)} | ({} if form == "npy" else {"responses": "responses"})


def timed(dims: tuple[str, ...]) -> dict[str, Any]:
    return {"window": (0.0, 0.2), "bin_width": 0.05} if "time" in dims else {}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", ["npy", "h5", "mat73"])
@pytest.mark.parametrize("dims", DIMS, ids=str)
def test_axes_may_have_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: tuple[str, ...], form: str, lazy: bool
) -> None:
    monkeypatch.setattr(responses, "CHUNK_BYTES", 2 * 3 * 4 * 8)
    sizes = {"stimulus": 5, "repeat": 3, "unit": 2, "time": 4}
    values = RNG.poisson(3, [sizes[dim] for dim in dims])
    declared = in_file(tmp_path, form, values)
    da = arrays.load(Declaration(**declared, **COUNTS, **timed(dims), dims=dims), lazy=lazy)
    wanted = responses.TIME_DIMS[: len(dims)]
    np.testing.assert_array_equal(da.values, xr.DataArray(values, dims=dims).transpose(*wanted).values)
    assert da.dims == wanted
    assert da.dtype.kind == "f"
    assert da.stimulus.values.tolist() == list(range(5))
    assert (da.chunks is not None and len(da.chunks[0]) > 1) == lazy
    if "time" in dims:
        np.testing.assert_allclose(da.time.values, [0, 0.05, 0.1, 0.15])
        assert da.attrs["bin_width"] == 0.05


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", ["npy", "h5", "mat73"])
@pytest.mark.parametrize("dims", [("presentation", "unit"), ("time", "unit", "presentation")], ids=str)
def test_presentations_become_the_repeats_of_their_stimuli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dims: tuple[str, ...], form: str, lazy: bool
) -> None:
    monkeypatch.setattr(responses, "CHUNK_BYTES", 200)
    values = RNG.poisson(3, [{"presentation": 9, "unit": 3, "time": 4}[dim] for dim in dims]).astype(np.uint8)
    ids = np.array([4, 2, 4, 7, 2, 4, 7, 9, 2.0])
    declared = in_file(tmp_path, form, values, ids=ids)
    declaration = Declaration(
        **declared, **COUNTS, **timed(dims), dims=dims, stimulus="ids.npy" if form == "npy" else "ids"
    )
    da = arrays.load(declaration, lazy=lazy)
    by_row = (
        xr.DataArray(values, dims=dims).transpose("presentation", ...).transpose(..., "time", missing_dims="ignore")
    )
    assert da.stimulus.values.tolist() == [2, 4, 7, 9]
    for s, number in enumerate([2, 4, 7, 9]):
        rows = np.flatnonzero(ids == number)
        np.testing.assert_array_equal(da.values[s, : len(rows)], by_row.values[rows])
        assert np.isnan(da.values[s, len(rows) :]).all()
        assert da.presentation.values[s].tolist() == [*rows, *[-1] * (3 - len(rows))]
    assert da.dtype == np.float32


def test_a_lazy_recording_is_read_by_stimuli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.poisson(3, (40, 5, 6)).astype(np.float32)
    monkeypatch.setattr(responses, "CHUNK_BYTES", 4 * 5 * 6 * 4)
    declaration = Declaration(**in_file(tmp_path, "npy", values), **COUNTS, dims=SRU)
    lazy = arrays.load(declaration, lazy=True)
    assert lazy.chunks == ((4,) * 10, (5,), (6,))
    responses.save(lazy, tmp_path / "recording.zarr")
    monkeypatch.undo()
    assert responses.open_zarr(tmp_path / "recording.zarr").identical(arrays.load(declaration))


@pytest.mark.parametrize("form", ["npz", "mat", "nwb"])
def test_what_cannot_be_read_in_parts_is_not_read_lazily(tmp_path: Path, form: str) -> None:
    path = fixture.declared_in(written(tmp_path, form))
    with pytest.raises(ValueError, match=r"expected \.npy, HDF5 or MATLAB 7\.3 to read lazily"):
        arrays.load(path, lazy=True)


def test_matlab_drops_axes_of_length_one_at_the_end(tmp_path: Path) -> None:
    values = RNG.poisson(3, (5, 3, 1)).astype(float)
    declared = in_file(tmp_path, "mat", values[:, :, 0])
    da = arrays.load(Declaration(**declared, **COUNTS, dims=SRU))
    np.testing.assert_array_equal(da.values, values)


def test_matlab_73_has_the_axes_that_size_gives(tmp_path: Path) -> None:
    """The element (2, 1, 3) of a MATLAB array of size 5 × 3 × 4 is at [3, 1, 2] (from 0) of the HDF5 dataset."""
    path = tmp_path / "recording.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["resp"] = np.zeros((4, 3, 5))
        file["resp"][3, 1, 2] = 7
    da = arrays.load(Declaration(path, **COUNTS, responses="resp", dims=SRU))
    assert da.shape == (5, 3, 4)
    assert da.values[2, 1, 3] == da.values.sum() == 7


def test_texts_of_any_kind_are_labels(tmp_path: Path) -> None:
    savemat(
        tmp_path / "a.mat",
        {"r": np.ones((2, 1, 3)), "ids": np.array(["dog  ", "horse"]), "area": np.array(["a", "", "ccc"], object)},
    )
    declaration = Declaration(
        tmp_path / "a.mat", **COUNTS, responses="r", dims=SRU, stimulus="ids", unit_coords={"area": "area"}
    )
    da = arrays.load(declaration)
    assert da.stimulus.values.tolist() == ["dog", "horse"]
    assert da.area.values.tolist() == ["a", "", "ccc"]
    np.savez(tmp_path / "a.npz", r=np.ones((2, 1, 3)), ids=np.array([b"dog", "pf\u00e4rd".encode()]))
    da = arrays.load(Declaration(tmp_path / "a.npz", **COUNTS, responses="r", dims=SRU, stimulus="ids"))
    assert da.stimulus.values.tolist() == ["dog", "pfärd"]


def test_nested_fields_are_found(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"data": {"v4": {"resp": np.ones((2, 1, 3))}}})
    assert arrays.load(Declaration(tmp_path / "a.mat", **COUNTS, responses="data.v4.resp", dims=SRU)).shape == (2, 1, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data/v4/resp"] = np.ones((2, 1, 3))
    assert arrays.load(Declaration(tmp_path / "a.h5", **COUNTS, responses="data/v4/resp", dims=SRU)).shape == (2, 1, 3)


def test_units_other_than_counts_may_be_negative(tmp_path: Path) -> None:
    declared = in_file(tmp_path, "npy", RNG.normal(size=(4, 3, 2)))
    assert (arrays.load(Declaration(**declared, units="dF/F", dims=SRU)) < 0).any()


def test_read_does_not_look_at_the_values(tmp_path: Path) -> None:
    declaration = Declaration(**in_file(tmp_path, "npy", np.full((4, 3, 2), -0.5)), **COUNTS, dims=SRU)
    assert (arrays.read(declaration) == -0.5).all()
    with pytest.raises(
        CorruptDataError, match=r"recording\.npy: responses: expected whole spike counts, got fractions"
    ):
        arrays.load(declaration)


def declared(**changes: Any) -> Declaration:
    keys = {"file": "a.npy", "units": "dF/F", "dims": SRU} | changes
    return Declaration(**{key: value for key, value in keys.items() if value is not None})


NWB = {"file": "a.nwb", "units": "spike count", "dims": (), "intervals": "trials", "stimulus": "x", "window": (0, 1)}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "suffix": ({"file": "a.xls"}, r"file: expected a name that ends in \.npy, \.npz, .*, got a\.xls"),
    "file": ({"file": 3}, "file: expected a path, got 3"),
    "no units": ({"units": ""}, "units: expected text such as 'spike count', .*, got none"),
    "units": ({"units": 3}, "units: expected text, got 3"),
    "dims": ({"dims": "stimulus"}, "dims: expected a list of names, got 'stimulus'"),
    "no dims": ({"dims": ()}, r"dims: expected 'stimulus', 'repeat' and 'unit', or .*, got \[\]"),
    "a dim too few": ({"dims": ("stimulus", "unit")}, "dims: expected 'stimulus', 'repeat' and 'unit', or"),
    "a dim twice": ({"dims": (*SRU, "unit")}, "dims: .* each once, got"),
    "unknown dim": ({"dims": ("trial", "neuron")}, "dims: expected"),
    "no ids": ({"dims": ("presentation", "unit")}, "stimulus: expected to be declared with dims"),
    "no window": ({"dims": (*SRU, "time"), "bin_width": 0.1}, "window: expected to be declared with dims"),
    "no bin_width": ({"dims": (*SRU, "time"), "window": (0, 1)}, "bin_width: expected to be declared with dims"),
    "no time": ({"window": (0, 1), "bin_width": 0.1}, "bin_width: expected a dim 'time' with it"),
    "window": ({"window": "0-1"}, "window: expected start and stop in s, got '0-1'"),
    "backward": ({"window": (1, 0)}, "expected a window .start, stop. in s that goes forward, got"),
    "nan": ({"window": (0, float("nan"))}, "window: expected start and stop in s, got"),
    "true": ({"window": (False, True)}, "window: expected start and stop in s, got"),
    "huge": ({"window": (0, 10**400)}, "window: expected start and stop in s, got"),
    "bin_width": ({"bin_width": "x"}, "bin_width: expected a number of s, got 'x'"),
    "many bins": ({"window": (0, 1), "bin_width": 1e-9}, "bin_width: expected at most 1048576 bins, got 1e.09"),
    "parts of bins": ({"window": (0, 1), "bin_width": 0.3, "dims": (*SRU, "time")}, "expected a window of whole bins"),
    "negative bins": ({"window": (0, 1), "bin_width": -0.1, "dims": (*SRU, "time")}, "expected a window of whole bins"),
    "responses": ({"responses": "x"}, r"responses: expected a field .but for \.npy., got 'x'"),
    "no responses": ({"file": "a.npz"}, r"responses: expected a field .but for \.npy., got ''"),
    "folder": ({"stimulus": "../ids.npy"}, r"file: expected other \.npy files beside it, got '\.\./ids\.npy'"),
    "other form": ({"stimulus": "ids.mat"}, r"file: expected other \.npy files beside it, got 'ids\.mat'"),
    "intervals": ({"intervals": "trials"}, "intervals: expected nothing but for NWB, got trials"),
    "twice": ({"area": "V4", "unit_coords": {"area": "a.npy"}}, r"not the same for all units, got \['area'\]"),
    "taken": ({"unit_coords": {"repeat": "a.npy"}}, r"unit_coords: expected names .* of units, got \['repeat'\]"),
    "coords": ({"unit_coords": ["area"]}, r"unit_coords: expected names of coordinates and the field of each, got"),
    "attrs": ({"attrs": {"a": [1]}}, "attrs: expected names and texts or numbers, got"),
    "own attrs": ({"attrs": {"hash": "x"}}, r"attrs: expected other names than those of keys, got \['hash'\]"),
    "NWB units": (NWB | {"units": "dF/F"}, "units: expected 'spike count' of NWB"),
    "NWB dims": (NWB | {"dims": SRU}, "dims: expected nothing for NWB"),
    "NWB intervals": (NWB | {"intervals": ""}, "intervals: expected to be declared for NWB, got nothing"),
    "NWB window": (NWB | {"window": None}, "window: expected to be declared for NWB, got nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_is_refused(case: str) -> None:
    changes, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        declared(**changes)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.npy: expected a file, found none"):
        arrays.load(declared(file=tmp_path / "a.npy"))


def test_toml_and_python_declare_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 1, 3)))
    path = tmp_path / "a.toml"
    path.write_text(
        'file = "a.npy"\nunits = "dF/F"\ndims = ["stimulus", "repeat", "unit"]\nwindow = [0, 1]\narea = "V4"\n'
    )
    got, wanted = arrays.declare(path), declared(file=tmp_path / "a.npy", dims=list(SRU), window=[0, 1], area="V4")
    assert got == wanted


GOOD = 'file = "a.npy"\nunits = "dF/F"\ndims = ["stimulus", "repeat", "unit"]\n'
WRONG_TOML = {
    "unknown": (GOOD + 'colour = "red"\n', "a.toml: colour: expected keys among file, units, responses, dims, .*attrs"),
    "missing": ('units = "dF/F"', "a.toml: file: expected to be declared, got nothing"),
    "no units": ('file = "a.npy"', "a.toml: units: expected to be declared, got nothing"),
    "broken": ("file = ", "a.toml: cannot be read .TOMLDecodeError"),
    "deep": ("a = " + "[" * 30_000, "a.toml: cannot be read .RecursionError"),
    "long": (" " * 70_000, "a.toml: size: expected at most 65536 bytes, got 70000"),
    "number": (GOOD.replace('"dF/F"', "3"), "a.toml: units: expected text, got 3"),
    "a table": (GOOD.replace('"a.npy"', "{}"), "a.toml: file: expected a path, got {}"),
    "up": (
        GOOD.replace("a.npy", "../a.npy"),
        r"a.toml: \.\./a\.npy: expected a file in .* or below, got one elsewhere",
    ),
    "absolute": (GOOD.replace("a.npy", "/etc/a.npy"), "a.toml: /etc/a.npy: expected a file in .* or below"),
    "link": (GOOD.replace("a.npy", "link.npy"), "a.toml: link.npy: expected a file in .* or below"),
    "linked folder": (GOOD.replace("a.npy", "linked/a.npy"), "a.toml: linked/a.npy: expected a file in .* or below"),
    "linked ids": (GOOD + 'stimulus = "link.npy"', "a.toml: link.npy: expected a file in .* or below"),
    "linked ids below": (
        GOOD.replace("a.npy", "below/a.npy") + 'stimulus = "link.npy"',
        "a.toml: below/link.npy: expected a file in .* or below",
    ),
    "nul": (GOOD.replace("a.npy", "\\u0000.npy"), "a.toml: .* cannot be read .ValueError: embedded null"),
    "nothing there": (GOOD, "a.toml: file: expected a file at .*a.npy, got none"),
}


@pytest.mark.parametrize("case", WRONG_TOML)
def test_a_wrong_toml_file_is_refused(tmp_path: Path, case: str) -> None:
    text, message = WRONG_TOML[case]
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    np.save(tmp_path / "a.npy", np.ones((2, 1, 3)))
    for link, target in {"link.npy": "a.npy", "linked": "", "below/link.npy": "a.npy"}.items():
        (folder / link).symlink_to(tmp_path / target)
    (folder / "a.toml").write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        arrays.load(folder / "a.toml")
    assert str(raised.value).startswith(str(folder))


def test_a_toml_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.toml: expected a TOML file, found none"):
        arrays.load(tmp_path / "nowhere.toml")


class Explosive:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return (Path.touch, (Path("exploded"),))


def objects() -> np.ndarray:
    return np.array([[[Explosive(), 1.0]]], dtype=object)


def half_a_trial() -> np.ndarray:
    values = np.ones((2, 2, 3))
    values[0, 1, 2] = np.nan
    return values


VALUES: dict[str, tuple[np.ndarray, str]] = {
    "objects": (objects(), "cannot be read"),
    "text": (np.array([[["a"]]]), "expected real numbers, got dtype <U1"),
    "complex": (np.ones((2, 2, 3), complex), "expected numbers or text, got dtype complex128"),
    "records": (np.zeros((2, 2, 3), "i4,f8"), "expected numbers or text, got dtype"),
    "axes": (np.ones((2, 2)), r"expected axes \(stimulus, repeat, unit\), none of length 0, got shape \(2, 2\)"),
    "empty": (np.ones((2, 0, 3)), r"expected axes .* got shape \(2, 0, 3\)"),
    "infinite": (np.full((2, 2, 3), np.inf), "expected finite spike counts, got infinity"),
    "negative": (np.full((2, 2, 3), -1), "expected spike counts of 0 or more, got 12 negative ones"),
    "fractions": (np.full((2, 2, 3), 0.5), "expected whole spike counts, got fractions"),
    "half a trial": (half_a_trial(), "expected each trial to be whole or absent, got 1 trials"),
    "nothing": (np.full((2, 2, 3), np.nan), "expected a value for every unit, got only NaN"),
}


@pytest.mark.parametrize("case", VALUES)
def test_wrong_values_are_refused_with_file_and_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    values, message = VALUES[case]
    np.save("a.npy", values, allow_pickle=True)
    np.savez("a.npz", r=values)
    for declaration in (declared(**COUNTS), declared(**COUNTS, file="a.npz", responses="r")):
        with pytest.raises(CorruptDataError, match=message) as raised:
            arrays.load(declaration)
        assert str(raised.value).startswith(f"{declaration.file}: ")
    assert not Path("exploded").exists()


IDS: dict[str, tuple[np.ndarray, str]] = {
    "too few": (np.arange(3), r"ids.npy: expected a value for each of 2 stimuli, got shape \(3,\)"),
    "matrix": (np.ones((2, 2)), "ids.npy: expected a value for each of 2 stimuli, got shape"),
    "repeated": (np.array(["a", "a"]), r"responses: expected unique stimulus ids, got repeated 1 stimulus \(a\)"),
    "nan": (np.array([0, np.nan]), "ids.npy: expected an id for each, got 1 times NaN"),
    "objects": (np.array(["a", None]), "ids.npy: cannot be read"),
    "bytes": (np.array([b"a", b"\xff"]), "ids.npy: cannot be read .UnicodeDecodeError"),
}


@pytest.mark.parametrize("case", IDS)
def test_wrong_ids_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    ids, message = IDS[case]
    np.save("a.npy", np.ones((2, 2, 3)))
    np.save("ids.npy", ids)
    for lazy in (False, True):
        with pytest.raises(CorruptDataError, match=message):
            arrays.load(declared(stimulus="ids.npy"), lazy=lazy)


MISSING = {
    "npy": ("stimulus", "names.npy", r"names\.npy: expected a \.npy file beside it, got \['areas.npy', 'depth.npy'"),
    "npz": ("responses", "resp", r"resp: expected an array of this name, got arrays \['responses', 'ids'"),
    "h5": ("responses", "resp", r"resp: expected to be there, got \['areas', 'depth', 'ids', 'responses'\]"),
    "mat": ("responses", "resp", r"resp: expected a variable of this name, got \['data'\]"),
    "mat73": ("responses", "resp", r"resp: expected to be there, got \['data'\]"),
    "nwb": ("intervals", "pictures", r"intervals/pictures.*: expected to be there, got \['trials'\]"),
}


@pytest.mark.parametrize("form", MISSING)
def test_a_field_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path, form: str) -> None:
    key, name, message = MISSING[form]
    path = written(tmp_path, form, **{key: name})
    with pytest.raises(CorruptDataError, match=message) as raised:
        fixture.load(path)
    assert str(raised.value).startswith(str(path))


def test_a_field_of_a_struct_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for form in ("mat", "mat73"):
        path = written(tmp_path, form, responses="data.resp")
        with pytest.raises(CorruptDataError, match=r"resp: expected .*'responses', 'ids'|resp: .*'ids', 'responses'"):
            fixture.load(path)


def test_units_and_bins_must_agree_with_the_array(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 1, 3, 4)))
    np.save(tmp_path / "depth.npy", np.ones(4))
    binned = {"file": tmp_path / "a.npy", "dims": (*SRU, "time"), "bin_width": 0.1}
    with pytest.raises(CorruptDataError, match=r"a\.npy: time: expected 5 time bins, got 4"):
        arrays.load(declared(**binned, window=(0, 0.5)))
    with pytest.raises(
        CorruptDataError, match=r"a\.npy: depth: expected a value for each of 3 units, got shape \(4,\)"
    ):
        arrays.load(declared(**binned, window=(0, 0.4), unit_coords={"depth": "depth.npy"}))


def external(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["responses"] = h5py.ExternalLink("other.h5", "/x")


def elsewhere(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("responses", (2, 1, 3), "f8", external=[("other.bin", 0, 48)])


def huge(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("responses", (10**6, 10**6, 10**6), "f8", chunks=(1, 1, 1))


def wide(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("responses", (2**27, 1, 1), "u1", chunks=(2**20, 1, 1))


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external, "responses: expected data in this file, got a link out of it"),
        (elsewhere, "responses: expected data in this file, got data in another file"),
        (huge, "responses: expected at most 268435456 bytes, got 8000000000000000000"),
    ],
)
def test_hostile_hdf5_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str, lazy: bool) -> None:
    make(tmp_path / "a.h5")
    with pytest.raises(CorruptDataError, match=message):
        arrays.load(declared(file=tmp_path / "a.h5", responses="responses"), lazy=lazy)


@pytest.mark.parametrize("options", [{}, {"chunks": (2,)}, {"chunks": (3,), "compression": "gzip", "shuffle": True}])
def test_lengths_of_texts_are_known_before_they_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    words = np.array(["abc", "", "pf\u00e4rd"], dtype=object)
    for userblock in (0, 512):
        with h5py.File(tmp_path / "a.h5", "w", userblock_size=userblock) as file:
            file.create_dataset("words", data=words, **options)
        with h5py.File(tmp_path / "a.h5") as file:
            assert _vlen.text_lengths(tmp_path / "a.h5", file["words"])[:3].tolist() == [3, 0, 6]


def test_texts_that_declare_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "h5")
    with h5py.File(path) as file:
        at = file["areas"].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[at : at + 4] = (3_000_000_000).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(CorruptDataError, match="areas: expected texts of at most 268435456 bytes, got 3000000000"):
        fixture.load(path)


def test_what_would_become_too_large_as_floats_is_refused(tmp_path: Path) -> None:
    wide(tmp_path / "a.h5")
    with pytest.raises(CorruptDataError, match="responses: expected at most 268435456 bytes as float32, got shape"):
        arrays.load(declared(file=tmp_path / "a.h5", responses="responses"))


def test_counts_of_more_bins_than_the_file_can_have_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "nwb", window=[0, 100], bin_width=1e-4)
    with pytest.raises(CorruptDataError, match="window: expected counts of at most 268435456 bytes, got"):
        fixture.load(path)


def test_pickles_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.npy").write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(CorruptDataError, match=r"a\.npy: cannot be read"):
        arrays.load(declared())
    assert not Path("exploded").exists()


def mutate(file: Path, rng: np.random.Generator) -> None:
    raw = bytearray(file.read_bytes())
    at = int(rng.integers(len(raw)))
    match rng.integers(4):
        case 0:
            raw[at] ^= 1 << int(rng.integers(8))
        case 1:
            del raw[at:]
        case 2:
            raw[at : at + 4] = rng.integers(0, 256, 4).astype(np.uint8).tobytes()
        case _:
            raw[at:at] = raw[: int(rng.integers(len(raw)))]
    file.write_bytes(raw)


@pytest.mark.parametrize("form", fixture.FORMS)
def test_mutated_files_are_read_or_refused(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, form)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(60):
        file = sorted(files)[rng.integers(len(files))] if rng.random() < 0.3 else path
        mutate(file, rng)
        try:
            responses.validate(fixture.load(path))
        except ValueError as error:
            n_refused += 1
            assert str(error).startswith(str(tmp_path)), error
        file.write_bytes(files[file])
    assert n_refused > 5


def matlab_file(path: Path, **variables: Any) -> Path:
    """As MATLAB 7.3 has them: a cell array of texts, a sparse matrix by its parts, or an object of a class."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, (kind, value) in variables.items():
            if kind == "cell":
                group = file.require_group("#refs#")
                codes = [np.array([[ord(letter)] for letter in text], dtype=np.uint16) for text in value]
                for number, code in enumerate(codes):
                    group[f"{name}{number}"] = code
                    group[f"{name}{number}"].attrs["MATLAB_class"] = np.bytes_(b"char")
                refs = [[group[f"{name}{number}"].ref for number in range(len(codes))]]
                file.create_dataset(name, data=np.array(refs, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
            elif kind == "sparse":
                group = file.create_group(name)
                group.attrs["MATLAB_sparse"] = np.uint64(value["n_rows"])
                for part in ("data", "ir", "jc"):
                    group[part] = value[part]
                kind = "double"
            else:
                file[name] = value
            file[name].attrs["MATLAB_class"] = np.bytes_(kind.encode())
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


COUNTS_OF_ROWS = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 0], [4, 0, 5.0]])


def sparse_parts(matrix: np.ndarray) -> dict[str, Any]:
    columns = [np.flatnonzero(column) for column in matrix.T]
    return {
        "n_rows": len(matrix),
        "data": np.concatenate([column[column != 0] for column in matrix.T]),
        "ir": np.concatenate(columns).astype(np.uint64),
        "jc": np.cumsum([0, *map(len, columns)]).astype(np.uint64),
    }


@pytest.mark.parametrize("old", [False, True], ids=["7.3", "5"])
def test_cells_of_text_and_sparse_counts_of_matlab(tmp_path: Path, old: bool) -> None:
    ids, path = ["a", "bb", "a", "ccc"], tmp_path / "a.mat"
    if old:
        savemat(path, {"n": csc_matrix(COUNTS_OF_ROWS), "ids": np.array(ids, dtype=object)})
    else:
        matlab_file(path, n=("sparse", sparse_parts(COUNTS_OF_ROWS)), ids=("cell", ids))
    declaration = arrays.Declaration(path, "spike count", "n", ("presentation", "unit"), "ids")
    da = arrays.load(declaration)
    assert da.stimulus.values.tolist() == ["a", "bb", "ccc"]
    np.testing.assert_array_equal(da.values[0], COUNTS_OF_ROWS[[0, 2]])


@pytest.mark.parametrize("name", ["string", "categorical", "datetime"])
def test_objects_of_matlab_are_refused_by_their_class(tmp_path: Path, name: str) -> None:
    """Of which the file has six numbers, here one for each row."""
    counts = ("double", np.ones((2, 6)))
    path = matlab_file(tmp_path / "a.mat", n=counts, ids=(name, np.arange(6, dtype=np.uint32)[:, None]))
    declaration = arrays.Declaration(path, "spike count", "n", ("presentation", "unit"), "ids")
    with pytest.raises(CorruptDataError, match=rf"a\.mat: ids: expected numbers, .* got a MATLAB {name}; .*cellstr"):
        arrays.load(declaration)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ir": np.array([2**62, 0, 1, 2], np.uint64)}, "rows from 0 to 3"),
        ({"jc": np.array([0, 2, 1, 4], np.uint64)}, "columns that hold all values"),
        ({"n_rows": 2**50}, "at most .* bytes when it is not sparse"),
    ],
)
def test_false_sparse_matrices_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    path = matlab_file(tmp_path / "a.mat", n=("sparse", sparse_parts(COUNTS_OF_ROWS) | change))
    with pytest.raises(CorruptDataError, match=rf"a\.mat: n: expected {message}"):
        arrays.load(arrays.Declaration(path, "spike count", "n", ("presentation", "unit"), "ids"))
