"""How much of the noise lies in the dimensions of the signal."""

from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, to_device
from scipy.linalg import subspace_angles

from neurovar.responses import repeat_counts
from neurovar.statistics._estimator import Needs, estimator, require_repeats, require_splits
from neurovar.statistics._groups import distinct
from neurovar.statistics.estimation._halves import (
    SPLIT_WITHIN,
    class_covariances,
    halves,
    signal_covariance_of,
)

SIGNAL_AND_NOISE = Needs(stimuli=3, together=True, noise=True)


@estimator(SIGNAL_AND_NOISE)
def noise_in_signal(
    responses: xr.DataArray,
    *,
    n_dims: int,
    n_splits: int = 20,
    rng: np.random.Generator | int,
    by: str | None = None,
) -> xr.Dataset:
    """Fraction of the noise variance that lies in the leading dimensions of the signal.

    tr(Vᵀ C V) / tr C: C is the noise covariance, pooled over stimuli, V the `n_dims` leading eigenvectors of the signal
    covariance, that of the stimuli's noise-free means. The covariance of the measured means has noise in it,
    C / repeats, which turns V toward the noise, and V that share trials with C fit its sampling noise: either inflates
    the alignment. Here V come from one half of the trials and C from the other, averaged over `n_splits` random
    halves, and the noise of the means is taken off, S = cov(x̄_s) − mean over s of C_s / Rₛ, which is unbiased (dof:
    stimuli − 1) also where the noise differs between stimuli. The halves are of each stimulus's repeats; stimuli with
    two or three repeats go to one half as a whole.

    Isotropic noise gives chance without bias. Otherwise the estimated V are mixed with other dimensions j > n_dims:
    where noise and signal have the same axes, with variances c and λ, and each half has r repeats, the bias is
    Σ_{i ≤ n_dims < j} (c_j − c_i) v_ij / (λ_i − λ_j)² / tr C, to first order in
    v_ij = (λ_i + c_i/r)(λ_j + c_j/r)/(stimuli − 1) + c_i c_j/(r²(r − 1) stimuli), the variance of S_ij. It falls as
    1/stimuli, is negative for aligned and positive for orthogonal noise, and is several times larger where few
    stimuli and repeats leave v_ij not much below (λ_i − λ_j)²: compare systems with the same stimuli and repeats.
    Units that never vary between repeats count in `chance`; responses.drop_constant removes them.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_dims : int
        The number of leading dimensions, below the number of units and of stimuli in half of the trials.
    n_splits : int, optional
        The number of random halves to average over.
    rng : numpy.random.Generator or int
        Draws the random halves.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        With the scalars `fraction`; `chance`, n_dims / units, that of isotropic noise or of a signal in a random
        direction; `maximum`, the fraction in the `n_dims` leading dimensions of the noise, likewise found in the other
        half (which biases it down).

    Raises
    ------
    ValueError
        If responses are not valid, `n_dims` or `n_splits` is out of range, or nothing varies between repeats.

    References
    ----------
    Cohen & Kohn 2011, doi:10.1038/nn.2842, on noise and signal; the estimator is ours.

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=200, n_repeats=6, n_units=10, rng=0)
    >>> aligned = noise_in_signal(da, n_dims=2, rng=0)
    >>> float(aligned.chance), float(aligned.fraction.round(1))
    (0.2, 0.2)
    """
    _require(responses, n_splits, n_dims=n_dims)
    fraction, maximum = noise_in_signal_kernel(responses.values, n_dims, n_splits, np.random.default_rng(rng))
    quantities = {"fraction": fraction, "chance": n_dims / responses.sizes["unit"], "maximum": maximum}
    return xr.Dataset(quantities, attrs={"n_dims": n_dims, "n_splits": n_splits})


def noise_in_signal_kernel(values: Any, n_dims: int, n_splits: int, rng: np.random.Generator) -> tuple[float, float]:
    """`fraction` and `maximum` for an array (stimulus, repeat, unit), NumPy's or a torch tensor. O(units³) a split.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_dims : int
        The number of leading dimensions.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the random halves.

    Returns
    -------
    tuple of float
        The fraction along the signal's dimensions, and along the noise's own.
    """
    total = np.zeros(2)
    for _ in range(n_splits):
        first, second = halves(values, rng)
        axes = _leading_axes(signal_covariance_of(first), n_dims), _leading_axes(first.noise.T @ first.noise, n_dims)
        total += [_fraction(second.noise, span) for span in axes]
    fraction, maximum = (total / n_splits).tolist()
    return fraction, maximum


@estimator(SIGNAL_AND_NOISE)
def principal_angles(
    responses: xr.DataArray,
    *,
    n_signal: int,
    n_noise: int,
    n_splits: int = 20,
    rng: np.random.Generator | int,
    by: str | None = None,
) -> xr.Dataset:
    """Principal angles between the leading dimensions of the signal and of the noise.

    The angles, smallest first, between the span of the `n_signal` leading eigenvectors of the signal covariance and
    that of the `n_noise` leading ones of the noise covariance, from disjoint halves of the trials, as in
    `noise_in_signal`, averaged over `n_splits`. Both spans are estimates, and sampling noise turns them apart: angles
    are too large, by less the more stimuli and trials there are, so that 0° is not reached; `chance` shows the other
    end.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_signal, n_noise : int
        The numbers of leading dimensions: both below the number of units, `n_signal` below that of stimuli too.
    n_splits : int, optional
        The number of random halves to average over.
    rng : numpy.random.Generator or int
        Draws the random halves.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        In degrees: `angle` (rank), rank from 1 to the smaller of the two numbers, and `chance` (rank), the mean over
        `n_splits` random spans of these dimensions.

    Raises
    ------
    ValueError
        If responses are not valid, a number of dimensions or `n_splits` is out of range, or nothing varies between
        repeats.

    References
    ----------
    Björck & Golub 1973, doi:10.1090/S0025-5718-1973-0348991-3

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=200, n_repeats=6, n_units=10, rng=0)
    >>> principal_angles(da, n_signal=2, n_noise=3, rng=0).angle.shape
    (2,)
    """
    _require(responses, n_splits, n_signal=n_signal)
    n_units = responses.sizes["unit"]
    if not 1 <= n_noise < n_units:
        raise ValueError(f"expected n_noise from 1 to {n_units - 1} ({n_units} units), got {n_noise}")
    rng = np.random.default_rng(rng)
    angle = principal_angles_kernel(responses.values, n_signal, n_noise, n_splits, rng)
    # Gaussian columns span a direction that is uniform over all of them.
    spans = [[rng.standard_normal((n_units, n)) for n in (n_signal, n_noise)] for _ in range(n_splits)]
    chance = np.mean([_angles(*pair) for pair in spans], axis=0)
    return xr.Dataset(
        {"angle": ("rank", angle, {"units": "degrees"}), "chance": ("rank", chance, {"units": "degrees"})},
        coords={"rank": np.arange(1, len(angle) + 1)},
        attrs={"n_signal": n_signal, "n_noise": n_noise, "n_splits": n_splits},
    )


def principal_angles_kernel(
    values: Any, n_signal: int, n_noise: int, n_splits: int, rng: np.random.Generator
) -> np.ndarray:
    """`angle` for an array (stimulus, repeat, unit), NumPy's or a torch tensor. O(units³) a split.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    n_signal : int
        The number of the signal's dimensions.
    n_noise : int
        The number of the noise's dimensions.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the random halves.

    Returns
    -------
    numpy.ndarray
        Angles in degrees, smallest first.
    """
    total = np.zeros(min(n_signal, n_noise))
    for _ in range(n_splits):
        first, second = halves(values, rng)
        signal = _leading_axes(signal_covariance_of(first), n_signal)
        noise = _leading_axes(second.noise.T @ second.noise, n_noise)
        total += _angles(*(np.asarray(to_device(axes, "cpu")) for axes in (signal, noise)))
    return total / n_splits


@estimator(SIGNAL_AND_NOISE)
def class_alignment(
    responses: xr.DataArray,
    *,
    classes: str,
    n_dims: int,
    n_splits: int = 20,
    rng: np.random.Generator | int,
    by: str | None = None,
) -> xr.Dataset:
    """Fractions of the noise variance along in-class and along out-of-class variation of the stimuli.

    In-class variation: the covariance of the stimuli's noise-free means about their class's mean, pooled over K
    classes of n_k stimuli (dof Σ(n_k − 1)). Out-of-class variation: the covariance of the classes' means (dof K − 1),
    less what in-class variation and noise add to them by chance, the mean over k of W_k / n_k, W_k being the
    covariance of the measured means in class k. Both are unbiased, and come from one half of the trials, as in
    `noise_in_signal`, where the biases of the fractions are described. Stimuli with fewer than four repeats are left
    out.

    Hu et al. found that noise in mouse visual cortex aligns better with in-clip than with out-of-clip variation of
    natural movies, and argued that noise along in-class variation helps generalization. Only the paper's abstract was
    available: the definition here is ours, so that numbers are not comparable with the paper's.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    classes : str
        The coordinate of stimulus that has the classes.
    n_dims : int
        The number of leading dimensions of either variation, below the number of classes and of units.
    n_splits : int, optional
        The number of random halves to average over.
    rng : numpy.random.Generator or int
        Draws the random halves.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    Dataset
        With the scalars `in_class`, `out_of_class`, `chance`, n_dims / units, and `maximum`, the fraction in the
        `n_dims` leading dimensions of the noise, likewise found in the other half.

    Raises
    ------
    ValueError
        If responses are not valid, `classes` is no coordinate of stimulus, a class has fewer than two stimuli with four
        repeats, `n_dims` or `n_splits` is out of range, or nothing varies between repeats.

    References
    ----------
    Hu, Shang, Iyer, Siegle & Mihalas 2019, Does the neuronal noise in cortex help generalization?, NeurIPS workshop
    Real Neurons & Hidden Units, openreview.net/forum?id=S1gc4XF8Lr

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=60, n_repeats=6, n_units=10, rng=0)
    >>> da = da.assign_coords(clip=("stimulus", np.arange(60) // 10))
    >>> float(class_alignment(da, classes="clip", n_dims=2, rng=0).chance)
    0.2
    """
    kept, labels = _repeated_classes(responses, classes)
    _require(kept, n_splits, n_dims=n_dims, n_classes=labels.max() + 1)
    in_class, out_of_class, maximum = class_alignment_kernel(
        kept.values, labels, n_dims, n_splits, np.random.default_rng(rng)
    )
    chance = n_dims / responses.sizes["unit"]
    quantities = {"in_class": in_class, "out_of_class": out_of_class, "chance": chance, "maximum": maximum}
    return xr.Dataset(quantities, attrs={"classes": classes, "n_dims": n_dims, "n_splits": n_splits})


def class_alignment_kernel(
    values: Any, labels: np.ndarray, n_dims: int, n_splits: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """`in_class`, `out_of_class` and `maximum` for an array (stimulus, repeat, unit) with four repeats or more.

    `labels` are integers from 0; `values` are NumPy's or a torch tensor. O(units³) a split.

    Parameters
    ----------
    values : array of NumPy or torch
        (stimulus, repeat, unit), NaN where a repeat is absent.
    labels : numpy.ndarray
        (stimulus,), integers from 0.
    n_dims : int
        The number of leading dimensions.
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator
        Draws the random halves.

    Returns
    -------
    tuple of float
        The fractions along in-class and out-of-class variation, and along the noise's own dimensions.
    """
    total = np.zeros(3)
    for _ in range(n_splits):
        first, second = halves(values, rng)
        matrices = *class_covariances(first, labels), first.noise.T @ first.noise
        total += [_fraction(second.noise, _leading_axes(matrix, n_dims)) for matrix in matrices]
    in_class, out_of_class, maximum = (total / n_splits).tolist()
    return in_class, out_of_class, maximum


def _require(responses: xr.DataArray, n_splits: int, *, n_classes: int | None = None, **n_dims: int) -> None:
    """Raise ValueError unless the halves of the trials have noise and so many signal dimensions."""
    require_splits(n_splits)
    n_units = responses.sizes["unit"]
    n_repeats = repeat_counts(responses).values
    n_few = int(((n_repeats > 1) & (n_repeats < SPLIT_WITHIN)).sum())
    # Stimuli with four repeats are in both halves, of the others every second one.
    n_points, what = int((n_repeats >= SPLIT_WITHIN).sum()) + n_few // 2, "stimuli in half of the trials"
    if n_classes is not None:
        n_points, what = n_classes, "classes"
    # A covariance of n points has n − 1 dimensions, and a span of all units would hold all noise.
    most = min(n_points, n_units) - 1
    for name, number in n_dims.items():
        if not 1 <= number <= most:
            raise ValueError(
                f"expected {name} of at least 1, below the {n_points} {what} and the {n_units} units, got {number}"
            )


def _repeated_classes(responses: xr.DataArray, classes: str) -> tuple[xr.DataArray, np.ndarray]:
    """The stimuli with enough repeats to be split, and the number of each one's class, from 0."""
    n_repeats = repeat_counts(responses).values
    require_repeats(n_repeats, SPLIT_WITHIN)
    available = [str(name) for name, coord in responses.coords.items() if coord.dims == ("stimulus",)]
    if classes not in available:
        raise ValueError(f"expected classes= a coordinate of stimulus ({', '.join(available)}), got {classes!r}")
    names, labels = distinct(responses[classes])
    kept = np.flatnonzero(n_repeats >= SPLIT_WITHIN)
    counts = np.bincount(labels[kept], minlength=len(names))
    if counts.min() < 2:
        raise ValueError(
            f"expected at least 2 stimuli with {SPLIT_WITHIN} repeats of each of {len(names)} classes, "
            f"got {counts.min()} of {names[counts.argmin()]}"
        )
    return responses.isel(stimulus=kept), labels[kept]


def _leading_axes(covariance: Any, n_dims: int) -> Any:
    """(unit, dim)"""
    # eigh has eigenvalues in ascending order.
    return array_namespace(covariance).linalg.eigh(covariance)[1][:, -n_dims:]


def _fraction(noise: Any, axes: Any) -> float:
    """The part of the summed squares of `noise` (trial, unit) that lies along `axes` (unit, dim)."""
    return float(((noise @ axes) ** 2).sum() / (noise**2).sum())


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Principal angles in degrees, smallest first."""
    # SciPy gives the largest first.
    return np.degrees(subspace_angles(first, second)[::-1])
