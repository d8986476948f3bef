"""The batch repeated where several draws begin."""

from typing import Any

import torch
from torch import nn

from neurovar.networks._layers import batch_axis, layer_activation, with_activation


def repeated(module: nn.Module, output: Any, draws: int, name: str) -> Any:
    """The layer's output for `draws` copies of the batch, one copy after the other."""
    first = layer_activation(output, name)
    changed = with_activation(output, torch.cat([first] * draws, dim=batch_axis(module, first, name)))
    if not isinstance(changed, tuple):
        return changed
    if isinstance(module, nn.RNNBase):
        return (changed[0], _repeated_states(changed[1], draws))
    # of other tuples nobody says which dimension of their other items counts the images
    if any(item is not None for item in changed[1:]):
        raise ValueError(
            f"expected layer {name!r} to give one tensor where {draws} draws begin, got a tuple, whose other items "
            "may count the images along any dimension; choose a layer inside it or draws=1"
        )
    return changed


def _repeated_states(states: Any, draws: int) -> Any:
    """The last states of a recurrent layer, (layer, batch, feature), of which an LSTM has a tuple."""
    if isinstance(states, tuple):
        return tuple(_repeated_states(state, draws) for state in states)
    return torch.cat([states] * draws, dim=1)
