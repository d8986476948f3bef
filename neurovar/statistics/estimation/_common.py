"""What several estimators share: labels for results, and checks of what they need."""

import numpy as np
import xarray as xr

from neurovar.responses import constant_units, repeat_counts, validate
from neurovar.statistics._groups import unit_coords

CARRIED = ("source", "window", "dropped_units", "drift_removed", "gain_removed")
"""Attributes of responses that their statistics keep."""


def correlation_kernel(covariance: np.ndarray) -> np.ndarray:
    """The correlations of a covariance matrix, NaN where a variance is not positive."""
    variance = np.diag(covariance)
    scale = np.sqrt(np.where(variance > 0, variance, np.nan))
    correlation = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, np.where(variance > 0, 1, np.nan))
    return correlation


def require_splits(responses: xr.DataArray, n_splits: int) -> None:
    if n_splits < 1:
        raise ValueError(f"expected at least 1 split, got {n_splits}")
    require_stimuli(responses, 3)


def require_stimuli(responses: xr.DataArray, least: int, *, repeats: int = 2) -> None:
    """Raise ValueError unless `responses` are valid with at least so many stimuli of so many repeats each."""
    validate(responses, min_repeats=repeats)
    repeated = int((repeat_counts(responses) >= repeats).sum())
    if repeated < least:
        raise ValueError(f"expected at least {least} stimuli with {repeats} repeats, got {repeated}")


def require_units(responses: xr.DataArray, least: int) -> None:
    if responses.sizes["unit"] < least:
        raise ValueError(f"expected at least {least} units, got {responses.sizes['unit']}")


def require_varying(responses: xr.DataArray) -> None:
    """Raise ValueError if a unit never varies between repeats: it has no correlation."""
    constant = constant_units(responses)
    if len(constant):
        raise ValueError(
            f"expected units that vary between repeats, got {len(constant)} with zero noise variance "
            f"(positions {constant[:5].tolist()}); responses.drop_constant removes them"
        )


def require_counts(responses: xr.DataArray) -> None:
    """Raise ValueError unless the responses are spike counts."""
    if responses.attrs.get("units") != "spike count":
        why = f" ({responses.attrs['residuals']})" if "residuals" in responses.attrs else ""
        raise ValueError(f"expected counts, attrs['units'] = 'spike count', got {responses.attrs.get('units')!r}{why}")
    if (responses.values < 0).any():
        raise ValueError(f"expected spike counts, got negative values (smallest {np.nanmin(responses.values):g})")


def labelled_matrix(values: np.ndarray, responses: xr.DataArray) -> xr.DataArray:
    """A matrix (unit, other_unit) with the units' coordinates and what `CARRIED` attrs the responses have."""
    return xr.DataArray(values, dims=("unit", "other_unit"), coords=unit_coords(responses), attrs=carried(responses))


def labelled_units(values: np.ndarray, responses: xr.DataArray) -> xr.DataArray:
    """Values (unit) with the units' coordinates and what `CARRIED` attrs the responses have."""
    return xr.DataArray(values, dims="unit", coords=unit_coords(responses), attrs=carried(responses))


def carried(responses: xr.DataArray) -> dict:
    return {name: responses.attrs[name] for name in CARRIED if name in responses.attrs}
