"""The Square attack."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._ball import Norm, check_norm, project
from neurovar.robustness.attacks._checks import check
from neurovar.robustness.attacks._objective import NO_NOISE, Average
from neurovar.robustness.attacks._search import search

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, out of 10,000, after which the share of pixels in a square is halved."""


def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    n_queries: int,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
    average: Average = "loss",
    fixed: bool = False,
    norm: Norm = "linf",
    p_init: float = 0.8,
    n_restarts: int = 1,
    early_stopping: bool = False,
) -> Tensor:
    """Square attack: a random search without gradients, which changes a square window of the image at a time.

    From random vertical stripes (L∞) or tiles (L2), each query proposes a window at a random place, of p·height·width
    pixels, and keeps it where the margin loss max_{i≠y} z_i − z_y rises. p starts at `p_init` and is halved after 10,
    50, 200, … of 10,000 queries, scaled to `n_queries`. Each image has windows of its own.

    On a noisy network the loss is the mean over K = `n_draws` draws, and each query evaluates incumbent and candidate
    anew under the same fresh draws. A stored loss would be the best of many noisy ones, which no later candidate beats
    (the winner's curse); common draws leave only the noise of the difference. All images of a batch share the K draws,
    which leaves each image's comparison as it is and makes its cost that of the 2·K forward passes. A query is one
    candidate, whatever K; of as many passes, few draws and many queries have gained more than many draws a query.

    Parameters
    ----------
    model, images, labels, epsilon, noises, n_draws, average : as for `fgm`.
    fixed : the same K draws in all queries; each candidate is then evaluated once.
    early_stopping : an image is not attacked further once the network gets it wrong: much faster where the noise-free
        network itself is judged, and too weak where its images are for another one.

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`: of each image and what the restarts made of it, the
    one that the network gets wrong, or else that of highest loss, by fresh draws. (AutoAttack gives survivors back as
    they were.)

    Raises
    ------
    ValueError : as for `fgm`, except for gradients; n_queries or n_restarts below 1, p_init outside (0, 1], images of
        less than 5 × 5 under l2.

    References
    ----------
    Andriushchenko et al. 2020, arXiv:1912.00049

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 0])
    >>> adversarial = square(model, x, y, epsilon=0.1, n_queries=20, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """
    check_norm(norm)
    check(model, images, labels, epsilon, noises)
    if n_queries < 1 or n_restarts < 1 or not 0 < p_init <= 1:
        raise ValueError(
            f"expected n_queries ≥ 1, n_restarts ≥ 1 and p_init in (0, 1], got {n_queries}, {n_restarts}, {p_init}"
        )
    if norm == "l2" and min(images.shape[2:]) < 5:
        raise ValueError(f"expected images of at least 5 × 5 under l2, got {tuple(images.shape[2:])}")
    kind: type[_Moves] = _LinfMoves if norm == "linf" else _L2Moves
    moves = kind(images, epsilon, p_init, n_queries, generator)
    return search(
        model,
        images,
        labels,
        moves.start,
        moves.propose,
        n_queries=n_queries,
        n_restarts=n_restarts,
        noises=noises,
        n_draws=n_draws,
        average=average,
        fixed=fixed,
        early_stopping=early_stopping,
        generator=generator,
    )


@dataclass(frozen=True, eq=False)
class _Moves(ABC):
    """Where a search starts and what it proposes. Random numbers are drawn for all images, whichever are attacked."""

    images: Tensor
    epsilon: float
    p_init: float
    n_queries: int
    generator: torch.Generator

    @abstractmethod
    def start(self) -> Tensor:
        """Images to set out from."""

    @abstractmethod
    def propose(self, query: int, current: Tensor, rows: Tensor) -> Tensor:
        """A candidate for each of these rows, which are at `current`."""

    def side(self, query: int) -> int:
        """Of the square window, in pixels."""
        height, width = self.images.shape[2:]
        p = self.p_init / 2 ** bisect_left(HALVED_AFTER, int(query / self.n_queries * 10_000))
        return max(1, min(height, width, round(math.sqrt(p * height * width))))

    def corners(self, side: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Top and left of a random window for each of these rows; as in AutoAttack the last place is never drawn."""
        height, width = self.images.shape[2:]
        top, left = ((size - side) * self.uniform(len(self.images))[rows] for size in (height, width))
        return top.long(), left.long()

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.images)

    def signs(self) -> Tensor:
        """−1 or 1 for each image and channel."""
        return (2 * self.uniform(*self.images.shape[:2], 1, 1) - 1).sign()


class _LinfMoves(_Moves):
    def start(self) -> Tensor:
        """Vertical stripes of ±ε."""
        n, channels, _, width = self.images.shape
        stripes = (2 * self.uniform(n, channels, 1, width) - 1).sign()
        return (self.images + self.epsilon * stripes).clamp(0, 1)

    def propose(self, query: int, current: Tensor, rows: Tensor) -> Tensor:
        """A window of ±2ε in every channel, brought back within ε."""
        side = self.side(query)
        top, left = self.corners(side, rows)
        height, width = (torch.arange(size, device=rows.device) for size in self.images.shape[2:])
        inside = _between(height, top, side)[:, None, :, None] & _between(width, left, side)[:, None, None, :]
        moved = current + 2 * self.epsilon * self.signs()[rows] * inside
        return project(moved, self.images[rows], self.epsilon, "linf")


def _between(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """Whether first ≤ position < first + count: (batch, position)."""
    return (positions >= first[:, None]) & (positions < first[:, None] + count)


class _L2Moves(_Moves):
    def start(self) -> Tensor:
        """Tiles of a fifth of the image's side, each a bump beside a dent, scaled to length ε."""
        images = self.images
        change = torch.zeros_like(images)
        height, width = images.shape[2:]
        side = min(height, width) // 5
        for top in range(height % side // 2, height - side + 1, side):
            for left in range(width % side // 2, width - side + 1, side):
                change[:, :, top : top + side, left : left + side] = self.bumps(side) * self.signs()
        return (images + self.epsilon * _normalised(change)).clamp(0, 1)

    def propose(self, query: int, current: Tensor, rows: Tensor) -> Tensor:
        """The length of one window moves into another, together with what the image has left of ε."""
        images = self.images[rows]
        channels = images.shape[1]
        side = self.odd_side(query)
        target, source = (self.window(side, rows) for _ in range(2))
        change = (current - images).flatten(2)
        inside = torch.zeros_like(change).scatter(2, target, 1).scatter(2, source, 1)
        left = (self.epsilon**2 - change.square().sum((1, 2))).clamp(min=0)
        length = (left / channels + (change * inside).square().sum((1, 2))).sqrt()
        old = _normalised(change.gather(2, target), dim=2)
        new = (self.bumps(side) * self.signs()).flatten(2)[rows] + old
        change = change.scatter(2, source, 0).scatter(2, target, _normalised(new, dim=2) * length[:, None, None])
        return (images + self.epsilon * _normalised(change, dim=(1, 2)).view_as(images)).clamp(0, 1)

    def odd_side(self, query: int) -> int:
        """Of a window with a pixel at its centre, at least 3."""
        side = max(self.side(query), 3) | 1
        smallest = min(self.images.shape[2:])
        return side if side <= smallest else smallest - 1 + smallest % 2

    def window(self, side: int, rows: Tensor) -> Tensor:
        """The positions, of all pixels in a row, of a random window: (batch, channel, side²)."""
        _, channels, _, width = self.images.shape
        across = torch.arange(side, device=rows.device)
        top, left = (first[:, None] + across for first in self.corners(side, rows))
        return (top[:, :, None] * width + left[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)

    def bumps(self, side: int) -> Tensor:
        """The window's change of each image, of length 1, lying or upright: (batch, 1, side, side)."""
        lying = _bump(side).to(self.images)
        upright = self.uniform(len(self.images))[:, None, None, None] > 0.5
        return torch.where(upright, lying.mT, lying)


@cache
def _bump(side: int) -> Tensor:
    """A pyramid in the upper half, its negative in the lower one, each of the same length: (side, side)."""
    upper, lower = _pyramid(side // 2, side), _pyramid(side - side // 2, side)
    return _normalised(torch.cat([upper, -lower]), dim=(0, 1))


def _pyramid(height: int, width: int) -> Tensor:
    """Rings around the centre, the r-th from inside Σ_{k≥r} 1/k²."""
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    ring = torch.maximum(rows.abs()[:, None], columns.abs()[None, :])
    terms = 1 / torch.arange(1, max(height // 2, width // 2) + 2, dtype=torch.float64) ** 2
    return _normalised(terms.flip(0).cumsum(0).flip(0)[ring], dim=(0, 1))


def _normalised(change: Tensor, dim: int | tuple[int, ...] = (1, 2, 3)) -> Tensor:
    """Divided by its length over `dim`; zeros stay zeros."""
    length = torch.linalg.vector_norm(change, dim=dim, keepdim=True)
    return change / length.clamp(min=torch.finfo(change.dtype).tiny)
