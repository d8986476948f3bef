"""neurovar: trial-to-trial variability in cortex and in artificial networks.

Groups and the most used names load when they are first touched, so that importing the package stays fast. Which names
there are, and where they are defined, stands in `__init__.pyi`.
"""

import lazy_loader

__version__ = "0.6.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
