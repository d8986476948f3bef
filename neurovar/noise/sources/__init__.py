"""Where noise structure comes from, one call each: covariances with the mean shift beside them and their origin.

`cortical` recordings; responses to `modified` or `attacked` images about those to clean ones; a `stochastic` network
about its mean response; variation `within_class`; a spectrum alone, `power_law`; and `noise.learn_noise`, whose
result reads like a `NoiseSource`. Those of networks stream: activations are never all in memory.

Which parts of a covariance are estimated is a value, a `statistics.Structure`; `noise.streaming` has each estimator's
bias and memory.
"""
