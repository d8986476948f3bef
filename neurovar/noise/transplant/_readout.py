"""The source's noise pulled back through a linear readout of it from the target."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise.transplant._axes import BLOCK, principal_axes
from neurovar.noise.transplant._method import TransplantMethod
from neurovar.noise.transplant._regressions import Regression
from neurovar.noise.transplant._target import like, require_same_units, stimulus_means
from neurovar.responses import ROUNDING, align, repeat_counts, validate
from neurovar.statistics import kernels, noise_covariance

INVERTIBLE = 1e-5
"""Singular values of the map below this part of the largest count as 0: what float32 weights leave of a zero."""
NEGATIVE = -1e-6
"""The most negative eigenvalue of a covariance, as a part of the largest, that passes for rounding."""


@dataclass(frozen=True, eq=False)
class Readout(TransplantMethod):
    """A linear map from the target to the source's noise-free tuning, source ≈ constant + W · target.

    The source's noise C is pulled back through it, W⁺ C W⁺ᵀ. Source and target share stimuli.

    Parameters
    ----------
    weights : xarray.DataArray
        W, (unit, target_unit), of the source's units that can be predicted.
    covariance : xarray.DataArray
        C, (unit, other_unit): the noise of those units, pooled over all stimuli of the source.
    goodness : xarray.DataArray
        (unit), of all units of the source: r² on held-out stimuli (see `fit`).
    dropped_units : tuple of int
        Positions of the source's units that cannot be predicted.

    Raises
    ------
    ValueError
        If the covariance has negative eigenvalues.

    Examples
    --------
    >>> from neurovar import statistics
    >>> from neurovar.noise import Ridge
    >>> rng = np.random.default_rng(0)
    >>> network = statistics.population(n_stimuli=100, n_repeats=1, n_units=6, rng=0)
    >>> tuning = network.values @ rng.normal(size=(6, 3))
    >>> cortex = network.isel(unit=[0, 1, 2]).copy(data=tuning)
    >>> cortex = xr.concat([cortex + rng.normal(size=cortex.shape) for _ in range(4)], "repeat")
    >>> readout = Readout.fit(cortex, network, regression=Ridge(), least_goodness=0.5, rng=0)
    >>> readout.mean_goodness > 0.9, readout.dropped_units, readout.onto(network).n
    (True, (), 6)
    """

    name: ClassVar[str] = "readout"
    required: ClassVar[tuple[str, ...]] = ("regression", "least_goodness")
    optional: ClassVar[tuple[str, ...]] = ("n_folds",)

    weights: xr.DataArray
    covariance: xr.DataArray
    goodness: xr.DataArray
    dropped_units: tuple[int, ...]

    def __post_init__(self) -> None:
        values = np.linalg.eigvalsh(self.covariance.values)
        if values[0] < NEGATIVE * values[-1]:
            raise ValueError(
                f"expected a positive semi-definite covariance of the source, got an eigenvalue of {values[0]:g} "
                f"(largest {values[-1]:g}); covariance.nearest gives the nearest"
            )

    @property
    def mean_goodness(self) -> float:
        """Over all units with tuning, also those that were dropped."""
        return float(self.goodness.mean())

    @property
    def reachable(self) -> float:
        """The part of the source's noise variance that lies where W can reach, tr(W W⁺ C)/tr C; below 1 for few PLS
        components."""
        left, _, _ = _decomposition(self.weights.values)
        covariance = torch.from_numpy(self.covariance.values).double()
        return float((left * (covariance @ left)).sum() / covariance.trace())

    @classmethod
    def fit(
        cls,
        source: xr.DataArray,
        target: xr.DataArray,
        *,
        regression: Regression,
        least_goodness: float,
        n_folds: int = 5,
        rng: np.random.Generator | int,
    ) -> Self:
        """Fit a linear map from the target's responses to the source's, and test it on held-out stimuli.

        The map is fitted to the mean responses to the stimuli that both have.

        Goodness of a unit: the squared correlation of its prediction with its noise-free tuning, negative where the
        correlation is, over stimuli left out in `n_folds` folds. Corrected for reliability (`statistics.corrected_r2`)
        where three shared stimuli have two repeats or more (attrs["corrected"]). Each fold's own mean is no part of its
        predictions: it is anticorrelated with what was left out. Unbiased up to what `corrected_r2` says, except that
        the map is fitted to fewer stimuli than the final one, and if target and source were recorded together, whose
        shared noise it takes for tuning: give those disjoint trials.

        Bias of the map: ridge and PLS shrink W, so that W⁺ is too large, the more so the worse the goodness. Directions
        of the source that the map hardly reaches need much noise in the target, so that a ridge map of many units pulls
        back noise that is largest in those, and whose total variance says little; PLS with few components leaves them
        out.

        Parameters
        ----------
        source : xarray.DataArray
            Responses (stimulus, repeat, unit) with repeats.
        target : xarray.DataArray
            Responses (stimulus, repeat, unit) that share stimuli with the source, by their names.
        regression : Regression
            `Ridge()` or `PartialLeastSquares(n_components)`.
        least_goodness : float
            The mean goodness, over all units with tuning, below which there is no readout: above 0, below 1.
        n_folds : int, optional
            Into how many folds the shared stimuli are split.
        rng : numpy.random.Generator or int
            Draws the folds.

        Returns
        -------
        Readout
            The map to those of the source's units that it predicts.

        Raises
        ------
        ValueError
            If the mean goodness is below `least_goodness` (it is in the message); if there are not more stimuli in a
            fold's training set than units in the source, or the target varies along fewer dimensions than that (the map
            would not be identified); if the two share no stimuli, the source has no repeats or no tuning, or an option
            is out of range.

        References
        ----------
        Yamins et al. 2014, doi:10.1073/pnas.1403112111 (maps from networks to cortex; PLS)
        """
        validate(source, min_repeats=2)
        noise = noise_covariance(source)
        shared, target = align(source, target)
        # The map is fitted to the target's principal scores: W = B axesᵀ for the weights B on these. Ridge and PLS give
        # the same W in any rotation of the target's units, and the scores are few where the units are many.
        scores, axes = principal_axes(stimulus_means(target))
        _require(shared, scores.shape[1], regression, least_goodness, n_folds)
        goodness = _goodness(scores.numpy(), shared, regression, n_folds, np.random.default_rng(rng))
        if np.isnan(goodness).all():
            raise ValueError(
                f"expected units of the source with tuning to the shared stimuli, got none of {len(goodness)}"
            )
        if goodness.mean() < least_goodness:
            raise ValueError(
                f"expected a mean goodness of the readout on held-out stimuli of at least {least_goodness:g}, "
                f"got {float(goodness.mean()):.4f}"
            )
        kept = np.flatnonzero(goodness.values > 0)
        tuning = stimulus_means(shared).astype(np.float64)
        on_scores = torch.from_numpy(regression.weights(scores.numpy(), tuning[:, kept]))
        weights = on_scores.to(like(target)) @ axes.mT.to(like(target))
        return cls(
            weights=xr.DataArray(weights.numpy(), dims=("unit", "target_unit"), coords={"unit": kept}),
            covariance=xr.DataArray(noise.values[np.ix_(kept, kept)], dims=("unit", "other_unit")),
            goodness=goodness,
            dropped_units=tuple(np.setdiff1d(np.arange(len(goodness)), kept).tolist()),
        )

    def onto(self, target: xr.DataArray) -> LowRankPlusDiagonal:
        """W⁺ C W⁺ᵀ, the least noise whose readout has the source's covariance, and isotropic noise where W is blind.

        The variance of the latter is that in the quietest of the directions that W sees: the largest for which no
        unseen direction is noisier than a seen one. Then the noise is low rank plus equal private variances, and its
        readout W (…) Wᵀ is C still (the part of C that W reaches, for PLS).

        Parameters
        ----------
        target : xarray.DataArray
            Responses (stimulus, repeat, unit) of the units that the map was fitted to.

        Returns
        -------
        LowRankPlusDiagonal
            In squared units of the target's activations, of its dtype (float32 unless that is float64).

        Raises
        ------
        ValueError
            For responses that are not valid, or of another number of units.
        """
        validate(target)
        require_same_units(target, self.weights.sizes["target_unit"], "readout")
        left, singular, right = _decomposition(self.weights.values)
        # With W = U S Vᵀ, W⁺ = V S⁻¹ Uᵀ and W⁺ C W⁺ᵀ = V M Vᵀ, M = S⁻¹ Uᵀ C U S⁻¹ on the directions V that W sees.
        seen = (left / singular).mT @ torch.from_numpy(self.covariance.values).double() @ (left / singular)
        # M = T diag(λ) Tᵀ. With v (I − V Vᵀ), v = min λ, it is V T diag(λ − v) Tᵀ Vᵀ + v I: factors V T √(λ − v), of
        # which the quietest is 0 and left out, and private variance v.
        values, turn = torch.linalg.eigh(seen)
        quietest = values[0].clamp(min=0)
        louder = slice(min(1, len(values) - 1), None)
        factors = right @ (turn * (values - quietest).clamp(min=0).sqrt())[:, louder]
        return LowRankPlusDiagonal(factors.to(like(target)), quietest.repeat(len(right)).to(like(target)))

    @classmethod
    def _between(
        cls, source: xr.DataArray, target: xr.DataArray, rng: np.random.Generator, **options: Any
    ) -> LowRankPlusDiagonal:
        return cls.fit(source, target, rng=rng, **options).onto(target)


def _require(shared: xr.DataArray, rank: int, regression: Regression, least_goodness: float, n_folds: int) -> None:
    """Refuse options out of range, and a map that the shared stimuli do not identify."""
    n_stimuli, n = shared.sizes["stimulus"], shared.sizes["unit"]
    if not 0 < least_goodness < 1:
        raise ValueError(f"expected least_goodness above 0 and below 1, got {least_goodness}")
    if not 2 <= n_folds <= n_stimuli:
        raise ValueError(f"expected from 2 to {n_stimuli} folds, as many as shared stimuli, got {n_folds}")
    if not isinstance(regression, Regression):
        raise ValueError(f"expected a regression, such as Ridge() or PartialLeastSquares(10), got {regression!r}")
    n_fitted = n_stimuli - -(-n_stimuli // n_folds)  # the smallest training set: all but a fold, rounded up
    if n_fitted <= n:
        raise ValueError(
            f"expected more shared stimuli than units in the source ({n}) to fit a map to, got {n_fitted} of "
            f"{n_stimuli} in {n_folds} folds: the map is not identified; take fewer units of the source"
        )
    if rank < n:
        raise ValueError(
            f"expected a target that varies along as many dimensions as the source has units, {n}, got {rank}: the map "
            "is not identified"
        )
    regression.check(n_fitted, rank)


def _goodness(
    scores: np.ndarray, shared: xr.DataArray, regression: Regression, n_folds: int, rng: np.random.Generator
) -> xr.DataArray:
    """Signed r² of each unit on held-out stimuli, NaN without tuning."""
    from sklearn.model_selection import KFold  # importing it draws random numbers: not when neurovar is imported

    y = stimulus_means(shared).astype(np.float64)
    tuned = np.flatnonzero(np.abs(y).max(axis=0) > ROUNDING * np.nanmax(np.abs(shared.values), axis=(0, 1)))
    predicted = np.zeros_like(y)
    folds = KFold(n_folds, shuffle=True, random_state=int(rng.integers(2**32)))
    for fitted, left in folds.split(scores) if len(tuned) else ():
        weights = regression.weights(scores[fitted], y[np.ix_(fitted, tuned)])
        predicted[np.ix_(left, tuned)] = (scores[left] - scores[fitted].mean(axis=0)) @ weights.T
    repeated = repeat_counts(shared).values > 1
    corrected = int(repeated.sum()) >= 3
    if corrected:
        predicted, y = predicted[repeated], y[repeated]
    predicted -= predicted.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        product = (predicted * y).sum(axis=0)
        if corrected:
            r2 = np.sign(product) * kernels.corrected_r2(predicted, shared.values)
        else:
            r2 = np.sign(product) * product**2 / ((predicted**2).sum(axis=0) * (y**2).sum(axis=0))
    coords = {name: coord for name, coord in shared.coords.items() if coord.dims == ("unit",)}
    return xr.DataArray(r2, dims="unit", coords=coords, attrs={"corrected": int(corrected), "n_folds": n_folds})


def _decomposition(weights: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """W = left · diag(singular) · rightᵀ, without singular values that are 0; float64."""
    blocks = torch.from_numpy(weights).split(BLOCK, dim=1)
    gram = torch.stack([block.double() @ block.double().mT for block in blocks]).sum(0)
    values, left = torch.linalg.eigh(gram)
    kept = values > INVERTIBLE**2 * values[-1]
    left, singular = left[:, kept], values[kept].sqrt()
    return left, singular, torch.cat([block.double().mT @ (left / singular) for block in blocks])
