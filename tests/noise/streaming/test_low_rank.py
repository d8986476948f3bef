"""The one-pass low-rank-plus-diagonal covariance: its distance from the exact one, and that the stated bounds hold."""

from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import streaming as reference
from seeds import generator
from torch import Tensor

import neurovar
from neurovar.noise import BoundedEstimate, LowRankAccumulator


def power_law(n: int, n_units: int, exponent: float, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian samples with eigenvalues rank^−exponent in random directions."""
    g = generator(5)
    axes = torch.linalg.qr(torch.randn(n_units, n_units, generator=g, dtype=torch.float64)).Q
    scale = torch.arange(1, n_units + 1, dtype=torch.float64) ** (-exponent / 2)
    return ((torch.randn(n, n_units, generator=g, dtype=torch.float64) * scale) @ axes.mT).to(dtype)


def accumulated(data: Tensor, *, rank: int, sketch_size: int | None = None, batch: int = 100) -> LowRankAccumulator:
    accumulator = LowRankAccumulator(rank=rank, sketch_size=sketch_size)
    for part in data.split(batch):
        accumulator.update(part)
    return accumulator


def shared(found: BoundedEstimate) -> np.ndarray:
    factors = found.covariance.factors.double()
    return (factors @ factors.mT).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_subspace_error_within_5_percent_of_the_exact_one(exponent: float, dtype: torch.dtype) -> None:
    """‖C − QQᵀC‖_F for the space of the factors, against that of the exact leading eigenvectors of C.

    In one piece, in small batches, and of three workers.
    """
    data, rank = power_law(1000, 300, exponent, dtype=dtype), 16
    matrix = np.cov(data.double().numpy().T)
    exact = reference.subspace_error(matrix, np.linalg.eigh(matrix)[1][:, -rank:])
    workers = [accumulated(part, rank=rank) for part in data.split(400)]
    for worker in workers[1:]:
        workers[0].merge(worker)
    for accumulator in (accumulated(data, rank=rank), accumulated(data, rank=rank, batch=16), workers[0]):
        error = reference.subspace_error(matrix, accumulator.covariance().factors.double().numpy())
        assert exact * (1 - 1e-6) <= error < 1.02 * exact  # 1.01 and less
        covariance = accumulator.covariance().to_dense().double().numpy()
        best = reference.leading(matrix, rank)
        best += np.diag(np.diag(matrix - best))
        assert np.linalg.norm(matrix - covariance) < 1.05 * np.linalg.norm(matrix - best)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_frequent_directions(dtype: torch.dtype) -> None:
    data = power_law(200, 40, 1.0, dtype=dtype)
    accumulator = LowRankAccumulator(rank=4, sketch_size=9, about_zero=True)
    for batch in data.split(7):
        accumulator.update(batch)
    sketch, lost = reference.frequent_directions(data.double().numpy(), 9, ceil(0.2 * 9), 7)
    tolerance = 1e-12 if dtype is torch.float64 else 2e-6
    got = accumulator._sums["sketch"].double().numpy()
    np.testing.assert_allclose(got.T @ got, sketch.T @ sketch, atol=200 * tolerance)
    assert float(accumulator._sums["lost"]) == pytest.approx(lost, rel=10 * tolerance)
    found = accumulator.estimate()
    assert found.error_bound == pytest.approx((lost + (sketch[4] ** 2).sum()) / 200, rel=10 * tolerance)
    second_moment = (data.double().numpy().T @ data.double().numpy()) / 200
    np.testing.assert_allclose(found.covariance.diagonal().numpy(), np.diag(second_moment), rtol=10 * tolerance)


@pytest.mark.parametrize("batch", [3, 50])
def test_factors_are_scaled_eigenvectors_largest_first(batch: int) -> None:
    data = power_law(500, 60, 1.0)
    found = accumulated(data, rank=5, sketch_size=60, batch=batch).covariance()
    gram = found.factors.mT @ found.factors
    values = gram.diagonal()
    assert (values.diff() < 0).all()
    torch.testing.assert_close(gram, torch.diag(values), atol=1e-12, rtol=0)
    exact = np.linalg.eigvalsh(np.cov(data.numpy().T))[::-1][:5]
    np.testing.assert_allclose(values.numpy(), exact, rtol=1e-9)  # a sketch of as many rows as units is exact


@pytest.mark.parametrize("order", ["mixed", "sorted"])
@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_the_error_bound_holds(exponent: float, order: str) -> None:
    """In the spectral norm, for ‖C − FFᵀ‖ and ‖C − covariance‖, in any order of samples and among any workers."""
    data = power_law(400, 60, exponent)
    if order == "sorted":
        data = data[data[:, 0].argsort()]
    matrix = np.cov(data.numpy().T)
    values = np.linalg.eigvalsh(matrix)[::-1]
    halves = [accumulated(part, rank=4, sketch_size=20, batch=11) for part in data.split(150)]
    for half in halves[1:]:
        halves[0].merge(half)
    for accumulator in (halves[0], *(accumulated(data, rank=4, sketch_size=20, batch=b) for b in (1, 13, 400))):
        found = accumulator.estimate()
        rest = matrix - shared(found)
        covariance = found.covariance.to_dense().numpy()
        assert np.linalg.eigvalsh(rest).min() > -1e-12
        assert values[4] < np.linalg.norm(rest, 2) < found.error_bound
        assert np.linalg.norm(matrix - covariance, 2) < found.error_bound
        assert np.linalg.norm(matrix - covariance) < np.linalg.norm(rest) < float(found.covariance.private.sum())
        for k in range(4):  # below the 4 rows that shrink
            assert float(accumulator._sums["lost"]) <= 399 * values[k:].sum() / (4 - k)
        assert found.clamped == 0


def test_the_bound_tells_a_good_sketch_from_a_poor_one() -> None:
    data = power_law(400, 60, 1.0)
    bounds = [accumulated(data, rank=4, sketch_size=size).estimate().error_bound for size in (5, 8, 16, 60)]
    assert bounds == sorted(bounds, reverse=True)
    best = np.linalg.eigvalsh(np.cov(data.numpy().T))[-5]
    assert bounds[-1] == pytest.approx(best) and bounds[0] > 2 * best


def test_a_direction_that_comes_late_is_found() -> None:
    """Samples sorted by what they show: the last 50 alone vary along one axis."""
    data = 0.1 * torch.randn(1000, 100, generator=generator(0))
    data[:900] += torch.randn(900, 1, generator=generator(1)) * torch.eye(100)[0]
    data[950:] += 2 * torch.randn(50, 1, generator=generator(2)) * torch.eye(100)[1]
    factors = accumulated(data, rank=2, batch=20).covariance().factors
    assert float(factors[:2].square().sum() / factors.square().sum()) > 0.99


def test_a_low_rank_truth_is_recovered_but_for_sampling() -> None:
    """Two factors and unequal private variances: every entry within 5 standard errors."""
    g, n = generator(0), 20_000
    factors = 2 * torch.randn(80, 2, generator=g, dtype=torch.float64)
    private = 0.5 + 0.5 * torch.rand(80, generator=g, dtype=torch.float64)
    normals = torch.randn(n, 82, generator=g, dtype=torch.float64)
    data = normals[:, :2] @ factors.mT + normals[:, 2:] * private.sqrt()
    truth = (factors @ factors.mT + torch.diag(private)).numpy()
    found = accumulated(data, rank=2).covariance()
    sizes = np.diag(truth)
    error = (found.to_dense().numpy() - truth) / np.sqrt((np.outer(sizes, sizes) + truth**2) / n)
    assert np.abs(error).max() < 5
    np.testing.assert_allclose(found.private.numpy(), private, rtol=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_of_exactly_low_rank(dtype: torch.dtype) -> None:
    """Fewer dimensions than factors: the rest of the factors is 0, and next to nothing is private."""
    data = (torch.randn(300, 2, generator=generator(0)) @ torch.randn(2, 30, generator=generator(1))).to(dtype)
    found = accumulated(data, rank=4).estimate()
    total, tolerance = found.covariance.trace(), 1e-5 if dtype is torch.float32 else 1e-6
    assert found.covariance.factors.shape == (30, 4)
    torch.testing.assert_close(found.covariance.to_dense(), data.mT.cov(), rtol=0, atol=tolerance * total)
    assert 0 <= found.clamped < tolerance * total
    assert found.error_bound < tolerance * total


def test_constant_and_silent_units() -> None:
    data = power_law(200, 20, 1.0)
    data[:, 5], data[:, 6] = 3.0, 0.0
    variance = accumulated(data, rank=3).covariance().diagonal()
    assert (variance[5:7] < 1e-28).all() and (variance[:5] > 0).all()
    constant = accumulated(torch.ones(20, 6), rank=2).estimate()
    assert constant.covariance.trace() == constant.clamped == constant.error_bound == 0


@pytest.mark.parametrize("n_units", [3, 5, 20])
def test_fewer_units_or_samples_than_the_sketch_has_rows(n_units: int) -> None:
    for n in (5, 200):
        data = power_law(n, n_units, 1.0, dtype=torch.float32)
        matrix = np.cov(data.double().numpy().T)
        found = accumulated(data, rank=3, sketch_size=30, batch=4).estimate()
        np.testing.assert_allclose(shared(found), reference.leading(matrix, 3), atol=1e-5)
        assert found.error_bound == pytest.approx(([0.0, *np.linalg.eigvalsh(matrix)])[-4], abs=1e-5)


def test_many_units_take_little_memory() -> None:
    """Units for which a matrix would take 10 GB: one factor and the private variance are found."""
    g, n_units = generator(0), 50_000
    axis = torch.randn(n_units, generator=g)
    accumulator = LowRankAccumulator(rank=1)
    for _ in range(10):
        accumulator.update(torch.randn(20, 1, generator=g) * axis + 0.5 * torch.randn(20, n_units, generator=g))
    found = accumulator.covariance()
    factor = found.factors[:, 0]
    assert float(factor @ axis / axis.norm() / factor.norm()) ** 2 > 0.99
    assert float(found.private.mean()) == pytest.approx(0.25, rel=0.02)


def test_long_streams_in_float32() -> None:
    """5000 updates do not wear out the sketch: as in float64, to 1e-4 of the largest."""
    data = power_law(10_000, 30, 1.0)
    found = [
        shared(accumulated(data.to(dtype), rank=4, batch=2).estimate()) for dtype in (torch.float32, torch.float64)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4 * np.abs(found[1]).max())


def test_what_was_lost_is_saved_and_merged(tmp_path: Path) -> None:
    data = power_law(300, 60, 0.5)
    one, other = (accumulated(part, rank=4) for part in data.split(150))
    lost = [float(each._sums["lost"]) for each in (one, other)]
    other.save(tmp_path / "other.safetensors")
    one.merge(neurovar.noise.load_accumulator(tmp_path / "other.safetensors"))
    assert float(one._sums["lost"]) > sum(lost) > 0
