"""Chunked responses: the same numbers as in memory, without holding them."""

from collections.abc import Callable

import numpy as np
import pytest
import reference
import xarray as xr

from neurovar import responses, statistics
from neurovar.statistics import _tiles

ESTIMATES: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "covariance": statistics.noise_covariance,
    "covariance of differences": lambda da: statistics.noise_covariance(da, differences=True),
    "covariance per stimulus": lambda da: statistics.noise_covariance(da, per_stimulus=True),
    "correlation": statistics.noise_correlation,
    "pooled correlation": lambda da: statistics.noise_correlation(da, zscore=False),
    "correlation of differences": lambda da: statistics.noise_correlation(da, differences=True),
}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tiles, "TILE", 9)


@pytest.fixture(params=[None, 3])
def whole(request: pytest.FixtureRequest) -> xr.DataArray:
    return reference.recording("structured", n_units=8, n_stimuli=15, n_repeats=6, least_repeats=request.param)


@pytest.mark.parametrize("chunks", [{"stimulus": 4}, {"stimulus": 4, "unit": 3}, {"stimulus": 7, "repeat": 2}])
@pytest.mark.parametrize("name", ESTIMATES)
def test_chunks_change_nothing(name: str, chunks: dict[str, int], whole: xr.DataArray) -> None:
    expected, result = ESTIMATES[name](whole), ESTIMATES[name](whole.chunk(chunks))
    xr.testing.assert_allclose(result.compute(), expected, rtol=1e-12)
    assert result.attrs == expected.attrs


def test_pairs_across_recordings_are_undefined(whole: xr.DataArray) -> None:
    pooled = responses.mark(whole, recording=np.arange(whole.sizes["unit"]) // 3)
    expected = statistics.noise_covariance(pooled)
    assert expected.isnull().any()
    np.testing.assert_allclose(statistics.noise_covariance(pooled.chunk({"stimulus": 2})), expected)


@pytest.mark.parametrize("name", ["covariance", "correlation", "pooled correlation"])
def test_the_result_is_lazy_and_exactly_symmetric(name: str, whole: xr.DataArray) -> None:
    result = ESTIMATES[name](whole.chunk({"stimulus": 4}))
    assert result.chunks == ((3, 2, 3), (3, 2, 3))
    matrix = result.values
    np.testing.assert_array_equal(matrix, matrix.T)
    if name != "covariance":
        np.testing.assert_array_equal(np.diag(matrix), 1)


def test_units_that_are_silent_for_some_stimuli() -> None:
    counts = np.floor(np.exp(reference.recording("structured", least_repeats=3).values / 2))
    da = reference.responses(counts, units="spike count")
    result = statistics.noise_correlation(da.chunk({"stimulus": 4}))
    np.testing.assert_allclose(result, reference.zscored_noise_correlation(counts), atol=1e-12)


def test_repeats_in_another_order_than_shown() -> None:
    da = reference.recording("structured", least_repeats=None)
    shown = np.random.default_rng(0).permutation(90).reshape(15, 6)
    da = da.assign_coords(presentation=(("stimulus", "repeat"), shown))
    result = statistics.noise_covariance(da.chunk({"stimulus": 4}), differences=True)
    np.testing.assert_allclose(result, statistics.noise_covariance(da, differences=True))


def test_float32_stays() -> None:
    da = reference.recording("structured").astype(np.float32)
    assert statistics.noise_correlation(da.chunk({"stimulus": 4})).compute().dtype == np.float32


def test_no_more_than_a_chunk_of_the_responses_is_in_memory(whole: xr.DataArray) -> None:
    largest = []

    def seen(block: np.ndarray) -> np.ndarray:
        largest.append(block.shape[0])
        return block

    lazy = whole.chunk({"stimulus": 4}).copy(data=whole.chunk({"stimulus": 4}).data.map_blocks(seen, dtype=whole.dtype))
    statistics.noise_covariance(lazy).compute()
    assert max(largest) == 4


@pytest.mark.parametrize("least_repeats", [None, 3])
def test_validation_reads_chunks(least_repeats: int | None) -> None:
    da = reference.recording("structured", least_repeats=least_repeats)
    lazy = da.chunk({"stimulus": 4})
    assert responses.validate(lazy, min_repeats=2) is lazy
    with pytest.raises(ValueError, match="expected at least 9 repeats of some stimulus, got at most 6"):
        responses.validate(lazy, min_repeats=9)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ((3, 2, 4), np.nan, r"got 1 trials with some units missing \(the first: stimulus s3, repeat 2\)"),
        ((3, 2, 4), np.inf, "expected finite responses or NaN, got 1 infinite values"),
        ((3, slice(None), slice(None)), np.nan, r"expected a trial of every stimulus, got none of 1 stimulus \(s3\)"),
        ((slice(None), slice(None), 4), np.nan, r"expected a value for every unit, got only NaN for 1 unit \(4\)"),
    ],
)
def test_bad_chunks_are_refused_as_bad_arrays_are(where: tuple, value: float, message: str) -> None:
    da = reference.recording("structured", least_repeats=None)
    da.values[where] = value
    with pytest.raises(ValueError, match=message):
        statistics.noise_covariance(da.chunk({"stimulus": 4}))


def test_constant_units_are_refused() -> None:
    da = reference.recording("structured")
    da.values[:, :, 2] = np.where(np.isnan(da.values[:, :, 2]), np.nan, 0.1)
    with pytest.raises(ValueError, match=r"got 1 with zero noise variance \(positions \[2\]\)"):
        statistics.noise_correlation(da.chunk({"stimulus": 4}))


def test_workers_of_a_cluster_give_the_same(whole: xr.DataArray) -> None:
    distributed = pytest.importorskip("distributed")
    expected = statistics.noise_correlation(whole)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        result = statistics.noise_correlation(whole.chunk({"stimulus": 4})).compute()
    xr.testing.assert_allclose(result, expected, rtol=1e-12)


def test_a_simulated_recording_that_is_made_chunk_by_chunk() -> None:
    import dask.array as da  # not at the top: old xarray must come first

    values = da.random.default_rng(0).standard_normal((400, 5, 30), chunks=(50, 5, 30), dtype=np.float32)
    lazy = xr.DataArray(values, dims=responses.DIMS, coords={"stimulus": np.arange(400)})
    matrix = statistics.noise_covariance(lazy).values
    assert np.abs(matrix - np.eye(30)).max() < 5 / np.sqrt(1600)
