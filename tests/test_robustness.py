"""Correctness against predictions worked out by hand; intervals against a bootstrap in loops and known cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from neurovar import robustness
from neurovar.covariance import Diagonal
from neurovar.modifications import modify
from neurovar.robustness import PGD, Clean, Modified, NoisyNetwork, differences, evaluate, summarise

IMAGE_DIMS = ("stimulus", "channel", "row", "column")
SIZE = 4


def data(n: int = 40, seed: int = 0, *, named: bool = True) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    coords = {"stimulus": [f"image{i}" for i in range(n)]} if named else {}
    images = xr.DataArray(rng.random((n, 1, SIZE, SIZE), dtype=np.float32), dims=IMAGE_DIMS, coords=coords)
    return images, xr.DataArray(rng.integers(0, 3, n), dims="stimulus", coords=coords)


def linear(seed: int = 0, classes: int = 3) -> nn.Sequential:
    model = nn.Sequential(Seeing(), nn.Flatten(), nn.Linear(SIZE**2, classes))
    weight = np.random.default_rng(seed).standard_normal((classes, SIZE**2))
    model[2].weight.data = torch.tensor(weight, dtype=torch.float32)
    model[2].bias.data.zero_()
    return model.eval()


def by_hand(model: nn.Sequential, images: np.ndarray, labels: np.ndarray) -> list[bool]:
    weight = model[2].weight.detach().double().numpy()
    return [int(np.argmax(weight @ image.ravel())) == label for image, label in zip(images.astype(float), labels)]


class Seeing(nn.Module):
    """The identity; keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return x


def predicted_on(model: nn.Sequential) -> Tensor:
    """All images that the model has been shown, in order."""
    return torch.cat(model[0].seen)


@dataclass(frozen=True)
class UsesUp:
    """A condition that draws numbers and leaves the images as they are."""

    n: int
    modification: str = "uses up"
    strength: float = 0.0

    def apply(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        torch.rand(self.n, generator=generator)
        return images


def test_correctness_on_clean_images_matches_predictions_by_hand() -> None:
    images, labels = data()
    correct = evaluate(NoisyNetwork(linear()), images, labels, [Clean()], rng=0)
    expected = by_hand(linear(), images.values, labels.values)
    assert correct.dims == ("condition", "stimulus")
    assert correct.dtype == bool
    assert 0 < sum(expected) < len(expected)
    assert correct.values[0].tolist() == expected


def test_conditions_and_stimuli_keep_their_names() -> None:
    images, labels = data()
    conditions = [Clean(), Modified("brightness", 2), PGD(0.1, n_steps=1, n_draws=1)]
    correct = evaluate(NoisyNetwork(linear()), images, labels, conditions, rng=0)
    assert correct["modification"].values.tolist() == ["clean", "brightness", "pgd"]
    assert correct["strength"].values.tolist() == [0, 2, 0.1]
    assert correct["stimulus"].values.tolist() == images["stimulus"].values.tolist()
    nameless = evaluate(NoisyNetwork(linear()), *data(named=False), conditions, rng=0)
    assert "stimulus" not in nameless.coords
    np.testing.assert_array_equal(nameless, correct)


def test_correctness_on_brighter_images_matches_predictions_by_hand() -> None:
    images, labels = data()
    brighter = np.clip(images.values + np.float32(0.4), 0, 1)
    correct = evaluate(NoisyNetwork(linear()), images, labels, [Modified("brightness", 4)], rng=0)
    expected = by_hand(linear(), brighter, labels.values)
    assert correct.values[0].tolist() == expected
    assert expected != by_hand(linear(), images.values, labels.values)


def test_every_network_is_shown_the_same_modified_images() -> None:
    images, labels = data()
    conditions = [Clean(), Modified("gaussian_noise", 3), Modified("gaussian_noise", 3), Modified("motion_blur", 1)]
    shown = []
    for model, noises, batch_size in [
        (linear(0), {}, 100),
        (linear(1), {}, 7),
        (linear(2), {"2": Diagonal.isotropic(3)}, 16),
    ]:
        evaluate(NoisyNetwork(model, noises), images, labels, conditions, rng=5, batch_size=batch_size)
        shown.append(predicted_on(model).view(4, 40, 1, SIZE, SIZE))
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown[0], shown[2])
    np.testing.assert_array_equal(shown[0][0], images)
    assert not torch.equal(shown[0][1], shown[0][2])  # each condition draws its own
    assert (shown[0][1] - shown[0][0]).std() > 0.1

    other = linear()
    evaluate(NoisyNetwork(other), images, labels, conditions, rng=6)
    assert not torch.equal(predicted_on(other).view_as(shown[0])[1], shown[0][1])


@pytest.mark.parametrize("n_draws", [1, 4, 25])
def test_a_noisy_prediction_sums_the_logits_of_its_draws(n_draws: int) -> None:
    """Two classes whose logits differ by m and carry noise of variance v each: P(correct) = Φ(m √K / √(2v))."""
    n, margin, variance = 4000, 0.5, 2.0
    model = linear(classes=2)
    model[2].weight.data.zero_()
    model[2].bias.data = torch.tensor([margin, 0.0])
    network = NoisyNetwork(model, {"2": Diagonal.isotropic(2, variance=variance)})
    images, labels = data(n)
    correct = evaluate(network, images, xr.zeros_like(labels), [Clean()], n_draws=n_draws, rng=0)
    expected = NormalDist().cdf(margin * np.sqrt(n_draws / (2 * variance)))
    assert abs(correct.values.mean() - expected) < 5 * np.sqrt(expected * (1 - expected) / n)


def test_it_is_the_logits_that_are_summed_and_not_the_probabilities() -> None:
    """Class 0 has the highest mean logit, and nine noisy classes share out nearly all of the mean probability."""
    model = linear(classes=10)
    model[2].weight.data.zero_()
    model[2].bias.data[0] = 1.0
    noise = Diagonal(torch.tensor([0.0] + [16.0] * 9))
    images, labels = data(20)
    correct = evaluate(NoisyNetwork(model, {"2": noise}), images, labels * 0, [Clean()], n_draws=2000, rng=0)
    assert correct.all()


def test_predictions_are_on_draws_that_no_attack_has_seen() -> None:
    """How much of its generator an attack uses up does not matter to the noise of the prediction."""
    images, labels = data(200)
    network = NoisyNetwork(linear(), {"2": Diagonal.isotropic(3, variance=9.0)})
    same = [evaluate(network, images, labels, [UsesUp(n)], n_draws=1, rng=0).values for n in (0, 1, 100)]
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], same[2])
    other = evaluate(network, images, labels, [UsesUp(0)], n_draws=1, rng=1).values
    assert not np.array_equal(same[0], other)
    conditions = evaluate(network, images, labels, [UsesUp(0), UsesUp(0)], n_draws=1, rng=0).values
    assert not np.array_equal(conditions[0], conditions[1])


@pytest.mark.parametrize("noisy", [False, True])
def test_pgd_knows_the_noise_and_keeps_its_step_a_quarter_of_epsilon(
    noisy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = data(5)
    model, noises = linear(), {"2": Diagonal.isotropic(3)} if noisy else {}
    calls: list[dict] = []

    def attack(attacked: nn.Module, x: Tensor, y: Tensor, **options: object) -> Tensor:
        calls.append({"model": attacked, "labels": y.tolist()} | options)
        return 1 - x

    monkeypatch.setattr(robustness, "pgd", attack)
    condition = PGD(0.2, n_steps=7, n_draws=20, n_restarts=3)
    correct = evaluate(NoisyNetwork(model, noises), images, labels, [condition], rng=0)
    (call,) = calls
    assert isinstance(call.pop("generator"), torch.Generator)
    assert call.pop("model") is model
    assert call.pop("labels") == labels.values.tolist()
    assert call == {
        "epsilon": 0.2,
        "step": 0.05,
        "n_steps": 7,
        "n_restarts": 3,
        "n_draws": 20 if noisy else 1,
        "noises": noises,
    }
    np.testing.assert_array_equal(predicted_on(model)[-5:], 1 - images)
    if not noisy:
        assert correct.values[0].tolist() == by_hand(model, 1 - images.values, labels.values)


@pytest.mark.parametrize("noisy", [False, True])
def test_accuracy_under_pgd_falls_to_zero_as_epsilon_grows(noisy: bool) -> None:
    images, _ = data(100)
    with torch.no_grad():
        labels = images.isel(channel=0, row=0, column=0).copy(data=linear()(torch.tensor(images.values)).argmax(1))
    network = NoisyNetwork(linear(), {"2": Diagonal.isotropic(3, variance=0.01)} if noisy else {})
    conditions = [PGD(epsilon, n_steps=10, n_draws=5) for epsilon in (1e-6, 0.02, 0.1, 1.0)]
    accuracy = evaluate(network, images, labels, conditions, rng=0).mean("stimulus").values
    assert accuracy[0] > 0.95
    assert (np.diff(accuracy) < 0).all()
    assert accuracy[-1] == 0


def test_the_same_seed_gives_the_same_result_whatever_the_global_state() -> None:
    images, labels = data(200)
    network = NoisyNetwork(linear(), {"2": Diagonal.isotropic(3, variance=9.0)})
    conditions = [Clean(), Modified("gaussian_noise", 5), PGD(0.1, 2, 3)]
    state = torch.get_rng_state()
    first = evaluate(network, images, labels, conditions, rng=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    xr.testing.assert_identical(first, evaluate(network, images, labels, conditions, rng=0))
    assert not first.equals(evaluate(network, images, labels, conditions, rng=1))
    torch.set_rng_state(state)


def test_evaluating_changes_neither_images_nor_network() -> None:
    images, labels = data()
    before, model = images.copy(deep=True), linear()
    images.values.flags.writeable = False
    evaluate(NoisyNetwork(model, {"2": Diagonal.isotropic(3)}), images, labels, [PGD(0.1, 2, 2)], rng=0)
    xr.testing.assert_identical(images, before)
    assert torch.equal(model[2].weight, linear()[2].weight)
    assert model[2].weight.grad is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_images_in_any_memory_order_are_read() -> None:
    images, labels = data()
    backwards = slice(None, None, -1)
    forwards = evaluate(NoisyNetwork(linear()), images, labels, [Clean()], rng=0)
    reverse = {"stimulus": backwards}
    ours = evaluate(NoisyNetwork(linear()), images.isel(reverse), labels.isel(reverse), [Clean()], rng=0)
    xr.testing.assert_identical(ours, forwards.isel(reverse))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: (x, y, [], 10), "expected at least one condition and one draw, got 0 and 10"),
        (lambda x, y: (x, y, [Clean()], 0), "expected at least one condition and one draw, got 1 and 0"),
        (lambda x, y: (x.isel(channel=0), y, [Clean()], 1), r"expected images \(stimulus, channel, row, column\)"),
        (lambda x, y: (x, y.rename(stimulus="image"), [Clean()], 1), r"and labels \(stimulus\), got .*'image'"),
        (lambda x, y: (x, y[:3], [Clean()], 1), "expected a label for every image, got 3 for 40"),
        (lambda x, y: (x, y[::-1], [Clean()], 1), "expected images and labels with the same stimulus ids in the same"),
        (lambda x, y: (x.astype(float), y, [Clean()], 1), "expected float32 images and integer labels, got float64"),
        (
            lambda x, y: (x, y.astype(float), [Clean()], 1),
            "expected float32 images and integer labels, got float32 and",
        ),
        (lambda x, y: (x + 1, y, [Modified("brightness", 1)], 1), r"expected pixels in \[0, 1\]"),
        (lambda x, y: (x, y, [Modified("brightnes", 1)], 1), "expected the name of a modification, got 'brightnes'"),
        (lambda x, y: (x, y + 9, [PGD(0.1, 1, 1)], 1), "expected labels from 0 to 2, got 9"),
    ],
)
def test_bad_input_is_named(change: object, match: str) -> None:
    images, labels, conditions, n_draws = change(*data())
    with pytest.raises(ValueError, match=match):
        evaluate(NoisyNetwork(linear()), images, labels, conditions, n_draws=n_draws, rng=0)


def test_the_strength_of_a_modification_is_its_severity() -> None:
    images, _ = data()
    batch = torch.tensor(images.values)
    one, other = (torch.Generator().manual_seed(2) for _ in range(2))
    ours = Modified("gaussian_noise", 4).apply(NoisyNetwork(linear()), batch, torch.zeros(40), one)
    expected = modify(batch, "gaussian_noise", strength=4, generator=other)
    assert torch.equal(ours, expected)


def correctness(p: Sequence[Sequence[float]], n_seeds: int, n_stimuli: int, *, rng: int = 0) -> xr.DataArray:
    """Bernoulli data with probability p[noise][condition], and stimuli that are easy or hard for all alike."""
    generator = np.random.default_rng(rng)
    ease = 0.3 * generator.uniform(-1, 1, n_stimuli)
    by_seed = 0.1 * generator.uniform(-1, 1, (n_seeds, 1, 1, 1))
    values = generator.random((n_seeds, len(p), len(p[0]), n_stimuli)) < np.array(p)[:, :, None] + ease + by_seed
    coords = {"noise": [f"noise{i}" for i in range(len(p))], "modification": ("condition", list("ab"[: len(p[0])]))}
    return xr.DataArray(values, dims=("seed", "noise", "condition", "stimulus"), coords=coords)


def bootstrap_by_hand(values: np.ndarray, n_bootstrap: int, seed: int = 1) -> np.ndarray:
    """95 % interval of the mean of (seed, stimulus), both resampled by their indices."""
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(n_bootstrap):
        seeds = [rng.integers(len(values)) for _ in values]
        stimuli = rng.integers(values.shape[1], size=values.shape[1])
        means.append(np.mean([values[i][stimuli].mean() for i in seeds]))
    return np.quantile(means, [0.025, 0.975])


P = [[0.5, 0.7], [0.6, 0.2]]


def test_accuracy_and_interval_match_a_bootstrap_in_loops() -> None:
    correct = correctness(P, 4, 150)
    summary = summarise(correct, rng=0, n_bootstrap=4000)
    assert summary.accuracy.dims == ("noise", "condition")
    assert summary["modification"].values.tolist() == ["a", "b"]
    for noise, condition in np.ndindex(2, 2):
        values = correct.values[:, noise, condition].astype(float)
        assert summary.accuracy[noise, condition].item() == pytest.approx(values.mean(), abs=1e-6)
        low, high = bootstrap_by_hand(values, 4000)
        assert summary.low[noise, condition].item() == pytest.approx(low, abs=0.006)
        assert summary.high[noise, condition].item() == pytest.approx(high, abs=0.006)
        assert high - low > 0.1
    assert summary.attrs["interval"] == "95 %, bootstrap over 4 training seeds × 150 stimuli"


def test_differences_and_interval_match_a_paired_bootstrap_in_loops() -> None:
    correct = correctness(P, 4, 150)
    result = differences(correct, baseline="noise1", rng=0, n_bootstrap=4000)
    assert result.attrs["baseline"] == "noise1"
    for condition in range(2):
        values = correct.values[:, 0, condition].astype(float) - correct.values[:, 1, condition]
        assert result.difference[0, condition].item() == pytest.approx(values.mean(), abs=1e-6)
        low, high = bootstrap_by_hand(values, 4000)
        assert result.low[0, condition].item() == pytest.approx(low, abs=0.008)
        assert result.high[0, condition].item() == pytest.approx(high, abs=0.008)
    assert not any(result[name][1].values.any() for name in ("difference", "low", "high"))  # the baseline itself


def test_one_seed_gives_the_interval_of_a_proportion() -> None:
    n, p = 1000, 0.8
    values = np.arange(n) < p * n
    correct = xr.DataArray(values.reshape(1, 1, 1, n), dims=("seed", "noise", "condition", "stimulus"))
    summary = summarise(correct, rng=0, n_bootstrap=4000)
    half = NormalDist().inv_cdf(0.975) * np.sqrt(p * (1 - p) / n)
    assert summary.accuracy.item() == pytest.approx(p)
    assert summary.low.item() == pytest.approx(p - half, abs=0.002)
    assert summary.high.item() == pytest.approx(p + half, abs=0.002)


def test_seeds_that_differ_widen_the_interval_that_stimuli_alone_would_give() -> None:
    """One of two seeds always right, the other always wrong: a resample is right in 0, ½ or 1 of its cases."""
    values = np.zeros((2, 1, 1, 50), bool)
    values[0] = True
    summary = summarise(xr.DataArray(values, dims=("seed", "noise", "condition", "stimulus")), rng=0)
    assert [summary[name].item() for name in ("low", "accuracy", "high")] == pytest.approx([0, 0.5, 1])


def test_what_is_always_right_has_no_interval() -> None:
    values = xr.DataArray(np.ones((3, 1, 1, 9), bool), dims=("seed", "noise", "condition", "stimulus"))
    summary = summarise(values, rng=0)
    assert [summary[name].item() for name in ("low", "accuracy", "high")] == pytest.approx([1, 1, 1])


def test_pairing_leaves_no_uncertainty_where_two_noises_do_the_same() -> None:
    correct = correctness([[0.5]], 3, 100)
    twins = xr.concat([correct, correct.assign_coords(noise=["twin"])], dim="noise")
    result = differences(twins, baseline="twin", rng=0)
    assert not any(result[name].values.any() for name in ("difference", "low", "high"))
    assert float(summarise(twins, rng=0).high[0, 0] - summarise(twins, rng=0).low[0, 0]) > 0.1


def test_the_order_of_dims_does_not_matter_and_the_seed_does() -> None:
    correct = correctness(P, 4, 150)
    turned = correct.transpose("stimulus", "condition", "seed", "noise")
    xr.testing.assert_identical(summarise(correct, rng=0), summarise(turned, rng=0))
    assert not summarise(correct, rng=0).low.equals(summarise(correct, rng=1).low)
    xr.testing.assert_identical(
        differences(correct, baseline="noise0", rng=0), differences(turned, baseline="noise0", rng=0)
    )


@pytest.mark.parametrize("function", [summarise, lambda c, **k: differences(c, baseline="noise0", **k)])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.isel(seed=0), "expected dims seed, noise, condition and stimulus, got .*'noise', 'condition'"),
        (lambda c: c.rename(seed="trial"), "expected dims seed, noise, condition and stimulus, got .*'trial'"),
        (lambda c: c.where(c), "expected correctness as bool, got (float64|object)"),
    ],
)
def test_what_is_no_correctness_is_refused(function: object, change: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        function(change(correctness(P, 2, 9)), rng=0)


def test_a_baseline_is_one_of_the_noises() -> None:
    correct = correctness(P, 2, 9)
    with pytest.raises(ValueError, match="expected a baseline among the noises, got 'none'"):
        differences(correct, baseline="none", rng=0)
    with pytest.raises(ValueError, match="expected a baseline among the noises, got 'noise0'"):
        differences(correct.drop_vars("noise"), baseline="noise0", rng=0)


@pytest.mark.gpu
def test_on_a_gpu_the_images_and_the_correctness_are_the_same() -> None:
    images, labels = data()
    conditions = [Clean(), Modified("gaussian_noise", 3), PGD(0.05, 3, 2)]
    on_cpu = evaluate(NoisyNetwork(linear()), images, labels, conditions, rng=0)
    on_gpu = evaluate(NoisyNetwork(linear().cuda()), images, labels, conditions, rng=0)
    assert (on_cpu == on_gpu).mean() > 0.95
    noisy = NoisyNetwork(linear().cuda(), {"2": Diagonal.isotropic(3)})
    assert evaluate(noisy, images, labels, conditions, rng=0).shape == (3, 40)


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a model in eval mode, got training mode"):
        evaluate(NoisyNetwork(linear().train()), *data(), [Clean()], rng=0)
