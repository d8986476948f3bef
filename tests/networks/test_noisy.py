"""A noisy network is checked when it is made, and gives the logits of each draw."""

from functools import partial

import pytest
import torch
from injecting import Returns, generator, n_hooks
from torch import Tensor, nn
from working import logits

from neurovar.covariance import Dense, Diagonal, GainModulated, LowRankPlusDiagonal, MeanShift
from neurovar.networks import Control, NoisyNetwork, Origin, in_workers, inject

IMAGES = torch.rand(6, 1, 2, 2, generator=generator(3))


def classifier(*middle: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), *middle, nn.Linear(5, 3)).eval()


class Skipping(nn.Module):
    """Not a Sequential; a connection skips `inner`, and `block` contains both."""

    def __init__(self) -> None:
        super().__init__()
        self.body = classifier()
        self.block = nn.Identity()
        self.inner = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        return self.block(logits + self.inner(logits))


def noise(n: int = 5) -> Dense:
    root = torch.randn(n, n, generator=generator(1))
    return Dense(root @ root.T / n + 0.1 * torch.eye(n))


def network(**options: object) -> NoisyNetwork:
    return NoisyNetwork(classifier(), {"1": noise()}, images=IMAGES, **options)


def test_the_logits_of_each_draw_are_those_of_injected_noise() -> None:
    noisy = network()
    with inject(noisy.model, {"1": noise()}, generator=generator(5), draws=4):
        expected = noisy.model(IMAGES).view(4, 6, 3)
    assert torch.equal(noisy.logits(IMAGES, n_draws=4, generator=generator(5)), expected)
    assert not torch.equal(expected[0], expected[1])
    assert n_hooks(noisy.model) == 0


def test_without_noise_there_is_one_draw_and_no_generator() -> None:
    plain = network(origin=Origin("power_law"), control=Control("rotated")).without_noise()
    assert torch.equal(plain.logits(IMAGES, n_draws=7), plain.model(IMAGES)[None])
    assert (plain.noisy, plain.layers, plain.trace, plain.origin, plain.control) == (False, (), 0, None, None)


def test_what_a_network_says_of_itself() -> None:
    origin, control = Origin("attacked", of="PGD", epsilon=0.1, norm="linf"), Control("diagonal", matched_by="trace")
    noisy = network(origin=origin, control=control)
    assert (noisy.noisy, noisy.layers, noisy.n_classes, noisy.dtype) == (True, ("1",), 3, torch.float32)
    assert noisy.trace == pytest.approx(float(noise().trace()))
    assert (noisy.origin, noisy.control) == (origin, control)
    assert origin.is_attack and not Origin("power_law").is_attack
    assert noisy.device == torch.device("cpu") and noisy.to("cpu") is noisy


def test_a_network_has_other_noise_on_the_same_model() -> None:
    noisy = network(origin=Origin("power_law"))
    other = noisy.with_noises({"2": Diagonal.isotropic(5)}, control=Control("isotropic"))
    assert other.model is noisy.model and other.layers == ("2",)
    assert (other.origin, other.control) == (None, Control("isotropic"))
    with pytest.raises(ValueError, match="5 units of layer '2', got 4"):
        noisy.with_noises({"2": Diagonal.isotropic(4)})


def test_the_noises_given_and_the_images_may_change_afterwards() -> None:
    noises, images = {"1": noise()}, IMAGES.clone()
    noisy = NoisyNetwork(classifier(), noises, images=images)
    noises.clear()
    images.zero_()
    assert noisy.layers == ("1",) and torch.equal(noisy.images, IMAGES)


def test_eight_images_are_kept() -> None:
    assert len(NoisyNetwork(classifier(), images=torch.rand(20, 1, 2, 2)).images) == 8


@pytest.mark.parametrize("layer", ["1", "3"])
def test_any_child_in_training_mode_is_refused_by_name(layer: str) -> None:
    model = classifier(nn.Dropout(0.1))
    model.get_submodule(layer).train()
    with pytest.raises(ValueError, match=rf"layer '{layer}' in training mode; call model\.eval\(\)"):
        NoisyNetwork(model, images=IMAGES)
    with pytest.raises(ValueError, match="got the model in training mode"):
        NoisyNetwork(model.train(), images=IMAGES)


def test_a_model_that_is_switched_to_training_later_is_refused() -> None:
    noisy = network()
    noisy.model[2].train()
    for call in (partial(noisy.logits, IMAGES, generator=generator()), partial(noisy.check, IMAGES, torch.arange(6))):
        with pytest.raises(ValueError, match="layer '2' in training mode"):
            call()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(classifier(), nn.Softmax(-1)).eval(), "leave out the softmax"),
        (Returns(lambda x: x), r"\(6, classes\).*got \(6, 1, 2, 2\)"),
        (Returns(lambda x: (x,)), r"\(6, classes\).*got tuple"),
        (Returns(lambda x: x.flatten(1)[:, :1]), "2 classes or more"),
        (Returns(lambda x: x.flatten(1) / 0), "finite logits"),
        (Returns(lambda x: x.flatten(1) + torch.randn(6, 4)), "random in itself"),
    ],
)
def test_what_gives_no_logits_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyNetwork(model.eval(), images=IMAGES)


def test_noise_that_is_off_does_not_hide_behind_other_noise() -> None:
    model = classifier()
    model[-1].weight.data.zero_()  # what comes before the readout does not reach the logits
    noises = {"1": noise(), "3": Diagonal.isotropic(3)}
    with pytest.raises(ValueError, match="'1' to change the logits"):
        NoisyNetwork(model, noises, images=IMAGES)
    assert NoisyNetwork(model, {"3": Diagonal.isotropic(3)}, images=IMAGES).noisy


def test_a_mean_shift_need_not_be_random() -> None:
    shifted = NoisyNetwork(classifier(), {"1": MeanShift(torch.ones(5))}, images=IMAGES)
    first, second = shifted.logits(IMAGES, n_draws=2, generator=generator())
    assert torch.equal(first, second) and not torch.equal(first, shifted.without_noise().logits(IMAGES)[0])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES * 255, r"expected pixels in \[0, 1\].*divide"),
        (IMAGES * torch.nan, "expected pixels in"),
        (IMAGES[0], "expected float images"),
        (IMAGES.byte(), r"got torch\.uint8"),
        (IMAGES[:0], "expected float images"),
        (IMAGES.numpy(), "got ndarray"),
    ],
)
def test_what_are_no_images_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyNetwork(classifier(), images=images)
    with pytest.raises(ValueError, match=message):
        network().check(images, torch.zeros(6, dtype=torch.int64))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(5), "expected 6 int64 labels"),
        (torch.zeros(6), r"got torch\.float32"),
        (torch.tensor([0, 1, 2, 3, 0, 0]), "from 0 to 2, got 0 to 3"),
        (torch.tensor([0, 1, 2, -1, 0, 0]), "got -1 to 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, message: str) -> None:
    network().check(IMAGES, torch.tensor([0, 1, 2, 0, 1, 2]))
    with pytest.raises(ValueError, match=message):
        network().check(IMAGES, labels)


def test_unknown_layers_are_refused_with_those_near() -> None:
    with pytest.raises(ValueError, match="got 'l'; near it"):
        NoisyNetwork(classifier(), {"l": noise()}, images=IMAGES)


def test_draws_need_a_number_and_a_generator() -> None:
    with pytest.raises(ValueError, match="at least 1 draw, got 0"):
        network().logits(IMAGES, n_draws=0, generator=generator())
    with pytest.raises(ValueError, match="expected a generator"):
        network().logits(IMAGES, n_draws=2)


def test_fixed_draws_are_the_same_in_every_call() -> None:
    noisy, source = network(), generator(4)
    fixed = noisy.draws(5, generator=source, fixed=True, in_blocks=True)
    first = fixed.logits(IMAGES)
    assert torch.equal(fixed.logits(IMAGES), first)
    assert not torch.equal(noisy.draws(5, generator=source, fixed=True).logits(IMAGES), first)
    assert torch.equal(noisy.draws(5, generator=generator(4), fixed=True).logits(IMAGES), first)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_shared_draws_are_the_same_for_all_images(in_blocks: bool) -> None:
    noisy = NoisyNetwork(classifier(), {"3": noise(3)}, images=IMAGES)
    draws = noisy.draws(4, generator=generator(0), in_blocks=in_blocks, shared=True)
    deviations = draws.logits(IMAGES) - noisy.without_noise().logits(IMAGES)
    assert torch.allclose(deviations, deviations[:, :1].expand_as(deviations), atol=1e-6)
    assert not torch.allclose(deviations[0], deviations[1])


@pytest.mark.parametrize("low_rank", [False, True])
def test_draws_in_blocks_have_the_same_moments(low_rank: bool) -> None:
    covariance = LowRankPlusDiagonal(torch.ones(3, 1), torch.ones(3)) if low_rank else noise(3)
    noisy = NoisyNetwork(classifier(), {"3": covariance}, images=IMAGES)
    draws = noisy.draws(2000, generator=generator(0), in_blocks=True)
    deviations = (draws.logits(IMAGES) - noisy.without_noise().logits(IMAGES)).flatten(0, 1)
    assert torch.allclose(deviations.T @ deviations / len(deviations), covariance.to_dense(), atol=0.08)
    assert not torch.equal(draws.logits(IMAGES), draws.logits(IMAGES))


def test_gradients_reach_the_images_and_learned_noise() -> None:
    learned = Diagonal(torch.ones(5, requires_grad=True))
    noisy = NoisyNetwork(classifier(), {"1": learned}, images=IMAGES)
    images = IMAGES.clone().requires_grad_()
    noisy.draws(3, generator=generator(), in_blocks=True).logits(images).sum().backward()
    assert images.grad is not None and learned.variance.grad.abs().sum() > 0


def test_any_module_is_a_network() -> None:
    model = Skipping().eval()
    noisy = NoisyNetwork(model, {"block": Diagonal.isotropic(3)}, images=IMAGES)
    assert noisy.logits(IMAGES, n_draws=4, generator=generator()).shape == (4, 6, 3)
    skipped = NoisyNetwork(model, {"inner": Diagonal.isotropic(3)}, images=IMAGES)
    assert skipped.logits(IMAGES, generator=generator()).shape == (1, 6, 3)


def test_a_network_that_loses_draws_is_refused() -> None:
    model = classifier(Returns(lambda x: x[:6]))
    noisy = NoisyNetwork(model.eval(), {"1": noise()}, images=IMAGES)
    with pytest.raises(ValueError, match="4 draws of each of 6 images, got 6 rows"):
        noisy.logits(IMAGES, n_draws=4, generator=generator())


def test_networks_go_to_worker_processes() -> None:
    states = torch.rand(5, 5, generator=generator(2))
    gain = GainModulated(torch.tensor(0.3), torch.ones(5), torch.tensor(1.5), states)
    noisy = NoisyNetwork(classifier(), {"1": gain}, images=IMAGES, origin=Origin("power_law"))
    work = [partial(logits, noisy, IMAGES, seed) for seed in range(3)]
    here, there = list(in_workers(work, 1)), list(in_workers(work, 2))
    assert all(torch.equal(first, second) for first, second in zip(here, there, strict=True))


@pytest.mark.gpu
def test_a_network_moves_with_its_noise_and_images() -> None:
    moved = network().to("cuda")
    assert moved.device.type == "cuda" and moved.noises["1"].device.type == "cuda"
    assert moved.to("cuda") is moved
    logits = moved.logits(IMAGES.cuda(), n_draws=2, generator=generator())
    assert torch.allclose(logits.cpu(), network().logits(IMAGES, 2, generator=generator()), atol=1e-5)
    assert NoisyNetwork(moved.model, {"1": noise()}, images=IMAGES).noises["1"].device.type == "cuda"
