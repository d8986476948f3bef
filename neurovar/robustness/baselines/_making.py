"""How the networks that a noisy one is compared with are made: the training, what they need, and by what amount."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from neurovar._values import Value
from neurovar.covariance import Covariance, Diagonal
from neurovar.networks import (
    NoisyNetwork,
    Origin,
    adversarial_train,
    gaussian_train,
    reinitialised,
    retrain,
    retrain_many,
)
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.baselines._matching import Match, match_clean_accuracy

INPUT = "input"
"""The layer that is put before all others, for noise on the pixels."""


@dataclass(frozen=True)
class Training(Value):
    """How every network is trained: with the same seed, so that they differ in what they are trained on alone.

    Parameters
    ----------
    n_epochs : int
        Passes over the images.
    seed : int
        Of the training, and of what else is drawn.
    batch_size : int, optional
        Images in a step.
    learning_rate : float, optional
        Adam's.

    Examples
    --------
    >>> str(Training(n_epochs=10, seed=0))
    'Training(n_epochs=10, seed=0)'
    """

    n_epochs: int
    seed: int
    batch_size: int = 64
    learning_rate: float = 1e-3

    @property
    def schedule(self) -> dict[str, Any]:
        """What `networks.train` and its like take."""
        return {"n_epochs": self.n_epochs, "batch_size": self.batch_size, "learning_rate": self.learning_rate}


@dataclass(frozen=True, eq=False)
class Selection:
    """Which baselines are wanted beside the noise itself, and what some of them need.

    Parameters
    ----------
    only : sequence of str, optional
        Their names; by default all that can be made from what is given.
    mean_shift : torch.Tensor, optional
        (unit,) the direction of `mean_shift`, such as the mean of the deviations that the noise comes from.
    sigma : float, optional
        Standard deviation of `input_gaussian` and `gaussian_augmentation`, in units of pixels in [0, 1].
    attack : Attack, optional
        That `adversarial` is trained against.
    ratio : float, optional
        The share of the images that are attacked in its training.

    Raises
    ------
    ValueError
        For an attack without a ratio, a ratio without an attack, or a σ that is not finite and above 0.

    Examples
    --------
    >>> Selection(["none", "input_gaussian"], sigma=0.1).sigma
    0.1
    """

    only: Sequence[str] | None = None
    mean_shift: Tensor | None = None
    sigma: float | None = None
    attack: Attack | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if (self.attack is None) != (self.ratio is None):
            raise ValueError(f"expected attack and ratio together, got {self.attack} and {self.ratio}")
        if self.sigma is not None and not 0 < self.sigma < inf:
            raise ValueError(f"expected a finite sigma above 0, got {self.sigma}")

    def left_out(self, of_controls: Mapping[str, str], known: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
        """Why networks are not made, by name."""
        needs = {name: why for name, why in of_controls.items() if why != "not asked for"}
        if self.sigma is None:
            needs |= dict.fromkeys(("input_gaussian", "gaussian_augmentation"), "needs sigma=")
        if self.attack is None:
            needs["adversarial"] = "needs attack= and ratio="
        if self.only is None:
            return needs
        unknown = [name for name in self.only if name not in known]
        if unknown or isinstance(self.only, str):
            raise ValueError(f"expected names of baselines ({', '.join(known)}), got {self.only!r}")
        for name in self.only:
            if name in needs:
                raise ValueError(f"expected what the baseline {name!r} needs, got none: it {needs[name]}")
        return {name: needs.get(name, "not asked for") for name in known if name not in ("full", *self.only)}


@dataclass(frozen=True, eq=False)
class CleanAccuracy:
    """How `with_baselines` matches clean accuracies: see `match_clean_accuracy`.

    Parameters
    ----------
    images : torch.Tensor
        (image, channel, row, column), for validation: neither those of the training nor those of the test.
    labels : torch.Tensor
        int64 (image,).
    tolerance : float
        Of the accuracy, as a fraction.
    factor : float
        Every trace, σ and ratio is sought between itself / factor and itself · factor, and a ratio up to 1.
    n_draws : int
        How many draws a prediction takes.
    max_evaluations : int
        How many networks may be made for each baseline.

    Raises
    ------
    ValueError
        For a factor that is not finite and above 1.

    Examples
    --------
    >>> x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64)
    >>> CleanAccuracy(x, y, tolerance=0.02, factor=100.0, n_draws=10, max_evaluations=12).factor
    100.0
    """

    images: Tensor
    labels: Tensor
    tolerance: float
    factor: float
    n_draws: int
    max_evaluations: int

    def __post_init__(self) -> None:
        if not 1 < self.factor < inf:
            raise ValueError(f"expected a finite factor above 1, got {self.factor}")

    def generator(self, seed: int) -> torch.Generator:
        """The same draws for every network that is scored."""
        return torch.Generator(self.images.device).manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to make a network with any amount of what it is trained with."""

    make: Callable[[float], NoisyNetwork]
    amount: float
    amount_of: str

    def make_matched(self, accuracy: float | None, match: CleanAccuracy | None, seed: int) -> Match | NoisyNetwork:
        """With the amount that is given, or that which gives this clean accuracy."""
        if match is None or accuracy is None:
            return self.make(self.amount)
        high = self.amount * match.factor
        return match_clean_accuracy(
            self.make,
            match.images,
            match.labels,
            accuracy=accuracy,
            low=self.amount / match.factor,
            high=min(high, 1.0) if self.amount_of == "ratio" else high,
            tolerance=match.tolerance,
            n_draws=match.n_draws,
            max_evaluations=match.max_evaluations,
            generator=match.generator(seed),
        )


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes networks from one base and the same images. It can be pickled, so that workers can make them."""

    base: nn.Sequential
    images: Tensor
    labels: Tensor
    layer: str
    training: Training
    origin: Origin | None

    def generator(self) -> torch.Generator:
        """The same for every training."""
        return torch.Generator(self.images.device).manual_seed(self.training.seed)

    def noisy(
        self, model: nn.Module, noise: Covariance | None, origin: Origin | None = None, *, layer: str = ""
    ) -> NoisyNetwork:
        """A model with its noise at test, if any."""
        noises = {} if noise is None else {layer or self.layer: noise}
        origin = origin or (None if noise is None else self.origin)
        return NoisyNetwork(model, noises, images=self.images, origin=origin)

    def retrained(self, noises: Sequence[Covariance | None], n_jobs: int) -> list[nn.Sequential]:
        """The layers after the noise trained anew, once for each noise."""
        n = len(noises)
        return retrain_many(
            [self.base] * n,
            self.images,
            self.labels,
            layer=self.layer,
            noises=noises,
            seeds=[self.training.seed] * n,
            n_jobs=n_jobs,
            **self.training.schedule,
        )

    def recipes(self, selection: Selection) -> dict[str, Recipe]:
        """For the networks of which all layers are trained anew."""
        recipes = {}
        if selection.sigma is not None:
            recipes["input_gaussian"] = Recipe(self._input_gaussian, selection.sigma, "sigma")
            recipes["gaussian_augmentation"] = Recipe(self._gaussian_augmentation, selection.sigma, "sigma")
        if selection.attack is not None and selection.ratio is not None:
            make = partial(self._adversarial, attack=selection.attack)
            recipes["adversarial"] = Recipe(make, selection.ratio, "ratio")
        return recipes

    def recipes_at_layer(
        self, noise: Covariance, without: nn.Module, controls: Mapping[str, Covariance]
    ) -> dict[str, Recipe]:
        """For the networks that have noise at the layer, in training or at test, by its trace."""
        make: dict[str, Callable[[float], NoisyNetwork]] = {
            "train_only": partial(self._train_only, noise=noise),
            "test_only": partial(self._test_only, model=without, noise=noise),
            **{name: partial(self._with_noise, noise=control) for name, control in controls.items()},
        }
        return {name: Recipe(function, noise.trace(), "trace") for name, function in make.items()}

    def _with_noise(self, trace: float, *, noise: Covariance) -> NoisyNetwork:
        scaled = noise.scale_to(trace=trace)
        return self.noisy(self.retrained([scaled], 1)[0], scaled)

    def _train_only(self, trace: float, *, noise: Covariance) -> NoisyNetwork:
        return self.noisy(self._with_noise(trace, noise=noise).model, None, self.origin)

    def _test_only(self, trace: float, *, model: nn.Module, noise: Covariance) -> NoisyNetwork:
        return self.noisy(model, noise.scale_to(trace=trace))

    def _with_input(self) -> nn.Sequential:
        """The base with an identity first, where pixels get noise, and after which all layers start afresh."""
        return nn.Sequential(OrderedDict([(INPUT, nn.Identity()), *self.base.named_children()])).eval()

    def _input_gaussian(self, sigma: float) -> NoisyNetwork:
        pixels = self.images[0].numel()
        noise = Diagonal(torch.full((pixels,), sigma**2, dtype=self.images.dtype, device=self.images.device))
        model = retrain(
            self._with_input(),
            self.images,
            self.labels,
            layer=INPUT,
            noise=noise,
            generator=self.generator(),
            **self.training.schedule,
        )
        return self.noisy(model, noise, Origin("gaussian", of=f"σ={sigma:g} at the input"), layer=INPUT)

    def _anew(self, train: Callable[..., nn.Module]) -> NoisyNetwork:
        fresh = reinitialised(self._with_input(), layer=INPUT, rng=self.training.seed)
        model = train(fresh, self.images, self.labels, generator=self.generator(), **self.training.schedule)
        return self.noisy(model, None)

    def _gaussian_augmentation(self, sigma: float) -> NoisyNetwork:
        return self._anew(partial(gaussian_train, sigma=sigma))

    def _adversarial(self, ratio: float, *, attack: Attack) -> NoisyNetwork:
        return self._anew(partial(adversarial_train, attack=attack, ratio=ratio))
