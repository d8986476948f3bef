"""Make systems comparable: equal numbers of units, stimuli and repeats, and equal rates, by repeated subsampling."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts, validate

System = xr.DataArray | Sequence[xr.DataArray]
"""One recording session, or several that were recorded separately."""
Sessions = dict[str, list[xr.DataArray]]
MATCHABLE = ("unit", "stimulus", "repeat", "rate")
RATE_RATIO = 1.25
"""Between the edges of a bin of mean responses: means within a bin differ by a quarter at most."""


def match(
    systems: Mapping[str, System],
    *,
    over: Sequence[str] = ("unit", "stimulus"),
    n_subsamples: int,
    rng: np.random.Generator | int,
) -> list[dict[str, System]]:
    """Random subsamples of the systems that have the same sizes, and where asked the same rates.

    Effective dimensionality, spectra and splits depend on the numbers of units, stimuli and repeats, so that only
    systems of equal numbers can be compared. `over` says what is made equal, in every session of every system:

    - "stimulus": the stimuli that all saw, told by their ids; where none is shared, as many as the fewest, at random.
    - "repeat": as many trials of each stimulus as the fewest that any stimulus has, at random.
    - "unit": as many units as the fewest, at random.
    - "rate": units with the same distribution of mean responses, at random: as many in each bin of the mean (a bin's
      upper edge is 1.25 times its lower one) as the system with the fewest there. It makes the numbers of units equal.

    All draws are without replacement. Where there is nothing to draw, one subsample is all there is.

    Parameters
    ----------
    systems : mapping of str to xarray.DataArray or sequence of xarray.DataArray
        Name → responses (stimulus, repeat, unit), or a list of them, one a session.
    over : sequence of str, optional
        What is made equal, among "unit", "stimulus", "repeat" and "rate".
    n_subsamples : int
        How many random subsamples.
    rng : numpy.random.Generator or int
        For the draws.

    Returns
    -------
    list of dict
        `n_subsamples` of them, like `systems`; attrs["matched"] of each array says how it was matched.

    Raises
    ------
    ValueError
        If a system is not valid, `over` names something else, `n_subsamples` < 1, a stimulus has one repeat where
        repeats are matched, or rates are matched of negative responses, of different units of measure, or have no
        overlap.

    References
    ----------
    Churchland et al. 2010, doi:10.1038/nn.2501 (the matching of rates)

    Examples
    --------
    >>> from neurovar import statistics
    >>> systems = {n: statistics.population(n_stimuli=9, n_repeats=3, n_units=n_units, rng=0)
    ...            for n, n_units in (("V1", 5), ("V2", 8))}
    >>> subsamples = match(systems, n_subsamples=4, rng=0)
    >>> len(subsamples), subsamples[3]["V2"].shape, subsamples[3]["V2"].attrs["matched"]
    (4, (9, 3, 5), '9 shared stimuli; 5 of 8 units at random')
    """
    sessions = as_sessions(systems)
    subsamples = draw(candidates(sessions, over), over=over, n_subsamples=n_subsamples, rng=np.random.default_rng(rng))
    single = {name for name, system in systems.items() if isinstance(system, xr.DataArray)}
    return [{name: own[0] if name in single else own for name, own in subsample.items()} for subsample in subsamples]


def as_sessions(systems: Mapping[str, System]) -> Sessions:
    """Each system as the list of its sessions, validated."""
    if not systems:
        raise ValueError("expected at least one system, got none")
    sessions = {}
    for name, system in systems.items():
        try:
            sessions[name] = session_list(system)
        except ValueError as error:
            raise ValueError(f"system {name!r}: {error}") from error
    return sessions


def session_list(system: System) -> list[xr.DataArray]:
    """The sessions of one system, validated."""
    sessions = [system] if isinstance(system, xr.DataArray) else list(system)
    if not sessions:
        raise ValueError("expected at least one session, got none")
    for number, session in enumerate(sessions):
        try:
            validate(session, min_repeats=2)
        except ValueError as error:
            raise ValueError(f"session {number}: {error}" if len(sessions) > 1 else str(error)) from error
    return sessions


def candidates(sessions: Sessions, over: Sequence[str]) -> Sessions:
    """What is drawn from: the sessions, with "stimulus" those stimuli alone that all of them share, if there are any.

    attrs["matched"] begins here.
    """
    unknown = [what for what in over if what not in MATCHABLE]
    if unknown or isinstance(over, str):
        raise ValueError(f"expected over= some of {', '.join(MATCHABLE)}, got {over!r}")
    everyone = [session for own in sessions.values() for session in own]
    later = [set(session["stimulus"].values.tolist()) for session in everyone[1:]]
    shared = [s for s in everyone[0]["stimulus"].values.tolist() if all(s in other for other in later)]
    if "stimulus" not in over or not shared:
        return {name: [session.assign_attrs(matched="") for session in own] for name, own in sessions.items()}
    how = f"{len(shared)} shared stimuli"
    return {
        name: [session.sel(stimulus=shared).assign_attrs(matched=how) for session in own]
        for name, own in sessions.items()
    }


def draw(sessions: Sessions, *, over: Sequence[str], n_subsamples: int, rng: np.random.Generator) -> list[Sessions]:
    """`n_subsamples` random subsamples of equal sizes; one where all of them would be the same."""
    if n_subsamples < 1:
        raise ValueError(f"expected at least 1 subsample, got {n_subsamples}")
    everyone = [session for own in sessions.values() for session in own]
    n_stimuli = min(session.sizes["stimulus"] for session in everyone) if "stimulus" in over else None
    n_repeats = _fewest_repeats(sessions) if "repeat" in over else None
    groups = _groups(sessions, over)
    unit_counts = _common(groups) if groups else None
    subsamples = []
    for draw_rng in rng.spawn(n_subsamples):
        # The groups of units are listed over the sessions of all systems, in the order in which these are taken here.
        of_session = iter(groups or ())
        subsamples.append(
            {
                name: [
                    _subsample(session, n_stimuli, n_repeats, next(of_session, None), unit_counts, draw_rng)
                    for session in own
                ]
                for name, own in sessions.items()
            }
        )
        # Where nothing was drawn at random, all subsamples are this one.
        if all("random" not in session.attrs["matched"] for own in subsamples[0].values() for session in own):
            break
    return subsamples


def _subsample(
    session: xr.DataArray,
    n_stimuli: int | None,
    n_repeats: int | None,
    group: np.ndarray | None,
    unit_counts: dict[float, int] | None,
    rng: np.random.Generator,
) -> xr.DataArray:
    """So many stimuli, repeats, and units of each group, at random."""
    how = [session.attrs["matched"]]
    if n_stimuli is not None and n_stimuli < session.sizes["stimulus"]:
        how.append(f"{n_stimuli} of {session.sizes['stimulus']} stimuli at random")
        session = session.isel(stimulus=np.sort(rng.permutation(session.sizes["stimulus"])[:n_stimuli]))
    if n_repeats is not None:
        some = int(repeat_counts(session).max()) > n_repeats
        how.append(f"{n_repeats} repeats" + " at random" * some)
        session = thin_repeats(session, np.full(session.sizes["stimulus"], n_repeats), rng) if some else session
    if group is not None and unit_counts is not None:
        order = rng.permutation(len(group))
        kept = [order[group[order] == name][:count] for name, count in unit_counts.items()]
        chosen = np.sort(np.concatenate(kept))
        if len(chosen) < len(group):
            how.append(f"{len(chosen)} of {len(group)} units at random")
            session = session.isel(unit=chosen)
    return session.assign_attrs(matched="; ".join(filter(None, how)))


def thin_repeats(session: xr.DataArray, n_kept: np.ndarray, rng: np.random.Generator) -> xr.DataArray:
    """`n_kept` random trials of each stimulus; the others become NaN."""
    # A trial is whole or absent, so that one unit tells for all. Absent trials get ∞ and so the last ranks; the double
    # argsort gives each trial its rank among the random numbers of its stimulus, of which the first n_kept stay.
    present = session.isel(unit=0, drop=True).notnull()
    draws = np.where(present.values, rng.random(present.shape), np.inf)
    rank = np.argsort(np.argsort(draws, axis=1), axis=1)
    return session.where(present.copy(data=rank < n_kept[:, None]))


def _fewest_repeats(sessions: Sessions) -> int:
    fewest = {name: min(int(repeat_counts(session).min()) for session in own) for name, own in sessions.items()}
    name = min(fewest, key=lambda key: fewest[key])
    if fewest[name] < 2:
        raise ValueError(f"expected at least 2 repeats of every stimulus to match repeats, got 1 in system {name!r}")
    return fewest[name]


def _groups(sessions: Sessions, over: Sequence[str]) -> list[np.ndarray] | None:
    """The group of each unit, session by session: units are exchanged within groups only."""
    everyone = [session for own in sessions.values() for session in own]
    if "rate" in over:
        _require_rates(sessions)
        # Bins of equal width in log mean; silent units, log 0 = −∞, are a bin of their own.
        with np.errstate(divide="ignore"):
            means = [np.log(np.nanmean(session.values, axis=(0, 1))) for session in everyone]
        return [np.floor(mean / np.log(RATE_RATIO)) for mean in means]
    return [np.zeros(session.sizes["unit"]) for session in everyone] if "unit" in over else None


def _common(groups: list[np.ndarray]) -> dict[float, int]:
    """How many units of each group every session has."""
    fewest = {name: min(int((group == name).sum()) for group in groups) for name in np.unique(groups[0]).tolist()}
    if not any(fewest.values()):
        raise ValueError("expected systems whose units overlap in their mean responses, got no overlap")
    return fewest


def _require_rates(sessions: Sessions) -> None:
    measures = {str(session.attrs.get("units", "not stated")) for own in sessions.values() for session in own}
    if "not stated" in measures or len(measures) > 1:
        raise ValueError(
            f"expected responses in the same units, attrs['units'], to match rates, got {', '.join(sorted(measures))}"
        )
    for name, own in sessions.items():
        lowest = min(float(np.nanmin(session.values)) for session in own)
        if lowest < 0:
            raise ValueError(f"expected responses ≥ 0 to match rates, got {lowest:g} in system {name!r}")
