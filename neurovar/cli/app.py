"""The `neurovar` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from neurovar.cli.commands.datasets import app as datasets
from neurovar.cli.commands.datasets import compare, describe
from neurovar.cli.commands.layers import layers
from neurovar.cli.commands.robustness import robustness
from neurovar.cli.commands.transplant import transplant

app = typer.Typer(
    help="Neural variability in cortex and networks: measure it, move it, and test honestly whether it helps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(datasets, name="datasets")
app.command()(describe)
app.command()(compare)
app.command()(layers)
app.command()(transplant)
app.command()(robustness)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from neurovar import __version__

        typer.echo(f"neurovar {__version__}")
        raise typer.Exit()


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option(help="Folder for the page, figures and results.")] = Path("report"),
    quick: Annotated[bool, typer.Option("--quick", help="A smaller run, within a minute.")] = False,
    require_real: Annotated[
        bool, typer.Option("--require-real", help="Fail rather than use a simulated recording or digits.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 0,
    jobs: Annotated[int, typer.Option(help="Worker processes; the results do not depend on it.")] = 2,
) -> None:
    """Cortex beside a network, the noise moved across, and whether it helped; writes a page."""
    from neurovar.cli.quickstart import main as run

    run(output, quick=quick, require_real=require_real, seed=seed, n_jobs=jobs)


def main() -> None:
    """Run the command; bad input ends it with a message and exit status 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        from neurovar.cli.commands._console import printable

        print(f"neurovar: error: {printable(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
