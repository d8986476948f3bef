"""What a result was made from."""

import subprocess
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest

from neurovar import _provenance
from neurovar._provenance import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which holds the module."""
    module = tmp_path / "neurovar" / "_provenance.py"
    module.parent.mkdir()
    module.write_text("# here\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    monkeypatch.setattr(_provenance, "__file__", str(module))
    return tmp_path


def test_versions_and_time() -> None:
    record = provenance()
    for package in ("numpy", "torch", "xarray", "scikit-learn"):
        assert f"{package} {version(package)}" in record["versions"].split(", ")
    age = datetime.now(UTC) - datetime.fromisoformat(record["created"])
    assert timedelta(seconds=-1) <= age < timedelta(minutes=1)
    assert record["platform"].startswith("Python 3.")
    assert all(isinstance(value, str) for value in record.values()), "attributes of a netCDF file"


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_provenance, "PACKAGES", ("numpy", "no-such-package"))
    assert provenance()["versions"] == f"numpy {version('numpy')}, no-such-package not installed"


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert provenance()["commit"] == commit
    (checkout / "neurovar" / "_provenance.py").write_text("# changed\n")
    assert provenance()["commit"] == f"{commit}-dirty"


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_provenance, "__file__", str(tmp_path / "neurovar" / "_provenance.py"))
    assert provenance()["commit"] == "none (installed package)"


def test_a_broken_checkout_or_no_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".git" / "HEAD").unlink()
    assert provenance()["commit"] == "unknown"
    monkeypatch.setenv("PATH", "")
    assert provenance()["commit"] == "unknown"
