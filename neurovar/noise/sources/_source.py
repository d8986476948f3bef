"""What every source gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neurovar.covariance import Covariance


@dataclass(frozen=True, eq=False)
class NoiseSource:
    """The noise over n units, and where it came from.

    noise : the covariance.
    mean_shift : (n,), the mean of the deviations, which is no part of the covariance; zero where the deviations are
        about a mean. `noise + covariance.MeanShift(mean_shift)` has both.
    attrs : where they apply, `source` (what), `model`, `modification`, `layer`, `kind`, `rank`, `n_samples` (images,
        passes or trials), `dof` (the divisor), `ridge`, and `error`: an upper bound of the spectral norm ‖C − noise‖,
        with C the sample covariance: 0 for "dense", the sketch's for "low_rank" from networks
        (`noise.LowRankAccumulator`), NaN where none is known. The ridge is no error, and this is no sampling error:
        for that see `dof`.
    """

    noise: Covariance
    mean_shift: Tensor
    attrs: Mapping[str, Any]
