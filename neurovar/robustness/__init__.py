"""Accuracy of noisy networks under modifications and attacks, with the correctness of every stimulus kept."""

from neurovar.robustness._evaluate import (
    PGD,
    Clean,
    Condition,
    Modified,
    NoisyNetwork,
    differences,
    evaluate,
    summarise,
)

__all__ = ["PGD", "Clean", "Condition", "Modified", "NoisyNetwork", "differences", "evaluate", "summarise"]
