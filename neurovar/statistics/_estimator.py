"""What every estimator does besides estimating: it asks what it needs of responses, groups, and labels its result."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import xarray as xr

from neurovar.responses import (
    DIMS,
    array_of,
    constant_units,
    floating,
    repeat_counts,
    require_pairs,
    require_simultaneous,
    validate,
    validate_form,
    why_residual,
)
from neurovar.statistics._groups import grouped, labelled

CARRIED = ("source", "window", "dropped_units", "drift_removed", "gain_removed")
"""Attributes of responses that their statistics keep."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Needs:
    """What responses must have for an estimate to be defined.

    Attributes
    ----------
    repeats, stimuli : int
        So many stimuli with so many repeats each.
    units : int
        So many units.
    together : bool
        All units were recorded together, so that their noise has a joint distribution.
    pairs : bool
        Some units were recorded together, so that their noise can be correlated.
    counts : bool
        Whole spike counts.
    means : bool
        Responses that still have their stimulus means, not residuals.
    noise : bool
        A unit that varies between repeats.
    varying : bool
        Only units that vary between repeats: a constant one has no correlation.
    """

    repeats: int = 2
    stimuli: int = 1
    units: int = 1
    together: bool = False
    pairs: bool = False
    counts: bool = False
    means: bool = False
    noise: bool = False
    varying: bool = False

    def check(self, responses: xr.DataArray) -> xr.DataArray:
        """The responses, half precision as float32; a ValueError says what is missing, in a fixed order."""
        validate(responses, min_repeats=self.repeats)
        # Before anything is estimated: in half precision a sum of 2048 ones and more stays at 2048.
        responses = promoted(responses)
        # Of chunked responses every count reads chunks: not where `validate` has said it all.
        repeated = int((repeat_counts(responses) >= self.repeats).sum()) if self.stimuli > 1 else 1
        if repeated < self.stimuli:
            raise ValueError(f"expected at least {self.stimuli} stimuli with {self.repeats} repeats, got {repeated}")
        if self.counts:
            _require_counts(responses)
        if self.together:
            require_simultaneous(responses)
        if self.pairs:
            require_pairs(responses)
        n_units = responses.sizes["unit"]
        if n_units < self.units:
            raise ValueError(f"expected at least {self.units} units, got {n_units}")
        if self.means and (reason := why_residual(responses)):
            raise ValueError(f"expected responses with their means, got residuals ({reason})")
        if self.noise or self.varying:
            require_noise(responses, every_unit=self.varying)
        return responses


def estimator(
    needs: Needs,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Make an estimate of responses whole: `needs` are checked, `by=` groups, and the result has name and labels.

    The function that is decorated gets responses that are valid, and returns numbers, or a DataArray or Dataset with
    its own dims and attributes only. What it is made into adds the units' and stimuli's coordinates, those attributes
    of the responses that `CARRIED` names, and the function's name; `by=` stands in the signature for editors and never
    arrives. A group has the estimate that it would have alone, from the same seed.

    Examples
    --------
    >>> @estimator(Needs(repeats=2))
    ... def largest(responses: xr.DataArray, *, by: str | None = None) -> xr.DataArray:
    ...     return xr.DataArray(responses.values.max(axis=(0, 1)), dims="unit")
    >>> da = xr.DataArray(np.arange(4.0).reshape(1, 2, 2), dims=("stimulus", "repeat", "unit"),
    ...                   coords={"stimulus": [0], "area": ("unit", ["V1", "V2"])})
    >>> largest(da).area.values.tolist(), largest(da, by="area").dims
    (['V1', 'V2'], ('area', 'unit'))
    """

    def decorate(estimate: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(estimate)
        def whole(responses: xr.DataArray, *, by: str | None = None, **options: Any) -> Any:
            if by is not None:
                validate_form(responses, DIMS)
                # Each group is checked for itself: what one of them lacks is named with the group.
                result = grouped(lambda group: whole(group, **options), responses, by)
            else:
                # typed for the caller: what stands here is the estimate's own first parameter and its options
                result = cast("Callable[..., Any]", estimate)(needs.check(responses), **options)
                result = finished(result, responses, estimate.__name__)
            if isinstance(result, xr.DataArray):  # also where groups of numbers became one
                result.name = estimate.__name__
            return result

        return cast("Callable[Parameters, Result]", whole)

    return decorate


def finished(result: Any, responses: xr.DataArray, name: str) -> Any:
    """A DataArray of this name or a Dataset, with labels and attributes of the responses; anything else as it is."""
    if not isinstance(result, xr.DataArray | xr.Dataset):
        return result
    if isinstance(result, xr.DataArray):
        result.name = name
    result = labelled(result, responses)
    result.attrs = carried(responses) | result.attrs
    return result


def carried(responses: xr.DataArray) -> dict:
    """The attributes of responses that their statistics keep."""
    return {name: responses.attrs[name] for name in CARRIED if name in responses.attrs}


def squared_units(responses: xr.DataArray) -> str:
    """The units of a variance of the responses."""
    return f"({responses.attrs.get('units', '?')})²"


def require_noise(responses: xr.DataArray, *, every_unit: bool) -> None:
    """Raise ValueError if no unit varies between repeats, or one does not where every one has to."""
    constant, n_units = constant_units(responses), responses.sizes["unit"]
    if every_unit and len(constant):
        raise ValueError(
            f"expected units that vary between repeats, got {len(constant)} with zero noise variance "
            f"(positions {constant[:5].tolist()}); responses.drop_constant removes them"
        )
    if len(constant) == n_units:
        raise ValueError(f"expected units that vary between repeats, got none among {n_units}")


def require_repeats(n_repeats: np.ndarray, least: int) -> None:
    """Raise ValueError unless some stimulus has so many repeats, of responses that are known to be valid."""
    if n_repeats.max() < least:
        raise ValueError(f"expected at least {least} repeats of some stimulus, got at most {n_repeats.max()}")


def require_splits(n_splits: int) -> None:
    if n_splits < 1:
        raise ValueError(f"expected at least 1 split, got {n_splits}")


def promoted(responses: xr.DataArray) -> xr.DataArray:
    """Half precision as float32, in which sums over trials still add up; a ValueError for more than double precision.

    Integers stay: kernels take them as float64 when they get to them, so that no second copy is held meanwhile.
    """
    if not np.issubdtype(responses.dtype, np.floating) or responses.dtype in (np.float32, np.float64):
        return responses
    return responses.copy(data=floating(array_of(responses)))


def _require_counts(responses: xr.DataArray) -> None:
    """Raise ValueError unless the responses are spike counts: not negative, and whole."""
    if reason := why_residual(responses):
        raise ValueError(f"expected counts, attrs['units'] = 'spike count', got residuals ({reason})")
    units = responses.attrs.get("units")
    if units != "spike count":
        # arithmetic on responses may drop attributes, so that it is no longer known whether they are counts
        remedy = "; if they are counts, set attrs['units'] again" if units is None else ""
        raise ValueError(f"expected counts, attrs['units'] = 'spike count', got {units!r}{remedy}")
    # NaN is neither below 0 nor broken: absent trials pass both tests.
    values = responses.values
    if (values < 0).any():
        raise ValueError(f"expected spike counts, got negative values (smallest {np.nanmin(values):g})")
    broken = np.nan_to_num(values % 1)
    if broken.any():
        raise ValueError(
            f"expected whole numbers of spikes, got {np.count_nonzero(broken)} others "
            f"(the first: {values[broken != 0][0]:g})"
        )
