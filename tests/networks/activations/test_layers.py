"""The list of a network's layers."""

import numpy as np
import pandas as pd
import pytest
import torch
from injecting import Returns, n_hooks
from recorded import Branching, images, network
from torch import Tensor, nn

from neurovar.networks import layers, record, small_network


def notes(model: nn.Module, example: object = (1, 5, 5)) -> dict[str, str]:
    return layers(model, example).set_index("layer")["note"].to_dict()


def test_the_small_network_has_the_layers_that_are_published() -> None:
    listed = layers(small_network(rng=0), (1, 28, 28)).set_index("layer")
    assert list(listed.columns) == ["type", "shape", "units", "fires", "note"]
    blocks = listed.loc[[f"layer{i}" for i in range(6)]]
    assert blocks["units"].tolist() == [1176, 3136, 400, 32, 16, 10]
    assert blocks["shape"].tolist() == [(6, 14, 14), (16, 14, 14), (16, 5, 5), (32,), (16,), (10,)]
    assert listed.loc["layer1.0", "type"] == "Conv2d"
    assert (listed["fires"] == 1).all()
    assert (listed["note"] == "").all()


def test_they_come_in_the_order_of_the_network() -> None:
    model = network()
    assert layers(model, (1, 5, 5))["layer"].tolist() == ["conv", "relu", "flat", "readout"]


def test_a_batch_can_be_the_example() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    listed = layers(model, torch.zeros(3, 5, dtype=torch.long))
    assert listed["shape"].tolist() == [(5, 4), (5, 2)]
    assert listed["units"].tolist() == [20, 10]


class Odd(nn.Module):
    """Layers of every kind that cannot be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = nn.Linear(2, 2)
        self.several = nn.ReLU()
        self.pair = Returns(lambda x: (x, x))
        self.integer = Returns(lambda x: x.argmax(1))
        self.complex = Returns(lambda x: x.to(torch.complex64))
        self.flat = Returns(lambda x: x.mean((1, 2, 3)))
        self.deep = Returns(lambda x: x[:, None])
        self.rows = Returns(lambda x: x.flatten(0, 1))
        self.attention = nn.LSTM(5, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.pair, self.integer, self.complex, self.flat, self.deep, self.rows):
            layer(x)
        return self.several(self.several(self.attention(x[:, 0])[0]))


def test_what_cannot_be_recorded_is_said_and_what_to_do() -> None:
    found = notes(Odd(), (2, 5, 5))
    within, inside = "name a layer that contains it", "name a layer inside or after it"
    assert found == {
        "silent": f"never fires: {within}, or one that it contains",
        "several": f"fires 2 times: {within}, or give each use a module of its own",
        "pair": f"gives tuple: {inside}",
        "integer": f"gives int64: {inside}",
        "complex": f"gives complex64: {inside}",
        "flat": f"gives 1 axes, not 2 to 4: {inside}",
        "deep": f"gives 5 axes, not 2 to 4: {inside}",
        "rows": f"gives 4 rows for 2 stimuli: {within}",
        "attention": f"gives tuple: {inside}",
    }
    listed = layers(Odd(), (2, 5, 5)).set_index("layer")
    assert listed.loc["several", "fires"] == 2
    assert listed.loc["silent", "shape"] is None or pd.isna(listed.loc["silent", "shape"])
    assert listed.loc["silent", ["units", "fires"]].tolist() == [0, 0]
    assert listed.loc["deep", "shape"] == (1, 2, 5, 5)


@pytest.mark.parametrize("times", [0, 2])
def test_record_refuses_what_has_a_note(times: int) -> None:
    assert notes(Branching(times))["inner"]
    with pytest.raises(ValueError, match="expected layer 'inner' to fire once"):
        record(Branching(times), images(), layers=["inner"], rng=0)


def test_record_takes_what_has_none() -> None:
    model = network()
    listed = layers(model, (1, 5, 5))
    recorded = record(model, images(), layers=listed["layer"].tolist(), rng=0)
    counts = dict(zip(*np.unique(recorded["layer"].values, return_counts=True)))
    assert counts == dict(zip(listed["layer"], listed["units"]))


def test_the_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    layers(model, (1, 5, 5))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert n_hooks(model) == 0
    assert torch.equal(torch.get_rng_state(), state)
    example = torch.full((2, 1, 5, 5), -1.0)
    layers(nn.Sequential(nn.ReLU(inplace=True)), example)
    assert (example == -1).all()


def test_half_precision_networks_get_half_precision() -> None:
    assert layers(network().bfloat16(), (1, 5, 5))["units"].tolist() == [27, 27, 27, 4]


def test_an_input_that_does_not_fit_is_named() -> None:
    model = network()
    with pytest.raises(
        ValueError, match=r"expected an input that Sequential takes, got shape \(3, 5, 5\) \(.*channels"
    ):
        layers(model, (3, 5, 5))
    assert n_hooks(model) == 0
    with pytest.raises(ValueError, match=r"expected an input that .* takes, got shape \(1, 5, 5\) \(KeyError"):
        layers(nn.Sequential(Returns(lambda x: {}["no"])), (1, 5, 5))


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    expected = layers(network(), (1, 5, 5))
    pd.testing.assert_frame_equal(layers(network().cuda(), (1, 5, 5)), expected)
    pd.testing.assert_frame_equal(layers(network().cuda(), torch.zeros(2, 1, 5, 5)), expected)
