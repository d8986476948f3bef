"""Where noise structure comes from, one call each: covariances with the mean shift beside them and their origin.

`cortical` recordings; responses to `modified` or `attacked` images about those to clean ones; a `stochastic` network
about its mean response; variation `within_class`; a spectrum alone, `power_law`; and `noise.learn_noise`, whose
result reads like a `NoiseSource`. Those of networks stream: activations are never all in memory.

kind = "dense", "diagonal", "kronecker" (the first axis of a layer's output, such as channels, × all others) or
"low_rank", with a `rank`; `streaming` has each estimator's bias and memory.
"""
