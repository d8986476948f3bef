"""Tensors with a JSON header in safetensors files: nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path, *, name: str, header: Mapping[str, Any]) -> None:
    """Write a safetensors file of named tensors and one JSON object.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        On any device, with or without gradients; written as they are, without gradients.
    path : str or pathlib.Path
        The file, in a folder that exists.
    name : str
        What the JSON stands under in the file's metadata: it says which kind of file this is.
    header : mapping of str to JSON values
        With its `version`, which `read_tensors` compares.

    Raises
    ------
    ValueError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors({"a": torch.ones(2)}, folder + "/file", name="mine", header={"version": 1, "of": "ones"})
    ...     with read_tensors(folder + "/file", "a file of mine", name="mine", version=1) as (header, tensors):
    ...         print(header["of"], tensors["a"])
    ones tensor([1., 1.])
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise ValueError(f"{path}: expected an existing folder to write into, got {folder}")
    written: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for key, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory, as views of one another or one tensor in two parts do.
        written[key] = plain.clone() if address in addresses else plain
        addresses.add(address)
    save_file(written, path, metadata={name: json.dumps(header)})


@contextmanager
def read_tensors(
    path: str | Path, what: str, *, name: str, version: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Within this context, the JSON object and the tensors that `write_tensors` wrote.

    A file may come from anyone: whatever goes wrong within the context, in reading or in building from what was read,
    is raised as one `ValueError` that names the file.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    what : str
        What the file should hold, for the message, such as "a covariance".
    name : str
        What the JSON stands under in the file's metadata.
    version : int
        The version of the header that the caller can read; a header without one is of the first.
    device : str or torch.device, optional
        Where the tensors are put.

    Yields
    ------
    header : dict
        The JSON object; empty where the file has none of that name.
    tensors : dict of str to torch.Tensor
        By the names under which they were written.

    Raises
    ------
    ValueError
        If there is no such file, it is not safetensors, or of another version, or anything fails within the context.

    Examples
    --------
    >>> with read_tensors("nowhere", "a covariance", name="neurovar", version=1) as (header, tensors):
    ...     pass
    Traceback (most recent call last):
    ValueError: expected a covariance saved by neurovar, found no file at nowhere
    """
    if not Path(path).is_file():
        raise ValueError(f"expected {what} saved by neurovar, found no file at {path}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get(name, "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if header.get("version", version) != version:
            raise ValueError(f"expected version {version}, got {header['version']}")
        yield header, tensors
    except Exception as error:  # RecursionError of nested JSON, MemoryError, whatever a broken file can cause
        raise ValueError(f"expected {what} saved by neurovar, could not read {path}: {error!r}") from error
