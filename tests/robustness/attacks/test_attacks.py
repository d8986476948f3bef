"""Attacks against plain loops over images with gradients worked out by hand, and against what attacks must achieve."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from attacked import run
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import NoisyNetwork, train
from neurovar.robustness import FGM, PGD, Objective, expected_loss

CHANNELS, SIZE, HIDDEN, CLASSES = 2, 3, 8, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tanh_network(*, gain: float = 2.0, seed: int = 0) -> nn.Sequential:
    """18 pixels → 8 tanh units → 4 logits, float64; steep enough that the loss has several maxima."""
    torch_rng = generator(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIZE**2, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES))
    for parameter in model.parameters():
        parameter.data = gain * torch.randn(parameter.shape, generator=torch_rng) / 2
    return model.double().eval()


def batch(n: int = 6, seed: int = 1) -> tuple[Tensor, Tensor]:
    torch_rng = generator(seed)
    images = torch.rand(n, CHANNELS, SIZE, SIZE, generator=torch_rng, dtype=torch.float64)
    return images, torch.randint(CLASSES, (n,), generator=torch_rng)


def losses(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return nn.functional.cross_entropy(model(images), labels, reduction="none")


def gradient_by_hand(model: nn.Sequential, image: np.ndarray, label: int) -> np.ndarray:
    """∇ₓ of −log softmax(V tanh(W x + b) + c)[label], for one image."""
    w, b, v, c = (p.detach().numpy() for p in model.parameters())
    hidden = np.tanh(w @ image.ravel() + b)
    logits = v @ hidden + c
    error = np.exp(logits - logits.max())
    error /= error.sum()
    error[label] -= 1
    return (w.T @ ((1 - hidden**2) * (v.T @ error))).reshape(image.shape)


def pgd_by_hand(
    model: nn.Sequential, image: np.ndarray, start: np.ndarray, label: int, epsilon: float, step: float, n_steps: int
) -> np.ndarray:
    current = start.copy()
    for _ in range(n_steps):
        gradient = gradient_by_hand(model, current, label)
        for index in np.ndindex(image.shape):
            moved = current[index] + step * np.sign(gradient[index])
            moved = min(max(moved, image[index] - epsilon), image[index] + epsilon)
            current[index] = min(max(moved, 0.0), 1.0)
    return current


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 2.0])
def test_fgm_matches_plain_loops(epsilon: float) -> None:
    model, (images, labels) = tanh_network(), batch()
    expected = [
        np.clip(image + epsilon * np.sign(gradient_by_hand(model, image, label)), 0, 1)
        for image, label in zip(images.numpy(), labels.tolist())
    ]
    ours = run(FGM, model, images, labels, epsilon=epsilon, generator=generator())
    np.testing.assert_allclose(ours, np.stack(expected), atol=1e-6)


@pytest.mark.parametrize(("epsilon", "step", "n_steps"), [(0.1, 0.025, 7), (0.3, 0.2, 10), (0.05, 0.1, 3)])
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_matches_plain_loops(epsilon: float, step: float, n_steps: int, random_start: bool) -> None:
    model, (images, labels) = tanh_network(), batch()
    starts = images.numpy()
    if random_start:
        uniform = torch.rand(images.shape, generator=generator(3)).double().numpy()
        starts = np.clip(starts + epsilon * (2 * uniform - 1), 0, 1)
    expected = [
        pgd_by_hand(model, image, start, label, epsilon, step, n_steps)
        for image, start, label in zip(images.numpy(), starts, labels.tolist())
    ]
    ours = run(
        PGD,
        model,
        images,
        labels,
        epsilon=epsilon,
        step=step,
        n_steps=n_steps,
        generator=generator(3),
        random_start=random_start,
    )
    np.testing.assert_allclose(ours, np.stack(expected), atol=1e-6)


def one_pixel_network(w: float) -> nn.Sequential:
    """One pixel x → logits (tanh(4h − 2) − 0.3 h, 0) with h = w·x, to which the noise is added."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False), Bent()).double().eval()
    model[1].weight.data.fill_(w)
    return model


class Bent(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([torch.tanh(4 * h - 2) - 0.3 * h, torch.zeros_like(h)], dim=1)


def loss_and_slope(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CE of label 0 and its derivative in h, for logits (a, 0): log(1 + e^−a)."""
    a = np.tanh(4 * h - 2) - 0.3 * h
    return np.log1p(np.exp(-a)), -1 / (1 + np.exp(a)) * (4 * (1 - np.tanh(4 * h - 2) ** 2) - 0.3)


def gaussian_expectation(function: Callable[[np.ndarray], np.ndarray], mean: float, sd: float) -> float:
    nodes, weights = hermegauss(200)
    return float(weights @ function(mean + sd * nodes) / weights.sum())


@pytest.mark.parametrize("pixel", [0.1, 0.4, 0.9])
def test_the_averaged_loss_and_gradient_approach_their_expectations(pixel: float) -> None:
    w, sd, n_draws = 1.5, 0.7, 40_000
    model, image = one_pixel_network(w), torch.full((1, 1, 1, 1), pixel, dtype=torch.float64, requires_grad=True)
    noises = {"1": Diagonal.isotropic(1, variance=sd**2)}
    loss = expected_loss(
        NoisyNetwork(model, noises, images=image), image, torch.tensor([0]), n_draws=n_draws, generator=generator()
    )
    loss.sum().backward()
    ours = (loss.item(), image.grad.item())
    for which, (value, scale) in enumerate(zip(ours, (1.0, w))):
        mean = scale * gaussian_expectation(lambda h, i=which: loss_and_slope(h)[i], w * pixel, sd)
        square = scale**2 * gaussian_expectation(lambda h, i=which: loss_and_slope(h)[i] ** 2, w * pixel, sd)
        assert abs(value - mean) < 5 * np.sqrt((square - mean**2) / n_draws)


def test_averaging_over_draws_finds_the_sign_that_single_draws_miss() -> None:
    """Most single draws land where the slope is the weak negative one; the mean is ruled by the few that do not."""
    w, sd, pixel, n = 1.0, 0.8, 0.95, 400
    slopes = [gaussian_expectation(lambda h: loss_and_slope(h)[1], w * pixel, sd)]
    slopes.append(gaussian_expectation(lambda h: np.sign(loss_and_slope(h)[1]), w * pixel, sd))
    assert slopes[0] < -0.1 < 0 < slopes[1]  # the expected gradient falls, most single ones rise
    images, labels = torch.full((n, 1, 1, 1), pixel, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    arguments = {"epsilon": 0.01, "noises": {"1": Diagonal.isotropic(1, variance=sd**2)}}
    found = {}
    for n_draws in (1, 500):
        model = one_pixel_network(w)
        attacked = run(FGM, model, images, labels, n_draws=n_draws, generator=generator(), **arguments)
        found[n_draws] = (attacked < images).double().mean().item()
    falling = (1 - slopes[1]) / 2
    assert abs(found[1] - falling) < 5 * np.sqrt(falling * (1 - falling) / n)
    assert found[500] > 0.99


def test_expected_loss_is_the_mean_over_draws_image_by_image() -> None:
    model, (images, labels) = tanh_network(), batch()
    noise, n_draws = Diagonal.isotropic(HIDDEN).to(dtype=torch.float64), 5
    ours = expected_loss(
        NoisyNetwork(model, {"1": noise}, images=images), images, labels, n_draws=n_draws, generator=generator()
    )
    added = noise.sample((n_draws, len(images)), generator=generator()).numpy()
    w, b, v, c = (p.detach().numpy() for p in model.parameters())
    for i, image in enumerate(images.numpy()):
        each = []
        for draw in range(n_draws):
            logits = v @ np.tanh(w @ image.ravel() + b + added[draw, i]) + c
            each.append(np.log(np.exp(logits).sum()) - logits[labels[i]])
        assert ours[i].item() == pytest.approx(np.mean(each))


def test_each_image_keeps_its_best_restart() -> None:
    model, (images, labels) = tanh_network(gain=3), batch(n=30)
    arguments = {"epsilon": 0.4, "step": 0.1, "n_steps": 8}
    torch_rng = generator(5)
    singles = torch.stack([run(PGD, model, images, labels, generator=torch_rng, **arguments) for _ in range(4)])
    each = torch.stack([losses(model, single, labels) for single in singles])
    best = each.argmax(0)
    assert len(best.unique()) == 4  # every restart is the best for some image
    several = run(PGD, model, images, labels, n_restarts=4, generator=generator(5), **arguments)
    torch.testing.assert_close(several, singles[best, torch.arange(30)])
    torch.testing.assert_close(losses(model, several, labels), each.max(0).values)


def test_restarts_raise_the_mean_loss_of_a_noisy_network() -> None:
    model, (images, labels) = tanh_network(gain=3), batch(n=60)
    noises = {"1": Diagonal.isotropic(HIDDEN, variance=0.3)}
    arguments = {"epsilon": 0.4, "step": 0.1, "n_steps": 8, "n_draws": 10, "noises": noises}

    NoisyNetwork(model, noises, images=images)

    def mean_loss(seed: int, n_restarts: int) -> float:
        attacked = run(PGD, model, images, labels, n_restarts=n_restarts, generator=generator(seed), **arguments)
        with torch.no_grad():
            return (
                expected_loss(
                    NoisyNetwork(model, noises, images=attacked), attacked, labels, n_draws=500, generator=generator(9)
                )
                .mean()
                .item()
            )

    single = [mean_loss(seed, 1) for seed in range(5)]
    assert min(mean_loss(seed, 5) for seed in range(2)) > max(single)


@pytest.mark.parametrize(("n_draws", "expected"), [(1, 10), (3, 10), (20, 20)])
def test_restarts_are_chosen_by_the_mean_of_ten_draws_or_more(
    n_draws: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices: list[int] = []
    logits = Objective.logits

    def watched(self: Objective, images: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            choices.append(self.n_draws)
        return logits(self, images)

    monkeypatch.setattr(Objective, "logits", watched)
    arguments = {"epsilon": 0.4, "step": 0.1, "n_steps": 2, "n_draws": n_draws, "n_restarts": 3}
    run(PGD, tanh_network(), *batch(), noises={"1": Diagonal.isotropic(HIDDEN)}, generator=generator(), **arguments)
    assert choices == [expected] * 6  # the best iterate and the last one of each restart


def test_many_steps_beat_one() -> None:
    model, (images, labels) = tanh_network(gain=3), batch(n=200)
    one = run(FGM, model, images, labels, epsilon=0.3, generator=generator())
    arguments = {"step": 0.05, "n_steps": 20, "random_start": False, "generator": generator()}
    many = run(PGD, model, images, labels, epsilon=0.3, **arguments)
    clean, after_one, after_many = (losses(model, x, labels).mean() for x in (images, one, many))
    assert clean < after_one < 0.95 * after_many


@pytest.mark.parametrize("noisy", [False, True])
def test_accuracy_falls_to_zero_as_epsilon_grows(noisy: bool) -> None:
    images, labels = batch(n=300)
    images[:, 0, 0, 0] = 0.25 * labels + 0.1  # what there is to learn
    model = train(tanh_network(gain=0.5), images, labels, n_epochs=60, learning_rate=0.01, generator=generator())
    noises = {"1": Diagonal.isotropic(HIDDEN, variance=0.02)} if noisy else {}
    n_draws = 10 if noisy else 1
    accuracy = []
    for epsilon in (1e-6, 0.03, 0.1, 0.5):
        attacked = run(
            PGD,
            model,
            images,
            labels,
            epsilon=epsilon,
            step=epsilon / 4,
            n_steps=20,
            noises=noises,
            n_draws=n_draws,
            generator=generator(),
        )
        accuracy.append((model(attacked).argmax(1) == labels).double().mean().item())
    assert accuracy[0] > 0.9
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[-1] < 0.01


@pytest.mark.gpu
def test_on_a_gpu_the_attack_is_as_strong() -> None:
    model, (images, labels) = tanh_network(), batch(n=50)
    arguments = {"epsilon": 0.2, "step": 0.05, "n_steps": 5, "n_draws": 4, "generator": generator()}
    noises = {"1": Diagonal.isotropic(HIDDEN, variance=0.1)}
    on_cpu = run(PGD, model, images, labels, noises=noises, **arguments)
    expected = losses(model, on_cpu, labels).mean()
    attacked = run(PGD, model.cuda(), images.cuda(), labels.cuda(), noises=noises, **arguments)
    assert attacked.is_cuda
    assert losses(model, attacked, labels.cuda()).mean().item() == pytest.approx(expected.item(), rel=0.1)
