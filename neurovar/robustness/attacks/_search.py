"""Black-box search: propose a change of each image, keep it where the expected loss rises."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import Loss
from neurovar.robustness.attacks._objective import Best, Objective


class Moves(ABC):
    """Where a search starts and what it proposes, for a batch of images."""

    @abstractmethod
    def start(self) -> Tensor:
        """Images to set out from."""

    @abstractmethod
    def propose(self, query: int, current: Tensor, rows: Tensor) -> Tensor:
        """A candidate for each of these rows, which are at `current`."""


@dataclass(frozen=True, kw_only=True)
class SearchAttack(Attack):
    """An attack that takes no gradients: the best of the images themselves and of climbs by random proposals."""

    takes_gradients: ClassVar[bool] = False
    early_stopping: bool = False

    @abstractmethod
    def moves(self, images: Tensor, generator: torch.Generator) -> Moves:
        """Where it starts and what it proposes."""

    def search(
        self,
        network: NoisyNetwork,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        n_queries: int,
        n_restarts: int,
    ) -> Tensor:
        """The best of the images themselves and of `n_restarts` climbs, by fresh draws."""
        self.check_stopping(network)
        moves = self.moves(images, generator)
        objective = self.objective(network, generator, loss=Loss.MARGIN, shared=network.noisy)
        best = Best(objective, labels)
        best.offer(images)
        everything = torch.arange(len(images), device=images.device)
        for _ in range(n_restarts):
            start = moves.start()
            rows = everything[~best.wrong] if self.stops_early else everything
            current = images.index_copy(0, rows, start[rows])
            best.offer(self._climb(objective, current, labels, rows, moves, n_queries))
        return best.images

    def _climb(
        self, objective: Objective, current: Tensor, labels: Tensor, rows: Tensor, moves: Moves, n_queries: int
    ) -> Tensor:
        """Changes those rows of `current`, which it returns, where the loss rises."""
        # Under fresh draws a stored loss would be the best of many, which no later candidate beats (the winner's
        # curse): incumbent and candidate are evaluated anew, and on common draws, since
        # Var(a − b) = Var a + Var b − 2 Cov(a, b) is then small where they are alike.
        loss = objective.value(current, labels)
        for query in range(n_queries):
            rows = rows[loss[rows] <= 0] if self.stops_early else rows
            if not len(rows):
                break
            incumbent = current[rows]
            candidate = moves.propose(query, incumbent, rows)
            if objective.repeatable:
                before, after = loss[rows], objective.value(candidate, labels[rows])
            else:
                both = torch.cat([incumbent, candidate])
                before, after = objective.value(both, labels[rows].repeat(2)).chunk(2)
            better = after > before
            current[rows[better]], loss[rows[better]] = candidate[better], after[better]
        return current
