"""The methods of transplanting that neurovar has; importing it fills `METHODS`, in this order."""

from neurovar.noise.transplant._spectrum import Spectrum  # isort: skip
from neurovar.noise.transplant._readout import Readout  # isort: skip
from neurovar.noise.transplant._signal_rule import SignalRule  # isort: skip
from neurovar.noise.transplant._assignment import Assignment  # isort: skip
from neurovar.noise.transplant._gain import GainLaw  # isort: skip
from neurovar.noise.transplant._method import METHODS

__all__ = ["METHODS", "Assignment", "GainLaw", "Readout", "SignalRule", "Spectrum"]
