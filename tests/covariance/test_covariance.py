"""One contract for every Covariance type, against a dense matrix; a new type is one more line in CASES."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from scipy import stats
from seeds import generator

from neurovar import covariance
from neurovar.covariance import (
    Covariance,
    Dense,
    Diagonal,
    GainModulated,
    Kronecker,
    LowRankPlusDiagonal,
    MeanShift,
    Sum,
    load,
)

N = 6
RNG = np.random.default_rng(11)
VARIANCE = RNG.uniform(0.2, 2.0, N)
FACTORS = RNG.normal(size=(N, 2))
WIDE = RNG.normal(size=(N, 8))
LINE = np.outer(np.arange(1.0, N + 1), np.arange(1.0, N + 1)) / 10
STRUCTURED = reference.noise_matrix("structured", N)
CHANNEL, SPACE = STRUCTURED[:2, :2], reference.noise_matrix("structured", 3)
SHARED = FACTORS @ FACTORS.T + np.diag(VARIANCE)
HEYWOOD = VARIANCE * (np.arange(N) != 3)  # one unit that the factors explain wholly
STATES = RNG.normal(size=(5, N)) * (RNG.uniform(size=(5, N)) < 0.8)
AVERAGE = 0.3 * STATES.T @ STATES / 5 + np.diag(VARIANCE * (np.abs(STATES) ** 1.2).mean(axis=0))
SHIFT = RNG.normal(size=N)


def t(array: np.ndarray | float) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def gain() -> GainModulated:
    return GainModulated(t(0.3), t(VARIANCE), t(1.2), t(STATES))


def kronecker() -> Kronecker:
    return Kronecker(Dense(t(CHANNEL)), Dense(t(SPACE)))


# name: the type, made in float64, and the matrix that it stands for.
CASES: dict[str, tuple[Callable[[], Covariance], np.ndarray]] = {
    "diagonal": (lambda: Diagonal(t(VARIANCE)), np.diag(VARIANCE)),
    "diagonal with a silent unit": (
        lambda: Diagonal(t(VARIANCE * (VARIANCE > 0.5))),
        np.diag(VARIANCE * (VARIANCE > 0.5)),
    ),
    "isotropic": (lambda: Diagonal.isotropic(N, variance=1.5).to(dtype=torch.float64), 1.5 * np.eye(N)),
    "dense": (lambda: Dense(t(STRUCTURED)), STRUCTURED),
    "dense of rank 1": (lambda: Dense(t(LINE)), LINE),
    "low rank": (lambda: LowRankPlusDiagonal(t(FACTORS), t(VARIANCE)), SHARED),
    "low rank alone": (lambda: LowRankPlusDiagonal(t(FACTORS), t(0 * VARIANCE)), FACTORS @ FACTORS.T),
    "a unit without private noise": (
        lambda: LowRankPlusDiagonal(t(FACTORS), t(HEYWOOD)),
        FACTORS @ FACTORS.T + np.diag(HEYWOOD),
    ),
    "more factors than units": (lambda: LowRankPlusDiagonal(t(WIDE), t(VARIANCE)), WIDE @ WIDE.T + np.diag(VARIANCE)),
    "factors alone, more than units": (lambda: LowRankPlusDiagonal(t(WIDE), t(0 * VARIANCE)), WIDE @ WIDE.T),
    "kronecker": (kronecker, np.kron(CHANNEL, SPACE)),
    "kronecker of other types": (
        lambda: Kronecker(LowRankPlusDiagonal(t(FACTORS[:3]), t(VARIANCE[:3])), Diagonal(t(VARIANCE[:2]))),
        np.kron(FACTORS[:3] @ FACTORS[:3].T + np.diag(VARIANCE[:3]), np.diag(VARIANCE[:2])),
    ),
    "kronecker of a sum": (
        lambda: Kronecker(Sum((Diagonal(t(VARIANCE[:2])), Dense(t(CHANNEL)))), Diagonal(t(VARIANCE[:3]))),
        np.kron(np.diag(VARIANCE[:2]) + CHANNEL, np.diag(VARIANCE[:3])),
    ),
    "gain": (gain, AVERAGE),
    "gain alone": (
        lambda: GainModulated(t(0.5), t(0 * VARIANCE), t(0.0), t(STATES[:1])),
        0.5 * np.outer(STATES[0], STATES[0]),
    ),
    "mean shift": (lambda: MeanShift(t(SHIFT)), np.outer(SHIFT, SHIFT)),
    "sum": (lambda: kronecker() + Diagonal(t(VARIANCE)), np.kron(CHANNEL, SPACE) + np.diag(VARIANCE)),
    "sum without Dense": (
        lambda: Sum((Diagonal(t(VARIANCE)), LowRankPlusDiagonal(t(WIDE), t(VARIANCE)))),
        WIDE @ WIDE.T + np.diag(2 * VARIANCE),
    ),
    "sum of three": (
        lambda: LowRankPlusDiagonal(t(FACTORS), t(VARIANCE)) + kronecker() + gain(),
        SHARED + np.kron(CHANNEL, SPACE) + AVERAGE,
    ),
    "noise with a mean": (
        lambda: Sum((Dense(t(STRUCTURED)), MeanShift(t(SHIFT)))),
        STRUCTURED + np.outer(SHIFT, SHIFT),
    ),
    "scaled": (lambda: 2.5 * kronecker(), 2.5 * np.kron(CHANNEL, SPACE)),
}
MEANS = {"mean shift": SHIFT, "noise with a mean": SHIFT}
MIXTURES = {"gain", "sum of three"}  # not Gaussian, as each row has a state of its own


@dataclass
class Case:
    name: str
    covariance: Covariance
    matrix: np.ndarray
    dtype: torch.dtype

    @property
    def tolerance(self) -> float:
        return 2e-5 if self.dtype is torch.float32 else 1e-10

    @property
    def is_singular(self) -> bool:
        return bool(np.linalg.matrix_rank(self.matrix) < N)

    @property
    def state_dependent(self) -> bool:
        return "gain" in self.name or self.name in MIXTURES

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, dtype=self.dtype, device=self.covariance.device)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, dtype: torch.dtype, device: str) -> Case:
    make, matrix = CASES[request.param]
    return Case(request.param, make().to(device=device, dtype=dtype), matrix, dtype)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def test_the_contract_covers_every_type() -> None:
    own = {kind for kind in covariance.types().values() if kind.__module__.startswith("neurovar.")}
    assert {type(make()) for make, _ in CASES.values()} == own


def test_it_equals_its_matrix(case: Case) -> None:
    assert case.covariance.n == N
    assert case.covariance.to_dense().dtype == case.covariance.diagonal().dtype == case.covariance.dtype == case.dtype
    assert case.covariance.to_dense().device == case.covariance.device
    close = {"rtol": case.tolerance, "atol": case.tolerance}
    np.testing.assert_allclose(array(case.covariance.to_dense()), case.matrix, **close)
    np.testing.assert_allclose(array(case.covariance.diagonal()), np.diag(case.matrix), **close)
    assert case.covariance.trace() == pytest.approx(np.trace(case.matrix), rel=case.tolerance)


def test_its_spectrum(case: Case) -> None:
    spectrum = case.covariance.spectrum()
    expected = np.sort(np.linalg.eigvalsh(case.matrix))[::-1]
    assert spectrum.dtype == torch.float64 and spectrum.shape == (N,)
    assert (spectrum >= 0).all()
    np.testing.assert_allclose(array(spectrum), expected, atol=case.tolerance * expected[0])
    expected_dimensionality = reference.effective_dimensionality(case.matrix)
    assert case.covariance.effective_dimensionality() == pytest.approx(expected_dimensionality, rel=case.tolerance)


def test_log_determinant_and_mahalanobis_by_scipy(case: Case) -> None:
    deviations = np.random.default_rng(5).normal(size=(2, 3, N))
    if case.is_singular:
        for use in (case.covariance.log_determinant, lambda: case.covariance.mahalanobis(case.tensor(deviations))):
            with pytest.raises(ValueError, match=r"expected a covariance that has an inverse, got a singular one over"):
                use()
        return
    found = case.covariance.mahalanobis(case.tensor(deviations))
    assert found.shape == (2, 3) and found.dtype == case.dtype
    tolerance = 1e-3 if case.dtype is torch.float32 else 1e-8
    expected = np.einsum("...i,ij,...j", deviations, np.linalg.inv(case.matrix), deviations)
    np.testing.assert_allclose(array(found), expected, rtol=tolerance)
    log_density = -0.5 * (N * np.log(2 * np.pi) + case.covariance.log_determinant() + array(found))
    normal = stats.multivariate_normal(np.zeros(N), case.matrix)
    np.testing.assert_allclose(log_density, normal.logpdf(deviations), rtol=tolerance)


def test_scaling_keeps_the_structure(case: Case) -> None:
    trace = 1e4
    scaled = case.covariance.scale_to(trace=trace)
    assert type(scaled) is type(case.covariance) and scaled.dtype == case.dtype
    assert scaled.trace() == pytest.approx(trace, rel=case.tolerance)
    expected = case.matrix * trace / np.trace(case.matrix)
    np.testing.assert_allclose(array(scaled.to_dense()), expected, atol=case.tolerance * expected.max())


def test_scaling_leaves_the_original_alone(case: Case) -> None:
    before = case.covariance.to_dense().clone()
    case.covariance.scale_to(trace=99.0)
    assert torch.equal(case.covariance.to_dense(), before)


@pytest.mark.parametrize("factor", [0, np.float64(0.2)])
def test_multiples(case: Case, factor: float) -> None:
    multiple = factor * case.covariance
    assert type(multiple) is type(case.covariance) and multiple.dtype == case.dtype
    np.testing.assert_allclose(array(multiple.to_dense()), factor * case.matrix, atol=10 * case.tolerance)


def test_units_rescaled(case: Case) -> None:
    scale = np.random.default_rng(6).normal(size=N) * (np.arange(N) != 1)
    rescaled = case.covariance.conjugate(case.tensor(scale))
    assert rescaled.dtype == case.dtype
    expected = case.matrix * np.outer(scale, scale)
    np.testing.assert_allclose(array(rescaled.to_dense()), expected, atol=10 * case.tolerance)


@pytest.mark.parametrize("m", [N, 9])
def test_mapped_onto_other_units(case: Case, m: int) -> None:
    matrix = np.random.default_rng(7).normal(size=(m, N))
    if case.state_dependent:
        with pytest.raises(ValueError, match=r"expected a vector for state-dependent noise, got a matrix"):
            case.covariance.conjugate(case.tensor(matrix))
        return
    mapped = case.covariance.conjugate(case.tensor(matrix))
    assert mapped.n == m and mapped.dtype == case.dtype
    np.testing.assert_allclose(array(mapped.to_dense()), matrix @ case.matrix @ matrix.T, atol=100 * case.tolerance)
    if case.name not in MEANS:
        assert type(mapped) is (Dense if m <= N else LowRankPlusDiagonal)


def assert_moments(samples: np.ndarray, second_moment: np.ndarray, mean: np.ndarray) -> None:
    """Means and second moments within 5 standard errors, which come from the samples where these are not Gaussian."""
    rows = len(samples)
    products = np.einsum("ri,rj->ijr", samples, samples)
    errors = products.std(axis=2) / np.sqrt(rows) + 1e-6 * np.abs(second_moment) + 1e-12
    assert (np.abs(products.mean(axis=2) - second_moment) / errors).max() < 5
    errors = samples.std(axis=0) / np.sqrt(rows) + 1e-6 * np.abs(mean) + 1e-12
    assert (np.abs(samples.mean(axis=0) - mean) / errors).max() < 5


def test_samples_have_the_covariance(case: Case) -> None:
    samples = array(case.covariance.sample((20_000,), generator=generator(3)))
    assert_moments(samples, case.matrix, MEANS.get(case.name, np.zeros(N)))


def test_gaussian_samples_have_the_covariance(case: Case) -> None:
    """Every entry of the sampled covariance within 5 standard errors of the truth, by the formula for Gaussian data."""
    if case.name in MIXTURES or case.name in MEANS:
        pytest.skip("not Gaussian, or not centred")
    rows = 20_000
    samples = array(case.covariance.sample((rows,), generator=generator(3)))
    moving = np.diag(case.matrix) > 0
    np.testing.assert_array_equal(samples[:, ~moving], 0)
    samples, truth = samples[:, moving], case.matrix[np.ix_(moving, moving)]
    assert np.abs(reference.covariance_z_scores(samples.T @ samples / rows, truth, rows)).max() < 5
    # Whitened by scipy's Covariance, in the space the noise fills, the squared length is chi-squared.
    values, vectors = np.linalg.eigh(truth)
    filled = values > 1e-9 * values[-1]
    scores = samples @ vectors[:, filled]
    whitened = stats.Covariance.from_eigendecomposition((values[filled], np.eye(filled.sum()))).whiten(scores)
    assert stats.kstest((whitened**2).sum(axis=1), stats.chi2(filled.sum()).cdf).pvalue > 1e-3
    np.testing.assert_allclose(samples @ vectors[:, ~filled], 0, atol=2e-2 if case.dtype is torch.float32 else 1e-6)


def test_a_seed_means_one_sample(case: Case) -> None:
    first = case.covariance.sample((4,), generator=generator(0))
    assert torch.equal(first, case.covariance.sample((4,), generator=generator(0)))
    if case.name != "mean shift":
        assert not torch.equal(first, case.covariance.sample((4,), generator=generator(1)))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 0), (2, 1, 3)])
def test_sample_shapes(case: Case, shape: tuple[int, ...]) -> None:
    sample = case.covariance.sample(shape, generator=generator(0))
    assert sample.shape == (*shape, N)
    assert sample.dtype == case.dtype and sample.device == case.covariance.device
    assert sample.is_contiguous()


def test_draws_are_the_same_whatever_their_shape(case: Case) -> None:
    flat = case.covariance.sample((6,), generator=generator(5))
    assert torch.equal(case.covariance.sample((2, 3), generator=generator(5)), flat.reshape(2, 3, N))
    g = generator(5)
    split = torch.cat([case.covariance.sample((rows,), generator=g) for rows in (1, 3, 2)])
    torch.testing.assert_close(split, flat)


def test_noise_at_a_state(case: Case) -> None:
    states = case.tensor(np.ones((4, N)))
    noise = case.covariance.sample_at(states, generator=generator(2))
    assert noise.shape == (4, N) and noise.dtype == case.dtype and noise.is_contiguous()
    assert case.covariance.state_dependent == case.state_dependent
    other = case.covariance.sample_at(2 * states, generator=generator(2))
    assert torch.equal(noise, other) != case.state_dependent
    if not case.state_dependent:
        assert torch.equal(noise, case.covariance.sample((4,), generator=generator(2)))
    with pytest.raises(ValueError, match=rf"expected states \(rows, {N}\), got \(4, 5\)"):
        case.covariance.sample_at(states[:, :5], generator=generator(2))


def test_another_type_and_back(case: Case) -> None:
    other = torch.float64 if case.dtype is torch.float32 else torch.float32
    moved = case.covariance.to(dtype=other)
    assert type(moved) is type(case.covariance)
    assert moved.dtype == moved.to_dense().dtype == other and moved.device == case.covariance.device
    assert case.covariance.dtype == case.dtype
    np.testing.assert_allclose(array(moved.to_dense()), case.matrix, rtol=2e-5, atol=2e-5)


def test_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    case.covariance.save(tmp_path / "noise.safetensors")
    loaded = load(tmp_path / "noise.safetensors")
    assert type(loaded) is type(case.covariance) and loaded.dtype == case.dtype
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "noise.safetensors").read_bytes()
    np.testing.assert_allclose(array(loaded.to_dense()), case.matrix, rtol=2e-5, atol=case.tolerance)
    sample = case.covariance.sample((3,), generator=generator(0))
    torch.testing.assert_close(loaded.sample((3,), generator=generator(0)), sample.cpu())


def test_it_is_frozen(case: Case) -> None:
    field = next(iter(case.covariance.__dataclass_fields__))
    with pytest.raises(AttributeError, match=f"cannot assign to field '{field}'"):
        setattr(case.covariance, field, torch.ones(N))


def test_a_block_of_draws_is_handed_out_row_by_row(case: Case) -> None:
    """Whatever the number of rows asked for at once, to the last bit, and the rows of `sample`."""
    if case.state_dependent:
        with pytest.raises(ValueError, match="expected noise that does not depend on the activations"):
            case.covariance.sampler(generator=generator(1), block=4)
        return
    sampler = case.covariance.sampler(generator=generator(1), block=4)
    rows = torch.cat([sampler.draw((k,)) for k in (1, 0, 2, 6, 1)] + [sampler.draw()[None]])
    other = case.covariance.sampler(generator=generator(1), block=4)
    assert torch.equal(other.draw((11,)), rows)
    torch.testing.assert_close(case.covariance.sample((11,), generator=generator(1)), rows)
    assert other.draw((2, 3)).shape == (2, 3, N)
