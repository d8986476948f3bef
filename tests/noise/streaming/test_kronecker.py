"""Channel × space by partial traces: a separable truth is recovered, with the stated bias."""

import pytest
import torch
from seeds import generator
from torch import Tensor

from neurovar.noise import Accumulator, DenseAccumulator, KroneckerAccumulator


def separable(n: int, *, seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Samples (n, 3, 2, 2) with covariance channel ⊗ space, and that; the larger the spread, the less isotropic."""
    g = generator(7)
    channel, space = (torch.eye(k).double() + spread * torch.randn(k, k, generator=g).double() for k in (3, 4))
    normals = torch.randn(n, 3, 4, generator=generator(seed), dtype=torch.float64)
    return (channel @ normals @ space.mT).reshape(n, 3, 2, 2), torch.kron(channel @ channel.mT, space @ space.mT)


def estimated(accumulator: Accumulator, data: Tensor) -> Tensor:
    for batch in data.split(300):
        accumulator.update(batch)
    return accumulator.covariance().to_dense()


def test_a_separable_truth_is_recovered_better_than_by_the_dense_estimate() -> None:
    """Every entry within 5 of the standard errors of a sample covariance; over ten streams, a smaller error."""
    errors = []
    for seed in range(10):
        data, truth = separable(1000, seed=seed, spread=0.3)
        got, dense = (estimated(make(), data) - truth for make in (KroneckerAccumulator, DenseAccumulator))
        variance = truth.diagonal()
        assert (got / ((torch.outer(variance, variance) + truth**2) / 999).sqrt()).abs().max() < 5
        errors.append((got.square().sum(), dense.square().sum()))
    ours, theirs = torch.tensor(errors).mean(0)
    assert ours < 0.5 * theirs


def test_the_factors_have_a_stated_scale() -> None:
    """Space of mean variance 1; channel the mean over positions of the covariance between channels."""
    data, _ = separable(1000, seed=0, spread=1.0)
    accumulator = KroneckerAccumulator()
    accumulator.update(data)
    covariance = accumulator.covariance()
    matrix = data.flatten(1).mT.cov()
    over_space = torch.stack([matrix[p::4, p::4] for p in range(4)]).mean(0)
    assert float(covariance.space.diagonal().mean()) == pytest.approx(1)
    torch.testing.assert_close(covariance.channel.to_dense(), over_space)
    assert covariance.trace() == pytest.approx(float(matrix.trace()))


def test_the_bias_of_the_product_falls_with_samples() -> None:
    """Mean of 1500 estimates from n samples each, which is itself uncertain by about 3 %/√(n − 1)."""
    bias = {}
    for n in (2, 16):
        data, truth = separable(n * 1500, seed=1, spread=1.0)
        found = [estimated(KroneckerAccumulator(), part) for part in data.split(n)]
        bias[n] = float((torch.stack(found).mean(0) - truth).norm() / truth.norm())
    assert bias[16] < 0.02
    assert 3 * bias[16] < bias[2] < 0.1


def test_silent_maps() -> None:
    assert not estimated(KroneckerAccumulator(), torch.ones(20, 2, 3)).any()


def test_activations_of_any_size_give_the_same_structure() -> None:
    data, _ = separable(50, seed=0, spread=1.0)
    small = estimated(KroneckerAccumulator(), 1e-4 * data)
    torch.testing.assert_close(small, 1e-8 * estimated(KroneckerAccumulator(), data), rtol=1e-9, atol=0)
