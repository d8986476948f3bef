"""Many networks at once give what one after another gives."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from trained import generator, perceptron, same, separable, state

from neurovar.covariance import Covariance, Dense, Diagonal, GainModulated
from neurovar.networks import retrain, retrain_many, small_network, train, train_many
from neurovar.networks.training._loop import Schedule
from neurovar.networks.training._many import _retrain_stacked, _train_stacked
from neurovar.networks.training._stacked import Source, fit_stacked

SEEDS = [3, 4, 3]


def noises(dtype: torch.dtype = torch.float32) -> list[Covariance | None]:
    shared = torch.eye(8, dtype=dtype) + 0.5
    return [None, Diagonal.isotropic(8, variance=0.3).to(dtype=dtype), Dense(shared)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_worker_processes_give_the_same_to_the_last_bit(n_jobs: int) -> None:
    images, labels = separable(n=50_000)  # over a megabyte, so that workers map it into memory
    models = [perceptron(seed=k) for k in range(3)]
    before, threads, randomness = [state(model) for model in models], torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    options = {"n_epochs": 1, "batch_size": 5000}
    together = train_many(models, images, labels, seeds=SEEDS, n_jobs=n_jobs, **options)
    for model, seed, ours in zip(models, SEEDS, together):
        assert same(state(train(model, images, labels, generator=generator(seed), **options)), state(ours))
        assert not any(module.training for module in ours.modules())
    again = retrain_many(
        [models[0]] * 3, images, labels, layer="1", noises=noises(), seeds=SEEDS, n_jobs=n_jobs, **options
    )
    for noise, seed, ours in zip(noises(), SEEDS, again):
        alone = retrain(models[0], images, labels, layer="1", noise=noise, generator=generator(seed), **options)
        assert same(state(alone), state(ours))
    torch.set_num_threads(threads)
    assert all(same(state(model), old) for model, old in zip(models, before))
    assert torch.equal(torch.get_rng_state(), randomness)


def test_the_number_of_threads_is_as_before() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    train_many([perceptron()], *separable(n=20), seeds=[0], n_epochs=1, n_jobs=1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)


def test_batched_parameters_train_as_one_after_another() -> None:
    """In float64, where 14 steps of Adam leave rounding small."""
    images, labels = separable(n=200)
    images = images.double()
    models = [perceptron(seed=k).double() for k in range(3)]
    before = [state(model) for model in models]
    together = _train_stacked(models, images, labels, Schedule(2, 32, 0.01), SEEDS)
    for model, seed, ours in zip(models, SEEDS, together):
        apart = train(model, images, labels, n_epochs=2, batch_size=32, learning_rate=0.01, generator=generator(seed))
        torch.testing.assert_close(state(ours), state(apart), rtol=1e-9, atol=1e-11)
        assert not any(module.training for module in ours.modules())
    assert all(same(state(model), old) for model, old in zip(models, before))


@pytest.mark.parametrize("different", [False, True])
def test_batched_retraining_is_retraining_one_after_another(different: bool) -> None:
    """With noise of every kind at once: of one base, or of a base each; the front may be in training mode."""
    images, labels = separable(n=200)
    images = images.double()
    front = nn.Sequential(OrderedDict(drop=nn.Dropout(0.5), linear=nn.Linear(6, 8))).double()
    bases = [nn.Sequential(front, nn.Tanh(), nn.Linear(8, 4)).double().train()] * 4
    if different:
        bases = [perceptron(seed=k).double() for k in range(4)]
    reference = torch.randn(5, 8, generator=generator(), dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    kinds = [*noises(torch.float64), GainModulated(0.1 * one, 0.1 * one.expand(8).clone(), one, reference)]
    seeds = [*SEEDS, 5]
    together = _retrain_stacked(bases, images, labels, "1", kinds, Schedule(2, 32, 0.01), seeds)
    for base, noise, seed, ours in zip(bases, kinds, seeds, together):
        options = {"layer": "1", "noise": noise, "n_epochs": 2, "batch_size": 32, "learning_rate": 0.01}
        apart = retrain(base, images, labels, generator=generator(seed), **options)
        torch.testing.assert_close(state(ours), state(apart), rtol=1e-8, atol=1e-10)
        assert {n: p.requires_grad for n, p in ours.named_parameters()} == {
            n: p.requires_grad for n, p in apart.named_parameters()
        }


def test_the_small_network_can_be_batched() -> None:
    images, labels = torch.rand(70, 1, 28, 28, generator=generator(), dtype=torch.float64), torch.arange(70) % 10
    bases = [small_network(rng=k).double() for k in range(2)]
    kinds = [Diagonal.isotropic(3136, variance=0.1).to(dtype=torch.float64), None]
    together = _retrain_stacked(bases, images, labels, "layer1", kinds, Schedule(1, 32, 1e-3), [0, 1])
    for base, noise, seed, ours in zip(bases, kinds, [0, 1], together):
        options = {"layer": "layer1", "noise": noise, "n_epochs": 1, "batch_size": 32}
        apart = retrain(base, images, labels, generator=generator(seed), **options)
        torch.testing.assert_close(state(ours), state(apart), rtol=1e-6, atol=1e-8)


def test_frozen_parameters_stay_when_batched() -> None:
    models = [perceptron(seed=k) for k in range(2)]
    for model in models:
        model[0].requires_grad_(False)
    for ours, model in zip(_train_stacked(models, *separable(n=64), Schedule(1, 32, 0.01), [0, 1]), models):
        assert same(state(ours), state(model), "0")
        assert not torch.equal(ours[4].weight, model[4].weight)
        assert not ours[0].weight.requires_grad


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("models", "match"),
    [
        ([perceptron(), nn.Sequential(nn.Linear(6, 4))], "same layers, frozen alike.* got different ones"),
        (
            [nn.Sequential(nn.Linear(6, 4), nn.Tanh()), nn.Sequential(nn.Linear(6, 4), nn.ReLU())],
            "same layers, frozen alike.* got different ones",
        ),
        ([perceptron(), perceptron().requires_grad_(False)], "same layers, frozen alike.* got different ones"),
        ([nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))] * 2, "without buffers and dropout.* got BatchNorm1d"),
        ([nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 4))] * 2, "without buffers and dropout.* got Dropout"),
        ([nn.Sequential(Random(), nn.Linear(6, 4))] * 2, r"torch\.func\.vmap can run side by side, got vmap"),
    ],
)
def test_networks_that_cannot_be_batched_are_named(models: list[nn.Module], match: str) -> None:
    images, labels = separable(n=20)
    sources = [Source(images, None, generator(k)) for k in range(len(models))]
    with pytest.raises(ValueError, match=match):
        fit_stacked(models, sources, labels, Schedule(1, 10, 0.01))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"models": [], "seeds": []}, "expected models and as many seeds, got 0 and 0"),
        ({"seeds": [0]}, "expected models and as many seeds, got 2 and 1"),
        ({"labels": torch.full((20,), 4)}, r"expected labels from 0 to 3, got 4 to 4"),
        ({"n_epochs": 0}, "expected at least 1 epoch,.* got 0, 64 and 0.001"),
    ],
)
def test_bad_input_of_many_is_named(changes: dict, match: str) -> None:
    images, labels = separable(n=20)
    given = {"models": [perceptron(), perceptron()], "images": images, "labels": labels, "seeds": [0, 1], "n_epochs": 1}
    given |= changes
    with pytest.raises(ValueError, match=match):
        train_many(n_jobs=1, **given)
    kinds = [None] * len(given["models"])
    with pytest.raises(ValueError, match=match):
        retrain_many(layer="1", noises=kinds, n_jobs=1, **given)


@pytest.mark.parametrize(
    ("kinds", "match"),
    [
        ([None], "expected models and as many noises, got 2 and 1"),
        ([None, Diagonal.isotropic(7)], "expected a covariance over the 8 units of layer '1', got 7"),
    ],
)
def test_noises_that_do_not_fit_are_named(kinds: list[Covariance | None], match: str) -> None:
    images, labels = separable(n=20)
    with pytest.raises(ValueError, match=match):
        retrain_many([perceptron()] * 2, images, labels, layer="1", noises=kinds, seeds=[0, 1], n_epochs=1, n_jobs=1)
    if len(kinds) == 2:
        with pytest.raises(ValueError, match=match):
            _retrain_stacked([perceptron()] * 2, images, labels, "1", kinds, Schedule(1, 10, 0.01), [0, 1])


@pytest.mark.gpu
def test_on_a_gpu_many_networks_train_as_one_after_another() -> None:
    images, labels = (tensor.cuda() for tensor in separable(n=200))
    images = images.double()
    bases = [perceptron(seed=k).cuda().double() for k in range(3)]
    kinds = noises(torch.float64)
    together = retrain_many(bases, images, labels, layer="1", noises=kinds, seeds=SEEDS, n_epochs=2, n_jobs=1)
    for base, noise, seed, ours in zip(bases, kinds, SEEDS, together):
        torch_rng = torch.Generator("cuda").manual_seed(seed)
        apart = retrain(base, images, labels, layer="1", noise=noise, n_epochs=2, generator=torch_rng)
        torch.testing.assert_close(state(ours), state(apart), rtol=1e-6, atol=1e-8)
    for ours, model, seed in zip(train_many(bases, images, labels, seeds=SEEDS, n_epochs=2, n_jobs=1), bases, SEEDS):
        apart = train(model, images, labels, n_epochs=2, generator=torch.Generator("cuda").manual_seed(seed))
        torch.testing.assert_close(state(ours), state(apart), rtol=1e-6, atol=1e-8)
