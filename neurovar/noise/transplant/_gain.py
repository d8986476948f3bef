"""Shared gain and a Fano law, which make noise depend on the activation that it is added to."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr

from neurovar.covariance import GainModulated
from neurovar.noise.transplant._method import TransplantMethod
from neurovar.noise.transplant._target import like
from neurovar.responses import means_kernel, validate
from neurovar.statistics import remove_gain, shared_gain, variance_scaling


@dataclass(frozen=True, eq=False)
class GainLaw(TransplantMethod):
    """Variance of spike counts with mean μ, gain_variance · μ² + factor · μ^exponent; the gain is shared, the rest not.

    It needs no stimuli that source and target share, and gives noise that depends on the activation.

    Parameters
    ----------
    gain_variance : float
        Variance of the gain that all units share, whose mean is 1.
    factor : float
        Variance without the gain at a mean count of 1.
    exponent : float
        The power of the mean count that the variance without the gain follows.
    mean_count : float
        Over all units and trials of the source, in spikes.

    Raises
    ------
    ValueError
        If the gain variance or the exponent is negative, or the factor or the mean count is not above 0.

    Examples
    --------
    >>> from neurovar import statistics
    >>> network = statistics.population(n_stimuli=50, n_repeats=1, n_units=30, rng=1)
    >>> GainLaw(gain_variance=0.1, factor=1.0, exponent=1.0, mean_count=5.0).onto(network).n
    30
    """

    name: ClassVar[str] = "gain"

    gain_variance: float
    factor: float
    exponent: float
    mean_count: float

    def __post_init__(self) -> None:
        if not (self.gain_variance >= 0 and self.factor > 0 and self.exponent >= 0 and self.mean_count > 0):
            raise ValueError(
                f"expected a gain variance and exponent of at least 0, a factor and count above 0, got {self}"
            )

    @classmethod
    def fit(cls, source: xr.DataArray) -> Self:
        """Fit a shared gain to spike counts, and a power law of the mean to what other variance there is.

        gain_variance is the shared_gain_variance of `statistics.shared_gain`, 0 where that is negative; factor and
        exponent are those of the population in `statistics.variance_scaling`, of the counts without their shared gain
        (`statistics.remove_gain`). Taking σ²μ² off the variances instead would bias the exponent down by much, as the
        means that it is fitted against have the gain's error.

        Bias: that of these functions. Removing the gain adds noise, about 1/N of a unit's variance for N units that are
        alike, and more at high rates: with 20 units of Poisson counts the exponent is 1.05, with 100 it is 1.01.
        Poisson counts have exponent and factor 1; gains of single units raise the exponent
        (`statistics.fit_modulated_poisson`).

        Parameters
        ----------
        source : xarray.DataArray
            Spike counts (stimulus, repeat, unit), recorded together.

        Returns
        -------
        GainLaw
            The law of the source.

        Raises
        ------
        ValueError
            If `statistics.shared_gain` refuses the responses; if there are no spikes; or if the variance without the
            gain follows no power law that rises with the mean.

        References
        ----------
        Goris, Movshon & Simoncelli 2014, doi:10.1038/nn.3711

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> rate = 6 * np.exp(0.5 * rng.normal(size=(100, 1, 50))) * rng.gamma(10, 1 / 10, size=(100, 10, 1))
        >>> da = xr.DataArray(rng.poisson(rate), dims=("stimulus", "repeat", "unit"),
        ...                   coords={"stimulus": range(100)}, attrs={"units": "spike count"})
        >>> law = GainLaw.fit(da)
        >>> round(law.gain_variance, 1), round(law.factor, 1), round(law.exponent, 1)
        (0.1, 1.0, 1.0)
        """
        gain_variance = float(shared_gain(source).shared_gain_variance)
        mean_count = float(np.nanmean(source.values))
        if not mean_count > 0:
            raise ValueError(f"expected spikes, got a mean count of {mean_count:g}")
        private = variance_scaling(remove_gain(source))
        exponent, factor = float(private.population_exponent), float(private.population_factor)
        return cls(max(gain_variance, 0.0), factor, exponent, mean_count)

    def onto(self, target: xr.DataArray) -> GainModulated:
        """Noise of activations x that stand for mean counts k|x|, k = mean_count / mean |x| over the target.

        In units of activation: gain_variance · x xᵀ + diag(factor · k^(exponent − 2) · |x|^exponent), so that the
        coefficient of variation at each k|x| is the source's. The reference states are the target's stimulus means.

        Parameters
        ----------
        target : xarray.DataArray
            Responses (stimulus, repeat, unit). With one repeat they count as noise-free.

        Returns
        -------
        GainModulated
            Over the target's units, of its dtype (float32 unless that is float64).

        Raises
        ------
        ValueError
            For responses that are not valid, or all 0.
        """
        validate(target)
        states = means_kernel(target.values)[:, 0]
        size = float(np.abs(states).mean(dtype=np.float64))
        if size == 0:
            raise ValueError(f"expected responses of the target other than 0, got none from {states.shape[1]} units")
        # A count k|x| has variance factor · (k|x|)^exponent; its activation is smaller by k, and its variance by k².
        dispersion = self.factor * (self.mean_count / size) ** (self.exponent - 2)
        empty = like(target)
        return GainModulated(
            gain_variance=empty.new_tensor(self.gain_variance),
            dispersion=empty.new_full((states.shape[1],), dispersion),
            exponent=empty.new_tensor(self.exponent),
            states=torch.from_numpy(states).to(empty),
        )

    @classmethod
    def _between(
        cls, source: xr.DataArray, target: xr.DataArray, rng: np.random.Generator, **options: Any
    ) -> GainModulated:
        return cls.fit(source).onto(target)
