"""Cross-validated eigenspectra of the signal, and power-law fits."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from neurovar.responses import repeat_counts, split_kernel, validate


@dataclass(frozen=True)
class PowerLaw:
    """λₙ = amplitude · n^−exponent over ranks lo ≤ n ≤ hi, both counted from 1 and included."""

    exponent: float
    amplitude: float
    ranks: tuple[int, int]


class UnreliableFit(ValueError):
    """Raised instead of a fit that cannot be trusted; `estimate` is what it would have been."""

    def __init__(self, message: str, estimate: PowerLaw) -> None:
        super().__init__(message)
        self.estimate = estimate


def signal_spectrum(
    responses: xr.DataArray, *, method: str, n_splits: int, rng: np.random.Generator | int
) -> xr.DataArray:
    """Cross-validated eigenspectrum of the signal.

    method = "cvpca": X₁, X₂ (stimulus, unit) are means over disjoint random halves of the repeats, each unit centred
    over stimuli; u_n is the n-th principal axis of X₁, and λₙ = Σ_s (X₁u_n)_s (X₂u_n)_s / (S − 1), averaged over
    `n_splits` splits. Noise in X₂ is independent of X₁, so that it adds nothing on average: Σλ is unbiased for the
    signal variance; single λₙ are biased as far as noise in X₁ turns its axes, and may be negative. Isotropic noise
    moves variance from the first ranks to the middle ones. Shared noise does more harm: an axis along which the noise
    in X₁ outweighs the signal takes an early rank with little signal variance; the spectrum has a hole there, and its
    exponent is off by 0.1 and more, mostly downward. More repeats help, more splits do not.

    Differences from the published code (Stringer et al. 2019, github.com/MouseLand/stringer-pachitariu-et-al-2018b):
    that gives the sum over stimuli, without 1/(S − 1); it exchanges the two repeats of each stimulus at random with
    one half, which is what a random split is for two repeats; and its PCA takes off each stimulus's mean over units,
    as it is fitted to the transpose.

    Returns
    -------
    DataArray (rank), in squared units of the responses; ranks from 1 to min(stimuli − 1, units, 1024)

    Raises
    ------
    ValueError : for another method, invalid responses, or fewer than three stimuli with two repeats.

    References
    ----------
    Stringer et al. 2019, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> from neurovar import simulation
    >>> da = simulation.population(n_stimuli=300, n_repeats=2, n_units=40, exponent=1.0, rng=0)
    >>> spectrum = signal_spectrum(da, method="cvpca", n_splits=5, rng=0)
    >>> spectrum.sizes["rank"], int(spectrum["rank"][0])
    (40, 1)
    """
    if method != "cvpca":
        raise ValueError(f"expected method 'cvpca', got {method!r}")
    if n_splits < 1:
        raise ValueError(f"expected at least 1 split, got {n_splits}")
    validate(responses, min_repeats=2)
    repeated = repeat_counts(responses).values > 1
    if repeated.sum() < 3:
        raise ValueError(f"expected at least 3 stimuli with 2 repeats, got {repeated.sum()}")
    values = cvpca_kernel(responses.values[repeated], n_splits, np.random.default_rng(rng))
    attrs = {"method": method, "n_splits": n_splits, "units": f"({responses.attrs.get('units', '?')})²"}
    return xr.DataArray(values, dims="rank", coords={"rank": np.arange(1, len(values) + 1)}, attrs=attrs)


def cvpca_kernel(values: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """cvPCA of an array (stimulus, repeat, unit) in which every stimulus has two repeats: eigenvalues (rank,)."""
    return np.mean([cross_spectrum_kernel(*split_kernel(values, rng)) for _ in range(n_splits)], axis=0)


def cross_spectrum_kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Variance of `second` along the principal axes of `first`, both (stimulus, unit): eigenvalues (rank,)."""
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    left, singular, axes = np.linalg.svd(first, full_matrices=False)
    n = min(len(first) - 1, first.shape[1], 1024)
    scores, other = left[:, :n] * singular[:n], second @ axes[:n].T
    return (scores * other).sum(axis=0) / (len(first) - 1)


def fit_power_law(spectrum: xr.DataArray, *, ranks: tuple[int, int]) -> PowerLaw:
    """Exponent α of λₙ ∝ n^−α over a window of ranks.

    Weighted least squares of log λₙ on −log n with weights 1/n, so that each octave counts alike. A finite window
    cannot certify an asymptotic exponent, and its value depends on the window and on the estimator of the spectrum:
    compare like with like. Residuals at neighbouring ranks are correlated, so the fit has no honest standard error
    of its own: bootstrap over stimuli (`comparison.compare`).

    Parameters
    ----------
    spectrum : DataArray (rank), with `rank` counted from 1
    ranks : first and last rank, both included; there is no default, because the science has none.

    Raises
    ------
    ValueError : if the window is outside the spectrum or holds fewer than three ranks.
    UnreliableFit : a ValueError, if a variance in the window is not positive; it carries the estimate from the
        positive ones.

    References
    ----------
    Stringer et al. 2019, doi:10.1038/s41586-019-1346-5

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> n = np.arange(1, 101)
    >>> spectrum = xr.DataArray(5.0 / n, dims="rank", coords={"rank": n})
    >>> fit = fit_power_law(spectrum, ranks=(2, 50))
    >>> round(fit.exponent, 6), round(fit.amplitude, 6)
    (1.0, 5.0)
    """
    if spectrum.dims != ("rank",) or "rank" not in spectrum.coords:
        raise ValueError(f"expected a spectrum with dim and coordinate 'rank', got dims {spectrum.dims}")
    low, high = ranks
    available = spectrum["rank"].values
    if low < available.min() or high > available.max() or high - low < 2:
        raise ValueError(
            f"expected a window of at least 3 ranks within {available.min()}–{available.max()}, got {low}–{high}"
        )
    window = spectrum.sel(rank=slice(low, high))
    rank, value = window["rank"].values.astype(float), window.values
    positive = value > 0
    if positive.sum() < 2:
        raise ValueError(f"expected positive variances at ranks {low}–{high}, got {int(positive.sum())}")
    exponent, amplitude = power_law_kernel(rank[positive], value[positive])
    fit = PowerLaw(exponent, amplitude, (int(low), int(high)))
    if not positive.all():
        raise UnreliableFit(
            f"expected positive variances at ranks {low}–{high}, got {int((~positive).sum())} that are not "
            f"(first at rank {int(rank[~positive][0])}); the others alone give an exponent of {exponent:.2f}. "
            "Choose a lower window or use more repeats",
            fit,
        )
    return fit


def power_law_kernel(rank: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    """Exponent and amplitude by least squares of log value on −log rank with weights 1/rank."""
    slope, intercept = np.polyfit(-np.log(rank), np.log(value), 1, w=rank**-0.5)
    return float(slope), float(np.exp(intercept))
