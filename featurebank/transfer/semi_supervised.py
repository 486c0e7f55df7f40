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

from featurebank.search import TopModelSearchCV
from featurebank.transforms import normalization

INNER_FOLDS = 5
SURE = 0.9
"""Least probability of a label that self-training takes for true."""
SPREAD_SURE = 0.75
"""Least share of a row's neighbourhood that its spread label must hold."""
NEIGHBOURS = 20
COMPONENTS = 64
"""Whitened directions; more of them are mostly noise where labels are few."""
_UNKNOWN = -1


@dataclass(frozen=True)
class Recipe:
    """A top model whose parameters are searched anew on whatever rows it is given.

    Attributes
    ----------
    model : str
        Name of the top model.
    search : TopModelSearchCV
        Unfitted, of that model and one normalisation.
    """

    model: str
    search: TopModelSearchCV

    def fit(self, X: NDArray[Any], y: NDArray[Any], groups: Any, normalize: str | None = None) -> Pipeline:
        """Return the pipeline with the best parameters by cross-validation within these rows, fitted on them."""
        search = clone(self.search).set_params(cv=_inner_folds(y, groups))
        if normalize is not None:
            search.set_params(normalize=normalize, select=None)
        return search.fit(X, y, groups=groups).best_estimator_


@dataclass(frozen=True)
class Part:
    """The rows that one model learns from.

    Attributes
    ----------
    X : ndarray of float32, shape (n, d)
    y : ndarray, shape (n,)
    groups : ndarray of int64, shape (n,), or None
    pool : ndarray of float32, shape (m, d)
        Rows without a label.
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


def supervised(recipe: Recipe, part: Part) -> Pipeline:
    """Fit the labelled rows alone."""
    return recipe.fit(part.X, part.y, part.groups)


def self_training(recipe: Recipe, part: Part) -> Pipeline:
    """Fit, take the surest predictions of rows without a label for their labels, and fit again (Yarowsky 1995).

    The parameters come from the labelled rows; at most ten rounds, until no label is surer than 0.9. What comes back
    is the last round's plain pipeline.
    """
    base = recipe.fit(part.X, part.y, part.groups)
    classes, codes = part.codes()
    known = codes[: len(part.y)]
    found = SelfTrainingClassifier(clone(base), threshold=SURE).fit(part.all_rows(), codes).transduction_
    found[: len(known)] = known
    return _fit_labelled(base, part.all_rows(), classes, found)


def spreading(recipe: Recipe, part: Part) -> Pipeline:
    """Spread labels over the graph of 20 nearest neighbours, and fit the rows they surely reach.

    Zhou et al. (2004), Learning with local and global consistency. Spreading says nothing of new rows, so that a plain
    top model, with the parameters of the labelled rows, is fitted on the spread labels that hold at least three
    quarters of their row's neighbourhood.
    """
    base = recipe.fit(part.X, part.y, part.groups)
    classes, codes = part.codes()
    rows = part.all_rows()
    for _, step in [*normalization(str(recipe.search.normalize)), ("unit", Normalizer())]:
        rows = step.fit_transform(rows)
    spread = LabelSpreading(kernel="knn", n_neighbors=min(NEIGHBOURS, len(rows) - 1), max_iter=200).fit(rows, codes)
    shares = np.nan_to_num(spread.label_distributions_)
    found = np.where(shares.max(axis=1) >= SPREAD_SURE, shares.argmax(axis=1), _UNKNOWN)
    known = codes != _UNKNOWN
    found[known] = codes[known]
    return _fit_labelled(base, part.all_rows(), classes, found)


def whiten(recipe: Recipe, part: Part) -> Pipeline:
    """Fit the labelled rows behind a PCA whitening that all rows, labelled or not, have taught (Raina et al. 2007)."""
    rows, Z = part.all_rows(), part.X
    steps = normalization(str(recipe.search.normalize))
    steps.append(("whiten", PCA(min(COMPONENTS, *rows.shape), whiten=True, random_state=recipe.search.random_state)))
    for _, step in steps:
        rows = step.fit_transform(rows)
        Z = step.transform(Z)
    return Pipeline([*steps, recipe.fit(Z, part.y, part.groups, normalize="none").steps[-1]])


METHODS: dict[str, Callable[[Recipe, Part], Pipeline]] = {
    "self-training": self_training,
    "spreading": spreading,
    "whiten": whiten,
}


def _fit_labelled(
    base: Pipeline, rows: NDArray[np.float32], classes: NDArray[Any], codes: NDArray[np.int64]
) -> Pipeline:
    """Fit a fresh copy of a pipeline on the rows that have a label."""
    has_label = codes != _UNKNOWN
    return clone(base).fit(rows[has_label], classes[codes[has_label]])


def _inner_folds(y: NDArray[Any], groups: Any) -> int:
    """Return how many folds the class of fewest rows (or groups) allows, from 2 to 5."""
    units = np.arange(len(y)) if groups is None else groups
    counts = [len(np.unique(units[y == name])) for name in np.unique(y)]
    return int(np.clip(min(counts), 2, INNER_FOLDS))
