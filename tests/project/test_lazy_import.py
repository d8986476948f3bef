"""Importing the package or asking the command for help loads nothing heavy, and importing anything has no effects."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "matplotlib", "xarray", "numpy", "pandas", "scipy", "sklearn", "pooch"}


def loaded_after(code: str, folder: Path) -> set[str]:
    """The top-level modules that a fresh interpreter has after running `code`."""
    report = "\nimport sys; print('LOADED', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + report], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_importing_neurovar_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not loaded_after("import neurovar", tmp_path) & HEAVY


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = ['neurovar', '--help']\nfrom neurovar.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code"
    )
    assert not loaded_after(code, tmp_path) & {"torch", "matplotlib", "xarray", "sklearn", "scipy"}


@pytest.mark.parametrize("group", ["responses", "statistics", "covariance"])
def test_importing_a_group_loads_nothing_heavy(group: str, tmp_path: Path) -> None:
    assert not loaded_after(f"import neurovar.{group}", tmp_path) & HEAVY


def test_recordings_and_their_statistics_need_no_torch_and_no_command_line(tmp_path: Path) -> None:
    code = """
import numpy, neurovar_datasets
from neurovar import responses, statistics
numpy.save("counts.npy", numpy.random.default_rng(0).poisson(5.0, (6, 8, 4)))
dims = "stimulus", "repeat", "unit"
recording = neurovar_datasets.arrays.load(neurovar_datasets.arrays.Declaration("counts.npy", "spike count", dims=dims))
responses.save(recording, "counts.zarr")
for statistic in (statistics.fano_factor, statistics.noise_correlation, statistics.effective_dimensionality):
    statistic(responses.open_zarr("counts.zarr"))
"""
    assert not loaded_after(code, tmp_path) & {"torch", "matplotlib", "sklearn", "typer", "rich"}


def test_importing_every_public_module_loads_no_torchvision_and_changes_nothing(tmp_path: Path) -> None:
    code = """
import random, matplotlib, numpy, torch, neurovar
def state():
    generators = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    return dict(matplotlib.rcParams), generators, torch.get_num_threads()
before = repr(state())
for name in neurovar.__all__:
    getattr(neurovar, name)
assert repr(state()) == before
"""
    assert "torchvision" not in loaded_after(code, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_refused() -> None:
    import neurovar

    assert set(dir(neurovar)) == set(neurovar.__all__)
    with pytest.raises(AttributeError, match="No neurovar attribute utils"):
        _ = neurovar.utils


@pytest.mark.parametrize("module", ["neurovar.statistics._tiles", "neurovar.statistics.spectra"])
def test_what_a_worker_imports_first_imports_alone(module: str, tmp_path: Path) -> None:
    """Old xarray cannot be imported after dask.array."""
    assert module.split(".")[0] in loaded_after(f"import {module}", tmp_path)
