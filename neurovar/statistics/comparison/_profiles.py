"""What a single number cannot say of systems: distributions, curves and spectra, on common axes, for figures."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts
from neurovar.statistics._registry import NO_SIGNAL
from neurovar.statistics.estimation._pairs import binned, pairs
from neurovar.statistics.spectra._spectrum import noise_spectrum, signal_spectrum

N_CORRELATIONS = 60
"""Bins of a density, over the range of all systems."""
SIGNAL_EDGES = np.linspace(-1, 1, 11).round(1).tolist()
NO_CURVE = xr.Dataset(
    {name: ("bin", np.full(10, np.nan)) for name in ("signal_correlation", "noise_correlation", "standard_error")}
    | {"n_pairs": ("bin", np.zeros(10, dtype=int))}
)
NO_SPECTRUM = xr.DataArray([np.nan], dims="rank", coords={"rank": [1]})


def profiles(
    systems: Mapping[str, xr.DataArray], *, method: str = "cvpca", n_splits: int = 10, rng: np.random.Generator | int
) -> xr.Dataset:
    """Each system's distribution of noise correlations, their dependence on signal correlation, and its spectra.

    Noise correlations are z-scored for each stimulus where some stimulus of that system has three repeats. Systems are
    taken as they come: `match` them first if they are to be compared.

    Parameters
    ----------
    systems : mapping of str to xarray.DataArray
        Name → responses (stimulus, repeat, unit).
    method : str, optional
        Of both spectra, the same for all systems (`statistics.signal_spectrum`).
    n_splits : int, optional
        Random halves of the repeats, for spectra.
    rng : numpy.random.Generator or int
        For random halves.

    Returns
    -------
    xarray.Dataset
        `density` (system, correlation), of the noise correlations of pairs of units, integrating to 1;
        `signal_correlation`, `noise_correlation`, `standard_error`, `n_pairs` (system, bin) as of `statistics.binned`
        over bins of signal correlation that are the same for all; `spectrum` and `noise_spectrum` (system, rank);
        `reason` (profile, system), why one of "density", "curve", "spectrum", "noise_spectrum" is NaN, or "". attrs
        have `method` and `edges`, those of the bins.

    Raises
    ------
    ValueError
        If there is no system.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=60, n_repeats=4, n_units=8, rng=0)
    >>> dict(profiles({"simulated": da}, rng=0).noise_correlation.sizes)
    {'system': 1, 'bin': 10}
    """
    if not systems:
        raise ValueError("expected at least one system, got none")
    tables, reasons = {}, {}
    for (name, system), seed in zip(systems.items(), np.random.default_rng(rng).spawn(len(systems))):
        tables[name], reasons[name] = _profiles_of(system, method, n_splits, seed)
    correlations = _correlation_axis([table["pairs"] for table in tables.values()])
    columns = []
    for name, table in tables.items():
        density = _density(table.pop("pairs"), correlations)
        variables = {
            "density": density,
            **{name: variable for part in table.values() for name, variable in part.items()},
        }
        columns.append(xr.Dataset(variables).expand_dims(system=[name]))
    together = xr.concat(columns, dim="system", join="outer", combine_attrs="drop")
    kinds = list(next(iter(reasons.values())))
    reason = [[reasons[name][kind] for name in systems] for kind in kinds]
    together = together.assign_coords(profile=kinds).assign(
        reason=(("profile", "system"), np.array(reason, dtype=object))
    )
    return together.assign_attrs(method=method, edges=SIGNAL_EDGES)


def _profiles_of(
    system: xr.DataArray, method: str, n_splits: int, rng: np.random.Generator
) -> tuple[dict[str, xr.Dataset], dict[str, str]]:
    """What of each profile the system allows, and why not the others."""
    # With two repeats z-scored residuals are ±1/√2 whatever the noise.
    zscore = bool(repeat_counts(system).max() > 2)
    of_pairs, no_pairs = _attempt(lambda: pairs(system, zscore=zscore), xr.Dataset())
    curve, no_curve = _attempt(lambda: _curve(of_pairs), NO_CURVE)
    signal, no_signal = _attempt(
        lambda: _spectrum(signal_spectrum(system, method=method, n_splits=n_splits, rng=rng), "spectrum"),
        _spectrum(NO_SPECTRUM, "spectrum"),
    )
    noise, no_noise = _attempt(
        lambda: _spectrum(noise_spectrum(system, method=method, n_splits=n_splits, rng=rng), "noise_spectrum"),
        _spectrum(NO_SPECTRUM, "noise_spectrum"),
    )
    reasons = {"density": no_pairs, "curve": no_pairs or no_curve, "spectrum": no_signal, "noise_spectrum": no_noise}
    return {"pairs": of_pairs, "curve": curve, "spectrum": signal, "noise": noise}, reasons


def _attempt(compute: Callable[[], xr.Dataset], otherwise: xr.Dataset) -> tuple[xr.Dataset, str]:
    """What is computed, or something else and the reason."""
    try:
        return compute(), ""
    except ValueError as error:
        return otherwise, str(error)


def _curve(pairs: xr.Dataset) -> xr.Dataset:
    if "signal_correlation" not in pairs:
        raise ValueError(NO_SIGNAL)
    return binned(pairs, against="signal_correlation", edges=SIGNAL_EDGES)


def _spectrum(spectrum: xr.DataArray, name: str) -> xr.Dataset:
    return spectrum.to_dataset(name=name)


def _correlation_axis(pairs: list[xr.Dataset]) -> np.ndarray:
    """Edges that hold the noise correlations of all systems."""
    values = [table["noise_correlation"].values for table in pairs if table]
    # Symmetric around 0, so that 0 is the edge of two bins in every figure.
    largest = max((float(np.nanmax(np.abs(value))) for value in values), default=1.0)
    return np.linspace(-largest, largest, N_CORRELATIONS + 1)


def _density(pairs: xr.Dataset, edges: np.ndarray) -> xr.DataArray:
    centres = (edges[:-1] + edges[1:]) / 2
    density = np.full(N_CORRELATIONS, np.nan)
    if pairs:
        values = pairs["noise_correlation"].values
        density = np.histogram(values[np.isfinite(values)], edges, density=True)[0]
    return xr.DataArray(density, dims="correlation", coords={"correlation": centres})
