"""Train one classifier: on images as they are, with Gaussian noise, with attacked ones, or under noise at a layer."""

import copy
from collections.abc import Callable
from math import ceil
from typing import TypeVar

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.networks._checks import check_pixels
from neurovar.networks._noisy import NoisyNetwork
from neurovar.networks.training._loop import Advance, Change, Schedule, drawn_seed, fit, noisy
from neurovar.networks.training._network import halves, reinitialised

Network = TypeVar("Network", bound=nn.Module)
Attack = Callable[..., Tensor]
# The front runs once over all images, in parts whose maps fit a CPU's cache.
FRONT_BATCH = 100


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
    """A trained copy of `model`, in evaluation mode: Adam on the cross-entropy, batches shuffled by `generator`.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier; the one given stays as it is.
    images : torch.Tensor
        (image, …) as `model` takes them, on the device of the model.
    labels : torch.Tensor
        int64 (image,).
    n_epochs : int
        How often every image is shown.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.
    generator : torch.Generator
        On any device: the order of images, and all other randomness, follows from it alone.
    advance : callable, optional
        Called with 1 after each epoch.

    Returns
    -------
    torch.nn.Module
        The trained copy.

    Raises
    ------
    ValueError
        For labels of another number or outside the classes, no images, no epochs, an empty batch, or a learning rate
        of 0.

    References
    ----------
    Kingma & Ba 2015, arXiv:1412.6980

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(64, 2, generator=g), torch.arange(64) % 2
    >>> model = train(torch.nn.Linear(2, 2), x, y, n_epochs=1, generator=g)
    """
    schedule = Schedule(n_epochs, batch_size, learning_rate)
    return _trained(model, images, labels, lambda copied: None, schedule, generator, advance)


def gaussian_train(
    model: Network,
    images: Tensor,
    labels: Tensor,
    *,
    sigma: float,
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
    advance: Advance | None = None,
) -> Network:
    """`train` on images with Gaussian noise, x' = clip₀₁(x + σ·z): Gaussian augmentation.

    z is standard normal, drawn afresh for every pixel of every image in every epoch; no image is shown without it.
    Preble et al. draw once an image, for all epochs. Clipping keeps images in [0, 1], as in Preble et al.; Cohen et al.
    2019 (arXiv:1902.02918) do not clip, which is `retrain` under noise at an `nn.Identity` that stands first.

    Parameters
    ----------
    model : torch.nn.Module
        A classifier; the one given stays as it is.
    images : torch.Tensor
        (image, …) as `model` takes them, in [0, 1], on the device of the model.
    labels : torch.Tensor
        int64 (image,).
    sigma : float
        σ, in units of the pixels' range.
    n_epochs : int
        How often every image is shown.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.
    generator : torch.Generator
        On any device: the order of images, and all other randomness, follows from it alone.
    advance : callable, optional
        Called with 1 after each epoch.

    Returns
    -------
    torch.nn.Module
        The trained copy, in evaluation mode.

    Raises
    ------
    ValueError
        For σ ≤ 0, images outside [0, 1], labels of another number or outside the classes,
        no images, no epochs, an empty batch, or a learning rate of 0.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 2, generator=g), torch.arange(64) % 2
    >>> model = gaussian_train(torch.nn.Linear(2, 2), x, y, sigma=0.1, n_epochs=1, generator=g)
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"expected a finite sigma above 0, got {sigma}")
    if len(images):
        check_pixels(images)

    def augmented(batch: Tensor, wanted: Tensor) -> Tensor:
        drawn = torch.randn(batch.shape, generator=generator, dtype=batch.dtype, device=generator.device)
        return batch.add_(drawn.to(batch.device), alpha=sigma).clamp_(0, 1)

    schedule = Schedule(n_epochs, batch_size, learning_rate)
    return _trained(model, images, labels, lambda copied: augmented, schedule, generator, advance)


def adversarial_train(
    model: Network,
    images: Tensor,
    labels: Tensor,
    *,
    attack: Attack,
    ratio: float,
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
    advance: Advance | None = None,
) -> Network:
    """`train` with ⌈ratio · batch⌉ images of every batch attacked, on the network as it is at that step.

    The attack sees the network in eval mode; the others of the batch are shown as they are. The rounding makes the
    fraction larger than `ratio` where a batch is small. ratio 1 is the training of Madry et al.

    Parameters
    ----------
    model : torch.nn.Module
        Images → logits. The one given stays as it is.
    images : torch.Tensor
        (image, channel, row, column), in [0, 1].
    labels : torch.Tensor
        int64 (image,).
    attack : Attack
        Called as (network, images, labels, generator=…) → images, such as `robustness.PGD(0.1, n_steps=10)`; the
        network is a `NoisyNetwork` without noise.
    ratio : float
        The fraction of every batch, in (0, 1].
    n_epochs : int
        Passes over the images.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.
    generator : torch.Generator
        Source of the order of images and of the attack's draws.
    advance : callable, optional
        Called with 1 after every epoch, for a progress bar.

    Returns
    -------
    torch.nn.Module
        A trained copy, in evaluation mode.

    Raises
    ------
    ValueError
        For a ratio outside (0, 1], an attack that returns images of another shape, or what `train` and the attack
        refuse.

    References
    ----------
    Madry et al. 2018, arXiv:1706.06083; the ratio: `AdversarialTrainer` of the Adversarial Robustness Toolbox, which
    Preble et al. 2026 (arXiv:2606.13801) use

    Examples
    --------
    >>> from neurovar.robustness import FGM
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 1, 2, 2, generator=g), torch.arange(64) % 2
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> model = adversarial_train(network, x, y, attack=FGM(0.1), ratio=0.5, n_epochs=1, generator=g)
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"expected a ratio in (0, 1], got {ratio}")

    def attacking(copied: nn.Module) -> Change:
        networks: list[NoisyNetwork] = []  # checked once, at the first batch: training changes its weights in place

        def attacked(batch: Tensor, wanted: Tensor) -> Tensor:
            # Rounded up, as in the `AdversarialTrainer` of the Adversarial Robustness Toolbox.
            count = ceil(ratio * len(batch))
            copied.eval()
            if not networks:
                networks.append(NoisyNetwork(copied, images=batch))
            changed = attack(networks[0], batch[:count], wanted[:count], generator=generator)
            copied.train()
            if changed.shape != batch[:count].shape:
                raise ValueError(f"expected attacked images {tuple(batch[:count].shape)}, got {tuple(changed.shape)}")
            return torch.cat([changed.detach(), batch[count:]])

        return attacked

    schedule = Schedule(n_epochs, batch_size, learning_rate)
    return _trained(model, images, labels, attacking, schedule, generator, advance)


def _trained(
    model: Network,
    images: Tensor,
    labels: Tensor,
    changing: Callable[[nn.Module], Change | None],
    schedule: Schedule,
    generator: torch.Generator,
    advance: Advance | None,
) -> Network:
    copied = copy.deepcopy(model)
    fit(copied, images, labels, changing(copied), schedule, generator, advance)
    return copied.eval()


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
    a fresh draw of `noise`. This takes the memory of the layer's activations to all images.

    Parameters
    ----------
    model : torch.nn.Sequential
        A classifier; the one given stays as it is.
    images : torch.Tensor
        (image, …) as `model` takes them, on the device of the model.
    labels : torch.Tensor
        int64 (image,).
    layer : str
        A direct child of the model.
    noise : Covariance or None
        Over the layer's flattened outputs; None for the same retraining without noise.
    n_epochs : int
        How often every image is shown.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.
    generator : torch.Generator
        On any device: the order of images, and all other randomness, follows from it alone.
    advance : callable, optional
        Called with 1 after each epoch.

    Returns
    -------
    torch.nn.Sequential
        The retrained copy, in evaluation mode.

    Raises
    ------
    ValueError
        For an unknown layer, a model that is no Sequential, a last layer with nothing after it, a later module that
        cannot re-initialise itself, noise of the wrong size, labels of another number or outside the classes, no
        images, no epochs, an empty batch, or a learning rate of 0.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> from neurovar.networks import small_network
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 1, 28, 28, generator=g), torch.arange(64) % 10
    >>> model = retrain(small_network(rng=0), x, y, layer="layer3", noise=None, n_epochs=1, generator=g)
    """
    retrained = reinitialised(model, layer=layer, rng=drawn_seed(generator)).eval()
    front, tail = halves(retrained, layer)
    inputs = activations(front, images)
    check_noise(noise, inputs, layer)
    change = noisy(noise, inputs, batch_size, generator)
    fit(tail, inputs, labels, change, Schedule(n_epochs, batch_size, learning_rate), generator, advance)
    return retrained.eval()


@torch.no_grad()
def activations(front: nn.Module, images: Tensor) -> Tensor:
    """What the front gives; of maps, with the channels of a place side by side, where CPUs convolve and pool faster."""
    outputs = torch.cat([front(batch) for batch in images.split(FRONT_BATCH)])
    # A CPU convolves and pools faster where the channels of a place lie side by side.
    on_cpu = outputs.ndim == 4 and outputs.device.type == "cpu"
    return outputs.contiguous(memory_format=torch.channels_last) if on_cpu else outputs


def check_noise(noise: Covariance | None, inputs: Tensor, layer: str) -> None:
    if noise is not None and noise.n != inputs[0].numel():
        raise ValueError(f"expected a covariance over the {inputs[0].numel()} units of layer {layer!r}, got {noise.n}")
