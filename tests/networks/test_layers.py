"""Layers are found by the names of `named_modules`, and a wrong name says which are near."""

import pytest
from torch import nn

from neurovar.networks import _layers


def network() -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("encoder", nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    model.add_module("decoder", nn.Linear(2, 1))
    return model


def test_layers_come_in_the_order_asked_for() -> None:
    model = network()
    found = _layers.find(model, ["decoder", "encoder.1", "encoder"])
    assert list(found) == ["decoder", "encoder.1", "encoder"]
    assert found["decoder"] is model.decoder
    assert found["encoder.1"] is model.encoder[1]
    assert found["encoder"] is model.encoder


def test_no_names_give_no_layers() -> None:
    assert _layers.find(network(), []) == {}


def test_names_may_come_from_an_iterator() -> None:
    assert list(_layers.find(network(), iter(["encoder", "decoder"]))) == ["encoder", "decoder"]


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(ValueError, match=r"expected a layer of Sequential, got 'encodr'; near it: encoder") as caught:
        _layers.find(network(), ["decoder", "encodr"])
    assert "decoder" in str(caught.value)


def test_the_near_names_are_found_wherever_they_are() -> None:
    model = nn.Sequential(*[nn.ReLU() for _ in range(20)])
    model.add_module("readout", nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"got 'readuot'; near it: readout$"):
        _layers.find(model, ["readuot"])


def test_a_name_near_to_none_lists_the_first_layers() -> None:
    with pytest.raises(ValueError, match=r"got '\?{4}'; near it: encoder, encoder\.0, encoder\.1, decoder"):
        _layers.find(network(), ["????"])


def test_the_whole_network_is_no_layer_of_itself() -> None:
    with pytest.raises(ValueError, match="got ''"):
        _layers.find(network(), [""])


def test_a_module_shared_under_two_names_goes_by_its_first() -> None:
    shared = nn.Tanh()
    model = nn.Sequential(shared, nn.Linear(1, 1), shared)
    assert _layers.find(model, ["0"])["0"] is shared
    with pytest.raises(ValueError, match="got '2'"):
        _layers.find(model, ["2"])
