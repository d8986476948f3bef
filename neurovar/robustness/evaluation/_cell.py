"""One network under one condition with one noise seed: what a worker process does."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neurovar.networks import inject
from neurovar.robustness.attacks._objective import GradientError
from neurovar.robustness.evaluation._conditions import TRANSFERRED, WITHOUT_NOISE, Attack, Condition
from neurovar.robustness.evaluation._diagnostics import Gradients, gradients
from neurovar.robustness.evaluation._networks import NoisyNetwork, tensors

ROWS = 200
"""Images × draws in one pass; a constant, since draws depend on it."""
N_LOOKED_AT, N_GRADIENTS = 50, 20
"""Images, and draws of each, that the signal-to-noise ratio of gradients is from."""


@dataclass(frozen=True, eq=False)
class Cell:
    """`other` is the network that a transfer attack follows, None where there is none."""

    network: NoisyNetwork
    other: nn.Module | None
    images: np.ndarray
    labels: np.ndarray
    condition: Condition
    seed: int
    draws: Sequence[int]
    batch_size: int

    def generator(self, use: str) -> torch.Generator:
        """Seeded by the noise seed, the condition and the use together, independent of that of any others."""
        return seeded(self.seed, self.condition.label, use)


@dataclass(frozen=True, eq=False)
class Outcome:
    """correct, survived (stimulus, k), hits (stimulus); whether it ran, and what there is to say, as why it did not."""

    correct: np.ndarray
    hits: np.ndarray
    survived: np.ndarray
    ran: bool
    said: tuple[str, ...]


def seeded(seed: int, *key: str) -> torch.Generator:
    """Seeded by these together, the same in every process and on every machine."""
    digest = hashlib.sha256("\n".join([str(seed), *key]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def outcome(cell: Cell) -> Outcome:
    """Show the condition's images to the network, and see which it gets right."""
    x, y = tensors(cell.network.model, cell.images, cell.labels)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            shown = _shown(cell, x, y)
    except CannotRunError as error:
        shape = (len(x), len(cell.draws))
        nothing = np.zeros(shape, bool)
        return Outcome(nothing, np.zeros(len(x), np.int16), nothing, False, (f"could not be run: {error}",))
    generator, at_once = cell.generator("prediction"), max(1, ROWS // max(cell.draws))
    with torch.no_grad():
        parts = [
            _predicted(cell.network, some, target, cell.draws, generator)
            for some, target in zip(shown.split(at_once), y.split(at_once))
        ]
    correct, hits, survived = (torch.cat(part).cpu().numpy() for part in zip(*parts))
    said = tuple(dict.fromkeys(str(one.message) for one in caught))
    return Outcome(correct, hits.astype(np.int16), survived, True, said)


class CannotRunError(ValueError):
    """An attack that does not fit this network: no evidence about it."""


def _shown(cell: Cell, images: Tensor, labels: Tensor) -> Tensor:
    condition, generator = cell.condition, cell.generator("images")
    if not isinstance(condition, Attack):
        return condition.shown(images, generator)
    transferred = condition.gradient in TRANSFERRED
    model = cell.other if transferred else cell.network.model
    if model is None:
        raise CannotRunError(f"there is no {condition.gradient} network without noise")
    noises = {} if condition.gradient in WITHOUT_NOISE else cell.network.noises
    batches = zip(images.split(cell.batch_size), labels.split(cell.batch_size))
    try:
        return torch.cat([condition.shown(*batch, generator, model=model, noises=noises) for batch in batches])
    except GradientError as error:
        raise CannotRunError(str(error)) from error


def _predicted(
    network: NoisyNetwork, images: Tensor, labels: Tensor, draws: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """correct (image, k), hits (image,) of the most draws, survived (image, k)."""
    most = max(draws)
    passes = most if network.noises else 1
    with inject(network.model, network.noises, generator=generator, draws=passes):
        logits = network.model(images).unflatten(0, (passes, -1))
    if not torch.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity")
    single = logits.argmax(-1) == labels
    first = [min(k, passes) for k in draws]
    correct = torch.stack([logits[:k].sum(0).argmax(-1) == labels for k in first], -1)
    survived = torch.stack([single[:k].all(0) for k in first], -1)
    return correct, single.sum(0) * (most // passes), survived


def look(network: NoisyNetwork, images: np.ndarray, labels: np.ndarray, seed: int) -> Gradients:
    """What the network's gradients are worth, at its first images."""
    x, y = tensors(network.model, images[:N_LOOKED_AT], labels[:N_LOOKED_AT])
    generator = seeded(seed, "gradients")
    return gradients(network.model, network.noises, x, y, n_draws=N_GRADIENTS, generator=generator)
