"""How long the texts of variable length in an HDF5 dataset are, before HDF5 reads them.

HDF5 sets aside, and clears, the length that a text declares before it looks whether the file has it: 4 GB for a flipped
bit. Here the elements are read as they lie in the file: a length, and an address in the heap (HDF5 File Format
Specification, section IV.B, "variable-length").
"""

import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import h5py

# H5Z_FILTER_DEFLATE and H5Z_FILTER_SHUFFLE, the only filters that common writers put on texts.
GZIP, SHUFFLE = 1, 2
LENGTH_BYTES = INDEX_BYTES = 4


def text_lengths(path: Path, item: "h5py.Dataset") -> np.ndarray:
    """The declared lengths of all texts in bytes; of chunks at an end, also those beyond it.

    Raises
    ------
    ValueError : for a layout or a filter that no usual writer gives to texts of variable length.
    """
    import h5py

    # The superblock of each file says how wide its addresses are, mostly 8 bytes.
    address_bytes, _ = item.file.id.get_create_plist().get_sizes()
    element = LENGTH_BYTES + address_bytes + INDEX_BYTES
    layout = item.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        raw = _contiguous(path, item, item.size * element)
    elif layout == h5py.h5d.CHUNKED:
        raw = b"".join(_chunks(item, math.prod(item.chunks) * element, element))
    else:
        raise ValueError("expected texts in a contiguous or chunked dataset, got another layout")
    whole = raw[: len(raw) // element * element]
    return np.frombuffer(whole, dtype=np.dtype([("length", "<u4"), ("at", f"V{element - LENGTH_BYTES}")]))["length"]


def _contiguous(path: Path, item: "h5py.Dataset", n_bytes: int) -> bytes:
    offset = item.id.get_offset()
    if offset is None or not item.id.get_storage_size():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(n_bytes)


def _chunks(item: "h5py.Dataset", n_bytes: int, element: int) -> list[bytes]:
    plist = item.id.get_create_plist()
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    chunks: list = []
    item.id.chunk_iter(chunks.append)
    unfiltered = []
    for info in chunks:
        skipped, raw = item.id.read_direct_chunk(info.chunk_offset)
        unfiltered.append(_unfiltered(skipped, raw, filters, n_bytes, element))
    return unfiltered


def _unfiltered(skipped: int, raw: bytes, filters: list[int], n_bytes: int, element: int) -> bytes:
    for number, code in reversed(list(enumerate(filters))):
        if skipped >> number & 1:
            continue
        if code == GZIP:
            # Bounded by the size of the chunk, so that no bomb goes off in the check itself.
            raw = zlib.decompressobj().decompress(raw, n_bytes)
        elif code == SHUFFLE:
            # Shuffle stores all first bytes of the elements, then all second ones: a transpose
            # undoes it.
            raw = np.frombuffer(raw, dtype=np.uint8).reshape(element, -1).T.tobytes()
        else:
            raise ValueError(f"expected texts packed by gzip, got filter {code}")
    return raw
