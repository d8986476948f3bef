"""Recorded responses against forward passes made by hand, and what a recording must leave as it was."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from injecting import Returns, n_hooks
from recorded import KERNEL, N_CHANNELS, SIZE, Branching, images, network, same
from torch import Tensor, nn

from neurovar import responses
from neurovar.covariance import Dense
from neurovar.networks import Brightness, GaussianNoise, Layer, Modification, NoisyNetwork, inject, record
from neurovar.robustness import FGM


def dropout_network(p: float = 0.5) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Dropout(p)).train()


def by_hand(model: nn.Sequential, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs of `conv` (n, channel, row, column) and `readout` (n, 4), in loops and float64."""
    weight, bias = (p.detach().double().numpy() for p in model.conv.parameters())
    conv = np.zeros((len(shown), N_CHANNELS, SIZE - KERNEL + 1, SIZE - KERNEL + 1))
    for n, channel, row, column in np.ndindex(conv.shape):
        patch = shown[n, 0, row : row + KERNEL, column : column + KERNEL].astype(float)
        conv[n, channel, row, column] = (weight[channel, 0] * patch).sum() + bias[channel]
    weight, bias = (p.detach().double().numpy() for p in model.readout.parameters())
    readout = np.maximum(conv, 0).reshape(len(shown), -1) @ weight.T + bias
    return conv, readout


def test_values_and_coordinates_match_a_forward_pass_by_hand() -> None:
    model, shown = network(), images()
    conv, readout = by_hand(model, shown.values)
    assert (conv < 0).any()  # so that the rectifier working in place would show
    recorded = record(model, shown, layers=["readout", "conv"], rng=0)

    assert recorded.sizes == {"stimulus": 7, "repeat": 1, "unit": 4 + conv[0].size}
    assert recorded["layer"].values.tolist() == ["readout"] * 4 + ["conv"] * conv[0].size
    for unit in recorded.isel(repeat=0).transpose("unit", "stimulus"):
        channel, row, column = (int(unit[name]) for name in ("channel", "row", "column"))
        if unit["layer"] == "conv":
            expected = conv[:, channel, row, column]
        else:
            assert (row, column) == (0, 0)
            expected = readout[:, channel]
        np.testing.assert_allclose(unit, expected, atol=1e-5)
    positions = set(zip(*(recorded[name].values.tolist() for name in ("layer", "channel", "row", "column"))))
    assert len(positions) == recorded.sizes["unit"]


def test_the_result_is_valid_responses_that_say_what_they_are() -> None:
    recorded = record(network(), images(), layers=["conv"], rng=0)
    responses.validate(recorded)
    assert recorded.dims == ("stimulus", "repeat", "unit")
    assert recorded.dtype == np.float32
    assert recorded["stimulus"].values.tolist() == images()["stimulus"].values.tolist()
    assert recorded["modification"].values.tolist() == ["none"]
    assert recorded.attrs == {"units": "activation", "source": "Sequential", "repeats_from": "none"}


def test_tokens_and_channels_are_kept_apart() -> None:
    """A transformer's (batch, token, channel)."""
    tokens = nn.Sequential(nn.Flatten(2), Returns(lambda x: x.transpose(1, 2)), Returns(lambda x: x[:, 0]))
    shown = images(channels=2)
    recorded = record(tokens, shown, layers=["1", "2"], rng=0).isel(repeat=0)
    assert recorded.sizes["unit"] == 2 * SIZE**2 + 2
    for unit in recorded.transpose("unit", "stimulus"):
        pixel = np.unravel_index(int(unit["token"]), (SIZE, SIZE))  # 0 in layer 2, which has none
        np.testing.assert_array_equal(unit, shown.values[:, int(unit["channel"]), pixel[0], pixel[1]])
        assert int(unit["row"]) == int(unit["column"]) == 0
    assert "token" not in record(tokens, shown, layers=["2"], rng=0).coords


def test_the_axes_of_a_layer_can_be_named() -> None:
    """Channels last, as in Swin transformers, and a one-dimensional convolution."""
    shown = images(channels=2)
    model = nn.Sequential(Returns(lambda x: x.permute(0, 2, 3, 1)), Returns(lambda x: x.permute(0, 3, 1, 2).flatten(2)))
    named = [Layer("0", axes=("row", "column", "channel")), Layer("1", axes=["channel", "column"])]
    recorded = record(model, shown, layers=named, rng=0).isel(repeat=0)
    for unit in recorded.transpose("unit", "stimulus"):
        channel, row, column = (int(unit[name]) for name in ("channel", "row", "column"))
        if unit["layer"] == "1":
            row, column = divmod(column, SIZE)
        np.testing.assert_array_equal(unit, shown.values[:, channel, row, column])


@pytest.mark.parametrize("names", [("row", "column"), ("channel", "channel", "row"), ("channel", "feature", "row")])
def test_axes_of_other_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected the axes of layer 'conv' to be 'channel' and some of \('row'"):
        record(network(), images(), layers=[Layer("conv", axes=names)], rng=0)


def test_as_many_axes_are_named_as_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"expected 3 names for the axes \(3, 3, 3\) of layer 'conv', got \('channel',\)"
    ):
        record(network(), images(), layers=[Layer("conv", axes=("channel",))], rng=0)


def test_pooling_over_space_is_the_mean_of_each_channel() -> None:
    shown = images(channels=2)
    model = nn.Sequential(
        Returns(lambda x: x), Returns(lambda x: x.flatten(2).transpose(1, 2)), Returns(lambda x: x.mean(1))
    )
    recorded = record(model, shown, layers=[Layer(name, pool_space=True) for name in "012"], rng=0).isel(repeat=0)
    assert recorded["layer"].values.tolist() == list("001122")
    mean = shown.values.astype(float).mean((2, 3))
    np.testing.assert_allclose(recorded[:, :4], np.hstack([mean, mean]), rtol=1e-6)
    np.testing.assert_allclose(recorded[:, 4:], mean, rtol=1e-6)
    assert recorded["channel"].values.tolist() == [0, 1] * 3
    assert "token" not in recorded.coords


def test_some_of_the_pooled_channels() -> None:
    model, shown = network(), images()
    whole = record(model, shown, layers=["conv"], rng=0).isel(repeat=0).groupby("channel").mean("unit")
    some = record(model, shown, layers=[Layer("conv", max_units=2, pool_space=True)], rng=0).isel(repeat=0)
    assert some.sizes["unit"] == 2
    np.testing.assert_allclose(
        some, whole.sel(channel=some["channel"].values).transpose("stimulus", "channel"), rtol=1e-5
    )


def test_half_precision_layers_are_recorded_as_float32() -> None:
    shown = images()
    recorded = record(nn.Sequential(nn.Flatten(), Returns(Tensor.bfloat16)), shown, layers=["1"], rng=0)
    assert recorded.dtype == np.float32
    np.testing.assert_allclose(recorded.values[:, 0], shown.values.reshape(7, -1), rtol=2**-8)


def test_half_precision_layers_are_pooled_in_float32() -> None:
    """Beside a mean of 1, bfloat16 steps by 2⁻⁷: a mean in it would lose what the pixels still have."""
    shown = images()
    shown.values[:] = 1 + shown.values / 16
    model = Returns(Tensor.bfloat16)
    recorded = record(nn.Sequential(model), shown, layers=[Layer("0", pool_space=True)], rng=0)
    exact = model(torch.tensor(shown.values)).double().mean((2, 3))
    np.testing.assert_allclose(recorded.values[:, 0], exact, rtol=1e-6)


def test_max_units_keeps_a_reproducible_sample_without_replacement() -> None:
    model, shown = network(), images()
    whole = record(model, shown, layers=["conv", "readout"], rng=0)
    sampled = [Layer("conv", max_units=10), Layer("readout", max_units=10)]
    some = record(model, shown, layers=sampled, rng=3)
    assert (some["layer"] == "conv").sum() == 10
    assert (some["layer"] == "readout").sum() == 4
    index = ["layer", "channel", "row", "column"]
    whole, indexed = (da.set_index(unit=index).isel(repeat=0) for da in (whole, some))
    assert len(set(indexed["unit"].values)) == 14
    for unit in indexed["unit"].values:
        np.testing.assert_array_equal(indexed.sel(unit=unit), whole.sel(unit=unit))

    xr.testing.assert_identical(some, record(model, shown, layers=sampled, rng=3))
    other = record(model, shown, layers=sampled, rng=4)
    assert not np.array_equal(some["channel"], other["channel"])


def test_all_repeats_keep_the_same_units() -> None:
    shown = images()
    recorded = record(
        network(),
        shown,
        layers=[Layer("conv", max_units=5)],
        modifications=dict.fromkeys("ab", same),
        rng=0,
    )
    np.testing.assert_array_equal(recorded.isel(repeat=0), recorded.isel(repeat=1))


def test_the_units_kept_do_not_depend_on_the_repeats() -> None:
    once = record(network(), images(), layers=[Layer("conv", max_units=5)], rng=0)
    thrice = record(
        network(),
        images(),
        layers=[Layer("conv", max_units=5)],
        modifications=dict.fromkeys("abc", same),
        rng=0,
    )
    for name in ("channel", "row", "column"):
        np.testing.assert_array_equal(once[name], thrice[name])


def test_dropout_in_training_mode_makes_repeats_that_depend_on_rng_alone() -> None:
    model, shown = dropout_network(p=0.25), images(n=20)
    recorded = record(model, shown, layers=["1"], n_repeats=200, rng=0)
    assert recorded.attrs["repeats_from"] == "dropout"
    flat = shown.values.reshape(20, 1, -1)
    kept = recorded.values != 0
    np.testing.assert_allclose(recorded.values, np.where(kept, flat / 0.75, 0), rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / kept.size)
    assert not np.array_equal(kept[:, 0], kept[:, 1])
    assert model.training

    torch.manual_seed(99)  # the global state must not matter
    xr.testing.assert_identical(recorded, record(model, shown, layers=["1"], n_repeats=200, rng=0))
    assert not recorded.equals(record(model, shown, layers=["1"], n_repeats=200, rng=1))


def test_the_origin_of_repeats_is_named() -> None:
    def origin(model: nn.Module, **options: object) -> str:
        return record(model, images(), layers=["0"], n_repeats=2, rng=0, **options).attrs["repeats_from"]

    noisy = nn.Sequential(Returns(lambda x: x.flatten(1) + torch.randn(len(x), 25)), nn.Dropout(0.5))
    assert origin(noisy.train()) == "dropout"
    assert origin(noisy.eval()) == "stochastic passes", "dropout is off"
    assert origin(nn.Sequential(noisy[0], nn.Dropout(0)).train()) == "stochastic passes"
    for training, expected in ((False, "injected noise"), (True, "dropout and injected noise")):
        noises = {"0": Dense(torch.eye(25))}
        with inject(noisy.train(training), noises, generator=torch.Generator().manual_seed(0)):
            assert origin(noisy) == expected


def test_injected_noise_is_recorded_with_its_covariance() -> None:
    covariance = torch.tensor([[2.0, -0.8], [-0.8, 1.0]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    shown = images(n=40, size=2)
    clean = record(model, shown, layers=["1"], rng=0)
    with inject(model, {"1": Dense(covariance)}, generator=torch.Generator().manual_seed(0)):
        noisy = record(model, shown, layers=["1"], n_repeats=100, rng=0)
    deviations = (noisy.values - clean.values).reshape(-1, 2)
    estimate = deviations.T @ deviations / len(deviations)
    variances = np.diag(covariance)
    standard_error = np.sqrt((np.outer(variances, variances) + covariance.numpy() ** 2) / len(deviations))
    assert (np.abs(estimate - covariance.numpy()) < 5 * standard_error).all()


def test_each_modification_makes_a_repeat() -> None:
    model, shown = network(), images()
    brighter = {
        "clean": lambda x, generator: x,
        "brighter": lambda x, generator: x + 0.1,
        "darker": lambda x, generator: x - 0.2,
    }
    recorded = record(model, shown, layers=["readout"], modifications=brighter, rng=0)
    assert recorded["modification"].values.tolist() == ["clean", "brighter", "darker"]
    assert recorded.attrs["repeats_from"] == "modifications"
    for repeat, added in enumerate([0, 0.1, -0.2]):
        _, readout = by_hand(model, shown.values + added)
        np.testing.assert_allclose(recorded.values[:, repeat], readout, atol=1e-5)


@dataclass(frozen=True)
class Darker(Modification):
    """A user's own."""

    strength: float
    repeats_from = "adversarial responses"

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return images * (1 - self.strength)


def test_modifications_are_values_and_a_users_own_works() -> None:
    values = [Brightness(3), Darker(0.5)]
    recorded = record(network(), images(), layers=["readout"], modifications=values, rng=0)
    assert recorded["modification"].values.tolist() == ["brightness 3", "Darker(strength=0.5)"]
    assert recorded.attrs["repeats_from"] == "modifications and adversarial responses"
    labelled = record(network(), images(), layers=["readout"], modifications={m.label: m for m in values}, rng=0)
    xr.testing.assert_identical(recorded, labelled)
    np.testing.assert_allclose(recorded.values[:, 1], by_hand(network(), images().values / 2)[1], atol=1e-5)
    with pytest.raises(ValueError, match="expected modifications that differ, got brightness 3, brightness 3"):
        record(network(), images(), layers=["readout"], modifications=[Brightness(3)] * 2, rng=0)


def test_random_modifications_are_drawn_anew_for_every_repeat() -> None:
    noisy = {
        "weak": GaussianNoise(1),
        "strong": GaussianNoise(5),
    }
    shown = images(n=4)
    recorded = record(network(), shown, layers=["conv"], modifications=noisy, n_repeats=3, rng=0)
    assert recorded["modification"].values.tolist() == ["weak"] * 3 + ["strong"] * 3
    assert len({repeat.tobytes() for repeat in recorded.values.swapaxes(0, 1)}) == 6
    again = record(network(), shown, layers=["conv"], modifications=noisy, n_repeats=3, rng=0)
    xr.testing.assert_identical(recorded, again)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    noisy = {"noisy": GaussianNoise(3)}
    arguments = {"layers": [Layer("conv", max_units=6), "readout"], "modifications": noisy, "rng": 0}
    xr.testing.assert_allclose(
        record(network(), images(), batch_size=batch_size, **arguments),
        record(network(), images(), batch_size=5, **arguments),
        atol=1e-6,
    )


def test_progress_adds_up_to_every_image_in_every_pass() -> None:
    done: list[int] = []
    shown = images()
    shown_twice = dict.fromkeys("ab", same)
    record(network(), shown, layers=["conv"], modifications=shown_twice, batch_size=3, rng=0, advance=done.append)
    assert done == [3, 3, 1, 3, 3, 1]


def test_images_in_any_memory_order_are_read_and_left_as_they_are() -> None:
    shown = images()
    before = shown.copy(deep=True)
    backwards = shown.isel(stimulus=slice(None, None, -1), row=slice(None, None, -1))
    shown.values.flags.writeable = False
    recorded = record(network(), shown, layers=["conv"], modifications={"zero": lambda x, generator: x.zero_()}, rng=0)
    assert (recorded == recorded[0]).all()
    xr.testing.assert_identical(shown, before)
    expected, _ = by_hand(network(), backwards.values)
    recorded = record(network(), backwards, layers=["conv"], rng=0)
    np.testing.assert_allclose(recorded.values[:, 0], expected.reshape(7, -1), atol=1e-5)


def test_network_and_global_randomness_are_left_as_they_were() -> None:
    model = nn.Sequential(network(), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    record(model, images(), layers=[Layer("1", max_units=2)], n_repeats=2, rng=0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in [model, model[1]])
    assert n_hooks(model) == 0


def test_running_statistics_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = dict(model.named_buffers())
    recorded = record(model, images(), layers=["1"], batch_size=3, n_repeats=1, rng=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value is kept[name] for name, value in model.named_buffers())
    first = recorded.values[:3].reshape(3, 2, -1)
    np.testing.assert_allclose(first.mean((0, 2)), 0, atol=1e-5, err_msg="it was in training mode")


class Counting(nn.Module):
    """Replaces a buffer at every pass, and adds how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return x.flatten(1) + self.count


def test_every_batch_is_shown_to_the_network_as_it_was() -> None:
    model, shown = nn.Sequential(Counting()), images()
    recorded = record(model, shown, layers=["0"], batch_size=2, rng=0)
    np.testing.assert_array_equal(recorded.values[:, 0], shown.values.reshape(7, -1) + 1)
    assert model[0].count == 0


def test_attacks_on_the_same_network_make_repeats() -> None:
    model, shown = network(), images()

    def attack(x: Tensor, generator: torch.Generator) -> Tensor:
        return FGM(0.1)(NoisyNetwork(model, images=x), x, torch.zeros(len(x), dtype=torch.long), generator=generator)

    attacked = {"clean": same, "fgm": attack}
    recorded = record(model, shown, layers=["readout"], modifications=attacked, batch_size=3, rng=0)
    by_attack = attack(torch.tensor(shown.values), torch.Generator())
    np.testing.assert_allclose(recorded.values[:, 1], by_hand(model, by_attack.numpy())[1], atol=1e-5)
    assert not np.allclose(recorded.values[:, 0], recorded.values[:, 1])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_layer_without_a_row_for_each_stimulus_is_refused() -> None:
    """As in the windows of a Swin transformer."""
    model = nn.Sequential(Returns(lambda x: x.flatten(0, 2)))
    with pytest.raises(ValueError, match="expected layer '0' to give a row for each of 7 stimuli, got 35 rows"):
        record(model, images(), layers=["0"], rng=0)


def test_activations_that_are_not_finite_are_refused() -> None:
    model = nn.Sequential(Returns(lambda x: x.flatten(1) / 0))
    with pytest.raises(ValueError, match="expected finite activations of layer '0', got NaN or infinity"):
        record(model, images(), layers=["0"], rng=0)


def test_double_precision_is_kept() -> None:
    model, shown = nn.Sequential(Returns(lambda x: x.flatten(1).double() / 3)), images()
    recorded = record(model, shown, layers=["0"], rng=0)
    np.testing.assert_array_equal(recorded.values[:, 0], shown.values.reshape(7, -1).astype(float) / 3)


def test_ids_of_any_kind_are_kept() -> None:
    for ids in (np.array(list("abcdefg"), dtype=object), np.arange(7).astype("M8[ns]"), np.arange(7) / 2):
        shown = images().assign_coords(stimulus=ids, time=("stimulus", range(7)))
        recorded = record(network(), shown, layers=["readout"], rng=0)
        np.testing.assert_array_equal(recorded["stimulus"].values, ids)


def test_nothing_leaks_when_the_network_fails() -> None:
    def fail(x: Tensor) -> Tensor:
        torch.rand(1)
        raise RuntimeError("out of order")

    model = nn.Sequential(network(), Returns(fail))
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of order"):
        record(model, images(), layers=["0.conv", "1"], rng=0)
    assert n_hooks(model) == 0
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="expected a layer"):
        record(model, images(), layers=["0.conv", "2"], rng=0)
    assert n_hooks(model) == 0


def test_an_unknown_layer_lists_the_near_ones() -> None:
    with pytest.raises(ValueError, match="expected a layer of Sequential, got 'readuot'; near it: readout"):
        record(network(), images(), layers=["readuot"], rng=0)


@pytest.mark.parametrize("layers", [[], ["conv", "readout", "conv"], "conv"])
def test_layers_are_named_and_once(layers: list[str] | str) -> None:
    with pytest.raises(ValueError, match="expected at least one layer, and each once, got "):
        record(network(), images(), layers=layers, rng=0)


@pytest.mark.parametrize(("times", "got"), [(0, "got 0 times"), (2, "got twice")])
def test_a_layer_fires_exactly_once(times: int, got: str) -> None:
    model = Branching(times)
    with pytest.raises(ValueError, match=f"expected layer 'inner' to fire once in a forward pass, {got}"):
        record(model, images(), layers=["inner"], rng=0)
    assert n_hooks(model) == 0


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda x: x.argmax(1), r"torch\.int64 \(7, 5, 5\)"),
        (lambda x: x.flatten(1).to(torch.complex64), r"torch\.complex64 \(7, 25\)"),
        (lambda x: (x, x), "tuple"),
        (lambda x: x.mean((1, 2, 3)), r"torch\.float32 \(7,\)"),
        (lambda x: x[None], r"torch\.float32 \(1, 7, 1, 5, 5\)"),
    ],
)
def test_an_output_of_the_wrong_form_is_named(function: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"expected layer '0' to give floats \(batch, channel.*\), got {got}"):
        record(nn.Sequential(Returns(function)), images(), layers=["0"], rng=0)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (images().transpose("stimulus", "row", "column", "channel"), "expected images with dims .* got dims"),
        (images().isel(channel=0), "expected images with dims"),
        (images().drop_vars("stimulus"), "and stimulus ids, got .* coords"),
        (images().isel(stimulus=[]), r"got .* shape \(0, 1, 5, 5\)"),
        (images().astype(float), "expected finite float32 images, got float64"),
        (images() * np.float32("nan"), "expected finite float32 images, got float32 or NaN"),
    ],
)
def test_images_of_the_wrong_form_are_refused(wrong: xr.DataArray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        record(network(), wrong, layers=["conv"], rng=0)


def test_a_batch_has_at_least_one_image() -> None:
    with pytest.raises(ValueError, match="expected batches of at least 1 image, got 0"):
        record(network(), images(), layers=["conv"], batch_size=0, rng=0)


@pytest.mark.parametrize("max_units", [0, -1])
def test_at_least_one_unit(max_units: int) -> None:
    with pytest.raises(ValueError, match=f"expected max_units of at least 1, got {max_units}"):
        record(network(), images(), layers=[Layer("conv", max_units=max_units)], rng=0)


def test_at_least_one_repeat() -> None:
    with pytest.raises(ValueError, match="expected at least 1 repeat, got 0"):
        record(network(), images(), layers=["conv"], n_repeats=0, rng=0)


@pytest.mark.parametrize("modifications", [None, {}])
def test_a_deterministic_network_has_no_repeats(modifications: dict | None) -> None:
    with pytest.raises(ValueError, match=r"expected a stochastic network for 3 repeats, got the same .*model\.train"):
        record(network(), images(), layers=["conv"], n_repeats=3, modifications=modifications, rng=0)


@pytest.mark.gpu
def test_on_a_gpu_the_values_are_the_same_and_dropout_is_reproducible() -> None:
    shown = images()
    xr.testing.assert_allclose(
        record(network().cuda(), shown, layers=["conv", "readout"], rng=0),
        record(network(), shown, layers=["conv", "readout"], rng=0),
        atol=5e-3,  # TF32
    )
    stochastic = nn.Sequential(network(), nn.Dropout(0.5)).cuda().train()
    state = torch.cuda.get_rng_state()
    first = record(stochastic, shown, layers=["1"], n_repeats=3, rng=0)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.cuda.manual_seed(5)
    xr.testing.assert_identical(first, record(stochastic, shown, layers=["1"], n_repeats=3, rng=0))
