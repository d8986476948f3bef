"""The networks that are compared: each noise, each training seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurovar.covariance import Covariance
from neurovar.robustness.attacks._checks import check


@dataclass(frozen=True, eq=False)
class NoisyNetwork:
    """A classifier and the noise that it carries: {layer: Covariance}, empty for none.

    source : what the covariance was made from, such as "pgd ε=0.1 linf"; "" where that is not known or there is none.
    matched_by : what the noise was scaled to have in common with others, "trace" or "clean_accuracy"; "" for neither.
    """

    model: nn.Module
    noises: Mapping[str, Covariance] = field(default_factory=dict)
    source: str = ""
    matched_by: str = ""


Networks = Mapping[str, NoisyNetwork | Sequence[NoisyNetwork]]


def by_name(
    model: nn.Module | Networks, noises: Mapping[str, Mapping[str, Covariance]] | None
) -> dict[str, list[NoisyNetwork]]:
    """{name: a network for each training seed}, however they were given."""
    if isinstance(model, nn.Module):
        return {name: [NoisyNetwork(model, noise)] for name, noise in (noises or {"none": {}}).items()}
    if noises is not None:
        raise ValueError("expected noises with one model only, since networks have their own, got both")
    networks = {name: list(one) if isinstance(one, Sequence) else [one] for name, one in model.items()}
    for name, several in networks.items():
        for one in several:
            if not isinstance(one, NoisyNetwork):
                raise ValueError(f"expected a NoisyNetwork, or a list of them, as {name!r}, got {type(one).__name__}")
    numbers = {name: len(one) for name, one in networks.items()}
    if len(set(numbers.values())) != 1 or 0 in numbers.values():
        raise ValueError(f"expected as many networks, one a training seed, of every noise, got {numbers or 'none'}")
    for name, several in networks.items():
        if len({tuple(sorted(one.noises)) for one in several}) > 1:
            raise ValueError(f"expected the noise {name!r} at the same layers for every training seed, got others")
    return networks


def check_all(networks: Mapping[str, Sequence[NoisyNetwork]], images: np.ndarray, labels: np.ndarray) -> int:
    """The number of classes; a ValueError, naming the network, for anything that makes its predictions meaningless."""
    n_classes = set()
    for name, several in networks.items():
        for index, network in enumerate(several):
            x, y = tensors(network.model, images, labels)
            try:
                check(network.model, x, y, 1.0, network.noises)
            except ValueError as error:
                raise ValueError(f"{name}, training seed {index}: {error}") from error
            with torch.no_grad():
                n_classes.add(network.model(x[:1]).shape[-1])
    if len(n_classes) > 1:
        raise ValueError(f"expected networks with the same classes, got {sorted(n_classes)} classes")
    return n_classes.pop()


def tensors(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images and labels where the model is."""
    x = torch.tensor(images.copy())
    first = next(model.parameters(), x)
    if x.dtype != first.dtype:
        raise ValueError(f"expected images of the model's {first.dtype}, got {x.dtype}")
    return x.to(first.device), torch.tensor(labels, device=first.device)


def without_noise(
    networks: Mapping[str, Sequence[NoisyNetwork]],
    twin: Sequence[nn.Module] | None,
    independent: Sequence[nn.Module] | None,
) -> dict[str, list[nn.Module | None]]:
    """The models that transfer attacks follow, for each training seed; None where there is none."""
    n_seeds = len(next(iter(networks.values())))
    for name, given in {"twin": twin, "independent": independent}.items():
        if given is not None and len(given) != n_seeds:
            raise ValueError(f"expected a model for each of {n_seeds} training seeds as {name}, got {len(given)}")
    twins: list[Any] = [None] * n_seeds if twin is None else list(twin)
    if twin is None:
        models = {id(several[0].model) for several in networks.values()}
        free = {name: several for name, several in networks.items() if not several[0].noises}
        if "none" in free or len(free) == 1:
            twins = [one.model for one in free.get("none", next(iter(free.values())))]
        elif len(models) == 1:
            twins = [one.model for one in next(iter(networks.values()))]
    others: list[Any] = [None] * n_seeds if independent is None else list(independent)
    if independent is None and n_seeds > 1:
        others = [*twins[1:], twins[0]]
    return {"twin": twins, "independent": others}


def coordinates(networks: Mapping[str, Sequence[NoisyNetwork]]) -> dict[str, Any]:
    """The coords of the dim `noise`."""
    traces = {
        name: np.mean([sum(float(c.trace()) for c in one.noises.values()) for one in several])
        for name, several in networks.items()
    }
    first = {name: several[0] for name, several in networks.items()}
    return {
        "noise": list(networks),
        "noisy": ("noise", [bool(one.noises) for one in first.values()]),
        "layer": ("noise", [", ".join(one.noises) for one in first.values()]),
        "trace": ("noise", [traces[name] if one.noises else np.nan for name, one in first.items()]),
        "source": ("noise", [one.source for one in first.values()]),
        "matched_by": ("noise", [one.matched_by for one in first.values()]),
    }
