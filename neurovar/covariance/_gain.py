"""Noise that depends on the activations."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from neurovar.covariance._base import Covariance, check_variances
from neurovar.covariance._dense_and_low_rank import LowRankPlusDiagonal


@dataclass(frozen=True, eq=False)
class GainModulated(Covariance):
    """A gain shared by all units, and private noise with a power law of the mean.

    At an activation x, C(x) = gain_variance · x xᵀ + diag(dispersion · |x|^exponent): the noise is g x + s z, with one
    g ~ N(0, gain_variance) for all units, z private, and s² = dispersion · |x|^exponent. An exponent and a dispersion
    of 1 are Poisson's law. As a `Covariance` it is the average of C(x) over the reference `states`, each as likely;
    `sample` draws such a state anew for each row, so that its samples are a mixture of Gaussians, while `sample_at(x)`
    uses x. Gradients flow through x; where it is 0, that of the private noise is taken to be 0.

    Parameters
    ----------
    gain_variance : torch.Tensor
        (), the variance of the shared gain.
    dispersion : torch.Tensor
        (n,), the variance of each unit's private noise at an activation of 1.
    exponent : torch.Tensor
        (), at least 0, of the power law.
    states : torch.Tensor
        (m, n), the reference activations.

    Raises
    ------
    ValueError
        If the tensors do not fit one another, are not finite, negative where they may not be, or not of one dtype,
        float32 or float64.

    References
    ----------
    Goris et al. 2014, doi:10.1038/nn.3711

    Examples
    --------
    >>> one = torch.tensor(1.0)
    >>> noise = GainModulated(0.1 * one, torch.ones(2), one, torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    >>> noise.diagonal(), noise.at(torch.tensor([1.0, 2.0])).diagonal()
    (tensor([2.5000, 1.2000]), tensor([1.1000, 2.4000]))
    """

    gain_variance: Tensor
    dispersion: Tensor
    exponent: Tensor
    states: Tensor

    def __post_init__(self) -> None:
        check_variances(self.dispersion, "dispersions")
        for name in ("gain_variance", "exponent"):
            value = getattr(self, name)
            if value.ndim or not torch.isfinite(value) or value < 0:
                raise ValueError(f"expected a finite {name} of at least 0, of shape (), got {value.tolist()}")
        if self.states.ndim != 2 or self.states.shape[1] != self.n or not len(self.states):
            raise ValueError(f"expected reference states (m, {self.n}), got {tuple(self.states.shape)}")
        if not torch.isfinite(self.states).all():
            raise ValueError(
                f"expected finite reference states, got {int((~torch.isfinite(self.states)).sum())} NaN or infinite"
            )
        dtypes = {tensor.dtype for tensor in self._tensors().values()}
        if len(dtypes) > 1:
            raise ValueError(f"expected tensors of one dtype, got {sorted(map(str, dtypes))}")

    @property
    def n(self) -> int:
        return len(self.dispersion)

    @property
    def n_normals(self) -> int:
        return self.n + 2

    @property
    def state_dependent(self) -> bool:
        return True

    @property
    def is_linear(self) -> bool:
        return False

    def _private_scale(self, states: Tensor) -> Tensor:
        """√(dispersion · |x|^exponent), with a gradient of 0 at 0."""
        # The inner `where` keeps 0 out of the power: its gradient there, b/2 · 0^(b/2 − 1), is infinite for b < 2, and
        # the outer one would multiply it by 0, which gives NaN. 0^exponent is 1 for an exponent of 0, else 0.
        size = states.abs()
        active = size > 0
        silent = torch.zeros((), dtype=self.dtype, device=self.device) ** self.exponent
        return self.dispersion.sqrt() * torch.where(active, torch.where(active, size, 1) ** (self.exponent / 2), silent)

    def _colorize(self, normals: Tensor) -> Tensor:
        """The last normal chooses the state, through its distribution function."""
        chosen = (torch.special.ndtr(normals[:, -1]) * len(self.states)).long().clamp(max=len(self.states) - 1)
        return self._colorize_at(normals, self.states[chosen])

    def _colorize_at(self, normals: Tensor, states: Tensor) -> Tensor:
        states = states.to(normals)
        gain = normals[:, self.n, None] * self.gain_variance.sqrt()
        # The same gain for all units of a row, a private number for each.
        return gain * states + normals[:, : self.n] * self._private_scale(states)

    def at(self, state: Tensor) -> LowRankPlusDiagonal:
        """The covariance at one activation.

        Parameters
        ----------
        state : torch.Tensor
            (n,), the activation.

        Returns
        -------
        LowRankPlusDiagonal
            With one factor, √gain_variance · x.

        Raises
        ------
        ValueError
            For an activation over other units.

        Examples
        --------
        >>> one = torch.tensor(1.0)
        >>> noise = GainModulated(one, torch.ones(2), one, torch.ones(5, 2))
        >>> noise.at(torch.tensor([1.0, 2.0])).to_dense()
        tensor([[2., 2.],
                [2., 6.]])
        """
        if state.shape != (self.n,):
            raise ValueError(f"expected one state ({self.n},), got {tuple(state.shape)}")
        return LowRankPlusDiagonal((self.gain_variance.sqrt() * state)[:, None], self._private_scale(state).square())

    def average(self) -> LowRankPlusDiagonal:
        """The covariance averaged over the reference states: m factors √(gain_variance / m) x, and private noise."""
        factors = self.states.mT * (self.gain_variance / len(self.states)).sqrt()
        return LowRankPlusDiagonal(factors, self._private_scale(self.states).square().mean(0))

    @cached_property
    def _average(self) -> LowRankPlusDiagonal:
        return self.average()

    def gaussian(self) -> LowRankPlusDiagonal:
        return self._average

    def _whiten(self, rows: Tensor) -> Tensor:
        return self._average._whiten(rows)

    def _multiply(self, rows: Tensor) -> Tensor:
        return self._average._multiply(rows)

    def _scaled(self, factor: float) -> "GainModulated":
        return GainModulated(self.gain_variance * factor, self.dispersion * factor, self.exponent, self.states)

    def _rescaled_units(self, scale: Tensor) -> "GainModulated":
        """With y = s x, dispersion |x|^b s² = dispersion |s|^(2 − b) |y|^b; a unit scaled by 0 is silent."""
        size = scale.abs()
        power = torch.where(size > 0, torch.where(size > 0, size, 1) ** (2 - self.exponent), 0)
        return GainModulated(self.gain_variance, self.dispersion * power, self.exponent, self.states * scale)

    def _mapped(self, matrix: Tensor) -> Covariance:
        raise ValueError("expected a vector for state-dependent noise, got a matrix; its average() has a conjugate")

    def diagonal(self) -> Tensor:
        return self._average.diagonal()

    def _squared_norm(self) -> Tensor:
        return self._average._squared_norm()

    def to_dense(self) -> Tensor:
        return self._average.to_dense()

    def log_determinant(self) -> float:
        return self._average.log_determinant()
