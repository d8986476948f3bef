"""Activations batch by batch: what loaders may give, and what is refused."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from injecting import Returns, n_hooks
from recorded import Branching, images, network, same
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neurovar.networks import IMAGE_DIMS, Batch, GaussianNoise, Layer, batches, iterate, record

FLAT = nn.Flatten()


def inputs(n: int = 7) -> Tensor:
    return torch.tensor(images(n).values)


def gathered(loader: Any, model: nn.Module | None = None, **options: Any) -> list[Batch]:
    model = nn.Sequential(FLAT) if model is None else model
    return list(iterate(model, loader, **({"layers": ["0"], "rng": 0} | options)))


def joined(found: list[Batch], layer: str) -> np.ndarray:
    return torch.cat([batch.activations[layer] for batch in found]).numpy()


class Labelled(torch.utils.data.Dataset):
    """A dataset whose items are dicts, as many are."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": inputs()[i], "stimulus": f"im{i}", "label": i % 2, "contrast": i / 2}


LOADERS = {
    "tensors": (lambda: [inputs()[:3], inputs()[3:5]], None),
    "arrays": (lambda: [inputs()[:5].numpy()], None),
    "generator": (lambda: (inputs()[i : i + 1] for i in range(5)), None),
    "only inputs": (lambda: DataLoader(TensorDataset(inputs()[:5]), batch_size=2), None),
    "pairs": (
        lambda: DataLoader(TensorDataset(inputs()[:5], torch.tensor([3, 1, 3, 0, 2])), batch_size=2),
        [3, 1, 3, 0, 2],
    ),
    "dicts": (lambda: DataLoader(Labelled(), batch_size=2), [0, 1, 0, 1, 0]),
    "hugging": (lambda: [{"pixel_values": inputs()[:5], "label": np.arange(5)}], [0, 1, 2, 3, 4]),
    "labelled images": (
        lambda: batches(images(5).assign_coords(label=("stimulus", list("abcab"))), batch_size=4),
        list("abcab"),
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_any_loader(kind: str) -> None:
    make, labels = LOADERS[kind]
    found = gathered(make())
    np.testing.assert_array_equal(joined(found, "0")[:, 0], inputs()[:5].flatten(1))
    got = [label for batch in found for label in batch.labels.get("label", np.array([])).tolist()]
    assert got == (labels or [])
    ids = [one for batch in found for one in batch.stimulus.tolist()]
    named = {"dicts": [f"im{i}" for i in range(5)], "labelled images": [f"image{i}" for i in range(5)]}
    assert ids == named.get(kind, [0, 1, 2, 3, 4])


def test_further_entries_become_labels() -> None:
    found = gathered(DataLoader(Labelled(), batch_size=3))
    assert [batch.labels.keys() for batch in found] == [{"label", "contrast"}] * 2
    assert found[1].labels["contrast"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_the_numbers_are_those_of_record_whatever_the_batch_size(batch_size: int) -> None:
    model = network()
    noisy = {"noisy": GaussianNoise(3), "dim": lambda x, generator: x / 2}
    options = {"layers": ["readout", Layer("conv", max_units=6)], "modifications": noisy, "n_repeats": 2, "rng": 3}
    expected = record(model, images(), batch_size=4, **options)
    found = gathered(batches(images(), batch_size=batch_size), model, **options)
    got = np.concatenate([joined(found, "readout"), joined(found, "conv")], axis=2)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_streams_of_dropout_go_on_from_batch_to_batch() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)).train()
    found = gathered([torch.ones(40, 1, 5, 5)] * 3, model, layers=["1"], n_repeats=4, rng=0)
    kept = joined(found, "1").reshape(3, 40, 4, 25) > 0
    draws = kept.transpose(0, 2, 1, 3).reshape(12, -1)
    assert len(np.unique(draws, axis=0)) == 12
    assert abs(np.corrcoef(draws) - np.eye(12)).max() < 5 / np.sqrt(1000)


def test_between_batches_all_is_as_it_was() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(25), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    for batch in iterate(model, [inputs(), inputs()], layers=["2"], n_repeats=2, rng=0):
        assert not batch.activations["2"].requires_grad
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), state)
        assert n_hooks(model) == 0
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_activations_can_be_trained_on() -> None:
    """They are no inference tensors, which autograd refuses to save."""
    (batch,) = gathered([inputs()])
    weight = torch.zeros(25, requires_grad=True)
    (batch.activations["0"] @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, batch.activations["0"].sum((0, 1)))


def test_inputs_are_left_as_they_are() -> None:
    shown = inputs() - 0.5
    before = shown.clone()
    gathered([shown], nn.Sequential(nn.ReLU(inplace=True)), modifications={"double": lambda x, generator: x.mul_(2)})
    assert torch.equal(shown, before)


def test_a_batch_is_read_when_it_is_asked_for() -> None:
    read: list[int] = []

    def loader() -> Iterator[Tensor]:
        for i in range(3):
            read.append(i)
            yield inputs()

    going = iterate(nn.Sequential(FLAT), loader(), layers=["0"], rng=0)
    assert read == []
    next(going)
    assert read == [0]


def test_token_ids_can_be_shown() -> None:
    """Integers in, floats out: a language model."""
    model = nn.Sequential(nn.Embedding(9, 4), Returns(lambda x: x))
    (batch,) = gathered([torch.arange(6).view(2, 3)], model, layers=["1"])
    torch.testing.assert_close(
        batch.activations["1"].view(2, 3, 4), model[0].weight[torch.arange(6).view(2, 3)].detach()
    )


WRONG = {
    "none": (lambda: iter(()), "expected at least one batch, got none"),
    "an int": (lambda: [3], r"expected a batch to be a tensor \(stimulus, …\), got int"),
    "text": (lambda: ["ab"], r"expected a batch to be a tensor \(stimulus, …\), got str"),
    "one image": (lambda: [torch.zeros(3)], r"expected a batch to be a tensor \(stimulus, …\), got shape \(3,\)"),
    "empty": (lambda: [inputs()[:0]], r"got shape \(0, 1, 5, 5\)"),
    "shapes": (lambda: [inputs(), inputs()[..., :4]], r"expected every input to be \(1, 5, 5\) .*, got \(1, 5, 4\)"),
    "dtypes": (lambda: [inputs(), inputs().double()], "expected every input .*float32, as the first, got .*float64"),
    "three": (
        lambda: [(inputs(), 1, 2)],
        r"expected a batch of inputs or of \(inputs, labels\), got 3 parts; name them",
    ),
    "nameless": (lambda: [{"x": inputs()}], "expected a batch with one of image, images, inputs, pixel_values, got x"),
    "both": (lambda: [{"image": inputs(), "images": inputs()}], "expected a batch with one of image"),
    "labels": (
        lambda: [(inputs(), torch.zeros(7)), inputs()],
        r"expected labels \['label'\] with every batch, got \[\]",
    ),
    "few": (
        lambda: [(inputs(), torch.zeros(6))],
        r"expected 'label' to be .* for each of 7 stimuli, got .* shape \(6,\)",
    ),
    "boxes": (lambda: [(inputs(), torch.zeros(7, 4))], r"expected 'label' to be a number, .*shape \(7, 4\)"),
    "objects": (lambda: [(inputs(), [None] * 7)], "expected 'label' to be a number, a text or a time .* got object"),
    "taken": (lambda: [{"image": inputs(), "layer": np.arange(7)}], "labels with names of their own, got 'layer'"),
    "twice": (
        lambda: [{"image": inputs(), "stimulus": list("abcdefa")}],
        "expected unique stimulus ids, got 'a' twice",
    ),
    "again": (
        lambda: [{"image": inputs(2), "stimulus": [i, 1]} for i in (5, 7)],
        "expected unique stimulus ids, got 1 twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_batches_of_another_form_are_refused(case: str) -> None:
    make, match = WRONG[case]
    with pytest.raises(ValueError, match=match):
        gathered(make())


def test_a_layer_of_changing_shape_is_refused() -> None:
    sizes = iter([3, 4])
    model = nn.Sequential(Returns(lambda x: x.flatten(1)[:, : next(sizes)]))
    with pytest.raises(ValueError, match=r"expected layer '0' to give \(3,\), as before, got \(4,\)"):
        gathered([inputs(), inputs()], model)


def test_what_is_wrong_is_said_before_the_first_batch() -> None:
    with pytest.raises(ValueError, match="expected a layer of Sequential, got '1'"):
        iterate(nn.Sequential(FLAT), [], layers=["1"], rng=0)
    with pytest.raises(ValueError, match="expected at least 1 repeat, got 0"):
        iterate(nn.Sequential(FLAT), [], layers=["0"], n_repeats=0, rng=0)


def test_a_deterministic_network_has_no_repeats() -> None:
    with pytest.raises(ValueError, match="expected a stochastic network for 2 repeats, got the same"):
        gathered([inputs()], n_repeats=2)
    assert gathered([inputs()], n_repeats=2, modifications={"same": same})[0].activations["0"].shape[1] == 2


def test_a_layer_that_fires_twice_or_not_at_all_is_refused_and_leaves_no_hook() -> None:
    for times, got in ((0, "got 0 times; activations.layers says which do"), (2, "got twice")):
        model = Branching(times)
        with pytest.raises(ValueError, match=got):
            gathered([inputs()], model, layers=["inner"])
        assert n_hooks(model) == 0


def test_images_in_dask_are_computed_batch_by_batch() -> None:
    import dask.array as da  # old xarray must be imported before it

    made: list[int] = []

    def make(block_id: tuple[int, ...]) -> np.ndarray:
        made.append(block_id[0])
        return np.full((2, 1, 5, 5), block_id[0], np.float32)

    values = da.map_blocks(make, chunks=((2,) * 3, 1, 5, 5), dtype=np.float32, meta=np.empty((0,) * 4, np.float32))
    lazy = xr.DataArray(values, dims=IMAGE_DIMS, coords={"stimulus": range(6)})
    going = batches(lazy, batch_size=2)
    assert float(next(going)["image"].mean()) == 0
    assert set(made) == {0}


@pytest.mark.gpu
def test_on_a_gpu_activations_stay_there() -> None:
    model = nn.Sequential(network(), nn.Dropout(0.5)).cuda().train()
    (batch,) = gathered([inputs()], model, layers=[Layer("0.conv", max_units=5), "1"], n_repeats=2)
    assert all(activations.is_cuda for activations in batch.activations.values())
    cpu = network().conv(inputs())
    whole = gathered([inputs()], model, layers=["0.conv"])[0].activations["0.conv"][:, 0].cpu()
    torch.testing.assert_close(whole, cpu.detach().flatten(1), atol=5e-3, rtol=0)  # TF32
