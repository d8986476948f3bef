"""A source's eigenvalues on axes of the target."""

import numpy as np
import pytest
import reference
import torch
import xarray as xr
from reference import transplant as by_hand

from neurovar import statistics
from neurovar.covariance import Covariance, Dense, LowRankPlusDiagonal
from neurovar.noise import Spectrum

EIGENVALUES = np.array([8.0, 4.0, 2.0, 1.0, 0.5, 0.5])


def turned(eigenvalues: np.ndarray, seed: int) -> np.ndarray:
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues), len(eigenvalues))))
    return (axes * eigenvalues) @ axes.T


def cortex(n_stimuli: int = 300, n_repeats: int = 20, least_repeats: int | None = None) -> xr.DataArray:
    n = len(EIGENVALUES)
    return reference.simulate(
        signal=reference.signal_matrix(n),
        noise=turned(EIGENVALUES, 1),
        n_stimuli=n_stimuli,
        n_repeats=n_repeats,
        least_repeats=least_repeats,
        seed=0,
    )


def network(n_stimuli: int, n_units: int, n_repeats: int = 1, seed: int = 3) -> xr.DataArray:
    """Tuning with eigenvalues that differ, and unlike noise about it."""
    rng = np.random.default_rng(seed)
    tuning = rng.normal(size=(n_stimuli, n_units)) * np.linspace(3, 1, n_units) + 5
    noise = rng.normal(size=(n_stimuli, n_repeats, n_units)) * np.linspace(0.5, 2, n_units) * (n_repeats > 1)
    return reference.responses(tuning[:, None] + noise)


def eigenvectors(rows: np.ndarray, k: int) -> np.ndarray:
    """The k leading ones of rowsᵀ rows, by a singular value decomposition."""
    return np.linalg.svd(rows, full_matrices=False)[2][:k].T


def spectrum_of(noise: Covariance) -> np.ndarray:
    return np.linalg.eigvalsh(noise.to_dense().double().numpy())[::-1]


# The source


@pytest.mark.parametrize("least_repeats", [None, 2])
def test_a_simulated_spectrum_is_recovered(least_repeats: int | None) -> None:
    values = Spectrum.fit(cortex(least_repeats=least_repeats)).eigenvalues
    np.testing.assert_allclose(values, EIGENVALUES, rtol=0.06)


def test_eigenvalues_are_those_of_the_pooled_noise() -> None:
    da = cortex(n_stimuli=20, n_repeats=4, least_repeats=1)
    covariance, _ = reference.noise_covariance(da.values)
    np.testing.assert_allclose(Spectrum.fit(da).eigenvalues, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-10)


def test_fewer_degrees_of_freedom_than_units() -> None:
    da = cortex(n_stimuli=2, n_repeats=2)
    values = Spectrum.fit(da).eigenvalues
    covariance, _ = reference.noise_covariance(da.values)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(covariance)[::-1], atol=1e-10)
    assert (values[2:] < 1e-10).all()


@pytest.mark.parametrize("n", [1, 3, 6, 7, 40, 1000])
def test_relative_ranks(n: int) -> None:
    values = Spectrum(EIGENVALUES).at(n)
    np.testing.assert_allclose(values, by_hand.spectrum_at(EIGENVALUES, n), rtol=1e-10)
    assert values.sum() == pytest.approx(EIGENVALUES.sum())
    if n == 6:
        np.testing.assert_allclose(values, EIGENVALUES, rtol=1e-12)


# On the target


@pytest.mark.parametrize("axes", ["signal", "modification"])
def test_every_axis_where_there_are_enough_stimuli(axes: str) -> None:
    target = network(50, 9, n_repeats=3)
    noise = Spectrum(EIGENVALUES).onto(target, axes=axes, rng=0)
    means = target.values.mean(axis=1)
    rows = means - means.mean(axis=0) if axes == "signal" else (target.values - means[:, None]).reshape(-1, 9)
    vectors = eigenvectors(rows, 9)
    expected = (vectors * by_hand.spectrum_at(EIGENVALUES, 9)) @ vectors.T
    assert isinstance(noise, Dense)
    np.testing.assert_allclose(noise.matrix.numpy(), expected, atol=1e-8)
    assert noise.trace() == pytest.approx(EIGENVALUES.sum())


@pytest.mark.parametrize("axes", ["signal", "modification"])
@pytest.mark.parametrize("rank", [None, 3])
def test_fewer_stimuli_than_units(axes: str, rank: int | None) -> None:
    """The leading eigenvalues on the leading axes, and the rest of the variance on all others alike."""
    target = network(8, 30, n_repeats=2)
    noise = Spectrum(EIGENVALUES).onto(target, axes=axes, rank=rank, rng=0)
    means = target.values.mean(axis=1)
    rows = means - means.mean(axis=0) if axes == "signal" else (target.values - means[:, None]).reshape(-1, 30)
    kept = rank or {"signal": 7, "modification": 8}[axes]
    values = by_hand.spectrum_at(EIGENVALUES, 30)
    values[kept:] = values[kept:].mean()
    vectors = eigenvectors(rows, kept)
    expected = (vectors * (values[:kept] - values[-1])) @ vectors.T + values[-1] * np.eye(30)
    assert isinstance(noise, LowRankPlusDiagonal) and noise.rank == kept
    np.testing.assert_allclose(noise.to_dense().numpy(), expected, atol=1e-8)
    assert noise.trace() == pytest.approx(EIGENVALUES.sum())


def test_absent_trials_are_no_deviations() -> None:
    target = network(12, 20, n_repeats=3)
    target.values[:4, 2] = np.nan
    target.values[4, 1:] = np.nan
    noise = Spectrum(EIGENVALUES).onto(target, axes="modification", rank=2, rng=0)
    rows = np.concatenate([trials - trials.mean(axis=0) for trials in reference.trials(target.values)])
    assert isinstance(noise, LowRankPlusDiagonal)
    span = eigenvectors(rows, 2)
    np.testing.assert_allclose(span @ (span.T @ noise.factors.numpy()), noise.factors.numpy(), atol=1e-8)


@pytest.mark.parametrize("rank", [None, 4])
def test_random_axes(rank: int | None) -> None:
    draw = [Spectrum(EIGENVALUES).onto(network(5, 10), axes="random", rank=rank, rng=seed) for seed in (0, 0, 1)]
    values = by_hand.spectrum_at(EIGENVALUES, 10)
    if rank:
        values[rank:] = values[rank:].mean()
    np.testing.assert_allclose(spectrum_of(draw[0]), values, rtol=1e-8)
    assert torch.equal(draw[0].to_dense(), draw[1].to_dense())
    assert not torch.allclose(draw[0].to_dense(), draw[2].to_dense(), atol=0.1)


def test_random_axes_have_no_preferred_direction() -> None:
    target = network(5, 10)
    noises = [Spectrum(EIGENVALUES).onto(target, axes="random", rank=4, rng=s).to_dense() for s in range(800)]
    mean = torch.stack(noises).mean(0).numpy()
    np.testing.assert_allclose(mean, EIGENVALUES.sum() / 10 * np.eye(10), atol=0.15)


def test_noise_on_signal_axes_lies_in_the_signal() -> None:
    """As `statistics.noise_in_signal` measures it."""
    target = network(400, 12)
    found = {}
    for axes in ("signal", "random"):
        noise = Spectrum(EIGENVALUES).onto(target, axes=axes, rng=0)
        draws = noise.sample((400, 8), generator=torch.Generator().manual_seed(0)).numpy()
        found[axes] = float(
            statistics.noise_in_signal(reference.responses(target.values + draws), n_dims=3, rng=0).fraction
        )
    values = by_hand.spectrum_at(EIGENVALUES, 12)
    assert found["signal"] == pytest.approx(values[:3].sum() / values.sum(), abs=0.05)
    assert found["random"] < found["signal"] - 0.2


def test_float32_is_as_good_and_stays() -> None:
    target = network(8, 30, n_repeats=2)
    for axes in ("signal", "modification"):
        single, double = (
            Spectrum(EIGENVALUES).onto(da, axes=axes, rng=0) for da in (target.astype(np.float32), target)
        )
        assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(single.to_dense().double(), double.to_dense(), rtol=1e-4, atol=1e-5)


def test_dependent_stimuli_have_fewer_axes() -> None:
    """Stimuli that repeat one another."""
    target = network(6, 40).astype(np.float32)
    target = xr.concat([target, target.assign_coords(stimulus=[f"again {i}" for i in range(6)])], "stimulus")
    noise = Spectrum(EIGENVALUES).onto(target, axes="signal", rng=0)
    assert isinstance(noise, LowRankPlusDiagonal) and noise.rank == 5
    np.testing.assert_allclose(spectrum_of(noise)[:5], by_hand.spectrum_at(EIGENVALUES, 40)[:5], rtol=1e-5)


def test_200_000_units() -> None:
    n = 200_000
    values = np.random.default_rng(0).normal(size=(9, 1, n)).astype(np.float32)
    target = reference.responses(values)
    spectrum = Spectrum(np.arange(1, n + 1) ** -0.5)
    noise = spectrum.onto(target, axes="signal", rng=0)
    assert isinstance(noise, LowRankPlusDiagonal) and noise.rank == 8
    gram = noise.factors.double().mT @ noise.factors.double()
    np.testing.assert_allclose(np.diag(gram), spectrum.eigenvalues[:8] - float(noise.private[0]), rtol=1e-4)
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-5)
    assert noise.trace() == pytest.approx(spectrum.eigenvalues.sum(), rel=1e-5)


# Bad input


def test_all_random_axes_of_too_many_units() -> None:
    target = reference.responses(np.ones((2, 1, 10**6), np.float32))
    message = r"got 1000000 units: 32000.0 GB of .* GB free on cpu; a LowRankPlusDiagonal of rank 64"
    with pytest.raises(ValueError, match=message):
        Spectrum(EIGENVALUES).onto(target, axes="random", rng=0)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (network(8, 30), {"axes": "noise"}, "expected axes 'signal', 'modification', 'random', got 'noise'"),
        (
            network(8, 30),
            {"axes": "signal", "rank": 8},
            "expected a rank from 1 to 7, the number of signal axes .*, got 8",
        ),
        (network(8, 30), {"axes": "signal", "rank": 0}, "expected a rank from 1 to 7, .*, got 0"),
        (network(8, 30), {"axes": "random", "rank": 31}, "expected a rank from 1 to 30, the number of random axes"),
        (network(8, 30), {"axes": "modification"}, "expected at least 2 repeats of some stimulus, got at most 1"),
        (network(1, 30), {"axes": "signal"}, "expected a target with signal axes, got 30 units that do not vary"),
        (network(8, 30), {"axes": "random", "rng": None}, "expected rng= for random axes, got none; give a seed"),
    ],
)
def test_bad_targets(target: xr.DataArray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spectrum(EIGENVALUES).onto(target, **{"rng": 0} | options)


def test_bad_sources() -> None:
    with pytest.raises(ValueError, match="expected at least 2 repeats of some stimulus, got at most 1"):
        Spectrum.fit(network(8, 3))
    with pytest.raises(
        ValueError, match="expected a source that varies between repeats, got none of 3 units that does"
    ):
        Spectrum.fit(reference.responses(np.ones((4, 3, 3))))
    with pytest.raises(ValueError, match="expected units that were recorded together"):
        Spectrum.fit(reference.apart(cortex(n_stimuli=5)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0]], "expected finite eigenvalues"),
        ([], "expected finite eigenvalues"),
        ([1.0, np.nan], "expected finite eigenvalues"),
        ([1.0, -0.1], r"none negative and some above 0, got \[ 1.  -0.1\]"),
        ([0.0, 0.0], "some above 0"),
        ([1.0, 2.0], "expected eigenvalues from the largest to the smallest"),
    ],
)
def test_no_spectrum(values: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spectrum(np.array(values))
