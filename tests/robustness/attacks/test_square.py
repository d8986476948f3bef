"""Square against AutoAttack's and the Adversarial Robustness Toolbox's, and what noise demands of it."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from attacked import (
    Stepwise,
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

from neurovar.covariance import Dense, Diagonal
from neurovar.networks import inject
from neurovar.robustness import APGD, Objective, Square
from neurovar.robustness.attacks import _square
from neurovar.robustness.attacks._preble2026 import ToolboxSquare

NAMES = {"linf": "Linf", "l2": "L2"}


def autoattack(model: nn.Module, norm: str, **options: Any) -> Any:
    return pytest.importorskip("autoattack.square").SquareAttack(model, norm=NAMES[norm], **options)


@needs_fashion_mnist
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.05), ("l2", 0.8)])
@pytest.mark.parametrize("p_init", [0.8, 0.3])
def test_one_image_is_attacked_as_by_autoattack(norm: str, epsilon: float, p_init: float) -> None:
    model, images, labels = fashion()
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)[:8]
    survived = 0
    for image, label in zip(images[right].split(1), labels[right].split(1)):
        options: dict[str, Any] = {"n_queries": 80, "p_init": p_init}
        expected = autoattack(model, norm, eps=epsilon, seed=4, **options).perturb(image, label)
        ours = run(
            Square,
            model,
            image,
            label,
            epsilon=epsilon,
            norm=norm,
            early_stopping=True,
            generator=generator(4),
            **options,
        )
        if model(ours).argmax() == label:
            survived += 1
            assert torch.equal(expected, image)
        else:
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert 0 < survived < 8


@pytest.mark.parametrize("norm", NAMES)
def test_images_do_not_know_of_each_other(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch in which each image has random numbers of its own."""
    model = tanh_network()
    images, labels = batch(model, n=6)
    options: dict[str, Any] = {
        "epsilon": 0.05 if norm == "linf" else 0.5,
        "n_queries": 40,
        "norm": norm,
        "early_stopping": True,
    }
    alone = [
        run(Square, model, image, label, generator=generator(seed), **options)
        for seed, (image, label) in enumerate(zip(images.split(1), labels.split(1)))
    ]
    rngs = [generator(seed) for seed in range(6)]

    def uniform(moves: object, n: int, *shape: int) -> Tensor:
        return torch.cat([torch.rand(1, *shape, generator=rng) for rng in rngs]).double()

    monkeypatch.setattr(_square._Windows, "uniform", uniform)
    together = run(Square, model, images, labels, generator=generator(), **options)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


@needs_fashion_mnist
@pytest.mark.parametrize(("norm", "epsilon", "n_queries"), [("linf", 0.05, 60), ("l2", 0.8, 40)])
def test_accuracy_on_1000_images_is_that_of_autoattack(norm: str, epsilon: float, n_queries: int) -> None:
    """AutoAttack moves the same window in every image of a batch, ours one of its own: so small batches, and means."""
    model, images, labels = fashion()
    theirs, ours = [], []
    for seed in range(2):
        for chunk in range(0, 1000, 50):
            attack = autoattack(model, norm, eps=epsilon, n_queries=n_queries, seed=1000 * seed + chunk)
            some, known = images[chunk : chunk + 50], labels[chunk : chunk + 50]
            theirs.append(accuracy(model, attack.perturb(some, known), known))
        attacked = run(
            Square,
            model,
            images,
            labels,
            epsilon=epsilon,
            norm=norm,
            n_queries=n_queries,
            early_stopping=True,
            generator=generator(seed),
        )
        ours.append(accuracy(model, attacked, labels))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.005)
    assert np.mean(ours) < accuracy(model, images, labels) - 0.03
    change = (attacked - images).flatten(1)
    assert torch.linalg.vector_norm(change, ord=2 if norm == "l2" else torch.inf, dim=1).max() < epsilon * (1 + 1e-5)
    assert attacked.min() >= 0
    assert attacked.max() <= 1


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 24, 20), (1, 5, 5), (3, 9, 30)])
@pytest.mark.parametrize("norm", NAMES)
def test_images_of_any_shape_stay_within_epsilon(norm: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(4, *shape, generator=generator())
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 5)).eval()
    labels = model(images).argmax(1)
    epsilon = 0.2 if norm == "linf" else 1.5
    for p_init in (1.0, 0.01):
        attacked = run(
            Square,
            model,
            images,
            labels,
            epsilon=epsilon,
            n_queries=30,
            p_init=p_init,
            norm=norm,
            generator=generator(),
        )
        change = (attacked - images).flatten(1)
        size = torch.linalg.vector_norm(change, ord=2 if norm == "l2" else torch.inf, dim=1)
        assert (size < epsilon * (1 + 1e-5)).all()
        assert (size > epsilon / 3).sum() >= 2
        assert (attacked >= 0).all() and (attacked <= 1).all()


def test_survivors_are_the_same_whatever_is_left_out_on_the_way() -> None:
    model = tanh_network()
    images, labels = batch(model, n=60)
    stopped, whole = (
        run(Square, model, images, labels, epsilon=0.06, n_queries=60, early_stopping=early, generator=generator())
        for early in (True, False)
    )
    survived = model(stopped).argmax(1) == labels
    assert 10 < survived.sum() < 50
    assert torch.equal(stopped[survived], whole[survived])
    assert accuracy(model, whole, labels) == accuracy(model, stopped, labels)
    assert mean_loss(model, stopped, labels, {}, 1).mean() < mean_loss(model, whole, labels, {}, 1).mean()


def test_images_that_are_wrong_already_stay_as_they_are() -> None:
    model = tanh_network()
    images, labels = batch(model)
    labels[:3] = (labels[:3] + 1) % 5
    attacked = run(Square, model, images, labels, epsilon=0.1, n_queries=20, early_stopping=True, generator=generator())
    assert torch.equal(attacked[:3], images[:3])


def test_more_queries_and_restarts_raise_the_loss() -> None:
    model = tanh_network(gain=4)
    images, labels = batch(model, n=60)

    def reached(**options: int) -> Tensor:
        attacked = run(Square, model, images, labels, epsilon=0.05, generator=generator(), **options)
        return mean_loss(model, attacked, labels, {}, 1).mean()

    assert reached(n_queries=5) < reached(n_queries=50) < reached(n_queries=500)
    assert reached(n_queries=20) < reached(n_queries=20, n_restarts=5)


def test_gradients_beat_it() -> None:
    model = tanh_network()
    images, labels = batch(model, n=100)
    black_box = run(Square, model, images, labels, epsilon=0.05, n_queries=100, generator=generator())
    white_box = run(APGD, model, images, labels, epsilon=0.05, n_steps=20, generator=generator())
    assert accuracy(model, white_box, labels) < accuracy(model, black_box, labels) < 1


def test_needs_no_gradient() -> None:
    images = torch.rand(20, 1, 6, 6, generator=generator())
    model = Stepwise().eval()
    labels = model(images).argmax(1)
    attacked = run(Square, model, images, labels, epsilon=0.3, n_queries=50, generator=generator())
    assert accuracy(model, attacked, labels) < 0.5
    assert not attacked.requires_grad


@pytest.mark.parametrize("follows", ["averaged", "mean_logits"])
def test_a_noisy_query_evaluates_incumbent_and_candidate_on_common_fresh_draws(
    follows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, noises = tanh_network(), noise()
    images, labels = batch(model)
    seen: list[tuple[Tensor, Tensor]] = []
    value = Objective.value

    def watched(objective: Objective, given: Tensor, known: Tensor) -> Tensor:
        losses = value(objective, given, known)
        seen.append((given, losses))
        return losses

    monkeypatch.setattr(Objective, "value", watched)
    options: dict[str, Any] = {"n_queries": 30, "n_draws": 3, "follows": follows, "noises": noises}
    run(Square, model, images, labels, epsilon=0.1, generator=generator(), **options)
    queries = seen[1:]
    assert [len(given) for given, _ in queries] == [2 * len(images)] * 30
    n_accepted = 0
    for (given, losses), (following, anew) in pairwise(queries):
        (incumbent, candidate), (before, after) = given.chunk(2), losses.chunk(2)
        better = after > before
        n_accepted += int(better.sum())
        assert torch.equal(torch.where(better[:, None, None, None], candidate, incumbent), following.chunk(2)[0])
        assert (anew.chunk(2)[0] != torch.where(better, after, before)).all()
        unmoved = (candidate == incumbent).flatten(1).all(1)
        assert torch.equal(before[unmoved], after[unmoved])
    assert 0 < n_accepted < 29 * len(images)


def test_a_fixed_draw_is_the_same_in_every_query_and_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, noises = tanh_network(), {"1": Dense(torch.eye(8, dtype=torch.float64))}
    images, labels = batch(model)
    seen: list[tuple[Objective, int]] = []
    value = Objective.value

    def watched(objective: Objective, given: Tensor, known: Tensor) -> Tensor:
        seen.append((objective, len(given)))
        return value(objective, given, known)

    monkeypatch.setattr(Objective, "value", watched)
    options: dict[str, Any] = {"n_queries": 9, "n_draws": 3, "noises": noises, "follows": "fixed"}
    run(Square, model, images, labels, epsilon=0.1, generator=generator(), **options)
    assert [size for _, size in seen] == [len(images)] * 10
    once, again = (value(seen[0][0], images, labels) for _ in range(2))
    assert torch.equal(once, again)


def test_luck_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the loss of the incumbent as it once was, nothing beats a lucky one any more."""
    model, noises = tanh_network(gain=3), noise(variance=4)
    images, labels = batch(model, n=100)

    def reached() -> float:
        attacked = run(Square, model, images, labels, epsilon=0.08, n_queries=150, noises=noises, generator=generator())
        return float(mean_loss(model, attacked, labels, noises).mean())

    ours = reached()
    monkeypatch.setattr(Objective, "repeatable", True)
    clean = float(mean_loss(model, images, labels, noises).mean())
    assert ours - clean > 1.3 * (reached() - clean) > 0


def test_more_draws_raise_the_mean_loss_of_a_noisy_network() -> None:
    model, noises = tanh_network(gain=3), noise(variance=4)
    images, labels = batch(model, n=100)
    reached = [
        float(
            mean_loss(
                model,
                run(
                    Square,
                    model,
                    images,
                    labels,
                    epsilon=0.08,
                    n_queries=100,
                    n_draws=k,
                    noises=noises,
                    generator=generator(),
                ),
                labels,
                noises,
            ).mean()
        )
        for k in (1, 30)
    ]
    assert float(mean_loss(model, images, labels, noises).mean()) < reached[0] < reached[1]


def toolbox(model: nn.Module) -> Any:
    art = pytest.importorskip("art.estimators.classification")
    return art.PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10, clip_values=(0, 1)
    )


@needs_fashion_mnist
def test_preble2026_gives_the_images_of_the_toolbox(monkeypatch: pytest.MonkeyPatch) -> None:
    art = pytest.importorskip("art.attacks.evasion.square_attack")
    model, images, labels = (one[:200] if isinstance(one, Tensor) else one for one in fashion())
    rng = generator()
    drawn = SimpleNamespace(
        choice=lambda values, size: max(values) * (2 * torch.randint(2, tuple(size), generator=rng) - 1).numpy(),
        randint=lambda low, high: int(torch.randint(high, (), generator=rng)),
    )
    monkeypatch.setattr(art, "np", SimpleNamespace(**vars(np) | {"random": drawn}))
    attack = art.SquareAttack(toolbox(model), eps=0.1, max_iter=40, verbose=False)
    expected = attack.generate(images.numpy().copy(), labels.numpy())
    ours = run(ToolboxSquare, model, images, labels, epsilon=0.1, n_steps=40, generator=generator())
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert 0.2 < accuracy(model, ours, labels) < accuracy(model, images, labels) - 0.1


@needs_fashion_mnist
def test_preble2026_treats_a_noisy_network_as_the_toolbox_does() -> None:
    art = pytest.importorskip("art.attacks.evasion.square_attack")
    model, images, labels = fashion()
    noises = {"1": Diagonal.isotropic(32, variance=4.0)}
    np.random.seed(0)  # noqa: NPY002  (the Toolbox draws from it)
    with inject(model, noises, generator=generator(1)):
        theirs = art.SquareAttack(toolbox(nn.Sequential(model)), eps=0.2, max_iter=30, verbose=False).generate(
            images.numpy().copy(), labels.numpy()
        )
    ours = run(ToolboxSquare, model, images, labels, epsilon=0.2, n_steps=30, noises=noises, generator=generator(2))
    rates = []
    for attacked in (images, torch.tensor(theirs), ours):
        with torch.no_grad(), inject(model, noises, generator=generator(3), draws=20):
            rates.append((model(attacked).argmax(1).view(20, -1) == labels).double().mean().item())
    assert rates[2] == pytest.approx(rates[1], abs=0.03)
    assert rates[2] < rates[0] - 0.05


@pytest.mark.gpu
def test_on_a_gpu_the_attack_is_as_strong() -> None:
    model, noises = tanh_network(), noise(variance=0.1)
    images, labels = batch(model, n=50)
    options: dict[str, Any] = {"epsilon": 0.05, "n_queries": 30, "n_draws": 4, "noises": noises}
    for norm in NAMES:
        on_cpu = run(Square, model.cpu(), images, labels, norm=norm, generator=generator(), **options)
        expected = mean_loss(model, on_cpu, labels, noises).mean().item()
        attacked = run(Square, model.cuda(), images.cuda(), labels.cuda(), norm=norm, generator=generator(), **options)
        assert attacked.is_cuda
        assert mean_loss(model, attacked, labels.cuda(), noises).mean().item() == pytest.approx(expected, rel=0.1)
