"""Random search against a plain loop over the same points, and against attacks that must beat it."""

from typing import Any

import numpy as np
import pytest
import torch
from attacked import Stepwise, accuracy, batch, generator, mean_loss, noise, run, tanh_network
from torch import Tensor

from neurovar.robustness import APGD, Objective, RandomSearch

EPSILON = {"linf": 0.1, "l2": 0.5}


def by_hand(
    image: np.ndarray, label: int, candidates: np.ndarray, weights: list[np.ndarray]
) -> tuple[np.ndarray, float]:
    """The first candidate of largest margin, or the image itself."""
    best, highest = image, -np.inf
    for candidate in [image, *candidates]:
        w, b, v, c = weights
        logits = v @ np.tanh(w @ candidate.ravel() + b) + c
        margin = np.delete(logits, label).max() - logits[label]
        if margin > highest:
            best, highest = candidate, margin
    return best, highest


@pytest.mark.parametrize("norm", EPSILON)
def test_matches_a_plain_loop_over_the_same_vertices(norm: str) -> None:
    model = tanh_network()
    images, labels = batch(model)
    epsilon, n_queries = EPSILON[norm], 25
    rng = generator(2)
    directions = np.stack([torch.randn(images.shape, generator=rng).double().numpy() for _ in range(n_queries)])
    if norm == "linf":
        directions = np.sign(directions)
    else:
        directions /= np.sqrt((directions**2).sum((2, 3, 4), keepdims=True))
    candidates = np.clip(images.numpy() + epsilon * directions, 0, 1)
    weights = [parameter.numpy() for parameter in model.parameters()]
    expected = [by_hand(images[i].numpy(), int(labels[i]), candidates[:, i], weights)[0] for i in range(len(images))]
    options: dict[str, Any] = {"norm": norm, "n_queries": n_queries}
    ours = run(RandomSearch, model, images, labels, epsilon=epsilon, generator=generator(2), **options)
    np.testing.assert_allclose(ours, np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("norm", EPSILON)
@pytest.mark.parametrize("points", ["vertices", "uniform"])
def test_points_are_where_they_should_be(norm: str, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At distance ε; or uniform, so that (distance/ε)^n is uniform in [0, 1] too."""
    images = torch.full((2000, 1, 2, 2), 0.5)
    tried: list[Tensor] = []
    value = Objective.value
    monkeypatch.setattr(
        Objective, "value", lambda objective, given, known: tried.append(given) or value(objective, given, known)
    )
    options: dict[str, Any] = {"n_queries": 1, "norm": norm, "points": points}
    run(
        RandomSearch, Stepwise().eval(), images, torch.zeros(2000).long(), epsilon=0.2, generator=generator(), **options
    )
    change = (tried[-1] - images).flatten(1).double() / 0.2
    size = torch.linalg.vector_norm(change, ord=torch.inf if norm == "linf" else 2, dim=1)
    standard_error = np.sqrt(1 / 3 / 2000)
    assert change.mean(0).abs().max() < 5 * np.sqrt(1 / 2000)
    assert abs((change[:, 0] * change[:, 1]).mean()) < 5 * np.sqrt(1 / 2000)
    if points == "uniform":
        share = size**4
        assert share.max() <= 1 + 1e-5
        assert abs(float(share.mean()) - 1 / 2) < 5 * standard_error
        assert abs(float((share < 0.1).double().mean()) - 0.1) < 5 * np.sqrt(0.09 / 2000)
    else:
        assert (size - 1).abs().max() < 1e-5
        if norm == "linf":
            assert (change.abs() - 1).abs().max() < 1e-5


def test_more_points_raise_the_loss_and_gradients_beat_them() -> None:
    model = tanh_network()
    images, labels = batch(model, n=100)
    options: dict[str, Any] = {"epsilon": 0.08, "generator": generator()}
    reached = [
        mean_loss(model, run(RandomSearch, model, images, labels, n_queries=n, **options), labels, {}, 1)
        for n in (1, 10, 200)
    ]
    assert mean_loss(model, images, labels, {}, 1).mean() < reached[0].mean() < reached[1].mean() < reached[2].mean()
    white_box = run(APGD, model, images, labels, n_steps=20, **options)
    assert mean_loss(model, white_box, labels, {}, 1).mean() > reached[2].mean()


def test_stops_early_only_without_noise() -> None:
    model = tanh_network()
    images, labels = batch(model, n=40)
    labels[:3] = (labels[:3] + 1) % 5
    options: dict[str, Any] = {"epsilon": 0.2, "n_queries": 50, "generator": generator()}
    stopped = run(RandomSearch, model, images, labels, early_stopping=True, **options)
    whole = run(RandomSearch, model, images, labels, **options)
    noisy = run(RandomSearch, model, images, labels, noises=noise(1e-12), n_draws=2, **options)
    assert torch.equal(stopped[:3], images[:3])
    assert (noisy[:3] != images[:3]).any()
    losses = [float(mean_loss(model, attacked, labels, {}, 1).mean()) for attacked in (stopped, whole, noisy)]
    assert losses[0] < 0.95 * losses[1]
    assert losses[2] == pytest.approx(losses[1], rel=0.05)
    assert accuracy(model, stopped, labels) == pytest.approx(accuracy(model, whole, labels), abs=0.1)


def test_a_noisy_network_is_searched_on_its_expected_loss() -> None:
    model, noises = tanh_network(gain=3), noise(variance=4)
    images, labels = batch(model, n=100)
    options: dict[str, Any] = {"epsilon": 0.1, "n_queries": 60, "noises": noises}
    reached = [
        float(
            mean_loss(
                model,
                run(RandomSearch, model, images, labels, n_draws=k, generator=generator(), **options),
                labels,
                noises,
            ).mean()
        )
        for k in (1, 30)
    ]
    assert float(mean_loss(model, images, labels, noises).mean()) < reached[0] < reached[1]
