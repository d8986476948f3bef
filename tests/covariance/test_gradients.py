"""Gradients through samples, and blocks of draws, which have none."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from seeds import generator
from torch import Tensor

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

RNG = np.random.default_rng(4)


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.normal(size=shape))


def positive(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.uniform(0.3, 2.0, shape))


def learned_dense(root: Tensor) -> Dense:
    return Dense(root @ root.mT)


LEARNED: dict[str, tuple[Callable[..., Covariance], tuple[Tensor, ...]]] = {
    "diagonal": (Diagonal, (positive(3),)),
    "dense": (learned_dense, (normal(3, 3) + 2 * torch.eye(3),)),
    "low rank": (LowRankPlusDiagonal, (normal(3, 2), positive(3))),
    "kronecker": (
        lambda a, b, c: Kronecker(LowRankPlusDiagonal(a, b), Diagonal(c)),
        (normal(3, 1), positive(3), positive(2)),
    ),
    "gain": (GainModulated, (positive(), positive(3), positive(), positive(2, 3))),
    "sum": (lambda a, b: Sum((Diagonal(a), Diagonal(a), MeanShift(b))), (positive(3), normal(3))),
}


@pytest.mark.parametrize("name", LEARNED)
def test_gradients_of_samples_by_finite_differences(name: str) -> None:
    make, tensors = LEARNED[name]
    learned = tuple(tensor.clone().requires_grad_() for tensor in tensors)
    assert make(*learned).trainable and not make(*tensors).trainable
    assert torch.autograd.gradcheck(lambda *given: make(*given).sample((2,), generator=generator(0)), learned)
    for i in range(len(tensors)):  # also of one tensor, where the others may be worked on in place
        given = [tensor.clone().requires_grad_(i == j) for j, tensor in enumerate(tensors)]
        assert torch.autograd.gradcheck(lambda *given: make(*given).sample((2,), generator=generator(0)), given)


def test_gradients_through_the_state() -> None:
    noise = GainModulated(positive(), positive(3), positive(), positive(2, 3))
    states = positive(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda states: noise.sample_at(states, generator=generator(0)), (states,))


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 2.0])
def test_gradients_at_a_silent_unit_are_finite(exponent: float) -> None:
    noise = GainModulated(positive(), positive(2), torch.tensor(exponent).double(), positive(3, 2))
    state = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    noise.sample_at(state, generator=generator(0)).sum().backward()
    assert state.grad is not None and torch.isfinite(state.grad).all()


def test_learned_noise_must_be_positive_definite() -> None:
    with pytest.raises(
        ValueError, match="expected a positive definite matrix where gradients are required, got an eig"
    ):
        Dense(torch.ones(3, 3, requires_grad=True))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", LEARNED)
def test_statistics_of_learned_noise_are_numbers(name: str) -> None:
    make, tensors = LEARNED[name]
    noise, fixed = make(*[tensor.clone().requires_grad_() for tensor in tensors]), make(*tensors)
    assert noise.trace() == fixed.trace() and noise.log_determinant() == fixed.log_determinant()
    assert noise.effective_dimensionality() == fixed.effective_dimensionality()
    assert torch.equal(noise.spectrum(), fixed.spectrum()) and not noise.spectrum().requires_grad


def test_a_sampler_refuses_noise_that_is_being_learned() -> None:
    with pytest.raises(ValueError, match="expected noise that is not being learned, got tensors with gradients"):
        Diagonal(torch.ones(3, requires_grad=True)).sampler(generator=generator(0), block=2)
    with pytest.raises(ValueError, match="expected a block of at least 1 row, got 0"):
        Diagonal.isotropic(3).sampler(generator=generator(0), block=0)


def test_rows_drawn_in_inference_mode_may_be_trained_with() -> None:
    sampler = Dense(torch.eye(3)).sampler(generator=generator(0), block=8)
    with torch.inference_mode():
        sampler.draw((2,))
    weight = torch.ones(3, requires_grad=True)
    (weight * sampler.draw((2,))).sum().backward()
    assert weight.grad is not None


def test_a_drawn_row_may_be_overwritten() -> None:
    sampler = Dense(torch.eye(3)).sampler(generator=generator(0), block=8)
    sampler.draw((2,)).zero_()
    assert (sampler.draw((2,)) != 0).all()
