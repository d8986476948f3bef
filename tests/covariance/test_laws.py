"""Laws that every covariance keeps, whatever its numbers: the algebra, draws from given normals, files."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seeds import generator
from torch import Tensor

from neurovar.covariance import (
    AntitheticDraws,
    Covariance,
    Dense,
    Diagonal,
    FixedDraws,
    GainModulated,
    Kronecker,
    LowRankPlusDiagonal,
    MeanShift,
    SharedDraws,
    Sum,
    from_tree,
    load,
    types,
)

N = 6  # 2 channels at 3 positions


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def positive(seed: int, *shape: int) -> Tensor:
    return normal(seed, *shape).square() + 0.1


def dense(seed: int, n: int = N) -> Dense:
    root = normal(seed, n, n)
    return Dense(root @ root.mT)


MAKE: dict[str, Callable[[int], Covariance]] = {
    "Diagonal": lambda seed: Diagonal(positive(seed, N)),
    "Dense": dense,
    "LowRankPlusDiagonal": lambda seed: LowRankPlusDiagonal(normal(seed, N, 2), positive(seed + 1, N)),
    "Kronecker": lambda seed: Kronecker(dense(seed, 2), LowRankPlusDiagonal(normal(seed, 3, 1), positive(seed, 3))),
    "GainModulated": lambda seed: GainModulated(
        positive(seed), positive(seed + 1, N), positive(seed + 2), normal(seed, 4, N)
    ),
    "MeanShift": lambda seed: MeanShift(normal(seed, N)),
    "Sum": lambda seed: Sum((Kronecker(dense(seed, 3), dense(seed, 2)), Diagonal(positive(seed, N)))),
}
"""One random covariance of every type over N units, from a seed."""

every_type = pytest.mark.parametrize("name", MAKE)
seeds = st.integers(0, 2**20)
law = settings(max_examples=8, deadline=None, derandomize=True)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_the_laws_are_asked_of_every_type() -> None:
    assert set(MAKE) == {name for name, kind in types().items() if kind.__module__.startswith("neurovar.")}


@every_type
@pytest.mark.parametrize("other", MAKE)
@law
@given(seed=seeds)
def test_a_sum_has_the_sum_of_the_matrices(name: str, other: str, seed: int) -> None:
    first, second = MAKE[name](seed), MAKE[other](seed + 7)
    expected = first.to_dense() + second.to_dense()
    if {name, other} == {"MeanShift"}:  # constants add up before they are squared
        expected = torch.outer(first.mean + second.mean, first.mean + second.mean)
    whole = first + second
    close(whole.to_dense(), expected)
    close((second + first).to_dense(), expected)
    assert whole.trace() == pytest.approx(float(expected.trace()))
    assert whole.effective_dimensionality() == pytest.approx(float(expected.trace() ** 2 / expected.square().sum()))
    close(whole.gaussian().to_dense(), expected)


@every_type
@pytest.mark.parametrize("m", [1, 4, N, 9])
@law
@given(seed=seeds)
def test_a_conjugate_is_the_product_with_the_map_on_both_sides(name: str, m: int, seed: int) -> None:
    noise, scale, matrix = MAKE[name](seed), normal(seed + 3, N), normal(seed + 4, m, N)
    close(noise.conjugate(scale).gaussian().to_dense(), noise.to_dense() * torch.outer(scale, scale))
    mapped = noise.gaussian().conjugate(matrix) if noise.state_dependent else noise.conjugate(matrix)
    close(mapped.to_dense(), matrix @ noise.to_dense() @ matrix.mT)


@every_type
@law
@given(seed=seeds, trace=st.floats(1e-6, 1e6), factor=st.floats(0, 1e3))
def test_scaling_and_multiples_keep_type_and_structure(name: str, seed: int, trace: float, factor: float) -> None:
    noise = MAKE[name](seed)
    scaled = noise.scale_to(trace=trace)
    assert type(scaled) is type(noise) and scaled.trace() == pytest.approx(trace)
    close(scaled.to_dense(), noise.to_dense() * (trace / noise.trace()))
    close((factor * noise).to_dense(), factor * noise.to_dense())
    assert scaled.effective_dimensionality() == pytest.approx(noise.effective_dimensionality())


@every_type
@law
@given(seed=seeds)
def test_what_is_saved_comes_back_to_the_last_bit(name: str, seed: int) -> None:
    noise = MAKE[name](seed)
    with tempfile.TemporaryDirectory() as folder:
        noise.save(Path(folder) / "noise")
        loaded = load(Path(folder) / "noise")
    rebuilt = from_tree(noise.tree(), noise.named_tensors())
    for copy in (loaded, rebuilt):
        assert type(copy) is type(noise)
        drawn = noise.sample((3,), generator=generator(seed))
        assert torch.equal(copy.sample((3,), generator=generator(seed)), drawn)


@every_type
@law
@given(seed=seeds, weight=st.floats(-10, 10))
def test_a_draw_is_a_map_of_its_normals_linear_where_it_says_so(name: str, seed: int, weight: float) -> None:
    noise = MAKE[name](seed)
    first, second = (noise.normals(5, generator=generator(seed + i)) for i in (0, 1))
    before = first.clone()
    drawn = noise.draw(first)
    assert torch.equal(first, before)  # the caller's normals are left as they are
    close(noise.draw(first[[4, 0, 0]]), drawn[[4, 0, 0]])
    close(drawn, noise.sample((5,), generator=generator(seed)))
    if noise.is_linear:
        close(noise.draw(first + weight * second), drawn + weight * noise.draw(second))


@every_type
@law
@given(seed=seeds)
def test_coupled_draws_are_draws_of_the_noise_row_by_row(name: str, seed: int) -> None:
    noise, states = MAKE[name](seed), normal(seed + 5, 1, N).expand(6, N)
    first = noise.sample_at(states[:3], generator=generator(seed))
    pairs = AntitheticDraws(noise).sample_at(states, generator=generator(seed))
    close(pairs[:3], first)
    mean = noise.draw(torch.zeros(1, noise.n_normals, dtype=torch.float64), at=states[:1])
    close(pairs[:3] + pairs[3:], 2 * mean.expand(3, N))

    shared = SharedDraws(noise, n_draws=3).sample_at(states, generator=generator(seed))
    close(shared, first.repeat_interleave(2, 0))

    fixed = FixedDraws(noise, n_draws=2, n_images=3)
    whole = fixed.sample_at(states, generator=generator(seed))
    close(whole, noise.sample_at(states, generator=generator(seed)))
    close(fixed.sample_at(states[:4], generator=generator(seed)), whole[[0, 1, 3, 4]])
