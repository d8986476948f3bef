"""Checks of predictions, seeds, controls and sources: items 6 to 8 of an honest evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isclose

import numpy as np
import xarray as xr

from neurovar.robustness.evaluation import _intervals
from neurovar.robustness.evaluation._result import ensemble
from neurovar.robustness.honesty._evidence import (
    Check,
    Claim,
    Evidence,
    Finding,
    Judge,
    Status,
    as_floats,
    at_every_claim,
    judged,
    worst,
)

PASS, FAIL, NOT_RUN = Status.PASS, Status.FAIL, Status.NOT_RUN
N_PREDICTIONS = (1, 10, 100)
LEAST_SEEDS = 2
IN_THE_LAYER = ("train_only", "test_only", "rotated", "shuffled_spectrum", "diagonal", "isotropic", "mean_shift")
"""Controls whose noise is at the layer, where it has a trace that can be matched."""
ELSEWHERE = ("input_gaussian", "adversarial")
SAME_TRACE = 0.01


def predictions(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Predictions from 1, 10 and 100 draws, with expected and worst-of-k accuracy."""
    numbers = sorted(int(k) for k in evidence.result["k"].values)
    message = f"predictions from {', '.join(map(str, numbers))} draws"
    status = PASS if set(N_PREDICTIONS) <= set(numbers) else FAIL
    return Finding(status, message, float(max(numbers)), float(max(N_PREDICTIONS)))


def training_seeds(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Intervals cover training seeds."""
    return _seeds(evidence.result.sizes["seed"], "training seeds")


def noise_seeds(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Intervals cover noise seeds."""
    return _seeds(evidence.result.sizes["draw_seed"], "noise seeds")


def _seeds(n: int, name: str) -> Finding:
    return Finding(PASS if n >= LEAST_SEEDS else FAIL, f"{n} {name}", float(n), float(LEAST_SEEDS))


def clean_images(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Clean images are classified better than by chance: or there is nothing to lose."""
    clean = np.flatnonzero(evidence.result["kind"].values == "clean")
    if not clean.size:
        return Finding(NOT_RUN, "no clean images")
    mean, low, high = evidence.accuracy(int(clean[0]))
    chance = 1 / evidence.result.attrs["n_classes"]
    message = f"accuracy on clean images {mean:.3f} [{low:.3f}, {high:.3f}], chance {chance:.3f}"
    return Finding(PASS if low > chance else FAIL, message, mean, chance)


def worst_case(evidence: Evidence, claim: Claim) -> Finding:
    """The worst case for each image is over several attacks."""
    rows = evidence.at(claim)
    n = len({(row.modification, row.loss, row.gradient) for row in rows})
    if n < 2:
        return Finding(NOT_RUN, f"over {n} kinds of attack", float(n), 2.0)
    right = evidence.right[[row.index for row in rows]]
    mean, low, high = as_floats(_intervals.of_proportion(right.min(0)))
    return Finding(PASS, f"{mean:.3f} [{low:.3f}, {high:.3f}] right under all of {len(rows)} attacks", float(n), 2.0)


def source_differs(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The noise was made from another attack, another ε and another norm than those of some tests."""
    coords = evidence.of_noise.coords
    method = str(coords["origin"].item()) if "origin" in coords else ""
    if not method:
        return Finding(NOT_RUN, "what the noise was made from is not known", bound=3.0)
    of, epsilon, norm = (coords[f"origin_{part}"].item() for part in ("of", "epsilon", "norm"))
    if np.isnan(epsilon):
        return Finding(PASS, f"made from {of or method}, which is no attack", 3.0, 3.0)
    tests = evidence.attacks
    others = {
        "attack": any(row.modification.lower() != of.lower() for row in tests),
        "ε": any(not isclose(row.strength, epsilon) for row in tests),
        "norm": any(row.norm != norm for row in tests),
    }
    same = [aspect for aspect, other in others.items() if not other]
    tried = f"no test with another {' or '.join(same)}" if same else "tests with another of each"
    message = f"made from {of} ε={epsilon:g} {norm}; {tried}"
    return Finding(FAIL if same else PASS, message, float(3 - len(same)), 3.0)


@dataclass(frozen=True)
class ControlsCheck(Check):
    """Whether every control is there and truly matched, which is asked of the noises together."""

    judge: Judge = field(init=False, repr=False)
    matched_by: str = field(kw_only=True)
    wanted: tuple[str, ...] = field(kw_only=True)

    def by_noise(self, everyone: Sequence[Evidence], claims: Sequence[Claim]) -> list[Finding]:
        """The same for each noise."""
        return [self._finding(everyone[0].result)] * len(everyone)

    def overall(self, findings: Sequence[Finding], everyone: Sequence[Evidence]) -> Finding:
        """What holds of all of them."""
        return findings[0]

    def _finding(self, result: xr.Dataset) -> Finding:
        if "control" not in result.coords or "matched_by" not in result.coords:
            return Finding(NOT_RUN, "no coordinates control and matched_by on the noises")
        names = result["noise"].values.astype(str)
        control, by = (dict(zip(names, result[coord].values.astype(str))) for coord in ("control", "matched_by"))
        tested = [name for name in names if not control[name] and bool(result["noisy"].sel(noise=name))]
        matched = {name: control[name] for name in names if control[name] and by[name] == self.matched_by}
        missing = [kind for kind in self.wanted if kind not in matched.values()]
        if missing or not tested:
            message = f"without {', '.join(missing)}" if missing else "no noise that is not a control"
            n = float(len(self.wanted))
            return Finding(NOT_RUN, message, n - len(missing), n)
        compare = _trace_of if self.matched_by == "trace" else _clean_accuracy_of
        return worst([(name, compare(result, name, tested)) for name in matched])


def _trace_of(result: xr.Dataset, control: str, tested: Sequence[str]) -> Finding:
    row = result.sel(noise=control)
    trace = row["trace"].item()
    if np.isnan(trace) or row["control"].item() not in IN_THE_LAYER:
        return Finding(PASS, "has no trace in the layer", 0.0, SAME_TRACE)
    off = min(abs(trace / result["trace"].sel(noise=name).item() - 1) for name in _under_test(row, tested))
    return Finding(PASS if off <= SAME_TRACE else FAIL, f"trace off by {off:.2%}", off, SAME_TRACE)


def _clean_accuracy_of(result: xr.Dataset, control: str, tested: Sequence[str]) -> Finding:
    clean = ensemble(result, int(result["k"].max())).isel(condition=int(np.argmax(result["kind"].values == "clean")))
    ordered = clean.transpose("noise", "seed", "draw_seed", "stimulus").astype(float)
    findings = []
    for name in _under_test(result.sel(noise=control), tested):
        difference = (ordered.sel(noise=control) - ordered.sel(noise=name)).values
        mean, low, high = as_floats(_intervals.of_difference(difference))
        # Neither side is the better one: what has to be small is the size of the difference.
        off = (mean, low, high) if mean >= 0 else (-mean, -high, -low)
        side = "above" if mean >= 0 else "below"
        findings.append(judged(off, f"accuracy on clean images {side} that of {name} by"))
    return min(findings, key=lambda finding: abs(finding.figure))


def _under_test(control: xr.Dataset, tested: Sequence[str]) -> Sequence[str]:
    """The noise that a control is of, or all that are no controls where it does not say."""
    of = str(control["control_of"].item()) if "control_of" in control.coords else ""
    return [of] if of in tested else tested


CHECKS = (
    Check("clean images are classified", 6, "accuracy on clean images is above chance", clean_images),
    Check(
        "predictions from 1, 10 and 100 draws",
        6,
        "single draws and ensembles were scored",
        predictions,
        needs_noise=True,
    ),
    Check("training seeds", 6, "intervals cover training seeds", training_seeds),
    Check("noise seeds", 6, "intervals cover noise seeds", noise_seeds),
    Check("worst case over attacks", 6, "each image's worst case is over several attacks", at_every_claim(worst_case)),
    Check(
        "source and test differ",
        8,
        "the noise was tested against another attack, ε and norm than it was made from",
        source_differs,
        needs_noise=True,
    ),
    ControlsCheck(
        "controls at matched trace",
        7,
        "every control of the layer's noise was tested at its trace",
        matched_by="trace",
        wanted=IN_THE_LAYER,
    ),
    ControlsCheck(
        "controls at matched clean accuracy",
        7,
        "every control was tested at the clean accuracy of the noise",
        matched_by="clean_accuracy",
        wanted=(*IN_THE_LAYER, *ELSEWHERE),
    ),
)
