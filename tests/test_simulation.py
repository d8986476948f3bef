"""Simulated responses have the noise and the signal that they claim."""

import numpy as np
import pytest
import reference
import torch

from neurovar import responses, simulation
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal

STRUCTURED = Dense(torch.from_numpy(reference.noise_matrix("structured", 6)))
NOISES: dict[str, tuple[Covariance | None, np.ndarray]] = {
    "default": (None, np.eye(6)),
    "isotropic": (Diagonal.isotropic(6, variance=0.5), 0.5 * np.eye(6)),
    "dense": (STRUCTURED, STRUCTURED.matrix.numpy()),
    "low rank": (LowRankPlusDiagonal(torch.ones(6, 1), torch.ones(6)), np.ones((6, 6)) + np.eye(6)),
}


@pytest.mark.parametrize("name", NOISES)
def test_the_noise_is_what_was_asked_for(name: str) -> None:
    noise, truth = NOISES[name]
    da = simulation.population(n_stimuli=800, n_repeats=5, n_units=6, noise=noise, rng=3)
    got, dof = reference.noise_covariance(da.values)
    assert np.abs(reference.covariance_z_scores(got, truth, dof)).max() < 4.5


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_signal_has_the_spectrum(exponent: float) -> None:
    n_units, n_stimuli = 5, 20_000
    silent = Diagonal.isotropic(n_units, variance=1e-12)
    da = simulation.population(
        n_stimuli=n_stimuli, n_repeats=1, n_units=n_units, exponent=exponent, noise=silent, rng=0
    )
    got = np.sort(np.linalg.eigvalsh(np.cov(da.values[:, 0].T)))[::-1]
    expected = np.arange(1, n_units + 1) ** -exponent
    expected *= n_units / expected.sum()
    np.testing.assert_allclose(got, expected, rtol=5 * np.sqrt(2 / n_stimuli))
    assert da.attrs["exponent"] == exponent


def test_the_form() -> None:
    da = simulation.population(n_stimuli=4, n_repeats=3, n_units=2, rng=0)
    assert responses.validate(da, min_repeats=3) is da
    assert da.shape == (4, 3, 2) and da.dtype == np.float64
    assert da.attrs == {"units": "arbitrary", "source": "simulation", "exponent": 1.0}
    assert da.stimulus.values.tolist() == [f"simulated{i:04d}" for i in range(4)]


def test_counts_are_poisson() -> None:
    da = simulation.population(n_stimuli=3000, n_repeats=4, n_units=6, counts=True, rng=0)
    assert da.attrs["units"] == "spike count"
    assert (da.values >= 0).all() and (da.values == np.round(da.values)).all()
    np.testing.assert_allclose(reference.fano_factor(da.values), 1, atol=0.05)
    assert da.values.mean() == pytest.approx(5, rel=0.05)


def test_shared_noise_makes_counts_overdispersed_and_correlated() -> None:
    noise = LowRankPlusDiagonal(torch.full((6, 1), 0.8), torch.full((6,), 0.01))
    da = simulation.population(n_stimuli=600, n_repeats=6, n_units=6, counts=True, noise=noise, rng=0)
    assert (reference.fano_factor(da.values) > 1.3).all()
    correlation = reference.correlation(reference.noise_covariance(da.values)[0])
    assert correlation[np.triu_indices(6, 1)].min() > 0.2


@pytest.mark.parametrize("noise", [None, STRUCTURED])
@pytest.mark.parametrize("counts", [False, True])
def test_a_seed_means_one_population(counts: bool, noise: Covariance | None) -> None:
    def make(rng: np.random.Generator | int) -> np.ndarray:
        return simulation.population(n_stimuli=5, n_repeats=2, n_units=6, counts=counts, noise=noise, rng=rng).values

    np.testing.assert_array_equal(make(0), make(np.random.default_rng(0)))
    assert not np.array_equal(make(0), make(1))


@pytest.mark.parametrize("size", ["n_stimuli", "n_repeats", "n_units"])
def test_nothing_to_simulate(size: str) -> None:
    with pytest.raises(ValueError, match=r"expected at least one stimulus, repeat and unit, got \("):
        simulation.population(**{"n_stimuli": 2, "n_repeats": 2, "n_units": 2, size: 0}, rng=0)


def test_noise_of_another_size() -> None:
    with pytest.raises(ValueError, match="expected noise of 4 units, got 6"):
        simulation.population(n_stimuli=2, n_repeats=2, n_units=4, noise=STRUCTURED, rng=0)
