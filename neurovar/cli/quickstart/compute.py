"""What the quickstart measures: cortex beside network, then the small network under each noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from rich.progress import Progress
from torch import nn

from neurovar import networks, robustness, statistics
from neurovar.cli.quickstart.inputs import N_UNITS, Inputs
from neurovar.covariance import Covariance
from neurovar.networks import NoisyNetwork, Origin, modification
from neurovar.noise import SignalRule, attacked, low_rank
from neurovar.responses import align, center_repeats, drop_constant
from neurovar.robustness import PGD, Condition, Selection, Training
from neurovar.statistics import LowRank

# From the first block to the last: early, middle and late vision.
LAYERS = tuple(f"network._blocks.{i}" for i in (0, 2, 4, 8, 15))
MEASURED = (
    "noise_correlation",
    "signal_correlation",
    "effective_dimensionality",
    "exponent",
    "fano_factor",
    "reliability",
)
# The first rank is the mean response, which is no part of a power law; 50 units leave little after rank 20.
RANKS = (2, 20)
# Preble et al. 2026 scale the noise of their small network to this variance.
TRACE_PER_UNIT = 2.0
# The size at which the paper's figures compare noises; 25 of 255 grey levels.
EPSILON = 0.1
CONTROLS = ("diagonal", "rotated")
SHARED = ("none", "isotropic")
"""Networks that are the same whatever the source of the noise: made once, and first in figures."""
# More draws hardly change the ensemble's prediction and cost as many passes.
N_PREDICTIONS = 10
MEASURE = f"ensemble of {N_PREDICTIONS}"
MODIFICATIONS = ("gaussian_noise", "brightness", "motion_blur")


@dataclass(frozen=True)
class Scale:
    """How much of everything a run takes."""

    n_stimuli: int
    n_resamples: int
    n_train: int
    n_epochs: int
    n_seeds: int
    n_attacked: int
    n_test: int
    n_steps: int
    strengths: tuple[int, ...]
    n_draws: int = 20
    noisy_layer: str = "layer1"
    rank: int = 128


# What two cores do in three to four minutes, and in about one.
FULL = Scale(640, 40, 10_000, 5, 3, 2000, 160, 10, (1, 3, 5))
QUICK = Scale(160, 10, 4000, 2, 2, 400, 60, 5, (3,))


@dataclass(frozen=True, eq=False)
class Results:
    """All that the page shows."""

    comparison: xr.Dataset
    noise_correlation: xr.DataArray
    rule: SignalRule
    correct: xr.DataArray
    accuracy: xr.Dataset
    differences: xr.Dataset


def run(inputs: Inputs, *, scale: Scale, seed: int, n_jobs: int, progress: Progress) -> Results:
    """Everything, in order. The same seed gives the same numbers, whatever `n_jobs`."""
    systems = record_systems(inputs, scale=scale, seed=seed, progress=progress)
    with _bar(progress, "Statistics, with intervals", len(systems)) as advance:
        table = statistics.compare(
            systems,
            statistics=MEASURED,
            ranks=RANKS,
            n_resamples=scale.n_resamples,
            n_splits=5,
            rng=seed,
            n_jobs=n_jobs,
            advance=advance,
        )
        rule = SignalRule.fit(inputs.cortex)
    table.attrs["constant_units_dropped"] = ", ".join(
        f"{name}: {len(system.attrs.get('dropped_units', ()))}" for name, system in systems.items()
    )
    tested = transplant_and_test(inputs, rule, scale=scale, seed=seed, n_jobs=n_jobs, progress=progress)
    return Results(
        comparison=table,
        noise_correlation=statistics.noise_correlation(inputs.cortex),
        rule=rule,
        correct=tested["correct"].sel(k=N_PREDICTIONS, drop=True).isel(draw_seed=0, drop=True),
        accuracy=robustness.summarise(tested).sel(measure=MEASURE, drop=True),
        differences=robustness.differences(tested, baseline="isotropic").sel(measure=MEASURE, drop=True),
    )


def record_systems(inputs: Inputs, *, scale: Scale, seed: int, progress: Progress) -> dict[str, xr.DataArray]:
    """The recording, and as many units of each layer of EfficientNet-Lite0, on the same stimuli.

    The network's repeats are the clean image and its modifications, without their mean shifts.
    """
    statistics.noise_correlation(inputs.cortex)  # a recording that will not do is refused before the long work
    cortex = inputs.cortex.isel(stimulus=slice(scale.n_stimuli))
    images = inputs.images.isel(stimulus=slice(scale.n_stimuli))
    conditions: list[Condition] = [
        robustness.Clean(),
        *(modification(name, strength) for name in MODIFICATIONS for strength in (1, 2)),
    ]
    shown = {condition.label: condition for condition in conditions}
    with _bar(progress, "EfficientNet-Lite0 on the same images", len(images) * len(shown)) as advance:
        recorded = networks.record(
            networks.efficientnet_lite0(),
            images,
            layers=[networks.Layer(name, max_units=4 * N_UNITS) for name in LAYERS],
            modifications=shown,
            rng=seed,
            advance=advance,
        )
    # Units are drawn after the alignment of repeats, as only those that vary can be correlated.
    rng = np.random.default_rng(seed)
    layers = {
        name.removeprefix("network._"): _varying_units(recorded.isel(unit=recorded["layer"].values == name), rng)
        for name in LAYERS
    }
    return dict(zip([inputs.cortex_name, *layers], align(cortex, *layers.values())))


def _varying_units(layer: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    """As many units as the recording has, drawn from those that vary between repeats."""
    varying = drop_constant(center_repeats(layer))
    n_units = min(N_UNITS, varying.sizes["unit"])
    return varying.isel(unit=np.sort(rng.choice(varying.sizes["unit"], n_units, replace=False)))


def transplant_and_test(
    inputs: Inputs, rule: SignalRule, *, scale: Scale, seed: int, n_jobs: int, progress: Progress
) -> xr.Dataset:
    """What the small network gets right, retrained under each noise and its controls: see `robustness.evaluate`."""
    training = inputs.train.isel(stimulus=slice(scale.n_train))
    test = inputs.test.isel(stimulus=slice(scale.n_test))
    images, labels = torch.tensor(training["images"].values), torch.tensor(training["labels"].values)
    # Training seeds are spread by SeedSequence: seeds 0 and 1 of the quickstart share no network.
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(scale.n_seeds)]
    tested: dict[str, list[NoisyNetwork]] = {}
    with _bar(progress, "Small network: training, and retraining under noise", 3 * len(seeds)) as advance:
        fresh = [networks.small_network(rng=s) for s in seeds]
        bases = networks.train_many(fresh, images, labels, seeds=seeds, n_epochs=scale.n_epochs, n_jobs=n_jobs)
        advance(len(seeds))
        for base, training_seed in zip(bases, seeds):
            # Attacks need gradients of images only; those of weights would cost as much again.
            base = base.eval().requires_grad_(False)
            shown = training.isel(stimulus=slice(scale.n_attacked))
            sources = {
                "pgd": _pgd_noise(base, shown, scale, training_seed),
                inputs.cortex_name.lower(): _cortical_noise(base, shown, rule, scale, training_seed),
            }
            for source, (noise, origin) in sources.items():
                baselines = robustness.with_baselines(
                    base,
                    images,
                    labels,
                    layer=scale.noisy_layer,
                    noise=noise.scale_to(trace=TRACE_PER_UNIT * noise.n),
                    origin=origin,
                    training=Training(n_epochs=scale.n_epochs, seed=training_seed),
                    selection=Selection(CONTROLS if source != "pgd" else (*SHARED, *CONTROLS)),
                    n_jobs=n_jobs,
                )
                for kind, network in baselines.items():
                    name = {"full": source, **dict(zip(SHARED, SHARED))}.get(kind, f"{source}_{kind}")
                    tested.setdefault(name, []).append(_of(network, "" if kind in SHARED else source))
                advance(1)
    conditions: list[Condition] = [
        *(modification(kind, strength) for kind in MODIFICATIONS for strength in scale.strengths),
        *(_attack(epsilon, scale) for epsilon in (EPSILON / 2, EPSILON)),
    ]
    tested = {name: tested[name] for name in (*SHARED, *(name for name in tested if name not in SHARED))}
    # What evaluate reports: a cell for each network, condition and the clean images.
    n_cells = len(tested) * len(seeds) * (1 + len(conditions))
    with _bar(progress, "Modifications and attacks", n_cells) as advance:
        return robustness.evaluate(
            tested,
            test["images"],
            test["labels"],
            seeds=[seed],
            conditions=conditions,
            draws=(1, N_PREDICTIONS),
            n_jobs=n_jobs,
            advance=advance,
        )


def _attack(epsilon: float, scale: Scale) -> PGD:
    return PGD(epsilon, n_steps=scale.n_steps, n_restarts=1, n_draws=scale.n_draws)


def _pgd_noise(network: nn.Module, shown: xr.Dataset, scale: Scale, seed: int) -> tuple[Covariance, Origin]:
    """Covariance of the layer's response to PGD images about its response to the clean ones."""
    images, labels = torch.tensor(shown["images"].values), torch.tensor(shown["labels"].values)
    source = attacked(
        NoisyNetwork(network, images=images),
        zip(images.split(100), labels.split(100)),
        _attack(EPSILON, scale),
        layers=[scale.noisy_layer],
        structure=LowRank(scale.rank),
        ridge=1e-4,  # as in Preble et al. 2026: no unit is without noise
        rng=seed,
    )[scale.noisy_layer]
    return source.noise, source.origin


def _cortical_noise(
    network: nn.Module, shown: xr.Dataset, rule: SignalRule, scale: Scale, seed: int
) -> tuple[Covariance, Origin]:
    """The noise that the layer would have if it followed from tuning as in cortex."""
    tuning = networks.record(network, shown["images"], layers=[scale.noisy_layer], rng=seed)
    # The rule gives a dense covariance of 3,136 units; its leading components sample ten times faster.
    return low_rank(rule.onto(tuning), rank=scale.rank), Origin("signal_rule", of="recording")


def _of(network: NoisyNetwork, source: str) -> NoisyNetwork:
    """A control of the noise from this source; others as they are."""
    if network.control is None:
        return network
    # with_baselines calls its noise "full"; here each source has a name.
    control = replace(network.control, of=source)
    return network.with_noises(network.noises, origin=network.origin, control=control)


@contextmanager
def _bar(progress: Progress, description: str, total: int) -> Iterator:
    task = progress.add_task(description, total=total)
    yield lambda n: progress.advance(task, n)
