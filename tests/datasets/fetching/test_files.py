"""Files are found where they are searched, and are what was declared."""

import gzip
import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from neurovar_datasets import CorruptDataError, DataUnavailableError, Source
from neurovar_datasets._fetching import hashes as _hashes
from neurovar_datasets._fetching.files import cache_path, find, locate
from neurovar_datasets._fetching.source import File, choose
from servers import file_of, put

CONTENT = b"spikes and more spikes"
PACKED = gzip.compress(CONTENT, mtime=0)
pytestmark = pytest.mark.usefixtures("cache")


# Finding


def test_a_path_is_the_file_or_a_folder_that_has_it(tmp_path: Path) -> None:
    copy = put(tmp_path / "counts.bin", CONTENT)
    other_name = put(tmp_path / "renamed", CONTENT)
    below = put(tmp_path / "data" / "source" / "counts.bin", CONTENT)
    assert find(file_of(CONTENT), path=copy) == copy
    assert find(file_of(CONTENT), path=str(tmp_path)) == copy
    assert find(file_of(CONTENT), path=other_name) == other_name
    assert find(file_of(CONTENT), path=tmp_path / "data") == below


@pytest.mark.parametrize("name", ["", "absent.bin", "absent/counts.bin"])
def test_a_path_without_the_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"expected a file counts\.bin at the path given, found none at"):
        find(file_of(CONTENT), path=tmp_path / name)


def test_places_are_searched_in_order(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "system"
    file = replace(file_of(CONTENT), folder=str(system))
    assert locate(file) is None
    in_cache = put(cache / file.path, CONTENT)
    assert cache_path(file) == in_cache
    assert find(file) == locate(file) == in_cache
    in_system = put(system / file.name, CONTENT)
    assert find(file) == locate(file) == in_system
    in_data = put(tmp_path / "data" / file.path, CONTENT)
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path / "data"))
    assert find(file) == locate(file) == in_data
    given = put(tmp_path / "given.bin", CONTENT)
    assert find(file, path=given) == given


def test_what_is_located_is_not_checked(cache: Path) -> None:
    file = file_of(CONTENT)
    assert locate(file) is None
    put(cache / file.path, b"")
    assert locate(file) == cache / file.path


def test_neurovar_data_may_be_relative_and_empty_is_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_of(CONTENT)
    put(tmp_path / "data" / file.path, CONTENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEUROVAR_DATA", "data")
    assert find(file) == Path("data") / file.path
    monkeypatch.setenv("NEUROVAR_DATA", "")
    with pytest.raises(DataUnavailableError):
        find(file)


@pytest.mark.parametrize("name", ["absent", "a_file"])
def test_neurovar_data_must_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put(tmp_path / "a_file", b"")
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path / name))
    with pytest.raises(ValueError, match=rf"expected NEUROVAR_DATA to be an existing folder, got '.*{name}'"):
        find(file_of(CONTENT))


def test_a_file_without_an_address_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = "register at crcns.org, then download pvc-11.zip"
    file = File("kohn/data.mat", "https://crcns.org/pvc-11", by_hand=by_hand)
    with pytest.raises(DataUnavailableError) as caught:
        find(file)
    message = str(caught.value)
    assert message.startswith("expected kohn/data.mat on this machine, got it nowhere:")
    assert f"{cache_path(file)}: nothing there" in message
    assert f"It has no direct address: {by_hand} (https://crcns.org/pvc-11). Then pass its path" in message
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    assert find(file, path=put(tmp_path / "kohn" / "data.mat", b"x")) == find(file)


# Checking


def test_a_wrong_hash_names_file_expected_and_got(tmp_path: Path) -> None:
    file, other = file_of(CONTENT), CONTENT[::-1]
    copy = put(tmp_path / "counts.bin", other)
    got = f"sha256:{hashlib.sha256(other).hexdigest()}"
    expected = rf"counts\.bin: expected 22 bytes with hash {file.hash}, got 22 bytes with hash {got}$"
    with pytest.raises(CorruptDataError, match=expected):
        find(file, path=copy)


def git_id(path: Path) -> str:
    return subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5", "git"])
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_every_kind_of_hash_is_checked(tmp_path: Path, kind: str, size: int | None) -> None:
    copy = put(tmp_path / "counts.bin", CONTENT)
    digest = git_id(copy) if kind == "git" else hashlib.new(kind, CONTENT).hexdigest()
    file = File("source/counts.bin", "", f"{kind}:{digest}", size)
    assert find(file, path=copy) == copy
    with pytest.raises(CorruptDataError, match=rf"with hash {kind}:{digest}, got 22 bytes with hash {kind}:"):
        find(file, path=put(tmp_path / "other.bin", CONTENT[::-1]))


def test_without_a_hash_the_size_is_checked(tmp_path: Path) -> None:
    file = File("source/counts.bin", "", size=len(CONTENT))
    assert find(file, path=put(tmp_path / "same.bin", CONTENT[::-1]))
    with pytest.raises(CorruptDataError, match=r"expected 22 bytes, got 5 bytes .* \(truncated\? 17 bytes are missing"):
        find(file, path=put(tmp_path / "short.bin", CONTENT[:5]))
    assert find(replace(file, size=None), path=tmp_path / "short.bin")


def test_a_recorded_hash_is_checked(tmp_path: Path) -> None:
    file = File("source/counts.bin", "")
    copy = put(tmp_path / "counts.bin", CONTENT)
    record = put(tmp_path / "counts.bin.hash", file_of(CONTENT).hash.encode() + b"\n")
    assert find(file, path=copy) == copy
    put(copy, CONTENT[:-1])
    with pytest.raises(CorruptDataError, match=f"expected content with hash {file_of(CONTENT).hash}, got 21 bytes"):
        find(file, path=copy)
    published = replace(file, hash=file_of(CONTENT[:-1]).hash)
    assert find(published, path=copy) == copy, "what is published counts, not what was recorded"
    for not_a_record in (b"", b"\xff\xfe", b"sha256:12", b"crc32:" + b"0" * 64):
        put(record, not_a_record)
        assert find(file, path=copy) == copy


def test_a_truncated_file_of_the_user_is_named_so_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(CONTENT)
    copy = put(tmp_path / file.path, CONTENT[:5])
    monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path))
    with pytest.raises(CorruptDataError, match=r"got 5 bytes with .* \(truncated\? 17 bytes are missing\)"):
        find(file)
    assert copy.read_bytes() == CONTENT[:5]


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    copy = put(tmp_path / "counts.bin", CONTENT + b"!")
    with pytest.raises(CorruptDataError, match=f"expected {len(CONTENT)} bytes with .*, got more bytes than that"):
        find(file_of(CONTENT), path=copy)


@pytest.mark.parametrize("level", [1, 9])
def test_a_gzip_file_is_known_by_its_content(tmp_path: Path, level: int) -> None:
    copy = put(tmp_path / "labels.gz", gzip.compress(CONTENT, level, mtime=level))
    assert find(file_of(CONTENT, path="source/labels.gz"), path=copy) == copy


@pytest.mark.parametrize("packed", [PACKED[:-9], PACKED[:-6] + b"xxxxxx", b"not gzip at all"])
def test_a_broken_gzip_file_is_refused(tmp_path: Path, packed: bytes) -> None:
    copy = put(tmp_path / "labels.gz", packed)
    with pytest.raises(CorruptDataError, match=r"22 bytes when unpacked .* got a file that cannot be read to its end"):
        find(file_of(CONTENT, path="source/labels.gz"), path=copy)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = put(tmp_path / "labels.gz", gzip.compress(bytes(1 << 24)))
    unpacked: list[int] = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda stream, size: unpacked.append(size) or read(stream, size))
    with pytest.raises(CorruptDataError, match="got more bytes than that"):
        find(file_of(CONTENT, path="source/labels.gz"), path=copy)
    assert sum(unpacked) <= _hashes.BLOCK


# Declaring


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../counts.bin", "source/../../counts.bin"])
def test_no_file_lies_outside_of_the_cache(path: str) -> None:
    with pytest.raises(ValueError, match="expected the path of a file below a data folder, got"):
        File(path, "")


@pytest.mark.parametrize("wrong", ["0" * 64, "sha256:12", "sha512:" + "0" * 128, "md5:" + "G" * 32])
def test_a_hash_says_its_kind(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"a/b: expected a hash as sha256:.*, got"):
        File("a/b", "", wrong)


def test_a_source_describes_what_was_made_of_its_files() -> None:
    source = Source("s", "Title", "10.1/2", "A (2020).", "MIT", "https://x.org", True, None, "spike count")
    known, unknown = file_of(CONTENT), File("a/b", "")
    attrs = source.attrs(known, unknown)
    assert attrs.pop("hash") == f"{known.hash} not published"
    assert (
        attrs
        == source.attrs()
        == {
            "units": "spike count",
            "source": "s",
            "title": "Title",
            "doi": "10.1/2",
            "citation": "A (2020).",
            "license": "MIT",
            "license_url": "https://x.org",
        }
    )


def test_an_unknown_option_lists_the_known() -> None:
    assert choose("b", {"a": 1, "b": 2}, kind="session") == 2
    with pytest.raises(ValueError, match="expected the session to be one of 'a', 'b', got 'c'"):
        choose("c", {"a": 1, "b": 2}, kind="session")
