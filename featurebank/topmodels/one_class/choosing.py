"""Which detectors on which feature sets are fused, decided without anomalies: by artificial ones.

An artificial anomaly is a normal row, unseen by the detector, some of whose columns come from another normal. Every
column keeps its distribution; what columns have to do with each other is broken: the synthetic class of Breiman's
unsupervised forests (Shi and Horvath 2006), in a share of the columns only. A detector that tells such rows from whole
ones has learned what normal rows look like.

Measured on solar cells and digits, six feature sets of one network by five detectors, and those of three networks: by
artificial and by real anomalies, detectors come in nearly the same order; feature sets in a rougher one. Those within
`NEAR` of the best, fused, were better than the best three in eleven of twelve trials (solar cells, means of four: 0.911
against 0.907 with one network, 0.909 against 0.906 with three), and are mostly fewer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from featurebank.images.reading import Progress
from featurebank.topmodels.candidates import Candidate
from featurebank.topmodels.folds import Fold, sizes_of
from featurebank.topmodels.one_class.detectors import make_detector
from featurebank.topmodels.one_class.model import normal_folds
from featurebank.topmodels.scores import fold_interval, trials_of
from featurebank.topmodels.threads import delayed

SCORING = "roc_auc on artificial anomalies"
NEAR = 0.02
"""Detectors are fused whose area under the ROC curve is less than this below the best one's."""
MOST = 6
ROWS = 1024
"""Normals that detectors are compared on; more are drawn from."""
FOLDS = 3
SHARE = 0.05
"""Of the columns of an artificial anomaly that come from another row."""


def mixed(X: NDArray[Any], random: np.random.Generator, share: float = SHARE) -> NDArray[Any]:
    """Return artificial anomalies: rows (n, d), each with a share of its columns from another row of X.

    Examples
    --------
    >>> rows = mixed(np.zeros((50, 40)) + np.arange(50)[:, None], np.random.default_rng(0))
    >>> float(np.mean(rows != np.arange(50)[:, None]).round(2))
    0.05
    """
    others = (np.arange(len(X)) + random.integers(1, len(X), len(X))) % len(X)
    return np.where(random.random(X.shape) < share, X[others], X)


def compare(
    X: NDArray[Any],
    columns: Mapping[tuple[str, ...], NDArray[np.int64]],
    names: Sequence[str],
    *,
    groups: NDArray[Any] | None = None,
    random_state: int = 0,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> list[Candidate]:
    """Score detectors on feature sets by artificial anomalies.

    Parameters
    ----------
    X : ndarray of float, shape (n, d)
        Normal rows; of more than 1,024 so many are drawn.
    columns : mapping of tuple of str to ndarray of int64
        The columns of each candidate's feature sets.
    names : sequence of str
        Detectors (`featurebank.topmodels.one_class.detectors.DETECTORS`).
    groups : ndarray, shape (n,), optional
    random_state : int, default 0
    n_jobs : int, default 1
        Threads.
    progress : callable, optional
        Called with (candidates done, in all).

    Returns
    -------
    list of Candidate
        Their ``mean`` is the area under the ROC curve over three folds.
    """
    random = np.random.default_rng(random_state)
    drawn = np.sort(random.permutation(len(X))[:ROWS])
    rows, parts = X[drawn], None if groups is None else groups[drawn]
    folds = normal_folds(len(rows), parts, random_state, FOLDS)
    strange = mixed(rows, random)
    trials, wanted, found = trials_of(len(rows), parts), list(product(columns, names)), []
    tasks = (
        delayed(_score)(make_detector(name, columns[features], len(rows)), rows, strange, fold)
        for features, name in wanted
        for fold in folds
    )
    done = joblib.Parallel(n_jobs, prefer="threads", return_as="generator")(tasks)
    for features, name in wanted:
        scores, seconds = zip(*islice(done, len(folds)), strict=True)
        ends = fold_interval(scores, *sizes_of(folds), SCORING, trials=trials).ends
        found.append(Candidate(features, name, {}, fold_scores=list(scores), ci95=ends, interval="nadeau-bengio"))
        found[-1].seconds = sum(seconds)
        if progress is not None:
            progress(len(found), len(wanted))
    return found


def _score(detector: Pipeline, rows: NDArray[Any], strange: NDArray[Any], fold: Fold) -> tuple[float, float]:
    """Return a detector's score on a fold, and the seconds that it took."""
    started = time.perf_counter()
    train, test = fold
    said = detector.fit(rows[train]).score_samples(np.concatenate([rows[test], strange[test]]))
    score = float(roc_auc_score(np.repeat([1, 0], len(test)), said))
    return score, time.perf_counter() - started


def fuse(found: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that are fused: the best, and at most five others whose scores are near its own."""
    ordered = sorted(found, key=lambda each: -each.mean)
    return [each for each in ordered if each.mean > ordered[0].mean - NEAR][:MOST]
