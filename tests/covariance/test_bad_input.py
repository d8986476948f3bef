"""What is refused, and in which words; and out of memory foreseen."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from seeds import generator

from neurovar import _memory
from neurovar.covariance import (
    Covariance,
    Dense,
    Diagonal,
    GainModulated,
    Kronecker,
    LowRankPlusDiagonal,
    MeanShift,
    Sum,
    nearest,
)

ONE = torch.tensor(1.0)
ASYMMETRIC = torch.tensor([[1.0, 0.5], [0.1, 1.0]])
INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
EYE = Diagonal.isotropic(2)
HUNDRED = 100 * torch.eye(2)
SHARED = LowRankPlusDiagonal(torch.ones(2, 1), torch.ones(2))
INVALID: dict[str, Callable[[], object]] = {
    r"expected variances as floats of shape \(n,\), got torch.int64 \(3,\)": lambda: Diagonal(torch.ones(3).long()),
    r"expected variances as floats of shape \(n,\), got torch.float32 \(3, 1\)": lambda: Diagonal(torch.ones(3, 1)),
    r"expected variances as floats of shape \(n,\), got torch.float32 \(0,\)": lambda: Diagonal(torch.ones(0)),
    "expected variances finite and not negative, got a smallest value of -1": (
        lambda: Diagonal(torch.tensor([1.0, -1.0]))
    ),
    "expected variances finite and not negative, got a smallest value of nan": (
        lambda: Diagonal(torch.tensor([1.0, float("nan")]))
    ),
    r"expected a square matrix of floats, got torch.float32 \(2, 3\)": lambda: Dense(torch.ones(2, 3)),
    r"expected a square matrix of floats, got torch.int64 \(2, 2\)": lambda: Dense(torch.eye(2).long()),
    r"expected a matrix of float32 or float64, got torch.float16; convert with": (lambda: Dense(torch.eye(2).half())),
    "expected a finite covariance, got 1 NaN or infinite": lambda: Dense(torch.tensor([[float("inf")]])),
    "expected a finite covariance, got variances beyond the range of torch.float32": lambda: 1e38 * Dense(HUNDRED),
    r"expected a finite covariance, got variances beyond .*float32$": (
        lambda: Dense(HUNDRED).conjugate(torch.full((2,), 1e30))
    ),
    r"expected a symmetric matrix, got \|C − Cᵀ\| up to 0.4": lambda: Dense(ASYMMETRIC),
    r"expected a positive semi-definite matrix, got an eigenvalue of -1 \(largest 3\)": lambda: Dense(INDEFINITE),
    r"expected private variances as floats of shape \(n,\), got torch.float32 \(2, 1\)": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 1), torch.ones(2, 1))
    ),
    "expected private variances finite and not negative, got a smallest value of -2": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 1), torch.tensor([1.0, -2.0]))
    ),
    r"expected factors of shape \(2, r\), as there are 2 private variances, got \(3, 1\)": (
        lambda: LowRankPlusDiagonal(torch.ones(3, 1), torch.ones(2))
    ),
    r"expected factors of shape \(2, r\), as there are 2 private variances, got \(2, 0\)": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 0), torch.ones(2))
    ),
    r"expected factors of shape \(2, r\), as there are 2 private variances, got \(2,\)": (
        lambda: LowRankPlusDiagonal(torch.ones(2), torch.ones(2))
    ),
    r"expected factors of shape \(2, r\), as there are 2 private variances, got \(\)": (
        lambda: LowRankPlusDiagonal(ONE, torch.ones(2))
    ),
    "expected from 1 to 1 leading eigenvalues of 2 units, got 2": lambda: SHARED.leading_eigenvalues(2),
    "expected from 1 to 1 leading eigenvalues of 2 units, got 0": lambda: SHARED.leading_eigenvalues(0),
    "expected finite factors of torch.float32, got torch.float64 or NaN": (
        lambda: LowRankPlusDiagonal(torch.ones(2, 1).double(), torch.ones(2))
    ),
    "expected finite factors of torch.float32, got torch.float32 or NaN": (
        lambda: LowRankPlusDiagonal(torch.full((2, 1), float("nan")), torch.ones(2))
    ),
    r"expected a mean of floats \(n,\), got torch.int64 \(2,\)": lambda: MeanShift(torch.ones(2).long()),
    r"expected a mean of floats \(n,\), got torch.float32 \(\)": lambda: MeanShift(ONE),
    r"expected a mean of floats \(n,\), got torch.float32 \(0,\)": lambda: MeanShift(torch.ones(0)),
    "expected a finite mean, got 1 NaN or infinite": lambda: MeanShift(torch.tensor([1.0, float("nan")])),
    "expected covariances without state or mean, got MeanShift": lambda: Kronecker(EYE, MeanShift(torch.ones(2))),
    "expected covariances without state or mean, got Sum": lambda: Kronecker(EYE + MeanShift(torch.ones(2)), EYE),
    "expected covariances without state or mean, got GainModulated": (
        lambda: Kronecker(GainModulated(ONE, torch.ones(2), ONE, torch.ones(1, 2)), EYE)
    ),
    "expected channel and space of one dtype on one device, got .*float32.*float64": (
        lambda: Kronecker(EYE, EYE.to(dtype=torch.float64))
    ),
    "expected dispersions finite and not negative, got a smallest value of -1": (
        lambda: GainModulated(ONE, -torch.ones(2), ONE, torch.ones(1, 2))
    ),
    r"expected a finite gain_variance of at least 0, of shape \(\), got -1": (
        lambda: GainModulated(-ONE, torch.ones(2), ONE, torch.ones(1, 2))
    ),
    r"expected a finite gain_variance of at least 0, of shape \(\), got \[1.0, 1.0\]": (
        lambda: GainModulated(torch.ones(2), torch.ones(2), ONE, torch.ones(1, 2))
    ),
    r"expected a finite exponent of at least 0, of shape \(\), got nan": (
        lambda: GainModulated(ONE, torch.ones(2), ONE * float("nan"), torch.ones(1, 2))
    ),
    r"expected reference states \(m, 2\), got \(2,\)": (lambda: GainModulated(ONE, torch.ones(2), ONE, torch.ones(2))),
    r"expected reference states \(m, 2\), got \(1, 3\)": (
        lambda: GainModulated(ONE, torch.ones(2), ONE, torch.ones(1, 3))
    ),
    r"expected reference states \(m, 2\), got \(0, 2\)": (
        lambda: GainModulated(ONE, torch.ones(2), ONE, torch.ones(0, 2))
    ),
    "expected finite reference states, got 2 NaN or infinite": (
        lambda: GainModulated(ONE, torch.ones(2), ONE, torch.full((1, 2), float("inf")))
    ),
    r"expected tensors of one dtype, got \['torch.float32', 'torch.float64'\]": (
        lambda: GainModulated(ONE, torch.ones(2), ONE, torch.ones(1, 2).double())
    ),
    r"expected one state \(2,\), got \(1, 2\)": (
        lambda: GainModulated(ONE, torch.ones(2), ONE, torch.ones(1, 2)).at(torch.ones(1, 2))
    ),
    r"expected a tuple of covariances, got \[\]": lambda: Sum([]),
    r"expected a tuple of covariances, got \(\)": lambda: Sum(()),
    "expected covariances that are no sums themselves, got Sum": lambda: Sum((Sum((EYE,)),)),
    "expected covariances that are no sums themselves, got Tensor": lambda: Sum((torch.ones(2),)),
    "expected parts over the same units, .*got .'2 units, torch.float32 on cpu', '3 units": (
        lambda: EYE + Diagonal.isotropic(3)
    ),
    "expected parts over the same units, .*torch.float32 on cpu', '2 units, torch.float64 on cpu'": (
        lambda: Sum((EYE, EYE.to(dtype=torch.float64)))
    ),
    "expected at most one MeanShift in a sum, got 2; add their means": (
        lambda: Sum((MeanShift(torch.ones(2)), MeanShift(torch.ones(2))))
    ),
    "expected a finite factor of at least 0, got -1": lambda: -1 * EYE,
    "expected a finite factor of at least 0, got nan": lambda: float("nan") * EYE,
    "expected a finite factor of at least 0, got inf": lambda: float("inf") * EYE,
    r"expected a map \(m, 2\) or \(2,\), got \(2, 3\)": lambda: EYE.conjugate(torch.ones(2, 3)),
    r"expected a map \(m, 2\) or \(2,\), got \(3,\)": lambda: EYE.conjugate(torch.ones(3)),
    r"expected a map \(m, 2\) or \(2,\), got \(0, 2\)": lambda: EYE.conjugate(torch.ones(0, 2)),
    r"expected a map \(m, 2\) or \(2,\), got \(\)": lambda: EYE.conjugate(ONE),
    r"expected a map \(m, 2\) or \(2,\), got \(1, 2, 2\)": lambda: EYE.conjugate(torch.ones(1, 2, 2)),
    "expected a finite map of torch.float32, got torch.float64 or NaN": lambda: EYE.conjugate(torch.ones(2).double()),
    "expected a finite map of torch.float32, got torch.float32 or NaN": (
        lambda: EYE.conjugate(torch.tensor([1.0, float("nan")]))
    ),
    r"expected deviations \(…, 2\) of torch.float32, got \(3,\) of torch.float32": (
        lambda: EYE.mahalanobis(torch.ones(3))
    ),
    r"expected deviations \(…, 2\) of torch.float32, got \(2,\) of torch.float64": (
        lambda: EYE.mahalanobis(torch.ones(2).double())
    ),
    r"expected deviations \(…, 2\) of torch.float32, got \(\) of": lambda: EYE.mahalanobis(ONE),
    r"expected a matrix \(n, n\) of floats, got torch.float32 \(2, 3\)": lambda: nearest(torch.ones(2, 3)),
    r"expected a matrix \(n, n\) of floats, got torch.int64 \(2, 2\)": lambda: nearest(torch.eye(2).long()),
    "expected a finite matrix, got 4 NaN or infinite": lambda: nearest(torch.full((2, 2), float("nan"))),
}


@pytest.mark.parametrize("message", INVALID)
def test_bad_input(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        INVALID[message]()


def test_only_rounding_is_taken_for_semi_definite() -> None:
    values = torch.tensor([1.0, 0.5, -9e-5])
    drawn = Dense(torch.diag(values)).sample((50,), generator=generator(0))
    assert drawn[:, :2].abs().min() > 0 and not drawn[:, 2].any()
    with pytest.raises(ValueError, match=r"got an eigenvalue of -0.00011 \(largest 1\)"):
        Dense(torch.diag(torch.tensor([1.0, 0.5, -1.1e-4])))


@pytest.mark.parametrize("trace", [0, -1.0, float("nan"), float("inf")])
def test_a_trace_that_is_not_positive(trace: float) -> None:
    with pytest.raises(ValueError, match=f"expected a finite trace above 0, got {trace}"):
        Diagonal.isotropic(3).scale_to(trace=trace)


@pytest.mark.parametrize("silent", [Diagonal(torch.zeros(3)), Dense(torch.zeros(3, 3)), MeanShift(torch.zeros(3))])
def test_silence_has_neither_scale_nor_dimensionality(silent: Covariance) -> None:
    for use in (lambda: silent.scale_to(trace=1.0), silent.effective_dimensionality):
        with pytest.raises(ValueError, match="expected noise with variance, got a trace of 0 over 3 units"):
            use()


@pytest.mark.parametrize(
    "loud",
    [
        LowRankPlusDiagonal(torch.full((3, 1), 1e20), torch.ones(3)),
        Kronecker(Diagonal(torch.full((3,), 1e30)), Diagonal.isotropic(1, variance=1e30)),
        MeanShift(torch.full((3,), 1e20)),
    ],
)
def test_a_trace_beyond_all_numbers_is_never_scaled_to_silence(loud: Covariance) -> None:
    for use in (lambda: loud.scale_to(trace=1.0), loud.effective_dimensionality):
        with pytest.raises(ValueError, match=r"expected a finite trace, got \S+ over 3 units of torch.float32"):
            use()
    assert loud.to(dtype=torch.float64).scale_to(trace=6.0).trace() == pytest.approx(6)


@pytest.mark.parametrize("other", [1, None, torch.ones(3)])
def test_only_covariances_are_added(other: object) -> None:
    with pytest.raises(TypeError, match="unsupported operand type"):
        EYE + other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "make",
    [
        lambda kind: Diagonal(torch.ones(2, dtype=kind)),
        lambda kind: LowRankPlusDiagonal(torch.ones(2, 1, dtype=kind), torch.ones(2, dtype=kind)),
        lambda kind: MeanShift(torch.ones(2, dtype=kind)),
        lambda kind: GainModulated(*(torch.ones(shape, dtype=kind) for shape in [(), (2,), (), (1, 2)])),
        lambda kind: EYE.to(dtype=kind),
        lambda kind: Kronecker(EYE, EYE).to(dtype=kind),
        lambda kind: Sum((EYE, Dense(HUNDRED))).to(dtype=kind),
    ],
)
def test_half_precision_is_refused_with_the_remedy(make: Callable[..., object], dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"of float32 or float64, got {dtype}; convert with .float\(\)"):
        make(dtype)


N = 8000
WIDE = LowRankPlusDiagonal(torch.ones(N, 2), torch.ones(N))
SPATIAL = Kronecker(Diagonal.isotropic(800), LowRankPlusDiagonal(torch.ones(10, 1), torch.ones(10)))
TOO_LARGE: dict[str, Callable[[], object]] = {
    "diagonal": Diagonal.isotropic(N).to_dense,
    "low rank": WIDE.to_dense,
    "spectrum": WIDE.spectrum,
    "kronecker": SPATIAL.to_dense,
    "mean shift": MeanShift(torch.ones(N)).to_dense,
    "sum": (SPATIAL + WIDE).to_dense,
    "log determinant of a sum": (SPATIAL + WIDE).log_determinant,
    "mahalanobis of a sum": lambda: (SPATIAL + WIDE).mahalanobis(torch.ones(N)),
    "rescaled kronecker": lambda: SPATIAL.conjugate(torch.arange(float(N))),
    "conjugate": lambda: WIDE.conjugate(torch.ones(1, N).expand(N, N)),
    "root": lambda: WIDE.conjugate(torch.ones(1, N).expand(N + 1, N)),
    "dense": lambda: Dense(torch.eye(1).expand(N, N)),
    "nearest": lambda: nearest(torch.eye(1).expand(N, N)),
}
NO_MEMORY = (
    r"expected a matrix that fits into memory, got 8000 units: [\d.]+ GB of 0.1 GB free on cpu; "
    r"a LowRankPlusDiagonal of rank 64, with its leading_eigenvalues, takes 0.00[\d]+ GB"
)


@pytest.mark.parametrize("name", TOO_LARGE)
def test_out_of_memory_is_foreseen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "available", lambda device: 1e8)
    with pytest.raises(ValueError, match=NO_MEMORY):
        TOO_LARGE[name]()


def test_what_needs_no_matrix_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "available", lambda device: 0)
    for noise in (WIDE, SPATIAL, Diagonal.isotropic(N), MeanShift(torch.ones(N)), SPATIAL + WIDE):
        assert 1 <= noise.effective_dimensionality() <= N
        assert noise.conjugate(torch.ones(2, N)).n == 2
    for noise in (SPATIAL, Diagonal.isotropic(N), MeanShift(torch.ones(N))):
        assert noise.spectrum().shape == (N,)


def test_a_kronecker_of_more_units_than_memory_has_its_trace() -> None:
    """10^12 units from two factors of a million."""
    side = 10**6
    noise = Kronecker(
        Diagonal.isotropic(side, variance=2.0), LowRankPlusDiagonal(torch.ones(side, 1), torch.ones(side))
    )
    assert noise.n == 10**12
    for whole in (noise, noise.scale_to(trace=4e12), (noise + noise).scale_to(trace=4e12)):
        assert whole.trace() == pytest.approx(4e12)
        # Over space the eigenvalues are n + 1 once, else 1; over channels all are equal.
        dimensionality = side * (2 * side) ** 2 / ((side + 1) ** 2 + side - 1)
        assert whole.effective_dimensionality() == pytest.approx(dimensionality)
    vectors = (noise.diagonal, noise.spectrum, lambda: noise.sample((3,), generator=generator(0)))
    for use, size in zip(vectors, (4e3, 16e3, 12e3)):
        with pytest.raises(ValueError, match=rf"expected .* to fit into memory, got {size:.1f} GB of [\d.]+ GB free"):
            use()


def test_the_size_is_stated_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """200,704 units in float32: 161 GB."""
    monkeypatch.setattr(_memory, "available", lambda device: 24e9)
    with pytest.raises(ValueError, match=r"got 200704 units: 161.1 GB of 24.0 GB free .* takes 0.052 GB"):
        Diagonal.isotropic(200_704).to_dense()


CPU = torch.device("cpu")


def test_every_copy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "available", lambda device: 1e9)
    _memory.require_matrix(10_000, torch.float32, CPU, copies=2)
    with pytest.raises(ValueError, match=r"got 10000 units: 1.2 GB of 1.0 GB free"):
        _memory.require_matrix(10_000, torch.float32, CPU, copies=3)


def test_memory_free_on_this_machine() -> None:
    assert 0 < _memory.available(CPU) <= psutil.virtual_memory().total
    assert _memory._free() == pytest.approx(psutil.virtual_memory().available, rel=0.5)


def test_memory_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert _memory.available(CPU) == pytest.approx(psutil.virtual_memory().total, rel=0.05)
    monkeypatch.delattr(_memory.os, "sysconf")
    assert _memory.available(CPU) == float("inf")


def test_memory_that_a_container_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 2000 kB\n", "/sys/fs/cgroup/memory.max": "1000\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: files[str(path)])
    assert _memory.available(CPU) == 1000
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert _memory.available(CPU) == 2_048_000


def test_memory_of_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 7))
    assert _memory.available(torch.device("cuda")) == 5
    assert _memory.available(torch.device("mps")) == float("inf")
