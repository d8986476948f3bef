"""Download a file once, whoever asks at the same time; resume what broke off; check it before it counts as there."""

import math
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neurovar_datasets._fetching.hashes import BLOCK, as_recorded, check, content_hash, hash_record
from neurovar_datasets._fetching.source import CorruptDataError, File

# Seconds without a byte before a download counts as broken off. What came of a file with a known
# hash stays for the next try.
STALL_TIMEOUT = 30.0
# A disk filled to the last byte breaks other programs, the one with the user's results among them.
SPARE_BYTES = 64 << 20


def download(file: File, target: Path, offline_timeout: float) -> None:
    """Put a checked download of `file` at `target`; a process that comes second waits for the first.

    Raises
    ------
    OSError
        If the address does not answer, breaks off, or the disk has too little room.
    CorruptDataError
        If what came is not what was declared, or not what came first.
    """
    from filelock import FileLock

    reach(file.url, offline_timeout)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        # Read under the lock: a process that was first may just have recorded the hash.
        known = as_recorded(file, target)
        name = file.url if known == file else f"{file.url} (its first hash is in {hash_record(target)})"
        if _already_there(known, target):
            return
        # Under another name until checked: a file at `target` is whole, even if the process
        # dies in between.
        part = target.with_name(f"{target.name}.part")
        _receive_checked(known, part, name, (offline_timeout, STALL_TIMEOUT))
        if not known.hash:
            hash_record(target).write_text(content_hash(part, file, "sha256")[0] + "\n", encoding="ascii")
        part.replace(target)


def _already_there(file: File, target: Path) -> bool:
    try:
        check(target, file, name=str(target))
        return target.is_file()
    except CorruptDataError:
        return False


def _receive_checked(file: File, part: Path, name: str, timeout: tuple[float, float]) -> None:
    """Only a file whose hash is known beforehand is resumed: of others nobody could tell that it had changed."""
    start = part.stat().st_size if file.hash and part.is_file() else 0
    try:
        _receive(file, part, start, timeout)
        check(part, file, name=name)
    except CorruptDataError:
        # A part of another version can never become right: begin again from nothing, but only once.
        part.unlink(missing_ok=True)
        if not start:
            raise
        _receive_checked(file, part, name, timeout)


def _receive(file: File, part: Path, start: int, timeout: tuple[float, float]) -> None:
    """Ask for the bytes from `start` on; a server may send all."""
    import requests

    # A transfer that the server compresses has other byte positions than the file, so no Range
    # would fit.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=timeout) as response:
        if start and response.status_code == 416:
            return  # the server has no more bytes: the part is whole, or of another file, as its hash tells
        response.raise_for_status()
        resumed = response.status_code == 206
        sent = response.headers.get("Content-Range", "")
        if resumed and not sent.startswith(f"bytes {start}-"):
            raise CorruptDataError(f"{file.url}: expected bytes from {start}, got {sent!r}")
        _store(response, file, part, start if resumed else 0)


def _store(response: Any, file: File, part: Path, start: int) -> None:
    """Write what comes after the first `start` bytes of the part; end what has no end."""
    limit = math.inf if file.size is None else file.size + file.size // 1000 + 1024  # gzip can be a little longer
    size = start
    _require_room(part.parent, response.raw.length_remaining or 0)
    with part.open("ab" if start else "wb") as stream, _progress(file, start) as advance:
        for block in response.iter_content(BLOCK):
            size += len(block)
            if size > limit:
                raise CorruptDataError(f"{file.url}: expected {file.size} bytes, got more")
            _require_room(part.parent, len(block))
            stream.write(block)
            advance(len(block))


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        expected = f"{needed / 1e6:,.1f} MB, and {SPARE_BYTES / 1e6:,.1f} MB to spare,"
        raise OSError(f"expected room for {expected} on the disk of {folder}, it has {free / 1e6:,.1f} MB free")


def reach(url: str, timeout: float) -> None:
    """Raise OSError unless the address answers in time.

    A thread asks, because looking up the name has no timeout of its own and each address of a host has a whole one.
    """
    import requests

    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            requests.head(url, timeout=timeout, allow_redirects=True)
            answers.put(None)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        failure = answers.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    if failure is not None:
        raise failure


@contextmanager
def _progress(file: File, start: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on the standard error; call what it gives with each number of bytes received."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        total = None if file.compressed else file.size
        task = progress.add_task(f"Downloading {file.path}", total=total, completed=start)
        yield lambda received: progress.advance(task, received)
