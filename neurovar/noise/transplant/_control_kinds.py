"""The kinds of control, each with its name, its words and how it is made: the one home of what a control is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurovar.covariance import Covariance, Diagonal, LowRankPlusDiagonal, MeanShift
from neurovar.noise.transplant._axes import Eigen, eigen, principal_axes, random_axes
from neurovar.noise.transplant._target import stimulus_means
from neurovar.responses import validate

SIGNAL_NEEDED = "needs target= and n_dims="


@dataclass(frozen=True, eq=False)
class Material:
    """What controls are made from; what costs most is computed once for all of them.

    The noise is Gaussian: of state-dependent noise and of sums, the average covariance.
    """

    noise: Covariance
    target: xr.DataArray | None = None
    n_dims: int | None = None
    mean_shift: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", self.noise.gaussian())
        if (self.target is None) != (self.n_dims is None):
            raise ValueError(
                f"expected target and n_dims together, got n_dims {self.n_dims} and {type(self.target).__name__}"
            )

    @cached_property
    def eigen(self) -> Eigen:
        """Eigenvalues and eigenvectors; of `LowRankPlusDiagonal` the leading ones."""
        return eigen(self.noise)

    @cached_property
    def flat(self) -> Eigen:
        """With the mean of the eigenvalues above `rest`, by more than the rounding of the matrix makes of 0."""
        values, axes = self.eigen.values, self.eigen.axes
        # An n × n matrix in precision eps has eigenvalues to about eps √n of its largest.
        rounding = torch.finfo(self.noise.dtype).eps * len(axes) ** 0.5 * values[0]
        kept = values - self.eigen.rest > rounding
        return self.eigen.with_values(torch.where(kept, values[kept].mean(), values))

    @cached_property
    def signal(self) -> Tensor:
        """The `n_dims` leading principal axes (n, n_dims) of the target's stimulus means."""
        if self.target is None or self.n_dims is None:
            raise ValueError("expected target= and n_dims= for axes of the signal, got none")
        validate(self.target)
        if self.target.sizes["unit"] != self.noise.n:
            raise ValueError(
                f"expected a target with the {self.noise.n} units of the noise, got {self.target.sizes['unit']}"
            )
        _, axes = principal_axes(stimulus_means(self.target))
        most = min(axes.shape[1], self.noise.n - 1)
        if not 1 <= self.n_dims <= most:
            raise ValueError(
                f"expected n_dims from 1 to {most}, along which the target's signal varies, got {self.n_dims}"
            )
        return axes[:, : self.n_dims]

    def with_spectrum(self, changed: Eigen) -> Covariance:
        """A covariance of the noise's dtype and device from eigenvalues on axes."""
        return changed.covariance(self.noise.diagonal())


Make = Callable[[Material, np.random.Generator], Covariance]
Lack = Callable[[Material], str]


@dataclass(frozen=True, eq=False)
class ControlKind:
    """A kind of control: noise that differs from the noise under test in one property, at the same trace.

    Parameters
    ----------
    name : str
        What it is called, as in `networks.Control(kind=name)` and in results.
    question : str
        What a comparison with it answers.
    description : str
        What noise it is, in words that continue "noise that is …".
    make : callable
        (material, generator) → covariance.
    lack : callable
        material → what is missing to make it, such as "needs mean_shift="; "" where nothing is.
    coincide : callable
        material → which other control it would be, such as "is isotropic …"; "" for none. It may take eigenvalues.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> from neurovar.noise import CONTROLS
    >>> turned = CONTROLS["rotated"](Dense(torch.diag(torch.tensor([3.0, 1.0]))), rng=0)
    >>> turned.spectrum().numpy().round(4), CONTROLS["rotated"].question
    (array([3., 1.]), 'do directions matter?')
    """

    name: str
    question: str
    description: str
    make: Make
    lack: Lack
    coincide: Lack

    @property
    def label(self) -> str:
        """The name as it is shown to readers."""
        return self.name.replace("_", " ")

    def __call__(
        self,
        noise: Covariance,
        *,
        rng: np.random.Generator | int = 0,
        target: xr.DataArray | None = None,
        n_dims: int | None = None,
        mean_shift: Tensor | None = None,
    ) -> Covariance:
        """This control of a noise.

        Parameters
        ----------
        noise : Covariance
            The noise under test, over n units.
        rng : numpy.random.Generator or int, optional
            For what is random in the control.
        target : xarray.DataArray, optional
            Responses (stimulus, repeat, unit) of the units that get the noise, for the two controls of the signal.
        n_dims : int, optional
            How many leading dimensions of the target's signal.
        mean_shift : torch.Tensor, optional
            (n,), the direction of the constant, for `mean_shift`.

        Returns
        -------
        Covariance
            At the trace of the noise, of its dtype and on its device.

        Raises
        ------
        ValueError
            If what the control needs is missing or does not fit the noise.
        """
        material = Material(noise, target, n_dims, mean_shift)
        return self.checked(material).make(material, np.random.default_rng(rng))

    def checked(self, material: Material) -> "ControlKind":
        """The kind itself, if it can be made."""
        if lack := self.lack(material):
            raise ValueError(f"expected what the control {self.name!r} needs, got none: it {lack}")
        if other := self.coincide(material):
            raise ValueError(f"expected a control that differs from others, got {self.name!r}: it {other}; take that")
        return self


CONTROLS: dict[str, ControlKind] = {}
"""Every kind of control by its name, in the order of results."""


def _nothing(material: Material) -> str:
    return ""


def _control(
    question: str, description: str, *, lack: Lack = _nothing, coincide: Lack = _nothing
) -> Callable[[Make], Make]:
    """Register how a kind is made, under the name of the function."""

    def register(make: Make) -> Make:
        name = make.__name__.lstrip("_")
        CONTROLS[name] = ControlKind(name, question, description, make, lack, coincide)
        return make

    return register


def _lacks_eigenvectors(material: Material) -> str:
    one_factor = isinstance(material.noise, LowRankPlusDiagonal) and material.noise.rank == 1
    return "needs two leading eigenvectors" if one_factor or material.noise.n == 1 else ""


def _is_isotropic(material: Material) -> str:
    """At full rank, equal eigenvalues on any axes are a multiple of the identity: the control `isotropic`."""
    n, rank = material.flat.axes.shape
    full = rank == n and bool((material.flat.values == material.flat.values[0]).all())
    return "is isotropic for noise of full rank" if full else ""


def _lacks_signal(material: Material) -> str:
    return SIGNAL_NEEDED if material.target is None else ""


def _lacks_mean_shift(material: Material) -> str:
    return "needs mean_shift=" if material.mean_shift is None else ""


@_control("do correlations matter?", "the variances of the noise without its correlations")
def _diagonal(material: Material, rng: np.random.Generator) -> Covariance:
    return Diagonal(material.noise.diagonal().clone())


@_control("does any structure matter?", "noise equal and independent for all units")
def _isotropic(material: Material, rng: np.random.Generator) -> Covariance:
    noise = material.noise
    return Diagonal(torch.full_like(noise.diagonal(), noise.trace() / noise.n))


@_control("do directions matter?", "noise of the same spectrum in random directions")
def _rotated(material: Material, rng: np.random.Generator) -> Covariance:
    """A random rotation R of C = A Λ Aᵀ is (R A) Λ (R A)ᵀ, and R A is uniform over orthonormal axes."""
    return material.with_spectrum(material.eigen.on(random_axes(*material.eigen.axes.shape, rng=rng)))


@_control(
    "does it matter which direction has how much?",
    "noise of the same eigenvectors with shuffled eigenvalues",
    lack=_lacks_eigenvectors,
)
def _shuffled_spectrum(material: Material, rng: np.random.Generator) -> Covariance:
    """Eigenvalues moved along a random cycle, so that each moves: a permutation might leave some where they are."""
    order = torch.from_numpy(rng.permutation(len(material.eigen.values)))
    values = material.eigen.values.clone()
    values[order] = material.eigen.values[order.roll(1)]
    return material.with_spectrum(material.eigen.with_values(values))


@_control(
    "does it matter that directions differ?",
    "noise of the same eigenvectors with equal eigenvalues",
    coincide=_is_isotropic,
)
def _flat_spectrum(material: Material, rng: np.random.Generator) -> Covariance:
    return material.with_spectrum(material.flat)


@_control(
    "does overlap with the signal matter?", "noise of the same spectrum in the signal's dimensions", lack=_lacks_signal
)
def _signal_aligned(material: Material, rng: np.random.Generator) -> Covariance:
    """The k-th largest eigenvalue on the k-th axis of the signal, the others in random directions outside.

    No noise with this spectrum has more variance in the signal's dimensions: the trace of Vᵀ C V over k orthonormal
    axes is at most the sum of the k largest eigenvalues (Ky Fan), which are there.
    """
    (n, rank), n_dims = material.eigen.axes.shape, material.signal.shape[1]
    if rank <= n_dims:
        return material.with_spectrum(material.eigen.on(material.signal[:, :rank]))
    others = random_axes(n, rank - n_dims, rng=rng, outside=material.signal)
    return material.with_spectrum(material.eigen.on(torch.cat([material.signal, others], dim=1)))


@_control(
    "does overlap with the signal matter?",
    "noise of the same spectrum out of the signal's dimensions",
    lack=_lacks_signal,
)
def _signal_orthogonal(material: Material, rng: np.random.Generator) -> Covariance:
    """The largest eigenvalues in random directions outside the signal; what does not fit there lies in it.

    Those are the smallest eigenvalues, the very smallest on the first axis: the least variance there that noise
    with this spectrum can have.
    """
    (n, rank), n_dims = material.eigen.axes.shape, material.signal.shape[1]
    outside = random_axes(n, min(rank, n - n_dims), rng=rng, outside=material.signal)
    within = material.signal.flip(1)[:, : rank - outside.shape[1]]
    return material.with_spectrum(material.eigen.on(torch.cat([outside, within], dim=1)))


@_control("does it have to vary?", "a constant instead of noise", lack=_lacks_mean_shift)
def _mean_shift(material: Material, rng: np.random.Generator) -> Covariance:
    """The constant m, whose power ‖m‖² stands for a trace."""
    shift = MeanShift(torch.as_tensor(material.mean_shift).to(material.noise.diagonal()))
    if shift.n != material.noise.n:
        raise ValueError(f"expected a mean shift of {material.noise.n} units, got {shift.n}")
    return shift.scale_to(trace=material.noise.trace())
