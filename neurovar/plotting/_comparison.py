"""Systems beside one another: their distributions, their curves, and all their statistics."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neurovar.plotting._spectra import plot_spectrum
from neurovar.plotting._style import GREY, PALE, figure, interval, note, require, style
from neurovar.plotting._systems import _system_styles, plot_statistic

N_COLUMNS = 4


def plot_comparison(comparison: xr.Dataset, profiles: xr.Dataset) -> Figure:
    """Distributions, curves and spectra of all systems, and a panel for each statistic that some system has.

    Parameters
    ----------
    comparison : xarray.Dataset
        As `neurovar.statistics.compare` gives it.
    profiles : xarray.Dataset
        As `neurovar.statistics.profiles` gives it, of the same systems.

    Returns
    -------
    matplotlib.figure.Figure
        With the panels of all systems and one legend below them.

    Raises
    ------
    ValueError
        If a variable is missing.

    Examples
    --------
    >>> import neurovar
    >>> systems = {"V4": neurovar.statistics.population(n_stimuli=60, n_repeats=4, n_units=8, counts=True, rng=0)}
    >>> table = neurovar.statistics.compare(systems, ranks=(1, 4), n_resamples=2, n_subsamples=1, rng=0)
    >>> len(plot_comparison(table, neurovar.statistics.profiles(systems, rng=0)).axes) > 8
    True
    """
    require(comparison, "estimate", "statistic")
    defined = comparison["estimate"].notnull().any("system").values
    statistics = [str(name) for name in comparison["statistic"].values[defined]]
    n_rows = 1 + -(-len(statistics) // N_COLUMNS)  # a row of profiles, then one for every four statistics, rounded up
    drawing, axes = figure(n_rows, N_COLUMNS, width=7.2, height=1.7 * n_rows + 0.6)
    plot_densities(profiles, axes[0, 0])
    plot_curves(profiles, axes[0, 1])
    plot_profile_spectra(profiles, "spectrum", axes[0, 2])
    plot_profile_spectra(profiles, "noise_spectrum", axes[0, 3])
    for name, ax in zip(statistics, axes[1:].flat):
        plot_statistic(comparison, name, ax)
        ax.set_xticks([])  # the legend below names the systems, and says once what the bars are
        note(ax, "")
    # Statistics that no system has get no panel; the panels that are left over go.
    for ax in axes[1:].flat[len(statistics) :]:
        ax.remove()
    _one_legend(drawing, profiles)
    return drawing


@style()
def _one_legend(drawing: Figure, profiles: xr.Dataset) -> None:
    """The systems' looks below all panels, in place of the legends in them."""
    for ax in drawing.axes:
        legend = ax.get_legend()
        if legend:
            legend.remove()
    lines = [Line2D([], [], **look) for look in _looks(profiles).values()]
    title = "bars: 95 % intervals; of the curves: ± 1 standard error"
    names = [str(system) for system in profiles["system"].values]
    drawing.legend(lines, names, loc="outside lower center", ncols=3, title=title, title_fontsize=7)


@style()
def plot_densities(profiles: xr.Dataset, ax: Axes) -> None:
    """Draw how often each system's pairs have which noise correlation.

    Parameters
    ----------
    profiles : xarray.Dataset
        As `neurovar.statistics.profiles` gives it: variable `density` (system, correlation).
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
    >>> density = xr.DataArray([[0.5, 0.5]], dims=("system", "correlation"),
    ...                        coords={"system": ["V4"], "correlation": [-0.5, 0.5]})
    >>> plot_densities(xr.Dataset({"density": density}), axes[0, 0])
    >>> axes[0, 0].get_ylabel()
    'density of pairs'
    """
    require(profiles, "density", "correlation", "system")
    ax.axvline(0, color=PALE, linewidth=0.6, zorder=0)
    lines = []
    # Steps, because a density is that of a bin; no fill, because systems lie over one another.
    for (_, look), density in zip(_looks(profiles).items(), profiles["density"]):
        shape = {"color": look["color"], "linestyle": look["linestyle"]}
        lines += ax.step(profiles["correlation"].values, density.values, where="mid", **shape)
    _legend(profiles, lines, ax, "density")
    ax.set(xlabel="noise correlation", ylabel="density of pairs")


@style()
def plot_curves(profiles: xr.Dataset, ax: Axes) -> None:
    """Draw each system's noise correlation against signal correlation: means over bins of pairs ± 1 standard error.

    Parameters
    ----------
    profiles : xarray.Dataset
        As `neurovar.statistics.profiles` gives it: variables `signal_correlation`, `noise_correlation`,
        `standard_error` (system, bin).
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
    >>> bins = {name: (("system", "bin"), [[0.1, 0.2]]) for name in
    ...         ("signal_correlation", "noise_correlation", "standard_error")}
    >>> plot_curves(xr.Dataset(bins, coords={"system": ["V4"]}), axes[0, 0])
    >>> axes[0, 0].get_xlabel()
    'signal correlation'
    """
    require(profiles, "signal_correlation", "noise_correlation", "standard_error", "system")
    ax.axhline(0, color=PALE, linewidth=0.6, zorder=0)
    lines = []
    for number, look in enumerate(_looks(profiles).values()):
        curve = profiles.isel(system=number)
        x, y, error = (curve[name].values for name in ("signal_correlation", "noise_correlation", "standard_error"))
        interval(ax, x, y - error, y + error, color=look["color"])
        known = np.isfinite(y)  # bins that are empty in this system do not break its line
        lines += ax.plot(x[known], y[known], **look, markersize=2.5)
    if profiles["noise_correlation"].isnull().all():
        ax.text(0.5, 0.5, "n/a", transform=ax.transAxes, ha="center", fontsize=7, color=GREY)
    _legend(profiles, lines, ax, "curve")
    ax.set(xlabel="signal correlation", ylabel="noise correlation")
    note(ax, "bars: ± 1 standard error")


@style()
def plot_profile_spectra(profiles: xr.Dataset, variable: str, ax: Axes) -> None:
    """Draw the eigenspectra of the signal or of the noise of all systems that have one.

    Parameters
    ----------
    profiles : xarray.Dataset
        The variable (system, rank), attrs["method"].
    variable : {"spectrum", "noise_spectrum"}
        "spectrum" or "noise_spectrum".
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
    >>> spectrum = xr.DataArray([[4.0, 2.0]], dims=("system", "rank"), coords={"system": ["V4"], "rank": [1, 2]})
    >>> plot_profile_spectra(xr.Dataset({"spectrum": spectrum}, attrs={"method": "cvpca"}), "spectrum", axes[0, 0])
    >>> axes[0, 0].get_ylabel()
    'signal variance λₙ/λ₁'
    """
    require(profiles, variable, "system", "rank", attrs=("method",))
    label = f"{'noise' if variable == 'noise_spectrum' else 'signal'} variance λₙ/λ₁"
    # Without a positive variance a logarithmic axis has no range: an empty panel says so instead.
    if not (profiles[variable] > 0).any():
        ax.set(xlabel="rank n", ylabel=label, xticks=[], yticks=[])
        ax.text(0.5, 0.5, "n/a", transform=ax.transAxes, ha="center", fontsize=7, color=GREY)
        return
    method = {"method": profiles.attrs["method"]}
    spectra = {str(spectrum["system"].item()): spectrum.assign_attrs(method) for spectrum in profiles[variable]}
    plot_spectrum(spectra, ax)
    ax.set_ylabel(label)


def _looks(profiles: xr.Dataset) -> dict:
    return _system_styles([str(system) for system in profiles["system"].values])


def _legend(profiles: xr.Dataset, lines: list, ax: Axes, profile: str) -> None:
    """Names of all systems, those without the profile marked."""
    names = [str(system) for system in profiles["system"].values]
    if "reason" in profiles:
        missing = profiles["reason"].sel(profile=profile).values
        names = [f"{name} (n/a)" if reason else name for name, reason in zip(names, missing)]
    ax.legend(lines, names, loc="best", handlelength=1.4)
