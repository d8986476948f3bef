"""Geometric transformations with a scale s in (0, 2], those of Preble et al. 2026, as torchvision performs them."""

import torch
from torch import Tensor

from neurovar.networks.modifications._base import Transformation
from neurovar.networks.modifications._draws import uniforms
from neurovar.networks.modifications._linear import smoothed
from neurovar.networks.modifications._sampling import pixel_centres, read_at

# The largest changes at s = 1 (Preble et al. 2026): waves, distortion of the corners, side of the square, degrees.
_ELASTIC_ALPHA = 35.0
_ELASTIC_SD = 5.0
_DISTORTION = 0.25
_OBSTRUCTED = 0.40
_MAX_ANGLE = 60.0


class Elastic(Transformation):
    """Shift every pixel by smooth waves.

    x'(p) = x(p + (α/2)·(G * u)), u uniform on ±1 in either direction, G a Gaussian of σ = 5 pixels cut at 4 σ, edges of
    u reflected, α = 35·s; p in pixels. Linear interpolation, black outside. At s = 1 the shifts have a standard
    deviation of about 0.57 pixels. torchvision's `ElasticTransform(alpha=35 s, sigma=5)`, also for images of fewer
    than 21 pixels, which it refuses.

    Parameters
    ----------
    scale : float
        How strong, s in (0, 2].

    Raises
    ------
    ValueError
        For another scale; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801
    Simard, Steinkraus & Platt 2003, doi:10.1109/ICDAR.2003.1227801

    Examples
    --------
    >>> image = torch.rand(1, 1, 28, 28)
    >>> moved = Elastic(1.0)(image, generator=torch.Generator().manual_seed(0))
    >>> moved.shape
    torch.Size([1, 1, 28, 28])
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        drawn = 2 * uniforms(images, 2 * height * width, generator).view(-1, 2, height, width) - 1
        waves = smoothed(drawn, _ELASTIC_SD, mode="mirror", truncate=4) * (_ELASTIC_ALPHA * self.scale / 2)
        # torchvision gives shifts as fractions of half the image's side; times half the side they are pixels, hence
        # α/2.
        rows, columns = pixel_centres(images)
        return read_at(images, rows + waves[:, 1], columns + waves[:, 0], outside="black")


class Perspective(Transformation):
    """See the image from elsewhere: its corners move inwards at random.

    Each corner goes to a pixel uniform on the first int(d·side/2) + 1 rows and columns from it, d = 0.25·s; the image
    is what a projective map makes of that. Linear interpolation, black outside. torchvision's
    `RandomPerspective(distortion_scale=0.25 s, p=1)`. At 28 × 28 and s = 0.2 no corner can move.

    Parameters
    ----------
    scale : float
        How strong, s in (0, 2].

    Raises
    ------
    ValueError
        For another scale; when called, for images of another type, shape or range, of less
        than 2 × 2 pixels, or no generator.

    References
    ----------
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801

    Examples
    --------
    >>> white = torch.ones(1, 1, 28, 28)
    >>> seen = Perspective(2.0)(white, generator=torch.Generator().manual_seed(0))
    >>> bool(seen.mean() < 1)
    True
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        if min(height, width) < 2:
            raise ValueError(f"expected images of at least 2 × 2 pixels, got {height} × {width}")
        drawn = uniforms(images, 8, generator).view(-1, 4, 2)
        # A corner moves by 0 to `choices − 1` whole pixels: ⌊u · choices⌋ with u in [0, 1).
        choices = [int(_DISTORTION * self.scale * (side // 2)) + 1 for side in (width, height)]
        inwards = (drawn * torch.tensor(choices).to(drawn)).floor()
        corners = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]).to(drawn)
        signs = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]]).to(drawn)
        h = _projection(corners + signs * inwards, corners).to(images)[:, :, None, None]
        rows, columns = (centres + 0.5 for centres in pixel_centres(images))
        # The plane of the image seen in perspective: both coordinates are divided by a depth that is linear in them.
        depth = h[:, 6] * columns + h[:, 7] * rows + 1
        x = (h[:, 0] * columns + h[:, 1] * rows + h[:, 2]) / depth
        y = (h[:, 3] * columns + h[:, 4] * rows + h[:, 5]) / depth
        return read_at(images, y - 0.5, x - 0.5, outside="black")


class Obstruction(Transformation):
    """Cover a square with black, at a uniform place.

    Its side is int(0.40·s·shorter side), at least 1 pixel.

    Parameters
    ----------
    scale : float
        How strong, s in (0, 2].

    Raises
    ------
    ValueError
        For another scale; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801

    Examples
    --------
    >>> white = torch.ones(1, 1, 28, 28)
    >>> covered = Obstruction(1.0)(white, generator=torch.Generator().manual_seed(0))
    >>> int((covered == 0).sum())  # 11 × 11
    121
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        side = max(1, int(_OBSTRUCTED * self.scale * min(height, width)))
        room = torch.tensor([height - side + 1, width - side + 1], device=images.device)
        start = (uniforms(images, 2, generator) * room).floor()[:, :, None]
        rows, columns = pixel_centres(images)
        rows_covered = (rows[:, 0] >= start[:, 0]) & (rows[:, 0] < start[:, 0] + side)
        columns_covered = (columns >= start[:, 1]) & (columns < start[:, 1] + side)
        return images.masked_fill((rows_covered[:, :, None] & columns_covered[:, None, :])[:, None], 0.0)


class Rotate(Transformation):
    """Turn the image about its middle by an angle uniform on ±60·s degrees.

    Linear interpolation, black outside, the size stays. torchvision's `RandomRotation(60 s, BILINEAR)`.

    Parameters
    ----------
    scale : float
        How strong, s in (0, 2].

    Raises
    ------
    ValueError
        For another scale; when called, for images of another type, shape or range, or no generator.

    References
    ----------
    Preble, Venkatesh, Mihalas & Decker Harris 2026, arXiv:2606.13801

    Examples
    --------
    >>> white = torch.ones(1, 1, 28, 28)
    >>> turned = Rotate(0.5)(white, generator=torch.Generator().manual_seed(0))
    >>> bool(turned[0, 0, 14, 14] == 1), bool(turned.mean() < 1)
    (True, True)
    """

    def _modified(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        height, width = images.shape[2:]
        angles = torch.deg2rad((2 * uniforms(images, 1, generator) - 1) * (_MAX_ANGLE * self.scale))[:, :, None]
        rows, columns = pixel_centres(images)
        down, right = rows - (height - 1) / 2, columns - (width - 1) / 2
        x = angles.cos() * right - angles.sin() * down
        y = angles.sin() * right + angles.cos() * down
        return read_at(images, y + (height - 1) / 2, x + (width - 1) / 2, outside="black")


def _projection(from_corners: Tensor, to_corners: Tensor) -> Tensor:
    """The eight coefficients (batch, 8) of the projective maps that take four corners (batch, 4, 2) to others (4, 2).

    u = (h₀x + h₁y + h₂)/(h₆x + h₇y + 1), v = (h₃x + h₄y + h₅)/(h₆x + h₇y + 1): eight linear equations, in float64.
    """
    from_, to = from_corners.double().cpu(), to_corners.double().cpu().expand(from_corners.shape)
    ones, none = torch.ones_like(from_[..., :1]), torch.zeros_like(from_)
    first = torch.cat((from_, ones, none, 0 * ones, -to[..., :1] * from_), -1)
    second = torch.cat((none, 0 * ones, from_, ones, -to[..., 1:] * from_), -1)
    return torch.linalg.solve(torch.cat((first, second), 1), torch.cat((to[..., 0], to[..., 1]), 1))
