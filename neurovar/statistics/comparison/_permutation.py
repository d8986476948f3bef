"""Is a difference between two systems larger than exchanging their sessions, stimuli or units makes it?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import false_discovery_control

from neurovar.responses import DIMS, mark, why_residual
from neurovar.statistics._registry import choose
from neurovar.statistics._statistic import Evaluation, Statistic
from neurovar.statistics._workers import in_workers
from neurovar.statistics.comparison._levels import stimuli, without_stimuli
from neurovar.statistics.comparison._matching import System, session_list

EXCHANGES = ("session", "stimulus", "unit")
CONTROLS = ("max", "fdr", None)
MAX_GROUPS = 50
"""Groups of stimuli for the jackknife's pseudo-values: each costs a computation of all statistics, and more than 50
random signs make p no finer than a thousand permutations do."""
ROUNDING = 1e-9
"""Sums of the same numbers in another order are ties up to this part of the spread."""


def permutation_test(
    first: System,
    second: System,
    statistics: Sequence[str | Statistic] | None = None,
    *,
    exchange: str,
    n_permutations: int,
    control: str | None,
    rng: np.random.Generator | int,
    n_jobs: int = 1,
    **settings: Any,
) -> xr.Dataset:
    """Two-sided permutation test of the difference first − second of each statistic.

    `exchange` says what is the same under the null hypothesis and therefore may be exchanged:

    - "session": the sessions of both systems are draws from one population: their labels are permuted. Exact.
    - "unit": so are the units of two populations that were recorded together (areas, layers): same stimuli and same
      trials. Units are dealt anew into two sets of the same sizes, and the statistics computed again. Exact.
    - "stimulus": systems that saw the same stimuli, units fixed: the stimulus-wise contributions to the difference,
      d_g = G·D − (G − 1)·D_{−g} (the jackknife's pseudo-values, of G ≤ 50 groups of stimuli), keep or change their
      sign. Valid as far as a statistic is nearly a mean over stimuli and d_g symmetric. The error of random splits
      enters each d_g, which costs power: many splits help. It says nothing about other units of the same areas.

    p = (1 + number of permutations with |D* − c| ≥ |D − c|) / (1 + n_permutations), c the mean of the permutation
    distribution, D included.

    control = "max" (family-wise error): p_corrected compares with the largest |D* − c| among the statistics, each in
    standard deviations of its permutation distribution; it takes their correlation into account. control = "fdr"
    (false discoveries): Benjamini–Hochberg, which takes the statistics as independent or positively dependent.

    Parameters
    ----------
    first, second : xarray.DataArray or sequence of xarray.DataArray
        Responses (stimulus, repeat, unit), or a list of them, one a session, over which statistics are averaged.
    statistics : sequence of str or Statistic, optional
        Names in `STATISTICS` or statistics of one's own; by default all but the slow ones.
    exchange : {"session", "stimulus", "unit"}
        What is exchanged.
    n_permutations : int
        How many random exchanges; p is at least 1 / (1 + n_permutations).
    control : {"max", "fdr"} or None
        What is corrected for several statistics: the family-wise error, false discoveries, or nothing.
    rng : numpy.random.Generator or int
        For permutations, and for the splits of statistics that use them.
    n_jobs : int, optional
        Processes; the numbers do not depend on it.
    **settings : Any
        Settings of statistics by their names, such as ranks=(2, 20) for an exponent.

    Returns
    -------
    xarray.Dataset
        (statistic): `first`, `second`, `difference`, `p`, `p_corrected` (unless control is None), `n_permutations`
        (those in which the statistic is defined), `reason` (why it is NaN).

    Raises
    ------
    ValueError
        If a system is not valid, a statistic, a setting or an option is unknown, or the systems do not allow the
        exchange.

    References
    ----------
    Nichols & Holmes 2002, doi:10.1002/hbm.1058 (maximum statistic); Phipson & Smyth 2010, doi:10.2202/1544-6115.1585
    (p is never 0); Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> from neurovar.statistics import population
    >>> first, second = ([population(n_stimuli=9, n_repeats=4, n_units=5, rng=seed) for seed in seeds]
    ...                  for seeds in (range(4), range(4, 8)))
    >>> test = permutation_test(first, second, ["noise_correlation"], exchange="session", n_permutations=99,
    ...                         control=None, rng=0)
    >>> bool(test.p > 0.05)
    True
    """
    if control not in CONTROLS:
        raise ValueError(f"expected control= one of {', '.join(map(str, CONTROLS))}, got {control!r}")
    if exchange not in EXCHANGES:
        raise ValueError(f"expected exchange= one of {', '.join(EXCHANGES)}, got {exchange!r}")
    if n_permutations < 1:
        raise ValueError(f"expected at least 1 permutation, got {n_permutations}")
    rng = np.random.default_rng(rng)
    evaluation = Evaluation(choose(statistics, settings), int(rng.integers(2**63)))
    systems = session_list(first), session_list(second)
    results = [[evaluation.with_reasons(session) for session in sessions] for sessions in systems]
    values = [np.array([value for value, _ in own]) for own in results]
    means = [own.mean(axis=0) for own in values]
    if exchange == "session":
        observed, permuted = _sessions(values[0], values[1], n_permutations, rng)
    elif exchange == "stimulus":
        observed, permuted = _stimuli(*systems, means[0] - means[1], evaluation, n_permutations, rng, n_jobs)
    else:
        observed, permuted = means[0] - means[1], _units(*systems, evaluation, n_permutations, rng, n_jobs)
    scores = _scores(observed, permuted)
    of_sessions = [reasons for own in results for _, reasons in own]
    reasons = [next(filter(None, of_statistic), "") for of_statistic in zip(*of_sessions)]
    table = {"first": means[0], "second": means[1], "difference": means[0] - means[1], "p": _p_values(scores)}
    if control:
        table["p_corrected"] = _p_values(scores, joint=True) if control == "max" else _false_discovery(table["p"])
    table |= {"n_permutations": np.isfinite(permuted).sum(axis=0), "reason": np.array(reasons)}
    return xr.Dataset(
        {name: ("statistic", column) for name, column in table.items()},
        coords={"statistic": evaluation.names},
        attrs={"exchange": exchange, "n_permutations": n_permutations, "control": str(control)},
    )


def _sessions(
    first: np.ndarray, second: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The difference of means over sessions, and under permuted labels; values are (session, statistic)."""
    # Three sessions have three divisions, so that p could not be below 1/3.
    if len(first) + len(second) < 4:
        raise ValueError(f"expected at least 4 sessions to exchange, got {len(first)} and {len(second)}")
    pooled = np.concatenate([first, second])
    orders = [rng.permutation(len(pooled)) for _ in range(n_permutations)]

    def difference(order: np.ndarray) -> np.ndarray:
        return pooled[order[: len(first)]].mean(axis=0) - pooled[order[len(first) :]].mean(axis=0)

    return difference(np.arange(len(pooled))), np.array([difference(order) for order in orders])


def _stimuli(
    first: list[xr.DataArray],
    second: list[xr.DataArray],
    difference: np.ndarray,
    evaluation: Evaluation,
    n_permutations: int,
    rng: np.random.Generator,
    n_jobs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the stimulus-wise differences, and under random signs."""
    ids = stimuli(first)
    if set(ids) != set(stimuli(second)):
        n_shared = len(set(ids) & set(stimuli(second)))
        raise ValueError(
            f"expected systems that saw the same stimuli, got {len(ids)} and {len(stimuli(second))} "
            f"with {n_shared} in common; responses.align or match keeps those"
        )
    groups = np.array_split(rng.permutation(len(ids)), min(len(ids), MAX_GROUPS))
    calls = [(first, second, {ids[i] for i in group}, evaluation) for group in groups]
    without = np.array(in_workers(_difference_without, calls, n_jobs))
    # Of a mean D = Σ d_g / G the difference without group g is (G·D − d_g) / (G − 1), which this solves for d_g.
    contributions = len(groups) * difference - (len(groups) - 1) * without
    signs = rng.choice([-1.0, 1.0], size=(n_permutations, len(groups)))
    return contributions.mean(axis=0), signs @ contributions / len(groups)


def _difference_without(
    first: list[xr.DataArray], second: list[xr.DataArray], left_out: set, evaluation: Evaluation
) -> np.ndarray:
    means = [
        evaluation.values(without_stimuli(session, left_out) for session in sessions).mean(axis=0)
        for sessions in (first, second)
    ]
    return means[0] - means[1]


def _units(
    first: list[xr.DataArray],
    second: list[xr.DataArray],
    evaluation: Evaluation,
    n_permutations: int,
    rng: np.random.Generator,
    n_jobs: int,
) -> np.ndarray:
    """Differences between random divisions of the units of both."""
    if len(first) != 1 or len(second) != 1:
        raise ValueError(f"expected one session of each system to exchange units, got {len(first)} and {len(second)}")
    left, right = first[0], second[0]
    # A unit may change sides only if it has the same trials there: the absent ones must be absent in both.
    same = left["stimulus"].values.tolist() == right["stimulus"].values.tolist() and left.shape[:2] == right.shape[:2]
    if not same or (left[..., 0].isnull().values != right[..., 0].isnull().values).any():
        raise ValueError(
            "expected units recorded together, of the same stimuli and trials, to exchange units; got others"
        )
    if left.attrs.get("units") != right.attrs.get("units"):
        raise ValueError(f"expected the same units, got {left.attrs.get('units')!r} and {right.attrs.get('units')!r}")
    values = np.concatenate([left.values, right.values], axis=2)
    pooled = xr.DataArray(values, dims=DIMS, coords={"stimulus": left["stimulus"].values}, attrs=left.attrs)
    labels = [np.broadcast_to(np.asarray(s.coords.get("recording", 0)), s.sizes["unit"]) for s in (left, right)]
    pooled = mark(pooled, recording=np.concatenate(labels), residuals=why_residual(left) or why_residual(right))
    calls = [(pooled, rng.permutation(values.shape[2]), left.sizes["unit"], evaluation) for _ in range(n_permutations)]
    return np.array(in_workers(_divided, calls, n_jobs))


def _divided(pooled: xr.DataArray, order: np.ndarray, n_first: int, evaluation: Evaluation) -> np.ndarray:
    first, second = evaluation.values(pooled.isel(unit=np.sort(part)) for part in np.split(order, [n_first]))
    return first - second


def _scores(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """|D − c| in standard deviations of the permutation distribution: (1 + permutation, statistic), observed first."""
    # The observed division is one of those that the null hypothesis takes as equally likely: with it among them p is
    # exact and never 0. Centring at their mean c makes the test two-sided where groups of unequal size shift D*.
    whole = np.concatenate([observed[None], permuted])
    defined = np.isfinite(whole) & np.isfinite(observed)
    n = np.maximum(defined.sum(axis=0), 1)
    deviation = np.where(defined, whole, 0) - np.where(defined, whole, 0).sum(axis=0) / n
    spread = np.sqrt((np.where(defined, deviation, 0) ** 2).sum(axis=0) / n)
    score = np.divide(np.abs(deviation), spread, out=np.zeros_like(deviation), where=spread > 0)
    return np.where(defined, score, np.nan)


def _p_values(scores: np.ndarray, *, joint: bool = False) -> np.ndarray:
    """The part of all permutations, the observed one among them, whose score (`joint`: any score) is as large."""
    # The largest score of a permutation keeps the correlation of the statistics: it bounds all of them at once.
    null = np.broadcast_to(np.fmax.reduce(scores, axis=1)[:, None], scores.shape) if joint else scores
    as_large = (null >= scores[0] - ROUNDING).sum(axis=0)
    return np.where(np.isfinite(scores[0]), as_large / np.maximum(np.isfinite(null).sum(axis=0), 1), np.nan)


def _false_discovery(p: np.ndarray) -> np.ndarray:
    corrected = np.full_like(p, np.nan)
    defined = np.isfinite(p)
    if defined.any():
        corrected[defined] = false_discovery_control(p[defined])
    return corrected
