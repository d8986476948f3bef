"""The statistics of plain arrays: NumPy's, or torch's where they are (on a GPU too), without labels and checks.

Each has the name of the function of labelled responses that calls it, or of the estimator of a spectrum; arrays are
(stimulus, repeat, unit), NaN where a repeat is absent. `factor_analysis`, `fit_modulated_poisson`, `remove_drift` and
`power_law` take NumPy arrays only.
"""

from neurovar.statistics.estimation._alignment import class_alignment_kernel as class_alignment
from neurovar.statistics.estimation._alignment import noise_in_signal_kernel as noise_in_signal
from neurovar.statistics.estimation._alignment import principal_angles_kernel as principal_angles
from neurovar.statistics.estimation._counts import fano_factor_kernel as fano_factor
from neurovar.statistics.estimation._counts import variance_scaling_kernel as variance_scaling
from neurovar.statistics.estimation._coupling import population_coupling_kernel as population_coupling
from neurovar.statistics.estimation._dimensionality import covariance_moments_kernel as covariance_moments
from neurovar.statistics.estimation._dimensionality import effective_dimensionality_kernel as effective_dimensionality
from neurovar.statistics.estimation._drift import remove_drift_kernel as remove_drift
from neurovar.statistics.estimation._drift import remove_gain_kernel as remove_gain
from neurovar.statistics.estimation._factors import factor_analysis_kernel as factor_analysis
from neurovar.statistics.estimation._gain import fit_modulated_poisson_kernel as fit_modulated_poisson
from neurovar.statistics.estimation._gain import shared_gain_kernel as shared_gain
from neurovar.statistics.estimation._information import fisher_information_kernel as fisher_information
from neurovar.statistics.estimation._noise import noise_correlation_kernel as noise_correlation
from neurovar.statistics.estimation._noise import noise_covariance_kernel as noise_covariance
from neurovar.statistics.estimation._reliability import corrected_r2_kernel as corrected_r2
from neurovar.statistics.estimation._reliability import noise_ceiling_kernel as noise_ceiling
from neurovar.statistics.estimation._reliability import reliability_kernel as reliability
from neurovar.statistics.estimation._shrinkage import shrunk_covariance_kernel as shrunk_covariance
from neurovar.statistics.estimation._signal import signal_correlation_kernel as signal_correlation
from neurovar.statistics.estimation._signal import signal_covariance_kernel as signal_covariance
from neurovar.statistics.spectra._cross_decomposition import cross_decomposition as cross_decomposition
from neurovar.statistics.spectra._cvpca import cross_spectrum as cross_spectrum
from neurovar.statistics.spectra._cvpca import cvpca as cvpca
from neurovar.statistics.spectra._eigenmoments import eigenmoments_kernel as eigenmoments
from neurovar.statistics.spectra._noise import noise_cross_decomposition as noise_cross_decomposition
from neurovar.statistics.spectra._noise import noise_cvpca as noise_cvpca
from neurovar.statistics.spectra._power_law import power_law_kernel as power_law

__all__ = [
    "class_alignment",
    "corrected_r2",
    "covariance_moments",
    "cross_decomposition",
    "cross_spectrum",
    "cvpca",
    "effective_dimensionality",
    "eigenmoments",
    "factor_analysis",
    "fano_factor",
    "fisher_information",
    "fit_modulated_poisson",
    "noise_ceiling",
    "noise_correlation",
    "noise_covariance",
    "noise_cross_decomposition",
    "noise_cvpca",
    "noise_in_signal",
    "population_coupling",
    "power_law",
    "principal_angles",
    "reliability",
    "remove_drift",
    "remove_gain",
    "shared_gain",
    "shrunk_covariance",
    "signal_correlation",
    "signal_covariance",
    "variance_scaling",
]
