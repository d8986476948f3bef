"""Which units of a layer are kept, and where in the layer they are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurovar._values import Value

POSITIONS = ("channel", "row", "column", "token")
# Of an output for one stimulus, by its number of axes: linear layers, transformers, convolutions.
USUAL_AXES = {1: ("channel",), 2: ("token", "channel"), 3: ("channel", "row", "column")}


@dataclass(frozen=True)
class Layer(Value):
    """A layer to record, and what of it to keep; a layer's name alone keeps every unit.

    Parameters
    ----------
    name : str
        As in `model.named_modules()`; `layers` lists them.
    max_units : int, optional
        Keep this many units (after pooling), drawn at random without replacement.
    pool_space : bool, optional
        Take the mean over all axes but the channel.
    axes : tuple of str, optional
        What the axes after the batch are ("channel", "row", "column", "token"), where they are not the usual:
        (channel, row, column), (token, channel) or (channel). Layers with the channel last, as in Swin transformers,
        are ("row", "column", "channel"); of a one-dimensional convolution ("channel", "column").

    Raises
    ------
    ValueError
        For fewer than 1 unit, or axes of other names, without a channel, or with one twice.

    Examples
    --------
    >>> str(Layer("features.3", max_units=1000))
    "Layer(name='features.3', max_units=1000)"
    """

    name: str
    max_units: int | None = None
    pool_space: bool = False
    axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = tuple(self.axes)
        object.__setattr__(self, "axes", names)
        if self.max_units is not None and self.max_units < 1:
            raise ValueError(f"expected max_units of at least 1, got {self.max_units}")
        if names and ("channel" not in names or len(set(names)) < len(names) or not set(names) <= set(POSITIONS)):
            raise ValueError(
                f"expected the axes of layer {self.name!r} to be 'channel' and some of {POSITIONS[1:]}, each once, "
                f"got {names}"
            )

    def named_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """What the axes of an output of this shape, for one stimulus, are.

        Parameters
        ----------
        shape : tuple of int
            Of one to three axes.

        Returns
        -------
        tuple of str
            The axes that were given, or the usual ones.

        Raises
        ------
        ValueError
            If others were given than there are.
        """
        names = self.axes or USUAL_AXES[len(shape)]
        if len(names) != len(shape):
            raise ValueError(f"expected {len(shape)} names for the axes {shape} of layer {self.name!r}, got {names}")
        return names


class Units:
    """Pools layers' outputs over space, and keeps some units of each, drawn when the layer is first seen."""

    def __init__(self, layers: Sequence[str | Layer], rng: np.random.Generator) -> None:
        if isinstance(layers, str) or not layers:
            raise ValueError(f"expected at least one layer, and each once, got {layers!r}")
        given = [Layer(layer) if isinstance(layer, str) else layer for layer in layers]
        self.layers = {layer.name: layer for layer in given}
        if len(self.layers) < len(given):
            raise ValueError(f"expected at least one layer, and each once, got {[layer.name for layer in given]}")
        self.rng = rng
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kept: dict[str, np.ndarray] = {}

    def see(self, name: str, shape: tuple[int, ...]) -> None:
        """Take note of the shape of one output of a layer; raise ValueError if it is not what it was before."""
        if self.shapes.get(name, shape) != shape:
            raise ValueError(f"expected layer {name!r} to give {self.shapes[name]}, as before, got {shape}")
        if name in self.shapes:
            return
        self.shapes[name] = shape
        n, max_units = int(np.prod(self._kept_shape(name))), self.layers[name].max_units
        if max_units is None or max_units >= n:
            self.kept[name] = np.arange(n)
        else:
            self.kept[name] = np.sort(self.rng.choice(n, max_units, replace=False))

    def select(self, name: str, output: Tensor) -> Tensor:
        """The units that are kept, (stimulus, unit), in new memory: a later layer may work in place."""
        self.see(name, tuple(output.shape[1:]))
        dtype = torch.promote_types(output.dtype, torch.float32)  # half precision would lose the mean of many pixels
        axes = self.layers[name].named_axes(self.shapes[name])
        space = [axis for axis, position in enumerate(axes, start=1) if position != "channel"]
        if self.layers[name].pool_space and space:
            output = output.mean(space, dtype=dtype)
        flat, kept = output.flatten(1), self.kept[name]
        if len(kept) < flat.shape[1]:
            flat = flat[:, torch.from_numpy(kept).to(flat.device)]
        selected = flat.to(dtype, copy=True)
        if not torch.isfinite(selected).all():
            raise ValueError(f"expected finite activations of layer {name!r}, got NaN or infinity")
        return selected

    def coords(self) -> dict[str, tuple[str, np.ndarray]]:
        """Layer and position of each unit; 0 along the axes that a layer does not have."""
        layer = np.concatenate([np.repeat(name, len(kept)) for name, kept in self.kept.items()])
        positions = [dict(zip(self._kept_axes(name), self._unravelled(name))) for name in self.kept]
        has_tokens = any("token" in position for position in positions)
        named = {
            axis: (
                "unit",
                np.concatenate([position.get(axis, np.zeros_like(position["channel"])) for position in positions]),
            )
            for axis in POSITIONS
            if axis != "token" or has_tokens
        }
        return {"layer": ("unit", layer), **named}

    def _kept_axes(self, name: str) -> tuple[str, ...]:
        return ("channel",) if self.layers[name].pool_space else self.layers[name].named_axes(self.shapes[name])

    def _kept_shape(self, name: str) -> tuple[int, ...]:
        sizes = dict(zip(self.layers[name].named_axes(self.shapes[name]), self.shapes[name]))
        return tuple(sizes[axis] for axis in self._kept_axes(name))

    def _unravelled(self, name: str) -> tuple[np.ndarray, ...]:
        return np.unravel_index(self.kept[name], self._kept_shape(name))
