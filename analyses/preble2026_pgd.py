"""Does PGD-derived noise make a network robust, under the attack that said so and under one that knows the noise?

The published setting (Preble et al. 2026, arXiv:2606.13801): noise at layer1 of the small network on Fashion-MNIST,
covariance of its own PGD responses at ε = 0.1 to all training images, total variance 2 per unit; `full` covariance
against its diagonal, the identity and no noise; predictions from 10 passes. The same networks are attacked twice:
by the paper's PGD (`PGD.preble2026`: 100 steps of 0.1, one draw a gradient, no random start), and by attacks
that know the noise (PGD with steps of ε/4 and APGD on both losses, gradients averaged over 20 draws; PGD with the noise
off), of which the worst case for each image counts. The published accuracies stand beside the first.

    python analyses/preble2026_pgd.py --output results [--quick]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

from neurovar import plotting, robustness, statistics
from neurovar._provenance import provenance
from neurovar.covariance import Covariance
from neurovar.networks import Control, NoisyNetwork, halves, retrain, small_network, train
from neurovar.noise import with_controls
from neurovar.robustness import APGD, PGD, worst_case

LAYER, EPSILON, TRACE_PER_UNIT, N_DRAWS, N_PREDICTIONS = "layer1", 0.1, 2.0, 20, 10
PUBLISHED = {"full": 0.56, "diagonal": 0.48, "isotropic": 0.39, "none": 0.04}
"""Accuracy under PGD at ε = 0.1 and trace 2: preble2026_table.csv, from its public code."""


@dataclass(frozen=True)
class Scale:
    """How much of everything; `n_hard` test images for the attacks that know the noise, which take long."""

    n_train: int
    n_epochs: int
    n_test: int
    n_hard: int
    n_steps: int
    n_apgd_steps: int
    n_restarts: int
    n_seeds: int


FULL = Scale(60_000, 10, 1000, 200, 40, 100, 5, 4)
QUICK = Scale(4000, 3, 300, 12, 5, 5, 1, 1)


def compute(*, quick: bool = False, seed: int = 0, n_jobs: int = 2) -> xr.Dataset:
    """Accuracy (noise, condition) of predictions from 10 draws, with intervals, and the published accuracies."""
    scale = QUICK if quick else FULL
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(scale.n_seeds)]
    of_seeds = Parallel(n_jobs=n_jobs)(delayed(networks)(scale, s) for s in seeds)
    by_noise = {name: [of_seed[name] for of_seed in of_seeds] for name in PUBLISHED}
    return tested(by_noise, scale, seed=seed, n_jobs=n_jobs)


def networks(scale: Scale, seed: int) -> dict[str, NoisyNetwork]:
    """The four networks of one training seed, each retrained with its noise."""
    torch.set_num_threads(1)
    data = fashion_mnist.load("train").isel(stimulus=slice(scale.n_train))
    images, labels = torch.tensor(data["images"].values), torch.tensor(data["labels"].values)
    generator = torch.Generator().manual_seed(seed)
    base = train(small_network(rng=seed), images, labels, n_epochs=scale.n_epochs, generator=generator)
    made = {}
    for name, noise in _noises(base, images, labels, generator).items():
        again = torch.Generator().manual_seed(seed)
        model = retrain(base, images, labels, layer=LAYER, noise=noise, n_epochs=scale.n_epochs, generator=again)
        control = None if name in ("full", "none") else Control(name, of="full", matched_by="trace")
        options = {"origin": None if noise is None else PGD.preble2026(EPSILON).origin, "control": control}
        made[name] = NoisyNetwork(model, {} if noise is None else {LAYER: noise}, images=images, **options)
    return made


def _noises(
    base: nn.Sequential, images: Tensor, labels: Tensor, generator: torch.Generator
) -> dict[str, Covariance | None]:
    """The four noises of the paper, at one trace."""
    attack, network = PGD.preble2026(EPSILON), NoisyNetwork(base, images=images)
    batches = zip(images.split(250), labels.split(250))
    attacked = [attack(network, *batch, generator=generator) for batch in batches]
    front, _ = halves(base, LAYER)
    with torch.no_grad():
        clean, shifted = (torch.cat([front(x) for x in part]) for part in (images.split(250), attacked))
    noise = statistics.deviation_covariance(clean, shifted, statistics.Full(), ridge=1e-4)
    full = noise.scale_to(trace=TRACE_PER_UNIT * noise.n)
    controls = with_controls(full, rng=0, only=("diagonal", "isotropic"))  # neither draws anything
    return {"full": full, "diagonal": controls["diagonal"], "isotropic": controls["isotropic"], "none": None}


def tested(made: Mapping[str, Sequence[NoisyNetwork]], scale: Scale, *, seed: int, n_jobs: int) -> xr.Dataset:
    """Accuracy of these networks, a list of training seeds for each noise, under both kinds of attack."""
    published = [PGD.preble2026(EPSILON)]
    pgd = PGD(EPSILON, n_draws=N_DRAWS, n_steps=scale.n_steps, n_restarts=scale.n_restarts)
    apgd = APGD(EPSILON, n_draws=N_DRAWS, n_steps=scale.n_apgd_steps, n_restarts=1)
    knowing = [pgd, replace(pgd, follows="off"), apgd, replace(apgd, loss="dlr")]
    parts = []
    for attacks, n_images in ((published, scale.n_test), (knowing, scale.n_hard)):
        test = fashion_mnist.load("test").isel(stimulus=slice(n_images))
        result = robustness.evaluate(
            made,
            test["images"],
            test["labels"],
            conditions=attacks,
            seeds=[seed],
            draws=[1, N_PREDICTIONS],
            n_jobs=n_jobs,
        )
        shown = (
            [result]
            if attacks is published
            else [result.isel(condition=slice(1, None)), worst_case(result).drop_vars("n_attacks")]
        )
        parts += [_accuracy(part, n_images) for part in shown]
    results = xr.concat(parts, dim="condition")
    published_values = xr.DataArray([PUBLISHED[name] for name in results["noise"].values], dims="noise")
    return results.assign(published=published_values).assign_attrs(
        scale=str(scale), source="fashion_mnist", **provenance()
    )


def _accuracy(result: xr.Dataset, n_images: int) -> xr.Dataset:
    """Of predictions from 10 draws."""
    summary = robustness.summarise(result).sel(measure=f"ensemble of {N_PREDICTIONS}", drop=True)
    return summary.assign_coords(n_images=("condition", [n_images] * summary.sizes["condition"]))


def plot(results: xr.Dataset) -> Figure:
    """Accuracy by noise: clean, under the paper's attack beside what was published, and the worst case."""
    panels = {"clean": "clean images", "preble2026": "PGD of the paper", "worst": "worst of four\nthat know the noise"}
    with plotting.style():
        figure, axes = plotting.figure(1, 3, width=7.0, height=2.2)
        for ax, (which, title) in zip(axes[0], panels.items()):
            shown = results.isel(condition=[_position(results, which)])
            condition, strength = str(shown["modification"].item()), float(shown["strength"].item())
            plotting.plot_accuracy_bars(shown, ax, condition=condition, strength=strength)
            ax.set(xlabel=f"accuracy, {title}", xlim=(0, 1))
        rows = range(results.sizes["noise"])
        axes[0, 1].plot(results["published"].values, rows, "k|", markersize=9, label="published")
        plotting.legend_below(figure)
        for ax in axes[0, 1:]:
            ax.set_yticklabels([])
    return figure


def _position(results: xr.Dataset, which: str) -> int:
    """Of the clean images, the paper's attack, or the worst case."""
    chosen = {
        "clean": results["kind"].values == "clean",
        "preble2026": results["protocol"].values == "preble2026",
        "worst": results["modification"].values == "worst case",
    }
    return int(np.flatnonzero(chosen[which])[0])


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
    columns = ["accuracy", "low", "high", "published"]
    typer.echo(results[columns].reset_coords(drop=True).to_dataframe().to_string())


if __name__ == "__main__":
    typer.run(main)
