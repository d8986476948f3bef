"""Find the files of a source on this machine or download them, and check what was found."""

import os
from collections.abc import Sequence
from pathlib import Path

from neurovar_datasets._fetching.download import download
from neurovar_datasets._fetching.hashes import as_recorded, check
from neurovar_datasets._fetching.source import AnyPath, CorruptDataError, DataUnavailableError, File

# Seconds: without a network a user should learn soon what to do, not after the minutes that DNS can
# take.
OFFLINE_TIMEOUT = 4.0


def find(
    file: File,
    *,
    path: AnyPath | None = None,
    offline_timeout: float = OFFLINE_TIMEOUT,
) -> Path:
    """A checked copy of `file`: from the path given, `NEUROVAR_DATA`, a system folder, the cache, or a download.

    Parameters
    ----------
    file : File
        What is wanted.
    path : path-like, optional
        The file itself, or a folder that has it under its own name; nothing else is then searched.
    offline_timeout : float, optional
        Seconds within which the address must answer.

    Raises
    ------
    ValueError
        If `path` does not exist, or `NEUROVAR_DATA` is not a folder.
    CorruptDataError
        If the first copy found, or the download, is not what was declared. A copy of the user's own is never changed; a
        corrupt one in the cache is downloaded again.
    DataUnavailableError
        If there is no copy and no download, naming where was searched and what to do.
    """
    if path is not None:
        return _checked(_given(file, Path(path)), file)
    places = _places(file)
    for place in places:
        # The first copy decides even if it is corrupt: falling through would hide that the user's
        # own copy is damaged.
        if place.is_file():
            return _checked(place, file)
    return _cached(file, places, offline_timeout)


def locate(file: File) -> Path | None:
    """Where `find` would find a copy without downloading one, unchecked; None where there is none."""
    return next((place for place in [*_places(file), cache_path(file)] if place.is_file()), None)


def cache_path(file: File) -> Path:
    """Where a download of `file` is kept."""
    import pooch

    return Path(pooch.os_cache("neurovar")) / file.path


def _given(file: File, path: Path) -> Path:
    copies = [path / file.name, path / file.path] if path.is_dir() else [path]
    for copy in copies:
        if copy.is_file():
            return copy
    raise ValueError(f"expected a file {file.name} at the path given, found none at {copies[0]}")


def _places(file: File) -> list[Path]:
    system = [Path(file.folder) / file.name] if file.folder else []
    return [folder / file.path for folder in _data_folder()] + system


def _data_folder() -> list[Path]:
    value = os.environ.get("NEUROVAR_DATA")
    if not value:
        return []
    if not Path(value).is_dir():
        raise ValueError(f"expected NEUROVAR_DATA to be an existing folder, got {value!r}")
    return [Path(value)]


def _checked(path: Path, file: File) -> Path:
    check(path, as_recorded(file, path), name=str(path))
    return path


def _cached(file: File, places: Sequence[Path], offline_timeout: float) -> Path:
    cached = cache_path(file)
    problem = "nothing there"
    if cached.is_file():
        try:
            return _checked(cached, file)
        except CorruptDataError as error:
            problem = str(error)
    try:
        if file.by_hand:
            # An OSError, as a failed download is: both end in the same message of where was
            # searched.
            raise FileNotFoundError(file.by_hand)
        download(file, cached, offline_timeout)
    except OSError as error:
        raise DataUnavailableError(_nowhere(file, [*places, cached], problem, error)) from error
    return cached


def _nowhere(file: File, searched: Sequence[Path], problem: str, error: OSError) -> str:
    lines = [f"\n  {place}: nothing there" for place in searched[:-1]] + [f"\n  {searched[-1]}: {problem}"]
    if file.by_hand:
        return (
            f"expected {file.path} on this machine, got it nowhere:{''.join(lines)}\n"
            f"It has no direct address: {file.by_hand} ({file.url}). Then pass its path, or set "
            f"NEUROVAR_DATA=<folder that has {file.path}>."
        )
    return (
        f"expected {file.path} on this machine or from its address, got it from neither:{''.join(lines)}\n"
        f"  {file.url}: {type(error).__name__}: {error}\n"
        f"Connect to the internet, or set NEUROVAR_DATA=<folder that has {file.path}>."
    )
