"""`neurovar layers`."""

import sys
from pathlib import Path

import pytest

from neurovar.cli import app as cli


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["neurovar", "layers", *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_the_small_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "small") == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip().startswith("layer")}
    assert rows["layer1.0"] == ["Conv2d", "16×14×14", "3,136", "1"]
    assert rows["layer5"] == ["Linear", "10", "10", "1"]
    assert "small: 20,982 parameters; input 1×28×28; 19 of 19 layers can be recorded" in shown


OWN = """
from torch import nn
class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        self.a_rather_long_name_of_a_layer_that_has_to_be_shown_whole = nn.Identity()
    def forward(self, x):
        return self.used(self.used(self.a_rather_long_name_of_a_layer_that_has_to_be_shown_whole(x)))
"""


def test_a_network_of_ones_own_in_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "network_in_this_folder.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "network_in_this_folder:Twice", "--input", "4") == 0
    shown = capsys.readouterr().out
    assert "a_rather_long_name_of_a_layer_that_has_to_be_shown_whole" in shown
    assert "A layer that fires 2 times cannot be recorded: name a layer that contains it, or give each use" in shown
    assert "A layer that never fires cannot be recorded: name a layer that contains it" in shown
    assert "1 of 3 layers can be recorded" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smal"], "got 'smal'; near it: small"),
        (["torch.nn:Flatten"], "expected the shape of an input of torch.nn:Flatten, got none: --input 3,224,224"),
        (["small", "--input", "1,28,x"], "expected the shape of an input, such as 3,224,224, got '1,28,x'"),
        (["small", "--input", "1,0,28"], "expected the shape of an input, such as 3,224,224, got '1,0,28'"),
        (["small", "--input", "3,28,28"], "expected an input that Sequential takes, got shape (3, 28, 28)"),
        (["no_such_package:make"], "expected a package 'no_such_package' that can be imported"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["1x28x28", "1×28×28", "1, 28, 28"])
def test_shapes_as_people_write_them(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "small", "--input", text) == 0
    assert "input 1×28×28" in capsys.readouterr().out


def test_help_says_what_a_model_can_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "torchvision:NAME" in shown
    assert "--input" in shown
