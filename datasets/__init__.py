"""Recordings and images: one module a source, each with a descriptor and `load()`.

Files are found in this order: the path given, the folder `NEUROVAR_DATA`, system folders, the cache, a download. Their
SHA-256 is checked wherever they are found. Which names there are stands in `__init__.pyi`; each loads when it is first
touched.
"""

import lazy_loader

if __name__ == "datasets":
    raise ImportError("this folder is imported as 'neurovar_datasets' (pip install -e .), never as 'datasets'")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
