"""Eigenspectra of signal and noise, each measured in other trials than those that gave the axes."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts
from neurovar.statistics._estimator import Needs, estimator, require_repeats, require_splits, squared_units
from neurovar.statistics.spectra._algebra import Array, repeated_values
from neurovar.statistics.spectra._cross_decomposition import cross_decomposition
from neurovar.statistics.spectra._cvpca import cvpca
from neurovar.statistics.spectra._noise import noise_cross_decomposition, noise_cvpca
from neurovar.statistics.spectra._out_of_core import Kernel, spectrum_out_of_core

SIGNAL: dict[str, Kernel] = {"cvpca": cvpca, "cross_decomposition": cross_decomposition}
NOISE: dict[str, Kernel] = {"cvpca": noise_cvpca, "cross_decomposition": noise_cross_decomposition}
LEAST = {
    ("signal", "cvpca"): (3, 2),
    ("signal", "cross_decomposition"): (6, 2),
    ("noise", "cvpca"): (1, 4),
    ("noise", "cross_decomposition"): (2, 2),
}
"""How many stimuli with how many repeats a method needs."""


@estimator(Needs())
def signal_spectrum(
    responses: xr.DataArray, *, method: str, n_splits: int, rng: np.random.Generator | int, by: str | None = None
) -> xr.DataArray:
    """Eigenspectrum of the signal without the variance of the noise.

    X₁, X₂ (stimulus, unit) are means over disjoint random halves of the repeats, each unit centred over stimuli;
    λₙ = Σ_s (X₁uₙ)_s (X₂uₙ)_s / (S − 1), averaged over `n_splits` splits. As X₁ and X₂ share no trial, noise adds
    nothing on average. Whole trials are split, never single units, because units of a trial share noise. Spectra of
    two methods are not to be compared: each has its own axes, and so its own bias.

    method = "cvpca" (Stringer et al. 2019): uₙ is the n-th principal axis of X₁ itself. Bias: Σλ is unbiased for the
    signal variance if all ranks are there; single λₙ are biased, and may be negative. Noise in X₁ turns the axes:
    isotropic noise moves variance from the first ranks to the middle ones. Shared noise does more harm: an axis along
    which the noise in X₁ outweighs the signal takes an early rank with little signal variance; the spectrum has a hole
    there, and its exponent is off, mostly downward, by 0.1 and more (with half of the noise along two axes, noise as
    large as the signal, 4 repeats and 60 units: 0.4). More repeats help, more splits do not. And the axes suit these
    stimuli better than others: with half as many stimuli as units, middle ranks are a third too large and the last
    ones far too small, even without noise.

    method = "cross_decomposition" (after Gauthaman et al. 2024): a random half of the stimuli gives the axes, the
    eigenvectors of X₁ᵀX₂ + X₂ᵀX₁; the other half gives λₙ. Bias: λₙ is unbiased for the signal variance along uₙ, but
    uₙ is only near the n-th axis of the signal. So the sum over the first k ranks is too small for every k, as no k
    axes hold more than the first k true ones, and single λₙ are the lower the higher the rank. The last axes are almost
    random and share what is left: they have too much of it, or, where there are fewer training stimuli than units, it
    is lost (Σλ is unbiased only for fewer units). With noise as large as the signal, 300 stimuli and 600 units, λₙ of
    a 1/n signal is 10 % too low at the first rank and 45 % at ranks 20 to 50.

    Differences from published code: of cvPCA (github.com/MouseLand/stringer-pachitariu-et-al-2018b), that gives the
    sum over stimuli, without 1/(S − 1), and its PCA takes off each stimulus's mean over units, as it is fitted to the
    transpose; it exchanges the two repeats of each stimulus at random with one half, which is what a random split is
    for two repeats. Cross-decomposition of two systems has one set of axes for each of them; here is one system, and
    one set, so that each λₙ is a variance.

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    method : str
        "cvpca" or "cross_decomposition".
    n_splits : int
        The number of random halves to average over.
    rng : numpy.random.Generator or int
        Draws the random halves.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (rank), in squared units of the responses, with attrs["method"]; ranks from 1 to min(stimuli − 1, units, 1024),
        stimuli being those of the training half for "cross_decomposition". With `by`, one for each group, NaN at ranks
        that it does not have.

    Raises
    ------
    ValueError
        For another method, invalid responses, or fewer than three ("cross_decomposition": six) stimuli with two
        repeats.

    References
    ----------
    Stringer et al. 2019, doi:10.1038/s41586-019-1346-5; Gauthaman, Ménard & Bonner 2024, arXiv:2409.06843

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=300, n_repeats=2, n_units=40, exponent=1.0, rng=0)
    >>> spectrum = signal_spectrum(da, method="cvpca", n_splits=5, rng=0)
    >>> spectrum.sizes["rank"], int(spectrum["rank"][0])
    (40, 1)
    """
    return _spectrum(responses, "signal", method, n_splits, rng)


@estimator(Needs(together=True))
def noise_spectrum(
    responses: xr.DataArray, *, method: str, n_splits: int, rng: np.random.Generator | int, by: str | None = None
) -> xr.DataArray:
    """Eigenspectrum of the noise covariance pooled over stimuli, its axes from other trials than its variances.

    uₙ is the n-th principal axis of the residuals of one set of trials; λₙ = Σ (r·uₙ)² / dof over the residuals r of
    another set, dof = Σ(Rₛ − 1) of that set, averaged over `n_splits` random splits. In method = "cvpca" the sets are
    halves of each stimulus's repeats, with residuals about the half's own mean; in "cross_decomposition" they are
    halves of the stimuli.

    Bias: λₙ is unbiased for the noise variance along uₙ, so that it lacks the inflation of the leading eigenvalues of
    a sample covariance; as the axes are estimates, the sum over the first k ranks is too small for every k, and what
    they lack stands at the last ranks, or is lost if the set for the axes has less dof than there are units (Σλ is
    unbiased for the total noise variance otherwise).

    Parameters
    ----------
    responses : DataArray
        (stimulus, repeat, unit), NaN where a repeat is absent.
    method : str
        "cvpca" or "cross_decomposition".
    n_splits : int
        The number of random splits to average over.
    rng : numpy.random.Generator or int
        Draws the sets of trials.
    by : str, optional
        A coordinate of unit or stimulus: each of its groups is then estimated alone, along a first dim of that name.

    Returns
    -------
    DataArray
        (rank), in squared units of the responses, with attrs["method"]; ranks from 1 to min(dof of the set for the
        axes, units, 1024). With `by`, one for each group, NaN at ranks that it does not have.

    Raises
    ------
    ValueError
        For another method, invalid responses, units that were not recorded together, no stimulus with four repeats
        ("cvpca"), or fewer than two stimuli with two ("cross_decomposition").

    Examples
    --------
    >>> from neurovar import statistics
    >>> da = statistics.population(n_stimuli=1, n_repeats=400, n_units=20, rng=0)
    >>> spectrum = noise_spectrum(da, method="cvpca", n_splits=5, rng=0)
    >>> bool(0.8 < spectrum.min() and spectrum.max() < 1.2)
    True
    """
    return _spectrum(responses, "noise", method, n_splits, rng)


def _spectrum(
    responses: xr.DataArray, of: str, method: str, n_splits: int, rng: np.random.Generator | int
) -> xr.DataArray:
    kernel, values = prepared(responses, of, method, n_splits)
    attrs = {"method": method, "of": of, "n_splits": n_splits, "units": squared_units(responses)}
    return ranked(kernel(values, n_splits, np.random.default_rng(rng)), attrs)


def ranked(values: np.ndarray, attrs: dict) -> xr.DataArray:
    return xr.DataArray(values, dims="rank", coords={"rank": np.arange(1, len(values) + 1)}, attrs=attrs)


def prepared(responses: xr.DataArray, of: str, method: str, n_splits: int) -> tuple[Kernel, Array]:
    """The kernel of a method and the values of valid responses that it takes, if they suffice."""
    kernels = SIGNAL if of == "signal" else NOISE
    if method not in kernels:
        raise ValueError(f"expected method {' or '.join(map(repr, kernels))}, got {method!r}")
    require_splits(n_splits)
    n_stimuli, n_repeats = LEAST[of, method]
    values = repeated_values(responses, repeats=n_repeats)
    if len(values) < n_stimuli:
        require_repeats(repeat_counts(responses).values, n_repeats)
        raise ValueError(f"expected at least {n_stimuli} stimuli with {n_repeats} repeats, got {len(values)}")
    kernel = kernels[method]
    # Of chunked responses only the smaller of trials × trials and units × units is brought into memory.
    if responses.chunks is not None:
        kernel = partial(spectrum_out_of_core, kernel=kernel, of=of, method=method)
    return kernel, values


def require_one_method(spectra: Iterable[xr.DataArray]) -> str:
    """The estimator that all spectra come from; an error where they differ, because their biases do.

    Parameters
    ----------
    spectra : iterable of DataArray
        Each with attrs["method"], as `signal_spectrum` and `noise_spectrum` give it.

    Returns
    -------
    str
        The method that all have in common.

    Raises
    ------
    ValueError
        If there is no spectrum, or they come from several methods or from unknown ones.

    Examples
    --------
    >>> require_one_method([ranked(np.ones(3), {"method": "cvpca"}), ranked(np.ones(3), {"method": "meme"})])
    Traceback (most recent call last):
    ...
    ValueError: expected spectra of one method, got cvpca, meme: their estimates are not comparable
    """
    methods = list(dict.fromkeys(str(spectrum.attrs.get("method", "unknown")) for spectrum in spectra))
    if len(methods) != 1 or methods == ["unknown"]:
        raise ValueError(
            f"expected spectra of one method, got {', '.join(methods) or 'none'}: their estimates are not comparable"
        )
    return methods[0]
