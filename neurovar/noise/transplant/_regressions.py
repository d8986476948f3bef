"""Linear regressions by which a source is read out of a target."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn.cross_decomposition import PLSRegression

from neurovar._values import Value

PENALTIES = 10.0 ** np.linspace(-7, 3, 21)
"""Of ridge regression, as parts of the largest squared singular value of the target's responses."""


@dataclass(frozen=True)
class Regression(Value, ABC):
    """A way to fit weights W in y ≈ constant + W · x; one of your own is a frozen dataclass with `weights`.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(30, 3))
    >>> Ridge().weights(x, x @ np.array([[2.0], [0.0], [1.0]])).round(3)
    array([[2., 0., 1.]])
    """

    @abstractmethod
    def weights(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fit the map.

        Parameters
        ----------
        x : numpy.ndarray
            (stimulus, dimension), what is read from.
        y : numpy.ndarray
            (stimulus, unit), what is read out.

        Returns
        -------
        numpy.ndarray
            W, (unit, dimension).
        """

    def check(self, n_fitted: int, rank: int) -> None:  # most have nothing to refuse
        """Refuse settings that do not suit the data.

        Parameters
        ----------
        n_fitted : int
            Stimuli in the smallest set that a map is fitted to.
        rank : int
            Dimensions along which the target varies.
        """


@dataclass(frozen=True)
class Ridge(Regression):
    """Ridge regression: each unit's penalty is the one with the least leave-one-out error among the stimuli fitted to.

    W = argmin ‖y − W x‖² + λ‖W‖², without a penalty on the constant; λ from 1e-7 to 1e3 times the largest squared
    singular value of x. It shrinks W.

    Examples
    --------
    >>> str(Ridge())
    'Ridge()'
    """

    def weights(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """W, (unit, dimension); see `Regression.weights`."""
        from sklearn.linear_model import RidgeCV  # importing it draws random numbers: not when neurovar is imported

        penalties = PENALTIES * np.linalg.norm(x - x.mean(axis=0), 2) ** 2
        fitted = RidgeCV(penalties, alpha_per_target=True).fit(x, y)
        return fitted.coef_.reshape(y.shape[1], x.shape[1])


@dataclass(frozen=True)
class PartialLeastSquares(Regression):
    """Partial least squares of responses that are centred and not z-scored: a map of rank at most `n_components`.

    It reaches only a part of the source's noise (`Readout.reachable`), and shrinks W.

    Parameters
    ----------
    n_components : int
        Number of components.

    Examples
    --------
    >>> str(PartialLeastSquares(10))
    'PartialLeastSquares(n_components=10)'
    """

    n_components: int

    def weights(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """W, (unit, dimension); see `Regression.weights`."""
        return PLSRegression(self.n_components, scale=False).fit(x, y).coef_

    def check(self, n_fitted: int, rank: int) -> None:
        """Refuse more components than n_fitted − 1 centred stimuli or the target's dimensions can have."""
        most = min(n_fitted - 1, rank)
        if not 1 <= self.n_components <= most:
            raise ValueError(f"expected n_components from 1 to {most}, got {self.n_components}")
