"""Each honesty check both ways, on results with accuracies to order; the verdict; bad input."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr
from evaluated import EPSILON, TRACE, believable, result, with_controls
from torch import Tensor, nn

from neurovar.networks import NoisyNetwork
from neurovar.robustness import FGM, PGD, RandomSearch, Square, checklist, evaluate, honesty, summarise, worst_case

FULL = "full"


def honest(changed: Callable[[dict], float | None] = lambda condition: None, **options: object) -> xr.Dataset:
    """The checks of a noisy network that is believable but for the conditions whose accuracy is changed."""

    def accuracy(condition: dict) -> float:
        other = changed(condition)
        return believable(condition) if other is None else other

    return honesty(result({FULL: accuracy}, **options))


def when(accuracy: float, **what: object) -> Callable[[dict], float | None]:
    return lambda one: accuracy if all(one[name] == value for name, value in what.items()) else None


def status(found: xr.Dataset, check: str) -> str:
    return str(found["status"].sel(check=check).item())


@pytest.fixture(scope="module")
def everything() -> xr.Dataset:
    return with_controls()


def test_an_evaluation_with_everything_in_order_passes_every_check(everything: xr.Dataset) -> None:
    found = honesty(everything)
    assert dict(found["status"].to_series()) == dict.fromkeys(found["check"].values, "pass")
    assert found.attrs["verdict"].startswith(f"all {found.sizes['check']} checks passed at ε=0.1, l2 ε=1")
    assert sorted(set(found["item"].values)) == list(range(1, 9))
    of_none = found["status_by_noise"].sel(noise="none").to_series()
    assert of_none["enough draws a gradient"] == "not applicable"
    assert of_none["enough steps and restarts"] == "pass"
    assert found["message_by_noise"].sel(noise=FULL, check="Square").item() == "ε=0.1: 5000 queries"


FAILING = {
    "enough draws a gradient": when(0.33, modification="apgd", loss="dlr", n_draws=50.0),
    "enough steps and restarts": when(0.33, modification="pgd", n_steps=200.0),
    "gradients with the noise off": when(0.33, gradient="off"),
    "gradients with one fixed draw": when(0.33, gradient="fixed"),
    "gradients of mean logits": when(0.33, gradient="mean_logits"),
    "accuracy reaches 0 as ε grows": lambda one: 0.1 if one["kind"] == "attack" and one["strength"] > EPSILON else None,
    "iterative attacks beat one step": when(0.33, modification="fgm"),
    "random search does not beat gradients": when(0.33, modification="random_search"),
    "clean images are classified": when(0.12, kind="clean"),
}


@pytest.mark.parametrize("check", FAILING)
def test_a_check_fails_alone_where_the_accuracies_contradict_it(check: str) -> None:
    found, before = honest(FAILING[check]), honest()
    assert status(before, check) == "pass"
    assert status(found, check) == "fail"
    changed = found["status"].values != before["status"].values
    assert found["check"].values[changed].tolist() == [check]
    assert found.attrs["verdict"].startswith("withheld: ")
    assert "1 checks failed" in found.attrs["verdict"]
    assert check in found.attrs["verdict"]
    assert found["message"].sel(check=check).item().startswith("full: ")


@pytest.mark.parametrize("gradient", ["none", "twin", "independent"])
def test_white_box_has_to_beat_each_black_box(gradient: str) -> None:
    black = when(0.33, gradient=gradient, modification="square" if gradient == "none" else "pgd")
    assert status(honest(), "white-box beats black-box") == "pass"
    assert status(honest(black), "white-box beats black-box") == "fail"


def test_what_is_only_even_is_not_beaten_unless_nothing_is_left() -> None:
    for check, modification in (
        ("white-box beats black-box", {"modification": "square"}),
        ("iterative attacks beat one step", {"modification": "fgm"}),
    ):
        even = honest(when(0.4, **modification))
        assert status(even, check) == "not run"
        assert "at no ε clearly stronger" in even["message"].sel(check=check).item()
        nothing = honest(lambda one: 0.0 if one["kind"] == "attack" else None)
        assert status(nothing, check) == "pass"


def test_stronger_gradients_without_the_noise_count_in_the_worst_case() -> None:
    accuracies = {FULL: lambda one: 0.2 if one["gradient"] == "off" else believable(one)}
    evaluated = result(accuracies, attacks=checklist([EPSILON]))
    said = honesty(evaluated)["message"].sel(check="gradients with the noise off").item()
    assert said.startswith("full: ε=0.1: pgd ce ε=0.1 K=1 steps=40 restarts=5 step=0.025 off leaves less right than ")
    assert said.endswith("; the worst case counts it")
    worst = summarise(worst_case(evaluated)).sel(noise=FULL, condition="worst case ε=0.1", measure="expected")
    assert worst["accuracy"].item() == pytest.approx(0.2)


def test_a_small_fall_or_too_few_images_are_no_proof_either_way() -> None:
    falls = when(0.37, modification="apgd", loss="dlr", n_draws=50.0)
    assert status(honest(falls, n_stimuli=600), "enough draws a gradient") == "fail"
    assert status(honest(falls, n_stimuli=40), "enough draws a gradient") == "not run"
    few = honest(n_stimuli=40)
    assert status(few, "enough draws a gradient") == "not run"
    assert few["message"].sel(check="enough draws a gradient").item().endswith("too few images or seeds to tell")
    slightly = when(0.39, modification="apgd", loss="dlr", n_draws=50.0)
    assert status(honest(slightly, n_stimuli=4000), "enough draws a gradient") == "pass"


@pytest.mark.parametrize(
    ("change", "check", "expected"),
    [
        ({"n_draws": (1, 5, 20)}, "enough draws a gradient", "fail"),
        ({"apgd_steps": 50}, "enough draws a gradient", "fail"),
        ({"n_steps": (20, 40)}, "enough steps and restarts", "fail"),
        ({"n_restarts": 4}, "enough steps and restarts", "fail"),
        ({"n_restarts": 4}, "enough draws a gradient", "fail"),
        ({"n_steps": (20, 200)}, "gradients with the noise off", "fail"),
        ({"n_steps": (20, 200)}, "gradients with one fixed draw", "fail"),
        ({"n_steps": (20, 200)}, "gradients of mean logits", "fail"),
        ({"n_steps": (20, 200)}, "transfer from a noise-free twin", "fail"),
        ({"n_steps": (20, 200)}, "transfer from an independent network", "fail"),
        ({"n_queries": 4999}, "Square", "fail"),
    ],
)
def test_a_quick_look_never_passes(change: dict, check: str, expected: str) -> None:
    assert status(honest(attacks=checklist([EPSILON])), check) == "pass"
    assert status(honest(attacks=checklist([EPSILON], **change)), check) == expected


@pytest.mark.parametrize(
    ("check", "dropped"),
    [
        ("enough draws a gradient", {"modification": "apgd", "loss": "dlr"}),
        ("enough draws a gradient", {"modification": "apgd", "loss": "cross_entropy"}),
        ("enough steps and restarts", {"modification": "pgd", "gradient": "averaged"}),
        ("gradients with the noise off", {"gradient": "off"}),
        ("gradients with one fixed draw", {"gradient": "fixed"}),
        ("gradients of mean logits", {"gradient": "mean_logits"}),
        ("Square", {"modification": "square"}),
        ("transfer from a noise-free twin", {"gradient": "twin"}),
        ("transfer from an independent network", {"gradient": "independent"}),
        ("iterative attacks beat one step", {"modification": "fgm"}),
        ("random search does not beat gradients", {"modification": "random_search"}),
        ("clean images are classified", {"kind": "clean"}),
    ],
)
def test_what_is_left_out_was_not_run(check: str, dropped: dict) -> None:
    evaluated = result({FULL: believable}, attacks=checklist([EPSILON]))
    keep = ~np.logical_and.reduce([evaluated[name].values == value for name, value in dropped.items()])
    found = honesty(evaluated.isel(condition=keep))
    assert status(found, check) == "not run"
    assert check in found.attrs["verdict"].split("not run")[1]


def test_an_attack_that_could_not_be_run_is_none() -> None:
    evaluated = result({FULL: believable}, attacks=checklist([EPSILON]))
    ran = evaluated["ran"] & (evaluated["modification"] != "square")
    for name in ("correct", "survived"):
        evaluated[name] = evaluated[name] & ran
    evaluated["hits"] = evaluated["hits"] * ran
    found = honesty(evaluated.assign(ran=ran))
    assert status(found, "Square") == "not run"
    assert status(found, "all attacks ran") == "not run"
    assert "square ε=0.1" in found["message"].sel(check="all attacks ran").item()
    assert status(honesty(evaluated), "all attacks ran") == "pass"


def test_square_on_single_draws_is_not_on_the_expected_loss() -> None:
    for k, expected in ((1, "not run"), (2, "pass")):
        attacks = [Square(EPSILON, n_draws=k, n_queries=5000)]
        assert status(honest(attacks=attacks), "Square") == expected
        assert status(honesty(result({"none": believable}, attacks=attacks)), "Square") == "pass"


def test_without_a_larger_epsilon_it_is_not_known_where_accuracy_ends() -> None:
    short = [one for one in checklist([EPSILON]) if one.epsilon == EPSILON]
    check = "accuracy reaches 0 as ε grows"
    assert status(honest(attacks=short), check) == "not run"
    assert status(honest(when(0.0, kind="attack"), attacks=short), check) == "pass"
    assert status(honest(when(0.1, strength=1.0)), check) == "pass"  # it was 0 at 0.2, which is within 1


@pytest.mark.parametrize(
    ("variable", "check", "passing", "failing"),
    [
        ("gradient_snr", "signal-to-noise ratio of gradients", 0.02, 0.0199),
        ("zero_gradients", "gradients are not zero", 0.02, 0.021),
    ],
)
def test_gradients_are_judged_by_their_worst_seed(variable: str, check: str, passing: float, failing: float) -> None:
    evaluated = result({FULL: believable}, attacks=checklist([EPSILON]))
    for value, expected in ((passing, "pass"), (failing, "fail"), (np.nan, "not run")):
        evaluated[variable][0, 1, 1] = value
        assert status(honesty(evaluated), check) == expected
    assert status(honesty(evaluated.drop_vars(variable)), check) == "not run"


@pytest.mark.parametrize(
    ("options", "check"),
    [
        ({"k": (1, 10)}, "predictions from 1, 10 and 100 draws"),
        ({"k": (10, 100)}, "predictions from 1, 10 and 100 draws"),
        ({"n_seeds": 1}, "training seeds"),
        ({"n_draw_seeds": 1}, "noise seeds"),
    ],
)
def test_predictions_and_seeds_have_to_be_enough(options: dict, check: str) -> None:
    assert status(honest(attacks=checklist([EPSILON])), check) == "pass"
    assert status(honest(attacks=checklist([EPSILON]), **options), check) == "fail"


def test_one_kind_of_attack_is_no_worst_case() -> None:
    several = [PGD(EPSILON), FGM(EPSILON)]
    assert status(honest(attacks=several), "worst case over attacks") == "pass"
    assert status(honest(attacks=several[:1]), "worst case over attacks") == "not run"


@pytest.mark.parametrize("matched_by", ["trace", "clean_accuracy"])
def test_every_control_has_to_be_there_and_matched(everything: xr.Dataset, matched_by: str) -> None:
    check = f"controls at matched {matched_by.replace('_', ' ')}"
    few = everything.isel(stimulus=slice(None, None, 4), condition=everything["kind"].values != "attack")
    assert status(honesty(few), check) == "pass"
    for name in few["noise"].values[few["matched_by"].values == matched_by]:
        found = honesty(few.sel(noise=few["noise"].values != name))
        assert status(found, check) == "not run"
        assert found["message"].sel(check=check).item() == f"without {name.split(' ')[0]}"
    assert status(honesty(few.drop_vars("matched_by")), check) == "not run"
    assert status(honesty(few.sel(noise=few["noise"] != FULL)), check) == "not run"


def test_a_trace_that_is_off_is_no_match(everything: xr.Dataset) -> None:
    trace = everything["trace"].copy()
    trace.loc["rotated (trace)"] = 1.02 * TRACE
    found = honesty(everything.assign_coords(trace=trace).isel(condition=[0]))
    assert status(found, "controls at matched trace") == "fail"
    assert status(found, "controls at matched clean accuracy") == "pass"
    assert "rotated (trace): trace off by 2.00%" in found["message"].sel(check="controls at matched trace").item()


def test_a_clean_accuracy_that_is_off_is_no_match(everything: xr.Dataset) -> None:
    lower = everything["correct"].copy()
    lower.loc[{"noise": "adversarial (accuracy)", "condition": "clean"}] &= everything["stimulus"] < 510
    found = honesty(everything.assign(correct=lower).isel(condition=[0]))
    assert status(found, "controls at matched clean accuracy") == "fail"
    said = found["message"].sel(check="controls at matched clean accuracy").item()
    assert said.startswith("adversarial (accuracy): accuracy on clean images below that of full by: +0.050 [")
    higher = everything["correct"].copy()
    higher.loc[{"noise": "adversarial (accuracy)", "condition": "clean"}] = True
    above = honesty(everything.assign(correct=higher).isel(condition=[0]))
    assert status(above, "controls at matched clean accuracy") == "fail"
    assert status(found, "controls at matched trace") == "pass"


def test_no_name_makes_a_noise_a_control(everything: xr.Dataset) -> None:
    """What a user calls my_rotated_thing is a noise under test, and a control may have any name."""
    check = "controls at matched trace"
    few = everything.isel(condition=[0])
    names = {"full": "my_rotated_thing", "rotated (trace)": "something else"}
    renamed = few.assign_coords(noise=[names.get(str(name), str(name)) for name in few["noise"].values])
    assert status(honesty(renamed), check) == "pass"
    unknown = few.assign_coords(control=few["control"].where(few["noise"] != "rotated (trace)", ""))
    assert honesty(unknown)["message"].sel(check=check).item() == "without rotated"


def test_a_control_is_compared_with_the_noise_that_it_is_of(everything: xr.Dataset) -> None:
    check = "controls at matched trace"
    both = xr.concat([everything.isel(condition=[0]), everything.isel(condition=[0]).sel(noise=[FULL])], "noise")
    names = [*everything["noise"].values.tolist(), "other"]
    trace = [TRACE if np.isfinite(value) else value for value in everything["trace"].values] + [2 * TRACE]
    both = both.assign_coords(noise=names, trace=("noise", trace))
    assert status(honesty(both), check) == "pass"
    of_other = both.assign_coords(
        control_of=("noise", ["other" if name == "rotated (trace)" else "" for name in names])
    )
    found = honesty(of_other)
    assert status(found, check) == "fail"
    assert "rotated (trace): trace off by 50.00%" in found["message"].sel(check=check).item()


@pytest.mark.parametrize(
    ("origin", "expected", "message"),
    [
        (("attacked", "pgd", 0.1, "linf"), "pass", "tests with another of each"),
        (("attacked", "APGD", 1.0, "l2"), "pass", "tests with another of each"),
        (("modified", "motion_blur", np.nan, ""), "pass", "made from motion_blur, which is no attack"),
        (("", "", np.nan, ""), "not run", "not known"),
    ],
)
def test_tests_have_to_differ_from_what_the_noise_was_made_from(origin: tuple, expected: str, message: str) -> None:
    names = ("origin", "origin_of", "origin_epsilon", "origin_norm")
    coords = {name: ("noise", [value]) for name, value in zip(names, origin)}
    evaluated = result({FULL: believable}).assign_coords(coords)
    found = honesty(evaluated)
    assert status(found, "source and test differ") == expected
    assert message in found["message"].sel(check="source and test differ").item()
    assert status(honesty(evaluated.drop_vars(list(names))), "source and test differ") == "not run"


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({"norm": "linf"}, "no test with another norm"),
        ({"modification": "pgd"}, "no test with another attack"),
        ({"strength": 0.1}, "no test with another ε"),
    ],
)
def test_a_test_like_the_source_fails(kept: dict, said: str) -> None:
    evaluated = result({FULL: believable})
    ((name, value),) = kept.items()
    found = honesty(evaluated.isel(condition=evaluated[name].values == value))
    assert status(found, "source and test differ") == "fail"
    assert said in found["message"].sel(check="source and test differ").item()


def test_noise_checks_mean_nothing_without_noise() -> None:
    found = honesty(result({"none": believable}, attacks=checklist([EPSILON])))
    assert status(found, "gradients with the noise off") == "not run"
    assert found["message"].sel(check="gradients with the noise off").item() == "no noisy network"


def test_the_worst_noise_decides() -> None:
    weak = {"weak": lambda one: 0.2 if one["modification"] == "square" else believable(one), FULL: believable}
    found = honesty(result(weak, attacks=checklist([EPSILON])))
    check = "white-box beats black-box"
    assert status(found, check) == "fail"
    assert found["message"].sel(check=check).item().startswith("weak: ε=0.1: square ε=0.1")
    assert found["status_by_noise"].sel(check=check).values.tolist() == ["fail", "pass"]


def test_without_attacks_nothing_is_known() -> None:
    found = honesty(result({FULL: believable}, attacks=[]))
    assert found.attrs["verdict"].startswith("withheld")
    assert "at no ε" in found.attrs["verdict"]
    assert status(found, "Square") == "not run"


def test_every_summary_carries_the_verdict(everything: xr.Dataset) -> None:
    evaluated = result({FULL: believable}, attacks=checklist([EPSILON], n_draws=[1]))
    verdict = honesty(evaluated).attrs["verdict"]
    assert verdict.startswith("withheld")
    assert summarise(evaluated).attrs["verdict"] == verdict
    assert worst_case(evaluated).attrs["verdict"] == verdict
    assert summarise(worst_case(evaluated)).attrs["verdict"] == verdict


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r.drop_vars("hits"), "expected what evaluate returns, with correct, hits.*, got no hits"),
        (lambda r: r.drop_vars("noisy"), "expected what evaluate returns, with a coordinate noisy, got"),
        (lambda r: r.isel(seed=0), "expected correct over noise, seed, .*, got noise, draw_seed"),
        (lambda r: r.assign(correct=r["correct"] * 1.0), "expected correct as bool, got float64"),
        (lambda r: r.assign(hits=r["hits"] * 1.0), "expected hits as integers, got float64"),
        (lambda r: r.isel(noise=[0, 0]), "expected noises of different names, got full, full"),
    ],
)
def test_what_is_no_result_is_refused(change: Callable, match: str) -> None:
    evaluated = result({FULL: believable}, n_stimuli=5, attacks=[PGD(EPSILON)])
    with pytest.raises(ValueError, match=match):
        honesty(change(evaluated))


class Backwards(nn.Module):
    """The identity, with gradients of the wrong sign."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.detach() - x


@pytest.mark.parametrize("masked", [False, True])
def test_masked_gradients_are_caught(masked: bool) -> None:
    """A linear network, whose accuracy at ε is known, and the same one behind a layer that turns gradients around."""
    linear = nn.Linear(16, 2)
    linear.weight.data = torch.stack([torch.linspace(-1, 1, 16), torch.linspace(1, -1, 16)])
    linear.bias.data.zero_()
    model = nn.Sequential(Backwards() if masked else nn.Identity(), nn.Flatten(), linear).eval()
    images = xr.DataArray(
        0.3 + 0.4 * np.random.default_rng(0).random((300, 1, 4, 4), dtype=np.float32),
        dims=("stimulus", "channel", "row", "column"),
    )
    with torch.no_grad():
        labels = images[:, 0, 0, 0].copy(data=model(torch.tensor(images.values)).argmax(1).numpy())
    pgd = {"n_steps": 40, "n_restarts": 5}
    attacks = [
        PGD(0.02, **pgd),
        Square(0.02, n_queries=100),
        FGM(0.02),
        RandomSearch(0.02, n_queries=50),
        PGD(1.0, n_steps=10, n_restarts=1),
    ]
    network = NoisyNetwork(model, images=torch.tensor(images.values[:1]))
    result = evaluate(network, images, labels, seeds=[0, 1], conditions=attacks, draws=[1])
    found = honesty(result.isel(condition=slice(-1)))
    for check in ("white-box beats black-box", "random search does not beat gradients"):
        assert status(found, check) == ("fail" if masked else "pass")
    zero = "accuracy reaches 0 as ε grows"
    assert status(honesty(result.isel(condition=[0, -1])), zero) == ("fail" if masked else "pass")
    assert found.attrs["verdict"].startswith("withheld")


def test_a_network_that_cannot_be_attacked_is_not_called_robust() -> None:
    images = xr.DataArray(np.full((20, 1, 2, 2), 0.5, np.float32), dims=("stimulus", "channel", "row", "column"))
    labels = images[:, 0, 0, 0].astype(int) * 0
    linear = nn.Linear(4, 2)
    linear.weight.data, linear.bias.data = torch.tensor([[1.0] * 4, [0.0] * 4]), torch.zeros(2)
    model = nn.Sequential(Rounds(), nn.Flatten(), linear).eval()
    network = NoisyNetwork(model, images=torch.full((1, 1, 2, 2), 0.5))
    result = evaluate(network, images + 0.1, labels, seeds=[0], conditions=[PGD(0.1)], draws=[1])
    found = honesty(result)
    assert status(found, "all attacks ran") == "not run"
    assert status(found, "gradients are not zero") == "fail"
    assert found.attrs["verdict"].startswith("withheld")
    assert summarise(result)["accuracy"].isel(condition=1).isnull().all()


class Rounds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.round()
