"""Find the files of a source on this machine or download them, and check what was found."""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from neurovar_datasets._fetching.source import HASH, AnyPath, CorruptDataError, DataUnavailableError, File

OFFLINE_TIMEOUT = 4.0
BLOCK = 1 << 16


def find(
    file: File,
    *,
    path: AnyPath | None = None,
    offline_timeout: float = OFFLINE_TIMEOUT,
) -> Path:
    """A checked copy of `file`: from the path given, `NEUROVAR_DATA`, a system folder, the cache, or a download.

    Parameters
    ----------
    file : what is wanted.
    path : the file itself, or a folder that has it under its own name; nothing else is then searched.
    offline_timeout : seconds within which the address must answer.

    Raises
    ------
    ValueError : if `path` does not exist, or `NEUROVAR_DATA` is not a folder.
    CorruptDataError : if the first copy found, or the download, is not what was declared. A copy of the user's own is
        never changed; a corrupt one in the cache is downloaded again.
    DataUnavailableError : if there is no copy and no download, naming where was searched and what to do.
    """
    if path is not None:
        return _checked(_given(file, Path(path)), file)
    places = _places(file)
    for place in places:
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


def check(path: Path, file: File, *, name: str) -> None:
    """Raise CorruptDataError, calling the copy `name`, unless the content of `path` is what `file` declares."""
    wanted = file.hash
    if not wanted and file.size is None:
        return
    expected = f"{name}: expected {_declared(file)}"
    try:
        got, size = content_hash(path, file, wanted.partition(":")[0] or "sha256")
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(f"{expected}, got a file that cannot be read to its end ({error})") from error
    if file.size is not None and size > file.size:
        raise CorruptDataError(f"{expected}, got more bytes than that")
    if (wanted and got != wanted) or (file.size is not None and size < file.size):
        missing = 0 if file.size is None else file.size - size
        truncated = f" (truncated? {missing} bytes are missing)" if missing else ""
        raise CorruptDataError(f"{expected}, got {size} bytes with hash {got}{truncated}")


def _declared(file: File) -> str:
    size = "content" if file.size is None else f"{file.size} bytes{' when unpacked' * file.compressed}"
    return size + (f" with hash {file.hash}" if file.hash else "")


def content_hash(path: Path, file: File, algorithm: str) -> tuple[str, int]:
    """Hash and length of the content, read no further than just past the declared length."""
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm, usedforsecurity=False)
    if algorithm == "git":
        digest.update(b"blob %d\0" % (path.stat().st_size if file.size is None else file.size))
    size = 0
    with gzip.open(path) if file.compressed else path.open("rb") as stream:
        while (file.size is None or size <= file.size) and (block := stream.read(BLOCK)):
            digest.update(block)
            size += len(block)
    return f"{algorithm}:{digest.hexdigest()}", size


def hash_record(path: Path) -> Path:
    """The file beside a download in which its hash is recorded, where none is published."""
    return path.with_name(f"{path.name}.hash")


def as_recorded(file: File, path: Path) -> File:
    """`file` with the hash that was recorded when it was first downloaded to `path`, if none is published."""
    record = hash_record(path)
    if file.hash or not record.is_file():
        return file
    recorded = record.read_text(encoding="ascii", errors="replace").strip()
    return replace(file, hash=recorded) if re.fullmatch(HASH, recorded) else file


def _cached(file: File, places: Sequence[Path], offline_timeout: float) -> Path:
    from neurovar_datasets._fetching.download import download

    cached = cache_path(file)
    found = "nothing there"
    if cached.is_file():
        try:
            return _checked(cached, file)
        except CorruptDataError as error:
            found = str(error)
    try:
        if file.by_hand:
            raise FileNotFoundError(file.by_hand)
        download(file, cached, offline_timeout)
    except OSError as error:
        raise DataUnavailableError(_nowhere(file, [*places, cached], found, error)) from error
    return cached


def _nowhere(file: File, searched: Sequence[Path], found: str, error: OSError) -> str:
    lines = [f"\n  {place}: nothing there" for place in searched[:-1]] + [f"\n  {searched[-1]}: {found}"]
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
