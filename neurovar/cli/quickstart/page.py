"""The quickstart's page, figures and result files, and its summary for the terminal."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from neurovar import plotting
from neurovar._provenance import provenance
from neurovar.cli import report
from neurovar.cli._presenting import require_writable, with_interval, write_dataset
from neurovar.cli.quickstart.compute import EPSILON, RANKS, TRACE_PER_UNIT, Results, Scale
from neurovar.cli.quickstart.inputs import N_UNITS, Inputs
from neurovar.cli.report import Section


def write(output: Path, inputs: Inputs, results: Results, *, scale: Scale, seed: int, command: str) -> Path:
    """Write index.html, figures and netCDF files to `output`, all at once; returns the page's path."""
    attrs = {
        "command": command,
        "seed": str(seed),
        "scale": json.dumps(vars(scale)),
        **inputs.attrs(),
        **provenance(),
    }
    with staged(output) as folder:
        (folder / "figures").mkdir()
        sections = []
        for name, title, text, figure, table in _sections(inputs, results, scale):
            if figure is not None:
                figure.savefig(folder / "figures" / f"{name}.png", dpi=200)
            sections.append(Section(title, text, figure, table))
        report.write(
            folder / "index.html",
            title=f"neurovar quickstart: {_cortex(inputs)} beside a network",
            sections=sections,
            warnings=inputs.warnings,
            provenance=attrs,
        )
        for name, dataset in _datasets(results).items():
            write_dataset(dataset.assign_attrs({**dataset.attrs, **attrs}), folder / f"{name}.nc")
    return output / "index.html"


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder beside `output` whose contents move into it when the block ends without an error, and else vanish."""
    require_writable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as staging:
        yield Path(staging)
        output.mkdir(exist_ok=True)
        for item in Path(staging).iterdir():
            target = output / item.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(item, target)


def _cortex(inputs: Inputs) -> str:
    return "macaque V4" if inputs.cortex_name == "V4" else "SIMULATED cortex"


def _datasets(results: Results) -> Mapping[str, xr.Dataset]:
    return {
        "comparison": results.comparison.assign(reason=results.comparison["reason"].astype(str)),
        "robustness": xr.merge(
            [results.correct.rename("correct"), results.accuracy], combine_attrs="drop", compat="override"
        ).assign_attrs(results.accuracy.attrs),
        "differences": results.differences,
        "signal_rule": results.rule.bins.assign_attrs(variance_exponent=results.rule.variance_exponent),
    }


Part = tuple[str, str, str, Figure | None, pd.DataFrame | None]
"""File name, heading, text, figure and table of a part of the page."""


def _sections(inputs: Inputs, results: Results, scale: Scale) -> Iterator[Part]:
    yield "summary", "In short", "\n\n".join(summary(inputs, results)), None, None
    yield from _measured(inputs, results, scale)
    yield from _tested(inputs, results, scale)


def _measured(inputs: Inputs, results: Results, scale: Scale) -> Iterator[Part]:
    """Cortex beside network, and the structure that is moved."""
    cortex = _cortex(inputs)
    n_units = " or ".join(map(str, np.unique(results.comparison["n_units"])))
    yield (
        "statistics",
        "Cortex beside the network",
        f"""The same statistics for {cortex} and for layers of EfficientNet-Lite0 (ImageNet weights) on the same
        {scale.n_stimuli} images; {n_units} units each, a layer's drawn from {4 * N_UNITS} without those that never vary
        ({results.comparison.attrs["constant_units_dropped"]}). Cortical repeats are presentations; the
        network's are the clean image and six modified ones (each one's mean shift taken off), so its “noise” is how its
        response to an image changes with the image, not randomness.
        Intervals: {results.comparison.attrs["interval"]}.""",
        _statistics_figure(results),
        comparison_table(results.comparison),
    )
    yield (
        "spectra",
        "Signal spectra",
        f"""Cross-validated eigenspectra (cvPCA: Stringer et al. 2019, doi:10.1038/s41586-019-1346-5), fitted over ranks
        {RANKS[0]}–{RANKS[1]}. With {n_units} units this window says little about an asymptotic exponent; it
        serves to compare these systems with each other only.""",
        _spectra_figure(results),
        None,
    )
    yield (
        "noise_structure",
        "What is moved: noise correlation follows signal correlation",
        f"""Left: noise correlations of {cortex}. Right: the rule fitted to its pairs, r_noise =
        {results.rule.intercept:.3f} + {results.rule.slope:.3f} · r_signal; variance grows as
        mean^{results.rule.variance_exponent:.2f}. {scale.noisy_layer} of the small network gets the noise that this
        rule gives for its own signal correlations: no shared stimuli and no matched units are needed.""",
        _structure_figure(results),
        None,
    )


def _tested(inputs: Inputs, results: Results, scale: Scale) -> Iterator[Part]:
    """The small network under each noise."""
    yield (
        "robustness",
        "Did it help?",
        f"""The network of Preble et al. 2026 (arXiv:2606.13801) on {inputs.train.attrs["source"]}: noise at
        {scale.noisy_layer}, total variance {TRACE_PER_UNIT:g} per unit for every noise, layers after it retrained under
        it. pgd: low-rank ({scale.rank} factors) plus diagonal covariance of its own PGD responses (ε = {EPSILON:g});
        controls: the same variances (diagonal), equal variances (isotropic), the same spectrum in random directions
        (rotated). Attack: PGD that knows the noise, {scale.n_draws} draws a gradient step, {scale.n_steps} steps of
        ε/4, random start. Predictions from 10 draws. Intervals: {results.accuracy.attrs["interval"]}.""",
        _robustness_figure(results),
        accuracy_table(results.accuracy),
    )
    yield (
        "caution",
        "What this does not show",
        f"""A demonstration at small scale: {scale.n_train} training images, {scale.n_epochs} epochs, {scale.n_seeds}
        seeds, {scale.n_test} test images. One attack with one restart is no proof of robustness (Athalye et al. 2018,
        arXiv:1802.00420): stronger attacks, more draws and baselines of equal clean accuracy have not been run, and the
        pgd noise was made from the attack that then tests it. The verdict of the honesty checks:
        {results.accuracy.attrs["verdict"]}.""",
        None,
        None,
    )


def summary(inputs: Inputs, results: Results) -> list[str]:
    """The findings in sentences, each from this run's numbers."""
    table = results.comparison
    cortex, last = table["system"].values[0], table["system"].values[-1]
    lines = [
        f"Mean noise correlation: {_value(table, 'noise_correlation', cortex)} in {_cortex(inputs)}, "
        f"{_value(table, 'noise_correlation', last)} in the network's {last} under modifications. Effective "
        f"dimensionality of the noise: {_value(table, 'effective_dimensionality', cortex)} against "
        f"{_value(table, 'effective_dimensionality', last)} of {int(table['n_units'].sel(system=cortex))} units."
    ]
    for noise, name in (
        (inputs.cortex_name.lower(), f"Noise derived from {_cortex(inputs)}"),
        ("pgd", "Noise from its own PGD responses"),
    ):
        attacked = _select(results.accuracy, noise, "pgd", EPSILON)
        gain = _select(results.differences, noise, "pgd", EPSILON)
        verdict = "not clearly different from"
        if gain["low"] > 0:
            verdict = "higher than with"
        elif gain["high"] < 0:
            verdict = "lower than with"
        controls = " and ".join(
            f"{control} {float(_select(results.accuracy, f'{noise}_{control}', 'pgd', EPSILON)['accuracy']):.2f}"
            for control in ("diagonal", "rotated")
        )
        lines.append(
            f"{name}: accuracy {_triple(attacked, 'accuracy')} under noise-aware PGD (ε = {EPSILON:g}), {verdict} "
            f"isotropic noise of the same trace (difference {_triple(gain, 'difference', signed=True)}; its controls: "
            f"{controls}); clean accuracy {_triple(_select(results.accuracy, noise, 'clean', 0), 'accuracy')}."
        )
    none = _triple(_select(results.accuracy, "none", "pgd", EPSILON), "accuracy")
    clean = _triple(_select(results.accuracy, "none", "clean", 0), "accuracy")
    lines.append(f"Without noise: {none} under the same attack, {clean} on clean images.")
    return lines


def _select(data: xr.Dataset, noise: str, modification: str, strength: float) -> xr.Dataset:
    found = (data["modification"].values == modification) & np.isclose(data["strength"].values, strength)
    return data.sel(noise=noise).isel(condition=int(np.flatnonzero(found)[0]))


def _triple(data: xr.Dataset, name: str, *, signed: bool = False) -> str:
    return with_interval(*(float(data[field]) for field in (name, "low", "high")), signed=signed)


def _value(table: xr.Dataset, statistic: str, system: str) -> str:
    cell = table.sel(statistic=statistic, system=system)
    return "undefined" if str(cell["reason"].item()) else _triple(cell, "estimate")


def comparison_table(table: xr.Dataset) -> pd.DataFrame:
    """Statistic × system: estimate and interval, or why there is none."""
    rows = {
        str(row["label"].item()): {
            str(system): str(cell["reason"].item()) or _triple(cell, "estimate")
            for system in table["system"].values
            for cell in [row.sel(system=system)]
        }
        for row in (table.isel(statistic=number) for number in range(table.sizes["statistic"]))
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("statistic")


def accuracy_table(accuracy: xr.Dataset) -> pd.DataFrame:
    """Condition × noise: accuracy and interval."""
    columns = {
        str(noise): [_triple(column.isel(condition=i), "accuracy") for i in range(column.sizes["condition"])]
        for noise in accuracy["noise"].values
        for column in [accuracy.sel(noise=noise)]
    }
    index = [
        name if strength == 0 else f"{name} {strength:g}"
        for name, strength in zip(accuracy["modification"].values, accuracy["strength"].values)
    ]
    return pd.DataFrame(columns, index=pd.Index(index, name="condition"))


def _spectra_figure(results: Results) -> Figure:
    with plotting.style():
        figure, axes = plotting.figure()
        plotting.plot_spectra(results.comparison, axes[0, 0])
    return figure


def _statistics_figure(results: Results) -> Figure:
    with plotting.style():
        figure, axes = plotting.figure(2, 3, width=7.2, height=4.6)
        for statistic, ax in zip(results.comparison["statistic"].values, axes.flat):
            plotting.plot_statistic(results.comparison, str(statistic), ax)
    return figure


def _structure_figure(results: Results) -> Figure:
    with plotting.style():
        figure, axes = plotting.figure(1, 2, width=7.2, height=2.8)
        plotting.plot_correlation_matrix(results.noise_correlation, axes[0, 0])
        plotting.plot_signal_rule(results.rule.bins, axes[0, 1])
    return figure


def _robustness_figure(results: Results) -> Figure:
    names = list(dict.fromkeys(str(m) for m in results.accuracy["modification"].values if m != "clean"))
    with plotting.style():
        figure, axes = plotting.figure(2, 3, width=7.2, height=5.4)
        plotting.plot_accuracy_bars(results.accuracy, axes[0, 0], condition="clean")
        plotting.plot_accuracy_bars(results.accuracy, axes[0, 1], condition="pgd", strength=EPSILON)
        for name, ax in zip(["pgd", *[n for n in names if n != "pgd"]], [axes[0, 2], *axes[1]]):
            plotting.plot_accuracy(results.accuracy, ax, condition=name)
        plotting.legend_below(figure, ncols=4)
    return figure
