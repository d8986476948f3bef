"""The hooks that add noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from threading import get_ident
from types import MethodType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neurovar.covariance import AntitheticDraws, CoupledDraws, Covariance, FixedDraws, Sampler
from neurovar.networks._layers import batch_axis, find_layers, layer_activation, with_activation
from neurovar.networks.injection._repeating import repeated

When = Literal["train", "eval", "both"]
Source = Callable[[torch.device], Covariance | CoupledDraws | Sampler]
CELL = "; a cell fires at every time step: use nn.RNN, nn.GRU or nn.LSTM, or collect its states and name that layer"
SHARED = "; give each of its places a module of its own, or name a layer that fires once"


@dataclass(frozen=True)
class Options:
    """How noise is drawn, and when; see `inject`."""

    draws: int
    multiplicative: bool
    fixed: bool
    antithetic: bool
    when: When

    def check(self, n_layers: int) -> None:
        if self.draws < 1 or (self.draws > 1 and not n_layers):
            raise ValueError(
                f"expected at least 1 draw, and 1 without noise, got {self.draws} with {n_layers} noisy layers"
            )
        if self.antithetic and self.draws % 2:
            raise ValueError(f"expected an even number of draws, as antithetic ones are pairs, got {self.draws}")
        if self.when not in get_args(When):
            raise ValueError(f"expected when to be one of {', '.join(get_args(When))}, got {self.when!r}")


@dataclass
class Pass:
    """A forward pass under way: its source of draws, the model's mode, and how many rows each layer had."""

    generator: torch.Generator
    training: bool
    rows: dict[str, int] = field(default_factory=dict)


class Injection:
    """What the hooks on one network share. Each thread has its own forward pass."""

    def __init__(self, options: Options, sources: Mapping[str, Source], generator: torch.Generator) -> None:
        options.check(len(sources))
        self.options, self.sources, self.generator = options, dict(sources), generator
        self.open = True
        self.passes: dict[int, Pass | None] = {}
        self.most_images: dict[str, int] = {}

    def attach(self, model: nn.Module, *, wrap: Callable[[Any], Any] = lambda hook: hook) -> list[RemovableHandle]:
        """Set the hooks; `wrap` changes the functions that they call."""
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        root = cast(nn.Module, model.module) if parallel else model  # whose copies, in their threads, have own passes
        layers = find_layers(model, self.sources)
        # Methods of classes, wrapped before they are bound: `torch.compiler.disable` takes functions, and a deep copy
        # of the network copies what a `MethodType` is bound to, so that the copy's hooks are its own.
        begin, end, add = (wrap(function) for function in (Injection.begin, Injection.end, NoisyLayer.add))
        return [
            # The first hook opens the pass and the last one closes it; the layers' hooks in between find it by their
            # thread, as several threads may run one network, each with a pass of its own.
            root.register_forward_pre_hook(MethodType(begin, self)),
            *(
                module.register_forward_hook(MethodType(add, NoisyLayer(name, self.sources[name], self)))
                for name, module in layers.items()
            ),
            root.register_forward_hook(MethodType(end, self)),
        ]

    def begin(self, model: nn.Module, args: object) -> None:
        options = self.options
        if getattr(model, "_is_replica", False) and (options.draws > 1 or options.fixed):
            raise ValueError(
                "expected single fresh draws on a network that is spread over devices, each with a part of the batch, "
                f"got draws={options.draws}, fixed={options.fixed}"
            )
        # The mode of the whole model, and not of the layer: batch normalisation is often left in evaluation mode while
        # the rest trains.
        on = self.open and (options.when == "both" or (options.when == "train") == model.training)
        # A pass under a fixed draw starts where the first one did.
        generator = self.generator.clone_state() if options.fixed else self.generator
        self.passes[get_ident()] = Pass(generator, model.training) if on else None

    def end(self, model: nn.Module, args: object, output: object) -> None:
        done = self.passes.pop(get_ident(), None)
        silent = [name for name in self.sources if name not in done.rows] if done else []
        if silent:
            raise ValueError(
                f"expected layer {silent[0]!r} to fire once in a forward pass, got 0 times: its noise is off"
            )


@dataclass
class NoisyLayer:
    """One noisy layer."""

    name: str
    source: Source
    injection: Injection

    def add(self, module: nn.Module, args: object, output: Any) -> Any:
        """The layer's output with noise; None, which leaves it as it is, where the noise is off."""
        if get_ident() not in self.injection.passes:
            raise ValueError(
                f"expected layer {self.name!r} to fire in a forward pass of the model that has the noise, "
                "got it called by itself"
            )
        under_way = self.injection.passes[get_ident()]
        if under_way is None:
            return None
        signal = layer_activation(output, self.name)
        axis = batch_axis(module, signal, self.name)
        if self.name in under_way.rows:
            why = CELL if isinstance(module, nn.RNNCellBase) else SHARED
            raise ValueError(f"expected layer {self.name!r} to fire once in a forward pass, got twice{why}")
        noise = self.source(signal.device)
        units = prod(signal.shape[:axis]) * prod(signal.shape[axis + 1 :])
        if units != noise.n:
            raise ValueError(f"expected a covariance over the {units} units of layer {self.name!r}, got {noise.n}")
        # At the first noisy layer alone: what comes after it has K · batch rows already.
        if self.injection.options.draws > 1 and not under_way.rows:
            output = repeated(module, output, self.injection.options.draws, self.name)
            signal = layer_activation(output, self.name)
        self._count(signal.shape[axis], under_way)
        if not signal.numel():
            return output
        return with_activation(output, self._noisy(noise, signal.movedim(axis, 0), under_way).movedim(0, axis))

    def _count(self, rows: int, under_way: Pass) -> None:
        expected = next(iter(under_way.rows.values()), rows)
        if self.injection.options.draws > 1 and rows != expected:
            raise ValueError(
                f"expected {expected} rows at layer {self.name!r}, after {list(under_way.rows)}, got {rows}; "
                "noise on parallel branches needs draws=1"
            )
        under_way.rows[self.name] = rows

    def _noisy(self, noise: Covariance | CoupledDraws | Sampler, signal: Tensor, under_way: Pass) -> Tensor:
        """signal (row, …) with noise."""
        if isinstance(noise, Sampler):
            added = noise.draw((len(signal),)).to(signal.device)
        else:
            added = self._drawn(noise, signal, under_way)
        added = added.to(signal.dtype).reshape(signal.shape)
        # x + x·e in one pass over the memory.
        return torch.addcmul(signal, signal, added) if self.injection.options.multiplicative else signal + added

    def _drawn(self, noise: Covariance | CoupledDraws, signal: Tensor, under_way: Pass) -> Tensor:
        """A draw for each row of the signal (row, unit)."""
        learned = noise.trainable
        if learned and under_way.training and not torch.is_grad_enabled():
            raise ValueError(
                f"expected gradients to be on in train mode, as the noise of layer {self.name!r} is learned, got "
                "no_grad or inference_mode; call model.eval()"
            )
        # Half precision would round the factors of C before they are multiplied, and what is rounded is no longer the
        # covariance that was asked for.
        with torch.autocast(signal.device.type, enabled=False):
            added = self._sample(noise, _states(noise, signal), under_way.generator)
        if learned and torch.is_grad_enabled() and not added.requires_grad:
            raise ValueError(
                f"expected a gradient to the learned noise of layer {self.name!r}, got draws of "
                f"{type(noise).__name__} without one"
            )
        return added

    def _sample(self, noise: Covariance | CoupledDraws, states: Tensor, generator: torch.Generator) -> Tensor:
        """A draw for each row of states (draw · image, unit)."""
        options = self.injection.options
        draws: Covariance | CoupledDraws = (
            AntitheticDraws(noise) if options.antithetic and isinstance(noise, Covariance) else noise
        )
        if options.fixed:
            images = len(states) // options.draws
            most = self.injection.most_images.setdefault(self.name, images)
            if images > most:
                raise ValueError(
                    f"expected at most {most} images at layer {self.name!r}, as in the first pass under a fixed draw, "
                    f"got {images}"
                )
            draws = FixedDraws(draws, options.draws, most)
        return draws.sample_at(states, generator=generator)


def _states(noise: Covariance | CoupledDraws, signal: Tensor) -> Tensor:
    """The activations (row, unit); zeros that take no memory for noise that does not look at them."""
    if noise.state_dependent:
        return signal.flatten(1).to(noise.dtype)
    return torch.zeros((), dtype=noise.dtype, device=signal.device).expand(len(signal), noise.n)


def has_noise(model: nn.Module) -> bool:
    """Whether `inject` or a `NoisyModule` adds noise at any layer."""
    hooks = (hook for module in model.modules() for hook in module._forward_hooks.values())
    return any(isinstance(getattr(hook, "__self__", None), NoisyLayer) for hook in hooks)
