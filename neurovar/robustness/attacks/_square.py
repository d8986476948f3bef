"""The Square attack."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._choices import Norm
from neurovar.robustness.attacks._preble2026 import ToolboxSquare
from neurovar.robustness.attacks._search import Moves, SearchAttack

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, out of 10,000, after which the share of pixels in a square is halved."""
SMALLEST_L2 = 5
"""Sides of images under L2: the tiles of the start are a fifth of it, and need a pixel each."""


@dataclass(frozen=True, kw_only=True)
class Square(SearchAttack):
    """Square attack: a random search without gradients, which changes a square window of the image at a time.

    From random vertical stripes (L∞) or tiles (L2), each query proposes a window at a random place, of p·height·width
    pixels, and keeps it where the margin loss max_{i≠y} z_i − z_y rises. p starts at `p_init` and is halved after 10,
    50, 200, … of 10,000 queries, scaled to `n_queries`. Each image has windows of its own.

    On a noisy network the loss is the mean over K draws, and each query evaluates incumbent and candidate anew under
    the same fresh draws. A stored loss would be the best of many noisy ones, which no later candidate beats (the
    winner's curse); common draws leave only the noise of the difference. All images of a batch share the K draws, which
    leaves each image's comparison as it is and makes its cost that of the 2·K forward passes. A query is one candidate,
    whatever K; of as many passes, few draws and many queries have gained more than many draws a query.

    Parameters
    ----------
    epsilon : float
        The largest size of a perturbation, in units of the pixels, in the norm.
    n_queries : int, optional
        The number of candidates of each restart.
    n_draws : int, optional
        K, the number of draws of the noise in each comparison. With `follows="fixed"` they are the same K in all
        queries, and each candidate is evaluated once.
    n_restarts : int, optional
        How often to set out from other stripes or tiles.
    p_init : float, optional
        The share of the pixels in the first windows, above 0 and up to 1.
    early_stopping : bool, optional
        An image is not attacked further once the network gets it wrong: much faster where the noise-free network
        itself is judged.
    norm : str, optional
        "linf" or "l2".
    follows : str, optional
        Whose loss it follows: see `Follows`.

    Raises
    ------
    ValueError
        For an ε that is not above 0 and finite, numbers below 1, p_init outside (0, 1], or an unknown norm or
        `follows`; when called, for early stopping under noise, or images of less than 5 × 5 under l2.

    Notes
    -----
    What comes out is, of each image and what the restarts made of it, the one that the network gets wrong, or else that
    of highest loss, by fresh draws. (AutoAttack gives survivors back as they were.)

    References
    ----------
    Andriushchenko et al. 2020, arXiv:1912.00049

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    >>> x, y = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 0])
    >>> adversarial = Square(0.1, n_queries=20)(NoisyNetwork(model, images=x), x, y, generator=torch.Generator())
    >>> round(float((adversarial - x).abs().max()), 6)
    0.1
    """

    name: ClassVar[str] = "square"
    n_queries: int = 5000
    n_draws: int = 5
    n_restarts: int = 1
    p_init: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("n_queries", "n_restarts")
        if not 0 < self.p_init <= 1:
            raise ValueError(f"expected p_init in (0, 1], got {self.p_init}")

    @staticmethod
    def preble2026(epsilon: float, *, n_steps: int = 100) -> ToolboxSquare:
        """As Preble et al. 2026 (arXiv:2606.13801) ran it: 100 windows, and single draws that decide."""
        return ToolboxSquare(epsilon, n_steps=n_steps)

    @property
    def efforts(self) -> dict[str, float]:
        """How hard it tries; restarts count where there are several, which the attack's authors do not have."""
        efforts = super().efforts
        return efforts if self.n_restarts > 1 else {k: v for k, v in efforts.items() if k != "n_restarts"}

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The best of the image and the restarts; see `Attack.run`."""
        if self.norm is Norm.L2 and min(images.shape[2:]) < SMALLEST_L2:
            raise ValueError(f"expected images of at least 5 × 5 under l2, got {tuple(images.shape[2:])}")
        return self.search(network, images, labels, generator, n_queries=self.n_queries, n_restarts=self.n_restarts)

    def moves(self, images: Tensor, generator: torch.Generator) -> "_Windows":
        """Stripes or tiles, and windows."""
        return (_LinfWindows if self.norm is Norm.LINF else _L2Windows)(self, images, generator)


class _Windows(Moves):
    """Random numbers are drawn for all images, whichever are attacked, so that none depends on the others."""

    def __init__(self, attack: Square, images: Tensor, generator: torch.Generator) -> None:
        self.attack, self.images, self.generator = attack, images, generator
        self.epsilon = attack.epsilon

    def side(self, query: int) -> int:
        """Of the square window, in pixels."""
        height, width = self.images.shape[2:]
        n_halvings = bisect_left(HALVED_AFTER, int(query / self.attack.n_queries * 10_000))
        p = self.attack.p_init / 2**n_halvings
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


class _LinfWindows(_Windows):
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
        return Norm.LINF.project(moved, self.images[rows], self.epsilon)


def _between(positions: Tensor, first: Tensor, count: int) -> Tensor:
    """Whether first ≤ position < first + count: (batch, position)."""
    return (positions >= first[:, None]) & (positions < first[:, None] + count)


class _L2Windows(_Windows):
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
