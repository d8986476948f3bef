"""How reliable each unit's tuning is, and how well a model can predict it."""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, device

from neurovar.responses import floating
from neurovar.statistics._estimator import Needs, estimator, require_splits
from neurovar.statistics.estimation._signal import count, halves, means_and_noise


@estimator(Needs(stimuli=3))
def reliability(
    responses: xr.DataArray, *, n_splits: int = 20, rng: np.random.Generator | int, by: str | None = None
) -> xr.DataArray:
    """Split-half reliability of each unit's tuning, with the Spearman–Brown correction; `by=` groups units or stimuli.

    r = correlation over stimuli of the means of two disjoint random halves of the repeats, averaged over `n_splits`;
    reliability = 2r / (1 + r): the correlation of the full mean with that of as many new repeats. One repeat of an odd
    number is left out of each split, so it slightly understates (by the missing repeat). Where r < 0 the correction
    exaggerates: to −∞ at r = −1.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_splits : int, optional
        The number of random halves to average over.
    rng : numpy.random.Generator or int
        Draws the random halves.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit), without units; NaN for a unit whose mean does not vary over stimuli.

    Raises
    ------
    ValueError
        If responses are not valid, fewer than three stimuli have two repeats, or `n_splits` < 1.

    References
    ----------
    Spearman 1910, doi:10.1111/j.2044-8295.1910.tb00206.x; Brown 1910, doi:10.1111/j.2044-8295.1910.tb00207.x

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=200, n_repeats=4, n_units=3, rng=0)
    >>> bool((reliability(da, rng=0) < 1).all())
    True
    """
    require_splits(n_splits)
    return xr.DataArray(reliability_kernel(responses.values, n_splits, np.random.default_rng(rng)), dims="unit")


def reliability_kernel(values: Any, n_splits: int, rng: np.random.Generator) -> Any:
    """`reliability` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the random halves.

    Returns
    -------
    array of NumPy or torch
        (unit,), NaN where the means do not vary.
    """
    means, noise, present = means_and_noise(values)
    xp = array_namespace(means)
    total = xp.zeros(means.shape[1], dtype=means.dtype, device=device(means))
    for _ in range(n_splits):
        # A Pearson correlation over stimuli: both halves centred, for each unit.
        first, second = (half - xp.mean(half, axis=0) for half in halves(means, noise, present, rng))
        scale = xp.sqrt(xp.sum(first * first, axis=0) * xp.sum(second * second, axis=0))
        scale[~(scale > 0)] = xp.nan
        total += xp.sum(first * second, axis=0) / scale
    # Spearman–Brown: with signal variance S and noise σ² the mean of R/2 trials has r = S/(S + 2σ²/R), that of R trials
    # S/(S + σ²/R). Eliminating σ²/R = S(1 − r)/(2r) gives S/(S + σ²/R) = 2r/(1 + r).
    r = total / n_splits
    return 2 * r / (1 + r)


@estimator(Needs(stimuli=3))
def noise_ceiling(responses: xr.DataArray, *, by: str | None = None) -> xr.DataArray:
    """Largest correlation with a unit's mean response that a perfect model can reach; `by=` groups units or stimuli.

    c = √(S / T), T = Σ_s (x̄_s − x̄)² / (n − 1) the variance of the means over the n stimuli with two repeats or more,
    S = T − (1/n) Σ_s σ̂²_s / Rₛ the unbiased variance of the noise-free tuning (`signal_covariance`), σ̂²_s the noise
    variance for stimulus s with dof Rₛ − 1: the CCmax of Schoppe et al. 2016 with a signal power that does not depend
    on which repeats of different stimuli come first, and for unequal Rₛ. c² is the largest r², and the reliability of
    the mean: what `reliability` estimates from halves.

    S and T are unbiased; for Gaussian tuning and noise the ratio c² is too small by 2(1 − c²)/(n − 3), which is
    negligible unless stimuli are few. Leaving out the units without a ceiling favours larger ones.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit), without units; NaN for units with S ≤ 0, whose positions are in attrs["dropped_units"].

    Raises
    ------
    ValueError
        If responses are not valid or fewer than three stimuli have two repeats.

    References
    ----------
    Schoppe et al. 2016, doi:10.3389/fncom.2016.00010

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]], [[4.0], [4.0]], [[5.0], [7.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0, 1, 2]})
    >>> float((noise_ceiling(da)[0] ** 2).round(12))  # 1 − (2/2 + 0/2 + 2/2) / 3 / 4
    0.833333333333
    """
    return _with_dropped(noise_ceiling_kernel(responses.values))


def noise_ceiling_kernel(values: Any) -> Any:
    """`noise_ceiling` of an array (stimulus, repeat, unit) of NumPy or torch.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array of NumPy or torch
        (unit,), NaN where the signal variance is not positive.
    """
    total, signal, _, _ = _variances(values)
    signal[~(signal > 0)] = array_namespace(signal).nan
    # A perfect model gives the noise-free tuning; its correlation with tuning plus noise is S/√(S·T) = √(S/T).
    return (signal / total) ** 0.5


def corrected_r2(prediction: xr.DataArray, responses: xr.DataArray, *, by: str | None = None) -> xr.DataArray:
    """r² of each unit's prediction with its noise-free tuning; `by=` groups units or stimuli.

    ((Σ_s p_s x̄_s)² − Σ_s p_s² σ̂²_s/Rₛ) / ((n − 1) S Σ_s p_s²), p the prediction less its mean over the n stimuli with
    two repeats or more, S and σ̂²_s as in `noise_ceiling`: the squared Pearson correlation with the mean response, less
    what noise adds to it, over the squared noise ceiling. This is the r²_ER of Pospisil & Bair 2021, for noise that
    differs between stimuli and unequal Rₛ. Without the second term it would be each unit's r² over its reliability, as
    is common for scores of models, which is too large by about (1/c² − 1)/(n − 1), c the noise ceiling.

    Numerator and denominator are unbiased if the prediction was fitted to other trials than these. What remains is the
    bias of a ratio, for Gaussian noise about 2r²(1/c² − 1)² R/((R − 1)(n − 1)): too large, but little unless units are
    unreliable. Single units can be below 0 or above 1: average over units without clipping.

    Parameters
    ----------
    prediction : DataArray
        (stimulus, unit), with the same stimuli in any order and the same units in the same order.
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (unit), without units; NaN for units with S ≤ 0, whose positions are in attrs["dropped_units"].

    Raises
    ------
    ValueError
        If responses are not valid, fewer than three stimuli have two repeats, or the prediction is not finite, has
        other stimuli or units, or does not vary over the stimuli.

    References
    ----------
    Pospisil & Bair 2021, doi:10.1371/journal.pcbi.1009212; Schrimpf et al. 2018, doi:10.1101/407007

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([[[1.0], [3.0]], [[4.0], [4.0]], [[5.0], [7.0]]], dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0, 1, 2]})
    >>> float(corrected_r2(da.mean("repeat"), da)[0].round(12))  # (8² − (4 · 1 + 0 + 4 · 1)) / (2 · 10/3 · 8)
    1.05
    """
    responses = Needs(stimuli=3).check(responses)
    # As a coordinate it is taken apart with the responses.
    together = responses.assign_coords(_prediction=(("stimulus", "unit"), _matched(prediction, responses)))
    return _corrected_r2(together, by=by).rename("corrected_r2")


@estimator(Needs(stimuli=3))
def _corrected_r2(responses: xr.DataArray, *, by: str | None = None) -> xr.DataArray:
    prediction = responses["_prediction"].values
    kept = prediction[responses.notnull().all("unit").sum("repeat").values > 1]
    # Below 1e-6 of its size a range may be float32's rounding: a constant prediction has no correlation.
    constant = np.flatnonzero(np.ptp(kept, axis=0) <= 1e-6 * np.abs(kept).max(axis=0))
    if len(constant):
        raise ValueError(
            f"expected predictions that vary over the stimuli with two repeats, got constant ones for {len(constant)} "
            f"units (positions {constant[:5].tolist()})"
        )
    return _with_dropped(corrected_r2_kernel(kept, responses.values))


def corrected_r2_kernel(prediction: Any, values: Any) -> Any:
    """`corrected_r2` of arrays (stimulus with two repeats or more, unit) and (stimulus, repeat, unit).

    Parameters
    ----------
    prediction : array of NumPy or torch
        (stimulus, unit), of the stimuli with two repeats or more, in order.
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.

    Returns
    -------
    array of NumPy or torch
        (unit,), NaN where the signal variance is not positive.
    """
    _, signal, means, error = _variances(values)
    xp = array_namespace(prediction, values)
    prediction = floating(prediction)
    prediction = prediction - xp.mean(prediction, axis=0)
    square = prediction * prediction
    signal[~(signal > 0)] = xp.nan
    # E(Σ p x̄)² = (Σ p μ)² + Σ p² σ²_s/Rₛ: the second term, which a prediction gets from noise alone, goes off.
    explained = xp.sum(prediction * means, axis=0) ** 2 - xp.sum(square * error, axis=0)
    return explained / ((means.shape[0] - 1) * signal * xp.sum(square, axis=0))


def _variances(values: Any) -> tuple[Any, Any, Any, Any]:
    """Of each unit T and S as in `noise_ceiling`; of each stimulus the centred means and their variances σ̂²_s/Rₛ."""
    means, noise, present = means_and_noise(values)
    xp = array_namespace(means)
    n_repeats = count(present, means)
    noise *= noise
    # σ̂²_s/Rₛ with dof Rₛ − 1: the variance of the mean of Rₛ trials.
    error = xp.sum(noise, axis=1) / (n_repeats * (n_repeats - 1))[:, None]
    means -= xp.mean(means, axis=0)
    total = xp.sum(means * means, axis=0) / (means.shape[0] - 1)
    return total, total - xp.mean(error, axis=0), means, error


def _matched(prediction: xr.DataArray, responses: xr.DataArray) -> np.ndarray:
    """The prediction's values, for the stimuli of the responses in their order."""
    if not isinstance(prediction, xr.DataArray) or prediction.dims != ("stimulus", "unit"):
        got = getattr(prediction, "dims", type(prediction).__name__)
        raise ValueError(f"expected a prediction with dims ('stimulus', 'unit'), got {got}")
    if prediction.sizes["unit"] != responses.sizes["unit"]:
        raise ValueError(f"expected predictions of {responses.sizes['unit']} units, got {prediction.sizes['unit']}")
    if "unit" in prediction.coords and "unit" in responses.coords and not prediction.unit.equals(responses.unit):
        raise ValueError("expected the prediction's units in the order of the responses', got other ids")
    of_responses, of_prediction = responses.indexes["stimulus"], prediction.indexes.get("stimulus")
    if of_prediction is None or not of_prediction.is_unique:
        raise ValueError("expected a prediction with a coordinate 'stimulus' of unique ids, got none or repeated ones")
    missing, unknown = of_responses.difference(of_prediction), of_prediction.difference(of_responses)
    if len(missing) or len(unknown):
        raise ValueError(
            f"expected predictions for the stimuli of the responses, got none for {len(missing)} of them "
            f"({', '.join(map(str, missing[:5]))}) and some for {len(unknown)} others"
        )
    values = prediction.sel(stimulus=of_responses).values
    if not np.isfinite(values).all():
        raise ValueError(f"expected finite predictions, got {int((~np.isfinite(values)).sum())} that are not")
    return values


def _with_dropped(values: np.ndarray) -> xr.DataArray:
    """Values of units, with the positions of those that are NaN as the dropped ones."""
    return xr.DataArray(values, dims="unit", attrs={"dropped_units": np.flatnonzero(np.isnan(values)).tolist()})
