"""List a network's layers."""

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from neurovar.networks._layers import Hook, forward_hooks
from neurovar.networks.activations._passes import Streams, buffers_kept

# Batch norm in training mode refuses a single value per channel.
N_SHOWN = 2
WITHIN = "name a layer that contains it"
INSIDE = "name a layer inside or after it"


def layers(model: nn.Module, example: Tensor | Sequence[int]) -> pd.DataFrame:
    """The layers of a network, in the order of `model.named_modules()`, from one forward pass.

    Parameters
    ----------
    model : torch.nn.Module
        Any network; it is left as it was.
    example : torch.Tensor or sequence of int
        A batch of inputs, or the shape of one input without the batch, such as (3, 224, 224), for zeros.

    Returns
    -------
    pandas.DataFrame
        A row a layer: `layer` (its name), `type`, `shape` (of its output for one stimulus; None where there is none),
        `units`, `fires` (times in a forward pass) and `note`: empty where it can be recorded, else why not and what to
        name instead.

    Raises
    ------
    ValueError
        If the network does not take such an input.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    >>> layers(model, (3, 8, 8))[["layer", "type", "shape", "units"]]
      layer     type      shape  units
    0     0   Conv2d  (8, 6, 6)    288
    1     1     ReLU  (8, 6, 6)    288
    2     2  Flatten     (288,)    288
    3     3   Linear      (10,)     10
    """
    # Zeros are of the type and on the device of the first floating-point parameter.
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    if isinstance(example, Tensor):
        inputs = example.to(parameter.device, copy=True)
    else:
        inputs = torch.zeros(N_SHOWN, *example, device=parameter.device, dtype=parameter.dtype)
    outputs: dict[str, list[Tensor | str]] = {name: [] for name, _ in model.named_modules() if name}
    hooks = {name: _noting(given) for name, given in outputs.items()}
    with Streams(model, 0).current(), buffers_kept(model), torch.no_grad(), forward_hooks(model, hooks):
        try:
            model(inputs)
        except Exception as error:  # whatever someone's network raises
            shape = tuple(inputs.shape[1:])
            message = str(error).strip() if isinstance(error, RuntimeError | ValueError) else repr(error)
            raise ValueError(
                f"expected an input that {type(model).__name__} takes, got shape {shape} ({message})"
            ) from error
    modules = dict(model.named_modules())
    rows = [_row(name, type(modules[name]).__name__, given, len(inputs)) for name, given in outputs.items()]
    return pd.DataFrame(rows, columns=["layer", "type", "shape", "units", "fires", "note"])


def _noting(given: list[Tensor | str]) -> Hook:
    """A hook that keeps what an output is, not its values."""

    def note(module: nn.Module, args: object, output: object) -> None:
        # A tensor on the device "meta" has a shape and a type, and takes no memory.
        given.append(torch.empty_like(output, device="meta") if isinstance(output, Tensor) else type(output).__name__)

    return note


def _row(name: str, kind: str, given: list[Tensor | str], n: int) -> tuple[object, ...]:
    output = given[0] if given else None
    shape = tuple(output.shape[1:]) if isinstance(output, Tensor) and output.ndim else None
    return name, kind, shape, 0 if shape is None else math.prod(shape), len(given), _note(given, n)


def _note(given: list[Tensor | str], n: int) -> str:
    """Why a layer cannot be recorded, and what to do."""
    if not given:
        return f"never fires: {WITHIN}, or one that it contains"
    if len(given) > 1:
        return f"fires {len(given)} times: {WITHIN}, or give each use a module of its own"
    output = given[0]
    if not isinstance(output, Tensor):
        return f"gives {output}: {INSIDE}"
    if not output.is_floating_point():
        return f"gives {str(output.dtype).removeprefix('torch.')}: {INSIDE}"
    if output.ndim not in (2, 3, 4):
        return f"gives {output.ndim} axes, not 2 to 4: {INSIDE}"
    if len(output) != n:
        return f"gives {len(output)} rows for {n} stimuli: {WITHIN}"
    return ""
