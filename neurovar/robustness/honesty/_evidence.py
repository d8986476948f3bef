"""What the honesty checks look at, and how they judge a comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import isclose

import numpy as np
import xarray as xr

from neurovar.robustness.evaluation import _intervals
from neurovar.robustness.evaluation._result import ensemble

PASS, FAIL, NOT_RUN, NOT_APPLICABLE = "pass", "fail", "not run", "not applicable"
EVEN = "even"
SEVERITY = (FAIL, NOT_RUN, EVEN, PASS, NOT_APPLICABLE)
TOLERANCE = 0.02


@dataclass(frozen=True)
class Finding:
    """The outcome of a check, with the figure that decided it and the bound that this had to keep."""

    status: str
    said: str
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
class Row:
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
        return self.result.sel(noise=self.name)

    @property
    def noisy(self) -> bool:
        return bool(self.of_noise["noisy"])

    @cached_property
    def right(self) -> np.ndarray:
        """(condition, seed, draw_seed, stimulus)"""
        values = ensemble(self.of_noise, int(self.result["k"].max()))
        return values.transpose("condition", "seed", "draw_seed", "stimulus").values.astype(float)

    @cached_property
    def attacks(self) -> list[Row]:
        """The attacks that were run on every seed."""
        coords = {one.name: self.result[one.name].values.tolist() for one in fields(Row) if one.name != "index"}
        rows = [Row(index, *values) for index, values in enumerate(zip(*coords.values()))]
        ran = self.of_noise["ran"].all(("seed", "draw_seed")).values & (self.result["kind"].values == "attack")
        return [row for row in rows if ran[row.index]]

    def at(self, claim: Claim) -> list[Row]:
        return [one for one in self.attacks if one.norm == claim.norm and isclose(one.strength, claim.epsilon)]

    def strongest(self, rows: Sequence[Row]) -> Row:
        """The attack that leaves least right."""
        return min(rows, key=lambda row: self._means[row.index])

    @cached_property
    def _means(self) -> np.ndarray:
        return self.right.mean((1, 2, 3))

    def accuracy(self, condition: int) -> tuple[float, float, float]:
        return _floats(_intervals.of_proportion(self.right[condition]))

    def fall(self, first: Row, second: Row) -> tuple[float, float, float]:
        """How much more is right under the first attack than under the second, paired, with its interval."""
        return _floats(_intervals.of_difference(self.right[first.index] - self.right[second.index]))


Check = Callable[[Evidence, Sequence[Claim]], Finding]
CheckAt = Callable[[Evidence, Claim], Finding]


def _floats(values: tuple[np.ndarray, ...]) -> tuple[float, float, float]:
    mean, low, high = (float(value) for value in values)
    return mean, low, high


def judged(difference: tuple[float, float, float], said: str) -> Finding:
    """Of a difference that should not be above 0: pass if its interval ends below the tolerance, fail if it lies above
    0 and goes beyond that, and undecided, which is no pass, otherwise."""
    mean, low, high = difference
    said = f"{said}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    if high <= TOLERANCE:
        return Finding(PASS, said, mean, TOLERANCE)
    if low > 0:
        return Finding(FAIL, said, mean, TOLERANCE)
    return Finding(NOT_RUN, f"{said}; too few images or seeds to tell", mean, TOLERANCE)


def at_every_claim(check: CheckAt) -> Check:
    """The worst of what the check finds at each claim."""

    def checked(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
        return worst([(str(claim), check(evidence, claim)) for claim in claims])

    checked.__doc__ = check.__doc__
    return checked


def worst(findings: Sequence[tuple[str, Finding]]) -> Finding:
    """The first of the most severe, with where it was found."""
    if not findings:
        return Finding(NOT_RUN, "no attack was run")
    where, found = min(findings, key=lambda one: SEVERITY.index(one[1].status))
    return replace(found, said=f"{where}: {found.said}" if where else found.said)
