"""Draw result Datasets on given matplotlib Axes: one style, readable at column width, and no statistics.

Colours are those of Okabe & Ito (2008, "Color Universal Design", https://jfly.uni-koeln.de/color/), which
colour-blind readers can tell apart; markers and line styles repeat what the colours say. No function touches
pyplot, so drawing has no global state. Every function wants the data first, then the Axes to draw on.
"""

from neurovar.plotting._accuracy import plot_accuracy, plot_accuracy_bars
from neurovar.plotting._comparison import plot_comparison, plot_curves, plot_densities, plot_profile_spectra
from neurovar.plotting._power import plot_detection, plot_power
from neurovar.plotting._recording import plot_distribution, plot_recording, plot_signal_noise, plot_variance
from neurovar.plotting._robustness import VERDICT_COLUMNS, plot_convergence, plot_honesty, plot_noise_by_test
from neurovar.plotting._spectra import plot_spectrum
from neurovar.plotting._style import COLUMN_WIDTH, figure, legend_below, style
from neurovar.plotting._systems import plot_correlation_matrix, plot_signal_rule, plot_spectra, plot_statistic

__all__ = [
    "COLUMN_WIDTH",
    "VERDICT_COLUMNS",
    "figure",
    "legend_below",
    "plot_accuracy",
    "plot_accuracy_bars",
    "plot_comparison",
    "plot_convergence",
    "plot_correlation_matrix",
    "plot_curves",
    "plot_densities",
    "plot_detection",
    "plot_distribution",
    "plot_honesty",
    "plot_noise_by_test",
    "plot_power",
    "plot_profile_spectra",
    "plot_recording",
    "plot_signal_noise",
    "plot_signal_rule",
    "plot_spectra",
    "plot_spectrum",
    "plot_statistic",
    "plot_variance",
    "style",
]
