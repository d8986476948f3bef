"""Distributions, curves and spectra of systems on common axes."""

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import statistics
from neurovar.statistics import profiles


@pytest.fixture(scope="module")
def systems() -> dict[str, xr.DataArray]:
    one = reference.recording("structured", n_units=8, n_stimuli=30, n_repeats=6)
    return {"V1": one, "V2": reference.recording("isotropic", n_units=5, n_stimuli=40, n_repeats=4)}


@pytest.fixture(scope="module")
def found(systems: dict[str, xr.DataArray]) -> xr.Dataset:
    return profiles(systems, rng=0)


def test_densities_are_histograms_that_integrate_to_1(found: xr.Dataset, systems: dict[str, xr.DataArray]) -> None:
    width = float(found["correlation"].diff("correlation")[0])
    np.testing.assert_allclose(found["density"].sum("correlation") * width, 1)
    matrix = reference.zscored_noise_correlation(systems["V2"].values)
    values = matrix[np.triu_indices(5, 1)]
    mean = float((found["density"].sel(system="V2") * found["correlation"]).sum() * width)
    assert mean == pytest.approx(values.mean(), abs=width)


def test_curves_are_those_of_binned_pairs(found: xr.Dataset, systems: dict[str, xr.DataArray]) -> None:
    expected = statistics.binned(
        statistics.pairs(systems["V1"]), against="signal_correlation", edges=found.attrs["edges"]
    )
    one = found.sel(system="V1")
    for name in ("signal_correlation", "noise_correlation", "standard_error", "n_pairs"):
        np.testing.assert_allclose(one[name], expected[name])


def test_spectra_have_the_ranks_of_each_system(found: xr.Dataset) -> None:
    assert found["spectrum"].notnull().sum("rank").values.tolist() == [8, 5]
    assert found["noise_spectrum"].notnull().sum("rank").values.tolist() == [8, 5]
    assert found.attrs["method"] == "cvpca"
    assert (found["reason"] == "").all()


def test_a_seed_means_one_result(systems: dict[str, xr.DataArray], found: xr.Dataset) -> None:
    xr.testing.assert_identical(found, profiles(systems, rng=0))
    assert not profiles(systems, rng=1)["spectrum"].equals(found["spectrum"])


def test_what_a_system_does_not_allow_has_a_reason(systems: dict[str, xr.DataArray]) -> None:
    one = profiles({"V1": systems["V1"], "gratings": systems["V1"].isel(stimulus=[0])}, rng=0)
    reason = one["reason"].sel(system="gratings")
    assert reason.sel(profile="density").item() == ""
    assert "expected at least 3 stimuli with 2 repeats" in reason.sel(profile="curve").item()
    assert "expected at least 3 stimuli with 2 repeats" in reason.sel(profile="spectrum").item()
    assert one["noise_correlation"].sel(system="gratings").isnull().all()
    assert one["spectrum"].sel(system="gratings").isnull().all()


def test_units_that_were_not_recorded_together_have_a_signal_alone(systems: dict[str, xr.DataArray]) -> None:
    one = profiles({"V1": reference.apart(systems["V1"])}, rng=0)
    assert one["density"].isnull().all()
    assert one["spectrum"].notnull().all()
    assert "recorded together" in one["reason"].sel(system="V1", profile="noise_spectrum").item()


def test_no_system() -> None:
    with pytest.raises(ValueError, match="expected at least one system, got none"):
        profiles({}, rng=0)
