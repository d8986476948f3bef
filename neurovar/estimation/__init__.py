"""The statistics of trial-to-trial variability, of signal and noise, and fitted noise structures.

Every function takes responses (stimulus, repeat, unit) with NaN for absent repeats (`neurovar.responses`), validates
them once, and calls a kernel, which works on plain arrays: NumPy's or, where much is to be computed, also torch's, on
any device. Noise is the deviation from the stimulus's mean; Rₛ is the number of repeats of stimulus s. `by=` names a
coordinate of unit or of stimulus (an area, a layer, a condition): the statistic of each group then stands along a first
dim of that name.
"""

from neurovar.estimation._alignment import (
    class_alignment,
    class_alignment_kernel,
    noise_in_signal,
    noise_in_signal_kernel,
    principal_angles,
    principal_angles_kernel,
)
from neurovar.estimation._counts import (
    fano_factor,
    fano_factor_kernel,
    mean_matched_fano_factor,
    variance_scaling,
    variance_scaling_kernel,
)
from neurovar.estimation._coupling import population_coupling, population_coupling_kernel
from neurovar.estimation._dimensionality import (
    covariance_moments_kernel,
    effective_dimensionality,
    effective_dimensionality_kernel,
)
from neurovar.estimation._drift import remove_drift, remove_drift_kernel, remove_gain, remove_gain_kernel
from neurovar.estimation._factors import FactorAnalysis, factor_analysis, factor_analysis_kernel, shared_variance
from neurovar.estimation._gain import (
    fit_modulated_poisson,
    fit_modulated_poisson_kernel,
    shared_gain,
    shared_gain_kernel,
)
from neurovar.estimation._information import FisherInformation, fisher_information, fisher_information_kernel
from neurovar.estimation._noise import (
    noise_correlation,
    noise_correlation_kernel,
    noise_covariance,
    noise_covariance_kernel,
)
from neurovar.estimation._pairs import binned, pairs
from neurovar.estimation._reliability import (
    corrected_r2,
    corrected_r2_kernel,
    noise_ceiling,
    noise_ceiling_kernel,
    reliability,
    reliability_kernel,
)
from neurovar.estimation._shrinkage import shrunk_covariance, shrunk_covariance_kernel
from neurovar.estimation._signal import (
    signal_correlation,
    signal_correlation_kernel,
    signal_covariance,
    signal_covariance_kernel,
)
from neurovar.estimation._structures import deviation_covariance, fit_covariance

__all__ = [
    "FactorAnalysis",
    "FisherInformation",
    "binned",
    "class_alignment",
    "class_alignment_kernel",
    "corrected_r2",
    "corrected_r2_kernel",
    "covariance_moments_kernel",
    "deviation_covariance",
    "effective_dimensionality",
    "effective_dimensionality_kernel",
    "factor_analysis",
    "factor_analysis_kernel",
    "fano_factor",
    "fano_factor_kernel",
    "fisher_information",
    "fisher_information_kernel",
    "fit_covariance",
    "fit_modulated_poisson",
    "fit_modulated_poisson_kernel",
    "mean_matched_fano_factor",
    "noise_ceiling",
    "noise_ceiling_kernel",
    "noise_correlation",
    "noise_correlation_kernel",
    "noise_covariance",
    "noise_covariance_kernel",
    "noise_in_signal",
    "noise_in_signal_kernel",
    "pairs",
    "population_coupling",
    "population_coupling_kernel",
    "principal_angles",
    "principal_angles_kernel",
    "reliability",
    "reliability_kernel",
    "remove_drift",
    "remove_drift_kernel",
    "remove_gain",
    "remove_gain_kernel",
    "shared_gain",
    "shared_gain_kernel",
    "shared_variance",
    "shrunk_covariance",
    "shrunk_covariance_kernel",
    "signal_correlation",
    "signal_correlation_kernel",
    "signal_covariance",
    "signal_covariance_kernel",
    "variance_scaling",
    "variance_scaling_kernel",
]
