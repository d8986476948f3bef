"""Activations batch by batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from neurovar.networks.activations._batches import read
from neurovar.networks.activations._passes import Modifications, Passes
from neurovar.networks.activations._units import Units


class Batch(NamedTuple):
    """What `iterate` gives of a batch: ids (n,), labels name → (n,), and layer → (n, repeat, unit)."""

    stimulus: np.ndarray
    labels: dict[str, np.ndarray]
    activations: dict[str, Tensor]


def iterate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Sequence[str],
    rng: np.random.Generator | int,
    n_repeats: int = 1,
    modifications: Modifications | None = None,
    pool_space: bool = False,
    max_units: int | None = None,
    axes: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Batch]:
    """Activations of named layers, batch by batch, so that neither inputs nor activations are ever all in memory.

    All repeats of a batch are made before the next batch is read: a loader is read once. Between batches and afterwards
    the network, its hooks and buffers (such as the running statistics of batch norm), torch's global random state and
    its grad mode are as they were. Every repeat has random streams of its own, seeded from `rng`, that go on from batch
    to batch: a modification that draws stimulus by stimulus gives the same numbers whatever the batch size; dropout
    draws whole batches, so that its numbers depend on it.

    Parameters
    ----------
    model : any module that takes a batch of inputs; they are moved to its device.
    loader : any iterable of batches, such as a DataLoader. A batch is a tensor (stimulus, …), a pair of it and labels,
        or a mapping: the tensor as "image" (or "images", "inputs", "pixel_values"), ids as "stimulus", and anything
        else that has a number or a text for each stimulus. Ids are 0, 1, 2 … where it gives none.
    layers : names as in `model.named_modules()`; `layers` lists them.
    n_repeats : passes over every batch (over every modification, if there are any).
    modifications : name → function of (inputs, generator); each makes a repeat. They may use the network and its
        gradients, as attacks do.
    pool_space : mean over all axes of a layer but the channel.
    max_units : keep this many units of each layer (after pooling), drawn at random without replacement.
    axes : names of a layer's axes after the batch ("channel", "row", "column", "token"), where they are not the usual:
        (channel, row, column), (token, channel) or (channel). Layers with the channel last, as in Swin transformers,
        are ("row", "column", "channel"); of a one-dimensional convolution ("channel", "column").

    Yields
    ------
    Batch : activations as float32 (float64 of layers that give it), on the network's device, without gradients

    Raises
    ------
    ValueError : for an unknown layer (listing the near ones), no layers or one named twice, no batches, batches of
        changing form, ids that come twice, a layer that fires not once, gives no floating tensor, not a row for each
        stimulus, or values that are not finite, or several repeats of a deterministic network.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))
    >>> loader = [(torch.ones(8, 1, 2, 2), torch.arange(8))] * 2
    >>> [batch.activations["2"].shape for batch in iterate(model, loader, layers=["2"], n_repeats=5, rng=0)]
    [torch.Size([8, 5, 3]), torch.Size([8, 5, 3])]
    """
    rng = np.random.default_rng(rng)
    units = Units(max_units, unit_rng(rng), pool_space=pool_space, axes=axes)
    passes = Passes(model, layers, units, modifications, n_repeats, rng)
    return (Batch(shown.stimulus, shown.labels, passes.run_all(shown.inputs)) for shown in read(loader))


def unit_rng(rng: np.random.Generator) -> np.random.Generator:
    """What draws the units: the same units whatever the repeats."""
    return np.random.default_rng(rng.integers(2**63))
