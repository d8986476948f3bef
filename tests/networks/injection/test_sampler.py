"""Noise that a sampler hands out to a layer."""

import pytest
import torch
from seeds import generator
from torch import nn

from neurovar.covariance import Dense
from neurovar.networks import inject


def noise() -> Dense:
    root = torch.randn(3, 3, generator=generator(1))
    return Dense(root @ root.mT + torch.eye(3))


@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("draws", [1, 4])
def test_a_sampler_gives_the_rows_of_its_covariance(draws: int, multiplicative: bool) -> None:
    """From one pass to the next, and from one context to the next."""
    sampler = noise().sampler(generator=generator(), block=7)
    rows = noise().sample((3 * draws * 5,), generator=generator()).view(3, draws, 5, 3)
    images = torch.rand(5, 3, generator=generator(2))
    model = nn.Sequential(nn.Identity())
    for expected in rows:
        options = {"draws": draws, "multiplicative": multiplicative}
        with inject(model, {"0": sampler}, generator=generator(9), **options):
            noisy = model(images).view(draws, 5, 3)
        torch.testing.assert_close(noisy, images * (1 + expected) if multiplicative else images + expected)


def test_gradients_pass_by_a_sampler() -> None:
    model, images = nn.Sequential(nn.Tanh(), nn.Linear(3, 1)), torch.rand(4, 3, requires_grad=True)
    with inject(model, {"0": noise().sampler(generator=generator(), block=4)}, generator=generator()):
        model(images).sum().backward()
    torch.testing.assert_close(images.grad, (1 - images.tanh().square()) * model[1].weight)


@pytest.mark.parametrize("option", ["fixed", "antithetic"])
def test_draws_that_a_sampler_cannot_repeat_are_refused(option: str) -> None:
    sampler = noise().sampler(generator=generator(), block=4)
    options = {option: True, "draws": 2}
    with (
        pytest.raises(ValueError, match="expected fixed or antithetic draws from covariances, got a sampler"),
        inject(nn.Sequential(nn.Identity()), {"0": sampler}, generator=generator(), **options),
    ):
        pass


def test_a_sampler_over_other_units_is_named() -> None:
    model, sampler = nn.Sequential(nn.Identity()), noise().sampler(generator=generator(), block=4)
    with (
        inject(model, {"0": sampler}, generator=generator()),
        pytest.raises(ValueError, match="expected a covariance over the 4 units of layer '0', got 3"),
    ):
        model(torch.rand(2, 4))
