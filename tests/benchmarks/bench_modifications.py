"""How long all modifications of 60,000 images of 28 × 28 take, beside `imagecorruptions` and torchvision an image.

Wanted: at least 15 times as fast over all of them, one thread for both sides. The reference does what Preble et al.
2026 do with each image: pad it with zeros to 32 × 32, `imagecorruptions.corrupt`, crop, grey; for the transformations
a torchvision v2 transform (obstruction, which torchvision has not in this form, is a clone that is filled). It is timed
on N_REFERENCE images and scaled to as many as ours. CPU seconds, the two sides alternating, medians of N_RUNS. Frost,
for which the reference reads its picture anew for every image, has a line of its own: the sum without it.
Printed, not asserted: `make benchmarks`. Settings: BENCH_IMAGES, BENCH_STRENGTH (severity; s is a third of it).
"""

import os
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from imagecorruptions import corrupt
from neurovar_datasets import fashion_mnist
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from neurovar.networks import MODIFICATIONS, PREBLE2026

N_IMAGES, N_REFERENCE, N_RUNS = int(os.environ.get("BENCH_IMAGES", "60000")), 60, 3
SEVERITY = int(os.environ.get("BENCH_STRENGTH", "3"))
SCALE = SEVERITY / 3
WANTED = 15


def obstructed(image: Tensor) -> Tensor:
    side = int(0.40 * SCALE * 28)
    row, column = (int(torch.randint(0, 28 - side + 1, ())) for _ in range(2))
    image = image.clone()
    image[:, row : row + side, column : column + side] = 0
    return image


TRANSFORMATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elastic": v2.ElasticTransform(alpha=35 * SCALE),
    "perspective": v2.RandomPerspective(0.25 * SCALE, p=1.0),
    "rotate": v2.RandomRotation(60 * SCALE, interpolation=InterpolationMode.BILINEAR),
    "obstruction": obstructed,
}


def corrupted(name: str, image: np.ndarray) -> np.ndarray:
    return corrupt(np.pad(image, 2), severity=SEVERITY, corruption_name=name)[2:30, 2:30] @ (0.299, 0.587, 0.114)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def report(name: str, mine: float, theirs: float) -> None:
    print(f"{name:20s} {mine:7.2f} s, reference {theirs:8.1f} s, ratio {theirs / mine:6.1f}", flush=True)


def bench_modifications() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = torch.tensor(fashion_mnist.load("train").images.values[:N_IMAGES])
    few = images[:: len(images) // N_REFERENCE][:N_REFERENCE]
    in_8_bits = (few[:, 0] * 255).round().to(torch.uint8).numpy()
    seconds: dict[str, tuple[float, float]] = {}
    print(f"{len(images)} images; the reference was timed on {len(few)} and scaled")
    for name in MODIFICATIONS:
        transform = TRANSFORMATIONS.get(name)
        strength = SCALE if transform else SEVERITY
        generator = torch.Generator().manual_seed(0)

        def reference(name: str = name, transform: Callable[[Tensor], Tensor] | None = transform) -> None:
            _ = [transform(image) for image in few] if transform else [corrupted(name, image) for image in in_8_bits]

        def ours(name: str = name, strength: float = strength, generator: torch.Generator = generator) -> None:
            MODIFICATIONS[name](strength)(images, generator=generator)

        reference()
        MODIFICATIONS[name](strength)(few, generator=generator)
        times = [(cpu_seconds(ours), cpu_seconds(reference) * len(images) / len(few)) for _ in range(N_RUNS)]
        mine, theirs = (statistics.median(side) for side in zip(*times))
        seconds[name] = (mine, theirs)
        report(name, mine, theirs)
    report(f"all (wanted {WANTED} ×)", *map(sum, zip(*seconds.values())))
    report("ten of the protocol", *map(sum, zip(*(seconds[name] for name in {value.name for value in PREBLE2026}))))
    report("all without frost", *map(sum, zip(*(both for name, both in seconds.items() if name != "frost"))))
