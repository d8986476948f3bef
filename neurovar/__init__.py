"""neurovar: trial-to-trial variability in cortex and in artificial networks.

Submodules and the most used names load when they are first touched, so that importing the package stays fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.5.0"

_PUBLIC = {
    "covariance": ("Covariance", "Dense", "Diagonal", "GainModulated", "Kronecker", "LowRankPlusDiagonal"),
    "responses": (),
    "activations": (),
    "attacks": (),
    "checks": (),
    "comparison": (),
    "description": (),
    "estimation": (),
    "injection": ("NoisyModule", "inject"),
    "learning": (),
    "modifications": (),
    "networks": (),
    "plotting": (),
    "power": (),
    "presentations": (),
    "pretrained": (),
    "report": (),
    "robustness": (),
    "simulation": (),
    "sources": (),
    "spectra": (),
    "spikes": (),
    "storage": (),
    "streaming": (),
    "training": (),
    "transplant": (),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [*_PUBLIC, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return import_module(f"neurovar.{name}")
    if name in _HOME:
        return getattr(import_module(f"neurovar.{_HOME[name]}"), name)
    raise AttributeError(f"module 'neurovar' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")


def __dir__() -> list[str]:
    return sorted(__all__)
