"""K = 20 draws as one batched forward pass of a ResNet-50, beside 20 passes.

Wanted: at most 0.6 × the time of the separate passes for noise in the deepest third of the network, since the layers
before the noise run once. Of the 4.1 billion products of a pass 67 % are done by the fourth block of layer3, 82 % by
layer3 and nearly all by layer4, so that with noise for nothing the ratios would be 0.37, 0.22 and 0.06; as many numbers
are drawn either way. Rank 64 and a diagonal, batch 4 of 3×224×224, two threads. Printed, not asserted:
`make benchmarks`, on an idle machine.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
from injecting import resnet50

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.networks import inject

BATCH, DRAWS, RANK, N_RUNS = int(os.environ.get("BENCH_BATCH", "4")), 20, 64, 3
LAYERS = {"layer3.3": 1024 * 14 * 14, "layer3": 1024 * 14 * 14, "layer4": 2048 * 7 * 7}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bench_draws() -> None:
    torch.set_num_threads(2)
    model, images = resnet50(), torch.rand(BATCH, 3, 224, 224)
    generator = torch.Generator().manual_seed(0)
    print(f"\n{DRAWS} draws of a ResNet-50, batch {BATCH}, {N_RUNS} runs, load {os.getloadavg()[0]:.1f}")
    with torch.no_grad():
        model(images)
        for layer, n in LAYERS.items():
            noise = LowRankPlusDiagonal(torch.randn(n, RANK, generator=generator), torch.rand(n, generator=generator))
            together, apart = [], []
            for _ in range(N_RUNS):
                with inject(model, {layer: noise}, generator=generator, draws=DRAWS):
                    together.append(seconds(lambda: model(images)))
                with inject(model, {layer: noise}, generator=generator):
                    apart.append(seconds(lambda: [model(images) for _ in range(DRAWS)]))
            one, many = statistics.median(together), statistics.median(apart)
            print(f"  noise at {layer}: {one:.1f} s at once, {many:.1f} s apart, {one / many:.2f} ×")
