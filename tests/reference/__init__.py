"""Independent references: the definitions, written as plain loops or left to scipy and scikit-learn.

Nothing here imports `neurovar`. Arrays are (stimulus, repeat, unit) with NaN where a repeat is absent.
"""

from collections.abc import Iterator

import numpy as np
import xarray as xr
from sklearn.decomposition import PCA


def simulate(
    *,
    signal: np.ndarray,
    noise: np.ndarray,
    n_stimuli: int,
    n_repeats: int,
    seed: int,
    least_repeats: int | None = None,
    mean: np.ndarray | float = 0.0,
) -> xr.DataArray:
    """Gaussian responses with covariances `signal` over stimuli and `noise` over repeats.

    With `least_repeats`, every stimulus has a random number of repeats from that to `n_repeats`, at random positions.
    """
    rng = np.random.default_rng(seed)
    n_units = len(noise)
    tuning = rng.multivariate_normal(np.zeros(n_units), signal, size=n_stimuli, method="eigh") + mean
    values = tuning[:, None] + rng.multivariate_normal(
        np.zeros(n_units), noise, size=(n_stimuli, n_repeats), method="eigh"
    )
    if least_repeats is not None:
        for stimulus in range(n_stimuli):
            absent = n_repeats - rng.integers(least_repeats, n_repeats + 1)
            values[stimulus, rng.permutation(n_repeats)[:absent]] = np.nan
    return responses(values)


def apart(da: xr.DataArray) -> xr.DataArray:
    """The same responses, each unit a recording of its own."""
    return da.assign_coords(recording=("unit", np.arange(da.sizes["unit"])))


def recording(
    kind: str, *, n_units: int = 8, n_stimuli: int = 15, n_repeats: int = 6, least_repeats: int | None = 2
) -> xr.DataArray:
    """Responses with `noise_matrix(kind)` and `signal_matrix`."""
    return simulate(
        signal=signal_matrix(n_units),
        noise=noise_matrix(kind, n_units),
        n_stimuli=n_stimuli,
        n_repeats=n_repeats,
        least_repeats=least_repeats,
        seed=7,
    )


def responses(values: np.ndarray, *, units: str = "arbitrary") -> xr.DataArray:
    """An array as responses, with stimuli named s0, s1, ….  Written without `neurovar` on purpose."""
    ids = [f"s{i}" for i in range(len(values))]
    return xr.DataArray(values, dims=("stimulus", "repeat", "unit"), coords={"stimulus": ids}, attrs={"units": units})


def noise_matrix(kind: str, n_units: int) -> np.ndarray:
    """Isotropic noise, or structured: two shared factors and unequal private variances."""
    if kind == "isotropic":
        return 0.8 * np.eye(n_units)
    rng = np.random.default_rng(42)
    factors = rng.normal(size=(n_units, 2)) * [0.9, 0.5]
    return factors @ factors.T + np.diag(rng.uniform(0.3, 1.0, n_units))


def signal_matrix(n_units: int) -> np.ndarray:
    """A signal covariance with one broad and several narrow axes."""
    rng = np.random.default_rng(43)
    axes, _ = np.linalg.qr(rng.normal(size=(n_units, n_units)))
    return (axes * (3.0 / np.arange(1, n_units + 1))) @ axes.T + 0.2 * np.eye(n_units)


def correlation(covariance: np.ndarray) -> np.ndarray:
    """Entry by entry."""
    n = len(covariance)
    return np.array(
        [[covariance[i, j] / (covariance[i, i] * covariance[j, j]) ** 0.5 for j in range(n)] for i in range(n)]
    )


def trials(values: np.ndarray) -> Iterator[np.ndarray]:
    """Of each stimulus, the trials that are present: (its repeats, unit)."""
    for stimulus in values:
        yield np.array([trial for trial in stimulus if not np.isnan(trial).any()])


def noise_covariance(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum of the outer products of every trial's deviation, over Σ(Rₛ − 1)."""
    n_units = values.shape[2]
    total, dof = np.zeros((n_units, n_units)), 0
    for repeats in trials(values):
        for trial in repeats:
            deviation = trial - sum(repeats) / len(repeats)
            total += np.outer(deviation, deviation)
        dof += len(repeats) - 1
    return total / dof, dof


def zscored_noise_correlation(values: np.ndarray) -> np.ndarray:
    """numpy.corrcoef of z-scores, pair by pair, over the stimuli for which both units vary."""
    n_units = values.shape[2]
    result = np.eye(n_units)
    for i in range(n_units):
        for j in range(i):
            scores = []
            for repeats in trials(values):
                pair = repeats[:, [i, j]]
                if len(pair) > 1 and np.ptp(pair, axis=0).min() > 0:
                    scores.extend((pair - pair.mean(axis=0)) / pair.std(axis=0, ddof=1))
            result[i, j] = result[j, i] = np.corrcoef(np.transpose(scores))[0, 1] if scores else np.nan
    return result


def cross_covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Symmetrised covariance over stimuli of two halves (stimulus, unit), by numpy.cov of each pair."""
    n_units = first.shape[1]
    result = np.empty((n_units, n_units))
    for i in range(n_units):
        for j in range(n_units):
            upper, lower = np.cov(first[:, i], second[:, j])[0, 1], np.cov(first[:, j], second[:, i])[0, 1]
            result[i, j] = (upper + lower) / 2
    return result


def spearman_brown(halves: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Reliability of each unit from the halves of several splits, each (stimulus, unit)."""
    n_units = halves[0][0].shape[1]
    r = np.array([np.mean([np.corrcoef(a[:, unit], b[:, unit])[0, 1] for a, b in halves]) for unit in range(n_units)])
    return 2 * r / (1 + r)


def fano_factor(values: np.ndarray) -> np.ndarray:
    """Sample variance over mean, averaged over the stimuli with repeats and spikes."""
    result = []
    for unit in range(values.shape[2]):
        counts = [repeats[:, unit] for repeats in trials(values) if len(repeats) > 1]
        ratios = [sum((c - c.mean()) ** 2) / (len(c) - 1) / c.mean() for c in counts if c.sum() > 0]
        result.append(sum(ratios) / len(ratios) if ratios else np.nan)
    return np.array(result)


def effective_dimensionality(covariance: np.ndarray) -> float:
    """From the eigenvalues."""
    values = np.linalg.eigvalsh(covariance)
    return float(values.sum() ** 2 / (values**2).sum())


def public_cvpca(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What the public code of Stringer et al. 2019 computes from two repeats (stimulus, unit).

    Stimuli are the variables of its PCA and units the observations. So it takes off every stimulus's mean over units,
    and its result is a sum over stimuli, divided by nothing. (It asks for one axis a stimulus; as its PCA refuses that
    for fewer units than stimuli, then one a unit.)
    """
    fitted = PCA(n_components=min(1024, *first.shape)).fit(first.T)
    unit_axes = first.T @ (fitted.components_.T / fitted.singular_values_)
    return ((first @ unit_axes) * (second @ unit_axes)).sum(axis=0)


def centred_cvpca(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Covariance over stimuli of the two repeats' scores on the first one's axes, by a PCA that centres each unit."""
    fitted = PCA().fit(first)
    scores, others = fitted.transform(first), fitted.transform(second)
    return np.array([np.cov(scores[:, n], others[:, n])[0, 1] for n in range(fitted.n_components_)])


def public_power_law(spectrum: np.ndarray, low: int, high: int) -> tuple[float, float]:
    """Exponent and amplitude over ranks from 1, by the normal equations of weighted least squares, weights 1/rank."""
    rank = np.arange(low, high + 1)
    design = np.stack([-np.log(rank), np.ones(len(rank))], axis=1)
    weighted = design / rank[:, None]
    exponent, log_amplitude = np.linalg.solve(weighted.T @ design, weighted.T @ np.log(spectrum[low - 1 : high]))
    return float(exponent), float(np.exp(log_amplitude))


def covariance_z_scores(samples: np.ndarray, truth: np.ndarray, dof: int) -> np.ndarray:
    """(Ĉ − C) / its standard error for Gaussian data, √((Cᵢᵢ Cⱼⱼ + Cᵢⱼ²) / dof), entry by entry."""
    variance = np.diag(truth)
    return (samples - truth) / np.sqrt((np.outer(variance, variance) + truth**2) / dof)
