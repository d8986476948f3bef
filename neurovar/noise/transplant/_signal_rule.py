"""Noise that follows from tuning: the rule of cortex, fitted there and applied elsewhere."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from scipy.spatial.distance import squareform

from neurovar import _memory
from neurovar.covariance import Dense
from neurovar.noise.transplant._correlation import nearest_correlation
from neurovar.noise.transplant._method import TransplantMethod
from neurovar.noise.transplant._target import like
from neurovar.responses import validate
from neurovar.statistics import binned, kernels, pairs, signal_correlation

COPIES = 6
"""Matrices over the target's units that are held at once."""
QUIETEST = 1e-3
"""A silent unit keeps the variance of one with this part of the mean response: with none the matrix were singular."""


@dataclass(frozen=True, eq=False)
class SignalRule(TransplantMethod):
    """How noise follows from tuning: r_noise = intercept + slope · r_signal; variance ∝ mean^exponent.

    It needs no stimuli that source and target share. `bins` holds the pairs averaged in bins of signal correlation, for
    a figure: see `statistics.binned`.

    Parameters
    ----------
    intercept : float
        Noise correlation of a pair whose tuning is uncorrelated.
    slope : float
        By how much noise correlation rises with signal correlation.
    variance_exponent : float
        The power of the mean response that the noise variance follows.
    bins : xarray.Dataset
        The pairs of the source in bins of signal correlation.

    Examples
    --------
    >>> from neurovar import statistics
    >>> cortex = statistics.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
    >>> network = statistics.population(n_stimuli=50, n_repeats=1, n_units=30, rng=1)
    >>> noise = SignalRule.fit(cortex).onto(network)
    >>> noise.n, round(noise.trace(), 3)
    (30, 30.0)
    """

    name: ClassVar[str] = "signal_rule"

    intercept: float
    slope: float
    variance_exponent: float
    bins: xr.Dataset

    @classmethod
    def fit(
        cls,
        source: xr.DataArray,
        *,
        rng: np.random.Generator | int | None = None,
        n_splits: int = 20,
        n_bins: int = 10,
    ) -> Self:
        """Fit how noise correlation depends on signal correlation, and variance on the mean.

        Both are least-squares lines: of the z-scored noise correlation on the signal correlation (clipped to [−1, 1])
        over pairs of units (`statistics.pairs`, `statistics.binned`), and of log noise variance on log mean response
        over units. Two errors flatten the line: that of the estimated signal correlation, and the bias of z-scored
        noise correlations with few repeats (`statistics.noise_correlation`).

        Parameters
        ----------
        source : xarray.DataArray
            Responses (stimulus, repeat, unit) of four units or more, with positive means.
        rng : numpy.random.Generator or int, optional
            For a signal correlation from random halves of the repeats in place of the exact form, which is better.
        n_splits : int, optional
            How many halvings, with `rng`.
        n_bins : int, optional
            Bins with equal numbers of pairs, for the figure alone.

        Returns
        -------
        SignalRule
            The rule of the source.

        Raises
        ------
        ValueError
            If there are not three repeats, fewer than four units or than three stimuli with two repeats, no pairs with
            a signal correlation, or a mean response is not positive.

        References
        ----------
        Cohen & Kohn 2011, doi:10.1038/nn.2842

        Examples
        --------
        >>> from neurovar import statistics
        >>> da = statistics.population(n_stimuli=100, n_repeats=6, n_units=20, counts=True, rng=0)
        >>> rule = SignalRule.fit(da)
        >>> abs(rule.slope) < 0.1, abs(rule.variance_exponent - 1) < 0.2
        (True, True)
        """
        table = pairs(source)
        if source.sizes["unit"] < 4:
            raise ValueError(f"expected at least 4 units, got {source.sizes['unit']}")
        if rng is not None:
            signal = signal_correlation(source, n_splits=n_splits, rng=rng).values
            table["signal_correlation"] = ("pair", squareform(signal, checks=False))
        bins = binned(table, against="signal_correlation", n_bins=n_bins)
        mean = np.nanmean(source.values, axis=(0, 1))
        if (mean <= 0).any():
            raise ValueError(f"expected positive mean responses, got {int((mean <= 0).sum())} units at 0 or below")
        variance = np.diag(kernels.noise_covariance(source.values)[0])
        exponent = np.polyfit(np.log(mean), np.log(variance), 1)[0]
        return cls(bins.attrs["intercept"], bins.attrs["slope"], float(exponent), bins)

    def onto(self, target: xr.DataArray) -> Dense:
        """The noise of units with the target's tuning, if it followed the rule.

        Correlation intercept + slope · r_signal, clipped to [−1, 1] and moved to the nearest correlation matrix;
        variance mean |response|^exponent, scaled to average 1 over units, as activations stand in for rates by their
        size alone.

        Parameters
        ----------
        target : xarray.DataArray
            Responses (stimulus, repeat, unit) to three stimuli or more. With one repeat they count as noise-free.

        Returns
        -------
        Dense
            Over the target's units, of its dtype (float32 unless that is float64).

        Raises
        ------
        ValueError
            For responses that are not valid or all 0, fewer than three stimuli, or a matrix that would not fit into
            memory.
        """
        validate(target)
        n, n_stimuli = target.sizes["unit"], target.sizes["stimulus"]
        _memory.require_matrix(n, torch.float64, torch.device("cpu"), copies=COPIES)
        if n_stimuli < 3:
            raise ValueError(f"expected at least 3 stimuli of the target for its signal correlations, got {n_stimuli}")
        correlation = self.intercept + self.slope * _target_signal_correlation(target)
        np.fill_diagonal(correlation, 1)
        correlation = nearest_correlation(np.clip(correlation, -1, 1))
        size = np.nanmean(np.abs(target.values), axis=(0, 1), dtype=np.float64)
        if not size.any():
            raise ValueError(f"expected responses of the target other than 0, got none from {n} units")
        deviation = np.maximum(size / size.mean(), QUIETEST) ** (self.variance_exponent / 2)
        deviation /= np.sqrt((deviation**2).mean())
        return Dense(torch.from_numpy(correlation * np.outer(deviation, deviation)).to(like(target)))

    @classmethod
    def _between(cls, source: xr.DataArray, target: xr.DataArray, rng: np.random.Generator, **options: Any) -> Dense:
        return cls.fit(source).onto(target)


def _target_signal_correlation(target: xr.DataArray) -> np.ndarray:
    """Of each pair of units, in [−1, 1]; 0 for units that do not vary over stimuli."""
    if target.sizes["repeat"] > 1:
        signal = signal_correlation(target).values
    else:
        centred = target.values[:, 0] - target.values[:, 0].mean(axis=0)
        scale = np.sqrt((centred**2).sum(axis=0))
        z = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
        signal = (z.T @ z).astype(np.float64)
    # Corrected for noise, an estimate may lie beyond ±1, and a rule is for correlations.
    return np.clip(np.nan_to_num(signal), -1, 1)
