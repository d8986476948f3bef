"""Training on attacked and on noisy images, against plain loops; and what every kind of training refuses."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained import Seeing, adam_by_hand, generator, same, state

from neurovar.covariance import Dense, Diagonal, GainModulated
from neurovar.networks import NoisyNetwork, adversarial_train, gaussian_train, retrain, small_network, train
from neurovar.robustness import FGM


def pixels(n: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes of 1 × 2 × 3 images, in [0.2, 0.8]."""
    torch_rng = generator(seed)
    labels = torch.randint(3, (n,), generator=torch_rng)
    images = 0.2 + 0.6 * torch.rand(n, 1, 2, 3, generator=torch_rng)
    images[torch.arange(n), 0, 0, labels] = 0.8
    return images, labels


def softmax_regression(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3, bias=False)).to(dtype)
    model[1].weight.data = torch.randn(3, 6, generator=generator(7)).to(dtype) / 3
    return model


class Recorder:
    """An attack that adds 10 and keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, int, Tensor]] = []

    def __call__(self, network: NoisyNetwork, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        self.seen.append((network.model.training, len(images), labels.clone()))
        return images + 10


def test_adversarial_training_is_fgm_on_a_part_of_each_batch_and_adam() -> None:
    """Softmax regression in NumPy: ∂CE/∂x = Wᵀ(p − y), and the first ⌈0.4 · 16⌉ = 7 of each batch (1 of 2) attacked."""
    images, labels = pixels(n=50)
    images, epsilon, rate = images.double(), 0.05, 0.02
    model = softmax_regression(torch.float64)
    torch_rng = generator(3)
    x, y = images.flatten(1).numpy(), labels.numpy()
    weight = model[1].weight.detach().numpy().copy()
    first, second, t = np.zeros_like(weight), np.zeros_like(weight), 0
    for _ in range(3):
        for rows in torch.randperm(50, generator=torch_rng).split(16):
            shown = x[rows.numpy()].copy()
            wanted = np.eye(3)[y[rows.numpy()]]
            for i in range(int(np.ceil(0.4 * len(rows)))):
                shown[i] += epsilon * np.sign(weight.T @ (softmax(weight @ shown[i]) - wanted[i]))
            errors = np.stack([softmax(weight @ row) for row in shown]) - wanted
            gradient, t = errors.T @ shown / len(rows), t + 1
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            weight = weight - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    trained = adversarial_train(
        model,
        images,
        labels,
        attack=FGM(epsilon),
        ratio=0.4,
        n_epochs=3,
        batch_size=16,
        learning_rate=rate,
        generator=generator(3),
    )
    np.testing.assert_allclose(trained[1].weight.detach(), weight, atol=1e-9)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max())
    return p / p.sum()


@pytest.mark.parametrize(("ratio", "attacked"), [(0.1, [2, 2, 1]), (0.5, [8, 8, 2]), (1.0, [16, 16, 3])])
def test_the_attack_gets_its_part_of_each_batch_in_eval_mode_and_the_network_learns_in_train_mode(
    ratio: float, attacked: list[int]
) -> None:
    images, labels = pixels(n=35)
    before, attack = images.clone(), Recorder()
    model = nn.Sequential(Seeing(), *softmax_regression())
    trained = adversarial_train(
        model, images, labels, attack=attack, ratio=ratio, n_epochs=1, batch_size=16, generator=generator()
    )
    assert [(mode, n) for mode, n, _ in attack.seen] == [(False, n) for n in attacked]
    assert [int((batch > 5).all(dim=(1, 2, 3)).sum()) for batch in trained[0].seen] == attacked
    assert [len(batch) for batch in trained[0].seen] == [16, 16, 3]
    shown = torch.cat(trained[0].seen)
    originals = torch.where(shown > 5, shown - 10, shown)
    rows = torch.cdist(originals.flatten(1), before.flatten(1)).argmin(1)
    assert torch.equal(rows.sort().values, torch.arange(35))
    assert torch.equal(labels[rows[: attacked[0]]], attack.seen[0][2])
    assert torch.equal(images, before)
    assert not any(module.training for module in trained.modules())


def test_adversarial_training_learns_to_do_without_what_an_attack_can_turn_round() -> None:
    """Pixel 0 tells the classes apart without fail but by less than ε; pixel 1 fails 1 in 10 times, by more than ε."""
    n, torch_rng = 600, generator()
    labels = torch.randint(2, (n,), generator=torch_rng)
    sign = 2.0 * labels - 1
    fails = torch.rand(n, generator=torch_rng) < 0.1
    images = 0.5 + torch.stack([0.06 * sign, 0.2 * torch.where(fails, -sign, sign)], 1).view(n, 1, 1, 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    attack = FGM(0.1)  # nothing is stronger, for logits that are linear
    options = {"n_epochs": 25, "learning_rate": 1.0}
    plain = train(model, images, labels, generator=generator(1), **options)
    robust = adversarial_train(model, images, labels, attack=attack, ratio=1.0, generator=generator(1), **options)

    def accuracy(model: nn.Module, shown: Tensor) -> float:
        return float((model(shown).argmax(1) == labels).double().mean())

    assert accuracy(plain, images) > 0.99
    assert accuracy(plain, attack(NoisyNetwork(plain, images=images), images, labels, generator=generator(2))) < 0.1
    assert accuracy(robust, attack(NoisyNetwork(robust, images=images), images, labels, generator=generator(2))) > 0.88


def test_gaussian_augmentation_is_fresh_of_the_standard_deviation_given_and_clipped() -> None:
    n, n_epochs, sigma = 400, 6, 0.1
    images = torch.full((n, 1, 2, 3), 0.5)
    images[..., 0] = 1.0
    images[:, 0, 0, 1] += torch.arange(n) * 1e-4  # tells which image each row was
    before = images.clone()
    model = nn.Sequential(Seeing(), *softmax_regression())
    labels = torch.zeros(n).long()
    trained = gaussian_train(model, images, labels, sigma=sigma, n_epochs=n_epochs, generator=generator())
    assert torch.equal(images, before)
    seen = torch.cat(trained[0].seen)
    assert len(seen) == n * n_epochs
    assert seen.min() >= 0
    assert seen.max() == 1
    inner = (seen[:, 0, 1, 1:] - 0.5).flatten()
    assert abs(inner.mean()) < 5 * sigma / len(inner) ** 0.5
    assert abs(inner.std() / sigma - 1) < 5 / (2 * len(inner)) ** 0.5
    assert torch.unique(inner).numel() > 0.99 * len(inner)
    edge = seen[..., 0]
    assert abs(float((edge == 1).double().mean()) - 0.5) < 0.05
    assert abs(float((1 - edge).mean()) - sigma / (2 * np.pi) ** 0.5) < 0.005
    again = gaussian_train(model, images, labels, sigma=sigma, n_epochs=n_epochs, generator=generator())
    assert same(state(trained), state(again))


def test_augmentation_follows_adam_on_the_noisy_images() -> None:
    """The noise of a batch is drawn when the batch is: order, noise, noise, …, order, …, all of one generator."""
    images, labels = pixels(n=40)
    images, sigma = images.double(), 0.01
    model, torch_rng = softmax_regression(torch.float64), generator(3)
    seen, batches, start = [], [], 0
    for _ in range(2):
        for rows in torch.randperm(40, generator=torch_rng).split(16):
            noise = torch.randn(len(rows), 1, 2, 3, generator=torch_rng, dtype=torch.float64)
            seen.append((images[rows] + sigma * noise).clamp(0, 1).flatten(1))
            batches.append(np.arange(start, start + len(rows)))
            start += len(rows)
    torch_rng = generator(3)
    wanted = []
    for _ in range(2):
        for rows in torch.randperm(40, generator=torch_rng).split(16):
            wanted.append(labels[rows])
            torch.randn(len(rows), 1, 2, 3, generator=torch_rng, dtype=torch.float64)
    expected = adam_by_hand(
        model[1].weight.detach().numpy().copy(), torch.cat(seen).numpy(), torch.cat(wanted).numpy(), batches, 0.05
    )
    trained = gaussian_train(
        model, images, labels, sigma=sigma, n_epochs=2, batch_size=16, learning_rate=0.05, generator=generator(3)
    )
    np.testing.assert_allclose(trained[1].weight.detach(), expected, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.0, -0.1, float("nan"), float("inf")])
def test_a_sigma_that_is_none_is_named(sigma: float) -> None:
    with pytest.raises(ValueError, match=f"expected a finite sigma above 0, got {sigma}"):
        gaussian_train(softmax_regression(), *pixels(), sigma=sigma, n_epochs=1, generator=generator())


@pytest.mark.parametrize(("change", "match"), [(1.0, "got 1.2"), (-0.5, "got -0.29")])
def test_images_that_clipping_would_spoil_are_named(change: float, match: str) -> None:
    images, labels = pixels()
    with pytest.raises(ValueError, match=r"expected pixels in \[0, 1\], " + match):
        gaussian_train(softmax_regression(), images + change, labels, sigma=0.1, n_epochs=1, generator=generator())


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
def test_a_ratio_that_is_none_is_named(ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"expected a ratio in \(0, 1\], got {ratio}"):
        adversarial_train(
            softmax_regression(), *pixels(), attack=Recorder(), ratio=ratio, n_epochs=1, generator=generator()
        )


@pytest.mark.parametrize("epsilon", [0.0, -0.1])
def test_an_attack_without_size_is_named(epsilon: float) -> None:
    with pytest.raises(ValueError, match=rf"epsilon.*got {epsilon}"):
        FGM(epsilon)


def test_an_attack_that_returns_other_images_is_named() -> None:
    def cropped(model: nn.Module, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        return images[:1]

    with pytest.raises(ValueError, match=r"expected attacked images \(50, 1, 2, 3\), got \(1, 1, 2, 3\)"):
        adversarial_train(softmax_regression(), *pixels(), attack=cropped, ratio=1, n_epochs=1, generator=generator())


@pytest.mark.parametrize("kind", ["train", "gaussian", "adversarial"])
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": torch.full((50,), 3)}, r"expected labels from 0 to 2, got 3 to 3"),
        ({"n_epochs": 0}, "expected at least 1 epoch,.* got 0, 64 and 0.001"),
        ({"images": torch.zeros(0, 1, 2, 3), "labels": torch.zeros(0).long()}, "expected a label an image .* 0 for 0"),
        ({"batch_size": 0}, "1 image a batch and a learning rate above 0, got 1, 0 and 0.001"),
        ({"learning_rate": 0.0}, "a learning rate above 0, got 1, 64 and 0.0"),
    ],
)
def test_every_training_refuses_the_same(kind: str, changes: dict, match: str) -> None:
    function = {
        "train": train,
        "gaussian": partial(gaussian_train, sigma=0.1),
        "adversarial": partial(adversarial_train, attack=Recorder(), ratio=0.5),
    }[kind]
    images, labels = pixels()
    arguments = {"images": images, "labels": labels, "n_epochs": 1} | changes
    with pytest.raises(ValueError, match=match):
        function(softmax_regression(), generator=generator(), **arguments)


def seen_in_retraining(noise: Diagonal | Dense | GainModulated, images: Tensor, n_epochs: int, batch: int) -> Tensor:
    model = nn.Sequential(nn.Identity(), Seeing(), nn.Linear(images.shape[1], 2))
    labels = torch.zeros(len(images)).long()
    options = {"layer": "0", "n_epochs": n_epochs, "batch_size": batch, "generator": generator()}
    return torch.cat(retrain(model, images, labels, noise=noise, **options)[1].seen)


def test_noise_that_depends_on_the_activations_is_drawn_at_them() -> None:
    """A gain of variance 0.01 gives activations of 1 a standard deviation of 0.1, and those of 10 one of 1."""
    images = torch.cat([torch.full((500, 4), 1.0), torch.full((500, 4), 10.0)])
    noise = GainModulated(torch.tensor(0.01), torch.full((4,), 1e-12), torch.tensor(1.0), images[[0, -1]])
    seen = seen_in_retraining(noise, images, n_epochs=2, batch=64)
    low, high = seen[seen[:, 0] < 4], seen[seen[:, 0] >= 4]
    assert len(low) == len(high) == 1000
    assert abs(low[:, 0].std() / 0.1 - 1) < 5 / 2000**0.5
    assert abs(high[:, 0].std() / 1.0 - 1) < 5 / 2000**0.5
    assert len(torch.unique(seen[:, 0])) > 1990


def test_draws_do_not_repeat_between_blocks() -> None:
    """A million numbers are drawn at once: 5000 units take blocks of 4 batches of 50."""
    noise = Diagonal.isotropic(5000)
    seen = seen_in_retraining(noise, torch.zeros(450, 5000), n_epochs=1, batch=50)
    assert torch.unique(seen[:, 0]).numel() == 450
    assert torch.unique(seen[:, -1]).numel() == 450


def test_diagonal_noise_is_never_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object, **options: object) -> None:
        raise AssertionError("a dense matrix")

    monkeypatch.setattr(Diagonal, "to_dense", forbidden)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", forbidden)
    monkeypatch.setattr(torch, "diag", forbidden)
    images, labels = torch.rand(20, 1, 28, 28, generator=generator()), torch.arange(20) % 10
    for noise in (Diagonal.isotropic(3136), Diagonal(torch.rand(3136))):
        retrain(small_network(rng=0), images, labels, layer="layer1", noise=noise, n_epochs=1, generator=generator())


@pytest.mark.gpu
def test_on_a_gpu_a_generator_may_be_on_either_side() -> None:
    images, labels = (tensor.cuda() for tensor in pixels())
    model = softmax_regression().cuda()
    for device in ("cpu", "cuda"):
        options = {"n_epochs": 2, "generator": torch.Generator(device).manual_seed(0)}
        train(model, images, labels, **options)
        gaussian_train(model, images, labels, sigma=0.1, **options)
        adversarial_train(model, images, labels, attack=FGM(0.1), ratio=0.5, **options)
        retrain(model, images, labels, layer="0", noise=Diagonal.isotropic(6), **options)
