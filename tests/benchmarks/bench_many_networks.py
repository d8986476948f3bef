"""40 noisy retrainings of the small network at once, beside one after another.

Wanted on a GPU: at least 10 × faster by batching parameters. On CPUs worker processes of one thread each stand beside
one after another on all threads. Noise of rank 391 and a diagonal at layer1, batch 64, one epoch of random images.
Printed, not asserted: `make benchmarks`, on an idle machine.
"""

import os
import time
from collections.abc import Callable

import torch

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.networks import retrain, retrain_many, small_network

ON_GPU = torch.cuda.is_available()
N_NETWORKS = int(os.environ.get("BENCH_NETWORKS", "40" if ON_GPU else "4"))
N_IMAGES = int(os.environ.get("BENCH_IMAGES", "6400"))
UNITS, RANK = 3136, 391


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def bench_many_networks() -> None:
    device = torch.device("cuda" if ON_GPU else "cpu")
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(N_IMAGES, 1, 28, 28, generator=generator), torch.arange(N_IMAGES) % 10
    factors = torch.randn(UNITS, RANK, generator=generator) / RANK**0.5
    noise = LowRankPlusDiagonal(factors, torch.full((UNITS,), 0.05)).to(device)
    images, labels, base = images.to(device), labels.to(device), small_network(rng=0).to(device)
    given = {"layer": "layer1", "n_epochs": 1}
    seeds = range(N_NETWORKS)

    def apart() -> None:
        for seed in seeds:
            torch_rng = torch.Generator(device).manual_seed(seed)
            retrain(base, images, labels, noise=noise, generator=torch_rng, **given)

    def together() -> None:
        many = {"noises": [noise] * N_NETWORKS, "seeds": list(seeds), "n_jobs": os.cpu_count() or 1}
        retrain_many([base] * N_NETWORKS, images, labels, **many, **given)

    together()  # starts the workers, or what a GPU does first
    one, many = seconds(apart), seconds(together)
    print(f"\n{N_NETWORKS} networks on {device}, load {os.getloadavg()[0]:.1f}")
    print(f"  one after another {one:.1f} s, at once {many:.1f} s: {one / many:.1f} ×")
