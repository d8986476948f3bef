"""The statistics of trial-to-trial variability, of signal and noise, and fitted noise structures.

Every function takes responses (stimulus, repeat, unit) with NaN for absent repeats (`neurovar.responses`), validates
them once, and calls a kernel, which works on plain arrays. Noise is the deviation from the stimulus's mean; Rₛ is the
number of repeats of stimulus s. `by=` names a coordinate of unit or of stimulus (an area, a layer, a condition): the
statistic of each group then stands along a first dim of that name.
"""

from neurovar.estimation._counts import fano_factor, fano_factor_kernel
from neurovar.estimation._dimensionality import effective_dimensionality, effective_dimensionality_kernel
from neurovar.estimation._noise import (
    noise_correlation,
    noise_correlation_kernel,
    noise_covariance,
    noise_covariance_kernel,
)
from neurovar.estimation._reliability import reliability, reliability_kernel
from neurovar.estimation._signal import signal_correlation, signal_correlation_kernel, signal_covariance_kernel
from neurovar.estimation._structures import deviation_covariance, fit_covariance

__all__ = [
    "deviation_covariance",
    "effective_dimensionality",
    "effective_dimensionality_kernel",
    "fano_factor",
    "fano_factor_kernel",
    "fit_covariance",
    "noise_correlation",
    "noise_correlation_kernel",
    "noise_covariance",
    "noise_covariance_kernel",
    "reliability",
    "reliability_kernel",
    "signal_correlation",
    "signal_correlation_kernel",
    "signal_covariance_kernel",
]
