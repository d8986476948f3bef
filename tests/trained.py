"""Small networks to train, and what training is compared with."""

import numpy as np
import torch
from seeds import generator
from torch import Tensor, nn


def separable(n: int = 400, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Four Gaussian blobs in six dimensions."""
    torch_rng = generator(seed)
    labels = torch.randint(4, (n,), generator=torch_rng)
    return 3 * nn.functional.one_hot(labels, 6).float() + 0.5 * torch.randn(n, 6, generator=torch_rng), labels


def perceptron(*, seed: int = 0) -> nn.Sequential:
    torch_rng = generator(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch_rng) / 3
    return model.eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], prefix: str = "") -> bool:
    names = [name for name in one if name.startswith(prefix)]
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


class Seeing(nn.Module):
    """The identity; keeps what it is shown in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return x


def adam_by_hand(
    weight: np.ndarray, images: np.ndarray, labels: np.ndarray, batches: list[np.ndarray], rate: float
) -> np.ndarray:
    """Softmax regression: Kingma & Ba's Adam, number by number of the paper."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for t, rows in enumerate(batches, start=1):
        gradient = np.zeros_like(weight)
        for row in rows:
            p = np.exp(weight @ images[row])
            p /= p.sum()
            p[labels[row]] -= 1
            gradient += np.outer(p, images[row]) / len(rows)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weight = weight - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return weight
