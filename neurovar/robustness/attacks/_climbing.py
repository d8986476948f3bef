"""Steps up a gradient: what PGD and the Adversarial Robustness Toolbox's PGD share."""

from collections.abc import Iterator

import torch
from torch import Tensor

from neurovar.robustness.attacks._choices import Norm, limits
from neurovar.robustness.attacks._objective import Objective


class Step:
    """A step of one size up the gradient, projected on the ball about the images and the range of pixels."""

    def __init__(self, norm: Norm, epsilon: float, size: float, images: Tensor) -> None:
        self.norm, self.epsilon, self.size, self.images = norm, epsilon, size, images
        # In L∞ the ball and the range of pixels are one box, whose limits are the same in every step.
        self._low, self._high = limits(images, epsilon)

    def __call__(self, current: Tensor, gradient: Tensor) -> Tensor:
        """The next iterate."""
        if self.norm is Norm.LINF:
            return torch.add(current, gradient.sign(), alpha=self.size).clamp_(self._low, self._high)
        return self.norm.project(current + self.size * self.norm.steepest(gradient), self.images, self.epsilon)


def climb(
    objective: Objective, start: Tensor, labels: Tensor, step: Step, n_steps: int, *, last_only: bool
) -> Iterator[Tensor]:
    """The iterate of highest mean loss, unless `last_only`, and the last one.

    The mean loss comes with the gradient and costs nothing; the last iterate's own is not known, so that it is a
    candidate beside the best of those before it.
    """
    current, best = start, start
    highest = torch.full((len(start),), -torch.inf, dtype=start.dtype, device=start.device)
    for _ in range(n_steps):
        loss, gradient, _ = objective.value_and_gradient(current, labels)
        if not last_only:
            higher = loss > highest
            best = torch.where(higher[:, None, None, None], current, best)
            highest = torch.where(higher, loss, highest)
        current = step(current, gradient)
    if not last_only:
        yield best
    yield current
