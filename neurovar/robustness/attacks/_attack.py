"""What all attacks have in common: a frozen value that makes adversarial images when it is called."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from math import inf, nan
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from neurovar._values import Value
from neurovar.networks import NoisyNetwork, Origin
from neurovar.robustness.attacks._choices import Follows, Loss, Norm
from neurovar.robustness.attacks._objective import Objective

EFFORTS = {"n_draws": "K", "n_steps": "steps", "n_restarts": "restarts", "n_queries": "queries"}
"""Fields that say how hard an attack tries, with their signs in labels."""
NUMBERS = ("strength", *EFFORTS, "step")
TEXTS = ("kind", "modification", "norm", "loss", "gradient", "protocol")
"""The coordinates by which results say what a condition is."""
ROUNDING = 1e-4
"""By how much, as a fraction of ε, an image may leave the ball: float32 images at distances around 1."""


@dataclass(frozen=True)
class Attack(Value, ABC):
    """A way to make adversarial images, of at most ε in a norm, against a network with its noise.

    An attack is a value: it is made with its settings, compared, written down (`str`, `to_json`), and called with a
    network. One of your own is a subclass with the method `run`; more settings make it a frozen dataclass. It then
    works wherever an attack does: in `evaluate`, whose results have it under its name, in `honesty` and in figures.

    Parameters
    ----------
    epsilon : float
        The largest size of a perturbation, in units of the pixels, in the norm.
    norm : str, optional
        "linf", the largest change of a pixel, or "l2", the length of all changes.
    follows : str, optional
        Whose gradient it follows: see `Follows`.
    n_draws : int, optional
        K, the number of draws of the noise in every gradient and loss; on a network without noise there is one.

    Raises
    ------
    ValueError
        For an ε that is not above 0 and finite, an unknown norm, or fewer than 1 draw.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Brighter(Attack):
    ...     share: float = 1.0
    ...     takes_gradients = False
    ...
    ...     def run(self, network, images, labels, generator):
    ...         return (images + self.share * self.epsilon).clamp(0, 1)

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> x, y = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0])
    >>> attack = Brighter(0.25, share=0.5)
    >>> attack(NoisyNetwork(model, images=x), x, y, generator=torch.Generator()).max()
    tensor(0.6250)
    >>> attack.label
    'brighter ε=0.25 K=20 share=0.5'
    """

    epsilon: float
    norm: Norm = field(default=Norm.LINF, kw_only=True)
    follows: Follows = field(default=Follows.AVERAGED, kw_only=True)
    n_draws: int = field(default=20, kw_only=True)

    name: ClassVar[str]
    """What results call it; own_attack for a class OwnAttack where it is not given."""
    protocol: ClassVar[str] = "noise_aware"
    """Whose settings it has: those of an honest evaluation, or those of a paper."""
    takes_gradients: ClassVar[bool] = True
    """Whether it follows gradients of the network."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()  # OwnAttack → own_attack

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", Norm(self.norm))
        object.__setattr__(self, "follows", Follows(self.follows))
        if not 0 < self.epsilon < inf:
            raise ValueError(f"expected a finite epsilon above 0, got {self.epsilon}")
        self.check_counts("n_draws")

    @classmethod
    def noise_aware(cls, epsilon: float) -> Self:
        """The attack with the settings of an honest evaluation of a noisy network, which are the defaults."""
        return cls(epsilon=epsilon)

    @abstractmethod
    def run(self, network: NoisyNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The adversarial images.

        Parameters
        ----------
        network : NoisyNetwork
            What the attack follows: it may look at its gradients and logits.
        images : torch.Tensor
            (batch, channel, row, column), in [0, 1].
        labels : torch.Tensor
            int64 (batch,).
        generator : torch.Generator
            Source of every random number.

        Returns
        -------
        torch.Tensor
            Of the same shape, in [0, 1], within ε of `images`.
        """

    def __call__(
        self,
        network: NoisyNetwork,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator,
        other: NoisyNetwork | None = None,
    ) -> Tensor:
        """Adversarial images for a network.

        Parameters
        ----------
        network : NoisyNetwork
            The network that is attacked, with its noise.
        images : torch.Tensor
            (batch, channel, row, column), in [0, 1].
        labels : torch.Tensor
            int64 (batch,): the true classes.
        generator : torch.Generator
            Source of every random number.
        other : NoisyNetwork, optional
            The network without noise that a transfer attack follows.

        Returns
        -------
        torch.Tensor
            Of the same shape, in [0, 1], within ε of `images`.

        Raises
        ------
        ValueError
            For images outside [0, 1], labels outside the classes or of another length, a network in training mode,
            gradients that are missing, not finite or zero for every image (`GradientError`), a transfer attack without
            `other`, or images that come out beyond ε or [0, 1].
        """
        network.check(images, labels)
        followed = self.follows.network(network, other)
        followed.check(images, labels)
        attacked = self.run(followed, images, labels, generator).detach()
        self._check_result(attacked, images)
        return attacked

    def _check_result(self, attacked: Tensor, images: Tensor) -> None:
        if attacked.shape != images.shape:
            raise ValueError(f"expected {self.name} to give images {tuple(images.shape)}, got {tuple(attacked.shape)}")
        size, low, high = self.norm.sizes(attacked - images).max(), attacked.min(), attacked.max()
        if not (size <= self.epsilon * (1 + ROUNDING) + 1e-6 and low >= 0 and high <= 1):
            raise ValueError(
                f"expected {self.name} to stay within ε={self.epsilon:g} ({self.norm}) and in [0, 1], got images at a "
                f"distance of up to {size:g} with pixels from {low:g} to {high:g}"
            )

    def objective(
        self,
        network: NoisyNetwork,
        generator: torch.Generator,
        *,
        loss: str = Loss.CROSS_ENTROPY,
        shared: bool = False,
    ) -> Objective:
        """What the attack climbs on a network: a loss over as many draws, of the kind, that its settings say."""
        # Of another network than that which is judged there is nothing to average in a particular way.
        follows = Follows.AVERAGED if self.follows.without_noise else self.follows
        return Objective(network, n_draws=self.n_draws, loss=loss, follows=follows, shared=shared, generator=generator)

    def check_counts(self, *names: str) -> None:
        """Refuse fields below 1."""
        settings = self._settings
        if any(settings[name] < 1 for name in names):
            numbers = ", ".join(str(settings[name]) for name in names)
            raise ValueError(f"expected {', '.join(names)} of at least 1, got {numbers}")

    def check_stopping(self, network: NoisyNetwork) -> None:
        """Refuse to stop early under noise."""
        if self.stops_early and network.noisy:
            raise ValueError(
                f"expected early_stopping only without noise, got noise at {', '.join(network.layers)}, under which an "
                "image that was misclassified once may be classified correctly again"
            )

    @property
    def stops_early(self) -> bool:
        """Whether an image is not attacked further once the network gets it wrong.

        Never where the images are for another network than the one that they are made on: those that barely fool one
        network rarely fool another.
        """
        return bool(self._settings.get("early_stopping", False)) and not self.follows.without_noise

    @property
    def white_box(self) -> bool:
        """Whether it looks into the network that it attacks."""
        return self.takes_gradients and not self.follows.transferred

    @property
    def origin(self) -> Origin:
        """What noise is made from that comes from responses to this attack."""
        return Origin("attacked", of=self.name, epsilon=float(self.epsilon), norm=self.norm.value)

    @property
    def _settings(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @property
    def efforts(self) -> dict[str, float]:
        """How hard it tries: of `EFFORTS` those numbers that it has."""
        efforts = {name: float(value) for name, value in self._settings.items() if name in EFFORTS}
        return efforts | ({"n_draws": 1.0} if self.follows.without_noise else {})

    def described(self) -> dict[str, Any]:
        """What results say of this condition: NaN or "" for what the attack does not have."""
        averaged = self.takes_gradients or self.follows is not Follows.AVERAGED
        return {
            "kind": "attack",
            "modification": self.name,
            "strength": float(self.epsilon),
            "norm": self.norm.value,
            "loss": str(self._settings.get("loss", "")),
            "gradient": self.follows.value if averaged else "none",
            "protocol": self.protocol,
            "step": nan,
        } | {name: self.efforts.get(name, nan) for name in EFFORTS}

    @property
    def label(self) -> str:
        """The condition in results, which also seeds its draws: "apgd dlr ε=0.1 K=20 steps=100 restarts=5".

        Named are those settings that say what the attack is, and others where they differ from their default.
        """
        coords, known = self.described(), {"epsilon", "norm", "follows", "loss", *EFFORTS}
        parts = [self.name, coords["loss"].replace("cross_entropy", "ce"), coords["norm"].replace("linf", "")]
        parts.append(f"ε={self.epsilon:g}")
        parts += [f"{sign}={coords[name]:g}" for name, sign in EFFORTS.items() if coords[name] == coords[name]]
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name not in known and value != item.default:
                parts.append(f"{item.name}={value:g}" if isinstance(value, float) else f"{item.name}={value}")
        parts += [coords["gradient"].replace("averaged", "").replace("none", "")]
        parts += [self.protocol.replace("noise_aware", "")]
        return " ".join(part for part in parts if part)
