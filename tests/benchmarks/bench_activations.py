"""Streaming a layer to Zarr against a plain loop of forward passes: time, and peak memory beyond the network's own.

The plain loop throws every activation away: what streaming takes longer is hooks, checks, checksums, packing and
writing. Beside it, the memory of a loop that keeps them all. Each in a process of its own, medians of three; printed,
not asserted: `make benchmarks`; takes about four minutes on two cores. NEUROVAR_BENCH_IMAGES=64 makes it smaller.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

N_IMAGES = int(os.environ.get("NEUROVAR_BENCH_IMAGES", "256"))
N_RUNS = 3
CASES = {
    "all 200,704 units": {},
    "pooled to 64 channels": {"pool_space": True},
    "1,000 units": {"max_units": 1000},
}
MEASURE = """
import json, resource, sys, tempfile, time
import torch
from torch import nn
from neurovar.networks import Layer, stream
import dask.array, zarr  # which streaming loads when it needs them

def block():
    return nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True))

torch.manual_seed(0)
stem = nn.Sequential(nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
model = nn.Sequential(stem, *(block() for _ in range(8))).eval()
way, n_images, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])

def loader():
    for start in range(0, n_images, 32):
        yield torch.rand(min(32, n_images - start), 3, 224, 224)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

with torch.no_grad():
    model(next(loader()))
kept, before, start = [], peak(), time.perf_counter()
if way == "stream":
    with tempfile.TemporaryDirectory(dir=sys.argv[4]) as folder:
        stream(model, loader(), f"{folder}/a.zarr", layers=[Layer("4", **options)], rng=0)
        seconds = time.perf_counter() - start
else:
    hook = model[4].register_forward_hook(lambda *args: kept.append(args[2].clone()) if way == "keep" else None)
    with torch.no_grad():
        for batch in loader():
            model(batch)
    seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "memory": peak() - before}))
"""


def measured(folder: Path, way: str, options: dict[str, object]) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, way, str(N_IMAGES), json.dumps(options), str(folder)]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(N_RUNS)]
    return {name: median(run[name] for run in runs) for name in runs[0]}


def bench_stream(tmp_path: Path) -> None:
    plain, kept = (measured(tmp_path, way, {}) for way in ("plain", "keep"))
    print(f"\n{N_IMAGES} images 3×224×224, a layer of 64×56×56 units: {N_IMAGES * 200_704 * 4 / 1e6:.0f} MB")
    print(f"  plain forward loop: {plain['seconds']:.1f} s; more memory: {plain['memory'] / 1e6:.0f} MB")
    print(f"  the same, keeping the layer: {kept['seconds']:.1f} s; more memory: {kept['memory'] / 1e6:.0f} MB")
    for name, options in CASES.items():
        one = measured(tmp_path, "stream", options)
        print(
            f"  stream {name}: {one['seconds']:.1f} s, {one['seconds'] / plain['seconds']:.2f} times the plain loop; "
            f"more memory: {one['memory'] / 1e6:.0f} MB, {one['memory'] / kept['memory']:.2f} times that of keeping it"
        )
