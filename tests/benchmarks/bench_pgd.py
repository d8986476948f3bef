"""Images a second of 100 steps of PGD on the small network, beside the Adversarial Robustness Toolbox.

Wanted, on one thread each: at least 4 × the Toolbox without noise; with noise at layer1 (3,136 units), where the
reference is the network wrapped with `randn @ factor` as in the code of Preble et al. 2026, at least 3 × with the exact
dense noise and 6 × with rank 391 plus a diagonal; the same accuracy within 1 %. One draw a step, step 0.1, ε = 0.1, no
random start; the Toolbox at its default batch of 32. Ratios are of CPU seconds, medians of runs that alternate.
Printed, not asserted: `make benchmarks`, on an idle machine.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from neurovar_datasets import fashion_mnist
from torch import Tensor, nn

from neurovar.covariance import Covariance, Dense, LowRankPlusDiagonal
from neurovar.networks import NoisyNetwork, halves, retrain, small_network, train
from neurovar.robustness import PGD
from neurovar.statistics import Full, deviation_covariance

N_IMAGES, RANK, LAYER, EPSILON = 256, 391, "layer1", 0.1
N_STEPS, N_RUNS = int(os.environ.get("BENCH_STEPS", "100")), 3


class Wrapped(nn.Module):
    """The network with the noise of that paper's code."""

    def __init__(self, model: nn.Sequential, noise: Dense) -> None:
        super().__init__()
        self.front, self.tail = halves(model, LAYER)
        self.register_buffer("factor", torch.linalg.cholesky(noise.matrix).mT.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.front(x)
        return self.tail(hidden + (torch.randn(len(x), len(self.factor)) @ self.factor).view_as(hidden))


def networks(images: Tensor, labels: Tensor) -> tuple[nn.Sequential, nn.Sequential, Dense]:
    """A network, the same retrained under noise, and the noise: what PGD does to 2,000 images, at trace 2 a unit."""
    generator = torch.Generator().manual_seed(0)
    base = train(small_network(rng=0), images, labels, n_epochs=2, generator=generator)
    x, y = images[:2000], labels[:2000]
    attack = PGD(EPSILON, step=EPSILON, n_steps=10, n_restarts=1, random_start=False)
    attacked = attack(NoisyNetwork(base, images=x), x, y, generator=generator)
    front, _ = halves(base, LAYER)
    with torch.no_grad():
        noise = deviation_covariance(front(x), front(attacked), Full(), ridge=1e-4)
    full = noise.scale_to(trace=2.0 * noise.n)
    noisy = retrain(base, images, labels, layer=LAYER, noise=full, n_epochs=2, generator=generator)
    return base.requires_grad_(True), noisy.requires_grad_(True), full


def low_rank(noise: Dense) -> LowRankPlusDiagonal:
    values, vectors = torch.linalg.eigh(noise.matrix.double())
    factors = (vectors[:, -RANK:] * values[-RANK:].sqrt()).float()
    return LowRankPlusDiagonal(factors, (noise.diagonal() - factors.square().sum(1)).clamp(min=0))


def toolbox(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], Tensor]:
    classifier = PyTorchClassifier(model.eval(), nn.CrossEntropyLoss(), (1, 28, 28), 10, clip_values=(0, 1))
    options = {"norm": np.inf, "eps": EPSILON, "eps_step": EPSILON, "max_iter": N_STEPS, "verbose": False}
    attack = ProjectedGradientDescent(classifier, **options)
    return lambda: torch.tensor(attack.generate(images.numpy(), labels.numpy()))


def ours(model: nn.Module, images: Tensor, labels: Tensor, noises: Mapping[str, Covariance]) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    attack, network = PGD.preble2026(EPSILON, n_steps=N_STEPS), NoisyNetwork(model, noises, images=images)
    return lambda: attack(network, images, labels, generator=generator)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, noises: dict[str, Covariance]) -> float:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        logits = NoisyNetwork(model, noises, images=images).logits(images, 10, generator=generator).mean(0)
    return (logits.argmax(1) == labels).double().mean().item()


def cpu_and_wall(work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    cpu, wall = time.process_time(), time.perf_counter()
    made = work()
    return time.process_time() - cpu, time.perf_counter() - wall, made


def bench_pgd() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    logging.getLogger("art").setLevel(logging.ERROR)
    data, test = fashion_mnist.load("train"), fashion_mnist.load("test")
    images, labels = (torch.tensor(data[name].values[:20_000]) for name in ("images", "labels"))
    base, noisy, full = networks(images, labels.long())
    x, y = (torch.tensor(test[name].values[:N_IMAGES]) for name in ("images", "labels"))
    y, dense = y.long(), {LAYER: full}
    cases = {
        "Toolbox, no noise": (toolbox(base, x, y), base, {}, ""),
        "neurovar, no noise": (ours(base, x, y, {}), base, {}, "Toolbox, no noise"),
        "Toolbox, dense noise": (toolbox(Wrapped(noisy, full), x, y), noisy, dense, ""),
        "neurovar, dense noise": (ours(noisy, x, y, dense), noisy, dense, "Toolbox, dense noise"),
        "neurovar, rank 391": (ours(noisy, x, y, {LAYER: low_rank(full)}), noisy, dense, "Toolbox, dense noise"),
    }
    found: dict[str, list[tuple[float, float, Tensor]]] = {name: [] for name in cases}
    for _ in range(N_RUNS):
        for name, (work, *_) in cases.items():
            found[name].append(cpu_and_wall(work))
    cpu = {name: statistics.median(run[0] for run in runs) for name, runs in found.items()}
    wall = {name: statistics.median(run[1] for run in runs) for name, runs in found.items()}
    for name, (_, model, noises, reference) in cases.items():
        right = accuracy(model, found[name][-1][2], y, noises)
        ratios = [times[reference] / times[name] for times in (cpu, wall)] if reference else []
        faster = ", {:.1f} × ({:.1f} × by the clock)".format(*ratios) if ratios else ""
        each = 1000 * cpu[name] / N_IMAGES
        print(f"{name:22s} {each:6.1f} ms an image{faster}; accuracy {right:.3f}", flush=True)
