"""Half of the units of a V4 recording as the source and the other half as the target."""

import numpy as np
import pytest
import xarray as xr

from neurovar.noise import Assignment, GainLaw, PartialLeastSquares, Readout, Regression, Ridge
from neurovar.responses import repeat_counts

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def halves() -> tuple[xr.DataArray, xr.DataArray]:
    """Of the units, at random, and of the trials, so that shared noise tells one half nothing of the other."""
    from neurovar_datasets import cowley2023_v4

    recording = cowley2023_v4.load(session="210325")
    units = np.random.default_rng(0).permutation(recording.sizes["unit"])
    trials = [recording.isel(repeat=slice(start, None, 2)) for start in (0, 1)]
    shown = np.logical_and(*(repeat_counts(half).values > 1 for half in trials))
    source, target = (
        half.isel(unit=np.sort(part), stimulus=shown) for half, part in zip(trials, np.array_split(units, 2))
    )
    return source, target


def shuffled(responses: xr.DataArray) -> xr.DataArray:
    """With the stimuli's names exchanged."""
    return responses.assign_coords(stimulus=np.random.default_rng(0).permutation(responses.stimulus.values))


@pytest.mark.parametrize("regression", [Ridge(), PartialLeastSquares(10)], ids=str)
def test_one_half_is_read_out_of_the_other(halves: tuple[xr.DataArray, xr.DataArray], regression: Regression) -> None:
    source, target = halves
    readout = Readout.fit(source, target, least_goodness=0.05, rng=0, regression=regression)
    assert 0.2 < readout.mean_goodness < 0.5
    noise = readout.onto(target)
    w, covariance = readout.weights.values, readout.covariance.values
    read_out = w @ noise.to_dense().numpy() @ w.T
    assert np.trace(read_out) == pytest.approx(readout.reachable * np.trace(covariance), rel=1e-6)
    if regression == Ridge():
        np.testing.assert_allclose(read_out, covariance, atol=1e-6)
    with pytest.raises(ValueError, match=r"of at least 0.05, got -?0\.0[0-4]"):
        Readout.fit(shuffled(source), target, least_goodness=0.05, rng=0, regression=regression)


def test_one_half_is_assigned_to_the_other(halves: tuple[xr.DataArray, xr.DataArray]) -> None:
    """Similar on held-out stimuli; with stimuli exchanged similar only on those that chose."""
    source, target = halves
    table = Assignment.fit(source, target, n_factors=3, rng=0).table
    assert 0.3 < table.held_out_similarity.mean() < table.similarity.mean() < 0.7
    chance = Assignment.fit(shuffled(source), target, n_factors=3, rng=0).table
    assert abs(float(chance.held_out_similarity.mean())) < 0.05 < float(chance.similarity.mean())


def test_the_law_of_counts(halves: tuple[xr.DataArray, xr.DataArray]) -> None:
    law = GainLaw.fit(halves[0])
    assert 0.005 < law.gain_variance < 0.05
    assert 0.7 < law.exponent < 1.1 and 0.7 < law.factor < 1.1
