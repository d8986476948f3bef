"""What every source of recordings or images keeps to."""

import importlib
import inspect
from pathlib import Path

import neurovar_datasets
import pytest
from neurovar_datasets import CorruptDataError, Source, find

SOURCES = neurovar_datasets.sources()
FIXED_WINDOW = {"brainio", "cadena2019_v1", "cowley2023_v4"}
"""Sources of spike counts that are published for one window."""


def module(name: str) -> object:
    return importlib.import_module(f"neurovar_datasets.{name}")


def test_every_module_is_listed() -> None:
    files = {path.stem for path in Path(neurovar_datasets.__file__).parent.glob("[!_]*.py")}
    assert files <= set(neurovar_datasets.__all__) and set(SOURCES) == files - {"arrays"}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_says_where_it_is_from_and_under_which_licence(name: str) -> None:
    source = SOURCES[name]
    assert isinstance(source, Source) and source.name.startswith(name)
    assert source.doi.startswith("10.") and source.license and source.license_url.startswith(("https://", "http://"))
    assert any(str(year) in source.citation for year in range(1990, 2027)) and source.title and source.units
    assert {"citation", "doi", "license", "license_url", "units"} <= set(source.attrs())


@pytest.mark.parametrize("name", SOURCES)
def test_sessions_are_those_of_the_source(name: str) -> None:
    assert module(name).sessions() == tuple(SOURCES[name].sessions) or name == "digits"


@pytest.mark.parametrize("name", SOURCES)
def test_counted_spikes_have_a_window(name: str) -> None:
    parameters = inspect.signature(module(name).load).parameters
    assert len(parameters) <= 10
    if SOURCES[name].units == "spike count" and name not in FIXED_WINDOW:
        assert {"window", "bin_width"} <= set(parameters)


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.sessions])
def test_a_file_with_a_wrong_hash_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    files = [file for files in SOURCES[name].sessions.values() for file in files]
    assert all(file.hash or file.by_hand or name == "sensorium2022" for file in files)
    for file in [file for file in files if file.hash][:1]:
        (tmp_path / file.name).write_bytes(b"something else")
        with pytest.raises(CorruptDataError, match=f"{file.name}: expected "):
            find(file, path=tmp_path)
