"""What a model asks for: what covers the images, then what it is least certain of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from featurebank.explore.labelling import k_center

STAGES = (20, 50)
"""Numbers of clusters that are covered, one after the other."""
CLUSTERED = 10_000
"""Rows that clusters are learned from."""
DOUBTFUL, SPREAD = 100, 32
"""Of so many rows that are least certain, as many as the second are taken, spread out."""


def coverage_order(
    Z: NDArray[np.float32], known: NDArray[np.int64], allowed: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Return rows that cover all: the most typical of each of some clusters, then of more.

    k-means (Lloyd 1982) finds the clusters; of those that hold no known row and none taken before, the row nearest to
    the centre is taken (as in Hacohen, Dekel and Weinshall 2022, Active learning on a budget), in the order that
    spreads most (`featurebank.explore.labelling.k_center`).

    Parameters
    ----------
    Z : ndarray of float32, shape (m, r)
        At length 1.
    known : ndarray of int64
        Rows that have a label.
    allowed : ndarray of int64
        Rows that may be taken.
    seed : int

    Returns
    -------
    ndarray of int64
        At most as many as the last of `STAGES`; none where fewer are allowed than it.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(allowed)[:CLUSTERED])
    sample = Z[drawn]
    taken = np.empty(0, np.int64)
    for clusters in [each for each in STAGES if each < len(sample)]:
        found = KMeans(clusters, n_init=3, random_state=seed).fit(sample)
        typical = pairwise_distances_argmin(found.cluster_centers_, sample)
        covered = np.concatenate([found.labels_[taken], found.predict(Z[known]) if len(known) else []])
        fresh = np.unique(typical[~np.isin(np.arange(clusters), covered)])
        if len(fresh):
            order, _ = k_center(np.concatenate([Z[known], sample[taken]]), sample[fresh], len(fresh))
            taken = np.concatenate([taken, fresh[order]])
    return drawn[taken]


def least_certain(proba: NDArray[np.float32], Z: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return some of these rows whose two largest probabilities are closest, spread out, the closest first."""
    if not len(rows):
        return rows
    ordered = np.sort(proba[rows], axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    doubtful = rows[np.argsort(margins, kind="stable")[:DOUBTFUL]]
    if len(doubtful) < 3:
        return doubtful
    order, _ = k_center(Z[doubtful[:1]], Z[doubtful[1:]], SPREAD - 1)
    return np.concatenate([doubtful[:1], doubtful[1:][order]])
