"""Some fields of a MATLAB struct, each read once: scipy copies it once more, and reads all other fields too.

The layout is that of "MAT-File Format" (MathWorks), level 5.
"""

import io
import math
import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from neurovar_datasets._reading import mat as _mat
from neurovar_datasets._reading.refusals import expect, reading, size_limit

# mxDOUBLE_CLASS is 6, then single, then int8 to uint64, which is 15; characters (4) and sparse (5)
# are no numbers.
NUMERIC = range(6, 16)  # double, single and the integers, signed and unsigned
# miINT8 to miUINT64. MATLAB stores a double array of small whole numbers in a smaller type, so the
# type of the element, not the class of the array, says how to read it.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TAG_BYTES = 8
HEAD = 56  # bytes of a matrix until its numbers, if it has two dims and no name
LARGE = 1 << 20  # bytes that are faster to read than to map


def struct_fields(path: Path, variable: str, names: Collection[str]) -> dict[str, list[np.ndarray]]:
    """These fields of a struct array, real numbers, as far as it has them: a list with an array of each element.

    The arrays are in Fortran order, of the type in which the file stores them, and some are read-only.
    """
    with reading(path, variable):
        place = _place(path, variable)
        header = place.header()
        expect(header.kind == _mat.STRUCT, path, variable, "a struct", f"an array of class {header.kind}")
        present = _field_names(place)
        # Every field of every element has at least a tag. A header that claims a billion elements
        # is refused before the loop.
        n_bytes = header.n_values * max(len(present), 1) * TAG_BYTES
        expect(n_bytes <= len(place.content), path, variable, f"at least {n_bytes} bytes", len(place.content))
        fields: dict[str, list[np.ndarray]] = {name: [] for name in present if name in names}
        # A struct array has some ten thousand elements with the same few layouts, so that
        # almost all headers need not be parsed.
        layouts: dict[bytes, _Layout] = {}
        for _ in range(header.n_values):
            for name in present:
                (n_bytes,) = struct.unpack_from(f"{place.order}I", place.content, place.at + 4)
                following = place.at + TAG_BYTES + n_bytes
                if name in fields:
                    fields[name].append(_numbers(path, f"{variable}.{name}", place, layouts))
                place.at = following
        return fields


def _place(path: Path, variable: str) -> _mat._Place:
    """Where a variable begins, in the file or, if it is compressed, in a copy."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    order = "<" if content[_mat.HEADER - 2 : _mat.HEADER] == b"IM" else ">"
    variables = [candidate for candidate in _mat._variables(content, order) if candidate.name == variable]
    expect(len(variables) == 1, path, variable, "one variable of this name", len(variables))
    if not variables[0].compressed:
        return _mat._Place(content, order, variables[0].start)
    unpacked, limit = io.BytesIO(), size_limit(len(content))
    for block in _mat._blocks(content, variables[0]):
        unpacked.write(block)
        expect(unpacked.tell() <= limit, path, variable, f"at most {limit} bytes when unpacked", "more")
    return _mat._Place(unpacked.getbuffer(), order, 0)


def _field_names(place: _mat._Place) -> list[str]:
    (length,) = place._integers()
    texts = place._data()
    return [texts[at : at + length].split(b"\0")[0].decode("latin1") for at in range(0, len(texts), length)]


@dataclass(frozen=True)
class _Layout:
    """Where the numbers of a matrix begin, from its own beginning, and what they are."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


def _numbers(path: Path, field: str, place: _mat._Place, layouts: dict[bytes, _Layout]) -> np.ndarray:
    """The matrix at a place; those that begin with the same bytes have the same layout, found once."""
    at = place.at
    head = bytes(place.content[at : at + HEAD])
    layout = layouts.get(head) or _layout(path, field, place)
    if layout.offset <= HEAD:
        layouts[head] = layout
    count, offset = math.prod(layout.shape), at + layout.offset
    # A read of the whole array is one transfer; a map would fault it in page by page.
    if isinstance(place.content, mmap.mmap) and count * layout.dtype.itemsize > LARGE:
        return np.fromfile(path, layout.dtype, count, offset=offset).reshape(layout.shape, order="F")
    return np.ndarray(layout.shape, layout.dtype, buffer=place.content, offset=offset, order="F")


def _layout(path: Path, field: str, place: _mat._Place) -> _Layout:
    at = place.at
    kind, n_bytes = struct.unpack_from(f"{place.order}II", place.content, at)
    expect(kind == _mat.MATRIX, path, field, "a matrix", f"an element of type {kind}")
    if n_bytes == 0:
        return _Layout(TAG_BYTES, np.dtype(np.float64), (0, 0))
    (flags,) = struct.unpack_from(f"{place.order}I", place.content, at + 16)
    real = flags & 0xFF in NUMERIC and not flags & _mat.COMPLEX
    expect(real, path, field, "real numbers", f"class {flags & 0xFF}")
    place.at += 24
    shape = place._integers()
    place._data()  # the name
    (kind,) = struct.unpack_from(f"{place.order}I", place.content, place.at)
    dtype = np.dtype(place.order + TYPES[kind & 0xFFFF])
    start, stop = place._element()
    stored, needed = stop - start, math.prod(shape) * dtype.itemsize
    # np.ndarray on a buffer that is longer than its shape would silently take the first values for
    # all.
    expect(stored == needed, path, field, f"the {needed} bytes of shape {shape}", f"{stored} bytes")
    return _Layout(start - at, dtype, shape)
