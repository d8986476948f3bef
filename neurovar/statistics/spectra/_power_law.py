"""Power laws: fits over a window of ranks, a sweep over windows, and the bound of smooth codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class PowerLaw:
    """λₙ = amplitude · n^−exponent over a window of ranks n.

    Parameters
    ----------
    exponent : float
        α.
    amplitude : float
        What the law has at rank 1, in squared units of the responses.
    ranks : tuple of int
        The first and the last rank, counted from 1, both included.

    Examples
    --------
    >>> PowerLaw(exponent=1.0, amplitude=5.0, ranks=(2, 50)).exponent
    1.0
    """

    exponent: float
    amplitude: float
    ranks: tuple[int, int]


class UnreliableFit(ValueError):
    """Raised instead of a fit that cannot be trusted: some variances in the window are not positive.

    Parameters
    ----------
    message : str
        What was expected, what came, and the remedy.
    estimate : PowerLaw
        What the positive variances alone give.

    Examples
    --------
    >>> spectrum = xr.DataArray([4.0, 2.0, -1.0, 1.0], dims="rank", coords={"rank": [1, 2, 3, 4]})
    >>> try:
    ...     fit_power_law(spectrum, ranks=(1, 4))
    ... except UnreliableFit as error:
    ...     print(round(error.estimate.exponent, 3))
    1.0
    """

    def __init__(self, message: str, estimate: PowerLaw) -> None:
        super().__init__(message)
        self.estimate = estimate


def fit_power_law(spectrum: xr.DataArray, *, ranks: tuple[int, int]) -> PowerLaw:
    """Exponent α of λₙ ∝ n^−α over a window of ranks.

    Weighted least squares of log λₙ on −log n with weights 1/n, so that each octave counts alike. A finite window
    cannot certify an asymptotic exponent, and its value depends on the window and on the estimator of the spectrum:
    compare like with like. Residuals at neighbouring ranks are correlated, so the fit has no honest standard error
    of its own: `exponent_interval` has one.

    Parameters
    ----------
    spectrum : DataArray
        (rank), with `rank` counted from 1.
    ranks : tuple of int
        The first and the last rank, both included; there is no default, because the science has none.

    Returns
    -------
    PowerLaw
        The exponent, the amplitude and the window.

    Raises
    ------
    ValueError
        If the window is outside the spectrum or holds fewer than three ranks.
    UnreliableFit
        A ValueError, if a variance in the window is not positive; it carries the estimate from the positive ones.

    References
    ----------
    Stringer et al. 2019, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> n = np.arange(1, 101)
    >>> spectrum = xr.DataArray(5.0 / n, dims="rank", coords={"rank": n})
    >>> fit = fit_power_law(spectrum, ranks=(2, 50))
    >>> round(fit.exponent, 6), round(fit.amplitude, 6)
    (1.0, 5.0)
    """
    _require_ranks(spectrum)
    low, high = ranks
    available = spectrum["rank"].values
    if low < available.min() or high > available.max() or high - low < 2:
        raise ValueError(
            f"expected a window of at least 3 ranks within {available.min()}–{available.max()}, got {low}–{high}"
        )
    window = spectrum.sel(rank=slice(low, high))
    rank, value = window["rank"].values.astype(float), window.values
    # Held-out variances have no noise floor and may be negative: these have no logarithm.
    positive = value > 0
    if positive.sum() < 2:
        raise ValueError(f"expected positive variances at ranks {low}–{high}, got {int(positive.sum())}")
    exponent, amplitude = power_law_kernel(rank[positive], value[positive])
    fit = PowerLaw(exponent, amplitude, (int(low), int(high)))
    if not positive.all():
        raise UnreliableFit(
            f"expected positive variances at ranks {low}–{high}, got {int((~positive).sum())} that are not "
            f"(first at rank {int(rank[~positive][0])}); the others alone give an exponent of {exponent:.2f}. "
            "Choose a lower window or use more repeats",
            fit,
        )
    return fit


def window_sweep(spectrum: xr.DataArray, *, lows: Sequence[int], highs: Sequence[int]) -> xr.DataArray:
    """`fit_power_law` over every window from one of `lows` to one of `highs`.

    An exponent that is a property of the code, and not of the window, stays the same over the sweep.

    Parameters
    ----------
    spectrum : DataArray
        (rank), with `rank` counted from 1.
    lows : sequence of int
        The first ranks of windows.
    highs : sequence of int
        The last ranks of windows.

    Returns
    -------
    DataArray
        (low, high) of exponents with the coordinate `reason` (low, high): NaN and why where a window does not allow a
        reliable fit, else "". The spectrum's attributes are kept.

    Raises
    ------
    ValueError
        If no window is given, or the spectrum has no ranks.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> n = np.arange(1, 51)
    >>> spectrum = xr.DataArray(5.0 / n, dims="rank", coords={"rank": n})
    >>> sweep = window_sweep(spectrum, lows=[1, 10], highs=[30, 60])
    >>> sweep.values.round(6)
    array([[ 1., nan],
           [ 1., nan]])
    >>> str(sweep.reason.values[0, 1])
    'expected a window of at least 3 ranks within 1–50, got 1–60'
    """
    _require_ranks(spectrum)
    if not len(lows) or not len(highs):
        raise ValueError(f"expected at least one low and one high rank, got {len(lows)} and {len(highs)}")
    exponents = np.full((len(lows), len(highs)), np.nan)
    reasons = np.full(exponents.shape, "", dtype=object)
    for row, low in enumerate(lows):
        for column, high in enumerate(highs):
            try:
                exponents[row, column] = fit_power_law(spectrum, ranks=(low, high)).exponent
            except ValueError as error:
                reasons[row, column] = str(error)
    coords = {"low": list(lows), "high": list(highs), "reason": (("low", "high"), reasons)}
    return xr.DataArray(exponents, dims=("low", "high"), coords=coords, attrs=spectrum.attrs)


def smoothness_bound(d: float) -> float:
    """1 + 2/d: codes of d-dimensional stimuli whose variances fall more slowly than n^−(1 + 2/d) are not smooth.

    The bound is asymptotic (n → ∞, responses differentiable in the stimulus): an exponent over a finite window may be
    compared with it, but proves nothing. Large for simple stimuli (3 for gratings of one parameter), towards 1 for
    natural images.

    Parameters
    ----------
    d : float
        The dimension of the set of stimuli.

    Returns
    -------
    float
        The exponent below which codes are not smooth.

    Raises
    ------
    ValueError
        If d is not positive.

    References
    ----------
    Stringer et al. 2019, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> smoothness_bound(8)
    1.25
    """
    if not d > 0:
        raise ValueError(f"expected a positive number of stimulus dimensions, got {d}")
    return 1 + 2 / d


def power_law_kernel(rank: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    """Exponent and amplitude by least squares of log value on −log rank with weights 1/rank.

    Parameters
    ----------
    rank : numpy.ndarray
        (rank,), counted from 1.
    value : numpy.ndarray
        (rank,), positive.

    Returns
    -------
    tuple of float
        Exponent and amplitude.
    """
    # polyfit multiplies residuals, not their squares, by w: 1/√n makes the weights 1/n. Ranks n … 2n then weigh
    # Σ 1/n ≈ ln 2 whatever n, so that each octave counts alike.
    slope, intercept = np.polyfit(-np.log(rank), np.log(value), 1, w=rank**-0.5)
    return float(slope), float(np.exp(intercept))


def _require_ranks(spectrum: xr.DataArray) -> None:
    if spectrum.dims != ("rank",) or "rank" not in spectrum.coords:
        raise ValueError(f"expected a spectrum with dim and coordinate 'rank', got dims {spectrum.dims}")
