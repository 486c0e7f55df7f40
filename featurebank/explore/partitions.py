"""Partitions of rows into clusters: three methods, how many clusters, how good and how stable they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, ward
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import normalize

from featurebank.errors import TopModelError

METHODS = ("kmeans", "hdbscan", "agglomerative")
COMPONENTS = 50
"""Principal components that are clustered: distances in more of them tell near from far less well."""
MOST_CLUSTERS = 15
"""Most clusters that are tried when no number is given."""
SILHOUETTE_ROWS = 2000
"""Rows, drawn at random where there are more, that the silhouette is measured on."""
DRAWS, DRAWN = 5, 0.8
MOST_ROWS = 10_000
"""Most rows of an agglomerative clustering, whose distances take 400 MB."""
LEAST_IN_CLUSTER = 5
NONE = -1
"""The cluster of a row that has none."""

Partition = Callable[[int], NDArray[np.int64]]


def reduced(X: NDArray[Any], seed: int = 0) -> NDArray[np.float64]:
    """Return what is clustered: rows of length 1, in their first principal components, shape (n, at most 50)."""
    unit = normalize(X.astype(np.float64))
    with np.errstate(invalid="ignore"):  # a share of no variance, where all rows are the same
        return PCA(min(COMPONENTS, *unit.shape), svd_solver="randomized", random_state=seed).fit_transform(unit)


def partitions(Z: NDArray[np.float64], method: str, seed: int = 0) -> Partition:
    """Return the function from a number of clusters to the cluster of each row.

    Parameters
    ----------
    Z : ndarray of float64, shape (n, d)
    method : str
        ``"kmeans"`` or ``"agglomerative"`` (Ward).
    seed : int, default 0
        Of k-means, which starts five times.

    Raises
    ------
    TopModelError
        When there are over 10,000 rows for an agglomerative clustering.

    Examples
    --------
    >>> Z = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]])
    >>> choose_number(Z, partitions(Z, "agglomerative"))
    3
    """
    if method == "kmeans":
        return lambda k: KMeans(k, n_init=5, random_state=seed).fit_predict(Z)
    if len(Z) > MOST_ROWS:
        raise TopModelError(f"{len(Z)} images; agglomerative clustering takes {MOST_ROWS}: use kmeans")
    tree = ward(Z)
    return lambda k: cut_tree(tree, k).ravel()


def choose_number(Z: NDArray[np.float64], partition: Partition, seed: int = 0) -> int:
    """Return the number of clusters, from 2 to 15, with the highest mean silhouette; the smallest of equals."""
    most = min(MOST_CLUSTERS, len(np.unique(Z, axis=0)) - 1)
    scores = [silhouette(Z, partition(k), seed) or -1.0 for k in range(2, most + 1)]
    return 2 + int(np.argmax(scores))


def silhouette(Z: NDArray[np.float64], labels: NDArray[np.int64], seed: int = 0) -> float | None:
    """Return the mean silhouette of the rows that have a cluster; None of fewer than two clusters."""
    rows = np.random.default_rng(seed).permutation(len(Z))[:SILHOUETTE_ROWS]
    rows = rows[labels[rows] != NONE]
    if not 2 <= len(np.unique(labels[rows])) < len(rows):
        return None
    return float(silhouette_score(Z[rows], labels[rows]))


def dense(Z: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cluster that HDBSCAN gives each row, -1 for none."""
    return HDBSCAN(min(max(LEAST_IN_CLUSTER, len(Z) // 100), len(Z)), copy=True).fit_predict(Z)


def stability(Z: NDArray[np.float64], labels: NDArray[np.int64], method: str, clusters: int, seed: int = 0) -> float:
    """Return the mean adjusted Rand index between clusters and those of five draws of 80 % of the rows."""
    random, scores = np.random.default_rng(seed), []
    for draw in range(DRAWS):
        rows = np.sort(random.permutation(len(Z))[: max(clusters + 1, int(DRAWN * len(Z)))])
        again = dense(Z[rows]) if method == "hdbscan" else partitions(Z[rows], method, seed + draw + 1)(clusters)
        scores.append(adjusted_rand_score(labels[rows], again))
    return float(np.mean(scores))
