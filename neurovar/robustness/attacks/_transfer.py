"""Transfer of adversarial images from another network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._apgd import apgd
from neurovar.robustness.attacks._ball import Norm
from neurovar.robustness.attacks._checks import check
from neurovar.robustness.attacks._fgm import fgm
from neurovar.robustness.attacks._objective import NO_NOISE, Average
from neurovar.robustness.attacks._pgd import pgd
from neurovar.robustness.attacks._square import square

Source = tuple[nn.Module, Mapping[str, Covariance]]
ON_A_SOURCE: dict[str, Callable[..., Tensor]] = {"fgm": fgm, "pgd": pgd, "apgd": apgd, "square": square}


def transfer(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    source: Source,
    attack: str,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    n_draws: int = 1,
    average: Average = "loss",
    fixed: bool = False,
    norm: Norm = "linf",
    **options: Any,
) -> Tensor:
    """Adversarial images made against another network, `source`, and never against `model`.

    Where gradients of the network itself are masked, those of its noise-free twin, or of a network trained
    independently, still find adversarial images. Accuracy on `model` and its noise is then measured as for any attack;
    an attack by transfer that does better than one on the network itself says that the latter failed.

    Parameters
    ----------
    model, noises : the network that is judged; here they are only checked.
    images, labels, epsilon, norm : as for `fgm`.
    source : (network, its noises): (model, {}) for the noise-free twin.
    attack : made on the source, with `options`: "fgm", "pgd", "apgd" or "square", none of which should stop
        early: an image that barely fools the source rarely fools another network.
    n_draws, average, fixed : of the source's noise.

    Returns
    -------
    adversarial images, same shape, in [0, 1], within ε of `images`

    Raises
    ------
    ValueError : as for the attack, on either network; an attack that cannot be made on a source.

    References
    ----------
    Papernot et al. 2016, arXiv:1605.07277; Athalye et al. 2018, arXiv:1802.00420

    Examples
    --------
    >>> import torch
    >>> model, twin = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval() for _ in range(2))
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> options = {"source": (twin, {}), "attack": "apgd", "n_steps": 5, "generator": torch.Generator()}
    >>> transfer(model, x, y, epsilon=0.1, **options).shape
    torch.Size([3, 1, 2, 2])
    """
    if attack not in ON_A_SOURCE:
        raise ValueError(f"expected an attack out of {', '.join(ON_A_SOURCE)}, got {attack!r}")
    check(model, images, labels, epsilon, noises)
    network, source_noises = source
    return ON_A_SOURCE[attack](
        network,
        images,
        labels,
        epsilon=epsilon,
        noises=source_noises,
        n_draws=n_draws,
        average=average,
        fixed=fixed,
        norm=norm,
        generator=generator,
        **options,
    )
