"""Auto-PGD."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import Loss, Norm
from neurovar.robustness.attacks._objective import Best, Objective
from neurovar.robustness.attacks._preble2026 import ToolboxAPGD

MOMENTUM = 0.75
"""The share of the step in each move; the rest is the move before."""
RISING = 0.75
"""The step is halved unless the loss rose in more than this share of the steps since the last checkpoint."""
FIRST_PERIOD, SHORTEST_PERIOD, SHORTER_BY = 0.22, 0.06, 0.03
"""Shares of all steps: until the first checkpoint, between two at least, and by how much each period is shorter."""


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD: ascent with momentum, whose step starts at 2ε and is halved where the loss stops rising.

    z = P(x_t + η·d), x_{t+1} = P(x_t + ¾(z − x_t) + ¼(x_t − x_{t−1})), with d the sign of the gradient (L∞) or
    g/‖g‖₂ (L2) and P the projection on ball and pixel range. At checkpoints after 22, 41, 57, 70, … % of the steps, η
    is halved and the search goes back to the best iterate where the loss rose in at most ¾ of the steps since the last
    checkpoint, or where neither η nor the best loss has changed since. From a random point at distance ε.

    On a noisy network gradient and loss are averaged over K fresh draws in each step. The iterate of best mean loss is
    the best of many estimates and so a lucky one, the more the smaller K: the search does not go back to it (which on a
    network with 60 % accuracy and K = 1 cost a quarter of the rise in loss), and both it and the last iterate of each
    restart are candidates, which are compared on max(K, 10) draws that no step has seen.

    Parameters
    ----------
    epsilon : float
        The largest size of a perturbation, in units of the pixels, in the norm.
    n_steps : int, optional
        The number of steps.
    n_draws : int, optional
        K, the number of draws of the noise that each gradient is averaged over.
    n_restarts : int, optional
        How often to set out from another random point.
    loss : str, optional
        What it climbs: "cross_entropy", "dlr" or "targeted_dlr", which attacks towards each of the `n_targets` classes
        of largest logits other than the true one (all of them, where there are fewer), with `n_restarts` each.
    n_targets : int, optional
        How many classes "targeted_dlr" attacks towards.
    early_stopping : bool, optional
        An image is not attacked further once the network gets it wrong: much faster where the noise-free network
        itself is judged.
    norm : str, optional
        "linf" or "l2".
    follows : str, optional
        Whose gradient it follows: see `Follows`.

    Raises
    ------
    ValueError
        For an ε that is not above 0 and finite, numbers below 1, or an unknown norm, loss or `follows`; when called,
        for early stopping under noise, fewer than 3 classes for dlr, or 4 for targeted_dlr.

    Notes
    -----
    What comes out is, of each image and what the restarts made of it, the one that the network gets wrong, or else that
    of highest loss, by fresh draws. (AutoAttack gives survivors back as they were.)

    References
    ----------
    Croce & Hein 2020, arXiv:2003.01690

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 2])
    >>> attack = APGD(0.1, n_steps=10, loss="dlr", n_restarts=1)
    >>> adversarial = attack(NoisyNetwork(model, images=x), x, y, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """

    name: ClassVar[str] = "apgd"
    n_steps: int = 100
    n_restarts: int = 5
    loss: Loss = field(default=Loss.CROSS_ENTROPY)
    n_targets: int = 9
    early_stopping: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "loss", Loss(self.loss))
        self.check_counts("n_steps", "n_restarts", "n_targets")

    @staticmethod
    def preble2026(epsilon: float, *, n_steps: int = 100, n_restarts: int = 5) -> ToolboxAPGD:
        """As Preble et al. 2026 (arXiv:2606.13801) ran it: a first step of 0.1, and single draws that decide."""
        return ToolboxAPGD(epsilon, n_steps=n_steps, n_restarts=n_restarts)

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The best of the image and its candidates; see `Attack.run`."""
        self.check_stopping(network)
        objective = self.objective(network, generator, loss=self.loss)
        # Rounds towards several targets are compared by what they have in common: how near to any other class.
        best = Best(objective, labels, loss=Loss.DLR if self.loss is Loss.TARGETED_DLR else self.loss)
        best.offer(images)
        everything = torch.arange(len(images), device=images.device)
        for targets in self._targets(objective, images, labels):
            for _ in range(self.n_restarts):
                # Drawn for all images, whichever are attacked, so that an image's start does not depend on the others.
                start = self.norm.edge(images, self.epsilon, generator)
                rows = everything[~best.wrong] if self.stops_early else everything
                if not len(rows):
                    return best.images
                ascent = _Ascent.begin(objective, images[rows], labels[rows], targets[rows], start[rows], self)
                for candidate in self._climb(objective, ascent):
                    best.offer(images.index_copy(0, rows, candidate))
        return best.images

    def _targets(self, objective: Objective, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The target classes of each round, (batch,): by mean logits, from the second likeliest; once, where unused."""
        if self.loss is not Loss.TARGETED_DLR:
            yield labels
            return
        with torch.no_grad():
            logits = objective.fresh(objective.n_draws).logits(images).mean(0)
        # The true class at −∞ comes last, and is cut off.
        others = logits.scatter(1, labels[:, None], -torch.inf).sort(dim=1, descending=True).indices[:, :-1]
        yield from others[:, : self.n_targets].unbind(1)

    def _climb(self, objective: Objective, ascent: "_Ascent") -> list[Tensor]:
        """The best iterates and, on noisy networks, the last; stopping early, the first that the network gets wrong."""
        result = ascent.current.clone()
        noisy = objective.network.noisy
        period, shortest, shorter = (
            max(int(share * self.n_steps), 1) for share in (FIRST_PERIOD, SHORTEST_PERIOD, SHORTER_BY)
        )
        until_checkpoint = period
        for step in range(self.n_steps):
            ascent = ascent.without_wrong(result) if self.stops_early else ascent
            if not len(ascent.row):
                return [result]
            if not until_checkpoint:
                ascent.checkpoint(period, back=not noisy)
                until_checkpoint = period = max(period - shorter, shortest)
            ascent.move(self.epsilon, self.norm, MOMENTUM if step else 1.0)  # no move before the first
            ascent.evaluate(objective)
            until_checkpoint -= 1
        ascent = ascent.without_wrong(result) if self.stops_early else ascent
        result[ascent.row] = ascent.best
        return [result, ascent.current] if noisy else [result]


@dataclass
class _Ascent:
    """A restart under way, a row an image that is still attacked."""

    row: Tensor
    images: Tensor
    labels: Tensor
    targets: Tensor
    current: Tensor
    previous: Tensor
    loss: Tensor
    gradient: Tensor
    wrong: Tensor
    step: Tensor
    n_rises: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    halved: Tensor
    loss_at_checkpoint: Tensor

    @classmethod
    def begin(
        cls, objective: Objective, images: Tensor, labels: Tensor, targets: Tensor, start: Tensor, attack: APGD
    ) -> "_Ascent":
        """At the start of a restart."""
        loss, gradient, logits = objective.value_and_gradient(start, labels, targets)
        return cls(
            row=torch.arange(len(images), device=images.device),
            images=images,
            labels=labels,
            targets=targets,
            current=start,
            previous=start,
            loss=torch.zeros_like(loss),  # AutoAttack compares the first loss with 0
            gradient=gradient,
            wrong=logits.argmax(1) != labels,
            step=images.new_full((len(images), 1, 1, 1), 2 * attack.epsilon),
            n_rises=torch.zeros_like(labels),
            best=start,
            best_loss=loss,
            best_gradient=gradient,
            halved=torch.ones_like(labels, dtype=torch.bool),
            loss_at_checkpoint=loss,
        )

    def without_wrong(self, result: Tensor) -> "_Ascent":
        """Only the images that the network still gets right; the others go into `result`."""
        if not self.wrong.any():
            return self
        result[self.row[self.wrong]] = self.current[self.wrong]
        return _Ascent(*(getattr(self, item.name)[~self.wrong] for item in fields(self)))

    def move(self, epsilon: float, norm: Norm, momentum: float) -> None:
        """A step up the gradient, with what is left of the move before."""
        stepped = norm.shrink(self.current + self.step * norm.steepest(self.gradient), self.images, epsilon)
        moved = self.current + momentum * (stepped - self.current) + (1 - momentum) * (self.current - self.previous)
        self.previous, self.current = self.current, norm.shrink(moved, self.images, epsilon)

    def evaluate(self, objective: Objective) -> None:
        """The loss, its gradient and the prediction at the current images."""
        loss, self.gradient, logits = objective.value_and_gradient(self.current, self.labels, self.targets)
        self.wrong = logits.argmax(1) != self.labels
        self.n_rises = self.n_rises + (loss > self.loss)
        self.loss = loss
        better = loss > self.best_loss
        self.best_loss = torch.where(better, loss, self.best_loss)
        chosen = better[:, None, None, None]
        self.best = torch.where(chosen, self.current, self.best)
        self.best_gradient = torch.where(chosen, self.gradient, self.best_gradient)

    def checkpoint(self, n_steps: int, back: bool) -> None:
        """Halve the step where the loss stalled, and go `back` to the best iterate there.

        Periods get shorter as steps do: large steps explore and rise by luck, small ones must show soon that they pay.
        A step that has just been halved is given one period before a best loss that did not change counts against it.
        """
        stuck = ~self.halved & (self.best_loss <= self.loss_at_checkpoint)
        self.halved = stuck | (self.n_rises <= RISING * n_steps)
        self.loss_at_checkpoint = self.best_loss
        self.n_rises = torch.zeros_like(self.n_rises)
        chosen = self.halved[:, None, None, None]
        self.step = torch.where(chosen, self.step / 2, self.step)
        # Under noise the best iterate is the luckiest. Its loss is never reached again, so that the ascent would go
        # back to it at every checkpoint and climb from there with ever smaller steps.
        if not back:
            return
        self.current = torch.where(chosen, self.best, self.current)
        self.gradient = torch.where(chosen, self.best_gradient, self.gradient)
