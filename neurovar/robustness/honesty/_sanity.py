"""Checks of the attacks: items 1 to 5 of an honest evaluation."""

from collections.abc import Callable, Sequence

import numpy as np

from neurovar.robustness.honesty._checklist import APGD_STEPS, LOSSES, N_DRAWS, N_QUERIES, N_RESTARTS, N_STEPS
from neurovar.robustness.honesty._evidence import (
    EVEN,
    FAIL,
    NOT_RUN,
    PASS,
    TOLERANCE,
    CheckAt,
    Claim,
    Evidence,
    Finding,
    Row,
    judged,
    worst,
)

BLACK_BOX = ("square",)
TRANSFERRED = ("twin", "independent")
ONE_STEP = ("fgm",)
SIGNAL_TO_NOISE = 1.0
NOTHING_TO_COMPARE = "no averaged gradients of enough steps to compare with"
RivalsOf = Callable[[Sequence[Row]], list[Row]]


def draws_averaged(evidence: Evidence, claim: Claim) -> Finding:
    """APGD on both losses with 1, 5, 20 and 50 draws a gradient, until accuracy no longer falls."""
    return worst([("", _draws_averaged(evidence, claim, loss)) for loss in LOSSES])


def _draws_averaged(evidence: Evidence, claim: Claim, loss: str) -> Finding:
    rows = [one for one in _own(evidence.at(claim)) if one.modification == "apgd" and one.loss == loss]
    if not rows:
        return Finding(NOT_RUN, f"no APGD on {loss}")
    rows = _full(rows)
    if not rows:
        return Finding(FAIL, f"APGD on {loss} had fewer than {APGD_STEPS} steps or {N_RESTARTS} restarts")
    numbers = sorted({int(one.n_draws) for one in rows})
    if not set(N_DRAWS) <= set(numbers):
        most = float(numbers[-1])
        return Finding(FAIL, f"APGD on {loss} had K = {numbers}, not {list(N_DRAWS)}", most, max(N_DRAWS))
    before, last = (evidence.strongest([one for one in rows if one.n_draws == k]) for k in numbers[-2:])
    said = f"accuracy falls from K = {numbers[-2]} to {numbers[-1]} under APGD on {loss}"
    return judged(evidence.fall(before, last), said)


def pgd_converged(evidence: Evidence, claim: Claim) -> Finding:
    """PGD with steps of at most ε/4, from at least 5 random starts, with 40 and 200 steps."""
    rows = [one for one in _own(evidence.at(claim)) if one.modification == "pgd"]
    if not rows:
        return Finding(NOT_RUN, "no PGD")
    rows = _full(rows)
    rows = [one for one in rows if one.n_draws == max(other.n_draws for other in rows)]
    fewer = [one for one in rows if one.n_steps < N_STEPS[1]]
    more = [one for one in rows if one.n_steps >= N_STEPS[1]]
    if not fewer or not more:
        most = max((one.n_steps for one in rows), default=0.0)
        said = f"PGD had not both {N_STEPS[0]} and {N_STEPS[1]} steps of ε/4 from {N_RESTARTS} starts"
        return Finding(FAIL, said, most, N_STEPS[1])
    first, last = evidence.strongest(fewer), evidence.strongest(more)
    return judged(evidence.fall(first, last), f"accuracy falls from {first.n_steps:g} to {last.n_steps:g} steps of PGD")


def not_stronger(gradient: str) -> CheckAt:
    """Gradients of this kind do not attack better than the averaged ones."""

    def check(evidence: Evidence, claim: Claim) -> Finding:
        rows = [one for one in evidence.at(claim) if one.gradient == gradient]
        return _against_averaged(evidence, claim, rows, gradient)

    return check


def _against_averaged(evidence: Evidence, claim: Claim, rows: Sequence[Row], name: str) -> Finding:
    if not rows:
        return Finding(NOT_RUN, f"no attack with gradient {name}")
    rows, averaged = _full(rows), _full(_own(evidence.at(claim)))
    if not rows:
        return Finding(FAIL, f"attacks with gradient {name} had too few steps or restarts")
    if not averaged:
        return Finding(NOT_RUN, NOTHING_TO_COMPARE)
    other, own = evidence.strongest(rows), evidence.strongest(averaged)
    found = _compared(evidence, own, other)
    if found.status == FAIL:
        return Finding(FAIL, f"{found.said}; the worst case counts it", found.figure, found.bound)
    return found


def square(evidence: Evidence, claim: Claim) -> Finding:
    """Square with at least 5,000 queries, on the expected loss."""
    rows = [one for one in evidence.at(claim) if one.modification in BLACK_BOX and one.gradient == "none"]
    if evidence.noisy:
        rows = [one for one in rows if one.n_draws > 1]
    if not rows:
        return Finding(NOT_RUN, "no Square on the expected loss")
    queries = max(one.n_queries for one in rows)
    return Finding(PASS if queries >= N_QUERIES else FAIL, f"{queries:g} queries", queries, N_QUERIES)


def transferred(gradient: str) -> CheckAt:
    """A transfer attack from this network without noise."""

    def check(evidence: Evidence, claim: Claim) -> Finding:
        rows = [one for one in evidence.at(claim) if one.gradient == gradient]
        if not rows:
            return Finding(NOT_RUN, f"no transfer attack from the {gradient} network")
        full = _full(rows)
        if not full:
            return Finding(FAIL, f"transfer attacks from the {gradient} network had too few steps or restarts")
        mean, low, high = evidence.accuracy(evidence.strongest(full).index)
        return Finding(PASS, f"leaves {mean:.3f} [{low:.3f}, {high:.3f}] right", mean)

    return check


def white_box(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The best attack with averaged gradients beats the best of Square and transfer."""

    def rivals(rows: Sequence[Row]) -> list[Row]:
        return [one for one in rows if one.modification in BLACK_BOX or one.gradient in TRANSFERRED]

    return _beats(evidence, claims, rivals, "black-box attack")


def iterative(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The best attack with averaged gradients beats one step."""
    return _beats(
        evidence, claims, lambda rows: [one for one in rows if one.modification in ONE_STEP], "one-step attack"
    )


def _beats(evidence: Evidence, claims: Sequence[Claim], rivals: RivalsOf, name: str) -> Finding:
    """At no claim weaker, and at one stronger, or with nothing left to be beaten by."""
    found = [(str(claim), _beaten(evidence, claim, rivals(evidence.at(claim)), name)) for claim in claims]
    deciding = worst(found)
    if deciding.status != EVEN:
        return deciding
    better = [one for one in found if one[1].status == PASS]
    return worst(better) if better else Finding(NOT_RUN, f"{deciding.said}; at no ε clearly stronger", deciding.figure)


def _beaten(evidence: Evidence, claim: Claim, rivals: Sequence[Row], name: str) -> Finding:
    if not rivals:
        return Finding(NOT_RUN, f"no {name}")
    own = _full(_own(evidence.at(claim)))
    if not own:
        return Finding(NOT_RUN, NOTHING_TO_COMPARE)
    best, rival = evidence.strongest(own), evidence.strongest(rivals)
    found = _compared(evidence, best, rival)
    nothing_left = evidence.accuracy(best.index)[2] <= TOLERANCE
    if found.status != PASS or evidence.fall(best, rival)[2] < 0 or nothing_left:
        return found
    return Finding(EVEN, found.said, found.figure, found.bound)


def random_search(evidence: Evidence, claim: Claim) -> Finding:
    """Random search leaves no less right than gradients."""
    rows = [one for one in evidence.at(claim) if one.modification == "random_search"]
    own = _full(_own(evidence.at(claim)))
    if not rows or not own:
        return Finding(NOT_RUN, NOTHING_TO_COMPARE if rows else "no random search")
    return _compared(evidence, evidence.strongest(own), evidence.strongest(rows))


def reaches_zero(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Accuracy reaches 0 as ε grows, in each norm of the claims."""
    return worst([(norm, _reaches_zero(evidence, norm, claims)) for norm in dict.fromkeys(one.norm for one in claims)])


def _reaches_zero(evidence: Evidence, norm: str, claims: Sequence[Claim]) -> Finding:
    rows = [one for one in evidence.attacks if one.norm == norm]
    if not rows:
        return Finding(NOT_RUN, "no attack was run")
    largest = max(one.strength for one in rows)
    least = evidence.strongest(rows)
    mean, low, high = evidence.accuracy(least.index)
    found = judged((mean, low, high), f"the least accuracy, at ε={least.strength:g} of up to {largest:g}")
    grown = largest > max(claim.epsilon for claim in claims if claim.norm == norm) or (norm == "linf" and largest >= 1)
    if found.status == PASS or grown:
        return found
    return Finding(NOT_RUN, f"{found.said}; no larger ε was tried", mean, TOLERANCE)


def signal_to_noise(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The gradient averaged over the most draws has more signal than noise: K ‖E g‖² ≥ tr Cov(g)."""
    rows = _own(evidence.attacks)
    one = evidence.of_noise["gradient_snr"].values if "gradient_snr" in evidence.of_noise else np.array([np.nan])
    if not rows or np.isnan(one).any():
        return Finding(NOT_RUN, "not measured, or no averaged gradients")
    draws = max(row.n_draws for row in rows)
    figure = float(draws * one.min())
    said = f"signal-to-noise ratio of {one.min():.3g} with one draw, {figure:.3g} with K = {draws:g}"
    return Finding(PASS if figure >= SIGNAL_TO_NOISE else FAIL, said, figure, SIGNAL_TO_NOISE)


def not_zero(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Gradients are not exactly zero: those images would not be attacked at all."""
    share = evidence.of_noise["zero_gradients"].values if "zero_gradients" in evidence.of_noise else np.array([np.nan])
    if np.isnan(share).any():
        return Finding(NOT_RUN, "no gradients, or not measured")
    figure = float(share.max())
    return Finding(PASS if figure <= TOLERANCE else FAIL, f"zero for {figure:.1%} of images", figure, TOLERANCE)


def all_ran(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Every attack that was asked for could be run on this network."""
    ran = evidence.of_noise["ran"].all(("seed", "draw_seed")).values
    missing = evidence.result["condition"].values[~ran]
    if not missing.size:
        return Finding(PASS, "all of them", 0.0, 0.0)
    return Finding(NOT_RUN, f"{missing.size} could not be run: {', '.join(missing)}", float(missing.size), 0.0)


def _own(rows: Sequence[Row]) -> list[Row]:
    """Attacks that average the gradients of the network as it is."""
    return [one for one in rows if one.gradient == "averaged"]


def _full(rows: Sequence[Row]) -> list[Row]:
    """Iterative attacks with the steps and restarts that the checklist asks for."""
    return [
        one
        for one in rows
        if one.n_restarts >= N_RESTARTS
        and (
            (one.modification == "pgd" and one.n_steps >= N_STEPS[0] and one.step <= one.strength / 4 * (1 + 1e-6))
            or (one.modification == "apgd" and one.n_steps >= APGD_STEPS)
        )
    ]


def _compared(evidence: Evidence, own: Row, other: Row) -> Finding:
    """Whether another attack leaves no less right than the network's own averaged gradients."""
    return judged(evidence.fall(own, other), f"{other.condition} leaves less right than {own.condition}")
