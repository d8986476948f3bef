"""README and docs name what there is, and nothing that there is not; `test_code.py` runs their code."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import neurovar
from neurovar import covariance, networks, noise, robustness

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = {path.parent.name: f"neurovar.{path.parent.name}" for path in (ROOT / "neurovar").glob("*/__init__.pyi")}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def dotted_names(page: Path) -> set[str]:
    """What stands in backticks as `group.name`, with or without arguments, and `neurovar.group.name`."""
    found = re.findall(r"`(?:neurovar\.)?(\w+)\.(\w+)(?:\([^`]*\))?`", text_of(page))
    return {f"{group}.{name}" for group, name in found if group in PACKAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    def exists(name: str) -> bool:
        group, attribute = name.split(".")
        return hasattr(importlib.import_module(PACKAGES[group]), attribute)

    assert [name for name in sorted(dotted_names(page)) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    links = {link for link in re.findall(r"\]\(([^)#:]+)\)", text_of(page)) if not link.startswith("http")}
    paths = set(re.findall(r"`((?:tests|analyses|docs|neurovar|datasets)/[\w/.]+)`", text_of(page)))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing + [path for path in paths if not (ROOT / path).exists()] == []


def words_in_backticks(page: str) -> set[str]:
    """Every word of every piece of code within the text: `noise.modified` names "noise" and "modified"."""
    text = re.sub(r"```.*?```", "", text_of(ROOT / "docs" / page), flags=re.DOTALL)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))


def test_the_page_on_noise_names_every_type_source_method_and_control() -> None:
    functions = {name for name in noise.__all__ if inspect.isfunction(getattr(noise, name))}
    types = {name for name, kind in covariance.types().items() if kind.__module__.startswith("neurovar.")}
    assert functions | types | set(noise.METHODS) | set(noise.CONTROLS) <= words_in_backticks("noise.md")


def test_the_page_on_robustness_names_every_attack_and_modification() -> None:
    attacks = {name for name in robustness.__all__ if _is_attack(getattr(robustness, name))}
    assert attacks | set(networks.MODIFICATIONS) <= words_in_backticks("robustness.md")


def _is_attack(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, robustness.Attack) and value is not robustness.Attack


def test_the_page_on_statistics_names_every_estimator() -> None:
    stub = text_of(ROOT / "neurovar" / "statistics" / "__init__.pyi")
    lines = [line for line in stub.splitlines() if line.startswith(("from .estimation", "from .spectra"))]
    names = {name for line in lines for name in re.findall(r"as (\w+)", line) if not name.endswith("_kernel")}
    functions = {name for name in names if not isinstance(getattr(neurovar.statistics, name), type)}
    rows = re.findall(r"^\|[^|]*\| `(\w+)` \|", text_of(ROOT / "docs" / "statistics.md"), flags=re.MULTILINE)
    assert functions - set(rows) == set()
