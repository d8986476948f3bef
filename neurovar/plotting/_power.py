"""How many repeats are needed: the error of a statistic, and the power to tell two groups apart."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from neurovar.plotting._style import BLUE, GREY, VERMILION, Look, interval, note, require, style


@style()
def plot_power(result: xr.Dataset, ax: Axes) -> None:
    """Draw the standard error and the size of the bias against the number of repeats; dashed: the precision wanted.

    Bars are ± 1 Monte Carlo standard error; a bias within two of them is drawn hollow, as it may be none.

    Parameters
    ----------
    result : xarray.Dataset
        As `neurovar.statistics.repeats_needed` gives it.
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> names = ("standard_error", "standard_error_error", "bias", "bias_error")
    >>> result = xr.Dataset({name: ("n_repeats", [0.2, 0.1]) for name in names}, coords={"n_repeats": [5, 20]},
    ...                     attrs={"precision": 0.15, "repeats_for_precision": 20.0})
    >>> plot_power(result, axes[0, 0])
    >>> axes[0, 0].get_title(loc="right")
    '20 repeats for ± 0.15'
    """
    require(result, "n_repeats", "standard_error", "standard_error_error", "bias", "bias_error")
    repeats = result["n_repeats"].values
    bias, of_bias = np.abs(result["bias"].values), result["bias_error"].values
    _line(ax, repeats, result["standard_error"].values, result["standard_error_error"].values, VERMILION, "o")
    _line(ax, repeats, bias, of_bias, BLUE, "s")
    # |bias| of a statistic without bias is never 0 in a simulation: within two errors it may be none.
    unsure = bias <= 2 * of_bias
    ax.plot(repeats[unsure], bias[unsure], color=BLUE, marker="s", markerfacecolor="white", linestyle="none")
    # Lines without points stand for both in the legend: those above are drawn in pieces.
    ax.plot([], [], color=VERMILION, marker="o", label="standard error")
    ax.plot([], [], color=BLUE, marker="s", label="|bias|")
    if "precision" in result.attrs:
        precision, needed = result.attrs["precision"], result.attrs["repeats_for_precision"]
        ax.axhline(precision, **_WANTED)
        note(ax, f"{_repeats(needed)} for ± {precision:g}")
    # A third more than the errors need, as room for the legend.
    ax.set(ylabel="error of the statistic", ylim=(0, 1.35 * ax.get_ylim()[1]))
    _count_repeats(ax, repeats)
    ax.legend(loc="upper right", handlelength=1.8)


@style()
def plot_detection(result: xr.Dataset, ax: Axes) -> None:
    """Draw the power of detecting the difference asked for against the number of repeats in each group.

    Parameters
    ----------
    result : xarray.Dataset
        As `neurovar.statistics.repeats_needed` gives it for a `difference`.
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If a variable, or the difference, is missing.

    Examples
    --------
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> result = xr.Dataset({name: ("n_repeats", [0.2, 0.9]) for name in ("power", "power_error")},
    ...                     coords={"n_repeats": [5, 20]},
    ...                     attrs={"difference": 0.1, "alpha": 0.05, "power_wanted": 0.8, "repeats_for_power": 20.0})
    >>> plot_detection(result, axes[0, 0])
    >>> axes[0, 0].get_ylabel()
    'power (α = 0.05)'
    """
    asked = ("difference", "alpha", "power_wanted", "repeats_for_power")
    require(result, "n_repeats", "power", "power_error", attrs=asked)
    repeats = result["n_repeats"].values
    _line(ax, repeats, result["power"].values, result["power_error"].values, VERMILION, "o")
    ax.axhline(result.attrs["power_wanted"], **_WANTED)
    note(ax, f"{_repeats(result.attrs['repeats_for_power'])} for a difference of {result.attrs['difference']:g}")
    ax.set(ylabel=f"power (α = {result.attrs['alpha']:g})", ylim=(0, 1.02))
    _count_repeats(ax, repeats)


_WANTED: Look = {"color": GREY, "linestyle": "--", "linewidth": 0.9, "zorder": 1}


def _line(ax: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, color: str, marker: str) -> None:
    ax.plot(x, y, color=color, marker=marker)
    interval(ax, x, y - error, y + error, color=color)


def _repeats(needed: float) -> str:
    return f"{needed:g} repeats" if np.isfinite(needed) else "more repeats than tried"


def _count_repeats(ax: Axes, repeats: np.ndarray) -> None:
    """A logarithmic axis whose ticks are the numbers tried."""
    ax.set(xscale="log", xlabel="repeats of each stimulus")
    # A logarithmic axis names its own minor ticks (3, 4, 6 × 10⁰) between and over the numbers that were tried.
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(repeats, [f"{count:d}" for count in repeats])
