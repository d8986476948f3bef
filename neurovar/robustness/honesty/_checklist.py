"""The attacks that an honest evaluation of a noisy network needs."""

from collections.abc import Sequence
from dataclasses import replace

from neurovar.robustness.attacks._apgd import APGD
from neurovar.robustness.attacks._attack import Attack
from neurovar.robustness.attacks._choices import Follows, Loss, Norm
from neurovar.robustness.attacks._fgm import FGM
from neurovar.robustness.attacks._pgd import PGD
from neurovar.robustness.attacks._random_search import RandomSearch
from neurovar.robustness.attacks._square import Square

N_DRAWS = (1, 5, 20, 50)
"""Draws a gradient, K; what comes after the last but one shows whether that was enough."""
N_STEPS = (40, 200)
N_RESTARTS = 5
N_QUERIES = 5000
SQUARE_DRAWS = 5
APGD_STEPS = 100
LOSSES = (Loss.CROSS_ENTROPY, Loss.DLR)
DOUBLINGS = 5


def checklist(
    epsilons: Sequence[float],
    *,
    norm: str = Norm.LINF,
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

    Parameters
    ----------
    epsilons : sequence of float
        The sizes at which robustness is claimed, in units of the pixels, in the norm.
    norm : str, optional
        "linf" or "l2".
    n_draws : sequence of int, optional
        Numbers of draws that gradients are averaged over, K.
    n_steps : sequence of int, optional
        Numbers of steps of PGD.
    apgd_steps : int, optional
        Steps of APGD.
    n_restarts : int, optional
        Restarts of PGD and APGD.
    n_queries : int, optional
        Queries of Square.

    Returns
    -------
    list of Attack
        For `evaluate`.

    Raises
    ------
    ValueError
        For no ε, an ε that is not above 0, or no number of draws or steps.

    References
    ----------
    Carlini et al. 2019, arXiv:1902.06705; Tramèr et al. 2020, arXiv:2002.08347

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
    norm, draws = Norm(norm), sorted(n_draws)[-2:][0]
    attacks: list[Attack] = []
    for epsilon in epsilons:
        apgd = APGD(epsilon, norm=norm, n_steps=apgd_steps, n_restarts=n_restarts)
        attacks += [replace(apgd, loss=loss, n_draws=k) for loss in LOSSES for k in n_draws]
        pgd = PGD(epsilon, norm=norm, n_steps=min(n_steps), n_restarts=n_restarts, n_draws=draws, step=epsilon / 4)
        attacks += [replace(pgd, n_steps=n) for n in n_steps]
        attacks += [
            replace(pgd, follows=Follows.OFF),
            replace(pgd, follows=Follows.FIXED, n_draws=1),
            replace(pgd, follows=Follows.MEAN_LOGITS),
            Square(epsilon, norm=norm, n_draws=min(draws, SQUARE_DRAWS), n_queries=n_queries),
            replace(pgd, follows=Follows.TWIN),
            replace(pgd, follows=Follows.INDEPENDENT),
            FGM(epsilon, norm=norm, n_draws=draws),
            RandomSearch(epsilon, norm=norm, n_draws=draws, n_queries=max(n_steps) * n_restarts),
        ]
    return attacks + [replace(pgd, epsilon=epsilon, step=epsilon / 4) for epsilon in _growing(max(epsilons), norm)]


def _growing(epsilon: float, norm: Norm) -> list[float]:
    """Sizes up to 32 times ε; in L∞ up to 1, from where every image can become every other."""
    doubled = [epsilon * 2**times for times in range(1, DOUBLINGS + 1)]
    return sorted({min(larger, 1.0) for larger in doubled} - {epsilon}) if norm is Norm.LINF else doubled
