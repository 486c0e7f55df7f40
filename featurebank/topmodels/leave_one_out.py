"""Ridge with what it says of each row when it has not seen it: exact, from the one decomposition that fits it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARES = tuple(10.0 ** np.arange(-3, 1.5, 0.5))
"""Strengths of the penalty that are tried, as shares of the mean squared length of the centred rows."""
REGULAR = 1e-9
"""Share of the largest eigenvalue below which a direction carries nothing."""


class LeftOut(NamedTuple):
    """A ridge, and its values for rows that it has not seen.

    Attributes
    ----------
    weights : ndarray of float64, shape (d, k)
    bias : ndarray of float64, shape (k,)
    values : ndarray of float64, shape (n, k)
        Of each row by the ridge of all others.
    penalty : float
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    values: NDArray[np.float64]
    penalty: float


def leave_one_out(X: NDArray[Any], Y: NDArray[Any], shares: tuple[float, ...] = SHARES) -> LeftOut:
    """Fit a ridge with the penalty that is best for rows left out, one by one.

    The values of left-out rows have a closed form (Golub, Heath and Wahba 1979, Generalized cross-validation as a
    method for choosing a good ridge parameter; Allen 1974, PRESS), here by an eigendecomposition of the smaller of the
    two products of X with itself. The intercept is not penalised.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
        At least two rows.
    Y : ndarray of float, shape (n, k)
    shares : tuple of float
        See `SHARES`.

    Returns
    -------
    LeftOut

    Examples
    --------
    >>> found = leave_one_out(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([[1.0], [3.0], [5.0], [7.0]]), (1e-6,))
    >>> found.weights.round(3).tolist(), found.bias.round(3).tolist(), found.values.round(2).ravel().tolist()
    ([[2.0]], [1.0], [1.0, 3.0, 5.0, 7.0])
    """
    centre, mean = X.mean(axis=0, dtype=np.float64), Y.mean(axis=0, dtype=np.float64)
    rows, targets = X - centre, Y - mean  # (n, d), (n, k)
    eigenvalues, vectors = _decomposed(rows)  # (r,), (n, r)
    turned, squares = vectors.T @ targets, vectors**2  # (r, k), (n, r)
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for share in shares:
        penalty = max(share * float(eigenvalues.sum()) / len(X), np.finfo(np.float64).tiny)
        shrunk = eigenvalues / (eigenvalues + penalty)
        left = np.maximum(1 - 1 / len(X) - squares @ shrunk, np.finfo(np.float64).eps)[:, None]
        misses = (targets - vectors @ (shrunk[:, None] * turned)) / left
        loss = float((misses**2).mean())
        if best is None or loss < best[0]:
            best = loss, penalty, Y - misses
    assert best is not None
    _, penalty, values = best
    weights = rows.T @ (vectors @ (turned / (eigenvalues + penalty)[:, None]))
    return LeftOut(weights, mean - centre @ weights, values, penalty)


def _decomposed(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the squared singular values, (r,), and left singular vectors, (n, r), of rows that are not all zero."""
    # numpy's LAPACK lets other threads run, scipy's holds the interpreter's lock.
    if len(rows) <= rows.shape[1]:
        values, vectors = np.linalg.eigh(rows @ rows.T)
        kept = values > REGULAR * max(float(values[-1]), np.finfo(np.float64).tiny)
        return values[kept], vectors[:, kept]
    values, axes = np.linalg.eigh(rows.T @ rows)
    kept = values > REGULAR * max(float(values[-1]), np.finfo(np.float64).tiny)
    return values[kept], rows @ axes[:, kept] / np.sqrt(values[kept])
