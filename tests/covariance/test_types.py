"""What holds for one type of covariance alone."""

import numpy as np
import pytest
import reference
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
    nearest,
)

RNG = np.random.default_rng(3)
ONE = torch.tensor(1.0, dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.normal(size=shape))


def positive(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.uniform(0.3, 2.0, shape))


def full(n: int) -> Tensor:
    return torch.from_numpy(reference.noise_matrix("structured", n))


# Dense


@pytest.mark.parametrize("n", [255, 256, 257, 700])
def test_a_dense_sample_is_the_triangular_product(n: int) -> None:
    """In blocks of the factor, also where n is no multiple of them."""
    matrix = full(n)
    normals = torch.randn(3, -(-n // 16) * 16, generator=generator(0), dtype=torch.float64)[:, :n]
    expected = normals.numpy() @ np.linalg.cholesky(matrix.numpy()).T
    np.testing.assert_allclose(
        Dense(matrix).sample((3,), generator=generator(0)).numpy(), expected, rtol=1e-9, atol=1e-12
    )


def test_a_semidefinite_factor_is_triangular_too() -> None:
    root = normal(20, 5)
    factor = Dense(root @ root.mT)._triangular.factor
    torch.testing.assert_close(factor @ factor.mT, root @ root.mT)
    assert (factor.triu(1) == 0).all()


def test_rounding_below_zero_is_forgiven() -> None:
    almost = torch.tensor([[1.0, 1.0 + 1e-6], [1.0 + 1e-6, 1.0]])
    sample = Dense(almost).sample((100,), generator=generator(0))
    torch.testing.assert_close(sample[:, 0], sample[:, 1], rtol=0, atol=1e-3)


def test_a_matrix_that_is_singular_to_rounding_has_no_inverse() -> None:
    root = normal(30, 10)
    for matrix in (root @ root.mT, (root @ root.mT).float() + 1e-7 * torch.eye(30)):
        with pytest.raises(ValueError, match="expected a covariance that has an inverse, got a singular one over 30"):
            Dense(matrix).log_determinant()


@pytest.mark.parametrize("rank", [5, 30])
def test_what_is_scaled_is_not_factorised_anew(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    root, scale = normal(20, rank), normal(20)
    noise = Dense(root @ root.mT)
    sample = noise.sample((3,), generator=generator(0))
    monkeypatch.delattr(torch.linalg, "cholesky_ex")
    torch.testing.assert_close(noise.scale_to(trace=4 * noise.trace()).sample((3,), generator=generator(0)), 2 * sample)
    torch.testing.assert_close(noise.conjugate(scale).sample((3,), generator=generator(0)), scale * sample)


def test_the_asymmetry_of_a_later_block_is_seen() -> None:
    matrix = torch.eye(600)
    matrix[599, 300] = 0.5
    with pytest.raises(ValueError, match=r"expected a symmetric matrix, got \|C − Cᵀ\| up to 0.5"):
        Dense(matrix)


def test_the_nearest_matrix_has_its_negative_eigenvalues_clipped() -> None:
    matrix = normal(8, 8)
    matrix = (matrix + matrix.mT) / 2
    values, vectors = np.linalg.eigh(matrix.numpy())
    expected = sum(value * np.outer(v, v) for value, v in zip(values, vectors.T) if value > 0)
    found = nearest(matrix)
    np.testing.assert_allclose(found.to_dense().numpy(), expected, atol=1e-12)
    distance = np.sqrt((values[values < 0] ** 2).sum())
    assert float((found.to_dense() - matrix).norm()) == pytest.approx(distance)
    for _ in range(50):  # and none that is as near
        root = torch.linalg.cholesky(found.to_dense() + 1e-9 * torch.eye(8)) + 0.05 * normal(8, 8)
        assert float((root @ root.mT - matrix).norm()) >= distance


def test_what_is_positive_is_its_own_nearest() -> None:
    torch.testing.assert_close(nearest(full(5).float()).to_dense(), full(5).float())


def test_the_nearest_is_that_of_the_symmetric_part() -> None:
    matrix = normal(5, 5)
    torch.testing.assert_close(nearest(matrix).to_dense(), nearest((matrix + matrix.mT) / 2).to_dense())


def test_the_nearest_of_a_matrix_that_dense_refuses() -> None:
    indefinite = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"an eigenvalue of -1 \(largest 3\); covariance.nearest\(matrix\) gives"):
        Dense(indefinite)
    torch.testing.assert_close(nearest(indefinite).to_dense(), torch.full((2, 2), 1.5))


# LowRankPlusDiagonal


def test_leading_eigenvalues() -> None:
    low_rank = LowRankPlusDiagonal(normal(6, 2), positive(6))
    expected = np.linalg.eigvalsh(low_rank.to_dense().numpy())[::-1][:3]
    np.testing.assert_allclose(low_rank.leading_eigenvalues(3).numpy(), expected, rtol=1e-10)
    assert low_rank.rank == 2


def test_many_units_never_write_the_matrix_out() -> None:
    """200,000 units would need 160 GB as a matrix."""
    n = 200_000
    noise = LowRankPlusDiagonal(torch.ones(n, 2), torch.ones(n)).scale_to(trace=3.0 * n)
    # C = 11ᵀ·2 + I: one eigenvalue 2n + 1, n − 1 of 1.
    for whole in (noise, Sum((Diagonal.isotropic(n), LowRankPlusDiagonal(torch.ones(n, 2), torch.zeros(n))))):
        assert whole.trace() == pytest.approx(3 * n, rel=1e-5)
        dimensionality = (3 * n) ** 2 / ((2 * n + 1) ** 2 + n - 1)
        assert whole.effective_dimensionality() == pytest.approx(dimensionality, rel=1e-5)
        assert whole.sample((2,), generator=generator(0)).shape == (2, n)
        assert whole.log_determinant() == pytest.approx(np.log(2 * n + 1), rel=1e-5)
        assert float(whole.mahalanobis(torch.ones(n))) == pytest.approx(n / (2 * n + 1), rel=1e-3)
    assert float(noise.leading_eigenvalues(1)[0]) == pytest.approx(2 * n + 1, rel=1e-5)


def test_private_noise_far_below_the_shared() -> None:
    """Where Woodbury's difference of two large terms would cancel."""
    noise = LowRankPlusDiagonal(normal(50, 3), positive(50) * 1e-9)
    deviations = noise.sample((4,), generator=generator(0))
    expected = (deviations @ torch.linalg.inv(noise.to_dense()) * deviations).sum(1)
    torch.testing.assert_close(noise.mahalanobis(deviations), expected, rtol=1e-4, atol=0)
    assert noise.log_determinant() == pytest.approx(float(torch.logdet(noise.to_dense())))


def test_units_that_the_factors_tell_alone() -> None:
    """As many units without private noise as factors: the rest is private noise given them."""
    private = positive(7)
    private[[1, 4]] = 0
    noise = LowRankPlusDiagonal(normal(7, 2), private)
    deviations = normal(3, 7)
    expected = (deviations @ torch.linalg.inv(noise.to_dense()) * deviations).sum(1)
    torch.testing.assert_close(noise.mahalanobis(deviations), expected)
    assert noise.log_determinant() == pytest.approx(float(torch.logdet(noise.to_dense())))
    private[0] = 0
    with pytest.raises(ValueError, match="got a singular one over 7 units"):
        LowRankPlusDiagonal(normal(7, 2), private).log_determinant()
    for _ in range(20):  # to rounding, which often is exact
        twins = torch.outer(normal(7), torch.tensor([0.1, 0.7], dtype=torch.float64))
        with pytest.raises(ValueError, match="got a singular one over 7 units"):
            LowRankPlusDiagonal(twins, private + torch.eye(7)[0]).log_determinant()


# Kronecker


def test_units_are_ordered_channel_row_column() -> None:
    """Loops over two channels and 2 × 2 positions."""
    channel, space = full(2), full(4)
    matrix = Kronecker(Dense(channel), Dense(space)).to_dense().reshape(2, 2, 2, 2, 2, 2)
    for c, r, k, d, s, m in np.ndindex(matrix.shape):
        assert matrix[c, r, k, d, s, m] == channel[c, d] * space[2 * r + k, 2 * s + m]


def test_a_kronecker_of_many_units() -> None:
    channel, space = Dense(full(64)), Diagonal(positive(3136))
    noise = Kronecker(channel, space)
    assert noise.n == 200_704
    assert noise.trace() == pytest.approx(channel.trace() * space.trace())
    products = channel.effective_dimensionality() * space.effective_dimensionality()
    assert noise.effective_dimensionality() == pytest.approx(products)
    assert noise.spectrum().shape == (200_704,) and float(noise.spectrum().sum()) == pytest.approx(noise.trace())
    sample = noise.sample((2,), generator=generator(0))
    assert noise.mahalanobis(sample).numpy() == pytest.approx([200_704, 200_704], rel=0.02)
    whole = noise + Diagonal(torch.ones(200_704, dtype=torch.float64))
    assert whole.effective_dimensionality() > noise.effective_dimensionality()


def test_a_scale_of_channels_and_places_keeps_a_kronecker() -> None:
    noise = Kronecker(Dense(full(2)), Diagonal(positive(3)))
    separable = torch.outer(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0, 3.0])).flatten().double()
    kept = noise.conjugate(separable)
    assert isinstance(kept, Kronecker)
    torch.testing.assert_close(kept.to_dense(), noise.to_dense() * torch.outer(separable, separable))
    assert isinstance(noise.conjugate(normal(6)), Dense)
    small = 1e-12 * normal(6)
    expected = noise.to_dense() * torch.outer(small, small)
    torch.testing.assert_close(noise.conjugate(small).to_dense(), expected, rtol=1e-9, atol=0)
    assert noise.conjugate(torch.zeros(6, dtype=torch.float64)).trace() == 0


# GainModulated


def poisson_like(states: Tensor, exponent: float = 1.3) -> GainModulated:
    return GainModulated(0.4 * ONE, positive(states.shape[1]), exponent * ONE, states)


def test_noise_at_a_state_has_its_gain_and_power_law() -> None:
    noise = poisson_like(positive(3, 4))
    state = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)
    expected = np.zeros((4, 4))
    for i, j in np.ndindex(4, 4):
        expected[i, j] = 0.4 * state[i] * state[j] + (i == j) * noise.dispersion[i] * abs(state[i]) ** 1.3
    np.testing.assert_allclose(noise.at(state).to_dense().numpy(), expected)
    rows = 40_000
    samples = noise.sample_at(state.expand(rows, 4), generator=generator(0)).numpy()
    moving = [0, 1, 3]
    assert (samples[:, 2] == 0).all()
    second = (samples.T @ samples / rows)[np.ix_(moving, moving)]
    assert np.abs(reference.covariance_z_scores(second, expected[np.ix_(moving, moving)], rows)).max() < 5


def test_each_row_is_drawn_at_its_own_state() -> None:
    noise = poisson_like(positive(3, 4))
    states = positive(2, 4)
    both = noise.sample_at(states, generator=generator(1))
    first = noise.sample_at(states[:1], generator=generator(1))
    torch.testing.assert_close(both[:1], first)
    swapped = noise.sample_at(states.flip(0), generator=generator(1))
    assert not torch.allclose(both, swapped)


def test_states_of_another_float_type_are_taken_as_they_are() -> None:
    """As under autocast: the noise keeps its own type."""
    noise = poisson_like(positive(3, 4))
    states = positive(2, 4).bfloat16()
    found = noise.sample_at(states, generator=generator(1))
    assert torch.equal(found, noise.sample_at(states.double(), generator=generator(1)))
    assert found.dtype == torch.float64


def test_reference_states_are_drawn_evenly() -> None:
    """With one active unit a state, the unit that is noisy tells the state."""
    noise = GainModulated(ONE, torch.zeros(4).double(), ONE, torch.eye(4).double())
    samples = noise.sample((4000,), generator=generator(0))
    active = samples != 0
    assert (active.sum(1) == 1).all()
    assert (active.sum(0) - 1000).abs().max() < 5 * np.sqrt(4000 * 3 / 16)


def test_a_constant_exponent_keeps_silent_units_noisy() -> None:
    noise = poisson_like(torch.zeros(1, 3, dtype=torch.float64), exponent=0)
    torch.testing.assert_close(noise.at(torch.zeros(3).double()).diagonal(), noise.dispersion)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 3.0])
def test_rescaled_units_rescale_their_states(exponent: float) -> None:
    noise, scale, state = poisson_like(positive(3, 4), exponent), normal(4), normal(4)
    scale[0] = 0
    expected = noise.at(state).conjugate(scale)
    torch.testing.assert_close(noise.conjugate(scale).at(scale * state).to_dense(), expected.to_dense())


# Sum and MeanShift


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (Diagonal(positive(3)), Diagonal(positive(3)), Diagonal),
        (Diagonal(positive(3)), LowRankPlusDiagonal(normal(3, 1), positive(3)), LowRankPlusDiagonal),
        (
            LowRankPlusDiagonal(normal(3, 1), positive(3)),
            LowRankPlusDiagonal(normal(3, 2), positive(3)),
            LowRankPlusDiagonal,
        ),
        (Dense(full(3)), Diagonal(positive(3)), Dense),
        (Dense(full(3)), LowRankPlusDiagonal(normal(3, 1), positive(3)), Dense),
        (Dense(full(3)), Dense(full(3)), Dense),
        (Dense(full(3)), MeanShift(normal(3)), Sum),
        (Diagonal(positive(3)), Kronecker(Diagonal(positive(3)), Diagonal(positive(1))), Sum),
        (Diagonal(positive(3)), poisson_like(positive(2, 3)), Sum),
    ],
)
def test_sums_are_as_simple_as_their_types_allow(first: Covariance, second: Covariance, kind: type) -> None:
    assert type(first + second) is type(second + first) is kind
    torch.testing.assert_close((first + second).to_dense(), first.to_dense() + second.to_dense())


def test_sums_of_sums_are_flat() -> None:
    kronecker, shift = Kronecker(Diagonal(positive(3)), Diagonal(positive(1))), MeanShift(normal(3))
    whole = (kronecker + Diagonal(positive(3))) + (shift + Diagonal(positive(3)))
    assert [type(part) for part in whole.parts] == [Kronecker, Diagonal, MeanShift]
    assert (kronecker + kronecker).trace() == pytest.approx(2 * kronecker.trace())


def test_constants_add_up_before_they_are_squared() -> None:
    one, two = MeanShift(torch.tensor([1.0, 0.0])), MeanShift(torch.tensor([2.0, 1.0]))
    assert (one + two).mean.tolist() == [3, 1]
    whole = (Diagonal.isotropic(2) + one) + two
    assert whole.to_dense().tolist() == [[10, 3], [3, 2]]


def test_noise_with_a_mean() -> None:
    whole = 4.0 * (Diagonal.isotropic(2) + MeanShift(torch.tensor([3.0, -1.0])))
    samples = whole.sample((20_000,), generator=generator(0))
    assert (samples.mean(0) - torch.tensor([6.0, -2.0])).abs().max() < 5 * 2 / np.sqrt(20_000)
    assert (samples.var(0) / 4 - 1).abs().max() < 5 * np.sqrt(2 / 20_000)


def test_a_constant_has_the_power_of_its_trace() -> None:
    shift = MeanShift(torch.tensor([3.0, 4.0])).scale_to(trace=100.0)
    assert shift.sample((2,), generator=generator(0)).tolist() == [[6, 8], [6, 8]]
    mapped = shift.conjugate(torch.tensor([[1.0, 1.0]]))
    assert isinstance(mapped, MeanShift) and mapped.mean.tolist() == [14]
    before = shift.mean.clone()
    shift.sample((), generator=generator(0)).add_(1)
    assert torch.equal(shift.mean, before)


def test_a_mapped_sum_keeps_its_mean() -> None:
    mapped = (Dense(full(3)) + MeanShift(torch.ones(3).double())).conjugate(torch.ones(1, 3).double())
    assert isinstance(mapped, Sum) and mapped.parts[1].mean.tolist() == [3]
    assert float(mapped.parts[0].diagonal()) == pytest.approx(float(full(3).sum()))
