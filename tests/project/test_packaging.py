"""What is built, pinned and declared agrees with what is in the folders."""

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
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("neurovar", "datasets"):
        shutil.copytree(ROOT / name, folder / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", "dist", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_has_every_module_and_its_data(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    folders = {"neurovar": ("*.py", "*.html", "py.typed"), "datasets": ("*.py",)}
    files = (path for folder, patterns in folders.items() for name in patterns for path in (ROOT / folder).rglob(name))
    assert names == {path.relative_to(ROOT).as_posix().replace("datasets/", "neurovar_datasets/") for path in files}


def test_both_packages_import_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r}); import neurovar, neurovar_datasets; "
        "print(neurovar.__file__, neurovar_datasets.__file__, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert all(Path(line).is_relative_to(wheel) for line in done.stdout.splitlines())


def test_the_version_is_the_same_everywhere() -> None:
    assert neurovar.__version__ == PROJECT["version"]
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_requirement_is_pinned() -> None:
    assert required("dev", "test", "pretrained") <= set(pins("constraints.txt"))
    assert required("brainscore", "test") <= set(pins("constraints-brainscore.txt"))


def test_the_pins_are_of_the_two_stacks() -> None:
    newest, old = pins("constraints.txt"), pins("constraints-brainscore.txt")
    assert newest["torch"] == old["torch"] == "2.13.0"
    assert all(old[package].startswith(version) for package, version in BRAINSCORE_PINS.items())
    assert all(newest[package] > old[package] for package in BRAINSCORE_PINS)
