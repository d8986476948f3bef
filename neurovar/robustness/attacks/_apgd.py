"""Auto-PGD."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._ball import Norm, check_norm, lengths, project, steepest
from neurovar.robustness.attacks._best import Best
from neurovar.robustness.attacks._checks import check, check_stopping
from neurovar.robustness.attacks._objective import NO_NOISE, Average, Objective

MOMENTUM = 0.75
"""The share of the step in each move; the rest is the move before."""
RISING = 0.75
"""The step is halved unless the loss rose in more than this share of the steps since the last checkpoint."""


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    n_steps: int,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
    average: Average = "loss",
    fixed: bool = False,
    norm: Norm = "linf",
    loss: str = "cross_entropy",
    n_restarts: int = 1,
    n_targets: int = 9,
    early_stopping: bool = False,
) -> Tensor:
    """Auto-PGD: ascent with momentum, whose step starts at 2ε and is halved where the loss stops rising.

    z = P(x_t + η·d), x_{t+1} = P(x_t + ¾(z − x_t) + ¼(x_t − x_{t−1})), with d the sign of the gradient (L∞) or
    g/‖g‖₂ (L2) and P the projection on ball and pixel range. At checkpoints after 22, 41, 57, 70, … % of the steps, η
    is halved and the search goes back to the best iterate where the loss rose in at most ¾ of the steps since the last
    checkpoint, or where neither η nor the best loss has changed since. From a random point at distance ε.

    On a noisy network gradient and loss are averaged over K = `n_draws` fresh draws in each step. The iterate of best
    mean loss is the best of many estimates and so a lucky one, the more the smaller K: the search does not go back to
    it (which on a network with 60 % accuracy and K = 1 cost a quarter of the rise in loss), and both it and the last
    iterate of each restart are candidates, which are compared on max(K, 10) draws that no step has seen.

    Parameters
    ----------
    model, images, labels, epsilon, noises, n_draws, average, fixed : as for `fgm`.
    loss : "cross_entropy", "dlr" or "targeted_dlr", which attacks towards each of the `n_targets` classes of largest
        logits other than the true one (all of them, where there are fewer), with `n_restarts` each.
    early_stopping : an image is not attacked further once the network gets it wrong: much faster where the noise-free
        network itself is judged, and too weak where its images are for another one.

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`: of each image and what the restarts made of it, the
    one that the network gets wrong, or else that of highest loss, by fresh draws. (AutoAttack gives survivors back as
    they were.)

    Raises
    ------
    ValueError : as for `fgm`; n_steps, n_restarts or n_targets below 1, fewer than 3 classes for dlr, 4 for
        targeted_dlr.

    References
    ----------
    Croce & Hein 2020, arXiv:2003.01690

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 2])
    >>> adversarial = apgd(model, x, y, epsilon=0.1, n_steps=10, loss="dlr", generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """
    check_norm(norm)
    check(model, images, labels, epsilon, noises)
    check_stopping(early_stopping, noises)
    if n_steps < 1 or n_restarts < 1 or n_targets < 1:
        raise ValueError(
            f"expected n_steps, n_restarts and n_targets of at least 1, got {n_steps}, {n_restarts}, {n_targets}"
        )
    options: dict[str, Any] = {"n_draws": n_draws, "average": average, "generator": generator}
    objective = Objective(model, noises, fixed=fixed, loss=loss, **options)
    best = Best(Objective(model, noises, loss="dlr" if loss == "targeted_dlr" else loss, **options), labels)
    best.offer(images)
    everything = torch.arange(len(images), device=images.device)
    for targets in _targets(objective, images, labels, n_targets):
        for _ in range(n_restarts):
            start = _start(images, epsilon, norm, generator)
            rows = everything[~best.wrong] if early_stopping else everything
            if not len(rows):
                return best.images
            climb = _Climb.begin(objective, images[rows], labels[rows], targets[rows], start[rows], epsilon)
            for found in _run(objective, climb, epsilon, norm, n_steps, early_stopping):
                best.offer(images.index_copy(0, rows, found))
    return best.images


def _targets(objective: Objective, images: Tensor, labels: Tensor, n_targets: int) -> Iterator[Tensor]:
    """The target classes of each round, (batch,): by mean logits, from the second likeliest; once, where unused."""
    if objective.loss != "targeted_dlr":
        yield labels
        return
    with torch.no_grad():
        logits = objective.fresh(objective.n_draws).logits(images).mean(0)
    others = logits.scatter(1, labels[:, None], -torch.inf).sort(dim=1, descending=True).indices[:, :-1]
    yield from others[:, :n_targets].unbind(1)


def _start(images: Tensor, epsilon: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """A random point at distance ε, before it is clipped: a uniform one scaled until it touches, or a direction."""
    shape, device = images.shape, generator.device
    if norm == "linf":
        offset = (2 * torch.rand(shape, generator=generator, device=device) - 1).to(images)
        size = offset.abs().amax((1, 2, 3), keepdim=True)
    else:
        offset = torch.randn(shape, generator=generator, device=device).to(images)
        size = lengths(offset)
    return (images + epsilon * offset / size).clamp(0, 1)


@dataclass
class _Climb:
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
        cls, objective: Objective, images: Tensor, labels: Tensor, targets: Tensor, start: Tensor, epsilon: float
    ) -> "_Climb":
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
            step=images.new_full((len(images), 1, 1, 1), 2 * epsilon),
            n_rises=torch.zeros_like(labels),
            best=start,
            best_loss=loss,
            best_gradient=gradient,
            halved=torch.ones_like(labels, dtype=torch.bool),
            loss_at_checkpoint=loss,
        )

    def without_wrong(self, found: Tensor) -> "_Climb":
        """Only the images that the network still gets right; the others go into `found`."""
        if not self.wrong.any():
            return self
        found[self.row[self.wrong]] = self.current[self.wrong]
        return _Climb(*(getattr(self, field.name)[~self.wrong] for field in fields(self)))

    def move(self, epsilon: float, norm: Norm, momentum: float) -> None:
        stepped = _within(self.current + self.step * steepest(self.gradient, norm), self.images, epsilon, norm)
        moved = self.current + momentum * (stepped - self.current) + (1 - momentum) * (self.current - self.previous)
        self.previous, self.current = self.current, _within(moved, self.images, epsilon, norm)

    def look(self, objective: Objective) -> None:
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
        """Halve the step where the loss stalled, and go `back` to the best iterate there."""
        stuck = ~self.halved & (self.best_loss <= self.loss_at_checkpoint)
        self.halved = stuck | (self.n_rises <= RISING * n_steps)
        self.loss_at_checkpoint = self.best_loss
        self.n_rises = torch.zeros_like(self.n_rises)
        chosen = self.halved[:, None, None, None]
        self.step = torch.where(chosen, self.step / 2, self.step)
        if not back:
            return
        self.current = torch.where(chosen, self.best, self.current)
        self.gradient = torch.where(chosen, self.best_gradient, self.gradient)


def _run(objective: Objective, climb: _Climb, epsilon: float, norm: Norm, n_steps: int, stopping: bool) -> list[Tensor]:
    """The best iterates and, on noisy networks, the last; with `stopping`, the first that the network gets wrong."""
    found = climb.current.clone()
    period, shortest, shorter = (max(int(share * n_steps), 1) for share in (0.22, 0.06, 0.03))
    until_checkpoint = period
    for step in range(n_steps):
        climb = climb.without_wrong(found) if stopping else climb
        if not len(climb.row):
            return [found]
        if not until_checkpoint:
            climb.checkpoint(period, back=not objective.noises)
            until_checkpoint = period = max(period - shorter, shortest)
        climb.move(epsilon, norm, MOMENTUM if step else 1.0)
        climb.look(objective)
        until_checkpoint -= 1
    climb = climb.without_wrong(found) if stopping else climb
    found[climb.row] = climb.best
    return [found, climb.current] if objective.noises else [found]


def _within(moved: Tensor, images: Tensor, epsilon: float, norm: Norm) -> Tensor:
    """Within ε of `images`, then in [0, 1], in the order of AutoAttack."""
    if norm == "linf":
        return project(moved, images, epsilon, norm)
    change = moved - images
    return (images + change * (epsilon / lengths(change)).clamp(max=1)).clamp(0, 1)
