"""Download a file once, whoever asks at the same time; resume what broke off; check it before it counts as there."""

import io
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._files import BLOCK, check, content_hash, hash_record
from ._source import CorruptDataError, File

STALL_TIMEOUT = 30.0
SPARE_BYTES = 64 << 20


def download(file: File, target: Path, offline_timeout: float) -> None:
    """Put a checked download of `file` at `target`; a process that comes second waits for the first.

    Raises
    ------
    OSError : if the address does not answer, breaks off, or the disk has too little room.
    CorruptDataError : if what came is not what was declared.
    """
    from filelock import FileLock

    reach(file.url, offline_timeout)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not _already_there(file, target):
            _receive_checked(file, target, (offline_timeout, STALL_TIMEOUT))


def _already_there(file: File, target: Path) -> bool:
    try:
        check(target, file, name=str(target))
        return target.is_file()
    except CorruptDataError:
        return False


def _receive_checked(file: File, target: Path, timeout: tuple[float, float]) -> None:
    """Only a file whose hash is known beforehand is resumed: of others nobody could tell that it had changed."""
    part = target.with_name(f"{target.name}.part")
    resumed = bool(file.hash) and part.is_file() and part.stat().st_size > 0
    try:
        _receive(file, part, timeout, resume=resumed)
        check(part, file, name=file.url)
    except CorruptDataError:
        part.unlink()
        if not resumed:
            raise
        return _receive_checked(file, target, timeout)
    if not file.hash:
        hash_record(target).write_text(content_hash(part, file, "sha256")[0] + "\n", encoding="ascii")
    part.replace(target)
    return None


def _receive(file: File, part: Path, timeout: tuple[float, float], *, resume: bool) -> None:
    import pooch

    with _progress(file) as advance, _Part(part, file, advance, resume=resume) as stream:
        start = stream.tell()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        get = pooch.HTTPDownloader(
            chunk_size=BLOCK, timeout=timeout, headers=headers, hooks={"response": stream.on_response}
        )
        get(file.url, stream, None)


def reach(url: str, timeout: float) -> None:
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
    """The file being downloaded: begins where the server does, tells how much came, ends an endless download."""

    def __init__(self, path: Path, file: File, advance: Callable[[int], None], *, resume: bool) -> None:
        super().__init__(path, "ab" if resume else "wb")
        self._path, self._file, self._advance = path, file, advance
        self._limit = None if file.size is None else file.size + file.size // 1000 + 1024  # gzip can be a little longer

    def on_response(self, response: Any, *_: object, **__: object) -> None:
        """Begin again where the server sends the whole; refuse at once what the disk has no room for."""
        if response.status_code == 416:  # nothing is left to send, or the part is not of this file: the hash tells
            raise CorruptDataError(f"{self._file.url}: expected to resume at byte {self.tell()}, the server has fewer")
        if response.status_code == 206 and not self._resumes(response.headers.get("Content-Range", "")):
            raise CorruptDataError(f"{self._file.url}: expected to resume at byte {self.tell()}, got other bytes")
        if response.status_code == 200:
            self.truncate(self.seek(0))
        if response.status_code in (200, 206):
            self._advance(self.tell())
            self._make_room(int(response.headers.get("Content-Length", 0)))

    def _resumes(self, content_range: str) -> bool:
        return content_range.startswith(f"bytes {self.tell()}-")

    def _make_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._path.parent).free
        if needed + SPARE_BYTES > free:
            expected = f"{needed / 1e9:.2f} GB and {SPARE_BYTES / 1e9:.2f} GB to spare"
            raise OSError(f"expected {expected} on the disk of {self._path.parent}, it has {free / 1e9:.2f} GB")

    def write(self, block: bytes) -> int:  # type: ignore[override]
        self._advance(len(block))
        if self._limit is not None and self.tell() + len(block) > self._limit:
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
