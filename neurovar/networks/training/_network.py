"""The small network, and networks cut in two at a layer."""

import copy
from collections import OrderedDict

import numpy as np
from torch import nn

from neurovar.networks._layers import find_layers
from neurovar.networks._randomness import seeded


def small_network(*, rng: np.random.Generator | int) -> nn.Sequential:
    """The network of Preble et al. 2026: three convolutional and three linear layers, tanh; for 28 × 28 grey images.

    Its layers are named "layer0" to "layer5"; the outputs of "layer0" to "layer4" have 1176, 3136, 400, 32 and 16
    units, after non-linearity and pooling. Initialised by PyTorch's defaults.

    Parameters
    ----------
    rng : numpy.random.Generator or int
        Draws the initial weights.

    Returns
    -------
    torch.nn.Sequential
        Images (batch, 1, 28, 28) → logits (batch, 10), in training mode.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> import torch
    >>> small_network(rng=0)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    with seeded(initialisation_seed(rng)):
        blocks = [
            nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.Tanh()),
            nn.Sequential(nn.Conv2d(16, 16, 5), nn.Tanh(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Flatten(), nn.Linear(400, 32), nn.Tanh()),
            nn.Sequential(nn.Linear(32, 16), nn.Tanh()),
            nn.Linear(16, 10),
        ]
    return nn.Sequential(OrderedDict((f"layer{i}", block) for i, block in enumerate(blocks)))


def initialisation_seed(rng: np.random.Generator | int) -> int:
    return int(np.random.default_rng(rng).integers(2**63))


def halves(model: nn.Sequential, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """A network cut in two after a layer; the halves share its parameters.

    Parameters
    ----------
    model : torch.nn.Sequential
        What is cut.
    layer : str
        The direct child of the model that ends the first half.

    Returns
    -------
    tuple of torch.nn.Sequential
        The children up to and including `layer`, and those after it.

    Raises
    ------
    ValueError
        For a model that is no Sequential, or a layer that is unknown, deeper inside, or the last.

    Examples
    --------
    >>> front, tail = halves(small_network(rng=0), "layer3")
    >>> len(front), len(tail)
    (4, 2)
    """
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"expected a torch.nn.Sequential, got {type(model).__name__}")
    find_layers(model, [layer])
    names = [name for name, _ in model.named_children()]
    if layer not in names[:-1]:
        raise ValueError(f"expected one of the layers {names[:-1]}, which have layers after them, got {layer!r}")
    position = names.index(layer) + 1
    children = list(model.named_children())
    return nn.Sequential(OrderedDict(children[:position])), nn.Sequential(OrderedDict(children[position:]))


def reinitialised(model: nn.Sequential, *, layer: str, rng: np.random.Generator | int) -> nn.Sequential:
    """A copy of a network: frozen up to and including a layer, every later parameter drawn anew by PyTorch's defaults.

    Parameters
    ----------
    model : torch.nn.Sequential
        Any network; the one given stays as it is.
    layer : str
        The last direct child that is frozen.
    rng : numpy.random.Generator or int
        Draws the new parameters.

    Returns
    -------
    torch.nn.Sequential
        The copy; parameters up to `layer` require no gradients.

    Raises
    ------
    ValueError
        For a model that is no Sequential, a layer that is unknown, deeper inside, or the last, or a later module with
        parameters and without `reset_parameters`.

    Examples
    --------
    >>> fresh = reinitialised(small_network(rng=0), layer="layer3", rng=1)
    >>> [parameter.requires_grad for parameter in fresh.parameters()][-6:]
    [False, False, True, True, True, True]
    """
    fresh = copy.deepcopy(model)
    front, tail = halves(fresh, layer)
    front.requires_grad_(False)
    tail.requires_grad_(True)
    with seeded(initialisation_seed(rng)):
        for module in tail.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            # What has parameters of its own and no way to draw them anew would stay as it was trained.
            elif next(module.parameters(recurse=False), None) is not None:
                raise ValueError(f"expected modules with reset_parameters after {layer!r}, got {type(module).__name__}")
    return fresh
