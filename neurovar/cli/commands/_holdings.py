"""Which files of a source are on this machine, how large they are, and how to get the others."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import neurovar_datasets
from neurovar_datasets import SPARE_BYTES, DataUnavailableError, File, Source, cache_path, choose, find, locate

from neurovar.cli.commands._console import size


def get(name: str) -> Source:
    """The source of that name, or a ValueError that lists them."""
    return choose(name, neurovar_datasets.sources(), kind="source")


def is_here(files: Iterable[File]) -> bool:
    return all(locate(file) is not None for file in files)


def presence(source: Source) -> str:
    """Whether all sessions are on this machine, none, or how many."""
    if not source.sessions:
        return "built in"
    n_here = sum(map(is_here, source.sessions.values()))
    if n_here in (0, len(source.sessions)):
        return "all" if n_here else "no"
    return f"{n_here} of {len(source.sessions)}"


def files_of(source: Source, sessions: Sequence[str] = ()) -> list[File]:
    """The files of these sessions, by default of all; each once, though sessions may share some."""
    chosen = [choose(session, source.sessions, kind="session") for session in sessions or source.sessions]
    return list(dict.fromkeys(file for files in chosen for file in files))


def total_size(files: Sequence[File]) -> str:
    """Of the files together, as far as their sizes are published."""
    known = [file.size for file in files if file.size is not None]
    if not files:
        return "none"
    if not known:
        return "unknown"
    return f"{'over ' * (len(known) < len(files))}{size(sum(known))}"


def fetch(files: Sequence[File]) -> Iterator[tuple[File, Path]]:
    """Find or download each file and check it; those that must be got by hand are named in the end.

    Raises
    ------
    OSError : before anything is downloaded, if the disk has no room for all of it.
    DataUnavailableError, CorruptDataError : if a file cannot be had, or is not what was declared.
    """
    missing = [file for file in files if locate(file) is None]
    by_hand = [file for file in missing if file.by_hand]
    _check_room([file for file in missing if not file.by_hand])
    for file in files:
        if file not in by_hand:
            yield file, find(file)
    if by_hand:
        raise DataUnavailableError(_what_to_do(by_hand))


def _check_room(files: Sequence[File]) -> None:
    """Refuse what cannot be there as a whole in the end; each download asks again for itself."""
    if not files:
        return
    needed = sum(file.size or 0 for file in files)
    folder = next(parent for parent in cache_path(files[0]).parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        expected = f"{size(needed)} and {size(SPARE_BYTES)} to spare"
        raise OSError(f"expected {expected} on the disk of {folder}, it has {size(free)}: fetch fewer sessions")


def _what_to_do(files: Sequence[File]) -> str:
    """Each instruction once, with the files that it is for."""
    ways = dict.fromkeys((file.by_hand, file.url) for file in files)
    lines = [f"expected {len(files)} more files, which have no direct address and must be got by hand:"]
    for how, url in ways:
        wanted = [file.path for file in files if (file.by_hand, file.url) == (how, url)]
        lines += [f"{how} ({url})", *(f"  {path}" for path in wanted)]
    return "\n".join([*lines, "Then set NEUROVAR_DATA to the folder that has them under these paths."])
