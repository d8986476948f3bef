"""Learned noise keeps its trace, goes where the task does not look, and reaches the optimum that is known."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neurovar import networks
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.networks import NoisyNetwork, Origin, Schedule
from neurovar.noise import Constraint, Divergence, FixedTrace, LearnedNoise, learn_noise
from neurovar.noise._learnable import Learnable, learnable
from neurovar.noise._learning import _Task
from neurovar.statistics import DiagonalOnly, Full, KroneckerProduct, LowRank, Structure

TYPES = {DiagonalOnly: Diagonal, LowRank: LowRankPlusDiagonal, Full: Dense}
STRUCTURES = [DiagonalOnly(), LowRank(2), Full()]
DIRECTION = torch.tensor([2.0, -1.0, 2.0, 0.0]) / 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def readout(weights: Tensor) -> nn.Sequential:
    """A frozen layer "0" of as many units as there are `weights`, of which logit 0 reads their sum, logit 1 nothing."""
    model = nn.Sequential(nn.Identity(), nn.Linear(len(weights), 2, bias=False).to(weights)).requires_grad_(False)
    model[1].weight.copy_(torch.stack([weights, torch.zeros_like(weights)]))
    return model


def points(n: int, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs of which the sign along `direction` is the class."""
    x = torch.randn(n, len(direction), generator=seeded(7)).to(direction)
    return x, (x @ direction < 0).long()


def learn(model: nn.Module, x: Tensor, y: Tensor, **options: object) -> LearnedNoise:
    """Of the options, those of a schedule and the number of a fixed trace may be given as they are."""
    chosen = {"layer": "0", "structure": DiagonalOnly(), "generator": seeded(), "n_epochs": 2, "trace": 4.0} | options
    names = ("n_epochs", "batch_size", "learning_rate")
    schedule = Schedule(**{name: chosen.pop(name) for name in names if name in chosen})
    trace = chosen.pop("trace")
    return learn_noise(model, x, y, **{"constraint": FixedTrace(trace), "schedule": schedule} | chosen)


def along(noise: Covariance, direction: Tensor) -> float:
    direction = direction.to(noise.dtype)
    return float(direction @ noise.to_dense() @ direction)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_under_a_fixed_trace_noise_leaves_what_is_read(structure: Structure) -> None:
    """Isotropic noise of trace 4 has variance 1 along the direction that is read."""
    direction = torch.tensor([1.0, 0, 0, 0]) if structure == DiagonalOnly() else DIRECTION
    x, y = points(512, direction)
    learned = learn(readout(3 * direction), x, y, structure=structure, trace=4.0, n_epochs=30, learning_rate=0.03)
    assert type(learned.noise) is TYPES[type(structure)]
    assert along(learned.noise, direction) < 0.03
    assert learned.noise.trace() == pytest.approx(4.0, rel=1e-5)
    assert learned.history["cross_entropy"][-1] < 0.6 * learned.history["cross_entropy"][0]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("trace", [0.3, 50.0])
def test_the_trace_is_exact_in_every_epoch(structure: Structure, trace: float) -> None:
    x, y = points(64, DIRECTION)
    learned = learn(readout(DIRECTION), x, y, structure=structure, trace=trace, n_epochs=3, learning_rate=0.1)
    np.testing.assert_allclose(learned.history["trace"], trace, rtol=1e-5)
    assert learned.noise.trace() == pytest.approx(trace, rel=1e-5)
    assert not learned.history["penalty"].any()


@pytest.mark.parametrize("structure", [DiagonalOnly(), LowRank(3), Full()], ids=str)
def test_the_penalty_s_optimum_is_known(structure: Structure) -> None:
    """Zero input and balanced classes: CE ≈ log 2 + (w·e)²/8, so H = wwᵀ/4 and C = (H/β + I/v)⁻¹.

    The quartic term, (w·e)⁴/192, is below 0.5 % of the quadratic one at Var(w·e) = 0.04.
    """
    weights, variance, weight = 1.5 * DIRECTION, 0.04, 0.01
    hessian = torch.outer(weights, weights) / 4
    if structure == DiagonalOnly():
        hessian = torch.diag(hessian.diagonal())
    expected = torch.linalg.inv(hessian / weight + torch.eye(4) / variance)
    x, y = torch.zeros(4096, 4), torch.arange(4096) % 2
    learned = learn(
        readout(weights),
        x,
        y,
        structure=structure,
        constraint=Divergence(weight, variance),
        n_epochs=200,
        batch_size=4096,
        learning_rate=0.01,
    )
    assert along(Dense(expected), DIRECTION) < 0.6 * variance
    torch.testing.assert_close(learned.noise.to_dense(), expected, rtol=0.1, atol=0.05 * variance)
    assert float(learned.history["penalty"][-1]) > 0


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_the_penalty_is_the_divergence_from_isotropic_noise(structure: Structure) -> None:
    noise = parameters(structure, Divergence(weight=0.7, variance=2.0))
    covariance = noise().to_dense().detach()
    normal = partial(torch.distributions.MultivariateNormal, torch.zeros(4, dtype=torch.float64))
    prior = normal(2.0 * torch.eye(4, dtype=torch.float64))
    expected = 0.7 * torch.distributions.kl_divergence(normal(covariance), prior)
    torch.testing.assert_close(noise.penalty().detach(), expected)
    torch.testing.assert_close(noise.finished().to_dense(), covariance)


def parameters(structure: Structure, constraint: Constraint) -> Learnable:
    """Parameters of noise over four units, none at its start."""
    noise = learnable(structure, torch.zeros(4, dtype=torch.float64), constraint, seeded())
    with torch.no_grad():
        for parameter in noise.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=seeded(3), dtype=torch.float64)
    return noise


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("constraint", [FixedTrace(3.0), Divergence(weight=0.3, variance=2.0)])
def test_gradients_match_finite_differences_with_common_random_numbers(
    structure: Structure, constraint: Constraint
) -> None:
    x, y = points(16, DIRECTION.double())
    noise = parameters(structure, constraint)

    def loss() -> Tensor:
        task = _Task(readout(DIRECTION.double()), "0", noise, None, None, seeded(5))
        return task.cross_entropy(x, y) + noise.penalty()

    gradients = torch.autograd.grad(loss(), list(noise.parameters()))
    for parameter, gradient in zip(noise.parameters(), gradients):
        for index in np.ndindex(*parameter.shape):
            expected = central_difference(loss, parameter, index)
            assert float(gradient[index]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert any(gradient.abs().max() > 1e-2 for gradient in gradients)


@torch.no_grad()
def central_difference(loss: Callable[[], Tensor], parameter: Tensor, index: tuple[int, ...]) -> float:
    step, value = 1e-5, parameter[index].clone()
    parameter[index] = value + step
    above = loss()
    parameter[index] = value - step
    below = loss()
    parameter[index] = value
    return float(above - below) / (2 * step)


def test_network_and_noise_share_two_copies_of_the_signal() -> None:
    """Both units carry the class: the noise takes one of them, and the network reads the other."""
    signal = torch.randn(1024, 1, generator=seeded(1)).sign()
    x, y = signal.repeat(1, 2), (signal[:, 0] < 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    before = copy.deepcopy(model.state_dict())
    learned = learn(model, x, y, trace=8.0, n_epochs=40, learning_rate=0.02)
    quiet, loud = sorted(learned.noise.diagonal().tolist())
    assert quiet < 0.1 and loud > 7.9
    assert learned.history["cross_entropy"][-1] < 0.05
    accuracy = (learned.network(x + learned.noise.sample((1024,), generator=seeded(2))).argmax(1) == y).float().mean()
    assert accuracy > 0.98
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not torch.equal(learned.network[1].weight, model[1].weight) and not learned.network.training


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_a_seed_means_one_result(structure: Structure) -> None:
    x, y = points(64, DIRECTION)
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.Linear(4, 2))
    results = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(global_seed)
        state = torch.get_rng_state()
        results.append(learn(model, x, y, structure=structure, learning_rate=0.1, generator=seeded(seed)))
        assert torch.equal(torch.get_rng_state(), state)
    same, again, other = (result.noise.to_dense() for result in results)
    assert torch.equal(same, again) and not torch.allclose(same, other)
    assert torch.equal(results[0].network[2].weight, results[1].network[2].weight)


def test_what_comes_back() -> None:
    x, y = points(64, DIRECTION)
    learned = learn(readout(DIRECTION.double()), x.double(), y, structure=LowRank(1))
    assert learned.noise.dtype == torch.float64 and learned.noise.factors.shape == (4, 1)
    assert not learned.noise.factors.requires_grad and not learned.noise.diagonal().requires_grad
    assert torch.equal(learned.source.mean_shift, torch.zeros(4, dtype=torch.float64))
    assert learned.history.sizes == {"epoch": 2} and list(learned.history["epoch"]) == [1, 2]
    source = learned.source
    assert source.origin == Origin("learned", of="FixedTrace(trace=4.0)") and source.structure == LowRank(1)
    assert (source.model, source.layer, source.n_samples) == ("Sequential", "0", 64)
    penalty = Divergence(weight=0.5, variance=2.0)
    assert learn(readout(DIRECTION), x, y, constraint=penalty).constraint == penalty


class Watching(nn.Module):
    """Passes its input on and remembers it and the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        self.modes.append(self.training)
        return x


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    x, y = points(20, DIRECTION)
    model = nn.Sequential(Watching(), nn.Identity(), nn.Linear(4, 2))
    learned = learn(model, x, y, layer="1", n_epochs=2, batch_size=6)
    shown = learned.network[0].seen[1:]  # the first pass asks how many units there are
    assert [len(batch) for batch in shown] == [6, 6, 6, 2] * 2
    first, second = torch.cat(shown[:4]), torch.cat(shown[4:])
    assert not torch.equal(first, second) and not torch.equal(first, x)
    for epoch in (first, second):
        torch.testing.assert_close(epoch.sort(dim=0).values, x.sort(dim=0).values)


def test_the_history_is_the_mean_over_images() -> None:
    """Of noise too weak to matter, in batches of unequal size."""
    x, y = points(20, DIRECTION)
    model = readout(3 * DIRECTION)
    learned = learn(model, x, y, trace=1e-12, batch_size=19)
    expected = float(nn.functional.cross_entropy(model(x), y))
    np.testing.assert_allclose(learned.history["cross_entropy"], expected, rtol=1e-4)


def test_the_modification_makes_the_images() -> None:
    network = networks.small_network(rng=0)
    images = torch.rand(8, 1, 28, 28, generator=seeded(1))
    model = nn.Sequential(Watching(), *network)
    modification = networks.Brightness(5)
    learned = learn(model, images, torch.arange(8), layer="5", n_epochs=1, batch_size=8, modification=modification)
    shown = learned.network[0].seen[-1]
    assert shown.shape == images.shape and shown.mean() > images.mean() + 0.2
    learned = learn(model, images, torch.arange(8), layer="5", n_epochs=1, batch_size=8)
    assert learned.network[0].seen[-1].mean() == pytest.approx(float(images.mean()))


def signed_step(network: NoisyNetwork, x: Tensor, y: Tensor, *, generator: torch.Generator, n_draws: int = 1) -> Tensor:
    """A step of 0.1 up the cross-entropy, in the sign of its gradient over draws of the noise."""
    with torch.enable_grad():
        shown = x.detach().requires_grad_()
        logits = network.logits(shown, n_draws, generator=generator)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, shown)
    return (x + 0.1 * gradient.sign()).clamp(0, 1)


def test_an_attack_sees_the_present_noise_in_eval_mode() -> None:
    images = torch.rand(8, 1, 28, 28, generator=seeded(1))
    model = nn.Sequential(Watching(), *networks.small_network(rng=0))
    calls: list[tuple[bool, float]] = []

    def attack(network: NoisyNetwork, x: Tensor, y: Tensor, *, generator: torch.Generator) -> Tensor:
        calls.append((network.model.training, network.noises["5"].trace()))
        return signed_step(network, x, y, generator=generator)

    learned = learn(model, images, torch.arange(8), layer="5", n_epochs=3, batch_size=8, trace=2.0, attack=attack)
    assert [mode for mode, _ in calls] == [False] * 3
    assert [trace for _, trace in calls] == pytest.approx([2.0] * 3, rel=1e-5)
    assert learned.network[0].modes[-1], "the attack is over, and training goes on"
    shown = learned.network[0].seen[-1]
    assert 0.05 < (shown - images[_order(shown, images)]).abs().max() <= 0.1 + 1e-6


def _order(shown: Tensor, images: Tensor) -> Tensor:
    return (shown.flatten(1)[:, None] - images.flatten(1)).abs().sum(-1).argmin(1)


def test_averaged_gradients_make_an_attack() -> None:
    images = torch.rand(8, 1, 28, 28, generator=seeded(1))
    attack = partial(signed_step, n_draws=3)
    learned = learn(networks.small_network(rng=0), images, torch.arange(8), layer="layer4", attack=attack)
    assert learned.noise.n == 16


def test_frozen_layers_stay_as_they_are() -> None:
    x, y = points(64, DIRECTION)
    front = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.9)).requires_grad_(False)
    model = nn.Sequential(front, nn.Linear(4, 2), nn.BatchNorm1d(2))
    learned = learn(model, x, y, learning_rate=0.1)
    for name, value in front.state_dict().items():
        assert torch.equal(learned.network[0].state_dict()[name], value)
    assert not torch.equal(learned.network[2].running_mean, model[2].running_mean)
    frozen = learn(model.requires_grad_(False), x, y, learning_rate=0.1)
    assert all(torch.equal(frozen.network.state_dict()[name], value) for name, value in model.state_dict().items())


class Deaf(nn.Module):
    """Computes a layer that does not reach, or reaches without a gradient, the logits."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.inner, self.head, self.way = nn.Identity(), nn.Linear(4, 2), way

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        if self.way == "no grad":
            with torch.no_grad():
                return self.head(inner)
        return self.head({"unused": x, "detached": inner.detach(), "rounded": inner.round()}[self.way])


@pytest.mark.parametrize("way", ["unused", "detached", "no grad"])
@pytest.mark.parametrize("frozen", [True, False])
def test_no_gradient_through_the_noise(way: str, frozen: bool) -> None:
    x, y = points(8, DIRECTION)
    with pytest.raises(ValueError, match="expected a gradient from the loss to the noise at layer 'inner', got none"):
        learn(Deaf(way).requires_grad_(not frozen), x, y, layer="inner")


def test_only_zero_gradients_in_a_frozen_network() -> None:
    x, y = points(8, DIRECTION)
    with pytest.raises(ValueError, match="to the noise at layer 'inner', got only zeros from a frozen network"):
        learn(Deaf("rounded").requires_grad_(False), x, y, layer="inner")


def test_a_readout_that_starts_at_zero_learns() -> None:
    """At first neither the loss nor its gradient depends on the noise, and later they do."""
    x, y = points(256, DIRECTION)
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    learned = learn(model, x, y, structure=Full(), n_epochs=40, learning_rate=0.05)
    assert along(learned.noise, DIRECTION) < 0.2


@pytest.mark.parametrize("constraint", [FixedTrace(2000.0), Divergence(weight=1.0, variance=2.0)])
def test_learning_starts_from_isotropic_variance(constraint: Constraint) -> None:
    """Of 1000 units, each of variance 2; with factors half of it is theirs, and scattered by their draw."""
    like = torch.zeros(1000)
    for structure in (DiagonalOnly(), Full()):
        noise = learnable(structure, like.clone(), constraint, seeded())
        torch.testing.assert_close(noise().to_dense().detach(), 2 * torch.eye(1000))
        assert noise.penalty().item() == pytest.approx(0, abs=1e-2)
    noise = learnable(LowRank(20), like, constraint, seeded())()
    assert noise.diagonal().sum().item() == pytest.approx(2000, rel=0.05)
    torch.testing.assert_close(noise.private.detach(), torch.ones(1000), rtol=0.05, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_off(mode: Callable) -> None:
    x, y = points(8, DIRECTION)
    with mode(), pytest.raises(ValueError, match=r"got torch\.no_grad or torch\.inference_mode"):
        learn(readout(DIRECTION), x, y)


INVALID: dict[str, dict[str, object]] = {
    r"expected a finite trace above 0, got 0": {"trace": 0},
    r"expected a finite trace above 0, got nan": {"trace": float("nan")},
    r"expected a finite trace above 0, got inf": {"trace": float("inf")},
    r"expected Full.*, got KroneckerProduct": {"structure": KroneckerProduct()},
    r"expected a rank from 1 to 3, got 4": {"structure": LowRank(4)},
    r"expected a rank from 1 to 3, got 0": {"structure": LowRank(0)},
    r"expected a modification or an attack, got both": {"modification": torch.clone, "attack": torch.clone},
    r"expected at least 1 epoch, 1 image a batch and .*, got 0": {"n_epochs": 0},
    r"expected at least 1 epoch, 1 image a batch and .*, got 2, 0": {"batch_size": 0},
    r"expected a layer of Sequential, got 'x'; near it: 0, 1": {"layer": "x"},
}


@pytest.mark.parametrize("message", INVALID)
def test_bad_options(message: str) -> None:
    x, y = points(8, DIRECTION)
    with pytest.raises(ValueError, match=message):
        learn(readout(DIRECTION), x, y, **INVALID[message])


BAD_DATA: dict[str, tuple[Tensor, Tensor]] = {
    "expected a label an image and at least 1 image, got 3 for 4": (torch.ones(4, 4), torch.zeros(3).long()),
    "expected a label an image and at least 1 image, got 0 for 0": (torch.ones(0, 4), torch.zeros(0).long()),
    "expected labels from 0 to 1, got 0 to 2": (torch.ones(2, 4), torch.tensor([0, 2])),
    "expected labels from 0 to 1, got -1 to 1": (torch.ones(2, 4), torch.tensor([-1, 1])),
    r"expected 2 int64 labels, got torch\.float32": (torch.ones(2, 4), torch.zeros(2)),
    r"expected a finite loss, got \[nan, 0.0\] in epoch 1": (torch.full((2, 4), torch.nan), torch.zeros(2).long()),
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_bad_data(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learn(readout(DIRECTION), *BAD_DATA[message])


def test_layers_that_cannot_carry_noise() -> None:
    inner = nn.Identity()
    x, y = points(8, DIRECTION)
    with pytest.raises(ValueError, match="expected layer '0' to fire once in a forward pass, got 2 times"):
        learn(nn.Sequential(inner, inner, nn.Linear(4, 2)), x, y)
    with pytest.raises(ValueError, match=r"expected a floating tensor from layer '0', .*got torch\.int64 \(1, 4\)"):
        learn(nn.Sequential(Whole(), nn.EmbeddingBag(9, 2)), x, y)


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.long().abs()


class Recurrent(nn.Module):
    """Reads the last of three time steps of a recurrent layer, whose batch comes second."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.expand(3, *x.shape))[0][-1])


def test_of_a_recurrent_layer_the_noise_leaves_the_time_that_is_read() -> None:
    torch.manual_seed(0)
    x, y = points(256, DIRECTION)
    model = Recurrent().requires_grad_(False)
    learned = learn(model, x, y, layer="rnn", trace=6.0, n_epochs=40, learning_rate=0.05, batch_size=256)
    early, middle, late = learned.noise.diagonal().view(3, 2).sum(1).tolist()
    assert late < 0.6 * min(early, middle)


def test_a_dense_covariance_that_will_not_fit_is_foreseen() -> None:
    """At 200,704 units a float32 matrix takes 161 GB, and learning several of them."""
    model = nn.Sequential(nn.ConstantPad1d((0, 200_700), 0.0), nn.Flatten(), Leading()).requires_grad_(False)
    x, y = points(8, DIRECTION)
    with pytest.raises(ValueError, match=r"got 200704 units: 1450\.2 GB of .* LowRankPlusDiagonal of rank 64"):
        learn(model, x, y, structure=Full())
    assert learn(model, x, y, structure=LowRank(2), n_epochs=1).noise.n == 200_704


class Leading(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


@pytest.mark.parametrize(("weight", "variance"), [(0, 1), (1, 0), (float("nan"), 1), (1, -2), (1, float("inf"))])
def test_a_bad_penalty(weight: float, variance: float) -> None:
    with pytest.raises(ValueError, match=f"expected a finite weight and variance above 0, got {weight} and {variance}"):
        Divergence(weight, variance)


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu() -> None:
    x, y = points(64, DIRECTION)
    here = learn(readout(DIRECTION), x, y, structure=LowRank(1), learning_rate=0.1)
    there = learn(readout(DIRECTION).cuda(), x.cuda(), y.cuda(), structure=LowRank(1), learning_rate=0.1)
    assert there.noise.device.type == "cuda"
    torch.testing.assert_close(there.noise.to_dense().cpu(), here.noise.to_dense(), rtol=1e-3, atol=1e-4)
