"""What a recording is like: the distributions of its statistics over units and pairs."""

import textwrap

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurovar.plotting._style import (
    BLACK,
    BLUE,
    GREY,
    PALE,
    VERMILION,
    figure,
    note,
    plain_numbers,
    readable,
    require,
    style,
)


def plot_recording(description: xr.Dataset) -> Figure:
    """Four panels of one column: noise correlations, variance against mean, reliability, the two correlations.

    Parameters
    ----------
    description : xarray.Dataset
        As `neurovar.statistics.describe` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        With four panels.

    Raises
    ------
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=60, n_repeats=5, n_units=8, counts=True, rng=0)
    >>> len(plot_recording(statistics.describe(da, rng=0)).axes)
    4
    """
    drawing, axes = figure(2, 2, height=3.4)
    plot_distribution(description, "noise_correlation", axes[0, 0])
    plot_variance(description, axes[0, 1])
    plot_distribution(description, "reliability", axes[1, 0])
    plot_signal_noise(description, axes[1, 1])
    return drawing


@style()
def plot_distribution(description: xr.Dataset, statistic: str, ax: Axes) -> None:
    """Draw how often a statistic has which value, with a line at its mean; the reason where it has none.

    Parameters
    ----------
    description : xarray.Dataset
        As `neurovar.statistics.describe` gives it: the variable `statistic`, (unit) or (pair), with attrs["label"] and
        attrs["reason"].
    statistic : str
        The name of a statistic of units or of pairs, such as "noise_correlation" or "fano_factor".
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If the variable is missing.

    Examples
    --------
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> values = xr.DataArray([0.1, 0.3], dims="unit", attrs={"reason": ""})
    >>> plot_distribution(xr.Dataset({"reliability": values}), "reliability", axes[0, 0])
    >>> axes[0, 0].get_title(loc="right")
    'mean 0.200'
    """
    require(description, statistic)
    variable = description[statistic]
    label = variable.attrs.get("label", readable(statistic))
    ax.set(xlabel=label, ylabel="pairs of units" if variable.dims == ("pair",) else "units")
    values = _finite(variable)
    if not values.size:
        _write_reason(ax, variable)
        return
    # Rice's rule, 2 n^⅓ bins: enough to see a shape, few enough that bars of few units do not look like one.
    ax.hist(values, bins=min(40, max(5, round(2 * values.size ** (1 / 3)))), color=BLUE)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.axvline(values.mean(), color=VERMILION)
    ax.set_title(f"mean {values.mean():.3f}", loc="right", fontsize=7, color=VERMILION)


@style()
def plot_variance(description: xr.Dataset, ax: Axes) -> None:
    """Draw each unit's noise variance against its mean on log-log axes; of counts, with the line of Poisson counts.

    Units whose mean or variance is not positive have no logarithm and are left out.

    Parameters
    ----------
    description : xarray.Dataset
        Variables `mean_response`, `noise_variance` (unit), attrs["units"] if known.
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
    >>> moments = {name: ("unit", [1.0, 2.0]) for name in ("mean_response", "noise_variance")}
    >>> plot_variance(xr.Dataset(moments, attrs={"units": "spike count"}), axes[0, 0])
    >>> axes[0, 0].get_xlabel(), axes[0, 0].lines[0].get_label()
    ('mean (spike count)', 'Poisson')
    """
    require(description, "mean_response", "noise_variance")
    units = description.attrs.get("units", "units not stated")
    mean, variance = description["mean_response"].values, description["noise_variance"].values
    shown = (mean > 0) & (variance > 0)
    ax.set(xlabel=f"mean{' ' if len(units) < 15 else chr(10)}({units})", ylabel=f"noise variance\n({units})²")
    if not shown.any():
        _write_reason(ax, description["noise_variance"], otherwise="no unit has a positive mean")
        return
    ax.set(xscale="log", yscale="log")
    # The variance of Poisson counts is their mean; in any other unit of measure the line would mean nothing.
    if units == "spike count":
        ends = mean[shown].min(), mean[shown].max()
        ax.plot(ends, ends, color=BLACK, linestyle="--", label="Poisson")
        ax.legend(loc="upper left", handlelength=1.6, borderaxespad=0)
    ax.plot(mean[shown], variance[shown], color=VERMILION, marker="o", markersize=2.5, alpha=0.7, linestyle="none")
    plain_numbers(ax)


@style()
def plot_signal_noise(description: xr.Dataset, ax: Axes) -> None:
    """Draw the noise correlation of each pair of units against its signal correlation; darker where pairs lie denser.

    Signal correlations beyond ±1 (their estimate has no bound) are left out.

    Parameters
    ----------
    description : xarray.Dataset
        Variables `noise_correlation`, `signal_correlation` (pair).
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
    >>> pairs = {name: ("pair", [0.1, 0.2]) for name in ("noise_correlation", "signal_correlation")}
    >>> plot_signal_noise(xr.Dataset(pairs), axes[0, 0])
    >>> axes[0, 0].get_ylabel()
    'noise correlation'
    """
    require(description, "noise_correlation", "signal_correlation")
    noise, signal = description["noise_correlation"].values, description["signal_correlation"].values
    shown = np.isfinite(noise) & (np.abs(signal) <= 1)  # no NaN: a comparison with it is false
    ax.set(xlabel="signal correlation", ylabel="noise correlation")
    if not shown.any():
        refused = next((name for name in ("noise_correlation", "signal_correlation") if _reason(description[name])), "")
        _write_reason(ax, description[refused or "signal_correlation"])
        return
    ax.axhline(0, color=PALE, linewidth=0.6, zorder=0)
    # Counts of pairs span decades; the scale begins below 1, so that a single pair is not white.
    norm = LogNorm(vmin=0.2)
    ax.hexbin(signal[shown], noise[shown], gridsize=24, norm=norm, mincnt=1, cmap="Blues", linewidths=0.1)
    note(ax, "darker: more pairs")


def _finite(variable: xr.DataArray) -> np.ndarray:
    return variable.values[np.isfinite(variable.values)]


def _reason(variable: xr.DataArray) -> str:
    return variable.attrs.get("reason", "")


def _write_reason(ax: Axes, variable: xr.DataArray, *, otherwise: str = "no finite value") -> None:
    """Why there is nothing to draw."""
    text = textwrap.fill(f"n/a: {_reason(variable) or otherwise}", 26)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=6, color=GREY)
    ax.set(xticks=[], yticks=[])
