"""Add covariance-structured noise to layers during forward passes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from neurovar import _layers
from neurovar.covariance import Covariance


@contextmanager
def inject(
    model: nn.Module, noises: Mapping[str, Covariance], *, generator: torch.Generator, draws: int = 1
) -> Iterator[nn.Module]:
    """Within this context every forward pass of `model` adds fresh noise to the outputs of the named layers.

    y = f(x) + e, e ~ N(0, C), an independent e for every image, draw and forward pass, in train and eval mode alike.
    No hook outlives the context, however it ends.

    Parameters
    ----------
    noises : layer name → covariance over the layer's flattened outputs. Empty: no noise.
    generator : source of all draws.
    draws : with K > 1, the batch is repeated K times at the first noisy layer, so that the layers before it run once;
        the model then returns K·batch rows, all images of draw 1 first: `logits.view(K, batch, -1)`.

    Raises
    ------
    ValueError : for an unknown layer (listing the near ones), a covariance of the wrong size, a layer that fires more
        than once or not at all, an output that is not floating point, several draws without noise, or with noise on
        parallel branches.

    Examples
    --------
    >>> import torch
    >>> from neurovar.covariance import Diagonal
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    >>> g = torch.Generator().manual_seed(0)
    >>> with inject(model, {"0": Diagonal.isotropic(3)}, generator=g, draws=5):
    ...     model(torch.zeros(4, 2)).shape
    torch.Size([20, 1])
    """
    if draws < 1 or (draws > 1 and not noises):
        raise ValueError(f"expected at least 1 draw, and 1 without noise, got {draws} with {len(noises)} noisy layers")
    fired: dict[str, int] = {}
    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(lambda *_: fired.clear()).remove)
        for name, module in _layers.find(model, noises).items():
            noise = _beside(model, noises[name])
            stack.callback(module.register_forward_hook(_adder(name, noise, generator, draws, fired)).remove)
        stack.callback(model.register_forward_hook(lambda *_: _check_fired(fired, noises)).remove)
        yield model


def _beside(model: nn.Module, noise: Covariance) -> Covariance:
    """The noise on the model's device; as it is where it is there, because a copy is factorised anew."""
    device = next((p.device for p in model.parameters()), noise.device)
    return noise if noise.device == device else noise.to(device=device)


def _check_fired(fired: Mapping[str, int], noises: Mapping[str, Covariance]) -> None:
    silent = [name for name in noises if name not in fired]
    if silent:
        raise ValueError(f"expected layer {silent[0]!r} to fire once in a forward pass, got 0 times: its noise is off")


def _adder(
    name: str, noise: Covariance, generator: torch.Generator, draws: int, fired: dict[str, int]
) -> Callable[..., Tensor]:
    def add(module: nn.Module, args: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            got = str(output.dtype) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"expected a floating tensor from layer {name!r}, got {got}")
        if name in fired:
            raise ValueError(f"expected layer {name!r} to fire once in a forward pass, got twice")
        units = output[0].numel() if len(output) else noise.n
        if units != noise.n:
            raise ValueError(f"expected a covariance over the {units} units of layer {name!r}, got {noise.n}")
        if draws > 1 and not fired:
            output = output.expand(draws, *output.shape).flatten(0, 1)
        rows = next(iter(fired.values()), len(output))
        if draws > 1 and len(output) != rows:
            raise ValueError(
                f"expected {rows} rows at layer {name!r}, after {list(fired)}, got {len(output)}; "
                "noise on parallel branches needs draws=1"
            )
        fired[name] = rows
        return output + noise.sample((len(output),), generator=generator).to(output).view_as(output)

    return add
