"""What holds for every estimator of responses: precision, labels, groups, and the laws that its statistic keeps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovar import statistics
from neurovar.statistics import kernels
from neurovar.statistics._groups import as_xarray, names_in

PAIR = ("simulated0000", "simulated0001")


@dataclass(frozen=True)
class Case:
    """An estimator with its options; `power`: of c, for responses that are c times as large (None: of counts only)."""

    estimate: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    power: float | None = 0
    tolerance: float = 1e-8


HALVES = {"n_splits": 2, "rng": 0}
CASES = {
    "noise_covariance": Case(statistics.noise_covariance, power=2),
    "noise_covariance of each": Case(statistics.noise_covariance, {"per_stimulus": True}, power=2),
    "noise_correlation": Case(statistics.noise_correlation),
    "noise_correlation of differences": Case(statistics.noise_correlation, {"differences": True}),
    "signal_covariance": Case(statistics.signal_covariance, power=2),
    "signal_correlation": Case(statistics.signal_correlation),
    "signal_correlation of halves": Case(statistics.signal_correlation, HALVES),
    "effective_dimensionality": Case(statistics.effective_dimensionality),
    "corrected dimensionality": Case(statistics.effective_dimensionality, {"corrected": True}),
    "reliability": Case(statistics.reliability, HALVES),
    "noise_ceiling": Case(statistics.noise_ceiling),
    "fano_factor": Case(statistics.fano_factor, power=None),
    "variance_scaling": Case(statistics.variance_scaling, power=None),
    "population_coupling": Case(statistics.population_coupling),
    "fit_modulated_poisson": Case(statistics.fit_modulated_poisson, power=None),
    "shared_gain": Case(statistics.shared_gain, power=None, tolerance=1e-4),
    "shrunk_covariance": Case(statistics.shrunk_covariance, {"method": "oas"}, power=2),
    "noise_in_signal": Case(statistics.noise_in_signal, {"n_dims": 2} | HALVES),
    "principal_angles": Case(statistics.principal_angles, {"n_signal": 1, "n_noise": 1} | HALVES, power=None),
    "class_alignment": Case(statistics.class_alignment, {"classes": "clip", "n_dims": 1} | HALVES),
    "shared_variance": Case(statistics.shared_variance, {"max_factors": 1, "n_folds": 3, "rng": 0}, tolerance=1e-3),
    "signal_spectrum": Case(statistics.signal_spectrum, {"method": "cvpca"} | HALVES, power=2),
    "noise_spectrum": Case(statistics.noise_spectrum, {"method": "cross_decomposition"} | HALVES, power=2),
    "fisher_information": Case(statistics.fisher_information, {"pair": PAIR, "distance": 1.0}),
}
every_estimator = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def estimated(case: Case, responses: xr.DataArray, **options: Any) -> xr.Dataset:
    """The result as a Dataset, whatever the estimator returns."""
    result = as_xarray(case.estimate(responses, **case.options, **options))
    return result if isinstance(result, xr.Dataset) else result.to_dataset(name="value")


def assert_same(got: xr.Dataset, expected: xr.Dataset, **tolerance: float) -> None:
    assert set(got.data_vars) == set(expected.data_vars)
    for name in got.data_vars:
        np.testing.assert_allclose(got[name].values, expected[name].values, **tolerance)


@every_estimator
@pytest.mark.parametrize("absent", [False, True], ids=["whole", "absent trials"])
def test_half_precision_is_computed_in_single(case: Case, absent: bool, recording: xr.DataArray) -> None:
    """Small counts are exact in half precision, so that only sums over trials can go wrong."""
    if absent:
        recording.values[5:, 6:] = np.nan
    single = estimated(case, recording.astype(np.float32))
    assert_same(estimated(case, recording.astype(np.float16)), single, rtol=0)
    assert_same(single, estimated(case, recording), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    "estimate",
    [
        lambda da: statistics.eigenmoments(da, of="signal", n_moments=2, **HALVES),
        lambda da: statistics.factor_analysis(da, max_factors=1, n_folds=3, rng=0).loadings,
        lambda da: statistics.remove_drift(da, window=5),
        statistics.remove_gain,
        lambda da: statistics.pairs(da, distance=["depth"]),
        lambda da: statistics.fit_covariance(da, statistics.DiagonalOnly()).diagonal(),
        lambda da: statistics.mean_matched_fano_factor(da, by="area", bin_width=1, rng=0),
        lambda da: statistics.corrected_r2(da.mean("repeat").astype(np.float16), da),
    ],
)
def test_half_precision_elsewhere(estimate: Callable[[xr.DataArray], Any], recording: xr.DataArray) -> None:
    half, single = (estimate(recording.astype(dtype)) for dtype in (np.float16, np.float32))
    if isinstance(single, xr.Dataset):
        assert_same(half, single, rtol=0)
    else:
        np.testing.assert_array_equal(half, single)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda values: kernels.noise_correlation(values),
        lambda values: kernels.noise_covariance(values)[0],
        lambda values: kernels.signal_correlation(values),
        lambda values: kernels.reliability(values, 2, np.random.default_rng(0)),
        lambda values: kernels.fano_factor(values),
        lambda values: kernels.population_coupling(values),
        lambda values: kernels.cvpca(values, 2, np.random.default_rng(0)),
    ],
)
def test_kernels_promote_bfloat16(kernel: Callable[[torch.Tensor], torch.Tensor], recording: xr.DataArray) -> None:
    counts = torch.from_numpy(recording.values).bfloat16()
    np.testing.assert_array_equal(kernel(counts), kernel(counts.float()))


@every_estimator
def test_whole_numbers_are_numbers(case: Case, recording: xr.DataArray) -> None:
    assert_same(estimated(case, recording.astype(np.int64)), estimated(case, recording), rtol=1e-9)


@every_estimator
@pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="long double is double here")
def test_long_double_is_refused(case: Case, recording: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="expected double precision or less"):
        estimated(case, recording.astype(np.longdouble))


@every_estimator
def test_what_is_no_recording_is_refused(case: Case, recording: xr.DataArray) -> None:
    for by in ({}, {"by": "area"}):
        with pytest.raises(ValueError, match=r"DataArray, got ndarray"):
            case.estimate(recording.values, **case.options, **by)
        with pytest.raises(ValueError, match="repeat"):
            case.estimate(recording[:, :1], **case.options, **by)


@every_estimator
def test_units_named_like_a_result_stay(case: Case, recording: xr.DataArray) -> None:
    """A unit's `loading` from elsewhere is not overwritten by the one that is computed, nor the other way round."""
    plain = case.estimate(recording, **case.options)
    names = names_in(as_xarray(plain)) - {"None", "stimulus", "unit", "area", "depth", "clip"} | {"other_unit"}
    clashing = recording.assign_coords({name: ("unit", np.arange(8)) for name in names})
    assert_same(estimated(case, clashing), estimated(case, recording), rtol=0)
    result = as_xarray(case.estimate(clashing, **case.options))
    if "unit" in result.dims:
        taken = names_in(as_xarray(plain)) & names
        assert all(result[f"unit_{name}"].values.tolist() == list(range(8)) for name in taken)
    grouped = as_xarray(case.estimate(clashing, **case.options, by="area"))
    assert_same(
        grouped if isinstance(grouped, xr.Dataset) else grouped.to_dataset(name="value"),
        estimated(case, recording, by="area"),
        rtol=0,
    )


@every_estimator
def test_a_group_has_what_it_has_alone(case: Case, recording: xr.DataArray) -> None:
    together = estimated(case, recording, by="area")
    assert together["area"].values.tolist() == ["a", "b"]
    for area in "ab":
        inside = recording["area"].values == area
        alone, group = estimated(case, recording.isel(unit=inside)), together.sel(area=area)
        group = group.isel({dim: inside for dim in ("unit", "other_unit") if dim in group.dims})
        assert_same(group, alone, rtol=1e-12)


@every_estimator
@pytest.mark.parametrize("label", [None, np.nan])
def test_units_without_a_label_are_no_group(case: Case, label: float | None, recording: xr.DataArray) -> None:
    labels = np.array([*"aabbab", label, label], dtype=object)
    with pytest.raises(ValueError, match=r"'area' for every unit, got none for 2 of 8 \(positions 6, 7\)"):
        estimated(case, recording.assign_coords(area=("unit", labels)), by="area")


@every_estimator
def test_labels_of_several_types_have_no_order(case: Case, recording: xr.DataArray) -> None:
    labels = np.array([1, 1, "b", "b", 1, "b", "b", 1], dtype=object)
    with pytest.raises(ValueError, match="'area' of one type, got int, str; convert them to text"):
        estimated(case, recording.assign_coords(area=("unit", labels)), by="area")


@every_estimator
def test_groups_cannot_be_named_like_the_result(case: Case, recording: xr.DataArray) -> None:
    names = names_in(as_xarray(case.estimate(recording, **case.options)).reset_coords(drop=True)) - {"None"}
    for name in names - {"stimulus", "unit"}:
        responses = recording.assign_coords({name: ("unit", recording["area"].values)})
        with pytest.raises(ValueError, match=f"a name that the result does not use, got '{name}'; rename"):
            estimated(case, responses, by=name)


@every_estimator
def test_a_result_says_where_it_comes_from(case: Case, recording: xr.DataArray) -> None:
    before = recording.copy(deep=True)
    result = case.estimate(recording, **case.options)
    xr.testing.assert_identical(recording, before)
    if isinstance(result, xr.DataArray):
        assert result.name == case.estimate.__name__
    if isinstance(result, xr.DataArray | xr.Dataset):
        assert result.attrs["source"] == "simulation" and result.attrs["window"] == "0–1 s"
        assert "unit" not in result.dims or {"area", "depth"} <= set(result.coords)


@every_estimator
@settings(max_examples=4, deadline=None, derandomize=True)
@given(order=st.permutations(range(8)))
def test_the_order_of_units_does_not_matter(case: Case, order: list[int], _recording: xr.DataArray) -> None:
    expected, got = (estimated(case, responses) for responses in (_recording, _recording.isel(unit=order)))
    expected = expected.isel({dim: order for dim in ("unit", "other_unit") if dim in expected.dims})
    assert_same(got, expected, rtol=case.tolerance, atol=case.tolerance)


@every_estimator
@settings(max_examples=4, deadline=None, derandomize=True)
@given(scale=st.floats(1e-3, 1e3))
def test_units_of_measurement_do_not_matter(case: Case, scale: float, _recording: xr.DataArray) -> None:
    if case.power is None:
        pytest.skip("of counts, or of random axes")
    expected, got = estimated(case, _recording), estimated(case, _recording * scale)
    assert_same(got, expected * scale**case.power, rtol=1e3 * case.tolerance, atol=1e-6 * scale**case.power)
