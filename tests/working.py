"""What worker processes do in tests: they import it by name, as they cannot import a test module."""

import numpy as np
import torch
from seeds import generator
from torch import Tensor

from neurovar.networks import NoisyNetwork


def threads(number: int) -> tuple[int, int]:
    return number, torch.get_num_threads()


def overwritten(values: np.ndarray) -> float:
    tensor = torch.from_numpy(values)
    return float(tensor.add_(1).sum())


def failing(number: int) -> None:
    raise ValueError(f"number {number}")


def logits(noisy: NoisyNetwork, images: Tensor, seed: int) -> Tensor:
    return noisy.logits(images, n_draws=3, generator=generator(seed))
