"""How long a sampled row takes at 3,136 units in float32, beside a 64-row product with the square Cholesky factor.

Wanted, on two threads: `Dense` at most 0.6 × the time a row of that product, `LowRankPlusDiagonal` of rank 128 at least
8 × faster, `Diagonal` at the speed of the random numbers. On a GPU, if there is one, with device events.
Printed, not asserted: `make benchmarks`.
"""

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from neurovar.covariance import Covariance, Dense, Diagonal, GainModulated, Kronecker, LowRankPlusDiagonal

N_UNITS, RANK = 3136, 128
ROWS = 64
BLOCK = 1024
N_RUNS = 15
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def noises(device: str) -> dict[str, Covariance]:
    g = torch.Generator().manual_seed(0)
    root = torch.randn(N_UNITS, N_UNITS, generator=g)
    variance = torch.rand(N_UNITS, generator=g) + 0.1
    made = {
        "Diagonal": Diagonal(variance),
        f"LowRankPlusDiagonal, rank {RANK}": LowRankPlusDiagonal(torch.randn(N_UNITS, RANK, generator=g), variance),
        "Dense": Dense(root @ root.mT / N_UNITS + torch.diag(variance)),
        "Kronecker, 64 × 49": Kronecker(
            Dense(root[:64, :64] @ root[:64, :64].mT + torch.eye(64)),
            Dense(root[:49, :49] @ root[:49, :49].mT + torch.eye(49)),
        ),
        "GainModulated, 100 states": GainModulated(torch.tensor(0.1), variance, torch.tensor(1.0), root[:100].abs()),
    }
    return {name: noise.to(device=device) for name, noise in made.items()}


@pytest.mark.parametrize("device", DEVICES)
def bench_sampling(device: str) -> None:
    torch.set_num_threads(2)
    g = torch.Generator(device).manual_seed(0)
    covariances = noises(device)
    factor = torch.linalg.cholesky(covariances["Dense"].to_dense())
    normals = torch.randn(ROWS, N_UNITS, generator=g, device=device)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "64-row product": (ROWS, lambda: normals @ factor.mT),
        "64-row product of new normals": (
            ROWS,
            lambda: torch.randn(ROWS, N_UNITS, generator=g, device=device) @ factor.mT,
        ),
    }
    for rows in (ROWS, BLOCK):
        work[f"random numbers, {rows} rows"] = (
            rows,
            lambda rows=rows: torch.randn(rows, N_UNITS, generator=g, device=device),
        )
        for name, noise in covariances.items():
            work[f"{name}, {rows} rows"] = (rows, lambda noise=noise, rows=rows: noise.sample((rows,), generator=g))
    sampler = covariances["Dense"].sampler(generator=g, block=BLOCK)
    work[f"Dense, {BLOCK // ROWS} × {ROWS} rows of a block"] = (
        BLOCK,
        lambda: [sampler.draw((ROWS,)) for _ in range(BLOCK // ROWS)],
    )
    work["Dense, row by row of a block"] = (BLOCK, lambda: [sampler.draw() for _ in range(BLOCK)])
    for _, job in work.values():
        job()
    # Every job in turn, so that what else the machine does falls on all of them.
    runs = [{name: seconds(job, device) / rows for name, (rows, job) in work.items()} for _ in range(N_RUNS)]
    print(f"\n{N_UNITS:,} units, float32, on {device}: µs a row, and as a multiple of the new 64-row product's")
    for name in work:
        each = statistics.median(run[name] for run in runs)
        ratio = statistics.median(run[name] / run["64-row product of new normals"] for run in runs)
        print(f"  {name:45s} {each * 1e6:8.2f}  {ratio:6.3f} ×  ({1 / ratio:.1f} × faster)")
