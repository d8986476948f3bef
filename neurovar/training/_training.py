"""Train a classifier; freeze it up to a layer, re-initialise the rest and retrain that under noise."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar import _layers
from neurovar._classifiers import check_labels, seeded
from neurovar.covariance import Covariance

Advance = Callable[[int], object]
Network = TypeVar("Network", bound=nn.Module)


def small_network(*, rng: np.random.Generator | int) -> nn.Sequential:
    """The network of Preble et al. 2026: three convolutional and three linear layers, tanh; for 28 × 28 grey images.

    Its layers are named "layer0" to "layer5"; the outputs of "layer0" to "layer4" have 1176, 3136, 400, 32 and 16
    units, after non-linearity and pooling. Initialised by PyTorch's defaults, from `rng`.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> small_network(rng=0)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    with seeded(_seed(rng)):
        blocks = [
            nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(6, 16, 3, padding=1), nn.Tanh()),
            nn.Sequential(nn.Conv2d(16, 16, 5), nn.Tanh(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Flatten(), nn.Linear(400, 32), nn.Tanh()),
            nn.Sequential(nn.Linear(32, 16), nn.Tanh()),
            nn.Linear(16, 10),
        ]
    return nn.Sequential(OrderedDict((f"layer{i}", block) for i, block in enumerate(blocks)))


def _seed(rng: np.random.Generator | int) -> int:
    return int(np.random.default_rng(rng).integers(2**63))


def train(
    model: Network,
    images: Tensor,
    labels: Tensor,
    *,
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
    advance: Advance | None = None,
) -> Network:
    """A trained copy of `model`, in eval mode: Adam on the cross-entropy, batches shuffled by `generator`.

    Raises
    ------
    ValueError : for labels of another number or outside the classes, or no epochs.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(64, 2, generator=g), torch.arange(64) % 2
    >>> model = train(torch.nn.Linear(2, 2), x, y, n_epochs=1, generator=g)
    """
    trained = copy.deepcopy(model)
    _fit(trained, images, labels, None, n_epochs, batch_size, learning_rate, generator, advance)
    return trained.eval()


def retrain(
    model: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    noise: Covariance | None,
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
    advance: Advance | None = None,
) -> nn.Sequential:
    """A copy of `model` whose layers after `layer` were re-initialised and trained with noise at `layer`.

    Layers up to and including `layer` are frozen; their activations are computed once. Every image in every epoch gets
    a fresh draw of `noise` (None: no noise, the same retraining).

    Parameters
    ----------
    layer : a direct child of the `Sequential` model.
    noise : covariance over the layer's flattened outputs.

    Raises
    ------
    ValueError : for an unknown layer, a model that is no Sequential, a last layer with nothing after it, a later module
        that cannot re-initialise itself, noise of the wrong size, or labels as for `train`.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 1, 28, 28, generator=g), torch.arange(64) % 10
    >>> model = retrain(small_network(rng=0), x, y, layer="layer3", noise=None, n_epochs=1, generator=g)
    """
    retrained = reinitialised(model, layer=layer, rng=int(torch.randint(2**62, (), generator=generator))).eval()
    front, tail = halves(retrained, layer)
    with torch.no_grad():
        inputs = torch.cat([front(batch) for batch in images.split(1000)])
    if noise is not None and noise.n != inputs[0].numel():
        raise ValueError(f"expected a covariance over the {inputs[0].numel()} units of layer {layer!r}, got {noise.n}")
    _fit(tail, inputs, labels, noise, n_epochs, batch_size, learning_rate, generator, advance)
    return retrained.eval()


def halves(model: nn.Sequential, layer: str) -> tuple[nn.Sequential, nn.Sequential]:
    """The children of `model` up to and including `layer`, and those after it; they share its parameters."""
    if not isinstance(model, nn.Sequential):
        raise ValueError(f"expected a torch.nn.Sequential, got {type(model).__name__}")
    _layers.find(model, [layer])
    names = [name for name, _ in model.named_children()]
    if layer not in names[:-1]:
        raise ValueError(f"expected one of the layers {names[:-1]}, which have layers after them, got {layer!r}")
    position = names.index(layer) + 1
    children = list(model.named_children())
    return nn.Sequential(OrderedDict(children[:position])), nn.Sequential(OrderedDict(children[position:]))


def reinitialised(model: nn.Sequential, *, layer: str, rng: np.random.Generator | int) -> nn.Sequential:
    """A copy of `model`: frozen up to and including `layer`, every later parameter drawn anew by PyTorch's defaults."""
    fresh = copy.deepcopy(model)
    front, tail = halves(fresh, layer)
    front.requires_grad_(False)
    tail.requires_grad_(True)
    with seeded(_seed(rng)):
        for module in tail.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise ValueError(f"expected modules with reset_parameters after {layer!r}, got {type(module).__name__}")
    return fresh


def _fit(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    noise: Covariance | None,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    advance: Advance | None,
) -> None:
    """Train `model` in place on inputs plus fresh noise."""
    if len(inputs) != len(labels) or n_epochs < 1:
        raise ValueError(
            f"expected a label an image and at least 1 epoch, got {len(labels)} for {len(inputs)}, {n_epochs}"
        )
    with torch.no_grad():
        check_labels(labels, model.eval()(inputs[:1]).shape[-1])
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    seed = torch.randint(2**62, (), generator=generator.clone_state())  # for dropout; the generator itself stays put
    with seeded(_seed(int(seed))):
        for _ in range(n_epochs):
            for rows in torch.randperm(len(inputs), generator=generator).split(batch_size):
                batch = inputs[rows]
                if noise is not None:
                    drawn = noise.sample_at(batch.flatten(1).to(noise.dtype), generator=generator)
                    batch = batch + drawn.to(batch).view_as(batch)
                optimiser.zero_grad()
                F.cross_entropy(model(batch), labels[rows]).backward()
                optimiser.step()
            if advance:
                advance(1)
