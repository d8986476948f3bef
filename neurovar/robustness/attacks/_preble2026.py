"""AutoPGD and Square as the Adversarial Robustness Toolbox runs them, which Preble et al. 2026 used on noisy networks.

Both look at a noisy network through single draws: one for a gradient, another for a loss, and a last one that decides
whether an image is adversarial. What that leads to stands in the docstrings. The Toolbox was read and run at 1.20.1.

References: Preble et al. 2026, arXiv:2606.13801; Nicolae et al. 2018, arXiv:1807.01069
"""

import math
from bisect import bisect_left
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._ball import project
from neurovar.robustness.attacks._checks import check
from neurovar.robustness.attacks._objective import NO_NOISE, Objective

BATCH = 32
"""AutoPGD ends for a batch of so many images once every loss in it is exactly 0."""
MOMENTUM, RISING = 0.75, 0.75
HALVED_AFTER = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Share of the iterations after which Square halves the share of pixels in a window."""


def auto_pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    step: float = 0.1,
    n_steps: int = 100,
    n_restarts: int = 5,
) -> Tensor:
    """The Toolbox's AutoPGD on the cross-entropy, L∞.

    A restart attacks the images that one draw classifies correctly. The last iterate is kept where another single draw
    misclassifies it, else the restart's random start, from which the next restart sets out. So on a noisy network many
    images end as random points, whatever the ascent has found; `apgd` keeps the iterate of best mean loss instead.

    Raises
    ------
    ValueError : as for `fgm`; step not above 0, n_steps or n_restarts below 1.
    """
    check(model, images, labels, epsilon, noises)
    if not step > 0 or n_steps < 1 or n_restarts < 1:
        raise ValueError(f"expected step > 0, n_steps ≥ 1 and n_restarts ≥ 1, got {step}, {n_steps}, {n_restarts}")
    objective = Objective(model, noises, generator=generator)
    found = images.clone()
    for _ in range(n_restarts):
        right = _right(objective, found, labels).nonzero().squeeze(1)
        if not len(right):
            break
        given, known = images[right], labels[right]
        offset = 2 * torch.rand(given.shape, generator=generator, device=generator.device).to(images) - 1
        start = project(found[right] + epsilon * offset, given, epsilon, "linf")
        last = _ascend(objective, given, known, start, epsilon, step, n_steps)
        survived = _right(objective, last, known)[:, None, None, None]
        found[right] = torch.where(survived, start, last)
    return found


def _right(objective: Objective, images: Tensor, labels: Tensor) -> Tensor:
    """Whether the network classifies them correctly, under one draw."""
    with torch.no_grad():
        return objective.logits(images)[0].argmax(1) == labels


def _ascend(
    objective: Objective, images: Tensor, labels: Tensor, start: Tensor, epsilon: float, step: float, n_steps: int
) -> Tensor:
    """The last iterate. At checkpoints an image whose loss stalls goes back to its best iterate, with half the step."""

    def moved(current: Tensor) -> Tensor:
        _, gradient, _ = objective.value_and_gradient(current, labels)
        return project(current + sizes * gradient.sign(), images, epsilon, "linf")

    sizes = images.new_full((len(images), 1, 1, 1), step)
    previous, current = start, moved(start)
    first, loss = (objective.value(at, labels) for at in (previous, current))
    better = loss >= first
    n_better, best_loss, loss_at_checkpoint = better.long(), torch.where(better, loss, first), first
    best, before_best = torch.where(better[:, None, None, None], current, previous), images
    over = torch.zeros_like(better)
    checkpoints = _checkpoints(n_steps)
    for k in range(1, n_steps):
        ahead = current + MOMENTUM * (moved(current) - current) + (1 - MOMENTUM) * (current - previous)
        ahead = torch.where(over[:, None, None, None], current, project(ahead, images, epsilon, "linf"))
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


def _checkpoints(n_steps: int) -> list[int]:
    shares = [0.0, 0.22]
    while (share := shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06)) <= 1:
        shares.append(share)
    return [math.ceil(share * n_steps) for share in shares]


def _whole_batches(held: Tensor) -> Tensor:
    """Whether it holds for all images of the batch that an image is in."""
    batch = torch.arange(len(held), device=held.device) // BATCH
    n_exceptions = torch.zeros_like(batch).index_add(0, batch, (~held).long())
    return (n_exceptions == 0)[batch]


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_steps: int = 100,
    p_init: float = 0.8,
) -> Tensor:
    """The Toolbox's Square attack, L∞, one restart.

    Departures from `square` that come from the Toolbox: one window and one colour for all images; the loss is the true
    logit less the second largest, so that it is 0 where the true one is second; and all is decided by single draws,
    one for whether an image is still to be attacked, one each for the loss of incumbent and candidate.

    Raises
    ------
    ValueError : as for `fgm`, except for gradients; n_steps below 1, p_init outside (0, 1).
    """
    check(model, images, labels, epsilon, noises)
    if n_steps < 1 or not 0 < p_init < 1:
        raise ValueError(f"expected n_steps ≥ 1 and p_init between 0 and 1, got {n_steps} and {p_init}")
    objective = Objective(model, noises, generator=generator)
    channels, height, width = images.shape[1:]
    found = images.clone()

    def signs(*shape: int) -> Tensor:
        return (2 * torch.randint(2, shape, generator=generator, device=generator.device) - 1).to(images)

    right = _right(objective, found, labels).nonzero().squeeze(1)
    stripes = epsilon * signs(len(right), channels, 1, width)
    _keep_better(objective, images, labels, found, right, stripes, epsilon)
    for k in range(n_steps):
        right = _right(objective, found, labels).nonzero().squeeze(1)
        p = p_init / 2 ** bisect_left(HALVED_AFTER, k / n_steps)
        side = max(round(math.sqrt(p * height * width)), 1)
        top, left = (
            int(torch.randint(max(size - side, 1), (), generator=generator, device=generator.device))
            for size in (height, width)
        )
        window = torch.zeros_like(images[0])
        window[:, top : top + side, left : left + side] = 2 * epsilon * signs(channels, 1, 1)
        _keep_better(objective, images, labels, found, right, window, epsilon)
    return found


def _keep_better(
    objective: Objective, images: Tensor, labels: Tensor, found: Tensor, rows: Tensor, change: Tensor, epsilon: float
) -> None:
    """Changes those rows of `found` where the loss of one draw comes out lower than that of another before."""
    if not len(rows):
        return
    candidate = project(found[rows] + change, images[rows], epsilon, "linf")
    with torch.no_grad():
        before, after = (_lead(objective.logits(at)[0], labels[rows]) for at in (found[rows], candidate))
    found[rows[after < before]] = candidate[after < before]


def _lead(logits: Tensor, labels: Tensor) -> Tensor:
    """The true logit less the second largest of all: (batch,)."""
    return logits.gather(1, labels[:, None]).squeeze(1) - logits.topk(2).values[:, 1]
