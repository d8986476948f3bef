"""What a network is tested under: clean images, a modification, an attack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.networks import Corruption, modification
from neurovar.robustness.attacks._protocols import ATTACKS, attack, settings

Gradient = Literal["averaged", "mean_logits", "off", "fixed", "twin", "independent", "none"]
Norm = Literal["linf", "l2"]
STOP_EARLY = ("apgd", "square", "random_search")
GRADIENT_FREE = ("square", "random_search")
TRANSFERRED = ("twin", "independent")
WITHOUT_NOISE = ("off", *TRANSFERRED)
TEXTS = ("kind", "modification", "norm", "loss", "gradient", "protocol")
SIGNS = {"n_draws": "K", "n_steps": "steps", "n_restarts": "restarts", "n_queries": "queries", "step": "step"}
OPTIONS = ("loss", *SIGNS)


@dataclass(frozen=True)
class Clean:
    """The images as they are."""

    @property
    def label(self) -> str:
        return "clean"

    def described(self) -> dict[str, Any]:
        return {"kind": "clean", "modification": "clean", "strength": 0.0}

    def shown(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images


@dataclass(frozen=True)
class Modified:
    """A naturalistic modification, with its strength and protocol: see `networks.modification`."""

    name: str
    strength: float
    protocol: Literal["imagenet_c", "preble2026"] = "imagenet_c"

    @property
    def label(self) -> str:
        return f"{self.name} {self.strength:g} {self.protocol}".removesuffix(" imagenet_c")

    def described(self) -> dict[str, Any]:
        strength = float(self.strength)
        return {"kind": "modification", "modification": self.name, "strength": strength, "protocol": self.protocol}

    def shown(self, images: Tensor, generator: torch.Generator) -> Tensor:
        modified = modification(self.name, self.strength)
        if self.protocol == "preble2026" and isinstance(modified, Corruption):
            modified = modified.preble2026(modified.severity)
        return modified(images, generator=generator)


@dataclass(frozen=True)
class Attack:
    """An attack of `robustness.ATTACKS` at a size; what is None is as `robustness.settings` has it for the protocol.

    gradient : whose gradient, or loss where the attack takes none, it follows
        "averaged": the mean over K = `n_draws` fresh draws, of the network with its noise on;
        "mean_logits": that of the loss of the mean logits of K draws;
        "fixed": that of K draws, the same in the whole attack;
        "off": that of the same network with its noise off;
        "twin", "independent": that of another network without noise, see `evaluate`: a transfer attack;
        "none": the attack takes no gradient (Square, random search), and this is the only choice for it.

    Raises
    ------
    ValueError : ε ≤ 0, an unknown name, gradient, norm or protocol, or a gradient for an attack that takes none.

    Examples
    --------
    >>> Attack("apgd", 0.1, loss="dlr", n_steps=100, n_restarts=5, n_draws=20).label
    'apgd dlr ε=0.1 K=20 steps=100 restarts=5'
    """

    name: str
    epsilon: float
    norm: Norm = "linf"
    gradient: Gradient | None = None
    protocol: Literal["noise_aware", "preble2026"] = "noise_aware"
    loss: str | None = None
    n_draws: int | None = None
    n_steps: int | None = None
    n_restarts: int | None = None
    n_queries: int | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < np.inf:
            raise ValueError(f"expected a finite epsilon above 0, got {self.epsilon}")
        if self.norm not in get_args(Norm):
            raise ValueError(f"expected a norm out of {', '.join(get_args(Norm))}, got {self.norm!r}")
        if self.gradient not in (None, *get_args(Gradient)):
            raise ValueError(f"expected gradient to be one of {', '.join(get_args(Gradient))}, got {self.gradient!r}")
        free = self.name in GRADIENT_FREE
        if self.gradient not in ((None, "none", *TRANSFERRED) if free else (None, *get_args(Gradient)[:-1])):
            raise ValueError(
                f'expected the gradient "none" for {", ".join(GRADIENT_FREE)} unless they are transferred, and for no '
                f"other attack, got {self.gradient!r} for {self.name!r}"
            )
        if self.name == "transfer":
            raise ValueError('expected the attack to transfer, with gradient "twin" or "independent", got "transfer"')
        self._check_options()
        if self.gradient is None:
            object.__setattr__(self, "gradient", "none" if free else "averaged")

    def _check_options(self) -> None:
        protocols = settings(self.name, epsilon=self.epsilon, protocol=self.protocol)
        known = {*protocols, *signature(ATTACKS[self.name]).parameters}
        unknown = [name for name in self._changed() if name not in known]
        if unknown:
            raise ValueError(f"expected options that {self.name} has, got {', '.join(unknown)}")

    @property
    def settings(self) -> dict[str, Any]:
        """Every option, with what the protocol says of those that are None."""
        protocols = settings(self.name, epsilon=self.epsilon, protocol=self.protocol)
        return protocols | self._changed()

    def _changed(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def label(self) -> str:
        found = self.described()
        parts = [self.name, found["loss"].replace("cross_entropy", "ce"), self.norm.replace("linf", "")]
        parts.append(f"ε={self.epsilon:g}")
        for name, sign in SIGNS.items():
            if not np.isnan(found[name]) and (name != "step" or self.step is not None):
                parts.append(f"{sign}={found[name]:g}")
        parts.append(str(self.gradient).replace("averaged", "").replace("none", ""))
        parts.append(self.protocol.replace("noise_aware", ""))
        return " ".join(part for part in parts if part)

    def described(self) -> dict[str, Any]:
        """The coordinates of this condition: NaN or "" for what the attack does not have."""
        settings = self.settings
        if self.gradient in WITHOUT_NOISE:
            settings = settings | {"n_draws": 1}
        numbers = {name: float(settings.get(name, np.nan)) for name in SIGNS}
        return {
            "kind": "attack",
            "modification": self.name,
            "strength": float(self.epsilon),
            "norm": self.norm,
            "loss": "" if self.name in GRADIENT_FREE else str(settings.get("loss", "cross_entropy")),
            "gradient": str(self.gradient),
            "protocol": self.protocol,
            **numbers,
        }

    def shown(
        self,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator,
        *,
        model: nn.Module,
        noises: Mapping[str, Covariance],
    ) -> Tensor:
        """The adversarial images; `model` and `noises` are those that the attack follows."""
        changed = self._changed() | {"norm": self.norm}
        if self.gradient in WITHOUT_NOISE and self.name in STOP_EARLY and self.protocol == "noise_aware":
            changed["early_stopping"] = False  # what barely fools one network rarely fools another
        if not noises:
            changed["n_draws"] = 1
        elif self.gradient in ("mean_logits", "fixed"):
            changed |= {"average": "logits"} if self.gradient == "mean_logits" else {"fixed": True}
        return attack(
            self.name,
            model,
            images,
            labels,
            epsilon=self.epsilon,
            protocol=self.protocol,
            generator=generator,
            noises=noises,
            **changed,
        )


Condition = Clean | Modified | Attack


def coordinates(conditions: Sequence[Condition]) -> dict[str, Any]:
    """The coords of the dim `condition`: its labels, and what each condition is."""
    labels = [condition.label for condition in conditions]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"expected conditions that differ, got more than one {', '.join(twice)}")
    found = [condition.described() for condition in conditions]
    texts = {name: ("condition", [one.get(name, "") for one in found]) for name in TEXTS}
    numbers = {name: ("condition", [one.get(name, np.nan) for one in found]) for name in ("strength", *SIGNS)}
    return {"condition": labels, **texts, **numbers}
