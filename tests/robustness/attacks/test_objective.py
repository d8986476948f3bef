"""The loss that attacks climb, against plain loops over draws, and the checks before they climb."""

import warnings
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neurovar.covariance import Dense, Diagonal, GainModulated
from neurovar.networks import NoisyNetwork, small_network
from neurovar.robustness import Loss, Objective
from neurovar.robustness.attacks._kernels import FastGradients

UNITS, CLASSES = 8, 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Sequential:
    """12 pixels → 8 tanh units, which get the noise → 5 logits, float64."""
    rng = generator(seed)
    layers = OrderedDict(flat=nn.Flatten(), hidden=nn.Linear(12, UNITS), tanh=nn.Tanh(), out=nn.Linear(UNITS, CLASSES))
    model = nn.Sequential(layers).double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return model


def batch(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 3, 4, generator=generator(1), dtype=torch.float64), torch.arange(n) % CLASSES


def dense() -> Dense:
    root = torch.randn(UNITS, UNITS, generator=generator(2), dtype=torch.float64)
    return Dense(root @ root.mT / UNITS + 0.1 * torch.eye(UNITS, dtype=torch.float64))


def objective(model: nn.Module, noises: dict, *, images: Tensor | None = None, **options: Any) -> Objective:
    """Of a model with this noise."""
    images = batch()[0] if images is None else images
    return Objective(NoisyNetwork(model, noises, images=images), **options)


def loss_by_hand(name: str, z: np.ndarray, label: int, target: int) -> float:
    """One image's loss, from the definitions."""
    rival = max(value for i, value in enumerate(z) if i != label)
    first, _, third, fourth = sorted(z, reverse=True)[:4]
    return {
        "cross_entropy": float(np.log(np.exp(z).sum()) - z[label]),
        "dlr": -(z[label] - rival) / (first - third),
        "targeted_dlr": -(z[label] - z[target]) / (first - (third + fourth) / 2),
        "margin": rival - z[label],
    }[name]


def logits_by_hand(model: nn.Sequential, image: Tensor, added: Tensor) -> np.ndarray:
    w, b, v, c = (p.detach().numpy() for p in model.parameters())
    return v @ (np.tanh(w @ image.detach().numpy().ravel() + b) + added.numpy()) + c


@pytest.mark.parametrize("follows", ["averaged", "mean_logits"])
@pytest.mark.parametrize("name", ["cross_entropy", "dlr", "targeted_dlr", "margin"])
def test_losses_match_plain_loops_over_draws(name: str, follows: str) -> None:
    model, (images, labels), noise, k = network(), batch(), dense(), 7
    targets = (labels + 2) % CLASSES
    ours = objective(model, {"tanh": noise}, n_draws=k, follows=follows, loss=name, generator=generator())
    drawn = ours.logits(images).detach()
    loss, z = ours.of(drawn, labels, targets), drawn.numpy()
    for i in range(len(images)):
        label, target = int(labels[i]), int(targets[i])
        one_each = [loss_by_hand(name, z[draw, i], label, target) for draw in range(k)]
        expected = np.mean(one_each) if follows == "averaged" else loss_by_hand(name, z[:, i].mean(0), label, target)
        assert loss[i].item() == pytest.approx(expected)


def test_logits_have_the_noise_of_their_draws() -> None:
    model, (images, _), noise, k = network(), batch(200), dense(), 3
    ours = objective(model, {"tanh": noise}, n_draws=k, generator=generator()).logits(images).detach()
    added = noise.sample((k * len(images),), generator=generator()).unflatten(0, (k, -1))
    for draw, i in ((0, 0), (1, 5), (2, 199)):
        np.testing.assert_allclose(ours[draw, i], logits_by_hand(model, images[i], added[draw, i]))


@pytest.mark.parametrize("follows", ["averaged", "mean_logits"])
@pytest.mark.parametrize("name", ["cross_entropy", "dlr", "targeted_dlr"])
def test_gradients_match_finite_differences(name: str, follows: str) -> None:
    model, (images, labels), h = network(), batch(), 1e-6
    targets = (labels + 1) % CLASSES

    def anew() -> Objective:
        """From the same seed, so that it has the same draws."""
        return objective(model, {"tanh": dense()}, n_draws=4, follows=follows, loss=name, generator=generator())

    loss, gradient, mean = anew().value_and_gradient(images, labels, targets)
    torch.testing.assert_close(loss, anew().value(images, labels, targets))
    torch.testing.assert_close(mean, anew().logits(images).detach().mean(0))
    for index in np.ndindex(images.shape[1:]):
        step = torch.zeros_like(images)
        step[(slice(None), *index)] = h
        upper, lower = (anew().value(images + side * step, labels, targets) for side in (1, -1))
        torch.testing.assert_close(gradient[(slice(None), *index)], (upper - lower) / (2 * h), rtol=1e-4, atol=1e-6)


def test_fixed_draws_are_the_same_and_fresh_ones_are_not() -> None:
    model, (images, _) = network(), batch()
    for noise in (dense(), Diagonal.isotropic(UNITS).to(dtype=torch.float64)):
        fixed = objective(model, {"tanh": noise}, n_draws=2, follows="fixed", generator=generator())
        assert torch.equal(fixed.logits(images), fixed.logits(images))
        assert not torch.equal(fixed.logits(images)[0], fixed.logits(images)[1])
        free = objective(model, {"tanh": noise}, n_draws=2, generator=generator())
        assert not torch.equal(free.logits(images), free.logits(images))
        assert not torch.equal(fixed.fresh(2).logits(images), fixed.logits(images))


def test_blocks_and_whole_draws_are_the_same_noise() -> None:
    """16 evaluations of 8 images take the rows that one evaluation of 128 takes, and all 512 are of that covariance."""
    model, (images, _), noise = network(), batch(512), dense()
    small = objective(model, {"tanh": noise}, generator=generator())
    drawn = torch.cat([small.logits(part)[0] for part in images.split(8)]).detach()
    added = noise.sample((len(images),), generator=generator())
    for i in (0, 7, 8, 255, 256, 511):
        np.testing.assert_allclose(drawn[i], logits_by_hand(model, images[i], added[i]))


def test_noise_that_no_block_can_know_is_drawn_as_it_is() -> None:
    model, (images, labels) = network(), batch()
    learned = Dense(dense().matrix.clone().requires_grad_())
    number = torch.tensor(0.5, dtype=torch.float64)
    gain = GainModulated(number, number.expand(UNITS), number, torch.ones(10, UNITS, dtype=torch.float64))
    for noise in (learned, gain):
        _, gradient, _ = objective(model, {"tanh": noise}, generator=generator()).value_and_gradient(images, labels)
        assert gradient.any()
    assert learned.matrix.grad is None


def rows_of(model: nn.Module, layer: str) -> list[int]:
    rows: list[int] = []
    model.get_submodule(layer).register_forward_hook(lambda module, args, output: rows.append(len(output)))
    return rows


class Watched(TorchDispatchMode):
    """What PyTorch is asked to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.masks = 0, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.products += func is torch.ops.aten.mm.default
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(list(args[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("k", [1, 20])
def test_layers_before_the_noise_run_once_and_weights_get_no_gradient(k: int) -> None:
    model, n = small_network(rng=0).eval(), 4
    images, labels = torch.rand(n, 1, 28, 28, generator=generator()), torch.arange(n)
    front, tail = rows_of(model, "layer0"), rows_of(model, "layer2")
    ours = objective(model, {"layer1": Diagonal.isotropic(3136)}, images=images, n_draws=k, generator=generator())
    for rows in (front, tail):
        rows.clear()  # of the check
    with Watched() as watched:
        ours.value_and_gradient(images, labels)
    assert (front, tail) == ([n], [k * n])
    assert watched.masks == [[True, False, False]] * 2  # the first convolution's gradient is a convolution
    assert watched.products == 3  # a linear layer's input, and not its weights
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("channels", "size", "kernel", "padding"), [(1, 28, 5, 2), (1, 12, 3, 0), (3, 10, 3, 1), (2, 9, 3, 1)]
)
def test_fast_gradients_are_those_of_autograd(
    channels: int, size: int, kernel: int, padding: int, dtype: torch.dtype
) -> None:
    rng = torch.get_rng_state()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(channels, 6, kernel, padding=padding), nn.Tanh(), nn.MaxPool2d(2)).to(dtype)
    torch.set_rng_state(rng)
    images = torch.rand(3, channels, size, size, generator=generator(), dtype=dtype)
    images[0] = 0  # every pool has equal values

    def gradient() -> tuple[Tensor, Tensor]:
        shown = images.clone().requires_grad_()
        output = model(shown)
        weights = torch.rand(output.shape, generator=generator(4), dtype=dtype)
        return output.detach(), torch.autograd.grad((output * weights).sum(), shown)[0]

    expected = gradient()
    with FastGradients():
        ours = gradient()
    torch.testing.assert_close(ours, expected, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


def test_fast_gradients_leave_other_operations_alone() -> None:
    """Strided, dilated, grouped and overlapping ones, weights that come from the images."""
    images = torch.rand(2, 2, 8, 8, generator=generator(), requires_grad=True)
    weight = torch.rand(4, 2, 3, 3, generator=generator(1))
    functions = [
        lambda x: torch.conv2d(x, weight, stride=2),
        lambda x: torch.conv2d(input=x, weight=weight),
        lambda x: torch.conv2d(x, weight, None, (1, 1), (3, 3), (1, 1), 1),
        lambda x: torch.conv2d(x, weight, dilation=2),
        lambda x: torch.conv2d(x, weight[:, :1], groups=2),
        lambda x: torch.conv2d(x, weight, padding="same"),
        lambda x: torch.conv2d(x, x.mean() * weight, None, (1, 1), (1, 1), (1, 1), 1),
        lambda x: nn.functional.max_pool2d(x, 3, 2),
        lambda x: nn.functional.max_pool2d(x, 2, 1),
        lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: nn.functional.max_pool2d(x.contiguous(memory_format=torch.channels_last), 2),
    ]
    for function in functions:
        expected = torch.autograd.grad(function(images).square().sum(), images)[0]
        with FastGradients():
            torch.testing.assert_close(torch.autograd.grad(function(images).square().sum(), images)[0], expected)
    extremes = torch.tensor([torch.inf, -torch.inf, 0.0, 1e-30, 50.0, -50.0]).view(1, 1, 1, 6).requires_grad_()
    with FastGradients():
        torch.testing.assert_close(torch.tanh(extremes), extremes.detach().tanh(), rtol=4e-7, atol=0)


class Saturated(nn.Module):
    """Images whose first pixel is above one half have logits that do not move."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return torch.stack([x[:, 1].where(x[:, 0] <= 0.5, 0.3), 2 * x[:, 2].where(x[:, 0] <= 0.5, 0.4)], dim=1)


def test_images_without_gradient_are_told_of_once() -> None:
    images, labels = torch.full((4, 1, 2, 2), 0.4), torch.zeros(4, dtype=torch.int64)
    images[0, 0, 0, 0] = 0.9
    ours = objective(Saturated().eval(), {}, images=images, generator=generator())
    with pytest.warns(RuntimeWarning, match="the gradient is exactly zero for 1 of 4 images; gradients do not attack"):
        ours.value_and_gradient(images, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.value_and_gradient(images, labels)
        ours.value_and_gradient(images[:1], labels[:1])  # what is left of a batch may be flat
    with pytest.raises(ValueError, match="expected gradients that are not all zero, got only zeros for 1 of 1 images"):
        ours = objective(Saturated().eval(), {}, images=images, generator=generator())
        ours.value_and_gradient(images[:1], labels[:1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"follows": "median"}, "expected a follows out of averaged, mean_logits, .*, got 'median'"),
        ({"loss": "hinge"}, "expected a loss out of cross_entropy, dlr, .*, got 'hinge'"),
        ({"n_draws": 0}, "expected at least 1 draw, got 0"),
    ],
)
def test_bad_objectives_are_named(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        objective(network(), {"tanh": dense()}, generator=generator(), **options)


@pytest.mark.parametrize(
    ("loss", "n_classes", "match"),
    [
        ("dlr", 2, "expected at least 3 classes for the loss dlr, got 2"),
        ("targeted_dlr", 3, "expected at least 4 classes for the loss targeted_dlr, got 3"),
    ],
)
def test_too_few_classes_are_named(loss: str, n_classes: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Loss(loss)(torch.rand(2, n_classes), torch.tensor([0, 1]), torch.tensor([1, 0]))


def test_a_targeted_loss_needs_targets() -> None:
    with pytest.raises(ValueError, match="expected target classes for the loss targeted_dlr, got none"):
        Loss("targeted_dlr")(torch.rand(2, 5), torch.tensor([0, 1]), None)


def test_a_compiled_network_runs_as_written() -> None:
    """Otherwise the compiler would trace the attack's own operations along."""
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    model = small_network(rng=0).eval()
    images, labels = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    expected, found = (
        objective(each, {}, images=images, generator=torch.Generator()).value_and_gradient(images, labels)[1]
        for each in (model, torch.compile(model, backend=backend))
    )
    assert torch.equal(found, expected)
    assert not compiled
