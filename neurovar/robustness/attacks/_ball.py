"""The ball of radius ε about each image: steps, projections and random points."""

from typing import Literal, get_args

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


def check_norm(norm: str) -> None:
    if norm not in get_args(Norm):
        raise ValueError(f"expected a norm out of {', '.join(get_args(Norm))}, got {norm!r}")


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of norm 1 that ascends most: the sign, or g/‖g‖₂ of each image (0 where g is 0)."""
    if norm == "linf":
        return gradient.sign()
    largest = gradient.abs().amax((1, 2, 3), keepdim=True)
    scaled = torch.where(largest > 0, gradient / largest, 0.0)  # squares of tiny gradients would be 0
    return scaled / lengths(scaled).clamp(min=1)


def project(moved: Tensor, images: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Clipped to [0, 1], then brought within ε of `images`: each pixel, or by shrinking the whole perturbation.

    Under l2 a perturbation that was clipped is shrunk by its length after clipping, as in the Adversarial Robustness
    Toolbox; torchattacks shrinks first and so stays closer to the image.
    """
    if norm == "linf":
        return moved.clamp(*limits(images, epsilon))
    change = moved.clamp(0, 1) - images
    return images + change * (epsilon / lengths(change)).clamp(max=1)


def limits(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The smallest and the largest pixels within ε and in [0, 1]."""
    return (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1)


def random_start(images: Tensor, epsilon: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """A uniform point of the ball about each image, clipped to [0, 1]."""
    if norm == "linf":
        offset = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
        return (images + epsilon * (2 * offset - 1)).clamp(0, 1)
    direction = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
    uniform = torch.rand(len(images), generator=generator, device=generator.device).to(images)
    radius = epsilon * uniform ** (1 / images[0].numel())
    return (images + direction / lengths(direction) * radius[:, None, None, None]).clamp(0, 1)


def lengths(change: Tensor) -> Tensor:
    """‖·‖₂ of each image: (batch, 1, 1, 1)."""
    return torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
