"""Spatter of water or mud. Its steps on 8-bit numbers are those of OpenCV, which ImageNet-C runs, without OpenCV."""

import torch
from torch import Tensor
from torch.nn import functional as F

from neurovar.networks.modifications._base import LUMA, Corruption
from neurovar.networks.modifications._draws import normals
from neurovar.networks.modifications._linear import smoothed

# All constants here are those of `imagecorruptions` (ImageNet-C, Hendrycks & Dietterich 2019), by severity 1 to 5.
_LIQUID = (  # mean, SD, σ of smoothing, least that is seen, weight of water or σ of the mud's rim
    (0.65, 0.3, 4, 0.69, 0.6),
    (0.65, 0.3, 3, 0.68, 0.6),
    (0.65, 0.3, 2, 0.68, 0.5),
    (0.65, 0.3, 1, 0.65, 1.5),
    (0.67, 0.4, 1, 0.65, 1.5),
)
_LAST_WATER = 3
_WATER, _MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
_LEAST_MUD = 0.8
# Thresholds of Canny's edges on gradients |x| + |y| of 8-bit levels. OpenCV tells directions apart in integers, by tan
# 22.5° · 2¹⁵, and adds lengths of moves · 2¹⁶ (its 5 × 5 mask).
_WEAK_EDGE, _STRONG_EDGE = 50, 150
_TAN_22_5 = 13573  # · 2¹⁵
_FAR = 2**28
_STEP, _DIAGONAL, _KNIGHT = 65536, 91750, 143976  # lengths of moves, · 2¹⁶
_FARTHEST = 20
# A light from the lower right: a filter of 3 × 3 that is brighter where distances grow that way.
_RELIEF = {(0, 0): -2, (0, 1): -1, (1, 0): -1, (1, 1): 1, (1, 2): 1, (2, 1): 1, (2, 2): 2}  # (row, column): weight


class Spatter(Corruption):
    """Spatter the image with water (severities 1 to 3) or mud (4 and 5).

    A liquid ℓ is smoothed normal noise, 0 below a threshold. Water: ℓ is lit by the relief of its distance from its own
    edges, m = w·ℓ·d/max(ℓ·d), x' = clip₀₁(x + m·turquoise). Mud: m is the smoothed mask ℓ > 0, 0 below 0.8,
    x' = x·(1 − m) + m·brown. A grey image takes the colour's luma.

    Departures from the reference: where an image gets no water at all it stays as it is (the reference divides 0 by 0).
    The relief goes through 8-bit numbers and integers, here as there.

    Parameters
    ----------
    severity : int
        How strong, from 1 to 5.
    grey_8_bit : bool, optional
        The form of Preble et al. 2026 for grey images: rounded to 8 bits and made three equal channels before, rounded
        down to 8 bits and made grey after; see `Corruption`.

    Raises
    ------
    ValueError
        For another severity; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Hendrycks & Dietterich 2019, arXiv:1903.12261
    Canny 1986, doi:10.1109/TPAMI.1986.4767851 (edges)
    Borgefors 1986, doi:10.1016/S0734-189X(86)80047-0 (distances)

    Examples
    --------
    >>> black = torch.zeros(1, 3, 64, 64)
    >>> muddy = Spatter(5)(black, generator=torch.Generator().manual_seed(0))
    >>> (muddy.amax((0, 2, 3)) * 255).round()
    tensor([63., 42., 20.])
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        mean, sd, sigma, least, amount = _LIQUID[self.severity - 1]
        height, width = images.shape[2:]
        drawn = mean + sd * normals(images, height * width, generator).view(-1, height, width)
        liquid = smoothed(drawn, sigma, mode="nearest", truncate=4)
        liquid = liquid.masked_fill(liquid < least, 0.0)
        if self.severity <= _LAST_WATER:
            return images + amount * _water(liquid)[:, None] * _colour(_WATER, images)
        mud = smoothed((liquid > least).to(images), amount, mode="nearest", truncate=4)[:, None]
        mud = mud.masked_fill(mud < _LEAST_MUD, 0.0)
        return images * (1 - mud) + mud * _colour(_MUD, images)


def _colour(colour: tuple[float, ...], images: Tensor) -> Tensor:
    values = colour if images.shape[1] == 3 else (sum(w * c for w, c in zip(LUMA, colour)),)
    return images.new_tensor(values)[:, None, None]


def _water(liquid: Tensor) -> Tensor:
    """How bright the water is, in [0, 1]: (batch, height, width), as is the liquid."""
    levels = (liquid * 255).int()
    far = _chamfer_distance(_canny(levels)).clamp(max=_FARTHEST * _STEP)
    near = _equalized(_sum_of_9(far).div(9 * _STEP, rounding_mode="floor"))
    height, width = liquid.shape[1:]
    around = _reflected(near)
    parts = [w * around[:, i : i + height, j : j + width] for (i, j), w in _RELIEF.items()]
    relief = torch.stack(parts).sum(0).clamp(0, 255)
    lit = (levels * (_sum_of_9(relief) / 9).round()).to(liquid)
    brightest = lit.amax(dim=(1, 2), keepdim=True)
    return torch.where(brightest > 0, lit / brightest, 0.0)


def _reflected(maps: Tensor) -> Tensor:
    """With a row and a column more on each side, reflected at the middle of the edge pixels."""
    tall = torch.cat((maps[:, 1:2], maps, maps[:, -2:-1]), 1)
    return torch.cat((tall[..., 1:2], tall, tall[..., -2:-1]), 2)


def _sum_of_9(maps: Tensor) -> Tensor:
    padded = _reflected(maps)
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


def _canny(levels: Tensor) -> Tensor:
    """Edges (bool) of maps (batch, height, width) of 8-bit levels: Sobel, thinned along the gradient, linked."""
    # |y|·2¹⁵ < |x|·tan 22.5°·2¹⁵ is a direction below 22.5°; tan 67.5° = tan 22.5° + 2, hence |x|·2¹⁶ more.
    x, y = _sobel(levels)
    size = x.abs() + y.abs()
    around = _around(size)
    tan_22_5 = x.abs() * _TAN_22_5
    steepness = y.abs() * 2**15
    flat, steep = steepness < tan_22_5, steepness > tan_22_5 + x.abs() * 2**16
    beside = (size > around[0, -1]) & (size >= around[0, 1])
    below = (size > around[-1, 0]) & (size >= around[1, 0])
    falling = (size > around[-1, -1]) & (size > around[1, 1])
    rising = (size > around[-1, 1]) & (size > around[1, -1])
    across = torch.where((x < 0) ^ (y < 0), rising, falling)
    thin = torch.where(flat, beside, torch.where(steep, below, across)) & (size > _WEAK_EDGE)
    edges = thin & (size > _STRONG_EDGE)
    # Weak edges that touch strong ones are edges, and so are those that touch these, until none is added.
    while True:
        grown = _dilated(edges) & thin
        if torch.equal(grown, edges):
            return edges
        edges = grown


def _sobel(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to the right and down, edges repeated."""
    padded = F.pad(levels[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].int()
    right, down = padded[..., 2:] - padded[..., :-2], padded[:, 2:] - padded[:, :-2]
    return right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:], down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]


def _around(maps: Tensor) -> dict[tuple[int, int], Tensor]:
    """(rows down, columns right) → the maps there, 0 outside."""
    height, width = maps.shape[1:]
    padded = F.pad(maps, (1, 1, 1, 1))
    return {(i, j): padded[:, 1 + i :][:, :height, 1 + j :][..., :width] for i in (-1, 0, 1) for j in (-1, 0, 1)}


def _dilated(maps: Tensor) -> Tensor:
    tall = F.pad(maps, (0, 0, 1, 1))
    wide = F.pad(tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:], (1, 1))
    return wide[..., :-2] | wide[..., 1:-1] | wide[..., 2:]


def _chamfer_distance(edges: Tensor) -> Tensor:
    """2¹⁶ times the distance from the nearest edge along moves of 1, 1.4 (diagonal) and 2.1969 (a knight's)."""
    far = torch.full(edges.shape, _FAR, dtype=torch.int32, device=edges.device).masked_fill(edges, 0)
    return _swept(_swept(far).flip(1, 2)).flip(1, 2)


def _swept(distance: Tensor) -> Tensor:
    """Distances by moves down and to the right from those that are known."""
    height, width = distance.shape[1:]
    known = F.pad(distance.transpose(0, 1), (2, 2, 0, 0, 2, 0), value=_FAR)  # (row, batch, column)
    # Moves to the right along a row: min over i ≤ j of (d_i − i·step) + j·step, a running minimum.
    ramp = _STEP * torch.arange(width, dtype=torch.int32, device=distance.device)
    for row in range(2, height + 2):
        two_above, above, here = known[row - 2], known[row - 1], known[row, :, 2:-2]
        knights = torch.minimum(
            torch.minimum(two_above[:, 1:-3], two_above[:, 3:-1]), torch.minimum(above[:, :-4], above[:, 4:])
        )
        diagonals = torch.minimum(above[:, 1:-3], above[:, 3:-1])
        nearest = torch.minimum(knights + _KNIGHT, torch.minimum(diagonals + _DIAGONAL, above[:, 2:-2] + _STEP))
        known[row, :, 2:-2] = (torch.minimum(here, nearest) - ramp).cummin(1).values + ramp
    return known[2:, :, 2:-2].transpose(0, 1)


def _equalized(levels: Tensor) -> Tensor:
    """Levels 0 … 20 spread so that each of 0 … 255 is as frequent, an image at a time; the lowest becomes 0."""
    flat, n_levels = levels.flatten(1).long(), _FARTHEST + 1
    # Counts of all images at once: the levels of image i are numbered from i · n_levels.
    numbered = flat + n_levels * torch.arange(len(flat), device=flat.device)[:, None]
    counts = numbered.flatten().bincount(minlength=n_levels * len(flat)).view(-1, n_levels)
    lowest = flat.amin(1, keepdim=True)
    n_lowest = counts.gather(1, lowest)
    above = flat.shape[1] - n_lowest
    table = ((counts.cumsum(1) - n_lowest) * (255 / above).float()).round().int()
    return torch.where(above > 0, table, lowest.int()).gather(1, flat).view(levels.shape)
