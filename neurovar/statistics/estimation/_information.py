"""Linear Fisher information, and what correlations of the noise add to it or take from it."""

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, overload

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from neurovar.responses import constant_units, floating, repeat_counts
from neurovar.statistics._estimator import Needs, estimator
from neurovar.statistics.estimation._noise import noise_trials

SPARE = 6
"""Trials that two stimuli must have beyond the number of units, for the estimate to have a finite variance."""


@dataclass(frozen=True)
class FisherInformation:
    """Linear Fisher information between two stimuli, bias-corrected, in 1/distance², as `fisher_information` gives it.

    Parameters
    ----------
    information, standard_error : float
        Of the units as they are.
    shuffled, shuffled_standard_error : float
        Of the units if each one's trials were shuffled, so that noise is uncorrelated.
    benefit, benefit_standard_error : float
        ΔI_shuffled = information − shuffled: what correlations add; negative, what they cost.
    n_units : int
        The number of units N.
    n_repeats : tuple of int
        The trials T₁ and T₂ of the two stimuli.

    Examples
    --------
    >>> estimate = FisherInformation(5.0, 1.0, 4.0, 0.5, 1.0, 0.8, n_units=3, n_repeats=(20, 21))
    >>> estimate.to_dataset().sizes["of_pair"]
    2
    """

    information: float
    standard_error: float
    shuffled: float
    shuffled_standard_error: float
    benefit: float
    benefit_standard_error: float
    n_units: int
    n_repeats: tuple[int, int]

    def to_dataset(self) -> xr.Dataset:
        """The same as scalars of a Dataset, `n_repeats` along a dim `of_pair`."""
        return xr.Dataset(asdict(self) | {"n_repeats": ("of_pair", list(self.n_repeats))})


@overload
def fisher_information(
    responses: xr.DataArray, *, pair: tuple[Hashable, Hashable], distance: float
) -> FisherInformation: ...
@overload
def fisher_information(
    responses: xr.DataArray, *, pair: tuple[Hashable, Hashable], distance: float, by: str
) -> xr.Dataset: ...
@estimator(Needs(together=True))
def fisher_information(
    responses: xr.DataArray, *, pair: tuple[Hashable, Hashable], distance: float, by: str | None = None
) -> FisherInformation | xr.Dataset:
    """Bias-corrected linear Fisher information of N units about which of two stimuli was shown.

    I = Δμᵀ C⁻¹ Δμ / ds²: Δμ the difference of the mean responses, C the noise covariance, ds = `distance`. With S the
    covariance pooled over both stimuli, ν = T₁ + T₂ − 2 its degrees of freedom, and κ = (1/T₁ + 1/T₂) / ds²:

    information = Δx̄ᵀ S⁻¹ Δx̄ / ds² · (ν − N − 1)/ν − N κ

    shuffled = Σᵢ Δx̄ᵢ² / Sᵢᵢ / ds² · (ν − 2)/ν − N κ: the same were each unit's trials shuffled, so that noise is
    uncorrelated

    benefit = information − shuffled

    With T₁ = T₂ = T these are equations 2 and 6 of Kanitscheider et al. 2015. With distance = 1 the information is the
    squared discriminability d′² of two stimuli, for pictures that no distance is known of.

    Bias: none for Gaussian noise with the same covariance for both stimuli, whatever T₁ and T₂. Without correction the
    information would be biased up by (I (N + 1) + N κ ν)/(ν − N − 1). If the covariance differs, C is the pooled one,
    weighted by T − 1, and the correction N κ is approximate unless T₁ = T₂. Single estimates can be negative.

    Standard errors are roots of unbiased estimates of the variance under Gaussian noise, never less than the standard
    error without any information; for the information the variance is equation 19 of Kanitscheider et al.
    times (ν − N − 3)/(ν − N − 1), as I in it is estimated. Those of `shuffled` and `benefit` are to first order in
    1/ν where noise is correlated. Estimates are skewed to the right if ν is not much larger than N.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    pair : tuple
        The ids of two stimuli that differ little.
    distance : float
        How much they differ, ds > 0, in units of the stimulus (of orientation, contrast, …).
    by : str, optional
        A coordinate of unit: a Dataset with the information of each group of units.

    Returns
    -------
    FisherInformation or Dataset
        The information, its standard errors, and what correlations add to it; with `by` a Dataset with each of them.

    Raises
    ------
    ValueError
        If responses are not valid, a stimulus is not among them or has one trial, T₁ + T₂ < N + 6 (it says how many
        units the trials allow), or units do not vary or are linear combinations of one another.

    References
    ----------
    Kanitscheider et al. 2015, doi:10.1371/journal.pcbi.1004218
    Averbeck, Latham & Pouget 2006, doi:10.1038/nrn1888 (ΔI_shuffled)

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=2, n_repeats=200, n_units=4, rng=0)
    >>> estimate = fisher_information(da, pair=tuple(da.stimulus.values), distance=1)
    >>> distance = float((da.mean("repeat").diff("stimulus") ** 2).sum())  # squared; the noise is white
    >>> abs(estimate.information - distance) < 2 * estimate.standard_error
    True
    """
    if not (np.isfinite(distance) and distance > 0):
        raise ValueError(f"expected a distance above 0, got {distance}")
    chosen = _chosen(responses, pair)
    _require_trials(chosen)
    _require_full_rank(chosen)
    trials = chosen.values.astype(np.float64)  # two stimuli are few values, and inverting wants the precision
    first, second = (repeats[~np.isnan(repeats[:, 0])] for repeats in trials)
    return fisher_information_kernel(first, second, distance=distance)


def fisher_information_kernel(first: Any, second: Any, *, distance: float) -> FisherInformation:
    """`fisher_information` of the trials of two stimuli, each an array (trial, unit), NumPy or torch.

    Parameters
    ----------
    first : array of NumPy or torch
        (trial, unit), the responses to one stimulus.
    second : array of NumPy or torch
        (trial, unit), the responses to the other stimulus.
    distance : float
        How much the stimuli differ, above 0.

    Returns
    -------
    FisherInformation
        The information, its standard errors, and what correlations add to it.
    """
    xp, (first, second) = array_namespace(first, second), (floating(first), floating(second))
    n_repeats, n_units = (first.shape[0], second.shape[0]), first.shape[1]
    dof, kappa = sum(n_repeats) - 2, sum(1 / n for n in n_repeats)
    means = [xp.mean(trials, axis=0) for trials in (first, second)]
    noise = xp.concat([first - means[0], second - means[1]], axis=0)
    covariance = noise.T @ noise / dof
    deviation = xp.sqrt(xp.linalg.diagonal(covariance))
    correlation = covariance / deviation[:, None] / deviation
    # For Wishart S, E S⁻¹ = C⁻¹ ν/(ν − N − 1): with one unit ν/(ν − 2), which is in z; with N the factor in `whole`
    # makes up the difference. Noise of the means adds Nκ to either.
    z = (means[0] - means[1]) / deviation * sqrt((dof - 2) / dof)
    whole = float(z @ xp.linalg.solve(correlation, z[:, None])[:, 0]) * (dof - n_units - 1) / (dof - 2)
    parts = float(z @ z)
    errors = [sqrt(variance) / distance**2 for variance in _variances(whole, z, correlation, dof, kappa)]
    return FisherInformation(
        information=(whole - n_units * kappa) / distance**2,
        standard_error=errors[0],
        shuffled=(parts - n_units * kappa) / distance**2,
        shuffled_standard_error=errors[1],
        benefit=(whole - parts) / distance**2,
        benefit_standard_error=errors[2],
        n_units=n_units,
        n_repeats=n_repeats,
    )


def _variances(whole: float, z: Any, correlation: Any, dof: int, kappa: float) -> tuple[float, float, float]:
    """Unbiased variances of information, shuffled and benefit for distance 1, not below those without information.

    Y = `whole` and y = z² are the informations of all units and of each, before N κ and κ are taken off.
    var(information) = 2 Y² / (ν − N − 1) + 4 κ Y − 2 N κ²
    var(shuffled) = 2 Σᵢⱼ r²ᵢⱼ yᵢ yⱼ / (ν − 2) + 4 κ zᵀR z − 2 κ² Σᵢⱼ r²ᵢⱼ
    cov(information, shuffled) = Σᵢ [2 yᵢ² / (ν − 2) + 4 κ yᵢ − 2 κ²], whatever the correlations
    """
    xp = array_namespace(z)
    n_units, parts = z.shape[0], z**2
    squared = 1 - (1 - correlation**2) * dof / (dof - 1)  # as the adjusted R²: without the bias of r²
    # Σᵢⱼ r² is at least N, that of its diagonal; its unbiased estimate may be less.
    n_pairs = max(float(xp.sum(squared)), n_units)
    joint = 2 * whole**2 / (dof - n_units - 1) + 4 * kappa * whole - 2 * n_units * kappa**2
    shuffled = 2 * float(parts @ squared @ parts) / (dof - 2) + 4 * kappa * float(z @ correlation @ z)
    shuffled -= 2 * n_pairs * kappa**2
    shared = 2 * float(parts @ parts) / (dof - 2) + 4 * kappa * float(z @ z) - 2 * n_units * kappa**2
    # The variances at I = 0, where the forms above can come out negative: 2Nκ²(ν − 1)/(ν − N − 3) for F-distributed
    # information, and likewise with one unit at a time.
    least = 2 * kappa**2 * (dof - 1)
    least_joint, least_shuffled = least * n_units / (dof - n_units - 3), least * n_pairs / (dof - 4)
    least_benefit = least_joint + least_shuffled - 2 * least * n_units / (dof - 4)
    benefit = max(joint + shuffled - 2 * shared, least_benefit)
    return max(joint, least_joint), max(shuffled, least_shuffled), benefit


def _chosen(responses: xr.DataArray, pair: tuple[Hashable, Hashable]) -> xr.DataArray:
    """The responses to the two stimuli."""
    known = responses.stimulus.values.tolist()
    if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(known):
        raise ValueError(f"expected a pair of different stimuli among {len(known)} ({known[0]}, …), got {pair}")
    return responses.isel(stimulus=[known.index(stimulus) for stimulus in pair])


def _require_trials(chosen: xr.DataArray) -> None:
    n_repeats, n_units = repeat_counts(chosen).values.tolist(), chosen.sizes["unit"]
    n_trials = sum(n_repeats)
    if min(n_repeats) < 2 or n_trials < n_units + SPARE:
        most = n_trials - SPARE
        # With one trial of a stimulus no number of units would do.
        advice = f" or at most {most} units" if min(n_repeats) > 1 and most > 0 else ""
        raise ValueError(
            f"expected at least {n_units + SPARE} trials of the two stimuli together, and 2 of each, for {n_units} "
            f"units, got {n_repeats[0]} + {n_repeats[1]}: it takes more repeats{advice}"
        )


def _require_full_rank(chosen: xr.DataArray) -> None:
    """Raise ValueError if the covariance of the units cannot be inverted."""
    constant = constant_units(chosen)
    if len(constant):
        raise ValueError(
            f"expected units that vary between repeats of these two stimuli, got {len(constant)} that do not "
            f"(positions {constant[:5].tolist()}); leave them out"
        )
    noise = noise_trials(chosen.values)[0].astype(np.float64)
    # Scaled first: units of small variance are not to look like linear combinations of others.
    rank, n_units = int(np.linalg.matrix_rank(noise / noise.std(axis=0))), noise.shape[1]
    if rank < n_units:
        raise ValueError(
            f"expected units of which none is a linear combination of others, got rank {rank} of {n_units} units"
        )
