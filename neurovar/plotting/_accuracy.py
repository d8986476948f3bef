"""Accuracy of classifiers under noises and modifications."""

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
    note,
    readable,
    require,
    style,
)

_FAMILIES: dict[str, Look] = {
    "none": {"color": BLACK, "marker": "o"},
    "isotropic": {"color": GREEN, "marker": "P"},
    "v4": {"color": VERMILION, "marker": "v"},
    "pgd": {"color": BLUE, "marker": "D"},
}
_SPARE_COLORS = (PURPLE, ORANGE, SKY)
_SPARE_MARKERS = ("X", "d", "<", ">", "p", "h", "*")
_ATTACKS = ("fgm", "pgd")
"""Attacks of a summary that does not say which conditions are."""
_LOSSES = {"cross_entropy": "CE", "dlr": "DLR", "targeted_dlr": "targeted DLR"}


@style()
def plot_accuracy(summary: xr.Dataset, ax: Axes, *, condition: str) -> None:
    """Draw accuracy against the strength of one modification: a line with a 95 % band for each noise.

    The condition "clean", where there is one, is strength 0. `legend_below` names the lines of a whole figure.

    Parameters
    ----------
    summary : xarray.Dataset
        Dims (noise, condition), variables `accuracy`, `low`, `high` as fractions; coords `modification` and `strength`
        on `condition`.
    ax : matplotlib.axes.Axes
        Where to draw.
    condition : str
        The name of the modification or attack, such as "motion_blur" or "pgd".

    Raises
    ------
    ValueError
        If a variable is missing, or `condition` is not in `summary`.

    Examples
    --------
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
    for index, (noise, look) in enumerate(noise_styles(rows).items()):
        row = rows.isel(noise=index)
        # Bands and not bars: at one strength eight noises lie side by side, whose bars would hide one another.
        ax.fill_between(strength, row["low"], row["high"], color=look["color"], alpha=0.12, linewidth=0)
        ax.plot(strength, row["accuracy"].values, label=noise, clip_on=False, **look)
    ax.set_xlabel(_axis_name(rows, condition))
    ax.locator_params(axis="x", nbins=5)
    ax.set(ylabel="accuracy (fraction correct)", ylim=(0, 1))
    note(ax, "bands: 95 % interval")


@style()
def plot_accuracy_bars(summary: xr.Dataset, ax: Axes, *, condition: str, strength: float = 0.0) -> None:
    """Draw accuracy under one condition: a point with its 95 % interval for each noise, named on the y axis.

    Parameters
    ----------
    summary : xarray.Dataset
        Dims (noise, condition), variables `accuracy`, `low`, `high` as fractions; coords `modification` and `strength`
        on `condition`.
    ax : matplotlib.axes.Axes
        Where to draw.
    condition : str
        The modification or attack; "clean" for none.
    strength : float, optional
        One of the strengths of `condition`.

    Raises
    ------
    ValueError
        If a variable is missing, or the condition or the strength is not in `summary`.

    Examples
    --------
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
    styles = noise_styles(column)
    for y, look in enumerate(styles.values()):
        row, color = column.isel(noise=y), look["color"]
        ax.hlines([y], float(row["low"]), float(row["high"]), color=color)
        ax.plot([float(row["accuracy"])], [y], color=color, marker=look["marker"], linestyle="none")
    ax.set_yticks(range(len(styles)), list(styles))
    ax.set(ylim=(len(styles) - 0.5, -0.5), xlabel=f"accuracy, {condition_name(column)}")
    ax.grid(axis="x", color=PALE, linewidth=0.6)
    ax.set_axisbelow(True)
    note(ax, "bars: 95 % interval")


def _by_strength(summary: xr.Dataset, condition: str) -> xr.Dataset:
    """The conditions of one modification in order of strength, "clean" at 0 unless it has its own 0."""
    require(summary, "noise", "modification", "strength", "accuracy", "low", "high")
    modification = summary["modification"].values
    choose("condition", condition, dict.fromkeys(modification))
    if set(summary["accuracy"].dims) != {"noise", "condition"}:
        raise ValueError(
            f"expected accuracy (noise, condition), got {summary['accuracy'].dims}: select one of the others"
        )
    # Clean images are strength 0 of every modification, unless it has its own: two points there would fold the line.
    strength = np.where(modification == "clean", 0.0, summary["strength"].values)
    wanted = modification == condition
    if not np.any(strength[wanted] == 0):
        wanted = wanted | (modification == "clean")
    rows = summary.assign_coords(strength=("condition", strength)).isel(condition=np.flatnonzero(wanted))
    if len(np.unique(rows["strength"])) < rows.sizes["condition"]:
        raise ValueError(f"expected one condition of {condition} at each strength, got several: select those to draw")
    return rows.isel(condition=np.argsort(rows["strength"].values))


def noise_styles(summary: xr.Dataset | xr.DataArray) -> dict[str, Look]:
    """{name for people: look} of each noise: a colour of its own, or that of the noise that it is a control of.

    Which noise is a control, and of which, the coordinates `control` and `control_of` say, as `robustness.evaluate`
    gives them. Those controls that have a line and a marker of their own (`CONTROLS`) take the colour of their noise.
    """
    names = [str(name) for name in summary["noise"].values]
    kinds, of = (
        [str(value) for value in summary[coord].values] if coord in summary.coords else [""] * len(names)
        for coord in ("control", "control_of")
    )
    same_color = [bool(source) and kind in CONTROLS for kind, source in zip(kinds, of)]
    families = [source if same else name for name, source, same in zip(names, of, same_color)]
    labels = [
        f"{readable(family)}, {kind}" if same else readable(family)
        for family, kind, same in zip(families, kinds, same_color)
    ]
    # Several of one kind, as at matched trace and at matched accuracy, are told apart by their names.
    labels = [label if labels.count(label) == 1 else readable(name) for label, name in zip(labels, names)]
    # Families without a colour of their own get the spare ones in the order in which they come, so that the panels of
    # one figure agree.
    unknown = dict.fromkeys(family for family in families if family not in _FAMILIES)
    spare = (dict(zip(("color", "marker"), pair)) for pair in zip(cycle(_SPARE_COLORS), cycle(_SPARE_MARKERS)))
    looks: dict[str, Look] = _FAMILIES | dict(zip(unknown, spare))
    plain = {"linestyle": "-"}
    return {
        label: plain | looks[family] | (CONTROLS[kind] if same else {})
        for label, family, kind, same in zip(labels, families, kinds, same_color)
    }


def condition_name(row: xr.Dataset | xr.DataArray) -> str:
    """Of one condition, for people: "APGD DLR ε=0.1", "motion blur 3"; how hard an attack tries is left out."""
    name, strength = str(row["modification"].item()), float(row["strength"])
    if name == "clean":
        return "clean images"
    if not _is_attack(row):
        return f"{readable(name)} {strength:g}"
    loss = str(row["loss"].item()) if "loss" in row.coords else ""
    norm = _norm(row)
    gradient = str(row["gradient"].item()) if "gradient" in row.coords else ""
    follows = "" if gradient in ("averaged", "none") else readable(gradient)
    # L∞ and the averaged gradient are what is expected of an attack on noise: a name is longer only where it differs.
    parts = [
        readable(name),
        _LOSSES.get(loss, readable(loss)),
        f"ε={strength:g}",
        norm if norm != "L∞" else "",
        follows,
    ]
    return " ".join(part for part in parts if part)


def _axis_name(rows: xr.Dataset, condition: str) -> str:
    """What the strengths of a condition are."""
    row = rows.isel(condition=np.flatnonzero(rows["modification"].values == condition)[0])
    if _is_attack(row):
        return f"{readable(condition)} ε ({_norm(row)}, pixels 0–1)"
    return f"{readable(condition)} strength"


def _is_attack(row: xr.Dataset | xr.DataArray) -> bool:
    return row["kind"].item() == "attack" if "kind" in row.coords else row["modification"].item() in _ATTACKS


def _norm(row: xr.Dataset | xr.DataArray) -> str:
    return {"l2": "L2"}.get(str(row["norm"].item()), "L∞") if "norm" in row.coords else "L∞"
