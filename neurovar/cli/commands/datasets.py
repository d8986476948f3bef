"""The commands; what they need is imported when one runs, so that asking for help stays fast."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Public neural data, and recordings of your own.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A source, as `neurovar datasets list` names it.")]
What = Annotated[str, typer.Argument(metavar="PATH|NAME", help="A .zarr, .toml or .nc of your own, or a source.")]
Session = Annotated[str | None, typer.Option(help="One session of a public source.")]
Window = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="START STOP", help="In s from stimulus onset, for spikes and time bins: --window 0.05 0.25"),
]
Ranks = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="FIRST LAST", help="Ranks of the power laws; without them there are no exponents."),
]
Jobs = Annotated[int, typer.Option(help="Worker processes; the results do not depend on it.")]


@app.command("list")
def list_sources() -> None:
    """Show every public source: what was recorded, its size, its licence, and whether it is on this machine."""
    from neurovar.cli.commands import _tables as tables
    from neurovar.cli.commands._console import console

    console().print(tables.sources())


@app.command()
def info(name: Name) -> None:
    """Show all that is known of one source: how to cite it, what its licence allows, its sessions and files."""
    from neurovar.cli.commands import _holdings as holdings
    from neurovar.cli.commands import _tables as tables
    from neurovar.cli.commands._console import console

    source = holdings.get(name)
    console().print(tables.descriptor(name, source))
    if source.sessions:
        console().print(tables.files(source))


@app.command()
def fetch(
    name: Name,
    session: Annotated[list[str] | None, typer.Option(help="One session; repeat it for more.")] = None,
) -> None:
    """Download a source, or some of its sessions; go on where a download broke off; check what is here."""
    from neurovar.cli.commands import _holdings as holdings
    from neurovar.cli.commands._console import say

    source = holdings.get(name)
    files = holdings.files_of(source, session or ())
    if not files:
        say(f"{name} is built in: there is nothing to fetch")
        return
    missing = [file for file in files if not holdings.is_here([file])]
    known, needed = holdings.total_size(files), holdings.total_size(missing)
    say(f"{name}: files: {len(files)}; size: {known}; to fetch: {needed}")
    say(f"licence {source.license} ({source.license_url}); cite {source.citation}")
    for file, path in holdings.fetch(files):
        say(f"{'fetched' if file in missing else 'here'}, checked: {path}")


@app.command()
def check(what: What, session: Session = None, window: Window = None) -> None:
    """Say what is wrong with a recording, most important first, and how to mend it; exit status 1 if it has errors."""
    from neurovar_datasets import DataUnavailableError

    from neurovar import statistics
    from neurovar.cli.commands import _recordings as opening
    from neurovar.cli.commands import _tables as tables
    from neurovar.cli.commands._console import console, say, shape

    try:
        responses = opening.open_recording(what, session=session, window=window, as_it_is=True)
        say(f"{what}: {shape(responses)}, {responses.attrs.get('units', 'units not stated')}")
        found = statistics.problems(responses)
    except (opening.UsageError, DataUnavailableError):
        raise
    except ValueError as error:
        found = [
            statistics.Problem("error", str(error), "mend the file: nothing else can be said before it can be read")
        ]
    console().print(tables.problems(found))
    n_errors = sum(problem.severity == "error" for problem in found)
    say(f"errors: {n_errors}, warnings and notes: {len(found) - n_errors}")
    raise typer.Exit(int(n_errors > 0))


@app.command()
def convert(
    what: What,
    output: Annotated[Path, typer.Argument(metavar="OUT.zarr", help="A path where nothing is yet.")],
    session: Session = None,
    window: Window = None,
) -> None:
    """Write a recording to Zarr, without loss, so that it opens at once even if it is larger than memory."""
    from neurovar.cli.commands import _recordings as opening
    from neurovar.cli.commands._console import say, shape, size
    from neurovar.responses import save

    if output.suffix != ".zarr":
        raise ValueError(f"expected an output that ends in .zarr, got {output}")
    responses = opening.open_recording(what, session=session, window=window, as_it_is=True)
    save(responses, output)
    written = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    say(f"Wrote {output}: {shape(responses)}, {responses.dtype}, {size(responses.nbytes)} as {size(written)} on disk")


@app.command()
def describe(
    what: What,
    session: Session = None,
    window: Window = None,
    ranks: Ranks = None,
    by: Annotated[str, typer.Option(help="A coordinate of units; the statistics of its groups are told too.")] = "area",
    jobs: Jobs = 1,
    output: Annotated[Path, typer.Option(help="Folder for the figures and the results.")] = Path("description"),
) -> None:
    """Show how variable, correlated and reliable a recording is; writes figures and the results (netCDF)."""
    from neurovar import statistics
    from neurovar.cli.commands import _compare as comparing
    from neurovar.cli.commands import _description as results
    from neurovar.cli.commands import _recordings as opening
    from neurovar.cli.commands import _tables as tables
    from neurovar.cli.commands._console import console, say

    responses = opening.open_recording(what, session=session, window=window)
    output.mkdir(parents=True, exist_ok=True)
    described = results.by_area(responses)
    out = console()
    everything = described["all"]
    out.print(tables.counts(everything))
    out.print(tables.statistics({area: statistics.summarise(one) for area, one in described.items()}))
    out.print(tables.origin(everything))
    stem = "_".join(filter(None, (Path(what).stem, session))).replace("/", "_")
    written = list(results.write(described, output / stem))
    try:
        systems = comparing.parts(responses, by=by)
        table = comparing.measured(systems, ranks=ranks, match=(), n_resamples=20, seed=0, jobs=jobs)
    except ValueError as error:
        say(f"no intervals: {error}")
    else:
        comparing.show(table)
        for name, one in systems.items():
            if "units_drawn" in one.attrs:
                say(f"{name}: the statistics with intervals are those of {one.attrs['units_drawn']}")
        written += comparing.write(table, systems, output / f"{stem}_statistics", seed=0)
    for path in written:
        say(f"Wrote {path}")


def compare(
    systems: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]PATH|SOURCE[:SESSION]...", help="Recordings and networks, as for describe."),
    ],
    ranks: Ranks = None,
    by: Annotated[str | None, typer.Option(help="Split each by a coordinate of its units: area, layer, …")] = None,
    match: Annotated[str, typer.Option(help="What is made equal: some of unit,stimulus,repeat,rate; or none.")] = (
        "unit,stimulus"
    ),
    window: Window = None,
    resamples: Annotated[int, typer.Option(help="For the intervals.")] = 40,
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 0,
    jobs: Jobs = 1,
    output: Annotated[Path, typer.Option(help="Folder for the figures and the results.")] = Path("comparison"),
) -> None:
    """Show the statistics of recordings and networks beside one another; writes figures and the results (netCDF)."""
    from neurovar.cli.commands import _compare as comparing
    from neurovar.cli.commands._console import say

    opened = comparing.open_systems(systems, by=by, window=window)
    over = () if match == "none" else tuple(match.split(","))
    table = comparing.measured(opened, ranks=ranks, match=over, n_resamples=resamples, seed=seed, jobs=jobs)
    comparing.show(table)
    output.mkdir(parents=True, exist_ok=True)
    for path in comparing.write(table, comparing.matched(opened, over, seed), output / "comparison", seed=seed):
        say(f"Wrote {path}")
