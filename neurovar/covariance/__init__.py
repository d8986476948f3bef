"""Covariance matrices as torch operators, which sample without being written out.

A noise structure is a `Covariance`; `{layer: Covariance}` is a network's noise.
"""

from neurovar.covariance._base import Covariance
from neurovar.covariance._dense import Dense, nearest
from neurovar.covariance._diagonal import Diagonal
from neurovar.covariance._files import KINDS, load
from neurovar.covariance._gain import GainModulated
from neurovar.covariance._kronecker import Kronecker
from neurovar.covariance._low_rank import LowRankPlusDiagonal
from neurovar.covariance._sampler import Sampler
from neurovar.covariance._sum import MeanShift, Sum

__all__ = [
    "KINDS",
    "Covariance",
    "Dense",
    "Diagonal",
    "GainModulated",
    "Kronecker",
    "LowRankPlusDiagonal",
    "MeanShift",
    "Sampler",
    "Sum",
    "load",
    "nearest",
]
