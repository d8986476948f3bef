"""Independent references for variance beside the mean: loops, subsets one by one, and a general optimiser."""

from itertools import combinations, product

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import LinearRegression


def points(values: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean, variance, repeats) of each unit and stimulus with two repeats and a spike."""
    result = []
    for stimulus in values:
        for unit in stimulus.T:
            counts = [count for count in unit if not np.isnan(count)]
            if len(counts) > 1 and sum(counts) > 0:
                result.append((float(np.mean(counts)), float(np.var(counts, ddof=1)), len(counts)))
    return result


def toolbox_slope(chosen: list[tuple[float, float, int]], floor: float) -> tuple[float, float]:
    """Weighted regression through the origin, as MATLAB's lscov gives it: the slope and its standard error."""
    mean, variance, repeats = np.transpose(chosen)
    weight = repeats / (mean + floor) ** 2
    fit = LinearRegression(fit_intercept=False).fit(mean[:, None], variance, sample_weight=weight)
    residual = variance - fit.predict(mean[:, None])
    mse = sum(weight * residual**2) / (len(chosen) - 1)
    return float(fit.coef_[0]), float(np.sqrt(mse / sum(weight * mean**2)))


def matched_expectation(systems: list[np.ndarray], bin_width: float, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and standard errors averaged over all choices of points that leave every system the same histogram."""
    of_systems = [points(system) for system in systems]
    edges = np.arange(0, max(mean for of_one in of_systems for mean, _, _ in of_one) + 2 * bin_width, bin_width)
    common = np.min([np.histogram([mean for mean, _, _ in of_one], edges)[0] for of_one in of_systems], axis=0)
    expected = []
    for of_one in of_systems:
        binned = [[p for p in of_one if low <= p[0] < low + bin_width] for low in edges[:-1]]
        choices = product(*(combinations(inside, n) for inside, n in zip(binned, common, strict=True)))
        expected.append(np.mean([toolbox_slope([p for part in pick for p in part], floor) for pick in choices], axis=0))
    return np.transpose(expected)[0], np.transpose(expected)[1]


def gamma_regression(chosen: list[tuple[float, float, int]]) -> tuple[float, float]:
    """Exponent and factor that make the gamma deviance of the variances least, weights R − 1."""
    mean, variance, repeats = np.transpose(chosen)

    def deviance(parameters: np.ndarray) -> float:
        log_fit = parameters[0] * np.log(mean) + parameters[1]
        return float(((repeats - 1) * (variance * np.exp(-log_fit) + log_fit)).sum())

    best = minimize(
        deviance, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000}
    )
    return float(best.x[0]), float(np.exp(best.x[1]))
