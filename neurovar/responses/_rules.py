"""The convention for responses as a list of rules: `validate` raises the first that is broken, `problems` lists all.

Responses are a DataArray of stimulus × repeat × unit, perhaps with a last dim `time`. Missing repeats are NaN. A trial
(one stimulus, one repeat) is whole or absent: it has a value for every unit or for none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from dask import compute

DIMS = ("stimulus", "repeat", "unit")
TIME_DIMS = (*DIMS, "time")
LABELS = ("area", "subject", "session")  # of the units of cortex

Repair = Callable[[xr.DataArray], xr.DataArray | None]


def all_finite(values: Any) -> bool:
    """Whether no value can be NaN or infinite, told from one sum; False where the sum is too large."""
    # NaN and infinities spread to the sum. One pass without a mask costs a tenth of np.isnan on a large recording.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(abs(float(values.sum())) < np.inf)


def array_of(responses: xr.DataArray) -> Any:
    """The values: dask's array where they are chunked, else NumPy's.

    Parameters
    ----------
    responses : DataArray
        Responses, in memory or lazy.

    Returns
    -------
    array
        `responses.data` or `responses.values`.

    Examples
    --------
    >>> array_of(xr.DataArray([1.0, 2.0]))
    array([1., 2.])
    """
    return responses.data if responses.chunks is not None else responses.values


@dataclass(frozen=True)
class Candidate:
    """What may be responses, with the dims that they should have; what several rules ask of it is computed once.

    Parameters
    ----------
    responses : object
        Anything.
    dims : tuple of str
        `DIMS` or `TIME_DIMS`.

    Examples
    --------
    >>> Candidate(xr.DataArray([[[1.0], [np.nan]]], dims=DIMS), DIMS).most_repeats
    1
    """

    responses: Any
    dims: tuple[str, ...]

    @cached_property
    def values(self) -> Any:
        # the rules about time bins need whole bins at once, so that lazy values are loaded where there is time
        return self.responses.values if "time" in self.dims else array_of(self.responses)

    @cached_property
    def complete(self) -> bool:
        """Whether every value is there and finite, so that no rule about trials can be broken."""
        return all_finite(self.values)

    @cached_property
    def present(self) -> Any:
        """Which values are there; of responses over time, which trials of a unit have their first bin."""
        present = ~np.isnan(self.values)
        return present[..., 0] if "time" in self.dims else present

    @cached_property
    def trials(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which units have a value, and which trials (stimulus, repeat) have some and which have all."""
        # one call of dask's compute reads the chunks of a lazy recording once for the three
        present = self.present
        return compute(present.any(axis=(0, 1)), present.any(axis=2), present.all(axis=2))

    @property
    def most_repeats(self) -> int:
        return self.values.shape[1] if self.complete else int(self.trials[2].sum(axis=1).max())


def _not_an_array(candidate: Candidate) -> str:
    if isinstance(candidate.responses, xr.DataArray):
        return ""
    return f"expected an xarray.DataArray, got {type(candidate.responses).__name__}"


def _other_dims(candidate: Candidate) -> str:
    dims = candidate.responses.dims
    if dims == candidate.dims:
        return ""
    advice = "; sum over time first: responses.sum_time(…)" if dims == TIME_DIMS else ""
    return f"expected dims {candidate.dims}, got {dims}{advice}"


def _not_numeric(candidate: Candidate) -> str:
    dtype = candidate.responses.dtype
    if np.issubdtype(dtype, np.number) and not np.issubdtype(dtype, np.complexfloating):
        return ""
    return f"expected real numbers, got dtype {dtype}"


def _empty(candidate: Candidate) -> str:
    dims, shape = candidate.dims, candidate.responses.shape
    return f"expected at least one {', '.join(dims[:-1])} and {dims[-1]}, got shape {shape}" if 0 in shape else ""


def _unnamed_stimuli(candidate: Candidate) -> str:
    named = "stimulus" in candidate.responses.coords
    return "" if named else "expected a coordinate 'stimulus' with an id for every stimulus, got none"


def _repeated_stimuli(candidate: Candidate) -> str:
    ids = pd.Index(candidate.responses["stimulus"].values)
    if not ids.has_duplicates:
        return ""
    repeated = ids[ids.duplicated()].unique().to_numpy()
    return f"expected unique stimulus ids, got repeated {_some(repeated, 'stimulus', 'stimuli')}"


def _infinite(candidate: Candidate) -> str:
    if candidate.complete:
        return ""
    n_infinite = int(np.isinf(candidate.values).sum())
    return f"expected finite responses or NaN, got {n_infinite} infinite values" if n_infinite else ""


def _partial_time(candidate: Candidate) -> str:
    if "time" not in candidate.dims or candidate.complete:
        return ""
    present = ~np.isnan(candidate.values)
    partial = present.any(axis=3) & ~present.all(axis=3)
    if not partial.any():
        return ""
    stimulus, repeat, unit = np.argwhere(partial)[0]
    return (
        f"expected each trial to be whole or absent, got {int(partial.sum())} with some time bins missing "
        f"(the first: stimulus {stimulus}, repeat {repeat}, unit {unit})"
    )


def _empty_units(candidate: Candidate) -> str:
    if candidate.complete or candidate.trials[0].all():
        return ""
    empty = np.flatnonzero(~candidate.trials[0])
    return f"expected a value for every unit, got only NaN for {_some(empty, 'unit', 'units')}"


def _partial_trials(candidate: Candidate) -> str:
    if candidate.complete:
        return ""
    _, some, whole = candidate.trials
    partial = some & ~whole
    if not partial.any():
        return ""
    stimulus, repeat = np.argwhere(partial)[0]
    return (
        f"expected each trial to be whole or absent, got {int(partial.sum())} trials with some units missing "
        f"(the first: stimulus {candidate.responses.stimulus.values[stimulus]!s}, repeat {repeat})"
    )


def _unseen_stimuli(candidate: Candidate) -> str:
    if candidate.complete or (seen := candidate.trials[2].any(axis=1)).all():
        return ""
    unseen = candidate.responses["stimulus"].values[~seen]
    return f"expected a trial of every stimulus, got none of {_some(unseen, 'stimulus', 'stimuli')}"


def _some(names: np.ndarray, noun: str, plural: str, *, most: int = 5) -> str:
    shown = ", ".join(map(str, names[:most])) + (", …" if len(names) > most else "")
    return f"{len(names)} {noun if len(names) == 1 else plural} ({shown})"


def _hopeless(_: xr.DataArray) -> None:
    """No repair."""


def _in_order(responses: xr.DataArray) -> xr.DataArray | None:
    dims = TIME_DIMS if "time" in responses.dims else DIMS
    return responses.transpose(*dims) if set(responses.dims) == set(dims) else None


def _numeric(responses: xr.DataArray) -> xr.DataArray | None:
    try:
        return None if responses.dtype.kind == "c" else responses.astype(float)
    except (ValueError, TypeError):
        return None


def _numbered(responses: xr.DataArray) -> xr.DataArray:
    return responses.assign_coords(stimulus=np.arange(responses.sizes["stimulus"]))


def _finite(responses: xr.DataArray) -> xr.DataArray:
    # 0 and not NaN, which would break the rule about whole trials as well, and hide what is wrong with them
    return responses.copy(data=np.where(np.isinf(responses.values), 0, responses.values))


def _whole_over_time(responses: xr.DataArray) -> xr.DataArray | None:
    n_bins = _present(responses).sum(axis=3)
    return _with_trials(responses, np.all((n_bins == 0) | (n_bins == responses.sizes["time"]), axis=2))


def _without_empty_units(responses: xr.DataArray) -> xr.DataArray | None:
    seen = _present(responses).any(axis=(0, 1, 3))
    return responses.isel(unit=seen) if seen.any() else None


def _whole_trials(responses: xr.DataArray) -> xr.DataArray | None:
    return _with_trials(responses, np.all(_present(responses), axis=(2, 3)))


def _with_trials(responses: xr.DataArray, kept: np.ndarray | np.bool_) -> xr.DataArray | None:
    """With the trials (stimulus, repeat) that are kept, the others absent; None if nothing is left."""
    left = responses.where(xr.DataArray(kept, dims=DIMS[:2]))
    return left if bool(left.notnull().any()) else None


def _seen_stimuli(responses: xr.DataArray) -> xr.DataArray:
    return responses.isel(stimulus=_present(responses).any(axis=(1, 2, 3)))


def _present(responses: xr.DataArray) -> np.ndarray:
    """Which values are there, (stimulus, repeat, unit, time), with a time of length 1 where there is none."""
    return ~np.isnan(responses.values.reshape(*responses.shape[:3], -1))


@dataclass(frozen=True)
class Rule:
    """One rule of the convention.

    A rule may take for granted that those before it in `RULES` hold.

    Parameters
    ----------
    broken : callable
        From a candidate to the message that says what was expected and what came; "" where the rule holds.
    repair : callable
        From responses that break the rule to responses that keep it, so that the next rules can be looked at, or to
        None if there is no such repair. It is no advice: what it does to the values may be wrong for the user.
    advice : str
        What the user can do.

    Examples
    --------
    >>> RULES[0].advice
    'see the convention: help(neurovar.responses)'
    """

    broken: Callable[[Candidate], str]
    repair: Repair
    advice: str


CONVENTION = "see the convention: help(neurovar.responses)"
FORM = (
    Rule(_not_an_array, _hopeless, CONVENTION),
    Rule(_other_dims, _in_order, "transpose it: responses.transpose('stimulus', 'repeat', 'unit')"),
    Rule(_not_numeric, _numeric, "convert it: responses.astype(float)"),
    Rule(_empty, _hopeless, CONVENTION),
    Rule(_unnamed_stimuli, _numbered, "name the stimuli: responses.assign_coords(stimulus=ids)"),
    Rule(_repeated_stimuli, _numbered, "give each stimulus one id, and put its repeats along 'repeat'"),
)
"""Those that do not look at values."""

RULES = (
    *FORM,
    Rule(_infinite, _finite, "find where they come from (a division by 0?), or mark those trials absent (NaN)"),
    Rule(_partial_time, _whole_over_time, "mark such trials absent (NaN), or cut time to fit all"),
    Rule(_empty_units, _without_empty_units, "drop those units: responses.isel(unit=…)"),
    Rule(_partial_trials, _whole_trials, "mark such trials absent (NaN), or drop those units"),
    Rule(_unseen_stimuli, _seen_stimuli, "drop those stimuli: responses.isel(stimulus=…)"),
)
"""The convention, in the order in which `validate` and `problems` look."""


def broken_rule(candidate: Candidate, rules: tuple[Rule, ...] = RULES) -> tuple[Rule, str] | None:
    """The first rule that is broken, and the message that says how; None where all hold.

    Parameters
    ----------
    candidate : Candidate
        What may be responses, and the dims that they should have.
    rules : tuple of Rule, optional
        The rules, in order; by default all.

    Returns
    -------
    tuple of Rule and str, or None
        The rule and its message.

    Examples
    --------
    >>> rule, message = broken_rule(Candidate("text", DIMS))
    >>> message
    'expected an xarray.DataArray, got str'
    """
    for rule in rules:
        if message := rule.broken(candidate):
            return rule, message
    return None


def validate(responses: xr.DataArray, *, min_repeats: int = 1, time: bool = False) -> xr.DataArray:
    """Return `responses` unchanged, or say what is missing, in a fixed order.

    The order is: type, dims, numeric dtype, size, unique stimulus ids, infinities, units without any value,
    half-missing trials, stimuli without a trial, repeats.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit).
    min_repeats : int, optional
        The number of repeats that at least one stimulus must have.
    time : bool, optional
        Whether a last dim `time` is wanted too, as `sum_time` takes it; a trial is then whole or absent over time.

    Returns
    -------
    DataArray
        `responses`, the same object.

    Raises
    ------
    ValueError
        Naming what was expected and what came.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> da = xr.DataArray(np.ones((2, 1, 3)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a", "b"]})
    >>> validate(da, min_repeats=2)
    Traceback (most recent call last):
    ...
    ValueError: expected at least 2 repeats of some stimulus, got at most 1
    """
    candidate = Candidate(responses, TIME_DIMS if time else DIMS)
    _require(candidate, RULES)
    if candidate.most_repeats < min_repeats:
        raise ValueError(
            f"expected at least {min_repeats} repeats of some stimulus, got at most {candidate.most_repeats}"
        )
    return responses


def validate_form(responses: xr.DataArray, dims: tuple[str, ...]) -> None:
    """Raise ValueError unless responses keep the rules that do not look at values: of lazy ones, none is read.

    Parameters
    ----------
    responses : DataArray
        What may be responses.
    dims : tuple of str
        `DIMS` or `TIME_DIMS`.

    Raises
    ------
    ValueError
        Naming what was expected and what came.

    Examples
    --------
    >>> validate_form(xr.DataArray([[[1.0]]], dims=DIMS), DIMS)
    Traceback (most recent call last):
    ...
    ValueError: expected a coordinate 'stimulus' with an id for every stimulus, got none
    """
    _require(Candidate(responses, dims), FORM)


def _require(candidate: Candidate, rules: tuple[Rule, ...]) -> None:
    if (broken := broken_rule(candidate, rules)) is not None:
        raise ValueError(broken[1])
