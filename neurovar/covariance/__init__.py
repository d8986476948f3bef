"""Covariance matrices as torch operators, which sample without being written out.

A noise structure is a `Covariance`; `{layer: Covariance}` is a network's noise.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
