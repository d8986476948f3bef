"""What is built, pinned and declared agrees with what is in the folders."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

import neurovar

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BRAINSCORE_PINS = {"numpy": "1.26", "xarray": "2022.3", "pandas": "2.3"}


def pins(name: str) -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return {package.lower().replace("_", "-"): version for package, version in lines}


def required(*extras: str) -> set[str]:
    """Names of the packages that the core and these extras ask for."""
    groups = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    names = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for group in groups for line in group}
    return names - {"neurovar"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("neurovar", "datasets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", "dist", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_has_every_module_and_its_data(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for folder in ("neurovar", "datasets") for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert {path.rpartition(".")[2] for path in sources} == {"py", "pyi", "html", "typed", "csv", "toml"}
    assert names == {re.sub("^datasets/", "neurovar_datasets/", path) for path in sources}


def test_the_wheel_has_the_version_of_the_package(wheel: Path) -> None:
    assert wheel.name.startswith(f"neurovar-{neurovar.__version__}-")


def test_both_packages_import_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import neurovar.cli.app, neurovar_datasets as data; "
        "print(neurovar.__file__, data.__file__, *(source.citation for source in data.sources().values()), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert all(Path(line).is_relative_to(tmp_path) for line in done.stdout.splitlines()[:2])


def test_the_version_is_the_same_everywhere() -> None:
    assert f"version: {neurovar.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{neurovar.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_requirement_is_imported_and_every_import_required() -> None:
    """`xarray.open_zarr` is what needs zarr, and numcodecs is a part of zarr; nothing else comes by itself."""
    imported = {
        {"PIL": "pillow", "sklearn": "scikit-learn"}.get(name, name).lower().replace("_", "-")
        for folder in ("neurovar", "datasets")
        for path in (ROOT / folder).rglob("*.py")
        for name in top_level_imports(path)
    }
    ours = {"neurovar", "neurovar-datasets", "numcodecs"}
    assert imported - sys.stdlib_module_names - ours == required("nwb", "pretrained") - {"zarr"}


def top_level_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


def test_every_requirement_is_pinned() -> None:
    assert required("dev", "test", "pretrained") <= set(pins("constraints.txt"))
    assert required("brainscore", "test") <= set(pins("constraints-brainscore.txt"))


def test_the_pins_are_of_the_two_stacks() -> None:
    newest, old = pins("constraints.txt"), pins("constraints-brainscore.txt")
    assert newest["torch"] == old["torch"] == "2.13.0"
    assert all(old[package].startswith(version) for package, version in BRAINSCORE_PINS.items())
    assert all(newest[package] > old[package] for package in BRAINSCORE_PINS)
