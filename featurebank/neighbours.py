"""Near-duplicates: rows whose embeddings point the same way, found exactly, block by block."""

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
        Row numbers, the smaller first.

    Examples
    --------
    >>> near_duplicate_pairs(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.001]]))
    array([[0, 2]])
    """
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    unit = (X / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32, copy=False)
    found = []
    for start in range(0, len(unit), _BLOCK):
        close = unit[start : start + _BLOCK] @ unit[start:].T > 1 - threshold  # (block, n - start)
        first, second = np.nonzero(np.triu(close, 1))
        found.append(np.stack([first, second], axis=1) + start)
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


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
    pairs = near_duplicate_pairs(X, threshold)
    edges = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(X), len(X)))
    return connected_components(edges, directed=False)[1].astype(np.int64)
