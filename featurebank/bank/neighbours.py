"""Pairs of rows that lie close together, found exactly, block by block; near-duplicates are such pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

THRESHOLD = 0.01
"""Cosine distance below which two images count as near-duplicates. EfficientNet-Lite0 gives re-compressed (JPEG 90) or
slightly resized copies distances of 0.002 to 0.009; distinct photographs start at about 0.05, distinct solar cells,
which look much alike, at 0.004."""
_BLOCK = 2048


def close_pairs(X: NDArray[Any], squared: float) -> NDArray[np.int64]:
    """Return the pairs of rows whose squared Euclidean distance is below a limit.

    Parameters
    ----------
    X : ndarray of float32, shape (n, d)
    squared : float
        The limit.

    Returns
    -------
    ndarray of int64, shape (m, 2)
        Row numbers, the smaller first.

    Examples
    --------
    >>> close_pairs(np.array([[0.0], [3.0], [0.1]], np.float32), 0.02)
    array([[0, 2]])
    """
    half = (X * X).sum(axis=1) / 2
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(X), _BLOCK):
        rows = slice(start, start + _BLOCK)
        close = X[rows] @ X[start:].T > half[rows, None] + half[start:] - squared / 2  # (block, n - start)
        found.append(np.argwhere(np.triu(close, 1)) + start)
    return np.concatenate(found)


def near_duplicate_pairs(X: NDArray[Any], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Return the pairs of rows whose cosine distance is below a threshold.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
        Embeddings, as they are (not centred).
    threshold : float, default 0.01
        Largest 1 - cosine.

    Returns
    -------
    ndarray of int64, shape (m, 2)
        Row numbers, the smaller first. A row of zeros is in no pair.

    Examples
    --------
    >>> near_duplicate_pairs(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.001]]))
    array([[0, 2]])
    """
    unit = unit_rows(X)
    some = np.flatnonzero(unit.any(axis=1))
    return some[close_pairs(unit[some], 2 * threshold)]  # |a - b|² = 2 - 2 cos


def unit_rows(X: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rows at length 1; a row of zeros stays one.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (X / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)
    return unit


def near_duplicate_groups(X: NDArray[Any], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Return a group for each row, such that near-duplicates, and theirs, share one.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
    threshold : float, default 0.01
        Largest 1 - cosine.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    return groups_of(near_duplicate_pairs(X, threshold), len(X))


def groups_of(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return a group for each of `count` rows, such that the rows of a pair, and theirs, share one, shape (count,).

    Examples
    --------
    >>> groups_of(np.array([[0, 2], [2, 3]]), 4).tolist()
    [0, 1, 0, 0]
    """
    edges = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(edges, directed=False)[1].astype(np.int64)
