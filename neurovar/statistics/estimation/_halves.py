"""Disjoint random halves of the trials, and the covariances of signal and of classes in one half, free of noise."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, device, to_device

from neurovar.responses import floating

SPLIT_WITHIN = 4
"""The least repeats of a stimulus whose trials are split in two; those of one with fewer stay together."""


class Half(NamedTuple):
    """Of half of the trials, the stimuli with two or more: means, deviations from them (0 where absent), repeats."""

    means: Any  # (stimulus, unit)
    deviations: Any  # (stimulus, repeat, unit)
    n_repeats: np.ndarray  # (stimulus,)

    @property
    def noise(self) -> Any:
        """(trial, unit)"""
        return _rows(self.deviations)


def halves(values: Any, rng: np.random.Generator) -> tuple[Half, Half]:
    values = floating(values)
    absent = np.asarray(to_device(array_namespace(values).isnan(values[:, :, 0]), "cpu"))
    first, second = (half_of(values, chosen) for chosen in halve(~absent, rng))
    return first, second


def halve(present: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random halves of the trials that are `present` (stimulus, repeat).

    ⌊Rₛ/2⌋ of a stimulus's repeats are in the first; where they are too few for that, all in one: half of such stimuli.
    """
    n_repeats = present.sum(axis=1)
    # The rank of each trial in a random order of those that are present: absent ones sort last.
    rank = np.argsort(np.argsort(np.where(present, rng.random(present.shape), np.inf), axis=1), axis=1)
    few = rng.permutation(np.flatnonzero((n_repeats > 1) & (n_repeats < SPLIT_WITHIN)))
    n_first = n_repeats // 2
    # A stimulus with two or three repeats is in the first half wholly or not at all: half a pair has no noise.
    n_first[few] = np.where(np.arange(len(few)) < len(few) // 2, n_repeats[few], 0)
    first = rank < n_first[:, None]
    return first, present & ~first


def half_of(values: Any, chosen: np.ndarray) -> Half:
    xp, where = array_namespace(values), device(values)
    kept = np.flatnonzero(chosen.sum(axis=1) > 1)
    n_repeats = chosen[kept].sum(axis=1)
    present = xp.asarray(chosen[kept], device=where)[:, :, None]
    trials = xp.where(present, xp.take(values, xp.asarray(kept, device=where), axis=0), 0)
    means = xp.sum(trials, axis=1) / xp.asarray(n_repeats, dtype=values.dtype, device=where)[:, None]
    return Half(means, xp.where(present, trials - means[:, None, :], 0), n_repeats)


def _rows(deviations: Any) -> Any:
    return array_namespace(deviations).reshape(deviations, (-1, deviations.shape[-1]))


def signal_covariance_of(half: Half) -> Any:
    """The covariance of the stimuli's means, less that of the noise in them."""
    return unbiased_covariance(half.means, half.noise, np.repeat(half.n_repeats, half.deviations.shape[1]))


def unbiased_covariance(means: Any, deviations: Any, n_members: np.ndarray) -> Any:
    """The covariance of the true means of groups (group, unit), less what comes from their having few members.

    `deviations` (member, unit) are the members' from their group's mean, of which there are `n_members` (member,).
    """
    xp = array_namespace(means)
    centred = means - xp.mean(means, axis=0)
    # Σ over members of d dᵀ/(n(n − 1)) is the covariance of their mean, W/n: what chance adds to the means.
    weights = 1 / np.sqrt(n_members * (n_members - 1.0))
    errors = deviations * xp.asarray(weights, dtype=means.dtype, device=device(means))[:, None]
    return centred.T @ centred / (means.shape[0] - 1) - errors.T @ errors / means.shape[0]


def class_covariances(half: Half, labels: np.ndarray) -> tuple[Any, Any]:
    """Unbiased covariances of in-class and of out-of-class variation."""
    xp, where = array_namespace(half.means), device(half.means)
    in_class, class_means, members = 0, [], []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        taken = xp.asarray(rows, device=where)
        means, deviations = (xp.take(part, taken, axis=0) for part in (half.means, half.deviations))
        of_class = Half(means, deviations, half.n_repeats[rows])
        # Pooled: each class's covariance is unbiased with n_k − 1 degrees of freedom.
        in_class = in_class + (len(rows) - 1) * signal_covariance_of(of_class)
        class_means.append(xp.mean(means, axis=0))
        members.append(means - class_means[-1])
    n_members = np.bincount(labels)
    out_of_class = unbiased_covariance(xp.stack(class_means), xp.concat(members), np.repeat(n_members, n_members))
    return in_class / (len(labels) - len(n_members)), out_of_class
