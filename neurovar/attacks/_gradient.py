"""Adversarial attacks that know the network is noisy: gradients averaged over noise draws."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar.covariance import Covariance
from neurovar.injection import inject

NO_NOISE: Mapping[str, Covariance] = {}


def fgm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
) -> Tensor:
    """Fast gradient method, L∞: one step of size ε up the expected loss.

    x' = clip₀₁(x + ε·sign(∇ₓ (1/K) Σ_k CE(f(x, noise_k), y))), K = `n_draws` fresh draws.

    Parameters
    ----------
    model : (batch, channel, row, column) to logits, in eval mode.
    images : pixels in [0, 1]. labels : int64 (batch,).
    noises : the noise that the network carries, as for `inject`; empty for a noise-free network.

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`

    Raises
    ------
    ValueError : images outside [0, 1], labels outside the classes or of another length, ε ≤ 0, a model in training
        mode, a gradient that is zero everywhere or NaN.

    References
    ----------
    Goodfellow et al. 2015, arXiv:1412.6572; averaged over draws: Athalye et al. 2018, arXiv:1802.00420

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> adversarial = fgm(model, x, y, epsilon=0.1, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """
    _check(model, images, labels, epsilon)
    gradient = _gradient(model, images, labels, noises, n_draws, generator)
    return (images + epsilon * gradient.sign()).clamp(0, 1)


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step: float,
    n_steps: int,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
    random_start: bool = True,
    n_restarts: int = 1,
) -> Tensor:
    """Projected gradient descent, L∞, on the expected loss: `n_steps` steps of size `step`, kept within ε.

    Each step takes its gradient over K = `n_draws` fresh draws, as in `fgm`. With several restarts, each image keeps
    the one of highest mean loss on max(K, 10) fresh draws; on noisy networks that is a choice by expectation and never
    by a single lucky draw.

    Parameters and errors as for `fgm`.

    References
    ----------
    Madry et al. 2018, arXiv:1706.06083; Athalye et al. 2018, arXiv:1802.00420

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> adversarial = pgd(model, x, y, epsilon=0.1, step=0.025, n_steps=10, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """
    _check(model, images, labels, epsilon)
    if not step > 0 or n_steps < 1 or n_restarts < 1 or (n_restarts > 1 and not random_start):
        raise ValueError(
            f"expected step > 0, n_steps ≥ 1 and n_restarts ≥ 1 (1 without random start), got {step}, {n_steps}, "
            f"{n_restarts}"
        )
    best = torch.full((len(images),), -torch.inf, device=images.device)
    adversarial = images
    for _ in range(n_restarts):
        current = images
        if random_start:
            offset = torch.rand(images.shape, generator=generator, device=generator.device).to(images)
            current = (images + epsilon * (2 * offset - 1)).clamp(0, 1)
        for _ in range(n_steps):
            gradient = _gradient(model, current, labels, noises, n_draws, generator)
            current = (current + step * gradient.sign()).clamp(images - epsilon, images + epsilon).clamp(0, 1)
        if n_restarts == 1:
            return current
        with torch.no_grad():
            loss = expected_loss(model, current, labels, noises, max(n_draws, 10) if noises else 1, generator)
        adversarial = torch.where((loss > best)[:, None, None, None], current, adversarial)
        best = torch.maximum(best, loss)
    return adversarial


def expected_loss(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    noises: Mapping[str, Covariance],
    n_draws: int,
    generator: torch.Generator,
) -> Tensor:
    """Cross-entropy of each image, averaged over `n_draws` noise draws: (batch,)."""
    with inject(model, noises, generator=generator, draws=n_draws):
        logits = model(images)
    return F.cross_entropy(logits, labels.repeat(n_draws), reduction="none").view(n_draws, -1).mean(0)


def _gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    noises: Mapping[str, Covariance],
    n_draws: int,
    generator: torch.Generator,
) -> Tensor:
    images = images.detach().requires_grad_()
    loss = expected_loss(model, images, labels, noises, n_draws, generator).sum()
    gradient = torch.autograd.grad(loss, images, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise ValueError("expected logits that depend on the images through a gradient, got none")
    if not torch.isfinite(gradient).all() or not gradient.any():
        raise ValueError("expected finite gradients that are not all zero, got NaN, infinity or only zeros")
    return gradient


def _check(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> None:
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(
            f"expected float images (batch, channel, row, column), got {images.dtype} {tuple(images.shape)}"
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected pixels in [0, 1], got {images.min():g} to {images.max():g}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"expected {len(images)} int64 labels, got {labels.dtype} {tuple(labels.shape)}")
    if not epsilon > 0:
        raise ValueError(f"expected epsilon above 0, got {epsilon}")
    if model.training:
        raise ValueError("expected a model in eval mode, got training mode; call model.eval()")
    with torch.no_grad():
        n_classes = model(images[:1]).shape[-1]
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"expected labels from 0 to {n_classes - 1}, got {int(labels.min())} to {int(labels.max())}")
