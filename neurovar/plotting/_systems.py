"""Cortex beside networks: statistics, spectra, correlation matrices and the signal rule."""

from collections.abc import Iterable
from itertools import cycle, product
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from neurovar.plotting._style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILION,
    Look,
    choose,
    interval,
    note,
    plain_numbers,
    readable,
    require,
    style,
)

_CORTEX: Look = {"color": VERMILION, "marker": "o", "linestyle": "-"}
_NETWORK_COLORS = (BLUE, GREEN, PURPLE, SKY, ORANGE, BLACK)


@style()
def plot_statistic(comparison: xr.Dataset, statistic: str, ax: Axes) -> None:
    """Draw one statistic of every system as a point with its 95 % interval; "n/a" where it is undefined.

    Parameters
    ----------
    comparison : xarray.Dataset
        As `neurovar.statistics.compare` gives it: dims (statistic, system), variables `estimate`, `low`, `high`, and
        the coordinate `axis_label` of statistic; the first system is cortex.
    statistic : str
        One of the `statistic` coordinate.
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If a variable is missing, or `statistic` is not in `comparison`.

    Examples
    --------
    >>> values = xr.DataArray([[0.03, np.nan]], dims=("statistic", "system"),
    ...                       coords={"statistic": ["noise_correlation"], "system": ["V4", "conv1"],
    ...                               "axis_label": ("statistic", ["mean noise correlation"])})
    >>> table = xr.Dataset({"estimate": values, "low": values - 0.01, "high": values + 0.01})
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> plot_statistic(table, "noise_correlation", axes[0, 0])
    >>> axes[0, 0].get_ylabel()
    'mean noise correlation'
    """
    require(comparison, "statistic", "system", "axis_label", "estimate", "low", "high")
    choose("statistic", statistic, comparison["statistic"].values)
    row = comparison.sel(statistic=statistic)
    systems = [str(system) for system in row["system"].values]
    for x, look in enumerate(_system_styles(systems).values()):
        here = row.isel(system=x)
        color = look["color"]
        if np.isnan(here["estimate"]):
            # At the foot of the panel whatever the scale, because there is no value to write it at.
            ax.text(x, 0.04, "n/a", transform=ax.get_xaxis_transform(), ha="center", fontsize=7, color=GREY)
        else:
            interval(ax, [x], here["low"], here["high"], color=color)
            ax.plot([x], [float(here["estimate"])], color=color, marker=look["marker"], linestyle="none")
    _name_systems(ax, systems)
    ax.set_ylabel(str(row["axis_label"].item()))
    note(ax, "bars: 95 % interval")


@style()
def plot_spectra(comparison: xr.Dataset, ax: Axes) -> None:
    """Draw every system's eigenspectrum on log-log axes, λₙ/λ₁ against n; the ranks that were fitted are shaded.

    Values that are not positive (cross-validated noise around zero) have no logarithm and are left out.

    Parameters
    ----------
    comparison : xarray.Dataset
        Variable `spectrum` (system, rank), ranks from 1; attrs["exponent_ranks"] = [first, last].
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If the spectrum or the fitted ranks are missing.

    Examples
    --------
    >>> spectrum = xr.DataArray([[4.0, 2.0, -1.0]], dims=("system", "rank"),
    ...                         coords={"system": ["V4"], "rank": [1, 2, 3]})
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> plot_spectra(xr.Dataset({"spectrum": spectrum}, attrs={"exponent_ranks": [1, 2]}), axes[0, 0])
    >>> [float(value) for value in axes[0, 0].lines[0].get_ydata()]
    [1.0, 0.5]
    """
    require(comparison, "spectrum", "system", "rank", attrs=("exponent_ranks",))
    first, last = (int(rank) for rank in comparison.attrs["exponent_ranks"])
    fitted = ax.axvspan(first, last, color=PALE, linewidth=0, zorder=0)
    styles = _system_styles([str(system) for system in comparison["system"].values])
    lines, names = [], []
    for (system, look), spectrum in zip(styles.items(), comparison["spectrum"].transpose("system", "rank")):
        # Systems have no unit in common: each spectrum is divided by its first variance, if that is one.
        normalised = spectrum / spectrum[0].where(spectrum[0] > 0)
        positive = normalised[normalised.values > 0]
        shape = {"color": look["color"], "linestyle": look["linestyle"], "zorder": 3 if look is _CORTEX else 2}
        lines += ax.plot(positive["rank"].values, positive.values, **shape)
        names.append(system if positive.size else f"{system} (n/a)")
    # Lines and names are given, because a legend that collects them leaves out names like "_blocks.4".
    ax.legend([*lines, fitted], [*names, f"fitted ranks {first}–{last}"], loc="lower left", handlelength=1.6)
    ax.set(xscale="log", yscale="log", xlabel="rank n", ylabel="signal variance λₙ/λ₁")
    plain_numbers(ax)


@style()
def plot_correlation_matrix(matrix: xr.DataArray, ax: Axes, *, by: str | None = None) -> None:
    """Draw a correlation matrix on a diverging map centred at 0, whose range is that of the pairs off the diagonal.

    Parameters
    ----------
    matrix : xarray.DataArray
        Square (unit, other_unit); its name labels the colour bar.
    ax : matplotlib.axes.Axes
        Where to draw.
    by : str, optional
        A coordinate of unit, such as area or layer; units are sorted by it, and its groups are told apart by lines.

    Raises
    ------
    ValueError
        If the matrix is not square, or `by` is no coordinate of its units.

    Examples
    --------
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> matrix = xr.DataArray([[1.0, 0.2], [0.2, 1.0]], dims=("unit", "other_unit"), name="noise_correlation")
    >>> plot_correlation_matrix(matrix, axes[0, 0])
    >>> axes[0, 0].images[0].get_clim()
    (-0.2, 0.2)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"expected a square matrix (unit, other_unit), got dims {dict(matrix.sizes)}")
    if by is not None:
        choose(
            "coordinate of unit", by, [str(name) for name, coord in matrix.coords.items() if coord.dims == ("unit",)]
        )
        order = np.argsort(matrix[by].values, kind="stable")
        matrix = matrix[order, order]
    # The ones on the diagonal would take the whole range of colours: it is that of the pairs.
    pairs = np.abs(matrix.values[~np.eye(len(matrix), dtype=bool)])
    limit = float(np.nanmax(pairs, initial=0.0)) or 1.0  # independent units, or one: any range will do
    image = ax.imshow(matrix.values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    beyond = np.nanmax(np.abs(matrix.values)) > limit
    label = readable(str(matrix.name or "correlation"))
    ax.figure.colorbar(image, ax=ax, label=label, extend="max" if beyond else "neither", shrink=0.85)
    ax.set(xlabel="unit", ylabel="unit")
    if by is not None:
        _name_groups(ax, matrix[by].values)
    ax.spines[:].set_visible(False)


def _name_groups(ax: Axes, group: np.ndarray) -> None:
    """Lines between groups of neighbouring units, and the name of each at its middle."""
    names, first, size = np.unique(group, return_index=True, return_counts=True)
    for edge in first[1:]:
        ax.axhline(edge - 0.5, color=BLACK, linewidth=0.6)
        ax.axvline(edge - 0.5, color=BLACK, linewidth=0.6)
    middle = first + (size - 1) / 2
    ax.set_xticks(middle, names.astype(str), rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(middle, names.astype(str))
    ax.set(xlabel="", ylabel="")


@style()
def plot_signal_rule(rule_bins: xr.Dataset, ax: Axes) -> None:
    """Draw how noise correlation follows signal correlation: binned pairs ± 1 standard error and the fitted line.

    Parameters
    ----------
    rule_bins : xarray.Dataset
        Dim `bin`, variables `signal_correlation`, `noise_correlation`, `standard_error`; attrs `intercept` and `slope`
        of the line.
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If a variable or a coefficient of the line is missing.

    Examples
    --------
    >>> bins = xr.Dataset({name: ("bin", [0.1, 0.2]) for name in
    ...                    ("signal_correlation", "noise_correlation", "standard_error")},
    ...                   attrs={"intercept": 0.0, "slope": 1.0})
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> plot_signal_rule(bins, axes[0, 0])
    >>> axes[0, 0].get_xlabel()
    'signal correlation'
    """
    require(rule_bins, "signal_correlation", "noise_correlation", "standard_error", attrs=("intercept", "slope"))
    signal = rule_bins["signal_correlation"].values
    noise, error = rule_bins["noise_correlation"].values, rule_bins["standard_error"].values
    intercept, slope = float(rule_bins.attrs["intercept"]), float(rule_bins.attrs["slope"])
    ends = np.array([np.nanmin(signal), np.nanmax(signal)])  # no further than there are data
    equation = f"r = {intercept:.3f} {'+' if slope >= 0 else '−'} {abs(slope):.3f} · signal"
    ax.axhline(0, color=PALE, linewidth=0.6, zorder=0)
    ax.plot(ends, intercept + slope * ends, color=BLACK, label=equation)
    interval(ax, signal, noise - error, noise + error, color=VERMILION)
    ax.plot(signal, noise, color=VERMILION, marker="o", linestyle="none", label="pairs of units, binned")
    ax.set(xlabel="signal correlation", ylabel="noise correlation")
    ax.legend(loc="upper left")
    note(ax, "bars: ± 1 standard error")


def _system_styles(systems: Iterable[str]) -> dict[str, Look]:
    """One look a system, the same in every figure that has the same systems; the first is cortex."""
    cortex, *networks = systems
    # All colours with full lines first, then all with dashed ones: 18 networks look different.
    pairs = cycle(product(("-", "--", ":"), _NETWORK_COLORS))
    looks = ({"color": color, "marker": "s", "linestyle": line} for line, color in pairs)
    return {cortex: _CORTEX, **dict(zip(networks, looks))}


def _name_systems(ax: Axes, systems: list[str]) -> None:
    long = sum(map(len, systems)) > 24  # letters that fit beside one another below a panel of one column
    turn: Any = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set_xticks(range(len(systems)), systems, **turn)
    ax.set_xlim(-0.6, len(systems) - 0.4)
