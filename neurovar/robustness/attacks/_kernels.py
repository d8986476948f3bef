"""Three operations that PyTorch computes slowly on a CPU, with the same values, to rounding, from faster ones.

They were two thirds of a step of PGD on the small network: the gradient of the first convolution half of it, 2 × 2
max-pooling and tanh a third. `Objective` uses them in its gradient passes only.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LANES = 16
"""Output channels that a convolution computes at the cost of one, roughly."""


class FastGradients(TorchFunctionMode):
    """Within it, convolutions of images, 2 × 2 max-pooling and tanh on a CPU have fast gradients in their input.

    Convolutions have none in their weights, so that it serves only where nobody asks for those.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and len(args) == 7 and _is_image_convolution(*args):  # as modules call it
            return _ImageConvolution.apply(*args[:3], args[4])
        if func is F.max_pool2d and _is_halving(*args, **kwargs):
            return _Halving.apply(args[0])
        if func is torch.tanh and not kwargs and _is_plain(args[0]) and args[0].dtype == torch.float32:
            return _Tanh.apply(*args)
        return func(*args, **kwargs)


def _is_image_convolution(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: object,
    padding: object,
    dilation: object,
    groups: int,
) -> bool:
    """Of few channels, at every pixel, with less padding than the kernel and weights that no image has a part in."""
    plain = stride == (1, 1) and dilation == (1, 1) and groups == 1
    given = weight.grad_fn is None and (bias is None or bias.grad_fn is None)
    inside = isinstance(padding, tuple) and all(p < size for p, size in zip(padding, weight.shape[2:]))
    return plain and inside and given and _is_plain(images) and _blocks(images.shape) > 1


def _is_plain(x: Tensor) -> bool:
    return x.requires_grad and x.device.type == "cpu" and x.ndim == 4 and not torch.is_autocast_enabled("cpu")


def _blocks(shape: Sequence[int]) -> int:
    """The side of the squares of pixels that are computed as channels: 1 where it does not pay."""
    _, channels, rows, columns = shape
    sides = (r for r in (4, 2) if channels * r * r <= LANES and rows % r == columns % r == 0)
    return next(sides, 1)


class _ImageConvolution(torch.autograd.Function):
    """torch.conv2d, stride 1.

    Its gradient in the images is a convolution of the output's gradient with the flipped kernel, which has as few
    output channels as the images have, where a CPU computes 16 at the cost of one. So each square of r × r pixels
    becomes r² channels of a convolution of stride r, whose kernel is the flipped one at r² places.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.padding, ctx.side = padding, _blocks(images.shape)
        return torch.conv2d(images, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,), r = ctx.saved_tensors, ctx.side
        flipped = weight.flip(2, 3).transpose(0, 1)
        places = torch.eye(r * r, dtype=weight.dtype).view(1, r * r, r, r)
        placed = F.conv_transpose2d(flipped.flatten(0, 1)[:, None], places)
        kernel = placed.unflatten(0, flipped.shape[:2]).transpose(1, 2).flatten(0, 1)
        padding = [size - 1 - padded for size, padded in zip(weight.shape[2:], ctx.padding)]
        return F.pixel_shuffle(torch.conv2d(gradient, kernel, stride=r, padding=padding), r), None, None, None


def _is_halving(
    x: Tensor,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> bool:
    """2 × 2 without overlap or remainder. Channels-last tensors are fast as they are."""
    plain = not return_indices and _is_pair(dilation, 1) and _is_pair(padding, 0)
    halves = _is_pair(kernel_size, 2) and _is_pair(stride or 2, 2)
    return plain and halves and _is_plain(x) and x.is_contiguous() and x.shape[2] % 2 == x.shape[3] % 2 == 0


def _is_pair(value: object, wanted: int) -> bool:
    return value in (wanted, (wanted, wanted), [wanted, wanted])


class _Halving(torch.autograd.Function):
    """Max-pooling, 2 × 2: of columns, then of rows; of equals the first gets the gradient, as in PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        left, right = x[..., 0::2], x[..., 1::2]
        wider = torch.maximum(left, right)
        upper, lower = wider[..., 0::2, :], wider[..., 1::2, :]
        ctx.save_for_backward(left >= right, upper >= lower)
        return torch.maximum(upper, lower)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        is_left, is_upper = ctx.saved_tensors
        # Back through the rows first, since they were pooled last.
        by_row = _shared_out(gradient, is_upper, dim=2)
        return _shared_out(by_row, is_left, dim=3)


def _shared_out(gradient: Tensor, to_first: Tensor, *, dim: int) -> Tensor:
    """Each number to the first or the second of a pair along a dimension; the other gets 0."""
    shape = list(gradient.shape)
    shape[dim] *= 2
    shared = gradient.new_empty(shape)
    first, second = shared.unflatten(dim, (-1, 2)).unbind(dim + 1)
    torch.mul(gradient, to_first, out=first)
    torch.sub(gradient, first, out=second)
    return shared


class _Tanh(torch.autograd.Function):
    """(e^2x − 1) / (e^2x + 1) from expm1, within 3 units in the last place; where e^2x would overflow it is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        # e^80 is still finite in float32, and tanh(40) is 1 to rounding.
        grown = torch.mul(x, 2).clamp_(max=80).expm1_()
        result = grown.div_(grown + 2)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(gradient, result)
