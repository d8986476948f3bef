"""The covariance nearest to a matrix that is none."""

import torch
from torch import Tensor

from neurovar import _memory
from neurovar.covariance._dense_and_low_rank import Dense


def nearest(matrix: Tensor) -> Dense:
    """The positive semi-definite matrix nearest to a symmetric one, in the Frobenius norm.

    With C = V diag(λ) Vᵀ it is V diag(max(λ, 0)) Vᵀ, at distance √Σ min(λ, 0)². The trace grows by what is clipped.

    Parameters
    ----------
    matrix : torch.Tensor
        (n, n), of float32 or float64; (C + Cᵀ)/2 is taken.

    Returns
    -------
    Dense
        Of the matrix's dtype.

    Raises
    ------
    ValueError
        If the matrix is not square and finite, or would not fit into memory.

    References
    ----------
    Higham 1988, doi:10.1016/0024-3795(88)90223-6

    Examples
    --------
    >>> nearest(torch.tensor([[1.0, 2.0], [2.0, 1.0]])).to_dense()
    tensor([[1.5000, 1.5000],
            [1.5000, 1.5000]])
    """
    if not matrix.is_floating_point() or matrix.ndim != 2 or len(matrix) != matrix.shape[-1]:
        raise ValueError(f"expected a matrix (n, n) of floats, got {matrix.dtype} {tuple(matrix.shape)}")
    # The symmetric part, its eigenvectors, their scaled copy and the product.
    _memory.require_matrix(len(matrix), torch.float64, matrix.device, copies=4)
    if not torch.isfinite(matrix).all():
        raise ValueError(f"expected a finite matrix, got {int((~torch.isfinite(matrix)).sum())} NaN or infinite")
    values, vectors = torch.linalg.eigh((matrix + matrix.mT).double() / 2)
    clipped = (vectors * values.clamp(min=0)) @ vectors.mT
    return Dense(((clipped + clipped.mT) / 2).to(matrix.dtype))
