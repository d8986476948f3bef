"""Errors, biases and power from simulation are those of theory; recordings like a pilot are like it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import simulation as expected

from neurovar import statistics
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.statistics import _power as power

PAIRS = np.triu_indices(6, 1)


def correlated(rho: float) -> Covariance:
    return Dense(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=torch.float64))


def gaussian(noise: Covariance, *, n_stimuli: int = 4) -> power.Simulator:
    def simulate(n_repeats: int, rng: np.random.Generator) -> xr.DataArray:
        return statistics.population(n_stimuli=n_stimuli, n_repeats=n_repeats, n_units=noise.n, noise=noise, rng=rng)

    return simulate


def white(n_repeats: int, rng: np.random.Generator) -> xr.DataArray:
    """One unit and stimulus, which take no time."""
    return reference.responses(rng.standard_normal((1, n_repeats, 1)))


def counts(n_repeats: int, rng: np.random.Generator) -> xr.DataArray:
    return statistics.population(n_stimuli=1, n_repeats=n_repeats, n_units=1, counts=True, rng=rng)


def r_sc(da: xr.DataArray) -> float:
    matrix = expected.pooled_correlation(da.values)
    return float(matrix[np.triu_indices(len(matrix), 1)].mean())


def variance(da: xr.DataArray) -> float:
    """Of one unit and stimulus, with the divisor R: biased by −σ²/R."""
    return float(da.values[0, :, 0].var())


def needed(statistic: Callable = r_sc, simulate: Callable | None = None, **options: Any) -> xr.Dataset:
    defaults = {"n_repeats": [6, 26], "precision": 0.1, "truth": 0.0, "n_simulations": 300, "rng": 0}
    return statistics.repeats_needed(statistic, simulate or gaussian(correlated(0.0)), **defaults | options)


def agrees(result: xr.Dataset, name: str, truth: np.ndarray | float, *, slack: float = 0.0) -> None:
    """Within three Monte Carlo errors, and those are small."""
    assert (np.abs(result[name] - truth) < 3 * result[f"{name}_error"] + slack).all()


# Theory


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_the_standard_error_of_a_correlation(rho: float) -> None:
    """(1 − ρ²)/√dof, dof = 4 (R − 1); the bias is −ρ(1 − ρ²)/(2 dof)."""
    result = needed(simulate=gaussian(correlated(rho)), truth=rho, n_repeats=[11, 41], n_simulations=400, rng=1)
    dof = 4 * (result["n_repeats"].values - 1)
    agrees(result, "standard_error", (1 - rho**2) / dof**0.5)
    agrees(result, "bias", -rho * (1 - rho**2) / (2 * dof))
    assert (result["standard_error_error"] < 0.07 * result["standard_error"]).all()
    np.testing.assert_allclose(result["bias"], result["mean"] - rho)
    np.testing.assert_allclose(result["mean_error"], result["standard_error"] / 400**0.5)
    np.testing.assert_allclose(result["bias_error"], result["mean_error"])


def test_the_standard_error_of_the_mean_of_independent_pairs() -> None:
    """Correlations of 15 pairs of independent units are uncorrelated: 1/√(15 dof)."""
    result = needed(simulate=gaussian(Diagonal.isotropic(6)), n_simulations=400)
    agrees(result, "standard_error", 1 / np.sqrt(15 * 4 * (result["n_repeats"].values - 1)))
    agrees(result, "bias", 0.0)


def test_the_standard_error_of_the_fano_factor() -> None:
    """√(2/ν), ν = R − 1, which for Poisson counts does not depend on the rate (Fisher's index of dispersion)."""
    result = needed(
        lambda da: float(reference.fano_factor(da.values)[0]), counts, n_repeats=[11, 41], truth=1.0, n_simulations=500
    )
    agrees(result, "standard_error", np.sqrt(2 / (result["n_repeats"].values - 1)))
    agrees(result, "bias", 0.0)


def test_the_error_of_a_standard_error_is_what_it_varies_by() -> None:
    """Over 40 analyses of a skewed statistic, for which 1/√(2n) would be too small."""
    results = [needed(variance, white, n_repeats=[4], n_simulations=60, rng=seed) for seed in range(40)]
    spread = np.std([result["standard_error"].item() for result in results], ddof=1)
    stated = np.mean([result["standard_error_error"].item() for result in results])
    assert stated == pytest.approx(spread, rel=0.3)
    assert stated > 1.3 * np.mean([result["standard_error"].item() for result in results]) / 120**0.5


def test_a_bias_and_the_truth_that_it_is_measured_from() -> None:
    """Of the variance with divisor R, −1/R; from the mean at 10 · 20 repeats, 1/200 of it is missing."""
    known = needed(variance, white, n_repeats=[5, 20], truth=1.0, n_simulations=500)
    agrees(known, "bias", [-1 / 5, -1 / 20])
    assert (np.abs(known["bias"]) > 3 * known["bias_error"])[0]
    estimated = needed(variance, white, n_repeats=[5, 20], truth=None, n_simulations=500)
    agrees(estimated, "bias", [1 / 200 - 1 / 5, 1 / 200 - 1 / 20])
    assert estimated.attrs["truth"] == pytest.approx(1, abs=3 * (2 / 200 / 50) ** 0.5)
    assert (estimated["bias_error"] > known["bias_error"]).all()
    np.testing.assert_array_equal(estimated["mean"], known["mean"])


@pytest.mark.parametrize("difference", [0.1, 0.3, 2.0])
def test_power_is_how_often_two_groups_differ(difference: float) -> None:
    result = needed(difference=difference)
    for error, got in zip(result["standard_error"].values, result["power"].values):
        assert got == pytest.approx(expected.z_test_power(float(error), difference), abs=0.004)
    assert result.attrs["difference"] == difference and result.attrs["alpha"] == 0.05


def test_the_error_of_the_power_is_what_it_varies_by() -> None:
    results = [
        needed(variance, white, difference=0.9, n_repeats=[20], n_simulations=60, rng=seed) for seed in range(40)
    ]
    spread = np.std([result["power"].item() for result in results], ddof=1)
    assert np.mean([result["power_error"].item() for result in results]) == pytest.approx(spread, rel=0.35)


def test_without_error_any_difference_is_detected() -> None:
    result = needed(lambda da: 1.0, difference=0.01, n_repeats=[2])
    assert result["power"].item() == 1 and result["power_error"].item() == 0
    assert result["standard_error"].item() == 0 and result["standard_error_error"].item() == 0


# Answers


def test_the_fewest_repeats() -> None:
    """SE = 1/√(4 (R − 1)): 0.1 at R = 26; for a difference of 0.3, 80 % power takes SE = 0.0757, R = 45."""
    result = needed(n_repeats=[60, 14, 6, 30, 30], difference=0.3, n_simulations=200)
    assert result["n_repeats"].values.tolist() == [6, 14, 30, 60]
    assert result.attrs["repeats_for_precision"] == 30 and result.attrs["repeats_for_power"] == 60
    assert result.attrs["precision"] == 0.1 and result.attrs["n_simulations"] == 200 and result.attrs["truth"] == 0


def test_more_repeats_than_tried() -> None:
    result = needed(precision=0.01, difference=0.01, n_simulations=20)
    assert np.isnan(result.attrs["repeats_for_precision"]) and np.isnan(result.attrs["repeats_for_power"])


def test_enough_repeats_are_enough_from_there_on() -> None:
    """Standard errors of 0 and 0.5 and 0: the second 0 counts."""

    def statistic(da: xr.DataArray) -> float:
        return float(np.sign(da.values[0, 0, 0])) if da.sizes["repeat"] == 3 else 1.0

    assert needed(statistic, n_repeats=[2, 3, 4]).attrs["repeats_for_precision"] == 4


def test_only_what_was_asked_for() -> None:
    result = needed(n_simulations=4)
    assert "power" not in result and "repeats_for_power" not in result.attrs
    result = needed(precision=None, difference=0.1, n_simulations=4)
    assert "precision" not in result.attrs and "repeats_for_precision" not in result.attrs


def test_a_seed_means_one_result_whatever_the_number_of_processes() -> None:
    options = {"n_simulations": 20, "truth": None, "difference": 0.1}

    def statistic(da: xr.DataArray) -> float:  # one that another process can read: it is not of this module
        return float((da.values[0].T @ da.values[0])[0, 1])

    one = needed(statistic, **options)
    assert one.identical(needed(statistic, **options, n_jobs=2))
    assert one.identical(needed(statistic, **options, rng=np.random.default_rng(0)))
    assert not one.identical(needed(statistic, **options, rng=1))


def test_simulations_are_independent() -> None:
    """Of each other, and between numbers of repeats."""
    seen: list[float] = []

    def statistic(da: xr.DataArray) -> float:
        seen.append(float(da.values[0, 0, 0]))
        return 0.0

    needed(statistic, n_simulations=40, truth=None)
    assert len(seen) == len(set(seen)) == 40 + 40 + 4


# Pilots


def counts_pilot(*, n_repeats: int = 12, gain_variance: float = 0.2) -> xr.DataArray:
    rng = np.random.default_rng(1)
    curves = statistics.orientation_tuning(
        np.arange(0, 180, 15), n_units=6, baseline=3, amplitude=9, concentration=1.5
    ).assign_coords(area=("unit", ["V1", "V1", "V1", "V2", "V2", "V2"]))
    shown = statistics.present(curves, n_repeats=[n_repeats] * 11 + [2], rng=rng)
    return statistics.modulated_poisson(shown, gain_variance=gain_variance, gain_correlation=0.6, rng=rng)


def pooled(pilot: xr.DataArray) -> Dense:
    return Dense(torch.from_numpy(reference.noise_covariance(pilot.values)[0]))


@pytest.mark.parametrize("kind", ["gaussian", "modulated_poisson"])
def test_a_simulated_recording_has_the_noise_and_the_form_of_the_pilot(kind: str) -> None:
    pilot = reference.apart(counts_pilot(n_repeats=60, gain_variance=0.5))
    noise = pooled(pilot)
    simulate = statistics.from_pilot(pilot, kind=kind, noise=noise)
    recordings = [simulate(20, np.random.default_rng(seed)) for seed in range(40)]
    covariances = np.array([reference.noise_covariance(da.values)[0] for da in recordings])
    assert np.abs(expected.z_scores(covariances, noise.matrix.numpy())[np.triu_indices(6)]).max() < 3.5
    da = recordings[0]
    assert da.shape == (12, 20, 6) and "presentation" in da.coords
    assert da.stimulus.equals(pilot.stimulus) and da.area.equals(pilot.area)
    assert da.attrs["units"] == "spike count" and da.recording.equals(pilot.recording)
    assert da.attrs["model"] == {"gaussian": "gaussian", "modulated_poisson": "poisson_lognormal"}[kind]
    assert not recordings[0].equals(recordings[1])


@pytest.mark.parametrize("least_repeats", [None, 2])
def test_the_signal_variance_is_that_of_the_pilot_without_its_noise(least_repeats: int | None) -> None:
    """Averaged over pilots; the variance of the pilot's mean responses alone would be about a quarter larger."""
    sizes = {"signal": np.eye(4), "n_stimuli": 40, "n_repeats": 4, "least_repeats": least_repeats, "mean": 2.0}
    silent = Diagonal.isotropic(4, variance=1e-12)
    got, naive = [], []
    for seed in range(120):
        pilot = reference.simulate(**sizes, noise=np.eye(4), seed=seed)
        means = np.nanmean(pilot.values, axis=1)
        truth = np.nanmean(reference.simulate(**sizes, noise=np.zeros((4, 4)), seed=seed).values, axis=1)
        simulated = statistics.from_pilot(pilot, kind="gaussian", noise=silent)(2, np.random.default_rng(0)).values
        np.testing.assert_allclose(simulated.mean(axis=(0, 1)), means.mean(axis=0), atol=1e-4)
        noise = np.diag(reference.noise_covariance(pilot.values)[0])
        of_means = noise * np.mean([1 / len(repeats) for repeats in reference.trials(pilot.values)])
        without = means.var(axis=0, ddof=1) - of_means
        np.testing.assert_allclose(simulated.mean(axis=1).var(axis=0, ddof=1), without, rtol=1e-4)
        got.append((without - truth.var(axis=0, ddof=1)).mean())
        naive.append((means.var(axis=0, ddof=1) - truth.var(axis=0, ddof=1)).mean())
    assert abs(expected.z_scores(np.array(got), 0.0)) < 3
    assert np.mean(naive) > 0.2


def test_a_pilot_without_signal_is_simulated_without() -> None:
    pilot = reference.simulate(signal=np.zeros((2, 2)), noise=np.eye(2), n_stimuli=6, n_repeats=2, seed=2)
    pilot.values[:, :, 0] = [-1.0, 1.0]
    silent = Diagonal.isotropic(2, variance=1e-20)
    simulated = statistics.from_pilot(pilot, kind="gaussian", noise=silent)(2, np.random.default_rng(0))
    np.testing.assert_allclose(simulated.values[..., 0], 0, atol=1e-8)


def test_one_stimulus_is_enough() -> None:
    pilot = counts_pilot().isel(stimulus=[0])
    simulated = statistics.from_pilot(pilot, kind="modulated_poisson", noise=Diagonal.isotropic(6, variance=30.0))
    assert simulated(5, np.random.default_rng(0)).shape == (1, 5, 6)


def test_other_numbers_of_stimuli_and_units() -> None:
    pilot = counts_pilot().assign_coords(unit=np.arange(6))
    silent = Diagonal.isotropic(6, variance=1e-20)
    simulate = statistics.from_pilot(pilot, kind="gaussian", noise=silent, n_stimuli=30, n_units=4)
    one, other = (simulate(3, np.random.default_rng(seed)) for seed in range(2))
    everything = statistics.from_pilot(pilot, kind="gaussian", noise=silent)(2, np.random.default_rng(0)).values[:, 0]
    assert one.shape == (30, 3, 4) and one.stimulus.values.tolist() == list(range(30))
    assert len(set(one.unit.values)) == 4 and (np.diff(one.unit) > 0).all()
    assert one.area.values.tolist() == pilot.area.values[one.unit].tolist()
    assert one.unit.values.tolist() != other.unit.values.tolist()
    near = np.isclose(one.values[:, 0, None], everything[:, one.unit.values], atol=1e-6).all(axis=2)
    assert (near.sum(axis=1) == 1).all() and 6 < near.any(axis=0).sum() < 12


def test_the_standard_error_over_stimuli_is_larger() -> None:
    """Of the mean response: with the pilot's own stimuli it is that of noise alone."""
    pilot = counts_pilot()
    noise = Diagonal.isotropic(6, variance=0.5)
    fixed = statistics.from_pilot(pilot, kind="gaussian", noise=noise)
    drawn = statistics.from_pilot(pilot, kind="gaussian", noise=noise, n_stimuli=12)
    errors = [
        needed(lambda da: float(da.values[..., 0].mean()), simulate, n_repeats=[10]) for simulate in (fixed, drawn)
    ]
    signal = fixed(2, np.random.default_rng(0)).values  # its variance over stimuli
    of_signal = signal.mean(axis=1)[:, 0].var() / 12
    agrees(errors[0], "standard_error", (0.5 / 120) ** 0.5)
    agrees(errors[1], "standard_error", (0.5 / 120 + of_signal) ** 0.5, slack=0.02)
    assert errors[1]["standard_error"].item() > 4 * errors[0]["standard_error"].item()


def test_noise_that_modulated_poisson_counts_cannot_have() -> None:
    pilot = counts_pilot()
    means = np.nanmean(pilot.values, axis=(0, 1))
    sub_poisson = Diagonal(torch.from_numpy(0.85 * means))
    with pytest.raises(ValueError, match=r"nearest has 1\d% more variance \(at most 10% is taken\): use noise"):
        statistics.from_pilot(pilot, kind="modulated_poisson", noise=sub_poisson)
    slightly = statistics.from_pilot(pilot, kind="modulated_poisson", noise=Diagonal(torch.from_numpy(0.95 * means)))
    fano = [reference.fano_factor(slightly(100, np.random.default_rng(seed)).values).mean() for seed in range(20)]
    assert abs(expected.z_scores(np.array(fano), 1.0)) < 3


@pytest.mark.data
def test_a_real_pilot() -> None:
    """V4 counts in 100 ms have less variance than Poisson ones: only the Gaussian model can have their noise."""
    from neurovar_datasets import cowley2023_v4

    pilot = cowley2023_v4.load(session="210325").isel(stimulus=slice(200))
    noise = pooled(pilot)
    with pytest.raises(ValueError, match="expected noise that modulated Poisson counts can have"):
        statistics.from_pilot(pilot, kind="modulated_poisson", noise=noise)
    simulate = statistics.from_pilot(pilot, kind="gaussian", noise=noise)
    truth = reference.correlation(noise.matrix.numpy())[np.triu_indices(50, 1)].mean()
    result = needed(r_sc, simulate, n_repeats=[5, 10], truth=float(truth), n_simulations=30)
    agrees(result, "bias", 0.0)
    assert result["standard_error"].values[1] < 0.006


@pytest.mark.data
def test_a_real_pilot_of_modulated_counts() -> None:
    """V1 and V2 counts in 1.28 s; three factors of their noise."""
    from neurovar_datasets import gokcen2023_v1v2

    pilot = gokcen2023_v1v2.load()
    matrix, _ = reference.noise_covariance(pilot.values)
    values, axes = np.linalg.eigh(matrix)
    factors = axes[:, -3:] * values[-3:] ** 0.5
    private = np.diag(matrix) - (factors**2).sum(axis=1)
    noise = LowRankPlusDiagonal(torch.from_numpy(factors), torch.from_numpy(private))
    da = statistics.from_pilot(pilot, kind="modulated_poisson", noise=noise)(2000, np.random.default_rng(0))
    assert r_sc(da) == pytest.approx(r_sc(pilot), rel=0.1)
    assert reference.fano_factor(da.values).mean() == pytest.approx(reference.fano_factor(pilot.values).mean(), rel=0.1)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": None}, "a precision, a difference to detect, or both, got neither"),
        ({"precision": 0}, "a precision above 0, got 0"),
        ({"precision": np.nan}, "a precision above 0, got nan"),
        ({"difference": -1}, "a difference above 0, got -1"),
        ({"truth": np.nan}, "a finite truth, got nan"),
        ({"n_simulations": 1}, "at least 2 simulations, got 1"),
        ({"n_repeats": [1, 4]}, r"whole numbers of repeats of at least 2, got \[1, 4\]"),
        ({"n_repeats": [2.5]}, r"whole numbers of repeats of at least 2, got \[2.5\]"),
        ({"n_repeats": []}, r"numbers of repeats of at least 2, got \[\]"),
        ({"statistic": lambda da: np.nan}, "a finite number from the statistic, got nan with 6 repeats"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        needed(**changes)


def test_a_statistic_that_refuses_names_the_repeats() -> None:
    def statistic(da: xr.DataArray) -> float:
        if da.sizes["repeat"] < 3:
            raise ValueError("expected at least 3 repeats")
        return 0.0

    with pytest.raises(ValueError, match="a simulated recording with 2 repeats: expected at least 3 repeats"):
        needed(statistic, n_repeats=[2, 3])


def silent_pilot() -> xr.DataArray:
    pilot = counts_pilot()
    pilot.values[..., 2] = np.where(np.isnan(pilot.values[..., 2]), np.nan, 0)
    return pilot


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "poisson"}, "kind 'gaussian' or 'modulated_poisson', got 'poisson'"),
        ({"noise": Diagonal.isotropic(5)}, "noise of 6 units, got 5"),
        ({"pilot": counts_pilot().isel(repeat=[0])}, "at least 2 repeats"),
        ({"n_stimuli": 0}, "at least 1 stimulus, got 0"),
        ({"n_units": 0}, "1 to 6 units, got 0"),
        ({"n_units": 7}, "1 to 6 units, got 7"),
        ({"pilot": counts_pilot().assign_attrs(units="dF/F")}, "spike counts for kind 'modulated_poisson', got 'dF/F'"),
        ({"pilot": silent_pilot()}, r"units with spikes, got 1 without \(positions \[2\]\)"),
    ],
)
def test_bad_pilots(changes: dict[str, Any], message: str) -> None:
    defaults = {"pilot": counts_pilot(), "kind": "modulated_poisson", "noise": Diagonal.isotropic(6, variance=20.0)}
    with pytest.raises(ValueError, match=message):
        statistics.from_pilot(**defaults | changes)
