"""Results as `robustness.evaluate` returns them, with accuracies to order."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from neurovar.robustness import Attack, Clean, Modified, checklist
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
    coords = coordinates([Clean(), Modified("brightness", 3), *attacks])
    described = [
        dict(zip(coords, values)) for values in zip(*(v[1] if isinstance(v, tuple) else v for v in coords.values()))
    ]
    like_linf = [scaled(one) if one["norm"] == "l2" else one for one in described]
    accuracy = np.array([[at(one) for one in like_linf] for at in accuracies.values()])
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
            "trace": ("noise", [TRACE if one else np.nan for one in noisy]),
            "source": ("noise", ["pgd ε=0.1 linf" if one else "" for one in noisy]),
            "seed": range(n_seeds),
            "draw_seed": range(n_draw_seeds),
            "k": list(k),
        },
        attrs={"warnings": [], "n_classes": 10},
    )


def scaled(condition: dict) -> dict:
    """The L2 condition as the L∞ one that it stands for."""
    return condition | {"strength": condition["strength"] * EPSILON}


def with_controls(n_stimuli: int = 600) -> xr.Dataset:
    """The noise "full", none, and every control, matched by trace and by clean accuracy."""
    by_trace = [f"{name} (trace)" for name in CONTROLS]
    by_accuracy = [f"{name} (accuracy)" for name in (*CONTROLS, "input_gaussian", "adversarial")]
    names = ["none", "full", *by_trace, *by_accuracy]
    found = result(dict.fromkeys(names, believable), n_stimuli=n_stimuli)
    matched = [""] * 2 + ["trace"] * len(by_trace) + ["clean_accuracy"] * len(by_accuracy)
    free = [name.split(" ")[0] in ("none", "train_only", "adversarial") for name in names]
    return found.assign_coords(
        matched_by=("noise", matched),
        noisy=("noise", [not one for one in free]),
        trace=("noise", [np.nan if one else TRACE for one in free]),
        source=("noise", ["" if one else "pgd ε=0.1 linf" for one in free]),
    )
