"""Ways to spoil a file: its bytes, what its fields hold, or what its archive holds."""

import copy
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator


def spoil_bytes(data: bytes, rng: Rng) -> bytes:
    """One to three of the changes that disks, networks and attackers make."""
    for _ in range(rng.integers(1, 4)):
        data = BYTE_CHANGES[rng.integers(len(BYTE_CHANGES))](data, rng)
    return data


def _flip(data: bytes, rng: Rng) -> bytes:
    spoiled = np.frombuffer(data, np.uint8).copy()
    for at in rng.integers(0, max(len(spoiled), 1), rng.integers(1, 17))[: len(spoiled)]:
        spoiled[at] ^= 1 << rng.integers(8)
    return spoiled.tobytes()


def _truncate(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(0, len(data) + 1)]


def _overwrite(data: bytes, rng: Rng) -> bytes:
    start, length = _run(data, rng)
    kind = rng.integers(3)
    run = rng.bytes(length) if kind == 0 else (b"\x00" if kind == 1 else b"\xff") * length
    return data[:start] + run + data[start + length :]


def _insert(data: bytes, rng: Rng) -> bytes:
    start, length = _run(data, rng)
    return data[:start] + data[start : start + length] + data[start:]


def _remove(data: bytes, rng: Rng) -> bytes:
    start, length = _run(data, rng)
    return data[:start] + data[start + length :]


def _flip_early(data: bytes, rng: Rng) -> bytes:
    """Headers stand first and say the most."""
    head = int(rng.integers(8, 1024))
    return _flip(data[:head], rng) + data[head:]


def _run(data: bytes, rng: Rng) -> tuple[int, int]:
    length = int(min(len(data), 2 ** rng.integers(0, 10)))
    return int(rng.integers(0, len(data) - length + 1)), length


BYTE_CHANGES: tuple[Callable[[bytes, Rng], bytes], ...] = (_flip, _flip_early, _truncate, _overwrite, _insert, _remove)


def spoil_content(content: dict, rng: Rng) -> dict:
    """The fields with one of them gone, of another form, or with values that cannot be."""
    spoiled = copy.deepcopy(content)
    for _ in range(rng.integers(1, 3)):
        places = _leaves(spoiled)
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        if rng.random() < 0.15:
            holder.pop(key)
        else:
            holder[key] = _spoil_value(holder[key], rng)
    return spoiled


def _leaves(holder: Any) -> list[tuple[Any, Any]]:
    items = holder.items() if isinstance(holder, dict) else enumerate(holder)
    found = []
    for key, value in items:
        found.append((holder, key))
        if isinstance(value, dict | list):
            found += _leaves(value)
    return found


def _spoil_value(value: Any, rng: Rng) -> Any:
    if isinstance(value, dict | list) or rng.random() < 0.15:
        return REPLACEMENTS[rng.integers(len(REPLACEMENTS))]()
    array = np.array(value)
    changes = ARRAY_CHANGES if array.dtype.kind in "biuf" and array.size else SHAPE_CHANGES
    return changes[rng.integers(len(changes))](array, rng)


REPLACEMENTS: tuple[Callable[[], Any], ...] = (
    lambda: np.array(np.nan),
    lambda: np.zeros((0, 0)),
    lambda: np.zeros(3, dtype=np.complex128),
    lambda: "text where numbers should be",
    lambda: np.array(["a", "b"]),
    lambda: np.array([None, {"an": "object"}], dtype=object),
    lambda: np.zeros((2, 2, 2, 2)),
    lambda: np.array(-1),
    lambda: np.array(2**62),
)


def _with_values(*values: float) -> Callable[[np.ndarray, Rng], np.ndarray]:
    def change(array: np.ndarray, rng: Rng) -> np.ndarray:
        changed = array.astype(np.float64) if not all(float(v).is_integer() for v in values) else array.copy()
        at = rng.integers(0, changed.size, rng.integers(1, 4))
        with np.errstate(all="ignore"):
            changed.reshape(-1)[at] = np.array(rng.choice(values)).astype(changed.dtype)
        return changed

    return change


def _retype(array: np.ndarray, rng: Rng) -> np.ndarray:
    kinds = ("int8", "uint16", "float16", "float32", "float64", "complex64", "bool", "U8", ">f8", "int64")
    with np.errstate(all="ignore"):
        return array.astype(rng.choice(kinds))


def _shorten(array: np.ndarray, rng: Rng) -> np.ndarray:
    if not array.ndim:
        return array[None]
    axis = int(rng.integers(array.ndim))
    return np.take(array, np.arange(rng.integers(0, array.shape[axis] + 1)), axis=axis)


def _lengthen(array: np.ndarray, rng: Rng) -> np.ndarray:
    return np.concatenate([array, array], axis=int(rng.integers(array.ndim))) if array.ndim else np.array([array] * 2)


def _reshape(array: np.ndarray, rng: Rng) -> np.ndarray:
    forms = (array.T, array.reshape(-1), array[None], array[..., None], array.reshape(1, -1), array[::-1].copy())
    return forms[rng.integers(len(forms) if array.ndim else len(forms) - 1)]


def _repeat_entry(array: np.ndarray, rng: Rng) -> np.ndarray:
    changed = array.copy()
    if changed.ndim and len(changed) > 1:
        source, target = rng.integers(0, len(changed), 2)
        changed[target] = changed[source]
    return changed


def _shuffle(array: np.ndarray, rng: Rng) -> np.ndarray:
    return rng.permutation(array) if array.ndim else array


SHAPE_CHANGES = (_shorten, _lengthen, _reshape, _repeat_entry, _shuffle)
ARRAY_CHANGES = (
    *SHAPE_CHANGES,
    _retype,
    _with_values(np.nan),
    _with_values(np.inf, -np.inf),
    _with_values(-1, -1000),
    _with_values(0.5, 1e300),
    _with_values(2**31 - 1, 2**53, 0),
)


def spoil_archive(path: Path, rng: Rng) -> None:
    """Rewrite a zip archive with a member that should not be there, or that is not what it was."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    chosen = names[rng.integers(len(names))]
    kind = rng.integers(6)
    if kind == 0:
        members.pop(chosen)
    elif kind == 1:
        members[f"../{chosen}"] = members[chosen]
    elif kind == 2:
        members[f"/tmp/neurovar-fuzz-escape/{chosen}"] = members.pop(chosen)
    elif kind == 3:
        members[chosen] = spoil_bytes(members[chosen], rng)
    elif kind == 4:
        members[chosen] = _thousandfold(rng)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            if kind == 5 and name == chosen:
                info.external_attr, data = 0o120777 << 16, b"/etc/passwd"
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)


def _thousandfold(rng: Rng) -> bytes:
    """A .npy file of zeros that packs to a thousandth of its size."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(int(rng.integers(1, 40)) << 20, dtype=np.uint8))
    return stream.getvalue()
