"""Map the noise of one system onto another, and matched controls.

Each method fits a frozen value to the source (`fit_spectrum`, `fit_readout`, …), which `onto` turns into noise for the
target; `with_controls` makes what it is to be compared with.
"""
