"""Without a network or a file, `find` says within seconds where it searched and what to do."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from neurovar_datasets import DataUnavailableError
from neurovar_datasets._fetching import files as _files
from neurovar_datasets._fetching.files import find
from servers import Server, file_of, put, respond

Serve = Callable[..., Server]
CONTENT = b"spikes and more spikes"
pytestmark = pytest.mark.usefixtures("cache")


def test_an_absent_address_says_where_was_searched_and_what_to_do(
    tmp_path: Path, cache: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    file = file_of(CONTENT, url=serve(answer=lambda request: respond(request, 404)).url)
    with pytest.raises(DataUnavailableError, match="HTTPError: 404") as caught:
        find(replace(file, folder=str(tmp_path / "system")))
    message = str(caught.value)
    places = [tmp_path / file.path, tmp_path / "system" / file.name, cache / file.path]
    assert all(f"{place}: nothing there" in message for place in places)
    assert file.url in message
    assert f"set NEUROVAR_DATA=<folder that has {file.path}>" in message


def test_a_corrupt_cache_without_network_says_both(cache: Path) -> None:
    file = file_of(CONTENT)
    put(cache / file.path, CONTENT[:3])
    with pytest.raises(DataUnavailableError, match=r"(?s)truncated\? 19 bytes are missing.*ConnectionError"):
        find(file)


def test_an_unwritable_cache_is_reported(cache: Path, serve: Serve) -> None:
    put(cache, b"a file in the place of the folder")
    with pytest.raises(DataUnavailableError, match=r"(NotADirectory|FileExists)Error"):
        find(file_of(CONTENT, url=serve(CONTENT).url))


def test_an_address_that_is_none_is_reported() -> None:
    with pytest.raises(DataUnavailableError, match="MissingSchema: Invalid URL 'nowhere'"):
        find(file_of(CONTENT, url="nowhere"))


def test_a_closed_port_is_found_out_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = time.monotonic()
    with pytest.raises(DataUnavailableError, match="ConnectionError"):
        find(file_of(CONTENT, url=f"http://127.0.0.1:{port}/counts.bin"))
    assert time.monotonic() - begin < _files.OFFLINE_TIMEOUT


def test_a_silent_server_is_given_up(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = file_of(CONTENT, url=f"http://127.0.0.1:{silent.getsockname()[1]}/counts.bin")
        begin = time.monotonic()
        with pytest.raises(DataUnavailableError, match=r"no answer within 0\.2 s|timed out"):
            find(file, offline_timeout=0.2)
    assert time.monotonic() - begin < 2
    assert not cache.exists()


def test_a_name_that_never_resolves_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def hang(*args: object, **kwargs: object) -> list:
        done.wait(20)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    begin = time.monotonic()
    with pytest.raises(DataUnavailableError, match=r"TimeoutError: no answer within 0\.2 s"):
        find(file_of(CONTENT, url="http://data.invalid/counts.bin"), offline_timeout=0.2)
    assert time.monotonic() - begin < 2
    done.set()


def test_two_files_without_network_are_found_out_within_ten_seconds() -> None:
    assert 2 * _files.OFFLINE_TIMEOUT < 10
