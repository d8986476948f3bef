"""Which units of a layer are kept, and where in the layer they are."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

POSITIONS = ("channel", "row", "column", "token")
USUAL_AXES = {1: ("channel",), 2: ("token", "channel"), 3: ("channel", "row", "column")}


class Units:
    """Pools a layer's outputs over space, and keeps some units, drawn when the layer is first seen."""

    def __init__(
        self,
        max_units: int | None,
        rng: np.random.Generator,
        *,
        pool_space: bool = False,
        axes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if max_units is not None and max_units < 1:
            raise ValueError(f"expected max_units of at least 1, got {max_units}")
        self.max_units, self.rng, self.pool_space = max_units, rng, pool_space
        self.axes = {layer: tuple(names) for layer, names in (axes or {}).items()}
        for layer, names in self.axes.items():
            if "channel" not in names or len(set(names)) < len(names) or not set(names) <= set(POSITIONS):
                raise ValueError(
                    f"expected the axes of layer {layer!r} to be 'channel' and some of {POSITIONS[1:]}, each once, "
                    f"got {names}"
                )
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kept: dict[str, np.ndarray] = {}

    def see(self, layer: str, shape: tuple[int, ...]) -> None:
        """Take note of the shape of one output of a layer; raise ValueError if it is not what it was before."""
        if self.shapes.get(layer, shape) != shape:
            raise ValueError(f"expected layer {layer!r} to give {self.shapes[layer]}, as before, got {shape}")
        if layer in self.shapes:
            return
        names = self.axes.get(layer, USUAL_AXES[len(shape)])
        if len(names) != len(shape):
            raise ValueError(f"expected {len(shape)} names for the axes {shape} of layer {layer!r}, got {names}")
        self.axes[layer], self.shapes[layer] = names, shape
        n = shape[names.index("channel")] if self.pool_space else int(np.prod(shape))
        some = self.max_units is not None and self.max_units < n
        self.kept[layer] = np.sort(self.rng.choice(n, self.max_units, replace=False)) if some else np.arange(n)

    def select(self, layer: str, output: Tensor) -> Tensor:
        """The units that are kept, (stimulus, unit), in new memory: a later layer may work in place."""
        self.see(layer, tuple(output.shape[1:]))
        dtype = torch.promote_types(output.dtype, torch.float32)
        space = [axis for axis, name in enumerate(self.axes[layer], start=1) if name != "channel"]
        if self.pool_space and space:
            output = output.mean(space, dtype=dtype)
        flat, kept = output.flatten(1), self.kept[layer]
        if len(kept) < flat.shape[1]:
            flat = flat[:, torch.from_numpy(kept).to(flat.device)]
        selected = flat.to(dtype, copy=True)
        if not torch.isfinite(selected).all():
            raise ValueError(f"expected finite activations of layer {layer!r}, got NaN or infinity")
        return selected

    def coords(self) -> dict[str, tuple[str, np.ndarray]]:
        """Layer and position of each unit; 0 along the axes that a layer does not have."""
        layer = np.concatenate([np.repeat(layer, len(kept)) for layer, kept in self.kept.items()])
        positions = [self._positions(name) for name in self.kept]
        named = {
            name: ("unit", np.concatenate([one[name] for one in positions]))
            for name in POSITIONS
            if name != "token" or any("token" in axes for axes in self._kept_axes())
        }
        return {"layer": ("unit", layer), **named}

    def _kept_axes(self) -> list[tuple[str, ...]]:
        return [("channel",) if self.pool_space else self.axes[layer] for layer in self.kept]

    def _positions(self, layer: str) -> dict[str, np.ndarray]:
        kept, names, shape = self.kept[layer], self.axes[layer], self.shapes[layer]
        if self.pool_space:
            names, shape = ("channel",), (shape[names.index("channel")],)
        along = dict(zip(names, np.unravel_index(kept, shape)))
        return {name: along.get(name, np.zeros_like(kept)) for name in POSITIONS}
