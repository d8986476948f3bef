"""Which trial is shown when, and what drifts meanwhile."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from neurovar.responses import DIMS, trial_order, validate
from neurovar.statistics.simulation import _tuning


def present(tuning: xr.DataArray, *, n_repeats: int | Sequence[int], rng: np.random.Generator | int) -> xr.DataArray:
    """The expected response of every trial, all trials being shown in one random order.

    Parameters
    ----------
    tuning : DataArray
        (stimulus, unit), the mean responses.
    n_repeats : int or sequence of int
        Rₛ, one number for all stimuli or one for each; the rest of the repeats is absent (NaN).
    rng : numpy.random.Generator or int
        Draws the order of the trials.

    Returns
    -------
    DataArray
        (stimulus, repeat, unit); its coordinate `presentation` (stimulus, repeat) is the place of each trial in the
        order shown, −1 where absent, as `responses.arrange` gives it: it grows with the repeat.

    Raises
    ------
    ValueError
        If the tuning is not finite numbers (stimulus, unit) with stimulus ids, or a stimulus has no repeat.

    Examples
    --------
    >>> curves = _tuning.orientation_tuning([0, 90], n_units=2, baseline=0, amplitude=1, concentration=1)
    >>> present(curves, n_repeats=[1, 3], rng=0).presentation.values.tolist()
    [[1, -1, -1], [0, 2, 3]]
    """
    if not isinstance(tuning, xr.DataArray) or tuning.dims != _tuning.DIMS or "stimulus" not in tuning.coords:
        got = tuning.dims if isinstance(tuning, xr.DataArray) else type(tuning).__name__
        raise ValueError(f"expected a DataArray with dims {_tuning.DIMS} and stimulus ids, got {got}")
    if not np.isfinite(tuning.values).all():
        raise ValueError(f"expected finite mean responses, got {int((~np.isfinite(tuning.values)).sum())} others")
    repeats = np.asarray(n_repeats)
    if repeats.shape not in ((), (len(tuning),)) or repeats.dtype.kind not in "iu" or (repeats < 1).any():
        raise ValueError(f"expected 1 repeat or more, of all or each of {len(tuning)} stimuli, got {n_repeats}")
    shown = np.repeat(np.arange(len(tuning)), repeats)
    # All trials of all stimuli in one random order: what drifts is then independent of the stimulus.
    order = trial_order(np.random.default_rng(rng).permutation(shown))
    trials = np.where(order[..., None] < 0, np.nan, tuning.values[:, None])
    return xr.DataArray(
        trials.astype(np.result_type(tuning.dtype, np.float32), copy=False),
        dims=DIMS,
        coords={**tuning.coords, "presentation": (DIMS[:2], order)},
        attrs=tuning.attrs | {"source": "simulation"},
    )


def additive_drift(
    trials: xr.DataArray, *, path: str, standard_deviation: float, shared: bool, rng: np.random.Generator | int
) -> xr.DataArray:
    """Expected responses plus a slow drift d over presentations, x_su + d_tu.

    Each path has mean 0 and exactly the `standard_deviation` σ over all T presentations, so drift that is `shared`
    adds σ² T/(T − 1) to every entry of the expected noise covariance; drift of each unit's own, to the diagonal alone
    on average over paths. (In any one session slow paths do correlate, by chance and strongly.)

    Parameters
    ----------
    trials : DataArray
        (stimulus, repeat, unit) with the coordinate `presentation`, as from `present`.
    path : str
        "random_walk" (Gaussian steps), or "sinusoid" (one cycle a session, from a random phase).
    standard_deviation : float
        σ > 0, over all presentations, in the units of the responses.
    shared : bool
        Whether all units drift together, or each on a path of its own.
    rng : numpy.random.Generator or int
        Draws the path.

    Returns
    -------
    DataArray
        Like `trials`, so that its difference from them is the drift; the attributes `drift`, `drift_path`,
        `drift_standard_deviation` and `drift_units` ("shared" or "private") say what it is.

    Raises
    ------
    ValueError
        If the path is another, the standard deviation not positive, or there are fewer than 2 presentations.

    Examples
    --------
    >>> curves = _tuning.orientation_tuning([0, 90], n_units=2, baseline=0, amplitude=1, concentration=1)
    >>> trials = present(curves, n_repeats=3, rng=0)
    >>> drifted = additive_drift(trials, path="sinusoid", standard_deviation=0.5, shared=False, rng=0)
    >>> (drifted - trials).std(("stimulus", "repeat")).values.round(12)
    array([0.5, 0.5])
    """
    drift = _drift(trials, path, standard_deviation, shared, np.random.default_rng(rng))
    shifted = trials.values + _of_trials(drift, trials)
    return trials.copy(data=shifted).assign_attrs(_truth("additive", path, standard_deviation, shared))


def gain_drift(
    trials: xr.DataArray, *, path: str, standard_deviation: float, shared: bool, rng: np.random.Generator | int
) -> xr.DataArray:
    """Expected responses times a slowly drifting gain, x_su · g_tu, g_t = exp(d_t) / mean of exp(d).

    For rates, which cannot be negative: d is the path of `additive_drift`, so `standard_deviation` is that of the
    log-gain. The gain's mean over presentations is 1.

    Parameters
    ----------
    trials : DataArray
        (stimulus, repeat, unit) with the coordinate `presentation`, as from `present`.
    path : str
        "random_walk" (Gaussian steps), or "sinusoid" (one cycle a session, from a random phase).
    standard_deviation : float
        σ > 0 of the log-gain over all presentations, without units.
    shared : bool
        Whether all units have one gain, or each its own.
    rng : numpy.random.Generator or int
        Draws the path.

    Returns
    -------
    DataArray
        Like `trials`; the attributes `drift` ("gain"), `drift_path`, `drift_standard_deviation` and `drift_units`
        ("shared" or "private") say what the drift is.

    Raises
    ------
    ValueError
        If the path is another, the standard deviation not positive, or there are fewer than 2 presentations.

    Examples
    --------
    >>> curves = _tuning.orientation_tuning([0, 90], n_units=2, baseline=1, amplitude=0, concentration=1)
    >>> trials = present(curves, n_repeats=3, rng=0)
    >>> drifted = gain_drift(trials, path="random_walk", standard_deviation=0.3, shared=True, rng=0)
    >>> drifted.mean(("stimulus", "repeat")).values.round(12)
    array([1., 1.])
    """
    gain = np.exp(_drift(trials, path, standard_deviation, shared, np.random.default_rng(rng)))
    scaled = trials.values * _of_trials(gain / gain.mean(axis=0), trials)
    return trials.copy(data=scaled).assign_attrs(_truth("gain", path, standard_deviation, shared))


def _drift(
    trials: xr.DataArray, path: str, standard_deviation: float, shared: bool, rng: np.random.Generator
) -> np.ndarray:
    """The path of each unit, (presentation, unit), or of all, (presentation, 1)."""
    validate(trials)
    if "presentation" not in trials.coords:
        raise ValueError("expected a coordinate 'presentation' with the order shown, as simulation.present gives it")
    if not 0 < standard_deviation < np.inf:
        raise ValueError(f"expected a standard deviation above 0, got {standard_deviation}")
    shape = (int(trials["presentation"].max()) + 1, 1 if shared else trials.sizes["unit"])
    if shape[0] < 2:
        raise ValueError(f"expected at least 2 presentations for a drift, got {shape[0]}")
    match path:
        case "random_walk":
            # Its standard deviation does not matter: every path is scaled to the one asked for.
            paths = rng.standard_normal(shape).cumsum(axis=0)
        case "sinusoid":
            paths = np.sin(2 * np.pi * (np.arange(shape[0])[:, None] / shape[0] + rng.random(shape[1])))
        case _:
            raise ValueError(f"expected a path 'random_walk' or 'sinusoid', got {path!r}")
    # Exactly, over all T presentations (divisor T): the truth of a simulation is no expectation but a number.
    return standard_deviation * (paths - paths.mean(axis=0)) / paths.std(axis=0)


def _of_trials(drift: np.ndarray, trials: xr.DataArray) -> np.ndarray:
    """(stimulus, repeat, unit or 1); what an absent trial gets does not matter, as it stays NaN."""
    return drift[trials["presentation"].values].astype(trials.dtype, copy=False)


def _truth(effect: str, path: str, standard_deviation: float, shared: bool) -> dict[str, str | float]:
    return {
        "drift": effect,
        "drift_path": path,
        "drift_standard_deviation": float(standard_deviation),
        "drift_units": "shared" if shared else "private",
    }
