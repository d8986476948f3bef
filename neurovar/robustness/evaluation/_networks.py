"""The networks that are compared: each noise, each training seed."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurovar.networks import Control, NoisyNetwork, Origin
from neurovar.robustness.attacks._choices import Follows

Networks = Mapping[str, NoisyNetwork | Sequence[NoisyNetwork]]
NO_NOISE = "none"
"""The name of networks without noise, which are the twins of those with noise."""


def by_name(networks: NoisyNetwork | Networks) -> dict[str, list[NoisyNetwork]]:
    """{name: a network for each training seed}, however they were given."""
    if isinstance(networks, NoisyNetwork):
        networks = {"noisy" if networks.noisy else NO_NOISE: networks}
    listed = {name: list(given) if isinstance(given, Sequence) else [given] for name, given in networks.items()}
    for name, seeds in listed.items():
        for network in seeds:
            if not isinstance(network, NoisyNetwork):
                raise ValueError(
                    f"expected a NoisyNetwork, or a list of them, as {name!r}, got {type(network).__name__}; "
                    "neurovar.networks.NoisyNetwork(model, images=…) makes one"
                )
    numbers = {name: len(seeds) for name, seeds in listed.items()}
    if len(set(numbers.values())) != 1 or 0 in numbers.values():
        raise ValueError(f"expected as many networks, one a training seed, of every noise, got {numbers or 'none'}")
    for name, seeds in listed.items():
        if len({tuple(sorted(network.layers)) for network in seeds}) > 1:
            raise ValueError(f"expected the noise {name!r} at the same layers for every training seed, got others")
    return listed


def check_all(networks: Mapping[str, Sequence[NoisyNetwork]], images: np.ndarray, labels: np.ndarray) -> int:
    """The number of classes; a ValueError, naming the network, for images or labels that it does not take.

    Everything else was checked when they were made.
    """
    n_classes = {network.n_classes for seeds in networks.values() for network in seeds}
    if len(n_classes) > 1:
        raise ValueError(f"expected networks with the same classes, got {sorted(n_classes)} classes")
    for name, seeds in networks.items():
        for index, network in enumerate(seeds):
            try:
                network.check(*tensors(network, images, labels))
            except ValueError as error:
                raise ValueError(f"{name}, training seed {index}: {error}") from error
    return n_classes.pop()


def tensors(network: NoisyNetwork, images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images and labels where the network is."""
    x = torch.tensor(images.copy(), device=network.device)
    if x.dtype != network.dtype:
        raise ValueError(f"expected images of the network's {network.dtype}, got {x.dtype}")
    return x, torch.tensor(labels, device=network.device)


def followed(
    networks: Mapping[str, Sequence[NoisyNetwork]], others: Mapping[str, Sequence[NoisyNetwork]] | None
) -> dict[Follows, list[NoisyNetwork | None]]:
    """The networks without noise that transfer attacks follow, for each training seed; None where there is none."""
    n_seeds = len(next(iter(networks.values())))
    given: dict[Follows, list[NoisyNetwork | None]] = {
        Follows(name): list(seeds) for name, seeds in (others or {}).items()
    }
    for follows, seeds in given.items():
        if not follows.transferred or len(seeds) != n_seeds:
            raise ValueError(
                f"expected as others a twin, an independent network or both for each of {n_seeds} training seeds, got "
                f"{len(seeds)} as {follows}"
            )
    twins: list[NoisyNetwork | None] = [None] * n_seeds
    free = {name: seeds for name, seeds in networks.items() if not seeds[0].noisy}
    if NO_NOISE in free or len(free) == 1:
        twins = list(free.get(NO_NOISE, next(iter(free.values()))))
    elif len({id(seeds[0].model) for seeds in networks.values()}) == 1:
        twins = [network.without_noise() for network in next(iter(networks.values()))]
    twins = given.get(Follows.TWIN, twins)
    # A network that was trained from another seed knows nothing of this one: the next seed's twin.
    independent: list[NoisyNetwork | None] = [*twins[1:], twins[0]] if n_seeds > 1 else [None]
    return {Follows.TWIN: twins, Follows.INDEPENDENT: given.get(Follows.INDEPENDENT, independent)}


def coordinates(networks: Mapping[str, Sequence[NoisyNetwork]]) -> dict[str, Any]:
    """The coords of the dim `noise`: what each noise is, what it was made from, and which control it is, if any."""
    rows = []
    for name, seeds in networks.items():
        network = seeds[0]
        origin, control = network.origin or Origin(""), network.control or Control("")
        rows.append(
            {
                "noise": name,
                "noisy": network.noisy,
                "layer": ", ".join(network.layers),
                "trace": float(np.mean([seed.trace for seed in seeds])) if network.noisy else nan,
                "control": control.kind,
                "control_of": control.of,
                "matched_by": control.matched_by,
                "origin": origin.method,
                "origin_of": origin.of,
                "origin_epsilon": nan if origin.epsilon is None else float(origin.epsilon),
                "origin_norm": origin.norm,
            }
        )
    return {key: ("noise", [row[key] for row in rows]) for key in rows[0]}
