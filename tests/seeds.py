"""Generators of random numbers from a seed, for all tests."""

import torch


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    """A new generator that starts at the seed."""
    return torch.Generator(device).manual_seed(seed)
