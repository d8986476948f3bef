"""Simulated responses have the signal, the noise and the drift that they claim."""

from typing import Any

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import simulation as expected

from neurovar import responses, statistics
from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal

STRUCTURED = Dense(torch.from_numpy(reference.noise_matrix("structured", 6)))
NOISES: dict[str, tuple[Covariance | None, np.ndarray]] = {
    "default": (None, np.eye(6)),
    "isotropic": (Diagonal.isotropic(6, variance=0.5), 0.5 * np.eye(6)),
    "dense": (STRUCTURED, STRUCTURED.matrix.numpy()),
    "low rank": (LowRankPlusDiagonal(torch.ones(6, 1), torch.ones(6)), np.ones((6, 6)) + np.eye(6)),
}

GAUSSIAN_BEFORE = [1.2677775232898372, -1.5177810203035107, 1.6762779805158883]
COUNTS_BEFORE = [[6.0, 2.0, 2.0, 5.0, 8.0, 1.0], [6.0, 1.0, 4.0, 9.0, 7.0, 4.0], [8.0, 4.0, 4.0, 5.0, 5.0, 4.0]]


@pytest.mark.parametrize("name", NOISES)
def test_the_noise_is_what_was_asked_for(name: str) -> None:
    noise, truth = NOISES[name]
    da = statistics.population(n_stimuli=800, n_repeats=5, n_units=6, noise=noise, rng=3)
    got, dof = reference.noise_covariance(da.values)
    assert np.abs(reference.covariance_z_scores(got, truth, dof)).max() < 4.5


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_signal_has_the_spectrum(exponent: float) -> None:
    n_units, n_stimuli = 5, 20_000
    silent = Diagonal.isotropic(n_units, variance=1e-12)
    da = statistics.population(
        n_stimuli=n_stimuli, n_repeats=1, n_units=n_units, exponent=exponent, noise=silent, rng=0
    )
    got = np.sort(np.linalg.eigvalsh(np.cov(da.values[:, 0].T)))[::-1]
    expected = np.arange(1, n_units + 1) ** -exponent
    expected *= n_units / expected.sum()
    np.testing.assert_allclose(got, expected, rtol=5 * np.sqrt(2 / n_stimuli))
    assert da.attrs["exponent"] == exponent


def test_the_form() -> None:
    da = statistics.population(n_stimuli=4, n_repeats=3, n_units=2, rng=0)
    assert responses.validate(da, min_repeats=3) is da
    assert da.shape == (4, 3, 2) and da.dtype == np.float64
    assert da.attrs == {"units": "arbitrary", "source": "simulation", "exponent": 1.0}
    assert da.stimulus.values.tolist() == [f"simulated{i:04d}" for i in range(4)]


def test_a_seed_means_the_same_as_in_earlier_versions() -> None:
    options = {"n_stimuli": 50, "n_repeats": 3, "n_units": 6, "exponent": 1.3, "rng": 7}
    gaussian = statistics.population(**options).values
    np.testing.assert_allclose(gaussian[0, 0, :3], GAUSSIAN_BEFORE, rtol=1e-10)
    assert statistics.population(**options, counts=True).values[0].tolist() == COUNTS_BEFORE


def test_counts_are_poisson() -> None:
    da = statistics.population(n_stimuli=3000, n_repeats=4, n_units=6, counts=True, rng=0)
    assert da.attrs["units"] == "spike count"
    assert (da.values >= 0).all() and (da.values == np.round(da.values)).all()
    np.testing.assert_allclose(reference.fano_factor(da.values), 1, atol=0.05)
    assert da.values.mean() == pytest.approx(5, rel=0.05)


def test_shared_noise_makes_counts_overdispersed_and_correlated() -> None:
    noise = LowRankPlusDiagonal(torch.full((6, 1), 0.8), torch.full((6,), 0.01))
    da = statistics.population(n_stimuli=600, n_repeats=6, n_units=6, counts=True, noise=noise, rng=0)
    assert (reference.fano_factor(da.values) > 1.3).all()
    correlation = reference.correlation(reference.noise_covariance(da.values)[0])
    assert correlation[np.triu_indices(6, 1)].min() > 0.2


@pytest.mark.parametrize("noise", [None, STRUCTURED])
@pytest.mark.parametrize("counts", [False, True])
def test_a_seed_means_one_population(counts: bool, noise: Covariance | None) -> None:
    def make(rng: np.random.Generator | int) -> np.ndarray:
        return statistics.population(n_stimuli=5, n_repeats=2, n_units=6, counts=counts, noise=noise, rng=rng).values

    np.testing.assert_array_equal(make(0), make(np.random.default_rng(0)))
    assert not np.array_equal(make(0), make(1))


@pytest.mark.parametrize("size", ["n_stimuli", "n_repeats", "n_units"])
def test_nothing_to_simulate(size: str) -> None:
    with pytest.raises(ValueError, match=r"expected at least one stimulus, repeat and unit, got \("):
        statistics.population(**{"n_stimuli": 2, "n_repeats": 2, "n_units": 2, size: 0}, rng=0)


def test_noise_of_another_size() -> None:
    with pytest.raises(ValueError, match="expected noise of 4 units, got 6"):
        statistics.population(n_stimuli=2, n_repeats=2, n_units=4, noise=STRUCTURED, rng=0)


# Tuning


def curves(*, n_stimuli: int = 12, n_units: int = 5) -> xr.DataArray:
    return statistics.orientation_tuning(
        np.linspace(0, 180, n_stimuli, endpoint=False), n_units=n_units, baseline=2, amplitude=8, concentration=1.5
    )


def trials(mean: float, *, n_stimuli: int = 4, n_repeats: int | list[int] = 5, n_units: int = 3) -> xr.DataArray:
    """Trials of which the same is expected throughout."""
    tuning = curves(n_stimuli=n_stimuli, n_units=n_units) * 0 + mean
    return statistics.present(tuning.assign_attrs(units="spike count"), n_repeats=n_repeats, rng=0)


def test_tuning_is_the_mean_of_the_population() -> None:
    tuning = statistics.tuning(n_stimuli=9, n_units=4, exponent=1.5, rng=3)
    silent = Diagonal.isotropic(4, variance=1e-20)
    da = statistics.population(n_stimuli=9, n_repeats=2, n_units=4, exponent=1.5, noise=silent, rng=3)
    np.testing.assert_allclose(da.values, np.repeat(tuning.values[:, None], 2, axis=1), atol=1e-8)
    assert tuning.attrs == {"units": "arbitrary", "source": "simulation", "exponent": 1.5}


def test_orientation_tuning_is_a_von_mises_curve() -> None:
    half_width = np.rad2deg(np.arccos(1 - np.log(2) / 3)) / 2
    got = statistics.orientation_tuning(
        [60, 60 + half_width, 60 - half_width, 240, 150], n_units=3, baseline=1, amplitude=6, concentration=3
    )
    assert got.preferred_orientation.values.tolist() == [0, 60, 120]
    np.testing.assert_allclose(got.values[:4, 1], [7, 4, 4, 7])
    assert got.values[4, 1] == pytest.approx(1 + 6 * np.exp(-6))
    np.testing.assert_allclose(got.sel(stimulus=150).values[[0, 2]], 1 + 6 * np.exp(3 * (np.cos(np.pi / 3) - 1)))
    assert got.attrs["units"] == "spike count"


# Trials


def test_trials_are_numbered_in_the_order_shown_as_arrange_does() -> None:
    n_repeats = [3, 1, 4, 2] * 3
    got = statistics.present(curves(), n_repeats=n_repeats, rng=1)
    assert responses.repeat_counts(got).values.tolist() == n_repeats
    order = got.presentation.values
    flat = np.empty((sum(n_repeats), 5))
    stimulus = np.empty(sum(n_repeats))
    for (s, r), place in np.ndenumerate(order):
        if place >= 0:
            flat[place], stimulus[place] = got.values[s, r], got.stimulus.values[s]
    again = responses.arrange(flat, stimulus)
    np.testing.assert_array_equal(again.values, got.values)
    np.testing.assert_array_equal(again.presentation.values, order)
    np.testing.assert_array_equal(got.values[:, 0], curves().values)


def test_every_order_is_as_likely() -> None:
    """The place of the only trial of one stimulus among three others of another."""
    tuning, rng = curves(n_stimuli=2), np.random.default_rng(0)
    places = [int(statistics.present(tuning, n_repeats=[1, 3], rng=rng).presentation[0, 0]) for _ in range(1000)]
    np.testing.assert_allclose(np.bincount(places) / 1000, 0.25, atol=3 * (0.25 * 0.75 / 1000) ** 0.5)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("path", ["random_walk", "sinusoid"])
def test_additive_drift_has_its_standard_deviation_and_covariance(path: str, shared: bool) -> None:
    """Its expected noise covariance, as its docstring states it, over 200 sessions."""
    noises = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        still = statistics.present(curves(n_stimuli=4, n_units=3), n_repeats=[2, 3, 5, 3], rng=rng)
        da = statistics.additive_drift(still, path=path, standard_deviation=0.7, shared=shared, rng=rng)
        drift = (da - still).values.reshape(-1, 3)
        drift = drift[~np.isnan(drift[:, 0])]
        np.testing.assert_allclose(drift.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(drift.std(axis=0), 0.7, atol=1e-12)
        noises.append(reference.noise_covariance(da.values)[0])
    truth = np.where(np.eye(3, dtype=bool) | shared, 0.7**2 * 13 / 12, 0.0)
    z = expected.z_scores(np.array(noises), truth)
    assert np.abs(z[np.triu_indices(3)]).max() < 3
    assert da.attrs["drift"] == "additive" and da.attrs["drift_path"] == path
    assert da.attrs["drift_standard_deviation"] == 0.7
    assert da.attrs["drift_units"] == ("shared" if shared else "private")


def test_drift_is_slow_in_the_order_shown() -> None:
    still = trials(5.0, n_repeats=50)
    for path in ("sinusoid", "random_walk"):
        drifted = statistics.additive_drift(still, path=path, standard_deviation=1.0, shared=True, rng=0)
        shown = (drifted - still).values[..., 0].ravel()[np.argsort(still.presentation.values.ravel())]
        assert np.diff(shown).std() < 0.3


def test_gain_drift_multiplies_and_keeps_the_mean() -> None:
    still = trials(4.0, n_repeats=50)
    drifted = statistics.gain_drift(still, path="random_walk", standard_deviation=0.4, shared=False, rng=2)
    logs = np.log(drifted.values.reshape(-1, 3))
    np.testing.assert_allclose(drifted.values.reshape(-1, 3).mean(axis=0), 4.0)
    np.testing.assert_allclose(logs.std(axis=0), 0.4)
    assert not np.allclose(logs[:, 0] - logs[:, 0].mean(), logs[:, 1] - logs[:, 1].mean())
    assert drifted.attrs["drift"] == "gain"
    together = statistics.gain_drift(still, path="sinusoid", standard_deviation=0.4, shared=True, rng=2).values
    np.testing.assert_array_equal(together[..., 0], together[..., 2])


# Models


def aligned(n_units: int = 6) -> Covariance:
    tuning = statistics.tuning(n_stimuli=30, n_units=n_units, exponent=1.0, rng=0)
    return statistics.signal_aligned(tuning, n_dimensions=2, fraction=0.8, trace=4.0)


@pytest.mark.parametrize(
    "noise",
    [
        Diagonal.isotropic(6, variance=0.5),
        STRUCTURED,
        LowRankPlusDiagonal(torch.ones(6, 1), torch.ones(6)),
        statistics.differential_correlations(Diagonal.isotropic(6), np.arange(6) - 2.5, epsilon=0.3),
        aligned(),
    ],
    ids=["isotropic", "dense", "low rank", "differential", "signal-aligned"],
)
def test_gaussian_noise_with_unequal_repeats(noise: Covariance) -> None:
    n_repeats = np.random.default_rng(0).integers(1, 6, size=800)
    shown = statistics.present(curves(n_stimuli=800, n_units=6), n_repeats=n_repeats, rng=0)
    da = statistics.gaussian(shown, noise=noise, rng=4)
    got, dof = reference.noise_covariance(da.values)
    assert dof == (n_repeats - 1).sum()
    assert np.abs(reference.covariance_z_scores(got, noise.to_dense().double().numpy(), dof)).max() < 4
    signal = np.nanmean(da.values - shown.values, axis=(0, 1))
    assert np.abs(signal / (noise.diagonal().numpy() / n_repeats.sum()) ** 0.5).max() < 4
    assert da.attrs["model"] == "gaussian" and da.attrs["noise"] == type(noise).__name__
    assert da.attrs["noise_trace"] == pytest.approx(noise.trace())


def test_poisson_counts() -> None:
    shown = statistics.present(curves(n_stimuli=300), n_repeats=[3, 6] * 150, rng=0)
    da = statistics.poisson(shown, rng=1)
    assert (da.isnull() == shown.isnull()).all()
    np.testing.assert_allclose(reference.fano_factor(da.values), 1, atol=4 * (2 / 1050) ** 0.5)
    correlation = reference.correlation(reference.noise_covariance(da.values)[0])
    assert np.abs(correlation[np.triu_indices(5, 1)]).max() < 4 / 1050**0.5
    z = np.nansum(da.values - shown.values, axis=(0, 1)) / np.nansum(shown.values, axis=(0, 1)) ** 0.5
    assert np.abs(z).max() < 4
    assert da.attrs["units"] == "spike count" and da.attrs["model"] == "poisson"


@pytest.mark.parametrize("gain_correlation", [0.0, 0.4, 1.0])
def test_modulated_poisson_counts_are_negative_binomial_with_the_covariance(gain_correlation: float) -> None:
    shown = trials(6.0, n_stimuli=40, n_repeats=500)
    da = statistics.modulated_poisson(shown, gain_variance=0.25, gain_correlation=gain_correlation, rng=0)
    counts = da.values.reshape(40, 500, 3)
    levels = np.arange(20)
    below = (counts[..., 0].ravel()[:, None] <= levels).mean(axis=0)
    truth = expected.gamma_poisson(levels, mean=6.0, gain_variance=0.25)
    assert np.abs((below - truth) / (truth * (1 - truth) / 20_000) ** 0.5).max() < 4
    covariances = np.array([np.cov(repeats.T) for repeats in counts])
    wanted = np.where(np.eye(3, dtype=bool), 6 + 0.25 * 36, gain_correlation * 0.25 * 36)
    assert np.abs(expected.z_scores(covariances, wanted)).max() < 3.5
    assert da.attrs["gain_variance"] == 0.25 and da.attrs["gain_correlation"] == gain_correlation


def test_poisson_lognormal_counts_have_the_covariance() -> None:
    """Of either sign, and of unequal rates; the closed form of the docstring is that of quadrature."""
    log_gains = np.array([[0.20, -0.10, 0.05], [-0.10, 0.15, 0.0], [0.05, 0.0, 0.02]])
    rates = np.array([3.0, 8.0, 15.0])
    wanted = expected.lognormal_gain_moments(rates, log_gains)
    np.testing.assert_allclose(wanted, np.outer(rates, rates) * np.expm1(log_gains) + np.diag(rates), atol=1e-9)
    shown = trials(1.0, n_stimuli=40, n_repeats=500) * rates
    da = statistics.poisson_lognormal(shown, noise=Dense(torch.from_numpy(log_gains)), rng=1)
    assert np.abs(expected.z_scores(da.values.mean(axis=1), rates)).max() < 3.5
    covariances = np.array([np.cov(repeats.T) for repeats in da.values])
    assert np.abs(expected.z_scores(covariances, wanted)).max() < 3.5
    assert da.attrs["model"] == "poisson_lognormal" and da.attrs["noise"] == "Dense"


MODELS: dict[str, Any] = {
    "gaussian": lambda da, rng: statistics.gaussian(da, noise=Diagonal.isotropic(3), rng=rng),
    "poisson": lambda da, rng: statistics.poisson(da, rng=rng),
    "modulated": lambda da, rng: statistics.modulated_poisson(da, gain_variance=0.2, gain_correlation=0.5, rng=rng),
    "lognormal": lambda da, rng: statistics.poisson_lognormal(da, noise=Diagonal.isotropic(3, variance=0.1), rng=rng),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_model_keeps_the_form(model: Any) -> None:
    shown = trials(5.0, n_repeats=[2, 5, 1, 3])
    da = model(shown, 0)
    assert responses.validate(da) is da
    assert (da.isnull() == shown.isnull()).all() and da.presentation.equals(shown.presentation)
    assert set(da.coords) == set(shown.coords) and da.attrs["source"] == "simulation"
    np.testing.assert_array_equal(da.values, model(shown, np.random.default_rng(0)).values)
    assert not np.allclose(da.values, model(shown, 1).values, equal_nan=True)
    assert model(shown.astype("float32"), 0).dtype == np.float32 and da.dtype == np.float64
    assert "model" not in shown.attrs


@pytest.mark.parametrize("drift", [statistics.additive_drift, statistics.gain_drift])
def test_drift_keeps_the_form(drift: Any) -> None:
    shown = trials(5.0, n_repeats=[2, 5, 1, 3]).astype("float32")
    options = {"path": "random_walk", "standard_deviation": 0.1, "shared": False}
    da = drift(shown, **options, rng=0)
    assert (
        (da.isnull() == shown.isnull()).all() and da.dtype == np.float32 and da.presentation.equals(shown.presentation)
    )
    np.testing.assert_array_equal(da.values, drift(shown, **options, rng=np.random.default_rng(0)).values)
    assert "drift" not in shown.attrs


def test_whole_numbers_become_floating_point() -> None:
    tuning = xr.DataArray([[1, 2], [3, 4]], dims=("stimulus", "unit"), coords={"stimulus": [0, 1]})
    shown = statistics.present(tuning, n_repeats=[2, 1], rng=0)
    assert shown.dtype == np.float64 and np.isnan(shown.values[1, 1]).all()


# Noise


BASES = [Diagonal.isotropic(4, variance=2.0), LowRankPlusDiagonal(torch.ones(4, 1), torch.ones(4)), aligned(4)]


@pytest.mark.parametrize("noise", BASES, ids=["diagonal", "low rank", "dense"])
def test_differential_correlations_limit_information(noise: Covariance) -> None:
    derivative, epsilon = np.array([1.0, -0.5, 2.0, 0.3]), 0.4
    got = statistics.differential_correlations(noise, derivative, epsilon=epsilon)
    base = noise.to_dense().double().numpy()
    np.testing.assert_allclose(got.to_dense().numpy(), base + epsilon * np.outer(derivative, derivative), rtol=1e-6)
    before = expected.linear_fisher_information(base, derivative)
    after = expected.linear_fisher_information(got.to_dense().double().numpy(), derivative)
    assert after == pytest.approx(before / (1 + epsilon * before), rel=1e-5)
    assert isinstance(got, Dense if isinstance(noise, Dense) else LowRankPlusDiagonal) and got.dtype == noise.dtype


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.8, 1.0])
def test_signal_aligned_noise_has_the_fraction(fraction: float) -> None:
    tuning = statistics.tuning(n_stimuli=40, n_units=8, exponent=1.0, rng=1) + 3
    noise = statistics.signal_aligned(tuning, n_dimensions=2, fraction=fraction, trace=5.0)
    axes = np.linalg.eigh(np.cov(tuning.values.T))[1][:, -2:]
    inside = axes.T @ noise.to_dense().numpy() @ axes
    assert np.trace(inside) == pytest.approx(5 * fraction, abs=1e-9)
    assert noise.trace() == pytest.approx(5)
    np.testing.assert_allclose(inside, 5 * fraction / 2 * np.eye(2), atol=1e-9)
    if fraction == 0.25:
        np.testing.assert_allclose(noise.to_dense().numpy(), 5 / 8 * np.eye(8), atol=1e-9)


# Bad input


def present(**changes: Any) -> xr.DataArray:
    return statistics.present(**{"tuning": curves(), "n_repeats": 3, "rng": 0} | changes)


def orientation(**changes: Any) -> xr.DataArray:
    options = {"orientations": [0, 45], "n_units": 2, "baseline": 1, "amplitude": 1, "concentration": 1}
    return statistics.orientation_tuning(**options | changes)


def drifted(**changes: Any) -> xr.DataArray:
    options = {"trials": trials(5.0), "path": "sinusoid", "standard_deviation": 1.0, "shared": True, "rng": 0}
    return statistics.additive_drift(**options | changes)


def modulated(**changes: Any) -> xr.DataArray:
    return statistics.modulated_poisson(
        trials(5.0), **{"gain_variance": 1, "gain_correlation": 0.5, "rng": 0} | changes
    )


def differential(**changes: Any) -> Covariance:
    options = {"noise": Diagonal.isotropic(2), "derivative": [1.0, 2.0], "epsilon": 0.1}
    return statistics.differential_correlations(**options | changes)


def aligned_noise(**changes: Any) -> Covariance:
    return statistics.signal_aligned(**{"tuning": curves(), "n_dimensions": 2, "fraction": 0.5, "trace": 1.0} | changes)


@pytest.mark.parametrize(
    ("call", "changes", "message"),
    [
        (
            statistics.tuning,
            {"n_stimuli": 0, "n_units": 2, "exponent": 1, "rng": 0},
            "one stimulus and unit, got 0 and 2",
        ),
        (statistics.tuning, {"n_stimuli": 2, "n_units": 2, "exponent": np.nan, "rng": 0}, "finite exponent, got nan"),
        (orientation, {"orientations": [0, 0]}, r"different finite orientations, got \[0, 0\]"),
        (orientation, {"orientations": [0, np.inf]}, "different finite orientations"),
        (orientation, {"orientations": []}, "different finite orientations"),
        (orientation, {"n_units": 0}, "at least one unit, got 0"),
        (orientation, {"baseline": -1}, "of at least 0 and a concentration above 0, got -1, 1 and 1"),
        (orientation, {"amplitude": np.nan}, "got 1, nan and 1"),
        (orientation, {"concentration": 0}, "got 1, 1 and 0"),
        (present, {"tuning": curves().T}, r"dims \('stimulus', 'unit'\) and stimulus ids, got \('unit', 'stimulus'\)"),
        (present, {"tuning": curves().values}, "got ndarray"),
        (present, {"tuning": curves().drop_vars("stimulus")}, "and stimulus ids"),
        (present, {"tuning": curves() * np.nan}, "finite mean responses, got 60 others"),
        (present, {"n_repeats": 0}, "1 repeat or more, of all or each of 12 stimuli, got 0"),
        (present, {"n_repeats": [1, 2]}, r"each of 12 stimuli, got \[1, 2\]"),
        (present, {"n_repeats": 1.5}, "got 1.5"),
        (drifted, {"path": "line"}, "a path 'random_walk' or 'sinusoid', got 'line'"),
        (drifted, {"standard_deviation": 0}, "a standard deviation above 0, got 0"),
        (drifted, {"trials": trials(1.0).drop_vars("presentation")}, "a coordinate 'presentation'"),
        (drifted, {"trials": trials(1.0, n_stimuli=1, n_repeats=1)}, "at least 2 presentations for a drift, got 1"),
        (drifted, {"trials": curves()}, "expected dims"),
        (modulated, {"gain_variance": 0}, "a gain variance above 0 and a correlation from 0 to 1, got 0, 0.5"),
        (modulated, {"gain_correlation": 1.1}, "got 1, 1.1"),
        (modulated, {"gain_correlation": -0.1}, "got 1, -0.1"),
        (differential, {"derivative": [1.0]}, r"2 finite derivatives, one a unit, got \[1.\]"),
        (differential, {"derivative": [1.0, np.nan]}, "2 finite derivatives"),
        (differential, {"epsilon": -1}, "an epsilon of at least 0, got -1"),
        (aligned_noise, {"tuning": curves().T}, "finite mean responses"),
        (aligned_noise, {"fraction": 1.1}, "a fraction from 0 to 1 and a trace above 0, got 1.1 and 1.0"),
        (aligned_noise, {"trace": 0}, "got 0.5 and 0"),
        (aligned_noise, {"n_dimensions": 5}, "1 to 4 dimensions, for a signal of 5 over 5 units, got 5"),
        (aligned_noise, {"tuning": curves(n_stimuli=3), "n_dimensions": 3}, "1 to 2 dimensions, for a signal of 2"),
        (aligned_noise, {"tuning": curves() * 0}, "1 to 0 dimensions"),
        (aligned_noise, {"n_dimensions": 0}, "got 0"),
    ],
)
def test_bad_input(call: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "gaussian"])
def test_rates_are_not_negative(model: str) -> None:
    with pytest.raises(ValueError, match=r"rates of at least 0, got negative ones \(smallest -1\)"):
        MODELS[model](trials(-1.0), 0)


@pytest.mark.parametrize("model", ["gaussian", "lognormal"])
def test_noise_of_other_units_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match="expected noise of 2 units, got 3"):
        MODELS[model](trials(1.0, n_units=2), 0)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_models_want_trials(model: Any) -> None:
    with pytest.raises(ValueError, match="expected dims"):
        model(curves(), 0)
