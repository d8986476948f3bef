"""The one style of all figures, and the small things that they share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike

COLUMN_WIDTH = 3.5
"""Width in inches of one column of a paper."""

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#595959"
PALE = "#E4E4E4"

Look = dict[str, Any]

CONTROLS = {"diagonal": {"linestyle": "--", "marker": "s"}, "rotated": {"linestyle": ":", "marker": "^"}}
_NAMES = {"none": "no noise", "v4": "V4", "pgd": "PGD", "fgm": "FGM", "apgd": "APGD", "square": "Square"}

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
    # The name of a layer is never a formula, whatever dollar signs it has.
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """The style of every figure here, as a context for drawing of one's own; it ends with the context.

    Yields
    ------
    None
        Nothing: matplotlib's parameters are set meanwhile.

    Examples
    --------
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
    """A Figure outside pyplot, and its Axes.

    Parameters
    ----------
    nrows, ncols : int, optional
        The numbers of panels.
    width, height : float, optional
        Of the whole figure, in inches; a column of a paper is `COLUMN_WIDTH` wide.

    Returns
    -------
    figure : matplotlib.figure.Figure
        Whose layout makes room for labels and legends.
    axes : numpy.ndarray
        (nrows, ncols), of Axes.

    Examples
    --------
    >>> fig, axes = figure(1, 2, width=7, height=2.5)
    >>> axes.shape
    (1, 2)
    """
    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots(nrows, ncols, squeeze=False)


@style()
def legend_below(drawing: Figure, *, ncols: int = 3) -> None:
    """One legend under all the panels of a figure: each labelled line once, in the order first drawn.

    Parameters
    ----------
    drawing : matplotlib.figure.Figure
        Whose panels have labelled lines.
    ncols : int, optional
        Columns of the legend.

    Examples
    --------
    >>> fig, axes = figure()
    >>> line = axes[0, 0].plot([0, 1], label="V4")
    >>> legend_below(fig)
    >>> [text.get_text() for text in fig.legends[0].get_texts()]
    ['V4']
    """
    # The panels of a figure have the same lines: the first of each name stands for all.
    entries: dict[str, Any] = {}
    for ax in drawing.axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    drawing.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=ncols)


def require(data: xr.Dataset, *names: str, attrs: Iterable[str] = ()) -> None:
    missing = [name for name in names if name not in data.variables]
    missing += [f"attrs[{name!r}]" for name in attrs if name not in data.attrs]
    if missing:
        has = [*map(str, data.variables), *(f"attrs[{name!r}]" for name in data.attrs)]
        raise ValueError(f"expected a Dataset with {', '.join(missing)}; it has {', '.join(has) or 'nothing'}")


def choose(what: str, name: str, available: Iterable[str]) -> None:
    if name not in available:
        raise ValueError(f"expected a {what} among {', '.join(map(str, available))}, got {name!r}")


def readable(name: str) -> str:
    """A name for people: without underscores, and abbreviations as they are written."""
    return _NAMES.get(name, name.replace("_", " "))


def interval(ax: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, *, color: str) -> None:
    """Vertical bars; unlike `errorbar` they may miss the point, as a bootstrap interval of a biased estimate does."""
    # `errorbar` takes lengths above and below the point, which must not be negative: lines from end to end may miss it.
    x, low, high = np.broadcast_arrays(np.asarray(x), np.asarray(low), np.asarray(high))
    known = np.isfinite(low) & np.isfinite(high)
    ax.vlines(x[known], low[known], high[known], color=color)


def note(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="right", fontsize=7, color=GREY)


def plain_numbers(ax: Axes) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5 or, over more than two decades, at powers of ten; no formulas."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        # Over two decades and more three ticks a decade would write numbers over one another.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
