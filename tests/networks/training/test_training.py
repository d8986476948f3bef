"""Training against an optimiser written out, and retraining that leaves alone what it must."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained import Seeing, adam_by_hand, generator, perceptron, same, separable, state

from neurovar.covariance import Dense, Diagonal
from neurovar.networks import halves, reinitialised, retrain, small_network, train

UNITS = {"layer0": 1176, "layer1": 3136, "layer2": 400, "layer3": 32, "layer4": 16, "layer5": 10}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


class Scaled(nn.Module):
    """A parameter of its own, and no way to draw it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def test_the_small_network_is_the_published_one() -> None:
    model = small_network(rng=0)
    x, sizes = torch.rand(2, 1, 28, 28, generator=generator()), {}
    for name, layer in model.named_children():
        x = layer(x)
        sizes[name] = x[0].numel()
        assert name == "layer5" or -1 <= x.min() < 0 < x.max() <= 1  # after the tanh
    assert sizes == UNITS
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim > 1]
    assert shapes == [(6, 1, 5, 5), (16, 6, 3, 3), (16, 16, 5, 5), (32, 400), (16, 32), (10, 16)]


def test_the_small_network_is_initialised_by_pytorchs_defaults_from_rng_alone() -> None:
    before = torch.get_rng_state()
    model = small_network(rng=0)
    assert torch.equal(torch.get_rng_state(), before)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            assert 0.8 * bound < module.weight.abs().max() <= bound
    torch.manual_seed(11)
    assert same(state(model), state(small_network(rng=0)))
    assert same(state(model), state(small_network(rng=np.random.default_rng(0))))
    assert not same(state(model), state(small_network(rng=1)), "layer1")
    torch.set_rng_state(before)


def test_training_follows_adam_on_shuffled_batches() -> None:
    images, labels = separable(n=50)
    images, model = images.double(), nn.Linear(6, 4, bias=False).double()
    start = model.weight.detach().numpy().copy()
    torch_rng = generator(3)
    batches = [rows.numpy() for _ in range(3) for rows in torch.randperm(50, generator=torch_rng).split(16)]
    trained = train(model, images, labels, n_epochs=3, batch_size=16, learning_rate=0.05, generator=generator(3))
    expected = adam_by_hand(start, images.numpy(), labels.numpy(), batches, 0.05)
    np.testing.assert_allclose(trained.weight.detach(), expected, atol=1e-10)


def test_a_separable_problem_is_learnt() -> None:
    images, labels = separable()
    model = perceptron()
    trained = train(model, images, labels, n_epochs=20, learning_rate=0.01, generator=generator())
    assert accuracy(model, images, labels) < 0.6
    assert accuracy(trained, *separable(seed=1)) > 0.97


def test_training_leaves_the_model_and_the_global_randomness_alone() -> None:
    images, labels = separable()
    model, before, randomness = perceptron().train(), state(perceptron()), torch.get_rng_state()
    trained = train(model, images, labels, n_epochs=1, generator=generator())
    assert same(state(model), before)
    assert model.training
    assert not any(module.training for module in trained.modules())
    assert not same(state(trained), before)
    assert torch.equal(torch.get_rng_state(), randomness)


def test_training_depends_on_the_generator_alone_even_with_dropout() -> None:
    images, labels = separable()
    model = nn.Sequential(nn.Dropout(0.5), perceptron())
    before = torch.get_rng_state()
    first = state(train(model, images, labels, n_epochs=2, generator=generator(0)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    assert same(first, state(train(model, images, labels, n_epochs=2, generator=generator(0))))
    assert not same(first, state(train(model, images, labels, n_epochs=2, generator=generator(1))))
    torch.set_rng_state(before)


def test_progress_counts_epochs() -> None:
    done: list[int] = []
    train(perceptron(), *separable(), n_epochs=3, generator=generator(), advance=done.append)
    assert done == [1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "n_epochs", "match"),
    [
        (torch.zeros(399).long(), 1, "expected a label an image and at least 1 image, got 399 for 400"),
        (torch.zeros(400).long(), 0, "expected at least 1 epoch,.* got 0, 64 and 0.001"),
        (torch.full((400,), 4), 1, r"expected labels from 0 to 3, got 4 to 4"),
        (torch.full((400,), -100), 1, r"expected labels from 0 to 3, got -100 to"),
        (torch.zeros(400), 1, r"expected 400 int64 labels, got torch\.float32"),
    ],
)
def test_bad_labels_and_epochs_are_named(labels: Tensor, n_epochs: int, match: str) -> None:
    images, _ = separable()
    with pytest.raises(ValueError, match=match):
        train(perceptron(), images, labels, n_epochs=n_epochs, generator=generator())
    with pytest.raises(ValueError, match=match):
        retrain(perceptron(), images, labels, layer="1", noise=None, n_epochs=n_epochs, generator=generator())


def test_halves_share_the_parameters_and_make_the_whole() -> None:
    model, x = perceptron(), torch.ones(2, 6)
    front, tail = halves(model, "2")
    assert [name for name, _ in front.named_children()] == ["0", "1", "2"]
    assert [name for name, _ in tail.named_children()] == ["3", "4"]
    assert front[2] is model[2]
    assert torch.equal(tail(front(x)), model(x))


@pytest.mark.parametrize("trainable", [False, True])
def test_reinitialising_draws_what_follows_anew_and_freezes_the_rest(trainable: bool) -> None:
    model, before, randomness = perceptron().requires_grad_(trainable), state(perceptron()), torch.get_rng_state()
    fresh = reinitialised(model, layer="1", rng=0)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert same(state(model), before)
    assert same(state(fresh), before, "0")
    assert {name: p.requires_grad for name, p in fresh.named_parameters()} == {
        name: not name.startswith("0") for name in before
    }
    for layer in ("2", "4"):
        assert not any(
            torch.equal(state(fresh)[f"{layer}.{what}"], before[f"{layer}.{what}"]) for what in ("weight", "bias")
        )
        assert fresh[int(layer)].weight.abs().max() <= 8**-0.5  # PyTorch's default bound
    assert same(state(fresh), state(reinitialised(model, layer="1", rng=0)))
    assert not same(state(fresh), state(reinitialised(model, layer="1", rng=1)), "2")


def test_reinitialising_resets_the_statistics_of_a_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    model[1].running_mean.fill_(5.0)
    fresh = reinitialised(model, layer="0", rng=0)
    assert not fresh[1].running_mean.any()


@pytest.mark.parametrize(("module", "got"), [(Scaled(), "Scaled"), (nn.MultiheadAttention(8, 1), "MultiheadAttention")])
def test_a_module_that_cannot_start_afresh_is_refused(module: nn.Module, got: str) -> None:
    """Else it would keep what it had learnt, and nobody would know."""
    model = nn.Sequential(nn.Linear(6, 8), module)
    with pytest.raises(ValueError, match=f"expected modules with reset_parameters after '0', got {got}"):
        reinitialised(model, layer="0", rng=0)


@pytest.mark.parametrize("noise", [None, Diagonal.isotropic(8)])
def test_retraining_freezes_the_front_and_trains_the_rest(noise: Diagonal | None) -> None:
    images, labels = separable()
    base = train(perceptron(), images, labels, n_epochs=5, learning_rate=0.01, generator=generator())
    before, randomness = state(base), torch.get_rng_state()
    arguments = {"layer": "1", "noise": noise, "learning_rate": 0.01}
    retrained = retrain(base, images, labels, n_epochs=20, generator=generator(4), **arguments)

    assert same(state(base), before)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert same(state(retrained), before, "0")
    assert not any(module.training for module in retrained.modules())
    seed = int(torch.randint(2**62, (), generator=generator(4)))
    start = state(reinitialised(base, layer="1", rng=seed))
    for name in ("2.weight", "2.bias", "4.weight", "4.bias"):
        assert not torch.equal(state(retrained)[name], before[name])
        assert not torch.equal(state(retrained)[name], start[name])
    assert accuracy(retrained, *separable(seed=1)) > 0.9

    assert same(
        state(retrained), state(retrain(base, images, labels, n_epochs=20, generator=generator(4), **arguments))
    )
    other = retrain(base, images, labels, n_epochs=20, generator=generator(5), **arguments)
    assert not same(state(retrained), state(other), "2")


def test_retraining_without_noise_is_training_the_tail_on_the_activations() -> None:
    images, labels = separable()
    base, torch_rng = perceptron(), generator(4)
    fresh = reinitialised(base, layer="1", rng=int(torch.randint(2**62, (), generator=torch_rng)))
    front, tail = halves(fresh, "1")
    with torch.no_grad():
        activations = front(images)
    expected = train(tail, activations, labels, n_epochs=3, batch_size=32, learning_rate=0.01, generator=torch_rng)
    ours = retrain(
        base,
        images,
        labels,
        layer="1",
        noise=None,
        n_epochs=3,
        batch_size=32,
        learning_rate=0.01,
        generator=generator(4),
    )
    assert same(state(halves(ours, "1")[1]), state(expected))


def test_every_image_in_every_epoch_gets_fresh_noise_of_the_covariance_given() -> None:
    covariance = torch.tensor([[2.0, -0.8, 0.0], [-0.8, 1.0, 0.3], [0.0, 0.3, 0.5]])
    n, n_epochs = 500, 10
    images = torch.arange(n).float()[:, None] * 1000 * torch.ones(1, 3)  # tells which image each row was
    model = nn.Sequential(nn.Identity(), Seeing(), nn.Linear(3, 2))
    retrained = retrain(
        model,
        images,
        torch.zeros(n).long(),
        layer="0",
        noise=Dense(covariance),
        n_epochs=n_epochs,
        batch_size=64,
        generator=generator(),
    )
    assert [len(batch) for batch in retrained[1].seen] == [*[64] * 7, 52] * n_epochs
    seen = torch.cat(retrained[1].seen)
    which = (seen[:, 0] / 1000).round().long()
    for epoch in which.view(n_epochs, n):
        assert torch.equal(epoch.sort().values, torch.arange(n))
        assert not torch.equal(epoch, torch.arange(n))
    noise = (seen - images[which]).double()
    error = noise.T @ noise / len(noise) - covariance
    variances = covariance.diagonal()
    bound = 5 * ((torch.outer(variances, variances) + covariance**2) / len(noise)).sqrt() + 0.02  # rounding at 5e5
    assert (error.abs() < bound).all()
    by_image = noise[which.argsort(stable=True)].view(n, n_epochs, 3)
    assert (by_image[:, 0] * by_image[:, 1]).mean(0).abs().max() < 5 * 2 / n**0.5


def test_noise_teaches_the_tail_to_read_the_units_that_it_spares() -> None:
    """Unit 0 tells the classes apart best, until it gets noise; unit 1 has nothing but that noise, unit 2 little."""
    labels = torch.randint(2, (2000,), generator=generator())
    sign = 2.0 * labels[:, None] - 1
    images = torch.cat([4 * sign, torch.zeros_like(sign), sign], dim=1)
    shared = 20 * torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0.001]])
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 2))
    weights = []
    for noise in (None, Diagonal(shared.diagonal()), Dense(shared)):
        arguments = {"n_epochs": 15, "learning_rate": 0.03, "generator": generator(1)}
        retrained = retrain(model, images, labels, layer="0", noise=noise, **arguments)
        weights.append((retrained[1].weight[1] - retrained[1].weight[0]).detach())
    none, independent, correlated = weights
    assert none[0] > none[2]
    assert independent[2] > independent[0]
    assert abs(independent[1]) < 0.2 * independent[0]
    assert correlated[1] < -0.7 * correlated[0]  # the blind unit serves to subtract the noise that it shares


def test_a_front_in_training_mode_is_neither_changed_nor_random() -> None:
    images, labels = separable()
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), Seeing(), nn.Linear(6, 4)).train()
    before = state(model)
    retrained = retrain(model, images, labels, layer="1", noise=None, n_epochs=1, batch_size=400, generator=generator())
    assert same(state(model), before)
    assert model.training
    assert same(state(retrained), before, "0")
    expected = images / (1 + model[0].eps) ** 0.5  # the statistics that the layer starts with: mean 0, variance 1
    torch.testing.assert_close(retrained[2].seen[0].sort(0).values, expected.sort(0).values)


def test_noise_of_another_floating_type_is_converted() -> None:
    noise = Diagonal.isotropic(8).to(dtype=torch.float64)
    retrained = retrain(perceptron(), *separable(), layer="1", noise=noise, n_epochs=1, generator=generator())
    assert retrained[4].weight.dtype == torch.float32
    assert torch.isfinite(retrained[4].weight).all()


def test_the_noise_of_a_convolutional_layer_has_its_shape() -> None:
    base, images = small_network(rng=0), torch.rand(20, 1, 28, 28, generator=generator())
    retrained = retrain(
        base,
        images,
        torch.arange(20) % 10,
        layer="layer1",
        noise=Diagonal.isotropic(UNITS["layer1"]),
        n_epochs=1,
        generator=generator(),
    )
    assert same(state(retrained), state(base), "layer1")
    assert not same(state(retrained), state(base), "layer2")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"noise": Diagonal.isotropic(7)}, "expected a covariance over the 8 units of layer '1', got 7"),
        ({"layer": "7"}, "expected a layer of Sequential, got '7'; near it: 0"),
        ({"layer": "4"}, r"expected one of the layers \['0', '1', '2', '3'\], which have layers after them, got '4'"),
        ({"model": nn.Linear(6, 4)}, r"expected a torch\.nn\.Sequential, got Linear"),
    ],
)
def test_bad_input_of_retraining_is_named(changes: dict, match: str) -> None:
    images, labels = separable()
    arguments = {"model": perceptron(), "layer": "1", "noise": None} | changes
    with pytest.raises(ValueError, match=match):
        retrain(images=images, labels=labels, n_epochs=1, generator=generator(), **arguments)


def test_a_layer_within_a_layer_is_no_place_to_cut() -> None:
    with pytest.raises(ValueError, match=r"expected one of the layers \['layer0', .*got 'layer1\.0'"):
        halves(small_network(rng=0), "layer1.0")


@pytest.mark.gpu
def test_on_a_gpu_retraining_is_reproducible_and_learns() -> None:
    images, labels = (t.cuda() for t in separable())
    base = copy.deepcopy(perceptron()).cuda()
    noise = Diagonal.isotropic(8, variance=0.1)
    arguments = {"layer": "1", "noise": noise, "n_epochs": 20, "learning_rate": 0.01}
    first = retrain(base, images, labels, generator=generator(0), **arguments)
    torch.cuda.manual_seed(5)
    second = retrain(base, images, labels, generator=generator(0), **arguments)
    torch.testing.assert_close(state(first), state(second), atol=1e-3, rtol=1e-3)
    assert accuracy(first, images, labels) > 0.9
    starts = [state(reinitialised(base, layer="1", rng=rng)) for rng in (0, 1)]
    assert not same(*starts, "2")
