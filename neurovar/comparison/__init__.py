"""The same statistics of variability for cortex and networks, side by side: matched, with intervals and tests.

A system is responses (stimulus, repeat, unit), or a list of them where sessions were recorded separately. `STATISTICS`
holds what can be computed; `compare` makes the table, `intervals` one system's part of it, `match` the subsamples of
equal sizes, `permutation_test` the test of a difference. Distances compare the noise of two systems as a whole.
"""

from neurovar.comparison._distances import curve_distance, noise_correlation_distance, spectrum_distance
from neurovar.comparison._intervals import intervals
from neurovar.comparison._levels import LEVELS
from neurovar.comparison._matching import match
from neurovar.comparison._permutation import permutation_test
from neurovar.comparison._profiles import profiles
from neurovar.comparison._shapes import ShapeDistance, shape_distance
from neurovar.comparison._statistics import STATISTICS, Settings, Statistic
from neurovar.comparison._table import compare

__all__ = [
    "LEVELS",
    "STATISTICS",
    "Settings",
    "ShapeDistance",
    "Statistic",
    "compare",
    "curve_distance",
    "intervals",
    "match",
    "noise_correlation_distance",
    "permutation_test",
    "profiles",
    "shape_distance",
    "spectrum_distance",
]
