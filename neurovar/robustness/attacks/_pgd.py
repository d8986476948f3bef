"""Projected gradient descent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import Loss
from neurovar.robustness.attacks._climbing import Step, climb
from neurovar.robustness.attacks._objective import Best, Objective
from neurovar.robustness.attacks._preble2026 import ToolboxPGD


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent on the expected loss: steps of one size up its gradient, kept within ε.

    x ← P(x + step·d), d = sign g in L∞ and g/‖g‖₂ in L2, g the gradient over K fresh draws as in `FGM`; P clips to
    [0, 1] and projects on the ball. Without noise this is the arithmetic of the Adversarial Robustness Toolbox 1.20.1,
    and but for the order of clipping and projecting in L2 that of torchattacks 3.3.0; the last iterate counts.

    On a noisy network the mean loss of an iterate is known from the K draws of its gradient. The iterate of highest
    mean loss and the last one are candidates, and so are those of every restart; each image keeps a candidate that the
    mean logits of max(K, 10) fresh draws misclassify, and of those the one of highest mean loss on them: never a single
    lucky draw. Without noise the last iterates of the restarts are compared in the same way.

    Large batches are faster; one takes about K times the memory of a training step.

    Parameters
    ----------
    epsilon : float
        The largest size of a perturbation, in units of the pixels, in the norm.
    n_steps : int, optional
        The number of steps.
    n_draws : int, optional
        K, the number of draws of the noise that each gradient is averaged over.
    step : float, optional
        The size of a step, in the norm; ε/4 by default.
    n_restarts : int, optional
        How often to set out from another random point.
    random_start : bool, optional
        Set out from a uniform point of the ball instead of the image.
    loss : str, optional
        What it climbs: a `Loss`.
    early_stopping : bool, optional
        Images stay as they are once they are misclassified, which only makes sense without noise.
    norm : str, optional
        "linf" or "l2".
    follows : str, optional
        Whose gradient it follows: see `Follows`.

    Raises
    ------
    ValueError
        For an ε or a step that is not above 0 and finite, numbers below 1, restarts from the same start, or an unknown
        norm, loss or `follows`; when called, for early stopping under noise.

    References
    ----------
    Madry et al. 2018, arXiv:1706.06083; Athalye et al. 2018, arXiv:1802.00420

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> attack = PGD(0.1, n_steps=10, n_restarts=1)
    >>> adversarial = attack(NoisyNetwork(model, images=x), x, y, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    >>> str(attack)
    'PGD(epsilon=0.1, n_steps=10, n_restarts=1)'
    """

    name: ClassVar[str] = "pgd"
    n_steps: int = 40
    step: float | None = None
    n_restarts: int = 5
    random_start: bool = True
    loss: Loss = field(default=Loss.CROSS_ENTROPY)
    early_stopping: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "loss", Loss(self.loss))
        self.check_counts("n_steps", "n_restarts")
        if not 0 < self.step_size < inf:
            raise ValueError(f"expected a finite step above 0, got {self.step}")
        if self.n_restarts > 1 and not self.random_start:
            raise ValueError(f"expected n_restarts=1 without a random start, got {self.n_restarts}")

    @staticmethod
    def preble2026(epsilon: float, *, n_steps: int = 100) -> ToolboxPGD:
        """As Preble et al. 2026 (arXiv:2606.13801) ran it: 100 steps of 0.1 from the image itself, one draw each."""
        return ToolboxPGD(epsilon, n_steps=n_steps)

    @property
    def step_size(self) -> float:
        """The size of a step, in the norm: ε/4 where none is given, so that 40 steps cross the ball five times."""
        return self.epsilon / 4 if self.step is None else self.step

    def described(self) -> dict[str, Any]:
        """With the size of a step; see `Attack.described`."""
        return super().described() | {"step": float(self.step_size)}

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The best candidate of all restarts for each image; see `Attack.run`."""
        self.check_stopping(network)
        objective = self.objective(network, generator, loss=self.loss)
        candidates = self._candidates(objective, images, labels, generator)
        first, best = next(candidates), None
        for candidate in candidates:
            if best is None:  # one candidate alone needs no judge, and no draws for it
                best = Best(objective, labels)
                best.offer(first)
            best.offer(candidate)
        return first if best is None else best.images

    def _candidates(
        self, objective: Objective, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        for _ in range(self.n_restarts):
            start = self.norm.uniform(images, self.epsilon, generator) if self.random_start else images
            if self.stops_early:
                yield self._climb_until_wrong(objective, start, images, labels)
            else:
                step = Step(self.norm, self.epsilon, self.step_size, images)
                yield from climb(objective, start, labels, step, self.n_steps, last_only=not objective.network.noisy)

    def _climb_until_wrong(self, objective: Objective, start: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The last iterate, of images that are still classified correctly; of others the first that is not."""
        current = start.clone()
        active = torch.arange(len(images), device=images.device)
        for _ in range(self.n_steps):
            _, gradient, logits = objective.value_and_gradient(current[active], labels[active])
            right = logits.argmax(1) == labels[active]
            active = active[right]
            if not len(active):
                break
            moved = current[active] + self.step_size * self.norm.steepest(gradient[right])
            current[active] = self.norm.project(moved, images[active], self.epsilon)
        return current
