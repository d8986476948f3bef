"""What the gradients of a noisy network are worth to an attack."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neurovar.networks import NoisyNetwork

IMAGES_AT_ONCE = 10
"""A constant, so that draws do not depend on how many images there are."""


@dataclass(frozen=True)
class Gradients:
    """The gradients g of a noisy network at each image.

    Parameters
    ----------
    signal : numpy.ndarray
        (image,): ‖E g‖².
    variance : numpy.ndarray
        (image,): tr Cov(g).
    zero : numpy.ndarray
        (image,): whether every draw of g is exactly zero.
    problem : str, optional
        Why no attack can follow these gradients; empty where one can.

    Examples
    --------
    >>> Gradients(signal=np.array([4.0]), variance=np.array([2.0]), zero=np.array([False])).snr
    2.0
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
    network: NoisyNetwork, images: Tensor, labels: Tensor, *, n_draws: int, generator: torch.Generator
) -> Gradients:
    """Mean and variance over the noise of the gradient g = ∇ₓ CE(f(x, e), y) at each image.

    With ḡ and s² the mean and the total variance (divisor n − 1) of n draws, ‖ḡ‖² − s²/n is unbiased for ‖E g‖², since
    E‖ḡ‖² = ‖E g‖² + tr Cov(g)/n, and s² for tr Cov(g); so neither of them is clipped at 0. Their ratio, the sums over
    images taken first, is the squared signal-to-noise ratio of the direction that an attack with one draw follows;
    large gradients weigh more.

    Parameters
    ----------
    network : NoisyNetwork
        The classifier with its noise.
    images : torch.Tensor
        (image, channel, row, column), in [0, 1].
    labels : torch.Tensor
        int64 (image,).
    n_draws : int
        n, at least 2 where there is noise.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Gradients
        Signal, variance and zeros of each image, or NaN and the problem.

    Raises
    ------
    ValueError
        For fewer than 2 draws of a noise.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420 (expectation over a randomised defence)

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> network = NoisyNetwork(model, {"1": Diagonal.isotropic(2)}, images=x)
    >>> gradients(network, x, y, n_draws=5, generator=torch.Generator()).signal.shape
    (3,)
    """
    if network.noisy and n_draws < 2:
        raise ValueError(f"expected at least 2 draws, since one has no variance, got {n_draws}")
    n_draws = n_draws if network.noisy else 1
    parts = []
    for part, target in zip(images.split(IMAGES_AT_ONCE), labels.split(IMAGES_AT_ONCE)):
        drawn = _drawn(network, part, target, n_draws, generator)
        if isinstance(drawn, str):
            unknown = np.full(len(images), np.nan)
            return Gradients(unknown, unknown, unknown, drawn)
        parts.append(drawn)
    drawn = torch.cat(parts)
    variance = drawn.var(1, correction=1).sum(1) if n_draws > 1 else torch.zeros(len(images))
    signal = drawn.mean(1).square().sum(1) - variance.to(drawn) / n_draws
    zero = ~drawn.flatten(1).any(1)
    problem = "its gradients are zero for every image" if zero.all() else ""
    return Gradients(signal.cpu().numpy(), variance.cpu().numpy(), zero.cpu().numpy(), problem)


def _drawn(
    network: NoisyNetwork, images: Tensor, labels: Tensor, n_draws: int, generator: torch.Generator
) -> Tensor | str:
    """Gradients (image, draw, pixel), or what is wrong with them."""
    # Copies of an image, each with its own gradient: K draws of one image would sum theirs.
    copies = images.repeat_interleave(n_draws, 0).requires_grad_()
    with torch.enable_grad():
        logits = network.logits(copies, generator=generator)[0]
        loss = F.cross_entropy(logits, labels.repeat_interleave(n_draws), reduction="sum")
        try:
            gradient = torch.autograd.grad(loss, copies, allow_unused=True)[0] if loss.requires_grad else None
        except NotImplementedError as error:
            return f"it is not differentiable: {error}"
    if gradient is None:
        return "no gradient flows from its logits to the image"
    if not torch.isfinite(gradient).all():
        return "its gradients are NaN or infinite"
    return gradient.flatten(1).double().unflatten(0, (len(images), n_draws))
