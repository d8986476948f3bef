"""How each structure is estimated from a stream of activations; the values themselves are `statistics.Structure`s."""

from functools import singledispatch

import numpy as np

from neurovar.covariance import Covariance
from neurovar.noise.streaming._accumulator import Accumulator
from neurovar.noise.streaming._exact import DenseAccumulator, DiagonalAccumulator, KroneckerAccumulator
from neurovar.noise.streaming._low_rank import LowRankAccumulator
from neurovar.statistics import DiagonalOnly, Full, KroneckerProduct, LowRank, Structure


@singledispatch
def accumulator(structure: Structure, *, about_zero: bool = False) -> Accumulator:
    """An empty accumulator whose covariance has a structure.

    A structure of one's own is registered: `accumulator.register(MyStructure)(function)`.

    Parameters
    ----------
    structure : Structure
        `Full()`, `DiagonalOnly()`, `LowRank(rank)` or `KroneckerProduct()`.
    about_zero : bool, optional
        The second moment about zero instead of the covariance about the mean.

    Returns
    -------
    Accumulator
        Of the type that estimates the structure.

    Raises
    ------
    ValueError
        For what is no structure.

    Examples
    --------
    >>> from neurovar.statistics import LowRank
    >>> accumulator(LowRank(2)).rank
    2
    """
    raise ValueError(f"expected a structure, such as Full() or LowRank(64), got {structure!r}")


@accumulator.register
def _(structure: Full, *, about_zero: bool = False) -> DenseAccumulator:
    return DenseAccumulator(about_zero=about_zero)


@accumulator.register
def _(structure: DiagonalOnly, *, about_zero: bool = False) -> DiagonalAccumulator:
    return DiagonalAccumulator(about_zero=about_zero)


@accumulator.register
def _(structure: LowRank, *, about_zero: bool = False) -> LowRankAccumulator:
    return LowRankAccumulator(rank=structure.rank, about_zero=about_zero)


@accumulator.register
def _(structure: KroneckerProduct, *, about_zero: bool = False) -> KroneckerAccumulator:
    return KroneckerAccumulator(about_zero=about_zero)


def estimated(sums: Accumulator) -> tuple[Covariance, float]:
    """The covariance, and an upper bound of its distance from the sample covariance in the spectral norm.

    The bound is 0 where the sample covariance is what comes out, and NaN where none is known.
    """
    if isinstance(sums, LowRankAccumulator):
        estimate = sums.estimate()
        return estimate.covariance, estimate.error_bound
    return sums.covariance(), 0.0 if isinstance(sums, DenseAccumulator) else np.nan
