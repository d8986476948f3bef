"""Adversarial attacks that know the network is noisy: gradients averaged over noise draws."""

from neurovar.attacks._apgd import apgd
from neurovar.attacks._fgm import fgm
from neurovar.attacks._objective import NO_NOISE, GradientError, Objective, expected_loss
from neurovar.attacks._pgd import pgd
from neurovar.attacks._protocols import ATTACKS, attack, settings
from neurovar.attacks._random_search import random_search
from neurovar.attacks._square import square
from neurovar.attacks._transfer import transfer

__all__ = [
    "ATTACKS",
    "NO_NOISE",
    "GradientError",
    "Objective",
    "apgd",
    "attack",
    "expected_loss",
    "fgm",
    "pgd",
    "random_search",
    "settings",
    "square",
    "transfer",
]
