"""Accuracy of noisy networks under modifications and attacks, and whether the evaluation is to be believed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
