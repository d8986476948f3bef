"""Downloads: whole and checked or not there, whatever is killed, breaks off, is asked for twice, or lies."""

import gzip
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest
from neurovar_datasets import CorruptDataError, DataUnavailableError
from neurovar_datasets._fetching import download as _download
from neurovar_datasets._fetching import hashes as _hashes
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.hashes import hash_record
from neurovar_datasets._fetching.source import File
from servers import Server, file_of, put, respond

Serve = Callable[..., Server]
CONTENT = random.Random(0).randbytes(700_001)
SHORT = b"spikes and more spikes"
pytestmark = pytest.mark.usefixtures("cache")


def served(server: Server, *, path: str = "source/counts.bin") -> File:
    return file_of(server.content, path=path, url=server.url)


def unknown(server: Server) -> File:
    return replace(served(server), hash="", size=None)


def parts(cache: Path) -> list[str]:
    """What is in the cache besides locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


# Whole downloads


@pytest.mark.parametrize("name", ["counts.bin", "labels.gz"])
def test_a_download_is_checked_and_kept(cache: Path, serve: Serve, name: str) -> None:
    server = serve(gzip.compress(CONTENT, mtime=0) if name == "labels.gz" else CONTENT)
    file = file_of(CONTENT, path=f"source/{name}", url=server.url)
    assert find(file) == cache / file.path
    assert parts(cache) == [name]
    assert find(replace(file, url="http://127.0.0.1:9/")) == cache / file.path
    assert server.asked == [None]


def test_a_corrupt_copy_in_the_cache_is_downloaded_again(cache: Path, serve: Serve) -> None:
    file = served(serve(SHORT))
    put(cache / file.path, SHORT[:3])
    assert find(file).read_bytes() == SHORT


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (SHORT[::-1], "got 22 bytes"),
        (SHORT[:4], "truncated"),
        (SHORT * 2, "more"),
        (SHORT * 1000, ", got more"),
    ],
)
def test_a_wrong_download_leaves_nothing_behind(cache: Path, serve: Serve, sent: bytes, message: str) -> None:
    file = file_of(SHORT, url=serve(sent).url)
    with pytest.raises(CorruptDataError, match=f"{file.url}: expected 22 bytes.*{message}"):
        find(file)
    assert parts(cache) == []


def test_a_download_without_end_is_ended(cache: Path, serve: Serve) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(bytes(1 << 16))

    with pytest.raises(CorruptDataError, match="expected 22 bytes, got more"):
        find(file_of(SHORT, url=serve(answer=endless).url))
    assert parts(cache) == []


# Unknown hashes


def test_the_first_hash_is_recorded_and_checked_from_then_on(cache: Path, serve: Serve) -> None:
    server = serve(SHORT)
    file = unknown(server)
    copy = find(file)
    assert hash_record(copy).read_text() == f"{file_of(SHORT).hash}\n"
    assert parts(cache) == ["counts.bin", "counts.bin.hash"]
    put(copy, SHORT[::-1])
    assert find(file).read_bytes() == SHORT, "a copy that has changed is downloaded again"
    copy.unlink()
    server.content = SHORT[::-1]
    with pytest.raises(CorruptDataError, match=r"its first hash is in .*counts\.bin\.hash\): expected content .*, got"):
        find(file)
    assert parts(cache) == ["counts.bin.hash"]
    hash_record(copy).unlink()
    assert find(file).read_bytes() == SHORT[::-1]


def test_a_declared_size_is_checked_without_a_hash(cache: Path, serve: Serve) -> None:
    file = replace(unknown(serve(SHORT[:-1])), size=len(SHORT))
    with pytest.raises(CorruptDataError, match=r"expected 22 bytes, got 21 bytes .* \(truncated\? 1 bytes"):
        find(file)
    assert parts(cache) == []


def test_what_has_no_hash_yet_is_never_resumed(cache: Path, serve: Serve) -> None:
    server = serve(SHORT)
    put(cache / "source" / "counts.bin.part", b"of an older version")
    assert find(unknown(server)).read_bytes() == SHORT
    assert server.asked == [None]


# Resuming


@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_of_any_length_is_completed(cache: Path, serve: Serve, ranges: bool) -> None:
    server = serve(CONTENT[:1000], ranges=ranges)
    file = served(server)
    for n_there in (0, 1, 2, 999, *random.Random(1).sample(range(1000), 10)):
        put(cache / f"{file.path}.part", CONTENT[:n_there])
        assert find(file).read_bytes() == CONTENT[:1000]
        assert server.asked.pop() == (f"bytes={n_there}-" if n_there else None)
        assert server.sent.pop() == (1000 - n_there if ranges else 1000)
        assert parts(cache) == ["counts.bin"]
        (cache / file.path).unlink()


@pytest.mark.parametrize("size", [None, len(SHORT)])
def test_a_part_that_is_whole_needs_no_bytes(cache: Path, serve: Serve, size: int | None) -> None:
    server = serve(SHORT)
    file = replace(served(server), size=size)
    put(cache / f"{file.path}.part", SHORT)
    assert find(file).read_bytes() == SHORT
    assert server.sent == []
    assert parts(cache) == ["counts.bin"]


@pytest.mark.parametrize("there", [b"x", SHORT[::-1][:9], SHORT + b"!", SHORT[::-1]])
def test_a_wrong_part_is_begun_again_once(cache: Path, serve: Serve, there: bytes) -> None:
    server = serve(SHORT)
    file = served(server)
    put(cache / f"{file.path}.part", there)
    assert find(file).read_bytes() == SHORT
    assert server.asked == [f"bytes={len(there)}-", None]
    assert parts(cache) == ["counts.bin"]


def test_a_wrong_part_of_a_wrong_file_is_given_up(cache: Path, serve: Serve) -> None:
    server = serve(SHORT[::-1])
    file = file_of(SHORT, url=server.url)
    put(cache / f"{file.path}.part", SHORT[:9])
    with pytest.raises(CorruptDataError, match=f"{file.url}: expected 22 bytes with hash"):
        find(file)
    assert server.asked == ["bytes=9-", None]
    assert parts(cache) == []


@pytest.mark.parametrize("sent", ["bytes 3-21/22", "bytes 90-99/100", "bytes */22", "", "nonsense"])
def test_other_bytes_than_asked_for_are_not_appended(cache: Path, serve: Serve, sent: str) -> None:
    def other_bytes(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        respond(request, 206 if asked else 200, len(SHORT), **({"Content-Range": sent} if asked else {}))
        request.wfile.write(SHORT)

    server = serve(SHORT, answer=other_bytes)
    file = served(server)
    put(cache / f"{file.path}.part", SHORT[:9])
    assert find(file).read_bytes() == SHORT
    assert server.asked == ["bytes=9-", None]


def test_bytes_that_nobody_asked_for_are_refused(cache: Path, serve: Serve) -> None:
    server = serve(SHORT, answer=lambda request: respond(request, 206, **{"Content-Range": "bytes 5-9/22"}))
    with pytest.raises(CorruptDataError, match="expected bytes from 0, got 'bytes 5-9/22'"):
        find(served(server))


def test_a_server_that_refuses_ranges_altogether_is_an_error(cache: Path, serve: Serve) -> None:
    server = serve(SHORT, answer=lambda request: respond(request, 416))
    with pytest.raises(DataUnavailableError, match="HTTPError: 416"):
        find(served(server))


def test_a_server_that_breaks_off_is_asked_for_the_rest_next_time(cache: Path, serve: Serve) -> None:
    def breaks_off(request: BaseHTTPRequestHandler) -> None:
        respond(request, 200, len(CONTENT))
        request.wfile.write(CONTENT[:300_000])

    server = serve(CONTENT, answer=breaks_off)
    with pytest.raises(DataUnavailableError, match="300000 bytes read, 400001 more expected"):
        find(served(server))
    assert parts(cache) == ["counts.bin.part"]
    there = (cache / "source" / "counts.bin.part").stat().st_size
    server.answer = None
    assert find(served(server)).read_bytes() == CONTENT
    assert 0 < there <= 300_000
    assert server.sent == [len(CONTENT) - there]


# Processes

FIND = """
import sys, pooch
from pathlib import Path
pooch.os_cache = lambda project: Path(sys.argv[1])
from neurovar_datasets._fetching.files import find
from neurovar_datasets._fetching.source import File
print(find(File("source/counts.bin", *sys.argv[2:])))
"""


def start(cache: Path, file: File) -> subprocess.Popen:
    """Another process that looks for the file."""
    command = [sys.executable, "-c", FIND, str(cache), file.url, file.hash]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_found(process: subprocess.Popen, cache: Path) -> None:
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out.strip()) == (0, str(cache / "source" / "counts.bin")), err
    assert (cache / "source" / "counts.bin").read_bytes() == CONTENT


def killed_after(server: Server, cache: Path, file: File, n_bytes: int) -> None:
    """Kill a process that has been sent so many bytes, at whatever it is doing."""
    server.stop_at = n_bytes
    process = start(cache, file)
    assert server.silent.wait(30), process.communicate()[1]
    time.sleep(random.Random(n_bytes).uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    process.communicate()
    server.stop_at = None


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("n_bytes", [0, 70_000, 333_333, len(CONTENT) - 1])
def test_a_killed_download_is_completed(cache: Path, serve: Serve, ranges: bool, n_bytes: int) -> None:
    server = serve(CONTENT, ranges=ranges)
    killed_after(server, cache, served(server), n_bytes)
    part = cache / "source" / "counts.bin.part"
    n_there = part.stat().st_size if part.exists() else 0
    assert n_there <= n_bytes
    assert not (cache / "source" / "counts.bin").exists()
    server.sent.clear()
    assert_found(start(cache, served(server)), cache)
    assert server.sent == [len(CONTENT) - n_there if ranges else len(CONTENT)]
    assert parts(cache) == ["counts.bin"]


def test_a_killed_download_of_unknown_hash_begins_again(cache: Path, serve: Serve) -> None:
    server = serve(CONTENT)
    killed_after(server, cache, unknown(server), 400_000)
    server.sent.clear()
    assert_found(start(cache, unknown(server)), cache)
    assert server.sent == [len(CONTENT)]
    assert hash_record(cache / "source" / "counts.bin").read_text() == f"{file_of(CONTENT).hash}\n"


def test_a_process_killed_before_the_last_step_needs_no_bytes(cache: Path, serve: Serve) -> None:
    """The hash was recorded, the part not yet renamed."""
    server = serve(SHORT)
    put(cache / "source" / "counts.bin.part", SHORT)
    put(cache / "source" / "counts.bin.hash", file_of(SHORT).hash.encode())
    assert find(unknown(server)).read_bytes() == SHORT
    assert server.sent == []


@pytest.mark.parametrize("known", [True, False])
def test_processes_that_fetch_the_same_file_at_once_transfer_it_once(cache: Path, serve: Serve, known: bool) -> None:
    server = serve(CONTENT, stop_at=300_000)
    file = served(server) if known else unknown(server)
    processes = [start(cache, file) for _ in range(4)]
    assert server.silent.wait(30)
    time.sleep(1)  # until the others wait
    assert all(process.poll() is None for process in processes)
    server.go_on.set()
    for process in processes:
        assert_found(process, cache)
    assert server.asked == [None]
    assert parts(cache) == ["counts.bin"] + ["counts.bin.hash"] * (not known)


def test_a_process_takes_over_from_one_that_was_killed(cache: Path, serve: Serve) -> None:
    server = serve(CONTENT)
    server.stop_at = 300_000
    first = start(cache, served(server))
    assert server.silent.wait(30)
    second = start(cache, served(server))
    time.sleep(0.7)  # until it waits
    server.stop_at = None
    first.kill()
    assert_found(second, cache)
    assert first.wait(10) == -signal.SIGKILL
    first.communicate()
    assert server.asked[0] is None
    assert server.asked[1].startswith("bytes=")


# Disk


def test_free_disk_is_checked_first(cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(CONTENT)
    spare = _download.SPARE_BYTES
    usage = SimpleNamespace(free=len(CONTENT) + spare - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    message = (
        rf"expected room for 0\.7 MB, and 67\.1 MB to spare, on the disk of {cache / 'source'}, it has 67\.8 MB free"
    )
    with pytest.raises(DataUnavailableError, match=message):
        find(served(server))
    assert parts(cache) == []
    usage.free += 1
    assert find(served(server)).read_bytes() == CONTENT


def test_a_resumed_download_needs_room_for_the_rest_only(
    cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(CONTENT)
    put(cache / "source" / "counts.bin.part", CONTENT[:-10])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=_download.SPARE_BYTES + 10))
    assert find(served(server)).read_bytes() == CONTENT


def test_a_download_of_unknown_length_leaves_room_on_the_disk(
    cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_length(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(CONTENT)

    free = iter(range(_download.SPARE_BYTES + 300_000, 0, -_hashes.BLOCK))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(free)))
    with pytest.raises(DataUnavailableError, match="expected room for"):
        find(unknown(serve(answer=without_length)))
    assert 0 < (cache / "source" / "counts.bin.part").stat().st_size < 300_000


# Stalling


def test_a_download_that_stalls_is_given_up(cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "STALL_TIMEOUT", 0.2)
    server = serve(CONTENT, stop_at=300_000)
    with pytest.raises(DataUnavailableError, match=r"ConnectionError.*Read timed out"):
        find(served(server))
    assert parts(cache) == ["counts.bin.part"]
