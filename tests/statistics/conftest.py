"""What tests of several statistics share."""

import numpy as np
import pytest
import xarray as xr

from neurovar import statistics


@pytest.fixture(scope="session")
def _recording() -> xr.DataArray:
    tuning = statistics.tuning(n_stimuli=12, n_units=8, exponent=0.5, rng=0)
    rates = statistics.present(np.exp(tuning + 2), n_repeats=8, rng=1).assign_attrs(units="spike count", window="0–1 s")
    counts = statistics.modulated_poisson(rates, gain_variance=0.2, gain_correlation=0.5, rng=2)
    of_units = {"area": ("unit", list("aabbabba")), "depth": ("unit", np.arange(8.0))}
    return counts.assign_coords(of_units | {"clip": ("stimulus", np.arange(12) % 3)})


@pytest.fixture
def recording(_recording: xr.DataArray) -> xr.DataArray:
    """Spike counts, 12 stimuli × 8 repeats × 8 units of two areas, with a signal and a shared gain."""
    return _recording.copy(deep=True)
