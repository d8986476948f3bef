"""How long rank-64-plus-diagonal noise of 200,704 units takes, beside the products it needs, and how exact it is.

Wanted: 50,000 samples with a peak below 2 GB, in at most 3 × the time of the matrix products; ‖C − QQᵀC‖_F of the
factors' space Q within 5 % of that of the exact eigenvectors where these can be had. The products are those of an
update with sketch B (128, units), rows X (batch + 1, units; one row is the batch's distance from the mean) and a small
matrix: X Bᵀ, X Xᵀ, and the mixing of B and of X, on the same batches, taken in turn with updates. Batches come from a
pool of two, so that making them is not timed. The memory is that of a process of its own that streams without the
products. By default 2,560 samples are timed and scaled; NEUROVAR_BENCH_SAMPLES=50000 streams all.
Printed, not asserted: `make benchmarks`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from neurovar.noise import LowRankAccumulator

N_UNITS, N_SAMPLES, RANK, BATCH = 64 * 56 * 56, 50_000, 64, 128
N_TIMED = int(os.environ.get("NEUROVAR_BENCH_SAMPLES", "2560"))
STREAM = """
import json, re, sys, time
from pathlib import Path
import torch
from neurovar.noise.streaming import LowRankAccumulator
units, samples, rank, batch = map(int, sys.argv[1:])
pool = [torch.randn(batch, units) for _ in range(2)]
start = time.perf_counter()
accumulator = LowRankAccumulator(rank=rank)
for step in range(samples // batch):
    accumulator.update(pool[step % 2])
streamed = time.perf_counter() - start
estimate = accumulator.estimate()
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])  # of Linux, in kB
print(json.dumps([streamed, time.perf_counter() - start - streamed, peak * 1024]))
"""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench_stream() -> None:
    """The whole stream in a process of its own: time and peak of memory, the batches included."""
    sizes = [str(size) for size in (N_UNITS, N_TIMED, RANK, BATCH)]
    done = subprocess.run([sys.executable, "-c", STREAM, *sizes], check=True, capture_output=True)
    streamed, estimated, peak = json.loads(done.stdout)
    whole = streamed * N_SAMPLES / N_TIMED + estimated
    print(f"\n{N_UNITS} units, {N_TIMED} samples in batches of {BATCH}, rank {RANK}, load {os.getloadavg()[0]:.1f}")
    print(f"  streamed in {streamed:.1f} s, estimated in {estimated:.2f} s: {whole:.0f} s for {N_SAMPLES} samples")
    print(f"  peak memory {peak / 1e9:.2f} GB")


def bench_update_beside_its_products() -> None:
    accumulator = LowRankAccumulator(rank=RANK)
    pool = [torch.randn(BATCH, N_UNITS) for _ in range(2)]
    for batch in pool:
        accumulator.update(batch)
    rows, size = torch.randn(BATCH + 1, N_UNITS), 2 * RANK
    sketch, mixing = torch.randn(size, N_UNITS), torch.randn(size + BATCH + 1, size)

    def products() -> None:
        rows @ sketch.mT
        rows @ rows.mT
        (mixing[:size].mT @ sketch).addmm_(mixing[size:].mT, rows)

    products()
    pairs = [(seconds(partial(accumulator.update, batch)), seconds(products)) for batch in pool * 10]
    update, product = (statistics.median(each) for each in zip(*pairs))
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"\n  update {update:.3f} s, its products {product:.3f} s, median ratio {ratio:.2f}")


def bench_subspace_error() -> None:
    n_units, n_samples = 2000, 4000
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(n_units, n_units, generator=generator)).Q
    for exponent in (0.5, 1.0, 2.0):
        scale = torch.arange(1.0, n_units + 1) ** (-exponent / 2)
        data = (torch.randn(n_samples, n_units, generator=generator) * scale) @ axes.mT
        accumulator = LowRankAccumulator(rank=RANK)
        for batch in data.split(BATCH):
            accumulator.update(batch)
        matrix = np.cov(data.double().numpy().T)
        values, vectors = np.linalg.eigh(matrix)
        found = accumulator.estimate()
        errors = []
        for columns in (found.covariance.factors.double().numpy(), vectors[:, -RANK:]):
            q, _ = np.linalg.qr(columns)
            errors.append(np.linalg.norm(matrix - q @ (q.T @ matrix)))
        eigenvalues = found.covariance.factors.double().square().sum(0).numpy() / values[: -RANK - 1 : -1]
        print(
            f"\n  {n_units} units, exponent {exponent}: error {errors[0] / errors[1]:.4f} × the exact one, eigenvalues "
            f"{eigenvalues.min():.3f}–{eigenvalues.max():.3f} of the exact ones, bound {found.error_bound:.3g} "
            f"(best possible {values[-RANK - 1]:.3g})"
        )
