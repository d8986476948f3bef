"""One contract for every Covariance type, against a dense matrix; a new type is one more line in CASES."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from safetensors.torch import save_file
from scipy import stats

from neurovar import covariance
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal, load

N = 6
RNG = np.random.default_rng(11)
VARIANCE = RNG.uniform(0.2, 2.0, N)
FACTORS = RNG.normal(size=(N, 2))
WIDE = RNG.normal(size=(N, 8))
LINE = np.outer(np.arange(1.0, N + 1), np.arange(1.0, N + 1)) / 10


def t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


# name: the type, made in float64, and the matrix that it stands for.
CASES: dict[str, tuple[Callable[[], Covariance], np.ndarray]] = {
    "diagonal": (lambda: Diagonal(t(VARIANCE)), np.diag(VARIANCE)),
    "diagonal with a silent unit": (
        lambda: Diagonal(t(VARIANCE * (VARIANCE > 0.5))),
        np.diag(VARIANCE * (VARIANCE > 0.5)),
    ),
    "isotropic": (lambda: Diagonal.isotropic(N, variance=1.5).to(dtype=torch.float64), 1.5 * np.eye(N)),
    "dense": (lambda: Dense(t(reference.noise_matrix("structured", N))), reference.noise_matrix("structured", N)),
    "dense of rank 1": (lambda: Dense(t(LINE)), LINE),
    "low rank": (lambda: LowRankPlusDiagonal(t(FACTORS), t(VARIANCE)), FACTORS @ FACTORS.T + np.diag(VARIANCE)),
    "low rank alone": (lambda: LowRankPlusDiagonal(t(FACTORS), t(0 * VARIANCE)), FACTORS @ FACTORS.T),
    "more factors than units": (lambda: LowRankPlusDiagonal(t(WIDE), t(VARIANCE)), WIDE @ WIDE.T + np.diag(VARIANCE)),
}


@dataclass
class Case:
    covariance: Covariance
    matrix: np.ndarray
    dtype: torch.dtype

    @property
    def tolerance(self) -> float:
        return 2e-5 if self.dtype is torch.float32 else 1e-10


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, dtype: torch.dtype) -> Case:
    make, matrix = CASES[request.param]
    return Case(make().to(dtype=dtype), matrix, dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_contract_covers_every_type() -> None:
    assert {type(make()) for make, _ in CASES.values()} == set(covariance.KINDS.values())
    assert set(Covariance.__subclasses__()) == set(covariance.KINDS.values())


def test_it_equals_its_matrix(case: Case) -> None:
    assert case.covariance.n == N
    assert case.covariance.to_dense().dtype == case.covariance.diagonal().dtype == case.covariance.dtype == case.dtype
    close = {"rtol": case.tolerance, "atol": case.tolerance}
    np.testing.assert_allclose(case.covariance.to_dense().numpy(), case.matrix, **close)
    np.testing.assert_allclose(case.covariance.diagonal().numpy(), np.diag(case.matrix), **close)
    assert case.covariance.trace() == pytest.approx(np.trace(case.matrix), rel=case.tolerance)


def test_its_spectrum(case: Case) -> None:
    spectrum = case.covariance.spectrum()
    expected = np.sort(np.linalg.eigvalsh(case.matrix))[::-1]
    assert spectrum.dtype == torch.float64
    assert (spectrum >= 0).all()
    np.testing.assert_allclose(spectrum.numpy(), expected, atol=case.tolerance * expected[0])
    expected_dimensionality = reference.effective_dimensionality(case.matrix)
    assert case.covariance.effective_dimensionality() == pytest.approx(expected_dimensionality, rel=case.tolerance)


@pytest.mark.parametrize("trace", [1e-3, 12.0, 1e4])
def test_scaling_keeps_the_structure(case: Case, trace: float) -> None:
    scaled = case.covariance.scale_to(trace=trace)
    assert type(scaled) is type(case.covariance) and scaled.dtype == case.dtype
    assert scaled.trace() == pytest.approx(trace, rel=case.tolerance)
    expected = case.matrix * trace / np.trace(case.matrix)
    np.testing.assert_allclose(scaled.to_dense().numpy(), expected, atol=case.tolerance * expected.max())


def test_scaling_leaves_the_original_alone(case: Case) -> None:
    before = case.covariance.to_dense().clone()
    case.covariance.scale_to(trace=99.0)
    assert torch.equal(case.covariance.to_dense(), before)


def test_samples_have_the_covariance(case: Case) -> None:
    """Every entry of the sampled covariance within 5 standard errors of the truth, and the means within 5."""
    rows = 20_000
    samples = case.covariance.sample((rows,), generator=seeded(3)).double().numpy()
    variance = np.diag(case.matrix)
    moving = variance > 0
    np.testing.assert_array_equal(samples[:, ~moving], 0)
    samples, truth = samples[:, moving], case.matrix[np.ix_(moving, moving)]
    assert np.abs(reference.covariance_z_scores(samples.T @ samples / rows, truth, rows)).max() < 5
    assert np.abs(samples.mean(axis=0) / np.sqrt(variance[moving] / rows)).max() < 5


def test_samples_are_gaussian_by_scipy(case: Case) -> None:
    """Whitened by scipy's Covariance, in the space the noise fills, the squared length is chi-squared."""
    rows = 4000
    samples = case.covariance.sample((rows,), generator=seeded(4)).double().numpy()
    values, vectors = np.linalg.eigh(case.matrix)
    filled = values > 1e-9 * values[-1]
    scores = samples @ vectors[:, filled]
    whitened = stats.Covariance.from_eigendecomposition((values[filled], np.eye(filled.sum()))).whiten(scores)
    assert stats.kstest((whitened**2).sum(axis=1), stats.chi2(filled.sum()).cdf).pvalue > 1e-3
    np.testing.assert_allclose(samples @ vectors[:, ~filled], 0, atol=2e-2 if case.dtype is torch.float32 else 1e-6)


def test_a_seed_means_one_sample(case: Case) -> None:
    first = case.covariance.sample((4,), generator=seeded(0))
    assert torch.equal(first, case.covariance.sample((4,), generator=seeded(0)))
    assert not torch.equal(first, case.covariance.sample((4,), generator=seeded(1)))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3), (2, 0), (2, 1, 3)])
def test_sample_shapes(case: Case, shape: tuple[int, ...]) -> None:
    sample = case.covariance.sample(shape, generator=seeded(0))
    assert sample.shape == (*shape, N)
    assert sample.dtype == case.dtype


def test_draws_are_the_same_whatever_their_shape(case: Case) -> None:
    flat = case.covariance.sample((6,), generator=seeded(5))
    assert torch.equal(case.covariance.sample((2, 3), generator=seeded(5)), flat.reshape(2, 3, N))


def test_another_type_and_back(case: Case) -> None:
    other = torch.float64 if case.dtype is torch.float32 else torch.float32
    moved = case.covariance.to(dtype=other)
    assert moved.dtype == moved.to_dense().dtype == other and moved.device == case.covariance.device
    assert case.covariance.dtype == case.dtype
    np.testing.assert_allclose(moved.to_dense().numpy(), case.matrix, rtol=2e-5, atol=2e-5)


def test_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    case.covariance.save(tmp_path / "noise.safetensors")
    loaded = load(tmp_path / "noise.safetensors")
    assert type(loaded) is type(case.covariance) and loaded.dtype == case.dtype
    assert torch.equal(loaded.to_dense(), case.covariance.to_dense())
    sample = case.covariance.sample((3,), generator=seeded(0))
    assert torch.equal(loaded.sample((3,), generator=seeded(0)), sample)


def test_it_is_frozen(case: Case) -> None:
    field = next(iter(case.covariance._tensors()))
    with pytest.raises(AttributeError, match=f"cannot assign to field '{field}'"):
        setattr(case.covariance, field, torch.ones(N))


@pytest.mark.parametrize("trace", [0, -1.0, float("nan")])
def test_a_trace_that_is_not_positive(trace: float) -> None:
    with pytest.raises(ValueError, match=f"expected a trace above 0, got {trace}"):
        Diagonal.isotropic(3).scale_to(trace=trace)


@pytest.mark.parametrize("silent", [Diagonal(torch.zeros(3)), Dense(torch.zeros(3, 3))])
def test_silence_has_neither_scale_nor_dimensionality(silent: Covariance) -> None:
    for use in (lambda: silent.scale_to(trace=1.0), silent.effective_dimensionality):
        with pytest.raises(ValueError, match="expected noise with variance, got a trace of 0 over 3 units"):
            use()


def test_leading_eigenvalues() -> None:
    low_rank = LowRankPlusDiagonal(t(FACTORS), t(VARIANCE))
    expected = np.sort(np.linalg.eigvalsh(FACTORS @ FACTORS.T + np.diag(VARIANCE)))[::-1][:3]
    np.testing.assert_allclose(low_rank.leading_eigenvalues(3).numpy(), expected, rtol=1e-10)
    assert low_rank.rank == 2


def test_many_units_never_write_the_matrix_out() -> None:
    """200,000 units would need 160 GB as a matrix."""
    n = 200_000
    noise = LowRankPlusDiagonal(torch.ones(n, 2), torch.ones(n)).scale_to(trace=3.0 * n)
    assert noise.trace() == pytest.approx(3 * n, rel=1e-5)
    # C = 11ᵀ·2 + I: one eigenvalue 2n + 1, n − 1 of 1.
    assert noise.effective_dimensionality() == pytest.approx((3 * n) ** 2 / ((2 * n + 1) ** 2 + n - 1), rel=1e-5)
    assert noise.sample((2,), generator=seeded(0)).shape == (2, n)
    assert float(noise.leading_eigenvalues(1)[0]) == pytest.approx(2 * n + 1, rel=1e-5)


ASYMMETRIC = torch.tensor([[1.0, 0.5], [0.1, 1.0]])
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
INVALID = {
    r"expected variances as floats of shape \(n,\), got torch.int64 \(3,\)": lambda: Diagonal(torch.ones(3).long()),
    r"expected variances as floats of shape \(n,\), got torch.float32 \(3, 1\)": lambda: Diagonal(torch.ones(3, 1)),
    r"expected variances as floats of shape \(n,\), got torch.float32 \(0,\)": lambda: Diagonal(torch.ones(0)),
    "expected variances finite and not negative, got a smallest value of -1": (
        lambda: Diagonal(torch.tensor([1.0, -1.0]))
    ),
    "expected variances finite and not negative, got a smallest value of nan": (
        lambda: Diagonal(torch.tensor([1.0, float("nan")]))
    ),
    r"expected a square matrix of floats, got torch.float32 \(2, 3\)": lambda: Dense(torch.ones(2, 3)),
    r"expected a square matrix of floats, got torch.int64 \(2, 2\)": lambda: Dense(torch.eye(2).long()),
    "expected a finite covariance, got 1 NaN or infinite": lambda: Dense(torch.tensor([[float("inf")]])),
    r"expected a symmetric matrix, got \|C − Cᵀ\| up to 0.4": lambda: Dense(ASYMMETRIC),
    r"expected a positive semi-definite matrix, got an eigenvalue of -1 \(largest 3\)": lambda: Dense(INDEFINITE),
    r"expected private variances as floats of shape \(n,\), got torch.float32 \(2, 1\)": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 1), torch.ones(2, 1))
    ),
    "expected private variances finite and not negative, got a smallest value of -2": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 1), torch.tensor([1.0, -2.0]))
    ),
    r"expected factors of shape \(2, r\), as there are 2 private variances, got \(3, 1\)": (
        lambda: LowRankPlusDiagonal(torch.ones(3, 1), torch.ones(2))
    ),
    r"expected factors of shape \(2, r\), as there are 2 private variances, got \(2, 0\)": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 0), torch.ones(2))
    ),
    "expected finite factors of torch.float32, got torch.float64 or NaN": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 1).double(), torch.ones(2))
    ),
    "expected finite factors of torch.float32, got torch.float32 or NaN": (
        lambda: LowRankPlusDiagonal(torch.full((2, 1), float("nan")), torch.ones(2))
    ),
}


@pytest.mark.parametrize("message", INVALID)
def test_bad_tensors(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        INVALID[message]()


def test_rounding_below_zero_is_forgiven() -> None:
    almost = torch.tensor([[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]])
    sample = Dense(almost).sample((100,), generator=seeded(0))
    torch.testing.assert_close(sample[:, 0], sample[:, 1], rtol=0, atol=1e-3)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def header(kind: object) -> dict[str, str]:
    return {"neurovar": json.dumps({"kind": kind, "version": 1})}


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Hostile(path.with_name("executed"))))


def write_torch(path: Path) -> None:
    torch.save({"variance": torch.ones(2), "more": Hostile(path.with_name("executed"))}, path)


def write_truncated(path: Path) -> None:
    Diagonal.isotropic(100).save(path)
    path.write_bytes(path.read_bytes()[:-50])


ONES = {"variance": torch.ones(2)}
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not a tensor in sight"), "could not read"),
    "empty": (lambda path: path.write_bytes(b""), "could not read"),
    "pickle": (write_pickle, "could not read"),
    "torch.save": (write_torch, "could not read"),
    "truncated": (write_truncated, "could not read"),
    "no header": (lambda path: save_file(ONES, path), "could not read .*'kind'"),
    "header that is not JSON": (lambda path: save_file(ONES, path, metadata={"neurovar": "{"}), "could not read"),
    "header that is a list": (lambda path: save_file(ONES, path, metadata={"neurovar": "[1]"}), "could not read"),
    "unknown kind": (lambda path: save_file(ONES, path, metadata=header("Toeplitz")), "could not read .*'Toeplitz'"),
    "kind that is a list": (lambda path: save_file(ONES, path, metadata=header(["Dense"])), "could not read"),
    "other tensors": (lambda path: save_file(ONES, path, metadata=header("Dense")), "could not read .*'variance'"),
    "too many tensors": (
        lambda path: save_file({**ONES, "matrix": torch.eye(2)}, path, metadata=header("Diagonal")),
        "could not read .*'matrix'",
    ),
    "bad values": (
        lambda path: save_file({"variance": -torch.ones(2)}, path, metadata=header("Diagonal")),
        "could not read .*expected variances finite and not negative",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    write, message = HOSTILE[name]
    path = tmp_path / "noise.safetensors"
    write(path)
    with pytest.raises(ValueError, match=f"expected a covariance saved by neurovar, {message}"):
        load(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["nowhere.safetensors", "."])
def test_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a covariance file, found none at"):
        load(tmp_path / name)
