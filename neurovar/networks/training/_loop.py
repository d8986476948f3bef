"""The training loop: batches in a random order, changed before they are shown, and Adam."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar._values import Value
from neurovar.covariance import Covariance
from neurovar.networks._checks import check_labels
from neurovar.networks._randomness import seeded
from neurovar.networks.training._network import initialisation_seed

Advance = Callable[[int], object]
Batch = tuple[Tensor, Tensor]
Change = Callable[[Tensor, Tensor], Tensor]
# About as many numbers of noise are drawn at once: enough to read a dense factor for many images, and little memory
NUMBERS_AT_ONCE = 2**20


@dataclass(frozen=True)
class Schedule(Value):
    """How long to train, and in what steps.

    Parameters
    ----------
    n_epochs : int
        How often every image is shown.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.

    Raises
    ------
    ValueError
        For no epochs, an empty batch, or a learning rate of 0.

    Examples
    --------
    >>> schedule, g = Schedule(2, batch_size=3), torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(5, 4), torch.arange(5)
    >>> [[len(images) for images, labels in epoch] for epoch in schedule.epochs(x, y, generator=g)]
    [[3, 2], [3, 2]]
    """

    n_epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.n_epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"expected at least 1 epoch, 1 image a batch and a learning rate above 0, got {self.n_epochs}, "
                f"{self.batch_size} and {self.learning_rate}"
            )

    def epochs(
        self, images: Tensor, labels: Tensor, change: Change | None = None, *, generator: torch.Generator
    ) -> Iterator[Iterator[Batch]]:
        """The batches of each epoch, in a new random order.

        Parameters
        ----------
        images : torch.Tensor
            (image, …).
        labels : torch.Tensor
            (image,).
        change : callable, optional
            (images, labels) → images: what is shown in place of a batch, which it may overwrite. It is called when the
            batch is due, so that it may follow the network as it is then.
        generator : torch.Generator
            Draws the order, on its own device.

        Yields
        ------
        iterator of tuple of torch.Tensor
            An epoch: images and labels of each batch.
        """
        for _ in range(self.n_epochs):
            order = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
            batches = ((images[rows], labels[rows]) for rows in order.split(self.batch_size))
            yield ((change(shown, wanted) if change else shown, wanted) for shown, wanted in batches)


def check_task(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Refuse images and labels that the classifier cannot be trained on."""
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"expected a label an image and at least 1 image, got {len(labels)} for {len(images)}")
    with torch.no_grad():
        check_labels(labels, images, model.eval()(images[:1]).shape[-1])


def adam(parameters: list[Tensor], schedule: Schedule) -> torch.optim.Adam:
    """Adam, its step in one kernel where PyTorch has one: networks as small as these spend their time on overhead."""
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, lr=schedule.learning_rate, fused=fused)


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    change: Change | None,
    schedule: Schedule,
    generator: torch.Generator,
    advance: Advance | None,
) -> None:
    """Train `model` in place on what `change` makes of each batch."""
    check_task(model, images, labels)
    optimiser = adam(list(model.parameters()), schedule)
    model.train()
    with seeded(dropout_seed(generator)):
        for epoch in schedule.epochs(images, labels, change, generator=generator):
            for shown, wanted in epoch:
                optimiser.zero_grad()
                F.cross_entropy(model(shown), wanted).backward()
                optimiser.step()
            if advance:
                advance(1)


def dropout_seed(generator: torch.Generator) -> int:
    """A seed that follows from the generator, which stays put."""
    # From a clone, so that dropout, which few networks have, leaves the order of images as it is without.
    return initialisation_seed(drawn_seed(generator.clone_state()))


def drawn_seed(generator: torch.Generator) -> int:
    """A seed from the generator: 62 bits, which fit the integers of every generator."""
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def noisy(noise: Covariance | None, inputs: Tensor, batch_size: int, generator: torch.Generator) -> Change | None:
    """Adds a fresh draw of `noise` to each input, in place.

    Draws come from blocks of a whole number of batches; those that depend on the state, batch by batch.
    """
    if noise is None:
        return None
    noise = moved_to(noise, inputs.device)
    if noise.state_dependent or noise.trainable:
        return lambda batch, _: batch.add_(_at(noise, batch, generator).to(batch).view_as(batch))
    # A whole number of batches: no draw is left over at the end of a block.
    block = batch_size * max(1, NUMBERS_AT_ONCE // (noise.n * batch_size))
    sampler = noise.sampler(generator=generator, block=block)
    return lambda batch, _: batch.add_(sampler.draw((len(batch),)).to(batch).view_as(batch))


def moved_to(noise: Covariance, device: torch.device) -> Covariance:
    """A copy is factorised anew, so that none is made where the noise is there already."""
    return noise if noise.device == device else noise.to(device=device)


@torch.no_grad()
def _at(noise: Covariance, batch: Tensor, generator: torch.Generator) -> Tensor:
    return noise.sample_at(batch.flatten(1).to(noise.dtype), generator=generator)
