"""Distances between two systems' noise: against loops, known answers, and what sampling does to them."""

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar.statistics.comparison._distances import curve_distance, noise_correlation_distance, spectrum_distance


def correlated(r: float, *, n_units: int = 12, n_stimuli: int = 40, n_repeats: int = 10, seed: int = 0) -> xr.DataArray:
    noise = r * np.ones((n_units, n_units)) + (1 - r) * np.eye(n_units)
    return reference.simulate(signal=np.eye(n_units), noise=noise, n_stimuli=n_stimuli, n_repeats=n_repeats, seed=seed)


def spectrum(values: np.ndarray, method: str = "cvpca") -> xr.DataArray:
    ranks = np.arange(1, len(values) + 1)
    return xr.DataArray(values, dims="rank", coords={"rank": ranks}, attrs={"method": method})


def curve(noise: list[float], error: float = 0.0, n_pairs: tuple[int, ...] = (10, 10, 10)) -> xr.Dataset:
    return xr.Dataset(
        {
            "noise_correlation": ("bin", noise),
            "standard_error": ("bin", [error if n else np.nan for n in n_pairs]),
            "n_pairs": ("bin", list(n_pairs)),
        },
        attrs={"edges": [-0.5, 0.0, 0.5, 1.0]},
    )


# Distributions of noise correlations


def test_it_is_the_mean_difference_of_quantiles() -> None:
    one, other = correlated(0.1), correlated(0.3, seed=1)
    quantiles = []
    for system in (one, other):
        matrix = reference.zscored_noise_correlation(system.values)
        quantiles.append(np.sort(matrix[np.triu_indices(12, 1)]))
    expected = np.abs(quantiles[0] - quantiles[1]).mean()
    assert noise_correlation_distance(one, other) == pytest.approx(expected, abs=1e-10)


def test_a_shift_of_all_correlations_is_recovered() -> None:
    found = noise_correlation_distance(
        correlated(0.1, n_repeats=60), correlated(0.4, n_units=9, n_repeats=60, seed=1), zscore=False
    )
    assert found == pytest.approx(0.3, abs=0.02)


def test_unequal_trials_look_like_a_difference() -> None:
    alike = noise_correlation_distance(correlated(0.0), correlated(0.0, seed=1))
    unlike = noise_correlation_distance(correlated(0.0), correlated(0.0, n_stimuli=4, seed=1))
    assert unlike > 3 * alike


def test_one_unit_has_no_pairs() -> None:
    with pytest.raises(ValueError, match="expected at least 2 units that vary for the same stimuli, got 1 units"):
        noise_correlation_distance(correlated(0.1), correlated(0.1).isel(unit=[0]))


# Spectra


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_variance_at_a_multiple_of_the_rank(factor: int) -> None:
    one, other = np.zeros(40), np.zeros(40)
    one[3], other[4 * factor - 1] = 5.0, 0.2
    assert spectrum_distance(spectrum(one), spectrum(other)) == pytest.approx(np.log(factor))


def test_scale_does_not_matter_and_negative_estimates_may_be_there() -> None:
    values = np.array([4.0, 2.0, 1.0, 0.3, -0.1, 0.1])
    assert spectrum_distance(spectrum(values), spectrum(7 * values)) == pytest.approx(0)
    assert spectrum_distance(spectrum(values), spectrum(values[::-1])) > 0.5


def test_power_laws_of_more_different_exponents_are_farther_apart() -> None:
    law = {exponent: spectrum(np.arange(1.0, 101) ** -exponent) for exponent in (0.8, 1.0, 1.5)}
    near, far = (spectrum_distance(law[1.0], law[other]) for other in (0.8, 1.5))
    assert 0 < near < far
    assert spectrum_distance(law[0.8], law[1.5]) == pytest.approx(near + far)  # in one dimension, in order


def test_only_the_ranks_of_both_count() -> None:
    long, short = spectrum(np.arange(1.0, 101) ** -1), spectrum(np.arange(1.0, 21) ** -1)
    assert spectrum_distance(long, short) == pytest.approx(0)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            spectrum(np.ones(5), "meme"),
            "expected spectra of one estimator, got 'cvpca' and 'meme': do not compare them",
        ),
        (spectrum(np.ones(1)), "expected at least 2 ranks in common, got 1"),
        (spectrum(-np.ones(5)), "expected a positive sum of variances, got -5"),
        (spectrum(np.full(5, np.nan)), "expected a positive sum of variances, got nan"),
    ],
)
def test_spectra_that_cannot_be_compared(other: xr.DataArray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spectrum_distance(spectrum(np.ones(5)), other)


# Curves


def test_curves_weigh_bins_by_pairs() -> None:
    one, other = curve([0.0, 0.1, 0.2], n_pairs=(10, 30, 0)), curve([0.3, 0.1, 0.9], n_pairs=(20, 90, 5))
    assert curve_distance(one, other) == pytest.approx(np.sqrt(10 * 0.09 / 40))


def test_sampling_errors_are_taken_off() -> None:
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(2000):
        first, second = (curve(list(rng.normal([0.0, 0.1, 0.2], 0.05)), error=0.05) for _ in range(2))
        distance = curve_distance(first, second)
        squares.append(np.sign(distance) * distance**2)
    assert abs(np.mean(squares)) < 3 * np.std(squares) / np.sqrt(2000)


def test_curves_over_other_bins() -> None:
    other = curve([0, 0, 0]).assign_attrs(edges=[-1.0, 0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"expected curves over the same bins, got edges \[-0.5, .* and \[-1.0"):
        curve_distance(curve([0, 0, 0]), other)


def test_curves_without_a_common_bin() -> None:
    with pytest.raises(ValueError, match="expected a bin with pairs of both systems and a standard error, got none"):
        curve_distance(curve([0, 0, 0], n_pairs=(5, 5, 0)), curve([0, 0, 0], n_pairs=(0, 0, 5)))
