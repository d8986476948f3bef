"""What every command shows and writes in one way: estimates with intervals, progress, folders and files of results."""

import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console
    from rich.progress import Progress


def with_interval(estimate: float, low: float, high: float, *, signed: bool = False) -> str:
    """An estimate and its interval, in as many digits as the interval leaves meaning.

    >>> with_interval(0.03021, 0.02124, 0.0403), with_interval(31.72, 28.4, 40.2), with_interval(2, math.nan, math.nan)
    ('0.030 [0.021, 0.040]', '32 [28, 40]', '2')
    """
    sign = "+" if signed else ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{estimate:{sign}.3g}"
    # Two digits of the interval's width: a third would change from one set of resamples to the next.
    width = high - low
    decimals = max(1 - math.floor(math.log10(width)), 0) if width > 0 else 2
    return f"{estimate:{sign}.{decimals}f} [{low:{sign}.{decimals}f}, {high:{sign}.{decimals}f}]"


def progress(console: "Console", *, remaining: bool = False) -> "Progress":
    """A bar that says what is done, how much of it, how long it took and, if asked, how long it will still take."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, *([TimeRemainingColumn()] if remaining else []), console=console)


def require_writable(output: Path) -> None:
    """Raise a ValueError before the long work if results could not be written to the folder `output` after it."""
    existing = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"expected a folder that can be written as --output, got {output}: {existing} is a file")
    try:
        # Trying is the only sure way: permissions alone say nothing of a full disk or a read-only mount.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ValueError(f"expected a folder that can be written as --output, got {output} ({error})") from error


def write_dataset(data: "xr.Dataset", path: Path, *, group: str | None = None, packed: tuple[str, ...] = ()) -> None:
    """Write a result as a new netCDF file, or as a group of the one that is there; `packed` variables are compressed.

    Lists of texts become one text with a line each, since a file cannot hold an empty list.
    """
    lists = {name: value for name, value in data.attrs.items() if isinstance(value, list)}
    texts = {name: "\n".join(value) for name, value in lists.items() if all(isinstance(item, str) for item in value)}
    encoding = {name: {"zlib": True} for name in packed}
    target = os.fspath(path)
    data.assign_attrs(texts).to_netcdf(
        target, mode="w" if group is None else "a", group=group, engine="h5netcdf", encoding=encoding
    )
