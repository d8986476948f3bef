"""Statistics of every pair of units, and how noise correlation depends on another of them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial.distance import pdist, squareform

from neurovar.responses import recordings, repeat_counts
from neurovar.statistics._estimator import carried
from neurovar.statistics.estimation._noise import noise_correlation
from neurovar.statistics.estimation._signal import signal_correlation

APART = ("subject", "session", "probe", "layer")
"""Coordinates of units whose positions have nothing to do with one another where these differ."""


def pairs(responses: xr.DataArray, *, zscore: bool = True, distance: Sequence[str] = ()) -> xr.Dataset:
    """Noise correlation of every pair of units beside what it may depend on.

    `noise_correlation`, as the function of that name. `signal_correlation`, likewise, in the exact form; only if three
    stimuli have two repeats. `geometric_mean_rate`, √(m_i m_j), m the mean over all trials, in the units of the
    responses. `distance`, Euclidean, √Σ(a_i − a_j)² over the coordinates named. Bias and degrees of freedom are those
    of the functions.

    For 10,000 units these are 5·10⁷ pairs: 200 MB a variable in float32, which it is for float32 responses.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    zscore : bool, optional
        Whether to divide residuals by their standard deviation for each stimulus first, as `noise_correlation` does;
        False where no stimulus has three repeats.
    distance : sequence of str, optional
        Coordinates of the units, in the same unit of length, such as ("x", "y", "z") or ("row", "column").

    Returns
    -------
    Dataset
        Along `pair`, pairs i < j of units that were recorded together (`responses.mark`), in the order of the upper
        triangle, with coordinates `unit_1` and `unit_2`, positions of the units, and where the units are of several
        areas or layers `area_1` and `area_2` or `layer_1` and `layer_2`. NaN are the signal correlations of units whose
        signal variance is not positive, the rates of units with a negative mean, and the distances of units of
        different subjects, sessions, probes or layers.

    Raises
    ------
    ValueError
        If responses are not valid, not recorded together, have fewer than two units or a unit that never varies, no
        stimulus has three repeats (with zscore=False two), or `distance` names no numbers of the units.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=4, n_units=3, rng=0)
    >>> table = pairs(da.assign_coords(x=("unit", [0.0, 3.0, 4.0])), distance=["x"])
    >>> table.distance.values, table.unit_2.values
    (array([3., 4., 1.]), array([1, 2, 2], dtype=int32))
    """
    noise = noise_correlation(responses, zscore=zscore).values
    if len(noise) < 2:
        raise ValueError(f"expected at least 2 units, got {len(noise)}")
    columns: dict[str, np.ndarray] = {"noise_correlation": squareform(noise, checks=False)}
    if int((repeat_counts(responses) > 1).sum()) >= 3:
        columns["signal_correlation"] = squareform(signal_correlation(responses).values, checks=False)
    mean = np.nanmean(responses.values, axis=(0, 1), dtype=np.float64)
    # √mᵢ·√mⱼ: one root a unit instead of one a pair.
    root = np.sqrt(np.where(mean >= 0, mean, np.nan)).astype(noise.dtype)
    columns["geometric_mean_rate"] = squareform(np.outer(root, root), checks=False)
    unit_1, unit_2 = (unit.astype(np.int32) for unit in np.triu_indices(len(noise), 1))
    if len(distance):
        columns["distance"] = _distances(responses, distance, unit_1, unit_2).astype(noise.dtype)
    labels: dict[str, np.ndarray] = {"unit_1": unit_1, "unit_2": unit_2}
    for name in ("area", "layer"):
        of_units = responses[name].values if name in responses.coords else np.zeros(0)
        if len(pd.unique(of_units)) > 1:
            labels |= {f"{name}_1": of_units[unit_1], f"{name}_2": of_units[unit_2]}
    table = xr.Dataset(
        {name: ("pair", column) for name, column in columns.items()},
        coords={name: ("pair", label) for name, label in labels.items()},
        attrs=carried(responses) | {"zscore": int(zscore)},
    )
    number = recordings(responses)
    return table.isel(pair=number[unit_1] == number[unit_2]) if number.any() else table


def _distances(responses: xr.DataArray, names: Sequence[str], unit_1: np.ndarray, unit_2: np.ndarray) -> np.ndarray:
    """Euclidean distance of each pair, NaN where the positions of the two have nothing to do with one another."""
    numbers = [
        str(name)
        for name, coord in responses.coords.items()
        if coord.dims == ("unit",) and np.issubdtype(coord.dtype, np.number)
    ]
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise ValueError(f"expected distance= numbers of the units ({', '.join(numbers)}), got {', '.join(unknown)}")
    distance = pdist(np.stack([responses[name].values for name in names], axis=1).astype(float))
    for name in APART:
        if name in responses.coords and responses[name].dims == ("unit",):
            label = pd.factorize(responses[name].values)[0]  # -1 where it is missing: nobody knows where that unit was
            distance[(label[unit_1] != label[unit_2]) | (label[unit_1] < 0)] = np.nan
    return distance


def binned(
    pairs: xr.Dataset, *, against: str, edges: Sequence[float] | None = None, n_bins: int | None = None
) -> xr.Dataset:
    """How noise correlation depends on another statistic of the pairs: means over bins, and a least-squares line.

    Signal correlations are clipped to [−1, 1] first, as single estimates can be far outside. Pairs for which one of the
    two is NaN, or outside of `edges`, count neither for the bins nor for the line.

    Pairs share units, so that standard errors that take them for independent are too small. Here they are
    √(V_unit − V_pair). V_unit is the delete-one-unit jackknife variance, (m − 1)/m Σ_u (θ_(u) − θ_(·))² over m units,
    which counts what is peculiar to a pair twice, once with each of its units (Efron & Stein 1981); V_pair is the
    variance as if pairs were independent, and the least that is taken. To first order this is the variance of Aronow
    et al. 2015 for pairs that share members. It is the error for other units from the same population: noise that all
    units share over the trials is not in it. Intervals: Student's t with m − 1 degrees of freedom, m not below 15.

    Error in the other statistic, such as a signal correlation from few stimuli or repeats, flattens the line.

    Parameters
    ----------
    pairs : Dataset
        Along `pair`, from the function `pairs`, or a part of it.
    against : str
        "signal_correlation", "distance" or "geometric_mean_rate".
    edges : sequence of float, optional
        The edges of the bins, increasing; the last bin has its upper edge.
    n_bins : int, optional
        Instead of edges, so many bins with equal numbers of pairs; fewer where values tie.

    Returns
    -------
    Dataset
        Along `bin`: means of `against` and `noise_correlation`, `standard_error` of the latter, `n_pairs`; attrs
        `intercept`, `slope` and their `intercept_standard_error`, `slope_standard_error`, the number of units
        `n_units`, of pairs left out `dropped_pairs`, and `edges`. NaN in a bin without pairs; the error NaN where all
        have one unit in common.

    Raises
    ------
    ValueError
        If the pairs have no such statistic, not one of `edges` and `n_bins` is given, edges do not increase, fewer than
        four units are left, or the statistic does not differ between pairs.

    References
    ----------
    Aronow, Samii & Assenova 2015, doi:10.1093/pan/mpv018; Efron & Stein 1981, doi:10.1214/aos/1176345462

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=50, n_repeats=4, n_units=10, rng=0)
    >>> binned(pairs(da), against="signal_correlation", n_bins=3).n_pairs.values
    array([15, 15, 15])
    """
    x, y = (pairs[name].values.astype(float) for name in _required(pairs, against))
    x = np.clip(x, -1, 1) if against == "signal_correlation" else x
    finite = np.isfinite(x) & np.isfinite(y)
    limits = _edges(x[finite], edges, n_bins)
    kept = finite & (x >= limits[0]) & (x <= limits[-1])
    x, y = x[kept], y[kept]
    # Units whose pairs were all left out are no units of the jackknife.
    of_pair, n_units = _numbered(np.stack([pairs[name].values[kept] for name in ("unit_1", "unit_2")]))
    if n_units < 4:
        raise ValueError(f"expected pairs of at least 4 units with both statistics within the edges, got {n_units}")
    if np.ptp(x) == 0:
        raise ValueError(f"expected {against} to differ between pairs, got {x[0]:g} for all")
    line = _line(x, y, of_pair, n_units)
    attrs = {"n_units": n_units, "dropped_pairs": int((~kept).sum()), "edges": limits.tolist()}
    columns = _bins(x, y, limits, of_pair, n_units)
    columns = {against: columns.pop("x"), **columns}
    return xr.Dataset({name: ("bin", column) for name, column in columns.items()}, attrs=line | attrs)


def _required(pairs: xr.Dataset, against: str) -> tuple[str, str]:
    """The names of the two statistics."""
    known = [str(name) for name in pairs.data_vars if name != "noise_correlation"]
    if against not in known:
        raise ValueError(f"expected pairs with the statistic {against!r}, got {', '.join(known) or 'none'}")
    return against, "noise_correlation"


def _edges(x: np.ndarray, edges: Sequence[float] | None, n_bins: int | None) -> np.ndarray:
    if (edges is None) == (n_bins is None):
        raise ValueError(f"expected either edges or n_bins, got edges {edges}, n_bins {n_bins}")
    if n_bins is not None:
        if n_bins < 1:
            raise ValueError(f"expected at least 1 bin, got {n_bins}")
        if not len(x):
            raise ValueError("expected pairs with both statistics, got none")
        return np.unique(np.quantile(x, np.linspace(0, 1, n_bins + 1)))
    limits = np.asarray(edges, dtype=float)
    if limits.ndim != 1 or len(limits) < 2 or not (np.diff(limits) > 0).all():
        raise ValueError(f"expected two or more increasing edges, got {edges}")
    return limits


def _numbered(units: np.ndarray) -> tuple[np.ndarray, int]:
    """The units numbered from 0 without gaps, and how many there are."""
    seen = np.bincount(units.ravel()) > 0
    return (np.cumsum(seen) - 1)[units], int(seen.sum())


def _bins(x: np.ndarray, y: np.ndarray, edges: np.ndarray, of_pair: np.ndarray, n_units: int) -> dict[str, np.ndarray]:
    """Means of x and y, the standard error of y's and numbers of pairs in each bin."""
    n_bins = len(edges) - 1
    which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, n_bins - 1)
    n = np.bincount(which, minlength=n_bins)
    divisor = np.where(n > 0, n, np.nan)
    mean_x, mean_y = (np.bincount(which, column, n_bins) / divisor for column in (x, y))
    # Deviations of a bin sum to 0: without unit u their mean is −(sum of u's pairs)/(number of the others).
    deviation = y - mean_y[which]
    cells, shape = which * n_units + of_pair, (n_bins, n_units)
    total, number = (_sums(cells, column, n_bins * n_units).reshape(shape) for column in (deviation, None))
    left = n[:, None] - number
    without = -total / np.where(left > 0, left, np.nan)
    # n − 1 degrees of freedom in each bin, over n for the variance of a mean.
    as_if_independent = np.bincount(which, deviation**2, n_bins) / np.where(n > 1, n * (n - 1.0), np.nan)
    return {
        "x": mean_x,
        "noise_correlation": mean_y,
        "standard_error": _standard_error(without, as_if_independent),
        "n_pairs": n,
    }


def _line(x: np.ndarray, y: np.ndarray, of_pair: np.ndarray, n_units: int) -> dict[str, float]:
    """Intercept and slope of the least-squares line, and their standard errors."""
    n, mean_x, mean_y = len(x), x.mean(), y.mean()
    x, y = x - mean_x, y - mean_y
    slope = (x @ y) / (x @ x)
    residual = y - slope * x
    left = n - _sums(of_pair, None, n_units)
    x_left, y_left = (-_sums(of_pair, column, n_units) / left for column in (x, y))
    # The sums of squares and products about the means without each unit, from those of all: no second pass.
    xx_left = x @ x - _sums(of_pair, x * x, n_units) - left * x_left**2
    xy_left = x @ y - _sums(of_pair, x * y, n_units) - left * x_left * y_left
    slopes = xy_left / xx_left
    intercepts = mean_y + y_left - slopes * (mean_x + x_left)
    influence = x / (x @ x)
    errors = {
        "slope": _standard_error(slopes, ((influence * residual) ** 2).sum()),
        "intercept": _standard_error(intercepts, ((1 / n - mean_x * influence) ** 2 @ residual**2)),
    }
    return {"intercept": float(mean_y - slope * mean_x), "slope": float(slope)} | {
        f"{name}_standard_error": float(error) for name, error in errors.items()
    }


def _sums(cells: np.ndarray, weights: np.ndarray | None, n: int) -> np.ndarray:
    """Sums over the pairs of each cell, both units of a pair having one: `cells` (2, pair)."""
    first, second = (np.bincount(cell, weights, n) for cell in cells)
    return first + second


def _standard_error(without: np.ndarray, as_if_independent: np.ndarray) -> np.ndarray:
    """From the estimates without each unit, along the last axis, and the variance as if pairs were independent."""
    m = without.shape[-1]
    # (m − 1)/m Σ_u (θ_(u) − θ_(·))², var being 1/m Σ. It counts each pair's own error twice, once a unit: one is
    # taken off, and not more than leaves what independent pairs would have.
    jackknife = (m - 1) * without.var(axis=-1)
    return np.sqrt(np.maximum(jackknife - as_if_independent, as_if_independent))
