"""Random points in the ball: what an attack with gradients must beat."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._ball import Norm, check_norm, lengths, random_start
from neurovar.robustness.attacks._checks import check
from neurovar.robustness.attacks._objective import NO_NOISE, Average
from neurovar.robustness.attacks._search import search

Points = Literal["vertices", "uniform"]


def random_search(
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
    points: Points = "vertices",
    early_stopping: bool = False,
) -> Tensor:
    """The worst of `n_queries` independent random points of the ball about each image, and the image itself.

    A sanity check and no attack: gradients that it beats are broken (Carlini et al. 2019). The margin loss
    max_{i≠y} z_i − z_y decides, on noisy networks by common fresh draws as in `square`.

    Parameters
    ----------
    model, images, labels, epsilon, noises, n_draws, average, fixed, early_stopping : as for `square`.
    points : "vertices", at the distance ε: x + ε·(±1, …, ±1) in L∞, x + ε·u with a uniform direction u in L2; or
        "uniform" in the ball. Then clipped to [0, 1].

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`

    Raises
    ------
    ValueError : as for `fgm`, except for gradients; n_queries below 1, unknown points.

    References
    ----------
    Carlini et al. 2019, arXiv:1902.06705

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> found = random_search(model, x, y, epsilon=0.1, n_queries=20, generator=torch.Generator())
    >>> round(float((found - x).abs().max()), 6)
    0.1
    """
    check_norm(norm)
    check(model, images, labels, epsilon, noises)
    if n_queries < 1 or points not in get_args(Points):
        known = ", ".join(get_args(Points))
        raise ValueError(f"expected n_queries ≥ 1 and points out of {known}, got {n_queries} and {points!r}")
    draw = _vertex if points == "vertices" else random_start
    return search(
        model,
        images,
        labels,
        lambda: images,
        lambda query, current, rows: draw(images, epsilon, norm, generator)[rows],
        n_queries=n_queries,
        n_restarts=1,
        noises=noises,
        n_draws=n_draws,
        average=average,
        fixed=fixed,
        early_stopping=early_stopping,
        generator=generator,
    )


def _vertex(images: Tensor, epsilon: float, norm: Norm, generator: torch.Generator) -> Tensor:
    direction = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
    direction = direction.sign() if norm == "linf" else direction / lengths(direction)
    return (images + epsilon * direction).clamp(0, 1)
