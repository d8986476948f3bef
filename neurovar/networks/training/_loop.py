"""The training loop: batches in a random order, changed before they are shown, and Adam."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar.covariance import Covariance
from neurovar.networks._checks import check_labels
from neurovar.networks._randomness import seeded
from neurovar.networks.training._network import initialisation_seed

Advance = Callable[[int], object]
Batch = tuple[Tensor, Tensor]
Change = Callable[[Tensor, Tensor], Tensor]
NUMBERS_AT_ONCE = 2**20
"""About as many numbers of noise are drawn at once: enough to read a dense factor for many images, and little memory"""


@dataclass(frozen=True)
class Schedule:
    """How long to train, and in what steps."""

    n_epochs: int
    batch_size: int
    learning_rate: float

    def check(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        if not len(inputs) or len(inputs) != len(labels) or self.n_epochs < 1:
            raise ValueError(
                f"expected a label an image and at least 1 epoch, got {len(labels)} for {len(inputs)}, {self.n_epochs}"
            )
        if self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"expected at least 1 image a batch and a learning rate above 0, got {self.batch_size} and "
                f"{self.learning_rate}"
            )
        with torch.no_grad():
            check_labels(labels, inputs, model.eval()(inputs[:1]).shape[-1])

    def epochs(
        self, inputs: Tensor, labels: Tensor, change: Change, generator: torch.Generator
    ) -> Iterator[Iterator[Batch]]:
        """The batches of each epoch, in an order drawn on the generator's device; `change` may overwrite its images."""
        for _ in range(self.n_epochs):
            order = torch.randperm(len(inputs), generator=generator, device=generator.device).to(inputs.device)
            batches = ((inputs[rows], labels[rows]) for rows in order.split(self.batch_size))
            yield ((change(shown, wanted), wanted) for shown, wanted in batches)

    def adam(self, parameters: list[Tensor]) -> torch.optim.Adam:
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
        return torch.optim.Adam(parameters, lr=self.learning_rate, fused=fused)


def fit(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    change: Change,
    schedule: Schedule,
    generator: torch.Generator,
    advance: Advance | None,
) -> None:
    """Train `model` in place on what `change` makes of each batch."""
    schedule.check(model, inputs, labels)
    optimiser = schedule.adam(list(model.parameters()))
    model.train()
    with seeded(dropout_seed(generator)):
        for epoch in schedule.epochs(inputs, labels, change, generator):
            for shown, wanted in epoch:
                optimiser.zero_grad()
                F.cross_entropy(model(shown), wanted).backward()
                optimiser.step()
            if advance:
                advance(1)


def dropout_seed(generator: torch.Generator) -> int:
    """A seed that follows from the generator, which stays put."""
    return initialisation_seed(drawn_seed(generator.clone_state()))


def drawn_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def unchanged(images: Tensor, labels: Tensor) -> Tensor:
    return images


def noisy(noise: Covariance | None, inputs: Tensor, batch_size: int, generator: torch.Generator) -> Change:
    """Adds a fresh draw of `noise` to each input, in place.

    Draws come from blocks of a whole number of batches; those that depend on the state, batch by batch.
    """
    if noise is None:
        return unchanged
    noise = moved_to(noise, inputs.device)
    if noise.state_dependent or noise.trainable:
        return lambda batch, _: batch.add_(_at(noise, batch, generator).to(batch).view_as(batch))
    block = batch_size * max(1, NUMBERS_AT_ONCE // (noise.n * batch_size))
    sampler = noise.sampler(generator=generator, block=block)
    return lambda batch, _: batch.add_(sampler.draw((len(batch),)).to(batch).view_as(batch))


def moved_to(noise: Covariance, device: torch.device) -> Covariance:
    """A copy is factorised anew, so that none is made where the noise is there already."""
    return noise if noise.device == device else noise.to(device=device)


@torch.no_grad()
def _at(noise: Covariance, batch: Tensor, generator: torch.Generator) -> Tensor:
    return noise.sample_at(batch.flatten(1).to(noise.dtype), generator=generator)
