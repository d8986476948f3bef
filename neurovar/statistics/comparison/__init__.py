"""The same statistics of variability for cortex and networks, side by side: matched, with intervals and tests.

A system is responses (stimulus, repeat, unit), or a list of them where sessions were recorded separately. `STATISTICS`
holds what can be computed; `compare` makes the table, `intervals` one system's part of it, `match` the subsamples of
equal sizes, `permutation_test` the test of a difference. Distances compare the noise of two systems as a whole.
"""
