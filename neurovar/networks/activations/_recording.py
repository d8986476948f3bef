"""Record a network's layers, in memory."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import nn

from neurovar.networks.activations._batches import batches, read
from neurovar.networks.activations._iterating import unit_rng
from neurovar.networks.activations._passes import Modifications, Passes, deterministic, joined, origin
from neurovar.networks.activations._units import Units
from neurovar.responses import DIMS


def record(
    model: nn.Module,
    images: xr.DataArray,
    *,
    layers: Sequence[str],
    rng: np.random.Generator | int,
    n_repeats: int = 1,
    modifications: Modifications | None = None,
    max_units: int | None = None,
    pool_space: bool = False,
    axes: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 64,
    repeats_from: str | None = None,
    advance: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Responses of named layers to images, in memory; `stream` writes those that are larger.

    Repeats come from stochastic passes (dropout, injected noise: `n_repeats` of them, in the mode that the model is
    in) or from modifications: each of `modifications` makes one repeat. The model's own randomness is seeded from
    `rng`; the model, its buffers and torch's global state are left as they were.

    Parameters
    ----------
    model : any module that takes (batch, channel, row, column).
    images : DataArray (stimulus, channel, row, column), values as the model takes them, with stimulus ids.
    layers : names as in `model.named_modules()`.
    n_repeats : passes over every image (over every modification, if there are any).
    modifications : name → function of (images, generator); see `modifications`.
    max_units : keep this many units of each layer, drawn at random without replacement.
    pool_space, axes : as for `iterate`.
    repeats_from : what attrs["repeats_from"] says, such as "adversarial responses" where the modifications are attacks;
        by default "modifications", or what makes the passes stochastic: "dropout", "injected noise"
        (`networks.inject`), else "stochastic passes"; "none" for one pass.
    advance : called with the number of images done, for a progress bar.

    Returns
    -------
    DataArray (stimulus, repeat, unit), float32 (float64 where a layer gives it), with `layer`, `channel`, `row`,
    `column` (and `token` where a layer has tokens) on unit and `modification` on repeat

    Raises
    ------
    ValueError : for an unknown layer (listing the near ones), no layers or one named twice, images of the wrong form,
        a layer that fires not once, an output that is no floating tensor, or several repeats of a deterministic
        network.

    Examples
    --------
    >>> import torch
    >>> from neurovar.networks import IMAGE_DIMS
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Tanh())
    >>> images = xr.DataArray(np.ones((5, 1, 2, 2), np.float32), dims=IMAGE_DIMS, coords={"stimulus": range(5)})
    >>> record(model, images, layers=["2"], rng=0).sizes["unit"]
    3
    """
    batches(images, batch_size=batch_size)
    images = xr.DataArray(images.variable, {"stimulus": images["stimulus"].variable})
    rng = np.random.default_rng(rng)
    units = Units(max_units, unit_rng(rng), pool_space=pool_space, axes=axes)
    passes = Passes(model, layers, units, modifications, n_repeats, rng)
    values = np.stack(
        [_one_repeat(passes, repeat, images, batch_size, advance) for repeat in range(len(passes.labels))], axis=1
    )
    if not modifications and n_repeats > 1 and (values == values[:, :1]).all():
        raise deterministic(n_repeats)
    coords = {"stimulus": images["stimulus"].values, "modification": ("repeat", passes.labels), **units.coords()}
    attrs = {
        "units": "activation",
        "source": type(model).__name__,
        "repeats_from": repeats_from or origin(model, modifications, n_repeats),
    }
    return xr.DataArray(values, dims=DIMS, coords=coords, attrs=attrs)


def _one_repeat(
    passes: Passes, repeat: int, images: xr.DataArray, batch_size: int, advance: Callable[[int], object] | None
) -> np.ndarray:
    """One pass over all images, (stimulus, unit): of a recording in memory, repeats are made one after the other."""
    rows = []
    for shown in read(batches(images, batch_size=batch_size)):
        rows.append(joined(list(passes.run(repeat, shown.inputs).values()), dim=1).cpu())
        if advance:
            advance(len(shown.inputs))
    return torch.cat(rows).numpy()
