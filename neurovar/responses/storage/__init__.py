"""Keep responses in Zarr, without loss and chunked over stimuli, so that a recording larger than memory opens at once.

A store is a folder of Zarr format 2, which `xarray.open_zarr` reads too. What that format has no place for (the types
of attributes, which coordinates are indexes, texts that were objects) is in the attribute `neurovar` of its group, as
JSON.
"""
