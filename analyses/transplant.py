"""Cortical noise in networks, by every method and with every control: is it like its source, and does it help?

Sources: macaque V4 (Cowley et al. 2023, session 210325) and V1 (Gokcen et al. 2023: one stimulus, so that what needs
tuning is not available). Targets: layers of the small network of Preble et al. 2026 on Fashion-MNIST, whose later
layers are retrained under the noise; and one convolutional layer of EfficientNet-Lite0 on V4's own images, not
retrained, where accuracy is agreement with the prediction without noise. Each noise is compared with its source as two
recordings are (matched units), and tested at several traces: at equal trace, and at equal clean accuracy, between
traces. PGD averages its gradients over draws; this is one attack, and no proof of robustness.

    python analyses/transplant.py --output results [--quick]
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import xarray as xr
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from neurovar_datasets import cowley2023_v4, fashion_mnist, gokcen2023_v1v2
from torch import Tensor, nn
from torch.nn import functional as F

import neurovar
from neurovar import networks, plotting, robustness
from neurovar._provenance import provenance
from neurovar.covariance import Covariance, Dense, Diagonal, MeanShift
from neurovar.networks import Brightness, MotionBlur, NoisyNetwork, retrain, small_network, train
from neurovar.noise import Assignment, GainLaw, Readout, Ridge, SignalRule, Spectrum
from neurovar.responses import drop_constant
from neurovar.robustness import PGD

METHODS: dict[str, Callable[[xr.DataArray, "Target", int], Covariance]] = {
    "signal_rule": lambda source, target, seed: SignalRule.fit(source).onto(target.task),
    "spectrum": lambda source, target, seed: Spectrum.fit(source).onto(target.task, axes="signal"),
    "readout": lambda source, target, seed: Readout.fit(
        source, target.v4, regression=Ridge(), least_goodness=0.01, rng=seed
    ).onto(target.task),
    "assignment": lambda source, target, seed: Assignment.fit(source, target.v4, n_factors=3, rng=seed).onto(
        target.task
    ),
    "gain": lambda source, target, seed: GainLaw.fit(source).onto(target.task),
}
"""Fitted to V4's images where stimuli must be shared, and put onto the layer's responses to its own task."""
RANK, N_DIMS, MOST_DENSE, N_TASK, LEAST_UNITS = 128, 5, 1000, 640, 4
SAME, ANY = ("isotropic", "mean_shift"), "any"
EFFICIENTNET_LAYER, EFFICIENTNET_TRACE, EFFICIENTNET_EPSILON = "network._blocks.14", 0.1, 0.5 / 255
N_DRAWS, N_PREDICTIONS, CLEAN_LOSS = 20, 10, 0.05
RESULTS = ["correct", "hits", "survived", "ran"]
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7")


@dataclass(frozen=True)
class Scale:
    """How much of everything; traces are per unit, for EfficientNet in tenths of the layer's mean signal variance."""

    layers: tuple[str, ...]
    n_train: int
    n_epochs: int
    n_test: int
    n_steps: int
    n_seeds: int
    traces: tuple[float, ...]
    n_images: int
    controls: tuple[str, ...] | None = None  # all


FULL = Scale(("layer0", "layer1", "layer2", "layer3", "layer4"), 10_000, 2, 200, 10, 3, (0.5, 1.0, 2.0), 100)
QUICK = Scale(("layer2",), 1000, 1, 24, 3, 1, (0.5, 2.0), 4, ("diagonal",))


@dataclass(frozen=True, eq=False)
class Target:
    """A layer that gets noise: its responses to the task's images and to V4's, and how a noise is tested there."""

    network: str
    layer: str
    task: xr.DataArray
    v4: xr.DataArray
    shift: Tensor
    unit_trace: float
    test: Callable[[Covariance | None], xr.Dataset]


def recordings() -> dict[str, xr.DataArray]:
    """V4 and V1, without units that never vary."""
    v1v2 = gokcen2023_v1v2.load()
    v1 = v1v2.isel(unit=v1v2["area"].values == "V1")
    return {"V4": drop_constant(cowley2023_v4.load(session="210325")), "V1": drop_constant(v1)}


def compute(*, quick: bool = False, seed: int = 0, n_jobs: int = 2, layers: Sequence[str] | None = None) -> xr.Dataset:
    """Accuracy (noise, trace, condition) with intervals, what each noise is like beside its source, and accuracy at
    equal clean accuracy. A noise is a layer, a source, a method and a control; attrs["not_available"] says which are
    not, and why. Statistics are those of the first training seed; EfficientNet is not trained."""
    scale, sources = QUICK if quick else FULL, recordings()
    scale = replace(scale, layers=tuple(layers)) if layers else scale
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(scale.n_seeds)]
    reasons: dict[str, str] = {}
    trained = [_measured(_small(scale, s), sources, scale, s, n_jobs, reasons, like=s == seeds[0]) for s in seeds]
    given = _measured(_efficientnet(scale, seeds[0]), sources, scale, seeds[0], n_jobs, reasons, like=True)
    parts = []
    for tables in (trained, [given]):
        tested = xr.concat([table[RESULTS] for table in tables], dim="seed", join="inner")
        statistics = tables[0].drop_dims(["draw_seed", "condition", "stimulus", "k"]).sel(noise=tested["noise"])
        parts.append(xr.merge([_accuracy(tested), statistics], compat="no_conflicts", combine_attrs="drop"))
    results = xr.concat(parts, dim="noise")
    results = results.merge(_at_equal_clean_accuracy(results))
    not_available = "; ".join(f"{what}: {why}" for what, why in reasons.items())
    return results.assign_attrs(
        scale=str(scale), seed=seed, clean_loss=CLEAN_LOSS, not_available=not_available, **provenance()
    )


def _measured(
    targets: Iterator[Target],
    sources: dict[str, xr.DataArray],
    scale: Scale,
    seed: int,
    n_jobs: int,
    reasons: dict[str, str],
    *,
    like: bool,
) -> xr.Dataset:
    """What each noise gets right at each trace and, if asked for, the statistics of each noise."""
    tables = []
    for target in targets:
        noises = dict(_noises(sources, target, scale, seed, reasons))
        calls = [(target.test, noise, trace * target.unit_trace) for noise in noises.values() for trace in scale.traces]
        tested = Parallel(n_jobs=n_jobs)(delayed(_tested)(*call) for call in calls)
        rows = [xr.concat(tested[i : i + len(scale.traces)], "trace") for i in range(0, len(calls), len(scale.traces))]
        table = xr.concat(rows, dim="noise")
        if like:
            calls = [(sources.get(key[0]), noise, target.task, seed) for key, noise in noises.items()]
            found = Parallel(n_jobs=n_jobs)(delayed(_beside_its_source)(*call) for call in calls)
            table = table.merge(xr.concat(found, dim="noise"))
        labels = {name: [key[i] for key in noises] for i, name in enumerate(("source", "method", "control"))}
        labels |= {"network": [target.network] * len(noises), "layer": [target.layer] * len(noises)}
        coords = {name: ("noise", values) for name, values in labels.items()}
        ids = [f"{target.layer} {' '.join(key)}" for key in noises]
        tables.append(table.assign_coords(noise=ids, trace=list(scale.traces), **coords))
    return xr.concat(tables, dim="noise")


def _small(scale: Scale, seed: int) -> Iterator[Target]:
    """The layers of the small network, trained with this seed."""
    torch.set_num_threads(1)
    data, held_out = fashion_mnist.load("train"), fashion_mnist.load("test").isel(stimulus=slice(scale.n_test))
    data = data.isel(stimulus=slice(scale.n_train))
    images, labels = torch.tensor(data["images"].values), torch.tensor(data["labels"].values)
    generator = torch.Generator().manual_seed(seed)
    base = train(small_network(rng=seed), images, labels, n_epochs=scale.n_epochs, generator=generator)
    base.requires_grad_(False)
    shown = data["images"][:N_TASK]
    pictures = _as_input(cowley2023_v4.images(session="210325"))
    for layer in scale.layers:
        record = partial(networks.record, base, layers=[layer], rng=seed)
        task = record(shown)
        test = partial(_retrained, base, images, labels, held_out, layer, scale, seed)
        yield Target("small", layer, task, record(pictures), _shift(task, record(_brighter(shown))), 1.0, test)


def _efficientnet(scale: Scale, seed: int) -> Iterator[Target]:
    """One layer of EfficientNet-Lite0, on the images that V4 saw."""
    network, pictures = networks.efficientnet_lite0(), cowley2023_v4.images(session="210325")
    record = partial(networks.record, network, layers=[EFFICIENTNET_LAYER], rng=seed)
    task = record(pictures)
    shift = _shift(task, record(_brighter(pictures)))
    unit_trace = EFFICIENTNET_TRACE * float(task.values[:, 0].var(axis=0).mean())
    test = partial(_agreement, pictures.isel(stimulus=slice(scale.n_images)), scale, seed)
    yield Target("efficientnet_lite0", EFFICIENTNET_LAYER, task, task, shift, unit_trace, test)


def _brighter(images: xr.DataArray) -> xr.DataArray:
    return images.copy(data=Brightness(3)(torch.tensor(images.values)).numpy())


def _shift(clean: xr.DataArray, modified: xr.DataArray) -> Tensor:
    """The mean response to brighter images less that to the images as they are: (unit,)."""
    return torch.from_numpy((modified.values - clean.values).mean(axis=(0, 1)))


def _as_input(pictures: xr.DataArray) -> xr.DataArray:
    """Grey, 28 × 28."""
    grey = torch.tensor(pictures.values).mean(1, keepdim=True)
    small = F.interpolate(grey, size=(28, 28), mode="bilinear", antialias=True).clamp(0, 1)
    return xr.DataArray(small.numpy(), dims=pictures.dims, coords={"stimulus": pictures["stimulus"].values})


def _noises(
    sources: dict[str, xr.DataArray], target: Target, scale: Scale, seed: int, reasons: dict[str, str]
) -> Iterator[tuple[tuple[str, str, str], Covariance | None]]:
    """Each noise at a trace of 1 a unit, by (source, method, control); the first ones are the same for all methods."""
    yield ("none", "none", "none"), None
    same = neurovar.noise.with_controls(
        Diagonal.isotropic(target.task.sizes["unit"]), rng=seed, mean_shift=target.shift, only=SAME
    )
    yield from (((ANY, ANY, control), same[control]) for control in SAME)
    for name, source in sources.items():
        for method, transplanted in METHODS.items():
            try:
                noise = transplanted(source, target, seed)
            except ValueError as error:
                reasons[f"{name} {method} {target.layer}"] = str(error)
                continue
            if isinstance(noise, Dense) and noise.n > MOST_DENSE:
                noise = neurovar.noise.low_rank(noise, rank=RANK)
            noise = noise.scale_to(trace=noise.n)
            controls = neurovar.noise.with_controls(
                noise, rng=seed, target=target.task, n_dims=N_DIMS, only=scale.controls
            )
            yield from (((name, method, control), one) for control, one in controls.items() if control not in SAME)


def _tested(test: Callable[[Covariance | None], xr.Dataset], noise: Covariance | None, trace: float) -> xr.Dataset:
    torch.set_num_threads(1)
    return test(None if noise is None else noise.scale_to(trace=trace * noise.n))


def _retrained(
    base: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    held_out: xr.Dataset,
    layer: str,
    scale: Scale,
    seed: int,
    noise: Covariance | None,
) -> xr.Dataset:
    """What the small network gets right after retraining with the noise: (condition, stimulus)."""
    generator = torch.Generator().manual_seed(seed)
    model = retrain(base, images, labels, layer=layer, noise=noise, n_epochs=scale.n_epochs, generator=generator)
    network = NoisyNetwork(model, {} if noise is None else {layer: noise}, images=images)
    return _evaluated(network, held_out["images"], held_out["labels"], _pgd(0.1, scale.n_steps, N_DRAWS), seed)


def _agreement(pictures: xr.DataArray, scale: Scale, seed: int, noise: Covariance | None) -> xr.Dataset:
    """For which pictures EfficientNet-Lite0's prediction is the one that it makes without noise."""
    model = networks.efficientnet_lite0()
    with torch.no_grad():
        labels = model(torch.tensor(pictures.values)).argmax(1)
    network = NoisyNetwork(
        model, {} if noise is None else {EFFICIENTNET_LAYER: noise}, images=torch.tensor(pictures.values)
    )
    labelled = xr.DataArray(labels.numpy(), dims="stimulus", coords={"stimulus": pictures["stimulus"].values})
    return _evaluated(network, pictures, labelled, _pgd(EFFICIENTNET_EPSILON, scale.n_steps, 5), seed)


def _pgd(epsilon: float, n_steps: int, n_draws: int) -> PGD:
    return PGD(epsilon, step=epsilon / 4, n_steps=n_steps, n_restarts=1, n_draws=n_draws)


def _evaluated(network: NoisyNetwork, images: xr.DataArray, labels: xr.DataArray, attack: PGD, seed: int) -> xr.Dataset:
    """On clean, blurred and attacked images; stimuli by number."""
    options = {"conditions": [MotionBlur(3), attack], "draws": [1, N_PREDICTIONS]}
    result = robustness.evaluate({"": network}, images, labels, seeds=[seed], **options)
    of_noise = [name for name, coord in result.coords.items() if coord.dims == ("noise",) and name != "noisy"]
    kept = result[RESULTS].isel(noise=0, seed=0).drop_vars([*of_noise, "seed"])
    return kept.assign_coords(draw_seed=[0], stimulus=np.arange(kept.sizes["stimulus"]))


def _beside_its_source(
    source: xr.DataArray | None, noise: Covariance | None, task: xr.DataArray, seed: int
) -> xr.Dataset:
    """Statistics of the layer with its noise, recorded with the source's numbers of stimuli, repeats and units, and
    distances from the source; NaN without noise that varies."""
    names = ("noise_correlation", "correlation_sd", "dimensionality", "signal_slope", "correlation_distance")
    names += ("spectrum_distance", "curve_distance")
    values = dict.fromkeys(names, np.nan)
    if source is not None and noise is not None and not isinstance(noise, MeanShift):
        n_repeats = int(source.notnull().any("unit").sum("repeat").median())
        shown = task.isel(stimulus=slice(source.sizes["stimulus"]))
        options = {"n_repeats": n_repeats, "max_units": source.sizes["unit"], "rng": seed}
        recorded = drop_constant(neurovar.noise.noisy_responses(shown, noise, **options))
        if recorded.sizes["unit"] > LEAST_UNITS:
            values |= _statistics(recorded, source)
    return xr.Dataset({name: ((), values[name]) for name in names})


def _statistics(recorded: xr.DataArray, source: xr.DataArray) -> dict[str, float]:
    matrix = neurovar.statistics.noise_correlation(recorded).values
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    own, other = (
        neurovar.statistics.noise_spectrum(one, method="cvpca", n_splits=3, rng=0) for one in (recorded, source)
    )
    values = {
        "noise_correlation": float(pairs.mean()),
        "correlation_sd": float(pairs.std()),
        "dimensionality": float(neurovar.statistics.effective_dimensionality(recorded)),
        "correlation_distance": neurovar.statistics.noise_correlation_distance(recorded, source),
        "spectrum_distance": neurovar.statistics.spectrum_distance(own, other),
    }
    if source.sizes["stimulus"] > 2:
        curves = [_curve(one) for one in (recorded, source)]
        values |= {
            "signal_slope": curves[0].attrs["slope"],
            "curve_distance": neurovar.statistics.curve_distance(*curves),
        }
    return values


def _curve(responses: xr.DataArray) -> xr.Dataset:
    return neurovar.statistics.binned(
        neurovar.statistics.pairs(responses),
        against="signal_correlation",
        edges=np.linspace(-1, 1, 11).round(1).tolist(),
    )


def _accuracy(tested: xr.Dataset) -> xr.Dataset:
    """With intervals over training seeds and images, at each trace; conditions by name, as strengths differ between
    networks."""
    at_each = [robustness.summarise(tested.sel(trace=trace)) for trace in tested["trace"].values]
    accuracy = xr.concat(at_each, dim="trace").sel(measure=f"ensemble of {N_PREDICTIONS}", drop=True)
    names = accuracy["modification"].values
    of_conditions = [name for name, coord in accuracy.coords.items() if coord.dims == ("condition",)]
    return accuracy.drop_vars([*of_conditions, "noisy"]).assign_coords(condition=names)


def _at_equal_clean_accuracy(results: xr.Dataset) -> xr.Dataset:
    """Accuracy where clean accuracy is `CLEAN_LOSS` below that without noise, between traces; NaN where not reached."""
    accuracy = results["accuracy"].transpose("noise", "trace", "condition")
    clean = accuracy.sel(condition="clean").values
    wanted = np.empty(accuracy.sizes["noise"])
    place = np.char.add(results["network"].values.astype(str), results["layer"].values.astype(str))
    for where in np.unique(place):
        wanted[place == where] = clean[(place == where) & (results["method"].values == "none")].mean() - CLEAN_LOSS
    matched, traces = np.full((len(wanted), accuracy.sizes["condition"]), np.nan), np.full(len(wanted), np.nan)
    for i, level in enumerate(wanted):
        found = _crossing(clean[i], level)
        if found is not None:
            left, part = found
            matched[i] = (1 - part) * accuracy.values[i, left] + part * accuracy.values[i, left + 1]
            traces[i] = (1 - part) * results["trace"].values[left] + part * results["trace"].values[left + 1]
    return xr.Dataset(
        {"matched_accuracy": (("noise", "condition"), matched), "matched_trace": ("noise", traces)},
        coords={"clean_accuracy_wanted": ("noise", wanted)},
    )


def _crossing(clean: np.ndarray, level: float) -> tuple[int, float] | None:
    """Between which traces clean accuracy first falls to `level`, and how far along."""
    for left, (before, after) in enumerate(pairwise(clean)):
        if before >= level >= after and before > after:
            return left, float((before - level) / (before - after))
    return None


def plot(results: xr.Dataset) -> Figure:
    """V4's noise at the first of the small network's layers with all of its controls: accuracy under PGD at the largest
    trace and at equal clean accuracy, and the distance from the source."""
    small = results.isel(noise=results["network"].values == "small")
    here = small["layer"].values == small["layer"].values[0]
    shown = small.isel(noise=here & (small["source"].values != "V1"))
    last, matched = shown.isel(trace=-1).sel(condition="pgd"), shown["matched_accuracy"].sel(condition="pgd")
    trace = f"accuracy under PGD, trace {last['trace'].item():g}\nper unit (95 % intervals)"
    panels = {
        trace: (last["accuracy"], last["low"], last["high"]),
        "accuracy under PGD,\nequal clean accuracy": (matched, matched, matched),
        "distance of r_sc\ndistribution from V4": (shown["correlation_distance"],) * 3,
    }
    with plotting.style():
        figure, axes = plotting.figure(1, 3, width=7.0, height=3.6)
        for ax, (title, values) in zip(axes[0], panels.items()):
            _dots(ax, shown, *(one.values for one in values))
            ax.set_xlabel(title)
        for ax in axes[0, 1:]:
            ax.set_yticklabels([])
        plotting.legend_below(figure, ncols=5)
    return figure


def _dots(ax: Any, shown: xr.Dataset, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """A row a control, a colour a method, with 95 % intervals; vertical lines for what all methods share."""
    method, control = (shown[name].values for name in ("method", "control"))
    rows = [name for name in dict.fromkeys(control.tolist()) if name not in ("none", *SAME)]
    for name, line in {"none": "-", "isotropic": "--", "mean_shift": ":"}.items():
        label = "no noise" if name == "none" else name.replace("_", " ")
        ax.axvline(values[control == name][0], color="0.5", linewidth=0.8, linestyle=line, label=label)
    for i, one in enumerate(METHODS):
        mine = np.flatnonzero(method == one)
        y = np.array([rows.index(name) for name in control[mine]]) + (i - 2) * 0.14
        error = np.abs(np.stack([values - low, high - values])[:, mine])
        look = {"color": COLOURS[i], "fmt": "os^Dv"[i], "markersize": 3, "linewidth": 0.8}
        ax.errorbar(values[mine], y, xerr=error, label=one.replace("_", " "), **look)
    ax.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the figure and the results.")],
    quick: Annotated[bool, typer.Option("--quick", help="One layer, one control, few images: some minutes.")] = False,
    layer: Annotated[list[str] | None, typer.Option(help="Of the small network; repeat it. By default all.")] = None,
    seed: int = 0,
    jobs: int = 2,
) -> None:
    """Compute, and write transplant.nc and transplant.png to OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    results = compute(quick=quick, seed=seed, n_jobs=jobs, layers=layer)
    results.to_netcdf(output / "transplant.nc", engine="h5netcdf")
    plot(results).savefig(output / "transplant.png", dpi=200)
    columns = ["accuracy", "low", "high"]
    typer.echo(results[columns].isel(trace=-1).to_dataframe().to_string())


if __name__ == "__main__":
    typer.run(main)
