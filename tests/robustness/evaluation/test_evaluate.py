"""Correctness against predictions worked out by hand, and against accuracies that are known."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from neurovar.covariance import Diagonal
from neurovar.networks import Brightness, Control, GaussianNoise, MotionBlur, NoisyNetwork, seeded
from neurovar.robustness import (
    APGD,
    FGM,
    PGD,
    Attack,
    Square,
    checklist,
    evaluate,
    gradients,
    honesty,
    worst_case,
)
from neurovar.robustness.evaluation import _cell
from neurovar.robustness.evaluation._networks import followed

IMAGE_DIMS = ("stimulus", "channel", "row", "column")
SIZE = 4
SHORT = PGD(0.1, n_steps=3, n_draws=4, n_restarts=1)


def data(n: int = 40, seed: int = 0, *, named: bool = True) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    coords = {"stimulus": [f"image{i}" for i in range(n)]} if named else {}
    images = xr.DataArray(rng.random((n, 1, SIZE, SIZE), dtype=np.float32), dims=IMAGE_DIMS, coords=coords)
    return images, xr.DataArray(rng.integers(0, 3, n), dims="stimulus", coords=coords)


def network(model: nn.Module, noises: dict | None = None, **options: Any) -> NoisyNetwork:
    """Of a model that takes the images of `data`."""
    images = torch.full((1, 1, SIZE, SIZE), 0.5, dtype=next(model.parameters()).dtype)
    return NoisyNetwork(model, noises or {}, images=images, **options)


def evaluated(
    model: nn.Module | dict, images: xr.DataArray, labels: xr.DataArray, *, noises: dict | None = None, **options: Any
) -> xr.Dataset:
    """A model under each noise, or networks by name."""
    if isinstance(model, nn.Module):
        model = {name: network(model, noise) for name, noise in (noises or {"none": {}}).items()}
    return evaluate(model, images, labels, **options)


class Seeing(nn.Module):
    """The identity; keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return x


def linear(seed: int = 0, classes: int = 3) -> nn.Sequential:
    model = nn.Sequential(Seeing(), nn.Flatten(), nn.Linear(SIZE**2, classes))
    weight = np.random.default_rng(seed).standard_normal((classes, SIZE**2))
    model[2].weight.data = torch.tensor(weight, dtype=torch.float32)
    model[2].bias.data.zero_()
    return model.eval()


def by_hand(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> list[bool]:
    weight = model[2].weight.detach().double().numpy()
    return [int(np.argmax(weight @ image.ravel())) == label for image, label in zip(images.astype(float), labels)]


def only(result: xr.Dataset, condition: int = 0, k: int = 1) -> np.ndarray:
    """Correctness of the one network under the one noise seed."""
    return result["correct"].isel(noise=0, seed=0, draw_seed=0, condition=condition).sel(k=k).values


def test_correctness_on_clean_images_matches_predictions_by_hand() -> None:
    images, labels = data()
    result = evaluated(linear(), images, labels, seeds=[0])
    assert result["correct"].dims == ("noise", "seed", "draw_seed", "condition", "stimulus", "k")
    assert result["hits"].dims == result["correct"].dims[:-1]
    assert [result[name].dtype for name in ("correct", "hits", "survived", "ran")] == [bool, np.int16, bool, bool]
    expected = by_hand(linear(), images.values, labels.values)
    assert 0 < sum(expected) < len(expected)
    for k in (1, 10, 100):
        assert only(result, k=k).tolist() == expected
    assert (result["survived"] == result["correct"]).all()
    assert (result["hits"] == 100 * result["correct"].sel(k=1)).all()
    assert result["ran"].all()
    assert result.attrs["n_classes"] == 3
    assert "torch" in result.attrs["versions"]


def test_conditions_noises_and_stimuli_keep_what_they_are() -> None:
    images, labels = data()
    noises = {"none": {}, "some": {"2": Diagonal.isotropic(3, variance=2.0)}}
    modifications = [Brightness(2), MotionBlur.preble2026(1)]
    conditions = [SHORT, PGD(0.2, norm="l2", follows="off", n_steps=1, step=0.1)]
    result = evaluated(linear(), images, labels, seeds=[5, 7], noises=noises, conditions=[*modifications, *conditions])
    assert result["condition"].values.tolist() == [
        "clean",
        "brightness 2",
        "motion_blur 1 preble2026",
        "pgd ce ε=0.1 K=4 steps=3 restarts=1",
        "pgd ce l2 ε=0.2 K=1 steps=1 restarts=5 step=0.1 off",
    ]
    assert result["kind"].values.tolist() == ["clean", "modification", "modification", "attack", "attack"]
    assert result["modification"].values.tolist() == ["clean", "brightness", "motion_blur", "pgd", "pgd"]
    assert result["strength"].values.tolist() == [0, 2, 1, 0.1, 0.2]
    assert result["gradient"].values.tolist() == ["", "", "", "averaged", "off"]
    assert result["norm"].values.tolist() == ["", "", "", "linf", "l2"]
    np.testing.assert_array_equal(result["n_draws"], [np.nan] * 3 + [4, 1])
    np.testing.assert_array_equal(result["step"], [np.nan] * 3 + [0.025, 0.1])
    assert result["noise"].values.tolist() == ["none", "some"]
    assert result["noisy"].values.tolist() == [False, True]
    np.testing.assert_array_equal(result["trace"], [np.nan, 6])
    assert result["layer"].values.tolist() == ["", "2"]
    assert result["draw_seed"].values.tolist() == [5, 7]
    assert result["stimulus"].values.tolist() == images["stimulus"].values.tolist()
    nameless = evaluated(linear(), *data(named=False), seeds=[5])
    assert "stimulus" not in nameless.coords


def test_networks_are_evaluated_by_name_and_training_seed() -> None:
    images, labels = data()
    origin, control = PGD(0.1).origin, Control("rotated", of="one", matched_by="trace")
    networks = {
        "one": [network(linear(0)), network(linear(1))],
        "other": [network(linear(s), {"2": Diagonal.isotropic(3)}, origin=origin, control=control) for s in (2, 3)],
    }
    result = evaluated(networks, images, labels, seeds=[0])
    assert result["seed"].values.tolist() == [0, 1]
    for seed in (0, 1):
        expected = by_hand(linear(seed), images.values, labels.values)
        assert result["correct"].isel(noise=0, seed=seed, draw_seed=0, condition=0, k=0).values.tolist() == expected
    assert result["control"].values.tolist() == ["", "rotated"]
    assert result["control_of"].values.tolist() == ["", "one"]
    assert result["origin"].values.tolist() == ["", "attacked"]
    assert result["origin_of"].values.tolist() == ["", "pgd"]
    assert result["origin_epsilon"].values[1] == 0.1
    assert result["origin_norm"].values.tolist() == ["", "linf"]
    assert result["matched_by"].values.tolist() == ["", "trace"]
    assert (result["hits"].isel(noise=1) % 100).values.any()


def test_correctness_on_brighter_images_matches_predictions_by_hand() -> None:
    images, labels = data()
    brighter = np.clip(images.values + np.float32(0.4), 0, 1)
    result = evaluated(linear(), images, labels, seeds=[0], conditions=[Brightness(4)])
    expected = by_hand(linear(), brighter, labels.values)
    assert only(result, 1).tolist() == expected
    assert expected != by_hand(linear(), images.values, labels.values)


def test_every_network_is_shown_the_same_modified_images() -> None:
    images, labels = data()
    modifications = [GaussianNoise(3), GaussianNoise(4), MotionBlur(1)]
    shown = []
    for model, noises, batch_size, conditions in [
        (linear(0), {}, 100, modifications),
        (linear(1), {}, 7, modifications),
        (linear(2), {"2": Diagonal.isotropic(3)}, 16, modifications),
        (linear(0), {}, 100, modifications[:1]),
    ]:
        evaluated(
            model,
            images,
            labels,
            seeds=[5],
            noises={"": noises},
            conditions=conditions,
            batch_size=batch_size,
            draws=[10],
        )
        seen = torch.cat(model[0].seen)
        shown.append(seen[-40 * (len(conditions) + 1) :].view(-1, 40, 1, SIZE, SIZE))
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown[0], shown[2])
    assert torch.equal(shown[0][:2], shown[3])  # whatever other conditions there are
    np.testing.assert_array_equal(shown[0][0], images)
    assert (shown[0][1] - shown[0][0]).std() > 0.1
    other = linear()
    evaluated(other, images, labels, seeds=[6], conditions=modifications[:1])
    assert not torch.equal(torch.cat(other[0].seen)[-40:], shown[0][1].view(40, 1, SIZE, SIZE))


@pytest.mark.parametrize("n_draws", [1, 4, 25])
def test_a_noisy_prediction_sums_the_logits_of_its_draws(n_draws: int) -> None:
    """Two classes whose logits differ by m and carry noise of variance v each: P(correct) = Φ(m √K / √(2v)), of one
    draw p, and p^K that all are right."""
    n, margin, variance = 3000, 0.5, 2.0
    model = linear(classes=2)
    model[2].weight.data.zero_()
    model[2].bias.data = torch.tensor([margin, 0.0])
    images, labels = data(n)
    noises = {"noise": {"2": Diagonal.isotropic(2, variance=variance)}}
    result = evaluated(model, images, xr.zeros_like(labels), seeds=[0], noises=noises, draws=[1, 4, 25])

    def close(share: float, p: float, n_values: int = n) -> bool:
        return abs(share - p) < 5 * np.sqrt(p * (1 - p) / n_values) + 1e-9

    assert close(only(result, k=n_draws).mean(), NormalDist().cdf(margin * np.sqrt(n_draws / (2 * variance))))
    single = NormalDist().cdf(margin / np.sqrt(2 * variance))
    assert close(float(result["hits"].mean()) / 25, single, 25 * n)
    assert close(float(result["survived"].sel(k=n_draws).mean()), single**n_draws)


def test_it_is_the_logits_that_are_summed_and_not_the_probabilities() -> None:
    """Class 0 has the highest mean logit, and nine noisy classes share out nearly all of the mean probability."""
    model = linear(classes=10)
    model[2].weight.data.zero_()
    model[2].bias.data[0] = 2.0
    images, labels = data(20)
    noises = {"noise": {"2": Diagonal(torch.tensor([0.0] + [64.0] * 9))}}
    result = evaluated(model, images, labels * 0, seeds=[0], noises=noises, draws=[1, 2000])
    assert only(result, k=2000).all()
    assert not only(result, k=1).all()


def margins(model: nn.Sequential, images: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(w₀ − w₁)·x of a linear classifier of two classes, ‖w₀ − w₁‖₁ and ‖w₀ − w₁‖₂."""
    weight = model[2].weight.detach().double().numpy()
    direction = weight[0] - weight[1]
    return images.reshape(len(images), -1) @ direction, np.abs(direction).sum(), np.linalg.norm(direction)


def balanced() -> nn.Sequential:
    """Two classes that are about equally many among `middling` images."""
    model = linear(classes=2)
    model[2].weight.data -= model[2].weight.data.mean(1, keepdim=True)
    return model


def middling(n: int) -> xr.DataArray:
    """Images that no ε used here moves out of [0, 1]."""
    images, _ = data(n)
    return 0.3 + 0.4 * images


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_worst_case_of_a_linear_classifier_is_known(norm: str) -> None:
    """Right under every attack of size ε if and only if |margin| > ε times the dual norm of the weights."""
    model, images = balanced(), middling(200)
    margin, l1, l2 = margins(model, images.values.astype(float))
    labels = xr.DataArray((margin < 0).astype(int), dims="stimulus", coords={"stimulus": images["stimulus"].values})
    epsilons = (0.01, 0.04) if norm == "linf" else (0.05, 0.15)
    attacked = [
        attack
        for epsilon in epsilons
        for attack in (
            FGM(epsilon, norm=norm),
            PGD(epsilon, norm=norm, n_steps=20, n_restarts=2),
            APGD(epsilon, norm=norm, n_steps=20),
        )
    ]
    result = evaluated(model, images, labels, seeds=[0], conditions=attacked, draws=[1])
    for index, attack in enumerate(attacked, start=1):
        survives = np.abs(margin) > attack.epsilon * (l1 if norm == "linf" else l2)
        close = np.isclose(np.abs(margin), attack.epsilon * (l1 if norm == "linf" else l2), rtol=0.02)
        assert 0.1 < survives.mean() < 0.95
        assert (only(result, index) == survives)[~close].all()


def test_the_expected_accuracy_of_a_noisy_linear_classifier_under_attack_is_a_normal_cdf() -> None:
    """Noise of variance v on both logits: right with Φ((|margin| − ε‖w‖₁) / √(2v)) in one draw."""
    model, images, epsilon, variance = balanced(), middling(300), 0.05, 0.5
    margin, l1, _ = margins(model, images.values.astype(float))
    labels = xr.DataArray((margin < 0).astype(int), dims="stimulus", coords={"stimulus": images["stimulus"].values})
    noises = {"noise": {"2": Diagonal.isotropic(2, variance=variance)}}
    attack = PGD(epsilon, n_steps=10, n_draws=5, n_restarts=1)
    result = evaluated(model, images, labels, seeds=[0], noises=noises, conditions=[attack])
    for index, size in enumerate((0.0, epsilon)):
        single = np.array([NormalDist().cdf(m / np.sqrt(2 * variance)) for m in np.abs(margin) - size * l1])
        hits = result["hits"].isel(noise=0, seed=0, draw_seed=0, condition=index) / 100
        assert float(hits.mean()) == pytest.approx(single.mean(), abs=5 * 0.5 / np.sqrt(100 * 300))
        np.testing.assert_allclose(hits, single, atol=0.26)


def test_predictions_are_on_draws_that_no_attack_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of its generator an attack uses up does not matter to the noise of the prediction."""
    images, labels = data(200)
    noises = {"noise": {"2": Diagonal.isotropic(3, variance=9.0)}}

    def attacked(n: int, seed: int = 0) -> np.ndarray:
        UsesUp.n = n
        return only(evaluated(linear(), images, labels, seeds=[seed], noises=noises, conditions=[UsesUp(0.1)]), 1)

    assert np.array_equal(attacked(0), attacked(100))
    assert not np.array_equal(attacked(0), attacked(0, seed=1))


class UsesUp(Attack):
    """Draws numbers and changes nothing."""

    n = 0

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        torch.rand(self.n, generator=generator)
        return images


def test_images_and_predictions_of_each_condition_and_seed_have_draws_of_their_own() -> None:
    images, labels = data(3)

    def drawn(use: str, seed: int = 0, condition: Attack = SHORT, weights: int = 0) -> list[float]:
        cell = _cell.Cell(network(linear(weights)), None, images.values, labels.values, condition, seed, [1], 50)
        return torch.rand(2, generator=cell.generator(use)).tolist()

    other = PGD(0.2)
    ones = [drawn("images"), drawn("prediction"), drawn("images", 1), drawn("images", condition=other)]
    assert len({tuple(one) for one in ones}) == 4
    assert drawn("images", weights=1) == ones[0]


@dataclass(frozen=True)
class Own(Attack):
    """A user's own attack, in a file of the user's, which keeps what it is run on."""

    strength: float = 1.0
    calls: ClassVar[list[tuple]] = []

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.calls.append((network.model, network.layers, labels.tolist()))
        return (images + self.strength * self.epsilon).clamp(0, 1)


def run_on(networks: Any, conditions: Sequence[Attack], **options: Any) -> list[tuple]:
    """The models and layers with noise that own attacks are run on."""
    Own.calls.clear()
    images, labels = data(5)
    evaluate(networks, images, labels, conditions=conditions, seeds=[0], draws=[1], **options)
    return [call[:2] for call in Own.calls]


def test_an_attack_of_a_users_own_is_evaluated_like_any_other() -> None:
    images, labels = data(20)
    result = evaluated(linear(), images, labels, seeds=[0], conditions=[Own(0.1), Own(0.1, strength=0.5), SHORT])
    assert result["condition"].values[1:3].tolist() == ["own ε=0.1 K=20", "own ε=0.1 K=20 strength=0.5"]
    assert result["modification"].values.tolist() == ["clean", "own", "own", "pgd"]
    brighter = np.clip(images.values + np.float32(0.1), 0, 1)
    assert only(result, 1).tolist() == by_hand(linear(), brighter, labels.values)
    assert honesty(result)["status"].sel(check="all attacks ran").item() == "pass"
    assert worst_case(result)["n_attacks"].item() == 3


@pytest.mark.parametrize("follows", ["averaged", "mean_logits", "fixed", "off"])
def test_an_attack_is_run_on_what_it_follows(follows: str) -> None:
    model = linear()
    noisy, free = network(model, {"2": Diagonal.isotropic(3)}), network(model)
    assert run_on(noisy, [Own(0.2, follows=follows)]) == [(model, () if follows == "off" else ("2",))]
    assert run_on(free, [Own(0.2, follows=follows)]) == [(model, ())]
    assert Own(0.2, follows=follows).described()["n_draws"] == (1 if follows == "off" else 20)


def test_transfer_attacks_follow_networks_without_noise() -> None:
    noise = {"2": Diagonal.isotropic(3)}
    conditions = [Own(0.1, follows="twin"), Own(0.1, follows="independent")]
    models = [linear(s) for s in range(4)]
    networks = {"n": [network(m, noise) for m in models[:2]], "none": [network(m) for m in models[2:]]}
    order = [models[2], models[3], models[3], models[2]] * 2
    assert run_on(networks, conditions) == [(model, ()) for model in order]
    one_model = run_on({"n": network(models[0], noise)}, conditions, others={"independent": [network(models[1])]})
    assert one_model == [(models[0], ()), (models[1], ())]
    others = {"twin": networks["none"][::-1], "independent": [network(m) for m in models[:2]]}
    given = run_on({"n": networks["n"]}, conditions, others=others)
    assert [model for model, _ in given] == [models[3], models[0], models[2], models[1]]


def test_a_transfer_attack_without_a_network_is_not_run() -> None:
    images, labels = data()
    networks = {"a": network(linear(0), {"2": Diagonal.isotropic(3)})}
    networks["b"] = network(linear(1), {"2": Diagonal.isotropic(3)})
    conditions = [PGD(0.1, follows=gradient, n_steps=1) for gradient in ("twin", "independent")]
    result = evaluated(networks, images, labels, seeds=[0], conditions=conditions, draws=[1])
    assert result["ran"].isel(draw_seed=0, seed=0).values.tolist() == [[True, False, False]] * 2
    assert not result["correct"].isel(condition=[1, 2]).any()
    assert result.attrs["warnings"] == [
        f"{name}, training seed 0, {label}: could not be run: there is no {gradient} network without noise"
        for name in "ab"
        for label, gradient in zip(result["condition"].values[1:], ("twin", "independent"))
    ]


class Rounds(nn.Module):
    """Rounds logits: gradients of exactly zero, where they flow at all."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "zero":
            return x.round()
        if self.kind == "none":
            return x.detach().round()
        return torch.where(x > 0, x, x * 0 + torch.sqrt(torch.zeros_like(x) * x))


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("zero", "its gradients are zero for every image"),
        ("none", "no gradient flows from its logits to the image"),
        ("nan", "its gradients are NaN or infinite"),
    ],
)
def test_attacks_on_a_network_without_gradients_are_recorded_as_not_run(kind: str, problem: str) -> None:
    images, labels = data()
    model = nn.Sequential(*linear(), Rounds(kind)).eval()
    conditions = [SHORT, Square(0.1, n_queries=5)]
    result = evaluated(model, images, labels, seeds=[0], conditions=conditions)
    assert result["ran"].values.ravel().tolist() == [True, False, True]
    assert not result["correct"].isel(condition=1).any()
    assert result["correct"].isel(condition=2).any()
    assert result.attrs["warnings"][0] == f"none, training seed 0: {problem}"
    assert result.attrs["warnings"][1].startswith(
        "none, training seed 0, pgd ce ε=0.1 K=4 steps=3 restarts=1: could not be run: expected"
    )
    assert np.isnan(result["gradient_snr"]).all()
    expected = 1.0 if kind == "zero" else np.nan
    np.testing.assert_array_equal(result["zero_gradients"], [[[expected]]])


def test_gradients_that_are_zero_for_some_images_are_a_stated_warning() -> None:
    """Half of the images lie where a rectifier is shut for every class."""
    images, labels = data(20)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 3), nn.Threshold(0.0, -1.0)).eval()
    model[1].weight.data = torch.ones(3, SIZE**2) * torch.tensor([[1.0], [2.0], [3.0]])
    model[1].bias.data = -model[1].weight.data.sum(1) * 0.5
    dark = xr.where(images["stimulus"].isin(images["stimulus"][:10]), 0.1, 0.9)
    result = evaluated(model, (images * 0.05 + dark).astype(np.float32), labels, seeds=[0], conditions=[SHORT])
    assert result["zero_gradients"].item() == 0.5
    (warning,) = result.attrs["warnings"]
    assert "the gradient is exactly zero for 10 of 20 images" in warning


def test_nothing_right_on_clean_images_is_a_stated_warning() -> None:
    images, labels = data()
    predicted = linear()(torch.tensor(images.values)).argmax(1).numpy()
    wrong = labels.copy(data=(predicted + 1) % 3)
    result = evaluated(linear(), images, wrong, seeds=[0])
    assert result.attrs["warnings"] == [
        "none, training seed 0: no clean image is classified correctly, so that accuracy under attacks says nothing"
    ]
    assert evaluated(linear(), images, labels, seeds=[0]).attrs["warnings"] == []


@pytest.mark.parametrize("variance", [0.5, 4.0])
def test_signal_and_variance_of_gradients_are_recovered(variance: float) -> None:
    """Logits (x·(a + e), 0) in which e, noise on a layer of ones, is the noise of the gradient: with p the probability
    of class 0, g = (p − 1)(a + e); a large bias makes p nearly 0 and g the noise about −a."""
    n = 200
    model = multiplied(torch.arange(1.0, 5.0), bias=-100.0)
    noises = {"beside": Diagonal(torch.tensor([0.0] * 4 + [variance] * 4))}
    images, labels = torch.full((n, 1, 2, 2), 0.5), torch.zeros(n, dtype=torch.int64)
    found = gradients(
        NoisyNetwork(model, noises, images=images),
        images,
        labels,
        n_draws=3,
        generator=torch.Generator().manual_seed(0),
    )
    signal, total = float((torch.arange(1.0, 5.0) ** 2).sum()), 4 * variance
    assert found.signal.mean() == pytest.approx(signal, abs=5 * found.signal.std() / np.sqrt(n))
    assert found.variance.mean() == pytest.approx(total, abs=5 * found.variance.std() / np.sqrt(n))
    assert found.snr == pytest.approx(signal / total, rel=0.15)
    assert not found.zero.any()
    alone = gradients(NoisyNetwork(model, images=images), images, labels, n_draws=3, generator=torch.Generator())
    assert alone.snr == np.inf
    np.testing.assert_allclose(alone.signal, signal, rtol=1e-5)


class Beside(nn.Module):
    """Pixels and, beside them, as many zeros, for the noise to go on."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.flatten(1), torch.zeros_like(x.flatten(1))], 1)


class Multiplied(nn.Module):
    """Logits (Σ x·(a + e) + bias, 0) of the pixels x and what is beside them, e."""

    def __init__(self, a: Tensor, bias: float) -> None:
        super().__init__()
        self.a, self.bias = nn.Parameter(a), bias

    def forward(self, both: Tensor) -> Tensor:
        x, e = both.chunk(2, 1)
        first = (x * (self.a + e)).sum(1) + self.bias
        return torch.stack([first, torch.zeros_like(first)], 1)


def multiplied(a: Tensor, bias: float = 0.0) -> nn.Sequential:
    return nn.Sequential(OrderedDict(beside=Beside(), multiplied=Multiplied(a, bias))).eval()


def test_more_draws_are_stronger_where_noise_fools_one() -> None:
    """Noise that multiplies the gradient and is nothing on average: one draw climbs at random, many do not."""
    n = 100
    model = multiplied(torch.full((16,), 0.5), bias=-8.0)
    images = xr.DataArray(np.full((n, 1, 4, 4), 0.5, np.float32), dims=IMAGE_DIMS)
    labels = xr.DataArray(np.ones(n, int), dims="stimulus")
    noises = {"noise": {"beside": Diagonal(torch.tensor([0.0] * 16 + [6.0] * 16))}}
    attacked = [PGD(0.4, n_steps=10, n_draws=k, n_restarts=1) for k in (1, 64)]
    result = evaluated(model, images, labels, seeds=[0], noises=noises, conditions=attacked)
    one, many = (result["hits"].isel(condition=c).mean().item() / 100 for c in (1, 2))
    assert many < one - 0.1
    assert 0 < result["gradient_snr"].item() < 0.2


def everything(seed: int, n_jobs: int = 1) -> tuple[xr.Dataset, list[int]]:
    """A result with all that is random, and what `advance` was called with."""
    images, labels = data(60)
    with seeded(0):
        model = nn.Sequential(*list(linear())[1:]).eval()
    done: list[int] = []
    result = evaluated(
        model,
        images,
        labels,
        seeds=[seed],
        noises={"none": {}, "noise": {"1": Diagonal.isotropic(3, variance=9.0)}},
        conditions=[GaussianNoise(5), SHORT],
        n_jobs=n_jobs,
        advance=done.append,
    )
    return result, done


def test_the_same_seed_gives_the_same_result_whatever_the_global_state() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, done = everything(0)
    assert done == [1] * 6
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    xr.testing.assert_equal(first, everything(0)[0])
    assert not first.equals(everything(1)[0])
    assert torch.get_num_threads() == threads
    torch.set_rng_state(state)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing() -> None:
    result, done = everything(0, n_jobs=2)
    assert done == [1] * 6
    xr.testing.assert_equal(result, everything(0)[0])


def test_predictions_do_not_depend_on_the_batch_size() -> None:
    images, labels = data(50)
    noises = {"noise": {"2": Diagonal.isotropic(3, variance=9.0)}}
    options = {"seeds": [0], "noises": noises, "conditions": [GaussianNoise(5)]}
    ours, other = (evaluated(linear(), images, labels, batch_size=size, **options) for size in (7, 50))
    xr.testing.assert_equal(ours, other)
    assert _cell.ROWS % 100 == 0


def test_evaluating_changes_neither_images_nor_network() -> None:
    images, labels = data()
    before, model = images.copy(deep=True), linear()
    images.values.flags.writeable = False
    evaluated(model, images, labels, seeds=[0], noises={"": {"2": Diagonal.isotropic(3)}}, conditions=[SHORT])
    xr.testing.assert_identical(images, before)
    assert torch.equal(model[2].weight, linear()[2].weight)
    assert model[2].weight.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_images_in_any_memory_order_and_type_are_read() -> None:
    images, labels = data()
    reverse = {"stimulus": slice(None, None, -1)}
    forwards = only(evaluated(linear(), images, labels, seeds=[0]))
    np.testing.assert_array_equal(
        only(evaluated(linear(), images.isel(reverse), labels.isel(reverse), seeds=[0])), forwards[::-1]
    )
    double = evaluated(linear().double(), images.astype(float), labels, seeds=[0], conditions=[SHORT])
    np.testing.assert_array_equal(only(double), forwards)


Change = Callable[[xr.DataArray, xr.DataArray], tuple[xr.DataArray, xr.DataArray]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: (x.isel(channel=0), y), r"expected images \(stimulus, channel, row, column\)"),
        (lambda x, y: (x, y.rename(stimulus="image")), r"and labels \(stimulus\), got .*'image'"),
        (lambda x, y: (x, y[:3]), "expected at least one image and a label for every image, got 3 labels for 40"),
        (lambda x, y: (x[:0], y[:0]), "expected at least one image and a label for every image, got 0 labels for 0"),
        (lambda x, y: (x, y[::-1]), "expected images and labels with the same stimulus ids in the same order"),
        (lambda x, y: (x.astype(int), y), "expected floating-point images and integer labels, got int64 and int64"),
        (lambda x, y: (x, y.astype(float)), "expected floating-point images and integer labels, got float32 and float"),
        (lambda x, y: (x.astype(float), y), "expected images of the network's torch.float32, got torch.float64"),
        (lambda x, y: (x + 1, y), r"none, training seed 0: expected pixels in \[0, 1\], got 1.0"),
        (lambda x, y: (x.where(x > 0.5), y), r"expected pixels in \[0, 1\], got nan"),
        (lambda x, y: (x, y + 9), "expected labels from 0 to 2, got 9 to 11"),
        (lambda x, y: (x, y - 1), "expected labels from 0 to 2, got -1 to 1"),
    ],
)
def test_bad_images_and_labels_are_named(change: Change, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        evaluated(linear(), *change(*data()), seeds=[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"seeds": []}, r"expected at least one noise seed, all different, got \[\]"),
        ({"seeds": [1, 1]}, r"expected at least one noise seed, all different, got \[1, 1\]"),
        ({"draws": []}, r"expected numbers of draws ≥ 1, all different, and batch_size ≥ 1, got \[\] and 50"),
        ({"draws": [0, 1]}, r"got \[0, 1\] and 50"),
        ({"draws": [1, 1]}, r"got \[1, 1\] and 50"),
        ({"batch_size": 0}, r"got \[1, 10, 100\] and 0"),
        ({"conditions": [SHORT, SHORT]}, "expected conditions that differ, got more than one pgd ce ε=0.1 K=4"),
        ({"others": {"twin": [network(linear())] * 2}}, "for each of 1 training seeds, got 2 as twin"),
        ({"others": {"independent": []}}, "for each of 1 training seeds, got 0 as independent"),
        ({"others": {"off": [network(linear())]}}, "expected as others a twin, .* got 1 as off"),
        ({"networks": {"a": linear()}}, "expected a NoisyNetwork, or a list of them, as 'a', got Sequential"),
        ({"networks": {}}, "expected as many networks, one a training seed, of every noise, got none"),
        ({"networks": {"a": []}}, "expected as many networks, one a training seed, of every noise, got {'a': 0}"),
        (
            {"networks": {"a": network(linear()), "b": [network(linear())] * 2}},
            "expected as many networks, one a training seed, of every noise, got {'a': 1, 'b': 2}",
        ),
        (
            {"networks": {"a": [network(linear()), network(linear(), {"2": Diagonal.isotropic(3)})]}},
            "expected the noise 'a' at the same layers for every training seed, got others",
        ),
        (
            {"networks": {"a": network(linear()), "b": network(linear(classes=4))}},
            r"expected networks with the same classes, got \[3, 4\] classes",
        ),
    ],
)
def test_bad_options_and_networks_are_named(options: dict, match: str) -> None:
    images, labels = data()
    with pytest.raises(ValueError, match=match):
        evaluate(**{"networks": network(linear()), "images": images, "labels": labels, "seeds": [0]} | options)


def test_a_network_that_was_switched_to_training_is_named() -> None:
    images, labels = data()
    switched = network(linear())
    switched.model.train()
    with pytest.raises(ValueError, match=r"none, training seed 0: .* in training mode; call model\.eval"):
        evaluate(switched, images, labels, seeds=[0])


def test_the_checklist_has_what_the_protocol_asks_for() -> None:
    conditions = checklist([0.05, 0.1])
    at = [one for one in conditions if one.epsilon == 0.05]
    apgd = {(one.loss, one.n_draws) for one in at if one.name == "apgd"}
    assert apgd == {(loss, k) for loss in ("cross_entropy", "dlr") for k in (1, 5, 20, 50)}
    pgd = [one for one in at if one.name == "pgd"]
    assert {one.n_steps for one in pgd if one.follows == "averaged"} == {40, 200}
    assert all(one.step == 0.0125 and one.n_restarts == 5 for one in pgd)
    assert {one.follows for one in pgd} == {"averaged", "off", "fixed", "mean_logits", "twin", "independent"}
    assert {one.name for one in at} == {"apgd", "pgd", "square", "fgm", "random_search"}
    (square,) = (one for one in at if one.name == "square")
    assert (square.n_queries, square.n_draws, square.takes_gradients) == (5000, 5, False)
    assert [one.epsilon for one in conditions if one.epsilon > 0.1] == [0.2, 0.4, 0.8, 1.0]
    assert [one.epsilon for one in checklist([1.0], norm="l2") if one.epsilon > 1] == [2, 4, 8, 16, 32]
    assert len({one.label for one in conditions}) == len(conditions)


@pytest.mark.parametrize(
    ("epsilons", "options", "match"),
    [
        ([], {}, r"expected at least one epsilon, all above 0, got \[\]"),
        ([0.1, 0.0], {}, r"expected at least one epsilon, all above 0, got \[0.1, 0.0\]"),
        ([0.1], {"n_draws": ()}, r"expected numbers of draws and of steps, got \[\] and \[40, 200\]"),
        ([0.1], {"n_steps": ()}, r"expected numbers of draws and of steps, got \[1, 5, 20, 50\] and \[\]"),
    ],
)
def test_an_empty_checklist_is_refused(epsilons: Sequence[float], options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        checklist(epsilons, **options)


@pytest.mark.gpu
def test_on_a_gpu_the_images_and_the_correctness_are_the_same() -> None:
    images, labels = data()
    options = {"seeds": [0], "conditions": [GaussianNoise(3), SHORT]}
    on_cpu, on_gpu = (evaluated(model, images, labels, **options) for model in (linear(), linear().cuda()))
    assert (on_cpu["correct"] == on_gpu["correct"]).mean() > 0.95
    noisy = evaluated(linear().cuda(), images, labels, noises={"": {"2": Diagonal.isotropic(3)}}, **options)
    assert noisy["ran"].all()


def test_the_twin_is_the_network_called_none_and_no_other_defence() -> None:
    models = {name: linear(seed) for seed, name in enumerate(("train_only", "none", "full"))}
    noise = {"2": Diagonal.isotropic(3)}
    networks = {name: [network(model, noise if name == "full" else {})] for name, model in models.items()}
    assert followed(networks, None)["twin"] == networks["none"]
    none = networks.pop("none")
    assert followed(networks, None)["twin"] == networks["train_only"]
    networks["adversarial"] = none
    assert followed(networks, None)["twin"] == [None]
