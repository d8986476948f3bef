"""`neurovar compare`: recordings and networks beside one another."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from rich.table import Table

from neurovar import plotting, statistics
from neurovar._provenance import provenance
from neurovar.cli._presenting import with_interval, write_dataset
from neurovar.cli.commands import _recordings as opening
from neurovar.cli.commands import _tables as tables
from neurovar.cli.commands._console import console, printable, say
from neurovar.responses import TIME_DIMS, drop_constant, repeat_counts, sum_time

MOST_UNITS = 200


def open_systems(
    named: Sequence[str], *, by: str | None, window: tuple[float, float] | None
) -> dict[str, xr.DataArray]:
    """The responses of each `[NAME=]WHAT[:SESSION]`, split by a coordinate of units, without units that never vary.

    Raises
    ------
    ValueError : if two systems have one name, or `by` is no coordinate of the units.
    """
    systems: dict[str, xr.DataArray] = {}
    for text in named:
        name, responses = _open(text, window)
        parts = {name: responses} if by is None else _split(name, responses, by)
        twice = systems.keys() & parts.keys()
        if twice:
            raise opening.UsageError(f"expected a name for each system, such as V4=…, got {min(twice)!r} twice")
        systems |= {part: drop_constant(one) for part, one in parts.items()}
    return systems


def _open(text: str, window: tuple[float, float] | None) -> tuple[str, xr.DataArray]:
    name, equals, what = text.partition("=")
    what, _, session = (what if equals else text).partition(":")
    responses = opening.open_recording(what, session=session or None, window=window)
    named = name if equals else "_".join(filter(None, (Path(what).stem, session)))
    return named, one_value_a_trial(responses)


def _split(name: str, responses: xr.DataArray, by: str) -> dict[str, xr.DataArray]:
    of_units = [str(coord) for coord, values in responses.coords.items() if values.dims == ("unit",)]
    if by not in of_units:
        raise opening.UsageError(
            f"expected --by with a coordinate of {name}'s units ({', '.join(of_units)}), got {by!r}"
        )
    groups = responses[by].values
    return {f"{name} {group}": responses.isel(unit=groups == group) for group in np.unique(groups)}


def parts(responses: xr.DataArray, *, by: str) -> dict[str, xr.DataArray]:
    """All units and, where there are several groups of them, each group; at most 200 units, drawn at random."""
    whole = drop_constant(one_value_a_trial(responses))
    systems = {"all": whole}
    if by in whole.coords and len(np.unique(whole[by].values)) > 1:
        systems |= {name.strip(): one for name, one in _split("", whole, by).items()}
    return {name: _some_units(one) for name, one in systems.items()}


def one_value_a_trial(responses: xr.DataArray) -> xr.DataArray:
    loaded = responses.compute()
    return sum_time(loaded) if loaded.dims == TIME_DIMS else loaded


def _some_units(responses: xr.DataArray) -> xr.DataArray:
    n_units = responses.sizes["unit"]
    if n_units <= MOST_UNITS:
        return responses
    some = np.sort(np.random.default_rng(0).choice(n_units, MOST_UNITS, replace=False))
    return responses.isel(unit=some).assign_attrs(units_drawn=f"{MOST_UNITS} of {n_units} at random")


def measured(
    systems: Mapping[str, xr.DataArray],
    *,
    ranks: tuple[int, int] | None,
    match: Sequence[str],
    n_resamples: int,
    seed: int,
    jobs: int,
) -> xr.Dataset:
    """The table; without ranks, it has no statistic that needs them."""
    given = {"ranks"} if ranks else set()
    computed = [
        statistic
        for statistic in statistics.STATISTICS.values()
        if statistic.by_default and given.issuperset(statistic.lacks)
    ]
    return statistics.compare(
        systems, statistics=computed, ranks=ranks, match=match, n_resamples=n_resamples, rng=seed, n_jobs=jobs
    )


def matched(systems: Mapping[str, xr.DataArray], over: Sequence[str], seed: int) -> dict[str, xr.DataArray]:
    """One of the matched subsamples, for figures."""
    subsample = statistics.match(systems, over=over, n_subsamples=1, rng=seed)[0]
    return {name: system for name, system in subsample.items() if isinstance(system, xr.DataArray)}


def show(table: xr.Dataset) -> None:
    """Print the table, and why statistics are missing."""
    console().print(printed(table))
    say(f"[…]: 95 % interval, {table.attrs['interval']}")
    for line in missing(table):
        say(line)


def together(table: xr.Dataset, profiles: xr.Dataset) -> xr.Dataset:
    """The table and the profiles in one Dataset that a file can hold."""
    renamed = profiles.rename(reason="profile_reason", spectrum="signal_spectrum", rank="profile_rank")
    both = xr.merge([table, renamed], combine_attrs="drop", compat="override", join="outer")
    both = both.assign_attrs(table.attrs | {"method": profiles.attrs["method"]} | provenance())
    texts = [name for name, variable in both.variables.items() if variable.dtype == object]
    return both.assign({name: both[name].astype(str) for name in texts if name not in both.coords})


def printed(table: xr.Dataset) -> Table:
    """Each statistic's estimate and interval, one column a system; what is missing is told below."""
    systems = [str(system) for system in table["system"].values]
    rows = tables.new_table("statistic", *map(printable, systems))
    sizes = {"units": "n_units", "stimuli": "n_stimuli", "repeats (most)": "n_repeats", "repeats from": "repeats_from"}
    for label, variable in sizes.items():
        rows.add_row(label, *(printable(value) for value in table[variable].values))
    rows.add_section()
    for number, label in enumerate(table["label"].values):
        rows.add_row(str(label), *(_cell(table.isel(statistic=number, system=s)) for s in range(len(systems))))
    return rows


def _cell(cell: xr.Dataset) -> str:
    if not np.isfinite(cell["estimate"]):
        return "n/a"
    return with_interval(*(float(cell[name]) for name in ("estimate", "low", "high")))


def missing(table: xr.Dataset) -> Iterator[str]:
    """Why statistics are missing, one line a reason."""
    said: dict[str, list[tuple[str, str]]] = {}
    for name in table["statistic"].values:
        for system in table["system"].values:
            reason = str(table["reason"].sel(statistic=name, system=system).item())
            if reason:
                said.setdefault(reason, []).append((str(name).replace("_", " "), str(system)))
    for reason, cells in said.items():
        names, systems = (", ".join(dict.fromkeys(each)) for each in zip(*cells))
        yield f"n/a: {names} of {systems}: {reason}"


def matrices(systems: dict[str, xr.DataArray]) -> Figure:
    """The noise correlations of each system, sorted by area or layer where there are several."""
    n_columns = min(3, len(systems))
    n_rows = -(-len(systems) // n_columns)
    drawing, axes = plotting.figure(n_rows, n_columns, width=2.4 * n_columns, height=2.2 * n_rows)
    for (name, system), ax in zip(systems.items(), axes.flat):
        matrix = statistics.noise_correlation(system, zscore=bool(repeat_counts(system).max() > 2))
        by = next((label for label in ("area", "layer") if len(np.unique(system.coords.get(label, []))) > 1), None)
        plotting.plot_correlation_matrix(matrix.rename("noise_correlation"), ax, by=by)
        ax.set_title(name, loc="left")
    for ax in axes.flat[len(systems) :]:
        ax.remove()
    return drawing


def write(table: xr.Dataset, systems: dict[str, xr.DataArray], stem: Path, *, seed: int) -> tuple[Path, Path, Path]:
    """The figures and the results."""
    profiles = statistics.profiles(systems, rng=seed)
    summary, correlations, results = (stem.with_name(stem.name + end) for end in (".png", "_matrices.png", ".nc"))
    with plotting.style():
        plotting.plot_comparison(table, profiles).savefig(summary)
        matrices(systems).savefig(correlations)
    write_dataset(together(table, profiles), results)
    return summary, correlations, results
