"""The page on statistics: its code runs and prints what it shows; it names every estimator, and nothing that is not."""

import re
from pathlib import Path

import pytest

import neurovar
from neurovar import statistics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
NUMBER = r"-?\d+\.\d+"


def test_the_code_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "statistics.md", "exec"), namespace)
        said = capsys.readouterr().out
        shown = "".join(f"{line}\n" for line in re.findall(r"^# (.*)$", block, flags=re.MULTILINE))
        assert re.sub(NUMBER, "0.0", said) == re.sub(NUMBER, "0.0", shown)
        values, expected = ([float(n) for n in re.findall(NUMBER, text)] for text in (said, shown))
        assert values == pytest.approx(expected, abs=0.011)


ESTIMATORS = re.findall(
    r"(\w+) as (\w+)",
    "\n".join(
        line
        for line in (ROOT / "neurovar" / "statistics" / "__init__.pyi").read_text().splitlines()
        if line.startswith(("from .estimation", "from .spectra"))
    ),
)


def test_the_page_names_every_estimator() -> None:
    functions = {name for name, _ in ESTIMATORS if not isinstance(getattr(statistics, name), type)}
    assert functions - set(re.findall(r"^\|[^|]*\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == set()


def test_what_the_page_names_exists() -> None:
    named = [(module, name) for module, name in re.findall(r"`(\w+)\.(\w+)`", PAGE) if module in dir(neurovar)]
    assert ("statistics", "compare") in named
    assert [pair for pair in named if not hasattr(getattr(neurovar, pair[0]), pair[1])] == []
    paths = re.findall(r"`((?:tests|analyses)/[\w/.]+)`", PAGE)
    assert paths and [path for path in paths if not (ROOT / path).exists()] == []
