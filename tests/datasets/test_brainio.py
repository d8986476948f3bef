"""BrainIO's assemblies: files and live ones, both ways, and what is refused."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from fixtures import brainio as fixture
from neurovar_datasets import CorruptDataError, DataUnavailableError, brainio

from neurovar import responses, statistics
from neurovar.responses import DIMS, TIME_DIMS, flatten, from_responses

HAS_BRAINSCORE = find_spec("brainscore_core") is not None
needs_brainscore = pytest.mark.skipif(not HAS_BRAINSCORE, reason="brainscore_core is not installed")


def recording(**coords: Any) -> xr.DataArray:
    """Three stimuli, up to three repeats, of which the first of one stimulus and the last of another are absent."""
    values = np.random.default_rng(0).normal(size=(3, 3, 4))
    values[0, 0] = values[2, 2] = np.nan
    return xr.DataArray(values, dims=DIMS, coords={"stimulus": ["b", "a", "c"]} | coords)


def assert_same(got: xr.DataArray, wanted: xr.DataArray) -> None:
    """The same to the bit, dtypes and types of attributes too."""
    assert (got.name, got.dims, got.dtype, got.shape) == (wanted.name, wanted.dims, wanted.dtype, wanted.shape)
    assert got.values.tobytes() == wanted.values.tobytes()
    assert list(got.coords) == list(wanted.coords)
    for name, coord in wanted.coords.items():
        assert (got[name].dims, got[name].dtype) == (coord.dims, coord.dtype), name
        assert (
            got[name].values.tolist() == coord.values.tolist()
            if coord.dtype == object
            else (got[name].values.tobytes() == coord.values.tobytes())
        ), name
        assert_same_attrs(got[name].attrs, coord.attrs)
    assert_same_attrs(got.attrs, wanted.attrs)


def assert_same_attrs(got: dict, wanted: dict) -> None:
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        assert type(got[name]) is type(value), name
        if isinstance(value, np.ndarray):
            assert got[name].dtype == value.dtype and got[name].shape == value.shape
            np.testing.assert_array_equal(got[name], value)
        else:
            assert repr(got[name]) == repr(value), name


def with_attrs_of_variables(da: xr.DataArray) -> xr.DataArray:
    da["depth"].attrs |= {"units": "mm", "checked": True}
    return da


def in_time(da: xr.DataArray) -> xr.DataArray:
    return da.expand_dims(time=[-0.05, 0.0, 0.05], axis=3).copy() * np.array([1.0, 2.0, 3.0])


CASES = {
    "bare": recording(),
    "float32": recording().astype(np.float32),
    "float16": recording().astype(np.float16),
    "big endian": recording().astype(">f8"),
    "integers": xr.DataArray(np.arange(24).reshape(2, 3, 4), dims=DIMS, coords={"stimulus": [7, 3]}),
    "one of each": xr.DataArray([[[2.5]]], dims=DIMS, coords={"stimulus": [1.5]}),
    "named": recording().rename("spikes"),
    "oddly named": recording().rename("spike counts"),
    "number for a name": recording().rename(3),
    "presentation": recording(presentation=(DIMS[:2], [[-1, 3, 0], [6, 2, 4], [1, 5, -1]])),
    "presentation in gaps": recording(presentation=(DIMS[:2], [[-1, 30, 7], [60, 20, 40], [1, 50, -1]])),
    "presentation as text": recording(presentation=(DIMS[:2], [["x", "b", "y"]] * 3)),
    "presentation of units": recording(presentation=("unit", [4, 3, 2, 1])),
    "indices": recording(repeat=[10, 20, 30], unit=[9, 8, 7, 6]),
    "text indices": recording(repeat=["r0", "r1", "r2"], unit=["w", "x", "y", "z"]),
    "scalars": recording(animal="M1", weight=5.5, awake=True, day=np.datetime64("2020-01-02", "ns")),
    "dtypes": recording(
        flag=("unit", [True, False, True, True]),
        small=("unit", np.array([1, 2, 3, 250], dtype=np.uint8)),
        large=("unit", np.array([1, 2, 3, 2**63], dtype=np.uint64)),
        half=("unit", np.array([0.5, np.nan, -0.0, np.inf], dtype=np.float16)),
        single=("unit", np.array([0.1, np.nan, -0.0, -np.inf], dtype=np.float32)),
        text=("unit", ["", "ä", "日本", "tab\tnew\nline"]),
        wide=("unit", np.array(["a", "b", "c", "d"], dtype="<U9")),
        objects=("unit", np.array(["a", "bb", "c", "d"], dtype=object)),
        code=("unit", np.array([b"a", b"bc", b"d", b"e"])),
        when=("unit", np.array(["2020-01-01", "NaT", "2021-05-06T07:08:09.123456789", "1969-12-31"], "<M8[ns]")),
        lasting=("unit", np.array([1, 2, -3, 4], "<m8[ns]")),
    ),
    "all dims": recording(
        label=("stimulus", ["B", "A", "C"]),
        run=("repeat", [1, 2, 3]),
        trial_label=(DIMS[:2], [["p", "q", "r"], ["s", "t", "u"], ["v", "w", "x"]]),
        flipped=(("repeat", "stimulus"), np.arange(9).reshape(3, 3)),
        constant=(DIMS[:2], np.ones((3, 3))),
        tuning=(("stimulus", "unit"), np.arange(12.0).reshape(3, 4)),
        gain=(("repeat", "unit"), np.arange(12).reshape(3, 4)),
        quality=(DIMS, np.arange(36).reshape(3, 3, 4)),
        depth=("unit", [0.1, 0.2, np.nan, 0.4]),
    ).pipe(with_attrs_of_variables),
    "names of BrainIO": recording(
        stimulus_id=("stimulus", [5, 6, 7]),
        repetition=(DIMS[:2], [[3, 2, 1]] * 3),
        neuroid=("unit", ["n1", "n2", "n3", "n4"]),
        neuroid_id=("stimulus", [1, 2, 3]),
        time_bin=("unit", [1, 2, 3, 4]),
        data=("unit", [1, 2, 3, 4]),
        responses=("unit", [4, 3, 2, 1]),
    ),
    "time": in_time(recording()).assign_attrs(bin_width=0.05),
    "time without width": in_time(recording(region=("unit", list("aabb")))),
    "time without coordinate": in_time(recording()).drop_vars("time"),
    "time bins": in_time(recording()).assign_coords(time_bin_start=("time", [1, 2, 3])).assign_attrs(bin_width=0.05),
    "one bin": in_time(recording()).isel(time=[1]).assign_attrs(bin_width=0.05),
    "time of its own bin": in_time(recording()).isel(time=1).assign_coords(time_bin_start=70, time_bin_end=170),
    "attrs": recording().assign_attrs(
        {
            "text": "ä\n",
            "empty": "",
            "odd": "nul \0 and \ud800",
            "number": 3,
            "large": 2**70,
            "real": 0.1,
            "missing": float("nan"),
            "flag": True,
            "nothing": None,
            "list": [1, 2.5, "x", None, [True]],
            "none": [],
            "pair": (0.05, 0.25),
            "table": {"a": [1, {"b": (2,)}]},
            "single": np.float32(0.1),
            "whole": np.int64(5),
            "true": np.bool_(True),
            "array": np.arange(6, dtype=np.int16).reshape(2, 3),
            "void": np.zeros((0, 3)),
            "words": np.array(["a", "bc"]),
            "responses": "an attribute of this name",
            "coordinates": "x",
            "_FillValue": -1,
            "dtype": "bool",
            "with space": 1,
            "": 2,
            "long": "x" * 100_000,
        }
    ),
}


def trials(da: xr.DataArray) -> list[np.ndarray]:
    """Each stimulus's trials in the order shown: (repeat, unit[, time])."""
    present = ~np.isnan(da.values.reshape(*da.shape[:2], -1)[:, :, 0].astype(float))
    order = np.broadcast_to(np.arange(da.sizes["repeat"]), present.shape)
    if "presentation" in da.coords and da["presentation"].dims == DIMS[:2] and da["presentation"].dtype.kind == "i":
        order = da["presentation"].values
    return [
        da.values[s, np.argsort(np.where(present[s], order[s], np.iinfo(int).max))[: present[s].sum()]]
        for s in range(len(da))
    ]


def assert_what_a_table_says(got: xr.DataArray, wanted: xr.DataArray) -> None:
    """Every trial comes back with its stimulus; stimuli may be in the order in which they were shown."""
    rows = {str(name): row for row, name in enumerate(got["stimulus"].values)}
    assert len(rows) == wanted.sizes["stimulus"]
    back, given = trials(got), trials(wanted)
    for row, name in enumerate(wanted["stimulus"].values):
        np.testing.assert_array_equal(back[rows[str(name)]].reshape(given[row].shape), given[row])


@pytest.mark.parametrize("case", CASES)
def test_a_file_and_a_live_assembly_say_the_same(case: str, tmp_path: Path) -> None:
    brainio.save(CASES[case], tmp_path / "assy_me.nc")
    file, live = brainio.read(tmp_path / "assy_me.nc"), brainio.from_assembly(brainio.to_assembly(CASES[case]))
    for again in (file, live):
        assert_what_a_table_says(again, CASES[case])
    assert {name: coord.dims for name, coord in file.coords.items()} == {
        name: c.dims for name, c in live.coords.items()
    }
    assert os.listdir(tmp_path) == ["assy_me.nc"]


def random_responses(rng: np.random.Generator) -> xr.DataArray:
    shape = tuple(rng.integers(1, 5, size=rng.integers(3, 5)))
    dims = TIME_DIMS[: len(shape)]
    absent = rng.random(shape[:2]) < 0.3
    absent[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = False
    values = rng.normal(size=shape).astype(rng.choice(["f4", "f8"]))
    values[absent] = np.nan
    makers = [
        lambda size: rng.integers(-2, 3, size=size),
        lambda size: rng.choice([0.5, np.nan, -0.0, 0.0], size=size),
        lambda size: rng.choice(["a", "b", ""], size=size),
        lambda size: rng.integers(2, size=size).astype(bool),
    ]
    coords: dict[str, Any] = {"stimulus": rng.permutation(shape[0])}
    for number in range(rng.integers(8)):
        chosen = [dim for dim in rng.permutation(dims) if rng.random() < 0.4]
        values_of = makers[rng.integers(4)]([shape[dims.index(dim)] for dim in chosen])
        coords[f"c{number}"] = (chosen, values_of)
    if rng.random() < 0.5:
        coords["presentation"] = (DIMS[:2], np.where(absent, -1, rng.permutation(absent.size).reshape(absent.shape)))
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"bin_width": 0.1} if rng.random() < 0.5 else {})


@pytest.mark.parametrize("seed", range(25))
def test_any_responses_come_back(seed: int, tmp_path: Path) -> None:
    da = random_responses(np.random.default_rng(seed))
    brainio.save(da, tmp_path / "a.nc")
    assert_what_a_table_says(brainio.read(tmp_path / "a.nc"), da)
    assert_what_a_table_says(brainio.from_assembly(brainio.to_assembly(da)), da)


def flat_assembly(n_bins: int = 2) -> xr.DataArray:
    """As FreemanZiemba2013 and MajajHong2015 are stored: any order of dims, whole numbers, a coordinate `stimulus`."""
    rng = np.random.default_rng(1)
    coords = {
        "stimulus_id": ("presentation", [f"sha{i}" for i in (2, 0, 1, 0, 2, 2)]),
        "stimulus": ("presentation", [2, 0, 1, 0, 2, 2]),
        "repetition": ("presentation", [0, 0, 0, 1, 1, 2]),
        "rxy": ("presentation", [-0.0, 1.0, np.nan, 1.0, -0.0, 0.0]),
        "neuroid_id": ("neuroid", ["Chabo_1", "Chabo_2", "Tito_1", "Tito_2", "Tito_3"]),
        "animal": ("neuroid", ["Chabo", "Chabo", "Tito", "Tito", "Tito"]),
        "region": ("neuroid", ["V4", "IT", "V4", "IT", "IT"]),
        "time_bin_start": ("time_bin", np.arange(n_bins) * 10 + 70),
        "time_bin_end": ("time_bin", np.arange(n_bins) * 10 + 80),
    }
    values = rng.poisson(1, size=(5, 6, n_bins)).astype(np.int16)
    attrs = {"stimulus_set_identifier": "hvm", "image_size_degree": np.int64(8)}
    return xr.DataArray(values, dims=("neuroid", "presentation", "time_bin"), coords=coords, attrs=attrs, name="data")


def write_as_brainio(assembly: xr.DataArray, path: Path) -> Path:
    """What BrainIO's `write_netcdf` does, from a flat table."""
    dataset = assembly.to_dataset(name="data", promote_attrs=True)
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"data": {"zlib": True, "complevel": 9}})
    return path


def opened(path: Path) -> xr.DataArray:
    with xr.open_dataarray(path, engine="h5netcdf") as da:
        return da.load()


@pytest.mark.parametrize("n_bins", [1, 2])
def test_an_assembly_comes_back_as_it_was(n_bins: int, tmp_path: Path) -> None:
    path = write_as_brainio(flat_assembly(n_bins), tmp_path / "theirs.nc")
    da = brainio.read(path)
    brainio.save(da, tmp_path / "ours.nc")
    before, after = opened(path), opened(tmp_path / "ours.nc")
    assert after.identical(before) and after.dtype == before.dtype == np.int16
    assert list(after.coords) == list(before.coords)
    assert [after[name].dtype for name in after.coords] == [before[name].dtype for name in before.coords]
    assert_same(brainio.read(tmp_path / "ours.nc"), da)


def test_an_assembly_of_a_file_as_responses(tmp_path: Path) -> None:
    assembly = flat_assembly()
    da = brainio.read(write_as_brainio(assembly, tmp_path / "a.nc"))
    assert da.dims == TIME_DIMS and da.dtype == np.float32 and da.stimulus.values.tolist() == ["sha2", "sha0", "sha1"]
    for row, (stimulus, repeat) in enumerate([(0, 0), (1, 0), (2, 0), (1, 1), (0, 1), (0, 2)]):
        np.testing.assert_array_equal(da.values[stimulus, repeat], assembly.values[:, row])
    assert np.isnan(da.values[1, 2]).all() and np.isnan(da.values[2, 1:]).all()
    np.testing.assert_allclose(da.time.values, [0.07, 0.08])
    assert da.attrs["bin_width"] == 0.01 and da.attrs["stimulus_set_identifier"] == "hvm"


def gathered(table: xr.DataArray) -> xr.DataArray:
    levels = {dim: [name for name, c in table.coords.items() if c.dims == (dim,)] for dim in table.dims}
    return table.set_index(levels, append=True)


@pytest.mark.parametrize("n_bins", [1, 2])
def test_a_live_assembly_comes_back_as_it_was(n_bins: int) -> None:
    assembly = gathered(flat_assembly(n_bins))
    again = brainio.to_assembly(brainio.from_assembly(assembly))
    assert flatten(again).identical(flatten(assembly)) and again.dims == assembly.dims and again.dtype == assembly.dtype
    for dim in assembly.dims:
        assert (
            again.indexes[dim].equals(assembly.indexes[dim]) and again.indexes[dim].names == assembly.indexes[dim].names
        )


def test_objects_in_attributes_of_a_live_assembly_stay() -> None:
    frame = pd.DataFrame({"stimulus_id": ["sha0"]})
    assembly = gathered(flat_assembly()).assign_attrs(stimulus_set=frame, responses=3)
    again = brainio.to_assembly(brainio.from_assembly(assembly))
    assert again.attrs["stimulus_set"] is frame and again.attrs["responses"] == 3


def test_older_assemblies_call_the_stimulus_image() -> None:
    assembly = gathered(flat_assembly().rename(stimulus_id="image_id"))
    da = brainio.from_assembly(assembly)
    assert da.stimulus.values.tolist() == ["sha2", "sha0", "sha1"]
    assert flatten(brainio.to_assembly(da)).identical(flatten(assembly))


def test_what_is_no_assembly_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an assembly, which is an xarray.DataArray, got list"):
        brainio.from_assembly([1.0])  # type: ignore[arg-type]
    partial = flat_assembly(1).astype(float)
    partial.values[0, 0] = np.nan
    with pytest.raises(ValueError, match="expected each trial to be whole or absent"):
        brainio.from_assembly(partial)


REFUSED = {
    "mixed: expected numbers, text, times, True or False, got (None|nan)": recording(
        mixed=("unit", np.array(["a", None, "b", "c"], dtype=object))
    ),
    "phase: expected numbers of at most 64 bits, text or times, got dtype complex128": recording(
        phase=("unit", np.ones(4, dtype=complex))
    ),
    "text: expected numbers, text, times, True or False, got 'a.x00b'": recording(
        text=("unit", ["a\0b", "", "c", "d"])
    ),
    r"name netCDF can have, without spaces or '/', got 'my depth'": recording(**{"my depth": ("unit", [1, 2, 3, 4])}),
    "responses: expected numbers of at most 64 bits, .* got dtype float128": recording().astype(np.longdouble),
    "expected each trial to be whole or absent": recording().where(np.arange(12).reshape(3, 1, 4) > 0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(message: str, tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_text("mine")
    with pytest.raises(ValueError, match=message):
        brainio.save(REFUSED[message], tmp_path / "a.nc")
    assert os.listdir(tmp_path) == ["a.nc"] and (tmp_path / "a.nc").read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a path in a folder that exists, got "):
        brainio.save(recording(), tmp_path / "none" / "a.nc")


def test_writing_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    (tmp_path / "a.nc").write_text("mine")
    with pytest.raises(OSError, match="disk full"):
        brainio.save(recording(), tmp_path / "a.nc")
    assert os.listdir(tmp_path) == ["a.nc"] and (tmp_path / "a.nc").read_text() == "mine"


def test_the_fixture_is_what_save_writes(tmp_path: Path) -> None:
    written = fixture.write(tmp_path, fixture.content(np.random.default_rng(0)))
    da = fixture.responses(np.random.default_rng(0))
    assert_what_a_table_says(fixture.load(written), da)
    brainio.save(da, tmp_path / "ours.nc")
    assert opened(written).identical(opened(tmp_path / "ours.nc").rename("data"))


def corrupt(path: Path, message: str) -> None:
    with pytest.raises(CorruptDataError, match=message) as error:
        brainio.read(path)
    assert str(path) in str(error.value)


def test_files_that_are_no_netcdf_4(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    path.write_bytes(b"")
    corrupt(path, "cannot be read")
    path.write_bytes(b"CDF\x01")
    corrupt(path, r"format: expected netCDF 4 \(HDF5\), got netCDF 3; convert it with nccopy -k nc4")
    path.write_bytes(write_as_brainio(flat_assembly(), tmp_path / "b.nc").read_bytes()[:2000])
    corrupt(path, "cannot be read")
    with h5py.File(path, "w") as file:
        file["x"] = [1, 2]
    corrupt(path, "cannot be read|expected")


CORRUPT = {
    "more than one data variable|other": lambda t: t.to_dataset(name="data").assign(other=("presentation", np.ones(6))),
    r"expected a coordinate 'stimulus_id' on 'presentation', got \['repetition'": lambda t: t.drop_vars("stimulus_id"),
    r"expected dims \('presentation', 'neuroid'\)": lambda t: t.rename(neuroid="cell"),
    r"data: expected a row of up to 1000000 texts, got object \(5, 6, 2\)": lambda t: t.astype(str),
    "responses: .*expected each trial to be whole or absent": lambda t: t.astype(float).where(
        (t.animal == "Tito") | (t.repetition > 0)
    ),
    "responses: .*expected finite responses or NaN": lambda t: t.astype(float) + np.inf,
    "expected a stimulus id for every presentation": lambda t: t.assign_coords(
        stimulus_id=("presentation", [0, 1, np.nan, 1, 0, 0])
    ),
    "one dim at most": lambda t: t.assign_coords(m=(("presentation", "neuroid"), np.ones((6, 5)))),
}


@pytest.mark.parametrize("message", CORRUPT)
def test_a_file_of_something_else(message: str, tmp_path: Path) -> None:
    changed = CORRUPT[message](flat_assembly())
    dataset = changed if isinstance(changed, xr.Dataset) else changed.to_dataset(name="data")
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    corrupt(tmp_path / "a.nc", message)


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    path = write_as_brainio(flat_assembly(), tmp_path / "a.nc")
    write_as_brainio(flat_assembly(), tmp_path / "other.nc")
    with h5py.File(path, "a") as file:
        del file["region"]
        file["region"] = h5py.ExternalLink(str(tmp_path / "other.nc"), "/region")
    corrupt(path, "region: expected data in this file, got a link to elsewhere")
    with h5py.File(path, "a") as file:
        del file["region"]
        file["region"] = h5py.SoftLink("/animal")
    corrupt(path, "region: expected data in this file, got a link to elsewhere")


def test_a_file_that_unpacks_to_far_more_than_it_is(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("data", shape=(10**5, 10**5), dtype="i1", chunks=(1000, 1000), compression="gzip")
    corrupt(tmp_path / "a.nc", "data: expected at most 268435456 bytes, got 1")


def test_stimuli_and_repeats_that_pad_past_all_measure(tmp_path: Path) -> None:
    ids = np.concatenate([np.zeros(10_000, dtype=int), np.arange(10_000)])
    coords = {"stimulus_id": ("presentation", ids)}
    table = xr.DataArray(np.zeros((20_000, 1)), dims=("presentation", "neuroid"), coords=coords)
    corrupt(
        write_as_brainio(table, tmp_path / "a.nc"), "stimulus_id: expected at most 268435456 bytes when padded, got"
    )


def test_many_texts_that_are_one_long_one(tmp_path: Path) -> None:
    path = write_as_brainio(flat_assembly(), tmp_path / "a.nc")
    with h5py.File(path, "a") as file:
        names = file.create_dataset("names", shape=(200_000,), dtype=h5py.string_dtype())
        names[0] = "x" * 1000
    corrupt(path, r"names: expected at most \d+ bytes of text, got \d+")


def assembly_of(**changes: Any) -> Any:
    return brainio.ASSEMBLIES["Papale2025_test"].__class__(**vars(brainio.ASSEMBLIES["Papale2025_test"]) | changes)


def load_here(path: Path, *, subject: str | None = None, **changes: Any) -> xr.DataArray:
    return brainio._load_assembly(path, assembly_of(**changes), "Papale2025_test", subject)


def test_an_assembly_has_the_labels_of_a_recording(tmp_path: Path) -> None:
    da = load_here(write_as_brainio(flat_assembly(1), tmp_path / "a.nc"))
    assert da.dims == DIMS and responses.validate(da, min_repeats=3) is da
    assert da.area.values.tolist() == ["V4", "IT", "V4", "IT", "IT"] and da.area.dims == ("unit",)
    assert da.subject.values.tolist() == ["Chabo"] * 2 + ["Tito"] * 3
    assert set(da.session.values) == {"Papale2025_test"}
    assert da.attrs["doi"] == "10.1016/j.neuron.2024.12.003" and da.attrs["source"] == "brainio"
    assert da.attrs["hash"] == "sha1:685025f67e90006e775ac153e8e0007e35b62bbc"
    assert da.attrs["units"] == "normalised multi-unit activity" and da.attrs["window"] == "0.07 to 0.08 s"
    assert "dropped_trials" not in da.attrs


def test_an_assembly_with_time_has_its_window(tmp_path: Path) -> None:
    da = load_here(write_as_brainio(flat_assembly(3), tmp_path / "a.nc"))
    assert da.dims == TIME_DIMS and da.attrs["window"] == "0.07 to 0.1 s" and da.attrs["bin_width"] == 0.01


def test_units_of_several_subjects_were_not_recorded_together(tmp_path: Path) -> None:
    path = write_as_brainio(flat_assembly(1).astype(np.float32), tmp_path / "a.nc")
    both = load_here(path)
    correlation = statistics.noise_correlation(both, zscore=False).values
    assert both.attrs["apart"].startswith("units of several subjects")
    np.testing.assert_array_equal(np.isnan(correlation), both.subject.values[:, None] != both.subject.values)
    tito = load_here(path, subject="Tito")
    assert tito.sizes["unit"] == 3 and set(tito.subject.values) == {"Tito"} and "recording" not in tito.coords
    np.testing.assert_array_equal(tito.values, both.values[:, :, 2:])
    with pytest.raises(ValueError, match="expected the subject to be one of 'Chabo', 'Tito', got 'Nano'"):
        load_here(path, subject="Nano")
    apart = load_here(path, subject="Tito", apart="one at a time")
    assert apart.attrs["apart"] == "one at a time"
    with pytest.raises(ValueError, match="recorded together"):
        statistics.noise_correlation(apart, zscore=False)


def test_trials_that_lack_some_units_are_left_out_and_counted(tmp_path: Path) -> None:
    table = flat_assembly(1).astype(float)
    table.values[3, [0, 5]] = np.nan
    path = write_as_brainio(table, tmp_path / "a.nc")
    da = load_here(path)
    assert da.attrs["dropped_trials"] == 2 and responses.repeat_counts(da).values.tolist() == [2, 1, 1]
    assert "dropped_trials" not in load_here(path, subject="Chabo").attrs
    table.values[3] = np.nan
    write_as_brainio(table, path)
    with pytest.raises(CorruptDataError, match="a presentation with a value for every unit, got none"):
        load_here(path)


def test_the_files_are_those_that_brain_score_loads() -> None:
    assert set(brainio.sessions()) == set(brainio.SOURCE.sessions) == set(brainio.ASSEMBLIES)
    for assembly in brainio.ASSEMBLIES.values():
        assert re.fullmatch(r"sha1:[0-9a-f]{40}", assembly.file.hash)
        name = assembly.file.name
        assert re.fullmatch(
            rf"https://brainscore-storage\.s3\.amazonaws\.com/.+/{name}\?versionId=\S+", assembly.file.url
        )
        assert assembly.doi and assembly.citation and assembly.units and assembly.n_repeats
    public = [name for name, assembly in brainio.ASSEMBLIES.items() if not assembly.file.by_hand]
    assert public == [
        "MajajHong2015.public",
        "MajajHong2015.temporal.public",
        "FreemanZiemba2013.public",
        "Papale2025_test",
        "Hebart2023_fmri_test",
    ]


def test_a_private_assembly_says_how_it_is_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataUnavailableError, match="it is private in Brain-Score: ask its team"):
        brainio.load(session="Cadena2017")


def test_a_file_that_is_not_the_one_declared(tmp_path: Path) -> None:
    write_as_brainio(flat_assembly(), tmp_path / "assy_movshon_FreemanZiemba2013_public.nc")
    with pytest.raises(CorruptDataError, match="with hash sha1:761c08f796db4e342555cdb60eef23a4f19ead43, got"):
        brainio.load(session="FreemanZiemba2013.public", path=tmp_path)


@needs_brainscore
class TestBrainScore:
    """Against Brain-Score's own classes, loader and writer."""

    def test_it_loads_what_save_wrote(self, tmp_path: Path) -> None:
        from brainscore_core.supported_data_standards.brainio import assemblies

        da = fixture.responses(np.random.default_rng(0))
        brainio.save(da, tmp_path / "a.nc")
        assembly = assemblies.NeuroidAssembly.from_files(tmp_path / "a.nc")
        assembly.validate()
        assert assembly.dims == ("presentation", "neuroid", "time_bin")
        table = from_responses(da)
        np.testing.assert_array_equal(assembly.values, table.values)
        for name in table.coords:
            np.testing.assert_array_equal(assembly[name].values, table[name].values)
        by_id = assembly.sel(region="IT").multi_groupby(["stimulus_id"]).mean(dim="presentation")
        expected = [da.sel(stimulus=name).values[:, 2:].copy() for name in ("a", "b", "c")]
        np.testing.assert_allclose(
            by_id.transpose("stimulus_id", "neuroid", "time_bin").values, [np.nanmean(x, axis=0) for x in expected]
        )

    def test_its_live_assembly_comes_back_as_it_was(self) -> None:
        from brainscore_core.supported_data_standards.brainio import assemblies

        live = assemblies.NeuronRecordingAssembly(flat_assembly())
        live.attrs["stimulus_set"] = pd.DataFrame({"stimulus_id": ["sha0"]})
        da = brainio.from_assembly(live)
        again = assemblies.NeuronRecordingAssembly(brainio.to_assembly(da))
        assert flatten(again).identical(flatten(live)) and again.dims == live.dims and again.dtype == live.dtype
        assert all(again.indexes[dim].names == live.indexes[dim].names for dim in live.dims)

    @pytest.mark.parametrize("case", ["all dims", "time", "attrs", "one bin", "presentation in gaps"])
    def test_responses_come_back_from_its_live_assembly(self, case: str) -> None:
        from brainscore_core.supported_data_standards.brainio import assemblies

        live = assemblies.NeuroidAssembly(brainio.to_assembly(CASES[case]))
        live.validate()
        assert_what_a_table_says(brainio.from_assembly(live), CASES[case])

    def test_files_that_it_wrote(self, tmp_path: Path) -> None:
        from brainscore_core.supported_data_standards.brainio import assemblies, packaging

        live = assemblies.NeuroidAssembly(flat_assembly(1))
        packaging.write_netcdf(live, tmp_path / "theirs.nc")
        brainio.save(brainio.read(tmp_path / "theirs.nc"), tmp_path / "ours.nc")
        theirs, ours = (assemblies.NeuroidAssembly.from_files(tmp_path / f"{who}.nc") for who in ("theirs", "ours"))
        assert flatten(ours).identical(flatten(theirs)) and ours.dims == theirs.dims

    def test_it_writes_what_to_assembly_made(self, tmp_path: Path) -> None:
        from brainscore_core.supported_data_standards.brainio import assemblies, packaging

        da = CASES["all dims"]
        packaging.write_netcdf(assemblies.NeuroidAssembly(brainio.to_assembly(da)), tmp_path / "a.nc")
        again = brainio.read(tmp_path / "a.nc")
        assert again.stimulus.values.tolist() == ["b", "a", "c"]
        np.testing.assert_array_equal(np.nanmean(again.values, axis=1), np.nanmean(da.values, axis=1))
