"""Does the structure of PGD-derived noise matter under PGD that knows the noise? After Preble et al. 2026.

The published setting (arXiv:2606.13801): noise at layer1 of the small network on Fashion-MNIST, covariance of its own
PGD responses at ε = 0.1, total variance 2 per unit; `full` covariance against its diagonal, the identity and no noise.
Differences, for an attack that is harder to fool: gradients averaged over 20 draws (theirs: one), 40 steps of ε/4 from
a random start (theirs: 100 steps of 0.1 from the image); the covariance comes from 10,000 images (theirs: 60,000), 40
such steps each.

    python analyses/preble2026_pgd.py --output results [--quick]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import xarray as xr
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from neurovar_datasets import fashion_mnist
from torch import Tensor, nn

from neurovar import estimation, plotting, robustness
from neurovar._provenance import provenance
from neurovar.attacks import pgd
from neurovar.covariance import Covariance
from neurovar.robustness import PGD, Clean, NoisyNetwork
from neurovar.training import halves, retrain, small_network, train
from neurovar.transplant import diagonal, isotropic

LAYER, EPSILON, TRACE_PER_UNIT, N_DRAWS = "layer1", 0.1, 2.0, 20


@dataclass(frozen=True)
class Scale:
    n_train: int
    n_epochs: int
    n_attacked: int
    n_test: int
    n_steps: int
    n_seeds: int


FULL = Scale(60_000, 10, 10_000, 1000, 40, 4)
QUICK = Scale(10_000, 4, 2000, 200, 10, 1)


def compute(*, quick: bool = False, seed: int = 0, n_jobs: int = 2) -> xr.Dataset:
    """Accuracy of each noise on clean and attacked images with intervals, and correctness per seed and stimulus."""
    scale = QUICK if quick else FULL
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(scale.n_seeds)]
    correct = xr.concat(Parallel(n_jobs=n_jobs)(delayed(_one_seed)(scale, s) for s in seeds), dim="seed")
    summary = robustness.summarise(correct, rng=seed).assign(correct=correct.assign_coords(seed=seeds))
    return summary.assign_attrs(scale=str(scale), source="fashion_mnist", **provenance())


def plot(results: xr.Dataset) -> Figure:
    """Clean accuracy and accuracy under PGD, by noise."""
    with plotting.style():
        figure, axes = plotting.figure(1, 2, width=7.0, height=2.2)
        plotting.plot_accuracy_bars(results, axes[0, 0], condition="clean")
        plotting.plot_accuracy_bars(results, axes[0, 1], condition="pgd", strength=EPSILON)
    return figure


def _one_seed(scale: Scale, seed: int) -> xr.DataArray:
    torch.set_num_threads(1)
    data, test = fashion_mnist.load("train").isel(stimulus=slice(scale.n_train)), fashion_mnist.load("test")
    test = test.isel(stimulus=slice(scale.n_test))
    images, labels = torch.tensor(data["images"].values), torch.tensor(data["labels"].values)
    generator = torch.Generator().manual_seed(seed)
    base = train(small_network(rng=seed), images, labels, n_epochs=scale.n_epochs, generator=generator)
    noises = _noises(base, images[: scale.n_attacked], labels[: scale.n_attacked], scale.n_steps, generator)
    conditions = [Clean(), PGD(EPSILON, scale.n_steps, N_DRAWS)]
    rows = []
    for noise in noises.values():
        again = torch.Generator().manual_seed(seed)
        model = retrain(base, images, labels, layer=LAYER, noise=noise, n_epochs=scale.n_epochs, generator=again)
        network = NoisyNetwork(model, {} if noise is None else {LAYER: noise})
        rows.append(robustness.evaluate(network, test["images"], test["labels"], conditions, rng=seed))
    return xr.concat(rows, dim="noise").assign_coords(noise=list(noises))


def _noises(
    base: nn.Sequential, images: Tensor, labels: Tensor, n_steps: int, generator: torch.Generator
) -> dict[str, Covariance | None]:
    """The four noises of the paper, at one trace."""
    settings = {"epsilon": EPSILON, "step": EPSILON / 4, "n_steps": n_steps, "generator": generator}
    attacked = torch.cat([pgd(base, x, y, **settings) for x, y in zip(images.split(250), labels.split(250))])
    front, _ = halves(base, LAYER)
    with torch.no_grad():
        noise = estimation.deviation_covariance(front(images), front(attacked), kind="dense", ridge=1e-4)
    full = noise.scale_to(trace=TRACE_PER_UNIT * noise.n)
    return {"full": full, "diagonal": diagonal(full), "isotropic": isotropic(full), "none": None}


def main(
    output: Annotated[Path, typer.Option(help="Folder for the figure and the results.")],
    quick: Annotated[bool, typer.Option("--quick", help="One seed at small scale, in about a minute.")] = False,
    seed: int = 0,
    jobs: int = 2,
) -> None:
    """Compute, and write preble2026_pgd.nc and preble2026_pgd.png to OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    results = compute(quick=quick, seed=seed, n_jobs=jobs)
    results.to_netcdf(output / "preble2026_pgd.nc", engine="h5netcdf")
    plot(results).savefig(output / "preble2026_pgd.png", dpi=200)
    typer.echo(results[["accuracy", "low", "high"]].to_dataframe().to_string())


if __name__ == "__main__":
    typer.run(main)
