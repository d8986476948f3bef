"""Open a network by name: torchvision's, timm's, one of neurovar's, or one of your own."""

import os
import pickle
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from neurovar.networks.training._network import small_network
from neurovar.networks.zoo._efficientnet import efficientnet_lite0

OWN = ("efficientnet_lite0", "small")
FORMS = f"{', '.join(OWN)}, torchvision:NAME, timm:NAME or PACKAGE.MODULE:FACTORY"


def load(name: str, *, weights: str | os.PathLike[str] | None = None, rng: int = 0) -> nn.Module:
    """The network called `name`, in evaluation mode. Nothing is downloaded.

    Parameters
    ----------
    name : str
        "efficientnet_lite0" (with ImageNet weights, from the extra `pretrained`), "small" (`small_network`),
        "torchvision:resnet50", "timm:resnet18" (of an installed torchvision or timm), or "package.module:factory",
        which is imported: a module, or a function or class without arguments that makes one.
    weights : str or os.PathLike, optional
        A file of parameters, .safetensors or what `torch.save` made of a state dict; it is never unpickled beyond
        tensors. Without it, torchvision's and timm's networks and "small" have random weights.
    rng : int, optional
        Draws random weights.

    Returns
    -------
    torch.nn.Module
        The network.

    Raises
    ------
    ValueError
        For an unknown name (listing the near ones), a package that is not installed or cannot be imported, a factory
        that fails or makes no `torch.nn.Module`, or weights that cannot be read or belong to another network.

    Examples
    --------
    >>> type(load("small")).__name__, type(load("torch.nn:Flatten")).__name__
    ('Sequential', 'Flatten')
    >>> load("smal")
    Traceback (most recent call last):
    ...
    ValueError: expected efficientnet_lite0, small, torchvision:NAME, timm:NAME or PACKAGE.MODULE:FACTORY, got 'smal'; \
near it: small
    """
    # Networks draw their weights from torch's default generator, on the CPU; other devices are not asked, since only to
    # look at them starts CUDA.
    with torch.random.fork_rng(devices=[]):
        make = _factory(name, rng)  # which may import a module that draws random numbers
        torch.default_generator.manual_seed(int(rng))
        network = make()
    if not isinstance(network, nn.Module):
        raise ValueError(f"expected {name!r} to be or to make a torch.nn.Module, got {type(network).__name__}")
    if weights is not None:
        _fill(network, name, Path(weights))
    return network.eval()


def input_shape(name: str, network: nn.Module) -> tuple[int, ...] | None:
    """The shape of one input of a network that `load` gave.

    Parameters
    ----------
    name : str
        What it was loaded by.
    network : torch.nn.Module
        The network; timm's know their shape.

    Returns
    -------
    tuple of int or None
        (channel, row, column), or None where it is not known.

    Examples
    --------
    >>> input_shape("small", load("small"))
    (1, 28, 28)
    """
    origin = name.partition(":")[0]
    if origin == "timm":
        return tuple(getattr(network, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    return {"small": (1, 28, 28), "efficientnet_lite0": (3, 224, 224), "torchvision": (3, 224, 224)}.get(origin)


def _factory(name: str, rng: int) -> Callable[[], Any]:
    """What makes the network."""
    origin, _, member = name.partition(":")
    if not member:
        if name not in OWN:
            raise _unknown(FORMS, name, OWN)
        return efficientnet_lite0 if name == "efficientnet_lite0" else partial(small_network, rng=rng)
    if origin == "torchvision":
        models = _imported("torchvision.models")
        _check_listed(name, member, models.list_models())
        takes = signature(models.get_model_builder(member)).parameters
        # Builders of segmentation networks load the weights of their backbone unless they are told not to.
        without = {option: None for option in ("weights", "weights_backbone") if option in takes}  # nothing to download
        return partial(models.get_model, member, **without)
    if origin == "timm":
        timm = _imported("timm")
        _check_listed(name, member.partition(".")[0], timm.list_models())
        return partial(timm.create_model, member, pretrained=False)
    return partial(_from_module, _imported(origin), name, member)


def _check_listed(name: str, member: str, listed: Iterable[str]) -> None:
    if member not in listed:
        origin = name.partition(":")[0]
        raise _unknown(f"a network of {origin}", name, [f"{origin}:{network}" for network in listed])


def _from_module(module: ModuleType, name: str, member: str) -> Any:
    origin = module.__name__
    if not hasattr(module, member):
        factories = [key for key, value in vars(module).items() if callable(value) or isinstance(value, nn.Module)]
        raise _unknown(f"a factory in {origin}", name, [f"{origin}:{factory}" for factory in factories])
    factory = getattr(module, member)
    if isinstance(factory, nn.Module) or not callable(factory):
        return factory
    try:
        return factory()
    except Exception as error:  # whatever someone's factory raises
        raise ValueError(f"expected {name!r} to make a network without arguments, got {error!r}") from error


def _imported(package: str) -> ModuleType:
    try:
        return import_module(package)
    except Exception as error:  # a broken build of torchvision raises RuntimeError, a module of one's own anything
        # torchvision is compiled for one release of torch, and fails in ways of its own beside another.
        advice = ""
        if "torchvision" in f"{package} {error}":
            advice = f"; install the torchvision that goes with torch {torch.__version__}"
        elif isinstance(error, ModuleNotFoundError):
            advice = "; install it, or run this in the folder where it is"
        raise ValueError(f"expected a package {package!r} that can be imported, got: {error}{advice}") from error


def _unknown(wanted: str, name: str, known: Iterable[str]) -> ValueError:
    known = list(known)
    near = get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
    return ValueError(f"expected {wanted}, got {name!r}; near it: {', '.join(near) or 'none'}")


def _fill(network: nn.Module, name: str, path: Path) -> None:
    """Load a state dict, every key of which must fit."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of weights, found none")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            # Without `weights_only` a file could run code.
            state = torch.load(path, weights_only=True, map_location="cpu")
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        message = (str(error) or repr(error)).splitlines()[0]
        raise ValueError(f"{path}: expected weights that can be read, got: {message}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        kind = type(state).__name__
        got = f"keys such as {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else kind
        raise ValueError(f"{path}: expected a state dict (name → tensor), got {got}; save that part of it on its own")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise ValueError(f"{path}: expected the weights of {name}, got others: {lines[:300]}") from error
