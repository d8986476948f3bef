"""Checks of predictions, seeds, controls and sources: items 6 to 8 of an honest evaluation."""

import re
from collections.abc import Sequence
from math import isclose

import numpy as np
import xarray as xr

import neurovar
from neurovar.robustness.evaluation import _intervals
from neurovar.robustness.evaluation._result import ensemble
from neurovar.robustness.honesty._evidence import FAIL, NOT_RUN, PASS, Claim, Evidence, Finding, judged, worst

N_PREDICTIONS = (1, 10, 100)
LEAST_SEEDS = 2
STRUCTURAL = ("rotated", "shuffled_spectrum", "diagonal", "isotropic", "mean_shift")
CONTROLS = ("train_only", "test_only", *STRUCTURAL, "input_gaussian", "adversarial")
KNOWN = tuple(dict.fromkeys((*CONTROLS, *neurovar.noise.CONTROLS)))
MATCHED = {"trace": ("train_only", "test_only", *STRUCTURAL), "clean_accuracy": CONTROLS}
SAME_TRACE = 0.01
SOURCE = re.compile(r"^(?P<name>\w+)\b.*?ε ?= ?(?P<epsilon>[\d.]+(?:e-?\d+)?)(?:.*\b(?P<norm>linf|l2)\b)?")


def predictions(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Predictions from 1, 10 and 100 draws, with expected and worst-of-k accuracy."""
    numbers = sorted(int(k) for k in evidence.result["k"].values)
    said = f"predictions from {', '.join(map(str, numbers))} draws"
    status = PASS if set(N_PREDICTIONS) <= set(numbers) else FAIL
    return Finding(status, said, float(max(numbers)), float(max(N_PREDICTIONS)))


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
    said = f"accuracy on clean images {mean:.3f} [{low:.3f}, {high:.3f}], chance {chance:.3f}"
    return Finding(PASS if low > chance else FAIL, said, mean, chance)


def worst_case(evidence: Evidence, claim: Claim) -> Finding:
    """The worst case for each image is over several attacks."""
    rows = evidence.at(claim)
    n = len({(one.modification, one.loss, one.gradient) for one in rows})
    if n < 2:
        return Finding(NOT_RUN, f"over {n} kinds of attack", float(n), 2.0)
    right = evidence.right[[one.index for one in rows]]
    mean, low, high = (float(v) for v in _intervals.of_proportion(right.min(0)))
    return Finding(PASS, f"{mean:.3f} [{low:.3f}, {high:.3f}] right under all of {len(rows)} attacks", float(n), 2.0)


def source_differs(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The noise was made from another attack, another ε and another norm than those of some tests."""
    source = str(evidence.of_noise["source"].values) if "source" in evidence.of_noise.coords else ""
    if not source:
        return Finding(NOT_RUN, "what the noise was made from is not known", bound=3.0)
    found = SOURCE.match(source)
    if found is None:
        return Finding(PASS, f"made from {source}, which is no attack", 3.0, 3.0)
    name, epsilon, norm = found["name"].lower(), float(found["epsilon"]), found["norm"] or "linf"
    tests = evidence.attacks
    others = {
        "attack": any(one.modification != name for one in tests),
        "ε": any(not isclose(one.strength, epsilon) for one in tests),
        "norm": any(one.norm != norm for one in tests),
    }
    same = [aspect for aspect, other in others.items() if not other]
    tried = f"no test with another {' or '.join(same)}" if same else "tests with another of each"
    return Finding(FAIL if same else PASS, f"made from {source}; {tried}", float(3 - len(same)), 3.0)


def control_of(noise: str) -> str:
    """Which control the name of a noise says that it is: "pgd_rotated" or "rotated (trace)" are "rotated"; or ""."""
    words = set(re.split(r"[^a-z_]+", noise.lower()))
    named = [control for control in KNOWN if any(f"_{word}".endswith(f"_{control}") for word in words)]
    return max(named, key=len, default="")


def controls(result: xr.Dataset, matched_by: str) -> Finding:
    """Every control, matched by trace or by accuracy on clean images to the noises that are none, and truly matched."""
    if "matched_by" not in result.coords:
        return Finding(NOT_RUN, "no coordinate matched_by on the noises")
    names = {str(name): control_of(str(name)) for name in result["noise"].values}
    tested = [name for name, control in names.items() if not control and bool(result["noisy"].sel(noise=name))]
    by = dict(zip(names, result["matched_by"].values.astype(str)))
    matched = {name: control for name, control in names.items() if control and by[name] == matched_by}
    wanted = MATCHED[matched_by]
    missing = [control for control in wanted if control not in matched.values()]
    if missing or not tested:
        what = f"without {', '.join(missing)}" if missing else "no noise that is not a control"
        return Finding(NOT_RUN, what, float(len(wanted) - len(missing)), float(len(wanted)))
    compare = _trace_of if matched_by == "trace" else _clean_accuracy_of
    return worst([(control, compare(result, control, tested)) for control in matched])


def _trace_of(result: xr.Dataset, control: str, tested: Sequence[str]) -> Finding:
    trace = result["trace"].sel(noise=control).item()
    if np.isnan(trace) or control_of(control) not in MATCHED["trace"]:
        return Finding(PASS, "has no trace in the layer", 0.0, SAME_TRACE)
    off = min(abs(trace / result["trace"].sel(noise=name).item() - 1) for name in tested)
    return Finding(PASS if off <= SAME_TRACE else FAIL, f"trace off by {off:.2%}", off, SAME_TRACE)


def _clean_accuracy_of(result: xr.Dataset, control: str, tested: Sequence[str]) -> Finding:
    clean = ensemble(result, int(result["k"].max())).isel(condition=int(np.argmax(result["kind"].values == "clean")))
    ordered = clean.transpose("noise", "seed", "draw_seed", "stimulus").astype(float)
    findings = []
    for name in tested:
        difference = (ordered.sel(noise=control) - ordered.sel(noise=name)).values
        mean, low, high = (float(value) for value in _intervals.of_difference(difference))
        off = (mean, low, high) if mean >= 0 else (-mean, -high, -low)
        side = "above" if mean >= 0 else "below"
        findings.append(judged(off, f"accuracy on clean images {side} that of {name} by"))
    return min(findings, key=lambda one: abs(one.figure))
