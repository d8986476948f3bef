"""What the quickstart measures: cortex beside network, then the small network under each noise."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
import xarray as xr
from rich.progress import Progress
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

import neurovar
from neurovar import networks, robustness, statistics
from neurovar.cli.quickstart.inputs import N_UNITS, Inputs
from neurovar.covariance import Covariance
from neurovar.networks import Control, NoisyNetwork, halves, modification, retrain, small_network, train
from neurovar.responses import align, center_repeats, drop_constant
from neurovar.robustness import PGD

LAYERS = tuple(f"network._blocks.{i}" for i in (0, 2, 4, 8, 15))
MEASURED = (
    "noise_correlation",
    "signal_correlation",
    "effective_dimensionality",
    "exponent",
    "fano_factor",
    "reliability",
)
RANKS = (2, 20)
TRACE_PER_UNIT = 2.0
EPSILON = 0.1
CONTROLS = ("diagonal", "isotropic", "rotated")
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


FULL = Scale(640, 40, 10_000, 5, 3, 2000, 160, 10, (1, 3, 5))
QUICK = Scale(160, 10, 4000, 2, 2, 400, 60, 5, (3,))


@dataclass(frozen=True, eq=False)
class Results:
    """All that the page shows."""

    comparison: xr.Dataset
    noise_correlation: xr.DataArray
    rule: neurovar.noise.SignalRule
    correct: xr.DataArray
    accuracy: xr.Dataset
    differences: xr.Dataset


def run(inputs: Inputs, *, scale: Scale, seed: int, n_jobs: int, progress: Progress) -> Results:
    """Everything, in order. The same seed gives the same numbers, whatever `n_jobs`."""
    systems = record_systems(inputs, scale=scale, seed=seed, progress=progress)
    with _bar(progress, "Statistics, with bootstrap intervals", len(systems)) as advance, _one_thread():
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
        rule = neurovar.noise.SignalRule.fit(inputs.cortex)
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
    modified = [modification(name, strength) for name in MODIFICATIONS for strength in (1, 2)]
    shown = {"clean": _unmodified} | {value.label: value for value in modified}
    with _bar(progress, "EfficientNet-Lite0 on the same images", len(images) * len(shown)) as advance:
        recorded = networks.record(
            networks.efficientnet_lite0(),
            images,
            layers=[networks.Layer(name, max_units=4 * N_UNITS) for name in LAYERS],
            modifications=shown,
            rng=seed,
            advance=advance,
        )
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


def _unmodified(images: Tensor, generator: torch.Generator) -> Tensor:
    return images


def transplant_and_test(
    inputs: Inputs, rule: neurovar.noise.SignalRule, *, scale: Scale, seed: int, n_jobs: int, progress: Progress
) -> xr.Dataset:
    """What the small network, retrained under each noise, gets right: see `robustness.evaluate`."""
    training = inputs.train.isel(stimulus=slice(scale.n_train))
    test = inputs.test.isel(stimulus=slice(scale.n_test))
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(scale.n_seeds)]
    with _bar(progress, "Small network: training, and the noise to give it", len(seeds)) as advance:
        prepared = []
        for each in _parallel(_prepare, [(training, inputs.cortex_name, rule, scale, s) for s in seeds], n_jobs):
            prepared.append(each)
            advance(1)
    cells = [
        (base, name, noise, control, training, test, scale, s)
        for s, (base, noises) in zip(seeds, prepared)
        for name, (noise, control) in noises.items()
    ]
    with _bar(progress, "Retraining under noise, modifications, attacks", len(cells)) as advance:
        tested = []
        for cell in _parallel(_test, cells, n_jobs):
            tested.append(cell)
            advance(1)
    n_kinds = len(prepared[0][1])
    rows = [xr.concat(tested[i : i + n_kinds], dim="noise") for i in range(0, len(tested), n_kinds)]
    return xr.concat(rows, dim="seed", coords="minimal", compat="override").assign_coords(seed=seeds)


def _prepare(
    training: xr.Dataset, cortex: str, rule: neurovar.noise.SignalRule, scale: Scale, seed: int
) -> tuple[nn.Sequential, dict[str, tuple[Covariance | None, Control | None]]]:
    """A trained network, and the noises for it: none, isotropic, and each source with its controls, at one trace."""
    images, labels = _tensors(training)
    generator = torch.Generator().manual_seed(seed)
    with _one_thread():
        network = train(
            small_network(rng=seed), images, labels, n_epochs=scale.n_epochs, generator=generator
        ).requires_grad_(False)
        sources = {
            "pgd": _pgd_noise(network, images[: scale.n_attacked], labels[: scale.n_attacked], scale, generator),
            cortex.lower(): _cortical_noise(network, training["images"][: scale.n_attacked], rule, scale, seed),
        }
        noises: dict[str, tuple[Covariance | None, Control | None]] = {"none": (None, None)}
        for name, source in sources.items():
            scaled = source.scale_to(trace=TRACE_PER_UNIT * source.n)
            for kind, noise in neurovar.noise.with_controls(scaled, rng=seed, only=CONTROLS).items():
                label = {"transplanted": name, "isotropic": "isotropic"}.get(kind, f"{name}_{kind}")
                of = "" if kind == "isotropic" else name  # that of both sources, which have one trace
                control = None if kind == "transplanted" else Control(kind, of=of, matched_by="trace")
                noises[label] = (noise, control)
    return network, noises


def _pgd_noise(
    network: nn.Sequential, images: Tensor, labels: Tensor, scale: Scale, generator: torch.Generator
) -> Covariance:
    """Covariance of the layer's response to PGD images about its response to the clean ones."""
    attack, attacked_network = PGD(EPSILON, n_steps=scale.n_steps, n_restarts=1), NoisyNetwork(network, images=images)
    batches = zip(images.split(100), labels.split(100))
    attacked = torch.cat([attack(attacked_network, *batch, generator=generator) for batch in batches])
    front, _ = halves(network, scale.noisy_layer)
    return statistics.deviation_covariance(front(images), front(attacked), statistics.LowRank(scale.rank), ridge=1e-4)


def _cortical_noise(
    network: nn.Sequential, images: xr.DataArray, rule: neurovar.noise.SignalRule, scale: Scale, seed: int
) -> Covariance:
    """The noise that the layer would have if it followed from tuning as in cortex."""
    tuning = networks.record(network, images, layers=[scale.noisy_layer], rng=seed)
    return neurovar.noise.low_rank(rule.onto(tuning), rank=scale.rank)


def _test(
    base: nn.Sequential,
    name: str,
    noise: Covariance | None,
    control: Control | None,
    training: xr.Dataset,
    test: xr.Dataset,
    scale: Scale,
    seed: int,
) -> xr.Dataset:
    """Retrain the base network under this noise and see what it gets right."""
    images, labels = _tensors(training)
    with _one_thread():
        model = retrain(
            base,
            images,
            labels,
            layer=scale.noisy_layer,
            noise=noise,
            n_epochs=scale.n_epochs,
            generator=torch.Generator().manual_seed(seed),
        )
        noises = {} if noise is None else {scale.noisy_layer: noise}
        network = NoisyNetwork(model, noises, images=images, control=control)
        tested = robustness.evaluate(
            {name: network},
            test["images"],
            test["labels"],
            seeds=[seed],
            conditions=[
                *(modification(kind, strength) for kind in MODIFICATIONS for strength in scale.strengths),
                *(_attack(epsilon, scale) for epsilon in (EPSILON / 2, EPSILON)),
            ],
            draws=(1, N_PREDICTIONS),
        )
    return tested.assign_coords(draw_seed=[0])  # one for each training seed: they count as one another's


def _attack(epsilon: float, scale: Scale) -> PGD:
    return PGD(epsilon, step=epsilon / 4, n_draws=scale.n_draws, n_steps=scale.n_steps, n_restarts=1)


def _tensors(data: xr.Dataset) -> tuple[Tensor, Tensor]:
    return torch.tensor(data["images"].values), torch.tensor(data["labels"].values)


def _parallel(function: Callable, calls: Sequence[tuple], n_jobs: int) -> Iterator:
    """The results in order; worker processes are new ones and end with the last call, which frees their memory."""
    if n_jobs == 1:
        yield from (function(*call) for call in calls)
        return
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, *zip(*calls))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread a process: sums then do not depend on the number of workers, and workers do not compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _bar(progress: Progress, description: str, total: int) -> Iterator:
    task = progress.add_task(description, total=total)
    yield lambda n: progress.advance(task, n)
