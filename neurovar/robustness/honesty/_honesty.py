"""Whether an evaluation of noisy networks is to be believed."""

from collections.abc import Iterable, Mapping, Sequence

import xarray as xr

from neurovar.robustness.attacks._attack import NUMBERS, TEXTS
from neurovar.robustness.evaluation._result import require, validate
from neurovar.robustness.honesty import _attack_checks, _comparison_checks
from neurovar.robustness.honesty._evidence import Claim, Evidence, Finding, Status

CHECKS = (*_attack_checks.CHECKS, *_comparison_checks.CHECKS)
"""Every check, in the order of results."""


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
    result : xarray.Dataset
        What `evaluate` returns, with `checklist`'s attacks; such results of several noises concatenated. Which noises
        are controls, of which noise and matched by what, and what they were made from, its coordinates say.

    Returns
    -------
    xarray.Dataset
        Over `check`: `status` "pass", "fail" or "not run", the worst over the noises; `figure` and `bound`, what was
        measured and what it had to keep to; `message`, in words. `status_by_noise`, `figure_by_noise` and
        `message_by_noise` (check, noise), "not applicable" for what means nothing without noise. Coords `item`, which
        item of the protocol, and `asks`, what has to hold. attrs `verdict`: in words, withheld unless every check
        passes; `claims`, where robustness is claimed.

    Raises
    ------
    ValueError
        For a Dataset of another form.

    References
    ----------
    Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Tramèr et al. 2020, arXiv:2002.08347;
    Croce & Hein 2020, arXiv:2003.01690

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from neurovar.networks import NoisyNetwork
    >>> from neurovar.robustness import FGM, evaluate
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
    >>> images = xr.DataArray(np.full((3, 1, 2, 2), 0.5, np.float32), dims=("stimulus", "channel", "row", "column"))
    >>> labels = xr.DataArray(np.zeros(3, int), dims="stimulus")
    >>> network = NoisyNetwork(model, images=torch.zeros(1, 1, 2, 2))
    >>> report = honesty(evaluate(network, images, labels, seeds=[0], conditions=[FGM(0.1)]))
    >>> report["status"].sel(check="noise seeds").item(), report.attrs["claims"]
    ('fail', 'ε=0.1')
    """
    validate(result)
    require(result, ("noisy", "condition", *TEXTS, *NUMBERS))
    claims = _claims(result)
    everyone = [Evidence(result, str(name)) for name in result["noise"].values]
    findings = {check.name: check.by_noise(everyone, claims) for check in CHECKS}
    overall = {check.name: check.overall(findings[check.name], everyone) for check in CHECKS}
    by_noise = {
        f"{part}_by_noise": (
            ("check", "noise"),
            [_column(row, part) for row in findings.values()],
        )
        for part in ("status", "figure", "message")
    }
    parts = ("status", "figure", "bound", "message")
    return xr.Dataset(
        {part: ("check", _column(overall.values(), part)) for part in parts} | by_noise,
        coords={
            "check": list(overall),
            "item": ("check", [check.item for check in CHECKS]),
            "asks": ("check", [check.asks for check in CHECKS]),
            "noise": result["noise"].values,
        },
        attrs={"verdict": _verdict(overall, claims), "claims": ", ".join(map(str, claims))},
    )


def _column(findings: Iterable[Finding], part: str) -> list[str | float]:
    """This part of each finding, as plain texts and numbers."""
    values = [getattr(finding, part) for finding in findings]
    return [value.value if isinstance(value, Status) else value for value in values]


def _claims(result: xr.Dataset) -> list[Claim]:
    """Where APGD was run; without it, wherever an attack was."""
    attacked = result["kind"].values == "attack"
    apgd = attacked & (result["modification"].values == "apgd")
    chosen = apgd if apgd.any() else attacked
    pairs = zip(result["norm"].values[chosen].astype(str), result["strength"].values[chosen].tolist())
    return [Claim(norm, epsilon) for norm, epsilon in dict.fromkeys(pairs)]


def _verdict(overall: Mapping[str, Finding], claims: Sequence[Claim]) -> str:
    where = ", ".join(map(str, claims)) or "no ε"
    failed, missing = (
        [name for name, finding in overall.items() if finding.status is status]
        for status in (Status.FAIL, Status.NOT_RUN)
    )
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
