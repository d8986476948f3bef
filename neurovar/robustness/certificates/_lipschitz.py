"""How much the first layers of a network can stretch a perturbation, at most."""

from collections.abc import Iterator, Sequence
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from neurovar.networks import check_evaluation_mode, halves

_CONTRACTING = (nn.Flatten, nn.Identity, nn.ReLU, nn.Tanh, nn.Dropout)
"""Modules that bring no two inputs further apart (in eval mode)."""


def lipschitz_bound(model: nn.Sequential, *, layer: str, shape: Sequence[int]) -> float:
    """An upper bound of the Lipschitz constant (L2 → L2) of the layers up to and including `layer`.

    ‖f(x) − f(x')‖₂ ≤ L ‖x − x'‖₂, with L the product of each layer's own bound: the largest singular value of a linear
    layer; for a convolution that of the same kernel on a torus large enough that nothing wraps around, of which zero
    padding, stride and the image's borders take away rows and columns only; √(windows that share a pixel) for
    max-pooling; 1 for tanh, ReLU, flattening and dropout. A product ignores that layers stretch different directions,
    so that the true constant is smaller, often several times.

    Parameters
    ----------
    model : torch.nn.Sequential
        In evaluation mode; only the modules above may stand before the noise.
    layer : str
        A direct child of the model.
    shape : sequence of int
        Of one input, (channel, row, column).

    Returns
    -------
    float
        The bound.

    Raises
    ------
    ValueError
        For a model of which any part is in training mode, or a module or an option that the bound does not cover; state
        a constant of your own then.

    References
    ----------
    Product of norms: Szegedy et al. 2014, arXiv:1312.6199. Convolutions on a torus: Sedghi, Gupta, Long 2019,
    arXiv:1805.10408

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2)).eval()
    >>> _ = model[1].weight.data.copy_(torch.eye(3, 4) * 2)
    >>> lipschitz_bound(model, layer="2", shape=(1, 2, 2))
    2.0
    """
    if type(model) is not nn.Sequential:
        raise ValueError(f"expected a torch.nn.Sequential, which runs as it is built, got {type(model).__name__}")
    check_evaluation_mode(model)
    front, _ = halves(model, layer)
    signal = torch.zeros(1, *shape, dtype=next(model.parameters()).dtype, device=next(model.parameters()).device)
    # Sizes of the signal are needed as convolutions are bounded on a torus of the image's size.
    bounds = []
    with torch.no_grad():
        for module in _leaves(front):
            bounds.append(_bound(module, signal.shape[2:]))
            signal = module(signal)
    return prod(bounds)


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """What runs, in order."""
    if type(module) is nn.Sequential:
        for child in module:
            yield from _leaves(child)
    else:
        yield module


def _bound(module: nn.Module, size: Sequence[int]) -> float:
    """Of one module, for inputs of `size` (row, column); of no subclass, since it may do something else."""
    kind = type(module)
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        return float(torch.linalg.matrix_norm(module.weight.double(), ord=2))
    if isinstance(module, nn.Conv2d) and kind is nn.Conv2d and module.padding_mode == "zeros":
        return _of_convolution(module, size)
    if isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d and _pair(module.dilation) == (1, 1):
        windows = [ceil(kernel / step) for kernel, step in zip(_pair(module.kernel_size), _pair(module.stride))]
        return prod(windows) ** 0.5
    if kind in _CONTRACTING:
        return 1.0
    known = "Linear, Conv2d (zero padding), MaxPool2d (no dilation), " + ", ".join(
        kind.__name__ for kind in _CONTRACTING
    )
    raise ValueError(f"expected only {known} before the noise, got {module}; state a Lipschitz constant of your own")


def _of_convolution(module: nn.Conv2d, size: Sequence[int]) -> float:
    """The largest singular value of the kernel's transfer matrices (output × input channels), over all frequencies."""
    kernel = module.weight.double().unflatten(0, (module.groups, -1))
    reach = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size)]
    spread = kernel.new_zeros(*kernel.shape[:3], *reach)
    spread[..., :: module.dilation[0], :: module.dilation[1]] = kernel
    torus = [n + r - 1 for n, r in zip(size, reach)]
    transfer: Tensor = torch.fft.rfft2(spread, s=torus).movedim((1, 2), (-2, -1))
    return float(torch.linalg.matrix_norm(transfer, ord=2).max())
