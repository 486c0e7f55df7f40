"""Folds: the same for every candidate, stratified, grouped when rows belong together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv

from featurebank.errors import TopModelError

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def make_folds(cv: Any, X: Any, y: NDArray[Any], groups: NDArray[Any] | None, seed: int) -> list[Fold]:
    """Return (train, test) row numbers of each fold.

    Parameters
    ----------
    cv : int, scikit-learn splitter, or iterable of (train, test)
        An integer k means ``StratifiedKFold(k, shuffle=True, random_state=seed)``, or `StratifiedGroupKFold` alike
        when `groups` are given.
    X : array of n rows
        Only its length matters to most splitters.
    y : ndarray, shape (n,)
        Class of each row.
    groups : ndarray, shape (n,), or None
        Rows of one group never straddle folds.
    seed : int
        Seed of the shuffling.

    Raises
    ------
    TopModelError
        When the data cannot be split so.
    """
    try:
        if isinstance(cv, (int, np.integer)):
            splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
            cv = splitter(int(cv), shuffle=True, random_state=seed)
        folds = list(check_cv(cv, y, classifier=True).split(X, y, groups))
    except ValueError as error:
        raise TopModelError(f"the rows cannot be split into these folds: {error}") from error
    empty = [number for number, (train, test) in enumerate(folds) if not len(train) or not len(test)]
    if empty:
        raise TopModelError(f"fold {empty[0]} would be empty; ask for fewer folds than the data has groups")
    return folds


def fold_numbers(folds: Iterable[Fold], count: int) -> NDArray[np.int64]:
    """Return the number of the fold that tests each row, -1 where none does, shape (count,)."""
    numbers = np.full(count, -1)
    for number, (_, test) in enumerate(folds):
        numbers[test] = number
    return numbers


def tie(*keys: Any) -> NDArray[np.int64]:
    """Return groups such that rows which share a value of any key share a group.

    Parameters
    ----------
    *keys : array-like, each of shape (n,)
        For instance a column of groups, and the content digests.

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> tie(["a", "a", "b", "c"], [1, 2, 2, 3])
    array([0, 0, 0, 1])
    """
    count = len(keys[0])
    rows, nodes, start = [], [], count
    for key in keys:
        _, codes = np.unique(np.asarray(key), return_inverse=True)
        rows.append(np.arange(count))
        nodes.append(codes + start)
        start += int(codes.max(initial=-1)) + 1
    edges = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(start, start))
    labels = connected_components(graph, directed=False)[1][:count]
    return np.unique(labels, return_inverse=True)[1]
