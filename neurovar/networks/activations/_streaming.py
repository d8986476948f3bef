"""Stream a network's activations to a Zarr store."""

import hashlib
import json
import os
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from neurovar import responses
from neurovar.networks.activations._batches import Shown, read
from neurovar.networks.activations._iterating import unit_rng
from neurovar.networks.activations._passes import Modifications, Passes, joined, origin
from neurovar.networks.activations._units import Layer, Units
from neurovar.networks.injection._hooks import has_noise
from neurovar.responses import DIMS


def stream(
    model: nn.Module,
    loader: Iterable[Any],
    path: str | os.PathLike[str],
    *,
    layers: Sequence[str | Layer],
    rng: int,
    n_repeats: int = 1,
    modifications: Modifications | None = None,
    generator: torch.Generator | None = None,
    chunk_bytes: int = responses.CHUNK_BYTES,
    advance: Callable[[int], object] | None = None,
) -> xr.DataArray:
    """Responses of named layers in a new Zarr store, which holds more than memory does; a killed run can go on.

    At any time a batch of inputs, its activations and one chunk are in memory. The store appears under its name when it
    is whole (see `responses.grow`). Run again after a kill, with the same loader and settings, it reads the batches
    that are done without showing them to the network, goes on with the next, and gives the same store, bit by bit, as
    far as the network itself gives the same numbers twice. A store that was begun with another network (architecture,
    mode, weights), other settings or other inputs is refused. Of a modification that is a function, and of a hook, only
    the name can be seen: that it does the same is for the caller to say.

    Parameters
    ----------
    model : torch.nn.Module
        Any module that takes a batch of inputs; they are moved to its device.
    loader : iterable
        Batches in the same order every time. A batch is a tensor (stimulus, …), a pair of it and labels, or a mapping:
        the tensor as "image" (or "images", "inputs", "pixel_values"), ids as "stimulus", and anything else that has a
        number or a text for each stimulus, which become coordinates of `stimulus`.
    path : str or os.PathLike
        The folder to write, where nothing is yet.
    layers : sequence of str or Layer
        Names as in `model.named_modules()`, which `layers` lists; a `Layer` says which units to keep of one.
    rng : int
        Seeds the repeats and draws the units that are kept.
    n_repeats : int, optional
        Passes over every batch (over every modification, if there are any).
    modifications : sequence of Modification, or mapping of str to callable, optional
        Each makes a repeat, labelled by its `label` or name: values such as `MotionBlur(3)`, or functions
        (images, generator=…) → images. They may use the network and its gradients, as attacks do.
    generator : torch.Generator, optional
        What injected noise draws from (`inject`), if there is any: its state is kept with the store, so that a run that
        goes on draws what comes next.
    chunk_bytes : int, optional
        Size of a chunk of the store, as `responses.grow` takes it; up to a chunk of activations is computed anew after
        a kill.
    advance : callable, optional
        Called with the number of stimuli done, also of those that an earlier run did.

    Returns
    -------
    xarray.DataArray
        (stimulus, repeat, unit), as `responses.open_zarr` gives it, labelled as by `record`.

    Raises
    ------
    ValueError
        For what `iterate` refuses; a store that is whole already or was begun with other settings; inputs that are not
        those with which it was begun; a network with injected noise and no `generator`.
    OSError
        If the disk is full; a run can go on from what is there.

    Examples
    --------
    >>> import tempfile
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh()).eval()
    >>> loader = [(torch.ones(8, 1, 2, 2), torch.arange(8))] * 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     opened = stream(model, loader, f"{folder}/tanh.zarr", layers=["2"], rng=0)
    >>> opened.sizes["stimulus"], opened.label.values[:10].tolist()
    (16, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1])
    """
    if not isinstance(rng, Integral):
        raise ValueError(f"expected rng to be an integer, so that a run can be repeated, got {type(rng).__name__}")
    seeded = np.random.default_rng(int(rng))
    passes = Passes(model, Units(layers, unit_rng(seeded)), modifications, n_repeats, seeded)
    attrs = {
        "units": "activation",
        "source": type(model).__name__,
        "repeats_from": origin(model, modifications, n_repeats),
    }
    if generator is None and has_noise(model):
        raise ValueError("expected the generator that the injected noise draws from, got none: its state is to be kept")
    noise_seed = generator.initial_seed() if generator else None
    settings = _settings(model, passes) | {"rng": int(rng), "noise": noise_seed}
    with responses.grow(path, settings=settings | attrs, chunk_bytes=chunk_bytes) as store:
        stimuli = _Stimuli()
        _write(store, passes, stimuli, read(loader), generator, attrs, advance)
        store.finish(stimuli.coords() | _unit_coords(passes), attrs | {"settings": json.dumps(settings)})
    return responses.open_zarr(path)


class _Stimuli:
    """Ids and labels of the stimuli so far, and a checksum of their inputs."""

    def __init__(self) -> None:
        self.n_batches, self.n, self.checksum = 0, 0, 0
        self.columns: dict[str, list[np.ndarray]] = {}

    def add(self, shown: Shown) -> None:
        self.n_batches, self.n = self.n_batches + 1, self.n + len(shown.inputs)
        for name, values in {"stimulus": shown.stimulus, **shown.labels}.items():
            self.columns.setdefault(name, []).append(values)
            self.checksum = zlib.crc32(repr(values.tolist()).encode(), self.checksum)
        # A CRC over everything shown so far finds a loader that shuffles or another data set at the cost of reading the
        # inputs once; it protects from mistakes, not from malice.
        inputs = shown.inputs.detach().cpu().contiguous()
        self.checksum = zlib.crc32(inputs.view(torch.uint8).numpy().data, self.checksum)

    def state(self) -> dict[str, int]:
        return {"batches": self.n_batches, "stimuli": self.n, "checksum": self.checksum}

    def check(self, begun: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError if an earlier run had seen others when it had seen as many batches."""
        for before in begun:
            if self.n_batches == before["batches"] and self.state() != {name: before[name] for name in self.state()}:
                raise self.others(before)

    def others(self, before: Mapping[str, Any]) -> ValueError:
        wanted = {name: before[name] for name in self.state()}
        return ValueError(
            f"expected the inputs, ids and batches with which this store was begun ({wanted}), got others "
            f"({self.state()}); a loader must not shuffle"
        )

    def coords(self) -> dict[str, tuple[str, np.ndarray]]:
        return {name: ("stimulus", np.concatenate(values)) for name, values in self.columns.items()}


def _write(
    store: responses.Growing,
    passes: Passes,
    stimuli: _Stimuli,
    batches: Iterator[Shown],
    generator: torch.Generator | None,
    attrs: Mapping[str, Any],
    advance: Callable[[int], object] | None,
) -> None:
    """Show the network every batch that is not on disk yet."""
    # What is on disk may be behind what was computed: the state of the last whole chunk, and of the last batch.
    begun = [state for state in (store.state, store.latest) if state]
    n_done = store.state["batches"] if store.state else 0
    if store.state:
        _restore(store.state, passes, generator)
    for shown in batches:
        stimuli.add(shown)
        stimuli.check(begun)
        if stimuli.n_batches > n_done:
            values = _values(passes, shown.inputs)
            # Once: what comes next has the form of what is there, or the store is refused before anything is added.
            if stimuli.n_batches == n_done + 1:
                coords = {
                    "stimulus": shown.stimulus,
                    **{name: ("stimulus", column) for name, column in shown.labels.items()},
                }
                store.check(xr.DataArray(values, coords | _unit_coords(passes), DIMS, attrs=dict(attrs)))
            store.append(values, stimuli.state() | _state(passes, generator))
        if advance:
            advance(len(shown.inputs))
    if begun and stimuli.n_batches < begun[-1]["batches"]:
        raise stimuli.others(begun[-1])


def _values(passes: Passes, inputs: Tensor) -> np.ndarray:
    """(stimulus, repeat, unit) of all layers."""
    return joined(list(passes.run_all(inputs).values()), dim=2).cpu().numpy()


def _unit_coords(passes: Passes) -> dict[str, tuple[str, Any]]:
    return {"modification": ("repeat", passes.labels), **passes.units.coords()}


def _state(passes: Passes, generator: torch.Generator | None) -> dict[str, Any]:
    """Where the random numbers are, and what the layers look like."""
    streams = [[b64encode(state).decode() for state in stream] for stream in passes.states()]
    own = b64encode(generator.get_state().numpy().tobytes()).decode() if generator else None
    return {"shapes": passes.units.shapes, "streams": streams, "generator": own}


def _restore(before: Mapping[str, Any], passes: Passes, generator: torch.Generator | None) -> None:
    for layer, shape in before["shapes"].items():
        passes.units.see(layer, tuple(shape))
    # An earlier run has seen that repeats differ.
    passes.must_differ = False
    passes.restore([[b64decode(state) for state in stream] for stream in before["streams"]])
    if generator and before["generator"]:
        generator.set_state(torch.frombuffer(bytearray(b64decode(before["generator"])), dtype=torch.uint8))


def _settings(model: nn.Module, passes: Passes) -> dict[str, Any]:
    """What decides the numbers beside the options, as far as it can be seen."""
    return {
        "network": type(model).__name__,
        "architecture": _digest([_described(model)]),
        "mode": _mode(model),
        "weights": _digest(_weights(model)),
        "device": passes.device.type,
        "torch": torch.__version__,
        "layers": [str(layer) for layer in passes.units.layers.values()],
        "modifications": passes.labels,
    }


def _mode(model: nn.Module) -> str:
    modes = [module.training for module in model.modules()]
    some = _digest(map(str, modes))
    return "training" if all(modes) else f"training in part, {some}" if any(modes) else "eval"


def _described(model: nn.Module) -> str:
    """The network as it prints itself, without addresses in memory."""
    # Without these addresses the same network has the same text in every process.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(model))


def _weights(model: nn.Module) -> Iterator[bytes | str]:
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterable[bytes | str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]
