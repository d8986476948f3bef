"""The main job on stand-ins, small."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from neurovar_datasets import DataUnavailableError

from neurovar.cli.quickstart import compute, inputs, main, page

TINY = compute.Scale(20, 2, 300, 1, 2, 150, 8, 1, (1,), n_draws=2, noisy_layer="layer2", rank=16)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page and results of a tiny run without real data."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    return run(tmp_path_factory.mktemp("one") / "report", n_jobs=1)


def run(output: Path, *, n_jobs: int) -> Path:
    def unavailable(*_: object, **__: object) -> None:
        raise DataUnavailableError("not here <b>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs.cowley2023_v4, "load", unavailable)
        patch.setattr(inputs.fashion_mnist, "load", unavailable)
        patch.setattr(compute, "QUICK", TINY)
        return main(output, quick=True, require_real=False, seed=0, n_jobs=n_jobs).parent


@pytest.mark.slow
def test_it_writes_page_figures_and_results_and_nothing_else(report: Path) -> None:
    assert sorted(item.name for item in report.iterdir()) == [
        "comparison.nc",
        "differences.nc",
        "figures",
        "index.html",
        "robustness.nc",
        "signal_rule.nc",
    ]
    assert [item.name for item in report.parent.iterdir()] == ["report"]
    assert len(list((report / "figures").glob("*.png"))) == 4


@pytest.mark.slow
def test_stand_ins_are_named_in_heading_and_attributes(report: Path) -> None:
    heading = (report / "index.html").read_text(encoding="utf-8").split("In short")[0]
    assert "SIMULATED recording" in heading
    assert "DIGITS" in heading
    for name in ("comparison", "robustness", "differences", "signal_rule"):
        attrs = xr.load_dataset(report / f"{name}.nc", engine="h5netcdf").attrs
        assert "SIMULATED" in attrs["data_warnings"]
        assert attrs["cortex"] == "simulation"
        assert "torch" in attrs["versions"]


@pytest.mark.slow
def test_results_keep_each_stimulus_and_every_noise(report: Path) -> None:
    results = xr.load_dataset(report / "robustness.nc", engine="h5netcdf")
    assert dict(results["correct"].sizes) == {"seed": 2, "noise": 8, "condition": 6, "stimulus": 8}
    derived = [source + control for source in ("pgd", "simulated") for control in ("", "_diagonal", "_rotated")]
    assert sorted(results["noise"].values) == sorted(["none", "isotropic", *derived])
    np.testing.assert_allclose(results["accuracy"], results["correct"].mean(("seed", "stimulus")), atol=1e-6)
    assert (results["low"] <= results["high"]).all()


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(report: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "report", n_jobs=2)
    for name in ("comparison", "robustness", "differences", "signal_rule"):
        first, second = (xr.load_dataset(folder / f"{name}.nc", engine="h5netcdf") for folder in (report, again))
        xr.testing.assert_equal(first, second)


@pytest.mark.slow
def test_the_table_says_what_was_dropped_and_compares_equal_numbers(report: Path) -> None:
    table = xr.load_dataset(report / "comparison.nc", engine="h5netcdf")
    assert table["n_units"].values.tolist() == [50] * 6
    assert table.attrs["constant_units_dropped"].startswith("simulated: 0, blocks.0: ")


def test_a_layer_gives_a_sample_of_all_its_units_that_vary() -> None:
    values = np.random.default_rng(0).standard_normal((5, 3, 200))
    values[:, :, ::2] = 1
    layer = xr.DataArray(
        values, dims=("stimulus", "repeat", "unit"), coords={"stimulus": range(5), "channel": ("unit", np.arange(200))}
    )
    kept = compute._varying_units(layer, np.random.default_rng(1))
    assert kept.sizes["unit"] == 50
    assert (kept["channel"].values % 2 == 1).all()
    assert kept["channel"].values.max() > 150
    assert kept.attrs["dropped_units"] == list(range(0, 200, 2))


def test_an_error_while_writing_leaves_the_old_report(tmp_path: Path) -> None:
    output = tmp_path / "report"
    output.mkdir()
    (output / "index.html").write_text("old")
    with pytest.raises(RuntimeError, match="half way"), page.staged(output) as folder:
        (folder / "index.html").write_text("new")
        raise RuntimeError("half way")
    assert (output / "index.html").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["report"]


def test_a_report_replaces_the_one_before_and_spares_other_files(tmp_path: Path) -> None:
    output = tmp_path / "report"
    (output / "figures").mkdir(parents=True)
    (output / "figures" / "old.png").write_text("old")
    (output / "notes.txt").write_text("mine")
    with page.staged(output) as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "new.png").write_text("new")
    assert sorted(str(p.relative_to(output)) for p in output.rglob("*.*")) == ["figures/new.png", "notes.txt"]


@pytest.mark.data
def test_real_inputs_come_without_a_warning() -> None:
    found = inputs.load(require_real=False, seed=0)
    assert found.warnings == ()
    assert found.cortex_name == "V4"
    assert found.attrs()["data_warnings"] == "none: all inputs are real"
