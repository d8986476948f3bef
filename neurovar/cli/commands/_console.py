"""Print for people and for pipes: aligned, without colours in a file, and no control characters from anyone's file."""

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    import xarray as xr

PIPE_WIDTH = 100


def console() -> Console:
    """On a terminal as wide as it is; in a pipe 100 columns, or as many as COLUMNS says."""
    free = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if free else PIPE_WIDTH, markup=False, highlight=False, emoji=False)


def say(text: object) -> None:
    """Print one line, however long; no program that reads it has to put it together again."""
    console().print(printable(text), soft_wrap=True)


def printable(text: object) -> str:
    """`text` without the control characters with which a hostile file could rewrite a terminal.

    >>> printable("V4\\x1b[2J")
    'V4�[2J'
    """
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))


def size(n_bytes: int) -> str:
    """A size for people.

    >>> size(2_560_128)
    '2.6 MB'
    """
    from rich.filesize import decimal

    return decimal(n_bytes).replace("bytes", "B")


def shape(responses: "xr.DataArray") -> str:
    """The lengths of all dims: "640 stimulus × 10 repeat × 50 unit"."""
    return " × ".join(f"{length} {printable(dim)}" for dim, length in responses.sizes.items())
