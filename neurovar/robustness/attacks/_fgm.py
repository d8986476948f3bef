"""The fast gradient method."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._ball import Norm, check_norm, project, steepest
from neurovar.robustness.attacks._checks import check
from neurovar.robustness.attacks._objective import NO_NOISE, Average, Objective


def fgm(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
    average: Average = "loss",
    fixed: bool = False,
    norm: Norm = "linf",
    loss: str = "cross_entropy",
) -> Tensor:
    """Fast gradient method: one step of size ε up the expected loss.

    L∞: x' = clip₀₁(x + ε·sign g), L2: x' = clip₀₁(x + ε·g/‖g‖₂), with g = ∇ₓ of the loss over K = `n_draws` fresh
    draws of the noise, as `Objective` averages it.

    Parameters
    ----------
    model : (batch, channel, row, column) to logits, in eval mode.
    images : pixels in [0, 1]. labels : int64 (batch,).
    epsilon : the size of the perturbation, in units of the pixels, in the norm.
    noises : the noise that the network carries, as for `inject`; empty for a noise-free network.
    average : "loss", the mean over draws of the loss, or "logits", the loss of the mean logits.
    fixed : the same draws wherever the attack needs some.

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`

    Raises
    ------
    ValueError : images outside [0, 1], labels outside the classes or of another length, ε ≤ 0, a model in training
        mode, logits that are probabilities or not finite, noise that changes nothing, randomness that is not in
        `noises`, a gradient that is missing, not finite, or zero for every image.

    Warns
    -----
    RuntimeWarning : where the gradient of some images is exactly zero.

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
    check_norm(norm)
    check(model, images, labels, epsilon, noises)
    objective = Objective(model, noises, n_draws=n_draws, average=average, fixed=fixed, loss=loss, generator=generator)
    _, gradient, _ = objective.value_and_gradient(images, labels)
    return project(images + epsilon * steepest(gradient, norm), images, epsilon, norm)
