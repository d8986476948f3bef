"""`neurovar robustness`: a verdict or why there is none, files that open again, and bad input said clearly."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from neurovar.cli.app import app, main
from neurovar.cli.commands import _robustness as evaluating
from neurovar.cli.commands._images import open_labelled
from neurovar.covariance import Diagonal
from neurovar.networks import small_network
from neurovar.robustness import FGM, PGD, honesty, summarise

FIGURES = ("accuracy", "convergence", "noise_by_test", "honesty")
TINY = {"n_draws": (1, 2), "n_steps": (1, 2), "apgd_steps": 2, "n_restarts": 1, "n_queries": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images with the classes that the network gives them, its parameters, and a noise; weak attacks."""
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    model = small_network(rng=0).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.save(small_network(rng=1).state_dict(), tmp_path / "other.pt")
    with torch.no_grad():
        labels = model(torch.tensor(images)).argmax(1).numpy()
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    Diagonal.isotropic(32, variance=0.01).save(tmp_path / "noise.safetensors")
    monkeypatch.setattr(evaluating, "QUICK", TINY)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attacks, and no figures."""
    independent = PGD(0.05, follows="independent", n_steps=1, n_restarts=1)
    monkeypatch.setattr(evaluating, "attacks", lambda *args, **options: [independent, FGM(0.05, n_draws=1)])
    monkeypatch.setattr(evaluating, "figures", lambda *args: iter(()))


USUAL = ["robustness", "small", "--images", "images.npz", "--epsilon", "0.05", "--quick", "--seeds", "1"]
NOISE = ["--noise", "full=layer3:noise.safetensors"]


def run(*options: str) -> str:
    result = CliRunner().invoke(app, [*USUAL, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def opened(group: str | None = None) -> xr.Dataset:
    with xr.open_dataset("robustness/robustness.nc", engine="h5netcdf", group=group) as data:
        return data.load()


@pytest.mark.usefixtures("folder")
def test_everything_found_is_printed_drawn_and_written() -> None:
    source = ["--source", "full=motion_blur", "--modification", "motion_blur=1,3", "--weights", "weights.pt"]
    said = run(*NOISE, *source)
    assert "Verdict: withheld" in said
    assert "no --weights" not in said
    for name in FIGURES:
        assert Path(f"robustness/{name}.png").stat().st_size > 10_000
        assert f"Wrote robustness/{name}.png" in said
    result = opened()
    assert result["noise"].values.tolist() == ["none", "full"]
    assert result["origin_of"].values.tolist() == ["", "motion_blur"]
    assert result["condition"].values[:3].tolist() == ["clean", "motion_blur 1", "motion_blur 3"]
    assert result["correct"].dtype == bool and result["k"].values.tolist() == [1, 10]
    assert result["draw_seed"].values.tolist() == [0]
    assert result["correct"].sel(noise="none").isel(condition=0).all()  # the weights are those of the file
    xr.testing.assert_identical(honesty(result)["status"], opened("checks")["status"].astype(object).astype(str))
    np.testing.assert_allclose(summarise(result)["accuracy"], opened("accuracy")["accuracy"])
    assert opened("worst")["condition"].values[3] == "worst case ε=0.05"
    assert set(opened("differences")) == {"difference", "low", "high"}
    for check, status in zip(opened("checks")["check"].values, opened("checks")["status"].values):
        assert f"{check} {status}" in said


@pytest.mark.usefixtures("short")
def test_the_numbers_depend_on_the_seed() -> None:
    found = []
    for seed in ("1", "1", "2"):
        run(*NOISE, "--seed", seed)
        found.append(opened())
    assert not [name for name in found[0].variables if not found[0][name].equals(found[1][name])]
    assert found[2]["draw_seed"].values.tolist() == [2]
    assert not np.array_equal(found[0]["gradient_snr"], found[2]["gradient_snr"])


@pytest.mark.usefixtures("short")
def test_jobs_are_the_workers_of_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose result does not depend on them: tests/test_robustness.py."""
    asked, evaluate = [], evaluating.evaluation.evaluate

    def here(*args: Any, n_jobs: int, **options: Any) -> xr.Dataset:
        asked.append(n_jobs)
        return evaluate(*args, n_jobs=1, **options)

    monkeypatch.setattr(evaluating.evaluation, "evaluate", here)
    run("--jobs", "3")
    assert asked == [3]


@pytest.mark.usefixtures("short")
def test_without_a_noise_the_network_is_tested_alone() -> None:
    said = run()
    assert "no --weights: small has the parameters that its name gives it, which may be random" in said
    assert "minus no noise" not in said
    assert opened()["noise"].values.tolist() == ["none"]


@pytest.mark.usefixtures("short")
def test_several_weights_are_training_seeds_that_attack_one_another() -> None:
    run(*NOISE, "--weights", "weights.pt", "--weights", "other.pt")
    result = opened()
    assert result.sizes["seed"] == 2
    assert result["ran"].all()  # the independent network is that of the other seed


@pytest.mark.usefixtures("short")
def test_a_noise_has_the_weights_that_were_trained_with_it() -> None:
    own = ["--weights", "full=other.pt", "--weights", "train_only=other.pt"]
    run(*NOISE, "--weights", "weights.pt", *own, "--control", "train_only=train_only:full")
    result = opened()
    assert result["noise"].values.tolist() == ["none", "full", "train_only"]
    assert result["noisy"].values.tolist() == [False, True, False]
    assert result["matched_by"].values.tolist() == ["", "", "trace"]
    assert result["control_of"].values.tolist() == ["", "", "full"]
    right = result["correct"].isel(condition=0, seed=0, draw_seed=0, k=-1)
    assert right.sel(noise="none").all()
    assert not right.sel(noise="train_only").all()  # labels are what weights.pt says
    assert np.array_equal(right.sel(noise="train_only"), _right("other.pt"))


def _right(weights: str) -> np.ndarray:
    model = small_network(rng=0).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    with np.load("images.npz") as data, torch.no_grad():
        return model(torch.tensor(data["images"])).argmax(1).numpy() == data["labels"]


@pytest.mark.usefixtures("short")
def test_a_network_trained_apart_can_be_given_for_transfer_attacks() -> None:
    run("--weights", "weights.pt")
    assert opened()["ran"].isel(condition=1).values.tolist() == [[[False]]]
    run("--weights", "weights.pt", "--independent", "other.pt")
    assert opened()["ran"].all()


@pytest.mark.usefixtures("folder")
def test_one_noise_may_be_at_two_layers() -> None:
    Diagonal.isotropic(16, variance=0.01).save("last.safetensors")
    tested, _ = evaluating.networks(
        "small", ["both=layer3:noise.safetensors", "both=layer4:last.safetensors"], [], [], [], None
    )
    assert list(tested) == ["none", "both"]
    assert list(tested["both"][0].noises) == ["layer3", "layer4"]
    assert tested["both"][0].model is tested["none"][0].model


BAD = {
    r"expected --noise NAME=LAYER:FILE, got 'full'": ["--noise", "full"],
    r"expected --noise NAME=LAYER:FILE, got 'full=layer3'": ["--noise", "full=layer3"],
    r"expected another name for --noise 'none=a:b': 'none' stands for no noise": ["--noise", "none=a:b"],
    r"'full' has noise at layer3 already": [*NOISE, *NOISE],
    r"expected a covariance saved by neurovar, found no file at nowhere": ["--noise", "full=layer3:nowhere"],
    r"expected a covariance over the 3136 units of layer 'layer1', got 32": [
        "--noise",
        "full=layer1:noise.safetensors",
    ],
    r"expected a layer of Sequential, got 'layer9'": ["--noise", "full=layer9:noise.safetensors"],
    r"expected the --source of one of full, got v4": [*NOISE, "--source", "v4=pgd"],
    r"expected --source NAME=WHAT\[,EPSILON,NORM\], got 'full'": [*NOISE, "--source", "full"],
    r"expected --source NAME=WHAT\[,EPSILON,NORM\], got 'pgd,x,linf'": [*NOISE, "--source", "full=pgd,x,linf"],
    r"expected the --control of one of full, got v4": [*NOISE, "--control", "v4=rotated"],
    r"expected a modification among .*, got 'blur'": ["--modification", "blur=3"],
    r"expected --modification NAME=STRENGTH,…, got 'motion_blur=a'": ["--modification", "motion_blur=a"],
    r"expected --norm linf or l2, got 'l1'": ["--norm", "l1"],
    r"expected at least 1 noise seed, got --seeds 0": ["--seeds", "0"],
    r"expected at least 1 worker process, got --jobs 0": ["--jobs", "0"],
    r"expected at least 1 image, got --n-images -1": ["--n-images", "-1"],
    r"expected at least one epsilon, all above 0, got \[0.05, -1.0\]": ["--epsilon", "-1"],
    r"nowhere.pt: expected a file of weights, found none": ["--weights", "nowhere.pt"],
    r"noise.safetensors: expected the weights of small, got others": ["--weights", "noise.safetensors"],
    r"for each of 1 training seeds, got 2 as independent": [
        *["--independent", "other.pt"],
        *["--independent", "other.pt"],
    ],
    r"nowhere: expected images with labels: fashion_mnist, digits, or an .npz file": ["--images", "nowhere"],
    r"expected a folder that can be written as --output, got images.npz": ["--output", "images.npz"],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(
    message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    monkeypatch.setattr("sys.argv", ["neurovar", *USUAL, *BAD[message]])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("neurovar: error: ")
    assert re.search(message, said), said
    assert sorted(folder.iterdir()) == before


def test_labels_and_images_of_a_file(folder: Path) -> None:
    data = open_labelled(str(folder / "images.npz"))
    assert data["images"].dims == ("stimulus", "channel", "row", "column") and data["images"].dtype == np.float32
    assert data["labels"].dtype == np.int64 and data["stimulus"].values.tolist() == [0, 1, 2]
    assert open_labelled("digits")["labels"].sizes == {"stimulus": 360}


BAD_FILES = {
    "labels: expected an array of this name": {"images": np.zeros((2, 1, 2, 2))},
    "expected 2 labels, integers from 0, for as many images, got float64": {
        "images": np.zeros((2, 1, 2, 2)), "labels": np.zeros(2)
    },
    r"expected 2 labels, integers from 0, for as many images, got int64 \(3,\)": {
        "images": np.zeros((2, 1, 2, 2)), "labels": np.zeros(3, np.int64)
    },
    "expected 1 labels, integers from 0": {"images": np.zeros((1, 1, 2, 2)), "labels": np.array([-1])},
    "expected pixels from 0 to 1, got 2 to 2": {"images": np.full((1, 1, 2, 2), 2.0), "labels": np.array([0])},
    "cannot be read": {"images": np.array([{}], dtype=object), "labels": np.array([0])},
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_FILES)
def test_files_that_are_no_images_with_labels(message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **BAD_FILES[message])
    with pytest.raises(ValueError, match=f"x.npz: .*{message}"):
        open_labelled(str(tmp_path / "x.npz"))


@pytest.mark.usefixtures("short")
def test_what_took_long_is_kept_whatever_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(result: xr.Dataset) -> xr.Dataset:
        raise ZeroDivisionError

    monkeypatch.setattr(evaluating.evaluation, "honesty", fail)
    with pytest.raises(ZeroDivisionError):
        run()
    assert opened()["condition"].values[0] == "clean"
