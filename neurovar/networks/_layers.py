"""A network's layers: found by name, hooked within a context, and what they give."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

Hook = Callable[[nn.Module, Any, Any], Any]

# PyTorch's layers whose batch is their second dimension unless they say `batch_first`.
SEQUENCE_LAYERS = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)


def find_layers(model: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers of a network that have these names.

    Parameters
    ----------
    model : torch.nn.Module
        Any network.
    names : iterable of str
        Names as in `model.named_modules()`; the network itself, "", is no layer of itself.

    Returns
    -------
    dict of str to torch.nn.Module
        Name → layer, in the order asked for.

    Raises
    ------
    ValueError
        For an unknown name, listing the near ones.

    Examples
    --------
    >>> find_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), ["1"])
    {'1': Linear(in_features=4, out_features=3, bias=True)}
    """
    modules = {name: module for name, module in model.named_modules() if name}
    names = list(names)
    for name in names:
        if name not in modules:
            near = get_close_matches(name, modules, n=5, cutoff=0.3) or list(modules)[:5]
            raise ValueError(f"expected a layer of {type(model).__name__}, got {name!r}; near it: {', '.join(near)}")
    return {name: modules[name] for name in names}


@contextmanager
def forward_hooks(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Within this context layers call functions after each forward pass; no hook outlives it, however it ends.

    Compiled code passes by hooks that are new: hook a network before `torch.compile`, or within `inject`, which
    switches compiled code off.

    Parameters
    ----------
    model : torch.nn.Module
        Any network.
    hooks : mapping of str to callable
        Layer → function (module, inputs, output) that is called after the layer; what it returns takes the place of the
        output unless it is None. The name "" is the network itself.

    Raises
    ------
    ValueError
        For an unknown layer, listing the near ones.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> shapes = []
    >>> with forward_hooks(model, {"1": lambda module, inputs, output: shapes.append(output.shape)}):
    ...     output = model(torch.zeros(2, 1, 2, 2))
    >>> shapes
    [torch.Size([2, 3])]
    """
    # `named_modules` has the network itself under the name "".
    modules = {"": model} | find_layers(model, filter(None, hooks))
    with ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(modules[name].register_forward_hook(hook).remove)
        yield


def layer_activation(output: object, name: str) -> Tensor:
    """The tensor of a layer's output that counts as its activation, and that gets its noise.

    Parameters
    ----------
    output : object
        What the layer gave: a tensor, or a tuple whose first item is one (of an LSTM, its outputs and not its states).
    name : str
        The layer's name, for the error.

    Returns
    -------
    torch.Tensor
        The output itself, or its first item.

    Raises
    ------
    ValueError
        For anything else, or a tensor that is not floating point.

    Examples
    --------
    >>> import torch
    >>> layer_activation((torch.zeros(2), "state"), "lstm")
    tensor([0., 0.])
    """
    first = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(first, Tensor) or not first.is_floating_point() or not first.ndim:
        got = f"{first.dtype} {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"expected a floating tensor from layer {name!r}, or first in a tuple, got {got}")
    return first


def with_activation(output: object, activation: Tensor) -> object:
    """A layer's output with another tensor in the place of its activation.

    Parameters
    ----------
    output : object
        What the layer gave: a tensor, or a tuple whose first item is one.
    activation : torch.Tensor
        What takes its place.

    Returns
    -------
    object
        The tensor, or a tuple of the same type that begins with it.

    Examples
    --------
    >>> import torch
    >>> with_activation((torch.zeros(2), "state"), torch.ones(2))
    (tensor([1., 1.]), 'state')
    """
    if not isinstance(output, tuple):
        return activation
    # a named tuple takes its items one by one, and `_make` takes them all, as `tuple` itself does
    return getattr(type(output), "_make", type(output))((activation, *output[1:]))


def batch_axis(module: nn.Module, output: Tensor, name: str) -> int:
    """The dimension of a layer's activation that counts the images.

    Parameters
    ----------
    module : torch.nn.Module
        The layer.
    output : torch.Tensor
        Its activation.
    name : str
        Its name, for the error.

    Returns
    -------
    int
        1 for PyTorch's recurrent and transformer layers without `batch_first`, else 0.

    Raises
    ------
    ValueError
        If such a layer gives no batch of sequences, which has three dimensions.

    Examples
    --------
    >>> import torch
    >>> batch_axis(nn.Linear(4, 3), torch.zeros(2, 3), "readout")
    0
    """
    if not isinstance(module, SEQUENCE_LAYERS):
        return 0
    if output.ndim != 3:
        shape = tuple(output.shape)
        raise ValueError(f"expected a batch of sequences from layer {name!r}, three dimensions, got {shape}")
    return 0 if next(part.batch_first for part in module.modules() if hasattr(part, "batch_first")) else 1
