"""The main job, end to end: cortex beside a network, its noise moved across, and whether that helped."""

import shlex
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from neurovar.cli._presenting import progress, require_writable
from neurovar.cli.quickstart import compute, inputs, page


def main(output: Path, *, quick: bool, require_real: bool, seed: int, n_jobs: int) -> Path:
    """Run it, write the page, figures and results to `output`, print a summary; returns the page's path.

    Raises
    ------
    ValueError : if `output` cannot be written, a file is damaged, a package is missing, or with `require_real` a real
        input cannot be had. Nothing is written then.
    """
    if n_jobs < 1 or seed < 0:
        raise ValueError(f"expected at least 1 job and a seed of at least 0, got {n_jobs} and {seed}")
    console = Console()
    for folder in (output, output.absolute().parent):  # beside it, too: the page is made there and moved
        require_writable(folder)
    found = inputs.load(require_real=require_real, seed=seed)
    for warning, reason in zip(found.warnings, found.reasons):
        console.print(f"[bold red]NOT REAL DATA[/]: {warning}:\n{escape(reason)}", highlight=False, soft_wrap=True)
    scale = compute.QUICK if quick else compute.FULL
    with progress(console) as shown:
        results = compute.run(found, scale=scale, seed=seed, n_jobs=n_jobs, progress=shown)
    options = ["--quick"] * quick + ["--require-real"] * require_real
    command = shlex.join(["neurovar", "quickstart", "--output", str(output), "--seed", str(seed), *options])
    written = page.write(output, found, results, scale=scale, seed=seed, command=command)
    console.print()
    for line in page.summary(found, results):
        console.print(f"• {escape(line)}", highlight=False)
    for warning in found.warnings:
        console.print(f"[bold red]NOT REAL DATA[/]: {warning}", highlight=False, soft_wrap=True)
    console.print(f"\nWrote {written}", highlight=False, soft_wrap=True)
    return written
