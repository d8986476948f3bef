"""How many dimensions the noise fills."""

from math import nan
from typing import Any, overload

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from neurovar.responses import floating, repeat_counts
from neurovar.statistics._estimator import Needs, estimator
from neurovar.statistics.estimation._deviations import deviations
from neurovar.statistics.estimation._noise import noise_covariance


@overload
def effective_dimensionality(responses: xr.DataArray, *, corrected: bool = ..., by: None = ...) -> float: ...
@overload
def effective_dimensionality(responses: xr.DataArray, *, corrected: bool = ..., by: str) -> xr.DataArray: ...
@estimator(Needs(together=True, noise=True))
def effective_dimensionality(
    responses: xr.DataArray, *, corrected: bool = False, by: str | None = None
) -> float | xr.DataArray:
    """Effective dimensionality of the pooled noise covariance, (Σλ)² / Σλ² = (tr C)² / tr C².

    Without `corrected` it is that of `noise_covariance`: between 1 and the number of units, and biased down where
    dof = Σ(Rₛ − 1) is not much larger than the number of units, because sampling spreads the eigenvalues: for white
    noise the expectation is about n·dof / (n + dof).

    With `corrected` it is the ratio of unbiased estimates of (tr C)² and tr C² (`covariance_moments_kernel`), which
    assume no distribution. The ratio itself is unbiased to first order only: with few trials it errs upward, the more
    the heavier the tails (dof = 20, white Gaussian noise of 20 units: by 1 %; counts of 12 units with a shared gain of
    variance 1/2, which fill 1.8 dimensions: by 15 %). It can exceed the number of units.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    corrected : bool, optional
        Whether to take off the bias of few trials.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    float or DataArray
        Without units; with `by` a DataArray.

    Raises
    ------
    ValueError
        If responses are not valid, no stimulus has two repeats, or no unit varies; with `corrected` also if neither two
        stimuli have two repeats nor one has four, or an estimated moment is not positive (it is named).

    References
    ----------
    Himeno & Yamada 2014, doi:10.1016/j.jmva.2014.04.020 (the unbiased estimates within one stimulus)

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=20, n_repeats=3, n_units=40, rng=0)  # white noise
    >>> effective_dimensionality(da) < 25, 35 < effective_dimensionality(da, corrected=True) < 45
    (True, True)
    """
    if not corrected:
        return effective_dimensionality_kernel(noise_covariance(responses).values)
    _require_pairs(repeat_counts(responses).values)
    squared_trace, trace_of_square = covariance_moments_kernel(responses.values)
    if min(squared_trace, trace_of_square) <= 0:
        raise ValueError(
            "expected positive estimates of (tr C)² and tr C², "
            f"got {squared_trace:.3g} and {trace_of_square:.3g}: too few trials for this noise"
        )
    return squared_trace / trace_of_square


def effective_dimensionality_kernel(matrix: Any) -> float:
    """(tr C)² / ‖C‖²_F of a covariance (unit, unit), NumPy or torch.

    Parameters
    ----------
    matrix : array of NumPy or torch
        (unit, unit), a covariance.

    Returns
    -------
    float
        The dimensionality, without units.
    """
    xp, matrix = array_namespace(matrix), floating(matrix)
    return _total(xp.linalg.diagonal(matrix)) ** 2 / _total(matrix**2)


def covariance_moments_kernel(values: Any) -> tuple[float, float]:
    """Unbiased (tr C)² and tr C² of the noise in an array (stimulus, repeat, unit), NumPy or torch.

    Each is a mean of products of two estimates of C that share no trial, so that their errors are independent: from two
    stimuli, and from disjoint pairs of repeats within a stimulus that has four or more (a U-statistic, in closed form).
    Products are weighted by (Rₛ − 1)(Rₜ − 1).

    Unbiased for any distribution if C is the same for every stimulus. If it differs, the answer is for the pooled
    covariance of these stimuli where all of them have four repeats, and for the mean over the population that they were
    drawn from where all have two or three. NaN where no two such estimates can be had.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    tuple of float
        (tr C)² and tr C², in the responses' units to the fourth power.
    """
    xp = array_namespace(values)
    noise, _, dof = deviations(values, differences=False)
    dof = xp.astype(dof, xp.float64)
    n_repeats = dof + 1
    # Everything follows from products of trials: tr(Cₛ Cₜ) of two stimuli is the sum of squares of their products.
    products = noise @ xp.matrix_transpose(noise)
    norms = xp.astype(xp.linalg.diagonal(products), xp.float64)
    trace = xp.sum(norms, axis=1)
    square = xp.sum(products**2, axis=(1, 2), dtype=xp.float64)
    trials = xp.reshape(noise, (-1, noise.shape[2]))
    # ‖XᵀX‖² = ‖XXᵀ‖²: the smaller of the two is computed.
    wide = trials.shape[0] < trials.shape[1]
    scatter = trials @ trials.T if wide else trials.T @ trials
    # Sums over s ≠ t are the square of the sum less the sum of squares: no trial meets itself in them.
    weight = _total(dof) ** 2 - _total(dof**2)
    squared_trace = _total(trace) ** 2 - _total(trace**2)
    trace_of_square = _total(scatter**2) - _total(square)

    # Two pairs of repeats that share no trial take four of them. The mean over all such pairs of pairs (Himeno &
    # Yamada 2014) has a closed form in the trace and the squared norm of the residuals' products and Σ|e|⁴: the terms
    # in which a trial occurs twice are those that these three take off.
    enough = n_repeats >= 4
    n, trace, square = n_repeats[enough], trace[enough], square[enough]
    fourth = n * (n - 1) * xp.sum(norms[enough] ** 2, axis=1)
    scale = (n - 1) / (n * (n - 2) * (n - 3))
    weight += _total((n - 1) ** 2)
    squared_trace += _total(scale * (2 * square + (n**2 - 3 * n + 1) * trace**2 - fourth))
    trace_of_square += _total(scale * ((n - 1) * (n - 2) * square + trace**2 - fourth))
    # Both have the weight Σ (Rₛ − 1)(Rₜ − 1), so that it cancels in their ratio.
    return (squared_trace / weight, trace_of_square / weight) if weight else (nan, nan)


def _total(values: Any) -> float:
    """The sum, in double precision."""
    xp = array_namespace(values)
    return float(xp.sum(values, dtype=xp.float64))


def _require_pairs(n_repeats: np.ndarray) -> None:
    """Raise ValueError unless two estimates of the covariance can be had that share no trial."""
    repeated = int((n_repeats >= 2).sum())
    if repeated < 2 and n_repeats.max() < 4:
        raise ValueError(
            "expected two stimuli with 2 repeats or one with 4 for the corrected dimensionality, "
            f"got {repeated} with 2, the most repeats {n_repeats.max()}"
        )
