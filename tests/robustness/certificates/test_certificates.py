"""Certified radii: linear classifiers, whose boundary is known; plain loops; how often the bound holds; bad input."""

import json
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
import xarray as xr
from reference import certificates as reference
from scipy.stats import binomtest
from torch import nn

from neurovar.covariance import (
    Covariance,
    Dense,
    Diagonal,
    GainModulated,
    Kronecker,
    LowRankPlusDiagonal,
    MeanShift,
    Sum,
)
from neurovar.networks import NoisyModule, halves, small_network
from neurovar.robustness import Sampling, certified_accuracy, certify, certify_layer, lipschitz_bound

SIZE = 4
UNITS = SIZE**2
WEIGHT = np.random.default_rng(1).standard_normal(UNITS)
DRAWS = {"sampling": Sampling(20, 2000, 0.001)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(n: int = 5, seed: int = 0, dtype: type = np.float32) -> tuple[xr.DataArray, xr.DataArray]:
    """Random images, and the class that the two-class classifier gives each."""
    values = np.random.default_rng(seed).random((n, 1, SIZE, SIZE)).astype(dtype)
    coords = {"stimulus": [f"image{i}" for i in range(n)]}
    images = xr.DataArray(values, dims=("stimulus", "channel", "row", "column"), coords=coords)
    labels = (margin(values) < 0).astype(int)
    return images, xr.DataArray(labels, dims="stimulus", coords=coords)


def margin(values: np.ndarray) -> np.ndarray:
    """The logit of class 0 minus that of class 1, divided by 2."""
    return (values.reshape(len(values), -1) - 0.5) @ WEIGHT


def linear(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two classes, the boundary through the grey image; layers "0" (an isometry) and "1"."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(UNITS, 2)).to(dtype)
    model[1].weight.data = torch.tensor(np.stack([WEIGHT, -WEIGHT]), dtype=dtype)
    model[1].bias.data = torch.tensor([-1.0, 1.0], dtype=dtype) * 0.5 * WEIGHT.sum()
    return model.eval()


def dense(seed: int = 0, dtype: torch.dtype = torch.float32) -> Dense:
    root = torch.randn(UNITS, UNITS, generator=seeded(seed), dtype=torch.float64) / 10
    return Dense((root @ root.mT + 0.01 * torch.eye(UNITS, dtype=torch.float64)).to(dtype))


# What is known of linear classifiers


def test_the_radius_of_a_linear_classifier_is_the_distance_to_its_boundary() -> None:
    """R → |wᵀx + b| / ‖w‖ from below, whatever σ is; 0.001 of the certificates may exceed it."""
    images, labels = data(20)
    distance = np.abs(margin(images.values)) / np.linalg.norm(WEIGHT)
    for sigma in (0.2, 0.6):
        found = certify(
            linear(), images, labels, sigma=sigma, sampling=Sampling(100, 20_000, 0.001), generator=seeded()
        )
        certified = found.predicted.values >= 0
        near = (distance > 0.2 * sigma) & (distance < 2 * sigma)  # further away the number of draws is the limit
        assert (found.radius.values[certified] < distance[certified]).all()
        np.testing.assert_allclose(found.radius.values[near], distance[near], atol=0.06 * sigma)
        assert found.correct.values[distance > 0.2 * sigma].all()
        assert (found.radius.values <= found.attrs["largest_radius"]).all()
        assert found.attrs["largest_radius"] == pytest.approx(sigma * NormalDist().inv_cdf(0.001 ** (1 / 20_000)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "noise",
    [
        Diagonal(torch.linspace(0.02, 0.3, UNITS)),
        dense(),
        LowRankPlusDiagonal(torch.randn(UNITS, 2, generator=seeded()) / 5, torch.full((UNITS,), 0.05)),
        Kronecker(Dense(torch.tensor([[0.3, 0.1], [0.1, 0.2]])), Diagonal(torch.linspace(0.1, 0.5, UNITS // 2))),
        Sum((Diagonal.isotropic(UNITS, variance=0.02), dense())),
    ],
    ids=lambda noise: type(noise).__name__,
)
def test_a_layers_radius_is_the_mahalanobis_distance_to_the_boundary(noise: Covariance, dtype: torch.dtype) -> None:
    """min √(dᵀΣ⁻¹d) over d with wᵀ(h + d) + b = 0 is |wᵀh + b| / √(wᵀΣw)."""
    images, labels = data(10, dtype=np.float32 if dtype == torch.float32 else np.float64)
    matrix = noise.to_dense().double().numpy()
    distance = np.abs(margin(images.values)) / np.sqrt(WEIGHT @ matrix @ WEIGHT)
    found = certify_layer(
        linear(dtype), images, labels, layer="0", noise=noise.to(dtype=dtype),
        sampling=Sampling(100, 20_000, 0.001), generator=seeded(),
    )  # fmt: skip
    near = (distance < 2) & (distance > 0.05)
    assert near.sum() > 5
    assert (found.radius.values[near] < distance[near]).all()
    np.testing.assert_allclose(found.radius.values[near], distance[near], atol=0.08)
    assert "input_radius" not in found

    nearest = -margin(images.values)[:, None] * (matrix @ WEIGHT) / (WEIGHT @ matrix @ WEIGHT)
    squares = noise.to(dtype=torch.float64).mahalanobis(torch.tensor(nearest))
    np.testing.assert_allclose(squares.sqrt(), distance, rtol=1e-4)  # the norm is the one that `mahalanobis` gives


def test_the_input_radius_is_below_the_distance_at_the_input() -> None:
    """Through a layer that stretches by 3, with noise of unequal variances."""
    images, labels = data(20)
    variance = torch.full((UNITS,), 0.5)
    weakest = int(np.argmax(np.abs(WEIGHT)))
    variance[weakest] = 0.1
    model = nn.Sequential(nn.Flatten(), nn.Linear(UNITS, UNITS, bias=False), linear()[1]).eval()
    model[1].weight.data = 3 * torch.eye(UNITS)
    logit = 3 * images.values.reshape(20, -1) @ WEIGHT - 0.5 * WEIGHT.sum()
    labels = labels.copy(data=(logit < 0).astype(int))
    options = {"layer": "1", "noise": Diagonal(variance), **DRAWS}
    found = certify_layer(model, images, labels, lipschitz=3.0, generator=seeded(), **options)
    np.testing.assert_allclose(found.input_radius, found.radius * 0.1**0.5 / 3, rtol=1e-6)
    assert (found.input_radius.values <= np.abs(logit) / (3 * np.linalg.norm(WEIGHT))).all()
    assert found.radius.values.max() > 0.5

    sharper = certify_layer(
        model, images, labels, lipschitz=3 / 0.1**0.5, lipschitz_norm="mahalanobis", generator=seeded(), **options
    )
    np.testing.assert_allclose(sharper.input_radius, found.input_radius, rtol=1e-6)


def test_no_perturbation_within_the_input_radius_changes_the_class() -> None:
    """One unit matters, the one with the least noise: there the input radius is the distance itself."""
    images, labels = data(10)
    model = linear()
    model[1].weight.data.zero_()
    model[1].weight.data[:, 0] = torch.tensor([1.0, -1.0])
    model[1].bias.data = torch.tensor([-0.5, 0.5])
    pixel = images.values[:, 0, 0, 0]
    labels = labels.copy(data=(pixel < 0.5).astype(int))
    noise = Diagonal(torch.tensor([0.04] + [1.0] * (UNITS - 1)))
    found = certify_layer(
        model, images, labels, layer="0", noise=noise, lipschitz=1.0, sampling=Sampling(50, 20_000, 0.001),
        generator=seeded(),
    )  # fmt: skip
    distance = np.abs(pixel - 0.5)
    near = distance < 0.4
    assert (found.input_radius.values[near] <= distance[near]).all()
    np.testing.assert_allclose(found.input_radius.values[near], distance[near], atol=0.03)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_the_bound_holds_in_a_fraction_1_minus_alpha_of_certificates(alpha: float) -> None:
    """Coverage over 600 repetitions, 40 draws each; Clopper–Pearson is conservative, by up to one count."""
    image, label = data(1)
    repeated, labels = (array.isel(stimulus=[0] * 600).drop_vars("stimulus") for array in (image, label))
    sigma = float(np.abs(margin(image.values))[0] / np.linalg.norm(WEIGHT))  # P(right) = Φ(1)
    found = certify(linear(), repeated, labels, sigma=sigma, sampling=Sampling(1, 40, alpha), generator=seeded(3))
    chosen_right = found.predicted.values == label.item()
    wrong = (found.p_lower.values > NormalDist().cdf(1)) & chosen_right
    assert binomtest(int(wrong.sum()), 600, alpha, alternative="greater").pvalue > 0.01
    assert wrong.mean() > alpha / 3  # and it is not far too careful


# Plain loops


@pytest.mark.parametrize("batch_size", [1, 64, 10_000])
def test_plain_loops_give_the_same(batch_size: int) -> None:
    images, labels = data(6)
    weight = np.random.default_rng(2).standard_normal((3, UNITS)).astype(np.float32)
    model = nn.Sequential(nn.Flatten(), nn.Linear(UNITS, 3, bias=False)).eval()
    model[1].weight.data = torch.tensor(weight)
    draws = {"n_select": 7, "n_draws": 200, "alpha": 0.01}
    sampling = Sampling(**draws, batch_size=batch_size)
    found = certify(model, images, labels, sigma=0.4, sampling=sampling, generator=seeded())
    generator = seeded()
    expected = [
        reference.certify(weight, image.ravel(), sigma=0.4, generator=generator, **draws) for image in images.values
    ]
    predicted, lower, radius = map(np.array, zip(*expected))
    assert -1 in predicted and len(set(predicted)) > 1
    np.testing.assert_array_equal(found.predicted, predicted)
    np.testing.assert_allclose(found.p_lower, lower, rtol=1e-12)
    np.testing.assert_allclose(found.radius, radius, rtol=1e-6)
    np.testing.assert_array_equal(found.correct, predicted == labels.values)
    assert found.stimulus.values.tolist() == images.stimulus.values.tolist()
    assert found.predicted.dtype == np.int64 and found.correct.dtype == bool


def test_noise_at_the_first_layer_is_noise_on_the_input() -> None:
    images, labels = data(12)
    images = images * np.float32(0.2) + np.float32(0.4)  # nearer to the boundary, so that every draw counts
    ours = certify(linear(), images, labels, sigma=0.3, generator=seeded(), **DRAWS)
    layer = certify_layer(
        linear(), images, labels, layer="0", noise=Diagonal.isotropic(UNITS, variance=0.09), lipschitz=1.0,
        generator=seeded(), **DRAWS,
    )  # fmt: skip
    np.testing.assert_array_equal(ours.p_lower, layer.p_lower)
    np.testing.assert_allclose(ours.radius, 0.3 * layer.radius)
    np.testing.assert_allclose(ours.radius, layer.input_radius, rtol=1e-6)


def test_an_image_on_the_boundary_abstains() -> None:
    images, labels = data(3)
    found = certify(linear(), images * 0 + np.float32(0.5), labels, sigma=0.3, generator=seeded(), **DRAWS)
    assert found.predicted.values.tolist() == [-1] * 3
    assert found.radius.values.tolist() == [0] * 3
    assert not found.correct.any()
    assert (found.p_lower < 0.5).all()


def test_a_network_that_is_random_itself_is_certified_for_what_it_is() -> None:
    """Its own noise adds to that on the input, and shortens the radius: σ·m / √(s² + v) for v of its own."""
    images, labels = data(10)
    distance = np.abs(margin(images.values)) / np.linalg.norm(WEIGHT)
    noisy = NoisyModule(
        linear(), {"0": Diagonal.isotropic(UNITS, variance=0.07)}, generator=seeded(1), when="eval"
    ).eval()
    found = certify(noisy, images, labels, sigma=0.3, sampling=Sampling(100, 20_000, 0.001), generator=seeded())
    expected = 0.3 * distance / (0.09 + 0.07) ** 0.5
    near = distance < 0.5
    np.testing.assert_allclose(found.radius.values[near], expected[near], atol=0.02)


def test_the_same_seed_gives_the_same_and_nothing_else_changes() -> None:
    images, labels = data(4)
    before, model, state = images.copy(deep=True), linear(), torch.get_rng_state()
    found = [certify(model, images, labels, sigma=0.3, generator=seeded(s), **DRAWS) for s in (0, 0, 1)]
    assert found[0].equals(found[1]) and not found[0].equals(found[2])
    certify_layer(model, images, labels, layer="0", noise=dense(), lipschitz=1.0, generator=seeded(), **DRAWS)
    assert images.identical(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert json.loads(json.dumps(found[0].attrs)) == found[0].attrs
    assert "not its base, nor an ensemble" in found[0].attrs["certified"]


# Certified accuracy


def test_certified_accuracy_counts_correct_images_with_at_least_the_radius() -> None:
    correct = [True] * 8 + [False] * 2
    radius = [0.0, 0.1, 0.2, 0.3, 0.3, 0.4, 0.5, 0.6, 0.9, 0.9]
    found = xr.Dataset(
        {
            "correct": ("stimulus", correct),
            "radius": ("stimulus", radius),
            "input_radius": ("stimulus", np.array(radius) / 2),
        }
    )
    curve = certified_accuracy(found, [0, 0.3, 0.31, 1])
    assert curve.accuracy.values.tolist() == [0.8, 0.5, 0.3, 0]
    for hits, low, high in zip((8, 5, 3, 0), curve.low.values, curve.high.values):
        expected = binomtest(hits, 10).proportion_ci(confidence_level=0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high))
    assert certified_accuracy(found, [0.15], of="input_radius").accuracy.item() == 0.5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda found: (found, [-0.1]), r"expected radii of at least 0, got \[-0.1\]"),
        (lambda found: (found, [np.nan]), r"expected radii of at least 0, got \[nan\]"),
        (lambda found: (found.drop_vars("radius"), [0]), "expected certificates with radius, got correct"),
    ],
)
def test_certified_accuracy_of_bad_input(change: Callable, match: str) -> None:
    found = xr.Dataset({"correct": ("stimulus", [True]), "radius": ("stimulus", [0.2])})
    with pytest.raises(ValueError, match=match):
        certified_accuracy(*change(found))


# Lipschitz bounds


CONVOLUTIONS = {
    "plain": nn.Conv2d(2, 3, 3),
    "padded": nn.Conv2d(2, 3, 5, padding=2),
    "padded beyond the kernel": nn.Conv2d(2, 3, 3, padding=4),
    "strided": nn.Conv2d(2, 3, 3, stride=2, padding=1),
    "dilated": nn.Conv2d(2, 3, 3, dilation=2, padding="same"),
    "oblong": nn.Conv2d(2, 4, (1, 4), padding=(0, 2)),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "pointwise": nn.Conv2d(3, 5, 1),
}


@pytest.mark.parametrize("module", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_bound_of_a_convolution_is_above_the_norm_of_its_matrix(module: nn.Conv2d) -> None:
    module.weight.data = torch.randn(module.weight.shape, generator=seeded(), dtype=torch.float64)
    module.bias = None
    model = nn.Sequential(module, nn.Flatten()).double().eval()
    shape = (module.in_channels, 8, 9)
    exact = np.linalg.norm(reference.operator(module, shape), 2)
    bound = lipschitz_bound(model, layer="0", shape=shape)
    assert exact <= bound * (1 + 1e-12)
    assert bound < exact * (1.6 if module.stride == (2, 2) else 1.3)
    if module.kernel_size == (1, 1):
        assert bound == pytest.approx(exact)


def test_groups_of_channels_count_each_for_itself() -> None:
    """Two groups with the same kernel stretch no more than one."""
    one, two = nn.Conv2d(1, 1, 3), nn.Conv2d(2, 2, 3, groups=2)
    two.weight.data = torch.cat([one.weight.data] * 2)
    bounds = [
        lipschitz_bound(nn.Sequential(module, nn.Flatten()).eval(), layer="0", shape=(module.in_channels, 8, 8))
        for module in (one, two)
    ]
    assert bounds[0] == pytest.approx(bounds[1])


def test_a_smooth_kernel_on_a_large_image_meets_its_bound() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.Flatten()).eval()
    model[0].weight.data.fill_(1.0)
    assert lipschitz_bound(model, layer="0", shape=(1, 64, 64)) == pytest.approx(9.0)
    exact = np.linalg.norm(reference.operator(model[0].double(), (1, 20, 20)), 2)
    assert 8.7 < exact < 9


@pytest.mark.parametrize(("kernel", "stride", "bound"), [(2, None, 1.0), (2, 3, 1.0), (3, 2, 2.0), (3, 1, 3.0)])
def test_max_pooling_stretches_by_the_root_of_the_windows_that_share_a_pixel(
    kernel: int, stride: int | None, bound: float
) -> None:
    model = nn.Sequential(nn.MaxPool2d(kernel, stride), nn.Flatten()).eval()
    model.register_parameter("unused", nn.Parameter(torch.zeros(())))
    assert lipschitz_bound(model, layer="0", shape=(1, 7, 7)) == pytest.approx(bound)
    peak = torch.zeros(1, 1, 7, 7)
    peak[..., 2, 2] = 1  # in all windows that there can be
    assert float(model(peak).norm()) == pytest.approx(bound if (kernel, stride) != (2, 3) else 0, abs=1e-6)


def test_no_pair_of_images_is_taken_further_apart_by_the_small_network() -> None:
    """Random pairs, and pairs along the direction in which the front stretches most."""
    model = small_network(rng=0).eval()
    for layer in ("layer0", "layer1"):
        front, _ = halves(model, layer)
        bound = lipschitz_bound(model, layer=layer, shape=(1, 28, 28))
        image = torch.full((1, 1, 28, 28), 0.02)
        step = torch.randn(1, 1, 28, 28, generator=seeded())
        ratios = []
        for _ in range(20):
            out, back = torch.autograd.functional.vjp(
                front, image, torch.autograd.functional.jvp(front, image, step)[1]
            )
            step = back / back.norm()
            with torch.no_grad():
                ratios.append(float((front(image + 1e-2 * step) - out).norm() / 1e-2))
        assert bound / 12 < max(ratios) <= bound


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.BatchNorm2d(2), r"before the noise, got BatchNorm2d.*; state a Lipschitz constant of your own"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "expected only Linear, Conv2d .* got Conv2d"),
        (nn.MaxPool2d(2, dilation=2), "expected only Linear, Conv2d .* got MaxPool2d"),
    ],
)
def test_what_has_no_bound_is_named(module: nn.Module, match: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(module), nn.Flatten()).eval()
    with pytest.raises(ValueError, match=match):
        lipschitz_bound(model, layer="1", shape=(1, 8, 8))
    with pytest.raises(ValueError, match="expected a model in evaluation mode"):
        lipschitz_bound(model.train(), layer="0", shape=(1, 8, 8))


class Twice(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_what_does_not_run_as_it_is_built_has_no_bound() -> None:
    parts = nn.Conv2d(1, 2, 3), nn.Flatten()
    with pytest.raises(ValueError, match=r"expected a torch.nn.Sequential, which runs as it is built, got Twice"):
        lipschitz_bound(Twice(*parts).eval(), layer="0", shape=(1, 8, 8))
    with pytest.raises(ValueError, match="expected only Linear, Conv2d"):
        lipschitz_bound(nn.Sequential(Twice(parts[0]), parts[1]).eval(), layer="0", shape=(1, 8, 8))


# Bad input


class Around(nn.Module):
    """The image passes by the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = nn.Flatten(), linear()[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.readout(self.layer(x) + 0.1 * x.flatten(1))


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :2] / torch.where(x.std() > 0.3, 0.0, 1.0)


def random_front() -> nn.Module:
    noisy = NoisyModule(linear(), {"0": Diagonal.isotropic(UNITS)}, generator=seeded(), when="eval").eval()
    return nn.Sequential(noisy, nn.Linear(2, 2)).eval()


BAD: dict[str, Callable] = {
    "expected a finite sigma above 0, got 0": lambda x, y: certify(
        linear(), x, y, sigma=0.0, generator=seeded(), **DRAWS
    ),
    r"alpha between 0 and 1, got 20, 2000, 1000 and 1": lambda x, y: certify(
        linear(), x, y, sigma=1, generator=seeded(), sampling=Sampling(20, 2000, 1)
    ),
    r"of at least 1 and alpha .*, got 20, 0, 1000": lambda x, y: certify(
        linear(), x, y, sigma=1, generator=seeded(), sampling=Sampling(20, 0, 0.001)
    ),
    r"expected pixels in \[0, 1\], got": lambda x, y: certify(linear(), x + 1, y, sigma=1, generator=seeded(), **DRAWS),
    "expected labels from 0 to 1, got": lambda x, y: certify(
        linear(), x, y + 2, sigma=1, generator=seeded(), **DRAWS
    ),
    r"expected images \(stimulus, channel, row, column\)": lambda x, y: certify(
        linear(), x[:, 0], y, sigma=1, generator=seeded(), **DRAWS
    ),
    "expected the same stimuli in images and labels, got 5 and 3": lambda x, y: certify(
        linear(), x, y[:3], sigma=1, generator=seeded(), **DRAWS
    ),
    "expected images of floats and integer labels, got float32 and float64": lambda x, y: certify(
        linear(), x, y.astype(float), sigma=1, generator=seeded(), **DRAWS
    ),
    "expected a model in evaluation mode": lambda x, y: certify(
        linear().train(), x, y, sigma=1, generator=seeded(), **DRAWS
    ),
    r"expected logits .* of at least two classes, got \(1, 1\)": lambda x, y: certify(
        nn.Sequential(nn.Flatten(), nn.Linear(UNITS, 1)).eval(), x, y, sigma=1, generator=seeded(), **DRAWS
    ),
    "expected finite logits, got NaN or infinity": lambda x, y: certify(
        Broken().eval(), x, y, sigma=1, generator=seeded(), **DRAWS
    ),
}  # fmt: skip


@pytest.mark.parametrize("match", BAD)
def test_bad_input_is_named(match: str) -> None:
    with pytest.raises(ValueError, match=match):
        BAD[match](*data())


STATES = torch.rand(5, UNITS, generator=seeded())
ONE = torch.tensor(1.0)
BAD_LAYER: dict[str, dict] = {
    "expected a layer of Sequential, got 'a'; near it: 0, 1": {"layer": "a"},
    "expected a covariance over the 16 units of layer '0', got 3": {"noise": Diagonal.isotropic(3)},
    "the same at every activation, got GainModulated": {"noise": GainModulated(ONE, torch.ones(UNITS), ONE, STATES)},
    "expected centred Gaussian noise, got MeanShift": {"noise": MeanShift(torch.ones(UNITS))},
    "expected centred Gaussian noise, got Sum": {"noise": dense() + MeanShift(torch.ones(UNITS))},
    "expected a covariance that has an inverse": {"noise": Diagonal(torch.tensor([0.0] + [1.0] * 15))},
    "that has an inverse, got a singular one": {"noise": LowRankPlusDiagonal(torch.ones(UNITS, 1), torch.zeros(UNITS))},
    "expected a finite Lipschitz constant above 0, got 0": {"lipschitz": 0.0},
    "expected a finite Lipschitz constant above 0, got nan": {"lipschitz": np.nan},
    "expected lipschitz_norm to be one of l2, mahalanobis, got 'linf'": {"lipschitz": 1.0, "lipschitz_norm": "linf"},
    "through layer 'layer', got one around it": {"model": Around().eval(), "layer": "layer", "lipschitz": 1.0},
    "expected layers before '1' that give the same twice": {
        "model": random_front(), "layer": "1", "noise": Diagonal.isotropic(2)
    },
}  # fmt: skip


@pytest.mark.parametrize("match", BAD_LAYER)
def test_bad_input_at_a_layer_is_named(match: str) -> None:
    given = {"model": linear(), "layer": "0", "noise": dense()} | BAD_LAYER[match] | DRAWS
    with pytest.raises(ValueError, match=match):
        certify_layer(given.pop("model"), *data(), generator=seeded(), **given)


def test_a_way_around_the_layer_is_no_matter_without_an_input_radius() -> None:
    found = certify_layer(Around().eval(), *data(2), layer="layer", noise=dense(), generator=seeded(), **DRAWS)
    assert "input_radius" not in found


def test_a_frozen_network_has_an_input_radius_too() -> None:
    model = linear().requires_grad_(False)
    found = certify_layer(model, *data(2), layer="0", noise=dense(), lipschitz=1.0, generator=seeded(), **DRAWS)
    assert (found.input_radius > 0).any()


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    images, labels = data()
    ours = certify_layer(linear().cuda(), images, labels, layer="0", noise=dense(), generator=seeded(), **DRAWS)
    cpu = certify_layer(linear(), images, labels, layer="0", noise=dense(), generator=seeded(), **DRAWS)
    np.testing.assert_allclose(ours.p_lower, cpu.p_lower, atol=0.01)
