"""Images made on a source: those of the attack itself there, whatever the network that they are for."""

from typing import Any

import pytest
import torch
from attacked import BAD_INPUT, Stepwise, accuracy, bad_arguments, batch, generator, linear, noise, tanh_network
from torch import nn

from neurovar.robustness import apgd, fgm, pgd, square, transfer

OPTIONS: dict[str, dict[str, Any]] = {
    "fgm": {},
    "pgd": {"step": 0.02, "n_steps": 5},
    "apgd": {"n_steps": 12},
    "square": {"n_queries": 15},
}
ATTACKS = {"fgm": fgm, "pgd": pgd, "apgd": apgd, "square": square}


@pytest.mark.parametrize("attack", OPTIONS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_images_are_those_made_on_the_source(attack: str, norm: str) -> None:
    source, target = tanh_network(seed=1), tanh_network(seed=2)
    images, labels = batch(target)
    options = OPTIONS[attack] | {"epsilon": 0.06, "norm": norm}
    expected = ATTACKS[attack](source, images, labels, generator=generator(), **options)
    ours = transfer(target, images, labels, source=(source, {}), attack=attack, generator=generator(), **options)
    assert torch.equal(ours, expected)
    assert not torch.equal(ours, images)


def test_draws_are_those_of_the_source() -> None:
    model, noises = tanh_network(), noise()
    images, labels = batch(model)
    options: dict[str, Any] = {"epsilon": 0.06, "n_steps": 5, "n_draws": 3, "average": "logits", "fixed": True}
    expected = apgd(model, images, labels, noises=noises, generator=generator(), **options)
    twin = tanh_network()
    ours = transfer(twin, images, labels, source=(model, noises), attack="apgd", generator=generator(), **options)
    assert torch.equal(ours, expected)


def test_images_of_the_twin_fool_a_noisy_network_more_than_those_that_barely_fool_the_twin() -> None:
    model, noises = tanh_network(), noise(variance=0.05)
    images, labels = batch(model, n=200)
    options: dict[str, Any] = {"epsilon": 0.1, "n_steps": 20}
    far = transfer(
        model, images, labels, source=(model, {}), attack="apgd", noises=noises, generator=generator(), **options
    )
    barely = apgd(model, images, labels, early_stopping=True, generator=generator(), **options)
    added = 0.05**0.5 * torch.randn(200, 8, generator=generator(3)).double()

    def noisy_accuracy(attacked: torch.Tensor) -> float:
        with torch.no_grad():
            logits = model[3](model[2](model[1](attacked.flatten(1)) + added))
        return (logits.argmax(1) == labels).double().mean().item()

    assert noisy_accuracy(far) < noisy_accuracy(barely) < noisy_accuracy(images)


def test_the_network_itself_needs_no_gradient() -> None:
    images = torch.rand(20, 1, 5, 5, generator=generator())
    target, source = Stepwise().eval(), nn.Sequential(nn.Flatten(), nn.Linear(25, 4)).eval()
    source[1].weight.data = 10 * torch.eye(4, 25)
    labels = target(images).argmax(1)
    attacked = transfer(
        target, images, labels, epsilon=0.4, source=(source, {}), attack="apgd", n_steps=10, generator=generator()
    )
    assert accuracy(target, attacked, labels) < 0.3


@pytest.mark.parametrize(("changes", "match"), BAD_INPUT)
def test_bad_input_is_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        transfer(**{"source": (linear().eval(), {}), "attack": "fgm"} | bad_arguments(dict(changes)))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (linear(training=True), "expected a model in eval mode"),
        (linear(probabilities=True), "expected logits, got rows that are not negative and sum to one"),
        (nn.Sequential(nn.Flatten(), nn.Linear(25, 2)).eval(), "expected labels from 0 to 1, got 0 to 3"),
    ],
)
def test_a_bad_source_is_named(source: nn.Module, match: str) -> None:
    arguments = bad_arguments({"labels": torch.tensor([0, 3, 1])})
    with pytest.raises(ValueError, match=match):
        transfer(**arguments, source=(source, {}), attack="fgm")


def test_an_attack_that_cannot_be_transferred_is_named() -> None:
    with pytest.raises(ValueError, match="expected an attack out of fgm, pgd, apgd, square, got 'random_search'"):
        transfer(**bad_arguments({}), source=(linear(), {}), attack="random_search", n_queries=3)
