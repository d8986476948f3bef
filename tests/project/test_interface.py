"""The public interface: whole numpydoc docstrings, few parameters, files that a reader can hold."""

import ast
import importlib
import inspect
import re
from enum import Enum
from pathlib import Path

import pytest

numpydoc = pytest.importorskip("numpydoc.validate", reason="numpydoc is in the extra 'dev'")

ROOT = Path(__file__).parents[2]
MOST_PARAMETERS, MOST_LINES = 10, 450
GROUPS = sorted(path.parent for path in (ROOT / "neurovar").glob("*/__init__.pyi"))
CHECKS = {
    "GL06": "an unknown section",
    "GL07": "sections out of order",
    "GL08": "no docstring",
    "PR01": "a parameter without description",
    "PR02": "a description of a parameter that there is not",
    "PR04": "a parameter without a type",
    "PR07": "a parameter without a description",
    "PR10": "no space before the colon",
    "RT03": "a returned value without a description",
    "EX01": "no example",
}


def public_names() -> list[str]:
    """Every public function and class, as `module.name` of the file that defines it."""
    names = []
    for group in GROUPS:
        for node in ast.parse((group / "__init__.pyi").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:  # else a module, such as `kernels`
                names += [f"neurovar.{group.name}.{node.module}.{alias.name}" for alias in node.names]
    return names


def value_of(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", public_names())
def test_a_public_docstring_is_whole(name: str) -> None:
    value = value_of(name)
    if not callable(value) or not hasattr(value, "__doc__") or not hasattr(value, "__module__"):
        pytest.skip("a constant")
    report = numpydoc.validate(name)
    if isinstance(value, type) and issubclass(value, BaseException | Enum):
        assert value.__doc__  # these have neither parameters of their own nor anything to show
        return
    problems = [f"{code}: {text}" for code, text in report["errors"] if code in CHECKS]
    assert problems == []
    assert not re.search(r"\bas for `|^Args:", value.__doc__ or "", re.MULTILINE), "describe every parameter in full"


@pytest.mark.parametrize("name", public_names())
def test_a_public_function_has_at_most_ten_parameters(name: str) -> None:
    value = value_of(name)
    if not inspect.isfunction(value) and not (inspect.isclass(value) and value.__module__.startswith("neurovar")):
        pytest.skip("no function and no class of ours")
    try:
        parameters = inspect.signature(value).parameters
    except ValueError:
        pytest.skip("without a signature")
    assert len(parameters) <= MOST_PARAMETERS, "put what belongs together into a value"


@pytest.mark.parametrize("folder", ["neurovar", "datasets", "analyses"])
def test_no_file_is_longer_than_a_reader_can_hold(folder: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MOST_LINES} == {}
