"""Accumulators of covariances that are the samples' own: diagonal, dense, and channel × space by partial traces."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance import Dense, Diagonal, Kronecker
from neurovar.noise.streaming._accumulator import Accumulator


@dataclass(kw_only=True, eq=False)
class DiagonalAccumulator(Accumulator):
    """The variance of each unit, Σ (x − m)² / (n − 1): unbiased. Memory: 3 numbers a unit.

    See `Accumulator` for what all accumulators share.

    Parameters
    ----------
    about_zero : bool, optional
        Whether the result is the second moment about zero, divided by n, in place of the covariance about the mean,
        divided by n − 1.

    Examples
    --------
    >>> variances = DiagonalAccumulator()
    >>> for batch in torch.tensor([[[1.0, 5.0], [3.0, 5.0]], [[2.0, 5.0], [6.0, 9.0]]]):
    ...     variances.update(batch)
    >>> variances.mean, variances.covariance().diagonal()
    (tensor([3., 6.]), tensor([4.6667, 4.0000]))
    """

    def _start(self, origin: Tensor, unit_shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {"variance": torch.zeros_like(origin)}

    def _add(self, rows: Tensor) -> None:
        self._sums["variance"] += squares(rows)

    def covariance(self) -> Diagonal:
        """The sample variances.

        Raises
        ------
        ValueError
            For fewer than 2 samples (about zero: 1).
        """
        divisor = self._divisor()
        return Diagonal(self._sums["variance"] / divisor)


@dataclass(kw_only=True, eq=False)
class DenseAccumulator(Accumulator):
    """The whole covariance, Σ (x − m)(x − m)ᵀ / (n − 1): unbiased, of rank at most n − 1. Memory: units².

    See `Accumulator` for what all accumulators share.

    Parameters
    ----------
    about_zero : bool, optional
        Whether the result is the second moment about zero, divided by n, in place of the covariance about the mean,
        divided by n − 1.

    Examples
    --------
    >>> matrix = DenseAccumulator()
    >>> matrix.update(torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0], [6.0, 9.0]]))
    >>> matrix.covariance().to_dense()
    tensor([[4.6667, 4.0000],
            [4.0000, 4.0000]])
    """

    def _start(self, origin: Tensor, unit_shape: tuple[int, ...]) -> dict[str, Tensor]:
        _memory.require_matrix(len(origin), origin.dtype, origin.device)
        return {"scatter": origin.new_zeros(len(origin), len(origin))}

    def _add(self, rows: Tensor) -> None:
        self._sums["scatter"].addmm_(rows.mT, rows)

    def covariance(self) -> Dense:
        """The sample covariance.

        Raises
        ------
        ValueError
            For fewer than 2 samples (about zero: 1).
        """
        divisor = self._divisor()
        return Dense(self._sums["scatter"] / divisor)


@dataclass(kw_only=True, eq=False)
class KroneckerAccumulator(Accumulator):
    """Channel × space in one pass: C ≈ tr_space(C) ⊗ tr_channel(C) / tr(C), from the sample covariance C.

    Units are (channel, *position). The partial traces tr_space(C)[c, d] = Σ_p C[cp, dp] (channels) and
    tr_channel(C)[p, q] = Σ_c C[cp, cq] (space) are linear in C and so unbiased. Where the truth is A ⊗ B, they estimate
    A·tr(B) and B·tr(A), and the result is consistent with a bias of order 1/n, as it is a product of estimates made
    from the same samples over a third. The trace is kept, and the result is a covariance whatever the truth.

    It is neither the Kronecker product nearest to C in the Frobenius norm (Van Loan & Pitsianis 1993, which needs all
    of C) nor the maximum of the likelihood (flip-flop iterations, which pass over the samples many times): where the
    truth is no Kronecker product those differ from it, and where it is one it scatters more than the latter, as
    directions of large variance count most. Memory: channels² + positions².

    The space factor has mean variance 1; the channel factor is the mean over positions of the channels' covariance.
    See `Accumulator` for what all accumulators share.

    Parameters
    ----------
    about_zero : bool, optional
        Whether the result is the second moment about zero, divided by n, in place of the covariance about the mean,
        divided by n − 1.

    References
    ----------
    Van Loan & Pitsianis 1993, doi:10.1007/978-94-015-8196-7_17

    Examples
    --------
    >>> maps = KroneckerAccumulator()
    >>> maps.update(torch.randn(100, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    >>> covariance = maps.covariance()
    >>> covariance.channel.n, covariance.space.n, covariance.n
    (3, 16, 48)
    """

    def _start(self, origin: Tensor, unit_shape: tuple[int, ...]) -> dict[str, Tensor]:
        if len(unit_shape) < 2:
            raise ValueError(f"expected batches (batch, channel, *position), got units of shape {unit_shape}")
        channels, positions = unit_shape[0], prod(unit_shape[1:])
        _memory.require_matrix(positions, origin.dtype, origin.device)
        return {"channel": origin.new_zeros(channels, channels), "space": origin.new_zeros(positions, positions)}

    def _add(self, rows: Tensor) -> None:
        # A row is a matrix X (channel, position): its scatter's partial traces are X Xᵀ and Xᵀ X, and those of many
        # rows are one product each, of the rows laid side by side or one below the other.
        maps = rows.unflatten(1, (len(self._sums["channel"]), -1))
        by_channel, by_row = maps.transpose(0, 1).flatten(1), maps.flatten(0, 1)
        self._sums["channel"].addmm_(by_channel, by_channel.mT)
        self._sums["space"].addmm_(by_row.mT, by_row)

    def covariance(self) -> Kronecker:
        """The product of the partial traces.

        Raises
        ------
        ValueError
            For fewer than 2 samples (about zero: 1).
        """
        divisor = self._divisor()
        channel, space = self._sums["channel"], self._sums["space"]
        # tr_space ⊗ tr_channel / tr(C): both partial traces have the trace of C, so that dividing one by its mean
        # variance, tr(C) / positions, and the other by the positions leaves the trace of the product as it was.
        scale = space.diagonal().mean()
        if scale > 0:  # else there is no variance, and nothing to divide
            space = space / scale
        return Kronecker(Dense(channel / (divisor * len(space))), Dense(space))


def squares(rows: Tensor) -> Tensor:
    """Σ row², unit by unit, without a copy of the rows."""
    return torch.linalg.vector_norm(rows, dim=0).square()
