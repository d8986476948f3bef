"""The statistics of trial-to-trial variability, of signal and noise, and fitted noise structures.

Every function takes responses (stimulus, repeat, unit) with NaN for absent repeats (`neurovar.responses`), validates
them once, and calls a kernel, which works on plain arrays: NumPy's or, where much is to be computed, also torch's, on
any device. Noise is the deviation from the stimulus's mean; Rₛ is the number of repeats of stimulus s. `by=` names a
coordinate of unit or of stimulus (an area, a layer, a condition): the statistic of each group then stands along a first
dim of that name.
"""
