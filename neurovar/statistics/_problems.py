"""What is wrong with a recording, all of it at once, in order of importance, and how to mend it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr

from neurovar.responses import (
    DIMS,
    LABELS,
    TIME_DIMS,
    Candidate,
    broken_rule,
    constant_units,
    recordings,
    repeat_counts,
    residuals_kernel,
    sum_time,
    why_residual,
)
from neurovar.statistics.estimation._noise import noise_correlation
from neurovar.statistics.estimation._signal import signal_correlation

SAME_SIGNAL, SAME_NOISE = 0.95, 0.2
SAME_NOISE_ALONE = 0.9  # where too few stimuli tell whether signals are the same
MOST_COMPARED = 3000  # units: their correlations take some seconds and 72 MB each
STRONG_DRIFT = 0.5
ENOUGH_STIMULI = 3
ORIGIN = ("source", "license", "window")
COUNTS = "spike count"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    severity : str
        An "error" stops every analysis, a "warning" some, a "note" none.
    what : str
        What is wrong.
    how_to_mend : str
        What the user can do.

    Examples
    --------
    >>> Problem("note", "stimuli have 3 to 5 repeats", "nothing to do").severity
    'note'
    """

    severity: Literal["error", "warning", "note"]
    what: str
    how_to_mend: str


def problems(responses: xr.DataArray) -> list[Problem]:
    """Everything that is wrong with `responses`: errors, then warnings, then notes, each in order of importance.

    Errors are whatever `responses.validate` refuses (all of it, in its order), negative or fractional spike counts, and
    missing units. Warnings and notes are about what is left when the errors are taken out.

    Two units are probably one where their signal correlation is above 0.95 and their noise correlation above 0.2 (or
    above 0.9 where there are fewer than three stimuli with repeats). A unit drifts where its residuals correlate with
    the order of presentation by more than 0.5 and by more than 4 standard errors, 4/√trials.

    Parameters
    ----------
    responses : DataArray
        Of dims (stimulus, repeat, unit), perhaps with a last dim `time`, over which it is summed for the warnings. The
        order of presentation is the coordinate `presentation` (stimulus, repeat), else the repeat.

    Returns
    -------
    list of Problem
        Empty where nothing is wrong.

    Examples
    --------
    >>> da = xr.DataArray([[[1.0], [2.5]]], dims=DIMS, attrs={"units": "spike count"})
    >>> for problem in problems(da)[:2]:
    ...     print(problem.severity, problem.what, sep=": ")
    error: expected a coordinate 'stimulus' with an id for every stimulus, got none
    error: expected whole spike counts, got 1 fractional values (the first: 2.5)
    """
    all_problems, usable = _broken_rules(responses.compute() if isinstance(responses, xr.DataArray) else responses)
    if usable is not None:
        all_problems += _value_errors(usable)
        all_problems += _cautions(sum_time(usable) if "time" in usable.dims else usable)
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted(all_problems, key=lambda problem: rank[problem.severity])  # stable: keeps the order of importance


def _broken_rules(responses: xr.DataArray) -> tuple[list[Problem], xr.DataArray | None]:
    """The rules that are broken, one repair after another, and what is valid in the end; None if nothing is."""
    broken_rules: list[Problem] = []
    repaired: xr.DataArray | None = responses
    while repaired is not None:
        dims = TIME_DIMS if "time" in getattr(repaired, "dims", ()) else DIMS
        broken = broken_rule(Candidate(repaired, dims))
        if broken is None:
            break
        rule, message = broken
        broken_rules.append(Problem("error", message, rule.advice))
        repaired = rule.repair(repaired)
    return broken_rules, repaired


def _value_errors(responses: xr.DataArray) -> Iterator[Problem]:
    units, values = responses.attrs.get("units"), responses.values
    present = values[~np.isnan(values)]
    fractional = present[np.floor(present) != present]
    if units == COUNTS and (present < 0).any():
        what = f"expected spike counts of 0 or more, got {int((present < 0).sum())} negative values ({present.min():g})"
        mend = "if a mean was subtracted: responses.mark(…, residuals=why), and attrs['units'] = 'spike count residual'"
        yield Problem("error", what, mend)
    if units == COUNTS and fractional.size:
        what = f"expected whole spike counts, got {fractional.size} fractional values (the first: {fractional[0]:g})"
        yield Problem("error", what, "if these are rates, say attrs['units'] = 'spikes/s'")
    whole = not fractional.size and not (present < 0).any()
    likely = repr(COUNTS) if whole else "'spikes/s' or 'dF/F'"
    if not units:
        yield Problem("error", "expected attrs['units'], got none", f"say what was measured, such as {likely}")
    elif whole and units != COUNTS:
        what = f"all values are whole and not negative, but their units are {units!r}: no Fano factor"
        yield Problem("note", what, f"if they are counts, say attrs['units'] = {COUNTS!r}")


def _cautions(responses: xr.DataArray) -> Iterator[Problem]:
    """Warnings and notes about responses that are valid."""
    n_repeats = repeat_counts(responses).values
    yield from _few_repeats(n_repeats)
    if n_repeats.max() > 1:
        yield from _lifeless_units(responses)
        yield from _twins(responses, n_repeats)
        yield from _drift(responses)
    yield from _missing_labels(responses)
    if n_repeats.min() < n_repeats.max():
        what = f"stimuli have {n_repeats.min()} to {n_repeats.max()} repeats"
        yield Problem("note", what, "nothing to do: absent trials are NaN, and stimuli are weighted by their repeats")
    if reason := why_residual(responses):
        yield Problem("note", f"residuals: {reason}", "nothing to do: no Fano factor")
    if n_others := int(recordings(responses).max()):
        what = f"units of {n_others + 1} recordings: noise correlations within each only"
        yield Problem("note", what, "by='recording' for statistics of a whole population")


def _few_repeats(n_repeats: np.ndarray) -> Iterator[Problem]:
    n_repeated = int((n_repeats > 1).sum())
    if not n_repeated:
        yield Problem("warning", "every stimulus was shown once: no statistic of variability", "repeat some stimuli")
        return
    if n_repeats.max() < 3:
        what = "no stimulus has more than 2 repeats: no z-scored noise correlations"
        yield Problem("warning", what, "noise_correlation(responses, zscore=False)")
    if n_repeated < ENOUGH_STIMULI:
        what = f"{n_repeated} stimuli with repeats: no signal correlations and no reliability, which need 3"
        yield Problem("warning", what, "nothing to do if only the noise is of interest")


def _lifeless_units(responses: xr.DataArray) -> Iterator[Problem]:
    silent = np.flatnonzero((responses.fillna(0) == 0).all(("stimulus", "repeat")).values)
    mend = "responses.drop_constant drops them; their correlations are undefined"
    if silent.size:
        yield Problem("warning", f"units that never respond: {_listed(silent)}", mend)
    constant = np.setdiff1d(constant_units(responses), silent)
    if constant.size:
        yield Problem("warning", f"units that never vary between repeats: {_listed(constant)}", mend)


def _twins(responses: xr.DataArray, n_repeats: np.ndarray) -> Iterator[Problem]:
    """Pairs of units that are probably the same one, on two electrodes or sorted twice."""
    units = np.setdiff1d(np.arange(responses.sizes["unit"]), constant_units(responses))
    if len(units) > MOST_COMPARED:
        what = f"more than {MOST_COMPARED} units: repeated ones were not looked for"
        yield Problem("note", what, "check some of them: responses.isel(unit=…)")
        return
    varying = responses.isel(unit=units)
    if np.bincount(recordings(varying)).max(initial=0) < 2:
        return
    noise = noise_correlation(varying, zscore=False).values
    same = noise > SAME_NOISE_ALONE
    if (n_repeats > 1).sum() >= ENOUGH_STIMULI:
        signal = signal_correlation(varying, rng=0).values
        same = (signal > SAME_SIGNAL) & (noise > SAME_NOISE)
    pairs = [
        f"{units[i]} and {units[j]} (noise correlation {noise[i, j]:.2f})" for i, j in np.argwhere(np.triu(same, 1))
    ]
    if pairs:
        what = f"units that are probably the same one: {_listed(pairs)}"
        yield Problem("warning", what, "drop one of each pair: responses.isel(unit=…); they raise r_sc")


def _drift(responses: xr.DataArray) -> Iterator[Problem]:
    values = responses.values
    present = ~np.isnan(values[:, :, 0])
    order = np.broadcast_to(np.arange(values.shape[1], dtype=float), present.shape)
    if "presentation" in responses.coords and responses["presentation"].dims == DIMS[:2]:
        order = responses["presentation"].values.astype(float)
    # the residuals have lost each stimulus's mean, so the order must lose it too
    time = residuals_kernel(np.where(present, order, np.nan)[:, :, None])[present][:, 0]
    noise = residuals_kernel(values)[present]
    scale = np.sqrt((noise**2).sum(axis=0) * (time**2).sum())
    correlation = np.abs(np.divide(time @ noise, scale, out=np.zeros(len(scale)), where=scale > 0))
    drifting = np.flatnonzero(correlation > max(STRONG_DRIFT, 4 / np.sqrt(len(time))))
    if drifting.size:
        what = f"units that drift over the recording (|r| > {STRONG_DRIFT}): {_listed(drifting)}"
        yield Problem("warning", what, "drop them or a part of the recording; a drift that is shared raises r_sc")


def _missing_labels(responses: xr.DataArray) -> Iterator[Problem]:
    missing = [name for name in LABELS if name not in responses.coords]
    if missing:
        what = f"no {', '.join(missing)} for the units"
        mend = f"responses.assign_coords({missing[0]}=('unit', …)), or {missing[0]} = … in the TOML file"
        yield Problem("warning", what, mend)
    unsaid = [name for name in ORIGIN if name not in responses.attrs]
    if unsaid:
        what = f"attrs do not say: {', '.join(unsaid)}"
        yield Problem("note", what, f"say where the data come from: attrs[{unsaid[0]!r}] = …")


def _listed(items: np.ndarray | list[str], *, most: int = 5) -> str:
    shown = ", ".join(str(item) for item in items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown
