"""What noise at one layer costs in a forward pass of a ResNet-50, beside the clean pass.

Wanted: at most 10 % of the clean pass on two CPU threads in float32, at most 5 % on a GPU, with noise of rank 64 and a
diagonal, batch 64 of 3×224×224. Every stage's output is tried: the noise costs what its units cost, 803 thousand in
layer1 and 100 thousand in layer4. The clean pass varies more from run to run than the noise takes, so that the ratio
is that of what the noise takes on activations alone (drawing it and adding it, through the same hooks), by the clean
pass; the ratio of whole passes stands beside it. Printed, not asserted: `make benchmarks`, on an idle machine.
On a GPU the times are those of device events, and the random numbers are drawn there.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
from injecting import resnet50
from torch import Tensor, nn

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.networks import inject

BATCH, RANK, N_RUNS = int(os.environ.get("BENCH_BATCH", "64")), 64, 3
STAGES = {"layer1": (256, 56, 56), "layer2": (512, 28, 28), "layer3": (1024, 14, 14), "layer4": (2048, 7, 7)}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(work: Callable[[], object]) -> float:
    if DEVICE.type == "cpu":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def noise_over(shape: tuple[int, ...], generator: torch.Generator) -> LowRankPlusDiagonal:
    n = torch.Size(shape).numel()
    factors = torch.randn(n, RANK, generator=generator, device=DEVICE)
    return LowRankPlusDiagonal(factors, torch.rand(n, generator=generator, device=DEVICE))


def passes(model: nn.Module, images: Tensor, memory_format: torch.memory_format) -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    alone = nn.Sequential(nn.Identity())
    clean: list[float] = []
    results: dict[str, tuple[float, float]] = {}
    for name, shape in STAGES.items():
        noise = noise_over(shape, generator)
        activations = torch.rand(BATCH, *shape, device=DEVICE).contiguous(memory_format=memory_format)
        noisy, added = [], []
        clean.append(seconds(lambda: model(images)))
        for _ in range(N_RUNS):
            with inject(model, {name: noise}, generator=generator):
                noisy.append(seconds(lambda: model(images)))
            with inject(alone, {"0": noise}, generator=generator):
                added.append(seconds(lambda given=activations: alone(given)))
        results[f"{name}, {noise.n} units"] = (statistics.median(added), statistics.median(noisy))
    clean_pass = statistics.median(clean)
    for name, (one, whole) in results.items():
        print(
            f"  {name}: {one:.4f} s, {one / clean_pass:.1%} of {clean_pass:.3f} s; pass {whole / clean_pass - 1:+.1%}"
        )


def bench_injection() -> None:
    torch.set_num_threads(2)
    print(f"\nResNet-50, batch {BATCH}, rank {RANK}, {N_RUNS} runs on {DEVICE}, load {os.getloadavg()[0]:.1f}")
    with torch.no_grad():
        for memory_format in (torch.contiguous_format, torch.channels_last):
            model = resnet50().to(DEVICE, memory_format=memory_format)
            images = torch.rand(BATCH, 3, 224, 224, device=DEVICE).contiguous(memory_format=memory_format)
            model(images)
            print(f" {memory_format}")
            passes(model, images, memory_format)
