"""Intervals of accuracies and of their differences, over crossed training seeds, noise seeds and stimuli."""

from collections.abc import Hashable, Mapping
from itertools import combinations

import numpy as np
from scipy import stats

FACTORS = ("seed", "draw_seed", "stimulus")
LEVEL = 0.95


def crossed_variance(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the mean over the last three axes, crossed random factors, and its degrees of freedom.

    With MS_A the mean square of the effect A (a factor, or an interaction of several) and N all values,
    V = Σ_A (−1)^(|A|+1) MS_A / N is unbiased under the crossed random-effects model, since
    E[MS_A] = Σ_{B ⊇ A} (N / n_B) σ²_B and Var(mean) = Σ_B σ²_B / n_B. Where V is less than MS_A / N of a single factor,
    which on average lies below the variance, that is taken: a small upward bias instead of negative variances. Degrees
    of freedom: Satterthwaite's for Σ MS_A / N over the single factors. A factor with one level adds nothing: what it
    varies is not covered.
    """
    factors = [axis for axis in (-3, -2, -1) if values.shape[axis] > 1]
    n = np.prod(values.shape[-3:])
    variance = np.zeros(values.shape[:-3])
    # Inclusion and exclusion: in Σ_A ± MS_A every σ²_B of an interaction is counted once, as in Var(mean).
    for size in range(1, len(factors) + 1):
        for effect in combinations(factors, size):
            variance = variance + (-1) ** (size + 1) * _mean_square(values, effect) / n
    single = [(_mean_square(values, (axis,)) / n, values.shape[axis] - 1) for axis in factors]
    # Satterthwaite: a sum of independent χ² parts has the mean and variance of one of (Σ m)² / Σ (m²/ν) degrees.
    total = sum((part for part, _ in single), np.zeros(values.shape[:-3]))
    spread = sum((part**2 / dof for part, dof in single), np.zeros(values.shape[:-3]))
    dof = np.divide(total**2, spread, out=np.full(total.shape, max(n - 1.0, 1.0)), where=spread > 0)
    return np.max([variance, *(part for part, _ in single)], axis=0), dof


def _mean_square(values: np.ndarray, effect: tuple[int, ...]) -> np.ndarray:
    """Of the effect: what the means over its factors have beyond those of their margins."""
    others = tuple({-3, -2, -1} - set(effect))
    means = values.mean(others, keepdims=True)
    for axis in effect:
        means = means - means.mean(axis, keepdims=True)
    dof = np.prod([values.shape[axis] - 1 for axis in effect])
    return (means**2).sum((-3, -2, -1)) * np.prod([values.shape[axis] for axis in others]) / dof


def of_proportion(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over (seed, draw_seed, stimulus), the last axes, of values in [0, 1], and its 95 % interval.

    Clopper–Pearson with the number of independent images that `crossed_variance` amounts to, reduced by the ratio of
    t quantiles for its degrees of freedom (Korn & Graubard 1998); where nothing varies, the number of images.
    """
    mean = values.mean((-3, -2, -1))
    variance, dof = crossed_variance(values)
    stimuli = values.shape[-1]
    tail = (1 + LEVEL) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        # n images would have the variance p(1 − p)/n: the n that gives the variance that there is. A t quantile above
        # the normal one, for few degrees of freedom, is as good as fewer images.
        fewer = (stats.norm.ppf(tail) / stats.t.ppf(tail, dof)) ** 2
        n = np.where(variance > 0, mean * (1 - mean) / variance * fewer, stimuli)
    right = mean * n
    # Clopper–Pearson from quantiles of Beta, which takes numbers that are not whole, as the effective ones are.
    low = np.where(right > 0, stats.beta.ppf(1 - tail, right, n - right + 1), 0.0)
    high = np.where(right < n, stats.beta.ppf(tail, right + 1, n - right), 1.0)
    return mean, np.where(np.isnan(mean), np.nan, low), np.where(np.isnan(mean), np.nan, high)


def of_difference(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over (seed, draw_seed, stimulus), the last axes, of paired differences, and its 95 % interval.

    A t interval on `crossed_variance` + 1/(images + 2)²: the half image that Agresti & Min (2005) add to each kind of
    discordant pair, so that a few images which agree are no proof that all do.
    """
    mean = values.mean((-3, -2, -1))
    variance, dof = crossed_variance(values)
    half = stats.t.ppf((1 + LEVEL) / 2, dof) * np.sqrt(variance + (values.shape[-1] + 2.0) ** -2)
    return mean, np.maximum(mean - half, -1), np.minimum(mean + half, 1)


def covered(sizes: Mapping[Hashable, int]) -> str:
    """What an interval covers and what it does not, in words."""
    names = {"seed": "training seeds", "draw_seed": "noise seeds", "stimulus": "images"}
    over = [f"{sizes[factor]} {name}" for factor, name in names.items() if sizes[factor] > 1]
    missing = [name for factor, name in names.items() if sizes[factor] == 1]
    text = f"95 %, over {' × '.join(over) or 'one image'}"
    if missing:
        text += f"; it says nothing about other {' or other '.join(missing)}, of which there is one"
    few = [name for factor, name in names.items() if 1 < sizes[factor] < 5]
    if few:
        text += f"; with so few {' and '.join(few)} it rests on the t distribution"
    return text
