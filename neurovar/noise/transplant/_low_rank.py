"""Noise of any kind as its leading principal components and private variances."""

import numpy as np
import torch
from scipy.sparse.linalg import eigsh

from neurovar.covariance import Covariance, LowRankPlusDiagonal


def low_rank(noise: Covariance, *, rank: int) -> LowRankPlusDiagonal:
    """The noise with its leading principal components kept and the rest of each variance made private.

    The variances stay exact; covariances outside the leading components are lost.

    Parameters
    ----------
    noise : Covariance
        Over n units; it is written out as a matrix.
    rank : int
        How many components are kept, from 1 to n − 1.

    Returns
    -------
    LowRankPlusDiagonal
        Of the noise's dtype and on its device.

    Raises
    ------
    ValueError
        For a rank out of range.

    Examples
    --------
    >>> from neurovar.covariance import Dense
    >>> matrix = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    >>> low_rank(Dense(matrix), rank=1).diagonal()
    tensor([2., 2., 1.])
    """
    if not 1 <= rank < noise.n:
        raise ValueError(f"expected a rank from 1 to {noise.n - 1}, got {rank}")
    matrix = noise.to_dense().cpu().double().numpy()
    # A start that is fixed, so that results repeat, and random, so that it is orthogonal to no component.
    values, vectors = eigsh(matrix, k=rank, v0=np.random.default_rng(0).standard_normal(noise.n))
    factors = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0))).to(noise.diagonal())
    return LowRankPlusDiagonal(factors, (noise.diagonal() - factors.square().sum(1)).clamp(min=0))
