"""Semi-supervised fits: rows without a label help to fit a top model, which stays a plain pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from featurebank.errors import TopModelError
from featurebank.topmodels.search import TopModelSearchCV
from featurebank.topmodels.transforms import Step, normalization

INNER_FOLDS = 5
SURE = 0.9
"""Least probability of a label that self-training takes for true."""
SPREAD_SURE = 0.75
"""Least share of a row's neighbourhood that its spread label must hold."""
NEIGHBOURS = 10
SEARCHED = 2000
"""Rows that parameters are searched on where labels were found for more."""
COMPONENTS = (16, 64)
"""Whitened directions that are tried; more of them are mostly noise where labels are few."""
_UNKNOWN = -1


@dataclass(frozen=True)
class TrainingRows:
    """The rows that one model learns from: those with a label, and a pool without (m, d).

    `groups` are those of the labelled rows, None where each stands for itself.
    """

    X: NDArray[np.float32]
    y: NDArray[Any]
    groups: NDArray[np.int64] | None
    pool: NDArray[np.float32]

    def all_rows(self) -> NDArray[np.float32]:
        """Return the labelled rows, then the others."""
        return np.concatenate([self.X, self.pool])

    def codes(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the classes, and the number of each row's class, -1 without a label."""
        classes, codes = np.unique(self.y, return_inverse=True)
        return classes, np.concatenate([codes, np.full(len(self.pool), _UNKNOWN)])


def tuned(search: TopModelSearchCV, X: NDArray[Any], y: NDArray[Any], groups: Any, **options: Any) -> TopModelSearchCV:
    """Return a search, fitted on these rows and nothing else; `options` are parameters of its own.

    A class with fewer than two rows, or groups, is an error.
    """
    search = clone(search).set_params(cv=_inner_folds(y, groups), **options)
    return search.fit(X, y, groups=groups)


def _before(search: TopModelSearchCV) -> list[Step]:
    """Return fresh steps that normalise rows as a search of one normalisation does."""
    widths = [block.stop - block.start for block in (search.blocks or {}).values()]
    return normalization(str(search.normalize), widths=widths)


def supervised(search: TopModelSearchCV, rows: TrainingRows) -> Pipeline:
    """Return the best pipeline of the labelled rows alone, fitted on them.

    The search is unfitted, of one top model and one normalisation.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = supervised(TopModelSearchCV(["ridge"]), TrainingRows(X[:20], y[:20], None, X[20:]))
    >>> model.score(X[20:], y[20:]) > 0.95
    True
    """
    return tuned(search, rows.X, rows.y, rows.groups).best_estimator_


def self_training(search: TopModelSearchCV, rows: TrainingRows) -> Pipeline:
    """Fit, take the surest predictions of rows without a label for their labels, and fit again (Yarowsky 1995).

    At most ten rounds, until no label is surer than 0.9; then a plain top model is fitted on all labels. The top
    model has probabilities; parameters and result are those of `supervised`.
    """
    base = supervised(search, rows)
    classes, codes = rows.codes()
    known = codes[: len(rows.y)]
    found = SelfTrainingClassifier(clone(base), threshold=SURE).fit(rows.all_rows(), codes).transduction_
    found[: len(known)] = known
    return _fit_labelled(search, rows, classes, found)


def spreading(search: TopModelSearchCV, rows: TrainingRows) -> Pipeline:
    """Spread labels over the graph of 10 nearest neighbours, and fit the rows they surely reach.

    Zhou et al. (2004), Learning with local and global consistency. Spreading says nothing of new rows, so that a plain
    top model is fitted on the spread labels that hold at least three quarters of their row's neighbourhood.
    Parameters and result are those of `supervised`.
    """
    classes, codes = rows.codes()
    Z = rows.all_rows()
    for _, step in [*_before(search), ("unit", Normalizer())]:
        Z = step.fit_transform(Z)
    spread = LabelSpreading(kernel="knn", n_neighbors=min(NEIGHBOURS, len(Z) - 1), max_iter=200).fit(Z, codes)
    shares = np.nan_to_num(spread.label_distributions_)
    found = np.where(shares.max(axis=1) >= SPREAD_SURE, shares.argmax(axis=1), _UNKNOWN)
    known = codes != _UNKNOWN
    found[known] = codes[known]
    return _fit_labelled(search, rows, classes, found)


def whiten(search: TopModelSearchCV, rows: TrainingRows) -> Pipeline:
    """Fit the labelled rows behind a PCA whitening that all rows, labelled or not, have taught (Raina et al. 2007).

    It keeps 16 or 64 directions, whichever the labelled rows do better with in cross-validation. Parameters and result
    are those of `supervised`.
    """
    every, Z = rows.all_rows(), rows.X
    steps = _before(search)
    for _, step in steps:
        every = step.fit_transform(every)
        Z = step.transform(Z)
    tried = []
    for count in COMPONENTS:
        pca = PCA(min(count, *every.shape), whiten=True, random_state=search.random_state).fit(every)
        found = tuned(search, pca.transform(Z), rows.y, rows.groups, normalize="none", select=None, blocks=None)
        tried.append((pca, found))
    pca, found = max(tried, key=lambda pair: pair[1].best_score_)
    return Pipeline([*steps, ("whiten", pca), found.best_estimator_.steps[-1]])


METHODS: dict[str, Callable[[TopModelSearchCV, TrainingRows], Pipeline]] = {
    "self-training": self_training,
    "spreading": spreading,
    "whiten": whiten,
}


def _fit_labelled(
    search: TopModelSearchCV, rows: TrainingRows, classes: NDArray[Any], codes: NDArray[np.int64]
) -> Pipeline:
    """Fit the rows that have a label now, with parameters searched on 2,000 of them, the labelled ones first.

    Those of the few rows would not do: a penalty that suits ten rows can leave hundreds with nothing but the most
    frequent class.
    """
    labelled = len(rows.y)
    extra = labelled + np.flatnonzero(codes[labelled:] != _UNKNOWN)
    extra = np.random.default_rng(search.random_state).permutation(extra)
    chosen = np.concatenate([np.arange(labelled), extra])
    X, y = rows.all_rows()[chosen], classes[codes[chosen]]
    groups = None if rows.groups is None else np.concatenate([rows.groups, rows.groups.max() + 1 + extra])
    most = max(labelled, SEARCHED)
    model = tuned(search, X[:most], y[:most], None if groups is None else groups[:most]).best_estimator_
    return model if len(X) <= most else clone(model).fit(X, y)


def _inner_folds(y: NDArray[Any], groups: Any) -> int:
    """Return how many folds the class of fewest rows (or groups) allows, from 2 to 5."""
    units = np.arange(len(y)) if groups is None else groups
    counts = {str(name): len(np.unique(units[y == name])) for name in np.unique(y)}
    rarest = min(counts, key=lambda name: counts[name])
    if counts[rarest] < 2:
        raise TopModelError(f"one row (or group) of {rarest!r} to learn from; expected 2 to choose parameters by")
    return min(counts[rarest], INNER_FOLDS)
