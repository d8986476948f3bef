"""The command: help, version, and what it says of bad input."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from neurovar_datasets import CorruptDataError, DataUnavailableError

from neurovar import __version__
from neurovar.cli import app as cli
from neurovar.cli.quickstart import compute, inputs


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["neurovar", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_help_names_the_main_job() -> None:
    shown = subprocess.run([sys.executable, "-m", "neurovar", "--help"], capture_output=True, text=True, check=True)
    assert "quickstart" in shown.stdout


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert __version__ in capsys.readouterr().out


def stand_in() -> inputs.Inputs:
    cortex, images = inputs.simulated_cortex(0)
    data = inputs.digits.load("train")
    return inputs.Inputs(cortex[:40], images[:40], data, data, ("simulated",), ("a test",))


def without_repeats(given: inputs.Inputs) -> inputs.Inputs:
    return replace(given, cortex=given.cortex[:, :1])


def with_silent_unit(given: inputs.Inputs) -> inputs.Inputs:
    return replace(given, cortex=with_unit(given.cortex, np.nan))


def with_constant_unit(given: inputs.Inputs) -> inputs.Inputs:
    return replace(given, cortex=with_unit(given.cortex, 2))


def with_unit(cortex: xr.DataArray, value: float) -> xr.DataArray:
    values = cortex.values.copy()
    values[:, :, 3] = value
    return cortex.copy(data=values)


def with_small_images(given: inputs.Inputs) -> inputs.Inputs:
    return replace(given, images=given.images[:, :, :16, :16])


def with_other_stimuli(given: inputs.Inputs) -> inputs.Inputs:
    return replace(given, images=given.images.assign_coords(stimulus=np.arange(given.images.sizes["stimulus"])))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_repeats, "at least 2 repeats"),
        (with_silent_unit, "only NaN for 1 unit"),
        (with_constant_unit, "zero noise variance"),
        (with_small_images, "expected images"),
        (with_other_stimuli, "expected stimuli in common"),
    ],
)
def test_bad_data_is_named_and_leaves_nothing(
    spoil, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    monkeypatch.setattr(inputs, "load", lambda **_: spoil(stand_in()))
    assert run(monkeypatch, "quickstart", "--quick", "--output", str(tmp_path / "report")) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layer_lists_the_near_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    monkeypatch.setattr(inputs, "load", lambda **_: stand_in())
    monkeypatch.setattr(compute, "LAYERS", ("network._blocks.16",))
    assert run(monkeypatch, "quickstart", "--quick", "--output", str(tmp_path / "report")) == 2
    assert "near it: network._blocks.6, network._blocks.1" in capsys.readouterr().err


@pytest.mark.parametrize("error", [CorruptDataError("wrong hash"), DataUnavailableError("no file, no network")])
def test_real_data_that_is_damaged_or_required_ends_it(
    error: ValueError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(inputs.cowley2023_v4, "load", fail)
    assert run(monkeypatch, "quickstart", "--require-real", "--output", str(tmp_path / "report")) == 2
    assert f"neurovar: error: {error}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "report"
    taken.write_text("mine")
    assert run(monkeypatch, "quickstart", "--output", str(taken)) == 2
    assert "is a file" in capsys.readouterr().err
    assert run(monkeypatch, "quickstart", "--output", str(taken / "below")) == 2
    assert "expected a folder that can be written" in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_jobs_and_seed_are_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "quickstart", "--jobs", "0") == 2
    assert "at least 1 job" in capsys.readouterr().err
