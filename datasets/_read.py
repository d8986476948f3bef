"""Read arrays from files that nobody vouches for: no pickles, no bombs, no links out of the file.

Whatever is wrong ends in a CorruptDataError that names the file and the field.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from neurovar import responses

from ._source import AnyPath, CorruptDataError

if TYPE_CHECKING:
    import h5py

MIN_LIMIT = 256 << 20
MAX_EXPANSION = 100  # spike counts, mostly zeros, are compressed tenfold or so
MAT_COMPRESSED = 15
MAT_HEADER = 128
FULLY_CHECKED = 64 << 20
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def reading(path: AnyPath, field: str = "") -> Iterator[None]:
    """Turn any failure of a parser within into a CorruptDataError: no parser lists how it fails on hostile files."""
    try:
        yield
    except CorruptDataError:
        raise
    except Exception as error:
        what = f"{path}: {field}" if field else str(path)
        raise CorruptDataError(f"{what}: cannot be read ({type(error).__name__}: {error})") from error


def expect(condition: bool | np.bool_, path: AnyPath, field: str, expected: str, got: object) -> None:
    """Raise the CorruptDataError that says which file and field, what was expected and what came."""
    if not condition:
        raise CorruptDataError(f"{path}: {field}: expected {expected}, got {got}")


def size_limit(size: int) -> int:
    """The most bytes that are unpacked from a file of `size` bytes."""
    return max(MIN_LIMIT, MAX_EXPANSION * size)


def numbers(path: AnyPath, field: str, values: object, *, ndim: int | None = None) -> np.ndarray:
    """`values` as an array of real numbers."""
    array = np.asarray(values)
    expect(array.dtype.kind in "biuf", path, field, "real numbers", f"dtype {array.dtype}")
    if ndim is not None:
        expect(array.ndim == ndim, path, field, f"{ndim} dims", f"shape {array.shape}")
    return array


def integers(path: AnyPath, field: str, values: object) -> np.ndarray:
    """`values` as a flat array of int64; floats must be whole, as MATLAB writes integers."""
    array = numbers(path, field, values).ravel()
    whole = array.dtype.kind != "f" or bool(np.all((np.abs(array) < 2**53) & (np.floor(array) == array)))
    expect(whole, path, field, "whole numbers", "fractions, NaN or infinity")
    return array.astype(np.int64)


def counts(path: AnyPath, field: str, values: object, *, ndim: int | None = None) -> np.ndarray:
    """`values` as spike counts: whole, not negative; NaN where a trial is absent."""
    array = numbers(path, field, values, ndim=ndim)
    if array.dtype.kind == "f":
        present = array[~np.isnan(array)]
        expect(bool(np.all(np.floor(present) == present)), path, field, "whole spike counts", "fractions")
        expect(not np.isinf(present).any(), path, field, "finite spike counts", "infinity")
    negative = int((array < 0).sum())
    expect(negative == 0, path, field, "spike counts of 0 or more", f"{negative} negative ones")
    return array


def increasing_times(path: AnyPath, field: str, values: object) -> np.ndarray:
    """`values` as float64 times that are finite and never decrease."""
    times = numbers(path, field, values).ravel().astype(np.float64)
    expect(bool(np.isfinite(times).all()), path, field, "finite times", "NaN or infinity")
    expect(bool((np.diff(times) >= 0).all()), path, field, "times that never decrease", "times out of order")
    return times


def unique(path: AnyPath, field: str, values: Iterable[Any]) -> np.ndarray:
    """`values` as an array without repetitions."""
    ids = np.asarray(values)
    _, n = np.unique(ids, return_counts=True)
    expect(bool((n == 1).all()), path, field, "unique ids", f"{int((n > 1).sum())} repeated ones")
    return ids


def checked(path: AnyPath, recorded: xr.DataArray) -> xr.DataArray:
    """`recorded`, if it keeps the convention; a CorruptDataError that names the file where it does not."""
    try:
        return responses.validate(recorded, time="time" in recorded.dims)
    except ValueError as error:
        raise CorruptDataError(f"{path}: responses: {error}") from error


def npy(path: AnyPath, *, lazy: bool = False) -> np.ndarray:
    """The array of a .npy file; with `lazy` a read-only memory map of it."""
    with reading(path):
        array = np.lib.format.open_memmap(path, mode="r")
        return array if lazy else np.array(array)


def npy_member(path: AnyPath, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """The array of a .npy file in a zip archive, of which `npz` files are one kind."""
    with reading(path, name):
        info = archive.getinfo(name)
        limit = size_limit(info.compress_size)
        expect(info.file_size <= limit, path, name, f"at most {limit} bytes", info.file_size)
        with archive.open(info) as stream:
            return _npy_stream(path, name, stream, info.file_size)


def _npy_stream(path: AnyPath, name: str, stream: IO[bytes], size: int) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    expect(version in ((1, 0), (2, 0)), path, name, "a .npy file of version 1 or 2", f"version {version}")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(stream)
    expect(not dtype.hasobject, path, name, "numbers or text", "pickled objects")
    n_bytes = math.prod(shape) * dtype.itemsize
    expect(n_bytes <= size, path, name, f"the {n_bytes} bytes of shape {shape}", f"{size} bytes")
    flat = np.frombuffer(stream.read(n_bytes), dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


@contextmanager
def open_zip(path: AnyPath) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose members are read in place, never unpacked into a folder."""
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def npz(path: AnyPath, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of these names from a .npz file, by default all."""
    with open_zip(path) as archive:
        present = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        missing = [name for name in names if name not in present]
        expect(not missing, path, ", ".join(missing), "an array of this name", f"arrays {present[:20]}")
        return {name: npy_member(path, archive, f"{name}.npy") for name in names or present}


def is_hdf5(path: AnyPath) -> bool:
    """Whether a file is HDF5, as MATLAB 7.3 files are (behind a header of 512 bytes)."""
    with Path(path).open("rb") as stream:
        start = stream.read(512 + len(HDF5_SIGNATURE))
    return HDF5_SIGNATURE in (start[: len(HDF5_SIGNATURE)], start[512:])


def mat(path: AnyPath, names: Sequence[str]) -> dict[str, Any]:
    """The variables of these names from a MATLAB file of version 4 to 7, as `scipy.io.loadmat` gives them."""
    from scipy.io import loadmat

    with reading(path):
        _check_mat_expansion(Path(path))
        content = loadmat(str(path), variable_names=list(names))
    missing = [name for name in names if name not in content]
    expect(not missing, path, ", ".join(missing), "a variable of this name", "none")
    return content


def _check_mat_expansion(path: Path) -> None:
    """Refuse compressed variables that unpack to far more than the file: loadmat would unpack them whole.

    Large files are judged by the size that they declare, because counting unpacks everything once more.
    """
    size = path.stat().st_size
    limit = size_limit(size)
    with path.open("rb") as stream:
        order = "<" if stream.read(MAT_HEADER)[-2:] == b"IM" else ">"
        while len(tag := stream.read(8)) == 8:
            kind, n_bytes = struct.unpack(f"{order}II", tag)
            if kind != MAT_COMPRESSED or n_bytes > size:
                return
            end = stream.tell() + n_bytes
            unpacked = _declared_size(stream, order) if size > FULLY_CHECKED else _unpacked_size(stream, n_bytes, limit)
            expect(unpacked <= limit, path, "a compressed variable", f"at most {limit} bytes", f"{unpacked} or more")
            stream.seek(end)


def _declared_size(stream: IO[bytes], order: str) -> int:
    start = zlib.decompressobj().decompress(stream.read(1 << 10), 8)
    return int(struct.unpack(f"{order}I", start[4:8])[0])


def _unpacked_size(stream: IO[bytes], n_bytes: int, limit: int) -> int:
    unpacker, total = zlib.decompressobj(), 0
    compressed = stream.read(n_bytes)
    while compressed and total <= limit:
        total += len(unpacker.decompress(compressed, 1 << 20))
        compressed = unpacker.unconsumed_tail
    return total


def struct_field(path: AnyPath, structure: np.ndarray, name: str) -> np.ndarray:
    """The field of a MATLAB struct of size 1 × 1."""
    fields = structure.dtype.names or ()
    expect(name in fields, path, name, "a field of this name", f"fields {list(fields)[:20]}")
    expect(structure.size == 1, path, name, "a struct of size 1 × 1", f"shape {structure.shape}")
    return np.asarray(structure.ravel()[0][name])


@dataclass(frozen=True)
class Hdf5:
    """An open HDF5 file (NWB, netCDF 4 and MATLAB 7.3 are) that is read with care; `name` is what errors call it."""

    file: "h5py.File"
    name: str
    limit: int

    def dataset(self, field: str) -> "h5py.Dataset":
        """The dataset at `field` ("units/spike_times"), not read yet; it must lie in this very file."""
        import h5py

        with reading(self.name, field):
            item = self._item(field)
            expect(isinstance(item, h5py.Dataset), self.name, field, "a dataset", type(item).__name__)
            outside = bool(item.external) or item.is_virtual
            expect(not outside, self.name, field, "data in this file", "data in another file")
            plain = h5py.check_ref_dtype(item.dtype) is None and h5py.check_vlen_dtype(item.dtype) is None
            expect(plain, self.name, field, "numbers or text", f"dtype {item.dtype}")
            n_values = max(item.size or 0, math.prod(item.chunks or ()))
            n_bytes = n_values * item.dtype.itemsize
            expect(n_bytes <= self.limit, self.name, field, f"at most {self.limit} bytes", f"{n_bytes} ({item.shape})")
            return item

    def array(self, field: str, *, ndim: int | None = None) -> np.ndarray:
        """The numbers at `field`."""
        with reading(self.name, field):
            return numbers(self.name, field, self.dataset(field)[()], ndim=ndim)

    def strings(self, field: str) -> np.ndarray:
        """The texts at `field`, a flat array of str."""
        with reading(self.name, field):
            values = np.ravel(self.dataset(field)[()])
            return np.array([v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values], dtype=str)

    def members(self, group: str = "/") -> Mapping[str, Any]:
        """What lies in a group."""
        import h5py

        with reading(self.name, group):
            item = self._item(group)
            expect(isinstance(item, h5py.Group), self.name, group, "a group", type(item).__name__)
            return item

    def has(self, field: str) -> bool:
        with reading(self.name, field):
            return field in self.file

    def _item(self, field: str) -> Any:
        """What is at `field`, if no link on the way leaves the file."""
        import h5py

        item: Any = self.file
        for part in filter(None, field.split("/")):
            members = list(item) if isinstance(item, h5py.Group) else []
            expect(part in members, self.name, field, "to be there", f"{members[:20]} in {getattr(item, 'name', item)}")
            link = item.get(part, getlink=True)
            expect(not isinstance(link, h5py.ExternalLink), self.name, field, "data in this file", "a link out of it")
            item = item[part]
        return item


@contextmanager
def open_hdf5(path: AnyPath) -> Iterator[Hdf5]:
    """An HDF5 file on disk, or at an http(s) address, of which only what is asked for is transferred."""
    import h5py

    source: Any = _remote(str(path)) if str(path).startswith(("https://", "http://")) else Path(path)
    with reading(path):
        size = source.length if hasattr(source, "length") else source.stat().st_size
        file = h5py.File(source, "r")
    with file:
        yield Hdf5(file, str(path), size_limit(size))


def _remote(url: str) -> Any:
    try:
        import remfile
    except ImportError as error:
        raise ValueError(f"{url}: expected the package remfile (pip install 'neurovar[nwb]'), found none") from error
    with reading(url):
        return remfile.File(url)
