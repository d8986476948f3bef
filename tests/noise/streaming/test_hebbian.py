"""The Hebbian network: its rules synapse by synapse, and that it converges to the leading eigenvectors."""

import numpy as np
import pytest
import torch
from reference import streaming as reference
from seeds import generator
from torch import Tensor

from neurovar.noise import HebbianNetwork
from neurovar.noise.streaming._hebbian import WARM_UP


def simulated(n: int, *, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Samples of 20 units with eigenvalues 5, 4, 3 over 0.5 and unequal means, and the three leading axes."""
    g = generator(seed)
    axes = torch.linalg.qr(torch.randn(20, 20, generator=g, dtype=torch.float64)).Q
    values = scale * torch.cat([torch.tensor([5.0, 4.0, 3.0]), torch.full((17,), 0.5)]).double()
    normals = torch.randn(n, 20, generator=g, dtype=torch.float64)
    return (normals * values.sqrt()) @ axes.mT + 3 * scale**0.5 * torch.arange(20), axes[:, :3]


def distance(factors: Tensor, axes: Tensor) -> float:
    """The share of the true space that the factors' space misses: 1 − ‖QᵀU‖² / r."""
    q = torch.linalg.qr(factors).Q
    return 1 - float((q.mT @ axes).square().sum()) / axes.shape[1]


@pytest.mark.parametrize("about_zero", [False, True])
def test_every_synapse_sees_only_the_neurons_that_it_connects(about_zero: bool) -> None:
    data, _ = simulated(60, seed=0)
    network = HebbianNetwork(rank=3, seed=4, about_zero=about_zero)
    network.update(data[:25])
    network.update(data[25:])
    filters = torch.randn(3, 20, generator=generator(4), dtype=torch.float64).numpy() / 20**0.5
    feedforward, lateral = reference.hebbian_synapses(data.numpy(), filters, warm_up=WARM_UP, about_zero=about_zero)
    np.testing.assert_allclose(network._sums["feedforward"].numpy(), feedforward, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(network._sums["lateral"].numpy(), lateral, rtol=1e-9, atol=1e-9)
    estimate = network.estimate()
    factors = estimate.covariance.factors.numpy()
    shared = feedforward.T @ np.linalg.inv(lateral) @ feedforward
    np.testing.assert_allclose(factors @ factors.T, shared, atol=1e-8)
    left = np.diag(reference.moments(data.numpy(), about_zero=about_zero)) - np.diag(shared)
    np.testing.assert_allclose(estimate.covariance.private.numpy(), left.clip(min=0), atol=1e-8)
    assert estimate.clamped == pytest.approx(-left.clip(max=0).sum(), abs=1e-8)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_it_converges_to_the_principal_subspace(scale: float) -> None:
    """What is missed of the space falls as 1/t, and after 4000 samples is as for PCA of the same samples, within half.

    Whatever the scale of activity, and over four populations.
    """
    missed: dict[int, list[float]] = {500: [], 4000: []}
    exact = []
    for seed in range(4):
        data, axes = simulated(4000, seed=seed, scale=scale)
        network = HebbianNetwork(rank=3, seed=0)
        network.update(data[:500])
        missed[500].append(distance(network.covariance().factors, axes))
        network.update(data[500:])
        missed[4000].append(distance(network.covariance().factors, axes))
        exact.append(distance(torch.linalg.eigh(data.mT.cov()).eigenvectors[:, -3:], axes))
    assert np.mean(missed[4000]) < np.mean(missed[500]) / 5
    assert np.mean(exact) < np.mean(missed[4000]) < 1.5 * np.mean(exact)


def test_the_filters_become_orthonormal() -> None:
    data, _ = simulated(4000, seed=0)
    network = HebbianNetwork(rank=3, seed=0)
    network.update(data)
    filters = torch.linalg.solve(network._sums["lateral"], network._sums["feedforward"])
    torch.testing.assert_close(filters @ filters.mT, torch.eye(3, dtype=torch.float64), atol=0.03, rtol=0)


def test_it_learns_the_covariance() -> None:
    """Shared eigenvalues within 15 % (recent samples count more), the variance of every unit exactly."""
    data, axes = simulated(4000, seed=1)
    network = HebbianNetwork(rank=3, seed=0)
    network.update(data)
    estimate = network.estimate()
    values = (axes.mT @ estimate.covariance.factors).square().sum(1)
    torch.testing.assert_close(values, torch.tensor([5.0, 4.0, 3.0]).double(), rtol=0.15, atol=0)
    assert estimate.clamped < 0.01 * estimate.covariance.trace()
    torch.testing.assert_close(network.mean, data.mean(0))
    free = estimate.covariance.private > 0
    torch.testing.assert_close(estimate.covariance.diagonal()[free], data.var(0)[free])
    assert estimate.covariance.trace() - estimate.clamped == pytest.approx(float(data.var(0).sum()))


def test_what_was_clamped_is_told() -> None:
    """Activity that grows: recent samples count more, so that the shared part exceeds the whole variance."""
    data, _ = simulated(600, seed=0)
    growing = (data - data.mean(0)) * torch.linspace(0.1, 3, 600)[:, None] ** 3
    network = HebbianNetwork(rank=3, seed=0)
    network.update(growing)
    estimate = network.estimate()
    assert estimate.clamped > 0.05 * estimate.covariance.trace()
    assert estimate.covariance.trace() - estimate.clamped == pytest.approx(float(growing.var(0).sum()))
    assert (estimate.covariance.private == 0).any()


def test_as_many_factors_as_units_and_silent_units() -> None:
    data, _ = simulated(300, seed=0)
    data[:, 3] = 0
    network = HebbianNetwork(rank=20, seed=0)
    network.update(data[:100].float())
    network.update(data[100:].float())
    found = network.covariance()
    assert found.factors.shape == (20, 20) and found.diagonal()[3] < 1e-3
    silent = HebbianNetwork(rank=2, seed=0)
    silent.update(torch.zeros(20, 5))
    assert silent.covariance().trace() == 0


def test_batches_are_samples_one_after_the_other() -> None:
    data, _ = simulated(100, seed=0)
    networks = [HebbianNetwork(rank=2, seed=0) for _ in range(2)]
    networks[0].update(data)
    for batch in data.split(7):
        networks[1].update(batch)
    torch.testing.assert_close(networks[0].covariance().factors, networks[1].covariance().factors)


def test_it_waits_for_the_first_activity() -> None:
    data, axes = simulated(2000, seed=0)
    network = HebbianNetwork(rank=3, seed=0, about_zero=True)
    network.update(torch.zeros(50, 20, dtype=torch.float64))
    network.update(data - data.mean(0))
    assert distance(network.covariance().factors, axes) < 0.01
