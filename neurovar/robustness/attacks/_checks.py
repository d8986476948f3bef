"""What would make an attack meaningless, found before it runs."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance, MeanShift
from neurovar.networks import inject

N_TRIED = 8
"""Images that are passed through the network to look at its logits."""


def check(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, noises: Mapping[str, Covariance]) -> None:
    """Raise a ValueError for anything that would give a number which looks like robustness; see `pgd` for the list.

    Two passes over a few images without noise, and with that of each layer alone, by a generator of their own: the
    attack's draws do not depend on them.
    """
    _check_images(images, labels)
    if not 0 < epsilon < float("inf"):
        raise ValueError(f"expected epsilon above 0 and finite, got {epsilon}")
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        where = f"layer {training!r}" if training else "the model"
        raise ValueError(f"expected a model in eval mode, got {where} in training mode; call model.eval()")
    tried = images[:N_TRIED]
    alone = [{}, *({name: noise} for name, noise in noises.items())]
    for noise in alone:
        logits = _two_passes(model, tried, noise)
        _check_logits(logits, len(tried), labels)
        _check_noise(logits, noise)


def _check_images(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point() or not images.numel():
        raise ValueError(
            f"expected float images (batch, channel, row, column), got {images.dtype} {tuple(images.shape)}"
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected pixels in [0, 1], got {images.min():g} to {images.max():g}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"expected {len(images)} int64 labels, got {labels.dtype} {tuple(labels.shape)}")


def _two_passes(model: nn.Module, images: Tensor, noises: Mapping[str, Covariance]) -> Tensor:
    """The logits of two passes, with the noise: (pass, batch, classes)."""
    with torch.no_grad(), inject(model, noises, generator=torch.Generator().manual_seed(0)):
        return torch.stack([model(images), model(images)])


def _check_logits(logits: Tensor, n_images: int, labels: Tensor) -> None:
    if logits.ndim != 3 or logits.shape[1] != n_images or logits.shape[2] < 2:
        raise ValueError(
            f"expected logits ({n_images}, classes) of 2 classes or more for {n_images} images, got "
            f"{tuple(logits.shape[1:])}"
        )
    n_classes = logits.shape[-1]
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"expected labels from 0 to {n_classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    if not torch.isfinite(logits).all():
        raise ValueError("expected finite logits, got NaN or infinity")
    if (logits >= 0).all() and torch.allclose(logits.sum(-1), torch.ones_like(logits[..., 0]), atol=1e-4):
        raise ValueError(
            "expected logits, got rows that are not negative and sum to one, as probabilities do; leave out the softmax"
        )


def _check_noise(logits: Tensor, noise: Mapping[str, Covariance]) -> None:
    """Two passes differ where there is noise, and only there."""
    if not noise and not torch.allclose(logits[0], logits[1], rtol=1e-3, atol=1e-5):
        raise ValueError(
            "expected the same logits in two passes without noise, got others: the network is random in itself; give "
            "its noise as `noises`, or switch it off"
        )
    random = [name for name, one in noise.items() if not isinstance(one, MeanShift)]
    if random and torch.equal(logits[0], logits[1]):
        raise ValueError(
            f"expected noise at {random[0]!r} to change the logits, got the same in two passes: the noise is off"
        )


def check_stopping(early_stopping: bool, noises: Mapping[str, Covariance]) -> None:
    if early_stopping and noises:
        raise ValueError(
            f"expected early_stopping only without noise, got noise at {', '.join(noises)}, under which an image that "
            "was misclassified once may be classified correctly again"
        )
