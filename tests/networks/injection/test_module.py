"""A network that carries its noise: copies, files, devices and modes."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from injecting import assert_covariance, covariances, generator, identity, linear, n_hooks
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neurovar.covariance import Covariance, Diagonal, LowRankPlusDiagonal
from neurovar.networks import NoisyModule, inject, record

KINDS = ["diagonal", "dense", "low_rank", "kronecker", "gain", "shifted"]


def noisy_linear(kind: str = "low_rank", **options: object) -> NoisyModule:
    noise = covariances(4)[kind].to(dtype=torch.float64)
    return NoisyModule(linear(), {"1": noise}, **{"generator": generator(), "when": "both"} | options)


def batch() -> Tensor:
    return torch.randn(5, 3, generator=generator(1), dtype=torch.float64)


def learned(n: int = 4) -> Covariance:
    factors = torch.randn(n, 2, generator=generator(1), dtype=torch.float64, requires_grad=True)
    return LowRankPlusDiagonal(factors, torch.ones(n, dtype=torch.float64))


@pytest.mark.parametrize("options", [{}, {"draws": 4}, {"draws": 4, "antithetic": True}, {"multiplicative": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_it_does_what_the_context_does(kind: str, options: dict[str, object]) -> None:
    model, x = linear(), batch()
    with inject(model, {"1": covariances(4)[kind].to(dtype=torch.float64)}, generator=generator(), **options):
        expected = [model(x), model(x)]
    noisy = noisy_linear(kind, **options)
    assert torch.equal(noisy(x), expected[0])
    assert torch.equal(noisy(x), expected[1])


def test_the_network_and_the_generator_given_stay_as_they_are() -> None:
    model, torch_rng, noise = linear(), generator(), covariances(4)["dense"].to(dtype=torch.float64)
    x = batch()
    clean, state, matrix = model(x), torch_rng.get_state(), noise.matrix.clone()
    noisy = NoisyModule(model, {"1": noise}, generator=torch_rng, when="both")
    assert not torch.equal(noisy(x), clean)
    noisy.load_state_dict({name: torch.zeros_like(t) if "." in name else t for name, t in noisy.state_dict().items()})
    assert n_hooks(model) == 0
    assert torch.equal(model(x), clean)
    assert torch.equal(torch_rng.get_state(), state)
    assert torch.equal(noise.matrix, matrix)


@pytest.mark.parametrize(("when", "modes"), [("train", [True]), ("eval", [False]), ("both", [True, False])])
def test_its_mode_decides(when: str, modes: list[bool]) -> None:
    noisy = NoisyModule(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), when=when)
    assert not noisy.training, "as the network was"
    for training in (True, False):
        assert noisy.train(training)(torch.zeros(3, 2)).any() == (training in modes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_by_itself(kind: str) -> None:
    noisy, x = noisy_linear(kind), batch()
    noisy(x)
    twin = copy.deepcopy(noisy)
    first = noisy(x)
    assert torch.equal(twin(x), first)
    with torch.no_grad():
        for tensor in [*twin.parameters(), *twin.buffers()]:
            tensor.mul_(0)
    second = noisy(x)
    assert not torch.equal(second, first)
    assert not twin(x).any(), "the copy has its own weights, noise and generator"


def test_a_copy_of_learned_noise_learns_by_itself() -> None:
    noisy = NoisyModule(linear(), {"1": learned()}, generator=generator(), when="both")
    noisy(batch()).sum().backward()
    twin = copy.deepcopy(noisy)
    twin(batch()).sum().backward()
    assert not torch.equal(twin.noises[0].factors.grad, noisy.noises[0].factors.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_rebuilt_from_a_file(kind: str, tmp_path: Path) -> None:
    noisy, x = noisy_linear(kind, when="eval", draws=2, antithetic=True, multiplicative=True), batch()
    noisy(x)
    noisy.save(tmp_path / "noisy.safetensors")
    again = NoisyModule.load(tmp_path / "noisy.safetensors", linear(seed=5))
    assert torch.equal(again(x), noisy(x)), "weights, noise and the next draw"
    assert again.train()(x).shape != again.eval()(x).shape, "draws in eval mode only"
    assert list(again.state_dict()) == list(noisy.state_dict())


def test_several_layers_and_learned_noise_come_back_from_a_file(tmp_path: Path) -> None:
    noises = {"1": learned(), "2": Diagonal(torch.ones(2, dtype=torch.float64))}
    noisy = NoisyModule(linear(), noises, generator=generator(), when="both")
    noisy.save(tmp_path / "noisy.safetensors")
    again = NoisyModule.load(tmp_path / "noisy.safetensors", linear(seed=5))
    assert torch.equal(again(batch()), noisy(batch()))
    assert [name for name, _ in again.noises.named_parameters()] == ["0.factors"]
    assert not any("pickle" in key for key in safe_open(tmp_path / "noisy.safetensors", framework="pt").metadata())


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = linear()
    model[1].weight = nn.Parameter(model[1].weight.detach())
    tied = nn.Sequential(model[1], model[1])
    tied[1] = nn.Linear(4, 4).double()
    tied[1].weight = tied[0].weight
    noisy = NoisyModule(tied, {"1": Diagonal.isotropic(4)}, generator=generator(), when="both")
    noisy.save(tmp_path / "noisy.safetensors")
    x = torch.ones(2, 4, dtype=torch.float64)
    assert torch.equal(NoisyModule.load(tmp_path / "noisy.safetensors", tied)(x), noisy(x))


@pytest.mark.parametrize("through", ["weights_only", "safetensors", "memory"])
def test_its_state_loads_into_another(through: str, tmp_path: Path) -> None:
    noisy, x = noisy_linear(), batch()
    other = NoisyModule(
        linear(seed=5),
        {"1": covariances(4)["low_rank"].scale_to(trace=1.0).to(dtype=torch.float64)},
        generator=generator(9),
        when="both",
    )
    other(x)
    state = noisy.state_dict()
    if through == "weights_only":
        torch.save(state, tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    elif through == "safetensors":
        save_file(state, tmp_path / "state.safetensors")
        state = load_file(tmp_path / "state.safetensors")
    other.load_state_dict(state)
    assert torch.equal(other(x), noisy(x))


def test_noise_that_was_changed_in_place_is_used() -> None:
    """A dense covariance is factorised once, and anew when its matrix changes."""
    noisy = NoisyModule(identity(), {"1": covariances(4)["dense"]}, generator=generator(), when="both")
    with torch.no_grad():
        assert_covariance(noisy(torch.zeros(20_000, 4)), covariances(4)["dense"].to_dense())
        noisy.noises[0].matrix.copy_(torch.eye(4))
        assert_covariance(noisy(torch.zeros(20_000, 4)), torch.eye(4))


def test_a_dense_covariance_is_factorised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = noisy_linear("dense")
    noisy(batch())
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)
    assert noisy(batch()).shape == (5, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_moves_and_keeps_at_least_single_precision(kind: str) -> None:
    noisy = NoisyModule(identity(), {"1": covariances(4)[kind]}, generator=generator(), when="both")
    x = torch.ones(3, 4)
    expected = copy.deepcopy(noisy)(x)
    half = copy.deepcopy(noisy).to(torch.bfloat16)
    assert {tensor.dtype for tensor in half.buffers()} == {torch.float32}
    assert torch.equal(half(x.bfloat16()), x.bfloat16() + (expected - x).bfloat16())
    double = copy.deepcopy(noisy).double()
    assert {tensor.dtype for tensor in double.buffers()} == {torch.float64}
    assert double(x.double()).dtype == torch.float64


def test_learned_noise_is_trained_with_the_network() -> None:
    """Pull the readout's variance to that of the target: the loss falls, and only the factors move it there."""
    noise = LowRankPlusDiagonal(torch.full((4, 1), 0.01, requires_grad=True), torch.full((4,), 1e-6))
    noisy = NoisyModule(identity(training=True), {"1": noise}, generator=generator(), when="train")
    assert [name for name, _ in noisy.named_parameters()] == ["noises.0.factors"]
    optimizer = torch.optim.Adam(noisy.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (noisy(torch.zeros(500, 4)).square().mean(0) - 4).square().sum()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(noisy.noises[0].factors.detach().abs(), torch.full((4, 1), 2.0), rtol=0.1, atol=0)


def test_frozen_noise_is_no_longer_learned() -> None:
    noisy = NoisyModule(linear().train(), {"1": learned()}, generator=generator(), when="both")
    with torch.no_grad(), pytest.raises(ValueError, match="expected gradients to be on in train mode"):
        noisy(batch())
    noisy.noises.requires_grad_(False)
    with torch.no_grad():
        assert not torch.equal(noisy(batch()), noisy(batch()))


def test_functional_call_may_replace_its_noise() -> None:
    noisy = NoisyModule(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), when="both")
    out = torch.func.functional_call(noisy, {"noises.0.variance": torch.zeros(2)}, (torch.ones(3, 2),))
    assert torch.equal(out, torch.ones(3, 2))
    assert not torch.equal(noisy(torch.ones(3, 2)), torch.ones(3, 2)), "it has its own again"


@pytest.mark.parametrize("kind", KINDS)
def test_it_may_be_made_and_moved_in_inference_mode(kind: str) -> None:
    """Tensors that are made in it must not stand in the way of gradients later."""
    with torch.inference_mode():
        noise = covariances(4)[kind]
        noisy = NoisyModule(identity(), {"1": noise}, generator=generator(), when="both").double()
    expected = copy.deepcopy(noisy)(torch.ones(3, 4, dtype=torch.float64))
    x = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    out = noisy(x)
    assert torch.equal(out, expected)
    out.sum().backward()
    assert x.grad.any()


def test_noise_may_be_added_to_a_noisy_module() -> None:
    noisy = NoisyModule(identity(), {"1": Diagonal.isotropic(2)}, generator=generator(), when="both")
    with inject(noisy, {"model.1": Diagonal.isotropic(2)}, generator=generator(1)):
        assert_covariance(noisy(torch.zeros(20_000, 2)), 2 * torch.eye(2))
    assert_covariance(noisy(torch.zeros(20_000, 2)), torch.eye(2))


def test_recording_sees_its_noise() -> None:
    noisy = NoisyModule(nn.Sequential(nn.Flatten()), {"0": Diagonal.isotropic(2)}, generator=generator(), when="both")
    images = xr.DataArray(
        np.zeros((30, 1, 1, 2), np.float32),
        dims=("stimulus", "channel", "row", "column"),
        coords={"stimulus": range(30)},
    )
    recorded = record(noisy, images, layers=["model.0"], n_repeats=500, rng=0)
    assert recorded.attrs["repeats_from"] == "injected noise"
    assert_covariance(torch.tensor(recorded.values).flatten(0, 1), torch.eye(2))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a noisy Sequential saved by neurovar, found no file at .*absent"):
        NoisyModule.load(tmp_path / "absent", linear())
    match = "expected a noisy Sequential saved by neurovar, could not read"
    with pytest.raises(ValueError, match=r"noisy: expected an existing folder to write into, got .*nowhere"):
        noisy_linear().save(tmp_path / "nowhere" / "noisy")
    (tmp_path / "text").write_text("no tensors")
    Diagonal.isotropic(3).save(tmp_path / "covariance")
    noisy_linear().save(tmp_path / "noisy")
    for name, model in (("text", linear()), ("covariance", linear()), ("noisy", identity()), ("noisy", linear()[:2])):
        with pytest.raises(ValueError, match=match):
            NoisyModule.load(tmp_path / name, model)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.pop("layers"),
        lambda header: header["options"].update(draws=0),
        lambda header: header["options"].update(when="always"),
        lambda header: header["layers"]["1"].update(names=["factors"]),
        lambda header: header["layers"]["1"]["tree"].update(kind="os.system"),
        lambda header: header.update(version=99),
        lambda header: header.update(device="nowhere"),
    ],
)
def test_a_changed_file_is_refused(change: object, tmp_path: Path) -> None:
    noisy_linear().save(tmp_path / "noisy")
    with safe_open(tmp_path / "noisy", framework="pt") as file:
        header = json.loads(file.metadata()["neurovar_noisy_module"])
    change(header)
    save_file(load_file(tmp_path / "noisy"), tmp_path / "noisy", metadata={"neurovar_noisy_module": json.dumps(header)})
    with pytest.raises(ValueError, match="expected a noisy Sequential saved by neurovar, could not read"):
        NoisyModule.load(tmp_path / "noisy", linear())


def test_bad_input_is_refused_as_in_the_context() -> None:
    with pytest.raises(ValueError, match="expected a layer of Sequential, got 'nowhere'"):
        NoisyModule(linear(), {"nowhere": Diagonal.isotropic(2)}, generator=generator(), when="both")
    with pytest.raises(ValueError, match="expected an even number of draws"):
        noisy_linear(draws=3, antithetic=True)
    noisy = NoisyModule(linear(), {"1": Diagonal.isotropic(2)}, generator=generator(), when="both")
    with pytest.raises(ValueError, match="expected a covariance over the 4 units of layer '1', got 2"):
        noisy(batch())


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_it_moves_to_a_gpu_with_its_draws(kind: str) -> None:
    noisy = NoisyModule(identity(), {"1": covariances(4)[kind]}, generator=generator(), when="both")
    expected = copy.deepcopy(noisy)(torch.ones(3, 4))
    torch.testing.assert_close(noisy.cuda()(torch.ones(3, 4, device="cuda")).cpu(), expected, rtol=1e-3, atol=1e-4)
