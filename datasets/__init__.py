"""Recordings and images: one module a source, each with a descriptor and `load()`.

Files are found in this order: the path given, the folder `NEUROVAR_DATA`, system folders, the cache, a download. Their
SHA-256 is checked wherever they are found.
"""

from importlib import import_module
from types import ModuleType

if __name__ == "datasets":
    raise ImportError("this folder is imported as 'neurovar_datasets' (pip install -e .), never as 'datasets'")

from ._files import CorruptDataError, DataUnavailableError

_MODULES = ("cowley2023_v4", "digits", "fashion_mnist")

__all__ = ["CorruptDataError", "DataUnavailableError", *_MODULES]


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
