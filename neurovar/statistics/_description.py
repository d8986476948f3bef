"""What a recording is like: its variability, how reliable it is, how much there is of it, and what was left out."""

from collections.abc import Callable, Hashable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from neurovar._provenance import provenance
from neurovar.responses import drop_constant, repeat_counts, residuals, sum_time, validate
from neurovar.statistics.estimation._counts import fano_factor
from neurovar.statistics.estimation._dimensionality import effective_dimensionality
from neurovar.statistics.estimation._noise import noise_correlation
from neurovar.statistics.estimation._reliability import reliability
from neurovar.statistics.estimation._signal import signal_correlation

STATISTICS = {
    "noise_correlation": "noise correlation r_sc",
    "fano_factor": "Fano factor",
    "reliability": "reliability",
    "signal_correlation": "signal correlation",
    "effective_dimensionality": "effective dimensionality",
}
MOST_PAIRED = 1000
ORIGIN = ("units", "source", "title", "doi", "citation", "license", "license_url", "hash", "window")


def describe(responses: xr.DataArray, *, n_splits: int = 20, rng: np.random.Generator | int) -> xr.Dataset:
    """The statistics of one recording, unit by unit and pair by pair.

    Units that never vary between repeats are left out. Noise correlations are z-scored for each stimulus where some
    stimulus has three repeats or more. Pairs are those of at most 1000 units, drawn at random where there are more.

    Parameters
    ----------
    responses : DataArray (stimulus, repeat, unit), perhaps with a last dim `time`, over which it is summed first.
    n_splits : random halves of the repeats for reliability and signal correlation.

    Returns
    -------
    Dataset: `noise_correlation`, `signal_correlation` (pair); `fano_factor`, `reliability`, `mean_response`,
    `noise_variance` (unit); `effective_dimensionality`; `n_repeats` (stimulus). Mean and variance are averages over
    stimuli weighted by Rₛ − 1, so that they are equal for Poisson counts. The coordinates `unit_number` of a unit,
    `unit_1` and `unit_2` of a pair are positions in `responses`, from 0. A statistic that `responses` do not allow (a
    Fano factor of residuals) is NaN, and its attrs["reason"] says why. attrs have the origin, the parameters,
    `n_trials`, the `n_recorded` units, those `dropped` here and what was `dropped_before`, and how
    `noise_correlations`, `pairs` and `time` were treated.

    Raises
    ------
    ValueError : if responses are not valid.

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
    pair_rng, signal_rng, reliability_rng = np.random.default_rng(rng).spawn(3)
    kept, dropped = _varying(summed)
    paired = _sample(kept, pair_rng)
    zscore = bool(n_repeats.max() > 2)
    computed: dict[str, tuple[str, Callable[[], xr.DataArray | np.ndarray | float]]] = {
        "noise_correlation": ("pair", lambda: _of_pairs(noise_correlation(paired, zscore=zscore))),
        "signal_correlation": (
            "pair",
            lambda: _of_pairs(signal_correlation(paired, n_splits=n_splits, rng=signal_rng)),
        ),
        "fano_factor": ("unit", lambda: fano_factor(kept).values),
        "reliability": ("unit", lambda: reliability(kept, n_splits=n_splits, rng=reliability_rng).values),
        "mean_response": ("unit", lambda: _mean_and_variance(kept)[0]),
        "noise_variance": ("unit", lambda: _mean_and_variance(kept)[1]),
        "effective_dimensionality": ("", lambda: effective_dimensionality(kept)),
    }
    coords = _coords(kept.drop_vars(computed, errors="ignore"), paired)
    variables = {name: _attempt(dim, coords, compute) for name, (dim, compute) in computed.items()}
    said = {
        "dropped": dropped,
        "time": time,
        "pairs": _share(paired.sizes["unit"], kept.sizes["unit"]),
        "noise_correlations": "z-scored for each stimulus" if zscore else "pooled over stimuli, not z-scored",
        "n_splits": n_splits,
        "rng": str(rng),
    }
    return xr.Dataset(
        variables | {"n_repeats": ("stimulus", n_repeats)},
        coords=coords | {"stimulus": _plain(summed["stimulus"].values)},
        attrs=_origin(responses) | {"n_trials": int(n_repeats.sum())} | said | provenance(),
    )


def summarise(description: xr.Dataset) -> pd.DataFrame:
    """One row a statistic of `describe`: mean and standard deviation over n units or pairs, or why it is not there.

    The standard deviation (divisor n − 1) is the spread over units or pairs, no standard error. NaN values (pairs that
    never vary for the same stimulus) are not among the n.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=60, n_repeats=5, n_units=8, counts=True, rng=0)
    >>> summarise(describe(da, rng=0))["n"].tolist()
    [28, 8, 8, 28, 1]
    """
    rows = []
    for name, label in STATISTICS.items():
        variable = description[name]
        values = variable.values[np.isfinite(variable.values)]
        rows.append(
            {
                "statistic": label,
                "mean": values.mean() if values.size else np.nan,
                "sd": values.std(ddof=1) if values.size > 1 else np.nan,
                "n": values.size,
                "of": f"{variable.dims[0]}s" if variable.dims else "",
                "reason": variable.attrs["reason"],
            }
        )
    return pd.DataFrame(rows).set_index("statistic")


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
    said = {str(name).replace("_", " "): str(value) for name, value in attrs.items() if "dropped" in str(name)}
    return ", ".join(f"{name}: {value}" for name, value in said.items() if value not in ("0", "[]")) or "none known"


def _sample(responses: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    n_units = responses.sizes["unit"]
    if n_units <= MOST_PAIRED:
        return responses
    return responses.isel(unit=np.sort(rng.choice(n_units, MOST_PAIRED, replace=False)))


def _share(n_paired: int, n_units: int) -> str:
    return f"of {n_paired} units drawn at random from {n_units}" if n_paired < n_units else "all"


def _attempt(dim: str, coords: dict, compute: Callable[[], xr.DataArray | np.ndarray | float]) -> xr.Variable:
    """What is computed, or NaN and the reason."""
    dims = (dim,) if dim else ()
    try:
        return xr.Variable(dims, np.asarray(compute(), dtype=np.float64), {"reason": ""})
    except ValueError as error:
        n_values = len(coords["unit_number" if dim == "unit" else "unit_1"][1])
        return xr.Variable(dims, np.full((n_values,) if dim else (), np.nan), {"reason": str(error)})


def _of_pairs(matrix: xr.DataArray) -> np.ndarray:
    if len(matrix) < 2:
        raise ValueError(f"expected at least 2 units, got {len(matrix)}")
    return matrix.values[np.triu_indices(len(matrix), 1)]


def _mean_and_variance(responses: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Each unit's mean and noise variance, averages over stimuli weighted by Rₛ − 1."""
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
