"""Covariances in safetensors files: tensors, and a tree of types as JSON. Nothing is ever unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neurovar.covariance._base import Covariance
from neurovar.covariance._dense import Dense
from neurovar.covariance._diagonal import Diagonal
from neurovar.covariance._gain import GainModulated
from neurovar.covariance._kronecker import Kronecker
from neurovar.covariance._low_rank import LowRankPlusDiagonal
from neurovar.covariance._sum import MeanShift, Sum

TYPES = (Diagonal, Dense, LowRankPlusDiagonal, Kronecker, GainModulated, Sum, MeanShift)
KINDS: dict[str, type[Covariance]] = {kind.__name__: kind for kind in TYPES}
VERSION = 1
MAX_DEPTH = 8
"""Types within types that a file may hold."""


def save(noise: Covariance, path: str | Path) -> None:
    """Write what `load` reads."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in _named_tensors(noise).items():
        kept = tensor.detach().cpu().contiguous()
        address = kept.untyped_storage().data_ptr()
        tensors[name] = kept.clone() if address in seen else kept  # safetensors refuses shared memory
        seen.add(address)
    write(tensors, path, {"neurovar": json.dumps(_tree(noise) | {"version": VERSION})})


def write(tensors: dict[str, Tensor], path: str | Path, header: dict[str, str]) -> None:
    """A safetensors file.

    Raises
    ------
    ValueError : if there is no such folder.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise ValueError(f"{path}: expected an existing folder to write into, got {folder}")
    save_file(tensors, path, metadata=header)


def _named_tensors(noise: Covariance) -> dict[str, Tensor]:
    nested = {
        f"{name}.{inner}": tensor
        for name, part in noise._parts().items()
        for inner, tensor in _named_tensors(part).items()
    }
    return noise._tensors() | nested


def _tree(noise: Covariance) -> dict[str, Any]:
    parts = {name: _tree(part) for name, part in noise._parts().items()}
    return {"kind": type(noise).__name__} | ({"parts": parts} if parts else {})


def load(path: str | Path) -> Covariance:
    """Read what `Covariance.save` wrote; never unpickles.

    Raises
    ------
    ValueError : if the file is missing, not safetensors, or holds no covariance.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected a covariance file, found none at {path}")
    try:
        return _built(*read(path, "neurovar", version=VERSION), MAX_DEPTH)
    except Exception as error:
        raise ValueError(f"expected a covariance saved by neurovar, could not read {path}: {error}") from error


def read(
    path: str | Path, name: str, *, version: int, device: str | torch.device = "cpu"
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON that stands under a name in the header of a safetensors file, and the tensors.

    Raises
    ------
    ValueError : for JSON of another version.
    """
    with safe_open(path, framework="pt", device=str(device)) as file:
        header = json.loads((file.metadata() or {}).get(name, "{}"))
        tensors = {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118
    if header.get("version", version) != version:
        raise ValueError(f"expected version {version}, got {header['version']}")
    return header, tensors


def _built(tree: Mapping[str, Any], tensors: Mapping[str, Tensor], depth: int) -> Covariance:
    if depth == 0:
        raise ValueError(f"expected at most {MAX_DEPTH} types within each other, got more")
    kind = KINDS[tree["kind"]]
    own = {name: tensor for name, tensor in tensors.items() if "." not in name}
    nested: dict[str, dict[str, Tensor]] = {name: {} for name in tree.get("parts", {})}
    for name in tensors.keys() - own.keys():
        part, _, inner = name.partition(".")
        nested[part][inner] = tensors[name]
    parts = {name: _built(subtree, nested[name], depth - 1) for name, subtree in tree.get("parts", {}).items()}
    return kind._assemble(own, parts)
