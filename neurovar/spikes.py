"""Spike counts for a window of time, asked for when they are needed: nothing is binned before."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from neurovar.presentations import arrange
from neurovar.responses import sum_time, validate

SLACK = 1e-6


def count(
    spike_times: Sequence[np.ndarray],
    onsets: np.ndarray,
    stimulus: np.ndarray,
    *,
    window: tuple[float, float],
    bin_width: float | None = None,
) -> xr.DataArray:
    """Count each unit's spikes in a window about each presentation.

    A spike at t counts where onset + start ≤ t < onset + stop; so does each bin with its own start and stop.

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
    ValueError : for a window that does not go forward or is no whole number of bins, and for times or onsets that are
        not finite or, of spikes, decrease.

    Examples
    --------
    >>> counts = count([np.array([0.1, 0.2, 1.1])], np.array([0.0, 1.0]), np.array([5, 5]), window=(0.05, 0.25))
    >>> counts.values[0, :, 0].tolist()
    [2.0, 1.0]
    """
    edges = bin_edges(window, bin_width)
    onsets = _finite("onsets", onsets)
    values = np.empty((len(onsets), len(spike_times), len(edges) - 1), dtype=np.float32)
    at = (onsets[:, None] + edges).ravel()
    for unit, times in enumerate(spike_times):
        before = np.searchsorted(_increasing(unit, times), at).reshape(len(onsets), len(edges))
        values[:, unit] = np.diff(before, axis=1)
    attrs = {"units": "spike count", "window": f"{window[0]:g} to {window[1]:g} s"}
    if bin_width is None:
        return arrange(values[:, :, 0], stimulus).assign_attrs(attrs)
    binned = arrange(values, stimulus).assign_coords(time=edges[:-1])
    return binned.assign_attrs(attrs, bin_width=bin_width)


def rebin(
    counts: xr.DataArray, *, window: tuple[float, float] | None = None, bin_width: float | None = None
) -> xr.DataArray:
    """Counts that were published in bins, summed to wider bins or, without `bin_width`, over the window.

    Parameters
    ----------
    counts : DataArray (stimulus, repeat, unit, time) as `count` gives it.
    window : start and stop in s from stimulus onset, of which the whole bins count; by default all.
    bin_width : in s, a multiple of the width of the bins that there are.

    Raises
    ------
    ValueError : if no bin lies in the window, or the bins do not fit into wider ones.

    Examples
    --------
    >>> binned = count([np.array([0.1, 0.2])], np.array([0.0]), np.array([5]), window=(0.0, 0.4), bin_width=0.1)
    >>> rebin(binned, bin_width=0.2).values.ravel().tolist()
    [1.0, 1.0]
    """
    validate(counts, time=True)
    width = float(counts.attrs["bin_width"])
    if bin_width is None:
        return sum_time(counts, window=window)
    start = counts["time"].values
    first, last = window or (start[0], start[-1] + width)
    kept = counts.isel(time=np.flatnonzero((start >= first - SLACK) & (start + width <= last + SLACK)))
    n_together = round(bin_width / width)
    if n_together < 1 or abs(n_together * width - bin_width) > SLACK or not kept.sizes["time"]:
        raise ValueError(f"expected a bin width that is a multiple of {width:g} s, in a window, got {bin_width:g} s")
    if kept.sizes["time"] % n_together:
        raise ValueError(f"expected a whole number of bins of {bin_width:g} s, got {kept.sizes['time']} of {width:g} s")
    summed = kept.values.reshape(*kept.shape[:3], -1, n_together).sum(axis=-1)
    return kept.isel(time=slice(None, None, n_together)).copy(data=summed).assign_attrs(bin_width=bin_width)


def bin_edges(window: tuple[float, float], bin_width: float | None) -> np.ndarray:
    """Starts of the bins in s and, last, the stop of the window.

    >>> bin_edges((0.0, 0.1), 0.05).tolist()
    [0.0, 0.05, 0.1]
    """
    start, stop = window
    if not (np.isfinite(window).all() and start < stop):
        raise ValueError(f"expected a window (start, stop) in s that goes forward, got {window}")
    if bin_width is None:
        return np.array([start, stop])
    n_bins = round((stop - start) / bin_width) if bin_width > 0 else 0
    if n_bins < 1 or abs(n_bins * bin_width - (stop - start)) > SLACK:
        raise ValueError(f"expected a window of whole bins, got {window} s in bins of {bin_width:g} s")
    return np.linspace(start, stop, n_bins + 1)


def _finite(name: str, times: np.ndarray) -> np.ndarray:
    array = np.asarray(times, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"expected {name} as a row of finite times in s, got shape {array.shape}")
    return array


def _increasing(unit: int, times: np.ndarray) -> np.ndarray:
    array = _finite(f"spike times of unit {unit}", times)
    if (np.diff(array) < 0).any():
        raise ValueError(f"expected spike times of unit {unit} that never decrease, got times out of order")
    return array
