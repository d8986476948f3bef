"""The page on noise: its code runs and prints what it shows; it names every type, source, method and control."""

import re
from pathlib import Path

import pytest

import neurovar

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "noise.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "noise.md", "exec"), namespace)
        said = capsys.readouterr().out
        shown = "".join(f"{line}\n" for line in re.findall(r"^# (.*)$", block, flags=re.MULTILINE))
        assert said == shown
    assert set(namespace["noises"]) == {"transplanted", *neurovar.noise.CONTROLS}
    traces = [one.trace() for one in namespace["noises"].values()]
    assert traces == pytest.approx([400.0] * len(traces), rel=1e-4)


def test_the_page_names_everything_there_is() -> None:
    named = set(re.findall(r"`(?:covariance\.|sources\.)?(\w+)`", PAGE))
    calls = {name for name in neurovar.noise.__all__ if name[0].islower()}
    own = {name for name, kind in neurovar.covariance.types().items() if kind.__module__.startswith("neurovar.")}
    wanted = own | calls | set(neurovar.noise.METHODS) | set(neurovar.noise.CONTROLS)
    assert wanted - named == set()


def test_what_the_page_names_exists() -> None:
    pairs = [(module, name) for module, name in re.findall(r"`(\w+)\.(\w+)`", PAGE) if module in dir(neurovar)]
    assert ("learning", "learn_noise") in pairs
    assert [pair for pair in pairs if not hasattr(getattr(neurovar, pair[0]), pair[1])] == []
