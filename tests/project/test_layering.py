"""A module imports only from strictly lower layers."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = (
    {"responses", "covariance", "_classifiers", "_provenance", "_groups", "_layers", "_tiles"},
    {
        "presentations",
        "spikes",
        "storage",
        "estimation",
        "spectra",
        "modifications",
        "injection",
        "simulation",
        "pretrained",
        "streaming",
    },
    {"activations", "transplant", "attacks", "training", "learning", "checks", "comparison", "power"},
    {"networks", "sources", "robustness", "plotting", "report", "description"},
    {"quickstart", "catalogue"},
    {"cli"},
)
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}
QUICKSTART_LEVEL = LEVEL["quickstart"]


def imported_names(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Every absolute dotted name that the file imports anywhere in it, as `package.module.name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = [*parents, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def source_files(folder: str) -> dict[Path, tuple[str, ...]]:
    """Each Python file of a folder with the package it belongs to."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {path: path.parent.relative_to(ROOT).parts for path in files}


def module_of(path: Path) -> str:
    """The module that a file of `neurovar/` is, or is a part of where the module is a folder."""
    return path.relative_to(ROOT / "neurovar").parts[0].removesuffix(".py")


def file_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


NEUROVAR = {path: parts for path, parts in source_files("neurovar").items() if module_of(path) != "__init__"}
DATASETS = source_files("datasets")


def neurovar_imports(path: Path, package: tuple[str, ...]) -> set[str]:
    """The parts of `neurovar` that a file imports: `neurovar.a.b` gives `a`, a bare `neurovar` nothing."""
    names = (name.split(".") for name in imported_names(path, package))
    return {name[1] for name in names if name[0] == "neurovar" and len(name) > 1}


def test_the_parser_sees_every_form_of_import(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import neurovar.a\nfrom neurovar import b\nfrom .c import x\n\n"
        "def f():\n    from . import d\n    import neurovar\n"
    )
    assert neurovar_imports(path, ("neurovar",)) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("path", NEUROVAR, ids=file_id)
def test_every_module_has_a_layer(path: Path) -> None:
    assert module_of(path) in LEVEL, f"add {module_of(path)!r} to LAYERS in {Path(__file__).name}"


@pytest.mark.parametrize("path", NEUROVAR, ids=file_id)
def test_a_module_imports_only_from_lower_layers(path: Path) -> None:
    module = module_of(path)
    for imported in neurovar_imports(path, NEUROVAR[path]) - {module, "__version__"}:
        assert imported in LEVEL, f"{module} imports {imported!r} from neurovar: name the module it is in"
        assert LEVEL[imported] < LEVEL[module], f"{module} imports {imported}, which is not of a lower layer"


@pytest.mark.parametrize("path", NEUROVAR, ids=file_id)
def test_library_modules_import_neither_torchvision_nor_datasets(path: Path) -> None:
    forbidden = {"torchvision", "datasets"}
    if LEVEL[module_of(path)] < QUICKSTART_LEVEL:
        forbidden.add("neurovar_datasets")
    assert not forbidden & {name.split(".")[0] for name in imported_names(path, NEUROVAR[path])}


def test_the_package_itself_imports_none_of_its_modules() -> None:
    assert not neurovar_imports(ROOT / "neurovar" / "__init__.py", ("neurovar",))


@pytest.mark.parametrize("path", DATASETS, ids=file_id)
def test_datasets_import_only_the_lowest_layers(path: Path) -> None:
    assert neurovar_imports(path, ("neurovar_datasets",)) <= LAYERS[0] | LAYERS[1]


def test_the_datasets_folder_cannot_be_imported_by_its_own_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import datasets"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: this folder is imported as 'neurovar_datasets'" in done.stderr
