"""Can the labels be told from noise? The probe on the labels, against the probe on shuffled ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from featurebank.fitting.rows import Rows
from featurebank.topmodels.folds import Folds, make_folds
from featurebank.topmodels.models import ALPHAS
from featurebank.topmodels.solvers import ridge
from featurebank.topmodels.solvers.problem import Prediction, Problem, SolverOptions

SHUFFLES = 199
CLASSES = 8
"""Classes whose columns are learned, the largest first: any statistic makes a valid test, and this bounds its work."""


def shuffled_share(
    rows: Rows, features: Sequence[Sequence[str]], *, folds: int = 5, seed: int = 0, jobs: int = 1
) -> float | None:
    """Return the p-value of the labels: how often shuffled ones are predicted as well.

    The permutation test of Ojala and Garriga 2010 (Permutation tests for studying classifier performance), exact for
    any number of rows. The statistic is the share of the targets' squares that a ridge explains out of fold, its
    features and strength crossed (see `featurebank.explore.advice.probe.crossed`) in each shuffle alike. A ridge of
    numbers is linear in its targets, so that all shuffles are columns of one problem.

    Parameters
    ----------
    rows : Rows
    features : sequence of sequences of str
        Feature sets of each candidate.
    folds : int, default 5
        Drawn without a look at the labels, as exactness asks.
    seed : int, default 0
        Of the folds and the shuffles.
    jobs : int, default 1
        Threads.

    Returns
    -------
    float or None
        At least 1 / (`SHUFFLES` + 1); None where rows belong together, so that shuffling them one by one is no chance.
    """
    if rows.groups is not None:
        return None
    targets = _shuffled(_columns(rows), seed)  # (n, 1 + shuffles, c)
    n = len(rows.y)
    parts = make_folds(
        Folds("plain", folds, random_state=seed), np.zeros((n, 1)), np.arange(n), None, seed, "regression"
    )
    scores = np.concatenate([_scores(rows, names, targets, parts, jobs) for names in features])  # (cells, folds, s)
    best_elsewhere = (scores.sum(axis=1, keepdims=True) - scores).argmax(axis=0)  # (folds, s)
    found = np.take_along_axis(scores, best_elsewhere[None], axis=0)[0].mean(axis=0)  # (s,)
    return float((found >= found[0] - 1e-12).mean())  # the labels as they are count as one of the shuffles


def _columns(rows: Rows) -> NDArray[np.float64]:
    """Return the numbers to predict, shape (n, c): the target, or a column of 0 and 1 for the largest classes."""
    if rows.task != "classification":
        return rows.y.reshape(len(rows.y), -1).astype(np.float64)
    classes, counts = np.unique(rows.y, return_counts=True)
    wanted = classes[np.argsort(-counts, kind="stable")][: CLASSES if len(classes) > 2 else 1]
    return (rows.y[:, None] == wanted).astype(np.float64)


def _shuffled(columns: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the columns as they are, then in other orders of the rows, shape (n, 1 + shuffles, c)."""
    random = np.random.default_rng(seed)
    orders = [np.arange(len(columns)), *(random.permutation(len(columns)) for _ in range(SHUFFLES))]
    return np.stack([columns[order] for order in orders], axis=1)


def _scores(
    rows: Rows,
    names: Sequence[str],
    targets: NDArray[np.float64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    jobs: int,
) -> NDArray[np.float64]:
    """Return the share of the squares explained on each fold, shape (strengths, folds, shuffles)."""
    X = rows.features(names)
    problem = Problem(X, targets.reshape(len(X), -1), list(folds), sample_weight=rows.weight)
    cells = {number: {"alpha": alpha} for number, alpha in enumerate(ALPHAS)}
    scores = np.zeros((len(cells), len(folds), targets.shape[1]))
    for event in ridge.solve(problem, cells, SolverOptions(n_jobs=jobs), Ridge()):
        if isinstance(event, Prediction):
            train, test = folds[event.fold]
            true = targets[test]
            centre = np.average(targets[train], axis=0, weights=problem.weights(train))
            wrong = ((true - event.labels.reshape(true.shape)) ** 2).sum(axis=(0, 2))
            scores[event.cell, event.fold] = 1 - wrong / ((true - centre) ** 2).sum(axis=(0, 2))
    return scores
