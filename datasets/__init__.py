"""Recordings and images: one module a source, each with a descriptor and `load()`.

Files are found in this order: the path given, the folder `NEUROVAR_DATA`, system folders, the cache, a download. Their
SHA-256 is checked wherever they are found.
"""

from importlib import import_module
from types import ModuleType

if __name__ == "datasets":
    raise ImportError("this folder is imported as 'neurovar_datasets' (pip install -e .), never as 'datasets'")

from neurovar_datasets._fetching.source import CorruptDataError, DataUnavailableError, Source

_MODULES = (
    "allen_visual_coding",
    "arrays",
    "brainio",
    "cadena2019_v1",
    "cowley2023_v4",
    "digits",
    "ecker2010_v1",
    "fashion_mnist",
    "gokcen2023_v1v2",
    "kohn_pvc11",
    "semedo2019_v1v2",
    "sensorium2022",
    "stringer2019_v1",
)

__all__ = ["CorruptDataError", "DataUnavailableError", "Source", "sources", *_MODULES]


def sources() -> dict[str, Source]:
    """Every public source by the name of its module; `arrays` is none, it reads a user's own files."""
    return {name: import_module(f"{__name__}.{name}").SOURCE for name in _MODULES if name != "arrays"}


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
