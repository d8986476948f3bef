"""Draw result Datasets on given matplotlib Axes: one style, readable at column width, and no statistics.

Colours are those of Okabe & Ito (2008, "Color Universal Design", https://jfly.uni-koeln.de/color/), which
colour-blind readers can tell apart; markers and line styles repeat what the colours say. No function touches
pyplot, so drawing has no global state. Every function wants the data first, then the Axes to draw on.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
