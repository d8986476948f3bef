"""What the honesty checks look at, and how they judge a comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cached_property
from math import isclose

import numpy as np
import xarray as xr

from neurovar.robustness.evaluation import _intervals
from neurovar.robustness.evaluation._result import ensemble

TOLERANCE = 0.02
"""Differences of accuracy up to this count as none: what one image in fifty decides."""


class Status(StrEnum):
    """How a check came out, the most severe first."""

    FAIL = "fail"
    NOT_RUN = "not run"
    EVEN = "even"
    PASS = "pass"
    NOT_APPLICABLE = "not applicable"

    @property
    def severity(self) -> int:
        """0 for the most severe."""
        return list(Status).index(self)


@dataclass(frozen=True)
class Finding:
    """The outcome of a check, in words, with the figure that decided it and the bound that this had to keep."""

    status: Status
    message: str
    figure: float = np.nan
    bound: float = np.nan


@dataclass(frozen=True)
class Claim:
    """A norm and a size at which robustness is claimed."""

    norm: str
    epsilon: float

    def __str__(self) -> str:
        return f"ε={self.epsilon:g}" if self.norm == "linf" else f"{self.norm} ε={self.epsilon:g}"


@dataclass(frozen=True)
class Attacked:
    """An attack among the conditions of a result: which one, and its coordinates."""

    index: int
    condition: str
    modification: str
    loss: str
    gradient: str
    norm: str
    strength: float
    n_draws: float
    n_steps: float
    n_restarts: float
    n_queries: float
    step: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """The cells of one noise; accuracy is that of the ensemble of the most draws."""

    result: xr.Dataset
    name: str

    @cached_property
    def of_noise(self) -> xr.Dataset:
        """The result of this noise."""
        return self.result.sel(noise=self.name)

    @property
    def noisy(self) -> bool:
        """Whether there is noise at all."""
        return bool(self.of_noise["noisy"])

    @cached_property
    def right(self) -> np.ndarray:
        """(condition, seed, draw_seed, stimulus)"""
        values = ensemble(self.of_noise, int(self.result["k"].max()))
        return values.transpose("condition", "seed", "draw_seed", "stimulus").values.astype(float)

    @cached_property
    def attacks(self) -> list[Attacked]:
        """The attacks that were run on every seed."""
        coords = {item.name: self.result[item.name].values.tolist() for item in fields(Attacked)[1:]}
        rows = [Attacked(index, *values) for index, values in enumerate(zip(*coords.values()))]
        ran = self.of_noise["ran"].all(("seed", "draw_seed")).values & (self.result["kind"].values == "attack")
        return [row for row in rows if ran[row.index]]

    def at(self, claim: Claim) -> list[Attacked]:
        """The attacks of a claim's norm and size."""
        return [row for row in self.attacks if row.norm == claim.norm and isclose(row.strength, claim.epsilon)]

    def strongest(self, rows: Sequence[Attacked]) -> Attacked:
        """The attack that leaves least right."""
        return min(rows, key=lambda row: self._means[row.index])

    @cached_property
    def _means(self) -> np.ndarray:
        return self.right.mean((1, 2, 3))

    def accuracy(self, condition: int) -> tuple[float, float, float]:
        """With its interval."""
        return as_floats(_intervals.of_proportion(self.right[condition]))

    def fall(self, first: Attacked, second: Attacked) -> tuple[float, float, float]:
        """How much more is right under the first attack than under the second, paired, with its interval."""
        return as_floats(_intervals.of_difference(self.right[first.index] - self.right[second.index]))


Judge = Callable[[Evidence, Sequence[Claim]], Finding]


@dataclass(frozen=True)
class Check:
    """A question that an evaluation has to answer, and how the answer is judged.

    Parameters
    ----------
    name : str
        What results call it.
    item : int
        The item of the protocol that asks for it.
    asks : str
        What has to hold.
    judge : callable
        (Evidence, claims) → Finding, for one noise.
    needs_noise : bool, optional
        Whether it means nothing for a network without noise.
    """

    name: str
    item: int
    asks: str
    judge: Judge
    needs_noise: bool = False

    def by_noise(self, everyone: Sequence[Evidence], claims: Sequence[Claim]) -> list[Finding]:
        """What it finds for each noise."""
        return [
            Finding(Status.NOT_APPLICABLE, "means nothing without noise")
            if self.needs_noise and not evidence.noisy
            else self.judge(evidence, claims)
            for evidence in everyone
        ]

    def overall(self, findings: Sequence[Finding], everyone: Sequence[Evidence]) -> Finding:
        """The worst over the noises; a check that means nothing for any of them was not run."""
        finding = worst([(evidence.name, finding) for evidence, finding in zip(everyone, findings)])
        no_noise = finding.status is Status.NOT_APPLICABLE
        return Finding(Status.NOT_RUN, "no noisy network") if no_noise else finding


def as_floats(values: tuple[np.ndarray, ...]) -> tuple[float, float, float]:
    """A mean and its interval as plain numbers."""
    mean, low, high = (float(value) for value in values)
    return mean, low, high


def judged(difference: tuple[float, float, float], message: str) -> Finding:
    """Of a difference that should not be above 0: pass if its interval ends below the tolerance, fail if it lies above
    0 and goes beyond that, and undecided, which is no pass, otherwise.

    The bound is on the interval's end and not on the difference: with few images a difference is small by luck, and
    absence of evidence would pass for evidence of absence (an equivalence test, with the tolerance as its margin).
    """
    mean, low, high = difference
    message = f"{message}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    if high <= TOLERANCE:
        return Finding(Status.PASS, message, mean, TOLERANCE)
    if low > 0:
        return Finding(Status.FAIL, message, mean, TOLERANCE)
    return Finding(Status.NOT_RUN, f"{message}; too few images or seeds to tell", mean, TOLERANCE)


def at_every_claim(judge: Callable[[Evidence, Claim], Finding]) -> Judge:
    """The worst of what is found at each claim."""

    def judge_all(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
        return worst([(str(claim), judge(evidence, claim)) for claim in claims])

    return judge_all


def worst(findings: Sequence[tuple[str, Finding]]) -> Finding:
    """The first of the most severe, with where it was found."""
    if not findings:
        return Finding(Status.NOT_RUN, "no attack was run")
    where, finding = min(findings, key=lambda pair: pair[1].status.severity)
    return replace(finding, message=f"{where}: {finding.message}" if where else finding.message)
