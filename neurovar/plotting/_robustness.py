"""Whether an evaluation can be believed: attacks against their strength, noise against test, and the sanity checks."""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter, NullLocator

from neurovar.plotting._accuracy import condition_name, noise_styles
from neurovar.plotting._style import BLACK, GREEN, GREY, PALE, VERMILION, Look, choose, note, require, style

SETTINGS = ("norm", "loss", "gradient", "protocol", "n_draws", "n_steps", "n_restarts", "n_queries", "step")
"""The coordinates that, with `modification` and `strength`, say what an attack is."""
_EFFORT = {"n_draws": "noise draws per gradient, K", "n_steps": "steps of the attack"}
_MARKS: dict[str, Look] = {
    "pass": {"marker": "o", "color": GREEN},
    "fail": {"marker": "X", "color": VERMILION, "markersize": 5},
    "not run": {"marker": "o", "color": GREY, "markerfacecolor": "white"},
    "not applicable": {"marker": "_", "color": GREY},
}
VERDICT_COLUMNS = 66
"""Letters of a line of the verdict, at column width."""


@style()
def plot_convergence(
    summary: xr.Dataset,
    ax: Axes,
    *,
    against: Literal["n_draws", "n_steps"],
    condition: str,
    strength: float,
    loss: str | None = None,
) -> None:
    """Draw accuracy under an attack against how hard it tries: a line with a 95 % band for each noise.

    An attack that has converged gives flat lines at the right; accuracy that still falls there is not yet a result.

    Parameters
    ----------
    summary : xarray.Dataset
        Dims (noise, condition), variables `accuracy`, `low`, `high` as fractions; coords on `condition` as
        `robustness.evaluate` gives them. Of its conditions those are drawn that follow the averaged gradient.
    ax : matplotlib.axes.Axes
        Where to draw.
    against : {"n_draws", "n_steps"}
        The number of noise draws K, or of steps.
    condition : str
        The name of the attack, such as "apgd".
    strength : float
        Its ε.
    loss : str, optional
        The loss that it climbs, where the summary has several.

    Raises
    ------
    ValueError
        If a variable is missing, there are not at least two such conditions, or they differ otherwise too.

    Examples
    --------
    >>> coords = {"noise": ["none"], "modification": ("condition", ["pgd", "pgd"]), "n_draws": ("condition", [5, 1]),
    ...           "strength": ("condition", [0.1, 0.1]), "gradient": ("condition", ["averaged", "averaged"]),
    ...           "loss": ("condition", ["dlr", "dlr"])}
    >>> accuracy = xr.DataArray([[0.2, 0.5]], dims=("noise", "condition"), coords=coords)
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> plot_convergence(xr.Dataset({"accuracy": accuracy, "low": accuracy, "high": accuracy}), axes[0, 0],
    ...                  against="n_draws", condition="pgd", strength=0.1, loss="dlr")
    >>> [int(draws) for draws in axes[0, 0].lines[0].get_xdata()]
    [1, 5]
    """
    choose("measure of effort", against, _EFFORT)
    require(summary, "noise", "modification", "strength", "gradient", "loss", against, "accuracy", "low", "high")
    rows = _alike(summary, against, condition, strength, loss)
    effort = rows[against].values
    for index, (noise, look) in enumerate(noise_styles(rows).items()):
        row = rows.isel(noise=index)
        ax.fill_between(effort, row["low"], row["high"], color=look["color"], alpha=0.12, linewidth=0)
        ax.plot(effort, row["accuracy"].values, label=noise, clip_on=False, **look)
    ax.set(xscale="log", xlabel=_EFFORT[against], ylabel="accuracy (fraction correct)", ylim=(0, 1))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(effort, [f"{value:g}" for value in effort])
    name = condition_name(rows.isel(condition=0))
    note(ax, f"{name}; bands: 95 % interval")


def _alike(summary: xr.Dataset, against: str, condition: str, strength: float, loss: str | None) -> xr.Dataset:
    """The conditions of this attack in order of effort; they may differ in that only."""
    wanted = (
        (summary["modification"].values == condition)
        & np.isclose(summary["strength"].values, strength)
        & ((summary["loss"].values == loss) | (loss is None))
        & (summary["gradient"].values == "averaged")
    )
    rows = summary.isel(condition=np.flatnonzero(wanted)).sortby(against)
    attack = " ".join(filter(None, (condition, loss, f"ε={strength:g}")))
    if rows.sizes["condition"] < 2:
        raise ValueError(f"expected at least two conditions of {attack}, got {rows.sizes['condition']}")
    # A line that changes two settings at once would show neither; a setting that an attack does not have is NaN.
    others = [name for name in SETTINGS if name != against and name in rows.coords]
    varying = [name for name in others if len(set(rows[name].values[~_missing(rows[name].values)])) > 1]
    if varying or len(set(rows[against].values)) < len(rows[against]):
        what = ", ".join(varying) or f"nothing, {against} neither"
        raise ValueError(
            f"expected conditions of {attack} that differ in {against} only, got some that differ in {what}"
        )
    return rows


def _missing(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


@style()
def plot_noise_by_test(summary: xr.Dataset, ax: Axes) -> None:
    """Draw accuracy as a heat map: a row for each noise, a column for each condition that it is tested under.

    Outlined: the test that a noise was made from. Only what lies outside shows whether a noise helps against what it
    has not seen.

    Parameters
    ----------
    summary : xarray.Dataset
        Dims (noise, condition), variable `accuracy` as fractions; coords `modification` and `strength` on `condition`,
        and `origin_of` and `origin_epsilon` on `noise` where known: what it was made from.
    ax : matplotlib.axes.Axes
        Where to draw.

    Raises
    ------
    ValueError
        If a variable is missing, or there is nothing to draw.

    Examples
    --------
    >>> coords = {"noise": ["none", "full"], "modification": ("condition", ["clean", "pgd"]),
    ...           "strength": ("condition", [0.0, 0.1]), "origin_of": ("noise", ["", "pgd"]),
    ...           "origin_epsilon": ("noise", [np.nan, 0.1])}
    >>> accuracy = xr.DataArray([[0.9, 0.1], [0.8, 0.3]], dims=("noise", "condition"), coords=coords)
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> plot_noise_by_test(accuracy.to_dataset(name="accuracy"), axes[0, 0])
    >>> [text.get_text() for text in axes[0, 0].texts], len(axes[0, 0].patches)
    (['0.90', '0.10', '0.80', '0.30'], 1)
    """
    require(summary, "noise", "modification", "strength", "accuracy")
    accuracy = summary["accuracy"].transpose("noise", "condition")
    if not accuracy.size:
        raise ValueError(f"expected at least one noise and one condition, got {dict(accuracy.sizes)}")
    ax.set_facecolor(PALE)  # seen where a cell is NaN: what could not be run
    ax.imshow(accuracy.values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    tests = [condition_name(accuracy.isel(condition=i)) for i in range(accuracy.sizes["condition"])]
    ax.set_xticks(range(len(tests)), tests, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(accuracy.sizes["noise"]), list(noise_styles(accuracy)))
    ax.set(xlabel="tested under", ylabel="noise")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(accuracy.values):
        shade = "white" if value <= 0.5 else BLACK  # the lower half of the colour map is dark
        text = f"{value:.2f}" if np.isfinite(value) else "n/a"
        ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color=shade)
    for row, column in _made_from(accuracy):
        ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor=VERMILION, linewidth=1.4))
    note(ax, "fraction correct; outlined: what the noise was made from")


def _made_from(accuracy: xr.DataArray) -> list[tuple[int, int]]:
    """The cells whose noise was made from just that test."""
    if not {"origin_of", "origin_epsilon"} <= set(accuracy.coords):
        return []
    origins = zip(accuracy["origin_of"].values.astype(str), accuracy["origin_epsilon"].values)
    tests = list(zip(accuracy["modification"].values.astype(str), accuracy["strength"].values))
    return [
        (row, column)
        for row, (of, epsilon) in enumerate(origins)
        for column, (name, strength) in enumerate(tests)
        if of == f"{name} {strength:g}" or (of.lower() == name.lower() and np.isclose(strength, epsilon))
    ]


@style()
def plot_honesty(report: xr.Dataset, ax: Axes) -> None:
    """Draw the sanity checks of an evaluation, each as passed, failed or not run with its figure, under the verdict.

    Parameters
    ----------
    report : xarray.Dataset
        As `neurovar.robustness.honesty` returns it.
    ax : matplotlib.axes.Axes
        Where to draw; the whole of it is used. About 0.17 inches a check are readable.

    Raises
    ------
    ValueError
        If a variable or the verdict is missing, or a status is unknown.

    Examples
    --------
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> columns = {"status": ["pass", "fail"], "figure": [0.01, 0.4], "bound": [0.02, 0.0]}
    >>> checks = {name: ("check", values) for name, values in columns.items()}
    >>> report = xr.Dataset(checks, coords={"check": ["steps", "accuracy reaches 0"]}, attrs={"verdict": "withheld"})
    >>> plot_honesty(report, axes[0, 0])
    >>> [text.get_text() for text in axes[0, 0].texts][-4:]
    ['fail', 'accuracy reaches 0', '0.4', '0']
    """
    require(report, "check", "status", "figure", "bound", attrs=("verdict",))
    verdict, _, why = str(report.attrs["verdict"]).partition(": ")
    lines = [f"Verdict: {verdict}", *textwrap.wrap(why, VERDICT_COLUMNS)]
    n_checks = report.sizes["check"]
    # One row of data units a check, counted downwards from 0; the verdict and the heading have the rows above.
    ax.set(xlim=(0, 1), ylim=(n_checks - 0.5, -2.2 - len(lines)))
    ax.axis("off")
    for line, text in enumerate(lines):
        _write(ax, 0, line - 1.7 - len(lines), text, fontweight="normal" if line else "bold")
    _row(ax, -1, ("", "check", "figure", "bound"), color=GREY)
    ax.axhline(-0.5, color=PALE, linewidth=0.8)
    for row in range(n_checks):
        check = report.isel(check=row)
        status = str(check["status"].item())
        choose("status", status, _MARKS)
        figures = [plain_figure(float(check[name])) for name in ("figure", "bound")]
        ax.plot([0.012], [row], linestyle="none", clip_on=False, **_MARKS[status])
        shade = GREY if status.startswith("not") else BLACK
        _row(ax, row, (status, str(check["check"].item()), *figures), color=shade, bold=status == "fail")


def _row(ax: Axes, y: float, cells: Sequence[str], *, color: str, bold: bool = False) -> None:
    """The status of a check, its name, its figure and the bound of that."""
    for x, text, side in zip((0.04, 0.17, 0.89, 1.0), cells, ("left", "left", "right", "right")):
        _write(ax, x, y, text, ha=side, color=color, fontweight="bold" if bold and x < 0.1 else "normal")


def _write(ax: Axes, x: float, y: float, text: str, **look: Any) -> None:
    """Text that does not make room for itself, as it has the whole of the axes."""
    ax.text(x, y, text, va="center", fontsize=6.5, **look).set_in_layout(False)


def plain_figure(value: float) -> str:
    """A number for people, without a power of ten.

    Parameters
    ----------
    value : float
        Any number.

    Returns
    -------
    str
        Three digits, thousands separated; "–" for what is not finite.

    Examples
    --------
    >>> [plain_figure(value) for value in (5000.0, 0.0, 0.01234, 1234.5, float("nan"))]
    ['5,000', '0', '0.0123', '1,234', '–']
    """
    if not np.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"
