"""Noise over channels times noise over space."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance, inner_product
from neurovar.covariance._dense_and_low_rank import Dense, mapped


@dataclass(frozen=True, eq=False)
class Kronecker(Covariance):
    """Separable noise of a convolutional layer: C = channel ⊗ space.

    The covariance of channel c at position p with channel d at position q is channel[c, d] · space[p, q]. With Z a
    matrix (channels, positions) of standard normals, a draw is L_channel Z L_spaceᵀ. Eigenvalues are the products of
    those of the two, so that tr C = tr channel · tr space, ‖C‖ = ‖channel‖ ‖space‖ and
    log |C| = n_space log |channel| + n_channel log |space|: these take no more memory than the two have. Vectors over
    all units (`diagonal`, `spectrum`, draws) and `to_dense` are refused where they would not fit.

    Parameters
    ----------
    channel : Covariance
        Over channels; centred Gaussian noise.
    space : Covariance
        Over positions, flattened as (row, column), of the same dtype and on the same device. Units are flattened as
        (channel, row, column).

    Raises
    ------
    ValueError
        If one of them depends on the activations or has a mean, or they differ in dtype or device.

    Examples
    --------
    >>> from neurovar.covariance import Diagonal
    >>> noise = Kronecker(Dense(torch.tensor([[2.0, 1.0], [1.0, 2.0]])), Diagonal.isotropic(3))
    >>> noise.n, noise.trace(), noise.sample(generator=torch.Generator().manual_seed(0)).shape
    (6, 12.0, torch.Size([6]))
    """

    channel: Covariance
    space: Covariance

    def __post_init__(self) -> None:
        for part in (self.channel, self.space):
            if not isinstance(part, Covariance) or not part.is_linear:
                raise ValueError(f"expected covariances without state or mean, got {type(part).__name__}")
        if (self.channel.dtype, self.channel.device) != (self.space.dtype, self.space.device):
            got = [(part.dtype, str(part.device)) for part in (self.channel, self.space)]
            raise ValueError(f"expected channel and space of one dtype on one device, got {got}")

    def _parts(self) -> dict[str, Covariance]:
        return {"channel": self.channel, "space": self.space}

    @property
    def n(self) -> int:
        return self.channel.n * self.space.n

    @property
    def n_normals(self) -> int:
        return self.channel.n_normals * self.space.n_normals

    def _colorize(self, normals: Tensor) -> Tensor:
        blocks = normals.reshape(-1, self.channel.n_normals, self.space.n_normals)
        # Z L_spaceᵀ row by row, then L_channel from the left as (… )ᵀ L_channelᵀ: both are draws of the smaller noises.
        over_space = self.space._colorize(blocks.flatten(0, 1)).reshape(*blocks.shape[:2], self.space.n)
        over_channels = self.channel._colorize(over_space.mT.flatten(0, 1))
        return over_channels.reshape(-1, self.space.n, self.channel.n).mT.flatten(1)

    def _whiten(self, rows: Tensor) -> Tensor:
        return self._along_each(rows, self.channel._whiten, self.space._whiten)

    def _multiply(self, rows: Tensor) -> Tensor:
        return self._along_each(rows, self.channel._multiply, self.space._multiply)

    def _along_each(
        self, rows: Tensor, over_channels: Callable[[Tensor], Tensor], over_space: Callable[[Tensor], Tensor]
    ) -> Tensor:
        blocks = rows.reshape(-1, self.channel.n, self.space.n)
        moved = over_space(blocks.flatten(0, 1)).reshape(blocks.shape).mT
        return over_channels(moved.flatten(0, 1)).reshape(moved.shape).mT.flatten(1)

    def trace(self) -> float:
        return self.channel.trace() * self.space.trace()

    def _scaled(self, factor: float) -> "Kronecker":
        return Kronecker(self.channel._scaled(factor), self.space)

    def _mapped(self, matrix: Tensor) -> Covariance:
        return mapped(self, matrix)

    def _inner(self, other: Covariance) -> Tensor | None:
        """⟨A ⊗ B, C ⊗ D⟩ = ⟨A, C⟩ ⟨B, D⟩, where both are over as many channels."""
        if isinstance(other, Kronecker) and other.channel.n == self.channel.n:
            return inner_product(self.channel, other.channel) * inner_product(self.space, other.space)
        return None

    def _rescaled_units(self, scale: Tensor) -> Covariance:
        """A Kronecker still where the scale is that of a channel times that of a position, s = a ⊗ b; else `Dense`.

        Such a table of scales has rank 1: its row and column through the largest entry tell all of it.
        """
        table = scale.reshape(self.channel.n, self.space.n)
        peak = int(table.abs().argmax())
        row, column = divmod(peak, self.space.n)
        channel, space = table[:, column], table[row] / table[row, column]
        if torch.allclose(torch.outer(channel, space), table, atol=1e-8 * float(table.abs().max())):
            return Kronecker(self.channel._rescaled_units(channel), self.space._rescaled_units(space))
        return Dense(self.to_dense() * torch.outer(scale, scale))

    def diagonal(self) -> Tensor:
        _memory.require_numbers(self.n, self.dtype, self.device, of=f"the variances of {self.n} units")
        return torch.outer(self.channel.diagonal(), self.space.diagonal()).flatten()

    def spectrum(self) -> Tensor:
        _memory.require_numbers(2 * self.n, torch.float64, self.device, of=f"the eigenvalues of {self.n} units")
        return torch.outer(self.channel.spectrum(), self.space.spectrum()).flatten().sort(descending=True).values

    def _squared_norm(self) -> Tensor:
        return self.channel._squared_norm() * self.space._squared_norm()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device)
        return torch.kron(self.channel.to_dense(), self.space.to_dense())

    def log_determinant(self) -> float:
        return self.space.n * self.channel.log_determinant() + self.channel.n * self.space.log_determinant()
