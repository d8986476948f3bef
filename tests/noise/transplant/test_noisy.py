"""Responses with injected noise have the noise's statistics, as a recording of them would."""

import numpy as np
import pytest
import reference
import torch

from neurovar import statistics
from neurovar.covariance import Dense, Diagonal, GainModulated
from neurovar.noise import noisy_responses

N = 6
NOISE = torch.from_numpy(reference.noise_matrix("structured", N))


def target(n_stimuli: int = 40, n_repeats: int = 1):
    return statistics.population(n_stimuli=n_stimuli, n_repeats=n_repeats, n_units=N, rng=0)


def test_their_noise_covariance_is_the_noise() -> None:
    """Each entry within 5 standard errors; 40 × 199 degrees of freedom."""
    recorded = noisy_responses(target(), Dense(NOISE), n_repeats=200, rng=0)
    found = statistics.noise_covariance(recorded)
    assert np.abs(reference.covariance_z_scores(found.values, NOISE.numpy(), 40 * 199)).max() < 5
    assert recorded.attrs["repeats_from"] == "injected noise"


def test_their_tuning_is_the_targets() -> None:
    tuned = target(n_repeats=3)
    recorded = noisy_responses(tuned, Dense(NOISE), n_repeats=4000, rng=0)
    error = np.sqrt(NOISE.diagonal().numpy() / 4000)
    assert (np.abs(recorded.mean("repeat") - tuned.mean("repeat")) < 5 * error).all()
    assert recorded["stimulus"].equals(tuned["stimulus"])


def test_noise_that_depends_on_the_response_sees_it() -> None:
    tuned = target(n_stimuli=2)
    gain = GainModulated(
        torch.tensor(0.0), torch.full((N,), 2.0), torch.tensor(2.0), torch.from_numpy(tuned.values[:, 0]).float()
    )
    recorded = noisy_responses(tuned, gain, n_repeats=5000, rng=0)
    expected = 2 * tuned.values[:, 0] ** 2  # variance 2 |x|²; a sample variance has a relative error of √(2/5000)
    np.testing.assert_allclose(recorded.var("repeat", ddof=1), expected, rtol=5 * np.sqrt(2 / 5000))


def test_some_units_of_those_that_vary() -> None:
    variance = torch.tensor([0.0, 1.0, 0.0, 2.0, 3.0, 4.0])
    tuned = target().assign_coords(layer=("unit", list("abcdef")))
    recorded = noisy_responses(tuned, Diagonal(variance), n_repeats=3, max_units=3, rng=1)
    assert recorded.sizes["unit"] == 3 and set(recorded["layer"].values) <= set("bdef")
    everything = noisy_responses(tuned, Diagonal(variance), n_repeats=3, max_units=9, rng=1)
    assert everything["layer"].values.tolist() == list("bdef")
    assert recorded.equals(noisy_responses(tuned, Diagonal(variance), n_repeats=3, max_units=3, rng=1))


def test_what_is_no_noise_for_this_target() -> None:
    with pytest.raises(ValueError, match="expected a target with the 5 units that the noise was fitted to, got 6"):
        noisy_responses(target(), Diagonal.isotropic(5), n_repeats=3, rng=0)
    with pytest.raises(ValueError, match="expected at least 1 repeat, got 0"):
        noisy_responses(target(), Diagonal.isotropic(N), n_repeats=0, rng=0)
    with pytest.raises(ValueError, match="expected noise with variance, got a trace of 0 over 6 units"):
        noisy_responses(target(), Diagonal(torch.zeros(N)), n_repeats=3, rng=0)
