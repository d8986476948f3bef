"""Independent references for fluctuating gain: scipy's distributions and optimisers, and loops over pairs."""

import numpy as np
from scipy.optimize import least_squares, minimize_scalar
from scipy.stats import dirichlet_multinomial, multinomial, nbinom


def gained(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    mean: float,
    loading: np.ndarray | float = 0.0,
    private: float = 0.0,
    tuning: float = 0.5,
) -> np.ndarray:
    """Counts with gains 1 + loading·z + private part, of uniform distributions, and log-normal means."""
    n_stimuli, n_repeats, n_units = shape
    means = mean * np.exp(tuning * rng.normal(size=(n_stimuli, 1, n_units)))
    shared, own = (rng.uniform(-(3**0.5), 3**0.5, size=(n_stimuli, n_repeats, n)) for n in (1, n_units))
    return rng.poisson(means * (1 + loading * shared + private**0.5 * own)).astype(float)


def rows(values: np.ndarray) -> list[np.ndarray]:
    """Of one unit (stimulus, repeat), each stimulus's counts, where there are two or more."""
    present = [row[~np.isnan(row)] for row in values]
    return [row for row in present if len(row) > 1]


def conditional_log_likelihood(values: np.ndarray, gain_variance: float) -> float:
    """Of one unit's counts given each stimulus's total."""
    total = 0.0
    for row in rows(values):
        n, n_repeats = int(row.sum()), len(row)
        if gain_variance == 0:
            total += multinomial(n, [1 / n_repeats] * n_repeats).logpmf(row)
        elif n > 0:
            total += dirichlet_multinomial.logpmf(row.astype(int), [1 / gain_variance] * n_repeats, n)
    return float(total)


def gain_variance(values: np.ndarray) -> float:
    """Which makes `conditional_log_likelihood` largest, on a logarithmic scale from 1e-5."""
    best = minimize_scalar(
        lambda log: -conditional_log_likelihood(values, np.exp(log)), bounds=(-11.5, 5), method="bounded"
    )
    return float(np.exp(best.x))


def profile_gain_variance(values: np.ndarray) -> float:
    """Which makes the usual likelihood largest: negative binomial, with each stimulus's mean count as its mean."""

    def loss(log: float) -> float:
        size = np.exp(-log)
        return -sum(nbinom.logpmf(row, size, size / (size + row.mean())).sum() for row in rows(values) if row.sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-11.5, 5), method="bounded").x))


def covariance_sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unbiased Σ(R − 1)μᵢμⱼGᵢⱼ and Σ(R − 1)μᵢμⱼ, entry by entry, and Σ(R − 1) times each unit's variance."""
    n_units = values.shape[2]
    gained, products, noise = np.zeros((n_units, n_units)), np.zeros((n_units, n_units)), np.zeros(n_units)
    for stimulus in values:
        trials = stimulus[~np.isnan(stimulus[:, 0])]
        n_repeats = len(trials)
        if n_repeats < 2:
            continue
        means, covariance = trials.mean(axis=0), np.atleast_2d(np.cov(trials.T))
        for i in range(n_units):
            noise[i] += (n_repeats - 1) * covariance[i, i]
            for j in range(n_units):
                poisson = means[i] if i == j else 0
                gained[i, j] += (n_repeats - 1) * (covariance[i, j] - poisson)
                products[i, j] += (n_repeats - 1) * (means[i] * means[j] - covariance[i, j] / n_repeats)
    return gained, products, noise


def loadings(gained: np.ndarray, products: np.ndarray, noise: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The rank-one fit off the diagonal, by scipy's least squares."""
    pairs = np.triu_indices(len(noise), 1)
    scale = np.sqrt(noise[pairs[0]] * noise[pairs[1]])
    fit = least_squares(
        lambda loads: (gained[pairs] - loads[pairs[0]] * loads[pairs[1]] * products[pairs]) / scale, start, xtol=1e-12
    )
    return fit.x * np.sign(fit.x.sum())
