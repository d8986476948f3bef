"""The analyses run in their quick form and give what they are about."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from neurovar import statistics

FOLDER = Path(__file__).parents[2] / "analyses"


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, FOLDER / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
@pytest.mark.slow
def test_the_paper_s_attack_stands_beside_attacks_that_know_the_noise() -> None:
    """Preble et al. 2026: noise helps under their PGD at ε = 0.1, trace 2, layer 1.

    Their order (full, diagonal, isotropic) is that of networks trained on all images; after 4,000 images and 3 epochs
    300 test images do not show it (0.31, 0.40, 0.39, without noise 0.20).
    """
    analysis = load("preble2026_pgd")
    results = analysis.compute(quick=True, seed=0, n_jobs=1)
    accuracy = results["accuracy"].assign_coords(condition=results["protocol"].values)
    attacked = accuracy.isel(condition=results["protocol"].values == "preble2026").squeeze("condition").to_series()
    assert (attacked.drop("none") > attacked["none"]).all()
    worst = results["accuracy"].isel(condition=results["modification"].values == "worst case").squeeze("condition")
    knowing = results["accuracy"].isel(condition=results["protocol"].values == "noise_aware")
    assert (worst <= knowing.min("condition")).all()
    figure = analysis.plot(results)
    assert [ax.get_xlabel().split(",")[1].strip() for ax in figure.axes] == [
        "clean images",
        "PGD of the paper",
        "worst of four\nthat know the noise",
    ]


@pytest.mark.data
@pytest.mark.slow
def test_the_page_of_cortex_says_what_the_recordings_say() -> None:
    """The figures of shared/data/README.md, in the page that the analysis writes."""
    analysis = load("cortex_statistics")
    results = analysis.compute(quick=True, n_jobs=1)
    known = {"V4": (0.030, 0.89), "V1": (0.260, 2.12), "V2": (0.230, 2.77)}
    for area, (correlation, fano) in known.items():
        estimates = results["estimate"].sel(system=area)
        assert float(estimates.sel(statistic="noise_correlation")) == pytest.approx(correlation, abs=0.0006)
        assert float(estimates.sel(statistic="fano_factor")) == pytest.approx(fano, abs=0.006)
    page = analysis.page(results)
    assert all(f"| {label} |" in page for label in results["label"].values)
    assert "Noise correlation, published 0.01 to 0.25: 0.030 in V4 (inside), 0.260 in V1 (above)" in page


def test_coverage_is_the_share_of_intervals_that_hold_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = load("interval_coverage")
    estimates = iter([0.0, 1.0, 2.0, 9.0] * 4)  # only 2 ± 1.5 holds their mean, 3

    def one(noise: str, seed: object) -> xr.Dataset:
        estimate = xr.DataArray([next(estimates)], dims="statistic", coords={"statistic": ["fano_factor"]})
        parts = {"estimate": estimate, "low": estimate - 1.5, "high": estimate + 1.5}
        return xr.Dataset(parts | {"standard_error": xr.full_like(estimate, 2.0)})

    monkeypatch.setattr(analysis, "_one", one)
    monkeypatch.setattr(analysis, "_seeds", lambda seed, noise, n: range(4))
    results = analysis.compute(quick=True, n_jobs=1)
    assert results["coverage"].sizes == {"noise": 4, "statistic": 1}
    np.testing.assert_allclose(results["coverage"], 0.25)
    np.testing.assert_allclose(results["relative_error"], 2 / np.std([0, 1, 2, 9], ddof=1))
    assert (results["n_intervals"] == 4).all()
    assert analysis.plot(results).axes[0].get_ylabel() == "coverage of 95 % intervals"


@pytest.mark.parametrize("noise", ["independent", "low_rank", "signal_aligned", "counts"])
def test_simulated_recordings_are_new_ones_with_the_noise_named(noise: str) -> None:
    analysis = load("interval_coverage")
    first, again, other = (analysis.recording(noise, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (analysis.N_STIMULI, analysis.N_REPEATS, analysis.N_UNITS)
    assert first.identical(again) and not first.equals(other)
    correlations = statistics.noise_correlation(first, zscore=False).values[np.triu_indices(analysis.N_UNITS, 1)]
    chance = 1 / np.sqrt(analysis.N_STIMULI * (analysis.N_REPEATS - 1))
    assert (abs(correlations).mean() < chance) == (noise == "independent")
    assert (first.attrs["units"] == "spike count") == (noise == "counts")


@pytest.mark.data
@pytest.mark.slow
def test_transplanted_noise_is_like_its_source_and_is_tested_with_its_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    analysis = load("transplant")
    shorter = {name: analysis.METHODS[name] for name in ("signal_rule", "assignment")}
    monkeypatch.setattr(analysis, "METHODS", shorter)
    results = analysis.compute(quick=True, n_jobs=1)
    assert results.sizes["trace"] == 2 and results["condition"].values.tolist() == ["clean", "motion_blur", "pgd"]
    assert ((results["low"] <= results["accuracy"]) & (results["accuracy"] <= results["high"])).all()
    table = results.to_dataframe().reset_index().drop_duplicates("noise").set_index("noise")
    for layer in ("layer2", "network._blocks.14"):
        for method in ("signal_rule", "assignment"):  # what these carry over is V4's correlations
            like, control = (table.loc[f"{layer} V4 {method} {name}"] for name in ("transplanted", "diagonal"))
            assert like["correlation_distance"] < control["correlation_distance"]
    assert "V1 assignment layer2: expected stimuli in common" in results.attrs["not_available"]
    reached = results["matched_trace"].notnull()
    clean = results["matched_accuracy"].sel(condition="clean")
    np.testing.assert_allclose(clean[reached], results["clean_accuracy_wanted"][reached])
    assert analysis.plot(results).axes[0].get_xlabel() == "accuracy under PGD, trace 2\nper unit (95 % intervals)"


def test_equal_clean_accuracy_lies_between_traces() -> None:
    analysis = load("transplant")
    assert analysis._crossing(np.array([0.9, 0.8, 0.6]), 0.7) == (1, pytest.approx(0.5))
    assert analysis._crossing(np.array([0.9, 0.8, 0.6]), 0.9) == (0, 0.0)
    assert analysis._crossing(np.array([0.6, 0.5]), 0.7) is None
    assert analysis._crossing(np.array([0.9, 0.8]), 0.7) is None
