"""The networks that a noisy one is to be compared with, matched in trace or in clean accuracy."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf, nan
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from neurovar.covariance import Covariance, Diagonal
from neurovar.networks import adversarial_train, gaussian_train, in_workers, reinitialised, retrain, retrain_many
from neurovar.noise import CONTROLS, with_controls
from neurovar.robustness.baselines._matching import Match, clean_accuracy, match_clean_accuracy
from neurovar.robustness.evaluation._networks import NoisyNetwork

INPUT = "input"
DESCRIPTIONS = {
    "full": "noise in training and at test",
    "none": "no noise: the same layers retrained without it",
    "train_only": "noise in training, none at test",
    "test_only": "no noise in training, noise at test",
    "diagonal": "the variances of the noise without its correlations, in training and at test",
    "isotropic": "noise equal and independent for all units, in training and at test",
    "rotated": "noise of the same spectrum in random directions, in training and at test",
    "shuffled_spectrum": "noise of the same eigenvectors with shuffled eigenvalues, in training and at test",
    "flat_spectrum": "noise of the same eigenvectors with equal eigenvalues, in training and at test",
    "signal_aligned": "noise of the same spectrum in the signal's dimensions, in training and at test",
    "signal_orthogonal": "noise of the same spectrum out of the signal's dimensions, in training and at test",
    "mean_shift": "a constant instead of noise, in training and at test",
    "input_gaussian": "independent Gaussian noise on every pixel, in training of all layers anew and at test",
    "gaussian_augmentation": "independent Gaussian noise on every pixel in training of all layers anew, none at test",
    "adversarial": "attacked images in training of all layers anew, no noise",
}
NEEDS = {
    "input_gaussian": "needs sigma=",
    "gaussian_augmentation": "needs sigma=",
    "adversarial": "needs attack= and ratio=",
}


@dataclass(frozen=True, eq=False)
class CleanAccuracy:
    """How `with_baselines` matches clean accuracies: see `match_clean_accuracy`.

    images, labels : for validation; neither those of the training nor those of the test.
    factor : every trace, σ and ratio is sought between itself / factor and itself · factor, and a ratio up to 1.
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


class Baselines(dict[str, NoisyNetwork]):
    """Networks by name, "full" first.

    about : Dataset over `noise`: `description` in words, `layer`, `trace` (of the noise at test), `amount` (what was
        scaled: `amount_of` says whether trace, sigma or ratio), `matched_by` and, where clean accuracy was matched,
        `clean_accuracy` with its `standard_error` on the images of the search, `reached`, `n_evaluations`, `said`.
    left_out : what could not be made or was not asked for, and why.
    """

    def __init__(self, networks: Mapping[str, NoisyNetwork], about: xr.Dataset, left_out: Mapping[str, str]) -> None:
        super().__init__(networks)
        self.about = about
        self.left_out = dict(left_out)


@dataclass(frozen=True, eq=False)
class _Training:
    """How every network is trained: with the same seed, so that they differ in what they are trained on alone."""

    base: nn.Sequential
    images: Tensor
    labels: Tensor
    layer: str
    seed: int
    source: str
    options: dict[str, Any]

    def generator(self) -> torch.Generator:
        return torch.Generator(self.images.device).manual_seed(self.seed)

    def retrained(self, noises: Sequence[Covariance | None], n_jobs: int) -> list[nn.Sequential]:
        n = len(noises)
        return retrain_many(
            [self.base] * n,
            self.images,
            self.labels,
            layer=self.layer,
            noises=noises,
            seeds=[self.seed] * n,
            n_jobs=n_jobs,
            **self.options,
        )

    def noisy(self, model: nn.Module, noise: Covariance | None) -> NoisyNetwork:
        return NoisyNetwork(model) if noise is None else NoisyNetwork(model, {self.layer: noise}, source=self.source)

    def with_noise(self, trace: float, *, noise: Covariance) -> NoisyNetwork:
        scaled = noise.scale_to(trace=trace)
        return self.noisy(self.retrained([scaled], 1)[0], scaled)

    def train_only(self, trace: float, *, noise: Covariance) -> NoisyNetwork:
        return NoisyNetwork(self.with_noise(trace, noise=noise).model, source=self.source)

    def test_only(self, trace: float, *, model: nn.Module, noise: Covariance) -> NoisyNetwork:
        return self.noisy(model, noise.scale_to(trace=trace))

    def with_input(self) -> nn.Sequential:
        """The base with an identity first, where pixels get noise, and after which all layers start afresh."""
        return nn.Sequential(OrderedDict([(INPUT, nn.Identity()), *self.base.named_children()])).eval()

    def input_gaussian(self, sigma: float) -> NoisyNetwork:
        pixels = self.images[0].numel()
        noise = Diagonal(torch.full((pixels,), sigma**2, dtype=self.images.dtype, device=self.images.device))
        model = retrain(
            self.with_input(),
            self.images,
            self.labels,
            layer=INPUT,
            noise=noise,
            generator=self.generator(),
            **self.options,
        )
        return NoisyNetwork(model, {INPUT: noise}, source=f"gaussian σ={sigma:g} at the input")

    def anew(self, train: Callable[..., nn.Module]) -> NoisyNetwork:
        fresh = reinitialised(self.with_input(), layer=INPUT, rng=self.seed)
        return NoisyNetwork(train(fresh, self.images, self.labels, generator=self.generator(), **self.options))

    def gaussian_augmentation(self, sigma: float) -> NoisyNetwork:
        return self.anew(partial(gaussian_train, sigma=sigma))

    def adversarial(self, ratio: float, *, attack: Callable[..., Tensor]) -> NoisyNetwork:
        return self.anew(partial(adversarial_train, attack=attack, ratio=ratio))


@dataclass(frozen=True, eq=False)
class _Recipe:
    """How to make a network with any amount of what it is trained with."""

    make: Callable[[float], NoisyNetwork]
    amount: float
    amount_of: str

    def made(self, accuracy: float | None, match: CleanAccuracy | None, seed: int) -> Match | NoisyNetwork:
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
            generator=torch.Generator(match.images.device).manual_seed(seed),
        )


def with_baselines(
    base: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    noise: Covariance,
    source: str,
    n_epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int,
    mean_shift: Tensor | None = None,
    sigma: float | None = None,
    attack: Callable[..., Tensor] | None = None,
    ratio: float | None = None,
    only: Sequence[str] | None = None,
    match: CleanAccuracy | None = None,
    n_jobs: int,
) -> Baselines:
    """`base` retrained under a noise, and every network that this one has to be compared with.

    - `full`: the noise in training and at test; `none`: the same retraining without it.
    - `train_only`, `test_only`: is it the training or the randomness at test that helps?
    - the controls of `noise.with_controls`, each in training and at test: does the structure help?
    - `mean_shift`: a constant of the same power, in training and at test: does it have to vary?
    - `input_gaussian`: noise of σ on every pixel in training and at test; `gaussian_augmentation` in training alone:
      does it have to be at this layer, or noise at all?
    - `adversarial`: adversarial training: is it better than what is usually done?

    All but the last three are `retrain`: the base's front, the layers after `layer` anew. The last three train all
    layers anew, for as many epochs, since a front that is frozen as it is would handicap them. All networks see the
    images in the same order.

    Matching. By default what has noise at the layer has noise of one trace; the last three have no trace there, and
    are not matched: σ and `ratio` are as given. With `match` the trace, σ or ratio of each is sought at which its clean
    accuracy on the images of `match` is that of `full` (`match_clean_accuracy`, whose bias is stated there), except
    for `none`, which has nothing to vary. Where it is not found the nearest is returned, and its `matched_by` is "".

    Parameters
    ----------
    base : a trained network; `images`, `labels` : what to train on, as for `networks.train`.
    noise : over the units of `layer`, at the trace that is wanted; `source` : what it was made from, in words.
    seed : of every training, of the controls, and of the draws of the search.
    mean_shift : (unit,) its direction, such as the mean of the deviations that the noise comes from.
    sigma : of the Gaussian noise, in units of pixels in [0, 1].
    attack, ratio : as for `networks.adversarial_train`.
    only : names of what is wanted beside `full`; by default all that can be made from what is given.
    n_jobs : worker processes on CPUs, as for `networks.train_many`: the same networks for any number.

    Returns
    -------
    Baselines : {name: NoisyNetwork}, for `evaluate`, with `about` (what each is, and how well it is matched) and
        `left_out`. `result.assign_coords(baselines.about[["description", "amount"]])` labels a result of `evaluate`.

    Raises
    ------
    ValueError : for a name in `only` that is unknown or needs what is not given, a base that has a layer "input", or as
        `networks.retrain`, `networks.adversarial_train` and `match_clean_accuracy`.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> from neurovar.networks import small_network
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 1, 28, 28, generator=g), torch.arange(64) % 10
    >>> networks = with_baselines(small_network(rng=0), x, y, layer="layer3", noise=Diagonal.isotropic(32),
    ...     source="example", n_epochs=1, seed=0, only=["none", "train_only", "test_only", "rotated"], n_jobs=1)
    >>> list(networks)
    ['full', 'none', 'train_only', 'test_only', 'rotated']
    >>> networks["train_only"].noises, networks["rotated"].noises["layer3"].trace()
    ({}, 32.0)
    """
    if INPUT in dict(base.named_children()):
        raise ValueError(f"expected a base without a layer {INPUT!r}, which the noise of the input takes, got one")
    wanted = None if only is None else [name for name in only if name in CONTROLS]
    controls = with_controls(noise, rng=seed, mean_shift=mean_shift, only=wanted)
    left_out = _left_out(controls.left_out, sigma, attack, ratio, only)
    kept = {name: control for name, control in controls.items() if name in CONTROLS and name not in left_out}
    options = {"n_epochs": n_epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    training = _Training(base, images, labels, layer, seed, source, options)

    noises = {"full": noise, "none": None} | (kept if match is None else {})
    models = dict(zip(noises, training.retrained(list(noises.values()), n_jobs)))
    networks = {name: training.noisy(models[name], each) for name, each in noises.items()}
    networks["train_only"] = NoisyNetwork(models["full"], source=source)
    networks["test_only"] = training.noisy(models["none"], noise)
    recipes = _trained_anew(training, sigma, attack, ratio)
    if match is not None:
        recipes = _noisy(training, noise, models["none"], kept) | recipes
    recipes = {name: recipe for name, recipe in recipes.items() if name not in left_out}
    accuracy = None if match is None else _accuracy(networks["full"], match, seed)
    work = [partial(recipe.made, accuracy, match, seed) for recipe in recipes.values()]
    made = dict(zip(recipes, in_workers(work, n_jobs if images.device.type == "cpu" else 1)))
    networks |= {name: each.network if isinstance(each, Match) else each for name, each in made.items()}
    ordered = {name: networks[name] for name in DESCRIPTIONS if name in networks and name not in left_out}
    matches = {name: each for name, each in made.items() if isinstance(each, Match)}
    return _labelled(ordered, noise.trace(), layer, recipes, matches, accuracy, left_out)


def _left_out(
    of_controls: Mapping[str, str],
    sigma: float | None,
    attack: Callable[..., Tensor] | None,
    ratio: float | None,
    only: Sequence[str] | None,
) -> dict[str, str]:
    """Why networks are not made, by name."""
    if (attack is None) != (ratio is None):
        raise ValueError(f"expected attack and ratio together, got {attack} and {ratio}")
    if sigma is not None and not 0 < sigma < inf:
        raise ValueError(f"expected a finite sigma above 0, got {sigma}")
    needs = {name: why for name, why in of_controls.items() if why != "not asked for"}
    needs |= {name: NEEDS[name] for name in ("input_gaussian", "gaussian_augmentation") if sigma is None}
    needs |= {"adversarial": NEEDS["adversarial"]} if attack is None else {}
    if only is None:
        return needs
    unknown = [name for name in only if name not in DESCRIPTIONS]
    if unknown or isinstance(only, str):
        raise ValueError(f"expected names of baselines ({', '.join(DESCRIPTIONS)}), got {only!r}")
    for name in only:
        if name in needs:
            raise ValueError(f"expected what the baseline {name!r} needs, got none: it {needs[name]}")
    return {name: needs.get(name, "not asked for") for name in DESCRIPTIONS if name not in ("full", *only)}


def _trained_anew(
    training: _Training, sigma: float | None, attack: Callable[..., Tensor] | None, ratio: float | None
) -> dict[str, _Recipe]:
    recipes = {}
    if sigma is not None:
        recipes["input_gaussian"] = _Recipe(training.input_gaussian, sigma, "sigma")
        recipes["gaussian_augmentation"] = _Recipe(training.gaussian_augmentation, sigma, "sigma")
    if attack is not None and ratio is not None:
        recipes["adversarial"] = _Recipe(partial(training.adversarial, attack=attack), ratio, "ratio")
    return recipes


def _noisy(
    training: _Training, noise: Covariance, none: nn.Module, controls: Mapping[str, Covariance]
) -> dict[str, _Recipe]:
    make = {
        "train_only": partial(training.train_only, noise=noise),
        "test_only": partial(training.test_only, model=none, noise=noise),
        **{name: partial(training.with_noise, noise=control) for name, control in controls.items()},
    }
    return {name: _Recipe(each, noise.trace(), "trace") for name, each in make.items()}


def _accuracy(full: NoisyNetwork, match: CleanAccuracy, seed: int) -> float:
    generator = torch.Generator(match.images.device).manual_seed(seed)
    return clean_accuracy(full, match.images, match.labels, n_draws=match.n_draws, generator=generator)


def _labelled(
    networks: Mapping[str, NoisyNetwork],
    trace: float,
    layer: str,
    recipes: Mapping[str, _Recipe],
    matches: Mapping[str, Match],
    accuracy: float | None,
    left_out: Mapping[str, str],
) -> Baselines:
    """The networks, with what they are matched by, and the table of them."""
    rows, labelled = [], {}
    for name, network in networks.items():
        recipe, found = recipes.get(name), matches.get(name)
        amount_of = recipe.amount_of if recipe else "" if name == "none" else "trace"
        matched_by = "trace" if not recipe and name != "none" else ""
        if accuracy is not None:
            matched_by = "clean_accuracy" if name == "full" or (found and found.reached) else ""
        labelled[name] = replace(network, matched_by=matched_by)
        given = recipe.amount if recipe else trace if amount_of else nan
        rows.append(
            {
                "description": DESCRIPTIONS[name],
                "layer": ", ".join(network.noises) or (layer if name == "train_only" else ""),
                "trace": sum(each.trace() for each in network.noises.values()),
                "amount_of": amount_of,
                "amount": found.amount if found else given,
                "matched_by": matched_by,
                "clean_accuracy": found.accuracy if found else accuracy if name == "full" and accuracy else nan,
                "standard_error": found.standard_error if found else nan,
                "reached": bool(found.reached) if found else matched_by != "",
                "n_evaluations": found.n_evaluations if found else 0,
                "said": found.said if found else "",
            }
        )
    table = {key: ("noise", np.array([row[key] for row in rows])) for key in rows[0]}
    return Baselines(labelled, xr.Dataset(table, coords={"noise": list(labelled)}), left_out)
