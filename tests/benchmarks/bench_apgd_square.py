"""APGD and Square beside those of the Adversarial Robustness Toolbox, on one thread.

Wanted: at least 3 × the Toolbox's images per second for either, with the same accuracy within 0.5 %. The small network
is trained on Fashion-MNIST for an epoch; ε is such that some images survive, which both sides attack to the end, or as
published (0.1). Both have as many steps, restarts and queries; the Toolbox's batches are as large as ours. Under dense
noise Square is compared at K = 1, where the Toolbox takes three draws a query and we take two passes under common ones.
Printed, not asserted: `make benchmarks`, on an idle machine. CPU seconds of this process are in brackets.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack
from art.estimators.classification import PyTorchClassifier
from neurovar_datasets import fashion_mnist
from torch import Tensor, nn

from neurovar.covariance import Covariance, Dense
from neurovar.networks import NoisyNetwork, inject, small_network, train
from neurovar.robustness import APGD, Square

N_IMAGES, N_RUNS = int(os.environ.get("BENCH_IMAGES", "256")), int(os.environ.get("BENCH_RUNS", "3"))
N_STEPS, N_RESTARTS, N_QUERIES, N_NOISY = 100, 1, 200, 20


class Whole(nn.Module):
    """A network that the Toolbox does not take apart, so that the hooks of the noise fire."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    data = fashion_mnist.load("train").isel(stimulus=slice(20_000 + N_IMAGES))
    images, labels = torch.tensor(data.images.values.copy()), torch.tensor(data.labels.values.astype(np.int64))
    rng = torch.Generator().manual_seed(0)
    model = train(small_network(rng=0), images[N_IMAGES:], labels[N_IMAGES:], n_epochs=1, generator=rng)
    return model, images[:N_IMAGES], labels[:N_IMAGES]


def dense(n: int = 3136, trace: float = 2 * 3136) -> Covariance:
    factors = torch.randn(n, n, generator=torch.Generator().manual_seed(1))
    return Dense(factors @ factors.T / n).scale_to(trace=trace)


def cases(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[tuple[str, Any, Callable, Callable]]:
    """Name, noises, the Toolbox's attack and ours."""
    toolbox = PyTorchClassifier(
        Whole(model), loss=nn.CrossEntropyLoss(), input_shape=(1, 28, 28), nb_classes=10, clip_values=(0, 1)
    )
    x, y, rng = images.numpy(), labels.numpy(), torch.Generator().manual_seed(0)
    for epsilon in (0.02, 0.1):
        options = {"eps_step": 2 * epsilon, "max_iter": N_STEPS, "nb_random_init": N_RESTARTS, "batch_size": N_IMAGES}
        theirs = AutoProjectedGradientDescent(toolbox, eps=epsilon, verbose=False, **options)
        ours = APGD(epsilon, n_steps=N_STEPS, n_restarts=N_RESTARTS, early_stopping=True)
        yield (
            f"APGD, {N_STEPS} steps × {N_RESTARTS}, ε = {epsilon}",
            {},
            lambda theirs=theirs: torch.tensor(theirs.generate(x, y)),
            lambda ours=ours: ours(NoisyNetwork(model, images=images), images, labels, generator=rng),
        )
    noises = {"layer1": dense()}
    for epsilon, noise, n in ((0.02, {}, N_QUERIES), (0.1, {}, N_QUERIES), (0.1, noises, N_NOISY)):
        squares = SquareAttack(toolbox, eps=epsilon, max_iter=n, batch_size=N_IMAGES, verbose=False)
        ours = Square(epsilon, n_queries=n, n_draws=1, early_stopping=not noise)
        network = NoisyNetwork(model, noise, images=images)
        yield (
            f"Square, {n} queries, ε = {epsilon}{', dense noise' if noise else ''}",
            noise,
            lambda squares=squares: torch.tensor(squares.generate(x.copy(), y)),
            lambda ours=ours, network=network: ours(network, images, labels, generator=rng),
        )


def measured(attack: Callable[[], Tensor], judge: Callable[[Tensor], float]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and accuracy."""
    wall, cpu = time.perf_counter(), time.process_time()
    attacked = attack()
    return time.perf_counter() - wall, time.process_time() - cpu, judge(attacked)


def bench_apgd_square() -> None:
    torch.set_num_threads(1)
    model, images, labels = trained()
    rng = torch.Generator().manual_seed(2)
    print(f"\n{N_IMAGES} images, {N_RUNS} runs, load {os.getloadavg()[0]:.1f}")
    for name, noises, theirs, ours in cases(model, images, labels):

        def accuracy(attacked: Tensor, noises: Any = noises) -> float:
            draws = 20 if noises else 1
            with torch.no_grad(), inject(model, noises, generator=rng, draws=draws):
                right = model(attacked).argmax(1).view(draws, -1) == labels
            return right.double().mean().item()

        runs = []
        for _ in range(N_RUNS):
            with inject(model, noises, generator=rng) if noises else nullcontext():
                made = []
                one = measured(lambda theirs=theirs, made=made: made.append(theirs()) or made[0], lambda attacked: 0.0)
            runs.append(((*one[:2], accuracy(made[0])), measured(ours, accuracy)))
        wall, cpu, right = ([statistics.median(run[side][i] for run in runs) for side in (0, 1)] for i in range(3))
        print(
            f"  {name}: {N_IMAGES / wall[1]:.0f} images/s against {N_IMAGES / wall[0]:.0f}, {wall[0] / wall[1]:.1f} × "
            f"(CPU {cpu[0] / cpu[1]:.1f} ×), accuracy {right[1]:.3f} against {right[0]:.3f}"
        )
