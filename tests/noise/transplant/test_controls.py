"""The controls: what each keeps of the noise and what it loses."""

import numpy as np
import pytest
import reference
import torch
import xarray as xr

import neurovar
from neurovar import statistics
from neurovar.covariance import Covariance, Dense, Diagonal, GainModulated, Kronecker, LowRankPlusDiagonal, MeanShift
from neurovar.networks import Control
from neurovar.noise import CONTROLS, low_rank, with_controls

N = 12
RNG = np.random.default_rng(0)
FACTORS = torch.from_numpy(RNG.normal(size=(N, 3)))
PRIVATE = torch.from_numpy(RNG.uniform(0.1, 1, N))
ONE = torch.tensor(1.0, dtype=torch.float64)
STRUCTURED = Dense(torch.from_numpy(reference.noise_matrix("structured", N)))
GAIN = GainModulated(0.3 * ONE, PRIVATE, 1.2 * ONE, torch.from_numpy(RNG.uniform(0.5, 2, (4, N))))
NOISES: dict[str, Covariance] = {
    "dense": STRUCTURED,
    "dense float32": STRUCTURED.to(dtype=torch.float32),
    "diagonal": Diagonal(PRIVATE),
    "low rank": LowRankPlusDiagonal(FACTORS, PRIVATE),
    "low rank float32": LowRankPlusDiagonal(FACTORS, PRIVATE).to(dtype=torch.float32),
    "equal private variances": LowRankPlusDiagonal(FACTORS, torch.full_like(PRIVATE, 0.4)),
    "no private variances": LowRankPlusDiagonal(FACTORS, torch.zeros_like(PRIVATE)),
    "as many factors as units": LowRankPlusDiagonal(torch.from_numpy(RNG.normal(size=(N, N))), PRIVATE),
    "more factors than units": LowRankPlusDiagonal(torch.from_numpy(RNG.normal(size=(N, 15))), PRIVATE),
    "kronecker": Kronecker(STRUCTURED.conjugate(torch.eye(N, dtype=torch.float64)[:3]), Diagonal(PRIVATE[:4])),
    "gain": GAIN,
    "sum": GAIN + STRUCTURED,
}
SPECTRAL = ("rotated", "shuffled_spectrum", "signal_aligned", "signal_orthogonal")


@pytest.fixture(params=NOISES)
def noise(request: pytest.FixtureRequest) -> Covariance:
    return NOISES[request.param]


def target(n_units: int = N, n_stimuli: int = 30, seed: int = 5) -> xr.DataArray:
    values = np.random.default_rng(seed).normal(size=(n_stimuli, 1, n_units)) * np.linspace(3, 1, n_units)
    return reference.responses(values + 4)


def signal_axes(da: xr.DataArray, n_dims: int) -> np.ndarray:
    means = da.values.mean(axis=1)
    return np.linalg.svd(means - means.mean(axis=0), full_matrices=False)[2][:n_dims].T


def all_controls(noise: Covariance, *, n_dims: int = 2) -> neurovar.noise.Controls:
    shift = torch.arange(1.0, N + 1)
    return with_controls(noise, rng=0, target=target(), n_dims=n_dims, mean_shift=shift)


def tolerance(noise: Covariance) -> float:
    return 1e-5 if noise.dtype is torch.float32 else 1e-10


def matrix_of(noise: Covariance) -> np.ndarray:
    return noise.to_dense().double().numpy()


def is_low_rank(noise: Covariance) -> bool:
    average = noise.average() if isinstance(noise, GainModulated) else noise
    return isinstance(average, LowRankPlusDiagonal) and average.rank < average.n


def kept_spectrum(noise: Covariance) -> np.ndarray:
    """Largest first; of low-rank noise the eigenvalues beyond the rank are replaced by their mean."""
    values = np.linalg.eigvalsh(matrix_of(noise))[::-1].copy()
    if is_low_rank(noise):
        rank = (noise.average() if isinstance(noise, GainModulated) else noise).rank
        values[rank:] = values[rank:].mean()
    return np.maximum(values, 0)


# All of them


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("kind", ["low rank", "no private variances", "gain"])
def test_what_every_kind_promises(name: str, kind: str) -> None:
    """The trace, one result a seed, the same as among all controls, and words of its own."""
    control, given = CONTROLS[name], {"target": target(), "n_dims": 2, "mean_shift": torch.arange(1.0, N + 1)}
    noise = NOISES[kind]
    first, second = (control(noise, rng=3, **given) for _ in range(2))
    assert torch.equal(first.to_dense(), second.to_dense())
    assert first.trace() == pytest.approx(noise.trace(), rel=1e-10)
    controls = with_controls(noise, rng=0, only=[name], **given)
    assert torch.equal(controls[name].to_dense(), all_controls(noise)[name].to_dense())
    assert controls.control(name) == Control(kind=name, matched_by="trace")
    assert controls.control("transplanted") is None
    assert control.name == name and control.question.endswith("?") and control.description
    with pytest.raises(ValueError, match="expected one of transplanted, "):
        controls.control("mine")


def test_all_are_matched_in_trace_size_and_dtype(noise: Covariance) -> None:
    controls = all_controls(noise)
    assert list(controls) == ["transplanted", *(name for name in CONTROLS if name not in controls.left_out)]
    full = np.linalg.matrix_rank(matrix_of(noise)) == N and not is_low_rank(noise)
    assert controls.left_out == ({"flat_spectrum": "is isotropic for noise of full rank"} if full else {})
    assert controls["transplanted"] is noise
    for control in controls.values():
        assert control.n == N and control.dtype == noise.dtype
        assert control.trace() == pytest.approx(noise.trace(), rel=tolerance(noise))


def test_low_rank_stays_low_rank(noise: Covariance) -> None:
    controls = all_controls(noise)
    expected = LowRankPlusDiagonal if is_low_rank(noise) else Dense
    for name in {*SPECTRAL, "flat_spectrum"} & set(controls):
        assert isinstance(controls[name], expected)
    assert isinstance(controls["diagonal"], Diagonal) and isinstance(controls["isotropic"], Diagonal)


def test_the_spectrum_is_kept(noise: Covariance) -> None:
    controls, expected = all_controls(noise), kept_spectrum(noise)
    for name in SPECTRAL:
        values = np.linalg.eigvalsh(matrix_of(controls[name]))[::-1]
        np.testing.assert_allclose(values, expected, atol=tolerance(noise) * expected[0], err_msg=name)


def test_diagonal_and_isotropic(noise: Covariance) -> None:
    matrix, controls = matrix_of(noise), all_controls(noise)
    close = {"rtol": tolerance(noise), "atol": tolerance(noise)}
    np.testing.assert_allclose(matrix_of(controls["diagonal"]), np.diag(np.diag(matrix)), **close)
    np.testing.assert_allclose(matrix_of(controls["isotropic"]), np.trace(matrix) / N * np.eye(N), **close)


def test_shuffled_and_flat_spectra_keep_the_eigenvectors(noise: Covariance) -> None:
    """Those with eigenvalues of their own: matrices with common eigenvectors commute."""
    matrix = matrix_of(noise)
    if is_low_rank(noise):
        _, vectors = np.linalg.eigh(matrix)
        kept = kept_spectrum(noise)[::-1]
        matrix = (vectors * kept) @ vectors.T
    controls = all_controls(noise)
    for name in {"shuffled_spectrum", "flat_spectrum"} & set(controls):
        other = matrix_of(controls[name])
        np.testing.assert_allclose(matrix @ other, other @ matrix, atol=100 * tolerance(noise), err_msg=name)


@pytest.mark.parametrize("name", ["dense", "low rank", "equal private variances"])
def test_a_shuffled_spectrum_gives_every_eigenvector_another_eigenvalue(name: str) -> None:
    noise = NOISES[name]
    values, vectors = np.linalg.eigh(matrix_of(noise))
    leading = slice(-3, None) if is_low_rank(noise) else slice(None)
    for seed in range(5):
        shuffled = vectors.T @ matrix_of(CONTROLS["shuffled_spectrum"](noise, rng=seed)) @ vectors
        given = np.diag(shuffled)[leading]
        np.testing.assert_allclose(np.sort(given), values[leading], rtol=1e-8)
        assert (np.abs(given - values[leading]) > 1e-6).all()


def test_every_cycle_of_shuffling_occurs() -> None:
    noise = Dense(torch.diag(torch.tensor([4.0, 2.0, 1.0])))
    seen = {tuple(CONTROLS["shuffled_spectrum"](noise, rng=seed).diagonal().round().tolist()) for seed in range(20)}
    assert seen == {(2.0, 1.0, 4.0), (1.0, 4.0, 2.0)}


def test_a_flat_spectrum_has_equal_rank() -> None:
    low = NOISES["low rank"]
    values = np.linalg.eigvalsh(matrix_of(CONTROLS["flat_spectrum"](low)))[::-1]
    expected = kept_spectrum(low)
    np.testing.assert_allclose(values[:3], expected[:3].mean())
    np.testing.assert_allclose(values[3:], expected[3:])
    singular = Dense(FACTORS @ FACTORS.mT).to(dtype=torch.float32)
    values = np.linalg.eigvalsh(matrix_of(CONTROLS["flat_spectrum"](singular)))[::-1]
    np.testing.assert_allclose(values, [singular.trace() / 3] * 3 + [0] * 9, atol=1e-5)
    with pytest.raises(ValueError, match="got 'flat_spectrum': it is isotropic for noise of full rank; take that"):
        CONTROLS["flat_spectrum"](STRUCTURED)


def test_a_mean_shift_is_a_constant_of_the_same_power(noise: Covariance) -> None:
    shift = all_controls(noise)["mean_shift"]
    assert isinstance(shift, MeanShift)
    draws = shift.sample((3,), generator=torch.Generator().manual_seed(0)).double().numpy()
    direction = np.arange(1, N + 1)
    expected = direction * np.sqrt(noise.trace() / (direction**2).sum())
    np.testing.assert_allclose(draws, np.tile(expected, (3, 1)), rtol=tolerance(noise))


# Rotations


def test_rotation_loses_the_directions(noise: Covariance) -> None:
    turned = CONTROLS["rotated"](noise, rng=0)
    assert not np.allclose(matrix_of(turned), matrix_of(noise), atol=0.05)


def test_random_controls_are_reproducible(noise: Covariance) -> None:
    for name in ("rotated", "shuffled_spectrum"):
        first, second, other = (CONTROLS[name](noise, rng=seed).to_dense() for seed in (0, 0, 1))
        assert torch.equal(first, second)
        if name == "rotated":
            assert not torch.allclose(first, other, atol=0.05)


@pytest.mark.parametrize("kind", ["dense", "low rank"])
def test_rotations_have_no_preferred_direction(kind: str) -> None:
    """Averaged over rotations, the noise is isotropic."""
    mean = np.mean([CONTROLS["rotated"](NOISES[kind], rng=seed).to_dense().numpy() for seed in range(2000)], axis=0)
    np.testing.assert_allclose(mean, NOISES[kind].trace() / N * np.eye(N), atol=0.1)


# Of the signal


@pytest.mark.parametrize("n_dims", [1, 2, 5, 11])
def test_the_largest_eigenvalues_lie_in_the_signal_or_out_of_it(noise: Covariance, n_dims: int) -> None:
    """The k-th on the k-th axis of the signal, or the smallest on it, the very smallest on the first."""
    axes, values = signal_axes(target(), n_dims), kept_spectrum(noise)
    controls = all_controls(noise, n_dims=n_dims)
    along = axes.T @ matrix_of(controls["signal_aligned"]) @ axes
    np.testing.assert_allclose(along, np.diag(values[:n_dims]), atol=10 * tolerance(noise))
    along = axes.T @ matrix_of(controls["signal_orthogonal"]) @ axes
    np.testing.assert_allclose(along, np.diag(values[::-1][:n_dims]), atol=10 * tolerance(noise))


@pytest.mark.parametrize("kind", ["dense", "low rank"])
def test_alignment_as_it_is_measured(kind: str) -> None:
    noise, tuned = NOISES[kind], target(n_stimuli=400)
    measured = {}
    for name in ("rotated", "signal_aligned", "signal_orthogonal"):
        control = with_controls(noise, rng=0, target=tuned, n_dims=3)[name]
        draws = control.sample((400, 8), generator=torch.Generator().manual_seed(1)).numpy()
        responses = reference.responses(tuned.values + 0.3 * draws)
        measured[name] = float(statistics.noise_in_signal(responses, n_dims=3, rng=0).fraction)
    values = kept_spectrum(noise)
    assert measured["signal_aligned"] == pytest.approx(values[:3].sum() / values.sum(), abs=0.03)
    assert measured["signal_orthogonal"] == pytest.approx(values[-3:].sum() / values.sum(), abs=0.03)
    assert measured["signal_orthogonal"] + 0.05 < measured["rotated"] < measured["signal_aligned"] - 0.05


def test_the_other_directions_are_random() -> None:
    low = NOISES["low rank"]
    for name in ("signal_aligned", "signal_orthogonal"):
        first, second, other = (
            CONTROLS[name](low, target=target(), n_dims=2, rng=seed).to_dense() for seed in (0, 0, 1)
        )
        assert torch.equal(first, second) and not torch.allclose(first, other, atol=0.02)


# Large


@pytest.mark.parametrize("private", ["equal", "unequal"])
def test_200_000_units(private: str) -> None:
    n, rank = 200_000, 4
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(n, rank, generator=generator) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    variances = torch.full((n,), 0.5) if private == "equal" else torch.rand(n, generator=generator)
    noise = LowRankPlusDiagonal(factors, variances)
    tuned = reference.responses(np.random.default_rng(0).normal(size=(6, 1, n)).astype(np.float32))
    controls = with_controls(noise, rng=0, target=tuned, n_dims=2, mean_shift=torch.ones(n))
    assert list(controls) == ["transplanted", *CONTROLS]
    leading = noise.leading_eigenvalues(rank).numpy()
    for name in SPECTRAL:
        control = controls[name]
        assert isinstance(control, LowRankPlusDiagonal) and control.factors.shape == (n, rank)
        assert control.trace() == pytest.approx(noise.trace(), rel=1e-5)
        gram = control.factors.double().mT @ control.factors.double()
        values = np.linalg.eigvalsh(gram.numpy())[::-1] + float(control.private[0])
        np.testing.assert_allclose(values, leading, rtol=1e-5)
    axes = torch.from_numpy(signal_axes(tuned, 2).copy())
    within = [
        float((axes.mT @ controls[name].factors).square().sum()) for name in ("signal_aligned", "signal_orthogonal")
    ]
    assert within[0] == pytest.approx(leading[:2].sum() - 2 * float(controls["rotated"].private[0]), rel=1e-4)
    assert within[1] < 1e-6 * leading[0]


def test_private_variances_as_large_as_the_eigenvalues() -> None:
    """Leading eigenvalues within a crowd come out a little small, and the trace is exact still."""
    n = 3000
    generator = torch.Generator().manual_seed(0)
    factors = 0.01 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    noise = LowRankPlusDiagonal(factors, torch.rand(n, generator=generator, dtype=torch.float64))
    control = CONTROLS["rotated"](noise, rng=0)
    assert control.trace() == pytest.approx(noise.trace(), rel=1e-9)
    gram = control.factors.mT @ control.factors
    values = np.linalg.eigvalsh(gram.numpy())[::-1] + float(control.private[0])
    exact = noise.leading_eigenvalues(3).numpy()
    assert (values <= exact + 1e-9).all() and (values > 0.9 * exact).all()


def test_factors_that_hardly_stand_out() -> None:
    """It takes several steps to find the leading eigenvalues, to seven digits."""
    n = 1200
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(n, 3, generator=generator, dtype=torch.float64))[0]
    private = torch.rand(n, generator=generator, dtype=torch.float64)
    noise = LowRankPlusDiagonal(axes * torch.tensor([3.0, 2.5, 2.0]).sqrt(), private)
    control = CONTROLS["rotated"](noise, rng=0)
    values = np.linalg.eigvalsh((control.factors.mT @ control.factors).numpy())[::-1] + float(control.private[0])
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix_of(noise))[:-4:-1], rtol=1e-7)


def test_loud_units_that_share_nothing() -> None:
    """Their private variances are leading eigenvalues, though no factor touches them."""
    n = 1200
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    private = torch.rand(n, generator=generator, dtype=torch.float64)
    factors[[5, 700]], private[[5, 700]] = 0.0, torch.tensor([5000.0, 1300.0], dtype=torch.float64)
    noise = LowRankPlusDiagonal(factors, private)
    control = CONTROLS["rotated"](noise, rng=0)
    values = np.linalg.eigvalsh((control.factors.mT @ control.factors).numpy())[::-1] + float(control.private[0])
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix_of(noise))[:-5:-1], rtol=1e-7)
    flat = CONTROLS["flat_spectrum"](noise)
    assert float(flat.diagonal()[5]) > 100 * float(flat.private[5]), "as they are of the eigenvectors, too"


def test_out_of_memory_is_foreseen() -> None:
    with pytest.raises(ValueError, match=r"expected a matrix that fits into memory, got 1000000 units: 24000.0 GB of"):
        CONTROLS["rotated"](Diagonal.isotropic(10**6), rng=0)


@pytest.mark.gpu
def test_controls_on_a_gpu() -> None:
    controls = all_controls(NOISES["low rank"].to(device="cuda"))
    for control in controls.values():
        assert control.device.type == "cuda"
        assert control.trace() == pytest.approx(NOISES["low rank"].trace(), rel=1e-10)


# What is given and what is left out


def test_what_is_left_out_is_said() -> None:
    controls = with_controls(STRUCTURED, rng=0)
    assert list(controls) == ["transplanted", *list(CONTROLS)[:4]]
    assert controls.left_out == {
        "flat_spectrum": "is isotropic for noise of full rank",
        "signal_aligned": "needs target= and n_dims=",
        "signal_orthogonal": "needs target= and n_dims=",
        "mean_shift": "needs mean_shift=",
    }


def test_one_factor_cannot_be_shuffled() -> None:
    one = LowRankPlusDiagonal(FACTORS[:, :1], PRIVATE)
    controls = with_controls(one, rng=0)
    assert "shuffled_spectrum" not in controls
    assert controls.left_out["shuffled_spectrum"] == "needs two leading eigenvectors"
    with pytest.raises(
        ValueError, match="expected what the control 'shuffled_spectrum' needs, got none: it needs two leading"
    ):
        CONTROLS["shuffled_spectrum"](one, rng=0)


def test_only_some() -> None:
    controls = with_controls(STRUCTURED, rng=0, only=["rotated", "diagonal"])
    assert list(controls) == ["transplanted", "diagonal", "rotated"]
    assert controls.left_out["isotropic"] == "not asked for" and set(controls.left_out) == set(CONTROLS) - set(controls)
    every = with_controls(STRUCTURED, rng=0)
    assert torch.equal(controls["rotated"].to_dense(), every["rotated"].to_dense()), "whatever else is made"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["mean_shift"]}, "expected what the control 'mean_shift' needs, got none: it needs mean_shift="),
        (
            {"only": ["signal_aligned"]},
            "expected what the control 'signal_aligned' needs, .* needs target= and n_dims=",
        ),
        ({"only": ["flat_spectrum"]}, "got 'flat_spectrum': it is isotropic for noise of full rank"),
        ({"only": ["identity"]}, r"expected names of controls \(diagonal, .*, mean_shift\), got \['identity'\]"),
        ({"only": "diagonal"}, "expected names of controls .*, got 'diagonal'"),
        ({"n_dims": 2}, "expected target and n_dims together, got n_dims 2 and NoneType"),
        ({"target": target()}, "expected target and n_dims together, got n_dims None and DataArray"),
        ({"target": target(11), "n_dims": 2}, "expected a target with the 12 units of the noise, got 11"),
        (
            {"target": target(), "n_dims": 0},
            "expected n_dims from 1 to 11, along which the target's signal varies, got 0",
        ),
        ({"target": target(), "n_dims": 12}, "expected n_dims from 1 to 11, .*, got 12"),
        ({"target": target(n_stimuli=4), "n_dims": 4}, "expected n_dims from 1 to 3, .*, got 4"),
        ({"mean_shift": torch.ones(11)}, "expected a mean shift of 12 units, got 11"),
        ({"mean_shift": torch.zeros(12)}, "expected noise with variance, got a trace of 0 over 12 units"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_controls(STRUCTURED, rng=0, **options)


def test_controls_do_not_share_memory_with_the_noise() -> None:
    before = STRUCTURED.to_dense().clone()
    CONTROLS["diagonal"](STRUCTURED).variance.mul_(2)
    assert torch.equal(STRUCTURED.to_dense(), before)


# Low rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 4])
def test_low_rank_keeps_variances_and_leading_components(rank: int, dtype: torch.dtype) -> None:
    matrix = reference.noise_matrix("structured", 12)
    kept = low_rank(Dense(torch.from_numpy(matrix)).to(dtype=dtype), rank=rank)
    assert kept.dtype == dtype
    values, vectors = np.linalg.eigh(matrix)
    leading = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
    np.testing.assert_allclose((kept.factors @ kept.factors.T).numpy(), leading, atol=1e-5)
    np.testing.assert_allclose(kept.diagonal().numpy(), np.diag(matrix), atol=1e-5)


@pytest.mark.parametrize("rank", [0, 12])
def test_low_rank_of_no_rank(rank: int) -> None:
    with pytest.raises(ValueError, match=f"expected a rank from 1 to 11, got {rank}"):
        low_rank(STRUCTURED, rank=rank)
