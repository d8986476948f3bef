"""Noise structures fitted to responses and to a network's deviations."""

import numpy as np
import pytest
import reference
import torch
from sklearn.decomposition import PCA, FactorAnalysis

from neurovar import statistics
from neurovar.covariance import Dense, Diagonal, LowRankPlusDiagonal


@pytest.mark.parametrize("least_repeats", [None, 2])
@pytest.mark.parametrize("kind", ["isotropic", "structured"])
def test_fitted_structures(kind: str, least_repeats: int | None) -> None:
    """In float32: to 1e-5 of the largest variance."""
    da = reference.recording(kind, least_repeats=least_repeats, n_stimuli=60)
    expected, dof = reference.noise_covariance(da.values)
    close = {"atol": 1e-5 * expected.max()}
    dense, diagonal = (
        statistics.fit_covariance(da, structure) for structure in (statistics.Full(), statistics.DiagonalOnly())
    )
    assert isinstance(dense, Dense) and isinstance(diagonal, Diagonal)
    np.testing.assert_allclose(dense.to_dense().numpy(), expected, **close)
    np.testing.assert_allclose(diagonal.to_dense().numpy(), np.diag(np.diag(expected)), **close)

    low_rank = statistics.fit_covariance(da, statistics.LowRank(3))
    assert isinstance(low_rank, LowRankPlusDiagonal) and low_rank.rank == 3
    np.testing.assert_allclose(low_rank.diagonal().numpy(), np.diag(expected), **close)
    assert (low_rank.factors.square().sum(0).diff() <= 0).all(), "largest first"
    noise = np.concatenate([repeats - repeats.mean(axis=0) for repeats in reference.trials(da.values)])
    fitted = PCA(3).fit(noise)
    variance = fitted.explained_variance_ * (len(noise) - 1) / dof
    leading = (fitted.components_.T * variance) @ fitted.components_
    np.testing.assert_allclose((low_rank.factors @ low_rank.factors.T).numpy(), leading, **close)


def test_low_rank_noise_is_recovered_as_by_factor_analysis() -> None:
    """40 units with two factors: both within 10 % of the true matrix, and of one another."""
    truth = reference.noise_matrix("structured", 40)
    da = reference.simulate(signal=np.eye(40), noise=truth, n_stimuli=300, n_repeats=8, least_repeats=5, seed=1)
    got = statistics.fit_covariance(da, statistics.LowRank(2)).to_dense().double().numpy()
    noise = np.concatenate([repeats - repeats.mean(axis=0) for repeats in reference.trials(da.values)])
    dof = statistics.noise_covariance(da).attrs["dof"]
    analysed = FactorAnalysis(2).fit(noise).get_covariance() * len(noise) / dof
    size = np.linalg.norm(truth)
    assert np.linalg.norm(got - truth) < 0.1 * size
    assert np.linalg.norm(analysed - truth) < 0.1 * size
    assert np.linalg.norm(got - analysed) < 0.1 * size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(7,), (2, 2, 3)])
def test_deviation_covariance_is_numpy_cov(shape: tuple[int, ...], ridge: float, dtype: type) -> None:
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(50, *shape)).astype(dtype)
    modified = clean * rng.uniform(0.5, 2, size=shape).astype(dtype) + 3  # a mean shift, which is no noise
    n = int(np.prod(shape))
    expected = np.cov((modified - clean).reshape(50, n).astype(float).T) + ridge * np.eye(n)
    pair = torch.from_numpy(clean), torch.from_numpy(modified)
    dense = statistics.deviation_covariance(*pair, statistics.Full(), ridge=ridge)
    np.testing.assert_allclose(dense.to_dense().numpy(), expected, atol=1e-5)
    diagonal = statistics.deviation_covariance(*pair, statistics.DiagonalOnly(), ridge=ridge)
    np.testing.assert_allclose(diagonal.to_dense().numpy(), np.diag(np.diag(expected)), atol=1e-5)
    low_rank = statistics.deviation_covariance(*pair, statistics.LowRank(2), ridge=ridge)
    np.testing.assert_allclose(low_rank.diagonal().numpy(), np.diag(expected), atol=1e-5)
    values, vectors = np.linalg.eigh(expected - ridge * np.eye(n))
    leading = (vectors[:, -2:] * values[-2:]) @ vectors[:, -2:].T
    factors = low_rank.factors.numpy()
    np.testing.assert_allclose(factors @ factors.T, leading, atol=1e-4)


@pytest.mark.parametrize("repeated", [1, 10])
def test_low_rank_noise_of_fewer_trials_than_units(repeated: int) -> None:
    """Deviations that cancel exactly over stimuli: a vector of ones is no start for Lanczos iterations."""
    modified = torch.tensor([[1.0, 0, 0, 0, 2], [-1, 0, 0, 0, -2], [0, 1, 0, 0, 0], [0, -1, 0, 0, 0]])
    modified = modified.repeat(1, repeated)
    got = statistics.deviation_covariance(torch.zeros_like(modified), modified, statistics.LowRank(1))
    expected = np.linalg.eigvalsh(np.cov(modified.numpy().T))[-1]
    assert float(got.factors.square().sum()) == pytest.approx(expected, rel=1e-5)


def test_fits_do_not_change_between_runs() -> None:
    da = reference.recording("structured")
    first, second = (statistics.fit_covariance(da, statistics.LowRank(2)) for _ in range(2))
    assert torch.equal(first.factors, second.factors)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (statistics.KroneckerProduct(), "expected Full.*, got KroneckerProduct"),
        (statistics.LowRank(0), "expected a rank from 1 to 7, got 0"),
        (statistics.LowRank(8), "expected a rank from 1 to 7, got 8"),
    ],
)
def test_bad_structures(structure: statistics.Structure, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        statistics.fit_covariance(reference.recording("isotropic", n_repeats=2), structure)


def test_bad_deviations() -> None:
    with pytest.raises(ValueError, match=r"expected responses of one shape, got \(3, 2\) and \(3, 4\)"):
        statistics.deviation_covariance(torch.ones(3, 2), torch.ones(3, 4), statistics.Full())
    with pytest.raises(ValueError, match="expected at least 2 stimuli, got 1"):
        statistics.deviation_covariance(torch.ones(1, 2), torch.ones(1, 2), statistics.Full())
