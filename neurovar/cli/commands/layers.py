"""`neurovar layers`: what a network has that can be recorded."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from rich.table import Table
    from torch import nn

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, efficientnet_lite0, small, or PACKAGE.MODULE:FACTORY of your own.",
    ),
]
Input = Annotated[str | None, typer.Option("--input", metavar="C,H,W", help="Shape of one input: --input 3,224,224")]


def layers(model: Model, input_: Input = None) -> None:
    """List a network's layers, their shapes, and which can be recorded; downloads nothing."""
    from neurovar import networks
    from neurovar.cli.commands._console import console, say

    network, shape = open_network(model, input_)
    try:
        listed = networks.layers(network, shape)
    except ValueError as error:
        raise ValueError(f"{error}" + ("" if input_ else "; give the shape of one: --input C,H,W")) from error
    console().print(_table(listed))
    for reason, advice in sorted(set(listed["note"].str.split(": ", n=1).map(tuple)) - {("",)}):
        say(f"A layer that {reason} cannot be recorded: {advice}.")
    usable = int((listed["note"] == "").sum())
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    shown = "×".join(map(str, shape))
    say(f"{model}: {n_parameters:,} parameters; input {shown}; {usable} of {len(listed)} layers can be recorded")


def open_network(
    model: str, input_: str | None, *, weights: "Path | None" = None
) -> "tuple[nn.Module, tuple[int, ...]]":
    """The network, with the parameters of a file where one is given, and the shape of one input."""
    import os
    import sys

    from neurovar import networks

    sys.path.append(os.getcwd())  # for a network of one's own; what is installed comes first
    shape = None if input_ is None else _shape(input_)
    network = networks.load(model, weights=weights)
    shape = shape or networks.input_shape(model, network)
    if shape is None:
        raise ValueError(f"expected the shape of an input of {model}, got none: --input 3,224,224")
    return network, shape


def _shape(text: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").replace("×", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ValueError(f"expected the shape of an input, such as 3,224,224, got {text!r}")
    return tuple(map(int, parts))


def _table(listed: "pd.DataFrame") -> "Table":
    """One row a layer; names are never broken, so that they can be copied."""
    from neurovar.cli.commands._console import printable
    from neurovar.cli.commands._tables import new_table

    table = new_table("layer", "type", "output", "units", "fires", "note")
    table.columns[0].no_wrap = True
    for layer, kind, shape, units, fires, note in zip(*(listed[name] for name in listed)):
        output = "–" if shape is None else "×".join(map(str, shape)) or "1"
        reason = note.partition(":")[0]
        table.add_row(printable(layer), kind, output, f"{units:,}" if units else "–", str(fires), printable(reason))
    return table
