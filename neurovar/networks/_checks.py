"""What is refused of models, images and labels, by everything that classifies, trains or attacks."""

import torch
from torch import Tensor, nn


def check_evaluation_mode(model: nn.Module) -> None:
    """Refuse a model of which any part is in training mode: dropout would add noise, batch statistics would change.

    Every module is looked at, since one that is left in training mode within a model in evaluation mode (a dropout
    that someone switched on) is as random as a whole one.

    Parameters
    ----------
    model : torch.nn.Module
        Any network.

    Raises
    ------
    ValueError
        Naming the first module in training mode.

    Examples
    --------
    >>> check_evaluation_mode(nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval())
    """
    for name, module in model.named_modules():
        if module.training:
            where = f"its layer {name!r}" if name else "the model"
            raise ValueError(f"expected a model in evaluation mode, got {where} in training mode; call model.eval()")


def check_images(images: Tensor) -> None:
    """Refuse what are not images with pixels in [0, 1].

    Parameters
    ----------
    images : torch.Tensor
        Floating point, (batch, channel, row, column), at least one.

    Raises
    ------
    ValueError
        For another type or shape, or for pixels outside [0, 1], NaN among them.

    Examples
    --------
    >>> check_images(torch.full((5, 1, 28, 28), 0.5))
    >>> check_images(torch.full((5, 1, 28, 28), 127.0))
    Traceback (most recent call last):
    ...
    ValueError: expected pixels in [0, 1], got 127 to 127; divide 8-bit pixels by 255
    """
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or not images.numel():
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"expected float images (batch, channel, row, column), got {got}")
    check_pixels(images)


def check_pixels(images: Tensor) -> None:
    """Refuse pixels outside [0, 1], NaN among them, whatever the shape."""
    low, high = (float(extreme) for extreme in images.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"expected pixels in [0, 1], got {low:g} to {high:g}; divide 8-bit pixels by 255")


def check_labels(labels: Tensor, images: Tensor, n_classes: int) -> None:
    """Refuse labels that are not one int64 class an image.

    Parameters
    ----------
    labels : torch.Tensor
        int64 (batch,), from 0 to `n_classes` − 1.
    images : torch.Tensor
        What they label, (batch, …).
    n_classes : int
        How many logits the model gives.

    Raises
    ------
    ValueError
        For another number, type or range.

    Examples
    --------
    >>> check_labels(torch.tensor([0, 9]), torch.zeros(2, 1, 28, 28), 10)
    """
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"expected {len(images)} int64 labels, got {labels.dtype} {tuple(labels.shape)}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"expected labels from 0 to {n_classes - 1}, got {int(labels.min())} to {int(labels.max())}")
