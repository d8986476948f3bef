"""Whether an evaluation of noisy networks is to be believed."""

from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from neurovar.robustness.evaluation._conditions import SIGNS, TEXTS
from neurovar.robustness.evaluation._result import require, validate
from neurovar.robustness.honesty import _sanity, _setting
from neurovar.robustness.honesty._evidence import (
    FAIL,
    NOT_APPLICABLE,
    NOT_RUN,
    Check,
    Claim,
    Evidence,
    Finding,
    at_every_claim,
    worst,
)


@dataclass(frozen=True)
class _Item:
    """A check, the item of the protocol that asks for it, and whether it means nothing without noise."""

    number: int
    check: Check
    noisy_only: bool = False


CHECKS = {
    "all attacks ran": _Item(1, _sanity.all_ran),
    "enough draws a gradient": _Item(1, at_every_claim(_sanity.draws_averaged), noisy_only=True),
    "enough steps and restarts": _Item(2, at_every_claim(_sanity.pgd_converged)),
    "gradients with the noise off": _Item(3, at_every_claim(_sanity.not_stronger("off")), noisy_only=True),
    "gradients with one fixed draw": _Item(3, at_every_claim(_sanity.not_stronger("fixed")), noisy_only=True),
    "gradients of mean logits": _Item(3, at_every_claim(_sanity.not_stronger("mean_logits")), noisy_only=True),
    "Square": _Item(4, at_every_claim(_sanity.square)),
    "transfer from a noise-free twin": _Item(4, at_every_claim(_sanity.transferred("twin")), noisy_only=True),
    "transfer from an independent network": _Item(4, at_every_claim(_sanity.transferred("independent"))),
    "accuracy reaches 0 as ε grows": _Item(5, _sanity.reaches_zero),
    "iterative attacks beat one step": _Item(5, _sanity.iterative),
    "white-box beats black-box": _Item(5, _sanity.white_box),
    "random search does not beat gradients": _Item(5, at_every_claim(_sanity.random_search)),
    "signal-to-noise ratio of gradients": _Item(5, _sanity.signal_to_noise, noisy_only=True),
    "gradients are not zero": _Item(5, _sanity.not_zero),
    "clean images are classified": _Item(6, _setting.clean_images),
    "predictions from 1, 10 and 100 draws": _Item(6, _setting.predictions, noisy_only=True),
    "training seeds": _Item(6, _setting.training_seeds),
    "noise seeds": _Item(6, _setting.noise_seeds),
    "worst case over attacks": _Item(6, at_every_claim(_setting.worst_case)),
    "source and test differ": _Item(8, _setting.source_differs, noisy_only=True),
}
FIELDS = ("status", "figure", "bound", "said")
CONTROLS = {
    "controls at matched trace": "trace",
    "controls at matched clean accuracy": "clean_accuracy",
}


def honesty(result: xr.Dataset) -> xr.Dataset:
    """Every check that an evaluation of noisy networks has to pass before its accuracies say anything.

    Robustness is claimed at each norm and ε at which APGD was run, or, without APGD, any attack. Accuracies are those
    of the ensemble of the most draws. What should not be above 0, such as by how much less a black-box attack leaves
    right than the best white-box one, is a paired difference with its 95 % interval (as in `differences`): it passes if
    the interval ends at 0.02 or below, fails if it lies above 0 and goes beyond that, and else counts as not run, since
    too few images or seeds cannot tell. The best of several attacks is chosen on the images on which it is then
    compared, which these intervals do not cover. A check that an attack is too small for fails.

    Parameters
    ----------
    result : what `evaluate` returns, with `checklist`'s attacks; such results of several noises concatenated.

    Returns
    -------
    Dataset over `check`: `status` "pass", "fail" or "not run", the worst over the noises; `figure` and `bound`, what
    was measured and what it had to keep to; `said`, in words. `status_by_noise`, `figure_by_noise` and `said_by_noise`
    (check, noise), "not applicable" for what means nothing without noise. coord `item`: which item of the protocol.
    attrs `verdict`: in words, withheld unless every check passes; `claims`, where robustness is claimed

    Raises
    ------
    ValueError : for a Dataset of another form.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Tramèr et al. 2020, arXiv:2002.08347;
    Croce & Hein 2020, arXiv:2003.01690
    """
    validate(result)
    require(result, ("noisy", "condition", *TEXTS, "strength", *SIGNS))
    claims = _claims(result)
    everyone = [Evidence(result, str(name)) for name in result["noise"].values]
    found = {name: [_of(item, name, evidence, claims) for evidence in everyone] for name, item in CHECKS.items()}
    overall = {name: _overall(findings, everyone) for name, findings in found.items()}
    for name, matched_by in CONTROLS.items():
        overall[name] = _setting.controls(result, matched_by)
        found[name] = [overall[name]] * len(everyone)
    by_noise = {
        f"{field}_by_noise": (("check", "noise"), [[getattr(one, field) for one in row] for row in found.values()])
        for field in ("status", "figure", "said")
    }
    return xr.Dataset(
        {field: ("check", [getattr(one, field) for one in overall.values()]) for field in FIELDS} | by_noise,
        coords={
            "check": list(overall),
            "item": ("check", [CHECKS[name].number if name in CHECKS else 7 for name in overall]),
            "noise": result["noise"].values,
        },
        attrs={"verdict": _verdict(overall, claims), "claims": ", ".join(map(str, claims))},
    )


def _claims(result: xr.Dataset) -> list[Claim]:
    """Where APGD was run; without it, wherever an attack was."""
    kinds = result["kind"].values == "attack"
    apgd = kinds & (result["modification"].values == "apgd")
    chosen = apgd if apgd.any() else kinds
    pairs = zip(result["norm"].values[chosen].astype(str), result["strength"].values[chosen].tolist())
    return [Claim(norm, epsilon) for norm, epsilon in dict.fromkeys(pairs)]


def _of(item: _Item, name: str, evidence: Evidence, claims: Sequence[Claim]) -> Finding:
    if item.noisy_only and not evidence.noisy:
        return Finding(NOT_APPLICABLE, "means nothing without noise")
    return item.check(evidence, claims)


def _overall(findings: Sequence[Finding], everyone: Sequence[Evidence]) -> Finding:
    """The worst over the noises; a check that means nothing for any of them was not run."""
    found = worst([(evidence.name, one) for evidence, one in zip(everyone, findings)])
    return Finding(NOT_RUN, "no noisy network") if found.status == NOT_APPLICABLE else found


def _verdict(overall: dict[str, Finding], claims: Sequence[Claim]) -> str:
    where = ", ".join(map(str, claims)) or "no ε"
    failed, missing = ([name for name, one in overall.items() if one.status == status] for status in (FAIL, NOT_RUN))
    if not failed and not missing:
        return (
            f"all {len(overall)} checks passed at {where}: what to quote is the worst case over attacks, which attacks "
            "that were not tried may still lower"
        )
    parts = [f"{len(failed)} checks failed ({', '.join(failed)})"] if failed else []
    parts += [f"{len(missing)} were not run or could not tell ({', '.join(missing)})"] if missing else []
    return (
        f"withheld: of {len(overall)} checks at {where}, {' and '.join(parts)}; accuracies under these attacks are no "
        "evidence of robustness"
    )
