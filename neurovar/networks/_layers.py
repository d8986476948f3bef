"""Find a network's layers by name."""

from collections.abc import Iterable
from difflib import get_close_matches

from torch import nn


def find(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The submodules of `model` with these names, as in `model.named_modules()`.

    Raises
    ------
    ValueError : for an unknown name, listing the near ones.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    names = list(names)
    for name in names:
        if name not in modules:
            near = get_close_matches(name, modules, n=5, cutoff=0.3) or list(modules)[:5]
            raise ValueError(f"expected a layer of {type(model).__name__}, got {name!r}; near it: {', '.join(near)}")
    return {name: modules[name] for name in names}
