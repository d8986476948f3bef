"""The best of several candidates for each image, judged on fresh draws."""

import torch
from torch import Tensor

from neurovar.robustness.attacks._objective import Objective

FRESH_DRAWS = 10
"""At least so many draws judge a candidate for a noisy network."""


class Best:
    """For each image, of the candidates offered, one that the network gets wrong; of those, the one of highest loss.

    On a noisy network both are judged by max(K, 10) fresh draws of each candidate: the class by the mean of their
    logits, never by a single lucky draw. Of equals the first is kept.
    """

    def __init__(self, objective: Objective, labels: Tensor) -> None:
        noisy = bool(objective.noises)
        self._judge = objective.fresh(max(objective.n_draws, FRESH_DRAWS) if noisy else 1)
        self._labels = labels
        self.images: Tensor = torch.empty(0)
        """The best candidates."""
        self.wrong: Tensor = torch.zeros_like(labels, dtype=torch.bool)
        """Whether the network gets them wrong: (batch,)."""
        self.loss: Tensor = torch.empty(0)
        """Their mean loss: (batch,)."""

    def offer(self, candidates: Tensor, targets: Tensor | None = None) -> None:
        """One more candidate for each image."""
        with torch.no_grad():
            logits = self._judge.logits(candidates)
            loss = self._judge.of(logits, self._labels, targets)
        wrong = logits.mean(0).argmax(1) != self._labels
        if not len(self.images):
            self.images, self.wrong, self.loss = candidates, wrong, loss
            return
        better = (wrong & ~self.wrong) | ((wrong == self.wrong) & (loss > self.loss))
        self.images = torch.where(better[:, None, None, None], candidates, self.images)
        self.wrong, self.loss = torch.where(better, wrong, self.wrong), torch.where(better, loss, self.loss)
