"""A shared gain and a Fano law, as noise that depends on the target's activations."""

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import transplant as by_hand
from reference.gain import gained

from neurovar import statistics
from neurovar.covariance import GainModulated
from neurovar.noise import GainLaw


def counts(values: np.ndarray) -> xr.DataArray:
    return reference.responses(values, units="spike count")


def cortex(*, gain_variance: float = 0.1, n_stimuli: int = 300, mean: float = 6.0, seed: int = 0) -> xr.DataArray:
    """Poisson counts under a shared gain."""
    rng = np.random.default_rng(seed)
    return counts(gained(rng, (n_stimuli, 10, 20), mean=mean, loading=gain_variance**0.5))


def power_law(exponent: float, factor: float, gain_variance: float) -> xr.DataArray:
    """Counts, rounded, with private variance factor · mean^exponent under a shared gain."""
    rng = np.random.default_rng(1)
    mean = 60 * np.exp(0.6 * rng.normal(size=(150, 1, 60)))
    values = mean * (1 + gain_variance**0.5 * rng.normal(size=(150, 10, 1)))
    values = values + (factor * mean**exponent) ** 0.5 * rng.normal(size=(150, 10, 60))
    return counts(np.maximum(np.round(values), 0))


def network(n_units: int = 7, n_stimuli: int = 5) -> xr.DataArray:
    values = np.maximum(np.random.default_rng(0).normal(size=(n_stimuli, 1, n_units)), 0)
    return reference.responses(values, units="activation")


# The source


@pytest.mark.parametrize("gain_variance", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("mean", [2.0, 20.0])
def test_poisson_counts_under_a_shared_gain(gain_variance: float, mean: float) -> None:
    """The exponent is a little too large, as stated."""
    law = GainLaw.fit(cortex(gain_variance=gain_variance, mean=mean))
    assert law.gain_variance == pytest.approx(gain_variance, abs=0.012)
    assert law.exponent == pytest.approx(1.05, abs=0.04)
    assert law.factor * mean**law.exponent == pytest.approx(mean * 20 / 19, rel=0.05)


def test_with_many_units_it_is_unbiased() -> None:
    da = counts(gained(np.random.default_rng(0), (100, 10, 100), mean=6.0, loading=0.3))
    law = GainLaw.fit(da)
    assert law.exponent == pytest.approx(1.01, abs=0.02)
    assert law.factor == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("exponent", "factor"), [(1.5, 0.4), (0.8, 2.0)])
def test_another_power_law(exponent: float, factor: float) -> None:
    law = GainLaw.fit(power_law(exponent, factor, 0.02))
    assert law.gain_variance == pytest.approx(0.02, abs=0.004)
    assert law.exponent == pytest.approx(exponent, abs=0.1)
    assert np.log(law.factor * 60**law.exponent) == pytest.approx(np.log(factor * 60**exponent), abs=0.1)


def test_mean_count_is_over_all_trials() -> None:
    da = cortex(n_stimuli=50)
    da.values[:20, 5:] = np.nan
    assert GainLaw.fit(da).mean_count == pytest.approx(np.nanmean(da.values))


def test_the_law_by_hand() -> None:
    """Point by point, with absent trials and stimuli shown once: the gamma regression's equation and its factor."""
    da = cortex(n_stimuli=30, mean=2.0)
    da.values[:20, 4:] = np.nan
    da.values[20, 1:] = np.nan
    law = GainLaw.fit(da)
    mean, variance, weight = map(np.array, by_hand.power_law(by_hand.without_shared_gain(da.values)))
    centre = (weight * np.log(mean)).sum() / weight.sum()
    terms = [w * v / m**law.exponent * (np.log(m) - centre) for m, v, w in zip(mean, variance, weight)]
    assert abs(sum(terms)) < 1e-8 * sum(map(abs, terms))
    factors = [w * v / m**law.exponent for m, v, w in zip(mean, variance, weight)]
    assert law.factor == pytest.approx(sum(factors) / weight.sum())
    assert law.gain_variance == pytest.approx(float(statistics.shared_gain(da).shared_gain_variance))


def test_a_negative_estimate_is_no_gain() -> None:
    da = cortex(gain_variance=0.0, n_stimuli=60, seed=4)
    assert float(statistics.shared_gain(da).shared_gain_variance) < 0
    assert GainLaw.fit(da).gain_variance == 0


def test_private_gains_raise_the_exponent() -> None:
    da = counts(gained(np.random.default_rng(0), (300, 10, 20), mean=6, loading=0.1, private=0.15))
    assert GainLaw.fit(da).exponent > 1.2
    assert float(statistics.fit_modulated_poisson(da).gain_variance.mean()) > 0.15


# On the target


def test_activations_stand_for_counts_by_their_mean_size() -> None:
    """The coefficients of variation are the source's at k|x| spikes, k by hand."""
    law = GainLaw(gain_variance=0.1, factor=1.3, exponent=1.2, mean_count=4.0)
    target = network()
    target.values[1] *= -1
    noise = law.onto(target)
    assert isinstance(noise, GainModulated) and noise.state_dependent
    k = 4.0 / np.abs(target.values).mean()
    state = torch.tensor([0.5, 2.0, -1.0, 0.0, 3.0, 0.1, 1.0], dtype=torch.float64)
    rate = k * state.abs().numpy()
    expected = 0.1 * np.outer(state, state) + np.diag(1.3 * rate**1.2 / k**2)
    np.testing.assert_allclose(noise.at(state).to_dense().numpy(), expected, rtol=1e-10, atol=1e-14)


def test_the_reference_states_are_the_stimuli() -> None:
    target = network()
    noise = GainLaw(0.1, 1.0, 1.0, 4.0).onto(target)
    expected = torch.stack([noise.at(state).to_dense() for state in torch.from_numpy(target.values[:, 0])]).mean(0)
    torch.testing.assert_close(noise.to_dense(), expected)


def test_means_over_the_repeats_of_the_target() -> None:
    target = xr.concat([network(), 3 * network()], "repeat").transpose("stimulus", "repeat", "unit")
    noise = GainLaw(0.1, 1.0, 1.0, 4.0).onto(target)
    np.testing.assert_allclose(noise.states.numpy(), 2 * network().values[:, 0])


def test_the_law_comes_back_from_the_noise() -> None:
    """Noise of a source whose rates are the activations, sampled at them, has the source's law again."""
    rates = np.random.default_rng(0).uniform(20, 100, size=(100, 60))
    law = GainLaw(gain_variance=0.02, factor=1.5, exponent=1.0, mean_count=float(rates.mean()))
    noise = law.onto(reference.responses(rates[:, None]))
    states = torch.from_numpy(rates).repeat_interleave(10, 0)
    draws = states + noise.sample_at(states, generator=torch.Generator().manual_seed(0))
    again = GainLaw.fit(counts(np.maximum(np.round(draws.numpy()), 0).reshape(100, 10, 60)))
    assert again.gain_variance == pytest.approx(0.02, abs=0.003)
    at_mean = [found.factor * rates.mean() ** found.exponent for found in (law, again)]
    assert at_mean[1] == pytest.approx(at_mean[0], rel=0.05)
    assert again.exponent == pytest.approx(1, abs=0.12)


# Bad input


def falling() -> xr.DataArray:
    """Variance that falls with the mean."""
    rng = np.random.default_rng(0)
    mean = np.linspace(20, 200, 40)[:, None, None]
    return counts(np.round(mean + 100 / mean * rng.normal(size=(40, 8, 6))))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (cortex(n_stimuli=5).assign_attrs(units="spikes/s"), r"expected counts, attrs\['units'\] = 'spike count', got"),
        (cortex(n_stimuli=5).isel(repeat=[0]), "expected at least 2 repeats of some stimulus, got at most 1"),
        (cortex(n_stimuli=5).isel(unit=[0, 1]), "expected at least 3 units, got 2"),
        (cortex(n_stimuli=5) * 0, "expected spikes, got a mean count of 0"),
        (counts(np.full((5, 4, 4), 3.0)), "got no power law from 20 points"),
        (falling(), "expected a gain variance and exponent of at least 0, .* got GainLaw"),
    ],
)
def test_bad_sources(source: xr.DataArray, message: str) -> None:
    source.attrs.setdefault("units", "spike count")
    with pytest.raises(ValueError, match=message):
        GainLaw.fit(source)


@pytest.mark.parametrize(
    "law", [(-0.1, 1.0, 1.0, 1.0), (0.1, 0.0, 1.0, 1.0), (0.1, 1.0, -1.0, 1.0), (0.1, 1.0, 1.0, 0.0), (np.nan, 1, 1, 1)]
)
def test_no_law(law: tuple) -> None:
    with pytest.raises(
        ValueError, match="expected a gain variance and exponent of at least 0, a factor and count above 0"
    ):
        GainLaw(*law)


def test_a_silent_target() -> None:
    with pytest.raises(ValueError, match="expected responses of the target other than 0, got none from 7 units"):
        GainLaw(0.1, 1.0, 1.0, 1.0).onto(network() * 0)
