"""Read arrays from HDF5 files that nobody vouches for: no bombs, no links out of the file."""

import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from neurovar_datasets._fetching.source import AnyPath, CorruptDataError, DataUnavailableError
from neurovar_datasets._reading.hdf5_heaps import HeapChecked
from neurovar_datasets._reading.hdf5_texts import text_lengths
from neurovar_datasets._reading.refusals import MAX_EXPANSION, expect, numbers, reading, size_limit

if TYPE_CHECKING:
    import h5py

MAX_TEXTS = 1_000_000
TEXT_BLOCK = MAX_EXPANSION  # no text is longer than the file, so a block of texts is no longer than the limit
# Soft links may point to each other in a circle; HDF5's own default (nlinks) is 16 as well.
MAX_LINKS = 16
# H5Z_FILTER_DEFLATE of the HDF5 library.
GZIP_FILTER = 1
# Deflate codes at most 258 bytes in 2 bits: 258 · 8 / 2 = 1032.
MAX_DEFLATE = 1032  # bytes that one byte of deflate can become
DEFLATE_BLOCK = 1 << 20
# Seconds; archives such as DANDI redirect to storage that can take long to answer first.
REMOTE_TIMEOUT = 30.0
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def is_hdf5(path: AnyPath) -> bool:
    """Whether a file is HDF5, as MATLAB 7.3 files are (behind a header of 512 bytes)."""
    with Path(path).open("rb") as stream:
        # HDF5 allows a user block before the signature, of 512 bytes or a power of two times that;
        # MATLAB uses 512.
        start = stream.read(512 + len(SIGNATURE))
    return SIGNATURE in (start[: len(SIGNATURE)], start[512:])


@dataclass(frozen=True)
class Hdf5:
    """An open HDF5 file (NWB, netCDF 4 and MATLAB 7.3 are) that is read with care; `name` is what errors call it."""

    file: "h5py.File"
    name: str
    limit: int

    def dataset(self, field: str) -> "h5py.Dataset":
        """The dataset at `field` ("units/spike_times"), not read yet; it has numbers or text, in this very file."""
        import h5py

        with reading(self.name, field):
            item = self.item_at(field)
            expect(isinstance(item, h5py.Dataset), self.name, field, "a dataset", type(item).__name__)
            # Either would let a downloaded file show the content of any other file that the user
            # can read.
            outside = bool(item.external) or item.is_virtual
            expect(not outside, self.name, field, "data in this file", "data in another file")
            plain = item.dtype.kind in "biufS" or h5py.check_string_dtype(item.dtype) is not None
            expect(plain, self.name, field, "numbers or text", f"dtype {item.dtype}")
            # HDF5 allocates whole chunks: a dataset of one value can have a chunk of gigabytes.
            n_values = max(item.size or 0, math.prod(item.chunks or ()))
            n_bytes = n_values * item.dtype.itemsize
            expect(n_bytes <= self.limit, self.name, field, f"at most {self.limit} bytes", f"{n_bytes} ({item.shape})")
            self.check_chunks(field, item)
            self._check_texts(field, item)
            return item

    def array(self, field: str, *, ndim: int | None = None) -> np.ndarray:
        """The numbers at `field`."""
        with reading(self.name, field):
            item = self.dataset(field)
            expect(item.dtype.kind in "biuf", self.name, field, "real numbers", f"dtype {item.dtype}")
            return numbers(self.name, field, item[()], ndim=ndim)

    def strings(self, field: str) -> np.ndarray:
        """The texts at `field`, a flat array of str."""
        with reading(self.name, field):
            item = self.dataset(field)
            few = item.dtype.kind in "OS" and item.ndim <= 1 and (item.size or 0) <= MAX_TEXTS
            expect(few, self.name, field, f"a row of up to {MAX_TEXTS} texts", f"{item.dtype} {item.shape}")
            texts = [text.decode("utf-8") for text in self._blocks_of_texts(field, item)]
            return np.array(texts, dtype=str)

    def _blocks_of_texts(self, field: str, item: "h5py.Dataset") -> Iterator[bytes]:
        """Few at a time: in a small file every text can be the same long one."""
        longest = 1
        for start in range(0, item.size or 0, TEXT_BLOCK):
            block = np.ravel(item[start : start + TEXT_BLOCK] if item.ndim else item[()])
            longest = max(longest, *map(len, block))
            n_bytes = np.dtype("U1").itemsize * longest * item.size
            expect(n_bytes <= self.limit, self.name, field, f"at most {self.limit} bytes of text", n_bytes)
            yield from block

    def members(self, group: str = "/") -> Mapping[str, Any]:
        """What lies in a group."""
        import h5py

        with reading(self.name, group):
            item = self.item_at(group)
            expect(isinstance(item, h5py.Group), self.name, group, "a group", type(item).__name__)
            return item

    def has(self, field: str) -> bool:
        """Whether there is something at `field`."""
        with reading(self.name, field):
            try:
                self.item_at(field)
            except _AbsentError:
                return False
            return True

    def item_at(self, field: str) -> Any:
        """What is at `field`; no link on the way is followed out of the file or in circles."""
        import h5py

        item: Any = self.file
        parts, n_links = field.split("/"), 0
        while parts:
            part = parts.pop(0)
            if part in ("", "."):
                continue
            members = list(item) if isinstance(item, h5py.Group) else []
            if part not in members:
                raise _AbsentError(f"{self.name}: {field}: expected to be there, got {members[:20]} in {item.name}")
            # Asked of the link, not of its target: h5py would open another file to resolve an
            # external link.
            link = item.get(part, getlink=True)
            expect(not isinstance(link, h5py.ExternalLink), self.name, field, "data in this file", "a link out of it")
            if isinstance(link, h5py.SoftLink):
                n_links += 1
                expect(n_links <= MAX_LINKS, self.name, field, f"at most {MAX_LINKS} links on the way", "more")
                parts = link.path.split("/") + parts
                item = self.file if link.path.startswith("/") else item
            else:
                item = item[part]
        return item

    def check_chunks(self, field: str, item: "h5py.Dataset") -> None:
        """Refuse chunks that become longer than the dataset declares: HDF5 unpacks gzip to whatever length it has."""
        import h5py

        plist = item.id.get_create_plist()
        filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        # gzip within gzip multiplies: 1032 times 1032 bytes of one, past what is counted below.
        expect(len(filters) == len(set(filters)), self.name, field, "each filter once", f"filters {filters}")
        unknown = [number for number in filters if not h5py.h5z.filter_avail(number)]
        expect(not unknown, self.name, field, "a filter that this HDF5 library has", f"filters {unknown}")
        if GZIP_FILTER not in filters:
            return
        chunks: list[Any] = []
        item.id.chunk_iter(chunks.append)
        declared, applied = math.prod(item.chunks) * item.dtype.itemsize, 1 << filters.index(GZIP_FILTER)
        for chunk in chunks:
            # Chunks too small to become a bomb are not unpacked twice; a bit in the mask says that
            # a filter was skipped.
            if chunk.size * MAX_DEFLATE > self.limit and not chunk.filter_mask & applied:
                size = _unpacked_size(item.id.read_direct_chunk(chunk.chunk_offset)[1], declared)
                expect(size <= declared, self.name, field, f"chunks of {declared} bytes", "more when unpacked")

    def _check_texts(self, field: str, item: "h5py.Dataset") -> None:
        """Refuse texts that declare to be larger than all that may be read: HDF5 sets that much memory aside."""
        if item.dtype.kind == "O" and item.size and Path(self.name).is_file():
            longest = int(text_lengths(Path(self.name), item).max(initial=0))
            expect(longest <= self.limit, self.name, field, f"texts of at most {self.limit} bytes", longest)


class _AbsentError(CorruptDataError):
    """There is nothing at a field of a file."""


def _unpacked_size(packed: bytes, limit: int) -> int:
    """How long deflated data are, counted until just past the limit."""
    unpacker, size = zlib.decompressobj(), 0
    while packed and size <= limit:
        size += len(unpacker.decompress(packed, DEFLATE_BLOCK))
        packed = unpacker.unconsumed_tail
    return size


@contextmanager
def open_hdf5(path: AnyPath) -> Iterator[Hdf5]:
    """An HDF5 file on disk, or at an http(s) address, of which only what is asked for is transferred."""
    import h5py

    with closing(_stream(path)) as source:
        with reading(path):
            source.seek(0, os.SEEK_END)
            size = source.tell()
            file = h5py.File(HeapChecked(source), "r")
        with file:
            yield Hdf5(file, str(path), size_limit(size))


def _stream(path: AnyPath) -> Any:
    if str(path).startswith(("https://", "http://")):
        return _remote(str(path))
    with reading(path):
        return Path(path).open("rb")


def _remote(url: str) -> Any:
    import requests
    from neurovar_datasets._fetching.download import reach
    from neurovar_datasets._fetching.files import OFFLINE_TIMEOUT

    try:
        import remfile
    except ImportError as error:
        raise ValueError(f"{url}: expected the package remfile (pip install 'neurovar[nwb]'), found none") from error
    try:
        reach(url, OFFLINE_TIMEOUT)
        # A server that ignores Range would send the whole file, gigabytes, for each small
        # read.
        first = requests.get(url, headers={"Range": "bytes=0-0"}, stream=True, timeout=REMOTE_TIMEOUT)
        first.close()
        first.raise_for_status()
        remote = remfile.File(url) if first.status_code == requests.codes.partial_content else None
    except Exception as error:  # remfile raises nothing narrower
        raise DataUnavailableError(f"{url}: cannot be opened ({type(error).__name__}: {error})") from error
    if remote is None:
        raise DataUnavailableError(f"{url}: expected a server that sends parts of a file, got all: download it")
    return remote
