"""Add covariance-structured noise to layers during forward passes."""

from neurovar.injection._context import inject
from neurovar.injection._module import NoisyModule

__all__ = ["NoisyModule", "inject"]
