"""Noise of each stimulus and of neighbouring trials, drift and gain: references, known answers, biases, bad input."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import noise as plain

from neurovar import responses
from neurovar.statistics.estimation._drift import remove_drift, remove_drift_kernel, remove_gain, remove_gain_kernel
from neurovar.statistics.estimation._noise import (
    noise_correlation,
    noise_correlation_kernel,
    noise_covariance,
    noise_covariance_kernel,
)

N_UNITS = 8
PAIRS = np.triu_indices(N_UNITS, 1)
BOTH = pytest.mark.parametrize("differences", [False, True])
OPTIONS = [
    {"zscore": zscore, "per_stimulus": per_stimulus, "differences": differences}
    for zscore, per_stimulus in [(True, False), (False, False), (True, True)]
    for differences in [False, True]
]


def counts(*, seed: int = 0, shape: tuple[int, int, int] = (15, 6, N_UNITS)) -> xr.DataArray:
    """Spike counts with unequal repeats, gaps between them, and units that are silent for some stimuli."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(rng.gamma(0.7, 1.5, size=(shape[0], 1, shape[2])), size=shape).astype(float)
    for stimulus in range(shape[0]):
        values[stimulus, rng.permutation(shape[1])[: stimulus % shape[1]]] = np.nan
    return reference.responses(values, units="spike count")


def shown(n_stimuli: int, n_repeats: int, rng: np.random.Generator) -> np.ndarray:
    """Places of the trials in a random order, each stimulus's repeats one after the other."""
    return np.sort(rng.permutation(n_stimuli * n_repeats).reshape(n_stimuli, n_repeats), axis=1)


def in_order(values: np.ndarray, places: np.ndarray, units: str = "arbitrary") -> xr.DataArray:
    return reference.responses(values, units=units).assign_coords(presentation=(("stimulus", "repeat"), places))


def within(samples: list[float] | np.ndarray, expected: float, *, slack: float = 0.0) -> bool:
    """Whether the mean of independent estimates is within two standard errors (and `slack`) of what is expected."""
    samples = np.asarray(samples)
    return abs(samples.mean() - expected) < 2 * samples.std(ddof=1) / np.sqrt(len(samples)) + slack


# References


@BOTH
def test_covariances_are_the_loops(differences: bool) -> None:
    da = counts()
    pooled = noise_covariance(da, differences=differences)
    np.testing.assert_allclose(pooled.values, plain.covariance(da.values, differences=differences), atol=1e-12)
    matrices = noise_covariance(da, per_stimulus=True, differences=differences)
    assert matrices.dims == ("stimulus", "unit", "other_unit") and matrices.attrs["units"] == "(spike count)²"
    np.testing.assert_allclose(matrices.values, plain.covariances(da.values, differences=differences), atol=1e-12)
    assert np.isnan(matrices.values).any(axis=(1, 2)).tolist() == [len(r) < 2 for r in reference.trials(da.values)]


@BOTH
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_correlations_are_the_loops(differences: bool) -> None:
    da = counts()
    assert any(np.ptp(r, axis=0).min() == 0 for r in reference.trials(da.values) if len(r) > 2)
    matrices = noise_correlation(da, per_stimulus=True, differences=differences)
    expected = plain.correlations(da.values, differences=differences)
    np.testing.assert_allclose(matrices.values, expected, atol=1e-12)
    assert matrices.stimulus.values.tolist() == da.stimulus.values.tolist()
    pooled = noise_correlation(da, differences=differences)
    expected = plain.mean_correlation(da.values, differences=differences)
    np.testing.assert_allclose(pooled.values, expected, atol=1e-12)
    raw = reference.correlation(plain.covariance(da.values, differences=differences))
    np.testing.assert_allclose(noise_correlation(da, zscore=False, differences=differences).values, raw, atol=1e-12)


def test_zscoring_changes_nothing_within_a_stimulus() -> None:
    da = counts()
    matrices = noise_correlation(da, per_stimulus=True)
    xr.testing.assert_identical(matrices, noise_correlation(da, per_stimulus=True, zscore=False))


def test_the_pooled_correlation_is_the_mean_of_those_of_stimuli() -> None:
    da = reference.recording("structured", least_repeats=3)
    matrices = noise_correlation(da, per_stimulus=True)
    mean = (matrices * matrices.dof).sum("stimulus") / matrices.dof.sum()
    np.testing.assert_allclose(noise_correlation(da).values, mean.values, atol=1e-12)


def test_degrees_of_freedom() -> None:
    da = counts()
    n_repeats = [len(r) for r in reference.trials(da.values)]
    for estimate in (noise_covariance, noise_correlation):
        assert estimate(da).attrs["dof"] == sum(n_repeats) - len(n_repeats)
        assert estimate(da, per_stimulus=True).dof.values.tolist() == [n - 1 for n in n_repeats]
        got = estimate(da, differences=True).attrs["dof"]
        assert got == pytest.approx(plain.dof_of_differences(n_repeats), rel=1e-12)
        matrices = estimate(da, per_stimulus=True, differences=True).dof.values
        expected = [plain.dof_of_differences([n]) if n > 1 else 0 for n in n_repeats]
        np.testing.assert_allclose(matrices, expected, rtol=1e-12)


def test_differences_of_two_repeats_are_residuals() -> None:
    da = reference.recording("structured", n_repeats=2, least_repeats=None)
    xr.testing.assert_allclose(noise_covariance(da, differences=True), noise_covariance(da))
    assert noise_covariance(da, differences=True).attrs["dof"] == 15


def test_differences_follow_the_order_shown() -> None:
    da = counts()
    places = np.arange(90).reshape(15, 6)
    expected = noise_covariance(da, differences=True)
    mixed = in_order(da.values, np.where(np.isnan(da.values[:, :, 0]), -1, places), units="spike count")
    rng = np.random.default_rng(0)
    mixed = mixed.isel(repeat=rng.permutation(6))
    np.testing.assert_allclose(noise_covariance(mixed, differences=True).values, expected.values, atol=1e-12)
    unordered = noise_covariance(mixed.drop_vars("presentation"), differences=True)
    assert np.abs(unordered.values - expected.values).max() > 0.01
    elsewhere = da.assign_coords(presentation=("stimulus", np.arange(15)))
    xr.testing.assert_identical(noise_covariance(elsewhere, differences=True), expected)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_symmetric_and_bounded_in_the_dtype_given(options: dict[str, bool], dtype: type) -> None:
    values = counts(shape=(40, 5, 30)).values.astype(dtype)
    values[..., 1] = values[..., 0]  # a correlation that rounding could take beyond 1
    got = noise_correlation_kernel(values, **options)
    tensor = noise_correlation_kernel(torch.from_numpy(values), **options)
    torch.testing.assert_close(tensor, tensor.mT, rtol=0, atol=0, equal_nan=True)
    assert got.dtype == dtype and np.nanmax(got) == 1 and np.nanmin(got) >= -1
    np.testing.assert_array_equal(got, got.swapaxes(-1, -2))
    diagonal = np.diagonal(got, axis1=-2, axis2=-1)
    assert (diagonal[~np.isnan(diagonal)] == 1).all()
    unit_first = np.ascontiguousarray(values.transpose(2, 0, 1)).transpose(1, 2, 0)
    other = noise_correlation_kernel(unit_first, **options)
    np.testing.assert_allclose(other, got, atol=1e-5)
    np.testing.assert_array_equal(other, other.swapaxes(-1, -2))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_on_torch_tensors(options: dict[str, bool], dtype: torch.dtype) -> None:
    check_on_device("cpu", options, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("options", OPTIONS)
def test_kernels_on_the_gpu(options: dict[str, bool]) -> None:
    check_on_device("cuda", options, torch.float32)


def check_on_device(device: str, options: dict[str, bool], dtype: torch.dtype) -> None:
    values = counts().values
    tensor = torch.from_numpy(values).to(device, dtype)
    covariance = {name: option for name, option in options.items() if name != "zscore"}
    kernels = [
        lambda x: noise_correlation_kernel(x, **options),
        lambda x: noise_covariance_kernel(x, **covariance)[0],
        remove_gain_kernel,
    ]
    for kernel in kernels:
        got = kernel(tensor)
        assert got.dtype == dtype and got.device.type == device
        np.testing.assert_allclose(got.cpu().numpy(), kernel(values), atol=1e-5 if dtype == torch.float32 else 1e-12)
        if kernel is not remove_gain_kernel:
            torch.testing.assert_close(got, got.mT, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(tensor.cpu().nan_to_num(-1), torch.from_numpy(values).to(dtype).nan_to_num(-1))


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_integers_are_converted(dtype: type) -> None:
    values = np.random.default_rng(0).poisson(20, size=(5, 4, 3)).astype(dtype)
    da, floats = reference.responses(values), reference.responses(values.astype(float))
    xr.testing.assert_identical(noise_correlation(da, differences=True), noise_correlation(floats, differences=True))
    xr.testing.assert_identical(remove_gain(da), remove_gain(floats))
    placed = in_order(values, np.arange(20, dtype=np.uint8).reshape(5, 4))
    np.testing.assert_array_equal(remove_drift(placed, window=5), remove_drift(placed.astype(float), window=5))


@pytest.mark.parametrize("window", [3, 7, 201])
def test_removing_drift_is_the_loop(window: int) -> None:
    da = counts(shape=(15, 6, 3))
    places = shown(15, 6, np.random.default_rng(0))
    places[:5] += 300  # a pause
    got = remove_drift(in_order(da.values, places), window=window)
    np.testing.assert_allclose(got.values, plain.without_drift(da.values, places, window), atol=1e-12)
    assert (
        got.attrs["drift_removed"] == f"running mean of the residuals of the other trials within {window} presentations"
    )
    assert noise_covariance(got).attrs["drift_removed"] == got.attrs["drift_removed"]


def test_removing_drift_from_many_units_and_float32() -> None:
    values = np.random.default_rng(0).normal(size=(10, 4, 1100))
    places = shown(10, 4, np.random.default_rng(0))
    got = remove_drift_kernel(values.astype(np.float32), places, 9)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, plain.without_drift(values, places, 9), atol=1e-5)


def test_removing_gain_is_the_loop() -> None:
    da = counts(shape=(15, 6, 4))
    alone = da.values[0]
    alone[:, 1:] = 0  # one unit responds: nothing tells its gain
    got = remove_gain(da)
    np.testing.assert_allclose(got.values, plain.without_gain(da.values), atol=1e-10)
    np.testing.assert_array_equal(got.values[0], alone)
    means = [da.mean("repeat"), got.mean("repeat")]
    xr.testing.assert_allclose(means[0], means[1])
    assert "other units" in noise_covariance(got).attrs["gain_removed"]


# Known answers and stated biases


@pytest.mark.parametrize("noise", ["isotropic", "structured", "aligned"])
@pytest.mark.parametrize("options", [{}, {"differences": True}])
def test_covariance_is_unbiased(noise: str, options: dict[str, bool]) -> None:
    """Each entry, over 400 small recordings with unequal repeats: its largest deviation of 36 in standard errors."""
    signal = reference.signal_matrix(N_UNITS)
    truth = signal if noise == "aligned" else reference.noise_matrix(noise, N_UNITS)
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(truth)
    values = rng.normal(size=(400, 5, 6, N_UNITS)) @ root.T + rng.normal(size=(400, 5, 1, N_UNITS))
    values[:, 0, 1:] = values[:, 1, 2:5] = np.nan
    pooled = np.array([noise_covariance_kernel(recording, **options)[0] for recording in values])
    dof = noise_covariance_kernel(values[0], **options)[1]
    z = (pooled.mean(axis=0) - truth) / (pooled.std(axis=0, ddof=1) / 20)
    assert np.abs(z).max() < 3.3 and np.abs(z).mean() < 1.3
    variance = (np.outer(np.diag(truth), np.diag(truth)) + truth**2) / dof
    assert (pooled.var(axis=0, ddof=1) / variance).mean() == pytest.approx(1, abs=0.07), "dof is what is stated"
    matrices = np.array([noise_covariance_kernel(recording, per_stimulus=True, **options)[0] for recording in values])
    z = (matrices.mean(axis=0) - truth) / (matrices.std(axis=0, ddof=1) / 20)
    assert np.isnan(z[0]).all() and np.abs(z[1:]).max() < 4


@pytest.mark.parametrize("n_repeats", [3, 5, 10])
@BOTH
def test_bias_of_correlations_of_a_stimulus(n_repeats: int, differences: bool) -> None:
    """−ρ(1 − ρ²)/(2·dof), the same for the pooled z-scored one; to first order, so within a fifth of itself."""
    rho, root = 0.5, np.linalg.cholesky([[1, 0.5], [0.5, 1]])
    values = np.random.default_rng(0).normal(size=(40_000, n_repeats, 2)) @ root.T
    dof = plain.dof_of_differences([n_repeats]) if differences else n_repeats - 1
    expected = rho - rho * (1 - rho**2) / (2 * dof)
    matrices = noise_correlation_kernel(values, per_stimulus=True, differences=differences)[:, 0, 1]
    assert within(matrices, expected, slack=0.2 * (rho - expected))
    assert noise_correlation_kernel(values, differences=differences)[0, 1] == pytest.approx(matrices.mean(), abs=1e-10)


def drifting(rng: np.random.Generator, *, n_stimuli: int = 60, n_repeats: int = 6, size: float = 3.0) -> xr.DataArray:
    """Independent noise of variance 1, and a drift that all units share, by `size` over the recording."""
    places = shown(n_stimuli, n_repeats, rng)
    values = rng.normal(size=(n_stimuli, n_repeats, N_UNITS)) + rng.normal(size=(n_stimuli, 1, N_UNITS))
    return in_order(values + size * (places / places.size)[:, :, None], places)


@pytest.mark.parametrize("zscore", [True, False])
def test_drift_makes_correlations_and_differences_or_removal_unmake_them(zscore: bool) -> None:
    rng = np.random.default_rng(0)
    samples = [drifting(rng) for _ in range(15)]

    def mean_correlations(estimate: Callable[[xr.DataArray], xr.DataArray]) -> np.ndarray:
        return np.array([estimate(da).values[PAIRS].mean() for da in samples])

    assert mean_correlations(lambda da: noise_correlation(da, zscore=zscore)).mean() > 0.3
    removed = mean_correlations(lambda da: noise_correlation(remove_drift(da, window=21), zscore=zscore))
    assert within(removed, 0, slack=9 / 12 / (5 * 20))
    neighbours = mean_correlations(lambda da: noise_correlation(da, zscore=zscore, differences=True))
    # the mean square of a step between neighbours is 2/((R + 1)(R + 2)) of the whole, squared
    assert within(neighbours, 1 / (1 + 56 / 9), slack=0.02)


def test_a_drift_at_a_constant_rate_in_residuals_and_differences() -> None:
    """b² R(R + 1)/12 in residuals, b²/2 in differences."""
    da = reference.responses(np.broadcast_to(0.7 * np.arange(6)[:, None], (3, 6, 1)).copy())
    assert noise_covariance(da).item() == pytest.approx(0.49 * 6 * 7 / 12)
    assert noise_covariance(da, differences=True).item() == pytest.approx(0.49 / 2)


@pytest.mark.parametrize(("n_stimuli", "n_repeats", "window"), [(40, 5, 5), (40, 2, 11), (1, 200, 11), (20, 10, 41)])
def test_removing_drift_keeps_independent_noise(n_stimuli: int, n_repeats: int, window: int) -> None:
    """Its variance but for 0 to 3/T; its covariances, of the degrees of freedom that are left."""
    rng, variance, squares = np.random.default_rng(0), [], []
    for _ in range(20):
        values = rng.normal(size=(n_stimuli, n_repeats, 100))
        removed = remove_drift_kernel(values, shown(n_stimuli, n_repeats, rng), window)
        covariance, dof = noise_covariance_kernel(removed)
        variance.append(np.diag(covariance).mean())
        squares.append((covariance[np.triu_indices(100, 1)] ** 2).mean())
    most = 3 / (n_stimuli * n_repeats)
    assert within(variance, 1 + most / 2, slack=most / 2)
    added = n_repeats / (n_repeats - 1) / (window - 1)
    assert 1 / np.mean(squares) / dof == pytest.approx(1 / (1 + 1.7 * added), abs=0.04)


@pytest.mark.parametrize(("n_repeats", "window"), [(2, 11), (5, 11), (5, 21), (10, 11)])
def test_what_stays_of_a_drift(n_repeats: int, window: int) -> None:
    rng, left = np.random.default_rng(0), []
    for _ in range(20):
        places = shown(100, n_repeats, rng)
        drift = (places / places.size)[:, :, None]
        left.append(noise_covariance_kernel(remove_drift_kernel(drift, places, window))[0].item() / drift.var())
    assert np.mean(left) == pytest.approx(1 / ((n_repeats - 1) * (window - 1)), rel=0.25)


def test_removing_drift_keeps_noise_correlations_and_fast_changes() -> None:
    rng = np.random.default_rng(0)
    truth, errors = reference.noise_matrix("structured", N_UNITS), []
    for _ in range(40):
        values = rng.multivariate_normal(np.zeros(N_UNITS), truth, size=(50, 6))
        removed = remove_drift_kernel(values, shown(50, 6, rng), 15)
        errors.append(noise_covariance_kernel(removed)[0] - truth)
    z = np.mean(errors, axis=0) / (np.std(errors, axis=0, ddof=1) / np.sqrt(40))
    assert np.abs(z).max() < 3.5


@pytest.mark.parametrize("shared", [0.0, 0.1, 0.4])
def test_removing_the_gain_of_modulated_poisson_counts(shared: float) -> None:
    """With a gain of variance 0, 0.1 or 0.4 nothing but the stated −1/(N − 1) of units that are alike is left."""
    rng, n_units, before, after = np.random.default_rng(0), 40, [], []
    pairs = np.triu_indices(n_units, 1)
    for _ in range(20):
        gain = rng.gamma(1 / shared, shared, size=(40, 8, 1)) if shared else 1
        values = rng.poisson(10 * gain * np.ones((40, 8, n_units))).astype(float)
        for kept, recording in ((before, values), (after, remove_gain_kernel(values))):
            kept.append(noise_correlation_kernel(recording, zscore=False)[pairs].mean())
    assert np.mean(before) == pytest.approx(10 * shared / (1 + 10 * shared), abs=0.04)
    assert within(after, -1 / (n_units - 1), slack=0.001)


def test_removing_gain_from_independent_noise() -> None:
    """Variances grow, and pairs become negative, as stated; here of units that differ, with known means."""
    rng, n_units = np.random.default_rng(0), 12
    mean, variance = rng.uniform(2, 9, n_units), rng.uniform(0.5, 2, n_units)
    values = mean + np.sqrt(variance) * rng.normal(size=(200, 500, n_units))
    covariance = noise_covariance_kernel(remove_gain_kernel(values))[0]
    power = (mean**2).sum() - mean**2
    noise = (variance * mean**2).sum() - variance * mean**2
    np.testing.assert_allclose(np.diag(covariance), variance + mean**2 * noise / power**2, rtol=0.02)
    assert covariance[np.triu_indices(n_units, 1)].mean() < 0
    alike = 5 + rng.normal(size=(200, 500, n_units))
    covariance = noise_covariance_kernel(remove_gain_kernel(alike))[0]
    np.testing.assert_allclose(np.diag(covariance), n_units / (n_units - 1), rtol=0.02)
    off = reference.correlation(covariance)[np.triu_indices(n_units, 1)]
    np.testing.assert_allclose(off, -1 / (n_units - 1), atol=0.015)


@pytest.mark.parametrize("n_repeats", [2, 4])
@pytest.mark.parametrize("poisson", [True, False])
def test_what_stays_of_a_gain_where_means_are_noisy(n_repeats: int, poisson: bool) -> None:
    """Of its deviations the part 1/(1 + R) for mean 1 and Gaussian noise of variance 1, of their covariance its square.

    From that goes what the estimate costs, as its noise is shared: 1/(N(1 + 1/R)).
    """
    rng, n_units, shared = np.random.default_rng(0), 300, 0.05
    gain = rng.gamma(1 / shared, shared, size=(2000, n_repeats, 1)) * np.ones(n_units)
    values = rng.poisson(gain).astype(float) if poisson else gain + rng.normal(size=gain.shape)
    covariance = noise_covariance_kernel(remove_gain_kernel(values))[0]
    pairs = covariance[np.triu_indices(n_units, 1)].mean()
    stays = 0 if poisson else shared / (1 + n_repeats) ** 2
    assert pairs == pytest.approx(stays - 1 / (n_units * (1 + 1 / n_repeats)), abs=0.0005)


# Groups, bad input, a real recording


def test_groups() -> None:
    da = counts().assign_coords(area=("unit", ["V1"] * 5 + ["V4"] * 3), set=("stimulus", ["a", "b", "c"] * 5))
    by_area = noise_correlation(da, by="area", per_stimulus=True, zscore=False, differences=True)
    assert by_area.dims == ("area", "stimulus", "unit", "other_unit")
    recording = noise_correlation(da.isel(unit=slice(5, 8)), per_stimulus=True, differences=True)
    np.testing.assert_array_equal(by_area.sel(area="V4").values[:, 5:, 5:], recording.values)
    by_set = noise_covariance(da, by="set", differences=True)
    recording = noise_covariance(da.isel(stimulus=slice(1, None, 3)), differences=True)
    np.testing.assert_array_equal(by_set.sel(set="b").values, recording.values)


ONCE = reference.recording("isotropic", n_repeats=1, least_repeats=None)
TWICE = reference.recording("isotropic", n_repeats=2, least_repeats=None)
APART = reference.apart(TWICE)
PLACED = in_order(TWICE.values, np.arange(30).reshape(15, 2))
BAD: dict[str, tuple[str, Callable[[], object]]] = {
    "a stimulus's correlations of two repeats": (
        "expected at least 3 repeats of some stimulus, got at most 2",
        lambda: noise_correlation(TWICE, per_stimulus=True, zscore=False),
    ),
    "differences of one trial": (
        "expected at least 2 repeats of some stimulus, got at most 1",
        lambda: noise_covariance(ONCE, differences=True),
    ),
    "covariance, not together": ("recorded together", lambda: noise_covariance(APART)),
    "correlation, not together": (
        "recorded together",
        lambda: noise_correlation(APART, zscore=False),
    ),
    "drift, one repeat": (
        "expected at least 2 repeats of some stimulus, got at most 1",
        lambda: remove_drift(ONCE, window=3),
    ),
    "drift, no places": (
        r"expected a coordinate 'presentation' \(stimulus, repeat\).* got coordinates stimulus$",
        lambda: remove_drift(TWICE, window=3),
    ),
    "drift, places of stimuli": (
        "expected a coordinate 'presentation'",
        lambda: remove_drift(TWICE.assign_coords(presentation=("stimulus", np.arange(15))), window=3),
    ),
    "drift, places shared": (
        "expected a presentation of its own, 0 or more, for each of 30 trials, got 2 different ones, the smallest 0",
        lambda: remove_drift(in_order(TWICE.values, np.tile([0, 1], (15, 1))), window=3),
    ),
    "drift, a place missing": (
        "got 30 different ones, the smallest -1",
        lambda: remove_drift(in_order(TWICE.values, np.arange(30).reshape(15, 2) - 1), window=3),
    ),
    "drift, far apart": (
        "expected a window that reaches from a trial to the next, got 5 presentations",
        lambda: remove_drift(in_order(TWICE.values, 3 * np.arange(30).reshape(15, 2)), window=5),
    ),
    "gain, one repeat": ("expected at least 2 repeats of some stimulus, got at most 1", lambda: remove_gain(ONCE)),
    "gain, one unit": ("expected at least 2 units, got 1", lambda: remove_gain(TWICE.isel(unit=[0]))),
    "gain, not together": ("recorded together", lambda: remove_gain(APART)),
    "gain, residuals": (
        r"expected responses with their means, got residuals \(PSTH subtracted\)",
        lambda: remove_gain(TWICE.assign_coords(residuals="PSTH subtracted")),
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what: str) -> None:
    message, call = BAD[what]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("window", [-3, 0, 1, 2, 4, 5.5])
def test_windows_of_drift(window: int) -> None:
    with pytest.raises(ValueError, match=f"expected an odd window of at least 3 presentations, got {window}"):
        remove_drift(PLACED, window=window)


@pytest.mark.parametrize("transform", [lambda da: remove_drift(da, window=3), remove_gain])
def test_transformations_return_new_responses(transform: Callable[[xr.DataArray], xr.DataArray]) -> None:
    before = PLACED.copy(deep=True)
    after = transform(PLACED)
    xr.testing.assert_identical(PLACED, before)
    assert not np.array_equal(after.values, before.values)


@pytest.mark.parametrize("value", [0.1, 1e-3])
def test_constants_in_float32_with_many_repeats_do_not_vary(value: float) -> None:
    """The mean of 1000 times 0.1 is off by more than 1e-6 of itself in float32; the range is not."""
    values = np.random.default_rng(0).normal(size=(2, 1000, 3)).astype(np.float32)
    values[:, :, 1] = value
    da = reference.responses(values)
    assert responses.constant_units(da).tolist() == [1]
    values[0, :, 2] = value * (1 + 2e-7 * (np.arange(1000) % 2))  # the last digit
    matrices = noise_correlation_kernel(values, per_stimulus=True)
    assert np.isnan(matrices[0, 2]).all() and np.isnan(matrices[:, 1]).all() and not np.isnan(matrices[1, 2, 0])


@pytest.mark.data
def test_v4() -> None:
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    part = v4.isel(unit=slice(6), stimulus=slice(60))
    expected = plain.correlations(part.values, differences=True)
    got = noise_correlation(part, per_stimulus=True, differences=True)
    np.testing.assert_allclose(got.values, expected, atol=1e-10)
    pairs = np.triu_indices(v4.sizes["unit"], 1)
    means = [noise_correlation(da).values[pairs].mean() for da in (v4, remove_gain(v4))]
    assert means[0] == pytest.approx(0.030, abs=0.003) and -0.03 < means[1] < 0.01


# Elephant, where it computes the same: one stimulus, whose repeats are the bins; see docs/statistics.md


@pytest.fixture(scope="module")
def trains() -> list:
    """Spike trains of 40 s, 5 of them at several rates."""
    import neo
    import quantities as pq

    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 40, rng.poisson(40 * rate))) for rate in (0.5, 2, 5, 10, 20)]
    return [neo.SpikeTrain(recording * pq.s, t_stop=40 * pq.s) for recording in times]


def binned(trains: list, seconds: float) -> tuple[object, xr.DataArray]:
    """The spike trains in Elephant's bins, and those as repeats of one stimulus."""
    import quantities as pq
    from elephant.conversion import BinnedSpikeTrain

    bins = BinnedSpikeTrain(trains, bin_size=seconds * pq.s)
    return bins, reference.responses(bins.to_array().T[None].astype(float), units="spike count")


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("seconds", [0.02, 1.0])
def test_elephant_correlation_and_covariance(trains: list, seconds: float, fast: bool) -> None:
    from elephant.spike_train_correlation import correlation_coefficient, covariance

    bins, da = binned(trains, seconds)
    np.testing.assert_allclose(noise_covariance(da).values, covariance(bins, fast=fast), atol=1e-8, rtol=1e-8)
    expected = correlation_coefficient(bins, fast=fast)
    for options in ({}, {"zscore": False}):
        np.testing.assert_allclose(noise_correlation(da, **options).values, expected, atol=1e-8, rtol=1e-8)
    clipped = da.copy(data=np.minimum(da.values, 1))
    constant = responses.constant_units(clipped)
    kept = np.setdiff1d(np.arange(5), constant)
    expected = covariance(bins, binary=True, fast=fast)[np.ix_(kept, kept)]
    np.testing.assert_allclose(noise_covariance(clipped.isel(unit=kept)).values, expected, atol=1e-8, rtol=1e-8)


def test_elephant_knows_no_stimuli(trains: list) -> None:
    from elephant.spike_train_correlation import correlation_coefficient

    bins, da = binned(trains, 1.0)
    two = da.values[0].reshape(2, 20, 5)
    pooled = noise_correlation(reference.responses(two), zscore=False).values
    assert np.abs(pooled - correlation_coefficient(bins)).max() > 0.01


def test_elephant_fano_factor_divides_by_the_number_of_trials(trains: list) -> None:
    import quantities as pq
    from elephant.statistics import fanofactor

    from neurovar.statistics import fano_factor

    _, da = binned(trains, 1.0)
    trials = [[train.time_slice(i * pq.s, (i + 1) * pq.s) for i in range(40)] for train in trains]
    assert [[len(trial) for trial in recording] for recording in trials] == da.values[0].T.tolist()
    expected = [fanofactor(recording) for recording in trials]
    np.testing.assert_allclose(fano_factor(da).values * 39 / 40, expected, rtol=1e-8)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_elephant_and_units_without_spikes(trains: list) -> None:
    import neo
    import quantities as pq
    from elephant.spike_train_correlation import correlation_coefficient
    from elephant.statistics import fanofactor

    silent, even = (neo.SpikeTrain(times * pq.s, t_stop=40 * pq.s) for times in ([], np.arange(40) + 0.5))
    bins, da = binned([*trains, silent, even], 1.0)
    for fast in (True, False):
        assert np.isnan(correlation_coefficient(bins, fast=fast)[5:]).all()
    assert np.isnan(fanofactor([silent]))
    with pytest.raises(ValueError, match=r"got 2 with zero noise variance \(positions \[5, 6\]\)"):
        noise_correlation(da)
