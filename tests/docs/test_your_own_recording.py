"""The how-to page's code runs as it stands, and its comments are true."""

import re
import shlex
from pathlib import Path

import pytest

from neurovar.cli import app as cli

PAGE = Path(__file__).parents[2] / "docs" / "your-own-recording.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in blocks("python"):
        exec(compile(block, PAGE.name, "exec"), namespace)
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[:2] == ["('stimulus', 'repeat', 'unit') (20, 8, 5)", f"spike count 0.05 to 0.2 s {lines[1][-14:]}"]
    assert 0.8 < float(lines[2]) < 1.2
    assert "'stimulus': 3, 'repeat': 4, 'unit': 5" in lines[3]
    assert lines[4] == "rates.npy: responses: expected whole spike counts, got fractions"
    assert lines[5].startswith("error: expected whole spike counts, got ")
    assert float(lines[-1]) == float(namespace["recording"][:4].mean())


def test_the_ten_lines_are_ten() -> None:
    declared = next(block for block in blocks("python") if "arrays.Declaration(" in block)
    inside = declared.split("arrays.Declaration(\n")[1].split("\n)\n")[0].splitlines()
    assert len(inside) + len(["the call", "load"]) == 10


def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in blocks("python")[:4]:
        exec(compile(block, PAGE.name, "exec"), namespace)
    (commands,) = blocks("sh")
    for command in commands.strip().splitlines():
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as finished:
            cli.main()
        assert finished.value.code == 0, command
    assert "errors: 0" in capsys.readouterr().out
    assert (tmp_path / "recording.zarr").is_dir()
