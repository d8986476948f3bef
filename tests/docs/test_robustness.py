"""The page on robustness: its code runs and prints what it shows; it names every attack, modification and check."""

import re
from pathlib import Path

import pytest

import neurovar
from neurovar import networks, robustness

PAGE = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "robustness.md", "exec"), namespace)
        said = capsys.readouterr().out
        assert said == "".join(f"{line}\n" for line in re.findall(r"^# (.*)$", block, flags=re.MULTILINE))
    named = re.findall(r"^\| ([^|]+?) \|", PAGE, flags=re.MULTILINE)
    assert set(namespace["report"]["check"].values) <= set(named)


def test_the_page_names_every_attack_and_modification() -> None:
    named = set(re.findall(r"`(?:\w+\.)*(\w+)`", PAGE))
    assert {*robustness.ATTACKS, *networks.MODIFICATIONS} - named == set()


def test_what_the_page_names_exists() -> None:
    pairs = [(module, name) for module, name in re.findall(r"`(\w+)\.(\w+)", PAGE) if module in dir(neurovar)]
    assert ("robustness", "honesty") in pairs
    assert [pair for pair in pairs if not hasattr(getattr(neurovar, pair[0]), pair[1])] == []
    assert {"evaluate", "summarise", "worst_case"} <= set(dir(robustness))
