"""Checks of the attacks: items 1 to 5 of an honest evaluation."""

from collections.abc import Callable, Sequence

import numpy as np

from neurovar.robustness.honesty._checklist import APGD_STEPS, LOSSES, N_DRAWS, N_QUERIES, N_RESTARTS, N_STEPS
from neurovar.robustness.honesty._evidence import (
    TOLERANCE,
    Attacked,
    Check,
    Claim,
    Evidence,
    Finding,
    Status,
    at_every_claim,
    judged,
    worst,
)

PASS, FAIL, NOT_RUN = Status.PASS, Status.FAIL, Status.NOT_RUN
BLACK_BOX = ("square",)
TRANSFERRED = ("twin", "independent")
ONE_STEP = ("fgm",)
SIGNAL_TO_NOISE = 1.0
NOTHING_TO_COMPARE = "no averaged gradients of enough steps to compare with"
RivalsOf = Callable[[Sequence[Attacked]], list[Attacked]]


def all_ran(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Every attack that was asked for could be run on this network."""
    ran = evidence.of_noise["ran"].all(("seed", "draw_seed")).values
    missing = evidence.result["condition"].values[~ran]
    if not missing.size:
        return Finding(PASS, "all of them", 0.0, 0.0)
    return Finding(NOT_RUN, f"{missing.size} could not be run: {', '.join(missing)}", float(missing.size), 0.0)


def draws_averaged(evidence: Evidence, claim: Claim) -> Finding:
    """APGD on both losses with 1, 5, 20 and 50 draws a gradient, until accuracy no longer falls."""
    return worst([("", _draws_averaged(evidence, claim, loss)) for loss in LOSSES])


def _draws_averaged(evidence: Evidence, claim: Claim, loss: str) -> Finding:
    rows = [row for row in _own(evidence.at(claim)) if row.modification == "apgd" and row.loss == loss]
    if not rows:
        return Finding(NOT_RUN, f"no APGD on {loss}")
    rows = _full(rows)
    if not rows:
        return Finding(FAIL, f"APGD on {loss} had fewer than {APGD_STEPS} steps or {N_RESTARTS} restarts")
    numbers = sorted({int(row.n_draws) for row in rows})
    if not set(N_DRAWS) <= set(numbers):
        most = float(numbers[-1])
        return Finding(FAIL, f"APGD on {loss} had K = {numbers}, not {list(N_DRAWS)}", most, max(N_DRAWS))
    before, last = (evidence.strongest([row for row in rows if row.n_draws == k]) for k in numbers[-2:])
    message = f"accuracy falls from K = {numbers[-2]} to {numbers[-1]} under APGD on {loss}"
    return judged(evidence.fall(before, last), message)


def pgd_converged(evidence: Evidence, claim: Claim) -> Finding:
    """PGD with steps of at most ε/4, from at least 5 random starts, with 40 and 200 steps."""
    rows = [row for row in _own(evidence.at(claim)) if row.modification == "pgd"]
    if not rows:
        return Finding(NOT_RUN, "no PGD")
    rows = _full(rows)
    rows = [row for row in rows if row.n_draws == max(other.n_draws for other in rows)]
    fewer = [row for row in rows if row.n_steps < N_STEPS[1]]
    more = [row for row in rows if row.n_steps >= N_STEPS[1]]
    if not fewer or not more:
        most = max((row.n_steps for row in rows), default=0.0)
        message = f"PGD had not both {N_STEPS[0]} and {N_STEPS[1]} steps of ε/4 from {N_RESTARTS} starts"
        return Finding(FAIL, message, most, N_STEPS[1])
    first, last = evidence.strongest(fewer), evidence.strongest(more)
    return judged(evidence.fall(first, last), f"accuracy falls from {first.n_steps:g} to {last.n_steps:g} steps of PGD")


def not_stronger(gradient: str) -> Callable[[Evidence, Claim], Finding]:
    """Gradients of this kind do not attack better than the averaged ones: those would be broken."""

    def judge(evidence: Evidence, claim: Claim) -> Finding:
        rows = [row for row in evidence.at(claim) if row.gradient == gradient]
        if not rows:
            return Finding(NOT_RUN, f"no attack with gradient {gradient}")
        rows, averaged = _full(rows), _full(_own(evidence.at(claim)))
        if not rows:
            return Finding(FAIL, f"attacks with gradient {gradient} had too few steps or restarts")
        if not averaged:
            return Finding(NOT_RUN, NOTHING_TO_COMPARE)
        finding = _compared(evidence, evidence.strongest(averaged), evidence.strongest(rows))
        if finding.status is FAIL:
            return Finding(FAIL, f"{finding.message}; the worst case counts it", finding.figure, finding.bound)
        return finding

    return judge


def square(evidence: Evidence, claim: Claim) -> Finding:
    """Square with at least 5,000 queries, on the expected loss."""
    rows = [row for row in evidence.at(claim) if row.modification in BLACK_BOX and row.gradient == "none"]
    if evidence.noisy:
        rows = [row for row in rows if row.n_draws > 1]
    if not rows:
        return Finding(NOT_RUN, "no Square on the expected loss")
    queries = max(row.n_queries for row in rows)
    return Finding(PASS if queries >= N_QUERIES else FAIL, f"{queries:g} queries", queries, N_QUERIES)


def transferred(gradient: str) -> Callable[[Evidence, Claim], Finding]:
    """A transfer attack from this network without noise."""

    def judge(evidence: Evidence, claim: Claim) -> Finding:
        rows = [row for row in evidence.at(claim) if row.gradient == gradient]
        if not rows:
            return Finding(NOT_RUN, f"no transfer attack from the {gradient} network")
        full = _full(rows)
        if not full:
            return Finding(FAIL, f"transfer attacks from the {gradient} network had too few steps or restarts")
        mean, low, high = evidence.accuracy(evidence.strongest(full).index)
        return Finding(PASS, f"leaves {mean:.3f} [{low:.3f}, {high:.3f}] right", mean)

    return judge


def white_box(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The best attack with averaged gradients beats the best of Square and transfer."""

    def rivals(rows: Sequence[Attacked]) -> list[Attacked]:
        return [row for row in rows if row.modification in BLACK_BOX or row.gradient in TRANSFERRED]

    return _beats(evidence, claims, rivals, "black-box attack")


def iterative(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The best attack with averaged gradients beats one step."""

    def rivals(rows: Sequence[Attacked]) -> list[Attacked]:
        return [row for row in rows if row.modification in ONE_STEP]

    return _beats(evidence, claims, rivals, "one-step attack")


def _beats(evidence: Evidence, claims: Sequence[Claim], rivals: RivalsOf, name: str) -> Finding:
    """At no claim weaker, and at one stronger, or with nothing left to be beaten by."""
    findings = [(str(claim), _beaten(evidence, claim, rivals(evidence.at(claim)), name)) for claim in claims]
    deciding = worst(findings)
    if deciding.status is not Status.EVEN:
        return deciding
    better = [(where, finding) for where, finding in findings if finding.status is PASS]
    if better:
        return worst(better)
    return Finding(NOT_RUN, f"{deciding.message}; at no ε clearly stronger", deciding.figure)


def _beaten(evidence: Evidence, claim: Claim, rivals: Sequence[Attacked], name: str) -> Finding:
    if not rivals:
        return Finding(NOT_RUN, f"no {name}")
    own = _full(_own(evidence.at(claim)))
    if not own:
        return Finding(NOT_RUN, NOTHING_TO_COMPARE)
    best, rival = evidence.strongest(own), evidence.strongest(rivals)
    finding = _compared(evidence, best, rival)
    # Where the best attack leaves nothing right there is no room to be stronger than another that leaves nothing.
    nothing_left = evidence.accuracy(best.index)[2] <= TOLERANCE
    if finding.status is not PASS or evidence.fall(best, rival)[2] < 0 or nothing_left:
        return finding
    return Finding(Status.EVEN, finding.message, finding.figure, finding.bound)


def random_search(evidence: Evidence, claim: Claim) -> Finding:
    """Random search leaves no less right than gradients."""
    rows = [row for row in evidence.at(claim) if row.modification == "random_search"]
    own = _full(_own(evidence.at(claim)))
    if not rows or not own:
        return Finding(NOT_RUN, NOTHING_TO_COMPARE if rows else "no random search")
    return _compared(evidence, evidence.strongest(own), evidence.strongest(rows))


def reaches_zero(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Accuracy reaches 0 as ε grows, in each norm of the claims."""
    norms = dict.fromkeys(claim.norm for claim in claims)
    return worst([(norm, _reaches_zero(evidence, norm, claims)) for norm in norms])


def _reaches_zero(evidence: Evidence, norm: str, claims: Sequence[Claim]) -> Finding:
    rows = [row for row in evidence.attacks if row.norm == norm]
    if not rows:
        return Finding(NOT_RUN, "no attack was run")
    largest = max(row.strength for row in rows)
    least = evidence.strongest(rows)
    mean, low, high = evidence.accuracy(least.index)
    finding = judged((mean, low, high), f"the least accuracy, at ε={least.strength:g} of up to {largest:g}")
    grown = largest > max(claim.epsilon for claim in claims if claim.norm == norm) or (norm == "linf" and largest >= 1)
    if finding.status is PASS or grown:
        return finding
    return Finding(NOT_RUN, f"{finding.message}; no larger ε was tried", mean, TOLERANCE)


def signal_to_noise(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """The gradient averaged over the most draws has more signal than noise: K ‖E g‖² ≥ tr Cov(g)."""
    rows = _own(evidence.attacks)
    ratio = evidence.of_noise["gradient_snr"].values if "gradient_snr" in evidence.of_noise else np.array([np.nan])
    if not rows or np.isnan(ratio).any():
        return Finding(NOT_RUN, "not measured, or no averaged gradients")
    draws = max(row.n_draws for row in rows)
    figure = float(draws * ratio.min())  # the mean of K draws has a K-th of their variance
    message = f"signal-to-noise ratio of {ratio.min():.3g} with one draw, {figure:.3g} with K = {draws:g}"
    return Finding(PASS if figure >= SIGNAL_TO_NOISE else FAIL, message, figure, SIGNAL_TO_NOISE)


def not_zero(evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    """Gradients are not exactly zero: those images would not be attacked at all."""
    share = evidence.of_noise["zero_gradients"].values if "zero_gradients" in evidence.of_noise else np.array([np.nan])
    if np.isnan(share).any():
        return Finding(NOT_RUN, "no gradients, or not measured")
    figure = float(share.max())
    return Finding(PASS if figure <= TOLERANCE else FAIL, f"zero for {figure:.1%} of images", figure, TOLERANCE)


def _own(rows: Sequence[Attacked]) -> list[Attacked]:
    """Attacks that average the gradients of the network as it is."""
    return [row for row in rows if row.gradient == "averaged"]


def _full(rows: Sequence[Attacked]) -> list[Attacked]:
    """Iterative attacks with the steps and restarts that the checklist asks for; 1e-6 for the rounding of ε/4."""
    return [
        row
        for row in rows
        if row.n_restarts >= N_RESTARTS
        and (
            (row.modification == "pgd" and row.n_steps >= N_STEPS[0] and row.step <= row.strength / 4 * (1 + 1e-6))
            or (row.modification == "apgd" and row.n_steps >= APGD_STEPS)
        )
    ]


def _compared(evidence: Evidence, own: Attacked, other: Attacked) -> Finding:
    """Whether another attack leaves no less right than the network's own averaged gradients."""
    return judged(evidence.fall(own, other), f"{other.condition} leaves less right than {own.condition}")


CHECKS = (
    Check("all attacks ran", 1, "every attack could be run on this network", all_ran),
    Check(
        "enough draws a gradient",
        1,
        "accuracy under APGD no longer falls with more draws a gradient",
        at_every_claim(draws_averaged),
        needs_noise=True,
    ),
    Check(
        "enough steps and restarts",
        2,
        "accuracy under PGD no longer falls with more steps",
        at_every_claim(pgd_converged),
    ),
    Check(
        "gradients with the noise off",
        3,
        "gradients of the network without its noise attack no better",
        at_every_claim(not_stronger("off")),
        needs_noise=True,
    ),
    Check(
        "gradients with one fixed draw",
        3,
        "gradients of one draw of the noise attack no better",
        at_every_claim(not_stronger("fixed")),
        needs_noise=True,
    ),
    Check(
        "gradients of mean logits",
        3,
        "gradients of the mean logits attack no better",
        at_every_claim(not_stronger("mean_logits")),
        needs_noise=True,
    ),
    Check("Square", 4, "a search without gradients was tried for long enough", at_every_claim(square)),
    Check(
        "transfer from a noise-free twin",
        4,
        "images made on the same network without noise were tried",
        at_every_claim(transferred("twin")),
        needs_noise=True,
    ),
    Check(
        "transfer from an independent network",
        4,
        "images made on a network that was trained apart were tried",
        at_every_claim(transferred("independent")),
    ),
    Check("accuracy reaches 0 as ε grows", 5, "nothing survives attacks without bounds", reaches_zero),
    Check("iterative attacks beat one step", 5, "many steps leave less right than one", iterative),
    Check("white-box beats black-box", 5, "gradients leave less right than attacks without them", white_box),
    Check(
        "random search does not beat gradients",
        5,
        "random points leave no less right than gradients",
        at_every_claim(random_search),
    ),
    Check(
        "signal-to-noise ratio of gradients",
        5,
        "the averaged gradient has more signal than noise",
        signal_to_noise,
        needs_noise=True,
    ),
    Check("gradients are not zero", 5, "no image goes unattacked for want of a gradient", not_zero),
)
