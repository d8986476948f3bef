"""Eigenspectra with their fitted power laws and the bound of smooth codes."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from neurovar.plotting._style import BLACK, GREY, plain_numbers, style
from neurovar.plotting._systems import _system_styles
from neurovar.statistics import PowerLaw, require_one_method, smoothness_bound

_METHODS = {"cvpca": "cvPCA", "cross_decomposition": "cross-decomposition", "meme": "MEME"}


@style()
def plot_spectrum(
    spectra: Mapping[str, xr.DataArray],
    ax: Axes,
    *,
    fits: Mapping[str, PowerLaw] | None = None,
    d: float | None = None,
) -> None:
    """Draw spectra of one estimator on log-log axes, λₙ/λ₁ against n, with their fits and the slope of smooth codes.

    Values that are not positive have no logarithm and are left out. A fit is a thin black line over its ranks.
    Estimates of different estimators differ in their biases: draw each in a panel of its own.

    Parameters
    ----------
    spectra : mapping of str to xarray.DataArray
        By name, each (rank) with attrs["method"], as `neurovar.statistics` gives them; the first is cortex.
    ax : matplotlib.axes.Axes
        Where to draw.
    fits : mapping of str to PowerLaw, optional
        By name, the power laws to draw over some of the spectra.
    d : float, optional
        Dimensions of the stimuli, if they are known: dashed, the slope −(1 + 2/d) from the first spectrum's λ₁.

    Raises
    ------
    ValueError
        If no spectrum, spectra of several methods, or a fit without its spectrum.

    Examples
    --------
    >>> from neurovar.plotting import figure
    >>> fig, axes = figure()
    >>> spectrum = xr.DataArray([4.0, 2.0, -1.0], dims="rank", coords={"rank": [1, 2, 3]}, attrs={"method": "cvpca"})
    >>> plot_spectrum({"V1": spectrum}, axes[0, 0], d=8)
    >>> [text.get_text() for text in axes[0, 0].get_legend().get_texts()]
    ['V1', 'bound 1 + 2/d = 1.25']
    """
    method = require_one_method(spectra.values())
    unknown = [name for name in fits or {} if name not in spectra]
    if unknown:
        raise ValueError(f"expected fits of {', '.join(spectra)}, got one of {unknown[0]}")
    lines, names = [], []
    for (name, look), spectrum in zip(_system_styles(spectra).items(), spectra.values()):
        fit = (fits or {}).get(name)
        first = float(spectrum[0]) if spectrum[0] > 0 else np.nan
        drawn = (spectrum / first).where(spectrum > 0).dropna("rank")
        lines += ax.plot(drawn["rank"].values, drawn.values, color=look["color"], linestyle=look["linestyle"])
        names.append((name if drawn.size else f"{name} (n/a)") + (f", α = {fit.exponent:.2f}" if fit else ""))
        if fit:
            # The fit is of variances; like the spectrum it is drawn in parts of the first one.
            rank = np.array(fit.ranks, dtype=float)
            ax.plot(rank, fit.amplitude / first * rank**-fit.exponent, color=BLACK, linewidth=0.8, zorder=4)
    if d is not None:
        # Only the slope of the bound means something: it starts at the first point of all spectra, (1, 1).
        bound, last = smoothness_bound(d), max(int(spectrum["rank"].max()) for spectrum in spectra.values())
        lines += ax.plot([1, last], [1, last**-bound], color=GREY, linestyle="--", linewidth=0.8, zorder=1)
        names.append(f"bound 1 + 2/d = {bound:.2f}")
    # Lines and names are given, because a legend that collects them leaves out names like "_blocks.4".
    ax.legend(lines, names, loc="lower left", handlelength=1.6)
    ax.set(xscale="log", yscale="log", xlabel="rank n", ylabel="variance λₙ/λ₁")
    plain_numbers(ax)
    ax.set_title(_METHODS.get(method, method), loc="left")
