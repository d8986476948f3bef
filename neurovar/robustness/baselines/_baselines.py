"""The networks that a noisy one is to be compared with, matched in trace or in clean accuracy."""

from collections.abc import Mapping
from functools import partial
from math import nan

import numpy as np
import xarray as xr
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.networks import Control, NoisyNetwork, Origin, in_workers
from neurovar.noise import CONTROLS, with_controls
from neurovar.robustness.baselines._making import INPUT, CleanAccuracy, Maker, Recipe, Selection, Training
from neurovar.robustness.baselines._matching import Match, clean_accuracy

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


class Baselines(dict[str, NoisyNetwork]):
    """Networks by name, "full" first.

    Parameters
    ----------
    networks : mapping of str to NoisyNetwork
        The networks by name.
    about : xarray.Dataset
        What each is; see above.
    left_out : mapping of str to str
        What is not there, and why.

    Attributes
    ----------
    about : xarray.Dataset
        Over `noise`: `description` in words, `layer`, `trace` (of the noise at test), `amount` (what was scaled:
        `amount_of` says whether trace, sigma or ratio), `matched_by` and, where clean accuracy was matched,
        `clean_accuracy` with its `standard_error` on the images of the search, `reached`, `n_evaluations`, `message`.
    left_out : dict of str to str
        What could not be made or was not asked for, and why.

    Examples
    --------
    >>> Baselines({}, xr.Dataset(), {"adversarial": "needs attack= and ratio="}).left_out
    {'adversarial': 'needs attack= and ratio='}
    """

    def __init__(self, networks: Mapping[str, NoisyNetwork], about: xr.Dataset, left_out: Mapping[str, str]) -> None:
        super().__init__(networks)
        self.about = about
        self.left_out = dict(left_out)


def with_baselines(
    base: nn.Sequential,
    images: Tensor,
    labels: Tensor,
    *,
    layer: str,
    noise: Covariance,
    origin: Origin | None = None,
    training: Training,
    selection: Selection | None = None,
    match: CleanAccuracy | None = None,
    n_jobs: int = 1,
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
    for `none`, which has nothing to vary. Where it is not reached the nearest is returned, and its `matched_by` is "".

    Parameters
    ----------
    base : torch.nn.Sequential
        A trained network.
    images : torch.Tensor
        (image, channel, row, column): what to train on.
    labels : torch.Tensor
        int64 (image,).
    layer : str
        Where the noise is.
    noise : Covariance
        Over the units of `layer`, at the trace that is wanted.
    origin : Origin, optional
        What the noise was made from.
    training : Training
        How every network is trained, and the seed of every training, of the controls, and of the draws of the search.
    selection : Selection, optional
        Which networks are wanted, and what they need; by default all that need nothing.
    match : CleanAccuracy, optional
        How clean accuracies are matched, in place of traces.
    n_jobs : int, optional
        Worker processes on CPUs; the networks are the same for any number.

    Returns
    -------
    Baselines
        {name: NoisyNetwork}, for `evaluate`: all but "full" and "none" are controls of "full". With `about` (what each
        is, and how well it is matched) and `left_out`.
        `result.assign_coords(baselines.about[["description", "amount"]])` labels a result of `evaluate`.

    Raises
    ------
    ValueError
        For a name in `selection` that is unknown or needs what is not given, a base that has a layer "input", or as
        `networks.retrain`, `networks.adversarial_train` and `match_clean_accuracy`.

    References
    ----------
    Preble et al. 2026, arXiv:2606.13801

    Examples
    --------
    >>> import torch
    >>> from neurovar.covariance import Diagonal
    >>> from neurovar.networks import small_network
    >>> g = torch.Generator().manual_seed(0)
    >>> x, y = torch.rand(64, 1, 28, 28, generator=g), torch.arange(64) % 10
    >>> networks = with_baselines(small_network(rng=0), x, y, layer="layer3", noise=Diagonal.isotropic(32),
    ...     training=Training(n_epochs=1, seed=0), selection=Selection(["none", "train_only", "test_only", "rotated"]))
    >>> list(networks)
    ['full', 'none', 'train_only', 'test_only', 'rotated']
    >>> networks["train_only"].noises, networks["rotated"].noises["layer3"].trace()
    ({}, 32.0)
    >>> networks["rotated"].control
    Control(kind='rotated', of='full', matched_by='trace')
    """
    if INPUT in dict(base.named_children()):
        raise ValueError(f"expected a base without a layer {INPUT!r}, which the noise of the input takes, got one")
    selection, seed = selection or Selection(), training.seed
    wanted = None if selection.only is None else [name for name in selection.only if name in CONTROLS]
    controls = with_controls(noise, rng=seed, mean_shift=selection.mean_shift, only=wanted)
    left_out = selection.left_out(controls.left_out, DESCRIPTIONS)
    kept = {name: control for name, control in controls.items() if name in CONTROLS and name not in left_out}
    maker = Maker(base, images, labels, layer, training, origin)
    noises = {"full": noise, "none": None} | (kept if match is None else {})
    models = dict(zip(noises, maker.retrained(list(noises.values()), n_jobs)))
    networks = {name: maker.noisy(models[name], given) for name, given in noises.items()}
    networks["train_only"] = maker.noisy(models["full"], None, origin)
    networks["test_only"] = maker.noisy(models["none"], noise)
    recipes = maker.recipes(selection)
    if match is not None:
        recipes = maker.recipes_at_layer(noise, models["none"], kept) | recipes
    recipes = {name: recipe for name, recipe in recipes.items() if name not in left_out}
    accuracy = None
    if match is not None:
        accuracy = clean_accuracy(
            networks["full"], match.images, match.labels, n_draws=match.n_draws, generator=match.generator(seed)
        )
    work = [partial(recipe.make_matched, accuracy, match, seed) for recipe in recipes.values()]
    made = dict(zip(recipes, in_workers(work, n_jobs if images.device.type == "cpu" else 1)))
    matches = {name: result for name, result in made.items() if isinstance(result, Match)}
    networks |= {name: result.network if isinstance(result, Match) else result for name, result in made.items()}
    ordered = {name: networks[name] for name in DESCRIPTIONS if name in networks and name not in left_out}
    return _labelled(ordered, noise.trace(), layer, recipes, matches, accuracy, left_out)


def _labelled(
    networks: Mapping[str, NoisyNetwork],
    trace: float,
    layer: str,
    recipes: Mapping[str, Recipe],
    matches: Mapping[str, Match],
    accuracy: float | None,
    left_out: Mapping[str, str],
) -> Baselines:
    """The networks, as controls of "full" that are matched by something, and the table of them."""
    rows, labelled = [], {}
    for name, network in networks.items():
        recipe, match = recipes.get(name), matches.get(name)
        amount_of = recipe.amount_of if recipe else "" if name == "none" else "trace"
        matched_by = "trace" if not recipe and name != "none" else ""
        if accuracy is not None:
            matched_by = "clean_accuracy" if name == "full" or (match and match.reached) else ""
        control = None if name in ("full", "none") else Control(name, of="full", matched_by=matched_by)
        labelled[name] = network.with_noises(network.noises, origin=network.origin, control=control)
        given = recipe.amount if recipe else trace if amount_of else nan
        rows.append(
            {
                "description": DESCRIPTIONS[name],
                "layer": ", ".join(network.layers) or (layer if name == "train_only" else ""),
                "trace": network.trace,
                "amount_of": amount_of,
                "amount": match.amount if match else given,
                "matched_by": matched_by,
                "clean_accuracy": match.accuracy if match else accuracy if name == "full" and accuracy else nan,
                "standard_error": match.standard_error if match else nan,
                "reached": bool(match.reached) if match else matched_by != "",
                "n_evaluations": match.n_evaluations if match else 0,
                "message": match.message if match else "",
            }
        )
    table = {key: ("noise", np.array([row[key] for row in rows])) for key in rows[0]}
    return Baselines(labelled, xr.Dataset(table, coords={"noise": list(labelled)}), left_out)
