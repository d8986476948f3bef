"""Black-box search: propose a change of each image, keep it where the expected loss rises."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance, Dense, SharedDraws
from neurovar.robustness.attacks._best import Best
from neurovar.robustness.attacks._checks import check_stopping
from neurovar.robustness.attacks._objective import BLOCK, MOST_NUMBERS, Average, Objective

Proposal = Callable[[int, Tensor, Tensor], Tensor]
"""(number of the query, the current images of these rows, the rows' indices) → a candidate for each."""


def shared_draws(noise: Covariance, n_draws: int, fresh_from: torch.Generator | None = None) -> SharedDraws:
    """The same K draws for every image of a batch, so that a candidate meets its incumbent under common random numbers.

    Dense noise is drawn in blocks, `fresh_from` a generator, unless draws are to be repeated.
    """
    if fresh_from is None or not isinstance(noise, Dense) or noise.trainable:
        return SharedDraws(noise, n_draws)
    block = min(BLOCK, max(MOST_NUMBERS // noise.n, 1))
    return SharedDraws(noise, n_draws, noise.sampler(generator=fresh_from, block=block))


def search(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    draw_start: Callable[[], Tensor],
    propose: Proposal,
    *,
    n_queries: int,
    n_restarts: int,
    noises: Mapping[str, Covariance],
    n_draws: int,
    average: Average,
    fixed: bool,
    early_stopping: bool,
    generator: torch.Generator,
) -> Tensor:
    """The best of the images themselves and of `n_restarts` climbs, each from `draw_start()`, by fresh draws."""
    check_stopping(early_stopping, noises)
    options: dict[str, Any] = {"n_draws": n_draws, "average": average, "loss": "margin", "generator": generator}
    shared = {
        name: cast(Covariance, shared_draws(noise, n_draws, None if fixed else generator))
        for name, noise in noises.items()
    }
    objective = Objective(model, shared, fixed=fixed and bool(noises), **options)
    best = Best(Objective(model, noises, **options), labels)
    best.offer(images)
    everything = torch.arange(len(images), device=images.device)
    for _ in range(n_restarts):
        start = draw_start()
        rows = everything[~best.wrong] if early_stopping else everything
        current = images.index_copy(0, rows, start[rows])
        best.offer(_climb(objective, current, labels, rows, propose, n_queries, fixed or not noises, early_stopping))
    return best.images


def _climb(
    objective: Objective,
    current: Tensor,
    labels: Tensor,
    rows: Tensor,
    propose: Proposal,
    n_queries: int,
    repeatable: bool,
    stopping: bool,
) -> Tensor:
    """Changes those rows of `current`, which it returns, where the loss rises.

    repeatable : a loss stays what it was; otherwise candidate and incumbent are compared on common fresh draws.
    """
    loss = objective.value(current, labels)
    for query in range(n_queries):
        rows = rows[loss[rows] <= 0] if stopping else rows
        if not len(rows):
            break
        incumbent = current[rows]
        candidate = propose(query, incumbent, rows)
        if repeatable:
            before, after = loss[rows], objective.value(candidate, labels[rows])
        else:
            before, after = objective.value(torch.cat([incumbent, candidate]), labels[rows].repeat(2)).chunk(2)
        better = after > before
        current[rows[better]], loss[rows[better]] = candidate[better], after[better]
    return current
