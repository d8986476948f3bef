"""What the commands print, as rich tables."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import neurovar_datasets
import numpy as np
import pandas as pd
import xarray as xr
from neurovar_datasets import Source, locate
from rich.box import SIMPLE_HEAD
from rich.table import Table

from neurovar.cli.commands import _holdings as holdings
from neurovar.cli.commands._console import printable, size
from neurovar.responses import LABELS

if TYPE_CHECKING:
    from neurovar.statistics import Problem

COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}
ALLOWED = {True: "allowed", False: "not allowed", None: "not stated"}


def sources() -> Table:
    """One row a source; where the header has two lines, so has each row."""
    table = new_table("name\nlicence", "area\nspecies", "method", "units", "stimuli", "repeats", "size\nhere")
    for name, source in neurovar_datasets.sources().items():
        size_here = (holdings.total_size(holdings.files_of(source)), holdings.presence(source))
        stacked = ((name, source.license.partition(" (")[0]), (source.area, source.species), (source.method,))
        numbers = ((source.n_units,), (source.n_stimuli,), (source.n_repeats,), size_here)
        table.add_row(*("\n".join(text or "–" for text in cell) for cell in stacked + numbers))
    for column in (table.columns[0], table.columns[-1]):
        column.no_wrap = True
    table.leading = 1
    return table


def descriptor(name: str, source: Source) -> Table:
    """All that is declared of a source, except its files."""
    rows = {
        "name": name,
        "title": source.title,
        "doi": f"https://doi.org/{source.doi}",
        "citation": source.citation,
        "licence": f"{source.license} ({source.license_url})" if source.license_url else source.license,
        "redistribution": ALLOWED[source.redistribution],
        "changed versions": ALLOWED[source.derivatives],
        "area": source.area,
        "species": source.species,
        "method": source.method,
        "measured in": source.units,
        "units": source.n_units,
        "stimuli": source.n_stimuli,
        "repeats": source.n_repeats,
        "size": holdings.total_size(holdings.files_of(source)),
        "sessions": len(source.sessions) or "",
        "here": holdings.presence(source),
    }
    return pairs(rows)


def pairs(rows: Mapping[str, object]) -> Table:
    """Names and values, without those that are empty."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if str(value):
            table.add_row(name, printable(value))
    return table


def files(source: Source) -> Table:
    """Each session's files: size, where they are or how to get them."""
    table = new_table("session", "file", "size", "here")
    for session, parts in source.sessions.items():
        for file in parts:
            place = locate(file)
            missing = "by hand" if file.by_hand else "no"
            table.add_row(
                session, file.name, "unknown" if file.size is None else size(file.size), str(place or missing)
            )
    return table


def problems(found: "Sequence[Problem]") -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for problem in found:
        table.add_row(problem.severity, printable(problem.what), style=COLOURS[problem.severity])
        table.add_row("", f"→ {printable(problem.how_to_mend)}")
    return table


def counts(description: xr.Dataset) -> Table:
    """How much there is of a recording, and what was left out."""
    attrs, n_repeats = description.attrs, description["n_repeats"].values
    least, most = int(n_repeats.min()), int(n_repeats.max())
    labels = {name: _some(description[name].values) for name in LABELS if name in description.coords}
    return pairs(
        labels
        | {
            "units": f"{description.sizes['unit']} of {attrs['n_recorded']}",
            "dropped": attrs["dropped"],
            "dropped before": attrs["dropped_before"],
            "stimuli": len(n_repeats),
            "repeats": f"{least} to {most}" if least < most else most,
            "trials": attrs["n_trials"],
            "values": f"{attrs.get('units', 'units not stated')}, {attrs['time']}",
            "r_sc": attrs["noise_correlations"],
            "pairs": attrs["pairs"].removeprefix("all"),
        }
    )


def statistics(summaries: Mapping[str, pd.DataFrame]) -> Table:
    """Each statistic's mean and standard deviation, over all units and over those of each area."""
    table = new_table("statistic", "area", "mean", "sd", "over")
    for statistic in next(iter(summaries.values())).index:
        for area, summary in summaries.items():
            mean, sd, n, kind, reason = summary.loc[statistic]
            over = f"{n} {kind}" if kind else ""
            shown = ("n/a" if pd.isna(mean) else f"{mean:.3f}", "" if pd.isna(sd) else f"{sd:.3f}")
            table.add_row(statistic, printable(area), *shown, printable(reason or over))
    return table


def _some(labels: np.ndarray, *, most: int = 8) -> str:
    different = list(dict.fromkeys(map(str, labels)))
    return ", ".join(different[:most]) + (f" and {len(different) - most} more" if len(different) > most else "")


def origin(description: xr.Dataset) -> Table:
    """Where the data come from and under which licence, as a source's licence wants it said."""
    attrs = description.attrs
    address = f" ({attrs['license_url']})" if attrs.get("license_url") else ""
    return pairs(
        {
            "source": attrs.get("source", "not stated"),
            "cite": attrs.get("citation", ""),
            "doi": f"https://doi.org/{attrs['doi']}" if attrs.get("doi") else "",
            "licence": f"{attrs.get('license', 'not stated')}{address}",
        }
    )


def new_table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
