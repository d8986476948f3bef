"""Networks and images that attacks are tried on."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from neurovar_datasets import fashion_mnist
from torch import Tensor, nn

from neurovar.covariance import Covariance, Diagonal
from neurovar.networks import train
from neurovar.robustness import expected_loss

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
        return expected_loss(model, images, labels, noises, n, generator(10**6))


class Stepwise(nn.Module):
    """Logits that a gradient cannot see through."""

    def forward(self, x: Tensor) -> Tensor:
        return (10 * x.flatten(1)).round()[:, :4]


BAD_INPUT = [
    ({"images": torch.full((3, 4), 0.5)}, r"expected float images \(batch, .*got torch\.float32 \(3, 4\)"),
    ({"images": torch.full((3, 1, 5, 5), 1.5)}, r"expected pixels in \[0, 1\], got 1\.5 to 1\.5"),
    ({"images": torch.full((3, 1, 5, 5), torch.nan)}, r"expected pixels in \[0, 1\], got nan"),
    ({"labels": torch.tensor([0, 1])}, r"expected 3 int64 labels, got torch\.int64 \(2,\)"),
    ({"labels": torch.tensor([0, 1, 4])}, "expected labels from 0 to 3, got 0 to 4"),
    ({"epsilon": 0.0}, "expected epsilon above 0 .*got 0.0"),
    ({"norm": "l1"}, "expected a norm out of linf, l2, got 'l1'"),
    ({"training": True}, r"expected a model in eval mode, got .* training mode; call model\.eval"),
    ({"probabilities": True}, "expected logits, got rows that are not negative and sum to one"),
    ({"noises": {"1": Diagonal.isotropic(4, variance=0.0)}}, "the noise is off"),
    ({"noises": {"1": Diagonal.isotropic(3)}}, "expected a covariance over the 4 units of layer '1', got 3"),
    ({"n_draws": 5}, "expected at least 1 draw, and 1 without noise, got 5"),
    ({"average": "median"}, "expected an average over one of loss, logits, got 'median'"),
]
"""What every attack refuses, and how it says so."""


def linear(*, training: bool = False, probabilities: bool = False) -> nn.Sequential:
    last = [nn.Softmax(dim=1)] if probabilities else []
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 4), *last)
    model[1].weight.data = torch.randn(4, 25, generator=generator())
    return model.train(training)


def bad_arguments(changes: dict[str, object]) -> dict[str, object]:
    """For a call that is right but for these changes."""
    model = linear(**{key: bool(changes.pop(key)) for key in ("training", "probabilities") if key in changes})
    images, labels = torch.full((3, 1, 5, 5), 0.5), torch.tensor([0, 1, 0])
    return {"model": model, "images": images, "labels": labels, "epsilon": 0.1, "generator": generator()} | changes
