"""A file that HDF5 reads through Python, so that heaps of texts in which its C library would loop for ever are refused.

A global heap (signature GCOL) is a row of objects, each with its size; an object of size 0 in the unused part is never
passed. What HDF5 reads of a heap is seen here first.
"""

import io
import struct
from typing import BinaryIO

# HDF5 File Format Specification, III.E "Global Heap": signature, version 1, three reserved bytes,
# then the size.
SIGNATURE = b"GCOL\x01\0\0\0"
MAX_METADATA = 1 << 20  # HDF5 reads the start of each heap by itself, 4 KiB at first


class HeapChecked:
    """What h5py asks of a file, passed on to `file`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._checked: set[int] = set()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        data = self._file.read(size)
        # Numbers that spell the signature by chance are checked too and could be refused: 8 bytes
        # make that unlikely.
        at = data.find(SIGNATURE) if len(data) <= MAX_METADATA else -1
        while at >= 0:
            self._check(start + at)
            at = data.find(SIGNATURE, at + 1)
        # The check moved the file; HDF5 expects it behind what it read.
        self._file.seek(start + len(data))
        return data

    def readinto(self, buffer: memoryview) -> int:
        if len(buffer) > MAX_METADATA and isinstance(self._file, io.BufferedReader):
            return self._file.readinto(buffer)
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _check(self, address: int) -> None:
        """Walk the objects: 2 bytes number, 6 others, 8 bytes size; number 0 is the unused rest, header included."""
        if address in self._checked:
            return
        (size,) = struct.unpack("<8xQ", self._header(address))
        at = 16
        while at + 16 <= size:
            number, n_bytes = struct.unpack("<H6xQ", self._header(address + at))
            # Objects are padded to 8 bytes; the size of the unused rest counts its header already.
            step = 16 + (n_bytes + 7) // 8 * 8 if number else n_bytes
            if step < 16 or at + step > size:
                raise ValueError(f"heap of texts at byte {address}: object {number} has {n_bytes} bytes")
            at += step
        self._checked.add(address)

    def _header(self, address: int) -> bytes:
        self._file.seek(address)
        header = self._file.read(16)
        if len(header) < 16:
            raise ValueError(f"heap of texts at byte {address}: ends early")
        return header
