"""Activations batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from neurovar.networks.activations._batches import read
from neurovar.networks.activations._passes import Modifications, Passes
from neurovar.networks.activations._units import Layer, Units


class Batch(NamedTuple):
    """The activations of one batch, as `iterate` gives them.

    Parameters
    ----------
    stimulus : numpy.ndarray
        Ids (n,).
    labels : dict of str to numpy.ndarray
        What else the loader says of each stimulus, name → (n,).
    activations : dict of str to torch.Tensor
        Layer → (n, repeat, unit).

    Examples
    --------
    >>> Batch(np.arange(2), {}, {})._fields
    ('stimulus', 'labels', 'activations')
    """

    stimulus: np.ndarray
    labels: dict[str, np.ndarray]
    activations: dict[str, Tensor]


def iterate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Sequence[str | Layer],
    rng: np.random.Generator | int,
    n_repeats: int = 1,
    modifications: Modifications | None = None,
) -> Iterator[Batch]:
    """Activations of named layers, batch by batch, so that neither inputs nor activations are ever all in memory.

    All repeats of a batch are made before the next batch is read: a loader is read once. Between batches and afterwards
    the network, its hooks and buffers (such as the running statistics of batch norm), torch's global random state and
    its grad mode are as they were. Every repeat has random streams of its own, seeded from `rng`, that go on from batch
    to batch: a modification that draws stimulus by stimulus gives the same numbers whatever the batch size; dropout
    draws whole batches, so that its numbers depend on it.

    Parameters
    ----------
    model : torch.nn.Module
        Any module that takes a batch of inputs; they are moved to its device.
    loader : iterable
        Batches, such as a DataLoader gives. A batch is a tensor (stimulus, …), a pair of it and labels, or a mapping:
        the tensor as "image" (or "images", "inputs", "pixel_values"), ids as "stimulus", and anything else that has a
        number or a text for each stimulus. Ids are 0, 1, 2 … where it gives none.
    layers : sequence of str or Layer
        Names as in `model.named_modules()`, which `layers` lists; a `Layer` says which units to keep of one.
    rng : numpy.random.Generator or int
        Seeds the repeats and draws the units that are kept.
    n_repeats : int, optional
        Passes over every batch (over every modification, if there are any).
    modifications : sequence of Modification, or mapping of str to callable, optional
        Each makes a repeat, labelled by its `label` or name: values such as `MotionBlur(3)`, or functions
        (images, generator=…) → images. They may use the network and its gradients, as attacks do.

    Yields
    ------
    Batch
        Activations as float32 (float64 of layers that give it), on the network's device, without gradients.

    Raises
    ------
    ValueError
        For an unknown layer (listing the near ones), no layers or one named twice, no batches, batches of changing
        form, ids that come twice, a layer that fires not once, gives no floating tensor, not a row for each stimulus,
        or values that are not finite, or several repeats of a deterministic network.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))
    >>> loader = [(torch.ones(8, 1, 2, 2), torch.arange(8))] * 2
    >>> [batch.activations["2"].shape for batch in iterate(model, loader, layers=["2"], n_repeats=5, rng=0)]
    [torch.Size([8, 5, 3]), torch.Size([8, 5, 3])]
    """
    rng = np.random.default_rng(rng)
    passes = Passes(model, Units(layers, unit_rng(rng)), modifications, n_repeats, rng)
    return (Batch(shown.stimulus, shown.labels, passes.run_all(shown.inputs)) for shown in read(loader))


def unit_rng(rng: np.random.Generator) -> np.random.Generator:
    """What draws the units: the same units whatever the repeats."""
    return np.random.default_rng(rng.integers(2**63))
