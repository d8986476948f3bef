"""The eigenvalues of one system's noise on axes of another."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr

from neurovar import _memory
from neurovar.covariance import Covariance
from neurovar.noise.transplant._axes import flattened, principal_axes, random_axes
from neurovar.noise.transplant._method import TransplantMethod
from neurovar.noise.transplant._target import deviations, like, stimulus_means
from neurovar.responses import require_simultaneous, validate

AXES = ("signal", "modification", "random")
"""Those of the target's stimulus means, of its deviations from these, and uniformly random ones."""
COPIES = 4
"""Matrices over the target's units that are held at once where every axis is used."""


@dataclass(frozen=True, eq=False)
class Spectrum(TransplantMethod):
    """The eigenvalues of a noise covariance, largest first, one a unit; they go onto axes of the target.

    It needs no stimuli that source and target share.

    Parameters
    ----------
    eigenvalues : numpy.ndarray
        (unit,), in squared units of the source's responses.

    Raises
    ------
    ValueError
        If they are not finite, some are negative, none is above 0, or they are not in descending order.

    Examples
    --------
    >>> from neurovar import statistics
    >>> network = statistics.population(n_stimuli=50, n_repeats=1, n_units=3, rng=1)
    >>> Spectrum(np.array([3.0, 2.0, 1.0])).onto(network, axes="signal").spectrum().numpy().round(4)
    array([3., 2., 1.])
    """

    name: ClassVar[str] = "spectrum"
    required: ClassVar[tuple[str, ...]] = ("axes",)
    optional: ClassVar[tuple[str, ...]] = ("rank",)

    eigenvalues: np.ndarray

    def __post_init__(self) -> None:
        values = self.eigenvalues
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or values.min() < 0 or not values.any():
            raise ValueError(f"expected finite eigenvalues (unit,), none negative and some above 0, got {values}")
        if (np.diff(values) > 0).any():
            raise ValueError(f"expected eigenvalues from the largest to the smallest, got {values}")

    @classmethod
    def fit(cls, source: xr.DataArray) -> Self:
        """The eigenvalues of the source's noise covariance, pooled over stimuli, in squared units of its responses.

        Those of a sample covariance, with dof = Σ(Rₛ − 1): their sum is unbiased, but they are spread out, the largest
        too large and the smallest too small. Equal ones come out between (1 − √γ)² and (1 + √γ)² of their true value,
        γ = units / dof (Marchenko & Pastur 1967); those beyond the degrees of freedom are 0.

        Parameters
        ----------
        source : xarray.DataArray
            Responses (stimulus, repeat, unit), recorded together.

        Returns
        -------
        Spectrum
            One eigenvalue a unit of the source.

        Raises
        ------
        ValueError
            If responses are not valid, not recorded together, or without repeats or noise.

        References
        ----------
        Marchenko & Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994

        Examples
        --------
        >>> from neurovar import statistics
        >>> da = statistics.population(n_stimuli=50, n_repeats=5, n_units=10, rng=0)
        >>> len(Spectrum.fit(da).eigenvalues)
        10
        """
        noise, dof = deviations(source)
        require_simultaneous(source)
        n_trials, n = noise.shape
        # E Eᵀ and Eᵀ E have the same eigenvalues but for zeros: the smaller of the two is decomposed.
        gram = noise @ noise.T if n_trials < n else noise.T @ noise
        leading = np.maximum(np.linalg.eigvalsh(gram.astype(np.float64))[::-1], 0) / dof
        values = np.zeros(n)
        values[: len(leading)] = leading
        if not values.any():
            raise ValueError(f"expected a source that varies between repeats, got none of {n} units that does")
        return cls(values)

    def at(self, n: int) -> np.ndarray:
        """The spectrum of n units: eigenvalues by relative rank, scaled to the same sum.

        Rank k of N units stands at (k − ½)/N; between ranks, linear interpolation; beyond the ends, the end's value.

        Parameters
        ----------
        n : int
            Number of units.

        Returns
        -------
        numpy.ndarray
            (n,), largest first.
        """
        own = len(self.eigenvalues)
        values = np.interp((np.arange(n) + 0.5) / n, (np.arange(own) + 0.5) / own, self.eigenvalues)
        return values * (self.eigenvalues.sum() / values.sum())

    def onto(
        self,
        target: xr.DataArray,
        *,
        axes: str,
        rank: int | None = None,
        rng: np.random.Generator | int | None = None,
    ) -> Covariance:
        """Noise with the spectrum, by relative rank, on axes of the target.

        Parameters
        ----------
        target : xarray.DataArray
            Responses (stimulus, repeat, unit). With one repeat they count as noise-free.
        axes : str
            "signal", the principal axes of its stimulus means; "modification", those of its deviations from these; or
            "random" ones.
        rank : int, optional
            How many of the axes; by default all. What is left of the spectrum is spread equally over all directions
            outside of them.
        rng : numpy.random.Generator or int, optional
            For "random" axes, which need it.

        Returns
        -------
        Covariance
            `Dense` where every axis is used, else `LowRankPlusDiagonal`, in O(units · rank) memory; of the target's
            dtype (float32 unless that is float64), its variance in the source's squared units.

        Raises
        ------
        ValueError
            For other axes, a rank out of range, random axes without `rng`, a target that does not vary, responses that
            are not valid, or a matrix that would not fit into memory.
        """
        validate(target)
        n = target.sizes["unit"]
        if axes not in AXES:
            raise ValueError(f"expected axes {', '.join(map(repr, AXES))}, got {axes!r}")
        if axes == "random":
            if rng is None:
                raise ValueError("expected rng= for random axes, got none; give a seed")
            most = n
        else:
            _, own = principal_axes(stimulus_means(target) if axes == "signal" else deviations(target)[0])
            most = own.shape[1]
            if not most:
                raise ValueError(f"expected a target with {axes} axes, got {n} units that do not vary")
        kept = most if rank is None else rank
        if not 1 <= kept <= most:
            raise ValueError(f"expected a rank from 1 to {most}, the number of {axes} axes of the target, got {kept}")
        if kept == n:
            _memory.require_matrix(n, torch.float64, torch.device("cpu"), copies=COPIES)
        chosen = random_axes(n, kept, rng=np.random.default_rng(rng)) if axes == "random" else own[:, :kept]
        return flattened(torch.from_numpy(self.at(n)), chosen).covariance(like(target))

    @classmethod
    def _between(
        cls, source: xr.DataArray, target: xr.DataArray, rng: np.random.Generator, **options: Any
    ) -> Covariance:
        return cls.fit(source).onto(target, rng=rng, **options)
