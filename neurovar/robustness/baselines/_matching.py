"""Search for the amount of noise, or of another defence, at which a network has a wanted clean accuracy."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf, log, sqrt

import torch
import xarray as xr
from torch import Tensor

from neurovar.networks import NoisyNetwork, check_labels

Make = Callable[[float], NoisyNetwork]
BATCH = 100


@dataclass(frozen=True, eq=False)
class Match:
    """The network whose clean accuracy came nearest to the wanted one, of all that a search tried.

    Parameters
    ----------
    network : NoisyNetwork
        That network.
    amount : float
        Trace, σ, ratio or whatever the network was made from.
    accuracy : float
        Its clean accuracy on the images of the search.
    standard_error : float
        √(p(1 − p)/(n + 4)), with two right and two wrong answers added to the n so that it is not 0 at the ends; over
        images and draws, not over retraining.
    wanted : float
        The accuracy that was looked for.
    reached : bool
        Whether `accuracy` is within the tolerance of `wanted`.
    message : str
        What was reached, in words.
    tried : xarray.DataArray
        (amount,) the accuracies in the order of the search; their number is `n_evaluations`.

    Examples
    --------
    `match_clean_accuracy` makes it; its example shows a search.
    """

    network: NoisyNetwork
    amount: float
    accuracy: float
    standard_error: float
    wanted: float
    reached: bool
    message: str
    tried: xr.DataArray

    @property
    def n_evaluations(self) -> int:
        """How many networks were made."""
        return self.tried.size


def match_clean_accuracy(
    make: Make,
    images: Tensor,
    labels: Tensor,
    *,
    accuracy: float,
    low: float,
    high: float,
    tolerance: float,
    n_draws: int,
    max_evaluations: int,
    generator: torch.Generator,
) -> Match:
    """Find the amount x in [low, high] at which `make(x)` has this accuracy on clean images.

    Both ends are tried, then, as long as the wanted accuracy lies between those of the bracket's ends, a point inside
    it on the scale of log x, which becomes the end on its side: the secant's and the middle in turn, so that two
    evaluations at least halve the bracket. The search ends with the first amount within the tolerance.

    Bias. The accuracy is noisy: it varies from one set of images to another, from draw to draw, and, where `make`
    trains, from training to training. The search picks an amount *because* these images gave the wanted accuracy (the
    winner's curse), so that the match is closer on them than it is: report the accuracy on images that were held out,
    and train the matched network anew with other seeds. A point on the wrong side of the wanted accuracy by chance puts
    the bracket where it is not; that takes an error above the tolerance, since a nearer one ends the search. So the
    tolerance wants to be 2 standard errors or more (n = 1/tolerance² images at accuracy ½): a smaller one is met by
    luck. The accuracy may rise or fall with x, but must do one of both for the match to be unique.

    Parameters
    ----------
    make : callable
        x → NoisyNetwork, such as one retrained under noise of trace x; with the same seed for every x, the accuracies
        differ by x alone.
    images : torch.Tensor
        (image, channel, row, column), for validation: not those of the training, and not those of the test.
    labels : torch.Tensor
        int64 (image,).
    accuracy : float
        The wanted fraction, of argmax of the logits summed over `n_draws` fresh draws (one without noise).
    low, high : float
        The amounts between which it is looked for.
    tolerance : float
        Of the accuracy, as a fraction.
    n_draws : int
        How many draws a prediction takes.
    max_evaluations : int
        How many networks may be made, at least 2.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Match
        `reached` says whether the accuracy was reached; if not, it is the nearest of what was tried.

    Raises
    ------
    ValueError
        For an amount, accuracy, tolerance or number outside its range, labels that do not fit, a network in training
        mode, or a `make` that returns something else.

    References
    ----------
    Standard error: Agresti & Coull 1998, doi:10.1080/00031305.1998.10480550

    Examples
    --------
    Logits (x, 0) for x = 1 and noise of variance t are right with probability Φ(1/√t), 0.8413 at t = 1:

    >>> from neurovar.covariance import Diagonal
    >>> logits = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2, bias=False)).eval()
    >>> logits[1].weight.data = torch.tensor([[1.0], [0.0]])
    >>> x = torch.ones(5000, 1, 1, 1)
    >>> match = match_clean_accuracy(
    ...     lambda trace: NoisyNetwork(logits, {"0": Diagonal.isotropic(1, variance=trace)}, images=x / 2),
    ...     x, torch.zeros(5000, dtype=torch.int64), accuracy=0.8413, low=0.01, high=100.0,
    ...     tolerance=0.01, n_draws=1, max_evaluations=20, generator=torch.Generator().manual_seed(0))
    >>> match.reached, abs(match.amount - 1) < 0.15
    (True, True)
    """
    _check(images, labels, accuracy, low, high, tolerance, n_draws, max_evaluations)
    networks: dict[float, NoisyNetwork] = {}
    tried: dict[float, float] = {}
    first, second = low, high  # the ends of the bracket
    while len(tried) < max_evaluations:
        amount = (low, high)[len(tried)] if len(tried) < 2 else _inside(first, second, tried, accuracy)
        networks[amount] = make(amount)
        tried[amount] = clean_accuracy(networks[amount], images, labels, n_draws=n_draws, generator=generator)
        if abs(tried[amount] - accuracy) <= tolerance:
            break
        if len(tried) > 2:
            same_side = (tried[amount] > accuracy) == (tried[first] > accuracy)
            first, second = (amount, second) if same_side else (first, amount)
        elif len(tried) == 2 and (tried[low] > accuracy) == (tried[high] > accuracy):
            break
    best = min(tried, key=lambda amount: abs(tried[amount] - accuracy))
    n = len(images)
    p = (tried[best] * n + 2) / (n + 4)  # Agresti & Coull: an accuracy of 1 on n images is known to about 1/n, not to 0
    error = sqrt(p * (1 - p) / (n + 4))
    reached = abs(tried[best] - accuracy) <= tolerance
    values = xr.DataArray(list(tried.values()), dims="amount", coords={"amount": list(tried)}, name="accuracy")
    message = _message(values, accuracy, best, reached, tolerance, error)
    return Match(networks[best], best, tried[best], error, accuracy, reached, message, values)


def clean_accuracy(
    network: NoisyNetwork, images: Tensor, labels: Tensor, *, n_draws: int, generator: torch.Generator
) -> float:
    """The fraction for which the argmax of the logits summed over `n_draws` draws is right."""
    if not isinstance(network, NoisyNetwork):
        raise ValueError(f"expected make to return a NoisyNetwork, got {type(network).__name__}")
    correct = 0
    with torch.no_grad():
        for part, target in zip(images.split(BATCH), labels.split(BATCH)):
            check_labels(target, part, network.n_classes)
            logits = network.logits(part, n_draws, generator=generator).sum(0)
            correct += int((logits.argmax(1) == target).sum())
    return correct / len(images)


def _inside(first: float, second: float, tried: dict[float, float], accuracy: float) -> float:
    """The secant's point and the middle of the bracket in turn, on the scale of logarithms."""
    # The secant alone creeps where the accuracy is nearly a step, the middle alone is slow where it is nearly a line.
    fraction = 0.5
    if len(tried) % 2 == 0:
        fraction = (accuracy - tried[first]) / (tried[second] - tried[first])
        fraction = min(max(fraction, 0.1), 0.9)  # an end's accuracy is noisy: never so near to it again
    return exp(log(first) + fraction * (log(second) - log(first)))


def _message(
    tried: xr.DataArray, wanted: float, best: float, reached: bool, tolerance: float, standard_error: float
) -> str:
    nearest = float(tried.sel(amount=best))
    result = f"clean accuracy {nearest:.4f} ± {standard_error:.4f} at {best:.4g}, after {tried.size} evaluations"
    if reached and tolerance < 2 * standard_error:
        return f"reached {wanted:.4f}: {result}; the tolerance {tolerance:g} is below 2 standard errors"
    if reached:
        return f"reached {wanted:.4f}: {result}"
    first, last = tried.values[:2]
    between = f"{first:.4f} at {tried['amount'].values[0]:.4g} and {last:.4f} at {tried['amount'].values[1]:.4g}"
    if (first > wanted) == (last > wanted):
        return f"not reached {wanted:.4f}, which is not between {between}: {result}"
    return f"not reached {wanted:.4f} within {tolerance:g}: {result}"


def _check(
    images: Tensor,
    labels: Tensor,
    accuracy: float,
    low: float,
    high: float,
    tolerance: float,
    n_draws: int,
    max_evaluations: int,
) -> None:
    if not 0 < low < high < inf:
        raise ValueError(f"expected 0 < low < high, got {low} and {high}")
    if not 0 < accuracy <= 1 or not 0 < tolerance < 1:
        raise ValueError(f"expected an accuracy in (0, 1] and a tolerance in (0, 1), got {accuracy} and {tolerance}")
    if n_draws < 1 or max_evaluations < 2:
        raise ValueError(f"expected at least 1 draw and 2 evaluations, got {n_draws} and {max_evaluations}")
    if not len(images) or labels.shape != images.shape[:1]:
        raise ValueError(f"expected images and a label for each, got {len(images)} and {tuple(labels.shape)}")
