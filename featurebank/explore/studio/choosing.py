"""What comes next: a random tenth that no model chooses, else what covers the images, then what is least certain."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin

from featurebank.explore.labelling import k_center

COVERAGE, UNCERTAIN, RANDOM = "coverage", "uncertain", "random"
STAGES = (20, 50)
"""Numbers of clusters that are covered, one after the other."""
CLUSTERED = 10_000
"""Rows that clusters are learned from."""
TENTH = 10
HOLES = 10
"""One in so many images of the test part may have been skipped."""
DOUBTFUL, SPREAD = 100, 32
"""Of so many rows that are least certain, as many as the second are taken, spread out."""


def draws(digests: NDArray[np.bytes_], seed: int) -> NDArray[np.uint64]:
    """Return a random number for each content, which its digest and the seed decide alone, shape (n,).

    Those below a tenth of the largest are the test part, in this order.

    Examples
    --------
    >>> found = draws(np.array([b"a", b"b"]), 0)
    >>> found.dtype, bool((found == draws(np.array([b"b", b"a"]), 0)[::-1]).all())
    (dtype('uint64'), True)
    """
    start = f"featurebank studio {seed}".encode()
    hashed = b"".join(hashlib.sha256(start + bytes(each)).digest()[:8] for each in digests)
    return np.frombuffer(hashed, "<u8")


def tenth_of(numbers: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the contents of the random tenth in the order in which they are asked, from their `draws`."""
    order = np.argsort(numbers)
    return order[numbers[order] < np.uint64(2**64 // TENTH)]


def honest_part(asked: NDArray[np.int64], is_labelled: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the labelled contents of the random tenth that a score may stand on: those of a beginning without gaps.

    A beginning of a random order is a random sample, whoever labelled it and why; of what was labelled further on,
    say as a region of the map, the choice was not random. One in ten may have been skipped.

    Examples
    --------
    >>> honest_part(np.array([4, 2, 7, 1]), np.array([0, 1, 0, 0, 1, 0, 0, 0], bool))
    array([4])
    """
    given = is_labelled[asked]
    holes = np.cumsum(~given)
    fits = given & (holes <= np.arange(len(asked)) // HOLES)
    end = int(np.flatnonzero(fits)[-1]) + 1 if fits.any() else 0
    return asked[:end][given[:end]]


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


def mixed(
    chosen: Sequence[tuple[int, str]], asked: Sequence[int], count: int, labelled: int, tested: int
) -> list[tuple[int, str]]:
    """Return what comes next with a tenth from the test part mixed in, each with why it comes.

    Parameters
    ----------
    chosen : sequence of (content, why)
    asked : sequence of int
        Contents of the test part.
    count : int
        How many.
    labelled, tested : int
        Labels so far, and those of them in the test part.

    Examples
    --------
    >>> mixed([(1, "coverage"), (2, "coverage")], [7, 8], 3, labelled=4, tested=0)
    [(1, 'coverage'), (7, 'random'), (2, 'coverage')]
    """
    found: list[tuple[int, str]] = []
    first, second = deque(chosen), deque(asked)
    while len(found) < count and (first or second):
        is_due = TENTH * tested < labelled + 1 - TENTH // 2
        if second and (is_due or not first):
            found.append((second.popleft(), RANDOM))
            tested += 1
        else:
            found.append(first.popleft())
        labelled += 1
    return found
