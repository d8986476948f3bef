"""What a gradient over K = 20 draws of the noise costs, beside 20 gradients over one draw.

Wanted: at most 0.8 × 20 single ones, with noise at layer1 of the small network, one thread, the same number of images
at once. The reference runs the whole network for every draw; here the layers before the noise run once. Ratios are of
CPU seconds, medians of runs that alternate. Printed, not asserted: `make benchmarks`, on an idle machine.
"""

import statistics
import time
from collections.abc import Callable

import torch

from neurovar.covariance import Covariance, Dense, Diagonal, LowRankPlusDiagonal
from neurovar.networks import NoisyNetwork, small_network
from neurovar.robustness import Objective

K, BATCH, N_UNITS, RANK, N_RUNS = 20, 64, 3136, 391, 9


def noises(generator: torch.Generator) -> dict[str, Covariance]:
    factors = torch.randn(N_UNITS, RANK, generator=generator) / RANK**0.5
    private = torch.rand(N_UNITS, generator=generator)
    return {
        "diagonal": Diagonal(private),
        "rank 391": LowRankPlusDiagonal(factors, private),
        "dense": Dense(factors @ factors.mT + torch.diag(private)),
    }


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def bench_draw_gradients() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = small_network(rng=0).eval()
    images, labels = torch.rand(BATCH, 1, 28, 28, generator=generator), torch.arange(BATCH) % 10
    for name, noise in noises(generator).items():
        network = NoisyNetwork(model, {"layer1": noise}, images=images)
        averaged, single = (Objective(network, n_draws=k, generator=generator) for k in (K, 1))

        def one_by_one(objective: Objective = single) -> None:
            for _ in range(K):
                objective.value_and_gradient(images, labels)

        def at_once(objective: Objective = averaged) -> None:
            objective.value_and_gradient(images, labels)

        at_once()
        one_by_one()
        runs = [(cpu_seconds(at_once), cpu_seconds(one_by_one)) for _ in range(N_RUNS)]
        whole, parts = (statistics.median(run[i] for run in runs) for i in (0, 1))
        print(f"{name:9s} {1000 * whole:6.1f} ms at once, {1000 * parts:6.1f} ms one by one: {whole / parts:.2f}")
