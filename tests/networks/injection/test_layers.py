"""Noise on convolutional, transformer and recurrent layers, in half precision, under vmap, compiled and in threads."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
from injecting import Returns, assert_covariance, covariances, generator, identity, linear, n_hooks
from torch import Tensor, nn
from torch.func import functional_call, vmap

from neurovar.covariance import Dense, Diagonal, Kronecker, LowRankPlusDiagonal
from neurovar.networks import NoisyModule, inject

T, F = 3, 2
RECURRENT = [nn.RNN, nn.GRU, nn.LSTM]


def added(model: nn.Module, layer: str, noise: object, x: Tensor, **options: object) -> object:
    """Outputs with and without the noise."""
    with torch.no_grad():
        clean = model(x)
        with inject(model, {layer: noise}, generator=generator(), **options):
            return model(x), clean


class Readout(nn.Module):
    """A recurrent layer, of which the outputs, or the last states as well, are given on."""

    def __init__(self, kind: type, *, states: bool = False, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent, self.states = kind(4, F, **options), states

    def forward(self, x: Tensor) -> object:
        outputs, states = self.recurrent(x)
        return (outputs, states) if self.states else outputs


def test_a_convolution_keeps_channels_last() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(memory_format=torch.channels_last).eval()
    x = torch.rand(2, 3, 6, 6, generator=generator()).to(memory_format=torch.channels_last)
    for options in ({}, {"draws": 3}, {"multiplicative": True}, {"draws": 2, "antithetic": True}, {"fixed": True}):
        seen = []
        handle = model[1].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        added(model, "0", Diagonal.isotropic(64), x, **options)
        handle.remove()
        assert seen[1].is_contiguous(memory_format=torch.channels_last), options


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_noise_is_over_times_and_features(kind: type, batch_first: bool) -> None:
    """Every image has noise with this covariance over (time, feature), wherever the batch stands."""
    noise = covariances(T * F)["dense"]
    x = torch.zeros(1, T, 4).expand(20_000, T, 4)
    noisy, clean = added(
        Readout(kind, batch_first=batch_first), "recurrent", noise, x if batch_first else x.mT.permute(2, 0, 1)
    )
    assert noisy.shape == clean.shape == ((20_000, T, F) if batch_first else (T, 20_000, F))
    deviation = noisy - clean
    assert_covariance((deviation if batch_first else deviation.transpose(0, 1)).flatten(1), noise.to_dense())


@pytest.mark.parametrize("shared", [False, True])
def test_kronecker_makes_noise_independent_or_shared_in_time(shared: bool) -> None:
    features = covariances(F)["dense"]
    noise = Kronecker(Dense(torch.ones(T, T)) if shared else Diagonal.isotropic(T), features)
    noisy, clean = added(Readout(nn.GRU, batch_first=True), "recurrent", noise, torch.zeros(20_000, T, 4))
    deviation = noisy - clean
    for time in range(T):
        assert_covariance(deviation[:, time], features.to_dense())
    assert ((deviation[:, 0] - deviation[:, 1]).abs().max() < 1e-2) == shared


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", RECURRENT)
def test_draws_repeat_the_states_of_a_recurrent_layer_too(kind: type, batch_first: bool) -> None:
    model = Readout(kind, states=True, batch_first=batch_first)
    x = torch.randn(5, T, 4, generator=generator(1))
    x = x if batch_first else x.transpose(0, 1)
    noise = Diagonal.isotropic(T * F, variance=1e-12)
    (outputs, states), (clean, clean_states) = added(model, "recurrent", noise, x, draws=2)
    batch = 0 if batch_first else 1
    torch.testing.assert_close(outputs, torch.cat([clean] * 2, dim=batch), atol=1e-4, rtol=0)
    for state, expected in zip(states, clean_states) if kind is nn.LSTM else [(states, clean_states)]:
        assert torch.equal(state, torch.cat([expected] * 2, dim=1)), "the last states have no noise"


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_a_cell_says_what_to_use_instead(kind: type) -> None:
    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(2, F)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for now in x.unbind(1):
                state = self.cell(now, state)
            return state

    match = (
        "expected layer 'cell' to fire once in a forward pass, got twice; a cell fires at every time step: use nn.RNN"
    )
    noises = {"cell": Diagonal.isotropic(F)}
    with inject(Unrolled(), noises, generator=generator()) as model, pytest.raises(ValueError, match=match):
        model(torch.zeros(4, T, 2))


def test_a_recurrent_layer_needs_a_batch() -> None:
    match = r"expected a batch of sequences from layer 'recurrent', three dimensions, got \(3, 2\)"
    with pytest.raises(ValueError, match=match):
        added(Readout(nn.GRU), "recurrent", Diagonal.isotropic(T * F), torch.zeros(T, 4))


@pytest.mark.parametrize("layer", ["layers.0", "layers.0.linear1", "layers.0.self_attn", "layers.1.norm2"])
def test_transformer_layers_get_noise_over_tokens_and_features(layer: str) -> None:
    """In evaluation without gradients torch takes a fused path that passes by inner layers, unless they have hooks."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(F, 1, dim_feedforward=F, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(block, 2, enable_nested_tensor=False).eval()
    noise, x = covariances(T * F)["low_rank"], torch.randn(4, T, F, generator=generator(1))
    given = []
    model.get_submodule(layer).register_forward_hook(
        lambda m, a, out: given.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad(), inject(model, {layer: noise}, generator=generator()):
        handle = model.get_submodule(layer).register_forward_hook(
            lambda m, a, out: given.append(out[0] if isinstance(out, tuple) else out)
        )
        model(x)
        handle.remove()
    torch.testing.assert_close(
        given[1] - given[0], noise.sample((4,), generator=generator()).view(4, T, F), atol=1e-5, rtol=0
    )


def test_the_batch_of_a_transformer_may_stand_second() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(F, 1, dim_feedforward=4, dropout=0.0)).eval()
    noise = covariances(T * F)["low_rank"]
    noisy, clean = added(model, "0", noise, torch.zeros(T, 5, F), draws=2)
    expected = noise.sample((10,), generator=generator()).view(10, T, F).transpose(0, 1)
    torch.testing.assert_close(noisy - torch.cat([clean] * 2, dim=1), expected)


def test_the_first_item_of_a_tuple_gets_the_noise() -> None:
    weights = torch.ones(3)
    model = nn.Sequential(Returns(lambda x: (x, weights, None)))
    noisy, _ = added(model, "0", Diagonal.isotropic(2), torch.zeros(3, 2))
    assert isinstance(noisy, tuple)
    assert noisy[0].any() and noisy[1] is weights and noisy[2] is None


class Named(NamedTuple):
    values: Tensor
    indices: Tensor


@pytest.mark.parametrize("function", [lambda x: x.max(dim=2), lambda x: Named(*x.max(dim=2))])
def test_a_named_tuple_stays_one(function: object) -> None:
    noisy, clean = added(nn.Sequential(Returns(function)), "0", Diagonal.isotropic(2), torch.zeros(3, 2, 4))
    assert type(noisy) is type(clean)
    assert noisy.values.any() and not noisy.indices.any()


def test_draws_cannot_begin_at_a_tuple_of_unknown_items() -> None:
    match = "expected layer '0' to give one tensor where 2 draws begin, got a tuple"
    with pytest.raises(ValueError, match=match):
        added(nn.Sequential(Returns(lambda x: (x, x))), "0", Diagonal.isotropic(2), torch.zeros(3, 2), draws=2)
    noisy, _ = added(
        nn.Sequential(Returns(lambda x: (x, None))), "0", Diagonal.isotropic(2), torch.zeros(3, 2), draws=2
    )
    assert noisy[0].shape == (6, 2)


@pytest.mark.parametrize("kind", ["dense", "low_rank", "gain"])
def test_autocast_rounds_the_noise_last(kind: str) -> None:
    """The noise is drawn in its own precision, so that it is that of an ordinary pass, rounded once."""
    model, noise = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4)), covariances(4)[kind]
    x = torch.randn(5, 3, generator=generator(1))
    with torch.autocast("cpu", torch.bfloat16):
        half = model[0](x)
        with inject(model, {"0": noise}, generator=generator()):
            seen = []
            handle = model[0].register_forward_hook(lambda m, a, out: seen.append(out))
            model(x)
            handle.remove()
    assert seen[0].dtype == torch.bfloat16
    torch.testing.assert_close(seen[0], half + noise.sample_at(half.float(), generator=generator()).bfloat16())


def test_vmap_over_networks_shares_or_varies_the_noise() -> None:
    model, noise = linear(), covariances(4)["low_rank"].to(dtype=torch.float64)
    stacked = {name: torch.stack([p.detach()] * 3) for name, p in model.named_parameters()}
    x = torch.randn(5, 3, generator=generator(1), dtype=torch.float64)

    def run(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(model, parameters, (x,))

    for randomness, n_different in (("same", 1), ("different", 3)):
        with inject(model, {"1": noise}, generator=generator()):
            out = vmap(run, randomness=randomness)(stacked)
        assert out.shape == (3, 5, 2)
        assert len(out.unique(dim=0)) == n_different


def test_vmap_over_images_draws_for_each() -> None:
    model, x = linear(), torch.zeros(200, 3, dtype=torch.float64)
    with inject(model, {"1": Diagonal.isotropic(4)}, generator=generator(), draws=2):
        out = vmap(lambda image: model(image[None]), randomness="different")(x)
    assert out.shape == (200, 2, 2)
    assert len(out.flatten(0, 1).unique(dim=0)) == 400


def test_gradients_of_each_image_through_the_noise() -> None:
    model, x = linear(), torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, parameters, (image[None],)).square().sum()

    with inject(model, {"1": Diagonal.isotropic(4)}, generator=generator()):
        each = vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="different")(parameters, x)
    assert each["0.weight"].shape == (4, 4, 3)
    assert all(gradient.any() for gradient in each["0.weight"])


class Branching(nn.Module):
    """A network of one's own, whose forward is compiled as a whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(3, 4), nn.Identity(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.middle(torch.relu(self.first(x)))))


@pytest.fixture
def clean_compiler() -> object:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("clean_compiler")
def test_noise_reaches_a_network_that_was_compiled_before_and_leaves_it() -> None:
    """Compiled code passes by new hooks, in silence."""
    model, x = Branching(), torch.ones(4, 3)
    compiled = torch.compile(model, backend="eager")
    clean = compiled(x)
    for given in (model, compiled):
        prefix = "" if given is model else "_orig_mod."
        with inject(given, {f"{prefix}middle": Diagonal.isotropic(4)}, generator=generator()):
            noisy = compiled(x)
        with inject(model, {"middle": Diagonal.isotropic(4)}, generator=generator()):
            assert torch.equal(model(x), noisy)
        assert torch.equal(compiled(x), clean)
        assert not torch.equal(noisy, clean)
    with inject(model, {"middle": Diagonal.isotropic(4)}, generator=generator()):
        with inject(model, {"middle": Diagonal.isotropic(4)}, generator=generator()):
            pass
        assert not torch.equal(compiled(x), clean), "the outer context is open still"
        late = torch.compile(model, backend="eager")
        assert not torch.equal(late(x), clean)
    assert torch.equal(late(x), clean)
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.usefixtures("clean_compiler")
def test_a_context_inside_compiled_code_is_refused() -> None:
    model = Branching()

    def step(x: Tensor) -> Tensor:
        with inject(model, {"middle": Diagonal.isotropic(4)}, generator=generator()):
            return model(x)

    with pytest.raises(ValueError, match="expected a context outside compiled code"):
        torch.compile(step, backend="eager")(torch.ones(4, 3))
    assert n_hooks(model) == 0


@pytest.mark.usefixtures("clean_compiler")
def test_a_noisy_module_compiles_with_breaks_at_its_noisy_layers_only() -> None:
    from torch._dynamo.testing import CompileCounter

    noises = {"middle": covariances(4)["low_rank"]}
    noisy = NoisyModule(Branching(), noises, generator=generator(), when="both")
    twin, counter = copy.deepcopy(noisy), CompileCounter()
    compiled = torch.compile(noisy, backend=counter)
    for _ in range(4):
        torch.testing.assert_close(compiled(torch.ones(5, 3)), twin(torch.ones(5, 3)))
    n_operations = 4  # linear, relu | tanh, linear
    assert (counter.frame_count, counter.op_count) == (2, n_operations)


def test_several_threads_run_one_network() -> None:
    """Layers of all of them fire between one another."""
    model = identity()
    noises = {"0": Diagonal.isotropic(3), "2": Diagonal.isotropic(3)}
    with inject(model, noises, generator=generator(), draws=2) as noisy, ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda n: noisy(torch.zeros(n, 3)), [5, 9, 200, 31] * 25))
    assert [len(out) for out in outputs] == [10, 18, 400, 62] * 25
    samples = torch.cat(outputs)
    assert len(samples.unique(dim=0)) == len(samples)
    assert_covariance(samples, 2 * torch.eye(3))


def test_contexts_in_threads_leave_no_hooks_and_the_compiler_on() -> None:
    import torch._dynamo

    model = identity()

    def work(seed: int) -> Tensor:
        mine = copy.deepcopy(model)
        with inject(mine, {"1": Diagonal.isotropic(3)}, generator=generator(seed)):
            return mine(torch.zeros(2, 3))

    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(work, [0, 1] * 50))
    assert all(torch.equal(out, outputs[i % 2]) for i, out in enumerate(outputs))
    assert n_hooks(model) == 0
    assert torch._dynamo.eval_frame._stance.stance == "default"


def test_data_parallel_runs_and_keeps_no_hook() -> None:
    parallel = nn.DataParallel(linear())
    x = torch.ones(4, 3, dtype=torch.float64)
    noises = {"module.1": Diagonal.isotropic(4)}
    with inject(parallel, noises, generator=generator()):
        noisy = parallel(x)
    with inject(parallel.module, {"1": noises["module.1"]}, generator=generator()):
        assert torch.equal(parallel(x), noisy)
    assert n_hooks(parallel) == 0
    assert not torch.equal(parallel(x), noisy)


@pytest.mark.parametrize("options", [{"draws": 2}, {"fixed": True}])
def test_replicas_need_single_fresh_draws(options: dict[str, object]) -> None:
    """Their rows come device by device, so that draws and positions would be mixed up."""
    replica = identity()._replicate_for_data_parallel()
    match = "expected single fresh draws on a network that is spread over devices"
    with (
        inject(replica, {"1": Diagonal.isotropic(4)}, generator=generator(), **options),
        pytest.raises(ValueError, match=match),
    ):
        replica(torch.zeros(2, 4))


@pytest.mark.gpu
def test_data_parallel_draws_on_every_device() -> None:
    parallel = nn.DataParallel(identity().append(nn.Linear(2, 2)).cuda())
    with inject(parallel, {"module.1": LowRankPlusDiagonal(torch.ones(2, 1), torch.ones(2))}, generator=generator()):
        out = parallel(torch.zeros(64, 2, device="cuda"))
    assert len(out.unique(dim=0)) == 64
