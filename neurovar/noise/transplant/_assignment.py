"""Units of the target that take over the noise of units of the source with similar tuning."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise.transplant._axes import BLOCK
from neurovar.noise.transplant._method import TransplantMethod
from neurovar.noise.transplant._target import like, require_same_units
from neurovar.responses import ROUNDING, align, constant_units, means_kernel, repeat_counts, validate
from neurovar.statistics import kernels, noise_covariance

NOBODY = -1
"""In place of a unit of the source, for a unit without tuning."""
LEAST_SHARED = 6
"""Shared stimuli: halves of three, the fewest with a correlation that is not ±1."""


@dataclass(frozen=True, eq=False)
class Assignment(TransplantMethod):
    """Which unit of the source each unit of the target takes its noise from: the one with the most similar tuning.

    Source and target share stimuli.

    Parameters
    ----------
    noise : LowRankPlusDiagonal
        Of the source's units: shared factors and private variances.
    table : xarray.Dataset
        (unit), the target's units: `source_unit`, a position, −1 for a unit without tuning; `similarity`, the signal
        correlation with it; `held_out_similarity` (see `fit`).

    Examples
    --------
    >>> from neurovar import statistics
    >>> cortex = statistics.population(n_stimuli=100, n_repeats=6, n_units=10, rng=0)
    >>> network = cortex.mean("repeat", keepdims=True).isel(unit=[3, 3, 7])
    >>> assignment = Assignment.fit(cortex, network, n_factors=1, rng=0)
    >>> assignment.table.source_unit.values, assignment.onto(network).n
    (array([3, 3, 7]), 3)
    """

    name: ClassVar[str] = "assignment"
    required: ClassVar[tuple[str, ...]] = ("n_factors",)

    noise: LowRankPlusDiagonal
    table: xr.Dataset

    @classmethod
    def fit(cls, source: xr.DataArray, target: xr.DataArray, *, n_factors: int, rng: np.random.Generator | int) -> Self:
        """Assign to each unit of the target the unit of the source with the most similar tuning to shared stimuli.

        Similarity is the signal correlation, Σ_s (x̄_s − x̄)(ȳ_s − ȳ)/((n − 1) √(S_x S_y)), S the unbiased variance of
        the noise-free tuning over the n stimuli (`statistics.signal_covariance`). Where source and target have trials
        of the same stimuli and repeats, they may have been recorded together, and what shared noise adds to the
        product, (1/n) Σ_s C_s,xy / R_s, is taken off too: so no trial meets itself. A target with one repeat counts as
        noise-free.

        The largest of many estimates is too large. `held_out_similarity` is not: half of the stimuli, at random, choose
        the unit, and the similarity to it is that over the other half; the mean of both ways round. It is that of
        assignments from half of the stimuli. Single similarities can exceed 1.

        The source's noise is `n_factors` shared factors and private variances, by factor analysis of the pooled noise
        covariance, dof Σ(Rₛ − 1), whose bias `statistics.factor_analysis` tells.

        Parameters
        ----------
        source : xarray.DataArray
            Responses (stimulus, repeat, unit) with repeats, recorded together.
        target : xarray.DataArray
            Responses (stimulus, repeat, unit) that share six stimuli or more with the source, by their names.
        n_factors : int
            Shared factors of the source's noise.
        rng : numpy.random.Generator or int
            Draws the halves of the stimuli.

        Returns
        -------
        Assignment
            The source's noise, and the table of assignments.

        Raises
        ------
        ValueError
            If the two share fewer than six stimuli with two repeats in the source (and in a target with repeats),
            `n_factors` is out of range, units of the source never vary between repeats, or none, or no unit of the
            target, has tuning.
        """
        noise = _source_noise(source, n_factors)
        source, target = align(source, target)
        kept = repeat_counts(source).values > 1
        if target.sizes["repeat"] > 1:
            kept &= repeat_counts(target).values > 1
        if kept.sum() < LEAST_SHARED:
            raise ValueError(f"expected at least {LEAST_SHARED} shared stimuli with repeats, got {kept.sum()}")
        stimuli = np.random.default_rng(rng).permutation(np.flatnonzero(kept))
        subsets = [np.flatnonzero(kept), *np.array_split(stimuli, 2)]
        blocks = [
            _assign(source.values, target.values[:, :, i : i + BLOCK], subsets)
            for i in range(0, target.sizes["unit"], BLOCK)
        ]
        chosen, similarity, held_out = (np.concatenate(part) for part in zip(*blocks))
        if (chosen == NOBODY).all():
            raise ValueError(
                f"expected units of source and target with tuning to the {kept.sum()} shared stimuli, got none"
            )
        columns = {"source_unit": chosen, "similarity": similarity, "held_out_similarity": held_out}
        coords = {name: coord for name, coord in target.coords.items() if coord.dims == ("unit",)}
        return cls(noise, xr.Dataset({name: ("unit", column) for name, column in columns.items()}, coords))

    def onto(self, target: xr.DataArray) -> LowRankPlusDiagonal:
        """The noise of the assigned units: those of one unit share its factors, not its private noise.

        A unit without an assignment has no noise.

        Parameters
        ----------
        target : xarray.DataArray
            Responses (stimulus, repeat, unit) of the units that the assignment was fitted to.

        Returns
        -------
        LowRankPlusDiagonal
            In squared units of the source, of the target's dtype (float32 unless that is float64).

        Raises
        ------
        ValueError
            For responses that are not valid, or of another number of units.
        """
        validate(target)
        require_same_units(target, self.table.sizes["unit"], "assignment")
        unit = torch.from_numpy(self.table["source_unit"].values)
        # Position −1 reads the last unit, and `assigned` takes that away.
        assigned = (unit != NOBODY).to(self.noise.private)
        factors = self.noise.factors[unit] * assigned[:, None]
        return LowRankPlusDiagonal(factors.to(like(target)), (self.noise.private[unit] * assigned).to(like(target)))

    @classmethod
    def _between(
        cls, source: xr.DataArray, target: xr.DataArray, rng: np.random.Generator, **options: Any
    ) -> LowRankPlusDiagonal:
        return cls.fit(source, target, rng=rng, **options).onto(target)


def _source_noise(source: xr.DataArray, n_factors: int) -> LowRankPlusDiagonal:
    covariance = noise_covariance(source).values
    constant, n = constant_units(source), len(covariance)
    if len(constant):
        raise ValueError(
            f"expected units of the source that vary between repeats, got {len(constant)} that do not "
            f"(positions {constant[:5].tolist()}); responses.drop_constant removes them"
        )
    # Identified while loadings and variances, n k + n, less the k (k − 1)/2 rotations, are no more than the n (n + 1)/2
    # entries of the covariance: (n − k)² ≥ n + k, of which this is the largest k.
    most = int((2 * n + 1 - (8 * n + 1) ** 0.5) / 2)
    if not 1 <= n_factors <= most:
        raise ValueError(f"expected n_factors from 1 to {most} for {n} units of the source, got {n_factors}")
    loadings, private, converged = kernels.factor_analysis(covariance, n_factors)
    if not converged:
        raise ValueError(f"expected noise of the source to which {n_factors} factors can be fitted, got no convergence")
    return LowRankPlusDiagonal(torch.from_numpy(loadings.copy()), torch.from_numpy(private))


def _assign(source: np.ndarray, target: np.ndarray, subsets: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Of each unit of the target, the chosen unit, its similarity, and that over held-out stimuli."""
    whole, first, second = (_similarity(source[subset], target[subset]) for subset in subsets)
    unit = np.arange(target.shape[2])
    chosen, similarity = _most_similar(whole)
    ways = [other[_most_similar(half)[0], unit] for half, other in ((first, second), (second, first))]
    held_out = np.where(chosen == NOBODY, np.nan, np.mean(ways, axis=0))
    return chosen, similarity, held_out


def _most_similar(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position and value of the largest in each column, NOBODY and NaN where all are NaN."""
    filled = np.where(np.isnan(similarity), -np.inf, similarity)
    best = filled.max(axis=0)
    return np.where(best > -np.inf, filled.argmax(axis=0), NOBODY), np.where(best > -np.inf, best, np.nan)


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Signal correlations (source unit, target unit) of (stimulus, repeat, unit), NaN without tuning."""
    n_stimuli = len(source)
    (x, x_noise, x_signal), (y, y_noise, y_signal) = _tuning(source), _tuning(target)
    product = x.T @ y / (n_stimuli - 1)
    # The same trials are present in both: what they share in a trial counts as noise.
    if np.array_equal(np.isnan(source[:, :, 0]), np.isnan(target[:, :, 0])):
        product -= x_noise.T @ y_noise / n_stimuli
    return product / np.sqrt(np.outer(x_signal, y_signal))


def _tuning(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of (stimulus, repeat, unit): the means without their mean over stimuli (stimulus, unit); deviations (trial, unit)
    of which Σ eeᵀ = Σ_s C_s / R_s; and the variance of the noise-free tuning (unit,), NaN where it is not positive."""
    values = values.astype(np.float64)
    means = means_kernel(values)
    if values.shape[1] == 1:
        errors = np.zeros_like(means[:, 0])
    else:
        # Σ_r d dᵀ = (R − 1) C_s, so that d / √(R (R − 1)) sums to C_s / R, the error of the mean, over a stimulus.
        n_repeats = (~np.isnan(values)).sum(axis=1, keepdims=True)
        deviations = np.nan_to_num((values - means) / np.sqrt(n_repeats * (n_repeats - 1)))
        errors = deviations.reshape(-1, values.shape[2])
    means = means[:, 0] - means[:, 0].mean(axis=0)
    # Unbiased: the variance of the means over stimuli less the mean variance of their errors.
    signal = (means**2).sum(axis=0) / (len(means) - 1) - (errors**2).sum(axis=0) / len(means)
    return means, errors, np.where(signal > (ROUNDING * np.nanmax(np.abs(values), axis=(0, 1))) ** 2, signal, np.nan)
