"""What a noisy network is compared with: made as it says, and matched as it says."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trained import generator, same, state

from neurovar.covariance import Dense, Diagonal, MeanShift
from neurovar.networks import Control, adversarial_train, gaussian_train, reinitialised, retrain, train
from neurovar.noise import CONTROLS, with_controls
from neurovar.robustness import FGM, PGD, Baselines, CleanAccuracy, Selection, Training, with_baselines
from neurovar.robustness.baselines._baselines import DESCRIPTIONS
from neurovar.robustness.baselines._matching import clean_accuracy

OPTIONS = {"n_epochs": 3, "batch_size": 50, "learning_rate": 0.02}
SHARED = torch.eye(8) + torch.outer(torch.arange(8.0), torch.arange(8.0)) / 8


def pixels(n: int = 300, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes of 1 × 2 × 3 images: the pixel of the class is bright."""
    torch_rng = generator(seed)
    labels = torch.randint(3, (n,), generator=torch_rng)
    images = 0.4 * torch.rand(n, 1, 2, 3, generator=torch_rng)
    images.view(n, 6)[torch.arange(n), labels] += 0.4
    return images, labels


def network(rng: int = 0) -> nn.Sequential:
    layers = OrderedDict(flat=nn.Flatten(), hidden=nn.Linear(6, 8), active=nn.Tanh(), out=nn.Linear(8, 3))
    model = nn.Sequential(OrderedDict(start=nn.Identity(), **layers))
    return reinitialised(model, layer="start", rng=rng)


IMAGES, LABELS = pixels()
BASE = train(network(), IMAGES, LABELS, n_epochs=10, learning_rate=0.02, generator=generator()).eval()
NOISE = Dense(SHARED).scale_to(trace=1.0)
ATTACK = FGM(0.1)
ORIGIN = PGD(0.1).origin
OF_SELECTION = ("only", "mean_shift", "sigma", "attack", "ratio")


def baselines(**changes: object) -> Baselines:
    selection = Selection(**{name: changes.pop(name) for name in OF_SELECTION if name in changes})
    training = Training(seed=4, **OPTIONS | {"n_epochs": changes.pop("n_epochs", OPTIONS["n_epochs"])})
    given = {"layer": "active", "noise": NOISE, "origin": ORIGIN, "training": training, "selection": selection}
    return with_baselines(BASE, IMAGES, LABELS, **given | changes)


@pytest.fixture(scope="module")
def everything() -> Baselines:
    return baselines(mean_shift=torch.arange(8.0), sigma=0.2, attack=ATTACK, ratio=0.5)


def retrained(noise: Dense | Diagonal | None) -> nn.Sequential:
    return retrain(BASE, IMAGES, LABELS, layer="active", noise=noise, generator=generator(4), **OPTIONS)


def test_all_are_there_or_left_out_with_the_reason(everything: Baselines) -> None:
    absent = ("signal_aligned", "signal_orthogonal", "flat_spectrum")
    assert list(everything) == [name for name in DESCRIPTIONS if name not in absent]
    assert everything.left_out == dict.fromkeys(
        ("signal_aligned", "signal_orthogonal"), "needs target= and n_dims="
    ) | {"flat_spectrum": "is isotropic for noise of full rank"}
    assert set(CONTROLS) < set(DESCRIPTIONS)
    less = baselines()
    assert less.left_out == everything.left_out | {
        "mean_shift": "needs mean_shift=",
        "input_gaussian": "needs sigma=",
        "gaussian_augmentation": "needs sigma=",
        "adversarial": "needs attack= and ratio=",
    }
    assert list(less) == [name for name in DESCRIPTIONS if name not in less.left_out]


def test_noise_at_training_only_and_at_test_only_are_halves_of_full_and_none(everything: Baselines) -> None:
    assert same(state(everything["full"].model), state(retrained(NOISE)))
    assert same(state(everything["none"].model), state(retrained(None)))
    assert not same(state(everything["full"].model), state(everything["none"].model), "out")
    assert everything["train_only"].model is everything["full"].model
    assert everything["test_only"].model is everything["none"].model
    carried = {name: list(everything[name].noises) for name in ("full", "none", "train_only", "test_only")}
    assert carried == {"full": ["active"], "none": [], "train_only": [], "test_only": ["active"]}
    assert everything["full"].noises["active"] is NOISE
    assert everything["test_only"].noises["active"] is NOISE


def test_controls_are_those_of_transplant_at_the_trace_of_the_noise(everything: Baselines) -> None:
    controls = with_controls(NOISE, rng=4, mean_shift=torch.arange(8.0))
    for name in ("diagonal", "isotropic", "rotated", "shuffled_spectrum", "mean_shift"):
        carried = everything[name].noises["active"]
        torch.testing.assert_close(carried.to_dense(), controls[name].to_dense())
        assert carried.trace() == pytest.approx(1.0, rel=1e-5)
        assert same(state(everything[name].model), state(retrained(controls[name])))
    assert isinstance(everything["mean_shift"].noises["active"], MeanShift)


def test_what_is_trained_anew_is_trained_with_what_it_says(everything: Baselines) -> None:
    with_input = nn.Sequential(OrderedDict([("input", nn.Identity()), *BASE.named_children()])).eval()
    noise = Diagonal.isotropic(6, variance=0.2**2)
    same_options = {"generator": generator(4), **OPTIONS}
    expected = retrain(with_input, IMAGES, LABELS, layer="input", noise=noise, **same_options)
    gaussian = everything["input_gaussian"]
    assert same(state(gaussian.model), state(expected))
    torch.testing.assert_close(gaussian.noises["input"].to_dense(), noise.to_dense())
    fresh = reinitialised(with_input, layer="input", rng=4)
    augmented = gaussian_train(fresh, IMAGES, LABELS, sigma=0.2, generator=generator(4), **OPTIONS)
    attacked = adversarial_train(fresh, IMAGES, LABELS, attack=ATTACK, ratio=0.5, generator=generator(4), **OPTIONS)
    for name, model in {"gaussian_augmentation": augmented, "adversarial": attacked}.items():
        assert same(state(everything[name].model), state(model))
        assert everything[name].noises == {}
        assert not torch.equal(everything[name].model.hidden.weight, BASE.hidden.weight)


def test_every_network_says_what_it_is(everything: Baselines) -> None:
    about = everything.about
    assert about["noise"].values.tolist() == list(everything)
    for name, network in everything.items():
        row = about.sel(noise=name)
        assert str(row["description"].item()) == DESCRIPTIONS[name]
        assert float(row["trace"]) == pytest.approx(sum(noise.trace() for noise in network.noises.values()))
        if name in ("full", "none"):
            assert network.control is None
        else:
            assert network.control == Control(name, of="full", matched_by=str(row["matched_by"].item()))
        assert not network.model.training
    text = {key: dict(zip(about["noise"].values, about[key].values)) for key in ("layer", "amount_of", "matched_by")}
    assert text["layer"] == dict.fromkeys(everything, "active") | {
        "none": "",
        "input_gaussian": "input",
        "gaussian_augmentation": "",
        "adversarial": "",
    }
    unmatched = ("none", "input_gaussian", "gaussian_augmentation", "adversarial")
    assert text["matched_by"] == dict.fromkeys(everything, "trace") | dict.fromkeys(unmatched, "")
    assert text["amount_of"] == dict.fromkeys(everything, "trace") | {
        "none": "",
        "input_gaussian": "sigma",
        "gaussian_augmentation": "sigma",
        "adversarial": "ratio",
    }
    amounts = dict(zip(about["noise"].values, about["amount"].values))
    assert np.isnan(amounts["none"])
    assert (amounts["input_gaussian"], amounts["adversarial"]) == (0.2, 0.5)
    assert amounts["rotated"] == pytest.approx(1.0)
    assert everything["full"].origin == everything["rotated"].origin == everything["train_only"].origin == ORIGIN
    assert everything["none"].origin is None
    assert str(everything["input_gaussian"].origin) == "Origin(method='gaussian', of='σ=0.2 at the input')"
    assert about["clean_accuracy"].isnull().all()
    assert not about["n_evaluations"].any()


def test_only_what_is_asked_for_is_made() -> None:
    some = baselines(only=["rotated", "train_only"], sigma=0.2)
    assert list(some) == ["full", "train_only", "rotated"]
    assert some.left_out["none"] == some.left_out["input_gaussian"] == "not asked for"
    assert some.left_out["mean_shift"] == "needs mean_shift="


def test_clean_accuracy_is_matched_to_that_of_full() -> None:
    images, labels = pixels(1000, seed=1)
    match = CleanAccuracy(images, labels, tolerance=0.03, factor=100.0, n_draws=1, max_evaluations=10)
    noise = NOISE.scale_to(trace=8.0)
    names = ["none", "train_only", "test_only", "isotropic", "input_gaussian", "adversarial"]
    given = {"noise": noise, "sigma": 0.2, "attack": ATTACK, "ratio": 0.5, "only": names, "match": match}
    matched = baselines(**given)
    assert list(matched) == ["full", *names]
    options = {"n_draws": 1, "generator": generator(4)}
    wanted = clean_accuracy(matched["full"], images, labels, **options)
    about = matched.about
    assert float(about["clean_accuracy"].sel(noise="full")) == wanted
    assert about["matched_by"].sel(noise=["full", "none"]).values.tolist() == ["clean_accuracy", ""]
    for name in ("test_only", "isotropic", "input_gaussian"):
        row = about.sel(noise=name)
        assert bool(row["reached"])
        assert matched[name].control.matched_by == "clean_accuracy"
        assert abs(float(row["clean_accuracy"]) - wanted) <= 0.03
        fresh = clean_accuracy(matched[name], *pixels(1000, seed=2), n_draws=1, generator=generator(9))
        assert abs(fresh - wanted) < 0.03 + 4 * 0.02
        assert 1 <= int(row["n_evaluations"]) <= 10
        amount = float(row["amount"])
        trace = float(row["trace"])
        assert trace == pytest.approx(6 * amount**2 if name == "input_gaussian" else amount, rel=1e-5)
    row = about.sel(noise="adversarial")  # it costs less than the noise, at any ratio
    assert not bool(row["reached"])
    assert matched["adversarial"].control.matched_by == ""
    assert str(row["message"].item()).startswith("not reached")
    assert abs(float(row["clean_accuracy"]) - wanted) > 0.03
    assert 0 < float(row["amount"]) <= 1
    assert matched["train_only"].noises == {}


def test_worker_processes_give_the_same_networks(everything: Baselines) -> None:
    names = ["rotated", "adversarial"]
    together = baselines(sigma=0.2, attack=ATTACK, ratio=0.5, only=names, n_jobs=2)
    for name in ("full", *names):
        assert same(state(together[name].model), state(everything[name].model))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"only": ["rotated", "turned"]}, r"expected names of baselines \(full, none, .*got \['rotated', 'turned'\]"),
        ({"only": "rotated"}, "expected names of baselines .*got 'rotated'"),
        ({"only": ["mean_shift"]}, "'mean_shift' needs, got none: it needs mean_shift="),
        ({"only": ["adversarial"]}, "'adversarial' needs, got none: it needs attack= and ratio="),
        ({"attack": ATTACK}, "expected attack and ratio together"),
        ({"ratio": 0.5}, "expected attack and ratio together, got None and 0.5"),
        ({"attack": ATTACK, "ratio": 2.0, "only": ["adversarial"]}, r"expected a ratio in \(0, 1\], got 2.0"),
        ({"sigma": -0.1, "only": ["gaussian_augmentation"]}, "expected a finite sigma above 0, got -0.1"),
        ({"sigma": -0.1, "only": ["input_gaussian"]}, "expected a finite sigma above 0, got -0.1"),
        ({"layer": "active2"}, "expected a layer of Sequential, got 'active2'; near it: active"),
        ({"noise": Diagonal.isotropic(5)}, "expected a covariance over the 8 units of layer 'active', got 5"),
    ],
)
def test_bad_input_is_named(changes: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        baselines(**({"n_epochs": 1, "only": ["none"]} | changes))


def test_a_base_with_an_input_of_its_own_is_refused() -> None:
    base = nn.Sequential(OrderedDict([("input", nn.Identity()), *BASE.named_children()]))
    with pytest.raises(ValueError, match="expected a base without a layer 'input'"):
        with_baselines(base, IMAGES, LABELS, layer="active", noise=NOISE, training=Training(n_epochs=1, seed=0))


@pytest.mark.parametrize("factor", [1.0, float("inf")])
def test_a_factor_that_is_none_is_named(factor: float) -> None:
    with pytest.raises(ValueError, match=f"expected a finite factor above 1, got {factor}"):
        CleanAccuracy(IMAGES, LABELS, tolerance=0.03, factor=factor, n_draws=1, max_evaluations=10)
