"""Statistics of one system, with intervals that take subjects, sessions, units, stimuli and trials as random draws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from joblib import Parallel, delayed, parallel_config
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from neurovar.statistics.comparison._levels import LEVELS, Design, design, leave_out_units, leave_out_within
from neurovar.statistics.comparison._matching import System, session_list
from neurovar.statistics.comparison._statistics import evaluate, require_statistics


@dataclass(frozen=True)
class Request:
    """Which statistics to compute, and how; every evaluation starts from the same seed."""

    statistics: tuple[str, ...]
    ranks: tuple[int, int] | None
    n_dims: int | None
    n_splits: int
    seed: int

    def evaluate(self, session: xr.DataArray) -> tuple[np.ndarray, list[str]]:
        return evaluate(
            session,
            self.statistics,
            ranks=self.ranks,
            n_dims=self.n_dims,
            n_splits=self.n_splits,
            seed=self.seed,
        )

    def values(self, sessions: Iterable[xr.DataArray]) -> np.ndarray:
        """(session, statistic)"""
        return np.array([self.evaluate(session)[0] for session in sessions])


def intervals(
    system: System,
    statistics: Sequence[str] | None = None,
    *,
    ranks: tuple[int, int] | None = None,
    n_dims: int | None = None,
    levels: Sequence[str] = LEVELS,
    n_resamples: int = 40,
    n_splits: int = 10,
    rng: np.random.Generator | int,
    n_jobs: int = 1,
) -> xr.Dataset:
    """Statistics of one system with 95 % intervals, units and stimuli (or subjects, sessions, trials) drawn at random.

    A statistic is computed within each session (noise is correlated only there) and averaged over sessions, each of
    which counts the same. `levels` are what another experiment would draw anew. They form two chains: a subject has
    sessions, which have units; a stimulus has repeats. Of each chain the highest level counts that is in `levels` and
    of which there are two or more: its variance contains that of the levels below. What is not in `levels` is fixed:
    levels=("stimulus",) is about these units and other stimuli.

    A bootstrap that draws with replacement will not do: a unit drawn twice has a noise correlation of 1 with its copy,
    and copies of trials lower dimensionality. Resamples therefore leave members out (the delete-d jackknife), with
    L left out and K kept: variance = (K/L) · variance over resamples, a twentieth of the units and a quarter of the
    stimuli (or of each stimulus's trials) being left out; subjects and sessions one at a time. Units and stimuli are
    crossed, and what is due to both (the noise of single units) is in either variance; it is computed from resamples
    of both at once and counted once: V = V_within + max(V_across − V_both, 0). The interval is estimate ± t √V,
    t from Student's distribution with Satterthwaite's degrees of freedom, which few subjects or resamples make few.

    The interval is for what the estimator gives on average at these numbers of units, stimuli and repeats: it knows
    nothing of bias, for which see the estimators. It is symmetric and takes the estimate as roughly normal.
    docs/interval-coverage.md tells how often 95 % intervals hold that average in simulations
    (`analyses/interval_coverage.py`): mostly 92–98 %, less for what hangs on a few units,
    such as the effective dimensionality (80 % with 24 units of log-normal variance).

    Parameters
    ----------
    system : responses (stimulus, repeat, unit), or a list of them, one a session. The subject of a session is its
        units' coordinate `subject` or attrs["subject"]; stimuli are the same where their ids are.
    statistics : names in `STATISTICS`, by default all but the slow ones.
    ranks, n_dims : the window of a power law and the number of signal dimensions, for statistics that need them.
    n_resamples : each costs three computations of the statistics (one where sessions vary).
    n_splits : random halves of the repeats, for statistics that use them.
    n_jobs : processes; the numbers do not depend on it.

    Returns
    -------
    Dataset (statistic): `estimate`, `standard_error`, `low`, `high`; `n_resamples`, in how many of the resamples the
    statistic was defined; `reason`, why it is NaN (as it is where one session does not allow it); attrs["levels"]: what
    varies.

    Raises
    ------
    ValueError : if the system is not valid or has no repeats, a statistic is unknown or lacks its ranks, there are
        fewer than two resamples, or no level has two members.

    References
    ----------
    Shao & Wu 1989, doi:10.1214/aos/1176347263 (delete-d jackknife); Cameron, Gelbach & Miller 2011,
    doi:10.1198/jbes.2010.07136 (crossed levels: the part of both is taken off); Saravanan, Berman & Sober 2020,
    arXiv:2007.07797 (levels in neuroscience)

    Examples
    --------
    >>> from neurovar.statistics import population
    >>> da = population(n_stimuli=60, n_repeats=4, n_units=8, rng=0)
    >>> table = intervals(da, ["noise_correlation"], n_resamples=10, rng=0)
    >>> bool(table.low < table.estimate < table.high), table.attrs["levels"]
    (True, 'unit, stimulus')
    """
    rng = np.random.default_rng(rng)
    chosen = require_statistics(statistics, ranks=ranks, n_dims=n_dims)
    request = Request(chosen, ranks, n_dims, n_splits, int(rng.integers(2**63)))
    return measure([session_list(system)], request, levels=levels, n_resamples=n_resamples, rng=rng, n_jobs=n_jobs)


def measure(
    subsamples: list[list[xr.DataArray]],
    request: Request,
    *,
    levels: Sequence[str],
    n_resamples: int,
    rng: np.random.Generator,
    n_jobs: int,
    shares: tuple[float, float] = (1.0, 1.0),
) -> xr.Dataset:
    """`intervals` of a statistic averaged over matched subsamples of one system, among which resamples are divided.

    `shares` are the parts of the units and of the stimuli that a subsample has: the mean over subsamples varies as
    if it came from all, so that each level's variance is multiplied by its share.
    """
    if n_resamples < 2:
        raise ValueError(f"expected at least 2 resamples, got {n_resamples}")
    levels_of = design(subsamples[0], levels)
    full, reasons = _full(subsamples, request, n_jobs)
    each = max(2, -(-n_resamples // len(subsamples)))
    calls = [
        (sessions, values, request, levels_of, one)
        for sessions, values in zip(subsamples, full.values)
        for one in rng.spawn(each)
    ]
    dims = ("subsample", "resample", "part", "session", "statistic")
    shape = (len(subsamples), each, 3, *full.shape[1:])
    shifts = xr.DataArray(np.array(parallel(_resample, calls, n_jobs)).reshape(shape), dims=dims)
    variance, dof = _variance(full, shifts, levels_of, shares)
    estimate, error = full.mean("session", skipna=False).mean("subsample"), np.sqrt(variance)
    half = error * student.ppf(0.975, dof)
    return xr.Dataset(
        {
            "estimate": estimate,
            "standard_error": error,
            "low": estimate - half,
            "high": estimate + half,
            "reason": ("statistic", reasons),
            "n_resamples": shifts.notnull().all(("part", "session")).sum(("subsample", "resample")),
        },
        coords={"statistic": list(request.statistics)},
        attrs={"levels": ", ".join(filter(None, (levels_of.across, levels_of.within)))},
    )


def parallel(function: Callable, calls: Sequence[tuple], n_jobs: int) -> list:
    """The results in order; one thread a process, so that numbers do not depend on how many there are."""
    with threadpool_limits(1), parallel_config(backend="loky", inner_max_num_threads=1):
        return Parallel(n_jobs=n_jobs)(delayed(function)(*call) for call in calls)


def _full(subsamples: list[list[xr.DataArray]], request: Request, n_jobs: int) -> tuple[xr.DataArray, list[str]]:
    """Each session's statistics (subsample, session, statistic), and why one has no value in any subsample."""
    calls = [(session,) for sessions in subsamples for session in sessions]
    values, reasons = zip(*parallel(request.evaluate, calls, n_jobs))
    shape = (len(subsamples), len(subsamples[0]), len(request.statistics))
    full = xr.DataArray(np.array(values).reshape(shape), dims=("subsample", "session", "statistic"))
    undefined = full.isnull().any("session").all("subsample").values
    first = [next(filter(None, told), "") for told in zip(*reasons)]
    return full, [reason if none else "" for reason, none in zip(first, undefined)]


def _resample(
    sessions: list[xr.DataArray], full: np.ndarray, request: Request, levels: Design, rng: np.random.Generator
) -> np.ndarray:
    """How far the statistics shift, (part, session, statistic), times √(kept / left out).

    The parts are: without some stimuli or trials; without some units; and what leaving out both shifts beyond the sum.
    """
    shifts = np.zeros((3, *full.shape))
    thinned, of_within = leave_out_within(sessions, levels.within, rng)
    if levels.within:
        shifts[0] = of_within * (request.values(thinned) - full)
    if levels.across == "unit":
        kept, odds = zip(*(leave_out_units(session.sizes["unit"], rng) for session in sessions))
        of_units = np.array(odds)[:, None]
        shifts[1] = of_units * (request.values(one.isel(unit=units) for one, units in zip(sessions, kept)) - full)
        if levels.within:
            both = request.values(one.isel(unit=units) for one, units in zip(thinned, kept)) - full
            shifts[2] = of_within * of_units * both - of_units * shifts[0] - of_within * shifts[1]
    return shifts


def _variance(
    full: xr.DataArray, shifts: xr.DataArray, levels: Design, shares: tuple[float, float]
) -> tuple[xr.DataArray, xr.DataArray]:
    """The variance of the mean over sessions and subsamples, and its degrees of freedom; both (statistic)."""
    n_subsamples, n_resamples = shifts.sizes["subsample"], shifts.sizes["resample"]
    n_draws = n_subsamples * (n_resamples - 1)
    share_across, share_within = shares
    spread = _sample_variance(shifts.mean("session", skipna=False), "resample").mean("subsample")
    by_within, by_across, by_both = (spread.isel(part=part) for part in range(3))
    dof_within, dof_across = (1 / (1 / max(n - 1, 1) + 1 / n_draws) for n in (levels.n_within, levels.n_across))
    if levels.clusters is not None:
        share_across, dof_across = 1.0, levels.n_across - 1
        by_across = _cluster_variance(full.mean("subsample"), levels.clusters)
        of_within = shifts.isel(part=0)
        centred = of_within - of_within.mean("resample")
        by_both = _cluster_variance(centred, levels.clusters).mean(("subsample", "resample"))
        by_both = by_both * n_resamples / (n_resamples - 1)
    within = share_within * (by_within - (1 - share_across) * by_both).clip(min=0)
    across = share_across * (by_across - by_both).clip(min=0)
    chosen = _between(full)
    variance = within + across + chosen
    uncertainty = within**2 / dof_within + across**2 / dof_across + chosen**2 / max(n_subsamples - 1, 1)
    return variance, (variance**2 / uncertainty).where(uncertainty > 0, 1)


def _between(full: xr.DataArray) -> xr.DataArray:
    """The variance of the mean over subsamples that comes from their choice."""
    means = full.mean("session", skipna=False)
    return (_sample_variance(means, "subsample") / means.notnull().sum("subsample")).fillna(0)


def _sample_variance(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Of the values that are defined; NaN for fewer than two."""
    n = values.notnull().sum(dim)
    return (((values - values.mean(dim)) ** 2).sum(dim) / (n - 1)).where(n > 1)


def _cluster_variance(values: xr.DataArray, clusters: np.ndarray) -> xr.DataArray:
    """The jackknife variance of the mean over sessions, leaving out all sessions of a cluster (a subject) at a time."""
    names = np.unique(clusters)
    left = [values.isel(session=np.flatnonzero(clusters != name)).mean("session", skipna=False) for name in names]
    return _sample_variance(xr.concat(left, dim="cluster"), "cluster") * (len(names) - 1) ** 2 / len(names)
