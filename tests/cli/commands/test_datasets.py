"""`neurovar datasets`, through the command as a user runs it."""

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import neurovar_datasets
import numpy as np
import pytest
import xarray as xr
from neurovar_datasets import Source, cowley2023_v4, digits
from neurovar_datasets._fetching.source import File
from PIL import Image

from neurovar import responses, statistics
from neurovar.cli import app as cli
from neurovar.cli.commands import _holdings as holdings
from neurovar.cli.commands import _recordings as opening

SIZES = {"monday": 1000, "tuesday": 2000, "friday": 3000}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `neurovar datasets …`; gives the exit status, the output and the errors."""
    monkeypatch.setenv("COLUMNS", "100")

    def start(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neurovar", "datasets", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return start


@pytest.fixture
def recording() -> xr.DataArray:
    da = statistics.population(n_stimuli=12, n_repeats=6, n_units=6, counts=True, rng=0)
    labels = {"area": ("unit", ["V1", "V2"] * 3), "subject": ("unit", ["a"] * 6), "session": ("unit", ["s"] * 6)}
    attrs = {"units": "spike count", "source": "toy", "license": "MIT", "window": "100 ms", "citation": "Toy (2026)"}
    return da.assign_coords(labels).assign_attrs(attrs)


@pytest.fixture(autouse=True)
def served(tmp_path: Path, recording: xr.DataArray, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Three sources (one is `toy`, whose files a server on this machine has) and an empty cache; or the real data."""
    if request.node.get_closest_marker("data"):
        yield tmp_path
        return

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    request.getfixturevalue("cache")
    patch = request.getfixturevalue("monkeypatch")
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        toy = toy_module(f"http://127.0.0.1:{server.server_port}", folder, recording)
        patch.setattr(neurovar_datasets, "toy", toy, raising=False)
        known = {"toy": toy.SOURCE, "digits": digits.SOURCE, "cowley2023_v4": cowley2023_v4.SOURCE}
        patch.setattr(neurovar_datasets, "sources", lambda: known)
        yield folder
        server.shutdown()


def toy_module(address: str, folder: Path, recording: xr.DataArray) -> ModuleType:
    def file(name: str, size: int) -> File:
        content = name.encode() * size
        (folder / name).write_bytes(content[:size])
        return File(f"toy/{name}", f"{address}/{name}", f"sha256:{hashlib.sha256(content[:size]).hexdigest()}", size)

    toy = ModuleType("toy")
    toy.SOURCE = Source(  # type: ignore[attr-defined]
        name="toy", title="A toy [red]source[/]", doi="10.1/toy", citation="Toy (2026).", license="CC-BY-4.0",
        license_url="https://example.org/license", redistribution=True, derivatives=None, units="spike count",
        area="V1", species="mouse", method="silicon probes", n_units="6", n_stimuli="12", n_repeats="6",
        sessions={name: (file(name, size),) for name, size in SIZES.items()}
        | {"sunday": (File("toy/sunday.mat", "https://example.org/page", by_hand="ask the authors"),)},
    )  # fmt: skip
    toy.sessions = lambda: tuple(toy.SOURCE.sessions)  # type: ignore[attr-defined]

    def load(*, session: str, window: tuple[float, float]) -> xr.DataArray:
        return recording.assign_attrs(window=f"{window[0]:g} to {window[1]:g} s in {session}")

    toy.load = load  # type: ignore[attr-defined]
    return toy


def row(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line


# list, info


def test_list_has_a_row_for_every_source(run: Run) -> None:
    status, out, _ = run("list")
    assert status == 0
    first, second = row(out, "name"), row(out, "licence")
    assert first.split() == ["name", "area", "size"]
    assert second.split() == ["licence", "species", "method", "units", "stimuli", "repeats", "here"]
    assert re.search(r"toy +V1 +silicon probes +6 +12 +6 +over 6.0 kB *\n +CC-BY-4.0 +mouse +no", out)
    assert re.search(r"digits +– +– +– +1,797 +– +none *\n +CC-BY-4.0 +– +built in", out)
    columns = [first.index(name) for name in ("area", "size")] + [second.index("method")]
    assert [row(out, "toy")[at:].split()[0] for at in columns] == ["V1", "over", "silicon"]


def test_list_is_readable_at_100_columns_without_colours(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    _, out, _ = run("list")
    assert max(map(len, out.splitlines())) <= 100
    assert "\x1b" not in out


def test_the_width_may_be_chosen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    _, out, _ = run("list")
    assert 60 < max(map(len, out.splitlines())) <= 70


def test_list_and_info_say_what_is_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n_here, name in enumerate(SIZES, start=1):
        path = tmp_path / "data" / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        monkeypatch.setenv("NEUROVAR_DATA", str(tmp_path / "data"))
        assert re.search(rf"toy .*\n.* mouse +{n_here} of 4 *\n", run("list")[1])
    (tmp_path / "data" / "toy" / "sunday.mat").write_bytes(b"")
    assert re.search(r"toy .*\n.* mouse +all *\n", run("list")[1])
    assert str(tmp_path / "data" / "toy") in run("info", "toy")[1].replace("\n", "").replace(" ", "")


def test_info_has_everything_of_the_descriptor(run: Run) -> None:
    status, out, _ = run("info", "toy")
    assert status == 0
    expected = {
        "title": "A toy [red]source[/]", "doi": "https://doi.org/10.1/toy", "citation": "Toy (2026).",
        "licence": "CC-BY-4.0 (https://example.org/license)", "redistribution": "allowed", "sessions": "4",
        "changed versions": "not stated", "measured in": "spike count", "size": "over 6.0 kB", "here": "no",
    }  # fmt: skip
    for name, value in expected.items():
        assert re.fullmatch(rf"{name} +{re.escape(value)} *", row(out.split(" session ")[0], name))
    assert re.search(r"monday +monday +1\.0 kB +no", out)
    assert re.search(r"sunday +sunday\.mat +unknown +by hand", out)


def test_addresses_are_never_cut(run: Run) -> None:
    _, out, _ = run("info", "cowley2023_v4")
    assert cowley2023_v4.SOURCE.license_url in re.sub(r"\s+", "", out)


def test_unknown_sources_list_the_known(run: Run) -> None:
    status, out, err = run("info", "v4")
    assert (status, out) == (2, "")
    assert err.startswith(
        "neurovar: error: expected the source to be one of 'toy', 'digits', 'cowley2023_v4', got 'v4'"
    )


# fetch


def test_fetch_downloads_the_sessions_named_and_checks_them(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("fetch", "toy", "--session", "monday", "--session", "friday")
    assert status == 0
    assert "files: 2; size: 4.0 kB; to fetch: 4.0 kB" in out
    assert "licence CC-BY-4.0 (https://example.org/license); cite Toy (2026)." in out
    folder = tmp_path / "cache" / "neurovar" / "toy"
    assert {name: (folder / name).stat().st_size for name in ("monday", "friday")} == {"monday": 1000, "friday": 3000}
    assert f"fetched, checked: {folder / 'friday'}" in out
    _, again, _ = run("fetch", "toy", "--session", "monday")
    assert "files: 1; size: 1.0 kB; to fetch: none" in again
    assert f"here, checked: {folder / 'monday'}" in again


def test_fetch_gets_all_that_it_can_and_says_what_is_to_be_done_by_hand(run: Run, tmp_path: Path) -> None:
    status, out, err = run("fetch", "toy")
    assert status == 2
    assert "files: 4; size: over 6.0 kB; to fetch: over 6.0 kB" in out
    assert len([path for path in (tmp_path / "cache").rglob("*day") if path.is_file()]) == 3
    assert "expected 1 more files, which have no direct address" in err
    assert "ask the authors (https://example.org/page)\n  toy/sunday.mat\nThen set NEUROVAR_DATA" in err


def test_fetch_refuses_what_the_disk_has_no_room_for(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings.shutil, "disk_usage", lambda _: Disk)
    status, _, err = run("fetch", "toy")
    assert status == 2
    assert re.search(r"expected 6\.0 kB and 67\.1 MB to spare on the disk of .*, it has 5\.0 kB: fetch fewer", err)
    assert not (tmp_path / "cache").exists()


class Disk:
    free = 5000


def test_fetch_refuses_a_download_of_another_content(run: Run, served: Path) -> None:
    (served / "monday").write_bytes(b"x" * 1000)
    status, _, err = run("fetch", "toy", "--session", "monday")
    assert status == 2
    assert "expected 1000 bytes with hash sha256:" in err


def test_fetch_of_unknown_sessions_and_of_what_needs_no_file(run: Run) -> None:
    status, _, err = run("fetch", "toy", "--session", "sonday")
    assert (status, "expected the session to be one of 'monday'" in err) == (2, True)
    assert run("fetch", "digits")[:2] == (0, "digits is built in: there is nothing to fetch\n")


# opening


@pytest.fixture
def store(tmp_path: Path, recording: xr.DataArray) -> Path:
    responses.save(recording, tmp_path / "mine.zarr")
    return tmp_path / "mine.zarr"


def test_a_zarr_store_opens_as_it_was(store: Path, recording: xr.DataArray) -> None:
    assert opening.open_path(store).compute().identical(recording)


def test_time_is_summed_over_the_window(tmp_path: Path, recording: xr.DataArray) -> None:
    binned = xr.DataArray(
        np.stack([recording.values, 2 * recording.values, 4 * recording.values], axis=-1),
        dims=("stimulus", "repeat", "unit", "time"),
        coords={"stimulus": recording["stimulus"].values, "time": [0.0, 0.1, 0.2]},
        attrs={"units": "spike count", "bin_width": 0.1},
    )
    responses.save(binned, tmp_path / "binned.zarr")
    opened = opening.open_path(tmp_path / "binned.zarr", window=(0.1, 0.3))
    np.testing.assert_array_equal(opened.values, 6 * recording.values)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("toy", {}, r"expected --session with one of the 4 sessions \(monday, tuesday, friday, sunday\), got none"),
        ("toy", {"session": "x", "window": (0, 1)}, "expected --session with one of the 4 sessions .* got 'x'"),
        ("toy", {"session": "monday"}, "expected a window for toy, in s from stimulus onset, such as --window 0.05"),
        ("cowley2023_v4", {"session": "210325", "window": (0, 1)}, "expected no window for cowley2023_v4"),
        ("digits", {}, "expected a recording, got digits, which has images and no responses"),
        ("absent.zarr", {}, r"expected a path, or the name of a source \(toy, .*\), got 'absent.zarr'"),
        ("absent.zarr", {"session": "x"}, "expected a session of a public source only, got session 'x'"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said(what: str, options: dict, message: str) -> None:
    with pytest.raises(opening.UsageError, match=message):
        opening.open_recording(what, **options)


def declare(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "counts.npy", values)
    lines = 'file = "counts.npy"\nunits = "spike count"\ndims = ["stimulus", "repeat", "unit"]\narea = "V4"'
    (folder / "mine.toml").write_text(lines)
    return folder / "mine.toml"


def test_a_declared_file_opens(tmp_path: Path, recording: xr.DataArray) -> None:
    for as_it_is in (False, True):
        opened = opening.open_path(declare(tmp_path, recording.values), as_it_is=as_it_is)
        np.testing.assert_array_equal(opened.values, recording.values)
        assert set(opened["area"].values) == {"V4"}
        assert bool(opened.chunks) == as_it_is


def test_a_brainio_assembly_opens(tmp_path: Path, recording: xr.DataArray) -> None:
    neurovar_datasets.brainio.save(recording, tmp_path / "assy_mine.nc")
    opened = opening.open_path(tmp_path / "assy_mine.nc")
    assert opened.sizes == recording.sizes
    np.testing.assert_array_equal(opened.values, recording.values)


@pytest.mark.parametrize("suffix", opening.DECLARATIONS)
def test_a_file_alone_shows_a_declaration_that_can_be_used(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"counts{suffix}").write_bytes(b"")
    with pytest.raises(opening.UsageError, match=rf"counts{suffix}: expected a .zarr, .toml or .nc file; say") as said:
        opening.open_path(tmp_path / f"counts{suffix}")
    (tmp_path / "recording.toml").write_text(str(said.value).partition("open that:\n")[2])
    declared = neurovar_datasets.arrays.declare(tmp_path / "recording.toml")
    assert (declared.path, declared.units) == (tmp_path / f"counts{suffix}", "spike count")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(opening.UsageError, match=r"notes.txt: expected a .zarr, .toml or .nc file$"):
        opening.open_path(tmp_path / "notes.txt")


def test_a_source_is_loaded_with_its_session_and_window(recording: xr.DataArray) -> None:
    opened = opening.open_recording("toy", session="friday", window=(0.05, 0.25))
    assert opened.attrs["window"] == "0.05 to 0.25 s in friday"


def test_the_only_session_need_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurovar_datasets.toy, "sessions", lambda: ("only",))
    assert opening.open_recording("toy", window=(0, 1)).attrs["window"] == "0 to 1 s in only"


# check


def test_check_says_all_that_is_wrong_most_important_first(run: Run, tmp_path: Path, recording: xr.DataArray) -> None:
    values = recording.values.astype(float)
    values[0, 0, 0], values[1, 0, 0], values[:, :, 5] = -1, np.inf, 0
    responses.save(recording.copy(data=values).drop_vars("area"), tmp_path / "bad.zarr")
    status, out, err = run("check", tmp_path / "bad.zarr")
    assert (status, err) == (1, "")
    assert "bad.zarr: 12 stimulus × 6 repeat × 6 unit, spike count" in out
    severities = [line.split()[0] for line in out.splitlines() if re.match("(error|warning|note) ", line)]
    assert severities == ["error", "error", "warning", "warning"]
    assert "errors: 2, warnings and notes: 2" in out
    assert out.index("infinite") < out.index("negative") < out.index("never respond: 5") < out.index("no area")
    assert "→ find where they come from" in out


def test_check_of_a_declared_file_finds_all_that_is_wrong(run: Run, tmp_path: Path, recording: xr.DataArray) -> None:
    values = recording.values.astype(float)
    values[0, 0, 0], values[1, 0, 0], values[2, 0, 0] = -1, np.inf, 0.5
    status, out, _ = run("check", declare(tmp_path, values))
    assert status == 1
    assert out.index("infinite") < out.index("negative") < out.index("fractional") < out.index("subject")


def test_check_of_a_good_recording(run: Run, store: Path) -> None:
    status, out, _ = run("check", store)
    assert status == 0
    assert "errors: 0, warnings and notes: 0" in out


def test_check_of_a_broken_file_is_an_error_of_the_file(run: Run, store: Path) -> None:
    (store / "responses" / "0.0.0").write_bytes(b"broken")
    status, out, _ = run("check", store)
    assert status == 1
    assert re.search(r"^error +.*mine\.zarr", out, flags=re.MULTILINE)


def test_check_of_what_is_not_there_is_no_error_of_a_file(run: Run, tmp_path: Path) -> None:
    status, out, err = run("check", tmp_path / "absent.zarr")
    assert (status, out) == (2, "")
    assert "neurovar: error: expected a path, or the name of a source" in err


def test_hostile_text_cannot_rewrite_the_terminal(run: Run, tmp_path: Path, recording: xr.DataArray) -> None:
    hostile = recording.assign_attrs(units="\x1b[2Jspikes").assign_coords(residuals="[bold]\x1b]0;title\x07")
    responses.save(hostile, tmp_path / "hostile.zarr")
    _, out, _ = run("check", tmp_path / "hostile.zarr")
    assert "\x1b" not in out and "\x07" not in out
    assert "[bold]" in out
    _, _, err = run("check", "\x1b[2J")
    assert "\x1b" not in err


# convert, describe


def test_convert_keeps_everything(run: Run, store: Path, tmp_path: Path, recording: xr.DataArray) -> None:
    status, out, _ = run("convert", store, tmp_path / "copy.zarr")
    assert status == 0
    assert responses.open_zarr(tmp_path / "copy.zarr").compute().identical(recording)
    size = sum(path.stat().st_size for path in (tmp_path / "copy.zarr").rglob("*") if path.is_file())
    shown = re.search(r"12 stimulus × 6 repeat × 6 unit, \w+, (.*) as (.*) (k?B) on disk", out)
    assert shown is not None
    assert float(shown[2]) * (1000 if shown[3] == "kB" else 1) == pytest.approx(size, rel=0.01)


def test_convert_overwrites_nothing_and_wants_a_name_that_can_be_opened(run: Run, store: Path, tmp_path: Path) -> None:
    status, _, err = run("convert", store, store)
    assert (status, "expected a path where nothing is yet" in err) == (2, True)
    status, _, err = run("convert", store, tmp_path / "copy.nc")
    assert (status, "expected an output that ends in .zarr" in err) == (2, True)


def test_convert_of_a_source(run: Run, tmp_path: Path) -> None:
    status, _, _ = run("convert", "toy", tmp_path / "toy.zarr", "--session", "monday", "--window", -0.1, 0.2)
    assert status == 0
    assert responses.open_zarr(tmp_path / "toy.zarr").attrs["window"] == "-0.1 to 0.2 s in monday"


def test_describe_prints_the_statistics_and_writes_them(run: Run, store: Path, tmp_path: Path) -> None:
    status, out, _ = run("describe", store, "--output", tmp_path / "results" / "here")
    assert status == 0
    for line in ("units +6 of 6", "dropped +none", "stimuli +12", "repeats +6", "trials +72", "cite +Toy"):
        assert re.search(f"^{line}", out, flags=re.MULTILINE)
    assert re.search(r"^source +toy", out, flags=re.MULTILINE) and re.search("^licence +MIT", out, flags=re.MULTILINE)
    results = xr.load_dataset(tmp_path / "results" / "here" / "mine.nc", engine="h5netcdf")
    mean, sd = results["noise_correlation"].values.mean(), results["noise_correlation"].values.std(ddof=1)
    assert re.search(rf"noise correlation +all +{mean:.3f} +{sd:.3f} +15 pairs", out)
    with Image.open(tmp_path / "results" / "here" / "mine.png") as picture:
        assert picture.size == (700, 680)


def test_describe_tells_areas_apart(run: Run, store: Path, tmp_path: Path, recording: xr.DataArray) -> None:
    _, out, _ = run("describe", store, "--output", tmp_path)
    part = recording.isel(unit=[1, 3, 5])
    fano = (part.var("repeat", ddof=1) / part.mean("repeat")).where(part.mean("repeat") > 0).mean("stimulus").values
    assert re.search(rf"Fano factor +V2 +{fano.mean():.3f} +{fano.std(ddof=1):.3f} +3 units", out)
    group = xr.load_dataset(tmp_path / "mine.nc", engine="h5netcdf", group="area_2")
    assert group.attrs["area"] == "V2"
    np.testing.assert_allclose(group["fano_factor"], fano)


def test_describe_says_why_a_statistic_is_not_there(
    run: Run, tmp_path: Path, recording: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    odd = responses.mark(recording.drop_vars("area"), residuals="the mean was subtracted")
    responses.save(odd, tmp_path / "odd.zarr")
    _, out, _ = run("describe", tmp_path / "odd.zarr", "--output", tmp_path)
    assert re.search(r"Fano factor +all +n/a +expected counts, .*\(the mean was subtracted\)", out)


def test_describe_names_its_files_by_session(run: Run, tmp_path: Path) -> None:
    run("describe", "toy", "--session", "monday", "--window", 0, 1, "--output", tmp_path)
    of_statistics = {f"toy_monday_statistics{end}" for end in (".png", "_matrices.png", ".nc")}
    assert {path.name for path in tmp_path.glob("toy*.*")} == {"toy_monday.png", "toy_monday.nc"} | of_statistics


def test_bad_recordings_leave_nothing(run: Run, tmp_path: Path) -> None:
    status, _, err = run("describe", tmp_path / "absent.zarr", "--output", tmp_path / "results")
    assert (status, "expected a path" in err) == (2, True)
    assert not (tmp_path / "results").exists()


@pytest.mark.data
def test_describe_of_the_real_recording(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("describe", "cowley2023_v4", "--session", "210325", "--output", tmp_path)
    assert status == 0
    for line in (
        "units +50 of 50", "stimuli +640", "repeats +6 to 10", "trials +4840", "licence +GPL-3.0",
        " noise correlation +all +0.030 +0.035 +1225 pairs", " Fano factor +all +0.887 .*50 units",
        r" effective dimensionality of the noise +all +29\.18",
    ):  # fmt: skip
        assert re.search(f"^{line}", out, flags=re.MULTILINE)


@pytest.mark.data
def test_check_of_the_real_recording(run: Run) -> None:
    status, out, _ = run("check", "cowley2023_v4", "--session", "210325")
    assert status == 0
    assert "33 and 49 (noise correlation 0.35)" in out


def test_help_names_every_command(run: Run) -> None:
    _, out, _ = run("--help")
    assert all(re.search(rf"│ {name} ", out) for name in ("list", "info", "fetch", "check", "convert", "describe"))


def test_asking_for_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = ['neurovar', 'datasets', '--help']\nfrom neurovar.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.rpartition("LOADED")[2].split()}
    assert not loaded & {"torch", "matplotlib", "xarray", "numpy", "pandas", "scipy", "neurovar_datasets"}
