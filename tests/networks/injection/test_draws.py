"""Multiplicative, fixed, antithetic, state-dependent and learned noise, and the mode it is for."""

import pytest
import torch
from injecting import assert_covariance, covariances, generator, identity, linear
from torch import Tensor, nn

from neurovar.covariance import Covariance, Dense, Diagonal, GainModulated, LowRankPlusDiagonal, MeanShift
from neurovar.networks import inject

KINDS = ["diagonal", "dense", "low_rank", "kronecker", "gain", "shifted"]


def added(noise: Covariance, x: Tensor, n_passes: int = 1, **options: object) -> Tensor:
    """What `inject` adds to x (image, unit): (pass, draw · image, unit)."""
    draws = options.get("draws", 1)
    with inject(identity(), {"1": noise}, generator=generator(), **options) as noisy:
        return torch.stack([noisy(x) - x.repeat(draws, 1) for _ in range(n_passes)])


def test_multiplicative_noise_is_a_fraction_of_the_activation() -> None:
    noise, x = covariances(4)["dense"], torch.tensor([[1.0, -2.0, 0.0, 3.0]])
    drawn = added(noise, x.expand(20_000, 4), multiplicative=True)[0]
    assert_covariance(drawn, noise.to_dense() * torch.outer(x[0], x[0]))
    torch.testing.assert_close(drawn, x * noise.sample((20_000,), generator=generator()))


def test_the_gradient_of_multiplicative_noise_passes_through_both_the_signal_and_its_factor() -> None:
    """dy/dx = 1 + e; an attack through it would else see a network without noise."""
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]], requires_grad=True)
    with inject(
        identity(), {"1": covariances(4)["dense"]}, generator=generator(), multiplicative=True, draws=5
    ) as noisy:
        y = noisy(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach().sum(0, keepdim=True))
    assert (x.grad - 5).abs().min() > 0.01


def test_small_multiplicative_noise_survives_half_precision() -> None:
    """1 + e alone would round to 1 where e is below 1/256."""
    x = torch.full((1, 1000), 100.0, dtype=torch.bfloat16)
    with inject(
        identity(), {"1": MeanShift(torch.full((1000,), 0.003))}, generator=generator(), multiplicative=True
    ) as m:
        assert m(x).unique().tolist() == [100.5]


@pytest.mark.parametrize(("when", "modes"), [("train", [True]), ("eval", [False]), ("both", [True, False])])
def test_noise_is_on_in_the_mode_that_is_named(when: str, modes: list[bool]) -> None:
    model = identity()
    with inject(model, {"1": Diagonal.isotropic(2)}, generator=generator(), when=when, draws=3):
        for training in (True, False):
            model.train(training)
            model[1].train(not training)  # a frozen layer's own mode does not count
            expected = 12 if training in modes else 4
            assert model(torch.zeros(4, 2)).shape == (expected, 2)
            assert model(torch.zeros(4, 2)).any() == (training in modes)


def test_a_layer_may_fire_as_often_as_it_likes_where_the_noise_is_off() -> None:
    shared = nn.Identity()
    model = nn.Sequential(shared, shared).train()
    with inject(model, {"0": Diagonal.isotropic(2)}, generator=generator(), when="eval"):
        assert not model(torch.zeros(3, 2)).any()


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_draw_is_the_same_in_every_pass(kind: str, draws: int) -> None:
    x = torch.rand(4, 6, generator=generator(1)) + 0.1
    passes = added(covariances(6)[kind], x, n_passes=3, fixed=True, draws=draws)
    assert torch.equal(passes[0], passes[1])
    assert torch.equal(passes[0], passes[2])
    assert len(passes[0].unique(dim=0)) == 4 * draws, "one for each draw and image"


@pytest.mark.parametrize("antithetic", [False, True])
def test_a_smaller_batch_gets_the_first_of_a_fixed_draw(antithetic: bool) -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    noises = {"0": covariances(6)["low_rank"], "1": covariances(6)["gain"]}
    x = torch.rand(5, 6, generator=generator(1))
    with inject(model, noises, generator=generator(), fixed=True, draws=2, antithetic=antithetic):
        whole = model(x).view(2, 5, 6)
        torch.testing.assert_close(model(x[:3]).view(2, 3, 6), whole[:, :3])
        torch.testing.assert_close(model(x).view(2, 5, 6), whole)


def test_a_fixed_draw_ends_with_its_context() -> None:
    torch_rng, draws = generator(), []
    for _ in range(2):
        with inject(identity(), {"1": Diagonal.isotropic(6)}, generator=torch_rng, fixed=True) as noisy:
            draws.append(noisy(torch.zeros(2, 6)))
    assert not torch.equal(*draws)
    with inject(identity(), {"1": Diagonal.isotropic(6)}, generator=generator(), fixed=True) as noisy:
        assert torch.equal(noisy(torch.zeros(2, 6)), draws[0])


def test_a_fixed_draw_does_not_depend_on_other_uses_of_the_generator() -> None:
    torch_rng = generator()
    with inject(identity(), {"1": Diagonal.isotropic(6)}, generator=torch_rng, fixed=True) as noisy:
        first = noisy(torch.zeros(2, 6))
        torch.rand(5, generator=torch_rng)
        assert torch.equal(noisy(torch.zeros(2, 6)), first)


def test_a_fixed_draw_has_the_covariance_given() -> None:
    noise = covariances(4)["dense"]
    assert_covariance(added(noise, torch.zeros(20_000, 4), fixed=True)[0], noise.to_dense())


def test_layers_under_a_fixed_draw_have_independent_noise() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    with inject(model, {"0": Diagonal.isotropic(3), "1": Diagonal.isotropic(3)}, generator=generator(), fixed=True):
        assert_covariance(model(torch.zeros(20_000, 3)), 2 * torch.eye(3))


def test_a_larger_batch_has_no_fixed_draw() -> None:
    match = "expected at most 2 images at layer '1', as in the first pass under a fixed draw, got 3"
    with inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), fixed=True, draws=4) as noisy:
        noisy(torch.zeros(2, 2))
        with pytest.raises(ValueError, match=match):
            noisy(torch.zeros(3, 2))


@pytest.mark.parametrize("kind", ["diagonal", "dense", "low_rank", "kronecker"])
def test_antithetic_draws_are_exact_opposites(kind: str) -> None:
    drawn = added(covariances(6)[kind], torch.zeros(3, 6), draws=4, antithetic=True)[0].view(4, 3, 6)
    assert torch.equal(drawn[:2], -drawn[2:])
    assert len(drawn.flatten(0, 1).unique(dim=0)) == 12


def test_antithetic_draws_have_the_covariance_given() -> None:
    noise = covariances(4)["low_rank"]
    drawn = added(noise, torch.zeros(1, 4), draws=40_000, antithetic=True)[0]
    for half in drawn.view(2, 20_000, 4):
        assert_covariance(half, noise.to_dense())


def test_antithetic_draws_are_opposite_about_the_mean() -> None:
    shift = torch.tensor([3.0, -1.0])
    noise = covariances(2)["gain"] + MeanShift(shift)
    drawn = added(noise, torch.ones(1, 2), draws=6, antithetic=True)[0].view(2, 3, 2)
    torch.testing.assert_close(drawn.mean(0), shift.expand(3, 2))


def test_antithetic_noise_takes_the_state_of_its_own_draw() -> None:
    """Behind another noise the two of a pair have other states; each gets the covariance of its own."""
    gain = GainModulated(torch.tensor(0.25), torch.zeros(2), torch.tensor(1.0), torch.ones(1, 2))
    model = nn.Sequential(nn.Identity(), nn.Identity())
    with inject(
        model, {"0": Diagonal.isotropic(2, variance=1e-4), "1": gain}, generator=generator(), draws=2, antithetic=True
    ):
        first, second = model(torch.tensor([[1.0, 4.0]])).double()
    state = torch.stack([first, second]) / torch.tensor([[1.0, 4.0]])
    assert (state[:, 0] / state[:, 1] - 1).abs().max() < 0.1, "the gain is shared by the units of a draw"
    with inject(model, {"0": Diagonal.isotropic(2, variance=1e-4)}, generator=generator(), draws=2, antithetic=True):
        before = model(torch.tensor([[1.0, 4.0]])).double()
    gains = (torch.stack([first, second]) / before - 1).mean(1)
    torch.testing.assert_close(gains[0], -gains[1], rtol=1e-4, atol=1e-5)


def test_antithetic_draws_cancel_in_a_linear_network() -> None:
    model, x = linear(), torch.randn(3, 3, generator=generator(1), dtype=torch.float64)
    noises = {name: covariances(4)["dense"].to(dtype=torch.float64) for name in ("0", "1")}
    clean = model(x)
    with inject(model, noises, generator=generator(), draws=2, antithetic=True):
        torch.testing.assert_close(model(x).view(2, 3, 2).mean(0), clean)


@pytest.mark.parametrize("draws", [1, 3])
def test_antithetic_draws_come_in_pairs(draws: int) -> None:
    match = f"expected an even number of draws, as antithetic ones are pairs, got {draws}"
    with (
        pytest.raises(ValueError, match=match),
        inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), draws=draws, antithetic=True),
    ):
        pass


def test_the_mode_is_one_of_three() -> None:
    with (
        pytest.raises(ValueError, match="expected when to be one of train, eval, both, got 'test'"),
        inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), when="test"),
    ):
        pass


def test_state_dependent_noise_follows_the_activation() -> None:
    noise, x = covariances(4)["gain"], torch.tensor([[0.5, 1.0, 0.0, 3.0]])
    drawn = added(noise, x.expand(20_000, 4))[0]
    assert_covariance(drawn, noise.at(x[0]).to_dense())


def test_the_gradient_goes_through_state_dependent_noise() -> None:
    """With a shared gain alone y = (1 + g) x, so that dy/dx = 1 + g."""
    noise = GainModulated(torch.tensor(0.5), torch.zeros(3), torch.tensor(1.0), torch.ones(1, 3))
    x = torch.tensor([[1.0, 2.0, 4.0]], requires_grad=True)
    with inject(identity(), {"1": noise}, generator=generator()) as noisy:
        out = noisy(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, out.detach() / x.detach())


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("antithetic", [False, True])
def test_gradients_reach_learned_noise(fixed: bool, antithetic: bool) -> None:
    """Against finite differences with the same seed."""
    factors = torch.randn(4, 2, generator=generator(1), dtype=torch.float64, requires_grad=True)
    private = torch.rand(4, generator=generator(2), dtype=torch.float64).add_(0.1).requires_grad_()

    def loss(factors: Tensor, private: Tensor) -> Tensor:
        noise = LowRankPlusDiagonal(factors, private)
        options = {"fixed": fixed, "antithetic": antithetic, "draws": 4}
        with inject(linear(), {"1": noise}, generator=generator(), **options) as noisy:
            return noisy(torch.ones(2, 3, dtype=torch.float64)).square().sum()

    assert torch.autograd.gradcheck(loss, (factors, private))


def test_learned_noise_under_a_fixed_draw_learns_at_every_step() -> None:
    scale = nn.Parameter(torch.ones(2))
    losses = []
    for _ in range(2):
        with inject(identity(), {"1": Diagonal(scale.square())}, generator=generator(), fixed=True) as noisy:
            for _ in range(2):
                loss = noisy(torch.zeros(3, 2)).square().sum()
                losses.append(loss.item())
                scale.grad = None
                loss.backward(retain_graph=True)
        with torch.no_grad():
            scale.mul_(2)
    assert losses[0] == losses[1] and losses[2] == losses[3]
    assert losses[2] == pytest.approx(4 * losses[0])


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_learned_noise_without_gradients_is_refused_in_train_mode(off: type) -> None:
    noise = LowRankPlusDiagonal(torch.ones(2, 1, requires_grad=True), torch.ones(2))
    match = "expected gradients to be on in train mode, as the noise of layer '1' is learned, got no_grad or inference"
    model = identity(training=True)
    with inject(model, {"1": noise}, generator=generator()), off():
        with pytest.raises(ValueError, match=match):
            model(torch.zeros(3, 2))
        assert model.eval()(torch.zeros(3, 2)).any(), "an evaluation needs none"


def test_a_learned_part_of_a_sum_counts() -> None:
    noise = covariances(2)["gain"] + MeanShift(torch.ones(2, requires_grad=True))
    with (
        inject(identity(training=True), {"1": noise}, generator=generator()) as noisy,
        torch.no_grad(),
        pytest.raises(ValueError, match="expected gradients to be on in train mode"),
    ):
        noisy(torch.zeros(3, 2))


class Detached(Diagonal):
    def _colorize(self, normals: Tensor) -> Tensor:
        return super()._colorize(normals).detach()


def test_learned_noise_that_draws_outside_autograd_is_refused() -> None:
    match = "expected a gradient to the learned noise of layer '1', got draws of Detached without one"
    with (
        inject(identity(), {"1": Detached(torch.ones(2, requires_grad=True))}, generator=generator()) as noisy,
        pytest.raises(ValueError, match=match),
    ):
        noisy(torch.zeros(3, 2))


def test_a_dense_covariance_on_the_same_device_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "to", None)
    with inject(identity(), {"1": covariances(4)["dense"]}, generator=generator()) as noisy:
        assert noisy(torch.zeros(2, 4)).any()
