"""`neurovar describe` and `neurovar compare`, as a user runs them."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from neurovar import responses, statistics
from neurovar.cli import app as cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `neurovar …`; gives the exit status, the output and the errors."""
    monkeypatch.setenv("COLUMNS", "140")

    def start(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neurovar", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return start


def recording(n_units: int, seed: int) -> xr.DataArray:
    da = statistics.population(n_stimuli=40, n_repeats=6, n_units=n_units, counts=True, rng=seed)
    return da.assign_coords(area=("unit", ["V1", "V2"] * (n_units // 2)))


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """A recording of 12 units, of which one never varies, and one of 8."""
    first = recording(12, 0)
    first.values[..., 3] = 2.0
    paths = tmp_path / "monday.zarr", tmp_path / "tuesday.zarr"
    for path, da in zip(paths, (first, recording(8, 1))):
        responses.save(da, path)
    return paths


def test_compare_prints_what_the_function_gives(run: Run, stores: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    status, out, _ = run("compare", f"V1={stores[0]}", stores[1], "--ranks", 1, 4, "--resamples", 4, "--output", output)
    assert status == 0
    table = xr.load_dataset(output / "comparison.nc", engine="h5netcdf")
    assert table["system"].values.tolist() == ["V1", "tuesday"]
    assert table["n_units"].values.tolist() == [8, 8]
    systems = {"V1": responses.open_zarr(stores[0]).compute(), "tuesday": responses.open_zarr(stores[1]).compute()}
    systems["V1"] = systems["V1"].isel(unit=np.delete(np.arange(12), 3))
    expected = statistics.compare(systems, statistics=["noise_correlation"], n_resamples=4, rng=0)
    for field in ("estimate", "low", "high"):
        found = table[field].sel(statistic="noise_correlation")
        np.testing.assert_allclose(found, expected[field].sel(statistic="noise_correlation"))
    shown = re.search(r"noise correlation \(mean over pairs\) +(\S+) \[", out)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(float(expected["estimate"][0, 0]), rel=0.01)
    assert "exponent of the signal's spectrum (cvPCA)" in out
    assert all(Image.open(output / f"comparison{end}.png").width > 600 for end in ("", "_matrices"))


def test_compare_splits_by_area_and_needs_no_ranks(run: Run, stores: tuple[Path, Path], tmp_path: Path) -> None:
    _, out, _ = run("compare", stores[1], "--by", "area", "--match", "none", "--resamples", 2, "--output", tmp_path)
    assert "tuesday V1" in out
    assert "tuesday V2" in out
    assert re.search(r"units +4 +4", out)
    assert "exponent of the signal" not in out  # as there are no ranks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.zarr"], "expected a path, or the name of a source"),
        (["{0}", "{0}"], "expected a name for each system, such as V4=…, got 'monday' twice"),
        (["{0}", "--by", "layer"], r"expected --by with a coordinate of monday's units \(area\), got 'layer'"),
        (["{0}", "--match", "neurons"], "expected over= some of unit, stimulus, repeat, rate, got"),
        (["{0}", "--resamples", "1"], "expected at least 2 resamples, got 1"),
        (["{0}", "--ranks", "1", "400"], "n/a: exponent, noise exponent of monday: expected a window"),
    ],
)
def test_what_cannot_be_compared(
    run: Run, stores: tuple[Path, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [argument.format(*stores) for argument in arguments]
    resamples = [] if "--resamples" in given else ["--resamples", "2"]
    _, out, err = run("compare", *given, *resamples, "--output", tmp_path / "out")
    assert re.search(message, " ".join((out + err).split()))


def test_describe_gives_intervals_for_all_units_and_for_areas(
    run: Run, stores: tuple[Path, Path], tmp_path: Path
) -> None:
    status, out, _ = run("describe", stores[0], "--ranks", 1, 4, "--output", tmp_path / "out")
    assert status == 0
    assert re.search(r"statistic +all +V1 +V2", out)
    assert re.search(r"units +11 +6 +5", out)
    table = xr.load_dataset(tmp_path / "out" / "monday_statistics.nc", engine="h5netcdf")
    one = table.sel(system="all", statistic="fano_factor")
    assert float(one["low"]) < float(one["estimate"]) < float(one["high"])
    assert Image.open(tmp_path / "out" / "monday_statistics.png").width > 600


def test_describe_of_a_recording_without_repeats_says_why_there_are_no_intervals(run: Run, tmp_path: Path) -> None:
    responses.save(recording(8, 1)[:, :1], tmp_path / "once.zarr")
    status, out, _ = run("describe", tmp_path / "once.zarr", "--output", tmp_path / "out")
    assert status == 0
    assert "no intervals: expected at least 2 repeats of some stimulus, got at most 1" in out


def test_no_more_than_200_units_are_described_with_intervals(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurovar.cli.commands import _compare as comparing

    monkeypatch.setattr(comparing, "MOST_UNITS", 5)
    responses.save(recording(8, 1), tmp_path / "large.zarr")
    _, out, _ = run("describe", tmp_path / "large.zarr", "--output", tmp_path / "out")
    assert "5 of 8 at random" in out
