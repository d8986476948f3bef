"""Residuals of `semedo2019_v1v2` are those of each trial and bin, and are never taken for counts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fixtures import semedo2019_v1v2 as fixture
from neurovar_datasets import CorruptDataError, semedo2019_v1v2

from neurovar import responses, statistics


@pytest.fixture
def content() -> dict:
    return fixture.content(np.random.default_rng(0))


@pytest.fixture
def small(tmp_path: Path, content: dict, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file in the place of the declared one."""
    (file,) = semedo2019_v1v2.SOURCE.sessions["sample_data"]
    sessions = {"sample_data": (replace(file, hash="", size=None),)}
    monkeypatch.setattr(semedo2019_v1v2, "SOURCE", replace(semedo2019_v1v2.SOURCE, sessions=sessions))
    return fixture.write(tmp_path, content)


def test_bins_change_faster_than_trials(small: Path, content: dict) -> None:
    da = semedo2019_v1v2.load(path=small, bin_width=0.1)
    assert responses.validate(da, time=True).shape == (1, 4, 7, 10)
    fields = [("X", 0), ("X", 1), ("X", 2), ("Y_V1", 0), ("Y_V1", 1), ("Y_V2", 0), ("Y_V2", 1)]
    for trial, time in np.ndindex(4, 10):
        for unit, (name, column) in enumerate(fields):
            assert da.values[0, trial, unit, time] == content[name][10 * trial + time, column]
    np.testing.assert_allclose(da.time, 0.16 + 0.1 * np.arange(10), atol=1e-12)


def test_by_default_a_trial_is_summed(small: Path, content: dict) -> None:
    da = semedo2019_v1v2.load(path=small)
    assert responses.validate(da).shape == (1, 4, 7)
    for trial in range(4):
        expected = sum(content["X"][10 * trial + time] for time in range(10))
        np.testing.assert_allclose(da.values[0, trial, :3], expected, atol=1e-12)
    assert da.attrs["window"] == "0.16 to 1.16 s"
    assert "bin_width" not in da.attrs


def test_a_window_and_wider_bins(small: Path, content: dict) -> None:
    da = semedo2019_v1v2.load(path=small, window=(0.36, 0.76), bin_width=0.2)
    assert da.time.values.tolist() == [0.36, 0.56]
    np.testing.assert_allclose(da.values[0, 1, :3, 0], content["X"][12] + content["X"][13], atol=1e-12)


def test_units_have_their_labels(small: Path) -> None:
    da = semedo2019_v1v2.load(path=small)
    assert da.population.values.tolist() == ["V1 source"] * 3 + ["V1 target"] * 2 + ["V2"] * 2
    assert da.area.values.tolist() == ["V1"] * 5 + ["V2"] * 2
    assert set(da.session.values) == {"sample_data"}
    assert set(da.subject.values) == {"not published"}


def test_residuals_have_no_fano_factor(small: Path) -> None:
    da = semedo2019_v1v2.load(path=small)
    assert da.attrs["units"] == "spike count residual"
    with pytest.raises(ValueError, match=r"got residuals .*mean over the trials was subtracted"):
        statistics.fano_factor(da)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session": "105l001p16"}, "expected the session to be one of 'sample_data', got '105l001p16'"),
        ({"window": (0.0, 0.2)}, "expected a window with whole bins, got"),
        ({"bin_width": 0.3}, "got 0.3 s"),
    ],
)
def test_unknown_options_are_refused(small: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        semedo2019_v1v2.load(path=small, **options)


def with_nan(table: np.ndarray) -> np.ndarray:
    table[3, 1] = np.nan
    return table


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("X", lambda a: a[:-1], r"X, Y_V1, Y_V2: expected units, and the same number of rows, .*\(39, 3\), \(40, 2\)"),
        ("X", lambda a: a[:, :0], r"X, Y_V1, Y_V2: expected units, .*got \[\(40, 0\), \(40, 2\), \(40, 2\)\]"),
        ("Y_V2", lambda a: a.reshape(10, 2, 4), "Y_V2: expected 2 dims, got shape"),
        ("Y_V1", lambda a: a.astype(complex) * 1j, "Y_V1: expected real numbers, got dtype complex128"),
        ("Y_V1", lambda a: a + 0.5, "X, Y_V1, Y_V2: expected a mean of 0 over trials in each bin, got up to 0.5"),
        ("X", with_nan, "X, Y_V1, Y_V2: expected a mean of 0 over trials in each bin, got up to nan"),
        (
            "X",
            lambda a: a.reshape(4, 10, 3).transpose(1, 0, 2).reshape(40, 3),
            "expected a mean of 0 over trials in each bin",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, content: dict, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    content[name] = change(content[name])
    with pytest.raises(CorruptDataError, match=f"sample_data.mat: .*{message}"):
        fixture.load(fixture.write(tmp_path, content))


def test_a_missing_population_is_named(tmp_path: Path, content: dict) -> None:
    del content["Y_V1"]
    with pytest.raises(CorruptDataError, match=r"sample_data.mat: Y_V1: expected a variable of this name"):
        fixture.load(fixture.write(tmp_path, content))


def test_the_declared_file_is_checked(tmp_path: Path, content: dict) -> None:
    with pytest.raises(CorruptDataError, match=r"sample_data.mat: expected 748925 bytes with hash sha256:37cd0329"):
        semedo2019_v1v2.load(path=fixture.write(tmp_path, content))


def test_the_one_session_is_declared() -> None:
    assert semedo2019_v1v2.sessions() == ("sample_data",)


# The real recording


@pytest.fixture(scope="module")
def real() -> xr.DataArray:
    return semedo2019_v1v2.load()


@pytest.mark.data
def test_the_real_statistics(real: xr.DataArray) -> None:
    assert {name: int((real.population == name).sum()) for name in ("V1 source", "V1 target", "V2")} == {
        "V1 source": 79,
        "V1 target": 31,
        "V2": 31,
    }
    source = real.isel(unit=real.population.values == "V1 source")
    assert source.shape == (1, 400, 79)
    r_sc = statistics.noise_correlation(source, zscore=True).values[np.triu_indices(79, k=1)]
    assert round(float(r_sc.mean()), 3) == 0.212
    assert round(statistics.effective_dimensionality(source), 1) == 9.1
    with pytest.raises(ValueError, match="got residuals"):
        statistics.fano_factor(source)


@pytest.mark.data
def test_the_real_bins_follow_one_another() -> None:
    values = semedo2019_v1v2.load(bin_width=0.1).values[0]
    between_trials = values - values[:1]
    np.testing.assert_allclose(between_trials, between_trials.round(), atol=1e-9)
    next_bin = [np.corrcoef(unit[:, :-1].ravel(), unit[:, 1:].ravel())[0, 1] for unit in values.transpose(1, 0, 2)]
    next_trial = [np.corrcoef(unit[:-1].ravel(), unit[1:].ravel())[0, 1] for unit in values.transpose(1, 0, 2)]
    assert np.mean(next_bin) > 0.1 > 5 * abs(np.mean(next_trial))
