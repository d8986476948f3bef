"""Look through a MATLAB file of version 5 to 7 before scipy reads it.

`scipy.io.loadmat` unpacks without limit, follows cells within cells until its stack overflows, and crashes on unknown
types of data and on texts without dims. The layout is that of "MAT-File Format" (MathWorks): elements of a tag (type,
number of bytes) and data, padded to 8 bytes.
"""

import io
import math
import mmap
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from neurovar_datasets._fetching.source import AnyPath
from neurovar_datasets._reading.refusals import expect, reading, size_limit

# Of a level-5 file: 116 bytes of text, 8 of subsystem offset, 2 of version, then "IM" or "MI", the
# byte order.
HEADER = 128
HEAD = 1 << 12  # bytes of a variable that have its name
BLOCK = 1 << 17  # larger ones are slower to allocate
# The types of elements that stand at the top of a file: miMATRIX and miCOMPRESSED of "MAT-File
# Format", table 1-1.
MATRIX, COMPRESSED = 14, 15
# Array classes, the lowest byte of the array flags (mxCELL_CLASS and so on). 16 and 17, function
# handles and new objects, are not in the published table: they are the numbers that scipy.io.matlab
# uses.
CELL, STRUCT, OBJECT, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 5, 16, 17
# A flag of the second byte of the array flags: a second element with the imaginary parts follows.
COMPLEX = 1 << 11
DATA_TYPES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}  # integers, floats, UTF
# Values are counted as doubles, which is the most that loadmat makes of a number, whatever type it
# was stored in.
ITEM_BYTES = 8
# loadmat calls itself for each level of cells; at some thousand levels the C stack overflows and
# Python dies with it.
MAX_DEPTH = 100
# An empty cell takes 8 bytes in a file but a Python object of over 100 in memory, so cells are
# counted, not only bytes.
MAX_CELLS = 1 << 19
MAX_FIELDS = 1 << 12

Content = mmap.mmap | bytes | memoryview


@dataclass(frozen=True)
class _Variable:
    """A variable of a file: the tag is at `start`, the data end at `stop`."""

    name: str
    compressed: bool
    start: int
    stop: int


def vetted(path: Path, names: Collection[str], limit: int) -> str | io.BytesIO:
    """What loadmat can read these variables from: the file, or a copy in which they are unpacked.

    Raises
    ------
    CorruptDataError : if a variable takes more than `limit` bytes, or has too many or too deeply nested cells.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # A level-5 file begins with text, so none of its first four bytes is 0; that is how the
        # format tells the two apart.
        if 0 in content[:4]:
            return str(path)  # version 4 neither compresses nor nests
        # The writer stores the 16-bit number "MI": read byte by byte, "IM" means little-endian.
        order = "<" if content[HEADER - 2 : HEADER] == b"IM" else ">"
        wanted = [variable for variable in _variables(content, order) if variable.name in names]
        if any(variable.compressed for variable in wanted):
            return _unpacked(path, content, order, wanted, limit)
        for variable in wanted:
            _follow(_Place(content, order, variable.start), path, variable.name, limit)
    return str(path)


def _variables(content: Content, order: str) -> Iterator[_Variable]:
    start = HEADER
    while start + 8 <= len(content):
        kind, n_bytes = struct.unpack_from(f"{order}II", content, start)
        if kind not in (MATRIX, COMPRESSED):
            return
        stop = start + 8 + n_bytes
        head = content[start : min(stop, start + HEAD)]
        if kind == COMPRESSED:
            # The name stands in the first few dozen bytes: unpacking only these lets other
            # variables of the file be of any size.
            head = zlib.decompressobj().decompress(head[8:], HEAD)
        yield _Variable(_Place(head, order, 0).header().name, kind == COMPRESSED, start, stop)
        start = stop


def _unpacked(path: Path, content: Content, order: str, variables: list[_Variable], limit: int) -> io.BytesIO:
    copy = io.BytesIO()
    copy.write(content[:HEADER])
    for variable in variables:
        start = copy.tell()
        with reading(path, variable.name):
            for block in _blocks(content, variable):
                copy.write(block)
                small = copy.tell() <= limit
                expect(small, path, variable.name, f"at most {limit} bytes when unpacked", "more")
        with copy.getbuffer() as unpacked:
            # The length inside of the compressed element is the writer's claim; loadmat must see
            # what really came.
            struct.pack_into(f"{order}I", unpacked, start + 4, len(unpacked) - start - 8)
            _follow(_Place(unpacked, order, start), path, variable.name, limit)
    copy.seek(0)
    return copy


def _blocks(content: Content, variable: _Variable) -> Iterator[bytes]:
    if not variable.compressed:
        yield bytes(content[variable.start : variable.stop])
        return
    unpacker = zlib.decompressobj()
    for at in range(variable.start + 8, variable.stop, BLOCK):
        packed = content[at : min(at + BLOCK, variable.stop)]
        while packed:
            yield unpacker.decompress(packed, BLOCK)
            # A bounded `decompress` keeps what it has not read yet; without this loop the rest of
            # the block would be lost.
            packed = unpacker.unconsumed_tail
    yield unpacker.flush()


def _follow(place: "_Place", path: Path, name: str, limit: int) -> None:
    """Go through a variable as loadmat will, whatever lengths the elements declare for what is inside of them."""
    # A list in place of recursion: this walk must not overflow on the very files that it is there
    # to refuse.
    to_come, n_cells, n_values = [1], 0, 0  # matrices to come at each depth
    with reading(path, name):
        while to_come and n_cells <= MAX_CELLS and n_values * ITEM_BYTES <= limit and len(to_come) <= MAX_DEPTH:
            to_come[-1] -= 1
            n_inside, n_here = place.skip_matrix()
            n_cells += n_inside
            n_values += n_here
            to_come.append(n_inside)
            while to_come and not to_come[-1]:
                to_come.pop()
    expect(n_cells <= MAX_CELLS, path, name, f"at most {MAX_CELLS} cells and fields", n_cells)
    expect(n_values * ITEM_BYTES <= limit, path, name, f"at most {limit} bytes", f"{n_values} values")
    expect(not to_come, path, name, f"cells nested at most {MAX_DEPTH} deep", "more")


class _Header(NamedTuple):
    kind: int
    is_complex: bool
    n_values: int
    name: str


@dataclass
class _Place:
    """A place in the content of a file, which moves on with all that is read there."""

    content: Content
    order: str
    at: int

    def skip_matrix(self) -> tuple[int, int]:
        """How many matrices are inside of the one here, and how many values; go to the first, or past the values."""
        kind, n_bytes = struct.unpack_from(f"{self.order}II", self.content, self.at)
        if kind != MATRIX:
            raise ValueError(f"expected a matrix at byte {self.at}, got an element of type {kind}")
        # An empty matrix may be a tag alone, as MATLAB writes cells that were never set: there is
        # no header to read.
        if n_bytes == 0:
            self.at += 8
            return 0, 0
        header = self.header()
        if header.kind in (FUNCTION, OPAQUE):
            self._elements(2 if header.kind == OPAQUE else 0)
            return 1, 0
        if header.kind in (STRUCT, OBJECT):
            self._elements(1 if header.kind == OBJECT else 0)
            return header.n_values * self._n_fields(), header.n_values
        if header.kind == CELL:
            return header.n_values, 0
        # A sparse matrix has rows, column starts and values; any other array one element; complex
        # ones one more.
        self._elements((3 if header.kind == SPARSE else 1) + header.is_complex)
        return 0, header.n_values

    def header(self) -> _Header:
        """What the header of the matrix here says."""
        # Past the tag of the matrix (8 bytes) and the tag of the flags (8); the flags themselves
        # take 8 more.
        (flags,) = struct.unpack_from(f"{self.order}I", self.content, self.at + 16)
        self.at += 24
        shape = (1, 1) if flags & 0xFF == OPAQUE else self._integers()
        # scipy indexes the shape unchecked: a text without dims ends the process, a negative dim
        # asks for a huge array.
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"expected a shape of two dims or more, got {shape}")
        name = self._data().decode("latin1")
        return _Header(flags & 0xFF, bool(flags & COMPLEX), math.prod(shape), name)

    def _n_fields(self) -> int:
        (name_length,) = self._integers()
        n_fields = len(self._data()) // name_length
        if not 0 <= n_fields <= MAX_FIELDS:
            raise ValueError(f"expected at most {MAX_FIELDS} fields of a struct, got {n_fields}")
        return n_fields

    def _integers(self) -> tuple[int, ...]:
        data = self._data()
        return struct.unpack(f"{self.order}{len(data) // 4}i", data)

    def _elements(self, number: int) -> None:
        for _ in range(number):
            self._element()

    def _data(self) -> bytes:
        start, stop = self._element()
        return bytes(self.content[start:stop])

    def _element(self) -> tuple[int, int]:
        """Where the data of the element here start and stop."""
        kind, n_bytes = struct.unpack_from(f"{self.order}II", self.content, self.at)
        # scipy looks the type up in a C table without bounds: an unknown one reads memory that is
        # not its own.
        if kind & 0xFFFF not in DATA_TYPES:
            raise ValueError(f"expected data at byte {self.at}, got an element of type {kind & 0xFFFF}")
        self.at += 8
        if kind >> 16:  # a small element: length and type share the first half of the tag, the data are in the second
            return self.at - 4, self.at - 4 + (kind >> 16)
        start, stop = self.at, self.at + n_bytes
        if stop > len(self.content):
            raise ValueError(f"expected data until byte {stop}, got {len(self.content)} bytes")
        self.at = stop + -n_bytes % 8
        return start, stop


def mat(path: AnyPath, names: Sequence[str]) -> dict[str, Any]:
    """The variables of these names from a MATLAB file of version 4 to 7, as `scipy.io.loadmat` gives them."""
    from scipy.io import loadmat

    with reading(path, ", ".join(names)):
        source = vetted(Path(path), names, size_limit(Path(path).stat().st_size))
        content = loadmat(source, variable_names=list(names))
    missing = [name for name in names if name not in content]
    expect(not missing, path, ", ".join(missing), "a variable of this name", "none")
    return content


def struct_field(path: AnyPath, structure: np.ndarray, name: str) -> np.ndarray:
    """The field of a MATLAB struct of size 1 × 1."""
    fields = structure.dtype.names or ()
    expect(name in fields, path, name, "a field of this name", f"fields {list(fields)[:20]}")
    expect(structure.size == 1, path, name, "a struct of size 1 × 1", f"shape {structure.shape}")
    return np.asarray(structure.ravel()[0][name])
