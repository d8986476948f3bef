"""Injected noise has the covariance that was asked for, where it was asked for, and goes when the context does."""

import copy
import itertools

import numpy as np
import pytest
import torch
from injecting import Returns, assert_covariance, covariances, generator, identity, linear, n_hooks
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from neurovar.covariance import Diagonal
from neurovar.networks import inject


class Counting(nn.Module):
    """The identity; remembers how many rows each call had."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x


class Branches(nn.Module):
    """The sum of two layers beside each other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x)


class Repeating(nn.Module):
    """Uses `inner` a given number of times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.inner, self.times = nn.Identity(), times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.inner(x)
        return x


def counting(*, training: bool = False) -> nn.Sequential:
    return nn.Sequential(Counting(), nn.Identity(), Counting()).train(training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["diagonal", "dense", "low_rank", "kronecker"])
def test_the_noise_has_the_covariance_given(kind: str, training: bool) -> None:
    noise = covariances(6)[kind]
    with inject(identity(training=training), {"1": noise}, generator=generator()) as noisy:
        samples = noisy(torch.zeros(20_000, 1, 2, 3))
    assert samples.shape == (20_000, 1, 2, 3)
    assert_covariance(samples.flatten(1), noise.to_dense())


def test_the_noise_is_added_to_what_the_layer_gives() -> None:
    model, x = linear(), torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    noise = covariances(4)["dense"].to(dtype=torch.float64)
    with inject(model, {"1": noise}, generator=generator()):
        noisy = model(x)
    added = noise.sample((5,), generator=generator())
    torch.testing.assert_close(noisy, model[2](model[1](model[0](x)) + added))


def test_every_image_and_every_pass_gets_its_own_noise() -> None:
    model = identity()
    with inject(model, {"1": Diagonal.isotropic(2)}, generator=generator()):
        passes = torch.stack([model(torch.zeros(3, 2)) for _ in range(4000)])
    assert_covariance(passes.flatten(1), torch.eye(6))  # images are independent of one another
    assert_covariance(torch.cat([passes[:-1], passes[1:]], dim=1).flatten(1)[::2], torch.eye(12))  # and so are passes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_noise_reaches_the_unit_that_it_is_for(memory_format: torch.memory_format) -> None:
    variance = torch.zeros(2, 3, 4)
    variance[1, 0, 2] = 1
    x = torch.zeros(5, 2, 3, 4).contiguous(memory_format=memory_format)
    with inject(identity(), {"1": Diagonal(variance.flatten())}, generator=generator()) as noisy:
        changed = noisy(x) != 0
    assert (changed == (variance > 0)).all()


def test_several_layers_carry_independent_noise() -> None:
    model, noises = linear(), covariances(4)
    noises = {"0": noises["dense"].to(dtype=torch.float64), "1": noises["low_rank"].to(dtype=torch.float64)}
    x = torch.randn(1, 3, generator=generator(1), dtype=torch.float64).expand(20_000, 3)
    with torch.no_grad():
        clean = model(x)
        with inject(model, noises, generator=generator()):
            deviation = model(x) - clean
        first, second = model[2].weight @ model[1].weight, model[2].weight
        expected = first @ noises["0"].to_dense() @ first.T + second @ noises["1"].to_dense() @ second.T
    assert_covariance(deviation, expected)


def test_the_same_seed_gives_the_same_noise_whatever_the_global_state() -> None:
    model, x, noises = linear(), torch.zeros(4, 3, dtype=torch.float64), {"0": Diagonal.isotropic(4)}
    outputs = []
    for seed in (3, 3, 4):
        with inject(model, noises, generator=generator(seed)):
            torch.rand(1)
            outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_global_randomness_is_not_used() -> None:
    state = torch.get_rng_state()
    with inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), draws=3) as noisy:
        noisy(torch.zeros(4, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_run_the_layers_before_the_noise_once() -> None:
    model = counting()
    with inject(model, {"1": Diagonal.isotropic(2)}, generator=generator(), draws=7):
        assert model(torch.zeros(4, 2)).shape == (28, 2)
    assert model[0].rows == [4]
    assert model[2].rows == [28]


def test_draws_come_in_blocks_of_all_images() -> None:
    x = torch.arange(8.0).view(4, 2)
    with inject(identity(), {"1": Diagonal.isotropic(2, variance=1e-12)}, generator=generator(), draws=3) as noisy:
        out = noisy(x).view(3, 4, 2)
    for draw in out:
        torch.testing.assert_close(draw, x, atol=1e-4, rtol=0)
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("layers", [["0"], ["1"], ["0", "1"]])
def test_draws_equal_one_pass_over_as_many_copies(layers: list[str]) -> None:
    """The numbers are drawn in the same order, so the two agree exactly and not only in distribution."""
    model, x = linear(), torch.randn(5, 3, generator=generator(1), dtype=torch.float64)
    noises = {layer: covariances(4)["dense"].to(dtype=torch.float64) for layer in layers}
    with inject(model, noises, generator=generator(), draws=6):
        at_once = model(x)
    with inject(model, noises, generator=generator()):
        copied = model(torch.cat([x] * 6))
    torch.testing.assert_close(at_once, copied, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("together", [True, False])
def test_draws_and_separate_passes_have_the_same_distribution(together: bool) -> None:
    """A linear readout W of noise with covariance C has covariance W C Wᵀ; draws of one image are independent."""
    model, noise = linear(), covariances(4)["low_rank"].to(dtype=torch.float64)
    x, n_draws = torch.randn(2, 3, generator=generator(1), dtype=torch.float64), 20_000
    torch_rng = generator(2)
    with torch.no_grad():
        with inject(model, {"1": noise}, generator=torch_rng, draws=n_draws if together else 1):
            if together:
                out = model(x).view(n_draws, 2, 2)
            else:
                out = torch.stack([model(x) for _ in range(n_draws)])
        one = model[2].weight @ noise.to_dense() @ model[2].weight.T
        deviation = (out - model(x)).flatten(1)
    assert_covariance(deviation, torch.block_diag(one, one))
    assert_covariance(torch.cat([deviation[::2], deviation[1::2]], dim=1), torch.block_diag(*[one] * 4))


def test_draws_expand_at_the_first_of_several_noisy_layers_only() -> None:
    model = nn.Sequential(Counting(), nn.Identity(), Counting(), nn.Identity(), Counting())
    noises = {"3": Diagonal.isotropic(2), "1": Diagonal.isotropic(2)}  # not in the order in which they fire
    with inject(model, noises, generator=generator(), draws=3):
        model(torch.zeros(2, 2))
        model(torch.zeros(5, 2))
    assert [model[i].rows for i in (0, 2, 4)] == [[2, 5], [6, 15], [6, 15]]


def test_the_gradient_reaches_the_input_summed_over_draws() -> None:
    model, noises = linear(), {"1": Diagonal.isotropic(4)}
    x = torch.randn(3, 3, generator=generator(1), dtype=torch.float64, requires_grad=True)
    with inject(model, noises, generator=generator(), draws=5):
        model(x).sum().backward()
    row = (model[2].weight @ model[1].weight @ model[0].weight).sum(0)
    torch.testing.assert_close(x.grad, 5 * row.expand(3, 3))


def test_the_output_keeps_the_type_of_the_layer() -> None:
    with inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator()) as noisy:
        assert noisy(torch.zeros(3, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
        assert noisy(torch.zeros(3, 2, dtype=torch.float64)).dtype == torch.float64


def test_what_the_layer_gave_is_not_changed_in_place() -> None:
    x = torch.zeros(3, 2)
    with inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator()) as noisy:
        assert noisy(x).any()
    assert not x.any()


def test_no_noise_changes_nothing() -> None:
    model, x = linear(), torch.ones(2, 3, dtype=torch.float64)
    expected = model(x)
    with inject(model, {}, generator=generator()) as same:
        assert same is model
        assert torch.equal(model(x), expected)


def test_an_empty_batch_stays_empty() -> None:
    with inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), draws=3) as noisy:
        assert noisy(torch.zeros(0, 2)).shape == (0, 2)


def test_noise_on_parallel_branches_adds_up() -> None:
    noises = {"left": Diagonal.isotropic(2), "right": Diagonal.isotropic(2, variance=2.0)}
    with inject(Branches(), noises, generator=generator()) as noisy:
        assert_covariance(noisy(torch.zeros(20_000, 2)), 3 * torch.eye(2))


@pytest.mark.parametrize("batch", [1, 4])
def test_draws_on_parallel_branches_are_refused(batch: int) -> None:
    """A batch of one would broadcast, and all draws share one noise, without an error from torch."""
    noises = {"left": Diagonal.isotropic(2), "right": Diagonal.isotropic(2)}
    match = rf"expected {3 * batch} rows at layer 'right', after \['left'\], got {batch}; .* needs draws=1"
    with inject(Branches(), noises, generator=generator(), draws=3) as noisy, pytest.raises(ValueError, match=match):
        noisy(torch.zeros(batch, 2))


def test_the_noise_is_off_outside_the_context() -> None:
    model, x = linear(), torch.ones(2, 3, dtype=torch.float64)
    expected = model(x)
    with inject(model, {"0": Diagonal.isotropic(4), "2": Diagonal.isotropic(2)}, generator=generator()):
        assert n_hooks(model) > 0
        assert not torch.equal(model(x), expected)
    assert n_hooks(model) == 0
    assert torch.equal(model(x), expected)


def test_no_hook_outlives_an_exception() -> None:
    model = linear()
    with pytest.raises(KeyError, match="mine"), inject(model, {"0": Diagonal.isotropic(4)}, generator=generator()):
        raise KeyError("mine")
    assert n_hooks(model) == 0
    noises = {"0": Diagonal.isotropic(4), "nowhere": Diagonal.isotropic(4)}
    with pytest.raises(ValueError, match="got 'nowhere'"), inject(model, noises, generator=generator()):
        pass
    assert n_hooks(model) == 0


def test_a_pass_that_failed_does_not_disturb_the_next() -> None:
    def fail_once(x: Tensor) -> Tensor:
        if next(calls) == 0:
            raise RuntimeError("once")
        return x

    calls = itertools.count()
    model = nn.Sequential(nn.Identity(), Returns(fail_once))
    with inject(model, {"0": Diagonal.isotropic(2)}, generator=generator(), draws=3):
        with pytest.raises(RuntimeError, match="once"):
            model(torch.zeros(4, 2))
        assert model(torch.zeros(4, 2)).shape == (12, 2)


def test_a_dense_covariance_is_not_factorised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack enters the context at every step; a factorisation of 3136 units takes a third of a second."""
    noise = covariances(4)["dense"].to(dtype=torch.float64)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)
    with inject(linear(), {"0": noise}, generator=generator()) as noisy:
        assert noisy(torch.zeros(2, 3, dtype=torch.float64)).shape == (2, 2)


@pytest.mark.parametrize("draws", [0, -1])
def test_at_least_one_draw(draws: int) -> None:
    match = f"expected at least 1 draw, and 1 without noise, got {draws} with 1 noisy layers"
    with (
        pytest.raises(ValueError, match=match),
        inject(linear(), {"0": Diagonal.isotropic(4)}, generator=generator(), draws=draws),
    ):
        pass


def test_several_draws_need_noise() -> None:
    match = "expected at least 1 draw, and 1 without noise, got 5 with 0 noisy layers"
    with pytest.raises(ValueError, match=match), inject(linear(), {}, generator=generator(), draws=5):
        pass


def test_an_unknown_layer_lists_the_near_ones() -> None:
    model = nn.Sequential()
    model.add_module("encoder", nn.Linear(2, 2))
    noises = {"encodr": Diagonal.isotropic(2)}
    with (
        pytest.raises(ValueError, match="expected a layer of Sequential, got 'encodr'; near it: encoder"),
        inject(model, noises, generator=generator()),
    ):
        pass


@pytest.mark.parametrize("n", [5, 7, 12])
def test_a_covariance_of_the_wrong_size_is_refused(n: int) -> None:
    match = f"expected a covariance over the 6 units of layer '1', got {n}"
    with (
        inject(identity(), {"1": Diagonal.isotropic(n)}, generator=generator(), draws=2) as noisy,
        pytest.raises(ValueError, match=match),
    ):
        noisy(torch.zeros(2, 1, 2, 3))


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x: x.long(), r"torch\.int64"),
        (lambda x: x.to(torch.complex64), r"torch\.complex64"),
        (lambda x: x > 0, r"torch\.bool"),
        (lambda x: [x, x], "list"),
        (lambda x: {"x": x}, "dict"),
        (lambda x: (), "tuple"),
        (lambda x: (x.long(), x), r"torch\.int64"),
        (lambda x: ("a", x), "str"),
        (lambda x: x.sum(), r"torch\.float32 \(\)"),
    ],
)
def test_an_output_that_is_no_floating_tensor_is_refused(function: object, got: str) -> None:
    model = nn.Sequential(Returns(function))
    with (
        inject(model, {"0": Diagonal.isotropic(2)}, generator=generator()),
        pytest.raises(ValueError, match=f"expected a floating tensor from layer '0', or first in a tuple, got {got}"),
    ):
        model(torch.zeros(3, 2))


@pytest.mark.parametrize(("times", "got"), [(0, "got 0 times: its noise is off"), (2, "got twice")])
def test_a_layer_fires_exactly_once(times: int, got: str) -> None:
    model = Repeating(times)
    with (
        inject(model, {"inner": Diagonal.isotropic(2)}, generator=generator()),
        pytest.raises(ValueError, match=f"expected layer 'inner' to fire once in a forward pass, {got}"),
    ):
        model(torch.zeros(3, 2))


def test_a_layer_called_by_itself_has_no_place_for_noise() -> None:
    """Neither its rows nor whether it fires once could be known."""
    model = linear()
    match = "expected layer '1' to fire in a forward pass of the model that has the noise, got it called by itself"
    with inject(model, {"1": Diagonal.isotropic(4)}, generator=generator()), pytest.raises(ValueError, match=match):
        model[1](torch.zeros(2, 4, dtype=torch.float64))


def test_an_activation_checkpoint_around_the_noise_is_refused() -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Identity(), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False)

    x = torch.ones(3, 2, requires_grad=True)
    with inject(Checkpointed(), {"inner.0": Diagonal.isotropic(2)}, generator=generator()) as model:
        out = model(x)
        with pytest.raises(ValueError, match=r"expected layer 'inner.0' to fire in a forward pass"):
            out.sum().backward()


def test_contexts_may_be_nested() -> None:
    """The inner noise sees the rows and the values that the outer one left."""
    model = counting()
    x = torch.ones(2, 2)
    with inject(model, {"1": Diagonal.isotropic(2)}, generator=generator(), draws=3):
        with inject(model, {"1": Diagonal.isotropic(2)}, generator=generator(1), draws=2, multiplicative=True):
            both = model(x).view(2, 3, 2, 2)
        outer = model(x)
    first = x.repeat(3, 1) + Diagonal.isotropic(2).sample((6,), generator=generator())
    second = Diagonal.isotropic(2).sample((12,), generator=generator(1)).view(2, 3, 2, 2)
    torch.testing.assert_close(both, first.view(3, 2, 2) * (1 + second))
    assert outer.shape == (6, 2)
    assert n_hooks(model) == 0
    assert torch.equal(model(x), x)


def test_contexts_may_end_in_any_order() -> None:
    model = identity()
    outer = inject(model, {"1": Diagonal.isotropic(2)}, generator=generator())
    inner = inject(model, {"1": Diagonal.isotropic(2, variance=1e-12)}, generator=generator())
    outer.__enter__(), inner.__enter__()
    outer.__exit__(None, None, None)
    assert model(torch.zeros(3, 2)).abs().max() < 1e-4
    inner.__exit__(None, None, None)
    assert n_hooks(model) == 0
    assert not model(torch.zeros(3, 2)).any()


def test_a_copy_made_in_the_context_is_clean_after_it() -> None:
    model, x = identity(), torch.zeros(3, 2)
    with inject(model, {"1": Diagonal.isotropic(2)}, generator=generator(), draws=2):
        taken = copy.deepcopy(model)
        assert taken(x).any()
    assert torch.equal(taken(x), x)


def test_no_hook_outlives_an_exception_in_a_forward_pass() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("mine")

    model = nn.Sequential(nn.Identity(), Returns(fail))
    noises = {"0": Diagonal.isotropic(2)}
    with pytest.raises(KeyError, match="mine"), inject(model, noises, generator=generator()), torch.no_grad():
        model(torch.zeros(3, 2))
    assert n_hooks(model) == 0


def test_hooks_say_where_they_are_from() -> None:
    """So that `networks.record` can say where repeats come from."""
    with inject(identity(), {"1": Diagonal.isotropic(2)}, generator=generator()) as model:
        hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
        assert hooks and all(hook.__module__.startswith("neurovar.networks.injection") for hook in hooks)


@pytest.mark.gpu
def test_noise_made_on_the_cpu_reaches_a_network_on_the_gpu() -> None:
    noise = covariances(4)["dense"]
    model, x = linear().float(), torch.ones(3, 3)
    with torch.no_grad():
        with inject(model, {"1": noise}, generator=generator(), draws=5):
            expected = model(x)
        with inject(model.cuda(), {"1": noise}, generator=generator(), draws=5):
            on_gpu = model(x.cuda())
    np.testing.assert_allclose(on_gpu.cpu(), expected, rtol=1e-2, atol=1e-2)
