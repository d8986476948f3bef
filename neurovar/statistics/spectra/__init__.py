"""Eigenspectra of signal and noise without the variance of noise, and their power laws.

Three estimators: cvPCA (repeats held out), cross-decomposition (stimuli held out) and MEME (matched eigenmoments, no
axes at all). They differ in their biases, so that their exponents are not to be compared: a spectrum's
attrs["method"] says which it is. Functions take responses (stimulus, repeat, unit) with NaN for absent repeats
(`neurovar.responses`), kernels NumPy arrays or torch tensors. Chunked responses (dask) may be larger than memory.
"""
