"""Noise over channels times noise over space."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._base import Covariance
from neurovar.covariance._dense import Dense


@dataclass(frozen=True, eq=False)
class Kronecker(Covariance):
    """Separable noise of a convolutional layer: C = channel ⊗ space.

    The covariance of channel c at position p with channel d at position q is channel[c, d] · space[p, q]. Units are
    flattened as (channel, row, column), space as (row, column). With Z a matrix (channels, positions) of standard
    normals, a draw is L_channel Z L_spaceᵀ. Eigenvalues are the products of those of the two, and
    log |C| = n_space log |channel| + n_channel log |space|.
    Only `to_dense` takes more memory than the two.
    """

    channel: Covariance
    space: Covariance

    def __post_init__(self) -> None:
        for part in (self.channel, self.space):
            if not isinstance(part, Covariance) or not part._linear:
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

    def _scaled(self, factor: float) -> "Kronecker":
        return Kronecker(self.channel._scaled(factor), self.space)

    def _rescaled_units(self, scale: Tensor) -> Covariance:
        table = scale.reshape(self.channel.n, self.space.n)
        peak = int(table.abs().argmax())
        row, column = divmod(peak, self.space.n)
        channel, space = table[:, column], table[row] / table[row, column]
        if torch.allclose(torch.outer(channel, space), table, atol=1e-8 * float(table.abs().max())):
            return Kronecker(self.channel._rescaled_units(channel), self.space._rescaled_units(space))
        return Dense(self.to_dense() * torch.outer(scale, scale))

    def diagonal(self) -> Tensor:
        return torch.outer(self.channel.diagonal(), self.space.diagonal()).flatten()

    def spectrum(self) -> Tensor:
        return torch.outer(self.channel.spectrum(), self.space.spectrum()).flatten().sort(descending=True).values

    def _squared_norm(self) -> Tensor:
        return self.channel._squared_norm() * self.space._squared_norm()

    def to_dense(self) -> Tensor:
        _memory.require_matrix(self.n, self.dtype, self.device)
        return torch.kron(self.channel.to_dense(), self.space.to_dense())

    def log_determinant(self) -> float:
        return self.space.n * self.channel.log_determinant() + self.channel.n * self.space.log_determinant()
