"""One network under one condition with one noise seed: what a worker process does."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import CannotRunError
from neurovar.robustness.evaluation._conditions import Condition
from neurovar.robustness.evaluation._diagnostics import Gradients, gradients
from neurovar.robustness.evaluation._networks import tensors

ROWS = 200
"""Images × draws in one pass; a constant, since draws depend on it."""
N_GRADIENT_IMAGES, N_GRADIENTS = 50, 20
"""Images, and draws of each, that the signal-to-noise ratio of gradients is from."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a network got right.

    Parameters
    ----------
    correct, survived : numpy.ndarray
        (stimulus, k): right by the sum of the logits of k draws, and in each of k draws.
    hits : numpy.ndarray
        (stimulus,): how many of the most draws are right by themselves.
    ran : bool
        Whether the condition could be run on this network.
    messages : tuple of str
        Warnings, or the reason why it could not run.
    """

    correct: np.ndarray
    hits: np.ndarray
    survived: np.ndarray
    ran: bool
    messages: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Cell:
    """A network, and the condition, images and noise seed that it is tested with.

    `other` is the network that a transfer attack follows, None where there is none.
    """

    network: NoisyNetwork
    other: NoisyNetwork | None
    images: np.ndarray
    labels: np.ndarray
    condition: Condition
    seed: int
    draws: Sequence[int]
    batch_size: int

    def generator(self, use: str) -> torch.Generator:
        """Seeded by the noise seed, the condition and the use together, independent of that of any others."""
        return seeded(self.seed, self.condition.label, use)

    def outcome(self) -> Outcome:
        """Show the condition's images to the network, and see which it gets right."""
        x, y = tensors(self.network, self.images, self.labels)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                shown = self._shown(x, y)
        except CannotRunError as error:
            nothing = np.zeros((len(x), len(self.draws)), bool)
            hits = np.zeros(len(x), np.int16)
            return Outcome(nothing, hits, nothing, False, (f"could not be run: {error}",))
        # Predictions on a generator of their own: draws that no attack has seen, however many it has used.
        generator, n_images = self.generator("prediction"), max(1, ROWS // max(self.draws))
        parts = [
            self._predicted(part, target, generator) for part, target in zip(shown.split(n_images), y.split(n_images))
        ]
        correct, hits, survived = (torch.cat(part).cpu().numpy() for part in zip(*parts))
        messages = tuple(dict.fromkeys(str(warning.message) for warning in caught))
        return Outcome(correct, hits.astype(np.int16), survived, True, messages)

    def _shown(self, images: Tensor, labels: Tensor) -> Tensor:
        condition, generator = self.condition, self.generator("images")
        if not isinstance(condition, Attack):
            return condition(images, generator=generator)
        batches = zip(images.split(self.batch_size), labels.split(self.batch_size))
        return torch.cat([condition(self.network, *batch, generator=generator, other=self.other) for batch in batches])

    def _predicted(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """correct (image, k), hits (image,) of the most draws, survived (image, k)."""
        most = max(self.draws)
        with torch.no_grad():
            logits = self.network.logits(images, most, generator=generator)
        if not torch.isfinite(logits).all():
            raise ValueError("expected finite logits, got NaN or infinity")
        single = logits.argmax(-1) == labels
        first = [min(k, len(logits)) for k in self.draws]  # without noise there is one draw, as good as any number
        correct = torch.stack([logits[:k].sum(0).argmax(-1) == labels for k in first], -1)
        survived = torch.stack([single[:k].all(0) for k in first], -1)
        return correct, single.sum(0) * (most // len(logits)), survived


def seeded(seed: int, *key: str) -> torch.Generator:
    """Seeded by these together, the same in every process and on every machine.

    By a hash, so that neither neighbouring seeds nor like labels have like draws; of 63 bits, which is what PyTorch
    takes.
    """
    digest = hashlib.sha256("\n".join([str(seed), *key]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def gradients_at(network: NoisyNetwork, images: np.ndarray, labels: np.ndarray, seed: int) -> Gradients:
    """What the network's gradients are worth, at its first images."""
    x, y = tensors(network, images[:N_GRADIENT_IMAGES], labels[:N_GRADIENT_IMAGES])
    return gradients(network, x, y, n_draws=N_GRADIENTS, generator=seeded(seed, "gradients"))
