"""Results as `robustness.evaluate` returns them, with accuracies to order."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from neurovar.networks import Brightness
from neurovar.robustness import Attack, Clean, checklist
from neurovar.robustness.evaluation._conditions import coordinates

DIMS = ("noise", "seed", "draw_seed", "condition", "stimulus")
EPSILON = 0.1
CONTROLS = ("train_only", "test_only", "rotated", "shuffled_spectrum", "diagonal", "isotropic", "mean_shift")
TRACE = 6272.0
Accuracy = Callable[[dict], float]


def believable(condition: dict) -> float:
    """Accuracies of a noisy network that was attacked well: everything is as it should be."""
    if condition["kind"] != "attack":
        return 0.9
    if condition["strength"] > EPSILON + 1e-9:
        return 0.0
    black_box = {"square": 0.6, "random_search": 0.85, "fgm": 0.65}
    if condition["modification"] in black_box:
        return black_box[condition["modification"]]
    followed = {"off": 0.7, "fixed": 0.65, "twin": 0.7, "independent": 0.75, "mean_logits": 0.4}
    if condition["gradient"] in followed:
        return followed[condition["gradient"]]
    return 0.4 + 0.1 / condition["n_draws"] if condition["n_draws"] < 20 else 0.4


def result(
    accuracies: dict[str, Accuracy],
    *,
    n_stimuli: int = 600,
    n_seeds: int = 2,
    n_draw_seeds: int = 2,
    attacks: Sequence[Attack] | None = None,
    k: Sequence[int] = (1, 10, 100),
) -> xr.Dataset:
    """A stimulus is right where its difficulty is below the accuracy, the same in every seed: what is paired agrees."""
    attacks = checklist([EPSILON]) + checklist([1.0], norm="l2") if attacks is None else attacks
    coords = coordinates([Clean(), Brightness(3), *attacks])
    described = [
        dict(zip(coords, values)) for values in zip(*(v[1] if isinstance(v, tuple) else v for v in coords.values()))
    ]
    like_linf = [scaled(row) if row["norm"] == "l2" else row for row in described]
    accuracy = np.array([[at(row) for row in like_linf] for at in accuracies.values()])
    difficulty = (np.arange(n_stimuli) + 0.5) / n_stimuli
    right = accuracy[:, None, None, :, None] > difficulty
    right = np.broadcast_to(right, (len(accuracies), n_seeds, n_draw_seeds, len(described), n_stimuli)).copy()
    by_k = np.repeat(right[..., None], len(k), -1)
    names = list(accuracies)
    noisy = [name not in ("none", "train_only", "adversarial") for name in names]
    return xr.Dataset(
        {
            "correct": ((*DIMS, "k"), by_k),
            "hits": (DIMS, right.astype(np.int16) * max(k)),
            "survived": ((*DIMS, "k"), by_k.copy()),
            "ran": (DIMS[:4], np.ones(right.shape[:4], bool)),
            "gradient_snr": (DIMS[:3], np.full(right.shape[:3], 0.2)),
            "zero_gradients": (DIMS[:3], np.zeros(right.shape[:3])),
        },
        coords=coords
        | {
            "noise": names,
            "noisy": ("noise", noisy),
            "trace": ("noise", [TRACE if some else np.nan for some in noisy]),
            **made_from(noisy),
            "seed": range(n_seeds),
            "draw_seed": range(n_draw_seeds),
            "k": list(k),
        },
        attrs={"warnings": [], "n_classes": 10},
    )


def made_from(noisy: Sequence[bool]) -> dict[str, tuple[str, list]]:
    """The coords of noises that were made from PGD, of those that there are, and of no control."""
    return {
        "control": ("noise", [""] * len(noisy)),
        "control_of": ("noise", [""] * len(noisy)),
        "matched_by": ("noise", [""] * len(noisy)),
        "origin": ("noise", ["attacked" if some else "" for some in noisy]),
        "origin_of": ("noise", ["pgd" if some else "" for some in noisy]),
        "origin_epsilon": ("noise", [0.1 if some else np.nan for some in noisy]),
        "origin_norm": ("noise", ["linf" if some else "" for some in noisy]),
    }


def scaled(condition: dict) -> dict:
    """The L2 condition as the L∞ one that it stands for."""
    return condition | {"strength": condition["strength"] * EPSILON}


def with_controls(n_stimuli: int = 600) -> xr.Dataset:
    """The noise "full", none, and every control, matched by trace and by clean accuracy; no name says which it is."""
    kinds = [*CONTROLS, *CONTROLS, "input_gaussian", "adversarial"]
    matched = ["trace"] * len(CONTROLS) + ["clean_accuracy"] * (len(CONTROLS) + 2)
    names = ["none", "full", *(f"{kind} ({by.removeprefix('clean_')})" for kind, by in zip(kinds, matched))]
    noisy = [name == "full" for name in names[:2]]
    noisy += [kind not in ("train_only", "adversarial") for kind in kinds]
    built = result(dict.fromkeys(names, believable), n_stimuli=n_stimuli)
    coords = made_from(noisy) | {
        "control": ("noise", ["", "", *kinds]),
        "matched_by": ("noise", ["", "", *matched]),
        "noisy": ("noise", noisy),
        "trace": ("noise", [TRACE if some else np.nan for some in noisy]),
    }
    return built.assign_coords(coords)
