"""Map the noise of one system onto another, and matched controls.

Each method fits a frozen value to the source (`fit_spectrum`, `fit_readout`, …), which `onto` turns into noise for the
target; `with_controls` makes what it is to be compared with.
"""

from neurovar.transplant._assignment import Assignment, fit_assignment
from neurovar.transplant._controls import (
    CONTROLS,
    Controls,
    diagonal,
    flat_spectrum,
    isotropic,
    low_rank,
    rotated,
    shuffled_spectrum,
    signal_aligned,
    signal_orthogonal,
    with_controls,
)
from neurovar.transplant._gain import GainLaw, fit_gain
from neurovar.transplant._noisy import noisy_responses
from neurovar.transplant._onto import METHODS, onto
from neurovar.transplant._readout import Readout, fit_readout
from neurovar.transplant._rule import SignalRule, fit_signal_rule, nearest_correlation
from neurovar.transplant._spectrum import Spectrum, fit_spectrum

__all__ = [
    "CONTROLS",
    "METHODS",
    "Assignment",
    "Controls",
    "GainLaw",
    "Readout",
    "SignalRule",
    "Spectrum",
    "diagonal",
    "fit_assignment",
    "fit_gain",
    "fit_readout",
    "fit_signal_rule",
    "fit_spectrum",
    "flat_spectrum",
    "isotropic",
    "low_rank",
    "nearest_correlation",
    "noisy_responses",
    "onto",
    "rotated",
    "shuffled_spectrum",
    "signal_aligned",
    "signal_orthogonal",
    "with_controls",
]
