"""What a network is tested under: clean images, a modification, an attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor

from neurovar._values import Value
from neurovar.networks import Modification
from neurovar.robustness.attacks._attack import NUMBERS, TEXTS, Attack


@dataclass(frozen=True)
class Clean(Value):
    """The images as they are.

    Examples
    --------
    >>> Clean().label
    'clean'
    """

    @property
    def label(self) -> str:
        """The condition in results."""
        return "clean"

    def described(self) -> dict[str, Any]:
        """What results say of this condition."""
        return {"kind": "clean", "modification": "clean", "strength": 0.0}

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """The images."""
        return images


Condition = Clean | Modification | Attack


def coordinates(conditions: Sequence[Condition]) -> dict[str, Any]:
    """The coords of the dim `condition`: its labels, and what each condition is.

    Raises
    ------
    ValueError
        For conditions of one label, whose draws would be the same.
    """
    labels = [condition.label for condition in conditions]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"expected conditions that differ, got more than one {', '.join(twice)}")
    rows = [condition.described() for condition in conditions]
    texts = {name: ("condition", [row.get(name, "") for row in rows]) for name in TEXTS}
    numbers = {name: ("condition", [row.get(name, nan) for row in rows]) for name in NUMBERS}
    return {"condition": labels, **texts, **numbers}
