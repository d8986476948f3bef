"""What another experiment would draw anew: subjects, sessions, units; stimuli, repeats. Counting and leaving out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts
from neurovar.statistics.comparison._matching import thin_repeats

ACROSS = ("subject", "session", "unit")
WITHIN = ("stimulus", "repeat")
LEVELS = (*ACROSS, *WITHIN)
LEFT_OUT = {"unit": 1 / 20, "stimulus": 1 / 4, "repeat": 1 / 4}
"""Which part of its members a resample leaves out. Of units few, because statistics depend on their number; of stimuli
more, because the error of random splits is multiplied by kept / left out."""


@dataclass(frozen=True)
class Design:
    """The level that varies of each chain (None: none), and how many members it has; `clusters`: whose each session is.

    A cluster is a subject or a session; there are none where units vary.
    """

    across: str | None
    within: str | None
    n_across: int
    n_within: int
    clusters: np.ndarray | None


def design(sessions: list[xr.DataArray], levels: Sequence[str]) -> Design:
    """The highest level of each chain that is in `levels` and has two members or more."""
    if isinstance(levels, str) or any(level not in LEVELS for level in levels):
        raise ValueError(f"expected levels= some of {', '.join(LEVELS)}, got {levels!r}")
    subjects = _subjects(sessions)
    members = {
        # One session without a subject and nobody knows how many there are: subjects then cannot vary.
        "subject": 1 if None in subjects else len(set(subjects)),
        "session": len(sessions),
        "unit": min(session.sizes["unit"] for session in sessions),
        "stimulus": len(stimuli(sessions)),
        # Only stimuli with three trials or more can do without some of them: two must stay for a variance.
        "repeat": sum(int(repeat_counts(session)[repeat_counts(session) > 2].sum()) for session in sessions),
    }
    across, within = (
        next((level for level in chain if level in levels and members[level] > 1), None) for chain in (ACROSS, WITHIN)
    )
    if across is None and within is None:
        asked = ", ".join(f"{members[level]} of {level}" for level in levels)
        raise ValueError(f"expected levels with two members or more, got {asked or 'none'}")
    clusters = {"subject": np.array(subjects), "session": np.arange(len(sessions))}.get(str(across))
    return Design(across, within, members.get(str(across), 0), members.get(str(within), 0), clusters)


def stimuli(sessions: list[xr.DataArray]) -> list:
    """The ids of the stimuli of all sessions."""
    return list(dict.fromkeys(s for session in sessions for s in session["stimulus"].values.tolist()))


def without_stimuli(session: xr.DataArray, left_out: set) -> xr.DataArray:
    """The session without the stimuli of these ids."""
    return session.isel(stimulus=[s not in left_out for s in session["stimulus"].values.tolist()])


def _subjects(sessions: list[xr.DataArray]) -> list[str | None]:
    """The subject of each session, None where it is not told."""
    names = []
    for session in sessions:
        of_units = np.unique(session["subject"].values) if "subject" in session.coords else np.array([])
        name = of_units[0] if len(of_units) == 1 else session.attrs.get("subject")
        names.append(None if name is None else str(name))
    return names


def leave_out_units(n_units: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The positions of the units that stay, and √(kept / left out)."""
    left_out = _n_left_out(np.array([n_units]), "unit")
    return np.sort(rng.permutation(n_units)[left_out[0] :]), _root_odds(np.array([n_units]), left_out)


def leave_out_within(
    sessions: list[xr.DataArray], level: str | None, rng: np.random.Generator
) -> tuple[list[xr.DataArray], float]:
    """The sessions without some stimuli, the same in all, or without some trials of each; and √(kept / left out)."""
    if level == "stimulus":
        ids = stimuli(sessions)
        n = np.array([len(ids)])
        left_out = _n_left_out(n, level)
        # Sessions that share stimuli lose the same ones: their means vary together, as over other stimuli.
        gone = {ids[i] for i in rng.permutation(len(ids))[: left_out[0]]}
        return [without_stimuli(session, gone) for session in sessions], _root_odds(n, left_out)
    if level == "repeat":
        counts = [repeat_counts(session).values for session in sessions]
        fewer = [np.where(n > 2, _n_left_out(n, level), 0) for n in counts]
        thinned = [thin_repeats(session, n - left_out, rng) for session, n, left_out in zip(sessions, counts, fewer)]
        return thinned, _root_odds(np.concatenate(counts), np.concatenate(fewer))
    return sessions, 0.0


def _n_left_out(n: np.ndarray, level: str) -> np.ndarray:
    return np.maximum(1, np.round(LEFT_OUT[level] * n)).astype(int)


def _root_odds(n: np.ndarray, left_out: np.ndarray) -> float:
    """√(kept / left out), over all stimuli that lose trials: what a shift is multiplied by (see `_resample`)."""
    varied = left_out > 0
    return float(np.sqrt((n - left_out)[varied].sum() / left_out.sum()))
