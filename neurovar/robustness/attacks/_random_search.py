"""Random points in the ball: what an attack with gradients must beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neurovar.networks import NoisyNetwork
from neurovar.robustness.attacks._search import Moves, SearchAttack

POINTS = ("vertices", "uniform")


@dataclass(frozen=True, kw_only=True)
class RandomSearch(SearchAttack):
    """The worst of independent random points of the ball about each image, and the image itself.

    A sanity check and no attack: gradients that it beats are broken (Carlini et al. 2019). The margin loss
    max_{i≠y} z_i − z_y decides, on noisy networks by common fresh draws as in `Square`.

    Parameters
    ----------
    epsilon : float
        The size of the ball, in units of the pixels, in the norm.
    n_queries : int, optional
        The number of points; by default as many as `PGD` takes gradients.
    n_draws : int, optional
        K, the number of draws of the noise in each comparison.
    points : str, optional
        "vertices", at the distance ε: x + ε·(±1, …, ±1) in L∞, x + ε·u with a uniform direction u in L2; or "uniform"
        in the ball. Then clipped to [0, 1].
    early_stopping : bool, optional
        An image is not attacked further once the network gets it wrong.
    norm : str, optional
        "linf" or "l2".
    follows : str, optional
        Whose loss it follows: see `Follows`.

    Raises
    ------
    ValueError
        For an ε that is not above 0 and finite, numbers below 1, or unknown points, norm or `follows`; when called, for
        early stopping under noise.

    References
    ----------
    Carlini et al. 2019, arXiv:1902.06705

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> worst = RandomSearch(0.1, n_queries=20)(NoisyNetwork(model, images=x), x, y, generator=torch.Generator())
    >>> round(float((worst - x).abs().max()), 6)
    0.1
    """

    name: ClassVar[str] = "random_search"
    n_queries: int = 200
    points: str = "vertices"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_counts("n_queries")
        if self.points not in POINTS:
            raise ValueError(f"expected points out of {', '.join(POINTS)}, got {self.points!r}")

    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The worst of the points for each image; see `Attack.run`."""
        return self.search(network, images, labels, generator, n_queries=self.n_queries, n_restarts=1)

    def moves(self, images: Tensor, generator: torch.Generator) -> Moves:
        """From the images to points that do not depend on where the search is."""
        return _Points(self, images, generator)


class _Points(Moves):
    def __init__(self, attack: RandomSearch, images: Tensor, generator: torch.Generator) -> None:
        self.attack, self.images, self.generator = attack, images, generator

    def start(self) -> Tensor:
        return self.images

    def propose(self, query: int, current: Tensor, rows: Tensor) -> Tensor:
        norm = self.attack.norm
        draw = norm.vertex if self.attack.points == "vertices" else norm.uniform
        # Drawn for all images, whichever are attacked, so that an image's points do not depend on the others.
        return draw(self.images, self.attack.epsilon, self.generator)[rows]
