"""Responses: labelled arrays of stimulus × repeat × unit, and the ways into and out of them.

The convention, spike times, tables of presentations, and storage in Zarr.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
