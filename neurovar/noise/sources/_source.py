"""What every source gives."""

from dataclasses import dataclass
from math import nan

from torch import Tensor

from neurovar.covariance import Covariance
from neurovar.networks import Origin
from neurovar.statistics import Structure


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseSource:
    """The noise over n units, and where it came from.

    Parameters
    ----------
    noise : Covariance
        The covariance.
    mean_shift : torch.Tensor
        (n,), the mean of the deviations, which is no part of the covariance; zero where the deviations are about a
        mean. `noise + covariance.MeanShift(mean_shift)` has both.
    origin : Origin
        What was done to get it, and to what.
    structure : Structure
        Which parts of the covariance were estimated.
    model : str, optional
        The type of the network.
    layer : str, optional
        The layer of the network.
    n_samples : int, optional
        How many images, passes or trials it was estimated from.
    dof : int, optional
        The divisor: degrees of freedom.
    ridge : float, optional
        The variance that was added to every unit.
    error : float, optional
        An upper bound of the spectral norm ‖C − noise‖, with C the sample covariance: 0 for `Full`, the sketch's for
        `LowRank` from networks (`noise.LowRankAccumulator`), NaN where none is known. The ridge is no error, and this
        is no sampling error: for that see `dof`.

    Examples
    --------
    >>> from neurovar import noise, statistics
    >>> recording = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
    >>> source = noise.cortical(recording, statistics.LowRank(2))
    >>> source.origin.method, str(source.structure), source.dof
    ('cortical', 'LowRank(rank=2)', 200)
    """

    noise: Covariance
    mean_shift: Tensor
    origin: Origin
    structure: Structure
    model: str = ""
    layer: str = ""
    n_samples: int | None = None
    dof: int | None = None
    ridge: float = 0.0
    error: float = nan
