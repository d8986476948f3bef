"""The how-to page's commands run, and its ten lines are ten; `test_code.py` runs its Python."""

import re
import shlex
from pathlib import Path

import pytest

from neurovar.cli import app as cli

PAGE = Path(__file__).parents[2] / "docs" / "your-own-recording.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_ten_lines_are_ten() -> None:
    declared = next(block for block in blocks("python") if "arrays.Declaration(" in block)
    inside = declared.split("arrays.Declaration(\n")[1].split("\n)\n")[0].splitlines()
    assert len(inside) + len(["the call", "load"]) == 10


def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in blocks("python")[:4]:  # the files that the commands take
        exec(compile(block, PAGE.name, "exec"), namespace)
    (commands,) = blocks("sh")
    for command in commands.strip().splitlines():
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as finished:
            cli.main()
        assert finished.value.code == 0, command
    assert "errors: 0" in capsys.readouterr().out
    assert (tmp_path / "recording.zarr").is_dir()
