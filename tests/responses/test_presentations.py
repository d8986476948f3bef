"""Responses from tables with one row a presentation, and back."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from neurovar import responses
from neurovar.responses import DIMS, TIME_DIMS, arrange, flatten, from_responses, to_responses

IDS = ["b", "a", "b", "c", "b", "a"]


def table(ids: list = IDS, n_units: int = 3, n_bins: int = 0) -> xr.DataArray:
    shape = (len(ids), n_units, n_bins)[: 2 + bool(n_bins)]
    coords = {"stimulus_id": ("presentation", ids), "area": ("neuroid", [f"V{i}" for i in range(n_units)])}
    values = np.random.default_rng(0).normal(size=shape)
    dims = responses.TABLE_DIMS[: len(shape)]
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"units": "spikes/s"})


def binned_table(starts: tuple = (0, 50, 100), width: float = 50) -> xr.DataArray:
    ends = [start + width for start in starts]
    return table(n_bins=len(starts)).assign_coords(
        time_bin_start=("time_bin", [*starts]), time_bin_end=("time_bin", ends)
    )


def check_conversion(da: xr.DataArray, values: np.ndarray) -> None:
    """Against a loop over the presentations of IDS."""
    expected = np.full((3, 3, *values.shape[1:]), np.nan)
    position = np.full((3, 3), -1)
    seen: dict[str, int] = {}
    for row, name in enumerate(IDS):
        stimulus, repeat = ["b", "a", "c"].index(name), seen.get(name, 0)
        expected[stimulus, repeat], position[stimulus, repeat] = values[row], row
        seen[name] = repeat + 1
    assert da.stimulus.values.tolist() == ["b", "a", "c"]
    np.testing.assert_array_equal(da.values, expected)
    np.testing.assert_array_equal(da.presentation.values, position)
    assert da.area.dims == ("unit",) and da.area.values.tolist() == ["V0", "V1", "V2"]
    assert responses.validate(da, min_repeats=3, time="time" in da.dims) is da


def check_round_trip(assembly: xr.DataArray, **stimulus: str) -> xr.DataArray:
    """From a table to responses and back: the same to the last bit, in the same order."""
    da = to_responses(assembly, **stimulus)
    again = from_responses(da)
    assert again.identical(assembly) and again.dtype == assembly.dtype and again.dims == assembly.dims
    assert list(again.coords) == list(assembly.coords)
    for name, coord in assembly.coords.items():
        assert again[name].dtype == coord.dtype
        if coord.dtype != object:
            assert again[name].values.tobytes() == coord.values.tobytes()
    return da


@pytest.mark.parametrize("flipped", [False, True])
def test_a_table_of_presentations(flipped: bool) -> None:
    assembly = table()
    da = check_round_trip(assembly.transpose() if flipped else assembly)
    check_conversion(da, assembly.values)
    assert da.attrs.keys() == {"units", responses.LAYOUT} and da.attrs["units"] == "spikes/s"


def test_a_table_with_multi_indexes_as_brainio_has_it() -> None:
    assembly = table()
    presentation = pd.MultiIndex.from_arrays([IDS, range(len(IDS))], names=["stimulus_id", "repetition"])
    neuroid = pd.MultiIndex.from_arrays([["V0", "V1", "V2"], [5, 6, 7]], names=["area", "neuroid_id"])
    coords = {"presentation": presentation, "neuroid": neuroid}
    indexed = xr.DataArray(assembly.values, dims=assembly.dims, coords=coords)
    da = to_responses(indexed)
    check_conversion(da, assembly.values)
    assert da.neuroid_id.values.tolist() == [5, 6, 7]
    assert from_responses(da).identical(flatten(indexed))


def test_repeats_keep_the_order_of_presentation_in_a_long_table() -> None:
    ids = np.random.default_rng(0).integers(5, size=400)
    da = to_responses(table(ids.tolist()))
    for stimulus in da.stimulus.values:
        order = da.presentation.sel(stimulus=stimulus).values
        assert order[order >= 0].tolist() == np.flatnonzero(ids == stimulus).tolist()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64, bool, np.float16, np.float32])
def test_a_table_of_another_dtype_and_another_name(dtype: type) -> None:
    assembly = (table() * 10).astype(dtype).rename(stimulus_id="image")
    da = check_round_trip(assembly, stimulus="image")
    check_conversion(da, assembly.values.astype(float))
    assert da.dtype == np.result_type(dtype, np.float32)


def test_repetitions_of_equal_value_belong_to_the_stimulus_and_others_to_the_trial() -> None:
    assembly = table().assign_coords(
        label=("presentation", ["B", "A", "B", "C", "B", "A"]),
        size=("presentation", [1.0, np.nan, 1.0, 3.0, 1.0, np.nan]),
        signed=("presentation", [0.0, 2.0, -0.0, 3.0, 0.0, 2.0]),
        day=("presentation", [1, 1, 2, 2, 2, 1]),
        mixed=("presentation", np.array(["x", 1, "x", None, "x", True], dtype=object)),
    )
    da = check_round_trip(assembly)
    assert {name: da[name].dims for name in ("label", "size", "signed", "day", "mixed")} == {
        "label": DIMS[:1],
        "size": DIMS[:1],
        "signed": DIMS[:2],
        "day": DIMS[:2],
        "mixed": DIMS[:2],
    }
    assert da.label.values.tolist() == ["B", "A", "C"] and da.day.values[0].tolist() == [1, 2, 2]


def test_names_that_responses_use_otherwise_are_set_apart() -> None:
    """MajajHong2015 numbers its stimuli in a coordinate `stimulus`."""
    rows = {name: ("presentation", np.arange(6) * 10) for name in ("stimulus", "repeat", "presentation", "time_")}
    columns = {name: ("neuroid", [7, 8, 9]) for name in ("unit", "neuroid", "time")}
    da = check_round_trip(table().assign_coords(rows | columns))
    check_conversion(da, table().values)
    assert da["stimulus_"].values[1, :2].tolist() == [10, 50]
    assert da.indexes["unit"].tolist() == [7, 8, 9] and da["time__"].dims == ("unit",)


def test_attributes_and_scalars_stay() -> None:
    assembly = table().assign_coords(experiment="E1", weight=2.5)
    assembly["area"].attrs["from"] = "atlas"
    da = check_round_trip(assembly)
    assert da["experiment"].item() == "E1" and da["area"].attrs == {"from": "atlas"}


def test_presentations_without_any_value_stay() -> None:
    assembly = table()
    assembly.values[2] = np.nan
    da = check_round_trip(assembly)
    assert np.isnan(da.values[0, 1]).all() and da.presentation.values[0].tolist() == [0, 2, 4]


def test_time_bins_become_time_in_seconds() -> None:
    assembly = binned_table()
    da = check_round_trip(assembly)
    check_conversion(da, assembly.values)
    assert da.dims == TIME_DIMS and da.time.values.tolist() == [0, 0.05, 0.1] and da.attrs["bin_width"] == 0.05
    total = responses.sum_time(da, window=(0.05, 0.15))
    np.testing.assert_allclose(total.values[2, 0], assembly.values[3, :, 1:].sum(axis=-1))


def test_time_bins_in_the_first_dim_and_of_many_widths() -> None:
    assembly = binned_table((70, 170, 50)).assign_coords(time_bin_end=("time_bin", [170, 270, 100]))
    da = check_round_trip(assembly.transpose("time_bin", "neuroid", "presentation"))
    assert da.time.values.tolist() == [0.07, 0.17, 0.05] and "bin_width" not in da.attrs


@pytest.mark.parametrize("end", ["time_bin_end", "time_bin_stop"])
def test_a_single_time_bin_becomes_the_window(end: str) -> None:
    assembly = binned_table((70,), 100).rename(time_bin_end=end).transpose("neuroid", "presentation", "time_bin")
    da = check_round_trip(assembly)
    check_conversion(da, assembly.transpose("presentation", "neuroid", "time_bin").values[:, :, 0])
    assert da.dims == DIMS and da.attrs["window"] == "0.07 to 0.17 s" and da["time_bin_start"].item() == 70


def test_times_that_are_no_numbers_are_left_alone() -> None:
    assembly = binned_table().assign_coords(time_bin_start=("time_bin", ["early", "mid", "late"]))
    da = check_round_trip(assembly)
    assert "time" not in da.coords and "bin_width" not in da.attrs


def test_responses_get_what_brainio_asks_for() -> None:
    values = np.arange(2 * 2 * 3 * 2, dtype=float).reshape(2, 2, 3, 2)
    values[0, 0] = np.nan
    coords = {
        "stimulus": ["x", "y"],
        "time": [-0.05, 0.0],
        "day": ("repeat", [8, 9]),
        "rank": (("stimulus", "unit"), np.ones((2, 3))),
    }
    assembly = from_responses(xr.DataArray(values, dims=TIME_DIMS, coords=coords, attrs={"bin_width": 0.05}))
    assert assembly.dims == responses.TABLE_DIMS
    np.testing.assert_array_equal(assembly.values, [values[0, 1], values[1, 0], values[1, 1]])
    assert assembly["stimulus_id"].values.tolist() == ["x", "y", "y"]
    assert assembly["repetition"].values.tolist() == [1, 0, 1] and assembly["day"].values.tolist() == [9, 8, 9]
    assert assembly["neuroid_id"].values.tolist() == [0, 1, 2]
    assert assembly["time_bin_start"].values.tolist() == [-50, 0] and assembly["time_bin_end"].values.tolist() == [
        0,
        50,
    ]
    assert assembly["time_bin_end"].dtype == np.int64 and "rank" not in assembly.coords


def test_rows_are_in_the_order_of_presentation() -> None:
    shown = (("stimulus", "repeat"), [[4, 1], [0, 9]])
    coords = {"stimulus": ["x", "y"], "presentation": shown, "unit": [30, 40]}
    da = xr.DataArray(np.arange(8.0).reshape(2, 2, 2), dims=DIMS, coords=coords)
    assembly = from_responses(da)
    assert assembly.values[:, 0].tolist() == [4, 2, 0, 6]
    assert assembly["stimulus_id"].values.tolist() == ["y", "x", "x", "y"]
    assert assembly["neuroid_id"].values.tolist() == [30, 40]


def test_wider_bins_make_time_bins_of_their_own() -> None:
    da = to_responses(binned_table((0, 50, 100, 150)))
    wider = da.isel(time=slice(None, None, 2)).assign_attrs(bin_width=0.1)
    assembly = from_responses(wider)
    assert assembly["time_bin_start"].values.tolist() == [0, 100] and assembly["time_bin_end"].values.tolist() == [
        100,
        200,
    ]


def test_what_was_added_to_responses_is_in_the_table() -> None:
    da = to_responses(table()).assign_coords(depth=("unit", [1, 2, 3]), stimulus_id=("stimulus", [5, 6, 7]))
    assembly = from_responses(da)
    assert list(assembly.coords) == ["stimulus_id", "area", "depth", "stimulus_id_"]
    assert assembly["stimulus_id_"].values.tolist() == [5, 6, 5, 7, 5, 6]


def with_bad_row(name: str, value: object) -> xr.DataArray:
    ids = np.array([*IDS[:-1], value], dtype=object)
    return table().assign_coords({name: ("presentation", ids)})


BAD_TABLES = {
    r"expected dims \('presentation', 'neuroid'\), .* got \('presentation', 'unit'\)": table().rename(neuroid="unit"),
    r"none of them empty, got .* of shape \(0, 3\)": table().isel(presentation=[]),
    "expected real numbers, got dtype <U": table().astype(str),
    "expected real numbers, got dtype complex128": table().astype(complex),
    r"expected whole numbers up to 2\*\*53": xr.full_like(table(), 2**53 + 2, dtype=np.int64),
    "expected a stimulus id for every presentation, got none in 'stimulus_id'": with_bad_row("stimulus_id", np.nan),
    r"text for a name and one dim at most, got \['both'\]": table().assign_coords(
        both=(("presentation", "neuroid"), table().values)
    ),
    r"text for a name and one dim at most, got \[3\]": table().assign_coords({3: ("neuroid", [1, 2, 3])}),
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_a_bad_table_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_responses(BAD_TABLES[message])


@pytest.mark.parametrize("stimulus", ["image", "area"])
def test_a_table_without_the_stimulus(stimulus: str) -> None:
    expected = rf"expected a coordinate '{stimulus}' on 'presentation', got \['stimulus_id'\]"
    with pytest.raises(ValueError, match=expected):
        to_responses(table(), stimulus=stimulus)


@pytest.mark.parametrize("layout", ["[", '{"colour": 1}', 3])
def test_a_layout_of_somebody_else_is_refused(layout: object) -> None:
    da = to_responses(table()).assign_attrs({responses.LAYOUT: layout})
    with pytest.raises(ValueError, match=r"expected attrs\['brainio_layout'\] as to_responses writes it"):
        from_responses(da)


def test_the_layout_is_json_that_a_file_can_hold() -> None:
    layout = json.loads(to_responses(binned_table()).attrs[responses.LAYOUT])
    assert layout["dims"] == list(responses.TABLE_DIMS) and layout["added"] == ["bin_width"]


def test_responses_with_a_multi_index_or_other_names_are_refused() -> None:
    index = pd.MultiIndex.from_arrays([["a", "b"], [1, 2]], names=["name", "number"])
    with pytest.raises(ValueError, match=r"expected plain coordinates with text for a name, got \["):
        from_responses(xr.DataArray(np.ones((2, 1, 1)), dims=DIMS, coords={"stimulus": index}))
    da = xr.DataArray(np.ones((2, 1, 1)), dims=DIMS, coords={"stimulus": [0, 1], 5: ("stimulus", [1, 2])})
    with pytest.raises(ValueError, match=r"text for a name, got \['stimulus', 5\]"):
        from_responses(da)


def test_invalid_responses_are_refused() -> None:
    with pytest.raises(ValueError, match="expected each trial to be whole or absent"):
        from_responses(xr.DataArray([[[1.0, np.nan], [1.0, 2.0]]], dims=DIMS, coords={"stimulus": ["a"]}))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n_bins", [0, 2])
def test_arrange_sorts_the_stimuli_whatever_lies_together_in_memory(order: str, n_bins: int) -> None:
    values = np.asarray(table(n_bins=n_bins).values, order=order)
    da = arrange(values, np.array(IDS))
    assert da.stimulus.values.tolist() == ["a", "b", "c"] and da.dims == TIME_DIMS[: values.ndim + 1]
    for stimulus, rows in {"a": [1, 5], "b": [0, 2, 4], "c": [3]}.items():
        got = da.sel(stimulus=stimulus)
        np.testing.assert_array_equal(got.values[: len(rows)], values[rows])
        assert np.isnan(got.values[len(rows) :]).all()
        assert got.presentation.values.tolist() == rows + [-1] * (3 - len(rows))


@pytest.mark.parametrize(
    ("values", "stimulus", "message"),
    [
        (
            np.ones(3),
            np.arange(3),
            r"expected an array \(presentation, unit\[, time\]\) that is not empty, got shape \(3,\)",
        ),
        (np.ones((0, 2)), np.arange(0), r"not empty, got shape \(0, 2\)"),
        (np.ones((3, 2)), np.arange(2), r"expected a stimulus for each of 3 presentations, got shape \(2,\)"),
    ],
)
def test_arrange_wants_a_stimulus_for_each_row(values: np.ndarray, stimulus: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arrange(values, stimulus)
