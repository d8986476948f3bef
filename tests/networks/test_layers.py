"""Layers are found by the names of `named_modules`, and a wrong name says which are near."""

from collections import namedtuple

import pytest
import torch
from injecting import n_hooks
from torch import nn

from neurovar.networks import find_layers, forward_hooks, layer_activation, with_activation


def network() -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("encoder", nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    model.add_module("decoder", nn.Linear(2, 1))
    return model


def test_layers_come_in_the_order_asked_for() -> None:
    model = network()
    found = find_layers(model, ["decoder", "encoder.1", "encoder"])
    assert list(found) == ["decoder", "encoder.1", "encoder"]
    assert found["decoder"] is model.decoder
    assert found["encoder.1"] is model.encoder[1]
    assert found["encoder"] is model.encoder


def test_no_names_give_no_layers() -> None:
    assert find_layers(network(), []) == {}


def test_names_may_come_from_an_iterator() -> None:
    assert list(find_layers(network(), iter(["encoder", "decoder"]))) == ["encoder", "decoder"]


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(ValueError, match=r"expected a layer of Sequential, got 'encodr'; near it: encoder") as caught:
        find_layers(network(), ["decoder", "encodr"])
    assert "decoder" in str(caught.value)


def test_the_near_names_are_found_wherever_they_are() -> None:
    model = nn.Sequential(*[nn.ReLU() for _ in range(20)])
    model.add_module("readout", nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"got 'readuot'; near it: readout$"):
        find_layers(model, ["readuot"])


def test_a_name_near_to_none_lists_the_first_layers() -> None:
    with pytest.raises(ValueError, match=r"got '\?{4}'; near it: encoder, encoder\.0, encoder\.1, decoder"):
        find_layers(network(), ["????"])


def test_the_whole_network_is_no_layer_of_itself() -> None:
    with pytest.raises(ValueError, match="got ''"):
        find_layers(network(), [""])


def test_a_module_shared_under_two_names_goes_by_its_first() -> None:
    shared = nn.Tanh()
    model = nn.Sequential(shared, nn.Linear(1, 1), shared)
    assert find_layers(model, ["0"])["0"] is shared
    with pytest.raises(ValueError, match="got '2'"):
        find_layers(model, ["2"])


def test_hooks_are_on_the_network_within_their_context_alone() -> None:
    model, calls = network(), []
    hooks = {name: lambda module, inputs, output, name=name: calls.append(name) for name in ("encoder.1", "encoder")}
    with forward_hooks(model.encoder, {"": hooks["encoder"], "1": hooks["encoder.1"]}):
        model.encoder(torch.zeros(1, 1, 3, 3))
    model.encoder(torch.zeros(1, 1, 3, 3))
    assert calls == ["encoder.1", "encoder"]
    with pytest.raises(ZeroDivisionError), forward_hooks(model, hooks):
        raise ZeroDivisionError
    assert n_hooks(model) == 0
    with pytest.raises(ValueError, match="got 'encodr'"), forward_hooks(model, {"encoder": print, "encodr": print}):
        pass
    assert n_hooks(model) == 0


def test_a_hook_may_change_the_output() -> None:
    with (
        forward_hooks(nn.Identity(), {}),
        forward_hooks(model := network().encoder, {"1": lambda m, i, output: -output}),
    ):
        assert (model(torch.ones(1, 1, 3, 3)) <= 0).all()


Named = namedtuple("Named", ["values", "states"])


@pytest.mark.parametrize("output", [torch.zeros(2), (torch.zeros(2), 3), Named(torch.zeros(2), 3)])
def test_the_activation_of_a_layer_is_a_tensor_or_first_in_a_tuple(output: object) -> None:
    changed = with_activation(output, torch.ones(2))
    assert type(changed) is type(output)
    assert torch.equal(layer_activation(changed, "layer"), torch.ones(2))
