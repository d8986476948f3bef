"""Products with a matrix that stays the same, against float64."""

import pytest
import torch
from seeds import generator
from torch import Tensor

from neurovar.covariance import Dense, LowRankPlusDiagonal
from neurovar.covariance._products import Product


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 7, 300])
def test_a_product_is_that_of_the_transpose(dtype: torch.dtype, rows: int) -> None:
    weight = torch.randn(90, 33, generator=generator(0), dtype=torch.float64)
    wide = torch.randn(rows, 40, generator=generator(1), dtype=torch.float64)
    given = wide.to(dtype)[:, :33]  # not contiguous, as a triangular factor needs it
    result = Product(weight.to(dtype))(given)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), wide[:, :33] @ weight.mT, rtol=0, atol=3e-5)


def test_later_changes_of_a_product_change_neither_factor_nor_rows() -> None:
    weight, rows = torch.randn(9, 5), torch.randn(4, 5)
    before = weight.clone(), rows.clone()
    Product(weight)(rows).add_(1)
    assert torch.equal(weight, before[0])
    assert torch.equal(rows, before[1])


def covariance_of(kind: str, n: int) -> Dense | LowRankPlusDiagonal:
    factors = torch.randn(n, 40, generator=generator(3)) / 6
    low_rank = LowRankPlusDiagonal(factors, torch.rand(n, generator=generator(4)) + 0.1)
    return low_rank if kind == "low rank" else Dense(low_rank.to_dense())


@pytest.mark.parametrize("kind", ["dense", "low rank"])
@pytest.mark.parametrize("n", [255, 700])
def test_a_sampler_in_float32_gives_the_rows_of_float64(kind: str, n: int) -> None:
    noise = covariance_of(kind, n)
    rows = noise.sampler(generator=generator(0), block=8).draw((20,))
    normals: Tensor = torch.cat([noise.normals(8, generator=g) for g in [generator(0)] for _ in range(3)]).double()
    if isinstance(noise, Dense):
        expected = normals @ noise._triangular.factor.double().mT
    else:
        expected = normals[:, :n] * noise.private.double().sqrt() + normals[:, n:] @ noise.factors.double().mT
    torch.testing.assert_close(rows.double(), expected[:20], rtol=0, atol=2e-5)
