"""FGM and PGD against the Adversarial Robustness Toolbox and torchattacks, and what noise changes."""

import importlib
import logging
from typing import Any

import numpy as np
import pytest
import torch
from attacked import run
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import NoisyNetwork, small_network, train
from neurovar.robustness import FGM, PGD, Objective, expected_loss
from neurovar.robustness.attacks import _pgd
from neurovar.robustness.attacks._climbing import climb
from neurovar.robustness.attacks._objective import Best

HIDDEN, CLASSES = 8, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ten blurred patterns, each dimmed at random and under strong pixel noise: 28 × 28."""
    patterns = nn.functional.interpolate(torch.rand(10, 1, 7, 7, generator=generator(99)), size=(28, 28))
    rng = generator(seed)
    labels = torch.randint(10, (n,), generator=rng)
    dimmed = patterns[labels] * (0.4 + 0.6 * torch.rand(n, 1, 1, 1, generator=rng))
    return (dimmed + 0.3 * torch.randn(n, 1, 28, 28, generator=rng)).clamp(0, 1), labels


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    images, labels = pictures(3000)
    return train(small_network(rng=0), images, labels, n_epochs=2, generator=generator())


@pytest.fixture(scope="module")
def shown() -> tuple[Tensor, Tensor]:
    return pictures(1000, seed=1)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def by_art(name: str, model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
    evasion = pytest.importorskip("art.attacks.evasion")
    estimators = importlib.import_module("art.estimators.classification")
    logging.getLogger("art").setLevel(logging.ERROR)
    network = estimators.PyTorchClassifier(model, nn.CrossEntropyLoss(), images.shape[1:], 10, clip_values=(0, 1))
    made = getattr(evasion, name)(network, **options).generate(images.numpy(), labels.numpy())
    model.eval()
    return torch.tensor(made)


STEPS = [("linf", np.inf, 0.1, 0.1), ("linf", np.inf, 0.15, 0.02), ("l2", 2, 1.5, 0.4), ("l2", 2, 0.5, 1.0)]


@pytest.mark.parametrize(("norm", "order", "epsilon", "step"), STEPS)
def test_pgd_takes_the_toolboxs_steps(
    norm: str, order: float, epsilon: float, step: float, trained: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    """Three steps from the image itself; more would let gradients that are 0 but for rounding grow apart."""
    images, labels = (part[:50] for part in shown)
    options = {"eps": epsilon, "eps_step": step, "max_iter": 3, "norm": order, "verbose": False}
    theirs = by_art("ProjectedGradientDescent", trained, images, labels, **options)
    settings: dict[str, Any] = {"norm": norm, "step": step, "n_steps": 3, "random_start": False}
    ours = run(PGD, trained, images, labels, epsilon=epsilon, generator=generator(), **settings)
    close = (ours - theirs).abs() < 2e-6 if norm == "linf" else (ours - theirs).abs() < 1e-4
    assert close.double().mean() > 0.9995
    assert (ours - images).abs().max() > 0.02
    assert (ours == 0).any()  # clipped


@pytest.mark.parametrize(("norm", "order", "epsilon"), [("linf", np.inf, 0.07), ("l2", 2, 1.0)])
def test_fgm_takes_the_toolboxs_step(
    norm: str, order: float, epsilon: float, trained: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    images, labels = (part[:50] for part in shown)
    theirs = by_art("FastGradientMethod", trained, images, labels, eps=epsilon, norm=order)
    ours = run(FGM, trained, images, labels, epsilon=epsilon, norm=norm, generator=generator())
    assert ((ours - theirs).abs() < 2e-5).double().mean() > 0.9995


@pytest.mark.parametrize(("norm", "epsilon", "step"), [("linf", 0.1, 0.03), ("l2", 1.5, 0.6)])
def test_pgd_takes_the_steps_of_torchattacks(
    norm: str, epsilon: float, step: float, trained: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    """Grey images, which L2 steps never clip: there the order of clipping and projecting is another."""
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = 0.3 + 0.4 * shown[0][:50], shown[1][:50]
    kind = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    theirs = kind(trained, eps=epsilon, alpha=step, steps=3, random_start=False)(images, labels)
    settings: dict[str, Any] = {"norm": norm, "step": step, "n_steps": 3, "random_start": False}
    ours = run(PGD, trained, images, labels, epsilon=epsilon, generator=generator(), **settings)
    assert ((ours - theirs).abs() < (2e-6 if norm == "linf" else 1e-4)).double().mean() > 0.9995


@pytest.mark.parametrize(("norm", "order", "epsilon"), [("linf", np.inf, 0.06), ("l2", 2, 1.5)])
def test_accuracy_under_pgd_is_the_toolboxs(
    norm: str, order: float, epsilon: float, trained: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    images, labels = shown
    options = {"eps": epsilon, "eps_step": epsilon / 4, "max_iter": 5, "norm": order, "verbose": False}
    theirs = accuracy(trained, by_art("ProjectedGradientDescent", trained, images, labels, **options), labels)
    settings: dict[str, Any] = {"norm": norm, "step": epsilon / 4, "n_steps": 5, "random_start": False}
    made = run(PGD, trained, images, labels, epsilon=epsilon, generator=generator(), **settings)
    assert 0.05 < theirs < 0.8 < accuracy(trained, images, labels)
    assert accuracy(trained, made, labels) == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm: str) -> None:
    """An image that needs no clipping, and a step too small to matter: radii of a uniform point in 16 dimensions."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().eval()
    images, labels = torch.full((4000, 1, 4, 4), 0.5, dtype=torch.float64), torch.zeros(4000, dtype=torch.int64)
    options: dict[str, Any] = {"norm": norm, "step": 1e-12, "n_steps": 1}
    change = run(PGD, model, images, labels, epsilon=0.4, generator=generator(), **options).flatten(1) - 0.5
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    uniform = (size / 0.4) ** 16  # share of the ball's volume within this radius
    assert uniform.mean().item() == pytest.approx(0.5, abs=5 / np.sqrt(12 * 4000))
    assert change.mean(0).abs().max() < 5 * 0.4 / np.sqrt(4000)


def test_l2_attacks_stay_in_the_ball_and_the_range_of_pixels() -> None:
    model, images = tanh_network(), torch.rand(20, 1, 3, 3, generator=generator(3), dtype=torch.float64).round()
    labels = torch.arange(20) % CLASSES
    for epsilon in (0.3, 5.0):
        made = run(
            PGD, model, images, labels, epsilon=epsilon, step=epsilon / 2, n_steps=5, norm="l2", generator=generator()
        )
        assert (made - images).flatten(1).norm(dim=1).max() <= epsilon * (1 + 1e-12)
        assert 0 <= made.min() <= made.max() <= 1


def test_l2_steps_follow_gradients_whose_squares_vanish() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    model[1].weight.data = 1e-30 * torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    images = torch.full((1, 1, 2, 2), 0.5)
    made = run(FGM, model, images, torch.tensor([0]), epsilon=0.1, norm="l2", generator=generator())
    direction = -torch.tensor([1.0, 2.0, 3.0, 4.0]) / 30**0.5
    torch.testing.assert_close((made - images).flatten(), 0.1 * direction)


def tanh_network(seed: int = 0) -> nn.Sequential:
    rng = generator(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)).double().eval()
    for parameter in model.parameters():
        parameter.data = 1.5 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return model


def batch(n: int) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 3, 3, generator=generator(1), dtype=torch.float64), torch.arange(n) % CLASSES


def test_images_stop_once_they_are_wrong() -> None:
    model, (images, labels) = tanh_network(), batch(200)
    options: dict[str, Any] = {"epsilon": 0.3, "step": 0.02, "random_start": False, "generator": generator()}
    stopped = run(PGD, model, images, labels, n_steps=25, early_stopping=True, **options)
    expected, wrong = images.clone(), torch.zeros(200, dtype=torch.bool)
    for n_steps in range(1, 26):
        wrong |= model(expected).argmax(1) != labels
        iterate = run(PGD, model, images, labels, n_steps=n_steps, **options)
        expected = torch.where(wrong[:, None, None, None], expected, iterate)
    torch.testing.assert_close(stopped, expected)
    last = run(PGD, model, images, labels, n_steps=25, **options)
    assert accuracy(model, stopped, labels) <= accuracy(model, last, labels) < accuracy(model, images, labels)
    assert (stopped - last).abs().amax((1, 2, 3)).gt(0.01).any()


def test_early_stopping_needs_a_network_without_noise() -> None:
    options: dict[str, Any] = {"epsilon": 0.3, "step": 0.02, "n_steps": 2, "generator": generator()}
    noises = {"2": Diagonal.isotropic(HIDDEN)}
    with pytest.raises(ValueError, match="expected early_stopping only without noise, got noise at 2, under which"):
        run(PGD, tanh_network(), *batch(4), noises=noises, early_stopping=True, **options)


def test_a_misclassified_candidate_is_kept_before_one_of_higher_loss() -> None:
    """The images are their logits; the true class is 0. One almost as probable as two others has the higher loss."""
    right, wrong, worse = ([0.0, -0.1, -0.1], [0.0, 0.1, -20.0], [0.0, 0.3, -20.0])
    labels, flat = torch.zeros(4, dtype=torch.int64), NoisyNetwork(nn.Flatten().eval(), images=torch.zeros(1, 1, 1, 3))
    orders = [(right, wrong, worse), (wrong, right, worse), (wrong, worse, right), (worse, wrong, right)]
    best = Best(Objective(flat, generator=generator()), labels)
    for offered in zip(*orders):
        best.offer(torch.tensor(offered)[:, None, None])
    assert torch.equal(best.images[:, 0, 0], torch.tensor([worse] * 4))
    assert best.wrong.all()
    torch.testing.assert_close(best.loss, torch.full((4,), float(np.log1p(np.exp(0.3)))))
    first_two = Best(Objective(flat, generator=generator()), labels[:1])
    for logits in (right, wrong):
        first_two.offer(torch.tensor(logits)[None, None, None])
    assert first_two.loss < np.log(3) - 0.3  # below that of the other
    assert torch.equal(first_two.images[0, 0, 0], torch.tensor(wrong))


@pytest.mark.parametrize("n_draws", [1, 20])
def test_on_a_noisy_network_the_best_iterate_is_worth_more_than_the_last(n_draws: int) -> None:
    """Steps far too long: the last iterate is no better than any other."""
    model, (images, labels) = tanh_network(), batch(150)
    noises = {"2": Diagonal.isotropic(HIDDEN, variance=0.5)}
    options: dict[str, Any] = {"epsilon": 0.3, "step": 0.6, "n_steps": 15, "n_draws": n_draws, "noises": noises}

    NoisyNetwork(model, noises, images=images)

    def mean_loss(last_iterate: bool, seed: int) -> float:
        with pytest.MonkeyPatch.context() as patch:
            if last_iterate:
                patch.setattr(_pgd, "climb", lambda *args, last_only: climb(*args, last_only=True))
            made = run(PGD, model, images, labels, generator=generator(seed), **options)
        with torch.no_grad():
            return (
                expected_loss(
                    NoisyNetwork(model, noises, images=images), made, labels, n_draws=400, generator=generator(7)
                )
                .mean()
                .item()
            )

    assert min(mean_loss(False, seed) for seed in range(3)) > max(mean_loss(True, seed) for seed in range(3))


def test_what_decides_is_on_draws_that_no_candidate_was_chosen_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chosen candidate, the loss that chose it is too high; what the attack judges by is not."""
    model, (images, labels) = tanh_network(), batch(300)
    noises = {"2": Diagonal.isotropic(HIDDEN, variance=2.0)}
    seen: dict[str, list[Tensor]] = {"climbed": [], "judged": []}
    value_and_gradient, of = Objective.value_and_gradient, Objective.of

    def climbing(self: Objective, *args: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = value_and_gradient(self, *args)
        seen["climbed"].append(found[0])
        return found

    def judging(self: Objective, *args: Any) -> Tensor:
        loss = of(self, *args)
        if not torch.is_grad_enabled():
            seen["judged"].append(loss)
        return loss

    monkeypatch.setattr(Objective, "value_and_gradient", climbing)
    monkeypatch.setattr(Objective, "of", judging)
    options: dict[str, Any] = {"epsilon": 1e-6, "step": 1e-7, "n_steps": 40, "noises": noises}
    run(PGD, model, images, labels, generator=generator(), **options)
    luckiest, judged = torch.stack(seen["climbed"]).amax(0).mean(), seen["judged"][0].mean()
    with torch.no_grad():
        truth = (
            expected_loss(
                NoisyNetwork(model, noises, images=images), images, labels, n_draws=1000, generator=generator(8)
            )
            .mean()
            .item()
        )
    assert judged.item() == pytest.approx(truth, rel=0.1)
    assert luckiest > 1.5 * truth
