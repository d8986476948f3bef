"""Forward passes that leave a network as it was, with random streams of their own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from neurovar.networks._layers import Hook, find_layers, forward_hooks
from neurovar.networks.activations._units import Units
from neurovar.networks.injection._hooks import has_noise
from neurovar.networks.modifications._base import Modification

# Values, or label → function (images, generator=…) → images.
Modifications = Sequence[Modification] | Mapping[str, Callable[..., Tensor]]


class Passes:
    """The repeats of every stimulus: each a modification with random streams that go on from batch to batch."""

    def __init__(
        self,
        model: nn.Module,
        units: Units,
        modifications: Modifications | None,
        n_repeats: int,
        rng: np.random.Generator,
    ) -> None:
        if n_repeats < 1:
            raise ValueError(f"expected at least 1 repeat, got {n_repeats}")
        self.model, self.layers, self.units = model, list(units.layers), units
        find_layers(model, self.layers)
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.named = named(modifications or {"none": _unmodified})
        self.labels = [name for name in self.named for _ in range(n_repeats)]
        # All seeds are drawn at once, so that a repeat's numbers do not depend on how many the others used.
        self.streams = [Streams(model, int(seed)) for seed in rng.integers(2**63, size=len(self.labels))]
        self.must_differ = not modifications and n_repeats > 1

    def run(self, repeat: int, inputs: Tensor) -> dict[str, Tensor]:
        """One repeat of a batch: layer → (stimulus, unit), on the model's device."""
        # In the first batch whole outputs are kept, and units drawn afterwards; later ones are cut down as they come.
        first = not self.units.kept
        modify, streams = self.named[self.labels[repeat]], self.streams[repeat]
        inputs = inputs.to(self.device, copy=True)  # the modification or the first layer may work in place
        # The modification is within these too: an attack runs the network, and may draw from torch's own generators.
        with streams.current(), buffers_kept(self.model):
            shown = modify(inputs, generator=streams.generator)
            with torch.no_grad(), _capture(self.model, self.layers, self.units, len(inputs)) as captured:
                self.model(shown)
        # units are drawn in the order of `layers`, not in that of firing
        return {layer: self.units.select(layer, captured[layer]) if first else captured[layer] for layer in self.layers}

    def run_all(self, inputs: Tensor) -> dict[str, Tensor]:
        """All repeats of a batch: layer → (stimulus, repeat, unit)."""
        outputs = [self.run(repeat, inputs) for repeat in range(len(self.labels))]
        stacked = {layer: joined([output[layer][:, None] for output in outputs], dim=1) for layer in self.layers}
        if self.must_differ and all((x == x[:, :1]).all() for x in stacked.values()):
            raise deterministic(len(self.labels))
        self.must_differ = False
        return stacked

    def states(self) -> list[list[bytes]]:
        """Where the random streams are."""
        return [streams.state() for streams in self.streams]

    def restore(self, states: Sequence[Sequence[bytes]]) -> None:
        for streams, state in zip(self.streams, states, strict=True):
            streams.restore(state)


def named(modifications: Modifications) -> Mapping[str, Callable[..., Tensor]]:
    """Modifications by their labels."""
    if isinstance(modifications, Mapping):
        return modifications
    by_label = {modification.label: modification for modification in modifications}
    if len(by_label) < len(modifications):
        raise ValueError(f"expected modifications that differ, got {', '.join(value.label for value in modifications)}")
    return by_label


def _unmodified(images: Tensor, *, generator: torch.Generator) -> Tensor:
    return images


def joined(parts: list[Tensor], *, dim: int) -> Tensor:
    """`torch.cat`, without a copy of what is alone."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def deterministic(n_repeats: int) -> ValueError:
    return ValueError(
        f"expected a stochastic network for {n_repeats} repeats, got the same responses each time; "
        "switch on its dropout with model.train(), inject noise, or give modifications"
    )


def origin(model: nn.Module, modifications: Modifications | None, n_repeats: int) -> str:
    """Where repeats come from: what the modifications say of themselves, or what makes the passes differ."""
    if modifications:
        values = named(modifications).values()
        return " and ".join(dict.fromkeys(getattr(value, "repeats_from", "modifications") for value in values))
    if n_repeats == 1:
        return "none"
    dropout = any(isinstance(module, _DropoutNd) and module.training and module.p > 0 for module in model.modules())
    # What else makes a network random cannot be seen.
    return " and ".join(["dropout"] * dropout + ["injected noise"] * has_noise(model)) or "stochastic passes"


class Streams:
    """The random numbers of one repeat: a generator for its modification, and torch's own for the network."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        devices = {t.device for t in chain(model.parameters(), model.buffers()) if t.device.type == "cuda"}
        # Dropout on a GPU draws from that GPU's own generator.
        gpus = sorted(device.index for device in devices)
        self.shared = [torch.default_generator, *(torch.cuda.default_generators[gpu] for gpu in gpus)]
        self.generator = torch.Generator().manual_seed(seed)
        self.at = [torch.Generator(shared.device).manual_seed(seed).get_state() for shared in self.shared]

    @contextmanager
    def current(self) -> Iterator[None]:
        """Within this context torch's own generators go on with this stream; outside they are as they were."""
        before = [shared.get_state() for shared in self.shared]
        try:
            for shared, state in zip(self.shared, self.at):
                shared.set_state(state)
            yield
            self.at = [shared.get_state() for shared in self.shared]
        finally:
            for shared, state in zip(self.shared, before):
                shared.set_state(state)

    def state(self) -> list[bytes]:
        return [state.numpy().tobytes() for state in (self.generator.get_state(), *self.at)]

    def restore(self, state: Sequence[bytes]) -> None:
        own, *shared = (torch.frombuffer(bytearray(kept), dtype=torch.uint8) for kept in state)
        self.generator.set_state(own)
        self.at = shared


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Put buffers, such as the running statistics of batch norm, back as they were."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in kept:
                # The same tensor gets its old values, and takes its place again where a pass has put another one.
                buffer.copy_(value)
                module._buffers[name] = buffer


@contextmanager
def _capture(model: nn.Module, layers: Sequence[str], units: Units, n: int) -> Iterator[dict[str, Tensor]]:
    """A dict that the forward pass of a batch of `n` fills with what is kept of `layers`, at first with all of it."""
    captured: dict[str, Tensor] = {}

    def check_all(*_: object) -> None:
        missing = [name for name in layers if name not in captured]
        if missing:
            raise ValueError(
                f"expected layer {missing[0]!r} to fire once in a forward pass, got 0 times; "
                "activations.layers says which do (of a compiled network: record before torch.compile)"
            )

    keepers = {name: _keeper(name, captured, units, n) for name in layers}
    with forward_hooks(model, {**keepers, "": check_all}):
        yield captured


def _keeper(layer: str, captured: dict[str, Tensor], units: Units, n: int) -> Hook:
    def keep(module: nn.Module, args: object, output: object) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim not in (2, 3, 4):
            got = f"{output.dtype} {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"expected layer {layer!r} to give floats (batch, channel[, row[, column]]), got {got}")
        if layer in captured:
            raise ValueError(f"expected layer {layer!r} to fire once in a forward pass, got twice")
        if len(output) != n:
            raise ValueError(f"expected layer {layer!r} to give a row for each of {n} stimuli, got {len(output)} rows")
        captured[layer] = units.select(layer, output) if layer in units.kept else output.clone()

    return keep
