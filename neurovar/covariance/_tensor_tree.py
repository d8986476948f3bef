"""What is made of tensors, and of others such: moved, named and saved as a whole."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from neurovar.covariance._safetensors import write_tensors

# Of the header of files.
VERSION = 1


@dataclass(frozen=True, eq=False)
class TensorTree:
    """A frozen dataclass whose fields are tensors, or parts that are such dataclasses themselves."""

    def _parts(self) -> dict[str, Any]:
        """The others that this one is made of, by name."""
        return {}

    @classmethod
    def _assemble(cls, tensors: dict[str, Tensor], parts: dict[str, Any]) -> Self:
        """One of this type from its tensors and parts."""
        return cls(**tensors, **parts)

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of all tensors."""
        return self._first().dtype

    @property
    def device(self) -> torch.device:
        """Where all tensors are."""
        return self._first().device

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Self:
        """The same covariance on another device, or in the other of float32 and float64."""
        return self._changed(lambda tensor: tensor.to(device=device, dtype=dtype))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors = {name: change(tensor) for name, tensor in self._tensors().items()}
        return self._assemble(tensors, {name: part._changed(change) for name, part in self._parts().items()})

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _first(self) -> Tensor:
        for tensor in self._tensors().values():
            return tensor
        first: Tensor = next(iter(self._parts().values()))._first()
        return first

    def tree(self) -> dict[str, Any]:
        """The types that it is made of, as JSON has them: what `from_tree` needs beside `named_tensors`.

        Examples
        --------
        >>> from neurovar.covariance import Diagonal, Kronecker
        >>> Kronecker(Diagonal.isotropic(2), Diagonal.isotropic(3)).tree()
        {'kind': 'Kronecker', 'parts': {'channel': {'kind': 'Diagonal'}, 'space': {'kind': 'Diagonal'}}}
        """
        parts = {name: part.tree() for name, part in self._parts().items()}
        return {"kind": type(self).__name__} | ({"parts": parts} if parts else {})

    def named_tensors(self) -> dict[str, Tensor]:
        """All tensors, its own by the names of their fields, those of parts as "part.field"."""
        inner = {
            f"{name}.{key}": tensor
            for name, part in self._parts().items()
            for key, tensor in part.named_tensors().items()
        }
        return self._tensors() | inner

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, which `load` reads: the tensors, and the types as JSON.

        Raises
        ------
        ValueError
            If there is no such folder.
        """
        header = self.tree() | {"version": VERSION}
        write_tensors(self.named_tensors(), path, name="neurovar", header=header)

    @property
    def trainable(self) -> bool:
        """Whether gradients flow into any of its tensors."""
        return any(tensor.requires_grad for tensor in self.named_tensors().values())
