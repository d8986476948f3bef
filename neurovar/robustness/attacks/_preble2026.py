"""FGM, PGD, AutoPGD and Square as the Adversarial Robustness Toolbox runs them, which Preble et al. 2026 used.

The Toolbox knows of no noise: it looks at a noisy network through single draws, one for a gradient, another for a loss,
and a last one that decides whether an image is adversarial. What that leads to stands in the docstrings. The Toolbox
was read and run at 1.20.1.

References: Preble et al. 2026, arXiv:2606.13801; Nicolae et al. 2018, arXiv:1807.01069
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import Follows, Norm
from neurovar.robustness.attacks._climbing import Step, climb
from neurovar.robustness.attacks._objective import Objective

STEP = 0.1
"""The size of a step of PGD, and of the first of AutoPGD, whatever ε."""
BATCH = 32
"""AutoPGD ends for a batch of so many images once every loss in it is exactly 0."""
MOMENTUM, RISING = 0.75, 0.75
HALVED_AFTER = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Share of the iterations after which Square halves the share of pixels in a window."""


@dataclass(frozen=True)
class _ToolboxAttack(Attack):
    """An attack as the Toolbox runs it: L∞, one draw at a time."""

    protocol: ClassVar[str] = "preble2026"
    n_draws: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm is not Norm.LINF or self.n_draws != 1 or self.follows in (Follows.MEAN_LOGITS, Follows.FIXED):
            raise ValueError(
                f"expected an attack of preble2026 in linf with n_draws=1 and gradients as they come, got "
                f"{self.norm}, {self.n_draws} and {self.follows}; other settings are for an attack that knows the noise"
            )

    def described(self) -> dict[str, Any]:
        """With the loss, which is always cross-entropy for those that take gradients; see `Attack.described`."""
        return super().described() | {"loss": "cross_entropy" if self.takes_gradients else ""}


@dataclass(frozen=True)
class ToolboxFGM(_ToolboxAttack):
    """The Toolbox's fast gradient method, on one draw of the noise; see `FGM`."""

    name: ClassVar[str] = "fgm"

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One step of size ε; see `Attack.run`."""
        _, gradient, _ = self.objective(network, generator).value_and_gradient(images, labels)
        return self.norm.project(images + self.epsilon * gradient.sign(), images, self.epsilon)


@dataclass(frozen=True)
class ToolboxPGD(_ToolboxAttack):
    """The Toolbox's PGD: steps of 0.1 from the image itself, of which the last counts; see `PGD`."""

    name: ClassVar[str] = "pgd"
    n_steps: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("n_steps")

    def described(self) -> dict[str, Any]:
        """With the size of a step; see `Attack.described`."""
        return super().described() | {"step": STEP}

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The last iterate; see `Attack.run`."""
        step = Step(self.norm, self.epsilon, STEP, images)
        objective = self.objective(network, generator)
        return next(climb(objective, images, labels, step, self.n_steps, last_only=True))


@dataclass(frozen=True)
class ToolboxAPGD(_ToolboxAttack):
    """The Toolbox's AutoPGD on the cross-entropy, L∞.

    A restart attacks the images that one draw classifies correctly. The last iterate is kept where another single draw
    misclassifies it, else the restart's random start, from which the next restart sets out. So on a noisy network many
    images end as random points, whatever the ascent has reached; `APGD` keeps the iterate of best mean loss instead.
    """

    name: ClassVar[str] = "apgd"
    n_steps: int = field(default=100, kw_only=True)
    n_restarts: int = field(default=5, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("n_steps", "n_restarts")

    def described(self) -> dict[str, Any]:
        """With the size of the first step; see `Attack.described`."""
        return super().described() | {"step": STEP}

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The last iterate, or a random start, of each image; see `Attack.run`."""
        objective = self.objective(network, generator)
        result = images.clone()
        for _ in range(self.n_restarts):
            rows = _right(objective, result, labels).nonzero().squeeze(1)
            if not len(rows):
                break
            given, known = images[rows], labels[rows]
            offset = 2 * torch.rand(given.shape, generator=generator, device=generator.device).to(images) - 1
            start = self.norm.project(result[rows] + self.epsilon * offset, given, self.epsilon)
            last = self._ascend(objective, given, known, start)
            survived = _right(objective, last, known)[:, None, None, None]
            result[rows] = torch.where(survived, start, last)
        return result

    def _ascend(self, objective: Objective, images: Tensor, labels: Tensor, start: Tensor) -> Tensor:
        """The last iterate. At checkpoints an image whose loss stalls goes back to its best one, with half the step.

        Unlike AutoAttack's, what goes back keeps the move that led to its best iterate, and the loss of an iterate is
        that of another draw than its gradient: on a noisy network `best` is the iterate of the luckiest draw.
        """

        def moved(current: Tensor) -> Tensor:
            _, gradient, _ = objective.value_and_gradient(current, labels)
            return self.norm.project(current + sizes * gradient.sign(), images, self.epsilon)

        sizes = images.new_full((len(images), 1, 1, 1), STEP)
        previous, current = start, moved(start)
        first, loss = (objective.value(at, labels) for at in (previous, current))
        better = loss >= first
        n_better, best_loss, loss_at_checkpoint = better.long(), torch.where(better, loss, first), first
        best, before_best = torch.where(better[:, None, None, None], current, previous), images
        over = torch.zeros_like(better)
        checkpoints = _checkpoints(self.n_steps)
        for k in range(1, self.n_steps):
            ahead = current + MOMENTUM * (moved(current) - current) + (1 - MOMENTUM) * (current - previous)
            ahead = torch.where(over[:, None, None, None], current, self.norm.project(ahead, images, self.epsilon))
            loss = objective.value(ahead, labels)
            over = over | _whole_batches(loss == 0)
            better = loss > best_loss
            n_better, best_loss = n_better + better, torch.where(better, loss, best_loss)
            chosen = better[:, None, None, None]
            best, before_best = torch.where(chosen, ahead, best), torch.where(chosen, current, before_best)
            previous, current = current, ahead
            if k in checkpoints:
                since = k - checkpoints[checkpoints.index(k) - 1]
                stalled = (n_better < RISING * since) | (best_loss == loss_at_checkpoint)
                chosen = (stalled & ~over)[:, None, None, None]
                sizes = torch.where(chosen, sizes / 2, sizes)
                current, previous = torch.where(chosen, best, current), torch.where(chosen, before_best, previous)
                n_better, loss_at_checkpoint = torch.zeros_like(n_better), best_loss
        return current


@dataclass(frozen=True)
class ToolboxSquare(_ToolboxAttack):
    """The Toolbox's Square attack, L∞, one restart.

    Departures from `Square` that come from the Toolbox: one window and one colour for all images; the loss is the true
    logit less the second largest, so that it is 0 where the true one is second; and all is decided by single draws,
    one for whether an image is still to be attacked, one each for the loss of incumbent and candidate.
    """

    name: ClassVar[str] = "square"
    takes_gradients: ClassVar[bool] = False
    n_steps: int = field(default=100, kw_only=True)
    p_init: float = field(default=0.8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("n_steps")
        if not 0 < self.p_init < 1:
            raise ValueError(f"expected p_init between 0 and 1, got {self.p_init}")

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """What single draws led to; see `Attack.run`."""
        objective = self.objective(network, generator)
        channels, height, width = images.shape[1:]
        result = images.clone()

        def signs(*shape: int) -> Tensor:
            return (2 * torch.randint(2, shape, generator=generator, device=generator.device) - 1).to(images)

        rows = _right(objective, result, labels).nonzero().squeeze(1)
        stripes = self.epsilon * signs(len(rows), channels, 1, width)
        self._keep_better(objective, images, labels, result, rows, stripes)
        for k in range(self.n_steps):
            rows = _right(objective, result, labels).nonzero().squeeze(1)
            p = self.p_init / 2 ** bisect_left(HALVED_AFTER, k / self.n_steps)
            side = max(round(math.sqrt(p * height * width)), 1)
            top, left = (
                int(torch.randint(max(size - side, 1), (), generator=generator, device=generator.device))
                for size in (height, width)
            )
            window = torch.zeros_like(images[0])
            window[:, top : top + side, left : left + side] = 2 * self.epsilon * signs(channels, 1, 1)
            self._keep_better(objective, images, labels, result, rows, window)
        return result

    def _keep_better(
        self, objective: Objective, images: Tensor, labels: Tensor, result: Tensor, rows: Tensor, change: Tensor
    ) -> None:
        """Changes those rows of `result` where the loss of one draw comes out lower than that of another before."""
        if not len(rows):
            return
        candidate = self.norm.project(result[rows] + change, images[rows], self.epsilon)
        with torch.no_grad():
            before, after = (_lead(objective.logits(at)[0], labels[rows]) for at in (result[rows], candidate))
        result[rows[after < before]] = candidate[after < before]


def _right(objective: Objective, images: Tensor, labels: Tensor) -> Tensor:
    """Whether the network classifies them correctly, under one draw."""
    with torch.no_grad():
        return objective.logits(images)[0].argmax(1) == labels


def _checkpoints(n_steps: int) -> list[int]:
    """p₀ = 0, p₁ = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06) up to 1, in steps, rounded up."""
    shares = [0.0, 0.22]
    while (share := shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06)) <= 1:
        shares.append(share)
    return [math.ceil(share * n_steps) for share in shares]


def _whole_batches(held: Tensor) -> Tensor:
    """Whether it holds for all images of the batch that an image is in."""
    batch = torch.arange(len(held), device=held.device) // BATCH
    n_exceptions = torch.zeros_like(batch).index_add(0, batch, (~held).long())
    return (n_exceptions == 0)[batch]


def _lead(logits: Tensor, labels: Tensor) -> Tensor:
    """The true logit less the second largest of all: (batch,)."""
    return logits.gather(1, labels[:, None]).squeeze(1) - logits.topk(2).values[:, 1]
