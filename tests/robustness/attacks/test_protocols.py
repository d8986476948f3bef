"""Attacks by name under the settings of a protocol."""

import importlib
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurovar import robustness
from neurovar.covariance import Diagonal
from neurovar.robustness import ATTACKS
from neurovar.robustness.attacks import _protocols

HIDDEN, CLASSES = 8, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network() -> nn.Sequential:
    rng = generator()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng)
    return model


def batch(n: int = 40) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 4, 4, generator=generator(1)), torch.arange(n) % CLASSES


def noises() -> dict[str, Diagonal]:
    return {"2": Diagonal.isotropic(HIDDEN, variance=0.3)}


def test_the_honest_settings() -> None:
    """For noisy networks: step ≤ ε/4, 5 starts or more, K = 20, APGD with 100 steps, 5,000 queries of 5."""
    found = {name: robustness.settings(name, epsilon=0.08, protocol="noise_aware") for name in ATTACKS}
    assert found["pgd"] == {"step": 0.02, "n_steps": 40, "n_restarts": 5, "n_draws": 20}
    assert found["apgd"] == {"loss": "cross_entropy", "n_steps": 100, "n_restarts": 5, "n_draws": 20}
    assert found["square"] == {"n_queries": 5000, "n_draws": 5}
    assert all(options["n_draws"] == 20 for name, options in found.items() if name != "square")


def test_the_published_settings() -> None:
    found = {name: robustness.settings(name, epsilon=0.08, protocol="preble2026") for name in _protocols.PREBLE2026}
    assert found == {
        "fgm": {"n_draws": 1},
        "pgd": {"step": 0.1, "n_steps": 100, "n_draws": 1},
        "apgd": {"step": 0.1, "n_steps": 100, "n_restarts": 5, "n_draws": 1},
        "square": {"n_steps": 100, "p_init": 0.8, "n_draws": 1},
    }


class Carrying(nn.Module):
    """A network that adds its own noise, as that paper's code does: row after row of one generator's normals."""

    def __init__(self, model: nn.Sequential, sd: float, rng: torch.Generator) -> None:
        super().__init__()
        self.model, self.sd, self.rng = model, sd, rng

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.model[:3](x)
        normals = torch.randn(len(x), 16, generator=self.rng)[:, :HIDDEN]
        return self.model[3](hidden + self.sd * normals)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("name", ["fgm", "pgd"])
@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_the_published_attacks_are_the_toolboxs_draw_for_draw(name: str, noisy: bool, epsilon: float) -> None:
    """FGM of step ε, and PGD of step 0.1 without a random start, one draw a step, of which the last iterate counts."""
    evasion = pytest.importorskip("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    logging.getLogger("art").setLevel(logging.ERROR)
    model, (images, labels), n_steps = network(), batch(), 20
    theirs_to_run = Carrying(model, 0.3**0.5, generator(5)) if noisy else model
    classifier = estimators.PyTorchClassifier(
        theirs_to_run.eval(), nn.CrossEntropyLoss(), images.shape[1:], CLASSES, clip_values=(0, 1)
    )
    options: dict[str, Any] = {"eps": epsilon, "norm": np.inf, "batch_size": len(images)}
    if name == "fgm":
        made_by = evasion.FastGradientMethod(classifier, **options)
    else:
        options |= {"eps_step": 0.1, "max_iter": n_steps, "num_random_init": 0, "verbose": False}
        made_by = evasion.ProjectedGradientDescent(classifier, **options)
    theirs = made_by.generate(images.numpy(), labels.numpy())
    shorter = {} if name == "fgm" else {"n_steps": n_steps}
    given: dict[str, Any] = {"protocol": "preble2026", "generator": generator(5), "noises": noises() if noisy else {}}
    ours = robustness.attack(name, model.eval(), images, labels, epsilon=epsilon, **given, **shorter)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (ours - images).abs().max() == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "transfer"])
def test_an_attack_by_name_is_the_attack_with_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def noted(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        given.update(options)
        return images

    monkeypatch.setitem(ATTACKS, name, noted)
    model, (images, labels) = network(), batch()
    asked: dict[str, Any] = {"epsilon": 0.1, "generator": generator(), "protocol": "noise_aware"}
    robustness.attack(name, model, images, labels, noises=noises(), norm="l2", **asked)
    expected = robustness.settings(name, epsilon=0.1, protocol="noise_aware")
    assert expected.items() <= given.items()
    assert (given["epsilon"], given["norm"], list(given["noises"])) == (0.1, "l2", ["2"])
    robustness.attack(name, model, images, labels, noises=noises(), n_draws=3, **asked)
    assert given["n_draws"] == 3
    robustness.attack(name, model, images, labels, **asked)
    assert given["n_draws"] == 1  # without noise


def test_transfer_draws_the_noise_of_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setitem(ATTACKS, "transfer", lambda model, images, labels, **options: given.update(options) or images)
    asked: dict[str, Any] = {"epsilon": 0.1, "generator": generator(), "protocol": "noise_aware", "noises": noises()}
    robustness.attack("transfer", network(), *batch(), source=(network(), {}), **asked)
    assert given["n_draws"] == 1
    robustness.attack("transfer", network(), *batch(), source=(network(), noises()), **asked)
    assert given["n_draws"] == 20


@pytest.mark.parametrize("name", list(_protocols.PREBLE2026))
def test_every_published_attack_runs_on_a_noisy_network(name: str) -> None:
    model, (images, labels) = network(), batch()
    always = {"norm": "linf", "n_draws": 1, "loss": "cross_entropy", "average": "loss", "fixed": False}
    asked: dict[str, Any] = {"epsilon": 0.1, "protocol": "preble2026", "noises": noises()}
    first, second = (
        robustness.attack(name, model, images, labels, generator=generator(3), **asked, **extra)
        for extra in ({}, always)
    )
    assert torch.equal(first, second)
    assert 0.05 < (first - images).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("name", "protocol", "changed", "match"),
    [
        ("pdg", "noise_aware", {}, "expected an attack out of fgm, pgd, .*, got 'pdg'"),
        ("pgd", "honest", {}, "expected a protocol out of noise_aware, preble2026, got 'honest'"),
        (
            "random_search",
            "preble2026",
            {},
            "expected one of preble2026's attacks, fgm, pgd, apgd, square, got 'random",
        ),
        ("pgd", "preble2026", {"norm": "l2"}, "expected preble2026 with other values of .*n_steps.* at most, got norm"),
        ("pgd", "preble2026", {"n_draws": 20}, "expected preble2026 with other values of .* at most, got n_draws"),
        ("pgd", "preble2026", {"random_start": True}, "expected preble2026 .* at most, got random_start"),
        ("apgd", "preble2026", {"loss": "dlr"}, "expected preble2026 with other values of .* at most, got loss"),
    ],
)
def test_bad_requests_are_named(name: str, protocol: Any, changed: dict, match: str) -> None:
    asked: dict[str, Any] = {"epsilon": 0.1, "generator": generator(), "noises": noises()}
    with pytest.raises(ValueError, match=match):
        robustness.attack(name, network(), *batch(), protocol=protocol, **asked, **changed)
