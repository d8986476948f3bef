"""What everything that trains a classifier needs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generators within the context: PyTorch's initialisers and dropout take no other."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def check_labels(labels: Tensor, n_classes: int) -> None:
    if labels.dtype != torch.int64 or labels.min() < 0 or labels.max() >= n_classes:
        got = f"{labels.dtype} from {labels.min():g} to {labels.max():g}"
        raise ValueError(f"expected int64 labels from 0 to {n_classes - 1}, got {got}")
