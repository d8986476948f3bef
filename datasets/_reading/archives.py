"""Read NumPy files and zip archives that nobody vouches for: no pickles, no bombs."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from neurovar_datasets._fetching.source import AnyPath
from neurovar_datasets._reading.refusals import expect, reading, size_limit

# Of bzip2 and LZMA members zipfile may unpack past the declared size in one call; no writer of .npz
# uses them.
PLAIN_ZIP = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def npy(path: AnyPath, *, lazy: bool = False) -> np.ndarray:
    """The array of a .npy file; with `lazy` a read-only memory map of it."""
    with reading(path):
        # A memory map never unpickles: an object array is refused by NumPy here, so no code of the
        # file runs.
        array = _of_some_bytes(path, "", np.lib.format.open_memmap(path, mode="r"))
        return array if lazy else np.array(array)


def npy_member(path: AnyPath, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array of a .npy file in a zip archive from `open_zip`, of which `npz` files are one kind."""
    with reading(path, name), archive.open(name) as stream:
        return _of_some_bytes(path, name, np.lib.format.read_array(stream, allow_pickle=False))


def _of_some_bytes(path: AnyPath, field: str, array: np.ndarray) -> np.ndarray:
    """`array`, unless its values take no bytes, so that a small file can declare any number of them."""
    some = bool(array.nbytes or not array.size)
    expect(some, path, field or "values", "values of some bytes", f"dtype {array.dtype}")
    return array


@contextmanager
def open_zip(path: AnyPath) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members are read in place, never unpacked into a folder; together they are no bomb.

    zipfile unpacks no more of a member than its declared size, if it is stored or deflated.
    """
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        limit, total = size_limit(Path(path).stat().st_size), 0
        for info in archive.infolist():
            # The sum counts, not each member: overlapping members ("zip bombs") are all small by
            # themselves.
            total += info.file_size
            expect(info.compress_type in PLAIN_ZIP, path, info.filename, "deflate", f"method {info.compress_type}")
            expect(total <= limit, path, info.filename, f"members of at most {limit} bytes", f"{total} or more")
        yield archive


def npz(path: AnyPath, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of these names from a .npz file, by default all."""
    with open_zip(path) as archive:
        present = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        missing = [name for name in names if name not in present]
        expect(not missing, path, ", ".join(missing), "an array of this name", f"arrays {present[:20]}")
        return {name: npy_member(path, archive, f"{name}.npy") for name in names or present}
