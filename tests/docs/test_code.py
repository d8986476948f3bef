"""The code of README and docs runs as it stands.

The blocks of a page share a namespace and a folder, and run in their order. Lines of a block that are nothing but a
comment are what the block prints.
"""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[2]
NUMBER = r"-?\d+\.\d+"
TOLERANCE = 0.011
"""Printed numbers have two or three digits, of which the last may differ between versions of LAPACK."""
NEEDS = {"README.md": (pytest.mark.data, pytest.mark.slow), "statistics.md": (pytest.mark.slow,)}
"""Markers of the pages that need recordings, or time."""
PAGES = [
    pytest.param(page, id=page.name, marks=NEEDS.get(page.name, ()))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]


def run(example: Example) -> None:
    """Run a block and compare what it prints with its comments: numbers to within rounding, the rest exactly."""
    with redirect_stdout(StringIO()) as printed:
        PythonEvaluator()(example)
    shown = "".join(f"{line}\n" for line in re.findall(r"^# (.*)$", example.parsed, flags=re.MULTILINE))
    if not shown:
        return
    assert re.sub(NUMBER, "0.0", printed.getvalue()) == re.sub(NUMBER, "0.0", shown)
    values, expected = ([float(n) for n in re.findall(NUMBER, text)] for text in (printed.getvalue(), shown))
    assert values == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.name == "README.md":
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    monkeypatch.chdir(tmp_path)
    document = Sybil([CodeBlockParser("python", run)], patterns=["*.md"]).parse(page)
    examples = list(document.examples())
    assert examples
    for example in examples:
        example.evaluate()
