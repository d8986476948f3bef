"""Deviations from the stimulus's mean, or between neighbouring trials, and their products: NumPy and torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from neurovar.responses import ROUNDING, extremes_kernel, floating, residuals_kernel

UNITS_TOGETHER = 1024  # rows of a matrix that are computed at once


def bounded(correlation: Any) -> Any:
    """Without what rounding adds: between -1 and 1, 1 on the diagonal; overwrites `correlation`."""
    xp = array_namespace(correlation)
    correlation[correlation > 1] = 1
    correlation[correlation < -1] = -1
    unit = xp.arange(correlation.shape[-1], device=device(correlation))
    # x / x: 1 where a unit varies, NaN where it does not.
    correlation[..., unit, unit] /= correlation[..., unit, unit]
    return correlation


def inverse(norm: Any, where: Any, *, otherwise: float) -> Any:
    xp = array_namespace(norm)
    return xp.where(where, 1 / xp.where(where, norm, 1), otherwise)


def inverse_norm(values: Any, noise: Any) -> Any:
    """1 / √Σ_r e² of each stimulus and unit, 0 where the unit does not vary: (stimulus, unit)."""
    xp = array_namespace(values)
    # Not divided by Rₛ − 1: the weights of stimuli are put on elsewhere, once for all units.
    norm = xp.sqrt(xp.sum(noise * noise, axis=1))
    low, high = extremes_kernel(values)
    # Residuals of a constant are rounding, not 0: the mean of three times 0.1 is not 0.1.
    varies = (norm > 0) & (high - low > ROUNDING * xp.maximum(xp.abs(low), xp.abs(high)))
    return inverse(norm, varies, otherwise=0)


def gram(rows: Any, *, over: Callable[[slice, slice], Any] | None = None) -> Any:
    """rowsᵀ rows, (unit, unit), if asked for divided by a matrix that `over` gives block by block; exactly symmetric.

    The upper triangle is computed in blocks and mirrored: half of the work, and little memory beyond the result.
    """
    xp, n_units = array_namespace(rows), rows.shape[1]
    result = xp.empty((n_units, n_units), dtype=rows.dtype, device=device(rows))
    for first in range(0, n_units, UNITS_TOGETHER):
        block = slice(first, first + UNITS_TOGETHER)
        part = rows[:, block].T @ rows[:, first:]
        if over is not None:
            with np.errstate(invalid="ignore"):  # 0 / 0 for pairs that never vary for the same stimulus
                part /= over(block, slice(first, None))
        # BLAS sums (i, j) and (j, i) in different orders: their mean makes the block on the diagonal symmetric.
        square = part[:, :UNITS_TOGETHER]
        part[:, :UNITS_TOGETHER] = (square + square.T) / 2
        result[block, first:] = part
        result[first:, block] = part.T
    return result


def shared_dof(n: Any, varies: Any) -> Callable[[slice, slice], Any]:
    """Σ n over the stimuli for which both units vary, from n (stimulus) and where units vary (stimulus, unit).

    Σn − Σᵢ − Σⱼ + Σᵢⱼ, the last three over the stimuli for which unit i, unit j and both are silent: only stimuli for
    which some unit is silent enter a product, and integers make it exact.
    """
    xp = array_namespace(varies)
    with_silent = ~xp.all(varies, axis=1) & (n > 0)
    silent = xp.astype(~varies[with_silent], n.dtype)
    weighted = n[with_silent][:, None] * silent
    total, lost = float(xp.sum(n)), xp.sum(weighted, axis=0)

    def block(first: slice, second: slice) -> Any:
        shared = weighted[:, first].T @ silent[:, second]
        shared += total - lost[first, None]
        shared -= lost[None, second]
        return shared

    return block


def gram_of_each(noise: Any) -> Any:
    """rowsᵀ rows of each stimulus, (stimulus, unit, unit), exactly symmetric."""
    xp = array_namespace(noise)
    product = xp.matrix_transpose(noise) @ noise
    return (product + xp.matrix_transpose(product)) / 2


def deviations(values: Any, *, differences: bool) -> tuple[Any, Any, Any]:
    """Residuals or differences, (stimulus, trial, unit), 0 where there are none; where there are; Rₛ − 1."""
    xp, values = array_namespace(values), floating(values)
    present = ~xp.isnan(values[:, :, 0])
    n = xp.astype(xp.sum(present, axis=1), values.dtype) - 1
    if differences:
        values, present = _present_first(values, present)
        noise, exists = values[:, 1:] - values[:, :-1], present[:, 1:]
        # Var(x_r+1 − x_r) = 2σ² for independent trials: over √2 a difference has the noise's variance, as a residual
        # has once it is divided by Rₛ − 1 and not by Rₛ.
        noise /= 2**0.5
    else:
        noise, exists = residuals_kernel(values), present
    if not bool(xp.all(exists)):
        noise[~exists] = 0
    return noise, exists, n


def _present_first(values: Any, present: Any) -> tuple[Any, Any]:
    """Each stimulus's trials in the same order, without gaps."""
    xp = array_namespace(values)
    if not bool(xp.any(present[:, 1:] & ~present[:, :-1])):
        return values, present
    # False sorts before True, and a stable sort keeps the order shown among those that are present.
    order = xp.argsort(xp.astype(~present, xp.int8), axis=1, stable=True)
    stimulus = xp.arange(len(values), device=device(values))[:, None]
    return values[stimulus, order], present[stimulus, order]


def rows_of(noise: Any, exists: Any) -> Any:
    """The deviations that exist, (trial, unit), without a copy if all do."""
    xp = array_namespace(noise)
    return xp.reshape(noise, (-1, noise.shape[2])) if bool(xp.all(exists)) else noise[exists]


def dof_of(n: Any, *, per_stimulus: bool, differences: bool) -> Any:
    """Degrees of freedom from n = Rₛ − 1 (stimulus): of each stimulus, or a number."""
    # With unit variance, neighbouring differences over √2 have covariance −1/2. For Gaussian noise the covariance of
    # squares is twice the square of that, so that the sum of n squares has variance 2n + 2(n − 1)·2·(1/4) = 3n − 1,
    # where n independent ones have 2n. By Satterthwaite it is worth 2n²/(3n − 1) degrees of freedom.
    worth = (3 * n - 1) / 2  # the variance of a sum of n differences that overlap, relative to that of one
    if per_stimulus:
        return n * n / worth * (n > 0) if differences else n
    total = float(n.sum())
    return total**2 / float(worth[n > 0].sum()) if differences else int(total)
