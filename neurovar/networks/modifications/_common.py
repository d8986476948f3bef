"""What every modification shares: checks, work in parts, zero padding of small images, random numbers."""

from collections.abc import Callable
from functools import wraps
from numbers import Integral, Real
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

SEVERITIES = range(1, 6)
LARGEST_SCALE = 2.0
SMALLEST_SIDE = 32
LUMA = (0.2989, 0.587, 0.114)
_NUMBERS_AT_ONCE = {"cpu": 2**18}  # fits the cache; elsewhere memory is what limits
_NUMBERS_ELSEWHERE = 2**24
# PyTorch fills tensors on the CPU with normals by 16, so that rows of whole groups do not depend on other rows.
_NORMALS_AT_ONCE = 16

Operation = TypeVar("Operation", bound=Callable[..., Tensor])


def corruption(*, smallest_side: int = SMALLEST_SIDE) -> Callable[[Operation], Operation]:
    """An ImageNet-C corruption: strength is a severity, images below `smallest_side` are padded with zeros to it."""

    def decorate(operate: Operation) -> Operation:
        @wraps(operate)
        def checked(images: Tensor, strength: int, *, generator: torch.Generator | None = None) -> Tensor:
            _check_severity(strength)
            check_images(images)
            frame = _frame(images, smallest_side)

            def operate_on(part: Tensor) -> Tensor:
                return F.pad(operate(F.pad(part, frame), strength, generator=generator), [-margin for margin in frame])

            return _in_parts(operate_on, images)

        return cast(Operation, checked)

    return decorate


def transformation(operate: Operation) -> Operation:
    """A modification whose strength is a scale s in (0, 2]."""

    @wraps(operate)
    def checked(images: Tensor, strength: float, *, generator: torch.Generator | None = None) -> Tensor:
        _check_scale(strength)
        check_images(images)
        return _in_parts(lambda part: operate(part, strength, generator=generator), images)

    return cast(Operation, checked)


def uniforms(images: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """(batch, n) numbers in [0, 1), the same for any batch size."""
    return _drawn(torch.rand, images, n, generator)


def normals(images: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    """(batch, n) standard normal numbers, the same for any batch size."""
    drawn = -(-n // _NORMALS_AT_ONCE) * _NORMALS_AT_ONCE
    return _drawn(torch.randn, images, drawn, generator)[:, :n]


def poisson(rates: Tensor, generator: torch.Generator | None) -> Tensor:
    """Counts of these rates (batch, …), the same for any batch size."""
    generator = _checked_generator(generator)
    here = rates.to(generator.device)
    if here.device.type == "cpu":
        return torch.poisson(here, generator=generator).to(rates.device)
    return torch.stack([torch.poisson(one, generator=generator) for one in here]).to(rates.device)


def luma(images: Tensor) -> Tensor:
    """(batch, 3, …) → (batch, 1, …): 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = LUMA
    return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]


def check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"expected images as a floating-point tensor, got {kind}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"expected images of shape (batch, 1 or 3 channels, row, column), got shape {tuple(images.shape)}"
        )
    low, high = (float(extreme) for extreme in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"expected pixels in [0, 1], got values from {low:.4g} to {high:.4g}")


def _check_severity(strength: object) -> None:
    if isinstance(strength, bool) or not isinstance(strength, Integral) or strength not in SEVERITIES:
        raise ValueError(f"expected a strength that is an integer severity from 1 to 5, got {strength!r}")


def _check_scale(strength: object) -> None:
    if isinstance(strength, bool) or not isinstance(strength, Real) or not 0 < float(strength) <= LARGEST_SCALE:
        raise ValueError(f"expected a strength s that is a number with 0 < s <= 2, got {strength!r}")


def _checked_generator(generator: torch.Generator | None) -> torch.Generator:
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"expected a torch.Generator to draw random numbers from, got {generator!r}")
    return generator


def _in_parts(operate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `operate` makes of the images, in float32 at least, cut to [0, 1]."""
    working = torch.float64 if images.dtype == torch.float64 else torch.float32
    at_once = _NUMBERS_AT_ONCE.get(images.device.type, _NUMBERS_ELSEWHERE) // images[0].numel()
    parts = [operate(part.to(working)).clamp(0, 1) for part in images.split(max(at_once, 1))]
    return torch.cat(parts).to(images.dtype)


def _frame(images: Tensor, smallest_side: int) -> list[int]:
    """Margins that pad images to the smallest side: left, right, above, below."""
    rows, columns = (max(smallest_side - side, 0) for side in images.shape[2:])
    return [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]


def _drawn(draw: Callable[..., Tensor], images: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    generator = _checked_generator(generator)
    options = {"generator": generator, "device": generator.device, "dtype": torch.float32}
    if generator.device.type == "cpu":
        return draw(len(images), n, **options).to(images)
    rows = [draw(n, **options) for _ in images]  # on other devices a call's values depend on how many it draws
    return torch.stack(rows).to(images)
