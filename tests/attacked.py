"""Networks and images that attacks are tried on."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from neurovar_datasets import fashion_mnist
from torch import Tensor, nn

from neurovar.covariance import Covariance, Diagonal
from neurovar.networks import NoisyNetwork, train
from neurovar.robustness import Attack, expected_loss

CHANNELS, SIZE, HIDDEN, CLASSES = 2, 6, 8, 5

needs_fashion_mnist = pytest.mark.skipif(
    not Path(fashion_mnist.DEBIAN_FOLDER).is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def fashion() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A small network trained on Fashion-MNIST, 80 % correct, and 1,000 other images with their labels."""
    data = fashion_mnist.load("test").isel(stimulus=slice(5000))
    images, labels = torch.tensor(data.images.values.copy()), torch.tensor(data.labels.values.astype(np.int64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.Tanh(), nn.Linear(32, 10))
    rng = generator()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) / parameter.shape[-1] ** 0.5
    model = train(model, images[1000:], labels[1000:], n_epochs=4, generator=rng)
    return model.eval().requires_grad_(False), images[:1000], labels[:1000]


def tanh_network(*, gain: float = 2.0, seed: int = 0) -> nn.Sequential:
    """72 pixels → 8 tanh units → 5 logits, float64; steep enough that the loss has several maxima."""
    rng = generator(seed)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(CHANNELS * SIZE**2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)
    ).double()
    for parameter in model.parameters():
        parameter.data = gain * torch.randn(parameter.shape, generator=rng, dtype=torch.float64) / 4
    return model.eval().requires_grad_(False)


def batch(model: nn.Module, n: int = 12, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images that the network classifies as their labels say."""
    images = torch.rand(n, CHANNELS, SIZE, SIZE, generator=generator(seed), dtype=torch.float64)
    return images, model(images).argmax(1)


def noise(variance: float = 0.3) -> dict[str, Covariance]:
    """On the inputs of the hidden units."""
    return {"1": Diagonal.isotropic(HIDDEN, variance=variance).to(dtype=torch.float64)}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def mean_loss(model: nn.Module, images: Tensor, labels: Tensor, noises: dict[str, Covariance], n: int = 500) -> Tensor:
    """The cross-entropy of each image, averaged over draws that no attack has seen."""
    with torch.no_grad():
        network = NoisyNetwork(model, noises, images=images)
        return expected_loss(network, images, labels, n_draws=n, generator=generator(10**6))


class Stepwise(nn.Module):
    """Logits that a gradient cannot see through."""

    def forward(self, x: Tensor) -> Tensor:
        return (10 * x.flatten(1)).round()[:, :4]


def run(
    kind: type[Attack],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] | None = None,
    **settings: Any,
) -> Tensor:
    """An attack on a model with this noise, of one restart and one draw unless the settings say more."""
    few = {"n_draws": 1, "n_restarts": 1}
    small = {item.name: few[item.name] for item in fields(kind) if item.name in few}
    attack = kind(**small | settings)
    return attack(NoisyNetwork(model, noises or {}, images=images), images, labels, generator=generator)
