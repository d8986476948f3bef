"""What a result was made from: versions, commit and the date, for its attrs."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("neurovar", "numpy", "scipy", "xarray", "torch", "scikit-learn")


def provenance() -> dict[str, str]:
    """Versions of what computes, the commit of a source checkout, and the time in UTC.

    Examples
    --------
    >>> sorted(provenance())
    ['commit', 'created', 'platform', 'versions']
    """
    return {
        "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "commit": _commit(),
        "platform": f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "none (installed package)"
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
