"""The attacks of Preble et al. 2026 against the Adversarial Robustness Toolbox, draw for draw."""

import importlib
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import NoisyNetwork
from neurovar.robustness import APGD, FGM, PGD, Attack, Square

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
    attack = FGM.preble2026(epsilon) if name == "fgm" else PGD.preble2026(epsilon, n_steps=n_steps)
    carrier = NoisyNetwork(model.eval(), noises() if noisy else {}, images=images)
    ours = attack(carrier, images, labels, generator=generator(5))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (ours - images).abs().max() == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize(
    ("attack", "settings"),
    [
        (FGM, {}),
        (PGD, {"n_steps": 100, "step": 0.1}),
        (APGD, {"n_steps": 100, "n_restarts": 5, "step": 0.1}),
        (Square, {"n_steps": 100}),
    ],
)
def test_the_published_settings(attack: Any, settings: dict[str, float]) -> None:
    published: Attack = attack.preble2026(0.08)
    described = published.described()
    assert {name: described[name] for name in settings} == settings
    assert (described["n_draws"], described["norm"], described["protocol"]) == (1, "linf", "preble2026")
    for changes in ({"norm": "l2"}, {"n_draws": 20}, {"follows": "mean_logits"}):
        with pytest.raises(ValueError, match="expected an attack of preble2026 in linf with n_draws=1"):
            type(published)(0.08, **changes)
