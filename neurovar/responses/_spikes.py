"""Spike counts for a window of time, asked for when they are needed: nothing is binned before."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from neurovar.responses._arranging import arrange
from neurovar.responses._time import bin_edges, span


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
    spike_times : sequence of arrays
        For each unit its spike times in s, never decreasing.
    onsets : array
        (presentation,) stimulus onsets in s, on the same clock.
    stimulus : array
        (presentation,) the id of the stimulus shown.
    window : tuple of two floats
        Start and stop in s from stimulus onset.
    bin_width : float, optional
        In s; by default one count for the whole window.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit), float32 spike counts, with a last dim `time` (each bin's start in s from
        stimulus onset) if `bin_width` is given; stimuli sorted by id, repeats in the order shown.

    Raises
    ------
    ValueError
        For a window that does not go forward or is no whole number of bins, for times or onsets that are not finite
        or, of spikes, decrease, and if there is no unit or not one stimulus for each onset.

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
        # searchsorted counts the spikes before each edge, so that differences are counts of start ≤ t < stop
        values[:, unit] = np.diff(np.searchsorted(_increasing(unit, times), at), axis=1)
    attrs = {"units": "spike count", "window": span(*edges[[0, -1]])}
    if bin_width is None:
        return arrange(values[:, :, 0], stimulus).assign_attrs(attrs)
    return arrange(values, stimulus).assign_coords(time=edges[:-1]).assign_attrs(attrs, bin_width=bin_width)


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
