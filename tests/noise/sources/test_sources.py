"""Each source of noise structure against its definition, in any batches, and against structures that are known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from reference import sources as reference
from torch import Tensor, nn

import neurovar
from neurovar import networks, statistics
from neurovar.covariance import Dense, Diagonal, Kronecker, LowRankPlusDiagonal, Sum
from neurovar.networks import NoisyNetwork, Origin, inject
from neurovar.noise import LowRankAccumulator, NoiseSource
from neurovar.statistics import DiagonalOnly, Full, KroneckerProduct, LowRank, Structure

STRUCTURES = [Full(), DiagonalOnly(), KroneckerProduct(), LowRank(3)]
TYPES = {Full: Dense, DiagonalOnly: Diagonal, KroneckerProduct: Kronecker, LowRank: LowRankPlusDiagonal}
CHANNELS, LAYER = 2, "1"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


IMAGES = torch.rand(40, 1, 5, 5, generator=seeded())
LABELS = torch.arange(40) % 3


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Layer "1" has 2 × 3 × 3 units, layer "3" four."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, CHANNELS, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 4)
    return nn.Sequential(*layers).to(dtype).eval().requires_grad_(False)


NOISY = NoisyNetwork(network(), images=IMAGES)


def inverted(images: Tensor, generator: torch.Generator) -> Tensor:
    return 1 - images**2


@dataclass(frozen=True)
class Steps:
    """Steps up the cross-entropy, in the sign of its gradient."""

    epsilon: float
    norm: str = "linf"
    n_steps: int = 1

    def __call__(self, network: NoisyNetwork, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Tensor:
        shown = images
        for _ in range(self.n_steps):
            shown = shown.detach().requires_grad_()
            loss = nn.functional.cross_entropy(network.logits(shown, generator=generator)[0], labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, shown)
            shown = (shown + self.epsilon / self.n_steps * gradient.sign()).clamp(0, 1)
        return shown.detach()


def check(source: NoiseSource, matrix: np.ndarray, structure: Structure) -> None:
    """Whether a source is a sample covariance as a structure of that kind, and says how far it may be from it."""
    dense, error = source.noise.to_dense().double().numpy(), source.error
    assert type(source.noise) is TYPES[type(structure)] and source.structure == structure
    tolerance = {"rtol": 1e-3, "atol": 1e-5 * np.trace(matrix)}
    if isinstance(structure, LowRank):
        rank = source.noise.rank
        assert rank == structure.rank
        np.testing.assert_allclose(np.diag(dense), np.diag(matrix), **tolerance)
        best = np.linalg.norm(matrix - reference.leading_and_diagonal(matrix, rank))
        assert np.linalg.norm(matrix - dense) < 1.3 * best + 1e-5 * np.trace(matrix)
        assert np.linalg.norm(matrix - dense, 2) < error * (1 + 1e-4) < 0.5 * np.trace(matrix)
        return
    exact = {Full(): matrix, DiagonalOnly(): np.diag(np.diag(matrix))}
    expected = exact[structure] if structure in exact else reference.partial_traces(matrix, CHANNELS)
    np.testing.assert_allclose(dense, expected, **tolerance)
    assert error == 0 if structure == Full() else np.isnan(error)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("batch_size", [7, 40])
def test_modified(structure: Structure, batch_size: int) -> None:
    model = network()
    got = neurovar.noise.modified(model, IMAGES.split(batch_size), inverted, layers=[LAYER], structure=structure, rng=0)
    clean, other = (model[:2](images).flatten(1).numpy() for images in (IMAGES, inverted(IMAGES, seeded())))
    matrix, mean = reference.about_clean(clean, other)
    check(got[LAYER], matrix, structure)
    np.testing.assert_allclose(got[LAYER].mean_shift.numpy(), mean, rtol=1e-4, atol=1e-6)
    source = got[LAYER]
    assert (source.origin, source.layer, source.ridge) == (Origin("modified", of="inverted"), "1", 0)
    assert (source.n_samples, source.dof) == (40, 39)


def test_modified_is_what_the_activations_in_memory_give() -> None:
    """Preble et al. 2026: cov(d) + 1e-4·I at a layer of the small network."""
    model = networks.small_network(rng=0).eval()
    images = torch.rand(60, 1, 28, 28, generator=seeded(1))
    blur = networks.Brightness(3)
    got = neurovar.noise.modified(
        model, images.split(32), blur, layers=["layer3"], structure=Full(), ridge=1e-4, rng=0
    )["layer3"]
    front, _ = networks.halves(model, "layer3")
    with torch.no_grad():
        clean, other = front(images), front(blur(images, generator=seeded()))
    same = statistics.deviation_covariance(clean, other, Full(), ridge=1e-4)
    torch.testing.assert_close(got.noise.to_dense(), same.to_dense(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(got.mean_shift, (other - clean).mean(0))
    assert got.ridge == 1e-4 and got.model == "Sequential"
    assert got.origin == Origin("modified", of="Brightness(severity=3)")


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_the_ridge_is_added_to_every_unit(structure: Structure) -> None:
    without, with_ridge = (
        neurovar.noise.modified(
            network(), IMAGES.split(9), inverted, layers=[LAYER], structure=structure, ridge=ridge, rng=0
        )[LAYER].noise
        for ridge in (0.0, 0.25)
    )
    torch.testing.assert_close(with_ridge.to_dense(), without.to_dense() + 0.25 * torch.eye(18))
    assert isinstance(with_ridge, Sum if structure == KroneckerProduct() else TYPES[type(structure)])


def test_a_random_modification_depends_on_the_seed_and_not_on_batches() -> None:
    blur = networks.GaussianNoise(5)
    call = partial(neurovar.noise.modified, network(), modification=blur, layers=[LAYER, "3"], structure=Full())
    first, again, other = (
        call(batches=IMAGES.split(size), rng=seed) for size, seed in ((7, 0), (40, np.random.default_rng(0)), (7, 1))
    )
    assert list(first) == [LAYER, "3"] and first["3"].noise.n == 4
    for layer in first:
        torch.testing.assert_close(first[layer].noise.to_dense(), again[layer].noise.to_dense(), rtol=1e-3, atol=1e-7)
    assert not torch.allclose(first["3"].noise.to_dense(), other["3"].noise.to_dense(), rtol=0.01)


@pytest.mark.parametrize("named", [True, False])
def test_attacked(named: bool) -> None:
    """The fast gradient method takes no random numbers; the labels of a batch are those of its images."""
    model, attack = network(), Steps(0.2)
    noisy = NoisyNetwork(model, images=IMAGES)
    other = attack(noisy, IMAGES, LABELS, generator=seeded())
    assert (other - attack(noisy, IMAGES, (LABELS + 1) % 3, generator=seeded())).abs().max() > 0.1
    matrix, mean = reference.about_clean(*(model[:2](images).flatten(1).numpy() for images in (IMAGES, other)))
    pairs = zip(IMAGES.split(7), LABELS.split(7), strict=True)
    loader = [{"image": x, "label": y.numpy()} for x, y in pairs] if named else pairs
    got = neurovar.noise.attacked(noisy, loader, attack, layers=[LAYER], structure=Full(), rng=0)[LAYER]
    check(got, matrix, Full())
    np.testing.assert_allclose(got.mean_shift.numpy(), mean, rtol=1e-4, atol=1e-6)
    assert got.origin == Origin("attacked", of="Steps", epsilon=0.2, norm="linf") and got.origin.is_attack


def test_attacked_in_steps_with_a_data_loader() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGES, LABELS), batch_size=16)
    attack = Steps(0.1, n_steps=2)
    first, again = (
        neurovar.noise.attacked(NOISY, loader, attack, layers=["3"], structure=LowRank(1), rng=3)["3"] for _ in "12"
    )
    assert torch.equal(first.noise.to_dense(), again.noise.to_dense()) and first.noise.trace() > 0


class Scripted(nn.Module):
    """Gives the rows of its tables, one table a pass over a batch."""

    def __init__(self, tables: list[Tensor]) -> None:
        super().__init__()
        self.tables = iter(tables)

    def forward(self, x: Tensor) -> Tensor:
        return next(self.tables)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_stochastic(structure: Structure) -> None:
    """12 images of 2 × 3 units in batches of 5, 5 and 2, four passes each, about means of their own."""
    passes = 3 + torch.randn(12, 4, CHANNELS, 3, generator=seeded(2)) + torch.arange(12.0)[:, None, None, None]
    tables = [batch[:, repeat] for batch in passes.split(5) for repeat in range(4)]
    model = nn.Sequential(Scripted(tables), nn.Flatten())
    loader = torch.zeros(12, 1, 1, 1).split(5)
    got = neurovar.noise.stochastic(model, loader, layers=["0"], n_repeats=4, structure=structure, rng=0)["0"]
    check(got, reference.about_stimulus(passes.flatten(2).numpy()), structure)
    assert not got.mean_shift.any() and got.mean_shift.shape == (6,)
    assert got.n_samples == 48 and got.dof == 36 and got.origin == Origin("stochastic")


def test_the_error_is_that_of_the_covariance_with_its_divisor() -> None:
    passes = torch.randn(9, 2, 20, generator=seeded(2))
    model = Scripted(list(passes.unbind(1)))
    got = neurovar.noise.stochastic(
        nn.Sequential(model), [torch.zeros(9, 1)], layers=["0"], n_repeats=2, structure=LowRank(3), rng=0
    )["0"]
    sketch = LowRankAccumulator(rank=3, about_zero=True)
    sketch.update((passes - passes.mean(1, keepdim=True)).flatten(0, 1))
    assert got.error == pytest.approx(2 * sketch.estimate().error_bound, rel=1e-5)


def test_dropout_has_the_variance_that_is_known() -> None:
    """Each unit x is 0 or x/(1 − p), so that its variance is x²·p/(1 − p), independently of the others."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2)).train()
    images = 1 + torch.arange(4.0).view(1, 1, 2, 2).expand(2000, 1, 2, 2)
    got = neurovar.noise.stochastic(model, images.split(500), layers=["1"], n_repeats=10, structure=Full(), rng=0)[
        "1"
    ].noise
    variance = 0.25 * images[0].flatten() ** 2
    torch.testing.assert_close(got.diagonal(), variance, rtol=0.05, atol=0)
    scale = variance.sqrt()
    correlation = got.to_dense() / torch.outer(scale, scale)
    # 18,000 degrees of freedom: a correlation has a standard error of 0.0075.
    assert (correlation - torch.diag(correlation.diagonal())).abs().max() < 5 * 0.0075
    assert model.training and not model[1]._forward_hooks


def test_injected_noise_is_recovered() -> None:
    truth = Dense(torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Identity()).eval()
    with inject(model, {"1": truth}, generator=seeded()):
        got = neurovar.noise.stochastic(
            model, torch.rand(1000, 1, 2, 2).split(250), layers=["2"], n_repeats=20, structure=Full(), rng=0
        )["2"].noise
    torch.testing.assert_close(got.to_dense(), truth.to_dense(), rtol=0, atol=5 * 2 * (2 / 19_000) ** 0.5)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("batch_size", [1, 7, 40])
@pytest.mark.parametrize("text", [True, False])
def test_within_class(structure: Structure, batch_size: int, text: bool) -> None:
    """Classes of 1, 13, 1 and 25 images, in runs, so that batches hold one or several."""
    labels = np.repeat([5, 0, 9, 1], [1, 13, 1, 25])
    model, offsets = network(), torch.from_numpy(labels).float()
    images = IMAGES + offsets[:, None, None, None]
    named = labels.astype(str) if text else labels
    loader = [
        {"image": images[start : start + batch_size], "label": named[start : start + batch_size]}
        for start in range(0, 40, batch_size)
    ]
    got = neurovar.noise.within_class(model, loader, layers=[LAYER], structure=structure, rng=0)[LAYER]
    check(got, reference.about_class(model[:2](images).flatten(1).numpy(), labels), structure)
    assert got.dof == 36 and got.n_samples == 40 and not got.mean_shift.any()


def test_what_classes_share_is_recovered_whatever_their_means() -> None:
    truth = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    labels = torch.randint(0, 10, (5000,), generator=seeded(1))
    noise = Dense(truth).sample((5000,), generator=seeded(2))
    images = (noise + 100 * torch.randn(10, 2, generator=seeded(3))[labels]).view(-1, 1, 1, 2)
    loader = zip(images.split(100), labels.split(100), strict=True)
    got = neurovar.noise.within_class(
        nn.Sequential(nn.Flatten()).eval(), loader, layers=["0"], structure=Full(), rng=0
    )["0"]
    torch.testing.assert_close(got.noise.to_dense(), truth, rtol=0, atol=5 * 2 * (2 / 4990) ** 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_layer_s(dtype: torch.dtype) -> None:
    batches = IMAGES.to(dtype).split(20)
    got = neurovar.noise.modified(network(dtype), batches, inverted, layers=[LAYER], structure=LowRank(2), rng=0)[LAYER]
    assert got.noise.dtype == got.mean_shift.dtype == dtype


def test_networks_are_left_as_they_were() -> None:
    model = network()
    neurovar.noise.modified(model, IMAGES.split(20), inverted, layers=[LAYER], structure=DiagonalOnly(), rng=0)
    with pytest.raises(ValueError, match="expected finite activations"):
        neurovar.noise.modified(
            model, IMAGES.split(20), lambda x, generator: x / 0, layers=[LAYER], structure=DiagonalOnly(), rng=0
        )
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_activations_are_never_all_in_memory() -> None:
    """Batches are read one at a time, each after the activations of the one before have been taken."""
    alive: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            alive.append(x)
            return x

    read: list[int] = []

    def batches() -> Iterator[Tensor]:
        for i in range(5):
            assert len(alive) == 2 * i
            read.append(i)
            yield IMAGES[:4] + i

    model = nn.Sequential(nn.Flatten(), Watched()).eval()
    neurovar.noise.modified(model, batches(), inverted, layers=["1"], structure=DiagonalOnly(), rng=0)
    assert read == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("rank", [1, 4, 12])
def test_a_power_law_has_its_spectrum(exponent: float, rank: int) -> None:
    source = neurovar.noise.power_law(12, exponent=exponent, rank=rank, trace=7.0, axes=seeded())
    weights = np.array([k**-exponent if k <= rank else 0 for k in range(1, 13)])
    np.testing.assert_allclose(source.noise.spectrum().numpy(), 7 * weights / weights.sum(), atol=1e-5)
    assert isinstance(source.noise, Dense if rank == 12 else LowRankPlusDiagonal)
    assert source.origin == Origin("power_law", of=f"exponent {exponent:g}") and not source.mean_shift.any()
    assert source.structure == (Full() if rank == 12 else LowRank(rank))
    other = neurovar.noise.power_law(12, exponent=exponent, rank=rank, trace=7.0, axes=seeded(1)).noise
    if rank < 12 or exponent:
        assert not torch.allclose(source.noise.to_dense(), other.to_dense(), atol=0.01)


def test_random_axes_are_uniform() -> None:
    """The mean of a Haar-distributed projection of rank r on n dimensions is r/n·I."""
    generator = seeded()
    draws = [
        neurovar.noise.power_law(3, exponent=0, rank=1, trace=1.0, axes=generator).noise.to_dense() for _ in range(1500)
    ]
    # Var of a squared coordinate is 4/45, of a product 1/15.
    torch.testing.assert_close(torch.stack(draws).mean(0), torch.eye(3) / 3, rtol=0, atol=5 * (4 / 45 / 1500) ** 0.5)


def test_a_power_law_along_given_axes() -> None:
    axes = torch.eye(5, dtype=torch.float64)[:, [3, 0]]
    noise = neurovar.noise.power_law(5, exponent=1, rank=2, trace=3.0, axes=axes).noise
    torch.testing.assert_close(noise.diagonal(), torch.tensor([1.0, 0, 0, 2, 0], dtype=torch.float64))
    assert noise.dtype == torch.float64


def test_many_units_take_no_matrix() -> None:
    source = neurovar.noise.power_law(200_704, exponent=1.0, rank=8, trace=200_704.0, axes=seeded())
    assert source.noise.trace() == pytest.approx(200_704, rel=1e-4)
    assert source.noise.sample((2,), generator=seeded()).shape == (2, 200_704)


WIDE = nn.Sequential(nn.ConstantPad1d((0, 200_679), 0.0), nn.Flatten()).eval()


def test_a_matrix_that_will_not_fit_is_foreseen() -> None:
    """At 200,704 units it takes 161 GB; low rank and diagonal fit."""
    call = partial(neurovar.noise.modified, WIDE, modification=inverted, layers=["1"], rng=0)
    flat = IMAGES.flatten(1)
    with pytest.raises(ValueError, match=r"got 200704 units: 161\.1 GB of .* LowRankPlusDiagonal of rank 64"):
        call(batches=flat.split(20), structure=Full())
    with pytest.raises(ValueError, match=r"got 200704 units: 483\.4 GB of .* LowRankPlusDiagonal of rank 64"):
        neurovar.noise.power_law(200_704, exponent=1.0, rank=200_703, trace=1.0, axes=seeded())
    assert call(batches=flat.split(20), structure=LowRank(2))["1"].noise.n == 200_704
    assert call(batches=flat.split(20), structure=DiagonalOnly())["1"].noise.n == 200_704


@pytest.mark.parametrize("structure", [Full(), DiagonalOnly(), LowRank(2)], ids=str)
def test_cortical(structure: Structure) -> None:
    recording = statistics.population(n_stimuli=30, n_repeats=5, n_units=6, rng=0)
    recording.values[3, 2:] = np.nan
    source = neurovar.noise.cortical(recording, structure)
    same = statistics.fit_covariance(recording, structure)
    assert torch.equal(source.noise.to_dense(), same.to_dense()) and source.mean_shift.shape == (6,)
    assert source.n_samples == 147 and source.dof == 117
    assert (source.error == 0) == (structure == Full())


@pytest.mark.data
def test_v4_is_a_source() -> None:
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    dense, low_rank = (neurovar.noise.cortical(v4, structure) for structure in (Full(), LowRank(8)))
    matrix = statistics.noise_covariance(v4).values
    np.testing.assert_allclose(dense.noise.to_dense().numpy(), matrix, rtol=1e-4, atol=1e-4)
    assert dense.dof == int((np.isfinite(v4.values[:, :, 0]).sum(1) - 1).clip(0).sum())
    assert low_rank.noise.trace() == pytest.approx(dense.noise.trace(), rel=1e-5)
    assert low_rank.noise.rank == 8 and dense.origin == Origin("cortical", of=v4.attrs["source"])


def call_modified(**options: object) -> object:
    chosen = {"modification": inverted, "layers": [LAYER], "structure": Full(), "rng": 0} | options
    return neurovar.noise.modified(chosen.pop("model", network()), chosen.pop("batches", IMAGES.split(20)), **chosen)


def call_power_law(**options: object) -> object:
    return neurovar.noise.power_law(**({"n": 4, "exponent": 1.0, "rank": 2, "trace": 1.0, "axes": seeded()} | options))


def call_classes(labels: object = None, **options: object) -> object:
    loader = [(IMAGES, LABELS if labels is None else labels)]
    return neurovar.noise.within_class(
        network(), loader, **({"layers": [LAYER], "structure": Full(), "rng": 0} | options)
    )


LABELLED = "expected batches of \\(images, labels\\) or with 'image' and 'label', got "
INVALID: dict[str, Callable[[], object]] = {
    r"expected a structure, such as Full\(\) .*, got 'sparse'": lambda: call_modified(structure="sparse"),
    r"expected a rank from 1 to the 18 units, got 19": lambda: call_modified(structure=LowRank(19)),
    r"expected a finite ridge of at least 0, got -1": lambda: call_modified(ridge=-1.0),
    r"expected a finite ridge of at least 0, got nan": lambda: call_modified(ridge=float("nan")),
    r"expected a model in evaluation mode, got the model": lambda: call_modified(model=network().train()),
    r"expected at least one layer, and each once, got \[\]": lambda: call_modified(layers=[]),
    r"expected a layer of Sequential, got 'x'": lambda: call_modified(layers=["x"]),
    r"expected at least one batch, got none": lambda: call_modified(batches=[]),
    r"expected at least 2 samples for a covariance about the mean, got 1": (
        lambda: call_modified(batches=IMAGES[:1].split(1))
    ),
    r"expected at least 2 degrees of freedom for rank 2, got 1": (
        lambda: call_modified(structure=LowRank(2), batches=IMAGES[:2].split(1))
    ),
    r"expected batches \(batch, channel, \*position\), got units of shape \(4,\)": (
        lambda: call_modified(structure=KroneckerProduct(), layers=["3"])
    ),
    LABELLED + "Tensor": (
        lambda: neurovar.noise.attacked(NOISY, IMAGES.split(9), Steps(0.1), layers=[LAYER], structure=Full(), rng=0)
    ),
    LABELLED + "dict": (
        lambda: neurovar.noise.attacked(
            NoisyNetwork(network(), images=IMAGES),
            [{"image": IMAGES}],
            Steps(0.1),
            layers=[LAYER],
            structure=Full(),
            rng=0,
        )
    ),
    LABELLED + r"labels \[\]": (
        lambda: neurovar.noise.within_class(network(), [IMAGES], layers=[LAYER], structure=Full(), rng=0)
    ),
    r"expected more images than classes, got 40 of 40 classes": lambda: call_classes(labels=torch.arange(40)),
    r"expected at least 5 degrees of freedom for rank 5, got 3": (
        lambda: call_classes(labels=torch.arange(40).clamp(max=36), structure=LowRank(5))
    ),
    r"expected at least 2 repeats, got 1": (
        lambda: neurovar.noise.stochastic(network(), [IMAGES], layers=[LAYER], n_repeats=1, structure=Full(), rng=0)
    ),
    r"expected a stochastic network for 3 repeats, got the same responses each time": (
        lambda: neurovar.noise.stochastic(network(), [IMAGES], layers=[LAYER], n_repeats=3, structure=Full(), rng=0)
    ),
    r"expected passes that differ at layer '0', got the same responses each time": (
        lambda: neurovar.noise.stochastic(
            nn.Sequential(nn.Flatten(), nn.Dropout()), [IMAGES], layers=["0", "1"], n_repeats=3, structure=Full(), rng=0
        )
    ),
    r"expected a rank from 1 to the 4 units, got 5": lambda: call_power_law(rank=5),
    r"expected a rank from 1 to the 4 units, got 0": lambda: call_power_law(rank=0),
    r"expected a finite exponent and a finite trace above 0, got nan and 1.0": (
        lambda: call_power_law(exponent=float("nan"))
    ),
    r"expected a finite exponent and a finite trace above 0, got 1.0 and 0.0": lambda: call_power_law(trace=0.0),
    r"expected axes as floats of shape \(4, 2\), or a torch.Generator, got torch.float32 \(4, 3\)": (
        lambda: call_power_law(axes=torch.eye(4)[:, :3])
    ),
    r"expected axes as floats of shape \(4, 2\), or a torch.Generator, got int": lambda: call_power_law(axes=0),
    r"expected orthonormal axes, got AᵀA − I up to 1": lambda: call_power_law(axes=torch.ones(4, 2) / 2),
    r"expected orthonormal axes, got AᵀA − I up to nan": lambda: call_power_law(axes=torch.full((4, 2), torch.nan)),
    r"expected Full.*, got KroneckerProduct": lambda: neurovar.noise.cortical(
        statistics.population(n_stimuli=5, n_repeats=3, n_units=4, rng=0), KroneckerProduct()
    ),
}


@pytest.mark.parametrize("message", INVALID)
def test_bad_input(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        INVALID[message]()


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu() -> None:
    here = call_modified(structure=LowRank(2))[LAYER]
    there = call_modified(structure=LowRank(2), model=network().cuda())[LAYER]
    assert there.noise.device.type == there.mean_shift.device.type == "cuda"
    torch.testing.assert_close(there.noise.to_dense().cpu(), here.noise.to_dense(), rtol=1e-3, atol=1e-6)
