"""Every accumulator against the covariance of all samples at once, however they are divided; then each type's own."""

import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import streaming as reference
from safetensors.torch import save_file
from seeds import generator
from torch import Tensor

import neurovar
from neurovar import _memory
from neurovar.covariance import Dense, Diagonal, Kronecker, LowRankPlusDiagonal, MeanShift
from neurovar.noise import (
    Accumulator,
    DenseAccumulator,
    DiagonalAccumulator,
    HebbianNetwork,
    KroneckerAccumulator,
    LowRankAccumulator,
)

SHAPE = (3, 2, 2)
N_UNITS = 12
Make = Callable[..., Accumulator]
MERGEABLE: dict[str, Make] = {
    "diagonal": DiagonalAccumulator,
    "dense": DenseAccumulator,
    "kronecker": KroneckerAccumulator,
    "low rank": lambda **options: LowRankAccumulator(rank=3, sketch_size=12, **options),  # of all units: exact
}
ALL: dict[str, Make] = MERGEABLE | {"hebbian": lambda **options: HebbianNetwork(rank=3, seed=1, **options)}


def samples(n: int, *, seed: int = 0, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Correlated samples with unequal means."""
    n_units = int(np.prod(shape))
    mixing = torch.randn(n_units, n_units, generator=generator(99), dtype=torch.float64) / n_units**0.5
    normals = torch.randn(n, n_units, generator=generator(seed), dtype=torch.float64)
    return (normals @ mixing + torch.linspace(-1, 2, n_units, dtype=torch.float64)).to(dtype).reshape(n, *shape)


def fed(accumulator: Accumulator, batches: Tensor | tuple[Tensor, ...]) -> Accumulator:
    for batch in batches:
        accumulator.update(batch)
    return accumulator


def expected_matrix(kind: str, values: np.ndarray, *, about_zero: bool) -> np.ndarray:
    matrix = reference.moments(values, about_zero=about_zero)
    if kind == "dense":
        return matrix
    if kind == "diagonal":
        return np.diag(np.diag(matrix))
    if kind == "kronecker":
        over_space, over_channels = reference.partial_traces(matrix, SHAPE[0])
        return np.kron(over_space, over_channels) / np.trace(matrix)
    shared = reference.leading(matrix, 3)
    return shared + np.diag(np.diag(matrix - shared))


@pytest.mark.parametrize("about_zero", [False, True])
@pytest.mark.parametrize("kind", MERGEABLE)
def test_it_is_the_covariance_of_all_samples(kind: str, about_zero: bool) -> None:
    data = samples(40)
    accumulator = fed(MERGEABLE[kind](about_zero=about_zero), data.split([1, 17, 2, 20]))
    values = data.flatten(1).numpy()
    got = accumulator.covariance()
    types = {"diagonal": Diagonal, "dense": Dense, "kronecker": Kronecker, "low rank": LowRankPlusDiagonal}
    assert type(got) is types[kind] and got.dtype == torch.float64
    expected = expected_matrix(kind, values, about_zero=about_zero)
    np.testing.assert_allclose(got.to_dense().numpy(), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(accumulator.mean.numpy(), values.mean(axis=0), rtol=1e-12)
    assert accumulator.n_samples == 40 and accumulator.unit_shape == SHAPE


def test_the_reference_is_numpys() -> None:
    values = samples(40).flatten(1).numpy()
    np.testing.assert_allclose(reference.moments(values, about_zero=False), np.cov(values.T), rtol=1e-10)


def result(accumulator: Accumulator) -> Tensor:
    return torch.cat([accumulator.covariance().to_dense(), accumulator.mean[None]])


@pytest.mark.parametrize("about_zero", [False, True])
@pytest.mark.parametrize("kind", MERGEABLE)
def test_neither_batches_nor_workers_nor_their_order_change_the_result(kind: str, about_zero: bool) -> None:
    data, make = samples(60), MERGEABLE[kind]
    whole = result(fed(make(about_zero=about_zero), (data,)))
    parts = data.split([5, 1, 30, 24])
    torch.testing.assert_close(result(fed(make(about_zero=about_zero), data.split(1))), whole)
    for order in itertools.islice(itertools.permutations(range(4)), 0, None, 5):
        total = make(about_zero=about_zero)
        for worker in order:
            total.merge(fed(make(about_zero=about_zero), parts[worker].split(7)))
            total.merge(make(about_zero=about_zero))
        assert total.n_samples == 60
        torch.testing.assert_close(result(total), whole)


@pytest.mark.parametrize("kind", MERGEABLE)
def test_merging_leaves_the_other_as_it_was(kind: str) -> None:
    first, second = (fed(MERGEABLE[kind](), samples(20, seed=seed).split(8)) for seed in (0, 1))
    before, empty = result(second), MERGEABLE[kind]()
    empty.merge(second)
    empty.update(samples(5))
    first.merge(second)
    first.update(samples(5))
    assert torch.equal(result(second), before) and second.n_samples == 20


@pytest.mark.parametrize("kind", ALL)
def test_float32_far_from_zero(kind: str) -> None:
    """Mean 1e4, standard deviation 1: variances within 1e-4 of those of the same numbers in float64, means within 1e-3.

    The spacing of float32 at 1e4 is 1e-3; x² − m² would be wrong by about 10.
    """
    data = (samples(3000, dtype=torch.float64) + 1e4).to(torch.float32)
    accumulator = fed(ALL[kind](), data.split(100))
    if kind != "hebbian":
        other = fed(ALL[kind](), (data + 3).split(100))
        accumulator.merge(other)
        data = torch.cat([data, data + 3])
    values = data.flatten(1).double()
    assert accumulator.mean.dtype == accumulator.covariance().dtype == torch.float32
    torch.testing.assert_close(accumulator.mean.double(), values.mean(0), rtol=0, atol=1e-3)
    if kind == "kronecker":
        assert accumulator.covariance().trace() == pytest.approx(float(values.var(0).sum()), rel=1e-4)
    else:
        torch.testing.assert_close(accumulator.covariance().diagonal().double(), values.var(0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", MERGEABLE)
def test_sorted_samples_are_as_good_as_mixed_ones(kind: str) -> None:
    """Batches whose means are far apart, as of images sorted by class, in float32."""
    data = samples(200, dtype=torch.float32) + 300 * torch.arange(4.0).repeat_interleave(50)[:, None, None, None]
    accumulator = fed(ALL[kind](), data.split(50))
    assert accumulator.covariance().trace() == pytest.approx(float(data.flatten(1).double().var(0).sum()), rel=1e-5)


def test_the_mean_beside_second_moments_is_as_exact() -> None:
    data = (samples(3000) + 1e4).to(torch.float32)
    accumulator = fed(DiagonalAccumulator(about_zero=True), data.split(100))
    torch.testing.assert_close(accumulator.mean.double(), data.flatten(1).double().mean(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("about_zero", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ALL)
def test_half_precision_is_accumulated_in_float32(kind: str, dtype: torch.dtype, about_zero: bool) -> None:
    data = samples(64, dtype=torch.float32).to(dtype)
    got, expected = (fed(ALL[kind](about_zero=about_zero), values.split(16)) for values in (data, data.float()))
    assert got.covariance().dtype == torch.float32
    torch.testing.assert_close(result(got), result(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ALL)
def test_sums_keep_their_precision_under_autocast_and_can_leave_inference_mode(kind: str) -> None:
    data = samples(64, dtype=torch.float32)
    plain = result(fed(ALL[kind](), data.split(16)))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        accumulator = fed(ALL[kind](), (data[:48] * 1).split(16))
        accumulator.covariance()
    accumulator.update(data[48:].requires_grad_())
    assert not accumulator.mean.requires_grad
    torch.testing.assert_close(result(accumulator), plain)


@pytest.mark.parametrize("kind", ALL)
def test_a_batch_is_left_as_it_was_and_may_have_any_strides(kind: str) -> None:
    data = samples(20)
    before = data.clone()
    strided = data.to(memory_format=torch.channels_last)
    first, second = fed(ALL[kind](), (data,)), fed(ALL[kind](), (strided,))
    assert torch.equal(data, before) and torch.equal(strided, before)
    torch.testing.assert_close(result(first), result(second))


@pytest.mark.parametrize("kind", ALL)
def test_a_saved_accumulator_resumes(kind: str, tmp_path: Path) -> None:
    data = samples(40)
    whole = fed(ALL[kind](about_zero=True), data.split(10))
    half = fed(ALL[kind](about_zero=True), data[:20].split(10))
    half.save(tmp_path / "half.safetensors")
    resumed = neurovar.noise.load_accumulator(tmp_path / "half.safetensors")
    assert type(resumed) is type(whole) and str(resumed) == str(half) and resumed.n_samples == 20
    torch.testing.assert_close(result(resumed), result(half))
    torch.testing.assert_close(result(fed(resumed, data[20:].split(10))), result(whole))


def test_a_saved_accumulator_merges(tmp_path: Path) -> None:
    data = samples(40, dtype=torch.float32)
    make = MERGEABLE["low rank"]
    fed(make(), data[20:].split(10)).save(tmp_path / "worker.safetensors")
    total = fed(make(), data[:20].split(10))
    total.merge(neurovar.noise.load_accumulator(tmp_path / "worker.safetensors", device="cpu"))
    torch.testing.assert_close(result(total), result(fed(make(), (data,))))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ALL)
def test_a_gpu_gives_the_same(kind: str, tmp_path: Path) -> None:
    data = samples(40)
    on_gpu, on_cpu = fed(ALL[kind](), data.cuda().split(10)), fed(ALL[kind](), data.split(10))
    assert on_gpu.covariance().device.type == on_gpu.mean.device.type == "cuda"
    torch.testing.assert_close(result(on_gpu).cpu(), result(on_cpu))
    on_gpu.save(tmp_path / "gpu.safetensors")
    resumed = neurovar.noise.load_accumulator(tmp_path / "gpu.safetensors", device="cuda")
    torch.testing.assert_close(result(fed(resumed, (data.cuda(),))).cpu(), result(fed(on_cpu, (data,))))
    with pytest.raises(ValueError, match=r"on cuda:0, as before, got .* on cpu"):
        on_gpu.update(data)


def test_the_mean_stands_beside_the_covariance_as_a_noise() -> None:
    data = samples(30)
    accumulator = fed(DenseAccumulator(), data.split(10))
    noise = accumulator.covariance() + MeanShift(accumulator.mean)
    draws = noise.sample((4000,), generator=generator(0))
    error = accumulator.covariance().diagonal().sqrt() / 4000**0.5
    assert ((draws.mean(0) - accumulator.mean).abs() < 5 * error).all()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((2, *SHAPE)), "expected activations as a tensor of floats, got ndarray"),
        (torch.zeros(2, *SHAPE, dtype=torch.int64), "expected activations as a tensor of floats, got torch.int64"),
        (torch.zeros(2, *SHAPE, dtype=torch.bool), "a tensor of floats, got torch.bool"),
        (torch.zeros(2, *SHAPE, dtype=torch.complex64), "a tensor of floats, got torch.complex64"),
        (torch.zeros(12), r"expected a batch \(batch, \*units\) with samples and units, got shape \(12,\)"),
        (torch.zeros(0, *SHAPE), r"with samples and units, got shape \(0, 3, 2, 2\)"),
        (torch.zeros(2, 3, 0), r"with samples and units, got shape \(2, 3, 0\)"),
        (torch.full((2, *SHAPE), torch.nan), "expected finite activations with a finite sum of squares, got 24 NaN"),
        (torch.eye(2).reshape(2, 2, 1).log(), "expected finite activations with a finite sum of squares, got 2 NaN"),
        (torch.full((2, *SHAPE), 2e19), "expected finite activations with a finite sum of squares, got 0 NaN"),
    ],
)
def test_bad_batches(kind: str, batch: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ALL[kind]().update(batch)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            samples(2, shape=(3, 2, 3)),
            r"expected samples of shape \(3, 2, 2\), torch.float64 on cpu, as before, got \(3, 2, 3\), torch.float64",
        ),
        (samples(2).flatten(1), r"expected samples of shape \(3, 2, 2\), .* got \(12,\), torch.float64 on cpu"),
        (samples(2, dtype=torch.float32), "torch.float64 on cpu, as before, got .* torch.float32 on cpu"),
        (samples(2).to("meta"), "on cpu, as before, got .* on meta"),
        (samples(2).log(), "expected finite activations"),
        (samples(2) * 1e200, "expected finite activations with a finite sum of squares, got 0 NaN or infinite"),
    ],
)
def test_a_batch_unlike_those_before_changes_nothing(kind: str, batch: Tensor, message: str) -> None:
    accumulator = fed(ALL[kind](), samples(20).split(10))
    before = result(accumulator)
    with pytest.raises(ValueError, match=message):
        accumulator.update(batch)
    assert torch.equal(result(accumulator), before) and accumulator.n_samples == 20


@pytest.mark.parametrize("kind", ALL)
def test_too_few_samples(kind: str) -> None:
    accumulator = ALL[kind]()
    with pytest.raises(ValueError, match="expected at least 1 sample for a mean, got 0"):
        _ = accumulator.mean
    with pytest.raises(ValueError, match="expected at least 1 sample to save, got 0"):
        accumulator.save("nowhere")
    with pytest.raises(ValueError, match="expected an existing folder to write into, got nowhere"):
        fed(ALL[kind](), (samples(4),)).save("nowhere/file")
    with pytest.raises(ValueError, match="expected at least 2 samples for a covariance about the mean, got 0"):
        accumulator.covariance()
    with pytest.raises(ValueError, match="expected at least 2 samples for a covariance about the mean, got 1"):
        fed(accumulator, (samples(1),)).covariance()
    with pytest.raises(ValueError, match="expected at least 1 samples for a covariance about zero, got 0"):
        ALL[kind](about_zero=True).covariance()


@pytest.mark.parametrize("kind", ["low rank", "hebbian"])
def test_fewer_samples_than_factors(kind: str) -> None:
    with pytest.raises(ValueError, match="expected at least 4 samples for rank 3, got 3"):
        fed(ALL[kind](), (samples(3),)).covariance()
    with pytest.raises(ValueError, match="expected at least 3 samples for rank 3, got 2"):
        fed(ALL[kind](about_zero=True), (samples(2),)).covariance()
    assert fed(ALL[kind](), (samples(4),)).covariance().rank == 3
    assert fed(ALL[kind](about_zero=True), (samples(3),)).covariance().rank == 3


@pytest.mark.parametrize("make", [LowRankAccumulator, functools.partial(HebbianNetwork, seed=0)])
@pytest.mark.parametrize("rank", [0, -1, 13])
def test_a_rank_out_of_range(make: Make, rank: int) -> None:
    with pytest.raises(ValueError, match=rf"expected a rank from 1 to .*, got {rank}"):
        make(rank=rank).update(samples(5))


def test_a_sketch_smaller_than_the_rank() -> None:
    with pytest.raises(ValueError, match="expected a rank from 1 to below the sketch size 5, got 5"):
        LowRankAccumulator(rank=5, sketch_size=5)


def test_no_channels() -> None:
    with pytest.raises(
        ValueError, match=r"expected batches \(batch, channel, \*position\), got units of shape \(12,\)"
    ):
        KroneckerAccumulator().update(samples(3).flatten(1))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (DiagonalAccumulator(), r"expected an accumulator like LowRank.*rank=3.*, got DiagonalAccumulator\("),
        (MERGEABLE["low rank"](about_zero=True), "about_zero=False.*, got .*about_zero=True"),
        (LowRankAccumulator(rank=4, sketch_size=12), "rank=3.*, got .*rank=4"),
        (LowRankAccumulator(rank=3), "sketch_size=12.*, got .*sketch_size=6"),
        (
            fed(MERGEABLE["low rank"](), (samples(9).flatten(1),)),
            r"expected samples of shape \(3, 2, 2\).* got \(12,\)",
        ),
        (fed(MERGEABLE["low rank"](), (samples(9).float(),)), "torch.float64 .* got .* torch.float32"),
    ],
)
def test_accumulators_that_do_not_belong_together(other: Accumulator, message: str) -> None:
    accumulator = fed(MERGEABLE["low rank"](), (samples(20),))
    before = result(accumulator)
    with pytest.raises(ValueError, match=message):
        accumulator.merge(other)
    assert torch.equal(result(accumulator), before)


def test_merging_with_itself() -> None:
    accumulator = fed(DenseAccumulator(), (samples(20),))
    with pytest.raises(ValueError, match="got this one itself: its samples would count twice"):
        accumulator.merge(accumulator)


def test_networks_do_not_merge() -> None:
    one, other = (fed(ALL["hebbian"](), (samples(20),)) for _ in range(2))
    with pytest.raises(ValueError, match="expected sums that add up, got synapses of a HebbianNetwork; merge LowRank"):
        one.merge(other)


@pytest.mark.parametrize("make", [DenseAccumulator, KroneckerAccumulator])
def test_out_of_memory_is_foreseen(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "available", lambda device: 0.9e9)
    batch = torch.zeros(1, 1, 20_000)
    with pytest.raises(ValueError, match=r"got 20000 units: 1.6 GB of 0.9 GB free on cpu; a LowRankPlusDiagonal of"):
        make().update(batch)
    if make is DenseAccumulator:
        KroneckerAccumulator().update(batch.reshape(1, 100, 200))


def test_files_that_hold_no_accumulator(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    with pytest.raises(ValueError, match=f"expected an accumulator saved by neurovar, found no file at {path}"):
        neurovar.noise.load_accumulator(path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="expected an accumulator saved by neurovar, could not read"):
        neurovar.noise.load_accumulator(path)
    Diagonal.isotropic(3).save(path)
    with pytest.raises(ValueError, match=r"expected an accumulator saved by neurovar, could not read .*KeyError"):
        neurovar.noise.load_accumulator(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "Accumulator"}, "KeyError"),
        ({"n_samples": 0}, "0 samples"),
        ({"n_samples": 2.5}, "2.5 samples"),
        ({"n_samples": True}, "True samples"),
        ({"version": 2}, "expected version 1, got 2"),
        ({"unit_shape": [5]}, r"12 means|\(12,\) means of units of shape \(5,\)"),
        ({"kind": "DiagonalAccumulator"}, "do not fit units"),
        ({"settings": {"rank": 3}}, "TypeError"),
    ],
)
def test_a_spoiled_file(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    header = {"kind": "DenseAccumulator", "settings": {}, "n_samples": 5, "unit_shape": list(SHAPE)} | change
    tensors = {"origin": torch.zeros(12), "offset": torch.zeros(12), "scatter": torch.eye(12)}
    save_file(tensors, path, metadata={"neurovar_streaming": json.dumps(header)})
    with pytest.raises(ValueError, match=f"could not read .*({message})"):
        neurovar.noise.load_accumulator(path)


def test_a_file_of_another_type_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    header = {"kind": "DenseAccumulator", "settings": {}, "n_samples": 5, "unit_shape": [12]}
    tensors = {"origin": torch.zeros(12), "offset": torch.zeros(12), "scatter": torch.eye(12).double()}
    save_file(tensors, path, metadata={"neurovar_streaming": json.dumps(header)})
    with pytest.raises(ValueError, match="do not fit units"):
        neurovar.noise.load_accumulator(path)
