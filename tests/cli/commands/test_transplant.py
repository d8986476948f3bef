"""`neurovar transplant`: a recording's noise for a layer, as files that load, and bad input said clearly."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from neurovar import covariance, networks, responses, statistics
from neurovar.cli.app import app, main
from neurovar.networks import IMAGE_DIMS, small_network

LAYER = ["--layer", "layer3"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Spike counts of 60 stimuli, and images of as many."""
    counts = statistics.population(n_stimuli=60, n_repeats=6, n_units=8, counts=True, rng=0)
    responses.save(counts.assign_coords(stimulus=np.arange(60)), tmp_path / "cortex.zarr")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).random((60, 1, 28, 28), dtype=np.float32))
    return tmp_path / "cortex.zarr"


@pytest.fixture
def no_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the comparison with the source, which takes most of the time."""
    monkeypatch.setattr("neurovar.cli.commands.transplant._compare", lambda *args: ())


def run(recording: Path, *options: str) -> str:
    images, output = recording.parent / "images.npy", recording.parent / "out"
    given = ["transplant", str(recording), "small", "--images", str(images), "--output", str(output), *options]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "method",
    [
        ["signal_rule"],
        ["spectrum", "--axes", "signal", "--rank", "4"],
        ["readout", "--regression", "ridge", "--least-goodness", "0.001"],
        ["assignment", "--n-factors", "1"],
        ["gain"],
    ],
    ids=lambda method: method[0],
)
@pytest.mark.usefixtures("no_statistics")
def test_every_method_writes_noises_that_load(method: list[str], recording: Path) -> None:
    if method[0] == "readout":  # random images say nothing of simulated tuning: a recording that the network predicts
        predicted(recording)
    said = run(recording, *LAYER, "--method", *method, "--n-dims", "2", "--trace", "0.5")
    noises = {path.stem: covariance.load(path) for path in (recording.parent / "out").glob("*.safetensors")}
    assert {"transplanted", "diagonal", "isotropic", "rotated", "signal_aligned"} <= set(noises)
    assert [noise.trace() for noise in noises.values()] == pytest.approx([16.0] * len(noises), rel=1e-3)
    assert "no control mean shift: it needs mean_shift=" in said
    noisy = {"layer3": noises["transplanted"]}
    with networks.inject(small_network(rng=0).eval(), noisy, generator=torch.Generator()) as model:
        assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def predicted(recording: Path) -> None:
    from neurovar.cli.commands._images import open_images

    images = open_images(str(recording.parent / "images.npy"))
    layer = networks.record(small_network(rng=0).eval(), images, layers=["layer3"], rng=0)
    tuning = layer.isel(unit=slice(4)) / layer.isel(unit=slice(4)).std("stimulus") + 8
    trials = tuning.values + 0.3 * np.random.default_rng(0).standard_normal((60, 6, 4))
    again = xr.DataArray(trials, dims=layer.dims, coords={"stimulus": np.arange(60)}, attrs={"units": "dF/F"})
    for path in sorted(recording.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    recording.rmdir()
    responses.save(again, recording)


def test_the_layer_with_its_noise_stands_beside_the_recording(recording: Path) -> None:
    said = run(recording, *LAYER, "--method", "gain")
    with xr.open_dataset(recording.parent / "out" / "statistics.nc", engine="h5netcdf") as table:
        assert table["system"].values.tolist() == ["cortex", "layer3 with its noise"]
    assert "noise correlation" in said and "injected noise" in flat(said)
    for size in ("units 8 8", "stimuli 60 60", "repeats (most) 6 6"):
        assert size in flat(said)


@pytest.mark.usefixtures("no_statistics")
def test_the_same_seed_gives_the_same_noise(recording: Path) -> None:
    found = []
    for seed in ("1", "1", "2"):
        run(recording, *LAYER, "--method", "spectrum", "--axes", "random", "--rank", "3", "--seed", seed)
        found.append(covariance.load(recording.parent / "out" / "transplanted.safetensors").to_dense())
    assert torch.equal(found[0], found[1]) and not torch.allclose(found[0], found[2])


@pytest.mark.usefixtures("no_statistics")
def test_controls_of_an_earlier_run_do_not_stay_beside_other_noise(recording: Path) -> None:
    output = recording.parent / "out"
    run(recording, *LAYER, "--method", "signal_rule", "--n-dims", "2")
    assert (output / "signal_aligned.safetensors").exists()
    (output / "mine.safetensors").touch()
    run(recording, *LAYER, "--method", "signal_rule")
    kept = {path.stem for path in output.glob("*.safetensors")}
    assert "mine" in kept and "transplanted" in kept and not kept & {"signal_aligned", "signal_orthogonal"}


@pytest.mark.usefixtures("no_statistics")
def test_noise_that_drowns_the_signal_is_said(recording: Path) -> None:
    images = xr.DataArray(np.load(recording.parent / "images.npy"), dims=IMAGE_DIMS, coords={"stimulus": range(60)})
    layer = networks.record(small_network(rng=0).eval(), images, layers=["layer3"], rng=0)
    signal = float(layer.var(("stimulus", "repeat")).mean())
    loud = run(recording, *LAYER, "--method", "signal_rule", "--trace", str(20 * signal))
    assert f"Variance a unit: {signal:.3g} of the signal of layer3, {20 * signal:.3g} of the noise, which" in flat(loud)
    assert f"drowns the signal in the statistics below; --trace {signal:.2g} makes both alike" in flat(loud)
    fair = run(recording, *LAYER, "--method", "signal_rule", "--trace", str(5 * signal))
    assert f"{5 * signal:.3g} of the noise" in flat(fair) and "drowns the signal" not in flat(fair)


def flat(said: str) -> str:
    return " ".join(said.split())


BAD = {
    r"expected an input that small takes, got shape \(3, 28, 28\) \(.*to have 1 channels, but got 3": (
        [*LAYER, "--method", "gain", "--input", "3,28,28"]
    ),
    "expected a layer of Sequential, got 'layer9'; near it: layer": ["--layer", "layer9", "--method", "gain"],
    "expected --method signal_rule, .*, got magic": [*LAYER, "--method", "magic"],
    "expected the options n_factors for 'assignment', got none": [*LAYER, "--method", "assignment"],
    "expected options that 'gain' has": [*LAYER, "--method", "gain", "--rank", "3"],
    "expected images as input, --input C,H,W, got 784": [*LAYER, "--method", "gain", "--input", "784"],
    "expected --axes signal or random, as the images are shown as they are, got modification": (
        [*LAYER, "--method", "spectrum", "--axes", "modification"]
    ),
    "expected --regression ridge or pls, got lasso": [*LAYER, "--method", "readout", "--regression", "lasso"],
    "expected --n-components for pls and for nothing else, got pls and None": (
        [*LAYER, "--method", "readout", "--regression", "pls"]
    ),
    "expected --trace above 0, got -1": [*LAYER, "--method", "gain", "--trace", "-1"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(
    message: str, recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = recording.parent / "images.npy", recording.parent / "out"
    given = ["transplant", str(recording), "small", "--images", str(images), "--output", str(output), *BAD[message]]
    monkeypatch.setattr("sys.argv", ["neurovar", *given])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("neurovar: error: expected")
    assert re.search(message, said)
    assert not output.exists()


def test_a_recording_without_images_says_so(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["neurovar", "transplant", str(recording), "small", *LAYER, "--method", "gain"])
    with pytest.raises(SystemExit):
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert "cortex.zarr: expected images: a public source that has some, an .npy file or a folder" in said
