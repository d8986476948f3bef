"""Projected gradient descent."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._ball import Norm, check_norm, limits, project, steepest
from neurovar.robustness.attacks._ball import random_start as started
from neurovar.robustness.attacks._best import Best
from neurovar.robustness.attacks._checks import check, check_stopping
from neurovar.robustness.attacks._objective import NO_NOISE, Average, Objective

Advance = Callable[[Tensor, Tensor], Tensor]
"""(iterate, gradient) → next iterate."""


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    step: float,
    n_steps: int,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
    average: Average = "loss",
    fixed: bool = False,
    norm: Norm = "linf",
    loss: str = "cross_entropy",
    random_start: bool = True,
    n_restarts: int = 1,
    last_iterate: bool = False,
    early_stopping: bool = False,
) -> Tensor:
    """Projected gradient descent on the expected loss: `n_steps` steps of size `step`, kept within ε.

    x ← P(x + step·d), d = sign g in L∞ and g/‖g‖₂ in L2, g the gradient over K = `n_draws` fresh draws as in `fgm`, P
    clips to [0, 1] and projects on the ball. Without noise this is the arithmetic of the Adversarial Robustness Toolbox
    1.20.1, and but for the order of clipping and projecting in L2 that of torchattacks 3.3.0; the last iterate counts.

    On a noisy network the mean loss of an iterate is known from the K draws of its gradient. That of the highest and
    the last one are candidates, and so are those of every restart; each image keeps a candidate that the mean logits of
    max(K, 10) fresh draws misclassify, and of those the one of highest mean loss on them: never a single lucky draw.
    Without noise the last iterates of the restarts are compared in the same way.

    Large batches are faster; one takes about K times the memory of a training step.

    Parameters
    ----------
    model, images, labels, epsilon, noises, average, fixed, norm, loss : as for `fgm`.
    step : in the norm.
    random_start : from a uniform point of the ball instead of the image.
    last_iterate : the last iterate counts on noisy networks too.
    early_stopping : images stay as they are once they are misclassified, which only makes sense without noise.

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`

    Raises
    ------
    ValueError : as for `fgm`; for steps, numbers and restarts that are not positive, restarts from the same start, or
        early stopping under noise.

    References
    ----------
    Madry et al. 2018, arXiv:1706.06083; Athalye et al. 2018, arXiv:1802.00420

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> adversarial = pgd(model, x, y, epsilon=0.1, step=0.025, n_steps=10, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """
    check_norm(norm)
    if not 0 < step < float("inf") or n_steps < 1 or n_restarts < 1 or (n_restarts > 1 and not random_start):
        raise ValueError(
            f"expected step > 0, n_steps ≥ 1 and n_restarts ≥ 1 (1 without random start), got {step}, {n_steps}, "
            f"{n_restarts}"
        )
    check_stopping(early_stopping, noises)
    check(model, images, labels, epsilon, noises)
    objective = Objective(model, noises, n_draws=n_draws, average=average, fixed=fixed, loss=loss, generator=generator)
    advance = _steps(images, epsilon, step, norm)

    def candidates() -> Iterator[Tensor]:
        for _ in range(n_restarts):
            start = started(images, epsilon, norm, generator) if random_start else images
            if early_stopping:
                yield _climb_until_wrong(objective, start, images, labels, epsilon, step, n_steps, norm)
            else:
                yield from _climb(objective, start, labels, advance, n_steps, last_only=last_iterate or not noises)

    return _chosen(candidates(), objective, labels)


def _chosen(candidates: Iterator[Tensor], objective: Objective, labels: Tensor) -> Tensor:
    """The best candidate for each image; nothing needs to be judged where there is one."""
    first = next(candidates)
    best = None
    for candidate in candidates:
        if best is None:
            best = Best(objective, labels)
            best.offer(first)
        best.offer(candidate)
    return first if best is None else best.images


def _steps(images: Tensor, epsilon: float, step: float, norm: Norm) -> Advance:
    if norm != "linf":
        return lambda current, gradient: project(current + step * steepest(gradient, norm), images, epsilon, norm)
    low, high = limits(images, epsilon)
    return lambda current, gradient: torch.add(current, gradient.sign(), alpha=step).clamp_(low, high)


def _climb(
    objective: Objective, start: Tensor, labels: Tensor, advance: Advance, n_steps: int, *, last_only: bool
) -> Iterator[Tensor]:
    """The iterate of highest mean loss, unless `last_only`, and the last one."""
    current, best = start, start
    highest = torch.full((len(start),), -torch.inf, dtype=start.dtype, device=start.device)
    for _ in range(n_steps):
        loss, gradient, _ = objective.value_and_gradient(current, labels)
        if not last_only:
            higher = loss > highest
            best = torch.where(higher[:, None, None, None], current, best)
            highest = torch.where(higher, loss, highest)
        current = advance(current, gradient)
    if not last_only:
        yield best
    yield current


def _climb_until_wrong(
    objective: Objective,
    start: Tensor,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    step: float,
    n_steps: int,
    norm: Norm,
) -> Tensor:
    """The last iterate, of images that are still classified correctly; of others the first that is not."""
    current = start.clone()
    active = torch.arange(len(images), device=images.device)
    for _ in range(n_steps):
        _, gradient, logits = objective.value_and_gradient(current[active], labels[active])
        right = logits.argmax(1) == labels[active]
        active = active[right]
        if not len(active):
            break
        moved = current[active] + step * steepest(gradient[right], norm)
        current[active] = project(moved, images[active], epsilon, norm)
    return current
