"""Whether the content of a file is what was declared, or what came first."""

import gzip
import hashlib
import re
import zlib
from dataclasses import replace
from pathlib import Path

from neurovar_datasets._fetching.source import HASH, CorruptDataError, File

BLOCK = 1 << 16


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
    # md5 and sha1 are what archives publish. They guard against damage and changes, not forgery:
    # hence not "for security", which also lets them run where FIPS mode forbids them.
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm, usedforsecurity=False)
    if algorithm == "git":
        # git hashes this header before the content; GitHub publishes such ids for every file.
        digest.update(b"blob %d\0" % (path.stat().st_size if file.size is None else file.size))
    size = 0
    with gzip.open(path) if file.compressed else path.open("rb") as stream:
        # One byte too many proves that the file is wrong: a gzip bomb is read no further.
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
