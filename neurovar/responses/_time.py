"""Responses in time bins: their edges, sums over a window, and wider bins."""

import numpy as np
import xarray as xr

from neurovar.responses._rules import TIME_DIMS, validate, validate_form

SLACK = 1e-6  # s: far below the clock of any recording, far above the rounding of times
DECIMALS = 12  # of edges in s: without rounding, 3 × 0.1 lies above 0.3, and a spike at 0.3 in another bin


def sum_time(responses: xr.DataArray, *, window: tuple[float, float] | None = None) -> xr.DataArray:
    """Each trial's sum over the time bins that lie wholly in a window; absent trials stay NaN.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit, time); the coordinate `time` is each bin's start in s from stimulus onset,
        attrs["bin_width"] the width in s.
    window : tuple of two floats, optional
        Start and stop in s from stimulus onset; by default all bins count.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit); attrs["window"] says which span the bins in the window cover.

    Raises
    ------
    ValueError
        If there is no `time`, the bins are not described or do not follow one another, or none lies in the window.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> binned = xr.DataArray(np.ones((1, 1, 1, 4)), dims=TIME_DIMS, attrs={"bin_width": 0.05},
    ...                       coords={"stimulus": ["a"], "time": [0.0, 0.05, 0.1, 0.15]})
    >>> float(sum_time(binned, window=(0.05, 0.15)).item())
    2.0
    """
    validate_form(responses, TIME_DIMS)
    kept = responses if window is None else _within(responses, window)
    total = kept.sum("time", skipna=False)
    # set, not added to: whether a sum keeps attributes depends on xarray's version and options
    total.attrs = {name: value for name, value in kept.attrs.items() if name != "bin_width"}
    return total


def rebin(
    counts: xr.DataArray, *, window: tuple[float, float] | None = None, bin_width: float | None = None
) -> xr.DataArray:
    """Counts that were published in bins, summed to wider bins or, without `bin_width`, over the window.

    Only bins that lie wholly in the window count; attrs["window"] says which span they cover.

    Parameters
    ----------
    counts : DataArray
        Of dims (stimulus, repeat, unit, time), as `count` gives it.
    window : tuple of two floats, optional
        Start and stop in s from stimulus onset; by default all bins count.
    bin_width : float, optional
        In s, a multiple of the width of the bins that there are; by default one sum over the window.

    Returns
    -------
    DataArray
        Of dims (stimulus, repeat, unit), with a last dim `time` if `bin_width` is given.

    Raises
    ------
    ValueError
        If the bins are not described or do not follow one another, none lies in the window, or they do not fit into
        wider ones.

    Examples
    --------
    >>> from neurovar.responses import count
    >>> binned = count([np.array([0.1, 0.2])], np.array([0.0]), np.array([5]), window=(0.0, 0.4), bin_width=0.1)
    >>> rebin(binned, bin_width=0.2).values.ravel().tolist()
    [1.0, 1.0]
    """
    validate(counts, time=True)
    kept = _within(counts, window)
    if bin_width is None:
        return sum_time(kept)
    width, n_bins = float(kept.attrs["bin_width"]), kept.sizes["time"]
    n_together = _n_bins(bin_width, width)
    if not n_together or n_bins % n_together:
        there_are = f"{n_bins} bins of {width:g} s"
        raise ValueError(f"expected a bin width of which {there_are} make a whole number, got {bin_width:g} s")
    summed = kept.values.reshape(*kept.shape[:3], -1, n_together).sum(axis=-1)
    return kept.isel(time=slice(None, None, n_together)).copy(data=summed).assign_attrs(bin_width=bin_width)


def _within(binned: xr.DataArray, window: tuple[float, float] | None) -> xr.DataArray:
    """The bins that lie wholly in the window, with the span that they cover in attrs["window"]."""
    if "time" not in binned.coords or "bin_width" not in binned.attrs:
        raise ValueError("expected the coordinate 'time' and attrs['bin_width'], which describe the bins, got not both")
    start, width = binned["time"].values, float(binned.attrs["bin_width"])
    if width <= SLACK or not np.allclose(np.diff(start), width, rtol=0, atol=SLACK):
        raise ValueError(f"expected time bins of {width:g} s that follow one another, got starts {start[:5]}")
    first, last = (-np.inf, np.inf) if window is None else bin_edges(window, None)
    inside = np.flatnonzero((start >= first - SLACK) & (start + width <= last + SLACK))
    if not len(inside):
        there_are = f"bins of {width:g} s from {span(start[0], start[-1] + width)}"
        raise ValueError(f"expected a window with whole bins, got {window} of {there_are}")
    return binned.isel(time=inside).assign_attrs(window=span(start[inside[0]], start[inside[-1]] + width))


def bin_edges(window: tuple[float, float], bin_width: float | None) -> np.ndarray:
    """Starts of the bins in s and, last, the stop of the window.

    Parameters
    ----------
    window : tuple of two floats
        Start and stop in s.
    bin_width : float or None
        In s; None for one bin that is the window.

    Returns
    -------
    array
        (bin + 1,) in s, rounded to 10⁻¹² s.

    Raises
    ------
    ValueError
        For a window that does not go forward or is no whole number of bins.

    Examples
    --------
    >>> bin_edges((0.0, 0.1), 0.05).tolist()
    [0.0, 0.05, 0.1]
    """
    if len(window) != 2 or not np.isfinite(window).all() or window[0] >= window[1]:
        raise ValueError(f"expected a window (start, stop) in s that goes forward, got {window}")
    start, stop = window
    n_bins = 1 if bin_width is None else _n_bins(stop - start, bin_width)
    if not n_bins:
        raise ValueError(f"expected a window of whole bins, got {window} s in bins of {bin_width:g} s")
    return np.linspace(start, stop, n_bins + 1).round(DECIMALS) + 0.0  # rounding can give −0; adding 0 makes it 0


def _n_bins(length: float, width: float) -> int:
    """How many bins of this width fill the length, 0 if no whole number."""
    n_bins = round(length / width) if width > SLACK and length > SLACK else 0
    return n_bins if abs(n_bins * width - length) <= SLACK else 0


def span(start: float, stop: float) -> str:
    """A stretch of time as text, as attrs["window"] has it."""
    return f"{start:g} to {stop:g} s"
