"""Groups import only from groups to their left, only public names, and nothing imports in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "responses": set(),
    "covariance": set(),
    "statistics": {"responses", "covariance"},
    "networks": {"responses", "covariance"},
    "noise": {"responses", "covariance", "statistics", "networks"},
    "robustness": {"responses", "covariance", "statistics", "networks", "noise"},
    "plotting": {"responses", "statistics"},
    "neurovar_datasets": {"responses", "covariance"},
    "cli": {
        "responses",
        "covariance",
        "statistics",
        "networks",
        "noise",
        "robustness",
        "plotting",
        "neurovar_datasets",
    },
}
SHARED = {"_memory", "_provenance", "_values", "__version__"}
"""Private modules at the top of `neurovar/`, for every group."""


def module_name(path: Path) -> str:
    """`neurovar.statistics._power` or `neurovar_datasets._fetching.files`; a folder for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = {"datasets": "neurovar_datasets"}.get(parts[0], parts[0])
    return ".".join([package, *parts[1:]]).removesuffix(".__init__")


PUBLIC_MODULES = {"neurovar.statistics.kernels"}
"""Modules of a group that it exports as such."""
MODULES = {module_name(path): path for folder in ("neurovar", "datasets") for path in (ROOT / folder).rglob("*.py")}


def group_of(module: str) -> str:
    """The group that a module belongs to; "" for what stands at the top of `neurovar/`."""
    parts = module.split(".")
    if parts[0] != "neurovar":
        return parts[0]
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else ""


def imported_names(text: str) -> Iterator[str]:
    """Every absolute dotted name that is imported anywhere but for type checkers, as `package.module.name`."""
    tree = ast.parse(text)
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def defining_module(name: str) -> str | None:
    """The longest beginning of a dotted name that is one of our modules."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in MODULES:
            return ".".join(parts[:end])
    return None


def test_the_parser_sees_every_form_of_import() -> None:
    text = "import a.b\nfrom c import d\nif TYPE_CHECKING:\n    import e\ndef f():\n    from g.h import i\n"
    assert set(imported_names(text)) == {"a.b", "c.d", "g.h.i"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_group_imports_public_names_of_groups_to_its_left(module: str) -> None:
    group = group_of(module)
    for name in imported_names(MODULES[module].read_text(encoding="utf-8")):
        source = defining_module(name)
        if source is None or set(name.split(".")[1:2]) & SHARED:
            continue
        other = group_of(source)
        if other == group:
            assert source != f"neurovar.{group}", f"{module} imports {name} through its own group: name the file"
            continue
        if group == "":  # the package itself loads lazily; `python -m neurovar` is the command
            assert module in ("neurovar.__main__",), f"{module} imports {name}"
            continue
        assert other in MAY_IMPORT[group], f"{module} imports {name}: {group} stands below {other}"
        private = [part for part in name.split(".")[1:] if part.startswith("_")]
        assert not private, f"{module} imports {name}, which is private to {other}"
        if other != "neurovar_datasets":
            public = source == f"neurovar.{other}" or name in PUBLIC_MODULES
            assert public, f"{module} imports {name}: import it from neurovar.{other}"


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = {}
    for module, path in MODULES.items():
        names = imported_names(path.read_text(encoding="utf-8"))
        graph[module] = {source for name in names if (source := defining_module(name)) not in (None, module)}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_needs_torchvision(module: str) -> None:
    names = imported_names(MODULES[module].read_text(encoding="utf-8"))
    assert not {"torchvision", "datasets"} & {name.split(".")[0] for name in names}


def test_the_datasets_folder_cannot_be_imported_by_its_own_name() -> None:
    done = subprocess.run([sys.executable, "-c", "import datasets"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: this folder is imported as 'neurovar_datasets'" in done.stderr
