"""The attacks that an honest evaluation of a noisy network needs."""

from collections.abc import Sequence
from typing import Any

from neurovar.robustness.evaluation._conditions import Attack, Norm

N_DRAWS = (1, 5, 20, 50)
N_STEPS = (40, 200)
N_RESTARTS = 5
N_QUERIES = 5000
SQUARE_DRAWS = 5
APGD_STEPS = 100
LOSSES = ("cross_entropy", "dlr")
DOUBLINGS = 5


def checklist(
    epsilons: Sequence[float],
    *,
    norm: Norm = "linf",
    n_draws: Sequence[int] = N_DRAWS,
    n_steps: Sequence[int] = N_STEPS,
    apgd_steps: int = APGD_STEPS,
    n_restarts: int = N_RESTARTS,
    n_queries: int = N_QUERIES,
) -> list[Attack]:
    """The attacks that `honesty` wants to have seen at each ε: items 1 to 5 of an honest evaluation.

    At each ε: APGD on cross-entropy and on the difference of logits ratio, with each number of draws K; PGD with steps
    of ε/4, with each number of steps; PGD with the noise off, with one fixed draw, and on the loss of mean logits;
    Square on the expected loss; PGD on a noise-free twin and on an independent network; one step (FGM); random search
    of as many points as the longest PGD takes steps. Then PGD alone at 2, 4, … 32 times the largest ε (at most 1 in
    L∞), where accuracy must come down to 0. All but APGD take the last but one K, which APGD has to show to be enough.

    The numbers are those of the protocol. Smaller ones are for a quick look, which `honesty` never lets pass.

    Raises
    ------
    ValueError : no ε, an ε that is not above 0, or no number of draws or steps.

    Examples
    --------
    >>> conditions = checklist([0.1])
    >>> len(conditions), conditions[0].label, conditions[-1].label
    (22, 'apgd ce ε=0.1 K=1 steps=100 restarts=5', 'pgd ce ε=1 K=20 steps=40 restarts=5 step=0.25')
    """
    if not len(epsilons) or min(epsilons) <= 0:
        raise ValueError(f"expected at least one epsilon, all above 0, got {list(epsilons)}")
    if not len(n_draws) or not len(n_steps):
        raise ValueError(f"expected numbers of draws and of steps, got {list(n_draws)} and {list(n_steps)}")
    draws = sorted(n_draws)[-2:][0]
    apgd: dict[str, Any] = {"norm": norm, "n_steps": apgd_steps, "n_restarts": n_restarts}
    pgd: dict[str, Any] = {"norm": norm, "n_restarts": n_restarts, "n_steps": min(n_steps)}
    attacks = []
    for epsilon in epsilons:
        small = pgd | {"step": epsilon / 4}
        attacks += [Attack("apgd", epsilon, loss=loss, n_draws=k, **apgd) for loss in LOSSES for k in n_draws]
        attacks += [Attack("pgd", epsilon, n_draws=draws, **small | {"n_steps": n}) for n in n_steps]
        attacks += [
            Attack("pgd", epsilon, gradient="off", **small),
            Attack("pgd", epsilon, gradient="fixed", n_draws=1, **small),
            Attack("pgd", epsilon, gradient="mean_logits", n_draws=draws, **small),
            Attack("square", epsilon, norm, n_draws=min(draws, SQUARE_DRAWS), n_queries=n_queries),
            Attack("pgd", epsilon, gradient="twin", **small),
            Attack("pgd", epsilon, gradient="independent", **small),
            Attack("fgm", epsilon, norm, n_draws=draws),
            Attack("random_search", epsilon, norm, n_draws=draws, n_queries=max(n_steps) * n_restarts),
        ]
    for epsilon in _growing(max(epsilons), norm):
        attacks.append(Attack("pgd", epsilon, n_draws=draws, **pgd | {"step": epsilon / 4}))
    return attacks


def _growing(epsilon: float, norm: str) -> list[float]:
    doubled = [epsilon * 2**times for times in range(1, DOUBLINGS + 1)]
    return sorted({min(one, 1.0) for one in doubled} - {epsilon}) if norm == "linf" else doubled
