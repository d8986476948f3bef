"""Alignment of noise with signal: against loops and scipy, known answers, stated biases, torch, a real recording."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import alignment as loops

from neurovar.statistics.estimation import _alignment as alignment
from neurovar.statistics.estimation import _halves

N_UNITS = 12
AXES = np.linalg.qr(np.random.default_rng(5).normal(size=(N_UNITS, N_UNITS)))[0]
SIGNAL = 1.0 / np.arange(1, N_UNITS + 1) ** 2 * 40  # variances along AXES
ANALYSES: list[Callable[..., xr.Dataset]] = [
    lambda da, **options: alignment.noise_in_signal(da, n_dims=2, **options),
    lambda da, **options: alignment.principal_angles(da, n_signal=2, n_noise=3, **options),
    lambda da, **options: alignment.class_alignment(da, classes="clip", n_dims=2, **options),
]


def noise_variances(kind: str, n_dims: int) -> np.ndarray:
    """Along AXES: independent; along the leading dimensions of the signal; or along its last ones."""
    strong = {"isotropic": [], "aligned": range(n_dims), "orthogonal": range(N_UNITS - n_dims, N_UNITS)}[kind]
    return np.where(np.isin(np.arange(N_UNITS), strong), 5.0, 1.0 if kind == "isotropic" else 0.02)


def simulate(
    noise: np.ndarray, rng: np.random.Generator, *, n_stimuli: int, n_repeats: int, signal: np.ndarray = SIGNAL
) -> np.ndarray:
    """(stimulus, repeat, unit) with variances `signal` and `noise` along AXES."""
    scores = rng.normal(size=(n_stimuli, 1, N_UNITS)) * np.sqrt(signal)
    return (scores + rng.normal(size=(n_stimuli, n_repeats, N_UNITS)) * np.sqrt(noise)) @ AXES.T


def padded(n_stimuli: int = 24, *, least_repeats: int = 1, n_repeats: int = 8) -> xr.DataArray:
    """Unequal repeats, six classes."""
    da = reference.recording(
        "structured", n_units=N_UNITS, n_stimuli=n_stimuli, n_repeats=n_repeats, least_repeats=least_repeats
    )
    return da.assign_coords(clip=("stimulus", np.arange(n_stimuli) % 6))


def halves(da: xr.DataArray, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    first, second = _halves.halve(da.notnull().values[:, :, 0], np.random.default_rng(seed))
    return loops.half_trials(da.values, first), loops.half_trials(da.values, second)


# Halves


def test_halves_share_no_trial() -> None:
    present = padded(n_stimuli=60).notnull().values[:, :, 0]
    n_repeats = present.sum(axis=1)
    few = (n_repeats > 1) & (n_repeats < 4)
    assert few.sum() >= 4 and (n_repeats == 1).any()
    drawn = []
    for seed in range(200):
        first, second = _halves.halve(present, np.random.default_rng(seed))
        assert not (first & second).any() and ((first | second) == present).all()
        assert (first.sum(axis=1)[n_repeats >= 4] == n_repeats[n_repeats >= 4] // 2).all()
        assert first[few].any(axis=1).sum() == few.sum() // 2
        assert (first[few].any(axis=1) ^ second[few].any(axis=1)).all(), "whole stimuli"
        drawn.append(first)
    chance = np.mean(drawn, axis=0)[present]
    assert chance.max() < 0.65 and chance.min() > -0.01 and chance[np.repeat(n_repeats, n_repeats) == 8].min() > 0.35


# References


def test_noise_in_signal_is_the_loop() -> None:
    da = padded()
    first, second = halves(da, 3)
    got = alignment.noise_in_signal(da, n_dims=3, n_splits=1, rng=3)
    signal, noise = loops.leading(loops.signal_covariance(first), 3), loops.leading(loops.noise_sum(first), 3)
    assert float(got.fraction) == pytest.approx(loops.fraction(loops.noise_sum(second), signal), abs=1e-10)
    assert float(got.maximum) == pytest.approx(loops.fraction(loops.noise_sum(second), noise), abs=1e-10)
    assert float(got.chance) == 0.25


def test_principal_angles_are_the_loop() -> None:
    da = padded()
    first, second = halves(da, 3)
    got = alignment.principal_angles(da, n_signal=3, n_noise=2, n_splits=1, rng=3)
    axes = loops.leading(loops.signal_covariance(first), 3), loops.leading(loops.noise_sum(second), 2)
    np.testing.assert_allclose(got.angle.values, loops.angles(*axes), atol=1e-6)
    assert got["rank"].values.tolist() == [1, 2] and got.angle.attrs == {"units": "degrees"}


def test_class_alignment_is_the_loop() -> None:
    da = padded(n_stimuli=40, least_repeats=3)
    kept = da.isel(stimulus=(da.notnull().values[:, :, 0].sum(axis=1) >= 4))
    assert len(kept) < len(da)
    first, second = halves(kept, 3)
    got = alignment.class_alignment(da, classes="clip", n_dims=2, n_splits=1, rng=3)
    expected = [*loops.class_covariances(first, kept["clip"].values), loops.noise_sum(first)]
    fractions = [loops.fraction(loops.noise_sum(second), loops.leading(matrix, 2)) for matrix in expected]
    np.testing.assert_allclose([got.in_class, got.out_of_class, got.maximum], fractions, atol=1e-10)


@pytest.mark.parametrize("analyse", ANALYSES)
def test_splits_are_averaged(analyse: Callable[..., xr.Dataset]) -> None:
    da, rng = padded(least_repeats=4), np.random.default_rng(2)
    name = "angle" if "angle" in analyse(da, n_splits=1, rng=0) else next(iter(analyse(da, n_splits=1, rng=0)))
    together = analyse(da, n_splits=2, rng=2)[name]
    if name == "angle":  # whose chance is drawn after all splits
        kernel = [alignment.principal_angles_kernel(da.values, 2, 3, 1, rng) for _ in range(2)]
        np.testing.assert_allclose(together, np.mean(kernel, axis=0))
    else:
        np.testing.assert_allclose(together, np.mean([analyse(da, n_splits=1, rng=rng)[name] for _ in range(2)]))


# Known answers


def test_covariances_are_unbiased_where_noise_differs_between_stimuli() -> None:
    """Every entry within 4.5 standard errors over simulations with few, unequal repeats and few exemplars."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), [2, 3, 3, 4])
    within, between = 2.0 * np.eye(3) + 1, np.diag([4.0, 1, 0.2])
    scale = np.linspace(0.5, 3, 12)[:, None, None]
    chosen = np.arange(5) < np.array([2, 3, 5] * 4)[:, None]
    got: list[list[np.ndarray]] = []
    for _ in range(1500):
        class_means = rng.multivariate_normal(np.zeros(3), between, 4)[labels]
        means = class_means + rng.multivariate_normal(np.zeros(3), within, 12)
        half = _halves.half_of(
            means[:, None] + scale * rng.normal(size=(12, 5, 3)) @ [[1, 1, 0], [0, 1, 1], [0, 0, 2]], chosen
        )
        got.append([*_halves.class_covariances(half, labels)])
        centred = half.means - class_means  # so that stimuli are independent
        got[-1].append(_halves.signal_covariance_of(half._replace(means=centred)))
    for estimates, truth in zip(np.array(got).swapaxes(0, 1), (within, between, within)):
        z = (estimates.mean(axis=0) - truth) / (estimates.std(axis=0) / np.sqrt(len(got)))
        assert np.abs(z).max() < 4.5


def measured(kind: str, n_simulations: int, **sizes: int) -> tuple[float, float, np.ndarray]:
    """Mean and standard error of the fraction in two dimensions, and the noise's variances."""
    rng, noise = np.random.default_rng(1), noise_variances(kind, 2)
    got = [alignment.noise_in_signal_kernel(simulate(noise, rng, **sizes), 2, 2, rng)[0] for _ in range(n_simulations)]
    return float(np.mean(got)), float(np.std(got) / np.sqrt(n_simulations)), noise


@pytest.mark.parametrize(("n_stimuli", "n_repeats"), [(6, 2), (6, 4), (40, 3), (40, 8)])
def test_isotropic_noise_gives_chance(n_stimuli: int, n_repeats: int) -> None:
    mean, error, _ = measured("isotropic", 200, n_stimuli=n_stimuli, n_repeats=n_repeats)
    assert abs(mean - 2 / N_UNITS) < 2 * error


@pytest.mark.parametrize("kind", ["aligned", "orthogonal"])
def test_bias_of_structured_noise(kind: str) -> None:
    """The docstring's first order, for many stimuli; 1 and 0 are approached."""
    n_stimuli, r = 400, 4
    mean, error, noise = measured(kind, 100, n_stimuli=n_stimuli, n_repeats=2 * r)
    i, j = np.arange(2)[:, None], np.arange(2, N_UNITS)
    variance = (SIGNAL[i] + noise[i] / r) * (SIGNAL[j] + noise[j] / r) / (n_stimuli - 1)
    variance += noise[i] * noise[j] / (r**2 * (r - 1) * n_stimuli)
    bias = ((noise[j] - noise[i]) * variance / (SIGNAL[i] - SIGNAL[j]) ** 2).sum() / noise.sum()
    truth = noise[:2].sum() / noise.sum()
    assert abs(mean - truth - bias) < 2 * error
    assert abs(bias) > 3 * error and mean == pytest.approx(1 if kind == "aligned" else 0, abs=0.04)


def test_few_repeats_do_not_align_noise_with_the_signal() -> None:
    """Noise orthogonal to the signal, of 5 times its variance: the measured means have more of it than of signal."""
    rng, noise = np.random.default_rng(0), 20 * noise_variances("orthogonal", 2)
    values = simulate(noise, rng, n_stimuli=2000, n_repeats=4, signal=SIGNAL / 2)
    first, second = (_halves.half_of(values, chosen) for chosen in _halves.halve(np.ones((2000, 4), bool), rng))
    naive = alignment._fraction(second.noise, loops.leading(np.cov(first.means.T), 2))
    got, _ = alignment.noise_in_signal_kernel(values, 2, 5, rng)
    assert naive > 0.9 and got < 0.15


def test_the_maximum_is_the_share_of_the_leading_noise_dimensions() -> None:
    noise = np.array([3.0, 2] + [0.5] * 10)[::-1]
    got = alignment.noise_in_signal_kernel(
        simulate(noise, np.random.default_rng(0), n_stimuli=500, n_repeats=6), 2, 2, np.random.default_rng(0)
    )
    assert got[1] == pytest.approx(0.5, abs=0.02)


def test_principal_angles_of_known_spans() -> None:
    """One shared dimension, one at 90°; random spans are at chance."""
    noise = np.full(N_UNITS, 0.02)
    noise[[0, -1]] = 9, 5
    values = simulate(noise, np.random.default_rng(0), n_stimuli=1000, n_repeats=8)
    got = alignment.principal_angles(reference.responses(values), n_signal=2, n_noise=2, n_splits=5, rng=0)
    np.testing.assert_allclose(got.angle.values, [0, 90], atol=4)
    values = np.random.default_rng(0).normal(size=(4, 300, N_UNITS)) + 10 * np.random.default_rng(1).normal(
        size=(4, 1, N_UNITS)
    )
    got = alignment.principal_angles(reference.responses(values), n_signal=2, n_noise=2, n_splits=200, rng=0)
    assert got.chance.values == pytest.approx([57, 80], abs=3)
    assert np.abs(got.angle - got.chance).max() < 12, "one recording has one pair of spans"


@pytest.mark.parametrize("along", ["in_class", "out_of_class"])
def test_noise_along_one_kind_of_variation(along: str) -> None:
    """Four exemplars of 40 classes; in-class variation is the larger, so that class means have it in them."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(40), 4)
    within, between = np.zeros(N_UNITS), np.zeros(N_UNITS)
    within[:2], between[2:4] = 12, 5
    noise = np.full(N_UNITS, 0.05)
    noise[[0, 1] if along == "in_class" else [2, 3]] = 4
    scores = (rng.normal(size=(40, N_UNITS)) * np.sqrt(between))[labels] + rng.normal(size=(160, N_UNITS)) * np.sqrt(
        within
    )
    values = scores[:, None] + rng.normal(size=(160, 8, N_UNITS)) * np.sqrt(noise)
    da = reference.responses(values @ AXES.T).assign_coords(clip=("stimulus", labels))
    got = alignment.class_alignment(da, classes="clip", n_dims=2, n_splits=3, rng=0)
    other = {"in_class": "out_of_class", "out_of_class": "in_class"}[along]
    assert float(got[along]) > 0.8 and float(got[other]) < 0.2
    assert float(got.maximum) == pytest.approx(8 / noise.sum(), abs=0.02)


# Torch, types, labels


KERNELS: list[tuple[Callable[..., object], tuple, float]] = [
    (alignment.noise_in_signal_kernel, (3,), 1e-3),
    (alignment.principal_angles_kernel, (3, 2), 0.1),
    (alignment.class_alignment_kernel, (np.arange(30) % 5, 3), 1e-3),
]


@pytest.mark.parametrize(("kernel", "options", "tolerance"), KERNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_kernels_of_tensors(
    device: str, dtype: type, kernel: Callable[..., object], options: tuple, tolerance: float
) -> None:
    values = padded(n_stimuli=30, least_repeats=4).values.astype(dtype)
    expected = kernel(values, *options, 2, np.random.default_rng(0))
    got = kernel(torch.from_numpy(values).to(device), *options, 2, np.random.default_rng(0))
    np.testing.assert_allclose(got, expected, atol=tolerance if dtype is np.float32 else 1e-8)


def test_nothing_is_converted_to_double() -> None:
    tensor = torch.from_numpy(padded(n_stimuli=30).values.astype(np.float32))
    first, _ = _halves.halves(tensor, np.random.default_rng(0))
    labels = np.arange(len(first.means)) % 3
    matrices = [_halves.signal_covariance_of(first), *_halves.class_covariances(first, labels)]
    assert all(part.dtype == torch.float32 for part in [first.means, first.noise, *matrices])


def test_integers_are_converted() -> None:
    counts = np.random.default_rng(0).poisson(np.linspace(1, 9, 20)[:, None, None], size=(20, 6, 5))
    for analyse in ANALYSES[:2]:
        whole, floats = (
            analyse(reference.responses(part), n_splits=2, rng=0) for part in (counts, counts.astype(float))
        )
        xr.testing.assert_equal(whole, floats)


@pytest.mark.parametrize("analyse", ANALYSES)
def test_seeds_attributes_and_groups(analyse: Callable[..., xr.Dataset]) -> None:
    da = padded(least_repeats=4).assign_coords(area=("unit", ["V1"] * 7 + ["V2"] * 5)).assign_attrs(source="simulation")
    first = analyse(da, n_splits=2, rng=0)
    xr.testing.assert_identical(first, analyse(da, n_splits=2, rng=np.random.default_rng(0)))
    assert not first.equals(analyse(da, n_splits=2, rng=1))
    assert first.attrs["source"] == "simulation" and first.attrs["n_splits"] == 2
    grouped = analyse(da, n_splits=2, rng=0, by="area")
    for name, units in (("V1", slice(7)), ("V2", slice(7, None))):
        alone = analyse(da.isel(unit=units), n_splits=2, rng=0)
        xr.testing.assert_equal(grouped.sel(area=name, drop=True), alone)


# Bad input

OPTIONS = {"n_splits": 2, "rng": 0}


@pytest.mark.parametrize("analyse", ANALYSES)
def test_bad_responses(analyse: Callable[..., xr.Dataset]) -> None:
    good = padded(least_repeats=4)
    with pytest.raises(ValueError, match=r"expected at least [24] repeats of some stimulus, got at most 1"):
        analyse(padded(n_repeats=1), **OPTIONS)
    with pytest.raises(ValueError, match="expected dims"):
        analyse(good.transpose("unit", "repeat", "stimulus"), **OPTIONS)
    with pytest.raises(ValueError, match="expected units that were recorded together"):
        analyse(reference.apart(good), **OPTIONS)
    with pytest.raises(ValueError, match="expected at least 1 split, got 0"):
        analyse(good, n_splits=0, rng=0)
    with pytest.raises(ValueError, match="expected finite responses"):
        analyse(good * np.inf, **OPTIONS)
    with pytest.raises(ValueError, match="expected units that vary between repeats, got none among 12"):
        analyse(good * 0 + np.arange(24)[:, None, None], **OPTIONS)


def test_too_few_stimuli_or_units_for_the_dimensions() -> None:
    twice = padded(n_repeats=2, least_repeats=2)
    with pytest.raises(ValueError, match="expected at least 3 stimuli with 2 repeats, got 2"):
        alignment.noise_in_signal(twice.isel(stimulus=slice(2)), n_dims=1, **OPTIONS)
    message = "expected {} of at least 1, below the {} stimuli in half of the trials and the 12 units, got {}"
    with pytest.raises(ValueError, match=message.format("n_dims", 4, 4)):
        alignment.noise_in_signal(twice.isel(stimulus=slice(8)), n_dims=4, **OPTIONS)
    assert alignment.noise_in_signal(twice.isel(stimulus=slice(8)), n_dims=3, **OPTIONS).fraction > 0
    with pytest.raises(ValueError, match=message.format("n_dims", 24, 12)):
        alignment.noise_in_signal(padded(least_repeats=4), n_dims=12, **OPTIONS)
    with pytest.raises(ValueError, match=message.format("n_signal", 24, 0)):
        alignment.principal_angles(padded(least_repeats=4), n_signal=0, n_noise=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"expected n_noise from 1 to 11 \(12 units\), got 12"):
        alignment.principal_angles(padded(least_repeats=4), n_signal=1, n_noise=12, **OPTIONS)


def test_bad_classes() -> None:
    da = padded(least_repeats=4)
    with pytest.raises(ValueError, match=r"expected classes= a coordinate of stimulus \(stimulus, clip\), got 'unit'"):
        alignment.class_alignment(da, classes="unit", n_dims=1, **OPTIONS)
    with pytest.raises(
        ValueError, match="expected at least 2 stimuli with 4 repeats of each of 24 classes, got 1 of s0"
    ):
        alignment.class_alignment(da, classes="stimulus", n_dims=1, **OPTIONS)
    with pytest.raises(ValueError, match="expected n_dims of at least 1, below the 6 classes and the 12 units, got 6"):
        alignment.class_alignment(da, classes="clip", n_dims=6, **OPTIONS)
    with pytest.raises(ValueError, match="expected at least 4 repeats of some stimulus, got at most 3"):
        alignment.class_alignment(padded(n_repeats=3), classes="clip", n_dims=1, **OPTIONS)


# A real recording


@pytest.mark.data
def test_v4() -> None:
    from neurovar_datasets import cowley2023_v4

    v4 = cowley2023_v4.load(session="210325")
    got = alignment.noise_in_signal(v4, n_dims=5, n_splits=5, rng=0)
    assert float(got.chance) == 0.1 < float(got.fraction) < float(got.maximum)
    angles = alignment.principal_angles(v4, n_signal=5, n_noise=5, n_splits=5, rng=0)
    assert (angles.angle[:2] < angles.chance[:2]).all()
