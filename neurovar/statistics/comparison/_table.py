"""The table of statistics × systems."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts
from neurovar.statistics._registry import choose, cvpca_spectrum, signal_exponent
from neurovar.statistics._statistic import Evaluation, PowerLawWindow, Statistic
from neurovar.statistics._workers import in_workers
from neurovar.statistics.comparison._intervals import measure
from neurovar.statistics.comparison._levels import LEVELS, stimuli
from neurovar.statistics.comparison._matching import System, as_sessions, candidates, draw

INTERVAL = (
    "estimate ± t · standard error, from leaving out a quarter of the stimuli (or trials) and a twentieth of the units "
    "at random, or one session or subject at a time"
)


def compare(
    systems: Mapping[str, System],
    *,
    statistics: Sequence[str | Statistic] | None = None,
    match: Sequence[str] = ("unit", "stimulus"),
    n_subsamples: int = 10,
    levels: Sequence[str] = LEVELS,
    n_resamples: int = 40,
    rng: np.random.Generator | int,
    n_jobs: int = 1,
    advance: Callable[[int], object] | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Statistics of each system, matched, with 95 % intervals.

    First all systems are given equal numbers of units and stimuli (`match`; "repeat" and "rate" where asked), and each
    statistic is averaged over `n_subsamples` random subsamples. Then come the intervals: `intervals` says what varies
    and how; what a subsample leaves out makes a mean over subsamples vary less, which they allow for.

    A statistic that a system does not allow (a Fano factor without counts, an exponent whose window holds variances
    that are not positive) is NaN, and `reason` says why.

    Parameters
    ----------
    systems : mapping of str to xarray.DataArray or sequence of xarray.DataArray
        Name → responses (stimulus, repeat, unit), or a list of them, one a session.
    statistics : sequence of str or Statistic, optional
        Names in `STATISTICS` or statistics of one's own; by default all but the slow ones.
    match : sequence of str, optional
        What is made equal, among "unit", "stimulus", "repeat" and "rate": the function `match` says how. () compares
        systems as they come, whose effective dimensionality and spectra then differ with their sizes alone.
    n_subsamples : int, optional
        How many random subsamples are averaged, where there is something to draw.
    levels : sequence of str, optional
        What another experiment would draw anew, among "subject", "session", "unit", "stimulus" and "repeat".
    n_resamples : int, optional
        Of each system, divided among its subsamples; each costs three computations of the statistics.
    rng : numpy.random.Generator or int
        For subsamples, resamples, and the splits of statistics that use them.
    n_jobs : int, optional
        Processes; the numbers do not depend on it.
    advance : callable, optional
        Called with 1 for each system done, for a progress bar.
    **settings : Any
        Settings of statistics by their names: ranks=(first, last), the window of a power law, and n_dims, the number of
        signal dimensions, which have no default because the science has none; n_splits, of random halves.

    Returns
    -------
    xarray.Dataset
        `estimate`, `standard_error`, `low`, `high`, `reason`, `n_resamples` (statistic, system), with `label`,
        `axis_label`, `over` (pair, unit or population), `no_effect` and `settings` on statistic; of each system
        `n_units` and `n_sessions` (units of all sessions), `n_stimuli`, `n_repeats` (the most of a stimulus) after
        matching, `matched` (how), `levels` (what varies), `repeats_from` (where repeats come from: "trials" in cortex;
        of a network what attrs["repeats_from"] says, such as modifications, dropout, injected noise or adversarial
        responses); `spectrum` (system, rank) with an exponent.

    Raises
    ------
    ValueError
        If a system is not valid or has no repeats, a statistic is unknown or lacks a setting, systems cannot be
        matched, or `n_resamples` < 2.

    Examples
    --------
    >>> from neurovar.statistics import Statistic, population
    >>> V1, V2 = (population(n_stimuli=60, n_repeats=4, n_units=n, counts=True, rng=n) for n in (8, 12))
    >>> table = compare({"V1": V1, "V2": V2}, ranks=(1, 4), n_subsamples=2, n_resamples=4, rng=0)
    >>> dict(table.estimate.sizes)["system"], table.n_units.values.tolist(), str(table.matched.values[1])
    (2, [8, 8], '60 shared stimuli; 8 of 12 units at random')

    A statistic of one's own:

    >>> largest = Statistic(lambda da: da.max(("stimulus", "repeat")), "largest", "largest count", over="unit")
    >>> compare({"V1": V1}, statistics=["fano_factor", largest], n_resamples=2, rng=0).label.values.tolist()
    ['Fano factor (mean over units)', 'largest count (mean over units)']
    """
    chosen = choose(statistics, settings)
    # A stream for the subsamples and one for each system: adding a system changes no other's column.
    sessions = candidates(as_sessions(systems), match)
    match_rng, *rngs = np.random.default_rng(rng).spawn(1 + len(sessions))
    subsamples = draw(sessions, over=match, n_subsamples=n_subsamples, rng=match_rng)
    columns = []
    for (name, whole), system_rng in zip(sessions.items(), rngs):
        # All subsamples and resamples of a system share the seed of random splits, whose error so cancels in shifts.
        evaluation = Evaluation(chosen, int(system_rng.integers(2**63)))
        own = [subsample[name] for subsample in subsamples]
        column = measure(
            own,
            evaluation,
            levels=levels,
            n_resamples=n_resamples,
            rng=system_rng,
            n_jobs=n_jobs,
            shares=_shares(whole, own[0]),
        )
        more = _spectrum(own, evaluation, n_jobs) | _sizes(own[0], column.attrs["levels"])
        columns.append(column.assign(more).expand_dims(system=[name]))
        if advance:
            advance(1)
    table = xr.concat(columns, dim="system", join="outer", combine_attrs="drop")
    about = {
        "label": [statistic.mean_label for statistic in chosen],
        "axis_label": [statistic.axis_label for statistic in chosen],
        "over": [statistic.over for statistic in chosen],
        "no_effect": [statistic.no_effect for statistic in chosen],
        "settings": [str(statistic.settings or "") for statistic in chosen],
    }
    table = table.assign_coords({name: ("statistic", column) for name, column in about.items()})
    # Systems have spectra of different lengths; without any exponent there is no dimension of ranks.
    dims = [dim for dim in ("statistic", "system", "rank") if dim in table.dims]
    attrs: dict[str, Any] = {"interval": INTERVAL, "matched": ", ".join(match)}
    attrs |= {"n_subsamples": len(subsamples), "n_resamples": n_resamples}
    windows = [list(s.settings.ranks) for s in chosen if isinstance(s.settings, PowerLawWindow)]
    if windows:
        attrs["exponent_ranks"] = windows[0]
    return table.transpose(*dims).assign_attrs(attrs)


def _shares(whole: list[xr.DataArray], sample: list[xr.DataArray]) -> tuple[float, float]:
    """The parts of the units and of the stimuli of a system that a subsample has."""
    n_units, n_all_units = (sum(session.sizes["unit"] for session in sessions) for sessions in (sample, whole))
    n_stimuli, n_all_stimuli = (sum(session.sizes["stimulus"] for session in sessions) for sessions in (sample, whole))
    return n_units / n_all_units, n_stimuli / n_all_stimuli


def _spectrum(subsamples: list[list[xr.DataArray]], evaluation: Evaluation, n_jobs: int) -> dict[str, Any]:
    """With an exponent: the mean signal spectrum of sessions and subsamples, no ranks where one of them has none."""
    exponents = [statistic for statistic in evaluation.statistics if statistic.function is signal_exponent]
    if not exponents:
        return {}
    calls = [(session, exponents[0].settings, evaluation.seed) for sessions in subsamples for session in sessions]
    spectra = in_workers(_session_spectrum, calls, n_jobs)
    return {"spectrum": xr.concat(spectra, dim="session", join="inner").mean("session")}


def _session_spectrum(session: xr.DataArray, settings: PowerLawWindow, seed: int) -> xr.DataArray:
    """From the same seed as the exponent, so that it is the spectrum to which that was fitted."""
    try:
        return cvpca_spectrum(session, settings, np.random.default_rng(seed)).astype(float)
    except ValueError:
        return xr.DataArray(np.empty(0), dims="rank", coords={"rank": np.empty(0, dtype=int)})


def _sizes(sessions: list[xr.DataArray], levels: str) -> dict[str, int | str]:
    """What a system's statistics were computed from."""
    return {
        "n_units": sum(session.sizes["unit"] for session in sessions),
        "n_sessions": len(sessions),
        "n_stimuli": len(stimuli(sessions)),
        "n_repeats": max(int(repeat_counts(session).max()) for session in sessions),
        "matched": "; ".join(dict.fromkeys(filter(None, (session.attrs["matched"] for session in sessions)))),
        "levels": levels,
        "repeats_from": ", ".join(dict.fromkeys(map(_repeats_from, sessions))),
    }


def _repeats_from(session: xr.DataArray) -> str:
    """Where a system's repeats come from."""
    return str(session.attrs.get("repeats_from", "not stated" if "layer" in session.coords else "trials"))
