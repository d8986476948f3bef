"""The fast gradient method."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import Loss
from neurovar.robustness.attacks._preble2026 import ToolboxFGM


@dataclass(frozen=True, kw_only=True)
class FGM(Attack):
    """Fast gradient method: one step of size ε up the expected loss.

    L∞: x' = clip₀₁(x + ε·sign g), L2: x' = clip₀₁(x + ε·g/‖g‖₂), with g = ∇ₓ of the loss over K fresh draws of the
    noise, as `Objective` averages it. One step is no measure of robustness; it is what attacks of many must beat.

    Parameters
    ----------
    epsilon : float
        The size of the perturbation, in units of the pixels, in the norm.
    n_draws : int, optional
        K, the number of draws of the noise that the gradient is averaged over.
    loss : str, optional
        What it climbs: a `Loss`.
    norm : str, optional
        "linf" or "l2".
    follows : str, optional
        Whose gradient it follows: see `Follows`.

    Raises
    ------
    ValueError
        For an ε that is not above 0 and finite, fewer than 1 draw, or an unknown norm, loss or `follows`.

    Warns
    -----
    RuntimeWarning
        When called, where the gradient of some images is exactly zero.

    References
    ----------
    Goodfellow et al. 2015, arXiv:1412.6572; averaged over draws: Athalye et al. 2018, arXiv:1802.00420

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> adversarial = FGM(0.1)(NoisyNetwork(model, images=x), x, y, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """

    name: ClassVar[str] = "fgm"
    loss: Loss = field(default=Loss.CROSS_ENTROPY)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "loss", Loss(self.loss))

    @staticmethod
    def preble2026(epsilon: float) -> ToolboxFGM:
        """As Preble et al. 2026 (arXiv:2606.13801) ran it: L∞, one draw of the noise."""
        return ToolboxFGM(epsilon)

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One step from the images, projected on ball and pixel range; see `Attack.run`."""
        objective = self.objective(network, generator, loss=self.loss)
        _, gradient, _ = objective.value_and_gradient(images, labels)
        return self.norm.project(images + self.epsilon * self.norm.steepest(gradient), images, self.epsilon)
