"""Factor analysis by scikit-learn's EM algorithm, likelihoods by scipy, and the published population metrics."""

import numpy as np
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis

from reference import trials


def residuals(values: np.ndarray) -> np.ndarray:
    """(trial, unit)"""
    return np.concatenate([repeats - repeats.mean(axis=0) for repeats in trials(values)])


def factor_analysis(rows: np.ndarray, n_factors: int, dof: int) -> tuple[np.ndarray, np.ndarray]:
    """Shared covariance and private variance; scikit-learn divides by the number of rows, here it is `dof`."""
    assert np.abs(rows.mean(axis=0)).max() < 1e-10
    fitted = FactorAnalysis(n_factors, svd_method="lapack", tol=1e-12, max_iter=20_000).fit(rows)
    correction = len(rows) / dof
    return fitted.components_.T @ fitted.components_ * correction, fitted.noise_variance_ * correction


def held_out_likelihood(contrasts: np.ndarray, max_factors: int, n_folds: int) -> list[float]:
    """Per row, by scipy's normal density, of contrasts that scikit-learn has not seen."""
    folds = np.array_split(np.arange(len(contrasts)), n_folds)
    result = []
    for n_factors in range(max_factors + 1):
        total = 0.0
        for fold in folds:
            rest = np.delete(contrasts, fold, axis=0)
            if n_factors:
                shared, private = factor_analysis(np.concatenate([rest, -rest]), n_factors, 2 * len(rest))
                model = shared + np.diag(private)
            else:
                model = np.diag((rest**2).mean(axis=0))
            total += multivariate_normal(np.zeros(len(model)), model).logpdf(contrasts[fold]).sum()
        result.append(total / len(contrasts))
    return result


def population_metrics(loadings: np.ndarray, private: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """%sv of each unit, loading similarity of each factor, and d_shared, as the public code of the paper has them."""
    n_units, n_factors = loadings.shape
    shared = loadings @ loadings.T
    percent = np.array([100 * shared[i, i] / (shared[i, i] + private[i]) for i in range(n_units)])
    axes, values, _ = np.linalg.svd(shared)
    similarity = [(1 / n_units - np.var(axes[:, factor])) * n_units for factor in range(n_factors)]
    explained = np.cumsum(values[:n_factors]) / np.sum(values[:n_factors])
    return percent, np.array(similarity), int(np.argmax(explained > 0.95)) + 1
