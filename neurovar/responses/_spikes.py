"""Spike counts for a window of time, asked for when they are needed: nothing is binned before."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from neurovar.responses._convention import arrange, sum_time, validate

SLACK = 1e-6  # s: far below the clock of any recording, far above the rounding of times
DECIMALS = 12  # of edges in s: without rounding, 3 × 0.1 lies above 0.3, and a spike at 0.3 in another bin


def count(
    spike_times: Sequence[np.ndarray],
    onsets: np.ndarray,
    stimulus: np.ndarray,
    *,
    window: tuple[float, float],
    bin_width: float | None = None,
) -> xr.DataArray:
    """Count each unit's spikes in a window about each presentation.

    A spike at t counts where onset + start ≤ t < onset + stop; so does each bin with its own start and stop. Windows of
    presentations may overlap: a spike then counts for each.

    Parameters
    ----------
    spike_times : for each unit its spike times in s, never decreasing.
    onsets : (presentation,) stimulus onsets in s, on the same clock.
    stimulus : (presentation,) the id of the stimulus shown.
    window : start and stop in s from stimulus onset.
    bin_width : in s; by default one count for the whole window.

    Returns
    -------
    DataArray (stimulus, repeat, unit), float32 spike counts, with a last dim `time` (each bin's start in s from
    stimulus onset) if `bin_width` is given; stimuli sorted by id, repeats in the order shown.

    Raises
    ------
    ValueError : for a window that does not go forward or is no whole number of bins, for times or onsets that are not
        finite or, of spikes, decrease, and if there is no unit or not one stimulus for each onset.

    Examples
    --------
    >>> counts = count([np.array([0.1, 0.2, 1.1])], np.array([0.0, 1.0]), np.array([5, 5]), window=(0.05, 0.25))
    >>> counts.values[0, :, 0].tolist()
    [2.0, 1.0]
    """
    edges = bin_edges(window, bin_width)
    onsets = _finite("onsets", onsets)
    values = np.empty((len(onsets), len(spike_times), len(edges) - 1), dtype=np.float32)
    at = onsets[:, None] + edges
    for unit, times in enumerate(spike_times):
        values[:, unit] = np.diff(np.searchsorted(_increasing(unit, times), at), axis=1)
    attrs = {"units": "spike count", "window": _span(*edges[[0, -1]])}
    if bin_width is None:
        return arrange(values[:, :, 0], stimulus).assign_attrs(attrs)
    return arrange(values, stimulus).assign_coords(time=edges[:-1]).assign_attrs(attrs, bin_width=bin_width)


def rebin(
    counts: xr.DataArray, *, window: tuple[float, float] | None = None, bin_width: float | None = None
) -> xr.DataArray:
    """Counts that were published in bins, summed to wider bins or, without `bin_width`, over the window.

    Only bins that lie wholly in the window count; attrs["window"] says which span they cover.

    Parameters
    ----------
    counts : DataArray (stimulus, repeat, unit, time) as `count` gives it.
    window : start and stop in s from stimulus onset; by default all bins count.
    bin_width : in s, a multiple of the width of the bins that there are.

    Raises
    ------
    ValueError : if the bins are not described or do not follow one another, none lies in the window, or they do not
        fit into wider ones.

    Examples
    --------
    >>> binned = count([np.array([0.1, 0.2])], np.array([0.0]), np.array([5]), window=(0.0, 0.4), bin_width=0.1)
    >>> rebin(binned, bin_width=0.2).values.ravel().tolist()
    [1.0, 1.0]
    """
    validate(counts, time=True)
    kept = _within(counts, window)
    width, n_bins = float(kept.attrs["bin_width"]), kept.sizes["time"]
    if bin_width is None:
        return sum_time(kept).assign_attrs(window=kept.attrs["window"])
    n_together = _n_bins(bin_width, width)
    if not n_together or n_bins % n_together:
        there_are = f"{n_bins} bins of {width:g} s"
        raise ValueError(f"expected a bin width of which {there_are} make a whole number, got {bin_width:g} s")
    summed = kept.values.reshape(*kept.shape[:3], -1, n_together).sum(axis=-1)
    return kept.isel(time=slice(None, None, n_together)).copy(data=summed).assign_attrs(bin_width=bin_width)


def _within(counts: xr.DataArray, window: tuple[float, float] | None) -> xr.DataArray:
    """The bins that lie wholly in the window, with the span that they cover in attrs["window"]."""
    if "time" not in counts.coords or "bin_width" not in counts.attrs:
        raise ValueError("expected the coordinate 'time' and attrs['bin_width'], which describe the bins, got not both")
    start, width = counts["time"].values, float(counts.attrs["bin_width"])
    if width <= SLACK or not np.allclose(np.diff(start), width, rtol=0, atol=SLACK):
        raise ValueError(f"expected time bins of {width:g} s that follow one another, got starts {start[:5]}")
    first, last = (-np.inf, np.inf) if window is None else bin_edges(window, None)
    inside = np.flatnonzero((start >= first - SLACK) & (start + width <= last + SLACK))
    if not len(inside):
        there_are = f"bins of {width:g} s from {_span(start[0], start[-1] + width)}"
        raise ValueError(f"expected a window with whole bins, got {window} of {there_are}")
    return counts.isel(time=inside).assign_attrs(window=_span(start[inside[0]], start[inside[-1]] + width))


def bin_edges(window: tuple[float, float], bin_width: float | None) -> np.ndarray:
    """Starts of the bins in s and, last, the stop of the window.

    >>> bin_edges((0.0, 0.1), 0.05).tolist()
    [0.0, 0.05, 0.1]
    """
    if len(window) != 2 or not np.isfinite(window).all() or window[0] >= window[1]:
        raise ValueError(f"expected a window (start, stop) in s that goes forward, got {window}")
    start, stop = window
    n_bins = 1 if bin_width is None else _n_bins(stop - start, bin_width)
    if not n_bins:
        raise ValueError(f"expected a window of whole bins, got {window} s in bins of {bin_width:g} s")
    return np.linspace(start, stop, n_bins + 1).round(DECIMALS) + 0.0  # no −0


def _n_bins(span: float, width: float) -> int:
    """How many bins of this width fill the span, 0 if no whole number."""
    n_bins = round(span / width) if width > SLACK and span > SLACK else 0
    return n_bins if abs(n_bins * width - span) <= SLACK else 0


def _span(start: float, stop: float) -> str:
    return f"{start:g} to {stop:g} s"


def _finite(name: str, times: np.ndarray) -> np.ndarray:
    array = np.asarray(times)
    if array.dtype.kind not in "iuf" or array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"expected {name} as a row of finite times in s, got {array.dtype} of shape {array.shape}")
    return array.astype(np.float64, copy=False)


def _increasing(unit: int, times: np.ndarray) -> np.ndarray:
    array = _finite(f"spike times of unit {unit}", times)
    if (np.diff(array) < 0).any():
        raise ValueError(f"expected spike times of unit {unit} that never decrease, got times out of order")
    return array
