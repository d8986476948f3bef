"""Draw result Datasets on given matplotlib Axes: one style, readable at column width, and no statistics.

Colours are those of Okabe & Ito (2008, "Color Universal Design", https://jfly.uni-koeln.de/color/), which
colour-blind readers can tell apart; markers and line styles repeat what the colours say. No function touches
pyplot, so drawing has no global state. Every function wants the data first, then the Axes to draw on.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle, product
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

COLUMN_WIDTH = 3.5
"""Width in inches of one column of a paper."""

_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _VERMILION, _PURPLE, _GREY = "#0072B2", "#D55E00", "#CC79A7", "#595959"
_PALE = "#E4E4E4"

_Look = dict[str, Any]

_CORTEX: _Look = {"color": _VERMILION, "marker": "o", "linestyle": "-"}
_NETWORK_COLORS = (_BLUE, _GREEN, _PURPLE, _SKY, _ORANGE, _BLACK)

_FAMILY_COLORS = {"none": _BLACK, "isotropic": _GREEN, "v4": _VERMILION, "pgd": _BLUE}
_SPARE_COLORS = (_PURPLE, _ORANGE, _SKY)
_CONTROLS = {"diagonal": {"linestyle": "--", "marker": "s"}, "rotated": {"linestyle": ":", "marker": "^"}}
_NAMES = {"none": "no noise", "v4": "V4", "pgd": "PGD", "fgm": "FGM"}
_ATTACKS = ("fgm", "pgd")

_STATISTICS = {
    "noise_correlation": "mean noise correlation",
    "signal_correlation": "mean signal correlation",
    "effective_dimensionality": "effective dimensionality",
    "exponent": "exponent α",
    "fano_factor": "Fano factor (variance/mean)",
    "reliability": "split-half reliability",
}

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.dpi": 200,
    "text.parse_math": False,  # the name of a layer is never a formula
}


@contextmanager
def style() -> Iterator[None]:
    """The style of every figure here, as a context for drawing of one's own; it ends with the context.

    >>> import matplotlib
    >>> with style():
    ...     matplotlib.rcParams["font.size"]
    8.0
    """
    with matplotlib.rc_context(_STYLE):
        yield


@style()
def figure(
    nrows: int = 1, ncols: int = 1, *, width: float = COLUMN_WIDTH, height: float = 2.6
) -> tuple[Figure, np.ndarray]:
    """A Figure of `width` × `height` inches outside pyplot, and its (nrows, ncols) array of Axes.

    >>> fig, axes = figure(1, 2, width=7, height=2.5)
    >>> axes.shape
    (1, 2)
    """
    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots(nrows, ncols, squeeze=False)


@style()
def legend_below(drawing: Figure, *, ncols: int = 3) -> None:
    """One legend under all the panels of a figure: each labelled line once, in the order first drawn.

    >>> fig, axes = figure()
    >>> line = axes[0, 0].plot([0, 1], label="V4")
    >>> legend_below(fig)
    >>> [text.get_text() for text in fig.legends[0].get_texts()]
    ['V4']
    """
    entries: dict[str, Any] = {}
    for ax in drawing.axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    drawing.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=ncols)


@style()
def plot_statistic(comparison: xr.Dataset, statistic: str, ax: Axes) -> None:
    """Draw one statistic of every system as a point with its 95 % interval; "n/a" where it is undefined.

    Args:
        comparison: dims (statistic, system), variables `estimate`, `low`, `high`; the first system is cortex.
        statistic: one of the `statistic` coordinate.
        ax: where to draw.

    Raises:
        ValueError: a variable is missing, or `statistic` is not in `comparison`.

    >>> values = xr.DataArray([[0.03, np.nan]], dims=("statistic", "system"),
    ...                       coords={"statistic": ["noise_correlation"], "system": ["V4", "conv1"]})
    >>> table = xr.Dataset({"estimate": values, "low": values - 0.01, "high": values + 0.01})
    >>> fig, axes = figure()
    >>> plot_statistic(table, "noise_correlation", axes[0, 0])
    >>> axes[0, 0].get_ylabel()
    'mean noise correlation'
    """
    _require(comparison, "statistic", "system", "estimate", "low", "high")
    _choose("statistic", statistic, comparison["statistic"].values)
    one = comparison.sel(statistic=statistic)
    systems = [str(system) for system in one["system"].values]
    for x, look in enumerate(_system_styles(systems).values()):
        here = one.isel(system=x)
        color = look["color"]
        if np.isnan(here["estimate"]):
            ax.text(x, 0.04, "n/a", transform=ax.get_xaxis_transform(), ha="center", fontsize=7, color=_GREY)
        else:
            _interval(ax, [x], here["low"], here["high"], color=color)
            ax.plot([x], [float(here["estimate"])], color=color, marker=look["marker"], linestyle="none")
    _name_systems(ax, systems)
    ax.set_ylabel(_STATISTICS.get(statistic, _readable(statistic)))
    _note(ax, "bars: 95 % interval")


@style()
def plot_spectra(comparison: xr.Dataset, ax: Axes) -> None:
    """Draw every system's eigenspectrum on log-log axes, λₙ/λ₁ against n; the ranks that were fitted are shaded.

    Values that are not positive (cross-validated noise around zero) have no logarithm and are left out.

    Args:
        comparison: variable `spectrum` (system, rank), ranks from 1; attrs["exponent_ranks"] = [first, last].
        ax: where to draw.

    Raises:
        ValueError: the spectrum or the fitted ranks are missing.

    >>> spectrum = xr.DataArray([[4.0, 2.0, -1.0]], dims=("system", "rank"),
    ...                         coords={"system": ["V4"], "rank": [1, 2, 3]})
    >>> fig, axes = figure()
    >>> plot_spectra(xr.Dataset({"spectrum": spectrum}, attrs={"exponent_ranks": [1, 2]}), axes[0, 0])
    >>> [float(value) for value in axes[0, 0].lines[0].get_ydata()]
    [1.0, 0.5]
    """
    _require(comparison, "spectrum", "system", "rank", attrs=("exponent_ranks",))
    first, last = (int(rank) for rank in comparison.attrs["exponent_ranks"])
    fitted = ax.axvspan(first, last, color=_PALE, linewidth=0, zorder=0)
    styles = _system_styles([str(system) for system in comparison["system"].values])
    lines, names = [], []
    for (system, look), spectrum in zip(styles.items(), comparison["spectrum"].transpose("system", "rank")):
        normalised = spectrum / spectrum[0].where(spectrum[0] > 0)
        positive = normalised[normalised.values > 0]
        shape = {"color": look["color"], "linestyle": look["linestyle"], "zorder": 3 if look is _CORTEX else 2}
        lines += ax.plot(positive["rank"].values, positive.values, **shape)
        names.append(system if positive.size else f"{system} (n/a)")
    # lines and names are given, because a legend that collects them leaves out names like "_blocks.4"
    ax.legend([*lines, fitted], [*names, f"fitted ranks {first}–{last}"], loc="lower left", handlelength=1.6)
    ax.set(xscale="log", yscale="log", xlabel="rank n", ylabel="signal variance λₙ/λ₁")


@style()
def plot_correlation_matrix(matrix: xr.DataArray, ax: Axes) -> None:
    """Draw a correlation matrix on a diverging map centred at 0, whose range is that of the pairs off the diagonal.

    Args:
        matrix: square (unit, other_unit); its name labels the colour bar.
        ax: where to draw.

    Raises:
        ValueError: the matrix is not square.

    >>> fig, axes = figure()
    >>> matrix = xr.DataArray([[1.0, 0.2], [0.2, 1.0]], dims=("unit", "other_unit"), name="noise_correlation")
    >>> plot_correlation_matrix(matrix, axes[0, 0])
    >>> axes[0, 0].images[0].get_clim()
    (-0.2, 0.2)
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"expected a square matrix (unit, other_unit), got dims {dict(matrix.sizes)}")
    pairs = np.abs(matrix.values[~np.eye(len(matrix), dtype=bool)])
    limit = float(np.nanmax(pairs, initial=0.0)) or 1.0
    image = ax.imshow(matrix.values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    beyond = np.nanmax(np.abs(matrix.values)) > limit
    label = _readable(str(matrix.name or "correlation"))
    ax.figure.colorbar(image, ax=ax, label=label, extend="max" if beyond else "neither", shrink=0.85)
    ax.set(xlabel="unit", ylabel="unit")
    ax.spines[:].set_visible(False)


@style()
def plot_signal_rule(rule_bins: xr.Dataset, ax: Axes) -> None:
    """Draw how noise correlation follows signal correlation: binned pairs ± 1 standard error and the fitted line.

    Args:
        rule_bins: dim `bin`, variables `signal_correlation`, `noise_correlation`, `standard_error`;
            attrs `intercept` and `slope` of the line.
        ax: where to draw.

    Raises:
        ValueError: a variable or a coefficient of the line is missing.

    >>> bins = xr.Dataset({name: ("bin", [0.1, 0.2]) for name in
    ...                    ("signal_correlation", "noise_correlation", "standard_error")},
    ...                   attrs={"intercept": 0.0, "slope": 1.0})
    >>> fig, axes = figure()
    >>> plot_signal_rule(bins, axes[0, 0])
    >>> axes[0, 0].get_xlabel()
    'signal correlation'
    """
    _require(rule_bins, "signal_correlation", "noise_correlation", "standard_error", attrs=("intercept", "slope"))
    signal = rule_bins["signal_correlation"].values
    noise, error = rule_bins["noise_correlation"].values, rule_bins["standard_error"].values
    intercept, slope = float(rule_bins.attrs["intercept"]), float(rule_bins.attrs["slope"])
    ends = np.array([np.nanmin(signal), np.nanmax(signal)])
    equation = f"r = {intercept:.3f} {'+' if slope >= 0 else '−'} {abs(slope):.3f} · signal"
    ax.axhline(0, color=_PALE, linewidth=0.6, zorder=0)
    ax.plot(ends, intercept + slope * ends, color=_BLACK, label=equation)
    _interval(ax, signal, noise - error, noise + error, color=_VERMILION)
    ax.plot(signal, noise, color=_VERMILION, marker="o", linestyle="none", label="pairs of units, binned")
    ax.set(xlabel="signal correlation", ylabel="noise correlation")
    ax.legend(loc="upper left")
    _note(ax, "bars: ± 1 standard error")


@style()
def plot_accuracy(summary: xr.Dataset, ax: Axes, *, condition: str) -> None:
    """Draw accuracy against the strength of one modification: a line with a 95 % band for each noise.

    The condition "clean", where there is one, is strength 0. `legend_below` names the lines of a whole figure.

    Args:
        summary: dims (noise, condition), variables `accuracy`, `low`, `high` as fractions; coords
            `modification` and `strength` on `condition`.
        ax: where to draw.
        condition: the name of the modification or attack, such as "motion_blur" or "pgd".

    Raises:
        ValueError: a variable is missing, or `condition` is not in `summary`.

    >>> accuracy = xr.DataArray([[0.9, 0.5]], dims=("noise", "condition"), coords={"noise": ["none"],
    ...     "modification": ("condition", ["clean", "pgd"]), "strength": ("condition", [0.0, 0.1])})
    >>> fig, axes = figure()
    >>> plot_accuracy(xr.Dataset({"accuracy": accuracy, "low": accuracy, "high": accuracy}), axes[0, 0],
    ...               condition="pgd")
    >>> [float(strength) for strength in axes[0, 0].lines[0].get_xdata()]
    [0.0, 0.1]
    """
    rows = _by_strength(summary, condition)
    strength = rows["strength"].values
    for index, (noise, look) in enumerate(_noise_styles(rows["noise"].values).items()):
        row = rows.isel(noise=index)
        ax.fill_between(strength, row["low"], row["high"], color=look["color"], alpha=0.12, linewidth=0)
        ax.plot(strength, row["accuracy"].values, label=_readable(noise), **look)
    name = _readable(condition)
    ax.set_xlabel(f"{name} ε (L∞, pixels 0–1)" if condition in _ATTACKS else f"{name} strength")
    ax.set(ylabel="accuracy (fraction correct)", ylim=(0, 1))
    _note(ax, "bands: 95 % interval")


@style()
def plot_accuracy_bars(summary: xr.Dataset, ax: Axes, *, condition: str, strength: float = 0.0) -> None:
    """Draw accuracy under one condition: a point with its 95 % interval for each noise, named on the y axis.

    Args:
        summary: as for `plot_accuracy`.
        ax: where to draw.
        condition: the modification or attack; "clean" for none.
        strength: one of the strengths of `condition`.

    Raises:
        ValueError: a variable is missing, or the condition or the strength is not in `summary`.

    >>> accuracy = xr.DataArray([[0.9], [0.8]], dims=("noise", "condition"), coords={
    ...     "noise": ["none", "v4"], "modification": ("condition", ["clean"]), "strength": ("condition", [0.0])})
    >>> fig, axes = figure()
    >>> plot_accuracy_bars(xr.Dataset({"accuracy": accuracy, "low": accuracy, "high": accuracy}), axes[0, 0],
    ...                    condition="clean")
    >>> [label.get_text() for label in axes[0, 0].get_yticklabels()]
    ['no noise', 'V4']
    """
    rows = _by_strength(summary, condition)
    chosen = np.flatnonzero(np.isclose(rows["strength"].values, strength))
    if not chosen.size:
        strengths = ", ".join(f"{value:g}" for value in rows["strength"].values)
        raise ValueError(f"expected a strength of {condition} among {strengths}, got {strength:g}")
    column = rows.isel(condition=chosen[0])
    styles = _noise_styles(column["noise"].values)
    for y, look in enumerate(styles.values()):
        row, color = column.isel(noise=y), look["color"]
        ax.hlines([y], float(row["low"]), float(row["high"]), color=color)
        ax.plot([float(row["accuracy"])], [y], color=color, marker=look["marker"], linestyle="none")
    ax.set_yticks(range(len(styles)), [_readable(noise) for noise in styles])
    ax.set(ylim=(len(styles) - 0.5, -0.5), xlabel=f"accuracy, {_condition_name(condition, strength)}")
    ax.grid(axis="x", color=_PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    _note(ax, "bars: 95 % interval")


def _require(data: xr.Dataset, *names: str, attrs: Iterable[str] = ()) -> None:
    missing = [name for name in names if name not in data.variables]
    missing += [f"attrs[{name!r}]" for name in attrs if name not in data.attrs]
    if missing:
        has = [*map(str, data.variables), *(f"attrs[{name!r}]" for name in data.attrs)]
        raise ValueError(f"expected a Dataset with {', '.join(missing)}; it has {', '.join(has) or 'nothing'}")


def _choose(what: str, name: str, available: Iterable[str]) -> None:
    if name not in available:
        raise ValueError(f"expected a {what} among {', '.join(map(str, available))}, got {name!r}")


def _by_strength(summary: xr.Dataset, condition: str) -> xr.Dataset:
    """The conditions of one modification in order of strength, "clean" at 0 unless it has its own 0."""
    _require(summary, "noise", "modification", "strength", "accuracy", "low", "high")
    modification = summary["modification"].values
    _choose("condition", condition, dict.fromkeys(modification))
    strength = np.where(modification == "clean", 0.0, summary["strength"].values)
    wanted = modification == condition
    if not np.any(strength[wanted] == 0):
        wanted = wanted | (modification == "clean")
    rows = summary.assign_coords(strength=("condition", strength)).isel(condition=np.flatnonzero(wanted))
    return rows.isel(condition=np.argsort(rows["strength"].values))


def _system_styles(systems: Iterable[str]) -> dict[str, _Look]:
    """One look a system, the same in every figure that has the same systems; the first is cortex."""
    cortex, *networks = systems
    pairs = cycle(product(("-", "--", ":"), _NETWORK_COLORS))
    looks = ({"color": color, "marker": "s", "linestyle": line} for line, color in pairs)
    return {cortex: _CORTEX, **dict(zip(networks, looks))}


def _noise_styles(noises: Iterable[str]) -> dict[str, _Look]:
    """Colour by where the noise comes from, line and marker by which control of it this is."""
    split = {str(noise): _family_and_control(str(noise)) for noise in noises}
    unknown = dict.fromkeys(family for family, _ in split.values() if family not in _FAMILY_COLORS)
    colors = _FAMILY_COLORS | dict(zip(unknown, cycle(_SPARE_COLORS)))
    plain = {"linestyle": "-", "marker": "o"}
    return {
        noise: {"color": colors[family], **_CONTROLS.get(control, plain)} for noise, (family, control) in split.items()
    }


def _family_and_control(noise: str) -> tuple[str, str]:
    family, _, control = noise.rpartition("_")
    return (family, control) if family and control in _CONTROLS else (noise, "")


def _readable(name: str) -> str:
    family, control = _family_and_control(name)
    return _NAMES.get(family, family.replace("_", " ")) + (f", {control}" if control else "")


def _condition_name(condition: str, strength: float) -> str:
    if condition == "clean":
        return "clean images"
    return f"{_readable(condition)} {'ε ' if condition in _ATTACKS else ''}{strength:g}"


def _interval(ax: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, *, color: str) -> None:
    """Vertical bars; unlike `errorbar` they may miss the point, as a bootstrap interval of a biased estimate does."""
    x, low, high = np.broadcast_arrays(np.asarray(x), np.asarray(low), np.asarray(high))
    known = np.isfinite(low) & np.isfinite(high)
    ax.vlines(x[known], low[known], high[known], color=color)


def _name_systems(ax: Axes, systems: list[str]) -> None:
    long = sum(map(len, systems)) > 24
    turn: Any = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if long else {}
    ax.set_xticks(range(len(systems)), systems, **turn)
    ax.set_xlim(-0.6, len(systems) - 0.4)


def _note(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="right", fontsize=7, color=_GREY)
