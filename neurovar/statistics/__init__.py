"""The statistics of trial-to-trial variability: estimates, eigenspectra, comparison, simulation and power.

Functions take responses (stimulus, repeat, unit) with NaN for absent repeats; their kernels take NumPy arrays or torch
tensors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
