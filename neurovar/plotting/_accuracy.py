"""Accuracy of classifiers under noises and modifications."""

from collections.abc import Iterable
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from neurovar.plotting._style import (
    BLACK,
    BLUE,
    CONTROLS,
    GREEN,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILION,
    Look,
    choose,
    family_and_control,
    note,
    readable,
    require,
    style,
)

_FAMILY_COLORS = {"none": BLACK, "isotropic": GREEN, "v4": VERMILION, "pgd": BLUE}
_SPARE_COLORS = (PURPLE, ORANGE, SKY)
_ATTACKS = ("fgm", "pgd")


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
    >>> from neurovar.plotting import figure
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
        ax.plot(strength, row["accuracy"].values, label=readable(noise), **look)
    name = readable(condition)
    ax.set_xlabel(f"{name} ε (L∞, pixels 0–1)" if condition in _ATTACKS else f"{name} strength")
    ax.set(ylabel="accuracy (fraction correct)", ylim=(0, 1))
    note(ax, "bands: 95 % interval")


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
    >>> from neurovar.plotting import figure
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
    ax.set_yticks(range(len(styles)), [readable(noise) for noise in styles])
    ax.set(ylim=(len(styles) - 0.5, -0.5), xlabel=f"accuracy, {_condition_name(condition, strength)}")
    ax.grid(axis="x", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    note(ax, "bars: 95 % interval")


def _by_strength(summary: xr.Dataset, condition: str) -> xr.Dataset:
    """The conditions of one modification in order of strength, "clean" at 0 unless it has its own 0."""
    require(summary, "noise", "modification", "strength", "accuracy", "low", "high")
    modification = summary["modification"].values
    choose("condition", condition, dict.fromkeys(modification))
    strength = np.where(modification == "clean", 0.0, summary["strength"].values)
    wanted = modification == condition
    if not np.any(strength[wanted] == 0):
        wanted = wanted | (modification == "clean")
    rows = summary.assign_coords(strength=("condition", strength)).isel(condition=np.flatnonzero(wanted))
    return rows.isel(condition=np.argsort(rows["strength"].values))


def _noise_styles(noises: Iterable[str]) -> dict[str, Look]:
    """Colour by where the noise comes from, line and marker by which control of it this is."""
    split = {str(noise): family_and_control(str(noise)) for noise in noises}
    unknown = dict.fromkeys(family for family, _ in split.values() if family not in _FAMILY_COLORS)
    colors = _FAMILY_COLORS | dict(zip(unknown, cycle(_SPARE_COLORS)))
    plain = {"linestyle": "-", "marker": "o"}
    return {
        noise: {"color": colors[family], **CONTROLS.get(control, plain)} for noise, (family, control) in split.items()
    }


def _condition_name(condition: str, strength: float) -> str:
    if condition == "clean":
        return "clean images"
    return f"{readable(condition)} {'ε ' if condition in _ATTACKS else ''}{strength:g}"
