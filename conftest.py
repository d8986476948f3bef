"""The code of README and docs runs as tests; see `tests/conftest.py` for what the tests themselves need.

The blocks of a page share a namespace and a folder, and run in their order. Lines of a block that are nothing but a
comment are what the block prints.
"""

import os
import re
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parent
NUMBER = r"-?\d+\.\d+"
TOLERANCE = 0.011
"""Printed numbers have two or three digits, of which the last may differ between versions of LAPACK."""
NEEDS = {"README.md": ("data", "slow"), "statistics.md": ("slow",)}
"""Markers of the pages that need recordings, or time."""


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


def enter_folder(namespace: dict) -> None:
    """Pages write files."""
    namespace["_folder"], namespace["_before"] = tempfile.TemporaryDirectory(), os.getcwd()
    os.chdir(namespace["_folder"].name)


def leave_folder(namespace: dict) -> None:
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    [CodeBlockParser("python", run)],
    patterns=["README.md", "docs/*.md"],
    setup=enter_folder,
    teardown=leave_folder,
).pytest()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.suffix == ".md":
            item.add_marker(pytest.mark.xdist_group(item.path.name))  # blocks share a namespace, so a process too
            for marker in NEEDS.get(item.path.name, ()):
                item.add_marker(marker)
