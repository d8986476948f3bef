"""What `neurovar robustness` does: networks and images to a result, its tables, figures and files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from rich.table import Table

from neurovar import covariance, plotting
from neurovar import networks as by_name
from neurovar import robustness as evaluation
from neurovar.cli._presenting import progress, with_interval, write_dataset
from neurovar.cli.commands import _images as pictures
from neurovar.cli.commands import _tables as tables
from neurovar.cli.commands._console import console, printable, say
from neurovar.cli.commands.layers import open_network
from neurovar.networks import MODIFICATIONS, Control, Modification, NoisyNetwork, Origin, modification
from neurovar.plotting import plain_figure
from neurovar.robustness import Attack

Norm = Literal["linf", "l2"]
Networks = dict[str, list[NoisyNetwork]]
N_IMAGES, N_QUICK = 200, 40
QUICK: dict[str, Any] = {"n_draws": (1, 5), "n_steps": (10, 20), "apgd_steps": 10, "n_restarts": 1, "n_queries": 100}
NONE = "none"
MEASURE = "expected"
SOURCE, CONTROL = "NAME=WHAT[,EPSILON,NORM]", "NAME=KIND[:OF]"
EFFORTS = ("n_draws", "n_steps", "n_queries")


@dataclass(frozen=True, eq=False)
class Found:
    """All that there is to show."""

    result: xr.Dataset
    report: xr.Dataset
    accuracy: xr.Dataset
    """Of every condition."""
    worst: xr.Dataset
    """Of clean images, modifications, and the worst case over attacks at each ε asked for."""
    differences: xr.Dataset
    """Of the same from no noise."""


def networks(
    model: str,
    noises: Sequence[str],
    sources: Sequence[str],
    controls: Sequence[str],
    weights: Sequence[str],
    input_: str | None,
) -> tuple[Networks, tuple[int, ...]]:
    """The network of each training seed without noise and with each noise, and the shape of one input."""
    files = _weights(weights)
    given = files.pop("", [])
    first, shape = open_network(model, input_, weights=given[0] if given else None)
    models = [first, *(by_name.load(model, weights=path) for path in given[1:])]
    own = {name: [by_name.load(model, weights=path) for path in paths] for name, paths in files.items()}
    everything: dict[str, Mapping[str, covariance.Covariance]] = {NONE: {}, **_noises(noises)}
    everything |= {name: {} for name in own if name not in everything}
    origins = {name: _origin(text) for name, text in (_split(text, "--source", SOURCE) for text in sources)}
    kinds = {name: _control(text) for name, text in (_split(text, "--control", CONTROL) for text in controls)}
    _check_names("--source", origins, [name for name, noise in everything.items() if noise])
    _check_names("--control", kinds, [name for name in everything if name != NONE])
    images = torch.full((1, *shape), 0.5)
    return {
        name: [
            NoisyNetwork(network, noise, images=images, origin=origins.get(name), control=kinds.get(name))
            for network in own.get(name, models)
        ]
        for name, noise in everything.items()
    }, shape


def _origin(text: str) -> Origin:
    """pgd,0.1,linf is an attack; anything without commas is not."""
    of, *size = text.split(",")
    if not size:
        return Origin("given", of=of)
    try:
        epsilon, norm = size
        return Origin("attacked", of=of, epsilon=float(epsilon), norm=norm)
    except ValueError as error:
        raise ValueError(f"expected --source {SOURCE}, got {text!r}") from error


def _control(text: str) -> Control:
    """rotated:pgd is the noise pgd, rotated; it has its trace, which is checked."""
    kind, _, of = text.partition(":")
    return Control(kind, of=of, matched_by="trace")


def _check_names(option: str, given: Mapping[str, object], known: Sequence[str]) -> None:
    unknown = ", ".join(name for name in given if name not in known)
    if unknown:
        raise ValueError(f"expected the {option} of one of {', '.join(known) or '(none given)'}, got {unknown}")


def _weights(texts: Sequence[str]) -> dict[str, list[Path]]:
    """{name: a file for each training seed}; "" for the networks that have none of their own."""
    found: dict[str, list[Path]] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        found.setdefault(name if equals else "", []).append(Path(path if equals else text))
    return found


def _noises(texts: Sequence[str]) -> dict[str, dict[str, covariance.Covariance]]:
    """{name: {layer: covariance}}; a name given twice has noise at two layers."""
    found: dict[str, dict[str, covariance.Covariance]] = {}
    for text in texts:
        name, place = _split(text, "--noise", "NAME=LAYER:FILE")
        layer, colon, path = place.partition(":")
        if not (colon and layer and path):
            raise ValueError(f"expected --noise NAME=LAYER:FILE, got {text!r}")
        if name == NONE or layer in found.get(name, {}):
            why = "stands for no noise" if name == NONE else f"has noise at {layer} already"
            raise ValueError(f"expected another name for --noise {text!r}: {name!r} {why}")
        found.setdefault(name, {})[layer] = covariance.load(path)
    return found


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise ValueError(f"expected {option} {form}, got {text!r}")
    return name, value


def independent_networks(model: str, weights: Sequence[Path], shape: tuple[int, ...]) -> dict[str, list[NoisyNetwork]]:
    """Networks trained apart, for transfer attacks."""
    images = torch.full((1, *shape), 0.5)
    loaded = [NoisyNetwork(by_name.load(model, weights=path), images=images) for path in weights]
    return {"independent": loaded} if loaded else {}


def stimuli(what: str, shape: tuple[int, ...], n: int) -> xr.Dataset:
    """The first n images, as the network takes them, with their labels."""
    if n < 1:
        raise ValueError(f"expected at least 1 image, got --n-images {n}")
    data = pictures.open_labelled(what).isel(stimulus=slice(n))
    return xr.Dataset({"images": pictures.as_input(data["images"], shape), "labels": data["labels"]})


def modifications(texts: Sequence[str]) -> list[Modification]:
    """Every modification at every strength; those that do not exist are refused before the long work."""
    found = []
    for text in texts:
        name, strengths = _split(text, "--modification", "NAME=STRENGTH,…")
        if name not in MODIFICATIONS:
            raise ValueError(f"expected a modification among {', '.join(MODIFICATIONS)}, got {name!r}")
        try:
            values = [float(value) for value in strengths.split(",")]
        except ValueError as error:
            raise ValueError(f"expected --modification NAME=STRENGTH,…, got {text!r}") from error
        found += [modification(name, int(value) if value.is_integer() else value) for value in values]
    return found


def attacks(epsilons: Sequence[float], norm: str, *, quick: bool) -> list[Attack]:
    """The honest checklist, or a quick look that cannot pass for it."""
    for known in get_args(Norm):
        if norm == known:
            return evaluation.checklist(epsilons, norm=known, **QUICK if quick else {})
    raise ValueError(f"expected --norm linf or l2, got {norm!r}")


def run(
    tested: Networks,
    data: xr.Dataset,
    *,
    modifications: Sequence[Modification],
    attacks: Sequence[Attack],
    others: Mapping[str, Sequence[NoisyNetwork]],
    seeds: Sequence[int],
    quick: bool,
    jobs: int,
) -> xr.Dataset:
    """What `evaluate` finds, with a bar that tells how long it will still take."""
    if not seeds:
        raise ValueError("expected at least 1 noise seed, got --seeds 0")
    if jobs < 1:
        raise ValueError(f"expected at least 1 worker process, got --jobs {jobs}")
    n_cells = sum(map(len, tested.values())) * len(seeds) * (1 + len(modifications) + len(attacks))
    with progress(console(), remaining=True) as shown:
        bar = shown.add_task("Noise × seed × condition", total=n_cells)
        return evaluation.evaluate(
            tested,
            data["images"],
            data["labels"],
            seeds=seeds,
            conditions=[*modifications, *attacks],
            others=others,
            draws=(1, 10) if quick else (1, 10, 100),
            n_jobs=jobs,
            advance=lambda n: shown.advance(bar, n),
        )


def summed_up(result: xr.Dataset, epsilons: Sequence[float]) -> Found:
    """Checked and summarised."""
    report = evaluation.honesty(result)
    result = result.assign_attrs(verdict=report.attrs["verdict"])
    worst = evaluation.worst_case(result).drop_vars("n_attacks")
    worst = worst.isel(condition=np.isin(worst["strength"].values, epsilons))
    together = xr.concat([result.isel(condition=result["kind"].values != "attack")[list(worst)], worst], "condition")
    together = together.assign_attrs(result.attrs)
    return Found(
        result,
        report,
        evaluation.summarise(result),
        evaluation.summarise(together),
        evaluation.differences(together, baseline=NONE),
    )


def show(found: Found) -> None:
    """Print the tables, what was wrong, and the verdict."""
    out = console()
    out.print(_table(found.worst, "accuracy", "accuracy"))
    if found.worst.sizes["noise"] > 1:
        others = found.differences.isel(noise=found.differences["noise"].values != NONE)
        out.print(_table(others, "difference", "minus no noise"))
    say(f"Mean accuracy of single draws; […]: {found.worst.attrs['interval']}")
    out.print(_measures(found.worst))
    attacked = found.accuracy.isel(condition=found.accuracy["kind"].values == "attack")
    out.print(_table(attacked, "accuracy", "accuracy under each attack"))
    out.print(_checks(found.report))
    for warning in found.result.attrs["warnings"]:
        say(f"Warning: {warning}")
    say(f"Verdict: {found.report.attrs['verdict']}")


def _table(summary: xr.Dataset, variable: str, title: str) -> Table:
    """A row a condition, a column a noise."""
    rows = tables.new_table(title, *(printable(noise) for noise in summary["noise"].values))
    chosen = summary.sel(measure=MEASURE)
    for number, condition in enumerate(summary["condition"].values):
        cells = chosen.isel(condition=number)
        rows.add_row(printable(condition), *(_cell(cells.isel(noise=i), variable) for i in range(cells.sizes["noise"])))
    return rows


def _measures(worst: xr.Dataset) -> Table:
    """The worst case by how a prediction is made: a row an ε and a measure."""
    rows = tables.new_table("worst case, right in", *(printable(noise) for noise in worst["noise"].values))
    for number in np.flatnonzero(worst["kind"].values == "attack"):
        for measure in worst["measure"].values:
            cells = worst.isel(condition=number).sel(measure=measure)
            label = f"ε={float(cells['strength']):g}, {measure}"
            rows.add_row(label, *(_cell(cells.isel(noise=i), "accuracy") for i in range(cells.sizes["noise"])))
    return rows


def _cell(cell: xr.Dataset, variable: str) -> str:
    value, low, high = (float(cell[name]) for name in (variable, "low", "high"))
    return with_interval(value, low, high) if np.isfinite(value) else "could not be run"


def _checks(report: xr.Dataset) -> Table:
    rows = tables.new_table("check", "result", "figure", "bound", "what was found")
    for number in range(report.sizes["check"]):
        check = report.isel(check=number)
        figures = [plain_figure(float(check[name])) for name in ("figure", "bound")]
        texts = (check["check"].item(), check["status"].item(), *figures, check["message"].item())
        rows.add_row(*map(printable, texts))
    return rows


def save(result: xr.Dataset, output: Path) -> Path:
    """What took long, in a netCDF file of its own, before anything else can fail."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "robustness.nc"
    write_dataset(result, path, packed=("correct", "hits", "survived"))
    return path


def write(found: Found, epsilons: Sequence[float], path: Path) -> Iterator[Path]:
    """The summaries and the checks, as groups of the file that `save` wrote, and the figures beside it."""
    groups = {
        "accuracy": found.accuracy,
        "worst": found.worst,
        "differences": found.differences,
        "checks": found.report,
    }
    for name, summary in groups.items():
        write_dataset(summary, path, group=name)
    yield path
    with plotting.style():
        for name, drawing in figures(found, epsilons):
            drawing.savefig(path.with_name(f"{name}.png"))
            yield path.with_name(f"{name}.png")


def figures(found: Found, epsilons: Sequence[float]) -> Iterator[tuple[str, Figure]]:
    """Each figure with its name."""
    yield "accuracy", _against_strength(found)
    yield "convergence", _convergence(found.accuracy.sel(measure=MEASURE), epsilons)
    yield "noise_by_test", _noise_by_test(found, epsilons)
    report = found.report
    lines = report.sizes["check"] + 4 + len(report.attrs["verdict"]) / plotting.VERDICT_COLUMNS
    drawing, axes = plotting.figure(height=0.165 * lines)
    plotting.plot_honesty(report, axes[0, 0])
    yield "honesty", drawing


def _against_strength(found: Found) -> Figure:
    """The worst case at the ε asked for, PGD up to where accuracy should be 0, and each modification."""
    worst, accuracy = (one.sel(measure=MEASURE) for one in (found.worst, found.accuracy))
    panels = [(worst, "worst case"), (_reaching_zero(accuracy), "pgd")]
    names = dict.fromkeys(worst["modification"].values[worst["kind"].values == "modification"].tolist())
    panels += [(worst, name) for name in names]
    n_rows = -(-len(panels) // 2)
    drawing, axes = plotting.figure(n_rows, 2, width=2 * plotting.COLUMN_WIDTH, height=2.4 * n_rows + 0.4)
    for ax, (summary, condition) in zip(axes.flat, panels):
        plotting.plot_accuracy(summary, ax, condition=condition)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    plotting.legend_below(drawing, ncols=5)
    return drawing


def _reaching_zero(accuracy: xr.Dataset) -> xr.Dataset:
    """Clean images, and PGD with the same effort at every ε."""
    pgd = (accuracy["modification"].values == "pgd") & (accuracy["gradient"].values == "averaged")
    steps = accuracy["n_steps"].values
    return accuracy.isel(condition=(accuracy["kind"].values == "clean") | (pgd & (steps == steps[pgd].min())))


def _convergence(accuracy: xr.Dataset, epsilons: Sequence[float]) -> Figure:
    """A row an ε: APGD against draws by its two losses, PGD against steps."""
    drawing, axes = plotting.figure(len(epsilons), 3, width=3 * 2.8, height=2.3 * len(epsilons) + 0.4)
    for row, epsilon in zip(axes, epsilons):
        for ax, loss in zip(row, ("cross_entropy", "dlr")):
            plotting.plot_convergence(accuracy, ax, against="n_draws", condition="apgd", strength=epsilon, loss=loss)
        plotting.plot_convergence(accuracy, row[2], against="n_steps", condition="pgd", strength=epsilon)
    plotting.legend_below(drawing, ncols=5)
    return drawing


def _noise_by_test(found: Found, epsilons: Sequence[float]) -> Figure:
    """Clean images and modifications, then the attacks at each ε, each with the most effort."""
    worst, accuracy = (one.sel(measure=MEASURE) for one in (found.worst, found.accuracy))
    panels = [worst.isel(condition=worst["kind"].values != "attack")]
    panels += [_hardest(accuracy, epsilon) for epsilon in epsilons]
    height = len(panels) * (0.22 * worst.sizes["noise"] + 1.2)
    drawing, axes = plotting.figure(len(panels), 1, width=2 * plotting.COLUMN_WIDTH, height=height)
    for ax, summary in zip(axes.flat, panels):
        plotting.plot_noise_by_test(summary, ax)
    return drawing


def _hardest(accuracy: xr.Dataset, epsilon: float) -> xr.Dataset:
    """Of each attack at this ε the one with the most draws, steps or queries, by whatever gradient it follows."""
    chosen: dict[tuple[str, ...], int] = {}
    here = np.flatnonzero((accuracy["kind"].values == "attack") & (accuracy["strength"].values == epsilon))
    efforts = np.nan_to_num(np.stack([accuracy[name].values for name in EFFORTS], axis=1))
    for index in sorted(here.tolist(), key=lambda index: tuple(efforts[index])):
        chosen[tuple(str(accuracy[name].values[index]) for name in ("modification", "loss", "gradient"))] = index
    return accuracy.isel(condition=sorted(chosen.values()))
