"""What a recording is like: its variability, how reliable it is, how much there is of it, and what was left out."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from neurovar._provenance import provenance
from neurovar.responses import drop_constant, repeat_counts, residuals, sum_time, validate
from neurovar.statistics._registry import STATISTICS, choose
from neurovar.statistics._statistic import Halves, Statistic
from neurovar.statistics.estimation._noise import noise_correlation
from neurovar.statistics.estimation._signal import signal_correlation

DESCRIBED = ("noise_correlation", "fano_factor", "reliability", "signal_correlation", "effective_dimensionality")
MOST_PAIRED = 1000
"""Units whose pairs are described: half a million pairs, whose mean and spread more pairs would not sharpen."""
ORIGIN = ("units", "source", "title", "doi", "citation", "license", "license_url", "hash", "window")


def describe(
    responses: xr.DataArray,
    statistics: Sequence[str | Statistic] = DESCRIBED,
    *,
    n_splits: int = 20,
    rng: np.random.Generator | int,
) -> xr.Dataset:
    """The statistics of one recording, unit by unit and pair by pair.

    Units that never vary between repeats are left out. Noise correlations are z-scored for each stimulus where some
    stimulus has three repeats or more. Pairs are those of at most 1000 units, drawn at random where there are more.

    Parameters
    ----------
    responses : xarray.DataArray
        (stimulus, repeat, unit), perhaps with a last dim `time`, over which it is summed first.
    statistics : sequence of str or Statistic, optional
        Names in `STATISTICS` or statistics of one's own.
    n_splits : int, optional
        Random halves of the repeats, for reliability, signal correlation and whatever else uses them.
    rng : numpy.random.Generator or int
        For random halves, and for the choice of units whose pairs are described.

    Returns
    -------
    xarray.Dataset
        The statistics, of a unit (unit), of a pair (pair) or of the population: by default `noise_correlation`,
        `signal_correlation` (pair); `fano_factor`, `reliability` (unit); `effective_dimensionality`. Beside them
        `mean_response`, `noise_variance` (unit), averages over stimuli weighted by Rₛ − 1, so that they are equal for
        Poisson counts; `n_repeats` (stimulus). The coordinates `unit_number` of a unit, `unit_1` and `unit_2` of a pair
        are positions in `responses`, from 0. A statistic that `responses` do not allow (a Fano factor of residuals) is
        NaN, and its attrs["reason"] says why; attrs["label"] is what it is called. attrs have the origin, the
        parameters, `n_trials`, the `n_recorded` units, those `dropped` here and what was `dropped_before`, and how
        `noise_correlations`, `pairs` and `time` were treated.

    Raises
    ------
    ValueError
        If responses are not valid, or a statistic is unknown or lacks a setting.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842; for each statistic those in `neurovar.statistics.estimation`

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=60, n_repeats=5, n_units=8, counts=True, rng=0)
    >>> describe(da, rng=0).noise_correlation.shape
    (28,)
    """
    summed, time = _summed(responses)
    n_repeats = repeat_counts(summed).values
    zscore = bool(n_repeats.max() > 2)
    chosen = _chosen(statistics, zscore=zscore, n_splits=n_splits)
    # Signal correlation and reliability come first, so that their draws do not depend on what else is asked for.
    others = [statistic.name for statistic in chosen if statistic.name not in ("signal_correlation", "reliability")]
    pair_rng, *rngs = np.random.default_rng(rng).spawn(3 + len(others))
    rng_of = dict(zip(("signal_correlation", "reliability", *others), rngs))
    kept, dropped = _varying(summed)
    paired = _sample(kept, pair_rng)
    n_units, n_paired = kept.sizes["unit"], paired.sizes["unit"]
    variables = {
        statistic.name: _attempt(
            partial(statistic.values, paired if statistic.over == "pair" else kept, rng=rng_of[statistic.name]),
            () if statistic.over == "population" else (statistic.over,),
            {"population": 1, "unit": n_units, "pair": n_paired * (n_paired - 1) // 2}[statistic.over],
            {"label": statistic.label},
        )
        for statistic in chosen
    }
    variables["mean_response"] = _attempt(lambda: _mean_and_variance(kept)[0], ("unit",), n_units, {})
    variables["noise_variance"] = _attempt(lambda: _mean_and_variance(kept)[1], ("unit",), n_units, {})
    attrs = {
        "n_trials": int(n_repeats.sum()),
        "dropped": dropped,
        "time": time,
        "pairs": f"of {n_paired} units drawn at random from {n_units}" if n_paired < n_units else "all",
        "noise_correlations": "z-scored for each stimulus" if zscore else "pooled over stimuli, not z-scored",
        "n_splits": n_splits,
        "rng": str(rng),
    }
    return xr.Dataset(
        variables | {"n_repeats": ("stimulus", n_repeats)},
        coords=_coords(kept.drop_vars(variables, errors="ignore"), paired)
        | {"stimulus": _plain(summed["stimulus"].values)},
        attrs=_origin(responses) | attrs | provenance(),
    )


def summarise(description: xr.Dataset) -> pd.DataFrame:
    """One row a statistic of `describe`: mean and standard deviation over n units or pairs, or why it is not there.

    The standard deviation (divisor n − 1) is the spread over units or pairs, no standard error. NaN values (pairs that
    never vary for the same stimulus) are not among the n.

    Parameters
    ----------
    description : xarray.Dataset
        What `describe` returned.

    Returns
    -------
    pandas.DataFrame
        Indexed by `statistic`, its label: `mean`, `sd`, `n`, `of` ("units", "pairs" or ""), `reason`.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=60, n_repeats=5, n_units=8, counts=True, rng=0)
    >>> summarise(describe(da, rng=0))["n"].tolist()
    [28, 8, 8, 28, 1]
    """
    rows = []
    for variable in description.data_vars.values():
        if "label" not in variable.attrs:
            continue
        values = variable.values[np.isfinite(variable.values)]
        rows.append(
            {
                "statistic": variable.attrs["label"],
                "mean": values.mean() if values.size else np.nan,
                "sd": values.std(ddof=1) if values.size > 1 else np.nan,
                "n": values.size,
                "of": f"{variable.dims[0]}s" if variable.dims else "",
                "reason": variable.attrs["reason"],
            }
        )
    return pd.DataFrame(rows).set_index("statistic")


def _chosen(statistics: Sequence[str | Statistic], *, zscore: bool, n_splits: int) -> tuple[Statistic, ...]:
    """The statistics, two of them in the form that suits single pairs of one recording."""
    forms: dict[str, Statistic] = {
        # With two repeats z-scored residuals are ±1/√2 whatever the noise; systems of one table must be treated alike,
        # so that only here the form follows from the number of repeats.
        "noise_correlation": replace(
            STATISTICS["noise_correlation"], function=partial(noise_correlation, zscore=zscore)
        ),
        "signal_correlation": replace(
            STATISTICS["signal_correlation"], function=_signal_correlation, settings=Halves()
        ),
    }
    named = [forms.get(item, item) if isinstance(item, str) else item for item in statistics]
    return choose(statistics if isinstance(statistics, str) else named, {"n_splits": n_splits})


def _signal_correlation(responses: xr.DataArray, settings: Halves, rng: np.random.Generator) -> xr.DataArray:
    return signal_correlation(responses, n_splits=settings.n_splits, rng=rng)


def _origin(responses: xr.DataArray) -> dict[str, object]:
    return {name: str(responses.attrs[name]) for name in ORIGIN if name in responses.attrs} | {
        "n_recorded": responses.sizes["unit"],
        "dropped_before": _dropped_before(responses.attrs),
    }


def _summed(responses: xr.DataArray) -> tuple[xr.DataArray, str]:
    resolved = "time" in getattr(responses, "dims", ())
    loaded = validate(responses, time=resolved).compute()
    if not resolved:
        return loaded, "one value a trial"
    return sum_time(loaded), f"summed over {loaded.sizes['time']} time bins"


def _varying(responses: xr.DataArray) -> tuple[xr.DataArray, str]:
    """Without the units that never vary, if there are repeats and units to tell; `unit_number` is where one was."""
    marked = responses.assign_coords(unit_number=("unit", np.arange(responses.sizes["unit"])))
    try:
        kept = drop_constant(marked)
    except ValueError:  # no repeats, or no unit varies: each statistic says so itself
        return marked, "none"
    positions = ", ".join(map(str, kept.attrs["dropped_units"]))
    return kept, f"never vary between repeats: {positions}" if positions else "none"


def _dropped_before(attrs: Mapping[Hashable, object]) -> str:
    """What whoever made the responses says that they dropped, such as attrs["red_cells_dropped"] = 12."""
    stated = {str(name).replace("_", " "): str(value) for name, value in attrs.items() if "dropped" in str(name)}
    return ", ".join(f"{name}: {value}" for name, value in stated.items() if value not in ("0", "[]")) or "none known"


def _sample(responses: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    n_units = responses.sizes["unit"]
    if n_units <= MOST_PAIRED:
        return responses
    return responses.isel(unit=np.sort(rng.choice(n_units, MOST_PAIRED, replace=False)))


def _attempt(compute: Callable[[], np.ndarray], dims: tuple[str, ...], n_values: int, attrs: dict) -> xr.Variable:
    """What is computed, or NaN and the reason."""
    shape = (n_values,) if dims else ()
    try:
        values = np.asarray(compute(), dtype=np.float64)
        if values.shape != shape:
            raise ValueError(f"expected a value for each {dims[0] if dims else 'population'}, got shape {values.shape}")
        return xr.Variable(dims, values, attrs | {"reason": ""})
    except ValueError as error:
        return xr.Variable(dims, np.full(shape, np.nan), attrs | {"reason": str(error)})


def _mean_and_variance(responses: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Each unit's mean and noise variance, averages over stimuli weighted by Rₛ − 1."""
    # The pooled variance weighs stimuli by their degrees of freedom; with the same weights the mean of Poisson counts
    # is equal to it, and units lie on the diagonal of a figure.
    validate(responses, min_repeats=2)
    weight = repeat_counts(responses) - 1
    mean = (responses.mean("repeat") * weight).sum("stimulus") / weight.sum()
    variance = (residuals(responses) ** 2).sum(("stimulus", "repeat")) / weight.sum()
    return mean.values, variance.values


def _coords(kept: xr.DataArray, paired: xr.DataArray) -> dict:
    first, second = np.triu_indices(paired.sizes["unit"], 1)
    position = paired["unit_number"].values
    of_units = {str(name): coord.values for name, coord in kept.coords.items() if coord.dims == ("unit",)}
    return {name: ("unit", _plain(values)) for name, values in of_units.items()} | {
        "unit_1": ("pair", position[first]),
        "unit_2": ("pair", position[second]),
    }


def _plain(labels: np.ndarray) -> np.ndarray:
    """Labels that a file can hold: numbers as they are, all else as text."""
    return labels if labels.dtype.kind in "biuf" else labels.astype(str)
