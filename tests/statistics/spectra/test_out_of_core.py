"""Chunked responses: the same spectra as in memory, without holding the responses."""

from collections.abc import Callable
from dataclasses import astuple

import dask.array
import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import statistics
from neurovar.statistics import _tiles
from neurovar.statistics.spectra import _out_of_core

Estimate = Callable[[xr.DataArray], xr.DataArray]
OPTIONS = {"n_splits": 1, "rng": 0}
SPECTRA: dict[str, Estimate] = {
    "signal, cvPCA": lambda da: statistics.signal_spectrum(da, method="cvpca", **OPTIONS),
    "signal, held-out stimuli": lambda da: statistics.signal_spectrum(da, method="cross_decomposition", **OPTIONS),
    "noise, cvPCA": lambda da: statistics.noise_spectrum(da, method="cvpca", **OPTIONS),
    "noise, held-out stimuli": lambda da: statistics.noise_spectrum(da, method="cross_decomposition", **OPTIONS),
}
MOMENTS: dict[str, Estimate] = {
    of: lambda da, of=of: statistics.eigenmoments(da, of=of, n_moments=3, **OPTIONS) for of in ("signal", "noise")
}
SIZES = {"more trials than units": (20, 12), "more trials, few stimuli": (12, 30), "more units than trials": (9, 80)}


def recording(n_stimuli: int, n_units: int) -> xr.DataArray:
    return reference.recording("structured", n_units=n_units, n_stimuli=n_stimuli, n_repeats=6, least_repeats=4)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "TILE", 1600)


@pytest.fixture(params=SIZES)
def whole(request: pytest.FixtureRequest) -> xr.DataArray:
    return recording(*SIZES[request.param])


@pytest.mark.parametrize("chunks", [{"stimulus": 5, "repeat": 3, "unit": 17}])
@pytest.mark.parametrize("name", [*SPECTRA, *MOMENTS])
def test_chunks_change_nothing(name: str, chunks: dict[str, int], whole: xr.DataArray) -> None:
    estimate = (SPECTRA | MOMENTS)[name]
    expected, result = estimate(whole), estimate(whole.chunk(chunks))
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))
    assert result.attrs == expected.attrs and result.dims == expected.dims
    if name in MOMENTS:
        np.testing.assert_allclose(result.standard_error, expected.standard_error, rtol=1e-9)


def test_exponents_with_their_intervals(whole: xr.DataArray) -> None:
    options = {"of": "noise", "method": "cvpca", "ranks": (1, 3), "over": ("unit",), "n_bootstrap": 4} | OPTIONS
    expected = statistics.exponent_interval(whole, **options)
    result = statistics.exponent_interval(whole.chunk({"stimulus": 4}), **options)
    assert astuple(result) == pytest.approx(astuple(expected), rel=1e-6)


def test_a_law_of_all_units(whole: xr.DataArray) -> None:
    """It hangs on the number of units, which trials in coordinates of fewer units must not change."""
    options = {"of": "noise", "law": "single", "n_moments": 2} | OPTIONS
    expected = statistics.fit_eigenmoments(whole, **options)
    result = statistics.fit_eigenmoments(whole.chunk({"stimulus": 4}), **options)
    assert result.n_units == expected.n_units == whole.sizes["unit"]
    assert result.exponent == pytest.approx(expected.exponent, rel=1e-8)


@pytest.mark.parametrize("name", [*SPECTRA, *MOMENTS])
@pytest.mark.parametrize("size", ["more trials than units", "more units than trials"])
def test_no_more_than_a_chunk_of_the_responses_is_in_memory(name: str, size: str) -> None:
    """Products of trials read units in groups: here all are one group, and chunks of stimuli pass one by one."""
    whole, largest = recording(*SIZES[size]), []

    def seen(block: np.ndarray) -> np.ndarray:
        largest.append(block.shape[0])
        return block

    chunked = whole.chunk({"stimulus": 4})
    (SPECTRA | MOMENTS)[name](chunked.copy(data=chunked.data.map_blocks(seen, dtype=whole.dtype)))
    assert max(largest) == 4


def test_float32_stays() -> None:
    whole = recording(*SIZES["more trials than units"])
    for estimate in SPECTRA.values():
        small = estimate(whole.astype(np.float32).chunk({"stimulus": 4}))
        assert small.dtype == np.float32
        np.testing.assert_allclose(small, estimate(whole), atol=2e-4 * float(small.max()))


def test_bad_chunks_are_refused_as_bad_arrays_are(whole: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="expected method 'cvpca' or 'cross_decomposition', got 'pca'"):
        statistics.signal_spectrum(whole.chunk({"stimulus": 4}), method="pca", **OPTIONS)
    whole.values[3, 2, 4] = np.inf
    with pytest.raises(ValueError, match="expected finite responses or NaN, got 1 infinite value"):
        statistics.noise_spectrum(whole.chunk({"stimulus": 4}), method="cvpca", **OPTIONS)


def test_workers_of_a_cluster_give_the_same() -> None:
    whole = recording(*SIZES["more trials than units"])
    distributed = pytest.importorskip("distributed")
    expected = SPECTRA["signal, cvPCA"](whole)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        result = SPECTRA["signal, cvPCA"](whole.chunk({"stimulus": 4}))
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


def test_a_matrix_that_does_not_fit_is_foreseen() -> None:
    values = dask.array.zeros((60_000, 2, 500_000), chunks=(100, 2, 500_000), dtype=np.float32)
    match = r"expected a matrix of trials or of units that fits into memory 6 times, got 120000 × 120000: 345\.6 GB of"
    with pytest.raises(ValueError, match=match):
        _out_of_core.spectrum_out_of_core(values, 1, None, kernel=None, of="signal", method="cvpca")
