"""`neurovar transplant`: the noise of a recording for a layer of a network, with its controls, as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neurovar.cli.commands.datasets import Session, Window
from neurovar.cli.commands.layers import Input, Model

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table

    from neurovar.noise import Controls, Regression

What = Annotated[
    str, typer.Argument(metavar="RECORDING", help="A .zarr, .toml or .nc of your own, or a public source.")
]
Images = Annotated[
    str | None, typer.Option(help="What the network sees: a source, an .npy or a folder; by default the recording's.")
]
LOUD = 10
"""How many times the signal's variance the noise may have before a reader is told."""


def transplant(
    what: What,
    model: Model,
    layer: Annotated[str, typer.Option(help="The layer that gets the noise, as `neurovar layers MODEL` names it.")],
    method: Annotated[str, typer.Option(help="signal_rule, spectrum, readout, assignment or gain.")],
    images: Images = None,
    session: Session = None,
    window: Window = None,
    input_: Input = None,
    axes: Annotated[str | None, typer.Option(help="For spectrum: signal or random.")] = None,
    rank: Annotated[int | None, typer.Option(help="For spectrum: how many of the axes.")] = None,
    regression: Annotated[str | None, typer.Option(help="For readout: ridge or pls.")] = None,
    n_components: Annotated[int | None, typer.Option(help="For readout by pls.")] = None,
    least_goodness: Annotated[float | None, typer.Option(help="For readout: the least r² on held-out stimuli.")] = None,
    n_factors: Annotated[int | None, typer.Option(help="For assignment: factors of the recording's noise.")] = None,
    n_dims: Annotated[int | None, typer.Option(help="Signal dimensions, for the two controls that need them.")] = None,
    trace: Annotated[float, typer.Option(help="Total variance divided by the number of units.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same noise.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the noises, the figures and the results.")] = Path(
        "transplant"
    ),
) -> None:
    """Give a layer the noise of a recording; writes it with its controls, and sets it beside its source."""
    from neurovar import noise as methods
    from neurovar.cli.commands import _compare as comparing
    from neurovar.cli.commands import _recordings as opening
    from neurovar.cli.commands._console import console, say
    from neurovar.responses import drop_constant

    if not 0 < trace < float("inf"):
        raise ValueError(f"expected --trace above 0, got {trace:g}")
    if axes == "modification":
        raise ValueError("expected --axes signal or random, as the images are shown as they are, got modification")
    if method not in methods.METHODS:
        raise ValueError(f"expected --method {', '.join(methods.METHODS)}, got {method}")
    given: dict[str, Any] = {"axes": axes, "rank": rank, "regression": _regression(regression, n_components)}
    given |= {"least_goodness": least_goodness, "n_factors": n_factors}
    options = {name: value for name, value in given.items() if value is not None}
    cortex = drop_constant(comparing.one_value_a_trial(opening.open_recording(what, session=session, window=window)))
    target = _recorded(images or what, session, model, layer, input_)
    noise = methods.METHODS[method].between(cortex, target, rng=seed, **options)
    noise = noise.scale_to(trace=trace * noise.n)
    noises = methods.with_controls(noise, rng=seed, target=None if n_dims is None else target, n_dims=n_dims)
    console().print(_table(noises))
    say(_loudness(target, layer, trace))
    for name, reason in noises.left_out.items():
        say(f"no control {name.replace('_', ' ')}: it {reason}")
    for path in (*_write(noises, output), *_compare(what, cortex, layer, target, noise, output, seed)):
        say(f"Wrote {path}")
    loaded = f"covariance.load({str(output / 'transplanted.safetensors')!r})"
    say(f"To use it: with injection.inject(model, {{{layer!r}: {loaded}}}, generator=…): …")


def _regression(name: str | None, n_components: int | None) -> "Regression | None":
    """The value that --regression and --n-components name."""
    from neurovar.noise import PartialLeastSquares, Ridge

    if name not in (None, "ridge", "pls"):
        raise ValueError(f"expected --regression ridge or pls, got {name}")
    if (n_components is not None) != (name == "pls"):
        raise ValueError(f"expected --n-components for pls and for nothing else, got {name} and {n_components}")
    if n_components is not None:
        return PartialLeastSquares(n_components)
    return Ridge() if name else None


def _recorded(what: str, session: str | None, model: str, layer: str, input_: str | None) -> "xr.DataArray":
    """The layer's responses to the images."""
    from neurovar import networks
    from neurovar.cli.commands import _images as pictures
    from neurovar.cli.commands.layers import open_network

    network, shape = open_network(model, input_)
    if len(shape) != 3:
        raise ValueError(f"expected images as input, --input C,H,W, got {','.join(map(str, shape))}")
    images = pictures.as_input(pictures.open_images(what, session=session), shape)
    try:
        return networks.record(network, images, layers=[layer], rng=0)
    except RuntimeError as error:  # whatever someone's network raises
        raise ValueError(f"expected an input that {model} takes, got shape {shape} ({error})") from error


def _table(noises: "Controls") -> "Table":
    """What kind each noise is, and over how many dimensions it spreads."""
    from neurovar.cli.commands._tables import new_table

    table = new_table("noise", "type", "total variance", "effective dimensionality")
    for name, noise in noises.items():
        size = f"{noise.effective_dimensionality():.4g}"
        table.add_row(name.replace("_", " "), type(noise).__name__, f"{noise.trace():.4g}", size)
    return table


def _loudness(target: "xr.DataArray", layer: str, trace: float) -> str:
    """How the noise compares with the signal, which it may drown."""
    signal = float(target.mean("repeat").var("stimulus").mean())
    said = f"Variance a unit: {signal:.3g} of the signal of {layer}, {trace:.3g} of the noise"
    if trace <= LOUD * signal:
        return said
    return f"{said}, which drowns the signal in the statistics below; --trace {signal:.2g} makes both alike"


def _write(noises: "Controls", output: Path) -> list[Path]:
    output.mkdir(parents=True, exist_ok=True)
    for name in noises.left_out:  # of an earlier run, and not a control of this noise
        (output / f"{name}.safetensors").unlink(missing_ok=True)
    paths = [output / f"{name}.safetensors" for name in noises]
    for noise, path in zip(noises.values(), paths):
        noise.save(path)
    return paths


def _compare(
    what: str, cortex: "xr.DataArray", layer: str, target: "xr.DataArray", noise: Any, output: Path, seed: int
) -> tuple[Path, ...]:
    """The recording beside the layer with its noise, with as many stimuli, repeats and units."""
    from neurovar import noise as methods
    from neurovar.cli.commands import _compare as comparing

    n_repeats = int(cortex.notnull().any("unit").sum("repeat").median())
    shown = target.isel(stimulus=slice(cortex.sizes["stimulus"]))
    noisy = methods.noisy_responses(shown, noise, n_repeats=n_repeats, max_units=cortex.sizes["unit"], rng=seed)
    systems = {Path(what).stem: cortex, f"{layer} with its noise": noisy}
    table = comparing.measured(systems, ranks=None, match=(), n_resamples=20, seed=seed, jobs=1)
    comparing.show(table)
    return comparing.write(table, systems, output / "statistics", seed=seed)
