"""Randomness of PyTorch's own that takes no generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generators within the context, and put them back after it.

    PyTorch's initialisers and dropout draw from the default generators and take no other.

    Parameters
    ----------
    seed : int
        For the generators of the CPU and of every GPU.

    Examples
    --------
    >>> with seeded(0):
    ...     first = torch.nn.Linear(2, 2).weight
    >>> with seeded(0):
    ...     bool((torch.nn.Linear(2, 2).weight == first).all())
    True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
