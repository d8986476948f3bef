"""Responses whose signal, noise and drift are known: for tests, for power analysis and for teaching.

Each step is a function, and its result says what is true of it in its attributes:

1. what each unit responds to each stimulus on average: `tuning`, `orientation_tuning` (or any array of one's own);
2. the trials, in the random order in which they are shown: `present`; then, if wanted, `additive_drift`, `gain_drift`;
3. the responses: `gaussian`, `poisson`, `modulated_poisson`, `poisson_lognormal`.

`differential_correlations` and `signal_aligned` build noise to put in; `population` does all in one call.

>>> import numpy as np
>>> from neurovar.covariance import Diagonal
>>> from neurovar.statistics import additive_drift, gaussian, present, tuning
>>> rng = np.random.default_rng(0)
>>> trials = present(tuning(n_stimuli=5, n_units=3, exponent=1.0, rng=rng), n_repeats=[4, 2, 4, 4, 3], rng=rng)
>>> trials = additive_drift(trials, path="random_walk", standard_deviation=0.5, shared=True, rng=rng)
>>> responses = gaussian(trials, noise=Diagonal.isotropic(3), rng=rng)
>>> responses.shape, responses.attrs["exponent"], responses.attrs["drift"]
((5, 4, 3), 1.0, 'additive')
"""
