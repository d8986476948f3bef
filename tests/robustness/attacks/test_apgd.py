"""APGD against AutoAttack's, torchattacks' and the Adversarial Robustness Toolbox's, and what noise demands of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from attacked import (
    accuracy,
    batch,
    fashion,
    generator,
    mean_loss,
    needs_fashion_mnist,
    noise,
    run,
    tanh_network,
)
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import NoisyNetwork, inject
from neurovar.robustness import APGD, Loss, Objective
from neurovar.robustness.attacks import _apgd, _preble2026
from neurovar.robustness.attacks._objective import Best
from neurovar.robustness.attacks._preble2026 import ToolboxAPGD

NORMS = {"linf": ("Linf", 0.04), "l2": ("L2", 0.25)}
LOSSES = {"cross_entropy": "ce", "dlr": "dlr"}


@pytest.fixture
def double() -> Iterator[None]:
    """Every number in float64, AutoAttack's own too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def autoattack(model: nn.Module, loss: str = "cross_entropy", **options: Any) -> Any:
    module = pytest.importorskip("autoattack.autopgd_pt")
    if loss == "targeted_dlr":
        return module.APGDAttack_targeted(model, device="cpu", **options)
    return module.APGDAttack(model, device="cpu", loss=LOSSES[loss], **options)


@pytest.mark.filterwarnings("ignore:size_average")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_steps", [1, 3, 8, 50])
@pytest.mark.usefixtures("double")
def test_the_best_iterate_is_that_of_autoattack(norm: str, loss: str, n_steps: int) -> None:
    model = tanh_network()
    images, labels = batch(model)
    name, epsilon = NORMS[norm]
    reference = autoattack(model, loss, n_iter=n_steps, norm=name, eps=epsilon)
    torch.manual_seed(3)
    expected, _, best_loss, _ = reference.attack_single_run(images, labels)
    ours = run(
        APGD,
        model,
        images,
        labels,
        epsilon=epsilon,
        n_steps=n_steps,
        loss=loss,
        norm=norm,
        generator=generator(3),
    )
    below = best_loss < 1 - 1e-9 if loss == "dlr" else best_loss > 0  # DLR is at most 1, where its gradient is rounding
    assert below.sum() > 5
    torch.testing.assert_close(ours[below], expected[below], rtol=0, atol=1e-8)


@needs_fashion_mnist
@pytest.mark.filterwarnings("ignore:size_average", "ignore:the gradient is exactly zero")
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.04), ("l2", 0.6)])
@pytest.mark.parametrize(
    ("loss", "n_steps", "n_restarts"), [("cross_entropy", 15, 2), ("dlr", 15, 1), ("targeted_dlr", 5, 1)]
)
def test_accuracy_on_1000_images_is_that_of_autoattack(
    norm: str, epsilon: float, loss: str, n_steps: int, n_restarts: int
) -> None:
    model, images, labels = fashion()
    reference = autoattack(model, loss, n_iter=n_steps, n_restarts=n_restarts, norm=NORMS[norm][0], eps=epsilon)
    expected = reference.perturb(images, labels)[0].double().mean().item()
    options = {"n_steps": n_steps, "n_restarts": n_restarts, "loss": loss, "norm": norm, "early_stopping": True}
    attacked = run(APGD, model, images, labels, epsilon=epsilon, generator=generator(), **options)
    assert accuracy(model, images, labels) > expected + 0.1
    assert accuracy(model, attacked, labels) == pytest.approx(expected, abs=0.005)
    change = (attacked - images).flatten(1)
    assert torch.linalg.vector_norm(change, ord=2 if norm == "l2" else torch.inf, dim=1).max() < epsilon * (1 + 1e-5)
    assert attacked.min() >= 0
    assert attacked.max() <= 1


@needs_fashion_mnist
@pytest.mark.filterwarnings("ignore:the gradient is exactly zero")
def test_accuracy_is_that_of_torchattacks_and_of_the_adversarial_robustness_toolbox() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    art = pytest.importorskip("art.attacks.evasion.auto_projected_gradient_descent")
    model, images, labels = fashion()
    options: dict[str, Any] = {"eps": 0.04}
    theirs = [
        torchattacks.APGD(model, steps=20, **options)(images, labels),
        torch.tensor(
            art.AutoProjectedGradientDescent(
                toolbox(model), eps_step=0.08, max_iter=20, nb_random_init=1, verbose=False, batch_size=1000, **options
            ).generate(images.numpy(), labels.numpy())
        ),
    ]
    ours = accuracy(model, run(APGD, model, images, labels, epsilon=0.04, n_steps=20, generator=generator()), labels)
    for other in theirs:
        assert ours == pytest.approx(accuracy(model, other, labels), abs=0.005)


class Whole(nn.Module):
    """A network that the Toolbox does not take apart."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def toolbox(model: nn.Module) -> Any:
    """The Toolbox's classifier."""
    art = pytest.importorskip("art.estimators.classification")
    return art.PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10, clip_values=(0, 1)
    )


def test_survivors_are_the_same_whatever_is_left_out_on_the_way() -> None:
    model = tanh_network()
    images, labels = batch(model, n=60)
    options = {"epsilon": 0.03, "n_steps": 30}
    stopped, whole = (
        run(APGD, model, images, labels, generator=generator(), early_stopping=early, **options)
        for early in (True, False)
    )
    survived = model(stopped).argmax(1) == labels
    assert 10 < survived.sum() < 50
    torch.testing.assert_close(stopped[survived], whole[survived], rtol=0, atol=1e-12)
    assert mean_loss(model, stopped, labels, {}, 1).mean() < mean_loss(model, whole, labels, {}, 1).mean()
    assert (stopped != images).flatten(1).any(1).all()


def test_an_image_is_attacked_only_until_the_network_gets_it_wrong() -> None:
    model = Counting(tanh_network())
    images, labels = batch(model, n=40)
    labels[:5] = (labels[:5] + 1) % 5
    model.rows.clear()
    attacked = run(
        APGD, model, images, labels, epsilon=0.05, n_steps=20, n_restarts=2, early_stopping=True, generator=generator()
    )
    assert torch.equal(attacked[:5], images[:5])
    with_gradient = [rows for rows, gradient in model.rows if gradient]
    assert with_gradient[0] == 35
    assert with_gradient == sorted(with_gradient, reverse=True)
    assert with_gradient[-1] == accuracy(model, attacked, labels) * 40 < 35


class Counting(nn.Module):
    """Notes how many rows each pass has, and whether it is one for a gradient."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model
        self.rows: list[tuple[int, bool]] = []
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append((len(x), x.requires_grad))
        return self.model(x)


@pytest.mark.parametrize("follows", ["averaged", "mean_logits"])
def test_a_noisy_network_is_attacked_to_the_end_and_judged_on_fresh_draws(follows: str) -> None:
    model = Counting(tanh_network())
    images, labels = batch(model, n=6)
    model.rows.clear()
    noises = {f"model.{name}": one for name, one in noise().items()}
    options = {"n_steps": 10, "n_restarts": 2, "n_draws": 3, "follows": follows}
    run(APGD, model, images, labels, epsilon=0.5, noises=noises, generator=generator(), **options)
    assert [rows for rows, gradient in model.rows if gradient] == [6] * 22


@pytest.mark.parametrize("fixed", [False, True])
def test_noise_that_is_next_to_nothing_changes_next_to_nothing(fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the checkpoints, where only the ascent on a noise-free network goes back."""
    monkeypatch.setattr(_apgd._Ascent, "checkpoint", lambda *arguments, **options: None)
    model = tanh_network()
    images, labels = batch(model)
    options: dict[str, Any] = {"epsilon": 0.03, "n_steps": 9}
    noises = noise(variance=1e-20)
    options["follows"] = "fixed" if fixed else "averaged"
    noisy = run(APGD, model, images, labels, n_draws=3, noises=noises, generator=generator(3), **options)
    rng = generator(3)
    if fixed:
        torch.randint(2**63 - 1, (), generator=rng)  # the seed of the fixed draw
    clean = run(APGD, model, images, labels, generator=rng, **options)
    same = (noisy - clean).abs().flatten(1).amax(1) < 1e-6  # the rest took their last iterate, which is wrong
    assert same.sum() >= 8


def test_more_draws_raise_the_mean_loss_of_a_noisy_network() -> None:
    model, noises = tanh_network(gain=3), noise(variance=4)
    images, labels = batch(model, n=100)
    options: dict[str, Any] = {"epsilon": 0.05, "n_steps": 20, "noises": noises}
    reached = [
        mean_loss(model, run(APGD, model, images, labels, n_draws=k, generator=generator(), **options), labels, noises)
        for k in (1, 5, 50)
    ]
    clean = mean_loss(model, images, labels, noises)
    rises = [float((loss - clean).mean()) for loss in reached]
    assert 0 < rises[0] < rises[1] < rises[2]


@pytest.mark.parametrize("change", ["back to the best", "without the last"])
def test_a_noisy_network_is_not_attacked_by_luck(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does the ascent go back to its best iterate, the luckiest one, nor is that the only candidate."""
    model, noises = tanh_network(gain=3), noise(variance=4)
    images, labels = batch(model, n=100)

    def reached() -> float:
        attacked = run(APGD, model, images, labels, epsilon=0.05, n_steps=40, noises=noises, generator=generator())
        return float(mean_loss(model, attacked, labels, noises).mean())

    ours = reached()
    checkpoint, climb = _apgd._Ascent.checkpoint, APGD._climb
    if change == "back to the best":
        monkeypatch.setattr(_apgd._Ascent, "checkpoint", lambda climb, n_steps, back: checkpoint(climb, n_steps, True))
    else:
        monkeypatch.setattr(APGD, "_climb", lambda *arguments: climb(*arguments)[:1])
    assert ours > reached() + 0.01


def test_restarts_raise_the_loss() -> None:
    model = tanh_network(gain=4)
    images, labels = batch(model, n=60)
    options: dict[str, Any] = {"epsilon": 0.05, "n_steps": 6}
    one, five = (
        mean_loss(
            model, run(APGD, model, images, labels, n_restarts=n, generator=generator(), **options), labels, {}, 1
        )
        for n in (1, 5)
    )
    assert (five >= one - 1e-12).all()
    assert (five > one + 1e-3).sum() > 5


@pytest.mark.filterwarnings("ignore:the gradient is exactly zero")
def test_targets_come_in_the_order_of_their_logits() -> None:
    """The logits of classes 1 and 2 fall with pixel 0 that the image has; only class 3 can be reached, the third."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4)).eval()
    model[1].weight.data = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 8, 0, 0]])
    model[1].bias.data = torch.tensor([3.0, 2.0, 1.0, -0.5])
    images, labels = torch.full((2, 1, 2, 2), 0.1), torch.tensor([0, 0])
    options: dict[str, Any] = {"epsilon": 0.5, "n_steps": 5, "loss": "targeted_dlr"}
    accuracies = [
        accuracy(model, run(APGD, model, images, labels, n_targets=n, generator=generator(), **options), labels)
        for n in (1, 2, 3, 9)
    ]
    assert accuracies[2:] == [0, 0]
    assert accuracies[0] > 0


@pytest.mark.parametrize(
    ("loss", "judged"), [("cross_entropy", "cross_entropy"), ("dlr", "dlr"), ("targeted_dlr", "dlr")]
)
def test_restarts_are_compared_by_the_loss_that_they_raise(
    loss: str, judged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Towards several targets, by what they have in common."""
    losses: list[Loss] = []

    def best(objective: Objective, labels: Tensor, *, loss: Loss) -> Best:
        losses.append(loss)
        return Best(objective, labels, loss=loss)

    monkeypatch.setattr(_apgd, "Best", best)
    model = tanh_network()
    run(APGD, model, *batch(model), epsilon=0.1, n_steps=2, loss=loss, generator=generator())
    assert losses == [judged]


@pytest.mark.parametrize("n_targets", [2, 9])
def test_the_true_class_is_no_target(n_targets: int) -> None:
    model = tanh_network()
    model[3].bias.data -= 100
    images, _ = batch(model, n=20)
    labels = torch.arange(20) % 5  # most of them wrong
    objective = Objective(NoisyNetwork(model, images=images), loss="targeted_dlr", generator=generator())
    attack = APGD(0.1, loss="targeted_dlr", n_targets=n_targets)
    targets = torch.stack(list(attack._targets(objective, images, labels)), 1).tolist()
    for logits, label, found in zip(model(images).tolist(), labels.tolist(), targets):
        others = sorted(set(range(5)) - {label}, key=lambda k, logits=logits: -logits[k])
        assert found == others[:n_targets]


@pytest.mark.parametrize("norm", NORMS)
def test_accuracy_falls_to_zero_as_epsilon_grows(norm: str) -> None:
    model, noises = tanh_network(), noise(variance=0.01)
    images, labels = batch(model, n=100)
    for options in ({}, {"noises": noises, "n_draws": 5}):
        falling = [
            accuracy(
                model,
                run(APGD, model, images, labels, epsilon=e, n_steps=20, norm=norm, generator=generator(), **options),
                labels,
            )
            for e in ((0.001, 0.03, 0.5) if norm == "linf" else (0.01, 0.2, 4.0))
        ]
        assert falling[0] > 0.9 > falling[1] > 0.1 > falling[2] == 0


@pytest.mark.parametrize(("loss", "n_classes", "least"), [("dlr", 2, 3), ("targeted_dlr", 3, 4)])
def test_too_few_classes_for_a_ratio_of_logits(loss: str, n_classes: int, least: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, n_classes)).eval()
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match=f"expected at least {least} classes for the loss {loss}, got {n_classes}"):
        run(APGD, model, images, labels, epsilon=0.1, n_steps=2, loss=loss, generator=generator())


@needs_fashion_mnist
def test_preble2026_gives_the_images_of_the_toolbox(monkeypatch: pytest.MonkeyPatch) -> None:
    art = pytest.importorskip("art.attacks.evasion.auto_projected_gradient_descent")
    model, images, labels = (one[:150] if isinstance(one, Tensor) else one for one in fashion())
    epsilon, rng = 0.04, generator()

    def offset(n: int, *rest: object) -> np.ndarray:
        return (epsilon * (2 * torch.rand(n, 784, generator=rng) - 1)).numpy()

    monkeypatch.setattr(art, "random_sphere", offset)
    attack = art.AutoProjectedGradientDescent(toolbox(model), eps=epsilon, max_iter=30, nb_random_init=2, verbose=False)
    expected = attack.generate(images.numpy(), labels.numpy())
    options = {"n_steps": 30, "n_restarts": 2}
    ours = run(ToolboxAPGD, model, images, labels, epsilon=epsilon, generator=generator(), **options)
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert 0.3 < accuracy(model, ours, labels) < 0.7


@needs_fashion_mnist
def test_preble2026_treats_a_noisy_network_as_the_toolbox_does() -> None:
    art = pytest.importorskip("art.attacks.evasion.auto_projected_gradient_descent")
    model, images, labels = (one[:400] if isinstance(one, Tensor) else one for one in fashion())
    noises = {"1": Diagonal.isotropic(32, variance=4.0)}
    options: dict[str, Any] = {"verbose": False, "max_iter": 15, "nb_random_init": 2}
    rates = []
    with inject(model, noises, generator=generator(1)):
        theirs = art.AutoProjectedGradientDescent(toolbox(Whole(model)), eps=0.1, **options).generate(
            images.numpy(), labels.numpy()
        )
    ours = run(
        ToolboxAPGD, model, images, labels, epsilon=0.1, n_steps=15, n_restarts=2, noises=noises, generator=generator(2)
    )
    for attacked in (torch.tensor(theirs), ours):
        with torch.no_grad(), inject(model, noises, generator=generator(3), draws=20):
            right = model(attacked).argmax(1).view(20, -1) == labels
        at_the_edge = ((attacked - images).abs() > 0.0999).flatten(1).double().mean()
        rates.append((right.double().mean().item(), at_the_edge.item()))
    standard_error = np.sqrt(2 * 0.25 / len(images))
    assert rates[1] == pytest.approx(rates[0], abs=3 * standard_error)
    assert rates[1] == pytest.approx(rates[0], abs=0.03)


def test_preble2026_stops_a_batch_whose_losses_are_all_zero() -> None:
    zero = torch.arange(70) >= 32
    zero[40] = False
    over = _preble2026._whole_batches(zero)
    assert over.tolist() == [False] * 64 + [True] * 6


@pytest.mark.parametrize("n_steps", [1, 10, 100, 1000])
def test_preble2026_looks_at_the_steps_that_the_paper_lists(n_steps: int) -> None:
    """p₀ = 0, p₁ = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), up to 1."""
    percent = [0, 22, 41, 57, 70, 80, 87, 93, 99]
    exact = [share * n_steps / 100 for share in percent]
    found = _preble2026._checkpoints(n_steps)
    assert all(up - 1e-9 <= at <= np.ceil(up) + 1 for at, up in zip(found, exact, strict=True))


@pytest.mark.gpu
def test_on_a_gpu_the_attack_is_as_strong() -> None:
    model, noises = tanh_network(), noise(variance=0.1)
    images, labels = batch(model, n=50)
    options: dict[str, Any] = {"epsilon": 0.05, "n_steps": 10, "n_draws": 4, "generator": generator(), "noises": noises}
    on_cpu = run(APGD, model, images, labels, **options)
    expected = mean_loss(model, on_cpu, labels, noises).mean().item()
    attacked = run(APGD, model.cuda(), images.cuda(), labels.cuda(), **options)
    assert attacked.is_cuda
    assert mean_loss(model, attacked, labels.cuda(), noises).mean().item() == pytest.approx(expected, rel=0.1)
