"""Record a network's layers, in memory."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from torch import nn

from neurovar.networks.activations._batches import batches, read
from neurovar.networks.activations._iterating import unit_rng
from neurovar.networks.activations._passes import Modifications, Passes, deterministic, joined, origin
from neurovar.networks.activations._units import Layer, Units
from neurovar.responses import DIMS


def record(
    model: nn.Module,
    images: xr.DataArray,
    *,
    layers: Sequence[str | Layer],
    rng: np.random.Generator | int,
    n_repeats: int = 1,
    modifications: Modifications | None = None,
    batch_size: int = 64,
    advance: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Responses of named layers to images, in memory; `stream` writes those that are larger.

    Repeats come from stochastic passes (dropout, injected noise: `n_repeats` of them, in the mode that the model is
    in) or from modifications: each of `modifications` makes one repeat. The model's own randomness is seeded from
    `rng`; the model, its buffers and torch's global state are left as they were.

    Parameters
    ----------
    model : torch.nn.Module
        Any module that takes (batch, channel, row, column).
    images : xarray.DataArray
        (stimulus, channel, row, column), values as the model takes them, with stimulus ids.
    layers : sequence of str or Layer
        Names as in `model.named_modules()`, which `layers` lists; a `Layer` says which units to keep of one.
    rng : numpy.random.Generator or int
        Seeds the repeats and draws the units that are kept.
    n_repeats : int, optional
        Passes over every image (over every modification, if there are any).
    modifications : sequence of Modification, or mapping of str to callable, optional
        Each makes a repeat, labelled by its `label` or name: values such as `MotionBlur(3)`, or functions
        (images, generator=…) → images. They may use the network and its gradients, as attacks do.
    batch_size : int, optional
        Images in a forward pass.
    advance : callable, optional
        Called with the number of images done, for a progress bar.

    Returns
    -------
    xarray.DataArray
        (stimulus, repeat, unit), float32 (float64 where a layer gives it), with `layer`, `channel`, `row`, `column`
        (and `token` where a layer has tokens) on unit and `modification` on repeat. attrs["repeats_from"] says where
        repeats come from: what the modifications say ("modifications", if nothing else), or what makes the passes
        stochastic: "dropout", "injected noise" (`inject`), else "stochastic passes"; "none" for one pass.

    Raises
    ------
    ValueError
        For an unknown layer (listing the near ones), no layers or one named twice, images of the wrong form, a layer
        that fires not once, an output that is no floating tensor, modifications of the same label, or several repeats
        of a deterministic network.

    Examples
    --------
    >>> import torch
    >>> from neurovar.networks import IMAGE_DIMS, Brightness
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Tanh())
    >>> images = xr.DataArray(np.ones((5, 1, 2, 2), np.float32), dims=IMAGE_DIMS, coords={"stimulus": range(5)})
    >>> recorded = record(model, images, layers=["2"], modifications=[Brightness(1), Brightness(2)], rng=0)
    >>> recorded.shape, recorded["modification"].values.tolist()
    ((5, 2, 3), ['brightness 1', 'brightness 2'])
    """
    batches(images, batch_size=batch_size)
    images = xr.DataArray(images.variable, {"stimulus": images["stimulus"].variable})
    rng = np.random.default_rng(rng)
    passes = Passes(model, Units(layers, unit_rng(rng)), modifications, n_repeats, rng)
    values = np.stack(
        [_one_repeat(passes, repeat, images, batch_size, advance) for repeat in range(len(passes.labels))], axis=1
    )
    if not modifications and n_repeats > 1 and (values == values[:, :1]).all():
        raise deterministic(n_repeats)
    coords = {"stimulus": images["stimulus"].values, "modification": ("repeat", passes.labels), **passes.units.coords()}
    attrs = {
        "units": "activation",
        "source": type(model).__name__,
        "repeats_from": origin(model, modifications, n_repeats),
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
