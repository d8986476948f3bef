"""The sets of stimuli of `stringer2019_v1`, its recordings and their files, from `stringer2019_sessions.toml`."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from neurovar_datasets._fetching.source import File

PAGE = "https://doi.org/10.25378/janelia.6845348"
_DOWNLOAD = "https://ndownloader.figshare.com/files/"
_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class StimulusSet:
    """How many stimuli there are, the recordings, and which of them share a file of images: all, none (each), or "".

    With "" there are no published images.
    """

    n_stimuli: int
    images: str
    recordings: tuple[str, ...]


SETS = {
    name: StimulusSet(table["n_stimuli"], table["images"], tuple(table["recordings"]))
    for name, table in _TABLES["sets"].items()
}
NAMES = tuple(f"{name}_{recording}" for name, stimuli in SETS.items() for recording in stimuli.recordings)
_NAME = re.compile(rf"({'|'.join(SETS)})_((M\d{{6}}_MP\d{{3}})_\d{{4}}-\d{{2}}-\d{{2}})")


@dataclass(frozen=True)
class Session:
    """One recording: its name, set of stimuli, mouse, and the files of its responses and, where published, images."""

    name: str
    stimuli: StimulusSet
    subject: str
    files: tuple[File, ...]


def session(name: str) -> Session:
    """The recording of that name, whether it is in the table or not."""
    match = _NAME.fullmatch(str(name))
    if not match:
        raise ValueError(f"expected a session such as {NAMES[0]!r}, got {name!r}")
    stimuli, recording, subject = match.groups()
    shown = {"all": "all", "each": recording}.get(SETS[stimuli].images)
    files = [name, f"images_{stimuli}_{shown}"] if shown else [name]
    return Session(name, SETS[stimuli], subject, tuple(map(_file, files)))


def _file(name: str) -> File:
    path, known = f"stringer2019_v1/{name}.mat", _TABLES["verified"].get(name)
    if known is None:
        return File(path, PAGE, by_hand=f"download {name}.mat from figshare")
    return File(path, f"{_DOWNLOAD}{known['id']}", f"md5:{known['md5']}", known["size"])
