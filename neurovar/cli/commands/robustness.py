"""`neurovar robustness`: does noise make a network harder to fool, and is the answer to be believed."""

from pathlib import Path
from typing import Annotated

import typer

from neurovar.cli._presenting import require_writable
from neurovar.cli.commands.datasets import Jobs
from neurovar.cli.commands.layers import Input, Model

Labelled = Annotated[
    str,
    typer.Option(help="fashion_mnist, digits, or an .npz: images (stimulus, channel, row, column), integer labels."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]FILE",
        help="Parameters of the network, or of the one with the noise NAME; repeat it, one a training seed.",
    ),
]
Independent = Annotated[
    list[Path] | None,
    typer.Option(help="Parameters of a network trained apart, for transfer attacks; as many as of --weights."),
]


def robustness(
    model: Model,
    images: Labelled,
    epsilon: Annotated[list[float], typer.Option(help="Size of the attacks, pixels 0–1; repeat it for more.")],
    noise: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LAYER:FILE", help="A noise as `neurovar transplant` writes it; repeat it for more."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WHAT[,EPSILON,NORM]", help="What a noise was made from: full=pgd,0.1,linf."),
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=KIND[:OF]", help="That a noise is a control, of another: pgd_rotated=rotated:pgd."),
    ] = None,
    weights: Weights = None,
    independent: Independent = None,
    modification: Annotated[
        list[str] | None, typer.Option(metavar="NAME=S,S,…", help="With its strengths: motion_blur=1,3,5; repeat it.")
    ] = None,
    norm: Annotated[str, typer.Option(help="Of the attacks: linf or l2.")] = "linf",
    input_: Input = None,
    n_images: Annotated[
        int | None, typer.Option(help="How many of the images, the first; 200, or 40 if quick.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Noise seeds: each draws attacks and predictions anew.")] = 3,
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Weak attacks on few images, never a verdict.")] = False,
    jobs: Jobs = 1,
    output: Annotated[Path, typer.Option(help="Folder for the figures and the results.")] = Path("robustness"),
) -> None:
    """Attack a network under each noise and under none, check the attacks, and give a verdict or withhold it.

    The noise is on when attacks and predictions are made. A network without noise is always tested beside. A NAME with
    --weights and without --noise is one more network without noise, such as train_only. With --control (rotated,
    diagonal, …) a noise is said to be matched to the others by trace, which is checked.
    """
    from neurovar.cli.commands import _robustness as evaluating
    from neurovar.cli.commands._console import say

    require_writable(output)
    networks, shape = evaluating.networks(model, noise or [], source or [], control or [], weights or [], input_)
    others = evaluating.independent_networks(model, independent or [], shape)
    if n_images is None:
        n_images = evaluating.N_QUICK if quick else evaluating.N_IMAGES
    result = evaluating.run(
        networks,
        evaluating.stimuli(images, shape, n_images),
        modifications=evaluating.modifications(modification or []),
        attacks=evaluating.attacks(epsilon, norm, quick=quick),
        others=others,
        seeds=range(seed, seed + seeds),
        quick=quick,
        jobs=jobs,
    )
    if not weights:
        say(f"no --weights: {model} has the parameters that its name gives it, which may be random")
    file = evaluating.save(result, output)
    found = evaluating.summed_up(result, epsilon)
    evaluating.show(found)
    for path in evaluating.write(found, epsilon, file):
        say(f"Wrote {path}")
