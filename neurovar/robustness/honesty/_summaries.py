"""Accuracy with intervals, paired differences, and the worst case over attacks."""

import numpy as np
import xarray as xr

from neurovar.robustness.attacks._attack import NUMBERS, TEXTS
from neurovar.robustness.evaluation import _intervals
from neurovar.robustness.evaluation._result import DIMS, Interval, measured, require, validate
from neurovar.robustness.honesty import _honesty


def summarise(result: xr.Dataset) -> xr.Dataset:
    """Accuracy of every noise under every condition, with 95 % intervals over seeds, noise seeds and stimuli.

    Measures: "expected", the mean accuracy of single draws; "ensemble of k", of the argmax of the logits summed over k
    draws; "worst of k", right in each of k single draws.

    Interval: the means of training seeds, noise seeds and stimuli are crossed random factors; their variance components
    give the variance of the mean and its degrees of freedom (Satterthwaite), and these a Clopper–Pearson interval of an
    effective number of images (Korn & Graubard 1998). A factor with one level is not covered: see attrs["interval"].
    With 2 or 3 seeds the coverage is a little below 95 % where seeds are what varies.

    Parameters
    ----------
    result : xarray.Dataset
        What `evaluate` or `worst_case` returns, or such results concatenated.

    Returns
    -------
    xarray.Dataset
        `accuracy`, `low`, `high` (noise, condition, measure), NaN for what could not be run; attrs `interval`, and
        `verdict`, without which the numbers should not be quoted (see `honesty`).

    Raises
    ------
    ValueError
        For a Dataset of another form.

    References
    ----------
    Korn & Graubard 1998, Survey Methodology 24:193; Satterthwaite 1946, doi:10.2307/3002019

    Examples
    --------
    >>> import torch
    >>> from neurovar.networks import NoisyNetwork
    >>> from neurovar.robustness import evaluate
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> network = NoisyNetwork(model, images=torch.ones(1, 1, 2, 2))
    >>> images = xr.DataArray(np.ones((3, 1, 2, 2), np.float32), dims=("stimulus", "channel", "row", "column"))
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> summary = summarise(evaluate(network, images, labels, seeds=[0], draws=[1, 10]))
    >>> summary["measure"].values.tolist()
    ['expected', 'ensemble of 1', 'ensemble of 10', 'worst of 10']
    """
    validate(result)
    return _over_measures("accuracy", _intervals.of_proportion, dict(measured(result)), result)


def differences(result: xr.Dataset, *, baseline: str) -> xr.Dataset:
    """Accuracy of every noise minus that of the noise `baseline`, paired by seeds and stimulus, with 95 % intervals.

    Measures: "expected", the mean accuracy of single draws; "ensemble of k", of the argmax of the logits summed over k
    draws; "worst of k", right in each of k single draws. Interval: t, on the variance components of the differences and
    1/(images + 2)², for what a finite number of images that agree cannot exclude (Agresti & Min 2005).

    Parameters
    ----------
    result : xarray.Dataset
        What `evaluate` or `worst_case` returns, or such results concatenated.
    baseline : str
        The name of the noise that is subtracted.

    Returns
    -------
    xarray.Dataset
        `difference`, `low`, `high` (noise, condition, measure); 0 for the baseline itself. attrs `interval`, `verdict`
        and `baseline`.

    Raises
    ------
    ValueError
        For a Dataset of another form, or a baseline that is no noise of it.

    References
    ----------
    Agresti & Min 2005, doi:10.1002/sim.1781

    Examples
    --------
    >>> import torch
    >>> from neurovar.networks import NoisyNetwork
    >>> from neurovar.robustness import evaluate
    >>> networks = {
    ...     name: NoisyNetwork(torch.nn.Sequential(torch.nn.Flatten(), layer).eval(), images=torch.ones(1, 1, 2, 2))
    ...     for name, layer in {"none": torch.nn.Linear(4, 2), "other": torch.nn.Linear(4, 2)}.items()
    ... }
    >>> images = xr.DataArray(np.ones((3, 1, 2, 2), np.float32), dims=("stimulus", "channel", "row", "column"))
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> result = differences(evaluate(networks, images, labels, seeds=[0], draws=[1]), baseline="none")
    >>> result["difference"].sel(noise="none").values.tolist()
    [[0.0, 0.0]]
    """
    validate(result)
    if baseline not in result["noise"].values:
        raise ValueError(f"expected a baseline among the noises, got {baseline!r}")
    paired = {name: values - values.sel(noise=baseline, drop=True) for name, values in measured(result)}
    compared = _over_measures("difference", _intervals.of_difference, paired, result)
    own = compared["noise"] == baseline
    bounds = {name: compared[name].where(~own, compared["difference"]) for name in ("low", "high")}
    return compared.assign(bounds).assign_attrs(baseline=baseline)


def _over_measures(name: str, interval: Interval, measures: dict[str, xr.DataArray], result: xr.Dataset) -> xr.Dataset:
    """Mean and interval of each measure: (noise, condition, measure)."""
    parts = []
    for values in measures.values():
        ordered = values.transpose("noise", "condition", "seed", "draw_seed", "stimulus")
        intervals = [interval(of_noise) for of_noise in ordered.values.astype(float)]  # one at a time, for memory
        parts.append([np.stack(figures) for figures in zip(*intervals)])
    dims = ("noise", "condition", "measure")
    coords = {key: coord for key, coord in result.coords.items() if set(coord.dims) <= {"noise", "condition"}}
    verdict = result.attrs.get("verdict") or _honesty.honesty(result).attrs["verdict"]
    return xr.Dataset(
        {key: (dims, np.stack(figures, -1)) for key, figures in zip((name, "low", "high"), zip(*parts))},
        coords=coords | {"measure": list(measures)},
        attrs={"interval": _intervals.covered(result.sizes), "verdict": verdict},
    )


def worst_case(result: xr.Dataset) -> xr.Dataset:
    """What every attack leaves right: a stimulus is right only if it is right under all attacks of one norm and ε.

    correct, survived: the conjunction over attacks; hits: the least of them. Attacks through any gradient and of any
    protocol count, those that could not be run do not. For a noise-free network this is exact. For a noisy one each
    attack is one more chance for the noise of the prediction to err, so that the accuracy is a lower bound of that
    under the best attack for each image, and differences from noise-free networks are biased against the noise; the
    more draws a prediction has, the less.

    Parameters
    ----------
    result : xarray.Dataset
        What `evaluate` returns, with attacks.

    Returns
    -------
    xarray.Dataset
        As `result`, with a condition for each norm and ε, the coordinate `n_attacks` on it, and attrs `verdict`; for
        `summarise` and `differences`.

    Raises
    ------
    ValueError
        For a Dataset of another form, or one without attacks.

    References
    ----------
    Croce & Hein 2020, arXiv:2003.01690 (the worst case for each image, over attacks)

    Examples
    --------
    >>> import torch
    >>> from neurovar.networks import NoisyNetwork
    >>> from neurovar.robustness import FGM, PGD, evaluate
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> network = NoisyNetwork(model, images=torch.ones(1, 1, 2, 2))
    >>> images = xr.DataArray(np.full((3, 1, 2, 2), 0.5, np.float32), dims=("stimulus", "channel", "row", "column"))
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> result = evaluate(network, images, labels, seeds=[0], conditions=[FGM(0.1), PGD(0.1, n_steps=2)])
    >>> worst_case(result)["condition"].values.tolist()
    ['worst case ε=0.1']
    """
    validate(result)
    require(result, ("kind", "norm", "strength"))
    attacked = np.flatnonzero(result["kind"].values == "attack")
    if not attacked.size:
        raise ValueError(f"expected attacks among the conditions, got {', '.join(result['kind'].values)}")
    sizes = zip(result["norm"].values[attacked], result["strength"].values[attacked].tolist())
    parts = [_worst(result.isel(condition=attacked), norm, epsilon) for norm, epsilon in dict.fromkeys(sizes)]
    verdict = _honesty.honesty(result).attrs["verdict"]
    return xr.concat(parts, "condition").assign_attrs(result.attrs, verdict=verdict)


def _worst(attacks: xr.Dataset, norm: str, epsilon: float) -> xr.Dataset:
    """One condition: all of these attacks that have this norm and ε."""
    here = attacks.isel(condition=(attacks["norm"].values == norm) & (attacks["strength"].values == epsilon))
    ran = here["ran"]
    any_ran = ran.any("condition")
    # An attack that could not be run leaves every image to the others; where none could, nothing is known.
    worst = {
        "correct": (here["correct"] | ~ran).all("condition") & any_ran,
        "hits": here["hits"].where(ran, np.iinfo(np.int16).max).min("condition").where(any_ran, 0).astype(np.int16),
        "survived": (here["survived"] | ~ran).all("condition") & any_ran,
        "ran": any_ran,
    }
    label = f"worst case {norm} ε={epsilon:g}".replace("linf ", "")
    texts = dict.fromkeys(TEXTS, "") | {"kind": "attack", "modification": "worst case", "norm": norm}
    numbers = dict.fromkeys(NUMBERS, np.nan) | {"strength": epsilon, "n_attacks": here.sizes["condition"]}
    coords = {name: ("condition", [value]) for name, value in (texts | numbers).items()}
    return xr.Dataset(worst).expand_dims(condition=[label]).assign_coords(coords).transpose(*DIMS, "k")
