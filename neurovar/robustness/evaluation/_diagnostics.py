"""What the gradients of a noisy network are worth to an attack."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neurovar.covariance import Covariance
from neurovar.networks import inject

IMAGES_AT_ONCE = 10
"""A constant, so that draws do not depend on how many images there are."""


@dataclass(frozen=True)
class Gradients:
    """Signal ‖E g‖², variance tr Cov(g), and whether every draw of g is exactly zero: (image,) each.

    `problem` says why no attack can follow these gradients; empty where one can.
    """

    signal: np.ndarray
    variance: np.ndarray
    zero: np.ndarray
    problem: str = ""

    @property
    def snr(self) -> float:
        """Of one draw: Σ signal / Σ variance over images, infinite without noise; K draws have K times as much."""
        if self.problem:
            return np.nan
        variance = self.variance.sum()
        return float(self.signal.sum() / variance) if variance > 0 else np.inf


def gradients(
    model: nn.Module,
    noises: Mapping[str, Covariance],
    images: Tensor,
    labels: Tensor,
    *,
    n_draws: int,
    generator: torch.Generator,
) -> Gradients:
    """Mean and variance over the noise of the gradient g = ∇ₓ CE(f(x, e), y) at each image.

    With ḡ and s² the mean and the total variance (divisor n − 1) of n = `n_draws` draws, ‖ḡ‖² − s²/n is unbiased for
    ‖E g‖² and s² for tr Cov(g); so is neither of them clipped at 0. Their ratio, the sums over images taken first, is
    the squared signal-to-noise ratio of the direction that an attack with one draw follows; large gradients weigh more.

    Parameters
    ----------
    n_draws : at least 2.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420 (expectation over a randomised defence)
    """
    n_draws = n_draws if noises else 1
    drawn = []
    for some, target in zip(images.split(IMAGES_AT_ONCE), labels.split(IMAGES_AT_ONCE)):
        found = _drawn(model, noises, some, target, n_draws, generator)
        if isinstance(found, str):
            unknown = np.full(len(images), np.nan)
            return Gradients(unknown, unknown, unknown, found)
        drawn.append(found)
    every = torch.cat(drawn)
    variance = every.var(1, correction=1).sum(1) if n_draws > 1 else torch.zeros(len(images))
    signal = every.mean(1).square().sum(1) - variance.to(every) / n_draws
    zero = ~every.flatten(1).any(1)
    problem = "its gradients are zero for every image" if zero.all() else ""
    return Gradients(signal.cpu().numpy(), variance.cpu().numpy(), zero.cpu().numpy(), problem)


def _drawn(
    model: nn.Module,
    noises: Mapping[str, Covariance],
    images: Tensor,
    labels: Tensor,
    n_draws: int,
    generator: torch.Generator,
) -> Tensor | str:
    """Gradients (image, draw, pixel), or what is wrong with them."""
    copies = images.repeat_interleave(n_draws, 0).requires_grad_()
    with torch.enable_grad(), inject(model, noises, generator=generator):
        loss = F.cross_entropy(model(copies), labels.repeat_interleave(n_draws), reduction="sum")
        try:
            found = torch.autograd.grad(loss, copies, allow_unused=True)[0] if loss.requires_grad else None
        except NotImplementedError as error:
            return f"it is not differentiable: {error}"
    if found is None:
        return "no gradient flows from its logits to the image"
    if not torch.isfinite(found).all():
        return "its gradients are NaN or infinite"
    return found.flatten(1).double().unflatten(0, (len(images), n_draws))
