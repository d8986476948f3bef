"""What a modification is: a frozen value that is called on images. Corruptions of ImageNet-C, and transformations."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from neurovar._values import Value
from neurovar.networks._checks import check_pixels

# The severities of ImageNet-C's corruptions.
SEVERITIES = range(1, 6)
# `imagecorruptions` refuses images with a side below 32 pixels, and Preble et al. 2026 pad theirs with zeros to it.
SMALLEST_SIDE = 32
# Weights of red, green and blue in grey, as torchvision and Preble et al. 2026 round them (ITU-R BT.601: 0.299).
LUMA = (0.2989, 0.587, 0.114)
# What a CPU works on at once: 1 MiB of float32 and what is made of it fit its cache.
_NUMBERS_AT_ONCE = {"cpu": 2**18}
# On a GPU the memory is what limits: 64 MiB of float32, and a few times that on the way.
_NUMBERS_ELSEWHERE = 2**24
# Of the paper's form, which takes the memory of three channels in float64.
_IMAGES_AT_ONCE = 1024


@dataclass(frozen=True)
class Modification(Value):
    """Base of the modifications: a frozen value that is called, `modification(images, generator=g)`.

    A modification of your own is a frozen dataclass that inherits from this one and has `__call__`. It works wherever
    one is taken: in `record`, as a source of noise, in learning and in evaluation. A field or property called
    `strength` is what figures have on their axis.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Darker(Modification):
    ...     strength: float
    ...     def __call__(self, images, *, generator=None):
    ...         return images * (1 - self.strength)
    >>> darker = Darker(0.25)
    >>> darker(torch.ones(1, 1, 1, 2)), darker.name, darker.label
    (tensor([[[[0.7500, 0.7500]]]]), 'darker', 'Darker(strength=0.25)')
    """

    name: ClassVar[str] = "modification"
    protocol: ClassVar[str] = ""
    repeats_from: ClassVar[str] = "modifications"

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()  # MotionBlur → motion_blur

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Modify a batch of images.

        Parameters
        ----------
        images : torch.Tensor
            (batch, channel, row, column), floating point in [0, 1]; not written to.
        generator : torch.Generator, optional
            Where random numbers come from, image by image; required where the modification is random.

        Returns
        -------
        torch.Tensor
            Modified images of the same shape, type and device, in [0, 1].
        """
        raise NotImplementedError(f"expected {type(self).__name__} to have a method __call__(images, *, generator)")

    @property
    def label(self) -> str:
        """A text that differs between modifications that differ."""
        return str(self)

    def described(self) -> dict[str, Any]:
        """What results say of it: `kind`, `modification` (its name), `strength` (NaN without one) and `protocol`.

        Returns
        -------
        dict
            Texts, and the strength as a float.
        """
        strength = float(getattr(self, "strength", nan))
        return {"kind": "modification", "modification": self.name, "strength": strength, "protocol": self.protocol}


@dataclass(frozen=True)
class Corruption(Modification):
    """Base of the corruptions of ImageNet-C, with their constants, and without their rounding to 8 bits.

    A side below 32 pixels is padded with zeros to 32, and cropped back, since the reference takes no smaller images.

    Parameters
    ----------
    severity : int
        How strong, from 1 to 5.
    grey_8_bit : bool, optional
        The form of Preble et al. 2026, for grey images: they are rounded to 8 bits and made three equal channels, the
        result is rounded down to 8 bits and made grey, by luma where the paper has noise of its own in each channel
        (Gaussian noise, shot noise, impulse noise, frost) and by the first channel elsewhere.

    Raises
    ------
    ValueError
        For another severity; when called, for images of another type, shape or range, no generator where the
        corruption is random, or images in colour where `grey_8_bit` is asked for.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801

    Examples
    --------
    >>> from neurovar.networks import MotionBlur
    >>> blur = MotionBlur(severity=3)
    >>> blur(torch.rand(2, 3, 64, 64), generator=torch.Generator()).shape, blur.label
    (torch.Size([2, 3, 64, 64]), 'motion_blur 3')
    >>> MotionBlur.preble2026(3)
    MotionBlur(severity=3, grey_8_bit=True)
    """

    severity: int
    grey_8_bit: bool = False

    smallest_side: ClassVar[int] = SMALLEST_SIDE
    """1 for what works pixel by pixel, where a frame of zeros would change nothing within it."""
    channels_differ: ClassVar[bool] = False
    """Whether equal channels become different: the paper's form then has to weigh them."""

    def __post_init__(self) -> None:
        severity = self.severity
        if isinstance(severity, bool) or not isinstance(severity, Integral) or severity not in SEVERITIES:
            raise ValueError(f"expected a strength that is an integer severity from 1 to 5, got {severity!r}")
        object.__setattr__(self, "severity", int(severity))

    @classmethod
    def preble2026(cls, severity: int) -> Self:
        """In the form that Preble et al. 2026 gave it, for grey images.

        Parameters
        ----------
        severity : int
            How strong, from 1 to 5.

        Returns
        -------
        Corruption
            With `grey_8_bit`.
        """
        return cls(severity, grey_8_bit=True)

    @property
    def strength(self) -> float:
        """The severity."""
        return self.severity

    @property
    def protocol(self) -> str:  # type: ignore[override]
        """Whose form it has: "imagenet_c" or "preble2026"."""
        return "preble2026" if self.grey_8_bit else "imagenet_c"

    @property
    def label(self) -> str:
        """Such as "motion_blur 3", or "motion_blur 3 preble2026"."""
        return f"{self.name} {self.severity}{' preble2026' if self.grey_8_bit else ''}"

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        check_images(images)
        if not self.grey_8_bit:
            return self._framed(images, generator)
        if images.shape[1] != 1:
            raise ValueError(
                f"expected grey images (1 channel) for the form of Preble et al. 2026, got {images.shape[1]} channels; "
                f"leave out grey_8_bit"
            )
        result = torch.empty_like(images)
        for part, modified in zip(images.split(_IMAGES_AT_ONCE), result.split(_IMAGES_AT_ONCE)):
            colour = ((part.double() * 255).round() / 255).expand(-1, 3, -1, -1)
            in_8_bits = (self._framed(colour, generator) * 255).floor() / 255
            modified.copy_(luma(in_8_bits) if self.channels_differ else in_8_bits[:, :1])
        return result

    def _framed(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """With margins of zeros (left, right, above, below) up to the smallest side, which are cut off again."""
        rows, columns = (max(self.smallest_side - side, 0) for side in images.shape[2:])
        frame = [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
        back = [-margin for margin in frame]
        return _in_parts(lambda part: F.pad(self._modified(F.pad(part, frame), generator), back), images)

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """The images (batch, channel, row, column) under the corruption; what leaves [0, 1] is cut off afterwards."""
        raise NotImplementedError


@dataclass(frozen=True)
class Transformation(Modification):
    """Base of the geometric transformations of Preble et al. 2026, as torchvision performs them.

    Parameters
    ----------
    scale : float
        How strong, s in (0, 2].

    Raises
    ------
    ValueError
        For another scale; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801

    Examples
    --------
    >>> from neurovar.networks import Rotate
    >>> Rotate(scale=0.4)(torch.ones(2, 1, 28, 28), generator=torch.Generator()).shape, Rotate(0.4).label
    (torch.Size([2, 1, 28, 28]), 'rotate 0.4')
    """

    scale: float

    protocol: ClassVar[str] = "preble2026"

    def __post_init__(self) -> None:
        if isinstance(self.scale, bool) or not isinstance(self.scale, Real) or not 0 < float(self.scale) <= 2:
            raise ValueError(f"expected a strength s that is a number with 0 < s <= 2, got {self.scale!r}")
        object.__setattr__(self, "scale", float(self.scale))

    @property
    def strength(self) -> float:
        """The scale s."""
        return self.scale

    @property
    def label(self) -> str:
        """Such as "rotate 0.4"."""
        return f"{self.name} {self.scale:g}"

    def __call__(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        check_images(images)
        return _in_parts(lambda part: self._modified(part, generator), images)

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """The images (batch, channel, row, column) under the transformation."""
        raise NotImplementedError


def luma(images: Tensor) -> Tensor:
    """(batch, 3, …) → (batch, 1, …): 0.2989 R + 0.587 G + 0.114 B."""
    red, green, blue = LUMA
    return red * images[:, :1] + green * images[:, 1:2] + blue * images[:, 2:]


def check_images(images: Tensor) -> None:
    """Refuse what are not grey or coloured images in [0, 1]."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"expected images as a floating-point tensor, got {kind}")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            f"expected images of shape (batch, 1 or 3 channels, row, column), got shape {tuple(images.shape)}"
        )
    check_pixels(images)


def _in_parts(operate: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What `operate` makes of the images, in float32 at least, cut to [0, 1]."""
    working = torch.float64 if images.dtype == torch.float64 else torch.float32
    at_once = _NUMBERS_AT_ONCE.get(images.device.type, _NUMBERS_ELSEWHERE) // images[0].numel()
    parts = [operate(part.to(working)).clamp(0, 1) for part in images.split(max(at_once, 1))]
    return torch.cat(parts).to(images.dtype)
