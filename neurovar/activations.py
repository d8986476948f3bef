"""Record a network's layers as responses (stimulus, repeat, unit)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from neurovar import _layers
from neurovar.responses import DIMS

IMAGE_DIMS = ("stimulus", "channel", "row", "column")
Modification = Callable[[Tensor, torch.Generator], Tensor]


def record(
    model: nn.Module,
    images: xr.DataArray,
    *,
    layers: Sequence[str],
    rng: np.random.Generator | int,
    n_repeats: int = 1,
    modifications: Mapping[str, Modification] | None = None,
    max_units: int | None = None,
    batch_size: int = 64,
    repeats_from: str | None = None,
    advance: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Responses of named layers to images.

    Repeats come from stochastic passes (dropout, injected noise: `n_repeats` of them, in the mode that the model is
    in) or from modifications: each of `modifications` makes one repeat. The model's own randomness is seeded from
    `rng` and torch's global state is left as it was.

    Parameters
    ----------
    model : any module that takes (batch, channel, row, column).
    images : DataArray (stimulus, channel, row, column), values as the model takes them, with stimulus ids.
    layers : names as in `model.named_modules()`.
    n_repeats : passes over every image (over every modification, if there are any).
    modifications : name → function of (images, generator); see `modifications`.
    max_units : keep this many units of each layer, drawn at random without replacement.
    repeats_from : what attrs["repeats_from"] says, such as "adversarial responses" where the modifications are attacks;
        by default "modifications", or what makes the passes stochastic: "dropout", "injected noise"
        (`injection.inject`), else "stochastic passes"; "none" for one pass.
    advance : called with the number of images done, for a progress bar.

    Returns
    -------
    DataArray (stimulus, repeat, unit), float32, with `layer`, `channel`, `row`, `column` on unit and `modification`
    on repeat

    Raises
    ------
    ValueError : for an unknown layer (listing the near ones), no layers or one named twice, images of the wrong form,
        a layer that fires not once, an output that is no floating tensor, or several repeats of a deterministic
        network.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.Tanh())
    >>> images = xr.DataArray(np.ones((5, 1, 2, 2), np.float32), dims=IMAGE_DIMS, coords={"stimulus": range(5)})
    >>> record(model, images, layers=["2"], rng=0).sizes["unit"]
    3
    """
    _check_images(images)
    if n_repeats < 1:
        raise ValueError(f"expected at least 1 repeat, got {n_repeats}")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"expected at least one layer, and each once, got {list(layers)}")
    rng = np.random.default_rng(rng)
    keep = _Units(max_units, np.random.default_rng(rng.integers(2**63)))  # the same units whatever the repeats
    named = modifications or {"none": lambda batch, generator: batch}
    labels = [name for name in named for _ in range(n_repeats)]
    seeds = rng.integers(2**63, size=len(labels))
    passes = [
        _run(model, images.values, layers, named[label], int(seed), keep, batch_size, advance)
        for label, seed in zip(labels, seeds)
    ]
    values = np.stack(passes, axis=1)
    if not modifications and n_repeats > 1 and (values == values[:, :1]).all():
        raise ValueError(
            f"expected a stochastic network for {n_repeats} repeats, got the same responses each time; "
            "switch on its dropout with model.train(), inject noise, or give modifications"
        )
    coords = {"stimulus": images["stimulus"].values, "modification": ("repeat", labels), **keep.coords()}
    attrs = {
        "units": "activation",
        "source": type(model).__name__,
        "repeats_from": repeats_from or _origin(model, modifications, n_repeats),
    }
    return xr.DataArray(values, dims=DIMS, coords=coords, attrs=attrs)


def _origin(model: nn.Module, modifications: Mapping[str, Modification] | None, n_repeats: int) -> str:
    """Where repeats come from."""
    if modifications:
        return "modifications"
    if n_repeats == 1:
        return "none"
    modules = list(model.modules())
    dropout = any(isinstance(module, _DropoutNd) and module.training and module.p > 0 for module in modules)
    hooks = (hook for module in modules for hook in module._forward_hooks.values())
    injected = any(getattr(hook, "__module__", "") == "neurovar.injection" for hook in hooks)
    return " and ".join(["dropout"] * dropout + ["injected noise"] * injected) or "stochastic passes"


def _check_images(images: xr.DataArray) -> None:
    if images.dims != IMAGE_DIMS or "stimulus" not in images.coords or not images.size:
        got = f"dims {images.dims}, shape {images.shape}, coords {list(images.coords)}"
        raise ValueError(f"expected images with dims {IMAGE_DIMS} and stimulus ids, got {got}")
    if images.dtype != np.float32 or not np.isfinite(images.values).all():
        raise ValueError(f"expected finite float32 images, got {images.dtype} or NaN")


class _Units:
    """Which units of each layer are kept: drawn when the layer is first seen."""

    def __init__(self, max_units: int | None, rng: np.random.Generator) -> None:
        self.max_units, self.rng = max_units, rng
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kept: dict[str, np.ndarray] = {}

    def select(self, layer: str, output: Tensor) -> Tensor:
        if layer not in self.kept:
            self.shapes[layer] = tuple(output.shape[1:])
            n = int(np.prod(self.shapes[layer]))
            some = self.max_units is not None and self.max_units < n
            self.kept[layer] = np.sort(self.rng.choice(n, self.max_units, replace=False)) if some else np.arange(n)
        return output.flatten(1)[:, torch.from_numpy(self.kept[layer])]

    def coords(self) -> dict[str, tuple[str, np.ndarray]]:
        """Layer and position of each unit; row and column 0 where a layer has none."""
        position = np.concatenate(
            [np.array(np.unravel_index(kept, (*self.shapes[layer], 1, 1)[:3])).T for layer, kept in self.kept.items()]
        )
        layer = np.concatenate([np.repeat(layer, len(kept)) for layer, kept in self.kept.items()])
        named = dict(zip(("channel", "row", "column"), position.T))
        return {"layer": ("unit", layer), **{name: ("unit", values) for name, values in named.items()}}


def _run(
    model: nn.Module,
    images: np.ndarray,
    layers: Sequence[str],
    modification: Modification,
    seed: int,
    keep: _Units,
    batch_size: int,
    advance: Callable[[int], object] | None,
) -> np.ndarray:
    """One repeat: (stimulus, unit)."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    rows = []
    with torch.inference_mode(), torch.random.fork_rng(), _capture(model, layers) as captured:
        torch.manual_seed(seed)
        for start in range(0, len(images), batch_size):
            batch = torch.tensor(images[start : start + batch_size].copy(), device=device)
            model(modification(batch, generator))
            rows.append(torch.cat([keep.select(name, captured.pop(name)).float().cpu() for name in layers], dim=1))
            if advance:
                advance(len(batch))
    return torch.cat(rows).numpy()


@contextmanager
def _capture(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A dict that each forward pass fills with the outputs of `layers`."""
    captured: dict[str, Tensor] = {}

    def check_all(*_: object) -> None:
        missing = [name for name in layers if name not in captured]
        if missing:
            raise ValueError(f"expected layer {missing[0]!r} to fire once in a forward pass, got 0 times")

    with ExitStack() as stack:
        for name, module in _layers.find(model, layers).items():
            stack.callback(module.register_forward_hook(_keeper(name, captured)).remove)
        stack.callback(model.register_forward_hook(check_all).remove)
        yield captured


def _keeper(name: str, captured: dict[str, Tensor]) -> Callable[..., None]:
    def keep(module: nn.Module, args: object, output: object) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim not in (2, 3, 4):
            got = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"expected layer {name!r} to give floats (batch, channel[, row[, column]]), got {got}")
        if name in captured:
            raise ValueError(f"expected layer {name!r} to fire once in a forward pass, got twice")
        captured[name] = output.clone()  # a later layer may work in place

    return keep
