"""The correlation matrix that is nearest to one that is none."""

import numpy as np

FLOOR = 1e-6
"""The least eigenvalue of what comes out: a float32 matrix with eigenvalues about 1 still factorises with it."""


def nearest_correlation(matrix: np.ndarray, *, tolerance: float = 1e-7, max_iterations: int = 1000) -> np.ndarray:
    """The correlation matrix nearest to a symmetric matrix in the Frobenius norm.

    X = argmin ‖X − A‖_F over symmetric X with diag X = 1 and no eigenvalue below 1e-6, by Higham's alternating
    projections with Dykstra's correction. A matrix that is one already is returned as it is.

    Parameters
    ----------
    matrix : numpy.ndarray
        A, symmetric (n, n), such as pairwise estimates that do not fit together.
    tolerance : float, optional
        The projections have converged when the last one moved the matrix by less than this part of its norm.
    max_iterations : int, optional
        Projections at most.

    Returns
    -------
    numpy.ndarray
        X, (n, n).

    Raises
    ------
    ValueError
        If the matrix is not square, symmetric and finite, or the projections do not converge.

    References
    ----------
    Higham 2002, doi:10.1093/imanum/22.3.329

    Examples
    --------
    >>> nearest_correlation(np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])).round(4)
    array([[1.    , 0.7607, 0.1573],
           [0.7607, 1.    , 0.7607],
           [0.1573, 0.7607, 1.    ]])
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T, atol=1e-6):
        raise ValueError(f"expected a finite symmetric matrix, got shape {matrix.shape} or one that is not symmetric")
    if np.allclose(np.diag(matrix), 1) and _is_positive(matrix - FLOOR * np.eye(len(matrix))):
        return matrix
    # The wanted set is where two convex sets meet: P, all eigenvalues ≥ FLOOR, and U, a diagonal of ones. Projecting
    # onto each in turn ends in P ∩ U, but not at its nearest point. Dykstra: before each projection onto P take off
    # what the last one added, so that the step is normal to P at the end (U is affine and needs no such correction).
    current, correction = (matrix + matrix.T) / 2, np.zeros_like(matrix)
    for _ in range(max_iterations):
        shifted = current - correction
        values, vectors = np.linalg.eigh(shifted)
        projected = (vectors * np.maximum(values, FLOOR)) @ vectors.T
        correction = projected - shifted
        previous, current = current, projected.copy()
        np.fill_diagonal(current, 1)
        if np.linalg.norm(current - previous) <= tolerance * np.linalg.norm(current):
            # The point of P rather than that of U, so that it factorises; its diagonal is 1 to the tolerance only.
            scale = np.sqrt(np.diag(projected))
            return projected / np.outer(scale, scale)
    raise ValueError(f"expected convergence within {max_iterations} projections, still moving by more than {tolerance}")


def _is_positive(matrix: np.ndarray) -> bool:
    """By a Cholesky factorisation, a tenth of the cost of eigenvalues."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True
