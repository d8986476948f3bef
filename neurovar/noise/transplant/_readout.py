"""The source's noise pulled back through a linear readout of it from the target."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from sklearn.cross_decomposition import PLSRegression
from torch import Tensor

from neurovar.covariance import LowRankPlusDiagonal
from neurovar.noise.transplant._axes import BLOCK, principal_axes
from neurovar.noise.transplant._target import like, require_same_units, stimulus_means
from neurovar.responses import ROUNDING, align, repeat_counts, validate
from neurovar.statistics import kernels, noise_covariance

PENALTIES = 10.0 ** np.linspace(-7, 3, 21)
"""Of ridge regression, as parts of the largest squared singular value of the target's responses."""
INVERTIBLE = 1e-5
"""Singular values of the map below this part of the largest count as 0."""
Regression = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Readout:
    """A linear map from the target to the source's noise-free tuning, source ≈ constant + W · target.

    Attributes
    ----------
    weights : W, DataArray (unit, target_unit), of the source's units that can be predicted.
    covariance : C, DataArray (unit, other_unit): the noise of those units, pooled over all stimuli of the source.
    goodness : DataArray (unit), of all units of the source: r² on held-out stimuli (see `fit_readout`).
    dropped_units : positions of the source's units that cannot be predicted.
    """

    weights: xr.DataArray
    covariance: xr.DataArray
    goodness: xr.DataArray
    dropped_units: tuple[int, ...]

    def __post_init__(self) -> None:
        values = np.linalg.eigvalsh(self.covariance.values)
        if values[0] < -1e-6 * values[-1]:
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


def fit_readout(
    source: xr.DataArray,
    target: xr.DataArray,
    *,
    regression: str,
    least_goodness: float,
    n_components: int | None = None,
    n_folds: int = 5,
    rng: np.random.Generator | int,
) -> Readout:
    """Fit a linear map from the target's responses to the source's, and test it on held-out stimuli.

    Mean responses to the stimuli that both have. "ridge": each unit's penalty is the one with the least leave-one-out
    error among the stimuli that the map is fitted to. "pls": partial least squares with `n_components`, not z-scored,
    of rank at most `n_components`, so that it reaches only a part of the source's noise (`Readout.reachable`).

    Goodness of a unit: the squared correlation of its prediction with its noise-free tuning, negative where the
    correlation is, over stimuli left out in `n_folds` folds. Corrected for reliability (`statistics.corrected_r2`)
    where three shared stimuli have two repeats or more (attrs["corrected"]). Each fold's own mean is no part of its
    predictions: it is anticorrelated with what was left out. Unbiased up to what `corrected_r2` says, except
    that the map is fitted to fewer stimuli than the final one, and if target and source were recorded together, whose
    shared noise it takes for tuning: give those disjoint trials.

    Bias of the map: ridge and PLS shrink W, so that W⁺ is too large, the more so the worse the goodness. Directions of
    the source that the map hardly reaches need much noise in the target, so that a ridge map of many units pulls back
    noise that is largest in those, and whose total variance says little; PLS with few components leaves them out.

    Parameters
    ----------
    regression : "ridge" or "pls".
    least_goodness : the mean goodness, over all units with tuning, below which there is no readout: above 0, below 1.
    n_components : of PLS.

    Raises
    ------
    ValueError : if the mean goodness is below `least_goodness` (it is in the message); if there are not more stimuli
        in a fold's training set than units in the source, or the target varies along fewer dimensions than that (the
        map would not be identified); if the two share no stimuli, the source has no repeats or no tuning, or an option
        is out of range.

    References
    ----------
    Yamins et al. 2014, doi:10.1073/pnas.1403112111 (maps from networks to cortex; PLS)

    Examples
    --------
    >>> from neurovar import statistics
    >>> rng = np.random.default_rng(0)
    >>> network = statistics.population(n_stimuli=100, n_repeats=1, n_units=6, rng=0)
    >>> tuning = network.values @ rng.normal(size=(6, 3))
    >>> cortex = network.isel(unit=[0, 1, 2]).copy(data=tuning)
    >>> cortex = xr.concat([cortex + rng.normal(size=cortex.shape) for _ in range(4)], "repeat")
    >>> readout = fit_readout(cortex, network, regression="ridge", least_goodness=0.5, rng=0)
    >>> readout.mean_goodness > 0.9, readout.dropped_units
    (True, ())
    """
    validate(source, min_repeats=2)
    noise = noise_covariance(source)
    shared, target = align(source, target)
    _require(shared, least_goodness, n_folds)
    scores, axes = principal_axes(stimulus_means(target))
    regress = _regression(regression, n_components, shared, scores.shape[1], n_folds)
    goodness = _goodness(scores.numpy(), shared, regress, n_folds, np.random.default_rng(rng))
    if np.isnan(goodness).all():
        raise ValueError(f"expected units of the source with tuning to the shared stimuli, got none of {len(goodness)}")
    if goodness.mean() < least_goodness:
        raise ValueError(
            f"expected a mean goodness of the readout on held-out stimuli of at least {least_goodness:g}, "
            f"got {float(goodness.mean()):.4f}"
        )
    kept = np.flatnonzero(goodness.values > 0)
    tuning = stimulus_means(shared).astype(np.float64)
    weights = torch.from_numpy(regress(scores.numpy(), tuning[:, kept])).to(like(target)) @ axes.mT.to(like(target))
    return Readout(
        weights=xr.DataArray(weights.numpy(), dims=("unit", "target_unit"), coords={"unit": kept}),
        covariance=xr.DataArray(noise.values[np.ix_(kept, kept)], dims=("unit", "other_unit")),
        goodness=goodness,
        dropped_units=tuple(np.setdiff1d(np.arange(len(goodness)), kept).tolist()),
    )


def _require(shared: xr.DataArray, least_goodness: float, n_folds: int) -> None:
    n_stimuli, n = shared.sizes["stimulus"], shared.sizes["unit"]
    if not 0 < least_goodness < 1:
        raise ValueError(f"expected least_goodness above 0 and below 1, got {least_goodness}")
    if not 2 <= n_folds <= n_stimuli:
        raise ValueError(f"expected from 2 to {n_stimuli} folds, as many as shared stimuli, got {n_folds}")
    fitted = _n_fitted(n_stimuli, n_folds)
    if fitted <= n:
        raise ValueError(
            f"expected more shared stimuli than units in the source ({n}) to fit a map to, got {fitted} of {n_stimuli} "
            f"in {n_folds} folds: the map is not identified; take fewer units of the source"
        )


def _n_fitted(n_stimuli: int, n_folds: int) -> int:
    """Stimuli in the smallest training set."""
    return n_stimuli - -(-n_stimuli // n_folds)


def _regression(name: str, n_components: int | None, shared: xr.DataArray, rank: int, n_folds: int) -> Regression:
    """The function of (scores, tuning) that gives weights (unit, score)."""
    if name not in ("ridge", "pls"):
        raise ValueError(f"expected regression 'ridge' or 'pls', got {name!r}")
    if (n_components is not None) != (name == "pls"):
        raise ValueError(f"expected n_components for 'pls' and none for 'ridge', got {name!r} and {n_components}")
    if rank < shared.sizes["unit"]:
        raise ValueError(
            f"expected a target that varies along as many dimensions as the source has units, "
            f"{shared.sizes['unit']}, got {rank}: the map is not identified"
        )
    if n_components is None:
        return _ridge
    most = min(_n_fitted(shared.sizes["stimulus"], n_folds) - 1, rank)
    if not 1 <= n_components <= most:
        raise ValueError(f"expected n_components from 1 to {most}, got {n_components}")
    return lambda x, y: PLSRegression(n_components, scale=False).fit(x, y).coef_


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import RidgeCV  # importing it draws random numbers: not when neurovar is imported

    penalties = PENALTIES * np.linalg.norm(x - x.mean(axis=0), 2) ** 2
    fitted = RidgeCV(penalties, alpha_per_target=True).fit(x, y)
    return fitted.coef_.reshape(y.shape[1], x.shape[1])


def _goodness(
    scores: np.ndarray, shared: xr.DataArray, regress: Regression, n_folds: int, rng: np.random.Generator
) -> xr.DataArray:
    """Signed r² of each unit on held-out stimuli, NaN without tuning."""
    from sklearn.model_selection import KFold  # as in _ridge

    y = stimulus_means(shared).astype(np.float64)
    tuned = np.flatnonzero(np.abs(y).max(axis=0) > ROUNDING * np.nanmax(np.abs(shared.values), axis=(0, 1)))
    predicted = np.zeros_like(y)
    folds = KFold(n_folds, shuffle=True, random_state=int(rng.integers(2**32)))
    for fitted, left in folds.split(scores) if len(tuned) else ():
        weights = regress(scores[fitted], y[np.ix_(fitted, tuned)])
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


def place_readout(readout: Readout, target: xr.DataArray) -> LowRankPlusDiagonal:
    """W⁺ C W⁺ᵀ, the least noise whose readout has the source's covariance, and isotropic noise where W does not see.

    The variance of the latter is that in the quietest of the directions that W sees: the largest for which no unseen
    direction is noisier than a seen one. Then the noise is low rank plus equal private variances, and its readout
    W (…) Wᵀ is C still (the part of C that W reaches, for PLS).
    """
    require_same_units(target, readout.weights.sizes["target_unit"], "readout")
    left, singular, right = _decomposition(readout.weights.values)
    seen = (left / singular).mT @ torch.from_numpy(readout.covariance.values).double() @ (left / singular)
    values, turn = torch.linalg.eigh(seen)
    quietest = values[0].clamp(min=0)
    louder = slice(min(1, len(values) - 1), None)
    factors = right @ (turn * (values - quietest).clamp(min=0).sqrt())[:, louder]
    return LowRankPlusDiagonal(factors.to(like(target)), quietest.repeat(len(right)).to(like(target)))
