"""What a layer gives, and where its images are."""

from typing import Any

import torch
from torch import Tensor, nn

SEQUENCE_LAYERS = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
"""PyTorch's layers whose batch is their second dimension unless they say `batch_first`."""


def activation(output: object, name: str) -> Tensor:
    """The tensor that gets the noise: the output, or the first item of a tuple."""
    first = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.ndim:
        got = f"{first.dtype} {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"expected a floating tensor from layer {name!r}, or first in a tuple, got {got}")
    return first


def with_activation(output: object, changed: Tensor) -> object:
    """The output with another tensor in the place of its activation."""
    if not isinstance(output, tuple):
        return changed
    return getattr(type(output), "_make", type(output))((changed, *output[1:]))  # a named tuple stays one


def batch_axis(module: nn.Module, output: Tensor, name: str) -> int:
    """The dimension of a layer's output that counts the images."""
    if not isinstance(module, SEQUENCE_LAYERS):
        return 0
    if output.ndim != 3:
        shape = tuple(output.shape)
        raise ValueError(f"expected a batch of sequences from layer {name!r}, three dimensions, got {shape}")
    return 0 if next(part.batch_first for part in module.modules() if hasattr(part, "batch_first")) else 1


def repeated(module: nn.Module, output: Any, draws: int, name: str) -> Any:
    """The output for `draws` copies of the batch, one after the other."""
    first = activation(output, name)
    changed = with_activation(output, torch.cat([first] * draws, dim=batch_axis(module, first, name)))
    if not isinstance(changed, tuple):
        return changed
    if isinstance(module, nn.RNNBase):
        return (changed[0], _repeated_states(changed[1], draws))
    if any(item is not None for item in changed[1:]):
        raise ValueError(
            f"expected layer {name!r} to give one tensor where {draws} draws begin, got a tuple, whose other items "
            "may count the images along any dimension; choose a layer inside it or draws=1"
        )
    return changed


def _repeated_states(states: Any, draws: int) -> Any:
    """The last states of a recurrent layer, (layer, batch, feature)."""
    if isinstance(states, tuple):
        return tuple(_repeated_states(state, draws) for state in states)
    return torch.cat([states] * draws, dim=1)
