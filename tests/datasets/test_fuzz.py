"""Two thousand spoiled files over all importers (`make fuzz`: twenty thousand), and the fuzz run itself."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from fuzz import mutations, run

N_FILES = 2000
VALID = xr.DataArray(np.ones((1, 2, 1)), dims=("stimulus", "repeat", "unit"), coords={"stimulus": ["a"]})


@pytest.mark.slow
def test_spoiled_files_are_valid_or_refused(tmp_path: Path) -> None:
    outcomes = run.run(N_FILES, seed=1, jobs=2, root=tmp_path)
    assert [outcome.case for outcome in outcomes] == list(range(N_FILES))
    assert {outcome.source for outcome in outcomes} == set(run.SOURCES)
    for source in run.SOURCES:
        refused = sum(outcome.source == source and outcome.result == "refused" for outcome in outcomes)
        assert refused > N_FILES / len(run.SOURCES) / 5, f"{source}: only {refused} refused: is anything spoiled?"
    failures = [outcome for outcome in outcomes if outcome.failed]
    assert not failures, run.summary(failures)


def test_every_importer_is_fuzzed() -> None:
    importers = {path.stem for path in (Path(__file__).parents[2] / "datasets").glob("*.py")}
    of_responses = {name for name in importers if not name.startswith("_")} - {"digits", "fashion_mnist"}
    assert of_responses <= set(run.SOURCES)


@pytest.mark.parametrize(
    ("result", "action"),
    [
        ("valid", lambda path: VALID),
        ("refused", lambda path: _raise(ValueError(f"{path}: bad"))),
        ("unnamed", lambda path: _raise(ValueError("bad, but where?"))),
        ("unnamed", lambda path: VALID.rename(unit="neuron")),
        ("raised", lambda path: _raise(KeyError("spikes"))),
    ],
)
def test_an_importer_is_judged_by_how_it_ends(tmp_path: Path, result: str, action: object) -> None:
    assert run.load(SimpleNamespace(load=action), tmp_path / "spoiled.mat")[0] == result


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("pickle.loads(pickle.dumps(pathlib.Path()))", "pickle.find_class"),
        ("open(inside / 'a', 'w').close()", ""),
        ("open(outside / 'a', 'w').close()", "open"),
        ("os.mkdir(outside / 'b')", "os.mkdir"),
        ("os.symlink('/etc', outside / 'c')", "os.symlink"),
        ("subprocess.run(['true'])", "subprocess.Popen"),
        ("open('/etc/hostname').read()", ""),
    ],
)
def test_forbidden_acts_are_seen(tmp_path: Path, code: str, seen: str) -> None:
    (tmp_path / "inside").mkdir()
    script = (
        "import os, pathlib, pickle, subprocess, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from fuzz.run import Watch\n"
        f"outside = pathlib.Path({str(tmp_path)!r}); inside = outside / 'inside'\n"
        f"watch = Watch(); watch.folder = inside.resolve()\n{code}\nwatch.folder = None\nprint(watch.seen)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (seen in done.stdout) if seen else done.stdout == "[]\n"


def test_the_same_seed_spoils_alike() -> None:
    data, content = bytes(range(256)), {"a": np.arange(6.0).reshape(2, 3), "b": {"c": np.arange(3)}}
    twice = [mutations.spoil_bytes(data, np.random.default_rng(5)) for _ in range(2)]
    assert twice[0] == twice[1] != data
    spoiled = [mutations.spoil_content(content, np.random.default_rng(5)) for _ in range(2)]
    assert repr(spoiled[0]) == repr(spoiled[1]) != repr(content)
    assert content["a"].shape == (2, 3)
