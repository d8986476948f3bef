"""Declare the files of a source, find them on this machine or download them, and check what was found."""

import gzip
import hashlib
import io
import os
import queue
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

OFFLINE_TIMEOUT = 4.0
STALL_TIMEOUT = 30.0
BLOCK = 1 << 16

Value = TypeVar("Value")
AnyPath = str | os.PathLike[str]


class DataUnavailableError(ValueError):
    """A file is nowhere on this machine and cannot be downloaded."""


class CorruptDataError(ValueError):
    """A file is there, but not what was declared: another hash, truncated, of the wrong form."""


@dataclass(frozen=True)
class File:
    """One file: where it is below a data folder, its public address, and its content.

    `size` in bytes and `sha256` are those of the content. Of a path that ends in `.gz` the content is what is inside:
    packages compress the same content again, and no two gzip files need be alike.
    """

    path: str
    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def compressed(self) -> bool:
        return self.path.endswith(".gz")


@dataclass(frozen=True)
class Source:
    """Where data come from, how to cite them, under which licence, and in which units they are."""

    name: str
    title: str
    doi: str
    citation: str
    license: str
    license_url: str
    units: str
    files: tuple[File, ...] = ()

    def attrs(self, *used: File) -> dict[str, str]:
        """The attributes of an array that was made from the files `used`."""
        attrs = {
            "units": self.units,
            "source": self.name,
            "title": self.title,
            "doi": self.doi,
            "citation": self.citation,
            "license": self.license,
            "license_url": self.license_url,
        }
        return attrs | ({"sha256": " ".join(file.sha256 for file in used)} if used else {})


def choose(name: str, options: Mapping[str, Value], *, kind: str) -> Value:
    """The option of that name, or a ValueError that lists the known ones.

    >>> choose("val", {"train": 0, "test": 1}, kind="split")
    Traceback (most recent call last):
    ...
    ValueError: expected the split to be one of 'train', 'test', got 'val'
    """
    if name not in options:
        known = ", ".join(map(repr, options))
        raise ValueError(f"expected the {kind} to be one of {known}, got {name!r}")
    return options[name]


def find(
    file: File,
    *,
    path: AnyPath | None = None,
    folders: Sequence[AnyPath] = (),
    offline_timeout: float = OFFLINE_TIMEOUT,
) -> Path:
    """A checked copy of `file`: from the path given, `NEUROVAR_DATA`, `folders`, the cache, or a download.

    Parameters
    ----------
    file : what is wanted.
    path : the file itself, or a folder that has it under its own name; nothing else is then searched.
    folders : system folders that may have it under its own name.
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
    places = [folder / file.path for folder in _data_folder()] + [Path(folder) / file.name for folder in folders]
    for place in places:
        if place.is_file():
            return _checked(place, file)
    return _cached(file, places, offline_timeout)


def _given(file: File, path: Path) -> Path:
    copy = path / file.name if path.is_dir() else path
    if not copy.is_file():
        raise ValueError(f"expected a file {file.name} at the path given, found none at {copy}")
    return copy


def _data_folder() -> list[Path]:
    value = os.environ.get("NEUROVAR_DATA")
    if not value:
        return []
    if not Path(value).is_dir():
        raise ValueError(f"expected NEUROVAR_DATA to be an existing folder, got {value!r}")
    return [Path(value)]


def _checked(path: Path, file: File) -> Path:
    check(path, file, name=str(path))
    return path


def check(path: Path, file: File, *, name: str) -> None:
    """Raise CorruptDataError, calling the copy `name`, unless the content of `path` is what `file` declares."""
    expected = f"{name}: expected {file.size} bytes{' when unpacked' * file.compressed} with SHA-256 {file.sha256}"
    try:
        digest, size = _digest(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(f"{expected}, got a file that cannot be read to its end ({error})") from error
    if size > file.size:
        raise CorruptDataError(f"{expected}, got more bytes than that")
    if digest != file.sha256:
        truncated = f" (truncated? {file.size - size} bytes are missing)" if size < file.size else ""
        raise CorruptDataError(f"{expected}, got {size} bytes with SHA-256 {digest}{truncated}")


def _digest(path: Path, file: File) -> tuple[str, int]:
    """SHA-256 and length of the content, read no further than just past the declared length."""
    digest, size = hashlib.sha256(), 0
    with gzip.open(path) if file.compressed else path.open("rb") as stream:
        while size <= file.size and (block := stream.read(BLOCK)):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _cached(file: File, places: Sequence[Path], offline_timeout: float) -> Path:
    import pooch

    cached = Path(pooch.os_cache("neurovar")) / file.path
    found = "nothing there"
    if cached.is_file():
        try:
            return _checked(cached, file)
        except CorruptDataError as error:
            found = str(error)
    try:
        _download(file, cached, offline_timeout)
    except OSError as error:
        searched = "".join(f"\n  {place}: nothing there" for place in places)
        raise DataUnavailableError(
            f"expected {file.path} on this machine or from its address, got it from neither:{searched}\n"
            f"  {cached}: {found}\n  {file.url}: {type(error).__name__}: {error}\n"
            f"Connect to the internet, or set NEUROVAR_DATA=<folder that has {file.path}>."
        ) from error
    return cached


def _download(file: File, target: Path, offline_timeout: float) -> None:
    """Download to a temporary folder beside `target`, check, and only then move into place."""
    import pooch

    _reach(file.url, offline_timeout)
    target.parent.mkdir(parents=True, exist_ok=True)
    download = pooch.HTTPDownloader(chunk_size=BLOCK, timeout=(offline_timeout, STALL_TIMEOUT))
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        part = Path(folder) / target.name
        with _progress(file) as advance, _Part(part, file, advance) as stream:
            download(file.url, stream, None)
        check(part, file, name=file.url)
        part.replace(target)


def _reach(url: str, timeout: float) -> None:
    """Raise OSError unless the address answers in time.

    A thread asks, because looking up the name has no timeout of its own and each address of a host has a whole one.
    """
    import pooch

    answers: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            pooch.HTTPDownloader(timeout=timeout)(url, None, None, check_only=True)
            answers.put(None)
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        failure = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    if failure is not None:
        raise failure


class _Part(io.FileIO):
    """The file being downloaded: tells how much has come, and ends a download that does not end by itself."""

    def __init__(self, path: Path, file: File, advance: Callable[[int], None]) -> None:
        super().__init__(path, "wb")
        self._file, self._advance = file, advance
        self._limit = file.size + file.size // 1000 + 1024  # gzip can be a little longer than its content

    def write(self, block: bytes) -> int:  # type: ignore[override]
        self._advance(len(block))
        if self.tell() + len(block) > self._limit:
            raise CorruptDataError(f"{self._file.url}: expected {self._file.size} bytes, got more")
        return super().write(block)


@contextmanager
def _progress(file: File) -> Iterator[Callable[[int], None]]:
    """A progress bar on the standard error; call what it gives with each number of bytes received."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"Downloading {file.path}", total=None if file.compressed else file.size)
        yield lambda received: progress.advance(task, received)
