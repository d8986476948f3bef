"""Eigenspectra of signal and noise without the variance of noise, and their power laws.

Three estimators: cvPCA (repeats held out), cross-decomposition (stimuli held out) and MEME (matched eigenmoments, no
axes at all). They differ in their biases, so that their exponents are not to be compared: a spectrum's
attrs["method"] says which it is. Functions take responses (stimulus, repeat, unit) with NaN for absent repeats
(`neurovar.responses`), kernels NumPy arrays or torch tensors. Chunked responses (dask) may be larger than memory.
"""

from neurovar.spectra._cross_decomposition import cross_decomposition_kernel
from neurovar.spectra._cvpca import cross_spectrum_kernel, cvpca_kernel
from neurovar.spectra._eigenmoments import eigenmoments, eigenmoments_kernel
from neurovar.spectra._intervals import ExponentInterval, exponent_interval
from neurovar.spectra._meme import EigenmomentFit, fit_eigenmoments
from neurovar.spectra._noise import noise_cross_decomposition_kernel, noise_cvpca_kernel
from neurovar.spectra._power_law import (
    PowerLaw,
    UnreliableFit,
    fit_power_law,
    power_law_kernel,
    smoothness_bound,
    window_sweep,
)
from neurovar.spectra._spectrum import noise_spectrum, require_one_method, signal_spectrum

__all__ = [
    "EigenmomentFit",
    "ExponentInterval",
    "PowerLaw",
    "UnreliableFit",
    "cross_decomposition_kernel",
    "cross_spectrum_kernel",
    "cvpca_kernel",
    "eigenmoments",
    "eigenmoments_kernel",
    "exponent_interval",
    "fit_eigenmoments",
    "fit_power_law",
    "noise_cross_decomposition_kernel",
    "noise_cvpca_kernel",
    "noise_spectrum",
    "power_law_kernel",
    "require_one_method",
    "signal_spectrum",
    "smoothness_bound",
    "window_sweep",
]
