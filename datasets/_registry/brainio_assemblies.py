"""Brain-Score's assemblies that keep their repetitions, from `brainio_assemblies.toml`, which says which those are."""

import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from neurovar_datasets._fetching.source import File

_STORE = "https://brainscore-storage.s3.amazonaws.com"
_BY_HAND = "it is private in Brain-Score: ask its team (brain-score.org) for access, and load it once there"


@dataclass(frozen=True)
class Assembly:
    """One assembly: its file, where it comes from, and what was recorded.

    `apart` says why its units' noise cannot be correlated; empty where the units of one subject were recorded together.
    """

    file: File
    title: str
    citation: str
    doi: str
    units: str
    area: str
    species: str
    method: str
    n_units: str
    n_stimuli: str
    n_repeats: str
    apart: str = ""
    note: str = ""


def _assemblies() -> dict[str, Assembly]:
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    assemblies = {}
    for name, own in tables["assemblies"].items():
        entries: dict[str, Any] = tables["papers"].get(own.pop("paper", ""), {}) | own
        place, version = entries.pop("file"), entries.pop("version", "null")  # S3 calls the only version of a file null
        file = File(
            path=f"brainio/{PurePosixPath(place).name}",
            url=f"{_STORE}/{place}?versionId={version}",
            hash=f"sha1:{entries.pop('sha1')}",
            by_hand=_BY_HAND if entries.pop("private", False) else "",
        )
        assemblies[name] = Assembly(file=file, **entries)
    return assemblies


ASSEMBLIES = _assemblies()
