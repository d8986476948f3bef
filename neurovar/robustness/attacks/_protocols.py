"""Attacks by name, with the settings of a protocol."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks import _preble2026
from neurovar.robustness.attacks._apgd import apgd
from neurovar.robustness.attacks._fgm import fgm
from neurovar.robustness.attacks._objective import NO_NOISE
from neurovar.robustness.attacks._pgd import pgd
from neurovar.robustness.attacks._random_search import random_search
from neurovar.robustness.attacks._square import square
from neurovar.robustness.attacks._transfer import transfer

Protocol = Literal["noise_aware", "preble2026"]
ATTACKS: dict[str, Callable[..., Tensor]] = {
    "fgm": fgm,
    "pgd": pgd,
    "apgd": apgd,
    "square": square,
    "random_search": random_search,
    "transfer": transfer,
}
"""Every attack by name; all are called with the same first arguments."""

PREBLE2026: dict[str, Callable[..., Tensor]] = {
    "fgm": fgm,
    "pgd": partial(pgd, random_start=False, last_iterate=True),
    "apgd": _preble2026.auto_pgd,
    "square": _preble2026.square,
}
"""As the Adversarial Robustness Toolbox 1.20.1 executes what that paper asks for."""


def settings(name: str, *, epsilon: float, protocol: Protocol) -> dict[str, Any]:
    """The options of an attack under a protocol.

    "noise_aware" is the checklist of an honest evaluation: K = 20 fresh draws in every gradient and loss; PGD with 40
    steps of ε/4 and 5 random starts; APGD with 100 steps and 5 restarts; Square with 5,000 queries of 5 draws (as many
    passes in more queries find more); random search with as many points as PGD takes gradients; transfer by that APGD.
    "preble2026" are the settings of that paper, as the Adversarial Robustness Toolbox executes them: L∞, one draw for
    each gradient; PGD with 100 steps of 0.1 from the image itself, of which the last counts; AutoPGD with a first step
    of 0.1, 100 steps and 5 restarts; Square with 100 steps and p_init 0.8.

    Raises
    ------
    ValueError : for an unknown attack or protocol, or an attack that the protocol does not have.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801; Carlini et al. 2019, arXiv:1902.06705; Croce & Hein 2020, arXiv:2003.01690

    Examples
    --------
    >>> settings("pgd", epsilon=0.1, protocol="preble2026")
    {'step': 0.1, 'n_steps': 100, 'n_draws': 1}
    >>> settings("pgd", epsilon=0.1, protocol="noise_aware")
    {'step': 0.025, 'n_steps': 40, 'n_restarts': 5, 'n_draws': 20}
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"expected a protocol out of {', '.join(get_args(Protocol))}, got {protocol!r}")
    if name not in ATTACKS:
        raise ValueError(f"expected an attack out of {', '.join(ATTACKS)}, got {name!r}")
    if protocol == "preble2026":
        if name not in PREBLE2026:
            raise ValueError(f"expected one of preble2026's attacks, {', '.join(PREBLE2026)}, got {name!r}")
        return _preble2026_settings()[name]
    return _noise_aware_settings(epsilon)[name]


def _noise_aware_settings(epsilon: float) -> dict[str, dict[str, Any]]:
    return {
        "fgm": {"n_draws": 20},
        "pgd": {"step": epsilon / 4, "n_steps": 40, "n_restarts": 5, "n_draws": 20},
        "apgd": {"loss": "cross_entropy", "n_steps": 100, "n_restarts": 5, "n_draws": 20},
        "square": {"n_queries": 5000, "n_draws": 5},
        "random_search": {"n_queries": 200, "n_draws": 20},
        "transfer": {"attack": "apgd", "n_steps": 100, "n_restarts": 5, "n_draws": 20},
    }


def _preble2026_settings() -> dict[str, dict[str, Any]]:
    return {
        "fgm": {"n_draws": 1},
        "pgd": {"step": 0.1, "n_steps": 100, "n_draws": 1},
        "apgd": {"step": 0.1, "n_steps": 100, "n_restarts": 5, "n_draws": 1},
        "square": {"n_steps": 100, "p_init": 0.8, "n_draws": 1},
    }


def attack(
    name: str,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    protocol: Protocol,
    generator: torch.Generator,
    noises: Mapping[str, Covariance] = NO_NOISE,
    **changed: Any,
) -> Tensor:
    """Adversarial images by the attack of this name, with the `settings` of a protocol, some of them changed.

    Parameters
    ----------
    model, images, labels, epsilon, noises : as for `fgm`.
    changed : options of the attack in place of the protocol's; "transfer" needs its `source`. Without noise, K is 1 in
        any case. Of preble2026 only the numbers of steps, restarts and p_init can be changed.

    Raises
    ------
    ValueError : as for `settings` and for the attack; for a change that the protocol does not allow.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> options = {"epsilon": 0.1, "generator": torch.Generator()}
    >>> attack("pgd", model, x, y, protocol="preble2026", **options).shape
    torch.Size([3, 1, 2, 2])
    """
    options = settings(name, epsilon=epsilon, protocol=protocol)
    call = partial(ATTACKS[name], model, images, labels, epsilon=epsilon, generator=generator, noises=noises)
    if protocol == "preble2026":
        call = partial(PREBLE2026[name], model, images, labels, epsilon=epsilon, generator=generator, noises=noises)
        return call(**_as_published(options, changed))
    noisy = changed["source"][1] if name == "transfer" and "source" in changed else noises
    return call(**options | ({} if noisy else {"n_draws": 1}) | changed)


def _as_published(options: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what was changed, without what is always so."""
    always = {"norm": "linf", "n_draws": 1, "average": "loss", "fixed": False, "loss": "cross_entropy"}
    other = {key: value for key, value in changed.items() if always.get(key, value) != value}
    unknown = [key for key in changed if key not in always and key not in options]
    if other or unknown:
        raise ValueError(
            f"expected preble2026 with other values of {', '.join(set(options) - set(always))} at most, got "
            f"{', '.join([*other, *unknown])}"
        )
    return {key: value for key, value in {**options, **changed}.items() if key not in always}
