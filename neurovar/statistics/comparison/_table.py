"""The table of statistics × systems."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts
from neurovar.statistics.comparison._intervals import Request, measure, parallel
from neurovar.statistics.comparison._levels import LEVELS, stimuli
from neurovar.statistics.comparison._matching import System, as_sessions, candidates, draw
from neurovar.statistics.comparison._statistics import STATISTICS, Settings, require_statistics, spectrum_for

INTERVAL = (
    "estimate ± t · standard error, from leaving out a quarter of the stimuli (or trials) and a twentieth of the units "
    "at random, or one session or subject at a time"
)


def compare(
    systems: Mapping[str, System],
    *,
    statistics: Sequence[str] | None = None,
    ranks: tuple[int, int] | None = None,
    n_dims: int | None = None,
    match: Sequence[str] = ("unit", "stimulus"),
    n_subsamples: int = 10,
    levels: Sequence[str] = LEVELS,
    n_resamples: int = 40,
    n_splits: int = 10,
    rng: np.random.Generator | int,
    n_jobs: int = 1,
    advance: Callable[[int], object] | None = None,
) -> xr.Dataset:
    """Statistics of each system, matched, with 95 % intervals.

    First all systems are given equal numbers of units and stimuli (`match`; "repeat" and "rate" where asked), and each
    statistic is averaged over `n_subsamples` random subsamples. Then come the intervals: `intervals` says what varies
    and how; what a subsample leaves out makes a mean over subsamples vary less, which they allow for.

    A statistic that a system does not allow (a Fano factor without counts, an exponent whose window holds variances
    that are not positive) is NaN, and `reason` says why.

    Parameters
    ----------
    systems : name → responses (stimulus, repeat, unit), or a list of them, one a session.
    statistics : names in `STATISTICS`, by default all but the slow ones.
    ranks, n_dims : the window of a power law and the number of signal dimensions, for statistics that need them: there
        is no default, because the science has none.
    match : what is made equal: see `match`. () compares systems as they come, whose effective dimensionality and
        spectra then differ with their sizes alone.
    levels, n_resamples, n_splits, n_jobs : see `intervals`.
    advance : called with 1 for each system done, for a progress bar.

    Returns
    -------
    Dataset: `estimate`, `standard_error`, `low`, `high`, `reason`, `n_resamples` (statistic, system), with `label` and
    `over` (pair, unit or population) on statistic; of each system `n_units` and `n_sessions` (units of all sessions),
    `n_stimuli`, `n_repeats` (the most of a stimulus) after matching, `matched` (how), `levels` (what varies),
    `repeats_from` (where repeats come from: "trials" in cortex; of a network what attrs["repeats_from"] says, such as
    modifications, dropout, injected noise or adversarial responses); `spectrum` (system, rank) with an exponent.

    Raises
    ------
    ValueError : if a system is not valid or has no repeats, a statistic is unknown or lacks its ranks, systems cannot
        be matched, or `n_resamples` < 2.

    Examples
    --------
    >>> from neurovar.statistics import population
    >>> V1, V2 = (population(n_stimuli=60, n_repeats=4, n_units=n, counts=True, rng=n) for n in (8, 12))
    >>> table = compare({"V1": V1, "V2": V2}, ranks=(1, 4), n_subsamples=2, n_resamples=4, rng=0)
    >>> dict(table.estimate.sizes)["system"], table.n_units.values.tolist(), str(table.matched.values[1])
    (2, [8, 8], '60 shared stimuli; 8 of 12 units at random')
    """
    chosen = require_statistics(statistics, ranks=ranks, n_dims=n_dims)
    sessions = candidates(as_sessions(systems), match)
    match_rng, *rngs = np.random.default_rng(rng).spawn(1 + len(sessions))
    subsamples = draw(sessions, over=match, n_subsamples=n_subsamples, rng=match_rng)
    columns = []
    for (name, whole), one_rng in zip(sessions.items(), rngs):
        request = Request(chosen, ranks, n_dims, n_splits, int(one_rng.integers(2**63)))
        own = [subsample[name] for subsample in subsamples]
        column = measure(
            own,
            request,
            levels=levels,
            n_resamples=n_resamples,
            rng=one_rng,
            n_jobs=n_jobs,
            shares=_shares(whole, own[0]),
        )
        if "exponent" in chosen:
            column["spectrum"] = _spectrum(own, request, n_jobs)
        columns.append(column.assign(_sizes(own[0], column.attrs["levels"])).expand_dims(system=[name]))
        if advance:
            advance(1)
    table = xr.concat(columns, dim="system", join="outer", combine_attrs="drop")
    labels = {field: ("statistic", [getattr(STATISTICS[s], field) for s in chosen]) for field in ("label", "over")}
    dims = [dim for dim in ("statistic", "system", "rank") if dim in table.dims]
    return table.assign_coords(labels).transpose(*dims).assign_attrs(_attrs(request, match, subsamples, n_resamples))


def _shares(whole: list[xr.DataArray], sample: list[xr.DataArray]) -> tuple[float, float]:
    """The parts of the units and of the stimuli of a system that a subsample has."""
    n_units, n_all_units = (sum(session.sizes["unit"] for session in sessions) for sessions in (sample, whole))
    n_stimuli, n_all_stimuli = (sum(session.sizes["stimulus"] for session in sessions) for sessions in (sample, whole))
    return n_units / n_all_units, n_stimuli / n_all_stimuli


def _spectrum(subsamples: list[list[xr.DataArray]], request: Request, n_jobs: int) -> xr.DataArray:
    """The mean signal spectrum of sessions and subsamples; without ranks where one of them allows none."""
    calls = [(session, request) for sessions in subsamples for session in sessions]
    return xr.concat(parallel(_one_spectrum, calls, n_jobs), dim="session", join="inner").mean("session")


def _one_spectrum(session: xr.DataArray, request: Request) -> xr.DataArray:
    settings = Settings(request.ranks, None, request.n_splits, np.random.default_rng(request.seed), {})
    try:
        return spectrum_for(session, settings).astype(float)
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


def _attrs(request: Request, match: Sequence[str], subsamples: list, n_resamples: int) -> dict:
    attrs = {
        "interval": INTERVAL,
        "matched": ", ".join(match),
        "n_subsamples": len(subsamples),
        "n_resamples": n_resamples,
        "n_splits": request.n_splits,
    }
    return attrs | ({"exponent_ranks": list(request.ranks)} if request.ranks else {})
