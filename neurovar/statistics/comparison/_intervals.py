"""Statistics of one system, with intervals that take subjects, sessions, units, stimuli and trials as random draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import t as student

from neurovar.statistics._registry import choose
from neurovar.statistics._statistic import Evaluation, Statistic
from neurovar.statistics._workers import in_workers
from neurovar.statistics.comparison._levels import LEVELS, Design, design, leave_out_units, leave_out_within
from neurovar.statistics.comparison._matching import System, session_list


def intervals(
    system: System,
    statistics: Sequence[str | Statistic] | None = None,
    *,
    levels: Sequence[str] = LEVELS,
    n_resamples: int = 40,
    rng: np.random.Generator | int,
    n_jobs: int = 1,
    **settings: Any,
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
    system : xarray.DataArray or sequence of xarray.DataArray
        Responses (stimulus, repeat, unit), or a list of them, one a session. The subject of a session is its units'
        coordinate `subject` or attrs["subject"]; stimuli are the same where their ids are.
    statistics : sequence of str or Statistic, optional
        Names in `STATISTICS` or statistics of one's own; by default all but the slow ones.
    levels : sequence of str, optional
        What is drawn at random, among "subject", "session", "unit", "stimulus" and "repeat".
    n_resamples : int, optional
        Each costs three computations of the statistics (one where sessions vary).
    rng : numpy.random.Generator or int
        For resamples, and for the splits of statistics that use them.
    n_jobs : int, optional
        Processes; the numbers do not depend on it.
    **settings : Any
        Settings of statistics by their names, such as ranks=(2, 20) for an exponent.

    Returns
    -------
    xarray.Dataset
        (statistic): `estimate`, `standard_error`, `low`, `high`; `n_resamples`, in how many of the resamples the
        statistic was defined; `reason`, why it is NaN (as it is where one session does not allow it);
        attrs["levels"]: what varies.

    Raises
    ------
    ValueError
        If the system is not valid or has no repeats, a statistic is unknown or lacks a setting, there are fewer than
        two resamples, or no level has two members.

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
    evaluation = Evaluation(choose(statistics, settings), int(rng.integers(2**63)))
    return measure([session_list(system)], evaluation, levels=levels, n_resamples=n_resamples, rng=rng, n_jobs=n_jobs)


def measure(
    subsamples: list[list[xr.DataArray]],
    evaluation: Evaluation,
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
    varying = design(subsamples[0], levels)
    full, reasons = _full(subsamples, evaluation, n_jobs)
    # At least two a subsample, because variances are taken within each.
    n_per_subsample = max(2, -(-n_resamples // len(subsamples)))
    calls = [
        (sessions, values, evaluation, varying, resample_rng)
        for sessions, values in zip(subsamples, full.values)
        for resample_rng in rng.spawn(n_per_subsample)
    ]
    dims = ("subsample", "resample", "part", "session", "statistic")
    shape = (len(subsamples), n_per_subsample, 3, *full.shape[1:])
    shifts = xr.DataArray(np.array(in_workers(_resample, calls, n_jobs)).reshape(shape), dims=dims)
    variance, dof = _variance(full, shifts, varying, shares)
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
        coords={"statistic": evaluation.names},
        attrs={"levels": ", ".join(filter(None, (varying.across, varying.within)))},
    )


def _full(subsamples: list[list[xr.DataArray]], evaluation: Evaluation, n_jobs: int) -> tuple[xr.DataArray, list[str]]:
    """Each session's statistics (subsample, session, statistic), and why one has no value in any subsample."""
    calls = [(session,) for sessions in subsamples for session in sessions]
    values, reasons = zip(*in_workers(evaluation.with_reasons, calls, n_jobs))
    shape = (len(subsamples), len(subsamples[0]), len(evaluation.statistics))
    full = xr.DataArray(np.array(values).reshape(shape), dims=("subsample", "session", "statistic"))
    undefined = full.isnull().any("session").all("subsample").values
    # The first reason stands for all: a statistic has none only where no subsample has a value in every session.
    first = [next(filter(None, of_statistic), "") for of_statistic in zip(*reasons)]
    return full, [reason if never else "" for reason, never in zip(first, undefined)]


def _resample(
    sessions: list[xr.DataArray], full: np.ndarray, evaluation: Evaluation, varying: Design, rng: np.random.Generator
) -> np.ndarray:
    """How far the statistics shift, (part, session, statistic), times √(kept / left out).

    The parts are: without some stimuli or trials; without some units; and what leaving out both shifts beyond the sum.

    A statistic is taken as a mean over stimuli × units, x_su = μ + a_s + b_u + c_su. Without a random L of n members
    the mean of the K others shifts by a random amount of variance (L/K) σ²/n, σ²/n being what the jackknife is after:
    hence the factor √(K/L). Without both, the shift is that of the stimuli, plus that of the units, plus a rest that
    comes from c alone and has the variance (L_s/K_s)(L_u/K_u) σ_c²/(n_s n_u): hence the product of both factors.
    """
    shifts = np.zeros((3, *full.shape))
    thinned, of_within = leave_out_within(sessions, varying.within, rng)
    if varying.within:
        shifts[0] = of_within * (evaluation.values(thinned) - full)
    if varying.across == "unit":
        kept, odds = zip(*(leave_out_units(session.sizes["unit"], rng) for session in sessions))
        of_units = np.array(odds)[:, None]
        fewer = (session.isel(unit=units) for session, units in zip(sessions, kept))
        shifts[1] = of_units * (evaluation.values(fewer) - full)
        if varying.within:
            both = evaluation.values(session.isel(unit=units) for session, units in zip(thinned, kept)) - full
            # The first two already have one factor each and get the other, so that all three terms have both.
            shifts[2] = of_within * of_units * both - of_units * shifts[0] - of_within * shifts[1]
    return shifts


def _variance(
    full: xr.DataArray, shifts: xr.DataArray, varying: Design, shares: tuple[float, float]
) -> tuple[xr.DataArray, xr.DataArray]:
    """The variance of the mean over sessions and subsamples, and its degrees of freedom; both (statistic)."""
    n_subsamples, n_resamples = shifts.sizes["subsample"], shifts.sizes["resample"]
    n_draws = n_subsamples * (n_resamples - 1)
    share_across, share_within = shares
    spread = _sample_variance(shifts.mean("session", skipna=False), "resample").mean("subsample")
    by_within, by_across, by_both = (spread.isel(part=part) for part in range(3))
    # A jackknife variance knows n − 1 differences of its n members, of which random resamples see n_draws more or less:
    # the relative variance of a variance with ν degrees of freedom is 2/ν, and both sources of it add.
    dof_within, dof_across = (1 / (1 / max(n - 1, 1) + 1 / n_draws) for n in (varying.n_within, varying.n_across))
    if varying.clusters is not None:
        # Subjects or sessions: all of them are left out in turn, so that nothing is random in the choice. What is due
        # to stimuli and clusters both is the cluster variance of the shifts that leaving out stimuli makes.
        share_across, dof_across = 1.0, varying.n_across - 1
        by_across = _cluster_variance(full.mean("subsample"), varying.clusters)
        of_within = shifts.isel(part=0)
        centred = of_within - of_within.mean("resample")
        by_both = _cluster_variance(centred, varying.clusters).mean(("subsample", "resample"))
        by_both = by_both * n_resamples / (n_resamples - 1)  # the shifts were centred at their own mean
    # V_within and V_across both contain what is due to stimuli and units together (c of `_resample`), V_both, which is
    # to count once. Scaled to the whole system, p of whose units and q of whose stimuli a subsample has, the sum is
    #   q (V_within − V_both) + p (V_across − V_both) + p q V_both
    #   = q (V_within − (1 − p) V_both) + p (V_across − V_both).
    within = share_within * (by_within - (1 - share_across) * by_both).clip(min=0)
    across = share_across * (by_across - by_both).clip(min=0)
    between = _between(full)
    variance = within + across + between
    # Satterthwaite: a sum of variances V_i with ν_i degrees of freedom is about as a χ² with (Σ V_i)² / Σ (V_i²/ν_i).
    uncertainty = within**2 / dof_within + across**2 / dof_across + between**2 / max(n_subsamples - 1, 1)
    return variance, (variance**2 / uncertainty).where(uncertainty > 0, 1)


def _between(full: xr.DataArray) -> xr.DataArray:
    """The variance of the mean over subsamples that comes from their choice."""
    # Each subsample is one random choice of units and stimuli: the mean of n of them has a part 1/n of their variance.
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
    # (G − 1)/G · Σ (m_g − m̄)², in terms of the sample variance, which divides by G − 1.
    return _sample_variance(xr.concat(left, dim="cluster"), "cluster") * (len(names) - 1) ** 2 / len(names)
