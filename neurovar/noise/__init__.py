"""Noise structure: where it comes from, estimated at any size, moved from one system onto another, or learned."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
