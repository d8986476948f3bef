"""Declare a source: where its files are, how to cite them, under which licence, and what was recorded."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TypeVar

Value = TypeVar("Value")
AnyPath = str | os.PathLike[str]
HASH = "sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32}|git:[0-9a-f]{40}"


class DataUnavailableError(ValueError):
    """A file is nowhere on this machine and cannot be downloaded."""


class CorruptDataError(ValueError):
    """A file is there, but not what was declared or expected: another hash, truncated, of the wrong form."""


@dataclass(frozen=True)
class File:
    """One file: where it is below a data folder, its public address, and its content.

    `hash` is "sha256:…", "sha1:…", "md5:…" or "git:…" (the id of a git blob); empty where none is
    published: the SHA-256 of the first download is then recorded and checked from there on. `size` is in bytes. Both
    are those of the content: of a path that ends in `.gz` the content is what is inside, because packages compress the
    same content again, and no two gzip files need be alike.
    `folder` is where a system package puts it under its own name, if one does.
    `by_hand` says how a user gets a file that has no direct address; `url` is then that of its page.
    """

    path: str
    url: str
    hash: str = ""
    size: int | None = None
    folder: str = ""
    by_hand: str = ""

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        # A path with ".." would write a download outside of the cache.
        if path.is_absolute() or not path.name or ".." in path.parts:
            raise ValueError(f"expected the path of a file below a data folder, got {self.path!r}")
        if self.hash and not re.fullmatch(HASH, self.hash):
            raise ValueError(f"{self.path}: expected a hash as {HASH}, got {self.hash!r}")

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def compressed(self) -> bool:
        return self.path.endswith(".gz")


@dataclass(frozen=True)
class Source:
    """Where data come from, how to cite them, under which licence, in which units they are, and what was recorded.

    `redistribution` and `derivatives` say whether the licence allows to pass the data on, and to publish changed
    versions; None where the source does not say. `n_units`, `n_stimuli` and `n_repeats` are for the reader ("44 to
    110"). `sessions` has the files of each session, or of each part of a collection of images.
    """

    name: str
    title: str
    doi: str
    citation: str
    license: str
    license_url: str
    redistribution: bool | None
    derivatives: bool | None
    units: str
    area: str = ""
    species: str = ""
    method: str = ""
    n_units: str = ""
    n_stimuli: str = ""
    n_repeats: str = ""
    sessions: Mapping[str, tuple[File, ...]] = field(default_factory=dict)

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
        return attrs | ({"hash": " ".join(file.hash or "not published" for file in used)} if used else {})


def sources() -> dict[str, Source]:
    """Every public source by the name of its module; `arrays` is none, it reads a user's own files.

    Returns
    -------
    dict
        The descriptor `SOURCE` of each module of this package that has one.

    Examples
    --------
    >>> sources()["gokcen2023_v1v2"].license
    'MIT'
    """
    package = __name__.partition(".")[0]
    names = sorted(path.stem for path in Path(__file__).parents[1].glob("[!_]*.py"))
    return {name: import_module(f"{package}.{name}").SOURCE for name in names if name != "arrays"}


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
