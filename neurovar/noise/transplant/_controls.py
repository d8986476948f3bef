"""Controls: noise that differs from the transplanted in one property, at the same trace."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
import xarray as xr
from scipy.sparse.linalg import eigsh
from torch import Tensor

from neurovar.covariance import Covariance, Diagonal, LowRankPlusDiagonal, MeanShift
from neurovar.noise.transplant._axes import Eigen, eigen, principal_axes, random_axes
from neurovar.noise.transplant._target import stimulus_means
from neurovar.responses import validate

CONTROLS = (
    "diagonal",
    "isotropic",
    "rotated",
    "shuffled_spectrum",
    "flat_spectrum",
    "signal_aligned",
    "signal_orthogonal",
    "mean_shift",
)
SIGNAL = ("signal_aligned", "signal_orthogonal")
Maker = Callable[[np.random.Generator], Covariance]


class Controls(dict[str, Covariance]):
    """Noises by name, "transplanted" first; `left_out` says which controls are not among them, and why."""

    def __init__(self, noises: Mapping[str, Covariance], left_out: Mapping[str, str]) -> None:
        super().__init__(noises)
        self.left_out = dict(left_out)


def low_rank(noise: Covariance, *, rank: int) -> LowRankPlusDiagonal:
    """`noise` with its `rank` leading principal components kept and the rest of each variance made private.

    The variances stay exact; covariances outside the leading components are lost.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    >>> low_rank(Dense(matrix), rank=1).diagonal()
    tensor([2., 2., 1.])
    """
    if not 1 <= rank < noise.n:
        raise ValueError(f"expected a rank from 1 to {noise.n - 1}, got {rank}")
    matrix = noise.to_dense().cpu().double().numpy()
    values, vectors = eigsh(matrix, k=rank, v0=np.random.default_rng(0).standard_normal(noise.n))
    factors = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0))).to(noise.diagonal())
    return LowRankPlusDiagonal(factors, (noise.diagonal() - factors.square().sum(1)).clamp(min=0))


def diagonal(noise: Covariance) -> Diagonal:
    """Control: the same variances, no correlations."""
    return Diagonal(noise.diagonal().clone())


def isotropic(noise: Covariance) -> Diagonal:
    """Control: the same trace, equal and independent for all units."""
    return Diagonal(torch.full_like(noise.diagonal(), noise.trace() / noise.n))


def rotated(noise: Covariance, *, rng: np.random.Generator | int) -> Covariance:
    """Control: the same spectrum under a random rotation, so that only alignment with the network is lost.

    This and the other controls of the spectrum keep the `rank` leading eigenvalues of `LowRankPlusDiagonal` and replace
    the others by their mean, which keeps the trace and O(n·r) memory; of other types they keep every eigenvalue, and
    are `Dense`. Of state-dependent noise and of sums, those of the average covariance.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> turned = rotated(Dense(torch.diag(torch.tensor([3.0, 1.0]))), rng=0)
    >>> turned.spectrum().numpy().round(4)
    array([3., 1.])
    """
    noise = noise._gaussian()
    return _rotated(eigen(noise), np.random.default_rng(rng)).covariance(noise.diagonal())


def shuffled_spectrum(noise: Covariance, *, rng: np.random.Generator | int) -> Covariance:
    """Control: the same eigenvectors and eigenvalues, but each eigenvector with the eigenvalue of another.

    At random; of `LowRankPlusDiagonal` among its `rank` leading eigenvectors (see `rotated`).

    Raises
    ------
    ValueError : if there is but one eigenvector to shuffle.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> shuffled_spectrum(Dense(torch.diag(torch.tensor([3.0, 1.0]))), rng=0).diagonal()
    tensor([1., 3.])
    """
    noise = noise._gaussian()
    return _shuffled(eigen(noise), np.random.default_rng(rng)).covariance(noise.diagonal())


def flat_spectrum(noise: Covariance) -> Covariance:
    """Control: the same eigenvectors at equal rank, but with equal eigenvalues.

    Of `LowRankPlusDiagonal` the `rank` leading eigenvalues are replaced by their mean, of other types those that are
    not 0: for noise of full rank this is `isotropic`.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> flat_spectrum(Dense(torch.diag(torch.tensor([3.0, 1.0, 0.0])))).diagonal()
    tensor([2., 2., 0.])
    """
    noise = noise._gaussian()
    return _flat(eigen(noise), noise.dtype).covariance(noise.diagonal())


def signal_aligned(
    noise: Covariance, target: xr.DataArray, *, n_dims: int, rng: np.random.Generator | int
) -> Covariance:
    """Control: the largest eigenvalues in the `n_dims` leading dimensions of the target's signal, others elsewhere.

    The k-th largest lies on the k-th principal axis of the target's stimulus means, the others in random directions
    orthogonal to these: no noise with this spectrum (see `rotated`) has more variance in the signal's dimensions
    (`statistics.noise_in_signal`). The means of a target with few repeats have noise in them, and so their axes.

    Raises
    ------
    ValueError : if the target has not the units of the noise, or varies along fewer than `n_dims` dimensions.
    """
    noise = noise._gaussian()
    signal = _signal_axes(target, noise.n, n_dims)
    return _aligned(eigen(noise), signal, np.random.default_rng(rng)).covariance(noise.diagonal())


def signal_orthogonal(
    noise: Covariance, target: xr.DataArray, *, n_dims: int, rng: np.random.Generator | int
) -> Covariance:
    """Control: the largest eigenvalues out of the `n_dims` leading dimensions of the target's signal.

    In random directions orthogonal to them; the smallest eigenvalues are left for the signal's dimensions, the very
    smallest for the first: no noise with this spectrum (see `rotated`) has less variance there.

    Raises
    ------
    ValueError : as of `signal_aligned`.
    """
    noise = noise._gaussian()
    signal = _signal_axes(target, noise.n, n_dims)
    return _orthogonal(eigen(noise), signal, np.random.default_rng(rng)).covariance(noise.diagonal())


def with_controls(
    noise: Covariance,
    *,
    rng: np.random.Generator | int,
    target: xr.DataArray | None = None,
    n_dims: int | None = None,
    mean_shift: Tensor | None = None,
    only: Sequence[str] | None = None,
) -> Controls:
    """The noise and the controls that separate hypotheses about it, all at its trace.

    - `diagonal`: do correlations matter? The same variances without them.
    - `isotropic`: does any structure matter?
    - `rotated`: do directions matter? The same spectrum in random ones.
    - `shuffled_spectrum`: does it matter which direction has how much? The same eigenvectors and eigenvalues.
    - `flat_spectrum`: does it matter that directions differ? The same eigenvectors at equal rank, equal eigenvalues.
    - `signal_aligned`, `signal_orthogonal`: does overlap with the signal matter? The same spectrum in the `n_dims`
      leading dimensions of the signal of `target`, or out of them.
    - `mean_shift`: does it have to vary? A constant of the same power.

    Parameters
    ----------
    noise : state-dependent noise has controls of its average covariance. Those of the spectrum of
        `LowRankPlusDiagonal` replace the eigenvalues after the `rank` leading ones by their mean (see `rotated`): where
        its private variances differ, compare effective dimensionalities, or give `Dense(noise.to_dense())`.
    target : responses of the units that get the noise, for the two controls of the signal, with `n_dims`.
    mean_shift : (unit,) the direction of the constant, such as the mean of the deviations that the noise comes from.
    only : names of the controls that are wanted; by default all that can be made from what is given.

    Returns
    -------
    Controls : a dict, "transplanted" first. What is not in it is in its `left_out`, each with what it needs.

    Raises
    ------
    ValueError : if a name in `only` is unknown or needs what is not given, or what is given does not fit the noise.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> noises = with_controls(Dense(torch.diag(torch.tensor([3.0, 2.0, 1.0]))), rng=0, mean_shift=torch.ones(3))
    >>> {name: round(c.trace(), 3) for name, c in noises.items()}
    {'transplanted': 6.0, 'diagonal': 6.0, 'isotropic': 6.0, 'rotated': 6.0, 'shuffled_spectrum': 6.0, \
'flat_spectrum': 6.0, 'mean_shift': 6.0}
    >>> noises.left_out
    {'signal_aligned': 'needs target= and n_dims=', 'signal_orthogonal': 'needs target= and n_dims='}
    """
    average = noise._gaussian()
    left_out = _left_out(average, target, n_dims, mean_shift, only)
    make = _makers(average, target, n_dims, mean_shift)
    seeds = np.random.default_rng(rng).integers(2**63, size=len(CONTROLS))  # of each, whichever are made
    rngs = {name: np.random.default_rng(seed) for name, seed in zip(CONTROLS, seeds)}
    controls = {name: make[name](rngs[name]) for name in CONTROLS if name not in left_out}
    return Controls({"transplanted": noise} | controls, left_out)


def _makers(
    average: Covariance, target: xr.DataArray | None, n_dims: int | None, mean_shift: Tensor | None
) -> dict[str, Maker]:
    """How to make each control that can be made; the eigenvectors, which cost most, are found once."""
    found = cache(lambda: eigen(average))

    def of_spectrum(change: Callable[..., Eigen], *others: Callable[[], Tensor]) -> Maker:
        return lambda rng: change(found(), *(one() for one in others), rng).covariance(average.diagonal())

    make: dict[str, Maker] = {
        "diagonal": lambda rng: diagonal(average),
        "isotropic": lambda rng: isotropic(average),
        "rotated": of_spectrum(_rotated),
        "shuffled_spectrum": of_spectrum(_shuffled),
        "flat_spectrum": lambda rng: _flat(found(), average.dtype).covariance(average.diagonal()),
    }
    if target is not None and n_dims is not None:
        signal = cache(lambda: _signal_axes(target, average.n, n_dims))
        make |= {"signal_aligned": of_spectrum(_aligned, signal), "signal_orthogonal": of_spectrum(_orthogonal, signal)}
    if mean_shift is not None:
        make["mean_shift"] = lambda rng: _shift(mean_shift, average)
    return make


def _left_out(
    average: Covariance,
    target: xr.DataArray | None,
    n_dims: int | None,
    mean_shift: Tensor | None,
    only: Sequence[str] | None,
) -> dict[str, str]:
    """Why controls are not made, by name."""
    if (target is None) != (n_dims is None):
        raise ValueError(f"expected target and n_dims together, got n_dims {n_dims} and {type(target).__name__}")
    needs = {} if target is not None else dict.fromkeys(SIGNAL, "needs target= and n_dims=")
    if mean_shift is None:
        needs["mean_shift"] = "needs mean_shift="
    if average.n == 1 or (isinstance(average, LowRankPlusDiagonal) and average.rank == 1):
        needs["shuffled_spectrum"] = "needs two leading eigenvectors"
    if only is None:
        return needs
    unknown = [name for name in only if name not in CONTROLS]
    if unknown or isinstance(only, str):
        raise ValueError(f"expected names of controls ({', '.join(CONTROLS)}), got {only!r}")
    for name in only:
        if name in needs:
            raise ValueError(f"expected what the control {name!r} needs, got none: it {needs[name]}")
    return {name: needs.get(name, "not asked for") for name in CONTROLS if name not in only}


def _signal_axes(target: xr.DataArray, n: int, n_dims: int) -> Tensor:
    """The `n_dims` leading principal axes (n, n_dims) of the target's stimulus means."""
    validate(target)
    if target.sizes["unit"] != n:
        raise ValueError(f"expected a target with the {n} units of the noise, got {target.sizes['unit']}")
    _, axes = principal_axes(stimulus_means(target))
    most = min(axes.shape[1], n - 1)
    if not 1 <= n_dims <= most:
        raise ValueError(f"expected n_dims from 1 to {most}, along which the target's signal varies, got {n_dims}")
    return axes[:, :n_dims]


def _rotated(found: Eigen, rng: np.random.Generator) -> Eigen:
    return found.on(random_axes(*found.axes.shape, rng=rng))


def _shuffled(found: Eigen, rng: np.random.Generator) -> Eigen:
    """Eigenvalues moved along a random cycle, so that each moves."""
    order = torch.from_numpy(rng.permutation(len(found.values)))
    if len(order) < 2:
        raise ValueError(f"expected noise with two leading eigenvectors to shuffle, got {len(order)}")
    values = found.values.clone()
    values[order] = found.values[order.roll(1)]
    return found.with_values(values)


def _flat(found: Eigen, dtype: torch.dtype) -> Eigen:
    """The mean of the eigenvalues above `rest`, by more than the rounding of the matrix makes of 0."""
    rounding = torch.finfo(dtype).eps * len(found.axes) ** 0.5 * found.values[0]
    kept = found.values - found.rest > rounding
    return found.with_values(torch.where(kept, found.values[kept].mean(), found.values))


def _aligned(found: Eigen, signal: Tensor, rng: np.random.Generator) -> Eigen:
    n, rank = found.axes.shape
    n_dims = signal.shape[1]
    if rank <= n_dims:
        return found.on(signal[:, :rank])
    return found.on(torch.cat([signal, random_axes(n, rank - n_dims, rng=rng, outside=signal)], dim=1))


def _orthogonal(found: Eigen, signal: Tensor, rng: np.random.Generator) -> Eigen:
    n, rank = found.axes.shape
    outside = random_axes(n, min(rank, n - signal.shape[1]), rng=rng, outside=signal)
    return found.on(torch.cat([outside, signal.flip(1)[:, : rank - outside.shape[1]]], dim=1))


def _shift(mean_shift: Tensor, average: Covariance) -> MeanShift:
    shift = MeanShift(mean_shift.to(average.diagonal()))
    if shift.n != average.n:
        raise ValueError(f"expected a mean shift of {average.n} units, got {shift.n}")
    return shift.scale_to(trace=average.trace())
