"""README and docs name what there is, and nothing that there is not; `conftest.py` at the root runs their code."""

import importlib
import re
from pathlib import Path

import pytest

import neurovar

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = {**{group: f"neurovar.{group}" for group in dir(neurovar)}, "neurovar_datasets": "neurovar_datasets"}
WHOLE = {"noise.md": ("noise", "covariance"), "robustness.md": ("robustness",)}
"""Pages that name every public function and class of a group."""


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


@pytest.mark.parametrize("page, group", [(page, group) for page, groups in WHOLE.items() for group in groups])
def test_a_page_names_all_of_its_group(page: str, group: str) -> None:
    module = importlib.import_module(f"neurovar.{group}")
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text_of(ROOT / "docs" / page)))))
    public = {name for name in module.__all__ if callable(getattr(module, name))}
    assert public - named == set()


def test_the_page_on_statistics_names_every_estimator() -> None:
    stub = text_of(ROOT / "neurovar" / "statistics" / "__init__.pyi")
    lines = [line for line in stub.splitlines() if line.startswith(("from .estimation", "from .spectra"))]
    names = {name for line in lines for name in re.findall(r"as (\w+)", line) if not name.endswith("_kernel")}
    functions = {name for name in names if not isinstance(getattr(neurovar.statistics, name), type)}
    rows = re.findall(r"^\|[^|]*\| `(\w+)` \|", text_of(ROOT / "docs" / "statistics.md"), flags=re.MULTILINE)
    assert functions - set(rows) == set()
